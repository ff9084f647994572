// WebGPU: buffers by integer handle, reads of them, and programs that run in one call each. Python decides everything; these files
// only keep what a proxy call per object would make slow. Each concept is a file of webgpu/.
import { facts, LARGEST, reasonWithoutAdapter, requestDevice } from "./webgpu/adapter.js";
import { cause, described, doubted, watched } from "./webgpu/faults.js";
import { encodeCopy, Memory } from "./webgpu/memory.js";
import { Programs } from "./webgpu/programs.js";
import { Reads } from "./webgpu/reads.js";

export { reasonWithoutAdapter };

const UNFREED = 1 << 24; // bytes of destroyed buffers that may wait for the next submission

// Open an adapter and its device. Returns null if the browser offers no adapter.
export async function open() {
  const opened = await requestDevice();
  return opened && new Gpu(opened.adapter, opened.device);
}

class Gpu {
  constructor(adapter, device) {
    this.device = device;
    this.bufferBytes = Math.floor(Math.min(device.limits.maxBufferSize, LARGEST) / 256) * 256; // of the largest buffer; Python may set less
    this.buffers = new Map(); // handle -> Memory
    this.destroyed = 0; // bytes of buffers since the last submission that was made for them
    this.errors = []; // device errors that no scope caught, the latest
    this.lost = null;
    this.info = JSON.stringify(facts(adapter, device));
    device.addEventListener?.("uncapturederror", ({ error }) => {
      this.errors.push(error.message);
      this.errors.splice(0, this.errors.length - 100);
      this.complain?.(`no known operation: ${error.message}`);
    });
    this.gone = device.lost.then((loss) => { this.lost = `${loss.reason}: ${loss.message}`; });
    this.reads = new Reads(device, this.buffers, this.gone);
    this.programs = new Programs(this);
  }

  // Set the callbacks of reads, and `complain(message)`, which gets errors that belong to no operation.
  listen(take, tell, complain) {
    this.reads.listen(take, tell);
    this.complain = complain;
  }

  // Call `tell` with the reason when the device is lost, or closed.
  whenLost(tell) {
    this.gone.then(() => tell(this.lost));
  }

  newBuffer(size) {
    return new Memory(this.device, size, this.bufferBytes);
  }

  createBuffer(handle, size) {
    const { result, checked } = watched(this.device, `a buffer of ${size} bytes`, () => this.newBuffer(size), ["out-of-memory", "validation"]);
    this.buffers.set(handle, result);
    doubted([result], checked, []);
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
    this.reads.stale(handle);
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
    this.reads.stale(handle);
    const view = source instanceof Uint8Array ? { data: source, release() {} } : source.getBuffer("u8");
    const buffer = this.buffers.get(handle);
    const write = () => buffer.write(this.device.queue, offset, view.data);
    if (buffer.doubt) doubted([buffer], watched(this.device, `a write of ${view.data.length} bytes`, write, ["validation"]).checked, [buffer.doubt]);
    else write();
    view.release();
  }

  copyBuffer(source, sourceOffset, target, targetOffset, size) {
    if (!size) return;
    this.reads.stale(target);
    const [from, to] = [this.buffers.get(source), this.buffers.get(target)];
    const { checked } = watched(this.device, `a copy of ${size} bytes`, () => this.#copy(from, sourceOffset, to, targetOffset, Math.ceil(size / 4) * 4));
    doubted([to], checked, [from.doubt, to.doubt].filter(Boolean));
  }

  // Copy the first `size` bytes, whole words, of one GPUBuffer or Memory to another.
  copyBetween(source, target, size) {
    this.reads.forget();
    if (size) this.#copy(source, 0, target, 0, size);
  }

  #copy(...given) {
    const encoder = this.device.createCommandEncoder();
    encodeCopy(encoder, ...given);
    this.device.queue.submit([encoder.finish()]);
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
    this.programs.close();
    for (const buffer of this.buffers.values()) buffer.destroy();
    this.reads.stage(0);
    this.buffers.clear();
    this.device.destroy();
  }
}
