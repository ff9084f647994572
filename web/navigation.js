// The views: one is shown at a time, and the hash of the address names it, so that links and the Back button work.
import { byId } from "./dom.js";
import { keep, kept } from "./session.js";

export class Navigation {
  #nav = byId("views");
  #onShow;

  /** onShow(id) is called for each view that is opened, the first one included. */
  constructor(onShow) {
    this.#onShow = onShow;
    addEventListener("hashchange", () => { if (this.#named()?.id !== this.shown) this.#follow(); });
    this.#nav.addEventListener("click", (event) => {
      const link = event.target.closest("a");
      if (link?.hash === location.hash) this.#follow(); // the same view again: the browser reports no change
    });
  }

  get shown() {
    return document.querySelector(".view:not([hidden])")?.id;
  }

  /** Show the view of the address, else the one shown last in this tab, else the first. */
  start() {
    this.#show(this.#named() ?? document.querySelector(`.view#${CSS.escape(kept("view", "none"))}`) ?? document.querySelector(".view"));
  }

  /** Open a view by its id, as its link does. */
  open(id) {
    location.hash = id;
    this.#follow();
  }

  #named() {
    const id = location.hash.slice(1);
    return id ? document.querySelector(`.view#${CSS.escape(id)}`) : null;
  }

  #follow() {
    const view = this.#named();
    if (!view) return; // the skip link, or an address of something else
    this.#show(view);
    view.querySelector("h2").focus({ preventScroll: true });
    scrollTo(0, 0);
  }

  #show(view) {
    for (const each of document.querySelectorAll(".view")) each.hidden = each !== view;
    for (const link of this.#nav.querySelectorAll("a")) {
      if (link.hash === `#${view.id}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    keep("view", view.id);
    this.#onShow(view.id);
  }
}
