// The programs that use this site's files from another page: shown with this site's addresses, ready to copy.
import { byId } from "./dom.js";
import { program } from "./panels/code.js";

const MODEL = "models/all-MiniLM-L6-v2";
const address = (path) => new URL(path, document.baseURI).href;

const PROGRAMS = {
  Python: (wheel) => `import micropip
await micropip.install("${address(wheel)}")

import tensorcommons as tc

manager = tc.TensorSharingManager(max_memory_mb=512, devices=await tc.open_devices())
model = "${address(MODEL)}"
similarity = await tc.pipeline("sentence-similarity", model, manager=manager)
print(await similarity(["Rain is expected.", "It will be wet."]))
print(manager.report().saved_bytes)`,
  JavaScript: () => `import { connect } from "${address("tensorcommons.mjs")}";

const tc = await connect();
const model = "${address(MODEL)}";
const embed = await tc.pipeline("feature-extraction", model);
const texts = ["Rain is expected.", "It will be wet."];
const vectors = await embed(texts, { pooling: "mean", normalize: true });
console.log(vectors.dims, vectors.tolist());`,
};

export class UseIt {
  #places = Object.keys(PROGRAMS).map((title) => ({ title, ...program(title) }));
  #isFilled = false;

  constructor() {
    byId("use-programs").append(...this.#places.map(({ element }) => element));
  }

  /** Fill in the programs, once the view is opened. */
  async shown() {
    if (this.#isFilled) return;
    const response = await fetch("manifest.json").catch(() => null);
    if (!response?.ok) {
      for (const { fill } of this.#places) fill("manifest.json could not be downloaded: check the connection, then open this view again.");
      return;
    }
    this.#isFilled = true;
    const { wheel } = await response.json();
    byId("use-source").href = wheel;
    for (const { title, fill } of this.#places) fill(PROGRAMS[title](wheel));
  }
}
