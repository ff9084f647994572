// Progress of the start of Python: one bar of bytes, then three short steps, or the reason of a failure.
import { byId, h, say } from "./dom.js";
import { explain } from "./failures.js";
import { megabytes } from "./format.js";

const STEPS = {
  download: "Step 1 of 4: download",
  python: "Step 2 of 4: start Python",
  install: "Step 3 of 4: install tensorcommons",
  devices: "Step 4 of 4: open the devices",
};

export class BootView {
  #section;

  constructor(section, retry) {
    this.#section = section;
    byId("boot-retry").addEventListener("click", retry);
  }

  begin() {
    this.#section.hidden = false;
    byId("boot-running").hidden = false;
    byId("boot-retry").hidden = true;
    byId("boot-failed").replaceChildren();
    this.progress({ step: "download", loaded: 0, total: 0, file: "" });
  }

  progress({ step, loaded, total, file }) {
    say(byId("boot-step"), STEPS[step]);
    if (step !== "download") return;
    byId("boot-progress").value = total ? loaded / total : 0;
    say(byId("boot-bytes"), total ? `${megabytes(loaded)} of ${megabytes(total)} MB` : "");
    say(byId("boot-file"), file || "\u00a0");
  }

  done() {
    this.#section.hidden = true;
  }

  failed(failure) {
    const { what, advice, details } = explain(failure);
    const isPlain = failure.name === "BootError";
    byId("boot-running").hidden = true;
    byId("boot-failed").replaceChildren(
      h("p", {}, h("b", {}, "Python did not start. "), isPlain ? details : `${what} ${advice}`),
      ...(isPlain ? [] : [h("p", { class: "details" }, `Details: ${details}`)]));
    byId("boot-retry").hidden = false;
  }
}
