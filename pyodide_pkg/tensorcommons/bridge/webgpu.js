// The WebGPU helper: buffers by integer handle, pipelines by key, and the replay of a compiled plan in one call.
// Python decides everything; this file only keeps what a proxy call per object would make slow.

// Open an adapter and its device with every limit and feature that it offers. Returns null if there is no adapter.
export async function open() {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return null;
  const requiredLimits = {};
  for (const name in adapter.limits) {
    if (typeof adapter.limits[name] === "number" && !name.startsWith("minSubgroup") && !name.startsWith("maxSubgroup")) {
      requiredLimits[name] = adapter.limits[name];
    }
  }
  const wanted = ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix", "timestamp-query"];
  const requiredFeatures = [...adapter.features].filter((name) => wanted.includes(name));
  // A browser may refuse what its adapter states: then the limits and features that every device has.
  const device = await adapter.requestDevice({ requiredLimits, requiredFeatures }).catch(() => requestPlainDevice());
  return new Gpu(adapter, device);
}

// From another adapter: one that refused a device may be consumed.
async function requestPlainDevice() {
  const adapter = await globalThis.navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("the adapter is gone");
  return adapter.requestDevice();
}

export function reasonWithoutAdapter() {
  if (!globalThis.isSecureContext && globalThis.isSecureContext !== undefined) return "the page is not served from a secure context (https or localhost)";
  if (!globalThis.navigator?.gpu) return "this browser does not offer WebGPU (navigator.gpu is missing)";
  return "the browser offers WebGPU but found no adapter to run it on";
}

/** Whether an adapter computes on the CPU. */
export function isSoftware(adapter) {
  const { info } = adapter;
  return Boolean(info.isFallbackAdapter ?? adapter.isFallbackAdapter) || /swiftshader|llvmpipe|basic render/i.test(info.description + info.device + info.architecture);
}

const STOPPED = Symbol("stopped");
const [ARENA, LEAVES] = [1, 2]; // slots of a program: 0 has its uniforms, then come the arena, the leaves and the outputs
const SCOPES = ["internal", "out-of-memory", "validation"]; // the last is popped first
const [PIECE, LARGE_PIECE] = [12, 256]; // dispatches of the first submit and of a large one: the device works on them while the next are encoded
const LARGEST = 2 ** 30 - 2 ** 16; // bytes of a buffer: SwiftShader cannot allocate the GiB that it states, which Dawn pads
const UNFREED = 1 << 24; // bytes of destroyed buffers that may wait for the next submission
const MOST_REPEATS = 1 << 14; // of a dispatch that is timed
const [AROUND, WIDE, MESSAGE] = [3, 160, 500]; // of a shader that does not compile: lines around the error, characters of one
const WRITE = 1 << 20; // bytes a write: browsers keep the memory that the largest one passed through, in both processes

// The numbers of a Python buffer of ints.
function ints(source) {
  const view = source.getBuffer("i32");
  const numbers = [...view.data];
  view.release();
  return numbers;
}

// Workgroups without trailing ones: each argument of a call in Node takes 0.15 µs.
function trimmed(groups) {
  return groups.slice(0, groups.findLastIndex((count) => count > 1) + 1 || 1);
}

// The bytes of ranges, flat: [handle, offset, size] for each.
function total(ranges) {
  let length = 0;
  for (let i = 2; i < ranges.length; i += 3) length += ranges[i];
  return length;
}

// An error that the device reports. `kind` is "validation", "out-of-memory" or "internal", `work` names its origin.
class Fault extends Error {
  constructor(kind, work, message) {
    super(message);
    Object.assign(this, { kind, work });
  }
}

// Return the fault that caused the others (commands with a buffer that could not be created are invalid), or null.
function cause(faults) {
  return faults.find((fault) => fault?.kind === "out-of-memory") ?? faults.find(Boolean) ?? null;
}

// The lines of a shader around the errors that its compiler found, numbered, below each error. A long shader is cut.
async function faultyLines(module, code) {
  const { messages } = await module.getCompilationInfo();
  const lines = code.split("\n");
  const shown = messages.filter(({ type, lineNum }) => type === "error" && lineNum > 0).slice(0, 3).map(({ lineNum, linePos, message }) => {
    const first = Math.max(lineNum - 1 - AROUND, 0);
    const around = lines.slice(first, lineNum + AROUND).map((line, i) => {
      const number = first + i + 1;
      return `${number === lineNum ? ">" : " "} ${String(number).padStart(4)} | ${line.slice(0, WIDE)}`;
    });
    return [`line ${lineNum}, column ${linePos}: ${message.slice(0, WIDE)}`, ...around].join("\n");
  });
  return shown.join("\n");
}

