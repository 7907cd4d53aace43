// A recording's waveform with its words below, each at the time of its recognition.

const RATE = 16000;
const HEIGHT = 128;
const LABELS = 34; // height for the words
const MAX_WIDTH = 16000; // browsers do not draw wider canvases
const MAX_DECODED_SEC = 1800; // browsers decode a whole file into memory
const PIXELS_A_SECOND = 88;

export class Waveform {
  constructor(frame, canvas, onseek) {
    this.frame = frame;
    this.canvas = canvas;
    this.peaks = null;
    this.words = [];
    this.played = 0;
    canvas.addEventListener("click", (event) => onseek(event.offsetX / this.scale));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.layout()).observe(frame);
  }

  // Decode `file`; there is no waveform where the browser cannot read it or it is long.
  async load(file, durationSec) {
    this.peaks = null;
    if (durationSec <= MAX_DECODED_SEC) {
      try {
        const decoder = new OfflineAudioContext(1, 1, RATE);
        this.peaks = peaksOf(await decoder.decodeAudioData(await file.arrayBuffer()));
      } catch { /* a format that only the server reads has words but no waveform */ }
    }
    this.durationSec = durationSec;
  }

  show(words) {
    this.words = words;
    this.frame.hidden = false;
    this.canvas.ariaLabel = `Waveform of ${this.durationSec.toFixed(1)} seconds with ${words.length} words`;
    this.layout();
  }

  layout() {
    if (this.frame.hidden || !this.durationSec) return;
    const fitting = this.frame.clientWidth / this.durationSec;
    this.scale = Math.max(fitting, Math.min(PIXELS_A_SECOND, MAX_WIDTH / this.durationSec));
    const width = Math.max(1, Math.floor(this.durationSec * this.scale)), dots = width > MAX_WIDTH / 2 ? 1 : devicePixelRatio;
    this.canvas.style.width = `${width}px`;
    this.canvas.width = width * dots;
    this.canvas.height = HEIGHT * dots;
    this.dots = dots;
    this.draw();
  }

  // Mark the part before `seconds` as played.
  mark(seconds) {
    this.played = seconds;
    this.draw();
    const x = seconds * this.scale, { scrollLeft, clientWidth } = this.frame;
    if (x < scrollLeft || x > scrollLeft + clientWidth - 40) this.frame.scrollLeft = x - 40;
  }

  draw() {
    if (!this.scale) return;
    const pen = this.canvas.getContext("2d"), style = getComputedStyle(this.frame);
    const color = (name) => style.getPropertyValue(name);
    const width = this.canvas.width / this.dots, middle = (HEIGHT - LABELS) / 2;
    pen.setTransform(this.dots, 0, 0, this.dots, 0, 0);
    pen.clearRect(0, 0, width, HEIGHT);
    for (let x = 0; x < width; x += 2) {
      const peak = this.peaks ? peakBetween(this.peaks, x / this.scale, (x + 2) / this.scale) : 0;
      const half = Math.max(0.5, peak * (middle - 6));
      pen.fillStyle = color(x < this.played * this.scale ? "--accent" : "--soft");
      pen.fillRect(x, middle - half, 1, 2 * half);
    }
    pen.font = `11px ${color("--mono")}`;
    pen.textBaseline = "top";
    let free = 0;
    for (const { word, start_sec } of this.words) {
      const x = start_sec * this.scale;
      pen.fillStyle = color("--accent");
      pen.fillRect(x, 2 * middle - 4, 1, 6);
      const label = pen.measureText(word).width;
      if (x < free || x + label > width) continue; // no space: only the tick
      pen.fillStyle = color("--ink");
      pen.fillText(word, x, HEIGHT - LABELS + 5);
      const time = start_sec.toFixed(2);
      pen.fillStyle = color("--soft");
      pen.fillText(time, x, HEIGHT - LABELS + 18);
      free = x + Math.max(label, pen.measureText(time).width) + 8;
    }
  }
}

const PEAKS_A_SECOND = 200;

// The peak of each 5 ms over all channels, normalised to a maximum of 1.
function peaksOf(buffer) {
  const step = RATE / PEAKS_A_SECOND;
  const peaks = new Float32Array(Math.ceil(buffer.length / step));
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((sample, i) => {
      const at = Math.floor(i / step);
      peaks[at] = Math.max(peaks[at], Math.abs(sample));
    });
  }
  const loudest = peaks.reduce((a, b) => Math.max(a, b), 1e-4);
  return peaks.map((peak) => peak / loudest);
}

function peakBetween(peaks, from, to) {
  let peak = 0;
  const end = Math.max(Math.floor(from * PEAKS_A_SECOND) + 1, Math.floor(to * PEAKS_A_SECOND));
  for (let i = Math.floor(from * PEAKS_A_SECOND); i < end && i < peaks.length; i++) peak = Math.max(peak, peaks[i]);
  return peak;
}
