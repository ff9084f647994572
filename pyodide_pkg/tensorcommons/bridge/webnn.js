// The WebNN helper: tensors by integer handle, graphs built from a description, and the replay of a program in one call.
// Python decides everything; this file only keeps what has to be awaited in JavaScript.

export function reasonWithoutContext() {
  if (globalThis.isSecureContext === false) return "the page is not served from a secure context (https or localhost)";
  if (globalThis.SharedWorkerGlobalScope) return "a SharedWorker cannot use WebNN: Chromium 153 hangs or crashes when it creates a context there";
  if (!globalThis.navigator?.ml) return "this browser does not offer WebNN (navigator.ml is missing)";
  return "";
}

let settle;

// Settle replies by calling Python's function `call`, which may suspend WebAssembly where the engine can.
export function settleBy(call) {
  settle = "Suspending" in WebAssembly ? (...reply) => call.callPromising(...reply) : call;
}

// Open a context on a kind of device: "cpu", "gpu", "npu", or "" for the browser's choice.
export async function open(wish) {
  const options = wish ? { deviceType: wish } : {};
  const context = await navigator.ml.createContext(options);
  return new Ml(context, options, await noConstantTensors(context));
}

// Return why weights cannot be constants that several graphs share; "" if they can.
async function noConstantTensors(context) {
  if (!context.createConstantTensor) return "this browser's WebNN has no createConstantTensor";
  try {
    (await context.createConstantTensor({ dataType: "float32", shape: [1] }, new Float32Array(1))).destroy();
    return "";
  } catch (error) {
    return error.message;
  }
}

const described = ([dataType, shape]) => ({ dataType, shape, readable: true, writable: true });

// A tensor that can be lent to a GPUDevice.
const lendable = (context, spec, device) => context.createExportableTensor(described(spec), device);

// Lend the tensor's buffer to `use`; meanwhile WebNN cannot use it.
async function rented(context, tensor, use) {
  const buffer = await context.exportToGPU(tensor);
  try {
    use(buffer);
  } finally {
    buffer.destroy(); // returns it to WebNN
  }
}

const BYTES = { float32: 4, float16: 2, int32: 4, uint32: 4, int64: 8, uint64: 8, int8: 1, uint8: 1 };
const bytesOf = ([dataType, shape]) => shape.reduce((total, size) => total * size, BYTES[dataType]);

// The numbers of a Python buffer of ints.
function ints(source) {
  const view = source.getBuffer("i32");
  const numbers = [...view.data];
  view.release();
  return numbers;
}

// Copy a Python buffer or an array, which may change during an await.
function copied(source) {
  if (source instanceof Uint8Array) return source.slice();
  const view = source.getBuffer("u8");
  const data = view.data.slice();
  view.release();
  return data;
}

// A stage of a program: its graph, and the slots of its inputs and outputs by their names.
function staged(graph, inputs, outputs, once = false) {
  const named = (letter, pairs) => pairs.map(([node, slot]) => [`${letter}${node}`, slot]);
  const leaves = once ? inputs.map(([, slot]) => slot) : null;
  return { graph, leaves, done: "", inputs: named("i", inputs), outputs: named("o", outputs) }; // done: leaves and writes of the last run of what runs once
}

// Free a buffer at once, by transferring it to a closed port.
function discard(buffer) {
  const { port1, port2 } = new MessageChannel();
  port2.close();
  port1.postMessage(null, [buffer]);
  port1.close();
}

