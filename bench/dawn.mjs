// The benchmark in Node, on Dawn: real WebGPU without a browser. Deno runs the last two on its own WebGPU.
//
//   node dawn.mjs [GROUP ...]                       (all groups when none is named)
//   node dawn.mjs --processes N [GROUP ...]         every group in N processes in turn: medians over their medians
//   node dawn.mjs --profile [GROUP ...]             where the time of our runs goes, instead of the benchmark
//   node dawn.mjs --conformance [COUNT [SEED]]      every op's cases and COUNT random calls, against NumPy
//   node dawn.mjs --cases MODULE[.CASE] ...         cases of tests/cases, of models too
//   LIMITS=default or LIMITS=small before these two: on a device with lower limits (tests/cases/small_devices.py)
//
// Every group runs in a process of its own. layout.json beside this file has the paths of Pyodide, the wheel, the peers
// and the models; a missing model has random weights. Prints tables and writes dawn.json, also when a group fails.
// Variables: DAWN_OPTIONS="key=value;…" for Dawn,
// BENCH_OPTIONS='{"rounds": 3}' as in inside.py, VK_DRIVER_FILES for the Vulkan driver.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const layout = JSON.parse(fs.readFileSync(process.env.BENCH_LAYOUT ?? path.join(here, "layout.json"), "utf8"));
const resolve = (place) => path.resolve(here, place);
const MODELS = "/models"; // in Pyodide
const GROUPS = ["matmul", "encoder", "bandwidth", "quantized", "heads", "adapters", "generate", "images", "host"];

const [, , mode, ...rest] = process.argv;
if (mode === "--probe") await probe();
else if (mode === "--group") await child(...rest).catch((error) => { console.error(String(error.stack)); process.exit(1); });
else if (mode === "--merge") await merge(...rest);
else if (mode === "--conformance") await check("run", ...rest.map(Number));
else if (mode === "--cases") await check("cases", rest, MODELS, "/bench/tests/goldens");
else parent(process.argv.slice(2));

function parent(given) {
  const profile = given.includes("--profile");
  const at = given.indexOf("--processes");
  const processes = at < 0 ? 1 : Number(given[at + 1]);
  const named = given.filter((argument, i) => argument !== "--profile" && (at < 0 || (i !== at && i !== at + 1)));
  const all = profile ? GROUPS.filter((group) => group !== "host") : GROUPS;
  const groups = named.length ? named : all;
  const env = { ...process.env, BENCH_OPTIONS: JSON.stringify({ ...JSON.parse(process.env.BENCH_OPTIONS ?? "{}"), profile }) };
  const unknown = groups.filter((group) => !all.includes(group));
  if (unknown.length) refuse(`no group ${unknown.join(", ")}; the groups are ${all.join(", ")}`);
  if (!Number.isInteger(processes) || processes < 1) refuse("--processes takes a number from 1 on");
  if (profile && processes > 1) refuse("--processes does not go with --profile");
  const target = resolve(layout.result);
  const report = { date: new Date().toISOString(), runtime: `Node ${process.version} on Dawn`, versions: layout.versions, groups: [] };
  for (const group of groups) {
    const found = Array.from({ length: processes }, (_, i) => {
      if (processes > 1) console.log(`${group}: process ${i + 1} of ${processes}`);
      return spawned(["--group", group], `${target}.${group}.tmp`, env);
    });
    report.groups.push(processes > 1 ? merged(group, found, `${target}.${group}.tmp`, env) : { group, ...found[0] });
    fs.writeFileSync(target, JSON.stringify(report, null, 1));
  }
  const device = report.groups.find((group) => group.device)?.device ?? "no device";
  console.log(`\n${report.date}, ${report.runtime}, ${device}`);
  for (const { group, table, error } of report.groups) {
    console.log(`\n── ${group}\n${[table, error && `failed: ${error}`].filter(Boolean).join("\n")}`);
  }
  console.log(`\n${target}`);
}

function refuse(message) {
  console.error(`error: ${message}`);
  process.exit(2);
}

// Run this file in a process that writes JSON to `file`; returns that, or {error}.
function spawned(given, file, env) {
  fs.rmSync(file, { force: true });
  const ended = spawnSync(process.execPath, [fileURLToPath(import.meta.url), ...given, file], { stdio: "inherit", env });
  if (!fs.existsSync(file)) return { error: `the process ended with ${ended.signal ?? `code ${ended.status}`}` };
  const answer = JSON.parse(fs.readFileSync(file, "utf8"));
  fs.rmSync(file);
  return answer;
}

