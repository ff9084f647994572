// The JavaScript half of a session, in a page and in Node alike: it loads the peers, times them, and counts the bytes of
// every WebGPU buffer that is alive, by whose device it is. bench/inside.py, in Pyodide, decides what runs when.

const bytes = new Map(); // owner -> bytes of its buffers that are alive
let owner = "nobody";

// From now on every new device belongs to `name`.
function own(name) {
  owner = name;
}

// Buffers count from creation to destroy(); one that is only dropped counts on.
function countBuffers() {
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

// What Python holds of a contestant. `prepare` gives a timed run; a failure is thrown, and Python reports it.
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
      const { run, close } = await contestant.prepare(kind, params, data);
      let last = new Float32Array();
      return {
        async sample() {
          const started = performance.now();
          const answer = await run();
          const took = performance.now() - started;
          last = answer.result ?? answer; // what times a part of its run says so
          return answer.took ?? took;
        },
        result: () => last,
        close,
      };
    },
  };
}

// env: {peers, base, binary}: a function that imports a peer's module, the URL of the peers' files, and, where fetch
// cannot read it, a function from URL to bytes. Gives {contestants, own, bytesOf} for Python.
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
