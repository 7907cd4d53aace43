// The microphone as chunks of 16 kHz, 16 bit mono.

import { allowHint } from "/page/browsers.js";

// The reason why there is no microphone, for the user.
export class MicrophoneError extends Error {
  constructor(message, hint = "") {
    super(message);
    this.hint = hint;
  }
}

const REASONS = {
  NotAllowedError: ["The microphone was not allowed.", allowHint()],
  NotFoundError: ["No microphone was found.", "Plug one in, or open a recording instead."],
  NotReadableError: ["The microphone cannot be read.", "Another program may be using it."],
  OverconstrainedError: ["No microphone that fits was found.", "Plug one in, or open a recording instead."],
};

export class Microphone {
  // `onchunk` gets an Int16Array every tenth of a second, and when it was heard (Date.now()); `onlost` is called when the
  // microphone is disconnected, `onmuted` with whether the device keeps its sound from the page, as a phone does for a
  // call.
  constructor({ onchunk, onlost, onmuted }) {
    Object.assign(this, { onchunk, onlost, onmuted });
  }

  // Raises MicrophoneError.
  async start() {
    if (!window.isSecureContext || !navigator.mediaDevices) {
      throw new MicrophoneError(
        "The browser lets pages use the microphone only over HTTPS or on localhost.",
        "Open this page by an address that begins with https, or open a recording instead.",
      );
    }
    try {
      // Without the browser's processing for telephony, which changes the speech.
      const plain = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      this.media = await navigator.mediaDevices.getUserMedia({ audio: plain });
    } catch (error) {
      const [message, hint] = REASONS[error.name] ?? [`The microphone cannot be used: ${error.message || error.name}.`, ""];
      throw new MicrophoneError(message, hint);
    }
    try {
      await this.connect();
    } catch (error) {
      await this.stop();
      throw new MicrophoneError(`The browser cannot record: ${error.message}.`);
    }
  }

  async connect() {
    this.context = new AudioContext({ latencyHint: "interactive" });
    await this.context.audioWorklet.addModule("/page/capture.js");
    this.capture = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    this.capture.port.onmessage = ({ data }) => data ? this.onchunk(data.samples, data.at) : this.flushed?.();
    this.analyser = new AnalyserNode(this.context, { fftSize: 1024, smoothingTimeConstant: 0 });
    this.window = new Float32Array(this.analyser.fftSize);
    const source = this.context.createMediaStreamSource(this.media);
    source.connect(this.capture);
    source.connect(this.analyser);
    for (const track of this.media.getTracks()) {
      track.onended = () => this.onlost();
      track.onmute = () => this.onmuted(true);
      track.onunmute = () => this.onmuted(false);
    }
    await this.context.resume();
  }

  // Hear nothing for a while; the browser shows the microphone as unused where it can.
  async pause() {
    for (const track of this.media?.getTracks() ?? []) track.enabled = false;
    await this.context?.suspend();
  }

  // Go on, also after the device itself has stopped the sound (a locked screen, a call).
  async resume() {
    for (const track of this.media?.getTracks() ?? []) track.enabled = true;
    if (this.context && this.context.state !== "running") await this.context.resume();
  }

  // The level of the last moments in dB of full scale.
  level() {
    if (!this.analyser) return -Infinity;
    this.analyser.getFloatTimeDomainData(this.window);
    const power = this.window.reduce((sum, sample) => sum + sample * sample, 0) / this.window.length;
    return 10 * Math.log10(power);
  }

  // Stop; chunks still in transit from the audio thread are delivered before this resolves.
  async stop() {
    for (const track of this.media?.getTracks() ?? []) {
      track.onended = track.onmute = track.onunmute = null;
      track.stop();
    }
    if (this.capture && this.context.state === "running") {
      const flushed = new Promise((resolve) => { this.flushed = resolve; setTimeout(resolve, 500); });
      this.capture.port.postMessage("flush");
      await flushed;
    }
    this.analyser = null;
    await this.context?.close();
    this.context = this.media = this.capture = null;
  }
}
