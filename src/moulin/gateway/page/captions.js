// Files of segments { text, words, start_sec, end_sec }. Segments that the server sent as cues are not split.

import { clock as shortClock } from "/page/clock.js";

// Subtitling guides allow two lines of 42 characters and 7 seconds; a pause of a second starts a new cue.
const MAX_CHARS = 84, MAX_SEC = 7, PAUSE_SEC = 1;
const LINGER_SEC = 0.8; // time for which a cue stays after its last word, if nothing follows

const LINE_COLUMNS = 42;
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]/u;

const named = ({ channel }) => channel ? `channel ${channel}` : "";
const bracketed = (label, text) => label ? `[${label}] ${text}` : text;

export const text = (segments) => segments.map((segment) => bracketed(named(segment), segment.text)).join("\n") + "\n";

export const timedText = (segments) =>
  segments.map((segment) => `${shortClock(segment.start_sec)}  ${bracketed(named(segment), segment.text)}`).join("\n") + "\n";

// As the server's JSON, with what a person corrected.
export const json = ({ name, model, durationSec, segments, warnings }) => JSON.stringify({
  name, model, duration_sec: durationSec, warnings: warnings.length ? warnings : undefined, text: segments.map((segment) => segment.text).join(" "),
  segments: segments.map(({ text, words, start_sec, end_sec, channel, alternatives, isCorrected }) => ({
    text, start_sec, end_sec, channel, corrected: isCorrected, words, alternatives,
  })),
}, null, 1) + "\n";

export const srt = (segments) =>
  cues(segments).map(({ text, start, end, label }, i) =>
    `${i + 1}\n${clock(start, ",")} --> ${clock(end, ",")}\n${bracketed(label, lines(text))}\n`).join("\n");

// Warnings are comments.
export const vtt = (segments, warnings = []) =>
  ["WEBVTT\n", ...warnings.map((text) => `NOTE ${text.trim().replace(/\s+/g, " ").replaceAll("-->", "->")}\n`), ...cues(segments).map(({ text, start, end, label }) =>
    `${clock(start, ".")} --> ${clock(end, ".")}\n${label ? `<v ${label}>` : ""}${escaped(lines(text))}\n`)].join("\n");

// A cue's text as one line, or as two about equally long, the second rather the longer one, as the server breaks them.
function lines(text) {
  if (columns(text) <= LINE_COLUMNS) return text;
  let best = text, least = Infinity;
  for (let at = 1; at < text.length; at++) {
    const space = text[at] === " ";
    if (!space && !WIDE.test(text[at]) && !WIDE.test(text[at - 1])) continue;
    if (!space && text[at - 1] === " ") continue;
    const first = text.slice(0, at), second = text.slice(at).trimStart();
    const [above, below] = [columns(first), columns(second)];
    if (Math.max(above, below) > LINE_COLUMNS) continue;
    const ends = /[.!?…。！？]$/.test(first) ? 1 : /[,;:，；：、]$/.test(first) ? 0.5 : 0;
    const cost = Math.abs(above - below) + (above > below ? 2 : 0) - 6 * ends;
    if (cost < least) [best, least] = [`${first}\n${second}`, cost];
  }
  return best;
}

const columns = (text) => [...text].reduce((sum, char) => sum + (WIDE.test(char) ? 2 : 1), 0);

function cues(segments) {
  const found = segments.flatMap((segment) => segment.isCue
    ? [{ text: segment.text, start: segment.start_sec, end: segment.end_sec, label: named(segment) }]
    : groups(segment).map((group) => ({ ...group, lingers: true })));
  found.forEach((cue, i) => {
    if (cue.lingers) cue.end = Math.max(cue.end, Math.min(cue.end + LINGER_SEC, found[i + 1]?.start ?? Infinity));
  });
  return found;
}

// A segment's words in groups, each as large as a cue allows.
function groups({ text, words }) {
  const found = [];
  let end = 0;
  for (const word of words) {
    const begin = text.indexOf(word.word, end);
    if (begin < 0) continue;
    end = begin + word.word.length;
    const group = found.at(-1);
    if (!group || word.start_sec - group.end > PAUSE_SEC || word.end_sec - group.start > MAX_SEC || end - group.begin > MAX_CHARS) {
      found.push({ begin, start: word.start_sec });
    }
    Object.assign(found.at(-1), { end: word.end_sec, text: text.slice(found.at(-1).begin, end) });
  }
  return found;
}

// Seconds as a time stamp: 3725.5 is 01:02:05.500, with `point` as the decimal point.
function clock(seconds, point) {
  const ms = Math.round(seconds * 1000);
  const pad = (value, width = 2) => String(Math.floor(value)).padStart(width, "0");
  return `${pad(ms / 3600000)}:${pad(ms / 60000 % 60)}:${pad(ms / 1000 % 60)}${point}${pad(ms % 1000, 3)}`;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
