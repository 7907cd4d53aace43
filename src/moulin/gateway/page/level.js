// The microphone's level, in a bar and in a word.

import { byId } from "/page/dom.js";

const HELD_MS = 1500; // the word is of the loudest moment of so long: speech has pauses
const SILENT_DB = -62, QUIET_DB = -42, LOUD_DB = -5;

export class Level {
  constructor() { this.held = []; }

  // `decibels` of full scale; -Infinity where there is no microphone. `isOn`: whether one is meant to be heard.
  show(decibels, isOn = true) {
    const now = performance.now();
    this.held = [...this.held.filter(({ at }) => now - at < HELD_MS), { at: now, decibels }];
    const loudest = Math.max(...this.held.map((one) => one.decibels));
    const word = !isOn ? "" : loudest < SILENT_DB ? "No sound" : loudest < QUIET_DB ? "Quiet: come closer"
      : loudest > LOUD_DB ? "Too loud" : "Good level";
    if (byId("level-word").textContent !== word) {
      byId("level-word").textContent = word;
      byId("level").ariaValueText = word || "off";
    }
    const shown = Math.round(Math.max(-60, Math.min(0, decibels)));
    if (byId("level").ariaValueNow === String(shown)) return;
    byId("level-bar").style.transform = `scaleX(${(shown + 60) / 60})`;
    byId("level").classList.toggle("loud", shown > LOUD_DB);
    byId("level").ariaValueNow = shown;
  }
}
