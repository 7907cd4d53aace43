// The transcript on the page: the lines of the shown session, and its open segment.

import { corrected } from "/page/corrections.js";
import { byId, element } from "/page/dom.js";
import { line, noteLine, spoken, stamp } from "/page/line.js";
import { undoable } from "/page/notice.js";

export class Transcript {
  // `onseek` gets the time of a clicked word or segment in seconds; `onchange` is called with every change of the lines.
  constructor({ onseek, onchange }) {
    this.onchange = onchange;
    this.section = byId("transcript");
    this.finals = byId("finals");
    this.partialLine = byId("partial");
    this.session = null;
    this.lines = new Map(); // what is on the page of an entry: { item, words }
    this.playable = false;
    this.handlers = {
      reset: () => this.draw(),
      added: ({ entry }) => this.add(entry),
      changed: ({ entry }) => this.redraw(entry),
      partial: () => this.showPartial(),
    };
    this.finals.addEventListener("click", ({ target }) => {
      const at = target.closest("[data-sec]");
      if (at && this.playable) onseek(Number(at.dataset.sec));
    });
    this.finals.addEventListener("dblclick", ({ target }) => {
      const item = target.closest("li");
      for (const [entry, { item: own }] of this.lines) if (own === item && entry.note === undefined) this.correct(entry);
    });
  }

  // Show `session`, or nothing.
  show(session) {
    for (const [type, handler] of Object.entries(this.handlers)) {
      this.session?.removeEventListener(type, handler);
      session?.addEventListener(type, handler);
    }
    this.session = session;
    // A recording's text comes in large parts and is not read out.
    byId("log").ariaLive = session?.kind === "recording" ? "off" : "polite";
    this.draw();
  }

  // Whether its recording can be played.
  setPlayable(yes) {
    if (this.playable === yes) return;
    this.playable = yes;
    this.section.classList.toggle("playable", yes);
    this.draw();
  }

  showTimes(yes) {
    this.section.classList.toggle("with-times", yes);
    this.section.classList.toggle("plain-times", !yes);
  }

  draw() {
    this.lines.clear();
    this.ordered = this.spoken = null;
    const items = document.createDocumentFragment();
    for (const entry of this.session?.entries ?? []) items.append(this.made(entry));
    this.finals.replaceChildren(items);
    this.showPartial();
  }

  add(entry) {
    this.ordered = null;
    this.finals.append(this.made(entry));
    this.showPartial();
  }

  redraw(entry) {
    const old = this.lines.get(entry)?.item;
    this.ordered = null;
    if (old) old.replaceWith(this.made(entry));
    this.onchange();
  }

  made(entry) {
    const made = entry.note !== undefined
      ? { item: noteLine(entry.note), words: [] }
      : line(entry, { playable: this.playable, correctable: !this.session.isGrowing }, {
        correct: () => this.correct(entry),
        take: (other) => this.change(entry, { text: other.text, words: other.words, isCorrected: true }, "Taken."),
      });
    this.lines.set(entry, made);
    return made.item;
  }

  // Put `fields` into an entry, with a way back.
  change(entry, fields, said) {
    const { session } = this, before = Object.fromEntries(Object.keys(fields).map((name) => [name, entry[name]]));
    session.change(entry, fields);
    undoable(said, () => session.change(entry, before));
  }

  showPartial() {
    const open = this.session?.open;
    this.partialLine.hidden = !open;
    this.partialLine.replaceChildren(...(open ? [stamp(open.start_sec, false), spoken(open).said] : []));
    this.onchange();
  }

  // Let a segment's text be changed in its place: Enter keeps the change, Esc does not.
  correct(entry) {
    const { item } = this.lines.get(entry);
    if (item.querySelector("textarea") || this.session.isGrowing) return; // what grows is replaced by the whole
    const session = this.session;
    const field = element("textarea", { className: "correction", dir: "auto", value: entry.text, ariaLabel: "Corrected text", rows: 1, enterKeyHint: "done" });
    const fit = () => { field.style.height = "auto"; field.style.height = `${field.scrollHeight}px`; };
    let ended = false;
    const end = (keep) => {
      if (ended) return;
      ended = true;
      session.isBusy = false;
      if (keep && field.value.trim() !== entry.text) this.change(entry, corrected(entry, field.value), "Corrected.");
      else this.redraw(entry);
      if (keep !== "left") this.lines.get(entry)?.item.querySelector(".correct")?.focus();
    };
    field.oninput = fit;
    field.onblur = () => end("left");
    field.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key === "Escape") end(false);
      else if (event.key === "Enter" && !event.isComposing) { event.preventDefault(); end(true); }
    };
    session.isBusy = true; // no other window's text comes in between
    item.querySelector(".said").replaceWith(field);
    item.classList.add("correcting");
    fit();
    field.focus();
  }

  // Light the word that is being played, and keep it in view where `follow`.
  mark(seconds, follow = false) {
    this.ordered ??= [...this.lines.values()].flatMap(({ words }) => words).sort((a, b) => a.start_sec - b.start_sec);
    let low = 0, high = this.ordered.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ordered[middle].start_sec <= seconds + 0.02) low = middle + 1;
      else high = middle;
    }
    const spoken = this.ordered[low - 1]?.element ?? null;
    if (spoken === this.spoken) return;
    this.spoken?.classList.remove("spoken");
    spoken?.classList.add("spoken");
    this.spoken = spoken;
    if (follow) spoken?.scrollIntoView({ block: "nearest" });
  }

  // The start of the segment before (-1) or after (1) a time.
  neighbour(seconds, direction) {
    const starts = this.session?.segments.map(({ start_sec: start }) => start) ?? [];
    return direction < 0
      ? starts.filter((start) => start < seconds - 1).at(-1) ?? 0
      : starts.find((start) => start > seconds + 0.1) ?? null;
  }
}
