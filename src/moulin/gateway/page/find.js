// Search in the shown text: all places are lit, Enter goes to the next, Shift and Enter back, Esc ends it.

import { byId } from "/page/dom.js";

const lit = globalThis.CSS?.highlights && globalThis.Highlight ? { all: new Highlight(), one: new Highlight() } : null;
if (lit) {
  CSS.highlights.set("found", lit.all);
  CSS.highlights.set("found-one", lit.one);
}

export class Find {
  constructor() {
    this.places = [];
    this.at = -1;
    const field = byId("find");
    field.oninput = () => { this.search(); this.go(0); };
    field.onkeydown = (event) => {
      if (event.key === "Enter") { event.preventDefault(); this.go(this.at + (event.shiftKey ? -1 : 1)); }
      if (event.key === "Escape" && field.value) { event.stopPropagation(); event.preventDefault(); field.value = ""; this.search(); }
    };
  }

  // Search again, because the text has changed.
  search() {
    const wanted = byId("find").value.trim().toLocaleLowerCase();
    this.places = wanted ? [...byId("finals").querySelectorAll(".said")].flatMap((said) => placesIn(said, wanted)) : [];
    this.at = Math.min(this.at, this.places.length - 1);
    lit?.all.clear();
    for (const place of this.places) lit?.all.add(place);
    this.show();
  }

  go(to) {
    this.at = this.places.length ? (to + this.places.length) % this.places.length : -1;
    this.places[this.at]?.startContainer.parentElement.scrollIntoView({ block: "center" });
    this.show();
  }

  show() {
    lit?.one.clear();
    if (this.places[this.at]) lit?.one.add(this.places[this.at]);
    const wanted = byId("find").value.trim();
    byId("found").textContent = !wanted ? "" : this.places.length ? `${this.at + 1} of ${this.places.length}` : "Not found";
  }
}

// Ranges of an element's text, without the times of its words.
function placesIn(said, wanted) {
  const walker = document.createTreeWalker(said, NodeFilter.SHOW_TEXT, (node) =>
    node.parentElement.tagName === "RT" ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
  const nodes = [];
  let text = "";
  for (let node; (node = walker.nextNode());) {
    nodes.push({ node, begin: text.length });
    text += node.data;
  }
  const found = [], lower = text.toLocaleLowerCase();
  if (lower.length !== text.length) return found; // letters whose small form is longer: no places to point at
  for (let begin = lower.indexOf(wanted); begin >= 0; begin = lower.indexOf(wanted, begin + wanted.length)) {
    const range = new Range(), end = begin + wanted.length;
    const first = nodes.findLast((one) => one.begin <= begin), last = nodes.findLast((one) => one.begin < end);
    range.setStart(first.node, begin - first.begin);
    range.setEnd(last.node, end - last.begin);
    found.push(range);
  }
  return found;
}
