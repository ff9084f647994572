// transformers.js, on WebGPU and on WASM, which is its own choice. It takes the same ONNX files as ONNX Runtime, by its
// own ways: from_pretrained, pipeline and generate. Only in a browser: in Node it is another build, on another runtime.

const CACHE = "bench-transformers";
const MEMORY = "https://memory.invalid/"; // where it asks for what is in memory: these files, by name
const files = new Map();

// Nothing leaves this server: what is not in memory is fetched from `remoteHost`, which a load says.
function settle(env, { base }, threads) {
  const build = `${base}@huggingface/transformers/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify`;
  const { wasm } = env.backends.onnx;
  wasm.wasmPaths = { mjs: `${build}.mjs`, wasm: `${build}.wasm` };
  wasm.numThreads = threads;
  env.allowLocalModels = false;
  env.remotePathTemplate = "{model}/";
  env.cacheKey = CACHE;
  env.fetch = async (url, options) => {
    if (!`${url}`.startsWith(MEMORY)) return fetch(url, options);
    const file = files.get(`${url}`.slice(MEMORY.length));
    return new Response(file, { status: file ? 200 : 404 });
  };
}

// What `load` makes from the ONNX file and the texts of other files, by name.
async function fromMemory({ env }, load, model, others) {
  Object.assign(env, { remoteHost: MEMORY, useBrowserCache: false });
  for (const [name, text] of Object.entries(others)) files.set(`model/${name}`, text);
  files.set("model/onnx/model.onnx", model);
  try {
    return await load("model");
  } finally {
    files.clear();
  }
}

const works = {
  // Each gives {run, close}; run computes and reads back.
  async encoder(library, options, { config }, { model, feeds }) {
    const load = (name) => library.AutoModel.from_pretrained(name, options);
    const loaded = await fromMemory(library, load, model, { "config.json": JSON.stringify(config) });
    const inputs = tensors(library, feeds, "int32");
    return {
      run: async () => Object.values(await loaded(inputs))[0].data,
      close: () => loaded.dispose(),
    };
  },

  // Another text each time, to its embedding.
  async sentences(library, options, { texts, files: others }, { model }) {
    const load = (name) => library.pipeline("feature-extraction", name, options);
    const embed = await fromMemory(library, load, model, others);
    let next = 0;
    return {
      run: async () => (await embed(texts[next++ % texts.length], { pooling: "mean", normalize: true })).data,
      close: () => embed.dispose(),
    };
  },

  // What pipeline("feature-extraction") fetches, from the server or from its cache, to the first answer.
  load(library, options, { site, cold }, { feeds }) {
    const inputs = tensors(library, feeds, "int32");
    return {
      async run() {
        if (cold) await globalThis.caches.delete(CACHE);
        Object.assign(library.env, { remoteHost: site, useBrowserCache: true });
        const [, loaded] = await Promise.all([
          library.AutoTokenizer.from_pretrained("MiniLM"),
          library.AutoModel.from_pretrained("MiniLM", options),
        ]);
        const { data } = Object.values(await loaded(inputs))[0];
        await loaded.dispose();
        return data;
      },
      close: () => globalThis.caches.delete(CACHE),
    };
  },

  // Greedy tokens. Timed is the first one where only one is wanted, else all after it.
  async generate(library, options, { new: count, config }, { model, feeds }) {
    const load = (name) => library.AutoModelForCausalLM.from_pretrained(name, options);
    const loaded = await fromMemory(library, load, model, { "config.json": JSON.stringify(config) });
    const { input_ids } = tensors(library, feeds, "int64");
    const attention_mask = new library.Tensor("int64", new BigInt64Array(input_ids.size).fill(1n), input_ids.dims);
    return {
      async run() {
        const streamer = watch(library);
        const written = await loaded.generate({ input_ids, attention_mask, max_new_tokens: count, do_sample: false, streamer });
        const took = performance.now() - streamer.first;
        const result = Float32Array.from(written.data.slice(input_ids.size), Number);
        return count === 1 ? result : { result, took };
      },
      close: () => loaded.dispose(),
    };
  },
};

function tensors({ Tensor }, feeds, type) {
  return Object.fromEntries(Object.entries(feeds).map(([key, { data, shape }]) =>
    [key, new Tensor(type, type === "int64" ? BigInt64Array.from(data, BigInt) : data, shape)]));
}

// Notes when the first token came; what it is given first is the prompt.
function watch({ BaseStreamer }) {
  return new (class extends BaseStreamer {
    puts = 0;
    first = 0;

    put() {
      if (++this.puts === 2) this.first = performance.now();
    }

    end() {}
  })();
}

function contestant(name, device, threads) {
  let library;
  return {
    name,
    device: device === "wasm" && threads === 1 ? "cpu" : device,
    takes: "onnx",
    groups: "encoder sentences load generate",
    async open(given) {
      const script = import.meta.resolve("@huggingface/transformers");
      library = await import(threads === 1 ? `${script}?threads=1` : script);
      settle(library.env, given, threads);
      return library.env.version;
    },
    prepare: (kind, params, data) => works[kind](library, { device, dtype: "fp32" }, params, data),
  };
}

const THREADS = globalThis.crossOriginIsolated ? 2 : 1;

export const contestants = [
  contestant("transformers.js WebGPU", "webgpu", THREADS),
  contestant("transformers.js WASM", "wasm", THREADS),
  contestant("transformers.js WASM, one thread", "wasm", 1),
];
