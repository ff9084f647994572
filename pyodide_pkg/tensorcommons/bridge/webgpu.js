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

// The numbers of a Python buffer of ints.
function ints(source) {
  const view = source.getBuffer("i32");
  const numbers = [...view.data];
  view.release();
  return numbers;
}

class Gpu {
  constructor(adapter, device) {
    this.device = device;
    this.buffers = new Map(); // handle -> GPUBuffer
    this.pipelines = new Map(); // key -> Promise<{pipeline, layout}>
    this.programs = new Map(); // id -> {dispatches, params}
    this.stopped = new Set(); // ids of runs to stop at the next part
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

  createBuffer(handle, size) {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    this.buffers.set(handle, this.device.createBuffer({ size: Math.max(16, Math.ceil(size / 16) * 16), usage }));
  }

  destroyBuffer(handle) {
    this.buffers.get(handle).destroy();
    this.buffers.delete(handle);
  }

  // `source` is a Python buffer; its size is a multiple of 4 but for a last partial word, which is padded with zeros.
  writeBuffer(handle, offset, source) {
    const view = source.getBuffer("u8");
    const { data } = view;
    const whole = data.length & ~3;
    if (whole) this.device.queue.writeBuffer(this.buffers.get(handle), offset, data, 0, whole);
    if (data.length > whole) {
      const tail = new Uint8Array(4);
      tail.set(data.subarray(whole));
      this.device.queue.writeBuffer(this.buffers.get(handle), offset + whole, tail);
    }
    view.release();
  }

  copyBuffer(source, sourceOffset, target, targetOffset, size) {
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(this.buffers.get(source), sourceOffset, this.buffers.get(target), targetOffset, Math.ceil(size / 4) * 4);
    this.device.queue.submit([encoder.finish()]);
  }

  // `ranges` is a Python buffer of ints, [handle, offset, size] for each. Gives their bytes one after another, as an
  // ArrayBuffer of its own. Copies and maps move whole words, so both ends of a range are widened and then cut.
  async readBuffers(ranges) {
    const pieces = [];
    let length = 0;
    for (let rest = ints(ranges); rest.length; rest = rest.slice(3)) {
      const [handle, offset, size] = rest;
      const start = offset & ~3;
      const words = Math.ceil((offset + size) / 4) * 4 - start;
      pieces.push({ handle, start, words, at: length, from: length + offset - start, size });
      length += words;
    }
    const staging = this.device.createBuffer({ size: Math.max(4, length), usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
    try {
      const encoder = this.device.createCommandEncoder();
      for (const { handle, start, words, at } of pieces) encoder.copyBufferToBuffer(this.buffers.get(handle), start, staging, at, words);
      this.device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      if (this.errors.length) throw new Error(this.takeErrors());
      const mapped = new Uint8Array(staging.getMappedRange());
      const result = new Uint8Array(pieces.reduce((total, { size }) => total + size, 0));
      let at = 0;
      for (const { from, size } of pieces) {
        result.set(mapped.subarray(from, from + size), at);
        at += size;
      }
      return result.buffer;
    } catch (error) {
      if (error.name === "AbortError") await this.gone; // only a lost device aborts this map
      throw error;
    } finally {
      staging.destroy();
    }
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
  // outputs: [bytes], part}. A slot >= 0 counts the run's handles (leaves, then outputs); -1 is the arena, -2 the params.
  async compileProgram(id, description, params) {
    const { pipelines, dispatches, outputs, part } = JSON.parse(description);
    const ready = await Promise.all(pipelines.map((entry) => this.pipeline(...entry)));
    const view = params.getBuffer("u8");
    const uniform = this.device.createBuffer({ size: Math.max(16, view.data.length), usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
    this.device.queue.writeBuffer(uniform, 0, view.data);
    view.release();
    this.programs.set(id, {
      uniform,
      outputs,
      part,
      dispatches: dispatches.map(([index, groups, bindings]) => ({ ...ready[index], groups, bindings, used: [], group: null })),
    });
  }

  discardProgram(id) {
    this.programs.get(id).uniform.destroy();
    this.programs.delete(id);
  }

  // One run of a program over `handles`, a Python buffer of ints (leaves, then outputs): write the host inputs, create
  // the outputs, encode every dispatch, submit. A program of one part is queued at once: true. Of several parts each but
  // the last is awaited, so that `stopProgram` can end the run: a promise of true, or of false if it was ended. Outputs
  // exist only if the run was queued whole.
  runProgram(id, arena, host, handles) {
    if (this.lost) throw new Error("the device is lost");
    this.stopped.delete(id); // a stop that came too late was for the run before
    const { uniform, dispatches, outputs, part } = this.programs.get(id);
    const all = ints(handles);
    const created = all.slice(all.length - outputs.length);
    const undo = (error) => {
      created.filter((handle) => this.buffers.has(handle)).forEach((handle) => this.destroyBuffer(handle));
      if (error === STOPPED) return false;
      throw error;
    };
    try {
      if (host.length) this.writeBuffer(arena, 0, host);
      outputs.forEach((size, i) => this.createBuffer(created[i], size));
      const fixed = { [-1]: this.buffers.get(arena), [-2]: uniform };
      const bound = all.map((handle) => this.buffers.get(handle));
      const bufferOf = (slot) => (slot < 0 ? fixed[slot] : bound[slot]);
      if (dispatches.length > part) return this.#submitInParts(id, dispatches, part, bufferOf).catch(undo);
      this.#submit(dispatches, bufferOf);
      return true;
    } catch (error) {
      return undo(error);
    }
  }

  async #submitInParts(id, dispatches, part, bufferOf) {
    for (let first = 0; first < dispatches.length; first += part) {
      if (first) await this.device.queue.onSubmittedWorkDone();
      if (this.stopped.has(id)) throw STOPPED;
      this.#submit(dispatches.slice(first, first + part), bufferOf);
    }
    return true;
  }

  #submit(dispatches, bufferOf) {
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const dispatch of dispatches) {
      pass.setPipeline(dispatch.pipeline);
      pass.setBindGroup(0, this.#group(dispatch, bufferOf));
      pass.dispatchWorkgroups(...dispatch.groups);
    }
    pass.end();
    this.device.queue.submit([encoder.finish()]);
  }

  // A bind group is kept as long as its buffers are the very same objects.
  #group(dispatch, bufferOf) {
    const buffers = dispatch.bindings.map(([slot]) => bufferOf(slot));
    if (!dispatch.group || buffers.some((buffer, i) => buffer !== dispatch.used[i])) {
      dispatch.used = buffers;
      dispatch.group = this.device.createBindGroup({
        layout: dispatch.layout,
        entries: buffers.map((buffer, i) => ({
          binding: i,
          resource: { buffer, offset: dispatch.bindings[i][1], size: dispatch.bindings[i][2] },
        })),
      });
    }
    return dispatch.group;
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
    return this.buffers.size;
  }

  closeDevice() {
    for (const program of this.programs.values()) program.uniform.destroy();
    for (const buffer of this.buffers.values()) buffer.destroy();
    this.programs.clear();
    this.buffers.clear();
    this.pipelines.clear();
    this.device.destroy();
  }
}
