// What the server says about a recording as entries of a session.

// Of an event with a further piece.
export function pieceEntries({ delta, words }) {
  const found = words.map(placed), text = delta.trim();
  return text && found.length ? [segment({ text, start: found[0].start_sec, end: found.at(-1).end_sec, channel: words[0].channel }, found)] : [];
}

// Of the whole transcript: its parts with other readings, where they were asked for, or subtitles.
export function wholeEntries(heard) {
  const parts = heard.parts ?? (heard.alternatives ? [heard] : null);
  const entries = parts ? parts.flatMap(({ alternatives }) => partEntries(alternatives)) : cueEntries(heard);
  if (!entries.length) entries.push({ note: "No words were recognised in this recording." });
  return [...entries, ...(heard.warnings ?? []).map((warning) => ({ note: `Note: ${warning}`, warning }))];
}

function partEntries(alternatives) {
  const [{ text, words }] = alternatives;
  if (!words.length) return [];
  return [{ ...segment({ text, start: words[0].start_sec, end: words.at(-1).end_sec, channel: words[0].channel }, words), alternatives }];
}

function cueEntries({ segments = [], words = [] }) {
  const byChannel = new Map();
  for (const word of words) {
    if (!byChannel.has(word.channel)) byChannel.set(word.channel, []);
    byChannel.get(word.channel).push(placed(word));
  }
  const at = new Map();
  return segments.map((cue) => {
    const own = byChannel.get(cue.channel) ?? [], begin = at.get(cue.channel) ?? 0;
    let end = begin;
    while (end < own.length && own[end].start_sec < cue.end) end++;
    at.set(cue.channel, end);
    return { ...segment(cue, own.slice(begin, end)), isCue: true };
  });
}

const segment = ({ text, start, end, channel }, words) =>
  ({ text, words, start_sec: start, end_sec: end, ...(channel ? { channel } : {}) });

const placed = ({ word, start, end, confidence, channel }) =>
  ({ word, start_sec: start, end_sec: end, confidence, ...(channel ? { channel } : {}) });
