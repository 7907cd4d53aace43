// One transcript: of what was spoken, or of a recording. Its text may grow, be corrected and be cleared.
//
// Entries are segments { text, words, start_sec, end_sec, channel?, isCue?, alternatives?, isCorrected? }, or notes
// { note, warning? } in between. Words are { word, start_sec, end_sec, confidence?, channel? }.
//
// Events: "reset" (other entries), "added" and "changed" (`entry`), "partial", "about" (name, duration, peaks, file).

export class Session extends EventTarget {
  constructor({ id = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, kind, name, model = "", at = Date.now(), changedAt = at,
    durationSec = 0, excerpt = "", entries = [] }) {
    super();
    Object.assign(this, { id, kind, name, model, at, changedAt, durationSec, entries });
    this.oldExcerpt = excerpt; // of one whose entries are not loaded
    this.open = null; // the segment being spoken
    this.file = this.peaks = null; // of a recording, as long as this page is open
  }

  get isLoaded() { return this.entries !== null; }
  get segments() { return (this.entries ?? []).filter((entry) => entry.note === undefined && entry.text); }
  get warnings() { return (this.entries ?? []).flatMap(({ warning }) => warning ?? []); }
  get isEmpty() { return this.isLoaded && !this.entries.length && !this.open; }

  // Its first words.
  get excerpt() {
    if (!this.isLoaded) return this.oldExcerpt;
    let text = "";
    for (const segment of this.segments) {
      text += `${segment.text} `;
      if (text.length > 120) break;
    }
    return text.trim().slice(0, 120);
  }

  add(entry) {
    if (entry.note === undefined) this.open = null;
    if (entry.note === undefined && !entry.text) this.tell("partial");
    else {
      this.entries.push(entry);
      this.tell("added", entry);
    }
  }

  note(message) { this.add({ note: message }); }

  // The segment that is being spoken and may still change.
  partial(segment) {
    this.open = segment;
    this.tell("partial");
  }

  // Keep the open segment as it is, because no more updates will come.
  settle() { if (this.open) this.add(this.open); }

  replace(entries) {
    this.open = null;
    this.entries = entries;
    this.tell("reset");
  }

  // Put `fields` into an entry.
  change(entry, fields) {
    Object.assign(entry, fields);
    this.tell("changed", entry);
  }

  about(fields) {
    Object.assign(this, fields);
    this.tell("about");
  }

  tell(type, entry = null) {
    this.changedAt = Date.now();
    this.dispatchEvent(Object.assign(new Event(type), { entry }));
  }

  // What is kept of it, beside the entries.
  summary() {
    const { id, kind, name, model, at, changedAt, durationSec, excerpt } = this;
    return { id, kind, name, model, at, changedAt, durationSec, excerpt };
  }
}
