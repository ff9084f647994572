// Wires the page: takes over the runtime (start.js), passes its reports to what draws them, and the person's acts to workbench/.
import { BootView } from "./boot.js";
import { MemoryChart } from "./chart.js";
import { Console } from "./console.js";
import { drawFigures, drawModels, drawStreams } from "./dashboard.js";
import { drawDevices, forgetDevices } from "./devices.js";
import { Diagnostics } from "./diagnostics.js";
import { byId, say } from "./dom.js";
import { soon } from "./frames.js";
import { seconds } from "./format.js";
import { LimitControl } from "./limit-control.js";
import { LimitsPanel } from "./limits.js";
import { MemoryDrawer } from "./memory-drawer.js";
import { MemoryEvents } from "./memory-events.js";
import { MemoryPicture } from "./memory-picture.js";
import { ModelCards } from "./model-cards.js";
import { Navigation } from "./navigation.js";
import { ChatPanel } from "./panels/chat.js";
import { refuseOtherDrops } from "./panels/drops.js";
import { ImagesPanel } from "./panels/images.js";
import { OwnPanel } from "./panels/own.js";
import { PairPanel } from "./panels/pair.js";
import { SearchPanel } from "./panels/search.js";
import { SentencesPanel } from "./panels/sentences.js";
import { startRuntime } from "./start.js";
import { TensorsTable } from "./tensors-table.js";
import { UseIt } from "./use-it.js";

const WORKBENCH = ["__init__", "chat", "images", "own", "pair", "progress", "search", "sentences", "session", "texts"].map((name) => `workbench/${name}.py`);

const sources = texts(WORKBENCH); // read while Python starts
const boot = new BootView(byId("boot"), start);
const events = new MemoryEvents((name) => cards.titleOfName(name));
const chart = new MemoryChart(byId("chart"), byId("chart-now"), events);
const tensors = new TensorsTable(byId("tensors"));
let tc = null; // what connect() gave
let started = Promise.withResolvers(); // of workbench/, the page's Python: calls wait for its start
const call = async (...given) => (await started.promise).call(...given);
const limits = new LimitsPanel(byId("limits"), () => call("limits"));
const diagnostics = new Diagnostics(() => tc.diagnostics());
const python = new Console(async () => {
  await started.promise;
  return tc.importPython("console.py");
});
let loads = 0; // times that a model was loaded, moved or unloaded
const under = new Map(); // key → the controller of its latest call

const cards = new ModelCards(byId("models"), {
  load: (model, onPart) => load(model.id, addressOf(model), optionsOf(model), onPart),
  unload: (id) => call("unload", id),
  move: (id, kind, onPart) => latest(`move:${id}`, (signal) => call("move", id, kind, { onPart, signal })),
  pin: (kind) => call("pin", kind),
  cancel: (id) => under.get(`load:${id}`)?.abort(),
  changed: (id) => changed((panel) => panel.uses(id)),
});
// What panels use. A run replaces the one before it of the same key.
const calls = {
  run: (panel, request, onPart, key = panel) => latest(`run:${key}`, (signal) => call(panel, request, { onPart, signal })),
  cancel: (key) => under.get(`run:${key}`)?.abort(),
  call,
  model: (id) => cards.model(id),
  state: (id) => cards.state(id),
  isLoaded: (id) => cards.state(id) === "loaded",
  load: (id, onProgress) => cards.load(id, onProgress),
  cancelLoad: (id) => under.get(`load:${id}`)?.abort(),
  cost: (id) => call("cost", addressOf(cards.model(id)), optionsOf(cards.model(id))),
  loads: () => loads,
  loadOwn: async (name, title, source, options, onPart) => {
    const answer = await load(name, source, options, onPart);
    if (!answer.cancelled) cards.entitle(answer.name, title);
    return answer;
  },
};
// One for each task: uses(modelId), changed(), which runs it again, and `wanted`, the models for what a person has given already.
const PANELS = new Map([
  ["pair", new PairPanel(byId("pair"), calls)],
  ["sentences", new SentencesPanel(byId("sentences"), { ...calls, firstResult: markFirstEmbedding })],
  ["search", new SearchPanel(byId("search"), calls)],
  ["image", new ImagesPanel(byId("image"), calls)],
  ["chat", new ChatPanel(byId("chat"), calls)],
  ["own", new OwnPanel(byId("own"), calls)],
]);
const stale = new Set(); // panels to run when they are shown
const use = new UseIt();
const views = new Navigation((id) => {
  refresh(id);
  if (id === "use") use.shown();
});
const picture = new MemoryPicture({
  title: (name) => cards.titleOfName(name),
  openModel: (name) => { views.open("models"); cards.focus(name); },
  openTensors: (name) => { views.open("memory"); tensors.showModel(name); },
});
const limit = new LimitControl({
  set: (mb) => tc.setMemoryLimit(mb),
  changed: () => changed((panel) => panel === PANELS.get(views.shown)), // it runs again, under the other limit
});
new MemoryDrawer();
refuseOtherDrops();

