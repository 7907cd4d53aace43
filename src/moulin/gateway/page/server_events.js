// Server-sent events of an answer that is still coming.

export class ServerEvents {
  // `onevent` gets the JSON object of each event.
  constructor(onevent) {
    this.onevent = onevent;
    this.at = 0; // in the text, behind the last whole event
  }

  // `text` is all that has come so far.
  accept(text) {
    for (let end; (end = text.indexOf("\n\n", this.at)) >= 0; this.at = end + 2) {
      const data = text.slice(this.at, end).split("\n").filter((line) => line.startsWith("data:"));
      if (data.length) this.onevent(JSON.parse(data.map((line) => line.slice(5)).join("\n")));
    }
  }
}
