// The page: live speech, recordings, and messages about errors.

import * as captions from "/page/captions.js";
import { Live } from "/page/live.js";
import { Microphone, MicrophoneError } from "/page/microphone.js";
import { key, models, transcribe, useKey } from "/page/server.js";
import { Transcript } from "/page/transcript.js";
import { Waveform } from "/page/waveform.js";

const byId = (id) => document.getElementById(id);
const player = byId("player");
const seek = (seconds) => { player.currentTime = seconds; player.play().catch(() => {}); };
const transcript = new Transcript(seek);
const waveform = new Waveform(byId("waveform"), byId("canvas"), seek);

let choices = [];
let name = "transcript"; // base name of downloads

// Status messages

function status(text) { byId("status").textContent = text; }

function notice(text, hint = "", action = null) {
  byId("notice").hidden = false;
  // Unchanged words are not replaced, so that screen readers do not repeat them during a countdown.
  if (byId("notice-text").textContent !== text) byId("notice-text").textContent = text;
  byId("notice-hint").textContent = hint;
  byId("notice-action").hidden = !action;
  if (action) {
    byId("notice-action").textContent = action.label;
    byId("notice-action").onclick = action.run;
  }
}

function noNotice() {
  byId("notice").hidden = true;
  byId("notice-text").textContent = "";
}

function tell(error, action = null) {
  if (error.status === 401) askForKey();
  else notice(error.message, error.hint ?? "", action);
}

// Models

const chosen = () => choices.find((choice) => choice.name === byId("model").value) ?? null;

const RETRY_MS = 5000;
let retry = 0;

async function loadModels() {
  clearTimeout(retry);
  if (byId("notice").hidden) status("Looking for models");
  try {
    choices = await models();
  } catch (error) {
    status("Not ready");
    tell(error, { label: "Try again", run: loadModels });
    if (error.status === 0 || error.status === 503) retry = setTimeout(loadModels, RETRY_MS);
    return;
  }
  noNotice();
  const before = byId("model").value;
  byId("model").replaceChildren(...choices.map((choice) => {
    const only = choice.live ? "" : " (recordings only)"; // a live model hears recordings too
    return new Option(choice.name + only, choice.name);
  }));
  if (choices.some((choice) => choice.name === before)) byId("model").value = before;
  if (!choices.length) notice("The server offers no model.", "Serve one with moulin serve MODEL.", { label: "Try again", run: loadModels });
  ready();
}

// Enable the controls that can be used now, and show `text` or a default as the status.
function ready(text = "") {
  const busy = Boolean(session || upload), choice = chosen();
  byId("model").disabled = busy || !choices.length;
  byId("speak").disabled = Boolean(upload) || (!session && !choice?.live);
  byId("open").disabled = byId("channels").disabled = busy || !choice;
  if (busy) return;
  if (text) status(text);
  else if (!choice) status("Not ready");
  else if (!choice.live) status("This model takes recordings only");
  else status("Ready");
}

function askForKey() {
  noNotice();
  byId("key-label").textContent = key()
    ? "This server does not know that API key. Another one?"
    : "This server asks for an API key. It stays in this tab.";
  byId("key-form").hidden = false;
  byId("key").focus();
  status("A key is needed");
}

byId("key-form").onsubmit = (event) => {
  event.preventDefault();
  useKey(byId("key").value.trim());
  byId("key").value = "";
  byId("key-form").hidden = true;
  loadModels();
};

byId("model").onchange = () => ready();

// Live speech

let session = null;
let spokenSec = 0; // seconds spoken before, at which the next start continues

class Speaking {
  constructor(model) {
    this.model = model;
    this.microphone = new Microphone({ onchunk: (chunk) => this.live?.push(chunk), onlost: () => this.lostMicrophone() });
    this.roundTrip = null;
    this.delays = [];
  }

  async start() {
    noNotice();
    button(true, "Stop");
    status("Waiting for the microphone");
    await this.microphone.start();
    if (this.stopped) { await this.microphone.stop(); return; }
    if (!byId("recording").hidden) { // the page shows a recording, not live speech
      forgetRecording();
      transcript.clear();
      spokenSec = 0;
    }
    name = "speech";
    status("Connecting");
    this.live = new Live(this.model, {
      listening: () => { this.noRetry(); status("Listening"); },
      partial: (segment) => transcript.partial(segment),
      final: (segment) => transcript.final(segment),
      gap: (seconds) => this.missed(seconds),
      retry: (seconds, reason) => this.retry(seconds, reason),
      roundTrip: (ms) => { this.roundTrip = ms; },
      delay: (seconds) => { this.delays = [...this.delays.slice(-4), seconds]; },
      failed: (message, hint) => { this.stop(); notice(message, hint); },
      refused: () => { this.stop(); askForKey(); },
    }, spokenSec);
    this.meter();
    this.wakeLock = await navigator.wakeLock?.request("screen").catch(() => null);
  }

