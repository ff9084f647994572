// The panel of one's own model: a name, an address or files; what it is and costs; then a form for each of its tasks.
import { TITLES } from "../devices.js";
import { byId, h, role, say } from "../dom.js";
import { showFailure } from "../failures.js";
import { bytes, count, megabytes, seconds } from "../format.js";
import { codeOf } from "./code.js";
import { costWords } from "./cost.js";
import { picture } from "./pictures.js";
import { shown } from "./results.js";

const LARGEST = 1_000_000_000; // bytes of dropped files, which Python keeps in its memory
const FIELDS = {
  text: (words) => ({ name: "text", label: words, rows: 3 }),
  pair: { name: "pair", label: "Second text", rows: 2 },
};
// By task: its name in words, and the fields of its form. A task that is not here has no form.
const TASKS = {
  "text-classification": ["Classify a text", FIELDS.text("Text"), { ...FIELDS.pair, label: "Second text (for a model of pairs)" }],
  "zero-shot/nli": ["Compare two texts", FIELDS.text("First text"), FIELDS.pair],
  "token-classification": ["Label words", FIELDS.text("Text")],
  "feature-extraction": ["Embed texts", FIELDS.text("Texts, one a line")],
  "sparse-embedding": ["Weigh terms", FIELDS.text("Text")],
  "fill-mask": ["Fill a mask", FIELDS.text("Text with the mask")],
  "question-answering": ["Answer a question", { name: "question", label: "Question", rows: 1 }, FIELDS.text("Text with the answer")],
  "text-generation": ["Continue a text", FIELDS.text("Beginning"), { name: "chat", label: "It is a message of a chat", type: "checkbox" }],
  "text2text-generation": ["Rewrite a text", FIELDS.text("Text")],
  summarization: ["Summarize", FIELDS.text("Text")],
  "image-classification": ["Classify a picture", { name: "picture", label: "Picture", type: "file" }],
  "zero-shot-image-classification": ["Choose a label for a picture", FIELDS.text("Labels, separated by commas"), { name: "picture", label: "Picture", type: "file" }],
  "image-feature-extraction": ["Embed a picture", { name: "picture", label: "Picture", type: "file" }],
  saliency: ["What stands out", { name: "picture", label: "Picture", type: "file" }],
};

export class OwnPanel {
  #source = byId("own-source");
  #dtype = byId("own-dtype");
  #about = byId("own-about");
  #loaded = byId("own-loaded");
  #code;
  #last = null; // what the code is about: {source, task}
  #count = 0;
  #latest = 0;

  constructor(panel, calls) {
    this.panel = panel;
    this.calls = calls;
    byId("own-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const source = this.#source.value.trim();
      if (source) this.#look(addressOf(source), source);
    });
    for (const id of ["own-files", "own-folder"]) {
      byId(id).addEventListener("change", (event) => this.#files([...event.target.files].map((file) => [file.webkitRelativePath || file.name, file])));
    }
    panel.addEventListener("dragover", (event) => {
      if (event.dataTransfer.types.includes("Files")) event.preventDefault();
    });
    panel.addEventListener("drop", async (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      this.#files(await dropped(event.dataTransfer));
    });
    this.#code = codeOf("own", (text) => this.#filled(text));
    panel.append(this.#code);
  }

  uses() {
    return false;
  }

  changed() {}

  #files(entries) {
    if (!entries.length) return;
    const error = role(this.panel, "error");
    const total = entries.reduce((sum, [, file]) => sum + file.size, 0);
    const tops = new Set(entries.map(([name]) => (name.includes("/") ? name.split("/")[0] : "")));
    const top = tops.size === 1 && !tops.has("") ? `${[...tops][0]}/` : "";
    const files = Object.fromEntries(entries.map(([name, file]) => [name.slice(top.length), file]));
    if (total > LARGEST) {
      error.replaceChildren(h("p", {}, `These files have ${bytes(total)}; ${bytes(LARGEST)} can be dropped at most. Put the folder on a web server and enter its address.`));
    } else if (!files["config.json"]) {
      error.replaceChildren(h("p", {}, "config.json is not among these files. Choose the whole folder of a model: config.json, model.safetensors and the files of its tokenizer."));
    } else {
      this.#look(files, top.slice(0, -1) || "dropped files");
    }
  }

