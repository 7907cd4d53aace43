// Transcripts in the browser's own database: text only, for seven days. Other windows of the page are told of changes.

const NAME = "moulin", VERSION = 1;
export const KEPT_DAYS = 7;

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

const finished = (transaction) => new Promise((resolve, reject) => {
  transaction.oncomplete = resolve;
  transaction.onabort = transaction.onerror = () => reject(transaction.error);
});

export class History {
  // Null where the browser allows none, as some private windows do.
  static async open() {
    try {
      const request = indexedDB.open(NAME, VERSION);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("summaries", { keyPath: "id" });
        request.result.createObjectStore("entries");
      };
      const history = new History(await done(request));
      await history.removeOld();
      return history;
    } catch {
      return null;
    }
  }

  // Remove all that was ever kept.
  static async remove() {
    try { await done(indexedDB.deleteDatabase(NAME)); } catch { /* there is none */ }
  }

  constructor(database) {
    this.database = database;
    database.onversionchange = () => database.close();
    this.channel = new BroadcastChannel(NAME);
  }

  // `listener` gets the id of a transcript that another window changed, or null for all of them.
  onchange(listener) { this.channel.onmessage = ({ data }) => listener(data); }

  summaries() { return done(this.database.transaction("summaries").objectStore("summaries").getAll()); }

  async entries(id) { return await done(this.database.transaction("entries").objectStore("entries").get(id)) ?? []; }

  async save(summary, entries) {
    await this.write((summaries, texts) => { summaries.put(summary); texts.put(entries, summary.id); });
    this.channel.postMessage(summary.id);
  }

  async remove(id) {
    await this.write((summaries, texts) => { summaries.delete(id); texts.delete(id); });
    this.channel.postMessage(id);
  }

  async clear() {
    await this.write((summaries, texts) => { summaries.clear(); texts.clear(); });
    this.channel.postMessage(null);
  }

  async removeOld(now = Date.now()) {
    const old = (await this.summaries()).filter(({ changedAt }) => now - changedAt > KEPT_DAYS * 86400000);
    if (old.length) await this.write((summaries, texts) => old.forEach(({ id }) => { summaries.delete(id); texts.delete(id); }));
  }

  async write(change) {
    const transaction = this.database.transaction(["summaries", "entries"], "readwrite");
    change(transaction.objectStore("summaries"), transaction.objectStore("entries"));
    await finished(transaction);
  }
}
