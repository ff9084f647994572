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
async function fromMemory({ env }, load, model, others, suffix = "") {
  Object.assign(env, { remoteHost: MEMORY, useBrowserCache: false });
  for (const [name, text] of Object.entries(others)) files.set(`model/${name}`, text);
  files.set(`model/onnx/model${suffix}.onnx`, model);
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

  // Greedy tokens, one prompt (rows, tokens) after another. `timed` is the first token, those "after" it, or "all".
  async generate(library, options, { new: count, config, half, timed }, { model, constants, feeds }) {
    if (constants) throw new Error("its ONNX file has 2 GB at most");
    const kept = { "transformers.js_config": { kv_cache_dtype: { fp16: "float16" } } };
    const others = { "config.json": JSON.stringify({ ...config, ...kept }) };
    const load = (name) => library.AutoModelForCausalLM.from_pretrained(name, { ...options, dtype: half ? "fp16" : "fp32" });
    const loaded = await fromMemory(library, load, model, others, half ? "_fp16" : "");
    const [turns, rows, length] = feeds.prompts.shape;
    let turn = 0;
    return {
      settings: `its own generate, ${half ? "fp16" : "fp32"}`,
      async run() {
        const ids = feeds.prompts.data.slice((turn % turns) * rows * length, (turn++ % turns + 1) * rows * length);
        const { input_ids } = tensors(library, { input_ids: { data: ids, shape: [rows, length] } }, "int64");
        const attention_mask = new library.Tensor("int64", new BigInt64Array(ids.length).fill(1n), [rows, length]);
        const streamer = rows === 1 ? watch(library) : undefined; // streamers are for one text
        const given = { input_ids, attention_mask, max_new_tokens: count, do_sample: false, streamer };
        const begun = performance.now();
        const written = await loaded.generate(given);
        const took = performance.now() - (timed === "after" ? streamer.first : begun);
        const result = Float32Array.from({ length: rows * count }, (_, i) =>
          Number(written.data[Math.floor(i / count) * (length + count) + length + (i % count)]));
        return { result, took };
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