function described(error) {
  return JSON.stringify({ kind: error.kind ?? "", work: error.work ?? "", message: String(error.message ?? error) });
}

// The bytes under a handle, in one GPUBuffer, or in several of `bufferBytes` bytes each (the last may be smaller) where a device
// makes none that large. Whatever is bound or copied at once lies in one of them.
class Memory {
  constructor(device, size, bufferBytes) {
    this.bufferBytes = bufferBytes;
    this.size = Math.max(16, Math.ceil(size / 16) * 16);
    this.doubt = null; // see #doubted
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    this.buffers = [];
    for (let at = 0; at < this.size; at += bufferBytes) this.buffers.push(device.createBuffer({ size: Math.min(bufferBytes, this.size - at), usage }));
  }

  // The GPUBuffer that has byte `offset`, where it lies there, and how many bytes there are from it on.
  at(offset) {
    const start = offset % this.bufferBytes;
    return { buffer: this.buffers[Math.floor(offset / this.bufferBytes)], offset: start, room: this.bufferBytes - start };
  }

  destroy() {
    for (const buffer of this.buffers) buffer.destroy();
  }
}

// A foreign GPUBuffer with the interface of a Memory, or a Memory.
function memoryOf(source) {
  return source instanceof Memory ? source : { at: (offset) => ({ buffer: source, offset, room: Infinity }) };
}

function encodeCopy(encoder, source, sourceOffset, target, targetOffset, size) {
  for (let done = 0; done < size;) {
    const [from, to] = [source.at(sourceOffset + done), target.at(targetOffset + done)];
    const piece = Math.min(size - done, from.room, to.room);
    encoder.copyBufferToBuffer(from.buffer, from.offset, to.buffer, to.offset, piece);
    done += piece;
  }
}

// The device's own clock: how long a compute pass took.
class Clock {
  constructor(device) {
    this.queries = device.createQuerySet({ type: "timestamp", count: 2 });
    this.resolved = device.createBuffer({ size: 16, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
    this.mapped = device.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  }

  around() {
    return { timestampWrites: { querySet: this.queries, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } };
  }

  resolve(encoder) {
    encoder.resolveQuerySet(this.queries, 0, 2, this.resolved, 0);
    encoder.copyBufferToBuffer(this.resolved, 0, this.mapped, 0, 16);
  }

  // Milliseconds of the pass that is done; 0 where the browser rounds them to nothing.
  async read() {
    await this.mapped.mapAsync(GPUMapMode.READ, 0, 16);
    const [start, end] = new BigUint64Array(this.mapped.getMappedRange(0, 16).slice(0));
    this.mapped.unmap();
    return Math.max(Number(end - start) / 1e6, 0);
  }

  close() {
    this.queries.destroy();
    this.resolved.destroy();
    this.mapped.destroy();
  }
}

class Gpu {
  constructor(adapter, device) {
    this.device = device;
    this.bufferBytes = Math.floor(Math.min(device.limits.maxBufferSize, LARGEST) / 256) * 256; // of the largest buffer; Python may set less
    this.buffers = new Map(); // handle -> Memory
    this.destroyed = 0; // bytes of buffers since the last submission that was made for them
    this.pipelines = new Map(); // key -> Promise<{pipeline, layout}>
    this.programs = new Map(); // id -> what compileProgram makes
    this.stopped = new Set(); // ids of programs whose run stops at the next part, or whose compilation is for nothing
    this.staging = null; // the idle buffer that is kept for reads, if there is one
    this.stagingSize = 0; // what it may take
    this.last = null; // {program, first}: who ran last, and its first output
    this.ahead = null; // {program, ranges, staging, mapped}: the read that this run began
    this.errors = []; // device errors that no scope caught, the latest
    this.lost = null;
    const info = adapter.info;
    this.info = JSON.stringify({
      description: [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(" ") || "unnamed adapter",
      fallback: isSoftware(adapter),
      features: [...device.features, ...(globalThis.navigator.gpu.wgslLanguageFeatures ?? [])],
      subgroups: [info.subgroupMinSize ?? 0, info.subgroupMaxSize ?? 0],
      matrices: [...(info.subgroupMatrixConfigs ?? [])].map((each) => [each.componentType, each.resultComponentType, each.M, each.N, each.K]),
      limits: Object.fromEntries(Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(device.limits)))
        .filter(([name]) => typeof device.limits[name] === "number")
        .map(([name]) => [name, name === "maxBufferSize" ? Math.min(device.limits[name], LARGEST) : device.limits[name]])),
    });
    device.addEventListener?.("uncapturederror", ({ error }) => {
      this.errors.push(error.message);
      this.errors.splice(0, this.errors.length - 100);
      this.complain?.(`no known operation: ${error.message}`);
    });
    this.gone = device.lost.then((loss) => { this.lost = `${loss.reason}: ${loss.message}`; });
  }

  // Call `tell` with the reason when the device is lost, or closed.
  whenLost(tell) {
    this.gone.then(() => tell(this.lost));
  }

  // Call `work` and give what it gives with `checked`: a promise of null, or of the Fault that its commands were. What
  // it throws is thrown. Nothing waits for the answers of the scopes but who awaits `checked`; still, three of them take
  // 50 µs in Node: what repeats commands that were found right is not watched.
  #watched(name, work, scopes = SCOPES) {
    for (const kind of scopes) this.device.pushErrorScope(kind);
    let answers;
    try {
      return { result: work(), get checked() { return answers; } };
    } finally {
      const pop = (kind) => this.device.popErrorScope().then((error) => error && new Fault(kind, name, error.message), () => null);
      answers = Promise.all(scopes.toReversed().map(pop)).then(cause);
    }
  }

