// Recordings to transcribe, one after another, each with its state.

import { clock, lasting } from "/page/clock.js";
import { byId } from "/page/dom.js";
import { FileList } from "/page/file_list.js";
import { hotwords, readings, chosen } from "/page/models.js";
import { noNotice, notice } from "/page/notice.js";
import { Peaks } from "/page/peaks.js";
import { pieceEntries, wholeEntries } from "/page/recording_entries.js";
import { transcribe } from "/page/server.js";

const RETRY_SEC = [5, 10, 20, 30];
const LOOK_MS = 250;

export class Files {
  // `on` has show(session), shown(), isShown(session), mayShow(), ready(text), needKey().
  constructor(sessions, on) {
    this.sessions = sessions;
    this.on = on;
    this.items = []; // { file, state, text, part, session, abort }; states: waiting, under way, later, done, failed
    this.list = new FileList(this);
  }

  get current() { return this.items.find(({ state }) => state === "under way" || state === "later") ?? null; }
  get isBusy() { return Boolean(this.current); }

  add(files) {
    if (!this.items.some(({ state }) => state === "waiting") && !this.isBusy) this.items = [];
    for (const file of files) this.items.push({ file, state: "waiting", text: "Waiting", part: null, session: null, tries: 0 });
    this.list.draw();
    this.next();
  }

  next() {
    const item = this.items.find(({ state }) => state === "waiting");
    if (item && !this.isBusy && chosen()) this.transcribe(item);
  }

  async transcribe(item) {
    if (this.items.length === 1) noNotice();
    Object.assign(item, { state: "under way", abort: new AbortController(), began: performance.now(), part: 0, heardSec: 0, sent: 0 });
    item.session ??= this.sessions.create({ kind: "recording", name: item.file.name, model: chosen().label });
    if (item.before === undefined) item.before = this.on.shown();
    const { session } = item;
    session.about({ file: item.file, peaks: new Peaks(), isGrowing: true });
    session.replace([]);
    if (this.on.mayShow()) this.on.show(session);
    this.on.ready();
    const clock = setInterval(() => this.progress(item), LOOK_MS);
    durationOf(item.file).then((seconds) => session.about({ expectedSec: seconds }));
    let done = "";
    try {
      done = this.finish(item, await this.heard(item));
    } catch (error) {
      this.failed(item, error);
    } finally {
      clearInterval(clock);
      session.about({ isGrowing: false });
      this.list.draw();
      this.on.ready(done);
      this.next();
    }
  }

  async heard(item) {
    await checkReadable(item.file);
    const model = chosen();
    return transcribe(item.file, (model.offline ?? model.live).id, {
      channels: byId("channels").value, hotwords: hotwords(), nbest: readings(), signal: item.abort.signal,
      onsent: (part) => { item.sent = part; this.progress(item); },
      onevent: (event) => this.take(item, event),
    });
  }

  take(item, event) {
    for (const peaks of event.peaks ?? []) item.session.peaks.accept(peaks);
    if (event.type !== "transcript.text.delta") return;
    Object.assign(item, { heardSec: event.heard_sec, channel: event.words[0]?.channel });
    for (const entry of pieceEntries(event)) item.session.add(entry);
    item.session.about({});
    this.progress(item);
  }

  progress(item) {
    if (item.state !== "under way") return;
    const expected = item.session.expectedSec, seconds = Math.floor((performance.now() - item.began) / 1000);
    if (item.sent < 1) Object.assign(item, { part: item.sent, text: `Sending, ${Math.round(item.sent * 100)} %` });
    else {
      item.part = expected && item.heardSec ? Math.min(1, item.heardSec / expected) : null;
      const channel = item.channel ? ` channel ${item.channel}` : "";
      item.text = item.part !== null ? `Transcribing${channel}, ${Math.floor(item.part * 100)} %`
        : item.heardSec ? `Transcribing${channel}, ${clock(item.heardSec)} so far`
        : `Transcribing${seconds > 2 ? ` for ${seconds} s` : ""}`;
    }
    this.list.draw();
  }