  async stop() {
    if (this.stopped) return;
    this.stopped = true;
    this.noRetry();
    cancelAnimationFrame(this.frame);
    showLevel(-Infinity);
    byId("speak").disabled = true;
    status("Finishing");
    await this.microphone.stop();
    await this.live?.end();
    spokenSec = this.live?.capturedSec ?? spokenSec;
    transcript.settle();
    this.wakeLock?.release();
    byId("figures").textContent = "";
    session = null;
    button(false, "Speak");
    ready();
  }

  lostMicrophone() {
    notice("The microphone went away.", "What was said until then is below.");
    this.stop();
  }

  // After a break longer than the kept audio, or when stopping during a break.
  missed(seconds) {
    if (seconds < 0.5) return;
    transcript.settle();
    transcript.gap(`Not connected: ${Math.round(seconds)} s were not heard.`);
  }

  // A countdown in seconds to the next attempt.
  retry(seconds, reason) {
    this.noRetry();
    status("Reconnecting");
    const at = performance.now() + seconds * 1000;
    const show = () => {
      const left = Math.max(0, Math.ceil((at - performance.now()) / 1000));
      const hint = left ? `Trying again in ${left} s. What you say meanwhile is kept for a minute.` : "Trying again.";
      notice(reason, hint, { label: "Try now", run: () => this.live.retryNow() });
    };
    show();
    this.countdown = setInterval(show, 500);
  }

  noRetry() {
    if (this.countdown) noNotice();
    clearInterval(this.countdown);
    this.countdown = 0;
  }

  meter() {
    showLevel(this.microphone.level());
    const delay = [...this.delays].sort((a, b) => a - b)[this.delays.length >> 1];
    const connected = this.live.state === "listening";
    const waiting = connected ? this.live.waitingSec : 0;
    byId("figures").textContent = !connected ? "" : [
      waiting > 1 ? `network ${waiting.toFixed(0)} s behind` : "",
      delay === undefined ? "" : `text after ${delay.toFixed(1)} s`,
      this.roundTrip === null ? "" : `${Math.round(this.roundTrip)} ms to the server`,
    ].filter(Boolean).join(" · ");
    this.frame = requestAnimationFrame(() => this.meter());
  }
}

function button(on, label) {
  byId("speak").classList.toggle("on", on);
  byId("speak-label").textContent = label;
  byId("speak").disabled = false;
  ready();
}

function showLevel(decibels) {
  const shown = Math.round(Math.max(-60, Math.min(0, decibels)));
  if (byId("level").ariaValueNow === String(shown)) return;
  byId("level-bar").style.transform = `scaleX(${(shown + 60) / 60})`;
  byId("level").classList.toggle("loud", shown > -3);
  byId("level").ariaValueNow = shown;
  byId("level").ariaValueText = decibels === -Infinity ? "off" : `${Math.round(shown)} decibels`;
}

byId("speak").onclick = async () => {
  if (session) { session.stop(); return; }
  const speaking = session = new Speaking(chosen().live);
  try {
    await speaking.start();
  } catch (error) {
    await speaking.stop();
    if (!(error instanceof MicrophoneError)) console.error(error);
    tell(error);
  }
};

// Recordings

let upload = null;

async function open(file) {
  if (session || upload || !chosen()) return;
  noNotice();
  forgetRecording();
  transcript.clear();
  spokenSec = 0;
  upload = new AbortController();
  ready();
  status("Transcribing a recording");
  name = file.name.replace(/\.[^.]*$/, "") || "transcript";
  byId("recording").hidden = byId("progress").hidden = false;
  transcript.changed();
  byId("recording-name").textContent = file.name;
  const began = performance.now();
  const clock = setInterval(() => showProgress(began), 250);
  let done = "";
  sent = 0;
  try {
    const heard = await transcribe(file, chosen().offline ?? chosen().live, {
      channels: byId("channels").value, signal: upload.signal, onsent: (part) => { sent = part; },
    });
    byId("progress").hidden = true;
    done = tookText(heard.duration, (performance.now() - began) / 1000);
    await showRecording(file, heard);
  } catch (error) {
    forgetRecording();
    if (error.name !== "AbortError") tell(error);
  } finally {
    clearInterval(clock);
    upload = null;
    ready(done);
  }
}

