// A recording's waveform with its words below, each where it was heard; and above it all of a long recording.
//
// Only the visible part is drawn, so that a recording may have any length.

import { clock } from "/page/clock.js";
import { byId } from "/page/dom.js";

const HEIGHT = 128;
const LABELS = 34; // height for the words
const OVERVIEW_HEIGHT = 40;
const PIXELS_A_SECOND = 88;

export class Waveform {
  // `onseek` gets a time in seconds.
  constructor(onseek) {
    this.frame = byId("waveform");
    this.canvas = byId("canvas");
    this.overview = byId("overview");
    this.peaks = null;
    this.words = [];
    this.played = this.durationSec = 0;
    this.onseek = onseek;
    this.canvas.addEventListener("click", ({ offsetX }) => onseek((this.frame.scrollLeft + offsetX) / this.scale));
    this.overview.addEventListener("click", ({ offsetX }) => onseek((offsetX / this.overview.clientWidth) * this.durationSec));
    this.frame.addEventListener("scroll", () => this.drawSoon(), { passive: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.drawSoon());
    new ResizeObserver(() => this.layout()).observe(byId("recording"));
  }

  // Words { word, start_sec } in the order of their times. Without peaks there is none.
  show(peaks, durationSec, words) {
    Object.assign(this, { peaks, durationSec, words });
    this.frame.hidden = !peaks?.length || !durationSec;
    byId("waveform-name").textContent = `Waveform of ${durationSec.toFixed(1)} seconds with ${words.length} words`;
    this.layout();
  }

  get isLong() { return this.durationSec * this.scale > 1.5 * this.frame.clientWidth; }

  layout() {
    this.overview.hidden = true;
    if (this.frame.hidden || !this.durationSec) return;
    this.scale = Math.max(this.frame.clientWidth / this.durationSec, PIXELS_A_SECOND);
    this.overview.hidden = !this.isLong;
    byId("waveform-wide").style.width = `${Math.max(1, Math.floor(this.durationSec * this.scale))}px`;
    this.frame.ariaValueMax = this.durationSec.toFixed(1);
    this.mark(this.played, false);
  }

  // Mark the part before `seconds` as played, and `follow` it.
  mark(seconds, follow = true) {
    this.played = seconds;
    this.frame.ariaValueNow = seconds.toFixed(1);
    this.frame.ariaValueText = `${clock(seconds)} of ${clock(this.durationSec)}`;
    const x = seconds * this.scale, { scrollLeft, clientWidth } = this.frame;
    if (follow && (x < scrollLeft || x > scrollLeft + clientWidth - 40)) this.frame.scrollLeft = x - 40;
    this.drawSoon();
  }

  drawSoon() { this.drawing ??= requestAnimationFrame(() => { this.drawing = null; this.draw(); }); }

  draw() {
    if (this.frame.hidden || !this.scale) return;
    const style = getComputedStyle(this.frame);
    this.color = (name) => style.getPropertyValue(name);
    const { scrollLeft, clientWidth } = this.frame;
    const pen = this.pen(this.canvas, clientWidth, HEIGHT), middle = (HEIGHT - LABELS) / 2;
    this.bars(pen, clientWidth, middle, (x) => (scrollLeft + x) / this.scale);
    this.labels(pen, scrollLeft, clientWidth, 2 * middle - 4);
    if (this.overview.hidden) return;
    const wide = this.overview.clientWidth, small = this.pen(this.overview, wide, OVERVIEW_HEIGHT);
    this.bars(small, wide, OVERVIEW_HEIGHT / 2, (x) => (x / wide) * this.durationSec);
    small.strokeStyle = this.color("--accent");
    small.strokeRect((scrollLeft / this.scale / this.durationSec) * wide + 0.5, 0.5,
      Math.max(3, (clientWidth / this.scale / this.durationSec) * wide) - 1, OVERVIEW_HEIGHT - 1);
  }

  pen(canvas, width, height) {
    const dots = devicePixelRatio;
    if (canvas === this.canvas) canvas.style.width = `${width}px`;
    canvas.width = width * dots;
    canvas.height = height * dots;
    const pen = canvas.getContext("2d");
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    return pen;
  }

  // `at` gives the time of an x.
  bars(pen, width, middle, at) {
    for (let x = 0; x < width; x += 2) {
      if (at(x) > this.durationSec) break;
      const half = Math.max(0.5, this.peaks.between(at(x), at(x + 2)) * (middle - 4));
      pen.fillStyle = this.color(at(x) < this.played ? "--accent" : "--soft");
      pen.fillRect(x, middle - half, 1, 2 * half);
    }
  }

  labels(pen, scrollLeft, width, top) {
    pen.font = `11px ${this.color("--mono")}`;
    pen.textBaseline = "top";
    let free = -Infinity;
    for (let i = this.firstAfter((scrollLeft - 200) / this.scale); i < this.words.length; i++) {
      const { word, start_sec: start } = this.words[i], x = start * this.scale - scrollLeft;
      if (x > width) break;
      pen.fillStyle = this.color("--accent");
      pen.fillRect(x, top, 1, 6);
      const label = pen.measureText(word).width;
      if (x < free || scrollLeft + x + label > this.durationSec * this.scale) continue; // no space: only the tick
      pen.fillStyle = this.color("--ink");
      pen.fillText(word, x, HEIGHT - LABELS + 5);
      const time = this.durationSec > 600 ? clock(start) : start.toFixed(2);
      pen.fillStyle = this.color("--soft");
      pen.fillText(time, x, HEIGHT - LABELS + 18);
      free = x + Math.max(label, pen.measureText(time).width) + 8;
    }
  }

  firstAfter(seconds) {
    let low = 0, high = this.words.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.words[middle].start_sec < seconds) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
