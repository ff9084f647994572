// The panel of one's own model: a name, an address or files; what it is and costs; then a form for each of its tasks.
import { TITLES } from "../devices.js";
import { byId, h, role, say } from "../dom.js";
import { showFailure } from "../failures.js";
import { bytes, count, duration } from "../format.js";
import { drawStrip } from "../run-strip.js";
import { keep, keepField, kept } from "../session.js";
import { codeOf } from "./code.js";
import { costWords } from "./cost.js";
import { takeDrops } from "./drops.js";
import { loadingBar } from "./loading.js";
import { picture } from "./pictures.js";
import { shown } from "./results.js";

const HUB = /^(https?:\/\/)?(huggingface\.co|hf\.co)\//; // pages of models, as people copy them
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
  #entries = []; // models that are loaded, or load: {name, title, source, dtype, tasks}
  #code;
  #last = null; // what the code is about: {source, task}
  #count = 0;
  #latest = 0;
  wanted = [];

  constructor(panel, calls) {
    this.panel = panel;
    this.calls = calls;
    keepField(this.#source, "own-source");
    byId("own-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const typed = this.#source.value.trim();
      if (!typed) return;
      const { source, words } = sourceOf(typed);
      if (source) this.#look(source, typed);
      else this.#refuse(words);
    });
    for (const id of ["own-files", "own-folder"]) {
      const field = byId(id);
      field.addEventListener("change", () => {
        this.#files([...field.files].map((file) => [file.webkitRelativePath || file.name, file]));
        field.value = ""; // the same files can be chosen again
      });
    }
    takeDrops(panel, (found) => this.#files(found));
    this.#code = codeOf("own", (text) => this.#filled(text));
    panel.append(this.#code);
  }

  uses() {
    return false;
  }

  changed() {}

  /** Load the models that were loaded before a reload; chosen files are not there any more. */
  loadAtStart() {
    this.#loaded.replaceChildren();
    this.#entries = [];
    for (const entry of kept("own-models", [])) this.#load({ ...entry, name: this.#name() }, false);
  }

  #files(entries) {
    if (!entries.length) return;
    const tops = new Set(entries.map(([name]) => (name.includes("/") ? name.split("/")[0] : "")));
    const top = tops.size === 1 && !tops.has("") ? `${[...tops][0]}/` : "";
    const files = entries.map(([name, file]) => [name.slice(top.length), file]);
    const names = files.map(([name]) => name);
    const alone = names.some(isSafetensors) ? [] : files.filter(([name]) => isGguf(name));
    const lack = lackOf(names);
    if (lack) this.#refuse(lack);
    else if (alone.length) this.#look(Object.fromEntries(alone), alone[0][0]);
    else this.#look(Object.fromEntries(files), top.slice(0, -1) || "your files");
  }

  // What was entered cannot be a model.
  #refuse(words) {
    this.#latest += 1;
    this.#state("error", "");
    this.#about.replaceChildren();
    role(this.panel, "error").replaceChildren(h("p", {}, words));
  }

  /** Describe a model, and offer to load it. */
  async #look(source, title) {
    const number = ++this.#latest;
    const error = role(this.panel, "error");
    error.replaceChildren();
    this.#state("running", document.body.dataset.state === "ready" ? "Reading the headers…" : "Waiting for Python…");
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
      showFailure(error, failure, "This model cannot be used.", whereOf(source));
    }
  }

  #describe(cost, source, title, dtype) {
    const tasks = cost.tasks.filter((task) => TASKS[task]);
    const row = (name, text) => h("div", {}, h("dt", {}, name), h("dd", {}, text));
    const load = h("button", { type: "button", class: "primary" }, `Load ${title}`);
    this.#about.replaceChildren(
      h("h3", { tabindex: -1 }, title),
      h("dl", { class: "facts" },
        row("Architecture", cost.model_type),
        row("Parameters", count(cost.parameters)),
        row("Stored as", Object.entries(cost.stored_formats).map(([name, size]) => `${name}, ${bytes(size)}`).join("; ")),
        row("On the device", `${bytes(cost.weight_bytes)} on ${TITLES[cost.device]}`),
        row("Can", tasks.map((task) => TASKS[task][0].toLowerCase()).join(", ") || "nothing that this page has a form for")),
      h("p", { class: "small", "data-role": "cost" }, costWords(cost)), load);
    load.addEventListener("click", () => {
      this.#about.replaceChildren();
      this.#load({ name: this.#name(), title, source, dtype, tasks }, true);
    });
    this.#about.querySelector("h3").focus();
  }

  /** Load a model, with its progress in the list; the focus follows if a person has asked for it. */
  async #load(entry, isAsked) {
    const { name, title, source, dtype } = entry;
    const loading = loadingBar(title, () => this.calls.cancelLoad(name));
    const place = this.#loaded.appendChild(h("li", { class: "own" }, h("h3", {}, title), loading.element));
    this.#change([...this.#entries, entry]);
    loading.show(true);
    if (isAsked) loading.focus();
    let answer = null;
    let failure = null;
    try {
      answer = await this.calls.loadOwn(name, title, source, { dtype }, loading.progress);
    } catch (error) {
      failure = error;
    }
    const { hasFocus } = loading;
    if (answer && !answer.cancelled) {
      place.remove();
      this.#add(entry, answer, isAsked && hasFocus);
      return;
    }
    this.#change(this.#entries.filter((each) => each !== entry));
    const next = failure ? this.#failed(place, failure, entry) : this.#source;
    if (isAsked && hasFocus) next.focus();
    if (!failure) place.remove();
  }

  // Show why a model was not loaded, with a button that loads it again.
  #failed(place, failure, entry) {
    const error = h("div", { class: "error", role: "alert" });
    const again = h("button", { type: "button" }, "Try again", h("span", { class: "sr" }, ` to load ${entry.title}`));
    const remove = h("button", { type: "button", class: "quiet" }, "Remove", h("span", { class: "sr" }, ` ${entry.title}`));
    again.addEventListener("click", () => {
      place.remove();
      this.#load(entry, true);
    });
    remove.addEventListener("click", () => {
      place.remove();
      this.#source.focus();
    });
    place.replaceChildren(place.firstElementChild, error, h("div", { class: "actions" }, again, remove));
    showFailure(error, failure, "Not loaded.", whereOf(entry.source));
    return again;
  }

  /** A loaded model: its tasks, each with a form. */
  #add(entry, { device, mask }, takesFocus) {
    const { name, title, source, tasks } = entry;
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
        this.#change(this.#entries.filter((each) => each !== entry));
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
    if (takesFocus) element.querySelector("h3").focus();
  }

  #name() {
    this.#count += 1;
    return `own-${this.#count}`;
  }

  #change(entries) {
    this.#entries = entries;
    keep("own-models", entries.filter(({ source }) => typeof source === "string"));
  }

  #form(place, name, task, source, mask) {
    const controls = TASKS[task].slice(1).map((field) => ({ field, control: controlOf(field, task, mask) }));
    const run = h("button", { type: "submit", class: "primary" }, TASKS[task][0]);
    const stop = h("button", { type: "button", hidden: true }, "Cancel");
    const status = h("span", { role: "status" });
    const error = h("div", { class: "error", role: "alert" });
    const result = h("div", { "data-role": "result" });
    const strip = h("div", { class: "run small muted", hidden: true });
    const form = h("form", {}, ...controls.map(({ field, control }, i) => labelledField(field, control, `${name}-${task}-${i}`)),
      h("p", { class: "status" }, run, stop, status), error, result, strip);
    place.replaceChildren(form);
    this.#last = { source, task };
    this.#code.refresh();
    stop.addEventListener("click", () => this.calls.cancel(`own:${name}`));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      error.replaceChildren();
      stop.hidden = false;
      if (document.activeElement === run) stop.focus(); // disabling would drop the focus
      run.disabled = true;
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
        if (!answer.cancelled) drawStrip(strip, answer.stats, answer.tokens ? "the last token" : "");
        say(status, answer.cancelled ? "Stopped" : duration(answer.stats.seconds)
          + (answer.tokens_per_second ? ` · ${answer.tokens_per_second.toFixed(1)} tokens per second` : ""));
      } catch (failure) {
        say(status, "Failed");
        if (failure.isPlain) error.replaceChildren(h("p", {}, failure.message));
        else showFailure(error, failure);
      }
      run.disabled = false;
      if (document.activeElement === stop) run.focus();
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

