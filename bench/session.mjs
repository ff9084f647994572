// The JavaScript half of a session, in a page and in Node: it loads the peers, times them, and counts the bytes of all
// live WebGPU buffers by the owner of their device. bench/inside.py, in Pyodide, decides what runs when.

const bytes = new Map(); // owner -> bytes of its live buffers
let owner = "nobody";

// Let every device that is created from now on belong to `name`.
function own(name) {
  owner = name;
}

// Buffers count from creation to destroy(); one that is only dropped still counts.
function countBuffers() {
  if (!globalThis.GPUAdapter) return;
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    const mine = owner;
    const device = await requestDevice.apply(this, args);
    const create = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => {
      const buffer = create(descriptor);
      const destroy = buffer.destroy.bind(buffer);
      let { size } = descriptor;
      bytes.set(mine, (bytes.get(mine) ?? 0) + size);
      buffer.destroy = () => {
        bytes.set(mine, bytes.get(mine) - size);
        size = 0;
        destroy();
      };
      return buffer;
    };
    return device;
  };
}

// A peer as Python uses it. `prepare` returns a function that times a run; a failure is thrown, and Python reports it.
function entry(contestant, env) {
  const { name, device, takes, groups = "" } = contestant;
  return {
    name,
    device,
    takes,
    groups,

    async open() {
      own(name);
      return (await contestant.open(env)) ?? "";
    },

    async prepare(kind, params, data) {
      own(name);
      const { run, close, settings = "" } = await contestant.prepare(kind, params, data);
      let last = new Float32Array();
      return {
        settings,
        async sample() {
          const started = performance.now();
          const answer = await run();
          const took = performance.now() - started;
          last = answer.result ?? answer; // a run that times only a part of itself returns both
          return answer.took ?? took;
        },
        result: () => last,
        close,
      };
    },
  };
}

// env is {peers, base, binary}: a function that imports a peer's module, the URL of the peers' files, and, if fetch cannot
// read that, a function from URL to bytes. Returns {contestants, own, bytesOf} for Python.
export async function createSession(env) {
  countBuffers();
  const contestants = [];
  for (const module of ["ort", ...(globalThis.document ? ["transformers"] : []), "tfjs", "jax", "copy"]) {
    try {
      for (const contestant of (await env.peer(module)).contestants) contestants.push(entry(contestant, env));
    } catch (error) { // in the report under the module's name
      contestants.push(entry({ name: module, device: "webgpu", takes: "onnx", open: () => { throw error; } }, env));
    }
  }
  return { contestants, own, bytesOf: (name) => bytes.get(name) ?? 0 };
}
