// What openai-clients.py tries in Node: openai, and ai with @ai-sdk/openai. Prints a JSON object for each.
// Arguments: server, WAV file, API key, and the server with TLS, if there is one.

import fs from "node:fs";
import OpenAI from "openai";

const [server, file, key, tls] = process.argv.slice(2);
const PIECE_SEC = 0.05, PAUSE_SEC = 2, RATE = 24000, SETTLED_SEC = 6, TIMEOUT_SEC = 120;

function version(client) {
  const name = client.split(" ")[0];
  return JSON.parse(fs.readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
}

async function attempt(client, surface, tried, like, work) {
  const row = { client, version: version(client), surface, tried, like, text: "", error: "" };
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("it took too long")), TIMEOUT_SEC * 1000).unref());
  try {
    row.text = await Promise.race([work(), late]);
  } catch (error) {
    console.error(error);
    row.error = `${error.constructor.name}: ${String(error.message).slice(0, 300)}`;
  }
  console.log(JSON.stringify(row));
}

// 24 kHz, by straight lines between samples, with silence behind them.
function pieces() {
  const wav = fs.readFileSync(file);
  const rate = wav.readUInt32LE(24), at = wav.indexOf("data") + 8;
  const samples = new Int16Array(wav.buffer.slice(wav.byteOffset + at, wav.byteOffset + wav.length - ((wav.length - at) % 2)));
  const count = Math.floor((samples.length * RATE) / rate), made = new Int16Array(count + PAUSE_SEC * RATE);
  for (let i = 0; i < count; i++) {
    const place = (i * rate) / RATE, left = Math.floor(place);
    made[i] = samples[left] + (place - left) * ((samples[left + 1] ?? 0) - samples[left]);
  }
  const bytes = Buffer.from(made.buffer), size = 2 * PIECE_SEC * RATE, found = [];
  for (let i = 0; i < bytes.length; i += size) found.push(bytes.subarray(i, i + size).toString("base64"));
  return found;
}

const openai = (base = server) => new OpenAI({ baseURL: `${base}/v1`, apiKey: key, maxRetries: 0 });

await attempt("openai (npm)", "REST", "models.list, models.retrieve('whisper-1')", "", async () => {
  const names = [];
  for await (const model of openai().models.list()) names.push(model.id);
  return `${names.join(", ")}; ${(await openai().models.retrieve("whisper-1")).id}`;
});

const NAMES = ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe"];
await attempt("openai (npm)", "REST", `transcriptions.create of ${NAMES.join(", ")}`, "recording", async () => {
  const texts = new Set();
  for (const model of NAMES) {
    const heard = await openai().audio.transcriptions.create({ file: fs.createReadStream(file), model });
    texts.add(heard.text);
  }
  return [...texts].join(" / ");
});

await attempt("openai (npm)", "REST", "transcriptions.create with every field", "recording", async () => {
  const heard = await openai().audio.transcriptions.create({
    file: fs.createReadStream(file),
    model: "gpt-4o-transcribe",
    chunking_strategy: { type: "server_vad", threshold: 0.3, prefix_padding_ms: 300 },
    include: ["logprobs"],
    known_speaker_names: ["Ann"],
    known_speaker_references: ["data:audio/wav;base64,UklGRg=="],
    language: "en",
    languages: ["en", "fr"],
    prompt: "Somebody says digits.",
    response_format: "verbose_json",
    temperature: 0.2,
    timestamp_granularities: ["word", "segment"],
  });
  if (heard.words.length !== heard.text.split(" ").length) throw new Error("other words than text");
  return heard.text;
});

await attempt("openai (npm)", "REST", "transcriptions.create with stream: true", "recording", async () => {
  let text = "";
  const events = await openai().audio.transcriptions.create({
    file: fs.createReadStream(file), model: "gpt-4o-transcribe", stream: true,
  });
  for await (const event of events) if (event.type === "transcript.text.done") text = event.text;
  return text;
});

if (tls) {
  await attempt("openai (npm)", "realtime", "OpenAIRealtimeWS over TLS, server_vad", "live", async () => {
    const { OpenAIRealtimeWS } = await import("openai/realtime/ws");
    const connection = new OpenAIRealtimeWS({ model: "gpt-realtime" }, openai(tls));
    return await new Promise((resolve, reject) => {
      const texts = [];
      connection.on("error", reject);
      connection.on("session.created", () => connection.send({
        type: "session.update",
        session: { type: "transcription", audio: { input: {
          format: { type: "audio/pcm", rate: RATE },
          transcription: { model: "gpt-4o-transcribe" },
          turn_detection: { type: "server_vad" },
        } } },
      }));
      connection.on("session.updated", async () => {
        for (const audio of pieces()) {
          connection.send({ type: "input_audio_buffer.append", audio });
          await new Promise((done) => setTimeout(done, PIECE_SEC * 250));
        }
        setTimeout(() => {
          connection.close();
          resolve(texts.join(" "));
        }, SETTLED_SEC * 1000);
      });
      connection.on("conversation.item.input_audio_transcription.completed", (event) => {
        texts.push(event.transcript);
      });
    });
  });
}

const { createOpenAI } = await import("@ai-sdk/openai");
const ai = await import("ai");
const transcribe = ai.transcribe ?? ai.experimental_transcribe;
for (const name of NAMES.slice(0, 3)) {
  await attempt("@ai-sdk/openai", "REST", `transcribe of ai ${version("ai")}, model ${name}`, "recording", async () => {
    const provider = createOpenAI({ baseURL: `${server}/v1`, apiKey: key });
    const heard = await transcribe({ model: provider.transcription(name), audio: fs.readFileSync(file), maxRetries: 0 });
    return heard.text;
  });
}
process.exit(0);
