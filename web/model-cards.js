// One card a model: load, watch the bytes, cancel, unload, and read about failures.
import { TITLES, choices } from "./devices.js";
import { byId, disable, h, offer, role, say } from "./dom.js";
import { showFailure } from "./failures.js";
import { bytes, megabytes } from "./format.js";
import { keep, kept } from "./session.js";

const TASKS = {
  "feature-extraction": "backbone",
  "sentence-similarity": "backbone",
  "sparse-embedding": "backbone",
  "text-classification": "head",
};
const SAYS = { idle: "Load", queued: "Waiting", loading: "Loading", loaded: "Unload", unloading: "Unloading", error: "Try again" };

export class ModelCards {
  #cards = new Map(); // id → {model, element, state, name, device, moving}
  #wanted = new Set(); // ids that a person has loaded, or that load
  #models = new Map(); // id → its entry in the manifest
  #titles = new Map(); // names of other models → titles
  #calls;

  /** calls: load(model, onProgress), unload(id), move(id, kind, onProgress), pin(kind), cancel(id), changed(id) */
  constructor(section, calls) {
    this.section = section;
    this.#calls = calls;
    byId("load-all").addEventListener("click", () => this.loadAll());
    byId("unload-all").addEventListener("click", () => this.unloadAll());
    byId("run-on").addEventListener("change", (event) => this.#moveAll(event.target.value));
  }

  /** Show the cards, once Python runs and the manifest is loaded, or reset them after a retry. */
  ready(models) {
    this.#cards.clear();
    this.#models = new Map(models.map((model) => [model.id, model]));
    byId("cards-none").hidden = models.length > 0;
    byId("cards").replaceChildren(...models.filter((model) => !model.absent).map((model) => this.#make(model)));
    this.#refresh();
  }

  /** The entry of a model in the manifest, also of one that this site lacks (`absent`). */
  model(id) {
    return this.#models.get(id);
  }

  /** "idle", "queued", "loading", "loaded", "unloading" or "error"; undefined before Python runs, or for an absent model. */
  state(id) {
    return this.#cards.get(id)?.state;
  }

  /** Show a model of another panel, named `name` in reports, as `title`. */
  entitle(name, title) {
    this.#titles.set(name, title);
  }

  /** Map the package's names of models, which the report uses, to titles. */
  titleOfName(name) {
    if (this.#titles.has(name)) return this.#titles.get(name);
    for (const card of this.#cards.values()) if (card.name === name || card.model.id === name) return card.model.title;
    return name;
  }

  /** Move the focus to the card of a model, by the package's name. */
  focus(name) {
    for (const card of this.#cards.values()) if (card.name === name) role(card.element, "toggle").focus();
  }

  /**
   * Load the models of ?load=all (without the large ones), ?load=none, ?load=id,id; without it what was loaded before a reload, or else the
   * small SPLADE family. What a person wants already (`wanted`) is loaded first, also then.
   */
  loadAtStart(wish, wanted) {
    const ids = [...this.#cards.keys()];
    const before = kept("models", null);
    const chosen = wish === "none" ? [] : wish === "all" ? this.#small()
      : wish ? wish.split(",")
        : [...wanted, ...before ?? ids.filter((id) => id.startsWith("splade-tiny"))];
    this.#wanted = new Set();
    return Promise.all([...new Set(chosen)].filter((id) => this.#cards.has(id)).map((id) => this.load(id)));
  }

  loadAll() {
    for (const id of this.#small()) this.load(id);
  }

  #small() {
    return [...this.#cards.keys()].filter((id) => !this.#models.get(id).large);
  }

  unloadAll() {
    for (const [id, card] of this.#cards) {
      if (card.state === "loaded") this.#unload(id);
      else if (["queued", "loading"].includes(card.state)) this.#calls.cancel(id);
    }
  }

  drawReport(report) {
    say(byId("storage"), aboutStorage(report.storage));
    const known = new Map(report.models.map((model) => [model.name, model]));
    offer(byId("run-on"), [["auto", `Automatic (${TITLES[report.devices.chosen]})`, true], ...choices(report.devices)]);
    for (const card of this.#cards.values()) {
      offer(role(card.element, "device"), choices(report.devices));
      const model = known.get(card.name);
      if (card.state !== "loaded" || !model || card.moving) continue;
      this.#on(card, model.device);
      role(card.element, "device").title = report.devices.models[card.name] ?? "";
      say(role(card.element, "about"), `${bytes(model.total_bytes)}, ${bytes(model.shared_bytes)} of it shared`);
    }
  }

  /** The card's model is on ``kind`` now, by a person's choice or because its device was lost. */
  #on(card, kind) {
    card.device = kind;
    role(card.element, "device").value = kind;
  }

  async #moveAll(kind) {
    await this.#calls.pin(kind);
    for (const [id, card] of this.#cards) if (card.state === "loaded") this.#move(id, kind);
  }

  async #move(id, kind) {
    const card = this.#cards.get(id);
    const about = role(card.element, "about");
    const error = role(card.element, "error");
    const turn = card.moving = Symbol(kind);
    error.replaceChildren();
    try {
      const answer = await this.#calls.move(id, kind, ({ loaded, total }) => {
        if (card.moving === turn) say(about, `moving: ${megabytes(loaded)} of ${megabytes(total)} MB`);
      });
      if (card.moving !== turn) return; // a later choice replaced it
      card.moving = null;
      if (!answer.cancelled) this.#on(card, answer.device);
      say(about, `on ${TITLES[card.device]}`);
      this.#calls.changed(id);
    } catch (failure) {
      if (card.moving !== turn) return;
      card.moving = null;
      if (card.state !== "loaded") return; // it was unloaded meanwhile
      this.#on(card, card.device);
      say(about, `still on ${TITLES[card.device]}`);
      showFailure(error, failure, "Not moved.");
    }
  }

  #make(model) {
    const element = byId("card").content.firstElementChild.cloneNode(true);
    element.dataset.modelId = model.id;
    if (model.base) element.dataset.base = model.base;
    element.querySelector("h3").textContent = model.title;
    element.querySelector("progress").setAttribute("aria-label", `Loading ${model.title}`);
    role(element, "cancel").append(h("span", { class: "sr" }, ` loading ${model.title}`));
    const card = { model, element, state: "idle", name: model.id };
    this.#cards.set(model.id, card);
    role(element, "toggle").addEventListener("click", () => {
      if (card.state === "loaded") this.#unload(model.id);
      else this.load(model.id);
    });
    role(element, "cancel").addEventListener("click", () => this.#calls.cancel(model.id));
    role(element, "device").setAttribute("aria-label", `Device of ${model.title}`);
    role(element, "device").addEventListener("change", (event) => this.#move(model.id, event.target.value));
    this.#show(card, "idle");
    return element;
  }

  /** Load a model that is neither loaded nor loading. Gives {failure} if that fails; `onProgress` gets what the card does. */
  async load(id, onProgress = () => {}) {
    const card = this.#cards.get(id);
    if (!["idle", "error"].includes(card.state)) return {};
    const error = role(card.element, "error");
    error.replaceChildren();
    this.#want(id, true);
    this.#show(card, "queued");
    try {
      const answer = await this.#calls.load(card.model, (event) => {
        this.#progress(card, event);
        onProgress(event);
      });
      if (answer.cancelled) {
        this.#want(id, false);
        this.#show(card, "idle");
        say(role(card.element, "about"), `loading was cancelled · ${bytes(card.model.bytes)}`);
      } else {
        card.name = answer.name;
        this.#on(card, answer.device);
        this.#show(card, "loaded", `on ${TITLES[answer.device]}`);
        this.#calls.changed(id);
      }
    } catch (failure) {
      this.#show(card, "error");
      showFailure(error, failure, "Not loaded.");
      return { failure };
    }
    return {};
  }

  async #unload(id) {
    const card = this.#cards.get(id);
    this.#want(id, false);
    this.#show(card, "unloading");
    try {
      await this.#calls.unload(id);
      this.#show(card, "idle");
    } catch (failure) {
      this.#show(card, "error");
      showFailure(role(card.element, "error"), failure, "Not unloaded.");
    }
    this.#calls.changed(id);
  }

  #want(id, loaded) {
    if (loaded) this.#wanted.add(id);
    else this.#wanted.delete(id);
    keep("models", [...this.#wanted]);
  }

  #progress(card, { loaded, total, shared, stored }) {
    if (!["queued", "loading"].includes(card.state)) return; // a late message of a load that was cancelled
    if (card.state !== "loading") this.#show(card, "loading");
    card.element.querySelector("progress").value = total ? loaded / total : 0;
    const from = stored ? " from this browser's storage" : "";
    say(role(card.element, "bytes"), `${megabytes(loaded)} of ${megabytes(total)} MB${from} · ${megabytes(shared)} MB shared`);
  }

  #show(card, state, about) {
    const { element, model } = card;
    const toggle = role(element, "toggle");
    const loading = element.querySelector(".loading");
    const busy = state === "queued" || state === "loading";
    if (loading.contains(document.activeElement) && !busy) toggle.focus(); // its Cancel button is about to go
    card.state = element.dataset.state = state;
    toggle.replaceChildren(SAYS[state], h("span", { class: "sr" }, ` ${model.title}`));
    toggle.disabled = false;
    toggle.setAttribute("aria-disabled", String(busy || state === "unloading"));
    if (loading.hidden && busy) {
      element.querySelector("progress").value = 0;
      say(role(element, "bytes"), "waiting for its turn");
    }
    loading.hidden = !busy;
    role(element, "place").hidden = state !== "loaded";
    const onBackbone = model.base ? ` on ${this.#models.get(model.base)?.title ?? model.base}` : "";
    if (state !== "loaded" || about) {
      say(role(element, "about"), state === "loaded" ? about : `${TASKS[model.task] ?? model.task}${onBackbone} · ${bytes(model.bytes)}`);
    }
    this.#refresh();
  }

  #refresh() {
    const states = [...this.#cards.values()].map((card) => card.state);
    const count = (...wanted) => states.filter((state) => wanted.includes(state)).length;
    const left = [...this.#cards.values()].filter((card) => !card.model.large && ["idle", "error"].includes(card.state));
    const [loadAll, unloadAll] = [byId("load-all"), byId("unload-all")];
    const isNoneLoaded = count("loaded", "queued", "loading") === 0;
    if (left.length) loadAll.disabled = false;
    disable(unloadAll, isNoneLoaded, loadAll);
    disable(loadAll, left.length === 0, unloadAll);
    loadAll.textContent = left.length ? `Load all (${bytes(left.reduce((sum, card) => sum + card.model.bytes, 0))})` : "Load all";
    this.section.dataset.loaded = count("loaded");
    this.section.querySelector("h2").textContent = states.length
      ? `Models: ${count("loaded")} of ${states.length} loaded` : "Models";
  }
}

// The notice about the browser's storage; empty while it works.
function aboutStorage(status) {
  if (status.startsWith("off")) return "This browser keeps no files for this page: models are downloaded again at each visit.";
  if (status.startsWith("reading only")) return "The browser's storage is full or cannot be written: some files are downloaded again at each visit.";
  if (status.includes("could not be compared")) return "The server does not respond: the copies in this browser's storage are used.";
  if (status.includes("another tab")) return "Another tab used the browser's storage: some files are downloaded again at the next visit.";
  return "";
}
