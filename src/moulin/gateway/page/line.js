// A segment of a transcript as a line: its time, its words, and what can be done with it.

import { clock } from "/page/clock.js";
import { button, element } from "/page/dom.js";

const UNSURE = 0.5; // confidence below which a word is marked

// { item, words: [{ start_sec, element }] } of a segment; `on` has correct(), take(alternative).
export function line(segment, { playable, correctable }, on) {
  const { said, words } = spoken(segment);
  if (segment.channel) said.prepend(element("span", { className: "speaker", dir: "ltr", textContent: `Channel ${segment.channel}` }), " ");
  const correct = button("Correct", on.correct, { className: "correct", ariaLabel: `Correct the text at ${clock(segment.start_sec)}` });
  const item = element("li", {}, stamp(segment.start_sec, playable), " ", said, ...(correctable ? [correct] : []));
  const others = (segment.alternatives ?? []).filter(({ text }) => text !== segment.text);
  if (others.length) item.append(readings(others, on));
  return { item, words };
}

// A line in place of a segment.
export const noteLine = (message) => element("li", { className: "gap" }, element("span", { textContent: message }));

// A segment's start, as a button if it can be played.
export function stamp(seconds, playable) {
  const time = clock(seconds);
  if (!playable) return element("span", { className: "at", textContent: time });
  const made = button(time, null, { className: "at", ariaLabel: `Play from ${time}` });
  made.dataset.sec = seconds;
  return made;
}

// A segment's text, which has the spaces between words, with each word as an element with its time.
export function spoken({ text, words }) {
  const said = element("span", { className: "said", dir: "auto" }), placed = [];
  let end = 0;
  for (const word of words) {
    const begin = text.indexOf(word.word, end);
    if (begin < 0) continue;
    const made = timed(word);
    placed.push({ start_sec: word.start_sec, element: made });
    said.append(text.slice(end, begin), made);
    end = begin + word.word.length;
  }
  said.append(text.slice(end));
  return { said, words: placed };
}

function timed({ word, start_sec: start, end_sec: end, confidence }) {
  const time = element("rt", { ariaHidden: "true", textContent: start.toFixed(start < 1000 ? 2 : 1) });
  const sure = confidence === undefined ? "" : `, ${Math.round(confidence * 100)} % sure`;
  const made = element("ruby", { title: `${start.toFixed(2)} to ${end.toFixed(2)} s${sure}` }, word, time);
  if (confidence < UNSURE) made.className = "unsure";
  made.dataset.sec = start;
  return made;
}

function readings(others, on) {
  const list = others.map((other) => element("li", {}, button(other.text || "(nothing)", () => on.take(other), { className: "reading", dir: "auto" })));
  const summary = element("summary", { textContent: others.length === 1 ? "1 other reading" : `${others.length} other readings` });
  return element("details", { className: "readings" }, summary, element("ul", {}, ...list));
}
