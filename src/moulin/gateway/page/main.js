// The page: which transcript is shown, what may be pressed, and how its parts work together.

import { byId } from "/page/dom.js";
import { onFiles } from "/page/dropping.js";
import { Earlier } from "/page/earlier.js";
import { Files } from "/page/files.js";
import { Find } from "/page/find.js";
import { MicrophoneError } from "/page/microphone.js";
import * as models from "/page/models.js";
import { countdown, hasNotice, noNotice, noUndo, notice, undoable } from "/page/notice.js";
import { Player } from "/page/player.js";
import { offerFiles } from "/page/saving.js";
import { key, models as servedModels, settings, useKey } from "/page/server.js";
import { Sessions } from "/page/sessions.js";
import { Speaking } from "/page/speaking.js";
import { hold } from "/page/spoken_by_one.js";
import { Transcript } from "/page/transcript.js";

const RETRY_SEC = [5, 5, 10, 20, 30];

let shown = null; // the session on the page
let speaking = null;

const sessions = new Sessions();
const transcript = new Transcript({ onseek: (seconds) => player.seek(seconds), onchange: () => changed() });
const player = new Player(transcript);
const find = new Find();
const files = new Files(sessions, {
  show, ready, needKey: askForKey,
  shown: () => shown,
  isShown: (session) => session === shown,
  // The first of several is shown; then it is the visitor's choice.
  mayShow: () => !speaking && !files.items.some(({ session }) => session && session === shown),
});
new Earlier(sessions, { show, remove: clear, isShown: (session) => session === shown, fresh: () => show(null), forgetAll });

function say(text) { if (byId("status").textContent !== text) byId("status").textContent = text; }

// The transcript on the page

async function show(session) {
  if (session && !sessions.known.has(session.id)) sessions.put(session); // one that was cleared, from the list of files
  if (session) await sessions.load(session);
  for (const type of ["reset", "added", "about"]) {
    shown?.removeEventListener(type, update);
    session?.addEventListener(type, update);
  }
  shown = session;
  sessions.remember(session);
  transcript.show(session);
  player.show(session);
  files.list.draw();
  scrollTo({ top: 0 });
}

let updating = null;
function update() { updating ??= requestAnimationFrame(() => { updating = null; player.update(); }); }

function changed() {
  const isEmpty = !shown || shown.isEmpty, hasText = Boolean(shown?.segments.length);
  byId("empty").hidden = !isEmpty || !byId("recording").hidden || files.isBusy;
  byId("tools").hidden = byId("find-field").hidden = !hasText;
  byId("unsure-hint").hidden = !byId("finals").querySelector(".unsure");
  byId("clear").disabled = files.current?.session === shown;
  find.search();
  // Follow what is being said, unless the visitor has scrolled up.
  const below = document.documentElement.scrollHeight - innerHeight - scrollY;
  if (speaking?.session === shown && below < 240) scrollTo({ top: document.documentElement.scrollHeight });
}

// Take a transcript away, with a way back.
async function clear(session) {
  await sessions.load(session);
  if (speaking?.session === session) {
    const { entries } = session;
    session.replace([]);
    undoable("Cleared.", () => session.replace([...entries, ...session.entries]));
    return;
  }
  const wasShown = session === shown;
  if (files.current?.session === session) files.cancel(files.current);
  sessions.remove(session);
  ready();
  if (wasShown) { await show(null); byId("speak").focus(); }
  undoable(wasShown ? "Cleared." : "Deleted.", () => { sessions.put(session); if (wasShown) show(session); });
}

function forgetAll() {
  const growing = [speaking?.session, files.current?.session].filter(Boolean);
  sessions.forgetAll(growing);
  files.close();
  noUndo();
  if (!growing.includes(shown)) show(growing[0] ?? null);
}

// Models

let tries = 0, endCountdown = () => {};

async function loadModels() {
  endCountdown();
  if (!hasNotice()) say("Looking for models");
  let found = [], problem = { text: "There is no model on this server yet.", hint: "It may still be starting.", technical: "Serve one with moulin serve MODEL" };
  try {
    found = await servedModels();
    models.offer(found);
  } catch (error) {
    if (error.status === 401) { askForKey(); return; }
    problem = error.forVisitor ?? { text: "This page has a fault.", hint: "", technical: String(error) };
  }
  if (found.length) {
    tries = 0;
    noNotice();
    ready();
    files.next();
    return;
  }
  say("Not ready");
  const hint = (left) => `${problem.hint} ${left ? `This page tries again in ${left} s.` : "Trying again."}`.trim();
  endCountdown = countdown(RETRY_SEC[Math.min(tries++, RETRY_SEC.length - 1)], problem.text, hint, loadModels, problem.technical);
}

