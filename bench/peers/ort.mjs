// onnxruntime-web, once for each of its execution providers. It takes ONNX files (bench/onnx.py) of fixed shapes.

// A provider in the build that has it: the JavaScript of the package, and the WebAssembly that this loads.
function provider({ name, device, script, wasm, options, threads = 1 }) {
  let ort;
  return {
    name,
    device,
    takes: "onnx",
    groups: "matmul encoder bandwidth heads generate images load",

    async open({ base, binary }) {
      // Each number of threads has a module of its own, since one initializes WebAssembly once.
      ort = await import(`${import.meta.resolve(script)}?threads=${threads}`);
      const files = `${base}onnxruntime-web/dist/ort-wasm-simd-threaded${wasm}`;
      ort.env.wasm.numThreads = threads;
      ort.env.wasm.wasmPaths = { mjs: `${files}.mjs`, wasm: `${files}.wasm` };
      if (binary) ort.env.wasm.wasmBinary = await binary(`${files}.wasm`);
      ort.env.logLevel = "error";
      return ort.env.versions.web;
    },

    // Gives {run, close}; run computes and reads back.
    async prepare(kind, params, { model, constants, feeds }) {
      if (kind === "generate") return generation(ort, { model, constants }, options, params, feeds.prompts);
      const create = (bytes) => ort.InferenceSession.create(bytes, {
        executionProviders: [options],
        graphOptimizationLevel: "all",
        logSeverityLevel: 3,
      });
      const inputs = Object.fromEntries(Object.entries(feeds).map(([key, { data, shape }]) =>
        [key, new ort.Tensor(data instanceof Int32Array ? "int32" : "float32", data, shape)]));
      if (kind === "load") return loading(create, params, inputs);
      const sessions = [];
      for (const bytes of [model].flat()) sessions.push(await create(bytes));
      return {
        // Several models run one after another; the answer is the last one's.
        async run() {
          let data;
          for (const session of sessions) {
            const outputs = await session.run(inputs);
            data = await outputs[session.outputNames[0]].getData();
            for (const tensor of Object.values(outputs)) tensor.dispose();
          }
          return data;
        },
        async close() {
          for (const session of sessions) await session.release();
        },
      };
    },
  };
}

// From the server, or the page's cache, to the first answer.
function loading(create, { url, cold }, inputs) {
  return {
    async run() {
      if (cold) await globalThis.caches.delete("bench");
      const cache = await globalThis.caches.open("bench");
      if (!(await cache.match(url))) await cache.add(url);
      const file = await cache.match(url);
      const session = await create(new Uint8Array(await file.arrayBuffer()));
      const outputs = await session.run(inputs);
      const data = await outputs[session.outputNames[0]].getData();
      for (const tensor of Object.values(outputs)) tensor.dispose();
      await session.release();
      return data;
    },
    close: () => globalThis.caches.delete("bench"),
  };
}

// Greedy tokens, the keys and values kept where they are computed, as transformers.js does it: one prompt (rows, tokens)
// after another. `timed` is the first token, those "after" it, or "all".
async function generation(ort, { model, constants }, options, params, prompts) {
  if (options.name === "webnn") throw new Error("it takes fixed shapes only, and a cache grows");
  const { new: count, layers, heads, size, half, timed } = params;
  const [turns, rows, length] = prompts.shape;
  const parts = Array.from({ length: layers }, (_, i) => [`${i}.key`, `${i}.value`]).flat();
  const place = options === "webgpu" ? "gpu-buffer" : "cpu";
  const session = await ort.InferenceSession.create(model, {
    executionProviders: [options],
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    preferredOutputLocation: Object.fromEntries(parts.map((part) => [`present.${part}`, place])),
    ...(constants && { externalData: [{ path: "weights.bin", data: constants }] }),
  });
  const whole = (numbers) => new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [rows, numbers.length / rows]);
  const [type, Numbers] = half ? ["float16", globalThis.Float16Array ?? Uint16Array] : ["float32", Float32Array];
  let turn = 0;
  return {
    settings: `cache in ${place}, ${half ? "float16" : "float32"}; no graph capture, since the shapes of its inputs change`,
    async run() {
      const begun = performance.now();
      let cache = Object.fromEntries(parts.map((part) => [part, new ort.Tensor(type, new Numbers(), [rows, heads, 0, size])]));
      let next = prompts.data.subarray((turn % turns) * rows * length, (turn++ % turns + 1) * rows * length);
      let all = 0;
      let first = 0;
      const tokens = [];
      while (tokens.length < count) {
        all += next.length / rows;
        const past = Object.fromEntries(parts.map((part) => [`past_key_values.${part}`, cache[part]]));
        const outputs = await session.run({ input_ids: whole(next), attention_mask: whole(new Array(rows * all).fill(1)), ...past });
        for (const tensor of Object.values(cache)) tensor.dispose();
        cache = Object.fromEntries(parts.map((part) => [part, outputs[`present.${part}`]]));
        const logits = await outputs.logits.getData();
        outputs.logits.dispose();
        tokens.push(next = likeliest(logits, rows));
        first ||= performance.now();
      }
      const took = performance.now() - (timed === "after" ? first : begun);
      for (const tensor of Object.values(cache)) tensor.dispose();
      return { result: Float32Array.from({ length: rows * count }, (_, i) => tokens[i % count][Math.floor(i / count)]), took };
    },
    close: () => session.release(),
  };
}

// The place of the largest number of each row.
function likeliest(logits, rows) {
  const columns = logits.length / rows;
  return Array.from({ length: rows }, (_, row) => {
    let best = 0;
    for (let i = 1; i < columns; i++) if (logits[row * columns + i] > logits[row * columns + best]) best = i;
    return best;
  });
}

const WASM = { script: "onnxruntime-web/wasm", wasm: "", options: "wasm" };

export const contestants = [
  provider({ name: "ORT WebGPU", device: "webgpu", script: "onnxruntime-web/webgpu", wasm: ".asyncify", options: "webgpu" }),
  provider({ name: "ORT WASM", device: "wasm", ...WASM, threads: globalThis.crossOriginIsolated ? 2 : 1 }),
  provider({ name: "ORT WASM, one thread", device: "cpu", ...WASM }),
  provider({ name: "ORT WebNN", device: "webnn", script: "onnxruntime-web/webnn", wasm: ".jsep", options: { name: "webnn", deviceType: "cpu" } }),
];