  /** Describe a model, and offer to load it. */
  async #look(source, title) {
    const number = ++this.#latest;
    const error = role(this.panel, "error");
    error.replaceChildren();
    this.#state("running", "Reading the headers…");
    const dtype = this.#dtype.value || null;
    try {
      const cost = await this.calls.call("cost", source, { dtype });
      if (number !== this.#latest) return;
      this.#state("done", "");
      this.#describe(cost, source, title, dtype);
    } catch (failure) {
      if (number !== this.#latest) return;
      this.#state("error", "Failed");
      this.#about.replaceChildren();
      showFailure(error, failure, "This model cannot be used.");
    }
  }

  #describe(cost, source, title, dtype) {
    const tasks = cost.tasks.filter((task) => TASKS[task]);
    const row = (name, text) => h("div", {}, h("dt", {}, name), h("dd", {}, text));
    const load = h("button", { type: "button", class: "primary" }, `Load ${title}`);
    const bar = h("progress", { max: 1, value: 0, "aria-label": `Loading ${title}` });
    const done = h("span", { class: "small num" }, "waiting for its turn");
    const stop = h("button", { type: "button" }, "Cancel", h("span", { class: "sr" }, ` loading ${title}`));
    const loading = h("div", { class: "loading", hidden: true }, bar, done, stop);
    const error = h("div", { class: "error", role: "alert" });
    this.#about.replaceChildren(
      h("h3", { tabindex: -1 }, title),
      h("dl", { class: "facts" },
        row("Architecture", cost.model_type),
        row("Parameters", count(cost.parameters)),
        row("Stored as", Object.entries(cost.stored_formats).map(([name, size]) => `${name}, ${bytes(size)}`).join("; ")),
        row("On the device", `${bytes(cost.weight_bytes)} on ${TITLES[cost.device]}`),
        row("Can", tasks.map((task) => TASKS[task][0].toLowerCase()).join(", ") || "nothing that this page has a form for")),
      h("p", { class: "small", "data-role": "cost" }, costWords(cost)), load, loading, error);
    const name = `own-${++this.#count}`;
    stop.addEventListener("click", () => this.calls.cancelLoad(name));
    load.addEventListener("click", async () => {
      error.replaceChildren();
      load.disabled = true;
      loading.hidden = false;
      stop.focus();
      try {
        const answer = await this.calls.loadOwn(name, title, source, { dtype }, ({ loaded, total, shared }) => {
          bar.value = total ? loaded / total : 0;
          say(done, `${megabytes(loaded)} of ${megabytes(total)} MB · ${megabytes(shared)} MB shared`);
        });
        if (answer.cancelled) {
          load.disabled = false;
          load.focus();
        } else {
          this.#about.replaceChildren();
          this.#add(name, title, source, answer, tasks);
        }
      } catch (failure) {
        load.disabled = false;
        load.focus();
        showFailure(error, failure, "Not loaded.");
      }
      loading.hidden = true;
    });
    this.#about.querySelector("h3").focus();
  }

  /** A loaded model: its tasks, each with a form. */
  #add(name, title, source, { device, mask }, tasks) {
    const choice = h("select", { "aria-label": `Task of ${title}` }, ...tasks.map((task) => h("option", { value: task }, TASKS[task][0])));
    const unload = h("button", { type: "button" }, "Unload", h("span", { class: "sr" }, ` ${title}`));
    const place = h("div", { class: "task" });
    const element = h("li", { class: "own" },
      h("div", { class: "head" }, h("h3", { tabindex: -1 }, `${title}, on ${TITLES[device]}`), h("div", { class: "actions" }, tasks.length > 1 ? choice : null, unload)), place);
    choice.addEventListener("change", () => this.#form(place, name, choice.value, source, mask));
    unload.addEventListener("click", async () => {
      unload.disabled = true;
      try {
        await this.calls.call("unload", name);
        element.remove();
        this.#source.focus();
      } catch (failure) {
        unload.disabled = false;
        showFailure(role(this.panel, "error"), failure, "Not unloaded.");
      }
    });
    this.#loaded.append(element);
    if (tasks.length) this.#form(place, name, tasks[0], source, mask);
    else place.append(h("p", { class: "small" }, "This page has no form for its tasks: use it from Python."));
    element.querySelector("h3").focus();
  }

  #form(place, name, task, source, mask) {
    const controls = TASKS[task].slice(1).map((field) => ({ field, control: controlOf(field, task, mask) }));
    const run = h("button", { type: "submit", class: "primary" }, TASKS[task][0]);
    const stop = h("button", { type: "button", hidden: true }, "Cancel");
    const status = h("span", { role: "status" });
    const error = h("div", { class: "error", role: "alert" });
    const result = h("div", { "data-role": "result" });
    const form = h("form", {}, ...controls.map(({ field, control }, i) => labelledField(field, control, `${name}-${task}-${i}`)),
      h("p", { class: "status" }, run, stop, status), error, result);
    place.replaceChildren(form);
    this.#last = { source, task };
    this.#code.refresh();
    stop.addEventListener("click", () => this.calls.cancel(`own:${name}`));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      error.replaceChildren();
      run.disabled = true;
      stop.hidden = false;
      say(status, "Running…");
      try {
        const values = await valuesOf(controls);
        const text = h("p", { class: "result", dir: "auto" });
        const answer = await this.calls.run("own", { name, task, form: values.sent }, (part) => {
          if (part.part !== "text") return;
          if (!text.isConnected) result.replaceChildren(text);
          text.append(part.text);
        }, `own:${name}`);
        if (!answer.cancelled && answer.value !== undefined) result.replaceChildren(...shown(task, answer.value, values));
        say(status, answer.cancelled ? "Stopped" : seconds(answer.stats.seconds)
          + (answer.tokens_per_second ? ` · ${answer.tokens_per_second.toFixed(1)} tokens per second` : ""));
      } catch (failure) {
        say(status, "Failed");
        if (failure.isPlain) error.replaceChildren(h("p", {}, failure.message));
        else showFailure(error, failure);
      }
      if (document.activeElement === stop) run.focus();
      run.disabled = false;
      stop.hidden = true;
    });
  }

  #filled(text) {
    const { source, task } = this.#last ?? { source: null, task: null };
    const address = typeof source === "string" ? source : "org/name";
    return text.replaceAll("org/name", address.replaceAll(/["\\\n]/g, encodeURIComponent)).replaceAll("text-classification", task ?? "text-classification");
  }

  #state(state, words) {
    this.panel.dataset.state = state;
    say(role(this.panel, "status"), words);
  }
}

