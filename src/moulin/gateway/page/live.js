// Live speech over `WS /v1/stream`. After a lost connection it reconnects and sends all audio again that is not final
// yet, so that a short break loses nothing.

import { key } from "/page/server.js";

const RATE = 16000;
const RETRY_SEC = [1, 2, 4, 8, 15, 30];
const KEPT_SEC = 60; // audio kept until it is final; the beginning of a longer break is lost
const READY_SEC = 10;
const DONE_SEC = 10;
const PING_SEC = 2;
const STABLE_SEC = 10; // a connection that lasted this long resets the waiting times

const REASONS = { server_busy: "The server is full.", server_unavailable: "The recogniser does not answer." };

export class Live {
  // `on` has: listening(), partial(segment), final(segment), retry(seconds, reason), gap(seconds), roundTrip(ms),
  // delay(seconds), problem(message, hint), failed(message, hint), refused(). Times start at `fromSec`. `options` are those
  // of the search.
  constructor(model, on, { fromSec = 0, options = {} } = {}) {
    this.model = model;
    this.options = options;
    this.on = on;
    this.kept = []; // chunks from sample `keptFrom` on
    this.keptFrom = this.captured = this.sent = Math.round(fromSec * RATE); // in samples from the first one spoken
    this.missed = 0; // samples lost in the current break
    this.attempt = 0;
    this.state = "new"; // connecting, listening, waiting, resting (paused, not connected), ending, ended
    this.isPaused = false;
    this.newest = 0; // end of the last word shown, in seconds
    this.connect();
  }

  get capturedSec() { return this.captured / RATE; }

  // The microphone's next samples.
  push(chunk) {
    this.kept.push(chunk);
    this.captured += chunk.length;
    if (this.state === "listening") this.send(chunk);
    while (this.captured - this.keptFrom > KEPT_SEC * RATE) {
      this.forgetChunk();
      this.missed += Math.max(0, this.keptFrom - Math.max(this.sent, this.keptFrom - chunk.length));
    }
  }

  // Wait for the last words. Idempotent.
  async end() {
    if (this.state === "ended") return;
    clearTimeout(this.timer);
    if (this.state !== "listening") { // not connected: no words will come
      if (this.captured > this.sent) this.on.gap((this.captured - this.sent) / RATE);
      this.close();
      return;
    }
    this.state = "ending";
    const done = new Promise((resolve) => { this.done = resolve; setTimeout(resolve, DONE_SEC * 1000); });
    this.socket.send(JSON.stringify({ type: "end" }));
    await done;
    this.close();
  }

  // No audio will come for a while: the connection is kept if the server keeps it, and not sought again if it does not.
  pause() { this.isPaused = true; }

  resume() {
    this.isPaused = false;
    if (this.state === "resting") this.connect();
  }

  // Reconnect now instead of after the waiting time.
  retryNow() {
    if (this.state !== "waiting") return;
    clearTimeout(this.timer);
    this.connect();
  }

  connect() {
    this.state = "connecting";
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const protocols = key() ? ["moulin", `openai-insecure-api-key.${key()}`] : ["moulin"];
    const address = `${scheme}://${location.host}/v1/stream?model=${encodeURIComponent(this.model)}&sample_rate=${RATE}`;
    const socket = this.socket = new WebSocket(address, protocols);
    this.refusal = null;
    this.timer = setTimeout(() => socket.close(), READY_SEC * 1000);
    socket.onmessage = ({ data }) => socket === this.socket && this.take(JSON.parse(data));
    socket.onclose = ({ code, reason }) => socket === this.socket && this.closed(code, reason);
  }

  take(message) {
    const handlers = {
      ready: () => this.ready(),
      partial: () => this.show(message.segment, this.on.partial),
      final: () => this.settle(message.segment),
      pong: () => this.on.roundTrip(performance.now() - message.id),
      error: () => { this.refusal = message; this.withoutOptions(message); },
      done: () => this.done?.(),
    };
    handlers[message.type]?.();
  }

