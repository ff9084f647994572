// The WebGPU helper: buffers by integer handle, pipelines by key, and the replay of a compiled plan in one call.
// Python decides everything; this file only keeps what a proxy call per object would make slow.

// Open an adapter and its device with every limit and feature that it offers. Gives null when there is no adapter.
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
  const device = await adapter.requestDevice({ requiredLimits, requiredFeatures });
  return new Gpu(adapter, device);
}

export function reasonWithoutAdapter() {
  if (!globalThis.isSecureContext && globalThis.isSecureContext !== undefined) return "the page is not served from a secure context (https or localhost)";
  if (!globalThis.navigator?.gpu) return "this browser does not offer WebGPU (navigator.gpu is missing)";
  return "the browser offers WebGPU but found no adapter to run it on";
}

const STOPPED = Symbol("stopped");
const PIECE = 12; // dispatches a submit: the device works on the first while the next are encoded
const WRITE = 1 << 20; // bytes a write: browsers keep the memory that the largest one passed through, in both processes

// The numbers of a Python buffer of ints.
function ints(source) {
  const view = source.getBuffer("i32");
  const numbers = [...view.data];
  view.release();
  return numbers;
}

// The bytes of ranges, flat: [handle, offset, size] for each.
function total(ranges) {
  let length = 0;
  for (let i = 2; i < ranges.length; i += 3) length += ranges[i];
  return length;
}