// The medians over the processes of a group, and the error of one that failed.
function merged(group, found, file, env) {
  const failed = found.filter(({ error }) => error);
  const error = failed.length ? `${failed.length} of ${found.length} processes: ${failed[0].error}` : undefined;
  if (failed.length === found.length) return { group, error };
  const parts = `${file}.parts`;
  fs.writeFileSync(parts, JSON.stringify(found.filter((answer) => !answer.error)));
  const answer = spawned(["--merge", parts], file, env);
  fs.rmSync(parts);
  return { group, ...answer, ...(error && { error }) };
}

// Merge the results of processes, a JSON list in the file `parts`.
async function merge(parts, file) {
  const pyodide = await boot();
  fs.writeFileSync(file, pyodide.pyimport("bench.inside").merged(fs.readFileSync(parts, "utf8")));
  process.exit(0);
}

// Import the packages by name, and set navigator.gpu, which Deno has already.
async function openWebGPU() {
  if (globalThis.navigator?.gpu) return;
  const { registerHooks } = await import("node:module");
  registerHooks({
    resolve(name, context, next) {
      return layout.imports[name] ? { url: pathToFileURL(resolve(layout.imports[name])).href, shortCircuit: true } : next(name, context);
    },
  });
  const { create, globals } = await import("webgpu");
  Object.assign(globalThis, globals);
  const gpu = create((process.env.DAWN_OPTIONS ?? "").split(";").filter(Boolean));
  Object.defineProperty(globalThis, "navigator", { value: { gpu, userAgent: `Node.js/${process.versions.node}`, hardwareConcurrency: 2 }, configurable: true });
}

// Print the name of the adapter; exit with code 1 if there is none.
async function probe() {
  await openWebGPU();
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter) console.log([adapter.info.vendor, adapter.info.architecture, adapter.info.description].filter(Boolean).join(" "));
  process.exit(adapter ? 0 : 1);
}

// Start Pyodide with the wheel and this checkout's Python.
async function boot() {
  await openWebGPU();
  const { loadPyodide } = await import(`${pathToFileURL(resolve(layout.pyodide)).href}/pyodide.mjs`);
  const home = `${resolve(layout.pyodide)}/`;
  const pyodide = await loadPyodide({ indexURL: home, packageBaseUrl: home });
  for (const wheel of layout.wheels) pyodide.unpackArchive(new Uint8Array(fs.readFileSync(resolve(wheel))), "wheel");
  pyodide.FS.mkdirTree("/bench");
  pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: resolve(layout.python) }, "/bench");
  await pyodide.runPythonAsync("import sys; sys.path.insert(0, '/bench')");
  pyodide.FS.mkdirTree(MODELS);
  if (fs.existsSync(resolve(layout.models))) pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: resolve(layout.models) }, MODELS);
  return pyodide;
}

// Run a function of tests/cases/long_run.py; exit with code 1 if it fails.
async function check(name, ...given) {
  globalThis.testLimits = process.env.LIMITS ?? "";
  const pyodide = await boot();
  process.exit((await pyodide.pyimport("tests.cases.long_run")[name](...given)) ? 1 : 0);
}

// Run one group in this process.
async function child(group, file) {
  const pyodide = await boot();
  const options = JSON.parse(process.env.BENCH_OPTIONS ?? "{}");
  options.models = pyodide.FS.analyzePath(`${MODELS}/all-MiniLM-L6-v2`).exists ? { MiniLM: `${MODELS}/all-MiniLM-L6-v2` } : {};
  globalThis.require = createRequire(import.meta.url); // TF.js, an ES module, calls it in Node
  const { createSession } = await import("./session.mjs");
  const session = await createSession({
    peer: (name) => import(`./peers/${name}.mjs`),
    base: `${pathToFileURL(resolve(layout.node_modules)).href}/`,
    binary: async (url) => fs.readFileSync(fileURLToPath(url)),
  });
  fs.writeFileSync(file, await pyodide.pyimport("bench.inside").run(session, group, JSON.stringify(options)));
  process.exit(0); // end what the peers left running
}