  finish(item, heard) {
    const tookSec = (performance.now() - item.began) / 1000, speed = heard.duration / tookSec;
    item.session.about({ durationSec: heard.duration, isGrowing: false });
    item.session.replace(wholeEntries(heard));
    const took = `${lasting(heard.duration)} in ${lasting(tookSec)}${speed >= 2 ? `, ${Math.round(speed)} times real time` : ""}`;
    Object.assign(item, { state: "done", part: null, text: `Transcribed ${took}` });
    return item.text;
  }

  failed(item, error) {
    if (error.status === 401) {
      Object.assign(item, { state: "waiting", text: "Waits for an API key" });
      this.on.needKey();
    } else if (error.isPassing) this.later(item, error);
    else {
      const cancelled = error.name === "AbortError";
      Object.assign(item, { state: "failed", part: null, text: cancelled ? "Cancelled" : error.message });
      if (!cancelled && this.items.length === 1) notice(error.message, error.hint ?? ""); // else the list says it
      if (item.session.isEmpty) this.leave(item);
      else {
        item.session.isGrowing = false;
        item.session.replace([...item.session.entries, { note: cancelled ? "Cancelled here." : "The rest was not transcribed." }]);
      }
    }
  }

  // Show again what was there before: a file that came to nothing takes nothing away.
  leave(item) {
    if (this.on.isShown(item.session)) this.on.show(item.before);
    this.sessions.remove(item.session);
    item.session = null;
  }

  // The server cannot do it now: wait, say how long, and try again.
  later(item, error) {
    const { text, hint, technical } = error.forVisitor;
    const seconds = Math.max(error.afterSec, RETRY_SEC[Math.min(item.tries++, RETRY_SEC.length - 1)]);
    const at = performance.now() + seconds * 1000;
    const look = () => {
      const left = Math.max(0, Math.ceil((at - performance.now()) / 1000));
      item.text = left ? `${text} Trying again in ${left} s.` : "Trying again.";
      this.list.draw();
      if (!left) this.again(item);
    };
    item.state = "later";
    item.timer = setInterval(look, 500);
    addEventListener("online", () => { if (item.state === "later") this.again(item); }, { once: true });
    look();
    notice(text, `${hint} This page tries again by itself.`, { label: "Try now", run: () => this.again(item) }, technical);
  }

  again(item) {
    clearInterval(item.timer);
    if (item.state !== "later" && item.state !== "failed") return;
    item.state = "waiting";
    item.text = "Waiting";
    noNotice();
    this.list.draw();
    this.next();
  }

  cancel(item) {
    clearInterval(item.timer);
    if (item.state === "under way") { item.abort.abort(); return; }
    if (item.state === "later") noNotice();
    const waited = item.state === "later";
    Object.assign(item, { state: "failed", part: null, text: "Cancelled" });
    if (item.session?.isEmpty) this.leave(item);
    this.list.draw();
    if (waited) { this.on.ready(); this.next(); }
  }

  // Forget the list; the texts stay.
  close() {
    this.items = this.items.filter(({ state }) => ["waiting", "under way", "later"].includes(state));
    this.list.draw();
  }
}

// Raises an error for a folder, and for a file that has gone: to the browser they fail as a lost connection does.
async function checkReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw Object.assign(new Error(`${file.name} cannot be read.`), { hint: "It has gone or changed, or is a folder: open the recordings in it." });
  }
}

// The duration of a file in seconds, or 0 where the browser cannot tell.
function durationOf(file) {
  return new Promise((resolve) => {
    const probe = new Audio(), address = URL.createObjectURL(file);
    const end = () => {
      clearTimeout(timer);
      resolve(Number.isFinite(probe.duration) ? probe.duration : 0);
      probe.onloadedmetadata = probe.onerror = null;
      probe.removeAttribute("src");
      URL.revokeObjectURL(address);
    };
    const timer = setTimeout(end, 10000);
    probe.preload = "metadata";
    probe.onloadedmetadata = probe.onerror = end;
    probe.src = address;
  });
}
