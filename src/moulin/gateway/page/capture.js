// An audio worklet (in the browser's audio thread) that resamples the microphone to 16 kHz, 16 bit, in chunks of a tenth
// of a second.

const RATE = 16000;
const CHUNK = RATE / 10;
const ZERO_CROSSINGS = 32; // zero crossings of the sinc on each side, at the lower of the two rates
const PHASES = 512;

// A low-pass filter just below half of the lower rate, sampled at PHASES points between two input samples.
class Resampler {
  constructor(from) {
    this.step = from / RATE;
    const cutoff = 0.96 * Math.min(1, RATE / from);
    this.half = Math.ceil(ZERO_CROSSINGS / cutoff);
    this.kernels = Array.from({ length: PHASES + 1 }, (_, phase) => this.kernel(cutoff, phase / PHASES));
    this.input = new Float32Array(this.half); // silence before the first sample
    this.position = this.half; // position of the next output sample in `input`
  }

  kernel(cutoff, fraction) {
    const taps = new Float32Array(2 * this.half);
    let sum = 0;
    for (let k = 0; k < taps.length; k++) {
      const x = k - this.half + 1 - fraction;
      const sinc = x === 0 ? 1 : Math.sin(Math.PI * cutoff * x) / (Math.PI * cutoff * x);
      const hann = Math.abs(x) < this.half ? 0.5 + 0.5 * Math.cos((Math.PI * x) / this.half) : 0;
      sum += taps[k] = sinc * hann;
    }
    return taps.map((tap) => tap / sum); // unity gain for constant input at every phase
  }

  // The output samples completed by `samples`.
  push(samples) {
    const input = new Float32Array(this.input.length + samples.length);
    input.set(this.input);
    input.set(samples, this.input.length);
    const output = [];
    while (Math.floor(this.position) + this.half < input.length) {
      const base = Math.floor(this.position);
      const kernel = this.kernels[Math.round((this.position - base) * PHASES)];
      let sum = 0;
      for (let k = 0; k < kernel.length; k++) sum += kernel[k] * input[base - this.half + 1 + k];
      output.push(sum);
      this.position += this.step;
    }
    const used = Math.floor(this.position) - this.half + 1;
    this.input = input.slice(used);
    this.position -= used;
    return output;
  }
}

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = sampleRate === RATE ? null : new Resampler(sampleRate);
    this.chunk = new Int16Array(CHUNK);
    this.filled = 0;
    this.port.onmessage = () => { this.flush(); this.port.postMessage(null); };
  }

  process([channels]) {
    if (!channels.length) return true;
    let samples = channels[0];
    if (channels.length > 1) samples = samples.map((_, i) => channels.reduce((sum, c) => sum + c[i], 0) / channels.length);
    for (const sample of this.resampler ? this.resampler.push(samples) : samples) {
      this.chunk[this.filled++] = Math.round(32767 * Math.max(-1, Math.min(1, sample)));
      if (this.filled === CHUNK) this.flush();
    }
    return true;
  }

  flush() {
    if (!this.filled) return;
    const samples = this.chunk.slice(0, this.filled);
    this.filled = 0;
    this.port.postMessage({ samples, at: Date.now() }, [samples.buffer]);
  }
}

registerProcessor("capture", Capture);
