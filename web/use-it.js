// The programs that use this site's files from another page: shown with this site's addresses, ready to copy.
import { byId } from "./dom.js";

const MODEL = "models/all-MiniLM-L6-v2";
const address = (path) => new URL(path, document.baseURI).href;

const PROGRAMS = {
  python: (wheel) => `import micropip
await micropip.install("${address(wheel)}")

import tensorcommons as tc

manager = tc.TensorSharingManager(max_memory_mb=512, devices=await tc.open_devices())
model = "${address(MODEL)}"
similarity = await tc.pipeline("sentence-similarity", model, manager=manager)
print(await similarity(["Rain is expected.", "It will be wet."]))
print(manager.report().saved_bytes)`,
  javascript: () => `import { connect } from "${address("tensorcommons.mjs")}";

const tc = await connect();
const model = "${address(MODEL)}";
const embed = await tc.pipeline("feature-extraction", model);
const texts = ["Rain is expected.", "It will be wet."];
const vectors = await embed(texts, { pooling: "mean", normalize: true });
console.log(vectors.dims, vectors.tolist());`,
};

export class UseIt {
  #isFilled = false;

  constructor() {
    for (const button of byId("use").querySelectorAll(".code button")) {
      button.addEventListener("click", () => copy(button.previousElementSibling));
    }
  }

  /** Fill in the programs, once the view is opened. */
  async shown() {
    if (this.#isFilled) return;
    this.#isFilled = true;
    const { wheel } = await (await fetch("manifest.json")).json();
    for (const place of byId("use").querySelectorAll(".code")) {
      place.querySelector("pre").textContent = PROGRAMS[place.dataset.code](wheel);
    }
  }
}

// Where the browser does not allow to copy, the program is selected.
async function copy(program) {
  getSelection().selectAllChildren(program);
  await navigator.clipboard?.writeText(program.textContent).catch(() => {});
}