/** What a person entered as a source: {source}, or {words} where it cannot be one. */
function sourceOf(typed) {
  const name = HUB.test(typed) ? typed.replace(HUB, "").replace(/\/(tree|blob|resolve)\/([^/]+)(\/.*\.gguf)?.*$/i, "@$2$3").replace(/\/$/, "") : typed;
  if (/^[\w-][\w.-]*\/[\w.-]+(@(?!.*\.\.)[\w./-]+)?(\/(?!.*\.\.)[\w./-]+\.gguf)?$/i.test(name)) return { source: name };
  if (/^(https?:\/\/|\.{0,2}\/)/.test(typed) && URL.canParse(typed, document.baseURI)) {
    const { href, origin, protocol } = new URL(typed.replace(/\/(config\.json|[^/]+\.safetensors)$/, "/"), document.baseURI);
    if (origin === location.origin || protocol === "https:") return { source: href };
    return { words: `${short(typed)} cannot be read from this page: an address of another site must begin with https://.` };
  }
  return { words: `${short(typed)} is neither a name nor an address. A name is org/name, org/name@revision or org/name/file.gguf; an address begins with https:// or ./.` };
}

const short = (text) => `“${text.length > 80 ? `${text.slice(0, 80)}…` : text}”`;
const whereOf = (source) => (typeof source === "string" ? "elsewhere" : "chosen");

const isGguf = (name) => name.toLowerCase().endsWith(".gguf");
const isSafetensors = (name) => name.toLowerCase().endsWith(".safetensors");

/** Why files are not a model that can be loaded; "" if they may be one. */
function lackOf(names) {
  const has = (...endings) => names.some((name) => endings.some((ending) => name.toLowerCase().endsWith(ending)));
  const whole = "Choose the whole folder of a model: config.json, model.safetensors and the files of its tokenizer.";
  if (names.some(isSafetensors)) return names.includes("config.json") ? "" : `config.json is not among these files. ${whole}`;
  const alone = names.filter(isGguf).length;
  if (alone) return alone === 1 ? "" : "Choose one GGUF file: each of them is a model of its own.";
  const other = [
    ["An ONNX model", "Enter the name of the model that it was made from instead; its model card may state it as base_model.", ".onnx"],
    ["A pickle of PyTorch", "With transformers in Python, from_pretrained(…) reads it, and save_pretrained(…) writes model.safetensors.", ".bin", ".pt", ".pth", ".ckpt"],
    ["A model of TensorFlow or Keras", whole, ".h5", ".tflite", ".keras", ".pb"],
  ].find(([, , ...endings]) => has(...endings));
  const [what, remedy] = other ? [`${other[0]} cannot be loaded`, other[1]] : ["These files contain no weights", whole];
  return `${what}: the weights must be in model.safetensors, or in one GGUF file. ${remedy}`;
}