  // Buffers refer to the work that fills them until it is confirmed: `doubt` is {fault, checked}. It stays if the work, a
  // run of `program` or a single command, failed: a read of them, or a computation with them, raises the error.
  #doubted(buffers, checked, sources, program) {
    const doubt = { fault: null };
    doubt.checked = Promise.all([...sources.map((source) => source.checked), checked]).then((faults) => {
      doubt.fault = cause(faults);
      if (!doubt.fault) for (const buffer of buffers) if (buffer.doubt === doubt) buffer.doubt = null;
      if (program && doubt.fault) this.#taint(program, doubt);
      else if (program) program.proved = true;
      return doubt.fault;
    });
    for (const buffer of buffers) buffer.doubt = doubt;
    return doubt;
  }

  #newBuffer(size) {
    return new Memory(this.device, size, this.bufferBytes);
  }

  createBuffer(handle, size) {
    const made = this.#watched(`a buffer of ${size} bytes`, () => this.#newBuffer(size), ["out-of-memory", "validation"]);
    this.buffers.set(handle, made.result);
    this.#doubted([made.result], made.checked, []);
  }

  // Resolve with nothing, or with the Fault of work that fills one of the buffers, as text.
  async checkBuffers(...handles) {
    const faults = await Promise.all(handles.map((handle) => this.buffers.get(handle)?.doubt?.checked));
    const fault = cause(faults);
    return fault ? described(fault) : "";
  }

  // Resolve once the browser's GPU process has taken all that was queued. A write before that may block this thread: in
  // Chromium 153 for 460 ms while BERT-large was loaded on a busy machine.
  async caughtUp() {
    this.device.pushErrorScope("validation");
    await this.device.popErrorScope().catch(() => null); // rejected when the device is lost
  }

  destroyBuffer(handle) {
    this.#stale(handle);
    const memory = this.buffers.get(handle);
    memory.destroy();
    this.buffers.delete(handle);
    this.destroyed += memory.size;
    if (this.buffers.size && this.destroyed < UNFREED) return;
    this.destroyed = 0;
    this.device.queue.submit([]); // bytes of a destroyed buffer are given back by the next submission
  }

  // `source` is a Python buffer or an array; a last partial word is padded with zeros.
  writeBuffer(handle, offset, source) {
    this.#stale(handle);
    const view = source instanceof Uint8Array ? { data: source, release() {} } : source.getBuffer("u8");
    const { data } = view;
    const whole = data.length & ~3;
    const buffer = this.buffers.get(handle);
    const write = () => {
      this.#write(buffer, offset, data, whole);
      if (data.length > whole) {
        const tail = new Uint8Array(4);
        tail.set(data.subarray(whole));
        this.#write(buffer, offset + whole, tail, 4);
      }
    };
    if (buffer.doubt) this.#doubted([buffer], this.#watched(`a write of ${data.length} bytes`, write, ["validation"]).checked, [buffer.doubt]);
    else write();
    view.release();
  }

  #write(memory, start, data, size) {
    for (let done = 0; done < size;) {
      const { buffer, offset, room } = memory.at(start + done);
      const piece = Math.min(size - done, room, WRITE);
      this.device.queue.writeBuffer(buffer, offset, data, done, piece);
      done += piece;
    }
  }

  copyBuffer(source, sourceOffset, target, targetOffset, size) {
    if (!size) return;
    this.#stale(target);
    const [from, to] = [this.buffers.get(source), this.buffers.get(target)];
    const copied = this.#watched(`a copy of ${size} bytes`, () => {
      const encoder = this.device.createCommandEncoder();
      encodeCopy(encoder, from, sourceOffset, to, targetOffset, Math.ceil(size / 4) * 4);
      this.device.queue.submit([encoder.finish()]);
    });
    this.#doubted([to], copied.checked, [from.doubt, to.doubt].filter(Boolean));
  }

  // Keep a buffer of `size` bytes for reads from the next one on: making one costs more than a small read. 0: none.
  stage(size) {
    if (size === this.stagingSize) return;
    this.#forget();
    this.staging?.destroy();
    this.staging = null;
    this.stagingSize = size;
  }

  // Copy the first `size` bytes, whole words, of one GPUBuffer or Memory to another.
  copyBetween(source, target, size) {
    this.#forget();
    if (!size) return;
    const encoder = this.device.createCommandEncoder();
    encodeCopy(encoder, memoryOf(source), 0, memoryOf(target), 0, size);
    this.device.queue.submit([encoder.finish()]);
  }

  // Set the callbacks of reads: `take(number, bytes)` copies the bytes, which are gone after it; then `tell(number, error)`
  // says that the read is done. That may suspend where a WebAssembly stack can be, as whatever Python awaits may.
  // `complain(message)` gets errors that belong to no operation.
  listen(take, tell, complain) {
    this.take = take;
    this.complain = complain;
    this.tell = "Suspending" in WebAssembly ? (...told) => tell.callPromising(...told) : tell;
  }

  // Begin a read under `number`. `ranges` is [handle, offset, size] for each range, flat, of whole words; their bytes come one
  // after another, through the kept buffer of `staged` bytes if they fit.
  readBuffers(number, staged, ...ranges) {
    this.#read((bytes) => this.take(number, bytes), staged, ranges)
      .then(() => this.tell(number, ""), (error) => this.tell(number, described(error)));
  }

  // The same, of one range into an array, which may be less than whole words.
  readInto(number, staged, target, ...range) {
    this.#read((bytes) => target.set(bytes.subarray(0, target.length)), staged, range)
      .then(() => this.tell(number, ""), (error) => this.tell(number, described(error)));
  }

  // The faults of the work that filled the buffers are awaited together with the bytes, which take longer.
  async #read(take, staged, ranges) {
    const length = total(ranges);
    if (!length) return;
    const doubts = [];
    for (let i = 0; i < ranges.length; i += 3) {
      const { doubt } = this.buffers.get(ranges[i]);
      if (doubt) doubts.push(doubt.checked);
    }
    const begun = this.#begun(ranges);
    if (!begun) this.stage(staged);
    let staging = begun?.staging;
    let read = false;
    try {
      let mapped = begun?.mapped;
      if (!begun) {
        const begin = () => {
          staging = this.#takeStaging(length);
          const encoder = this.device.createCommandEncoder();
          this.#encodeCopies(encoder, ranges, staging);
          this.device.queue.submit([encoder.finish()]);
          return staging.mapAsync(GPUMapMode.READ, 0, length);
        };
        if (this.staging && this.stagingSize >= length && !doubts.length) mapped = begin();
        else {
          const { result, checked } = this.#watched("a read", begin);
          mapped = result;
          doubts.push(checked);
        }
      }
      const [outcome, faults] = await Promise.all([mapped.then(() => null, (error) => error), Promise.all(doubts)]);
      const wrong = cause(faults) ?? outcome;
      if (wrong) throw wrong;
      take(new Uint8Array(staging.getMappedRange(0, length)));
      staging.unmap();
      read = true;
    } catch (error) {
      if (error.name === "AbortError" && !error.kind) await this.gone; // only a lost device aborts this map
      throw error;
    } finally {
      if (read && !this.staging && staging.size === this.stagingSize) this.staging = staging;
      else staging?.destroy();
    }
  }

  #encodeCopies(encoder, ranges, staging) {
    const target = memoryOf(staging);
    for (let i = 0, at = 0; i < ranges.length; at += ranges[i + 2], i += 3) {
      encodeCopy(encoder, this.buffers.get(ranges[i]), ranges[i + 1], target, at, ranges[i + 2]);
    }
  }

  // A program whose outputs were read after its last run begins that read itself in the next one: the copy is in its
  // last submission, and the map on its way, before Python comes to ask. Here is that read, if it is the one asked for.
  #begun(ranges) {
    const { last, ahead } = this;
    this.last = null;
    if (ahead && ranges.length === ahead.ranges.length && ranges.every((number, i) => number === ahead.ranges[i])) {
      this.ahead = null;
      return ahead;
    }
    this.#forget();
    const isOutput = (handle) => handle >= last.first && handle < last.first + last.program.outputs.length;
    if (last && ranges.every((number, i) => i % 3 || isOutput(number))) {
      last.program.read = ranges.map((number, i) => (i % 3 ? number : number - last.first));
    }
    return null;
  }

  // Begin it, in the last of a run's encoders. Gives what to do when that is submitted.
  #readAhead(encoder, program, first) {
    const ranges = program.read.map((number, i) => (i % 3 ? number : number + first));
    const length = total(ranges);
    if (!length || !this.staging || length > this.stagingSize) return () => {};
    const staging = this.#takeStaging(length);
    this.#encodeCopies(encoder, ranges, staging);
    return () => {
      const mapped = staging.mapAsync(GPUMapMode.READ, 0, length);
      mapped.catch(() => {}); // the read reports the error
      this.ahead = { program, ranges, staging, mapped };
    };
  }

  // Discard a read that was begun ahead and not requested.
  #forget() {
    if (!this.ahead) return;
    const { program, staging } = this.ahead;
    this.ahead = null;
    program.read = null;
    staging.unmap();
    this.staging = staging;
  }

  // Discard it if it covers `handle`, whose bytes change now, or are destroyed.
  #stale(handle) {
    if (this.ahead?.ranges.some((number, i) => i % 3 === 0 && number === handle)) this.#forget();
  }

  #takeStaging(length) {
    const kept = this.stagingSize >= length;
    const staging = kept && this.staging;
    if (kept) this.staging = null;
    return staging || this.device.createBuffer({ size: kept ? this.stagingSize : Math.max(4, length), usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  }

  // bindings: a letter a binding, "u" uniform, "r" read-only storage, "w" storage that is written. A pipeline that could
  // not be made is not kept; who awaits it gets the Fault, which does not name an operation yet.
  pipeline(key, label, code, bindings) {
    if (!this.pipelines.has(key)) {
      const compiled = this.#compile(label, code, bindings);
      compiled.catch(() => this.pipelines.delete(key));
      this.pipelines.set(key, compiled);
    }
    return this.pipelines.get(key);
  }

  async #compile(label, code, bindings) {
    const types = { u: "uniform", r: "read-only-storage", w: "storage" };
    const { result, checked } = this.#watched("", () => {
      const layout = this.device.createBindGroupLayout({
        label,
        entries: [...bindings].map((letter, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: types[letter] } })),
      });
      const module = this.device.createShaderModule({ label, code });
      const made = this.device.createComputePipelineAsync({
        label,
        layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: "main" },
      });
      return { layout, module, made };
    });
    const [pipeline, fault] = await Promise.all([result.made.catch((error) => error), checked]);
    if (fault) {
      const lines = await faultyLines(result.module, code).catch(() => ""); // a lost device has no answer
      throw lines ? new Fault(fault.kind, fault.work, `${fault.message.slice(0, MESSAGE)}\n${lines}`) : fault;
    }
    if (pipeline instanceof Error) throw new Fault(pipeline.reason ?? "internal", "", pipeline.message);
    return { pipeline, layout: result.layout };
  }

  // description: {work, pipelines: [[key, label, code, bindings]], dispatches: [[pipeline index, [x, y, z], [[slot, offset,
  // size]]]], outputs: [bytes], written: [leaf], part, host: bytes}. Slot 0 is the uniforms, 1 the arena; then come the
  // leaves, then the outputs. `work` names it, a pipeline's label what is at fault where that cannot be made.
  // `tell(done, total)` is called for every pipeline that is ready. Gives the array whose bytes each run begins with. Throws
  // a Fault once nothing of it is under way any more, and keeps nothing of it then.
  async compileProgram(id, description, params, tell) {
    const { work, pipelines, dispatches, outputs, written, part, host } = JSON.parse(description);
    let done = 0;
    const ready = await Promise.all(pipelines.map(async (entry) => {
      try {
        const pipeline = await this.pipeline(...entry);
        tell(++done, pipelines.length);
        return pipeline;
      } catch (error) {
        return new Fault(error.kind ?? "internal", entry[1], error.message);
      }
    }));
    const view = params.getBuffer("u8");
    let uniform;
    try {
      const failed = ready.find((each) => each instanceof Fault);
      if (failed) throw failed;
      const made = this.#watched(`the parameters of ${work}`, () => {
        uniform = this.device.createBuffer({ size: Math.max(16, view.data.length), usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
        if (view.data.length) this.device.queue.writeBuffer(uniform, 0, view.data);
      });
      const fault = await made.checked;
      if (fault) throw fault;
      if (this.stopped.has(id)) throw new Error("the compilation was cancelled");
    } catch (error) {
      uniform?.destroy();
      throw error;
    } finally {
      this.stopped.delete(id);
      view.release();
    }
    const program = {
      work,
      proved: false, // whether the device took a run of it
      uniform,
      outputs,
      written,
      part,
      host: new Uint8Array(host),
      handles: [], // of the arena, then the leaves
      read: null, // what of the outputs was read after the last run: [number, offset, size] for each range, flat
      spares: [], // by output: a buffer that the next run writes it to
      bound: [uniform], // by slot: the buffer that the bind groups hold
      uses: [], // by slot: the dispatches that bind it
      dispatches: dispatches.map(([index, groups, bindings]) => ({ ...ready[index], groups: trimmed(groups), bindings, group: null })),
    };
    for (const dispatch of program.dispatches) for (const [slot] of dispatch.bindings) (program.uses[slot] ??= []).push(dispatch);
    this.programs.set(id, program);
    return program.host;
  }

  // Discard a program, or what is still being compiled under that number as soon as it is.
  abandonProgram(id) {
    if (this.programs.has(id)) this.discardProgram(id);
    else this.stopped.add(id);
  }

  discardProgram(id) {
    this.dropSpares(id);
    this.programs.get(id)?.uniform.destroy(); // none where the device was closed while it was compiled
    this.programs.delete(id);
  }

  // The buffer of `handle` is the next run's output `number`, unless what was to fill it failed: it may be none.
  spareBuffer(id, number, handle) {
    this.#stale(handle);
    const buffer = this.buffers.get(handle);
    if (buffer.doubt?.fault) buffer.destroy();
    else this.programs.get(id).spares[number] = buffer;
    this.buffers.delete(handle);
  }

  dropSpares(id) {
    const spares = this.programs.get(id)?.spares.splice(0) ?? []; // a program of a device before this one has none
    for (const spare of spares) spare?.destroy();
    if (!this.buffers.size) this.device.queue.submit([]);
  }

  // A run failed: the buffers that it took, and left to the next one, may not exist.
  #taint(program, doubt) {
    this.#unbind(program);
    program.read = null;
    program.spares.forEach((spare, i) => {
      if (spare?.doubt !== doubt) return;
      spare.destroy();
      delete program.spares[i];
    });
    this.complain?.(`${doubt.fault.work}: ${doubt.fault.message}`);
  }

  // One run of a program over its leaves: write the host inputs, have the outputs under `first` and the handles after it,
  // spare buffers or new ones, encode every dispatch, submit. A program of one part is queued at once: true. Of several parts each but the last
  // is awaited, so that `stopProgram` can end the run: a promise of true, or of false if it was ended. Outputs exist only
  // if the run was queued whole. `leaves` is a Python buffer of ints, or nothing where they are those of the run before.
  // What the device has against a run that is queued at once is said later, to whoever reads its outputs.
  runProgram(id, arena, first, leaves) {
    if (this.lost) throw new Error("the device is lost");
    this.#forget();
    this.stopped.delete(id); // a stop that came too late was for the run before
    const program = this.programs.get(id);
    const { bound, dispatches, outputs, part, host } = program;
    if (leaves) program.handles = [arena, ...ints(leaves)];
    program.handles[0] = arena;
    const undo = (error) => {
      this.#unbind(program);
      outputs.forEach((_, i) => this.buffers.has(first + i) && this.destroyBuffer(first + i));
      if (error === STOPPED) return false;
      throw error;
    };
    try {
      const inParts = dispatches.length > part;
      const watched = this.#place(program, ARENA, program.handles) || !program.proved || !this.#hasSpares(program);
      const sources = this.#sources(program);
      const begin = () => {
        if (host.length) this.#write(bound[ARENA], 0, host, host.length);
        this.#placeOutputs(program, first);
        if (!inParts) this.#submit(dispatches, bound, { after: program.read && ((encoder) => this.#readAhead(encoder, program, first)) });
      };
      const checked = watched ? this.#watched(program.work, begin).checked : begin() ?? null;
      const made = this.#made(program);
      if (inParts) return this.#submitInParts(id, program, checked, sources, made, watched).catch(undo);
      if (watched || sources.length) this.#doubted(made, checked, sources, program);
      else for (const buffer of made) buffer.doubt = null;
      this.last = { program, first };
      return true;
    } catch (error) {
      return undo(error);
    }
  }

  // Run a program `count` times in one call: each run but the first reads the output number `output` of the run before as
  // its leaf `leaf`. `hosts` has what each run writes first. That output of every run is copied to one buffer, under the
  // handle after the last output. Otherwise as runProgram, for programs of one part.
  runChain(id, arena, first, leaves, hosts, count, output, leaf) {
    if (this.lost) throw new Error("the device is lost");
    this.#forget();
    const program = this.programs.get(id);
    const { bound, dispatches, outputs, work } = program;
    const size = program.host.length;
    program.handles = [arena, ...ints(leaves)];
    const view = hosts.getBuffer("u8");
    const all = first + outputs.length;
    try {
      this.#place(program, ARENA, program.handles);
      const sources = this.#sources(program);
      const { checked } = this.#watched(work, () => {
        this.#placeOutputs(program, first);
        this.buffers.set(all, this.#newBuffer(count * outputs[output]));
        const [scratch, from, to] = [arena, first + output, all].map((handle) => this.buffers.get(handle));
        const given = this.#newBuffer(count * size); // one write for all runs: each copies its part
        try {
          this.#write(given, 0, view.data, count * size);
          for (let i = 0; i < count; i++) {
            if (i === 1) this.#place(program, LEAVES + leaf, [first + output]);
            this.#submit(dispatches, bound, {
              before: (encoder) => { encodeCopy(encoder, given, i * size, scratch, 0, size); },
              after: (encoder) => { encodeCopy(encoder, from, 0, to, i * outputs[output], outputs[output]); },
              piece: i ? LARGE_PIECE : PIECE,
            });
          }
        } finally {
          given.destroy();
        }
      });
      this.#doubted([...this.#made(program), this.buffers.get(all)], checked, sources, program);
    } catch (error) {
      this.#unbind(program);
      for (let handle = first; handle <= all; handle++) if (this.buffers.has(handle)) this.destroyBuffer(handle);
      throw error;
    } finally {
      view.release();
    }
  }

  // Bind the buffers under `handles` in the slots from `slot` on. Returns whether one changed. A bind group is kept as long as its
  // buffers are the very same objects: what leaves and comes back is another one.
  #place({ bound, uses }, slot, handles) {
    let changed = false;
    for (const handle of handles) {
      const buffer = this.buffers.get(handle);
      if (bound[slot] !== buffer) {
        bound[slot] = buffer;
        for (const dispatch of uses[slot] ?? []) dispatch.group = null;
        changed = true;
      }
      slot++;
    }
    return changed;
  }

  // Have the outputs of a run under `first` and the handles after it: spare buffers, or new ones.
  #placeOutputs(program, first) {
    const { handles, outputs, spares } = program;
    outputs.forEach((size, i) => this.buffers.set(first + i, spares[i] ?? this.#newBuffer(size)));
    spares.length = 0;
    this.#place(program, ARENA + handles.length, outputs.map((_, i) => first + i));
  }

  // Whether the outputs of the next run will be the very buffers of the last one.
  #hasSpares({ bound, handles, outputs, spares }) {
    return outputs.every((_, i) => spares[i] && bound[ARENA + handles.length + i] === spares[i]);
  }

  // The next run binds everything anew, and is watched.
  #unbind(program) {
    program.bound = [program.uniform];
    program.proved = false;
  }

  // The unconfirmed work that filled what a run reads.
  #sources({ bound, handles }) {
    return bound.slice(ARENA, ARENA + handles.length).map((buffer) => buffer?.doubt).filter(Boolean);
  }

  // The buffers that a run wrote.
  #made({ bound, handles, written }) {
    return [...bound.slice(ARENA + handles.length), ...written.map((leaf) => bound[LEAVES + leaf])];
  }

  #groupOf({ layout, bindings }, bound) {
    return this.device.createBindGroup({
      layout,
      entries: bindings.map(([slot, offset, size], binding) => {
        const place = slot ? bound[slot].at(offset) : { buffer: bound[slot], offset };
        return { binding, resource: { buffer: place.buffer, offset: place.offset, size } };
      }),
    });
  }

  async #submitInParts(id, program, begun, sources, made, watched) {
    const { bound, dispatches, part, work } = program;
    const checks = [...sources.map((source) => source.checked), begun];
    for (let first = 0; first < dispatches.length; first += part) {
      if (first) await this.device.queue.onSubmittedWorkDone();
      if (this.stopped.has(id)) throw STOPPED;
      const next = () => this.#submit(dispatches.slice(first, first + part), bound);
      checks.push(watched ? this.#watched(work, next).checked : next() ?? null);
    }
    if (watched || sources.length) {
      const fault = cause(await Promise.all(checks));
      if (fault) throw fault;
      program.proved = true;
    }
    for (const buffer of made) buffer.doubt = null;
    return true;
  }

  // The first submit has `piece` dispatches, later ones have more. `before` may add to the first encoder; `after` may add to
  // the last, and gives what to do after its submission.
  #submit(dispatches, bound, { before, after, piece = PIECE } = {}) {
    for (let i = 0; i < dispatches.length; piece = Math.min(2 * piece, LARGE_PIECE)) {
      const encoder = this.device.createCommandEncoder();
      if (!i) before?.(encoder);
      const pass = encoder.beginComputePass();
      let current = null;
      for (const end = Math.min(i + piece, dispatches.length); i < end; i++) {
        const dispatch = dispatches[i];
        if (dispatch.pipeline !== current) pass.setPipeline((current = dispatch.pipeline));
        pass.setBindGroup(0, (dispatch.group ??= this.#groupOf(dispatch, bound)));
        pass.dispatchWorkgroups(...dispatch.groups);
      }
      pass.end();
      const next = i === dispatches.length && after?.(encoder);
      this.device.queue.submit([encoder.finish()]);
      if (next) next();
    }
  }

  // Run a program once more over `handles` (a Python buffer of ints: leaves, then outputs, which all exist), and on the way
  // repeat one dispatch of each of `classes` (ints by dispatch; below 0: none) until that takes `least` ms. What it writes
  // is anything afterwards. Gives JSON: [class, ms by this clock, ms by the device's or 0] for each. The time of an empty
  // submission is taken off; the device's clock stands beside it where the adapter has timestamps.
  async timeProgram(id, classes, least, arena, host, handles) {
    if (this.lost) throw new Error("the device is lost");
    this.stopped.delete(id);
    const { uniform, dispatches } = this.programs.get(id);
    const [numbers, bound] = [ints(classes), [uniform, this.buffers.get(arena), ...ints(handles).map((handle) => this.buffers.get(handle))]];
    const view = host.getBuffer("u8");
    if (view.data.length) this.#write(bound[1], 0, view.data, view.data.length);
    view.release();
    const clock = this.device.features.has("timestamp-query") ? new Clock(this.device) : null;
    const found = new Map();
    try {
      const idle = [];
      for (let i = 0; i < 5; i++) idle.push((await this.#repeated(null, 0, null)).host);
      let plain = []; // dispatches on the way
      for (const [i, dispatch] of dispatches.entries()) {
        if (this.stopped.has(id)) throw STOPPED;
        const own = { ...dispatch, group: this.#groupOf(dispatch, bound) };
        plain.push(own);
        if (numbers[i] < 0 || found.has(numbers[i])) continue;
        this.#submit(plain, bound);
        plain = [];
        await this.wait();
        found.set(numbers[i], await this.#timed(own, least, Math.min(...idle), clock));
      }
      this.#submit(plain, bound);
      await this.wait();
    } catch (error) {
      throw error === STOPPED ? new Error("the timing was stopped") : error;
    } finally {
      clock?.close();
    }
    return JSON.stringify([...found].map(([number, { host: ms, device }]) => [number, ms, device]));
  }

  async #timed(dispatch, least, idle, clock) {
    const net = (host) => host - Math.min(idle, host / 2); // on a busy machine an empty submission may have taken longer
    for (let count = 1; ;) {
      const took = await this.#repeated(dispatch, count, clock);
      const ms = net(took.host);
      if (ms >= least || count >= MOST_REPEATS) {
        const again = await this.#repeated(dispatch, count, clock); // the first time something else may have run, too
        return { host: Math.min(ms, net(again.host)) / count, device: Math.min(took.device, again.device) / count };
      }
      count = Math.min(MOST_REPEATS, count * 16, Math.max(count * 2, Math.ceil((count * least * 1.2) / Math.max(ms, 0.01))));
    }
  }

  // Milliseconds that `count` times a dispatch take, from the submission to the news that they are done.
  async #repeated(dispatch, count, clock) {
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass(clock?.around());
    if (dispatch) {
      pass.setPipeline(dispatch.pipeline);
      pass.setBindGroup(0, dispatch.group);
    }
    for (let i = 0; i < count; i++) pass.dispatchWorkgroups(...dispatch.groups);
    pass.end();
    clock?.resolve(encoder);
    const commands = encoder.finish();
    const start = performance.now();
    this.device.queue.submit([commands]);
    await this.device.queue.onSubmittedWorkDone();
    return { host: performance.now() - start, device: clock ? await clock.read() : 0 };
  }

  stopProgram(id) {
    this.stopped.add(id);
  }

  async wait() {
    await this.device.queue.onSubmittedWorkDone();
  }

  takeErrors() {
    return this.errors.splice(0).join("\n");
  }

  liveBuffers() {
    let spares = 0;
    for (const program of this.programs.values()) spares += program.spares.filter(Boolean).length;
    return this.buffers.size + spares;
  }

  closeDevice() {
    this.complain = null;
    for (const id of this.programs.keys()) this.discardProgram(id);
    for (const buffer of this.buffers.values()) buffer.destroy();
    this.stage(0);
    this.buffers.clear();
    this.pipelines.clear();
    this.device.destroy();
  }
}