class Gpu {
  constructor(adapter, device) {
    this.device = device;
    this.buffers = new Map(); // handle -> GPUBuffer
    this.pipelines = new Map(); // key -> Promise<{pipeline, layout}>
    this.programs = new Map(); // id -> {dispatches, params}
    this.stopped = new Set(); // ids of runs to stop at the next part
    this.staging = null; // the idle buffer that is kept for reads, if there is one
    this.stagingSize = 0; // what it may take
    this.last = null; // {program, first}: who ran last, and its first output
    this.ahead = null; // {program, ranges, staging, mapped}: the read that this run began
    this.errors = []; // uncaught device errors, for the next call to report
    this.lost = null;
    const info = adapter.info;
    this.info = JSON.stringify({
      description: [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(" ") || "unnamed adapter",
      fallback: Boolean(info.isFallbackAdapter ?? adapter.isFallbackAdapter) || /swiftshader|llvmpipe|basic render/i.test(info.description + info.device + info.architecture),
      features: [...device.features, ...(globalThis.navigator.gpu.wgslLanguageFeatures ?? [])],
      subgroups: [info.subgroupMinSize ?? 0, info.subgroupMaxSize ?? 0],
      matrices: [...(info.subgroupMatrixConfigs ?? [])].map((each) => [each.componentType, each.resultComponentType, each.M, each.N, each.K]),
      limits: Object.fromEntries(Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(device.limits)))
        .filter(([name]) => typeof device.limits[name] === "number").map(([name]) => [name, device.limits[name]])),
    });
    device.addEventListener?.("uncapturederror", (event) => this.errors.push(event.error.message));
    this.gone = device.lost.then((loss) => { this.lost = `${loss.reason}: ${loss.message}`; });
  }

  // Call `tell` with the reason when the device is lost, or closed.
  whenLost(tell) {
    this.gone.then(() => tell(this.lost));
  }

  createBuffer(handle, size) {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    this.buffers.set(handle, this.device.createBuffer({ size: Math.max(16, Math.ceil(size / 16) * 16), usage }));
  }

  destroyBuffer(handle) {
    this.#stale(handle);
    this.buffers.get(handle).destroy();
    this.buffers.delete(handle);
    if (!this.buffers.size) this.device.queue.submit([]); // bytes of a destroyed buffer are given back by the next submission
  }

  // `source` is a Python buffer, or an array that is used up; a last partial word is padded with zeros.
  writeBuffer(handle, offset, source) {
    this.#stale(handle);
    const view = source instanceof Uint8Array ? { data: source, release: () => source.buffer.transfer?.(0) } : source.getBuffer("u8");
    const { data } = view;
    const whole = data.length & ~3;
    for (let at = 0; at < whole; at += WRITE) {
      this.device.queue.writeBuffer(this.buffers.get(handle), offset + at, data, at, Math.min(WRITE, whole - at));
    }
    if (data.length > whole) {
      const tail = new Uint8Array(4);
      tail.set(data.subarray(whole));
      this.device.queue.writeBuffer(this.buffers.get(handle), offset + whole, tail);
    }
    view.release();
  }

  copyBuffer(source, sourceOffset, target, targetOffset, size) {
    this.#stale(target);
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(this.buffers.get(source), sourceOffset, this.buffers.get(target), targetOffset, Math.ceil(size / 4) * 4);
    this.device.queue.submit([encoder.finish()]);
  }

  // Keep a buffer of `size` bytes for reads from the next one on: making one costs more than a small read. 0: none.
  stage(size) {
    if (size === this.stagingSize) return;
    this.#forget();
    this.staging?.destroy();
    this.staging = null;
    this.stagingSize = size;
  }

  // Copy the first `size` bytes, whole words, of one GPUBuffer to another.
  copyBetween(source, target, size) {
    this.#forget();
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(source, 0, target, 0, size);
    this.device.queue.submit([encoder.finish()]);
  }

  // Who hears of reads: `take(number, bytes)` copies the bytes, which are gone after it; then `tell(number, error)`
  // says that the read is done. That may suspend where a WebAssembly stack can be, as whatever Python awaits may.
  listen(take, tell) {
    this.take = take;
    this.tell = "Suspending" in WebAssembly ? (...told) => tell.callPromising(...told) : tell;
  }

  // Read under `number`. `ranges` is [handle, offset, size] for each range, flat, of whole words; their bytes come one
  // after another, through the kept buffer of `staged` bytes if they fit.
  readBuffers(number, staged, ...ranges) {
    this.#read(number, staged, ranges).then(() => this.tell(number, ""), (error) => this.tell(number, String(error.message ?? error)));
  }

  async #read(number, staged, ranges) {
    const begun = this.#begun(ranges);
    if (!begun) this.stage(staged);
    const length = total(ranges);
    const staging = begun?.staging ?? this.#takeStaging(length);
    let read = false;
    try {
      if (!begun) {
        const encoder = this.device.createCommandEncoder();
        this.#encodeCopies(encoder, ranges, staging);
        this.device.queue.submit([encoder.finish()]);
      }
      await (begun?.mapped ?? staging.mapAsync(GPUMapMode.READ, 0, length));
      if (this.errors.length) throw new Error(this.takeErrors());
      this.take(number, new Uint8Array(staging.getMappedRange(0, length)));
      staging.unmap();
      read = true;
    } catch (error) {
      if (error.name === "AbortError") await this.gone; // only a lost device aborts this map
      throw error;
    } finally {
      if (read && !this.staging && staging.size === this.stagingSize) this.staging = staging;
      else staging.destroy();
    }
  }

  #encodeCopies(encoder, ranges, staging) {
    for (let i = 0, at = 0; i < ranges.length; at += ranges[i + 2], i += 3) {
      encoder.copyBufferToBuffer(this.buffers.get(ranges[i]), ranges[i + 1], staging, at, ranges[i + 2]);
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
    if (!this.staging || length > this.stagingSize) return () => {};
    const staging = this.#takeStaging(length);
    this.#encodeCopies(encoder, ranges, staging);
    return () => {
      const mapped = staging.mapAsync(GPUMapMode.READ, 0, length);
      mapped.catch(() => {}); // whoever asks hears of it
      this.ahead = { program, ranges, staging, mapped };
    };
  }

  // Nobody asked for the read that was begun.
  #forget() {
    if (!this.ahead) return;
    const { program, staging } = this.ahead;
    this.ahead = null;
    program.read = null;
    staging.unmap();
    this.staging = staging;
  }

  // The bytes of `handle` are others from now on, or gone.
  #stale(handle) {
    if (this.ahead?.ranges.some((number, i) => i % 3 === 0 && number === handle)) this.#forget();
  }

  #takeStaging(length) {
    const kept = this.stagingSize >= length;
    const staging = kept && this.staging;
    if (kept) this.staging = null;
    return staging || this.device.createBuffer({ size: kept ? this.stagingSize : Math.max(4, length), usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  }

  // bindings: a letter a binding, "u" uniform, "r" read-only storage, "w" storage that is written.
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
    const layout = this.device.createBindGroupLayout({
      label,
      entries: [...bindings].map((letter, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: types[letter] } })),
    });
    const module = this.device.createShaderModule({ label, code });
    const pipeline = await this.device.createComputePipelineAsync({
      label,
      layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: "main" },
    });
    return { pipeline, layout };
  }

  // description: {pipelines: [[key, label, code, bindings]], dispatches: [[pipeline index, [x, y, z], [[slot, offset, size]]]],
  // outputs: [bytes], part, host: bytes}. Slot 0 is the uniforms, 1 the arena; then come the leaves, then the outputs.
  // `tell(done, total)` hears of every pipeline that is ready. Gives the array whose bytes each run begins with.
  async compileProgram(id, description, params, tell) {
    const { pipelines, dispatches, outputs, part, host } = JSON.parse(description);
    let done = 0;
    const ready = await Promise.all(pipelines.map(async (entry) => {
      const pipeline = await this.pipeline(...entry);
      tell(++done, pipelines.length);
      return pipeline;
    }));
    const view = params.getBuffer("u8");
    const uniform = this.device.createBuffer({ size: Math.max(16, view.data.length), usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
    this.device.queue.writeBuffer(uniform, 0, view.data);
    view.release();
    const program = {
      uniform,
      outputs,
      part,
      host: new Uint8Array(host),
      leaves: [],
      read: null, // what of the outputs was read after the last run: [number, offset, size] for each range, flat
      spares: [], // by output: a buffer that the next run writes it to
      bound: [], // by slot: the buffer that the bind groups hold
      dispatches: dispatches.map(([index, groups, bindings]) => ({ ...ready[index], groups, bindings, group: null })),
    };
    this.programs.set(id, program);
    return program.host;
  }

  discardProgram(id) {
    this.dropSpares(id);
    this.programs.get(id).uniform.destroy();
    this.programs.delete(id);
  }

  // The buffer of `handle` is the next run's output `number`.
  spareBuffer(id, number, handle) {
    this.#stale(handle);
    this.programs.get(id).spares[number] = this.buffers.get(handle);
    this.buffers.delete(handle);
  }

  dropSpares(id) {
    const spares = this.programs.get(id)?.spares.splice(0) ?? []; // a program of a device before this one has none
    for (const spare of spares) spare?.destroy();
    if (!this.buffers.size) this.device.queue.submit([]);
  }

  // One run of a program over its leaves: write the host inputs, have the outputs under `first` and the handles after it,
  // spare buffers or new ones, encode every dispatch, submit. A program of one part is queued at once: true. Of several parts each but the last
  // is awaited, so that `stopProgram` can end the run: a promise of true, or of false if it was ended. Outputs exist only
  // if the run was queued whole. `leaves` is a Python buffer of ints, or nothing where they are those of the run before.
  runProgram(id, arena, first, leaves) {
    if (this.lost) throw new Error("the device is lost");
    this.#forget();
    this.stopped.delete(id); // a stop that came too late was for the run before
    const program = this.programs.get(id);
    const { dispatches, outputs, part, host, spares } = program;
    if (leaves) program.leaves = ints(leaves);
    const undo = (error) => {
      program.bound = [];
      outputs.forEach((_, i) => this.buffers.has(first + i) && this.destroyBuffer(first + i));
      if (error === STOPPED) return false;
      throw error;
    };
    try {
      if (host.length) this.device.queue.writeBuffer(this.buffers.get(arena), 0, host);
      outputs.forEach((size, i) => {
        if (spares[i]) this.buffers.set(first + i, spares[i]);
        else this.createBuffer(first + i, size);
      });
      spares.length = 0;
      this.#bind(program, arena, first);
      if (dispatches.length > part) return this.#submitInParts(id, dispatches, part).catch(undo);
      this.#submit(dispatches, program.read && ((encoder) => this.#readAhead(encoder, program, first)));
      this.last = { program, first };
      return true;
    } catch (error) {
      return undo(error);
    }
  }

  // A bind group is kept as long as its buffers are the very same objects: what leaves and comes back is another one.
  #bind({ uniform, leaves, outputs, bound, dispatches }, arena, first) {
    const changed = new Set();
    const put = (slot, buffer) => {
      if (bound[slot] !== buffer) changed.add(slot);
      bound[slot] = buffer;
    };
    put(0, uniform);
    put(1, this.buffers.get(arena));
    leaves.forEach((handle, i) => put(2 + i, this.buffers.get(handle)));
    outputs.forEach((_, i) => put(2 + leaves.length + i, this.buffers.get(first + i)));
    if (!changed.size) return;
    for (const dispatch of dispatches) {
      if (!dispatch.bindings.some(([slot]) => changed.has(slot))) continue;
      dispatch.group = this.device.createBindGroup({
        layout: dispatch.layout,
        entries: dispatch.bindings.map(([slot, offset, size], binding) => ({ binding, resource: { buffer: bound[slot], offset, size } })),
      });
    }
  }

  async #submitInParts(id, dispatches, part) {
    for (let first = 0; first < dispatches.length; first += part) {
      if (first) await this.device.queue.onSubmittedWorkDone();
      if (this.stopped.has(id)) throw STOPPED;
      this.#submit(dispatches.slice(first, first + part));
    }
    return true;
  }

  // `last` may add to the last encoder, and gives what to do after its submission.
  #submit(dispatches, last) {
    for (let first = 0; first < dispatches.length; first += PIECE) {
      const encoder = this.device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      let current = null;
      for (const { pipeline, group, groups } of dispatches.slice(first, first + PIECE)) {
        if (pipeline !== current) pass.setPipeline((current = pipeline));
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(groups[0], groups[1], groups[2]);
      }
      pass.end();
      const after = first + PIECE >= dispatches.length && last?.(encoder);
      this.device.queue.submit([encoder.finish()]);
      if (after) after();
    }
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
    for (const id of this.programs.keys()) this.discardProgram(id);
    for (const buffer of this.buffers.values()) buffer.destroy();
    this.stage(0);
    this.buffers.clear();
    this.pipelines.clear();
    this.device.destroy();
  }
}
