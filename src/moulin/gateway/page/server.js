// The page's HTTP requests to the gateway.

const KEY = "moulin-key";

export const key = () => sessionStorage.getItem(KEY) ?? "";
export const useKey = (value) => sessionStorage.setItem(KEY, value);

// An error response of the gateway; status 0 where it does not answer.
export class Refusal extends Error {
  constructor(status, message, hint = "") {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

export const headers = () => key() ? { authorization: `Bearer ${key()}` } : {};

export function refusal(status, body) {
  try {
    const [, message, hint] = JSON.parse(body).error.message.match(/^(.*?)(?: \(hint: (.*)\))?$/s);
    return new Refusal(status, message, hint);
  } catch {
    return new Refusal(status, status ? `The server answered ${status}.` : "The server does not answer.");
  }
}

// The models to choose from, with offline and streaming models of one name together, and such pairs first.
// Raises Refusal.
export async function models() {
  const response = await fetch("/v1/models", { headers: headers() }).catch(() => null);
  if (!response?.ok) throw refusal(response?.status ?? 0, response ? await response.text() : "");
  const kinds = new Map();
  for (const { id, streaming } of (await response.json()).data) {
    const name = streaming ? id.replace(/_streaming$/, "") : id;
    const kind = kinds.get(name) ?? { name, live: null, offline: null };
    kind[streaming ? "live" : "offline"] = id;
    kinds.set(name, kind);
  }
  const both = (kind) => Boolean(kind.live && kind.offline);
  return [...kinds.values()].sort((a, b) => both(b) - both(a));
}

// The transcript of a file: { text, duration, words, segments }, of its `channels` mix, each, left or right. `onsent` gets
// the fraction sent, 0 to 1. Raises Refusal, and DOMException "AbortError" when `signal` aborts.
export function transcribe(file, model, { channels, onsent, signal }) {
  const form = new FormData();
  form.append("model", model);
  form.append("response_format", "verbose_json");
  form.append("channels", channels);
  form.append("timestamp_granularities[]", "word");
  form.append("timestamp_granularities[]", "segment");
  form.append("file", file);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not report upload progress
    request.open("POST", "/v1/audio/transcriptions");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onsent(event.loaded / event.total);
    request.upload.onload = () => onsent(1);
    request.onload = () => request.status === 200
      ? resolve(JSON.parse(request.responseText))
      : reject(refusal(request.status, request.responseText));
    request.onerror = () => reject(refusal(0, ""));
    request.onabort = () => reject(new DOMException("Cancelled", "AbortError"));
    signal.onabort = () => request.abort();
    request.send(form);
  });
}
