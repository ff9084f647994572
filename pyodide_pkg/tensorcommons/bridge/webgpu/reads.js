// Reads: copies of ranges to a buffer that is mapped, kept for the next read, and begun by the run before where they repeat.
import { cause, described, watched } from "./faults.js";
import { encodeCopy } from "./memory.js";

// The bytes of ranges, flat: [handle, offset, size] for each.
function total(ranges) {
  let length = 0;
  for (let i = 2; i < ranges.length; i += 3) length += ranges[i];
  return length;
}

export class Reads {
  // `buffers` has each handle's Memory, `gone` is settled when the device is lost.
  constructor(device, buffers, gone) {
    Object.assign(this, { device, buffers, gone });
    this.staging = null; // the idle buffer that is kept for reads, if there is one
    this.stagingSize = 0; // what it may take
    this.last = null; // {program, first}: who ran last, and its first output
    this.ahead = null; // {program, ranges, staging, mapped}: the read that this run began
  }

  // Set the callbacks: `take(number, bytes)` copies the bytes, which are gone after it; then `tell(number, error)` says that the
  // read is done. That may suspend where a WebAssembly stack can be, as whatever Python awaits may.
  listen(take, tell) {
    this.take = take;
    this.tell = "Suspending" in WebAssembly ? (...told) => tell.callPromising(...told) : tell;
  }

  // Keep a buffer of `size` bytes for reads from the next one on: making one costs more than a small read. 0: none.
  stage(size) {
    if (size === this.stagingSize) return;
    this.forget();
    this.staging?.destroy();
    this.staging = null;
    this.stagingSize = size;
  }

  // Begin a read under `number`. `ranges` is [handle, offset, size] for each range, flat, of whole words; their bytes come one
  // after another, through the kept buffer of `staged` bytes if they fit.
  begin(number, staged, ...ranges) {
    this.#settle(number, this.#read((bytes) => this.take(number, bytes), staged, ranges));
  }

  // The same, of one range into an array, which may be less than whole words.
  beginInto(number, staged, target, ...range) {
    this.#settle(number, this.#read((bytes) => target.set(bytes.subarray(0, target.length)), staged, range));
  }

  #settle(number, reading) {
    reading.then(() => this.tell(number, ""), (error) => this.tell(number, described(error)));
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
          const { result, checked } = watched(this.device, "a read", begin);
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
    for (let i = 0, at = 0; i < ranges.length; at += ranges[i + 2], i += 3) {
      encodeCopy(encoder, this.buffers.get(ranges[i]), ranges[i + 1], staging, at, ranges[i + 2]);
    }
  }

  #takeStaging(length) {
    const kept = this.stagingSize >= length;
    const staging = kept && this.staging;
    if (kept) this.staging = null;
    return staging || this.device.createBuffer({ size: kept ? this.stagingSize : Math.max(4, length), usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
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
    this.forget();
    const isOutput = (handle) => handle >= last.first && handle < last.first + last.program.outputs.length;
    if (last && ranges.every((number, i) => i % 3 || isOutput(number))) {
      last.program.read = ranges.map((number, i) => (i % 3 ? number : number - last.first));
    }
    return null;
  }

  // Begin the read of `program.read`, in the last of a run's encoders. Gives what to do when that is submitted.
  encodeAhead(encoder, program, first) {
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
  forget() {
    if (!this.ahead) return;
    const { program, staging } = this.ahead;
    this.ahead = null;
    program.read = null;
    staging.unmap();
    this.staging = staging;
  }

  // Discard it if it covers `handle`, whose bytes change now, or are destroyed.
  stale(handle) {
    if (this.ahead?.ranges.some((number, i) => i % 3 === 0 && number === handle)) this.forget();
  }
}