// Enable what can be used now, and show `text` or a default as the status.
function ready(text = "") {
  const busy = Boolean(speaking || files.isBusy), choice = models.chosen();
  byId("model").disabled = busy || !models.has();
  byId("speak").disabled = !speaking && !choice?.live;
  byId("open").disabled = !choice;
  byId("pause").hidden = !speaking?.live;
  changed();
  if (speaking) return;
  if (files.isBusy) say(files.current.state === "later" ? "Waiting for the server" : "Transcribing a recording");
  else if (text) say(text);
  else if (!choice) say("Not ready");
  else say(choice.live ? "Ready" : "This model takes recordings only");
}

byId("model").onchange = () => { models.describe(); ready(); };

function askForKey() {
  noNotice();
  byId("key-label").textContent = key()
    ? "This server does not know that API key. Another one?"
    : "This server asks for an API key. It stays in this tab.";
  byId("key-form").hidden = false;
  byId("key").focus();
  say("A key is needed");
}

byId("key-form").onsubmit = (event) => {
  event.preventDefault();
  useKey(byId("key").value.trim());
  byId("key").value = "";
  byId("key-form").hidden = true;
  loadModels();
};

// Live speech

async function speak() {
  if (speaking) { speaking.stop(); return; }
  let session = shown?.kind === "speech" ? shown : null;
  let release = session && await hold(session);
  if (!release) {
    session = sessions.create({ kind: "speech", name: "Speech", model: models.chosen().label });
    release = await hold(session);
    await show(session);
  }
  const ended = () => {
    release();
    speaking = null;
    button("Speak");
    byId("pause").textContent = "Pause";
    if (session.isEmpty) {
      sessions.remove(session);
      if (shown === session) show(null);
    }
    ready();
  };
  speaking = new Speaking(session, models.chosen().live.id, models.liveOptions(), { say, ended, needKey: askForKey });
  button("Stop");
  ready();
  try {
    await speaking.start();
    ready();
  } catch (error) {
    await speaking?.stop();
    if (!(error instanceof MicrophoneError)) console.error(error);
    notice(error.message, error.hint ?? "");
  }
}

function button(label) {
  byId("speak").classList.toggle("on", Boolean(speaking));
  byId("speak-label").textContent = label;
}

byId("speak").onclick = speak;
byId("pause").onclick = () => {
  byId("pause").textContent = speaking.isPaused ? "Pause" : "Go on";
  speaking.pause(!speaking.isPaused);
};

// Recordings

onFiles((chosen) => {
  if (models.chosen()) files.add(chosen);
  else notice("There is no model yet.", "Try it again when there is.");
});

byId("sample").onclick = async () => {
  const response = await fetch("/page/sample.flac").catch(() => null);
  if (response?.ok) files.add([new File([await response.blob()], "sample.flac", { type: "audio/flac" })]);
  else notice("The sample could not be fetched.", "Try it again.");
};

// Tools

offerFiles(() => shown, say);
byId("clear").onclick = () => clear(shown);

const TIMES = "moulin-times";
byId("times").checked = localStorage.getItem(TIMES) === "yes";
byId("times").onchange = () => {
  localStorage.setItem(TIMES, byId("times").checked ? "yes" : "no");
  transcript.showTimes(byId("times").checked);
};
transcript.showTimes(byId("times").checked);

// A reload, or the end

addEventListener("beforeunload", (event) => {
  const isUnkept = sessions.list.length > 0 && !sessions.keeps;
  if (speaking || files.isBusy || isUnkept) event.preventDefault(); // the browser asks
});
addEventListener("pagehide", () => {
  document.activeElement?.blur(); // a correction is kept
  speaking?.session.settle();
  sessions.rescue();
  speaking?.microphone.stop();
});

async function start() {
  const before = await sessions.open((await settings()).history);
  if (before && !shown) await show(before);
}

start();
loadModels();
