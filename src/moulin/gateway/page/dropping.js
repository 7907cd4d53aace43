// Recordings that are dropped anywhere on the page, or chosen.

import { byId } from "/page/dom.js";

export function onFiles(take) {
  byId("open").onclick = () => byId("file").click();
  byId("file").onchange = () => {
    const files = [...byId("file").files];
    byId("file").value = "";
    if (files.length) take(files);
  };
  let dragged = 0;
  const show = (count) => { byId("drop").hidden = !(dragged = Math.max(0, count)); };
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => { if (holdsFiles(event)) show(dragged + 1); });
  addEventListener("dragleave", (event) => { if (holdsFiles(event)) show(dragged - 1); });
  addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    show(0);
    take([...event.dataTransfer.files]);
  });
}
