// The choice of a model, what it is for, and options of the search.

import { byId } from "/page/dom.js";

const HOTWORDS = "moulin-hotwords";
let choices = [];

export const chosen = () => choices.find((choice) => choice.name === byId("model").value) ?? null;
export const has = () => choices.length > 0;

const languages = new Intl.DisplayNames(undefined, { type: "language" });
const languageName = (code) => { try { return languages.of(code); } catch { return code; } };

export function offer(found) {
  choices = found;
  const before = byId("model").value;
  byId("model").replaceChildren(...choices.map((choice) => {
    const only = choice.live ? "" : " (recordings only)"; // a live model hears recordings too
    return new Option(choice.label + only, choice.name);
  }));
  if (choices.some((choice) => choice.name === before)) byId("model").value = before;
  describe();
}

// Say what the chosen model is for.
export function describe() {
  const choice = chosen();
  const said = !choice ? "" : choice.description || choice.languages.map(languageName).join(", ");
  byId("about").hidden = !said;
  byId("about-text").textContent = said ? `${said}.` : "";
  byId("sample").hidden = !choice?.description;
  byId("hotwords-field").hidden = !choice?.hotwords;
  byId("readings-field").hidden = !choice?.alternatives;
}

// The visitor's words to expect.
export function hotwords() {
  if (!chosen()?.hotwords) return [];
  return [...new Set(byId("hotwords").value.split(/[,;\n]/).map((phrase) => phrase.trim()).filter(Boolean))];
}

export const readings = () => chosen()?.alternatives && byId("readings").checked ? 4 : 1;

// Options of a live stream, as its protocol names them.
export function liveOptions() {
  const words = hotwords(), nbest = readings();
  return { ...(words.length ? { hotwords: words } : {}), ...(nbest > 1 ? { nbest } : {}) };
}

byId("hotwords").value = sessionStorage.getItem(HOTWORDS) ?? "";
byId("hotwords").oninput = () => sessionStorage.setItem(HOTWORDS, byId("hotwords").value);

byId("options-button").onclick = () => {
  const open = byId("options").hidden;
  byId("options").hidden = !open;
  byId("options-button").ariaExpanded = open;
};
