// The list of transcripts, in a drawer.

import { when } from "/page/clock.js";
import { button, byId, element } from "/page/dom.js";
import { KEPT_DAYS } from "/page/history.js";

export class Earlier {
  // `on` has show(session), fresh(), remove(session), forgetAll(), isShown(session).
  constructor(sessions, on) {
    this.sessions = sessions;
    this.on = on;
    const drawer = byId("earlier");
    byId("earlier-button").onclick = () => { this.draw(); drawer.showModal(); };
    byId("earlier-close").onclick = () => drawer.close();
    byId("fresh").onclick = () => { drawer.close(); on.fresh(); };
    drawer.onclick = ({ target }) => { if (target === drawer) drawer.close(); }; // beside it
    byId("keep").onchange = () => sessions.want(byId("keep").checked);
    byId("forget-all").onclick = () => { byId("forget").hidden = false; byId("forget-all").hidden = true; byId("forget-yes").focus(); };
    byId("forget-no").onclick = () => this.asked();
    byId("forget-yes").onclick = () => { on.forgetAll(); this.asked(); };
    drawer.onclose = () => this.asked();
    sessions.addEventListener("list", () => this.soon());
  }

  asked() {
    byId("forget").hidden = true;
    byId("forget-all").hidden = !this.sessions.list.length;
  }

  soon() {
    const count = this.sessions.list.length;
    byId("earlier-count").textContent = count ? ` ${count}` : "";
    if (byId("earlier").open) this.waiting ??= requestAnimationFrame(() => { this.waiting = null; this.draw(); });
  }

  draw() {
    const { sessions } = this, found = sessions.list;
    const focus = document.activeElement?.closest?.("#earlier-list li")?.dataset.id;
    byId("earlier-list").replaceChildren(...found.map((session) => this.line(session)));
    if (focus) byId("earlier-list").querySelector(`li[data-id="${CSS.escape(focus)}"] button`)?.focus();
    byId("earlier-none").hidden = found.length > 0;
    byId("forget-all").hidden = !found.length || !byId("forget").hidden;
    byId("keep-field").hidden = !sessions.mayKeep || !sessions.history;
    byId("keep").checked = sessions.isWanted;
    byId("keep-text").textContent = !sessions.mayKeep ? "This server lets pages keep nothing: these are gone when this window closes."
      : !sessions.history ? "This browser lets this page keep nothing: these are gone when this window closes."
      : sessions.isWanted ? `Only in this browser, only the text. Each is deleted ${KEPT_DAYS} days after its last change.`
      : "These are gone when this window closes.";
  }

  line(session) {
    const kind = session.kind === "speech" ? "Speech" : session.name;
    const open = element("button", { type: "button", className: "earlier-open", onclick: () => { byId("earlier").close(); this.on.show(session); } },
      element("span", { className: "earlier-name", textContent: kind }),
      element("span", { className: "earlier-when", textContent: when(session.at) }),
      element("span", { className: "earlier-words", dir: "auto", textContent: session.excerpt || "(no words)" }));
    if (this.on.isShown(session)) open.ariaCurrent = "true";
    const remove = button("Delete", () => this.on.remove(session), { className: "quiet small", ariaLabel: `Delete ${kind}, ${when(session.at)}` });
    const item = element("li", {}, open, remove);
    item.dataset.id = session.id;
    return item;
  }
}
