// Copies and files of the shown transcript.

import * as captions from "/page/captions.js";
import { byId, element } from "/page/dom.js";
import { notice } from "/page/notice.js";

const FORMATS = {
  txt: ["text/plain", (session) => captions.text(session.segments)],
  srt: ["application/x-subrip", (session) => captions.srt(session.segments)],
  vtt: ["text/vtt", (session) => captions.vtt(session.segments, session.warnings)],
  json: ["application/json", captions.json],
};

// `shown` gives the session, `say` shows a word in the status line.
export function offerFiles(shown, say) {
  for (const [ending, [type, content]] of Object.entries(FORMATS)) {
    byId(`save-${ending}`).onclick = () => {
      save(`${fileName(shown())}.${ending}`, type, content(shown()));
      byId("save").open = false;
    };
  }
  byId("copy").onclick = () => copy(captions.text(shown().segments), say);
  byId("copy-times").onclick = () => copy(captions.timedText(shown().segments), say);
  byId("save").ontoggle = () => { if (byId("save").open) byId("save").scrollIntoView({ block: "nearest" }); };
  byId("save").onkeydown = (event) => {
    if (event.key !== "Escape" || !byId("save").open) return;
    event.stopPropagation();
    byId("save").open = false;
    byId("save").querySelector("summary").focus();
  };
  byId("save").addEventListener("focusout", ({ relatedTarget }) => {
    if (relatedTarget && !byId("save").contains(relatedTarget)) byId("save").open = false;
  });
}

const fileName = ({ kind, name }) => kind === "speech" ? "speech" : name.replace(/\.[^.]*$/, "") || "transcript";

function save(name, type, content) {
  const link = element("a", { href: URL.createObjectURL(new Blob([content], { type: `${type};charset=utf-8` })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function copy(text, say) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
  } catch {
    notice("The browser does not let this page copy.", "Save as, TXT, makes a file of it.");
  }
}