  ready() {
    clearTimeout(this.timer);
    this.state = "listening";
    this.readyAt = performance.now();
    this.startSec = this.keptFrom / RATE;
    if (this.missed) this.on.gap(this.missed / RATE);
    this.missed = 0;
    if (Object.keys(this.options).length) this.socket.send(JSON.stringify({ type: "options", options: this.options }));
    this.on.listening();
    this.sent = this.keptFrom;
    for (const chunk of this.kept) this.send(chunk);
    this.ping();
    this.pinging = setInterval(() => this.ping(), PING_SEC * 1000);
  }

  // Options that the server refuses, such as a word that it cannot spell, must not end the stream: go on without.
  withoutOptions({ code, message, hint }) {
    if (!Object.keys(this.options).length || !/^invalid_(options|request)$/.test(code)) return;
    this.options = {};
    this.on.problem(message, hint ?? "");
    clearInterval(this.pinging);
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.connect();
  }

  ping() { this.socket.send(JSON.stringify({ type: "ping", id: performance.now() })); }

  send(chunk) {
    this.socket.send(chunk);
    this.sent += chunk.length;
  }

  // Seconds of audio that wait for the network.
  get waitingSec() { return this.socket.bufferedAmount / 2 / RATE; }

  show(segment, show) {
    const placed = moved(segment, this.startSec);
    if (placed.end_sec > this.newest + 0.001) {
      this.newest = placed.end_sec;
      this.on.delay(Math.max(0, this.capturedSec - placed.end_sec));
    }
    show(placed);
  }

  settle(segment) {
    this.show(segment, this.on.final);
    const settled = (segment.end_sec + this.startSec) * RATE;
    while (this.kept.length && this.keptFrom + this.kept[0].length <= settled) this.forgetChunk();
  }

  forgetChunk() { this.keptFrom += this.kept.shift().length; }

  async closed(code, reason) {
    clearTimeout(this.timer);
    clearInterval(this.pinging);
    const wasReady = this.state === "listening" || this.state === "ending";
    if (this.state === "ending") { this.done(); return; }
    if (this.state === "ended") return;
    if (this.isPaused) { this.state = "resting"; return; }
    if (code === 4400 || code === 4404) { this.fail(this.refusal?.message ?? reason, this.refusal?.hint); return; }
    if (!wasReady && code === 1006 && await this.keyIsWanted()) { this.close(); this.on.refused(); return; }
    if (this.state === "ended") return;
    if (wasReady && performance.now() - this.readyAt > STABLE_SEC * 1000) this.attempt = 0;
    const wait = Math.max(RETRY_SEC[Math.min(this.attempt++, RETRY_SEC.length - 1)], this.refusal?.retry_after_sec ?? 0);
    this.state = "waiting";
    const unknown = wasReady ? "The connection was lost." : "The server does not answer.";
    this.on.retry(wait, REASONS[this.refusal?.code] ?? this.refusal?.message ?? unknown);
    this.timer = setTimeout(() => this.connect(), wait * 1000);
  }

  // Browsers do not report why a WebSocket was refused, so ask over plain HTTP.
  async keyIsWanted() {
    const headers = key() ? { authorization: `Bearer ${key()}` } : {};
    const response = await fetch("/v1/models", { headers }).catch(() => null);
    return response?.status === 401;
  }

  fail(message, hint) {
    this.close();
    this.on.failed(message, hint ?? "");
  }

  close() {
    this.state = "ended";
    clearTimeout(this.timer);
    clearInterval(this.pinging);
    const { socket } = this;
    socket.onmessage = socket.onclose = null;
    socket.close();
  }
}

// A segment with its times counted from the beginning of the recording.
function moved(segment, by) {
  const later = (words) => words.map((word) => ({ ...word, start_sec: word.start_sec + by, end_sec: word.end_sec + by }));
  const alternatives = segment.alternatives?.map((one) => ({ ...one, words: later(one.words) }));
  const times = { words: later(segment.words), start_sec: segment.start_sec + by, end_sec: segment.end_sec + by };
  return { ...segment, ...times, ...(alternatives ? { alternatives } : {}) };
}
