// Live speech into a session: the microphone, the connection, and what is said about both.

import { byId } from "/page/dom.js";
import { Level } from "/page/level.js";
import { Live } from "/page/live.js";
import { Microphone } from "/page/microphone.js";
import { countdown, noNotice, notice } from "/page/notice.js";

const GAP_SEC = 2; // a longer time without samples is told in the text

export class Speaking {
  // `on` has say(text), ended(), needKey(). `model` is the live model's name, `options` those of its search.
  constructor(session, model, options, on) {
    Object.assign(this, { session, model, options, on, roundTrip: null, delays: [], isPaused: false, isMuted: false });
    this.level = new Level();
    this.microphone = new Microphone({
      onchunk: (chunk, at) => this.push(chunk, at),
      onlost: () => this.lostMicrophone(),
      onmuted: (yes) => this.muted(yes),
    });
    this.onvisible = () => { if (!document.hidden) this.wake(); };
  }

  // Raises MicrophoneError.
  async start() {
    noNotice();
    this.on.say("Waiting for the microphone");
    await this.microphone.start();
    if (this.isStopped) { await this.microphone.stop(); return; }
    this.on.say("Connecting");
    const { session } = this;
    this.live = new Live(this.model, {
      listening: () => { this.noRetry(); this.say(); },
      partial: (segment) => session.partial(segment),
      final: (segment) => session.add(segment),
      gap: (seconds) => this.missed(seconds),
      retry: (seconds, reason) => this.retry(seconds, reason),
      roundTrip: (ms) => { this.roundTrip = ms; },
      delay: (seconds) => { this.delays = [...this.delays.slice(-4), seconds]; },
      problem: (message, hint) => notice(message, hint),
      failed: (message, hint) => { this.stop(); notice(message, hint); },
      refused: () => { this.stop(); this.on.needKey(); },
    }, { fromSec: session.durationSec, options: this.options });
    this.heardAt = Date.now();
    this.meter();
    document.addEventListener("visibilitychange", this.onvisible);
    this.stayAwake();
  }

  say() {
    this.on.say(this.isPaused ? "Paused" : this.isMuted ? "The device has paused the microphone" : "Listening");
  }

  // `at` is when it was heard, in ms: this window may be busy meanwhile.
  push(chunk, at) {
    // A locked screen or a call stops the sound without a word. The segment that is open goes on.
    const silentSec = (at - this.heardAt) / 1000;
    if (!this.isPaused && silentSec > GAP_SEC) this.session.note(`The device paused the microphone for ${Math.round(silentSec)} s.`);
    this.heardAt = at;
    this.live?.push(chunk);
  }

  // Hear nothing until it goes on; the text and its times stay.
  async pause(yes) {
    this.isPaused = yes;
    if (yes) {
      this.live?.pause();
      await this.microphone.pause();
    } else {
      this.heardAt = Date.now();
      await this.microphone.resume();
      this.live?.resume();
      this.stayAwake();
    }
    if (!this.isStopped && (yes || this.live?.state === "listening")) this.say();
  }

  async stop() {
    if (this.isStopped) return;
    this.isStopped = true;
    document.removeEventListener("visibilitychange", this.onvisible);
    this.noRetry();
    cancelAnimationFrame(this.frame);
    this.level.show(-Infinity, false);
    byId("speak").disabled = true;
    this.on.say("Finishing");
    await this.microphone.stop();
    await this.live?.end();
    this.session.about({ durationSec: this.live?.capturedSec ?? this.session.durationSec });
    this.session.settle();
    this.wakeLock?.release();
    byId("figures").textContent = "";
    this.on.ended();
  }

  lostMicrophone() {
    notice("The microphone went away.", "What was said until then is below.");
    this.stop();
  }

  muted(yes) {
    this.isMuted = yes;
    if (this.live?.state === "listening") this.say();
  }

  // The screen is on again: a lock of it lets the screen sleep and may have stopped the sound.
  wake() {
    this.stayAwake();
    if (!this.isPaused) this.microphone.resume().catch(() => {});
  }

  async stayAwake() {
    if (this.wakeLock?.released === false) return;
    this.wakeLock = await navigator.wakeLock?.request("screen").catch(() => null);
    if (this.isStopped) this.wakeLock?.release();
  }

  // After a break longer than the kept audio, or when stopping during a break.
  missed(seconds) {
    if (seconds < 0.5) return;
    this.session.settle();
    this.session.note(`Not connected: ${Math.round(seconds)} s were not heard.`);
  }

  retry(seconds, reason) {
    this.noRetry();
    this.on.say("Reconnecting");
    const hint = (left) => left ? `Trying again in ${left} s. What you say meanwhile is kept for a minute.` : "Trying again.";
    this.endCountdown = countdown(seconds, reason, hint, () => this.live.retryNow());
    this.isRetrying = true;
  }

  noRetry() {
    this.endCountdown?.();
    if (this.isRetrying) noNotice();
    this.isRetrying = false;
  }

  meter() {
    this.level.show(this.isPaused ? -Infinity : this.microphone.level(), !this.isPaused);
    const figures = this.isPaused || this.live.state !== "listening" ? "" : this.figures();
    if (byId("figures").textContent !== figures) byId("figures").textContent = figures;
    byId("figures").title = this.roundTrip === null ? "" : `${Math.round(this.roundTrip)} ms to the server and back`;
    this.frame = requestAnimationFrame(() => this.meter());
  }

  figures() {
    const delay = [...this.delays].sort((a, b) => a - b)[this.delays.length >> 1];
    const waiting = this.live.waitingSec;
    if (waiting > 1) return `Slow network: ${waiting.toFixed(0)} s still to send`;
    return delay === undefined ? "" : `Text ${delay.toFixed(1)} s behind your voice`;
  }
}
