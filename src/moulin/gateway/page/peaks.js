// The peaks of a recording, as the server decodes it.

export class Peaks {
  constructor() {
    this.aSecond = 50;
    this.values = new Uint8Array(1 << 12);
    this.length = 0;
    this.loudest = 1; // in the values' own form
  }

  // `first`, `a_second` and `values` as the server's event has them; channels that are heard by themselves overlay.
  accept({ first, a_second: aSecond, values }) {
    this.aSecond = aSecond;
    const bytes = Uint8Array.from(atob(values), (char) => char.charCodeAt(0));
    const end = first + bytes.length;
    if (end > this.values.length) {
      const more = new Uint8Array(Math.max(end, 2 * this.values.length));
      more.set(this.values);
      this.values = more;
    }
    bytes.forEach((value, i) => {
      this.values[first + i] = Math.max(this.values[first + i], value);
      this.loudest = Math.max(this.loudest, value);
    });
    this.length = Math.max(this.length, end);
  }

  get durationSec() { return this.length / this.aSecond; }

  // The highest peak from one second to another, 0 to 1, where 1 is the recording's loudest.
  between(fromSec, toSec) {
    const begin = Math.floor(fromSec * this.aSecond), end = Math.max(begin + 1, Math.floor(toSec * this.aSecond));
    let peak = 0;
    for (let i = begin; i < end && i < this.length; i++) peak = Math.max(peak, this.values[i]);
    return (peak / this.loudest) ** 2; // values are square roots
  }
}
