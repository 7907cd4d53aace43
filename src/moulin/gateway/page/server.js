// The page's HTTP requests to the gateway.

import { ServerEvents } from "/page/server_events.js";

const KEY = "moulin-key";

export const key = () => sessionStorage.getItem(KEY) ?? "";
export const useKey = (value) => sessionStorage.setItem(KEY, value);

// An error response of the gateway; status 0 where it does not answer.
export class Refusal extends Error {
  constructor(status, message, hint = "", afterSec = 0) {
    super(message);
    this.status = status;
    this.hint = hint;
    this.afterSec = afterSec; // the gateway's own word about when to try again
  }

  // Whether the same may succeed later.
  get isPassing() { return [0, 408, 429, 502, 503, 504].includes(this.status); }

  // For a visitor: what is wrong, and what of the message is for whoever runs the server.
  get forVisitor() {
    const busy = this.status === 429;
    if (!this.isPassing) return { text: this.message, hint: this.hint, technical: "" };
    const text = this.status === 0 ? "The server does not answer."
      : busy ? "The server is full at the moment."
      : "Speech recognition is not running at the moment.";
    const hint = this.status === 0 ? "Is this device online?" : "There is nothing that you have to do.";
    return { text, hint, technical: busy || !this.status ? "" : this.hint ? `${this.message} (${this.hint})` : this.message };
  }
}

export const headers = () => key() ? { authorization: `Bearer ${key()}` } : {};

const STATUS = { server_unavailable: 503, server_busy: 429, server_timeout: 504 }; // of an error within a stream

export function refusal(status, body, afterSec = 0) {
  try {
    const { error } = JSON.parse(body);
    const [, message, hint] = error.message.match(/^(.*?)(?: \(hint: (.*)\))?$/s);
    return new Refusal(status === 200 ? STATUS[error.code] ?? 400 : status, message, hint, afterSec);
  } catch {
    return new Refusal(status, status ? `The server answered ${status}.` : "The server does not answer.", "", afterSec);
  }
}

// What the operator allows: { history }.
export async function settings() {
  const response = await fetch("/page/settings.json").catch(() => null);
  return response?.ok ? response.json() : { history: false };
}

// The models to choose from, with offline and streaming models of one name together, and such pairs first:
// { name, label, live, offline, languages, description, hotwords, alternatives }. Raises Refusal.
export async function models() {
  const response = await fetch("/v1/models", { headers: headers() }).catch(() => null);
  if (!response?.ok) throw refusal(response?.status ?? 0, response ? await response.text() : "");
  const kinds = new Map();
  for (const model of (await response.json()).data) {
    const name = model.streaming ? model.id.replace(/_streaming$/, "") : model.id;
    const kind = kinds.get(name) ?? { name, label: "", live: null, offline: null };
    kind[model.streaming ? "live" : "offline"] = model;
    kinds.set(name, kind);
  }
  const both = (kind) => Boolean(kind.live && kind.offline);
  const found = [...kinds.values()].sort((a, b) => both(b) - both(a));
  for (const kind of found) Object.assign(kind, facts(kind));
  for (const kind of found) {
    if (found.some((other) => other !== kind && other.label === kind.label)) kind.label += `: ${kind.name}`;
  }
  return found;
}

function facts({ name, live, offline }) {
  const told = [offline, live].filter(Boolean);
  return {
    label: told.find((model) => model.bundle)?.bundle ?? name,
    description: told.find((model) => model.description)?.description ?? "",
    languages: [...new Set(told.flatMap((model) => model.languages ?? []))],
    hotwords: told.some((model) => model.hotwords),
    alternatives: told.some((model) => model.alternatives),
  };
}

// The transcript of a file, as it grows: { text, duration, words, segments, alternatives?, parts? } at the end. `channels`
// is mix, each, left or right, `hotwords` a list of phrases. `onsent` gets the fraction sent, 0 to 1, `onevent` the events.
// Raises Refusal, and DOMException "AbortError" when `signal` aborts.
export function transcribe(file, model, { channels, hotwords = [], nbest = 1, onsent, onevent, signal }) {
  const form = new FormData();
  const fields = { model, response_format: "verbose_json", stream: "true", channels, ...(nbest > 1 ? { nbest } : {}) };
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  for (const kind of ["word", "segment"]) form.append("timestamp_granularities[]", kind);
  for (const phrase of hotwords) form.append("keywords[]", phrase);
  form.append("include[]", "peaks");
  form.append("file", file);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not report upload progress
    request.open("POST", "/v1/audio/transcriptions");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    const events = new ServerEvents((event) => {
      if (event.error) reject(refusal(200, JSON.stringify(event)));
      else if (event.type === "transcript.text.done") { onevent(event); resolve(event); }
      else onevent(event);
    });
    request.upload.onprogress = (event) => event.lengthComputable && onsent(event.loaded / event.total);
    request.upload.onload = () => onsent(1);
    request.onprogress = () => { if (request.status === 200) events.accept(request.responseText); };
    request.onload = () => {
      if (request.status !== 200) {
        reject(refusal(request.status, request.responseText, Number(request.getResponseHeader("retry-after")) || 0));
        return;
      }
      events.accept(request.responseText);
      reject(refusal(0, "")); // the answer broke off, unless the last event has come
    };
    request.onerror = () => reject(refusal(0, ""));
    request.onabort = () => reject(new DOMException("Cancelled", "AbortError"));
    if (signal.aborted) request.abort();
    signal.onabort = () => request.abort();
    request.send(form);
  });
}
