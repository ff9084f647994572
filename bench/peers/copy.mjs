// What the device itself can do: its copy of as many bytes. Not a peer, a ceiling.
let device;

async function open() {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("no WebGPU adapter");
  const { maxBufferSize } = adapter.limits;
  device = await adapter.requestDevice({ requiredLimits: { maxBufferSize } });
}

// Gives {run, close}; run copies `steps` times and reads a row back, as the others do.
function prepare(kind, { steps }, { x }) {
  const { COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const row = x.shape[1] * 4;
  const [source, target] = [0, 1].map(() => device.createBuffer({ size: x.data.byteLength, usage: COPY_SRC | COPY_DST }));
  const staging = device.createBuffer({ size: row, usage: COPY_DST | MAP_READ });
  device.queue.writeBuffer(source, 0, x.data);
  return {
    async run() {
      const encoder = device.createCommandEncoder();
      for (let i = 0; i < steps; i++) {
        const [from, to] = i % 2 ? [target, source] : [source, target];
        encoder.copyBufferToBuffer(from, 0, to, 0, x.data.byteLength);
      }
      encoder.copyBufferToBuffer(steps % 2 ? target : source, 0, staging, 0, row);
      device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      const data = new Float32Array(staging.getMappedRange().slice(0));
      staging.unmap();
      return data;
    },
    close() {
      for (const buffer of [source, target, staging]) buffer.destroy();
    },
  };
}

export const contestants = [{ name: "device copy", device: "ceiling", takes: "arrays", groups: "bandwidth", open, prepare }];