class Ml {
  constructor(context, wish, noConstants) {
    this.context = context;
    this.wish = wish;
    this.borrower = null; // the object of webgpu.js whose device tensors can be lent to
    this.tensors = new Map(); // handle -> {spec: [dtype, shape], tensor: MLTensor or null while it is made, pending: Promise or null, borrower}
    this.programs = new Map(); // id -> {stages, fixed, host, outputs, leaves, bound}
    this.constants = new Map(); // number -> a graph with weights as constants
    this.errors = []; // of work that was not awaited, for the next call to report
    this.changes = 0; // of the tensors under handles, their bytes, and what is pending on them
    this.writes = 0; // of bytes under handles, by anything but a run
    this.lost = null;
    this.info = JSON.stringify({ limits: context.opSupportLimits(), cores: navigator.hardwareConcurrency, noConstants });
    this.gone = context.lost.then((loss) => { this.lost = loss.message || "the context was lost"; });
  }

  // MLTensors have at least one element. `spec` is [dtype, shape].
  async #create(spec) {
    if (!bytesOf(spec)) return null;
    return this.borrower ? lendable(this.context, spec, this.borrower.device) : this.context.createTensor(described(spec));
  }

  // Lend a tensor to `gpu`, an object of webgpu.js, in a temporary context of the same kind, which the browser may lose if it
  // does not support it. Returns the reason; "" makes all tensors from now on lendable.
  async tryLending(gpu) {
    this.borrower = null;
    if (!this.context.createExportableTensor) return "this browser's WebNN has no createExportableTensor";
    const [sent, staging] = [new Uint32Array([1, 2, 3, 4]), gpu.device.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ })];
    let context;
    try {
      context = await navigator.ml.createContext(this.wish);
      const tensor = await lendable(context, ["int32", [4]], gpu.device);
      context.writeTensor(tensor, sent);
      await rented(context, tensor, (buffer) => gpu.copyBetween(buffer, staging, 16));
      await staging.mapAsync(GPUMapMode.READ);
      const got = new Uint32Array(staging.getMappedRange());
      if (!sent.every((value, i) => value === got[i])) return "what WebGPU sees of a tensor is not what WebNN wrote";
      this.borrower = gpu;
      return "";
    } catch (error) {
      return error.message;
    } finally {
      staging.destroy();
      context?.destroy();
    }
  }

  // Lend the tensor to `gpu` for one copy: to the buffer under its handle, or from there. Done when the tensor is back.
  lendTensor(handle, gpu, buffer, size, give) {
    const entry = this.tensors.get(handle);
    const copy = (lent) => give ? gpu.copyBetween(lent, gpu.buffers.get(buffer), size) : gpu.copyBetween(gpu.buffers.get(buffer), lent, size);
    const work = (entry.pending ?? Promise.resolve()).then(async () => {
      if (this.borrower !== gpu) throw new Error("another WebGPU device took the place of the one that tensors were made for");
      if (entry.borrower !== gpu) await this.#remake(entry);
      return rented(this.context, entry.tensor, copy);
    });
    this.#written();
    this.#wait(entry, work.catch(() => {}));
    return work;
  }

  // A tensor that was made for a WebGPU device that is gone, once more for the one in its place.
  async #remake(entry) {
    const [fresh, data] = await Promise.all([this.#create(entry.spec), this.context.readTensor(entry.tensor)]);
    this.context.writeTensor(fresh, data);
    entry.tensor.destroy();
    this.#written();
    Object.assign(entry, { tensor: fresh, borrower: this.borrower });
  }

  // Do `work` after all earlier work on the tensor: now, if there is none pending.
  #after(entry, work) {
    if (entry.pending) this.#wait(entry, entry.pending.then(work));
    else work();
  }

  // Note that bytes under a handle change.
  #written() {
    this.changes++;
    this.writes++;
  }

  #wait(entry, promise) {
    this.changes++;
    const next = promise.catch((error) => { this.errors.push(error.message); }).then(() => { if (entry.pending === next) entry.pending = null; });
    entry.pending = next;
  }

  createTensor(handle, dataType, shape) {
    const entry = { spec: [dataType, JSON.parse(shape)], tensor: null, pending: null, borrower: this.borrower };
    this.tensors.set(handle, entry);
    this.#written();
    if (bytesOf(entry.spec)) this.#wait(entry, this.#create(entry.spec).then((tensor) => { entry.tensor = tensor; }));
  }

  // Resolve with nothing, or with the reason why the browser could not create one of the tensors.
  async checkTensors(...handles) {
    const entries = handles.map((handle) => this.tensors.get(handle)).filter(Boolean);
    await Promise.all(entries.map((entry) => entry.pending));
    const failed = entries.find((entry) => bytesOf(entry.spec) && !entry.tensor);
    return failed ? `a tensor of ${bytesOf(failed.spec)} bytes: ${this.takeErrors() || "it was not made"}` : "";
  }

  destroyTensor(handle) {
    const entry = this.tensors.get(handle);
    this.tensors.delete(handle);
    this.changes++;
    this.#after(entry, () => entry.tensor?.destroy());
  }

  // Tensors are written whole: for a part, the rest is read first.
  writeTensor(handle, offset, source) {
    const entry = this.tensors.get(handle);
    const data = copied(source);
    if (!data.length) return;
    this.#written();
    if (data.length === bytesOf(entry.spec)) this.#after(entry, () => this.#writeWhole(entry, data));
    else {
      const part = async () => {
        const whole = new Uint8Array(await this.context.readTensor(entry.tensor));
        whole.set(data, offset);
        this.#writeWhole(entry, whole);
      };
      this.#wait(entry, (entry.pending ?? Promise.resolve()).then(part));
    }
  }

  #writeWhole(entry, data) {
    this.context.writeTensor(entry.tensor, data);
    discard(data.buffer); // the browser has a copy, and collects garbage late
  }

  // The next bytes of a tensor that is written in order, an array; it is written when the last ones are there.
  fillTensor(handle, offset, source) {
    const entry = this.tensors.get(handle);
    const length = bytesOf(entry.spec);
    this.#written();
    if (source.length === length && !entry.pending) {
      this.context.writeTensor(entry.tensor, source); // it copies
      return;
    }
    if (!offset) entry.filling = new Uint8Array(length);
    entry.filling.set(source, offset);
    if (offset + source.length < length) return;
    const data = entry.filling;
    entry.filling = null;
    this.#after(entry, () => this.#writeWhole(entry, data));
  }

  copyTensor(source, sourceOffset, target, targetOffset, size) {
    const [from, to] = [this.tensors.get(source), this.tensors.get(target)];
    const both = Promise.all([from.pending, to.pending]).then(async () => {
      const data = new Uint8Array(await this.context.readTensor(from.tensor), sourceOffset, size);
      const whole = size === bytesOf(to.spec) ? data : new Uint8Array(await this.context.readTensor(to.tensor));
      if (whole !== data) whole.set(data, targetOffset);
      this.context.writeTensor(to.tensor, whole);
    });
    this.#written();
    this.#wait(to, both);
    this.#wait(from, both);
  }

  // Return bytes of a tensor as an array of its own.
  async readTensor(handle, offset, size) {
    const entry = this.tensors.get(handle);
    if (entry.pending) await entry.pending;
    this.#check();
    if (!entry.tensor) return new Uint8Array(size);
    try {
      const data = new Uint8Array(await this.context.readTensor(entry.tensor));
      this.#check();
      return size === data.length ? data : data.slice(offset, offset + size);
    } catch (error) {
      if (error.name === "InvalidStateError") await this.gone;
      throw error;
    }
  }

  // Settle Python's reply `number` with what readTensor returns.
  replyWithTensor(number, ...range) {
    this.readTensor(...range).then((data) => settle(number, data), (error) => settle(number, undefined, error));
  }

  // `ranges` is a Python buffer of ints, [handle, offset, size] for each. Return their bytes one after another.
  async readTensors(ranges) {
    const pieces = [];
    for (let rest = ints(ranges); rest.length; rest = rest.slice(3)) pieces.push(rest.slice(0, 3));
    const whole = new Map(); // each tensor is read once
    for (const [handle] of pieces) {
      if (!whole.has(handle)) whole.set(handle, this.readTensor(handle, 0, bytesOf(this.tensors.get(handle).spec)));
    }
    await Promise.all(whole.values());
    const result = new Uint8Array(pieces.reduce((total, [, , size]) => total + size, 0));
    let at = 0;
    for (const [handle, offset, size] of pieces) {
      result.set((await whole.get(handle)).subarray(offset, offset + size), at);
      at += size;
    }
    return result;
  }

  #check() {
    if (this.lost) throw new Error("the context is lost");
    if (this.errors.length) throw new Error(this.takeErrors());
  }

  // description: {fixed: [spec], host: [[index of fixed, offset, size]], outputs: [spec],
  // graphs: [{nodes: [[method, ...arguments]], outputs: [node]}],
  // stages: [{graph: index, once, inputs: [[node, slot]], outputs: [[node, slot]]}]}. A stage that runs `once` reads leaves alone, and is
  // skipped while they are those of its last run. An argument {v: node} is an operand,
  // {number: "Infinity"} a number that JSON does not have.
  // A slot >= 0 counts the run's handles (leaves, then outputs), -1 - i is fixed[i].
  // `tell(done, total)` is called for every graph before and after it is built; it stops the build by returning false.
  async buildProgram(id, description, tell) {
    const { fixed, host, outputs, graphs, stages } = JSON.parse(description);
    const program = { fixed: [], host, outputs, graphs: [], stages: [], leaves: [], bound: null };
    try {
      for (const spec of fixed) program.fixed.push(await this.#create(spec));
      for (const graph of graphs) {
        if (tell(program.graphs.length, graphs.length) === false) throw new Error("the build was stopped");
        program.graphs.push(await this.#build(graph));
      }
      if (tell(graphs.length, graphs.length) === false) throw new Error("the build was stopped");
      program.built = stages.map(({ graph, once, inputs, outputs: results }) => staged(program.graphs[graph], inputs, results, once));
      program.stages = [...program.built];
    } catch (error) {
      this.#destroy(program);
      throw error;
    }
    this.programs.set(id, program);
  }

  // Build a graph, with the tensors of `given` (a Python buffer of ints: node, handle) as constants. `description`: {nodes, outputs}.
  async buildConstants(number, description, given) {
    const [pairs, data] = [ints(given), new Map()];
    for (let i = 0; i < pairs.length; i += 2) {
      const { spec } = this.tensors.get(pairs[i + 1]);
      data.set(pairs[i], (await this.readTensor(pairs[i + 1], 0, bytesOf(spec))).buffer);
    }
    this.constants.set(number, await this.#build(JSON.parse(description), data));
  }

  // Have a stage of a program run graph `number` of buildConstants. `pairs`: JSON of [[node, slot]] of inputs, and of outputs.
  useConstants(id, stage, number, pairs) {
    const program = this.programs.get(id);
    program.stages[stage] = { ...staged(this.constants.get(number), ...JSON.parse(pairs)), number };
    program.bound = null;
  }

  useInputs(id) {
    const program = this.programs.get(id);
    [program.stages, program.bound] = [[...program.built], null];
  }

  dropConstants(number) {
    for (const program of this.programs.values()) {
      for (const [i, stage] of program.stages.entries()) {
        if (stage.number === number) [program.stages[i], program.bound] = [program.built[i], null];
      }
    }
    this.constants.get(number)?.destroy(); // a context before this one had it, if it is missing
    this.constants.delete(number);
  }

  // `given`: buffers of float32 by node, of inputs that become constants; they are freed.
  async #build({ nodes, outputs }, given = new Map()) {
    const builder = new MLGraphBuilder(this.context);
    const operands = [];
    const resolve = (argument) => {
      if (Array.isArray(argument)) return argument.map(resolve);
      if (argument === null || typeof argument !== "object") return argument;
      if ("v" in argument) return operands[argument.v];
      if ("number" in argument) return Number(argument.number); // an infinity or NaN, which JSON does not have
      return Object.fromEntries(Object.entries(argument).map(([key, value]) => [key, resolve(value)]));
    };
    for (const [method, ...rest] of nodes) {
      const data = given.get(operands.length);
      if (data) {
        operands.push(builder.constant({ dataType: rest[0], shape: rest[1] }, new Float32Array(data)));
        discard(data); // the browser has a copy
      } else if (method === "input") operands.push(builder.input(`i${operands.length}`, { dataType: rest[0], shape: rest[1] }));
      else if (method === "constant") operands.push(constant(builder, ...rest));
      else operands.push(builder[method](...rest.map(resolve)));
    }
    return builder.build(Object.fromEntries(outputs.map((node) => [`o${node}`, operands[node]])));
  }

  discardProgram(id) {
    this.#destroy(this.programs.get(id));
    this.programs.delete(id);
  }

  #destroy({ fixed, graphs }) {
    for (const tensor of fixed) tensor?.destroy();
    for (const graph of graphs) graph.destroy();
  }

  // One run over leaves, a Python buffer of ints or null for those of the run before: write the host inputs, create missing
  // outputs, dispatch every stage. `data` is an array of its own, or null. `outputs` has the handles of the results, then for
  // each the handle whose tensor it takes over, or 0. True where it is queued at once; where something is awaited first a
  // promise that is done once it is. Outputs exist only if it was queued.
  runProgram(id, data, handles, ...outputs) {
    const program = this.programs.get(id);
    const [results, spares] = [outputs.slice(0, program.outputs.length), outputs.slice(program.outputs.length)];
    const made = spares.map((handle) => this.tensors.get(handle));
    for (const handle of spares) this.tensors.delete(handle);
    const undo = (error) => {
      for (const entry of made) if (entry) this.#after(entry, () => entry.tensor?.destroy());
      throw error;
    };
    try {
      if (handles) [program.leaves, program.bound] = [ints(handles), null];
      this.#check();
      const { bound } = program;
      if (bound?.changes === this.changes && bound.outputs.every((tensor, i) => tensor === made[i]?.tensor && !made[i].pending)) {
        return this.#queue(program, data, results, made); // a hundred tensors are as in the run before
      }
      const leaves = program.leaves.map((handle) => this.tensors.get(handle));
      const waiting = [...leaves, ...made].map((entry) => entry?.pending).filter(Boolean);
      const queue = () => {
        this.#bind(program, leaves, made);
        return this.#queue(program, data, results, made);
      };
      if (!waiting.length && results.every((_, i) => made[i])) return queue();
      return Promise.all(waiting).then(() => this.#complete(made, program.outputs)).then(queue).catch(undo);
    } catch (error) {
      return undo(error);
    }
  }

  // Return the entries of outputs, and create missing ones.
  async #complete(made, outputs) {
    const { borrower } = this;
    await Promise.all(outputs.map(async (spec, i) => { made[i] ??= { spec, tensor: await this.#create(spec), pending: null, borrower }; }));
    this.#check();
  }

  // Bind the tensors of leaves and outputs to the names of each stage's inputs and outputs, and run what runs once.
  #bind(program, leaves, made) {
    const tensors = [...leaves, ...made].map((entry) => entry.tensor);
    const bound = (pairs) => Object.fromEntries(pairs.map(([name, slot]) => [name, slot < 0 ? program.fixed[-1 - slot] : tensors[slot]]));
    const [dispatches, first] = [[], []];
    for (const stage of program.stages) {
      const dispatch = [stage.graph, bound(stage.inputs), bound(stage.outputs)];
      const now = stage.leaves && `${this.writes} ${stage.leaves.map((slot) => program.leaves[slot])}`;
      if (!now) dispatches.push(dispatch);
      else if (stage.done !== now) first.push(dispatch);
      stage.done = now;
    }
    for (const dispatch of first) this.context.dispatch(...dispatch);
    const changes = [...leaves, ...made].some((entry) => entry.pending) ? -1 : this.changes;
    program.bound = { dispatches, outputs: made.map((entry) => entry.tensor), changes };
  }

  #queue({ fixed, host, bound }, data, results, made) {
    for (const [index, offset, size] of host) this.context.writeTensor(fixed[index], data.subarray(offset, offset + size));
    for (const dispatch of bound.dispatches) this.context.dispatch(...dispatch);
    results.forEach((handle, i) => this.tensors.set(handle, made[i]));
    return true;
  }

  // Run a program once more over `handles` (a Python buffer of ints: leaves, then outputs, which all exist), and on the way
  // repeat one graph of each of `classes` (ints by dispatch; below 0: none) until that takes `least` ms. What it writes is
  // anything afterwards. Gives JSON: [class, ms] for each. A read shows that a graph is done; its own time is subtracted.
  async timeProgram(id, classes, least, host, handles) {
    const { fixed, host: inputs, stages } = this.programs.get(id);
    const [numbers, data] = [ints(classes), copied(host)];
    const entries = ints(handles).map((handle) => this.tensors.get(handle));
    await Promise.all(entries.map((entry) => entry.pending));
    this.#check();
    for (const [index, offset, size] of inputs) this.context.writeTensor(fixed[index], data.subarray(offset, offset + size));
    const tensor = (slot) => (slot < 0 ? fixed[-1 - slot] : entries[slot].tensor);
    const bound = (pairs) => Object.fromEntries(pairs.map(([name, slot]) => [name, tensor(slot)]));
    const found = new Map();
    let i = 0;
    for (const { graph, leaves, inputs: given, outputs } of stages) {
      const [from, to, [[, slot]]] = [bound(given), bound(outputs), outputs];
      if (leaves) { // runs do not dispatch it again
        this.context.dispatch(graph, from, to);
        continue;
      }
      const number = numbers[i++];
      const repeated = async (count) => {
        const start = performance.now();
        for (let n = 0; n < count; n++) this.context.dispatch(graph, from, to);
        await this.context.readTensor(tensor(slot));
        return performance.now() - start;
      };
      if (number < 0 || found.has(number)) {
        this.context.dispatch(graph, from, to);
        continue;
      }
      await repeated(1); // and what was queued before
      const idle = Math.min(await repeated(0), await repeated(0), await repeated(0));
      for (let count = 1; ; count *= 4) {
        const ms = Math.min(await repeated(count), await repeated(count)) - idle;
        if (ms < Math.max(least, idle) && count < 4096) continue; // less than a read takes is noise of the read
        found.set(number, Math.max(ms, 0) / count);
        break;
      }
    }
    this.#check();
    return JSON.stringify([...found]);
  }

  // Wait until everything queued is done, by a read that comes after it.
  async wait() {
    for (const entry of [...this.tensors.values()]) await entry.pending;
    const made = [...this.tensors.values()].filter((entry) => entry.tensor);
    const least = made.reduce((a, b) => (bytesOf(b.spec) < bytesOf(a.spec) ? b : a), made[0]);
    if (least) await this.context.readTensor(least.tensor);
  }

  takeErrors() {
    return this.errors.splice(0).join("\n");
  }

  liveTensors() {
    return this.tensors.size;
  }

  closeContext() {
    this.tensors.clear();
    this.programs.clear();
    this.constants.clear();
    this.context.destroy();
  }
}

// Build a constant from the base64 of its bytes.
function constant(builder, dataType, shape, base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const types = { float32: Float32Array, int32: Int32Array, uint32: Uint32Array, int8: Int8Array, uint8: Uint8Array, int64: BigInt64Array, uint64: BigUint64Array, float16: globalThis.Float16Array ?? Uint16Array };
  return builder.constant({ dataType, shape }, new types[dataType](bytes.buffer));
}
