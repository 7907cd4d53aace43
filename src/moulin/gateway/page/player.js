// The recording of the shown transcript: its sound, its waveform, and keys for both.

import { byId } from "/page/dom.js";
import { Waveform } from "/page/waveform.js";

const STEP_SEC = 5;
const FREE_MS = 4000; // after the visitor has scrolled, the text is left where it is
const OWN_KEYS = "input, textarea, select, button, a, summary, audio, dialog, [contenteditable]";

export class Player {
  constructor(transcript) {
    this.transcript = transcript;
    this.sound = byId("player");
    this.waveform = new Waveform((seconds) => this.seek(seconds));
    this.session = null;
    this.scrolledAt = 0;
    this.sound.ontimeupdate = () => this.mark();
    this.sound.onseeked = () => this.mark();
    this.sound.onplay = () => this.follow();
    // The server reads more formats than browsers play.
    this.sound.onerror = () => {
      if (!this.sound.src || !this.session) return;
      this.session.isUnplayable = true;
      this.sound.hidden = true;
      this.update();
    };
    for (const type of ["wheel", "touchmove"]) addEventListener(type, () => { this.scrolledAt = performance.now(); }, { passive: true });
    addEventListener("keydown", (event) => this.key(event));
  }

  // Show the sound of `session`, if it is a recording whose file is still there.
  show(session) {
    if (session !== this.session) {
      if (this.sound.src) {
        URL.revokeObjectURL(this.sound.src);
        this.sound.removeAttribute("src");
        this.sound.load();
      }
      this.session = session;
      this.waveform.played = 0;
      if (session?.file) this.sound.src = URL.createObjectURL(session.file);
      this.sound.hidden = !session?.file || Boolean(session.isUnplayable);
    }
    this.update();
  }

  // Take what is new of the session: its peaks, duration and words.
  update() {
    const { session } = this, isRecording = session?.kind === "recording";
    byId("recording").hidden = !isRecording;
    this.transcript.setPlayable(Boolean(isRecording && session.file && !session.isUnplayable));
    if (!isRecording) return;
    Object.assign(byId("recording-name"), { textContent: session.name, title: session.name });
    byId("recording-facts").textContent = !session.file ? "Only the text is kept. Open the recording again to hear it."
      : session.isUnplayable ? "This browser cannot play this kind of file; its text is below." : "";
    const duration = session.durationSec || session.expectedSec || session.peaks?.durationSec || 0;
    const words = session.segments.flatMap((segment) => segment.words).sort((a, b) => a.start_sec - b.start_sec);
    this.waveform.show(session.file ? session.peaks : null, duration, words);
  }

  seek(seconds, play = true) {
    this.sound.currentTime = Math.max(0, seconds);
    if (play) this.sound.play().catch(() => {});
    this.mark();
  }

  mark() {
    if (!this.session?.file) return;
    const seconds = this.sound.currentTime, mayScroll = performance.now() - this.scrolledAt > FREE_MS;
    this.transcript.mark(seconds, !this.sound.paused && mayScroll);
    this.waveform.mark(seconds, mayScroll);
  }

  // Between the browser's own updates, four a second, words would be lit late.
  follow() {
    if (this.sound.paused) return;
    this.mark();
    requestAnimationFrame(() => this.follow());
  }

  key(event) {
    if (!this.session?.file || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(OWN_KEYS)) return;
    const now = this.sound.currentTime;
    const keys = {
      " ": () => this.sound.paused ? this.sound.play().catch(() => {}) : this.sound.pause(),
      ArrowLeft: () => this.seek(now - STEP_SEC, false),
      ArrowRight: () => this.seek(now + STEP_SEC, false),
      ArrowUp: () => this.seek(this.transcript.neighbour(now, -1), false),
      ArrowDown: () => this.seek(this.transcript.neighbour(now, 1) ?? now, false),
      Home: () => this.seek(0, false),
      Escape: () => this.sound.pause(),
    };
    // Up, down and Home scroll the page unless the waveform has the focus.
    const isOurs = [" ", "ArrowLeft", "ArrowRight", "Escape"].includes(event.key) || event.target === byId("waveform");
    if (!keys[event.key] || !isOurs) return;
    event.preventDefault();
    keys[event.key]();
  }
}
