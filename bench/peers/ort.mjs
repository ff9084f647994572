// onnxruntime-web, once for each of its execution providers. It takes ONNX files (bench/onnx.py) of fixed shapes.

// A provider in the build that has it: the JavaScript of the package, and the WebAssembly that this loads.
function provider({ name, device, script, wasm, options, threads = 1 }) {
  let ort;
  return {
    name,
    device,
    takes: "onnx",

    async open({ base, binary }) {
      ort = await import(script);
      const files = `${base}onnxruntime-web/dist/ort-wasm-simd-threaded${wasm}`;
      ort.env.wasm.numThreads = threads;
      ort.env.wasm.wasmPaths = { mjs: `${files}.mjs`, wasm: `${files}.wasm` };
      if (binary) ort.env.wasm.wasmBinary = await binary(`${files}.wasm`);
      ort.env.logLevel = "error";
      return ort.env.versions.web;
    },

    // Gives {run, close}; run computes and reads back.
    async prepare(_kind, _params, { model, feeds }) {
      const sessions = [];
      for (const bytes of [model].flat()) {
        sessions.push(await ort.InferenceSession.create(bytes, {
          executionProviders: [options],
          graphOptimizationLevel: "all",
          logSeverityLevel: 3,
        }));
      }
      const inputs = Object.fromEntries(Object.entries(feeds).map(([key, { data, shape }]) =>
        [key, new ort.Tensor(data instanceof Int32Array ? "int32" : "float32", data, shape)]));
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

const WASM = { script: "onnxruntime-web/wasm", wasm: "", options: "wasm" };

export const contestants = [
  provider({ name: "ORT WebGPU", device: "webgpu", script: "onnxruntime-web/webgpu", wasm: ".asyncify", options: "webgpu" }),
  provider({ name: "ORT WASM", device: "wasm", ...WASM, threads: globalThis.crossOriginIsolated ? 2 : 1 }),
  provider({ name: "ORT WebNN", device: "webnn", script: "onnxruntime-web/webnn", wasm: ".jsep", options: { name: "webnn", deviceType: "cpu" } }),
];
