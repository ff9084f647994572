// Wires the page: starts the worker, hands its reports to what draws them, and the person's acts to it.
import * as Comlink from "./vendor/comlink.min.mjs";
import { BootView } from "./boot.js";
import { MemoryChart } from "./chart.js";
import { drawFigures, drawModels, drawShares, drawStreams } from "./dashboard.js";
import { drawDevices, forgetDevices } from "./devices.js";
import { byId, say } from "./dom.js";
import { soon } from "./frames.js";
import { seconds } from "./format.js";
import { LimitsPanel } from "./limits.js";
import { ModelCards } from "./model-cards.js";
import { PairPanel } from "./pair.js";
import { SentencesPanel } from "./sentences.js";
import { TensorsTable } from "./tensors-table.js";

const boot = new BootView(byId("boot"), start);
const chart = new MemoryChart(byId("chart"), byId("chart-now"));
const tensors = new TensorsTable(byId("tensors"));
const limits = new LimitsPanel(byId("limits"), () => remote.limits());
let remote = null;
let worker = null;
let without = []; // what Python started without

const cards = new ModelCards(byId("models"), {
  load: (id, onProgress) => remote.load(id, Comlink.proxy(onProgress)),
  unload: (id) => remote.unload(id),
  move: (id, kind, onProgress) => remote.move(id, kind, Comlink.proxy(onProgress)),
  pin: (kind) => remote.pin(kind),
  cancel: (id) => remote.cancel(`load:${id}`),
  changed: (id) => { for (const panel of [sentences, pair]) if (panel.uses(id)) panel.runs.soon(0); },
});
const calls = {
  run: (panel, request, onPart) => remote.run(panel, request, Comlink.proxy(onPart)),
  cancel: (panel) => remote.cancel(`run:${panel}`),
  title: (id) => cards.title(id),
  load: (id) => cards.load(id),
};
const sentences = new SentencesPanel(byId("sentences"), { ...calls, firstResult: markFirstEmbedding });
const pair = new PairPanel(byId("pair"), calls);

function drawReport(report) {
  chart.add(report);
  soon("chart", () => chart.draw()); // first: it measures, which costs nothing before the others change
  soon("figures", () => drawFigures(report));
  soon("shares", () => drawShares(report, (name) => cards.titleOfName(name)));
  soon("streams", () => drawStreams(report, (name) => cards.titleOfName(name)));
  soon("models", () => drawModels(report, (name) => cards.titleOfName(name)));
  soon("tensors", () => tensors.draw(report.tensors));
  soon("devices", () => drawDevices(report.devices));
  soon("cards", () => cards.drawReport(report));
}

async function start() {
  worker?.terminate();
  document.body.dataset.state = "booting";
  boot.begin();
  try {
    const answer = await bootWorker();
    without = answer.without;
    document.body.dataset.state = "ready";
    cards.ready(answer.models);
    boot.done();
    limits.ready();
    performance.measure("usable", { start: 0 });
    showTimings();
    for (const panel of [sentences, pair]) panel.runs.soon(0);
    cards.loadAtStart(new URLSearchParams(location.search).get("load"));
  } catch (error) {
    worker?.terminate();
    document.body.dataset.state = "failed";
    boot.failed(error);
    forgetDevices();
  }
}

function bootWorker() {
  return new Promise((resolve, reject) => {
    worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "tensorcommons" });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      reject(bootError(`The worker could not start${event.message ? `: ${event.message}` : ". Check the connection and retry."}`));
    });
    remote = Comlink.wrap(worker);
    remote.boot(Comlink.proxy((event) => boot.progress(event)), Comlink.proxy(drawReport)).then(resolve, reject);
  });
}

const bootError = (message) => Object.assign(new Error(message), { name: "BootError" }); // a message that is plain already

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
  const lack = without.length ? ` Python started without ${without.join(" and ")}.` : "";
  say(byId("timings"), `${parts.join(", ")}.${lack}`);
}

start();
