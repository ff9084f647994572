// Compiled programs by id, and their runs: one call each, of one program or of several runs of it.
import { cause, doubted, Fault, watched } from "./faults.js";
import { encodeCopy } from "./memory.js";
import { compilePipeline } from "./pipelines.js";
import { ARENA, LARGE_PIECE, LEAVES, Program } from "./program.js";
import { timeEach } from "./timing.js";

const STOPPED = Symbol("stopped");

// The numbers of a Python buffer of ints.
function ints(source) {
  const view = source.getBuffer("i32");
  const numbers = [...view.data];
  view.release();
  return numbers;
}

export class Programs extends Map {
  // `gpu` has the device, its buffers by handle, and its reads.
  constructor(gpu) {
    super();
    this.gpu = gpu;
    this.pipelines = new Map(); // key -> Promise<{pipeline, layout}>
    this.stopped = new Set(); // ids of programs whose run stops at the next part, or whose compilation is for nothing
  }

  // A pipeline that could not be made is not kept; who awaits it gets the Fault.
  #pipeline(key, ...given) {
    if (!this.pipelines.has(key)) {
      const compiled = compilePipeline(this.gpu.device, ...given);
      compiled.catch(() => this.pipelines.delete(key));
      this.pipelines.set(key, compiled);
    }
    return this.pipelines.get(key);
  }

  // description: {work, pipelines: [[key, label, code, bindings]], dispatches: [[pipeline index, [x, y, z], [[slot, offset,
  // size]]]], outputs: [bytes], written: [leaf], part, host: bytes}. `work` names it, a pipeline's label what is at fault where
  // that cannot be made. `tell(done, total)` is called for every pipeline that is ready. Gives the array whose bytes each run
  // begins with. Throws a Fault once nothing of it is under way any more, and keeps nothing of it then.
  async compile(id, description, params, tell) {
    const { device } = this.gpu;
    const given = JSON.parse(description);
    let done = 0;
    const ready = await Promise.all(given.pipelines.map(async (entry) => {
      try {
        const pipeline = await this.#pipeline(...entry);
        tell(++done, given.pipelines.length);
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
      const made = watched(device, `the parameters of ${given.work}`, () => {
        uniform = device.createBuffer({ size: Math.max(16, view.data.length), usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
        if (view.data.length) device.queue.writeBuffer(uniform, 0, view.data);
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
    const program = new Program(device, given, ready, uniform);
    this.set(id, program);
    return program.host;
  }

  // Discard a program, or what is still being compiled under that number as soon as it is.
  abandon(id) {
    if (this.has(id)) this.discard(id);
    else this.stopped.add(id);
  }

  discard(id) {
    this.dropSpares(id);
    this.get(id)?.uniform.destroy(); // none where the device was closed while it was compiled
    this.delete(id);
  }

  // The buffer of `handle` is the next run's output `number`, unless what was to fill it failed: it may be none.
  spare(id, number, handle) {
    const { buffers, reads } = this.gpu;
    reads.stale(handle);
    const buffer = buffers.get(handle);
    if (buffer.doubt?.fault) buffer.destroy();
    else this.get(id).spares[number] = buffer;
    buffers.delete(handle);
  }

  dropSpares(id) {
    const spares = this.get(id)?.spares.splice(0) ?? []; // a program of a device before this one has none
    for (const spare of spares) spare?.destroy();
    if (!this.gpu.buffers.size) this.gpu.device.queue.submit([]);
  }

  // A run was confirmed, or it failed: then the buffers that it took, and left to the next one, may not exist.
  #settled(program, doubt) {
    if (!doubt.fault) {
      program.proved = true;
      return;
    }
    program.unbind();
    program.read = null;
    program.spares.forEach((spare, i) => {
      if (spare?.doubt !== doubt) return;
      spare.destroy();
      delete program.spares[i];
    });
    this.gpu.complain?.(`${doubt.fault.work}: ${doubt.fault.message}`);
  }

  // One run of a program over its leaves: write the host inputs, have the outputs under `first` and the handles after it,
  // spare buffers or new ones, encode every dispatch, submit. A program of one part is queued at once: true. Of several parts each but the last
  // is awaited, so that `stop` can end the run: a promise of true, or of false if it was ended. Outputs exist only
  // if the run was queued whole. `leaves` is a Python buffer of ints, or nothing where they are those of the run before.
  // Device errors of a run that is queued at once are raised later, by the first read of its outputs.
  run(id, arena, first, leaves) {
    const { buffers, device, lost, reads } = this.gpu;
    if (lost) throw new Error("the device is lost");
    reads.forget();
    this.stopped.delete(id); // a stop that came too late was for the run before
    const program = this.get(id);
    if (leaves) program.handles = [arena, ...ints(leaves)];
    program.handles[0] = arena;
    const undo = (error) => {
      this.#undo(program, first, first + program.outputs.length);
      if (error === STOPPED) return false;
      throw error;
    };
    try {
      const inParts = program.dispatches.length > program.part;
      const changed = program.place(buffers, ARENA, program.handles);
      const isWatched = changed || !program.proved || !program.hasSpares;
      const { sources } = program;
      const begin = () => {
        if (program.host.length) program.bound[ARENA].write(device.queue, 0, program.host);
        program.placeOutputs(buffers, first, (size) => this.gpu.newBuffer(size));
        if (!inParts) program.submit({ after: program.read && ((encoder) => reads.encodeAhead(encoder, program, first)) });
      };
      const checked = isWatched ? watched(device, program.work, begin).checked : begin() ?? null;
      const { made } = program;
      if (inParts) return this.#submitInParts(id, program, checked, sources, made, isWatched).catch(undo);
      if (isWatched || sources.length) doubted(made, checked, sources, (doubt) => this.#settled(program, doubt));
      else for (const buffer of made) buffer.doubt = null;
      reads.last = { program, first };
      return true;
    } catch (error) {
      return undo(error);
    }
  }

  async #submitInParts(id, program, begun, sources, made, isWatched) {
    const { device } = this.gpu;
    const { dispatches, part, work } = program;
    const checks = [...sources.map((source) => source.checked), begun];
    for (let first = 0; first < dispatches.length; first += part) {
      if (first) await device.queue.onSubmittedWorkDone();
      if (this.stopped.has(id)) throw STOPPED;
      const next = () => program.submit({}, dispatches.slice(first, first + part));
      checks.push(isWatched ? watched(device, work, next).checked : next() ?? null);
    }
    if (isWatched || sources.length) {
      const fault = cause(await Promise.all(checks));
      if (fault) throw fault;
      program.proved = true;
    }
    for (const buffer of made) buffer.doubt = null;
    return true;
  }

  // Run a program `count` times in one call: each run but the first reads the output number `output` of the run before as
  // its leaf `leaf`. `hosts` has what each run writes first. That output of every run is copied to one buffer, under the
  // handle after the last output. Otherwise as `run`, for programs of one part.
  runChain(id, arena, first, leaves, hosts, count, output, leaf) {
    const { buffers, device, lost, reads } = this.gpu;
    if (lost) throw new Error("the device is lost");
    reads.forget();
    const program = this.get(id);
    const { host: { length: size }, outputs } = program;
    program.handles = [arena, ...ints(leaves)];
    const view = hosts.getBuffer("u8");
    const all = first + outputs.length;
    try {
      program.place(buffers, ARENA, program.handles);
      const { sources } = program;
      const { checked } = watched(device, program.work, () => {
        program.placeOutputs(buffers, first, (bytes) => this.gpu.newBuffer(bytes));
        buffers.set(all, this.gpu.newBuffer(count * outputs[output]));
        const [scratch, from, to] = [arena, first + output, all].map((handle) => buffers.get(handle));
        const given = this.gpu.newBuffer(count * size); // one write for all runs: each copies its part
        try {
          given.write(device.queue, 0, view.data);
          for (let i = 0; i < count; i++) {
            if (i === 1) program.place(buffers, LEAVES + leaf, [first + output]);
            program.submit({
              before: (encoder) => { encodeCopy(encoder, given, i * size, scratch, 0, size); },
              after: (encoder) => { encodeCopy(encoder, from, 0, to, i * outputs[output], outputs[output]); },
              piece: i ? LARGE_PIECE : undefined,
            });
          }
        } finally {
          given.destroy();
        }
      });
      doubted([...program.made, buffers.get(all)], checked, sources, (doubt) => this.#settled(program, doubt));
    } catch (error) {
      this.#undo(program, first, all + 1);
      throw error;
    } finally {
      view.release();
    }
  }

  // A run was not queued whole: destroy the outputs that it made.
  #undo(program, first, end) {
    program.unbind();
    for (let handle = first; handle < end; handle++) if (this.gpu.buffers.has(handle)) this.gpu.destroyBuffer(handle);
  }

  // End the run of a program at its next part.
  stop(id) {
    this.stopped.add(id);
  }

  // Run a program once more over `handles` (a Python buffer of ints: leaves, then outputs, which all exist), and on the way
  // repeat one dispatch of each of `classes` (ints by dispatch). What it writes is anything afterwards. Gives what timeEach
  // does as JSON.
  async time(id, classes, least, arena, host, handles) {
    const { buffers, device, lost } = this.gpu;
    if (lost) throw new Error("the device is lost");
    this.stopped.delete(id);
    const { uniform, dispatches } = this.get(id);
    const bound = [uniform, ...[arena, ...ints(handles)].map((handle) => buffers.get(handle))];
    const view = host.getBuffer("u8");
    if (view.data.length) bound[ARENA].write(device.queue, 0, view.data);
    view.release();
    const own = dispatches.map((dispatch) => ({ ...dispatch, group: null }));
    return JSON.stringify(await timeEach(device, own, bound, ints(classes), least, () => this.stopped.has(id)));
  }

  // Discard all programs.
  close() {
    for (const id of this.keys()) this.discard(id);
    this.pipelines.clear();
  }
}
