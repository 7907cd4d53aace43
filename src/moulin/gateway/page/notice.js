// What went wrong, above the text, and what the visitor can do; and a short word with an undo, at the foot.

import { byId } from "/page/dom.js";

// `technical` is for whoever runs the server, and folded away.
export function notice(text, hint = "", action = null, technical = "") {
  byId("notice").hidden = false;
  // Unchanged words are not replaced, so that screen readers do not repeat them during a countdown.
  if (byId("notice-text").textContent !== text) byId("notice-text").textContent = text;
  byId("notice-hint").textContent = hint;
  byId("notice-action").hidden = !action;
  if (action) {
    byId("notice-action").textContent = action.label;
    byId("notice-action").onclick = action.run;
  }
  byId("notice-details").hidden = !technical;
  byId("notice-technical").textContent = technical;
}

export function noNotice() {
  byId("notice").hidden = true;
  byId("notice-text").textContent = "";
}

export const hasNotice = () => !byId("notice").hidden;

// A notice with a countdown of `seconds`, or until the device is online again, and then `run`; `hint(left)` says what happens. Returns a function that ends it.
export function countdown(seconds, text, hint, run, technical = "") {
  const at = performance.now() + seconds * 1000;
  let timer = 0;
  const end = () => { clearInterval(timer); removeEventListener("online", go); };
  const go = () => { end(); run(); };
  const show = () => {
    const left = Math.max(0, Math.ceil((at - performance.now()) / 1000));
    notice(text, hint(left), { label: "Try now", run: go }, technical);
    if (!left) go();
  };
  timer = setInterval(show, 500);
  addEventListener("online", go);
  show();
  return end;
}

const UNDO_MS = 20000;
let leaving = 0;

// Say what was done, with a way back for a while.
export function undoable(text, undo) {
  byId("undo-text").textContent = text;
  byId("undo").hidden = false;
  byId("undo-button").onclick = () => { noUndo(); undo(); };
  leaveLater();
}

// Behind a drawer nobody can reach it: it waits until that is closed.
function leaveLater() {
  clearTimeout(leaving);
  leaving = setTimeout(() => document.querySelector("dialog[open]") ? leaveLater() : noUndo(), UNDO_MS);
}

export function noUndo() {
  clearTimeout(leaving);
  byId("undo").hidden = true;
  byId("undo-text").textContent = "";
}
// Not while it is being read or used.
byId("undo").addEventListener("pointerenter", () => clearTimeout(leaving));
byId("undo").addEventListener("focusin", () => clearTimeout(leaving));
