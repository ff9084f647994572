// transformers.js, on WebGPU and on WASM, which is its own choice. It takes the same ONNX files as ONNX Runtime, by its
// own ways: from_pretrained and generate. Only in a browser: in Node it is another build, on another runtime.
import { AutoModel, AutoModelForCausalLM, AutoTokenizer, BaseStreamer, env, Tensor } from "@huggingface/transformers";

const CACHE = "bench-transformers";
const MEMORY = "https://memory.invalid/"; // where it asks for what is in memory: these files, by name
const files = new Map();

// Nothing leaves this server: what is not in memory is fetched from `remoteHost`, which a load says.
function settle({ base }) {
  const build = `${base}@huggingface/transformers/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify`;
  const { wasm } = env.backends.onnx;
  wasm.wasmPaths = { mjs: `${build}.mjs`, wasm: `${build}.wasm` };
  wasm.numThreads = globalThis.crossOriginIsolated ? 2 : 1;
  env.allowLocalModels = false;
  env.remotePathTemplate = "{model}/";
  env.cacheKey = CACHE;
  env.fetch = async (url, options) => {
    if (!`${url}`.startsWith(MEMORY)) return fetch(url, options);
    const file = files.get(`${url}`.slice(MEMORY.length));
    return new Response(file, { status: file ? 200 : 404 });
  };
}

function tensors(feeds, type) {
  return Object.fromEntries(Object.entries(feeds).map(([key, { data, shape }]) =>
    [key, new Tensor(type, type === "int64" ? BigInt64Array.from(data, BigInt) : data, shape)]));
}

// The model of `config` from the bytes of its ONNX file.
async function fromMemory(kind, device, model, config) {
  Object.assign(env, { remoteHost: MEMORY, useBrowserCache: false });
  files.set("model/config.json", JSON.stringify(config));
  files.set("model/onnx/model.onnx", model);
  try {
    return await kind.from_pretrained("model", { device, dtype: "fp32" });
  } finally {
    files.clear();
  }
}

// Gives {run, close}; run computes and reads back.
async function encoding(device, { config }, { model, feeds }) {
  const loaded = await fromMemory(AutoModel, device, model, config);
  const inputs = tensors(feeds, "int32");
  return {
    run: async () => Object.values(await loaded(inputs))[0].data,
    close: () => loaded.dispose(),
  };
}

// What pipeline("feature-extraction") fetches, from the server or from its cache, to the first answer.
function loading(device, { site, cold }, { feeds }) {
  const inputs = tensors(feeds, "int32");
  return {
    async run() {
      if (cold) await globalThis.caches.delete(CACHE);
      Object.assign(env, { remoteHost: site, useBrowserCache: true });
      const [, loaded] = await Promise.all([
        AutoTokenizer.from_pretrained("MiniLM"),
        AutoModel.from_pretrained("MiniLM", { device, dtype: "fp32" }),
      ]);
      const { data } = Object.values(await loaded(inputs))[0];
      await loaded.dispose();
      return data;
    },
    close: () => globalThis.caches.delete(CACHE),
  };
}

// Notes when the first token came; what it is given first is the prompt.
class Watch extends BaseStreamer {
  puts = 0;
  first = 0;

  put() {
    if (++this.puts === 2) this.first = performance.now();
  }

  end() {}
}

// Greedy tokens. Timed is the first one where only one is wanted, else all after it.
async function generation(device, { new: count, config }, { model, feeds }) {
  const loaded = await fromMemory(AutoModelForCausalLM, device, model, config);
  const { input_ids } = tensors(feeds, "int64");
  const attention_mask = new Tensor("int64", new BigInt64Array(input_ids.size).fill(1n), input_ids.dims);
  return {
    async run() {
      const streamer = new Watch();
      const written = await loaded.generate({ input_ids, attention_mask, max_new_tokens: count, do_sample: false, streamer });
      const took = performance.now() - streamer.first;
      const result = Float32Array.from(written.data.slice(input_ids.size), Number);
      return count === 1 ? result : { result, took };
    },
    close: () => loaded.dispose(),
  };
}

const works = { encoder: encoding, load: loading, generate: generation };

function contestant(name, device) {
  return {
    name,
    device,
    takes: "onnx",
    groups: "encoder load generate",
    open(given) {
      settle(given);
      return env.version;
    },
    prepare: (kind, params, data) => works[kind](device, params, data),
  };
}

export const contestants = [contestant("transformers.js WebGPU", "webgpu"), contestant("transformers.js WASM", "wasm")];
