// The transcript on the page: final segments, and the open one.

const byId = (id) => document.getElementById(id);

export class Transcript {
  // `onseek` gets the time of a clicked word or segment in seconds; only recordings can be played.
  constructor(onseek) {
    this.onseek = onseek;
    this.section = byId("transcript");
    this.finals = byId("finals");
    this.partialLine = byId("partial");
    this.segments = [];
    this.words = []; // words of all segments: { start_sec, element }
    this.finals.addEventListener("click", ({ target }) => {
      const at = target.closest("[data-sec]");
      if (at && this.playable) this.onseek(Number(at.dataset.sec));
    });
  }

  // Whether segments can be played, as a recording's; its transcript appears at once, and is not read out.
  set playable(yes) {
    this.section.classList.toggle("playable", yes);
    byId("log").ariaLive = yes ? "off" : "polite";
  }

  get playable() { return this.section.classList.contains("playable"); }

  showTimes(yes) {
    this.section.classList.toggle("with-times", yes);
    this.section.classList.toggle("plain-times", !yes);
  }

  get isEmpty() { return !this.segments.length && !this.partialLine.textContent; }

  // Show the open segment, which may still change.
  partial(segment) {
    this.open = segment;
    this.partialLine.hidden = false;
    this.partialLine.replaceChildren(stamp(segment.start_sec, false), said(segment).line);
    this.changed();
  }

  final(segment) {
    this.clearPartial();
    if (!segment.text) return;
    this.segments.push(segment);
    const item = document.createElement("li"), { line, words } = said(segment);
    this.words.push(...words);
    if (segment.channel) line.prepend(speaker(segment.channel), " ");
    item.append(stamp(segment.start_sec, this.playable), " ", line);
    this.finals.append(item);
    this.changed();
  }

  // Add a note in place of a segment.
  gap(message) {
    const item = document.createElement("li"), text = document.createElement("span");
    item.className = "gap";
    text.textContent = message;
    item.append(text);
    this.finals.append(item);
  }

  // Keep the open segment as it is, because no more updates will come.
  settle() { if (this.open) this.final(this.open); }

  clearPartial() {
    this.open = null;
    this.partialLine.hidden = true;
    this.partialLine.replaceChildren();
  }

  clear() {
    this.clearPartial();
    this.finals.replaceChildren();
    this.segments = [];
    this.words = [];
    this.playable = false;
    this.changed();
  }

  // Highlight the word that is being played.
  mark(seconds) {
    let low = 0, high = this.words.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.words[middle].start_sec <= seconds) low = middle + 1;
      else high = middle;
    }
    const spoken = this.words[low - 1]?.element ?? null;
    if (spoken === this.spoken) return;
    this.spoken?.classList.remove("spoken");
    spoken?.classList.add("spoken");
    this.spoken = spoken;
  }

  changed() { this.section.dispatchEvent(new Event("transcript")); }
}

// A segment's start time (1:05), as a button if it can be played.
function stamp(seconds, playable) {
  const element = document.createElement(playable ? "button" : "span");
  element.className = "at";
  const minutes = Math.floor(seconds / 60), rest = String(Math.floor(seconds % 60)).padStart(2, "0");
  element.textContent = minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
  if (playable) {
    element.type = "button";
    element.dataset.sec = seconds;
    element.ariaLabel = `Play from ${element.textContent}`;
  }
  return element;
}

// Which channel of a recording a segment is of.
function speaker(channel) {
  const element = document.createElement("span");
  element.className = "speaker";
  element.textContent = `Channel ${channel}`;
  return element;
}

// A segment's text, which has the spaces between words, with each word as an element with its time.
function said({ text, words }) {
  const line = document.createElement("span"), placed = [];
  line.className = "said";
  let end = 0;
  for (const word of words) {
    const begin = text.indexOf(word.word, end);
    if (begin < 0) continue;
    const element = timed(word);
    placed.push({ start_sec: word.start_sec, element });
    line.append(text.slice(end, begin), element);
    end = begin + word.word.length;
  }
  line.append(text.slice(end));
  return { line, words: placed };
}

function timed({ word, start_sec, end_sec, confidence }) {
  const element = document.createElement("ruby"), time = document.createElement("rt");
  time.ariaHidden = "true";
  time.textContent = start_sec.toFixed(start_sec < 1000 ? 2 : 1);
  element.append(word, time);
  element.dataset.sec = start_sec;
  const sure = confidence === undefined ? "" : `, ${Math.round(confidence * 100)} % sure`;
  element.title = `${start_sec.toFixed(2)} to ${end_sec.toFixed(2)} s${sure}`;
  return element;
}