/** Run the panels that `wants` selects: the one in view now, the others once they are shown. */
function changed(wants) {
  loads += 1;
  for (const [id, panel] of PANELS) if (wants(panel)) stale.add(id);
  refresh(views.shown);
}

function refresh(id) {
  if (document.body.dataset.state === "ready" && stale.delete(id)) PANELS.get(id).changed();
}

// Texts by path; where one is missing, the paths, which the runtime fetches again and names.
async function texts(paths) {
  try {
    return Object.fromEntries(await Promise.all(paths.map(async (path) => {
      const response = await fetch(path);
      if (!response.ok) throw new Error(path);
      return [path, await response.text()];
    })));
  } catch {
    return paths;
  }
}

const addressOf = (model) => new URL(`models/${model.id}`, document.baseURI).href;
const optionsOf = (model) => (model.dtype ? { dtype: model.dtype } : {});
const load = (name, source, options, onPart) => latest(`load:${name}`, (signal) => call("load", name, source, options, { onPart, signal }));

// Make a call that replaces the one under way for `key`; gives {cancelled: true} for one that was replaced or cancelled.
async function latest(key, make) {
  under.get(key)?.abort();
  const controller = new AbortController();
  under.set(key, controller);
  try {
    return await make(controller.signal);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    return { cancelled: true };
  } finally {
    if (under.get(key) === controller) under.delete(key);
  }
}

function drawReport(report) {
  const at = performance.now() / 1000;
  chart.add(report, at);
  events.add(report, at);
  soon("chart", () => chart.draw()); // first: it measures, which costs nothing before the others change
  soon("figures", () => drawFigures(report));
  soon("limit", () => limit.draw(report));
  soon("events", () => events.draw());
  soon("picture", () => picture.draw(report));
  soon("streams", () => drawStreams(report, (name) => cards.titleOfName(name)));
  soon("models", () => drawModels(report, (name) => cards.titleOfName(name)));
  soon("tensors", () => tensors.draw(report, (name) => cards.titleOfName(name)));
  soon("devices", () => drawDevices(report.devices));
  soon("cards", () => cards.drawReport(report));
}

async function start() {
  document.body.dataset.state = "booting";
  boot.begin();
  try {
    const runtime = tc = await startRuntime((event) => boot.progress(event));
    runtime.closed.then((error) => { if (runtime === tc) failed(error); }); // Python has stopped
    const workbench = await runtime.importPython(await sources);
    python.forget();
    globalThis.tc = runtime; // for the browser's console
    drawReport(await runtime.report());
    runtime.onReport(drawReport);
    started.resolve(workbench);
    document.body.dataset.state = "ready";
    cards.ready(runtime.models);
    boot.done();
    limits.ready();
    diagnostics.ready();
    performance.measure("usable", { start: 0 });
    showTimings();
    const wanted = PANELS.get(views.shown)?.wanted ?? [];
    changed(() => true);
    cards.loadAtStart(new URLSearchParams(location.search).get("load"), wanted).finally(keepOffline);
    PANELS.get("own").loadAtStart();
  } catch (error) {
    if (document.body.dataset.state !== "failed") failed(error);
  }
}

// Its downloads would compete with those of the first models.
function keepOffline() {
  navigator.serviceWorker?.register("service-worker.js", { updateViaCache: "none" }).catch(() => {}); // not in every private window
}

// Python did not start, or has stopped: the next start has to load the models again.
function failed(error) {
  const hadStarted = document.body.dataset.state === "ready";
  const runtime = tc;
  tc = null;
  runtime?.close();
  if (hadStarted) started = Promise.withResolvers();
  document.body.dataset.state = "failed";
  boot.failed(error, hadStarted);
  forgetDevices();
}

function markFirstEmbedding() {
  performance.measure("first-embedding", { start: 0 });
  showTimings();
}

function showTimings() {
  const said = { usable: "Usable", "first-embedding": "first embedding" };
  const parts = Object.entries(said).flatMap(([name, label]) => {
    const [entry] = performance.getEntriesByName(name, "measure");
    return entry ? [`${label} after ${seconds(entry.duration / 1000)}`] : [];
  });
  const lack = tc.without.length ? ` Python started without ${tc.without.join(" and ")}.` : "";
  say(byId("timings"), `${parts.join(", ")}.${lack}`);
}

views.start();
start();
