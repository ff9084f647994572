// Times of dispatches, by this clock and by the device's.
import { submit } from "./program.js";

const MOST_REPEATS = 1 << 14; // of a dispatch that is timed

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

// Run dispatches, `bound` by slot, and on the way repeat one of each class until that takes `least` ms. `numbers` has the class
// of each (below 0: none). Gives [class, ms by this clock, ms by the device's or 0] for each; throws where `isStopped()`.
export async function timeEach(device, dispatches, bound, numbers, least, isStopped) {
  const stopwatch = new Stopwatch(device);
  const found = new Map();
  try {
    await stopwatch.calibrate();
    let plain = []; // dispatches on the way
    for (const [i, dispatch] of dispatches.entries()) {
      if (isStopped()) throw new Error("the timing was stopped");
      plain.push(dispatch);
      if (numbers[i] < 0 || found.has(numbers[i])) continue;
      submit(device, plain, bound);
      plain = [];
      await device.queue.onSubmittedWorkDone();
      found.set(numbers[i], await stopwatch.time(dispatch, least));
    }
    submit(device, plain, bound);
    await device.queue.onSubmittedWorkDone();
  } finally {
    stopwatch.close();
  }
  return [...found].map(([number, { host, device: own }]) => [number, host, own]);
}

class Stopwatch {
  constructor(device) {
    this.device = device;
    this.clock = device.features.has("timestamp-query") ? new Clock(device) : null;
  }

  // Measure an empty submission, which is taken off all times.
  async calibrate() {
    const idle = [];
    for (let i = 0; i < 5; i++) idle.push((await this.#repeated(null, 0)).host);
    this.idle = Math.min(...idle);
  }

  // Milliseconds of a dispatch, {host, device}, repeated until that takes `least` ms. `device` is 0 without timestamps.
  async time(dispatch, least) {
    const net = (host) => host - Math.min(this.idle, host / 2); // on a busy machine an empty submission may have taken longer
    for (let count = 1; ;) {
      const took = await this.#repeated(dispatch, count);
      const ms = net(took.host);
      if (ms >= least || count >= MOST_REPEATS) {
        const again = await this.#repeated(dispatch, count); // the first time something else may have run, too
        return { host: Math.min(ms, net(again.host)) / count, device: Math.min(took.device, again.device) / count };
      }
      count = Math.min(MOST_REPEATS, count * 16, Math.max(count * 2, Math.ceil((count * least * 1.2) / Math.max(ms, 0.01))));
    }
  }

  // Milliseconds that `count` times a dispatch take, from the submission to the news that they are done.
  async #repeated(dispatch, count) {
    const { clock, device } = this;
    const encoder = device.createCommandEncoder();
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
    device.queue.submit([commands]);
    await device.queue.onSubmittedWorkDone();
    return { host: performance.now() - start, device: clock ? await clock.read() : 0 };
  }

  close() {
    this.clock?.close();
  }
}