let sent = 0;

function showProgress(began) {
  const seconds = Math.floor((performance.now() - began) / 1000);
  const bar = byId("progress-bar");
  if (sent < 1) bar.value = sent;
  else bar.removeAttribute("value"); // the duration of recognition is unknown
  const text = sent < 1 ? `Sending, ${Math.round(sent * 100)} %` : `Transcribing${seconds > 2 ? ` for ${seconds} s` : ""}`;
  if (byId("progress-text").textContent !== text) byId("progress-text").textContent = text;
}

function tookText(durationSec, tookSec) {
  const speed = durationSec / tookSec;
  const times = speed >= 2 ? `, ${Math.round(speed)} times real time` : "";
  return `Transcribed ${durationSec.toFixed(1)} s in ${tookSec.toFixed(1)} s${times}`;
}

async function showRecording(file, heard) {
  transcript.playable = true;
  const words = (heard.words ?? []).map(({ word, start, end, channel }) => ({ word, start_sec: start, end_sec: end, channel }));
  const left = new Set(words);
  for (const { text, start, end, channel } of heard.segments ?? []) {
    const own = [...left].filter((word) => word.channel === channel && word.start_sec < end);
    own.forEach((word) => left.delete(word));
    transcript.final({ text, start_sec: start, end_sec: end, words: own, isCue: true, channel });
  }
  for (const warning of heard.warnings ?? []) transcript.gap(`Note: ${warning}`);
  if (!words.length) transcript.gap("No words were recognised in this recording.");
  player.src = URL.createObjectURL(file);
  player.hidden = false;
  await waveform.load(file, heard.duration);
  waveform.show(words);
}

function forgetRecording() {
  byId("recording").hidden = byId("waveform").hidden = player.hidden = true;
  transcript.changed();
  if (player.src) {
    URL.revokeObjectURL(player.src);
    player.removeAttribute("src");
    player.load();
  }
}

player.ontimeupdate = () => {
  transcript.mark(player.currentTime);
  waveform.mark(player.currentTime);
};
player.onerror = () => { player.hidden = true; }; // the server reads more formats than browsers play

byId("cancel").onclick = () => upload?.abort();
byId("open").onclick = () => byId("file").click();
byId("file").onchange = () => {
  const [file] = byId("file").files;
  byId("file").value = "";
  if (file) open(file);
};

let dragged = 0;
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => { if (holdsFiles(event)) byId("drop").hidden = !++dragged; });
addEventListener("dragleave", (event) => { if (holdsFiles(event)) byId("drop").hidden = !(dragged = Math.max(0, dragged - 1)); });
addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  dragged = 0;
  byId("drop").hidden = true;
  if (session || upload) notice("One thing at a time: stop speaking first.");
  else if (!chosen()) notice("There is no model yet.");
  else open(event.dataTransfer.files[0]);
});

// Tools

function save(ending, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: `${type};charset=utf-8` }));
  link.download = `${name}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

byId("save-txt").onclick = () => save("txt", "text/plain", captions.text(transcript.segments));
byId("save-srt").onclick = () => save("srt", "application/x-subrip", captions.srt(transcript.segments));
byId("save-vtt").onclick = () => save("vtt", "text/vtt", captions.vtt(transcript.segments));
byId("copy").onclick = async () => {
  try {
    await navigator.clipboard.writeText(captions.text(transcript.segments));
    status("Copied");
  } catch {
    notice("The browser does not let this page copy.", "Text saves it as a file.");
  }
};
byId("clear").onclick = () => {
  transcript.clear();
  spokenSec = 0;
  if (!session) forgetRecording();
  byId(session ? "transcript" : "speak").focus();
};

const TIMES = "moulin-times";
byId("times").checked = localStorage.getItem(TIMES) !== "no";
byId("times").onchange = () => {
  localStorage.setItem(TIMES, byId("times").checked ? "yes" : "no");
  transcript.showTimes(byId("times").checked);
};
transcript.showTimes(byId("times").checked);

byId("transcript").addEventListener("transcript", () => {
  byId("empty").hidden = !transcript.isEmpty || !byId("recording").hidden;
  byId("tools").hidden = !transcript.segments.length;
  // Keep the position if the user has scrolled up.
  const below = document.documentElement.scrollHeight - innerHeight - scrollY;
  if (session && below < 240) scrollTo({ top: document.documentElement.scrollHeight });
});

addEventListener("beforeunload", () => { session?.microphone.stop(); });

loadModels();
