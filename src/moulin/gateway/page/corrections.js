// Times for the words of a text that a person has corrected.

const WORDS = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]|[^\s\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]+/gu;

// What to put into `segment` for it to have this text. Words that stay keep their times and confidences; new ones share
// the time between their neighbours.
export function corrected(segment, text) {
  const clean = text.replace(/\s+/g, " ").trim(), written = clean.match(WORDS) ?? [];
  const kept = alignment(segment.words.map(({ word }) => word), written);
  const words = [];
  for (let i = 0; i < written.length;) {
    if (kept[i] >= 0) {
      words.push(segment.words[kept[i++]]);
      continue;
    }
    let end = i;
    while (end < written.length && kept[end] < 0) end++;
    const from = words.at(-1)?.end_sec ?? segment.start_sec;
    const to = Math.max(from, end < written.length ? segment.words[kept[end]].start_sec : segment.end_sec);
    const each = (to - from) / (end - i);
    written.slice(i, end).forEach((word, k) => words.push({
      word, start_sec: from + k * each, end_sec: from + (k + 1) * each,
      ...(segment.channel ? { channel: segment.channel } : {}),
    }));
    i = end;
  }
  return { text: clean, words, isCorrected: true };
}

// For each word of `after` its place in `before`, or -1: a longest common subsequence.
function alignment(before, after) {
  const table = Array.from({ length: before.length + 1 }, () => new Uint16Array(after.length + 1));
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = after.length - 1; j >= 0; j--) {
      table[i][j] = before[i] === after[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
    }
  }
  const kept = after.map(() => -1);
  for (let i = 0, j = 0; i < before.length && j < after.length;) {
    if (before[i] === after[j]) kept[j++] = i++;
    else if (table[i + 1][j] >= table[i][j + 1]) i++;
    else j++;
  }
  return kept;
}
