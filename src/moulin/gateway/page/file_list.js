// The list of recordings on the page: of each its name, state and progress, and what can be done.

import { button, byId, element } from "/page/dom.js";

export class FileList {
  constructor(files) {
    this.files = files;
    this.lines = new Map(); // by item
    byId("files-close").onclick = () => files.close();
  }

  draw() {
    const { items } = this.files, atWork = items.some(({ state }) => ["waiting", "under way", "later"].includes(state));
    byId("files").hidden = !(atWork || items.length > 1);
    byId("files-close").hidden = atWork;
    for (const item of this.lines.keys()) if (!items.includes(item)) this.remove(item);
    for (const item of items) this.line(item);
  }

  remove(item) {
    this.lines.get(item).root.remove();
    this.lines.delete(item);
  }

  line(item) {
    const line = this.lines.get(item) ?? this.made(item);
    if (line.text.textContent !== item.text) line.text.textContent = item.text;
    line.root.className = `file ${item.state.replace(" ", "-")}`;
    line.bar.hidden = item.state !== "under way";
    if (item.part === null) line.bar.removeAttribute("value"); // how long it takes is not known
    else line.bar.value = item.part;
    const open = ["waiting", "under way", "later"].includes(item.state);
    line.cancel.hidden = !open;
    line.show.hidden = !item.session || item.state === "waiting" || this.files.on.isShown(item.session);
    line.again.hidden = item.state !== "failed";
  }

  made(item) {
    const name = item.file.name;
    const line = {
      name: element("span", { className: "file-name", textContent: name }),
      text: element("span", { className: "file-state" }),
      bar: element("progress", { max: 1, ariaLabel: `Progress of ${name}` }),
      show: button("Show", () => this.files.on.show(item.session), { ariaLabel: `Show ${name}` }),
      again: button("Try again", () => this.files.again(item), { ariaLabel: `Try ${name} again` }),
      cancel: button("Cancel", () => this.files.cancel(item), { ariaLabel: `Cancel ${name}` }),
    };
    line.root = element("li", {}, line.name, line.text, element("span", { className: "file-actions" }, line.show, line.again, line.cancel), line.bar);
    byId("file-list").append(line.root);
    this.lines.set(item, line);
    return line;
  }
}