const controlOf = (field, task, mask) => {
  if (field.type === "file") return h("input", { type: "file", accept: "image/*", required: true });
  if (field.type) return h("input", { type: field.type });
  const control = h("textarea", { rows: field.rows, spellcheck: "false", required: field.name !== "pair" || task === "zero-shot/nli" });
  if (task === "fill-mask" && mask) control.value = `The capital of France is ${mask}.`;
  return control;
};

function labelledField(field, control, id) {
  control.id = id;
  return h("div", { class: field.type === "checkbox" ? "field check" : "field" }, h("label", { for: id }, field.label), control);
}

/** The values of a form: as Python gets them (`sent`), and as results are shown with. */
async function valuesOf(controls) {
  const values = { sent: {} };
  for (const { field: { name, type }, control } of controls) {
    if (type === "file") {
      try {
        values.picture = await picture(control.files[0]);
      } catch (error) {
        throw Object.assign(error, { isPlain: true });
      }
      const { width, height, pixels } = values.picture;
      Object.assign(values.sent, { width, height, pixels: pixels.data });
    } else {
      values[name] = values.sent[name] = type === "checkbox" ? control.checked : control.value;
    }
  }
  return values;
}

/** An address of this site is relative to the page; a name of a hub stays as it is. */
function addressOf(source) {
  return /^\.{0,2}\//.test(source) ? new URL(source, document.baseURI).href : source;
}

/** The files of a drop, also those in folders, as [path, File]. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => [file.name, file]);
  const found = [];
  const visit = async (entry, path) => {
    if (entry.isFile) {
      found.push([`${path}${entry.name}`, await new Promise((resolve, reject) => entry.file(resolve, reject))]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const each of some) await visit(each, `${path}${entry.name}/`);
    }
  };
  for (const entry of entries) await visit(entry, "");
  return found;
}
