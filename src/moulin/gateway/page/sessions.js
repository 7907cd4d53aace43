// All transcripts of this page: those of this window in memory, and those of seven days in the browser where it, the
// visitor and the server's operator allow it. Event: "list".

import { History } from "/page/history.js";
import { Session } from "/page/session.js";

const WANTED = "moulin-history";
const SHOWN = "moulin-shown"; // of this tab, for a reload
const RESCUED = "moulin-rescued"; // what changed just before the window went: the database may have been too slow
const SAVE_MS = 400, RESCUE_MS = 5000;

export class Sessions extends EventTarget {
  constructor() {
    super();
    this.known = new Map();
    this.waiting = new Map(); // timers of saving, by session
    this.history = null;
    this.mayKeep = true; // the operator's word
    addEventListener("visibilitychange", () => { if (document.hidden) this.saveNow(); });
  }

  // Read what is kept. Returns the transcript that this tab showed before a reload, or null.
  async open(mayKeep) {
    this.mayKeep = mayKeep;
    if (!mayKeep) await History.remove();
    else this.history = await History.open();
    this.history?.onchange((id) => this.changedElsewhere(id));
    await this.takeRescued();
    await this.read();
    return this.known.get(sessionStorage.getItem(SHOWN)) ?? null;
  }

  get isWanted() { return localStorage.getItem(WANTED) !== "no"; }
  get keeps() { return Boolean(this.history && this.isWanted); }

  // The newest first; empty ones are not worth a line.
  get list() {
    return [...this.known.values()].filter((session) => !session.isEmpty).sort((a, b) => b.at - a.at);
  }

  create(fields) {
    const session = new Session(fields);
    this.put(session);
    return session;
  }

  put(session) {
    this.known.set(session.id, session);
    if (!session.isWatched) {
      session.isWatched = true;
      for (const type of ["reset", "added", "changed", "about"]) session.addEventListener(type, () => this.saveSoon(session));
    }
    if (!session.isEmpty) this.saveSoon(session);
    this.tell();
  }

  remember(session) {
    if (session) sessionStorage.setItem(SHOWN, session.id);
    else sessionStorage.removeItem(SHOWN);
  }

  // Fetch the text of a kept transcript.
  async load(session) {
    if (!session.isLoaded) session.entries = await this.history?.entries(session.id).catch(() => []) ?? [];
    return session;
  }

  async remove(session) {
    this.known.delete(session.id);
    this.noTimer(session);
    this.tell();
    await this.history?.remove(session.id).catch(() => {});
  }

  // Forget all but `these`, which still grow.
  async forgetAll(these = []) {
    for (const session of this.known.values()) this.noTimer(session);
    this.known = new Map(these.map((session) => [session.id, session]));
    this.tell();
    await this.history?.clear().catch(() => {});
    for (const session of these) if (!session.isEmpty) this.saveSoon(session);
  }

  // Whether to keep transcripts. What is kept is removed with a no, and stays in this window until it is closed.
  async want(yes) {
    if (!yes) await Promise.all([...this.known.values()].map((session) => this.load(session)));
    localStorage.setItem(WANTED, yes ? "yes" : "no");
    if (!yes) await this.history?.clear().catch(() => {});
    else for (const session of this.list) this.saveSoon(session);
    this.tell();
  }

  async read() {
    if (!this.keeps) return;
    for (const summary of await this.history.summaries().catch(() => [])) {
      if (!this.known.has(summary.id)) this.put(new Session({ ...summary, entries: null }));
    }
    this.tell();
  }

  async changedElsewhere(id) {
    if (!this.history) return;
    const here = this.known.get(id);
    const kept = new Map((await this.history.summaries().catch(() => [])).map((summary) => [summary.id, summary]));
    if (here?.isLoaded && kept.has(id) && kept.get(id).changedAt > here.changedAt && !here.isBusy) {
      here.replace(await this.history.entries(id).catch(() => here.entries));
      this.noTimer(here); // it is saved as it is
    } else if (!here && kept.has(id)) this.put(new Session({ ...kept.get(id), entries: null }));
    for (const session of this.known.values()) {
      if (!session.isLoaded && !kept.has(session.id)) this.known.delete(session.id);
    }
    this.tell();
  }

  saveSoon(session) {
    this.tell();
    if (!this.keeps || this.waiting.has(session) || !this.known.has(session.id) || !session.isLoaded) return;
    this.waiting.set(session, setTimeout(() => this.save(session), SAVE_MS));
  }

  // The window goes.
  rescue() {
    this.saveNow();
    if (!this.keeps) return;
    const late = this.list.filter((session) => session.isLoaded && Date.now() - session.changedAt < RESCUE_MS);
    try {
      if (late.length) localStorage.setItem(RESCUED, JSON.stringify(late.map((session) => ({ ...session.summary(), entries: session.entries }))));
    } catch { /* too much for it; the database has what was there a moment ago */ }
  }

  async takeRescued() {
    const rescued = localStorage.getItem(RESCUED);
    localStorage.removeItem(RESCUED);
    if (!this.keeps || !rescued) return;
    for (const { entries, ...summary } of JSON.parse(rescued)) await this.history.save(summary, entries).catch(() => {});
  }

  saveNow() { for (const session of [...this.waiting.keys()]) this.save(session); }

  async save(session) {
    this.noTimer(session);
    if (!this.keeps || !session.isLoaded) return;
    try {
      if (session.isEmpty) await this.history.remove(session.id);
      else await this.history.save(session.summary(), session.entries);
    } catch {
      this.history = null; // the disk is full, or the browser has taken the permission back
      this.tell();
    }
  }

  noTimer(session) {
    clearTimeout(this.waiting.get(session));
    this.waiting.delete(session);
  }

  tell() { this.dispatchEvent(new Event("list")); }
}
