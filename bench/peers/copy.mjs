// What the device itself can do with as many bytes, one copy after the other between two buffers: by a kernel, and by
// its own command. Not peers, ceilings.
const KERNEL = `
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@compute @workgroup_size(128)
fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = x[id.x]; }`;

// One copy from buffer `from` to buffer `to`, 0 and 1: functions that encode it.
function byKernel(device, buffers) {
  const module = device.createShaderModule({ code: KERNEL });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
  const groups = [buffers, [...buffers].reverse()].map(([from, to]) => device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [from, to].map((buffer, binding) => ({ binding, resource: { buffer } })),
  }));
  return (encoder, from) => {
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, groups[from]);
    pass.dispatchWorkgroups(buffers[0].size / 16 / 128);
    pass.end();
  };
}
function byCommand(device, buffers) {
  return (encoder, from) => encoder.copyBufferToBuffer(buffers[from], 0, buffers[1 - from], 0, buffers[0].size);
}

function ceiling(name, by) {
  let device;

  async function open() {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) throw new Error("no WebGPU adapter");
    const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
    device = await adapter.requestDevice({ requiredLimits: { maxBufferSize, maxStorageBufferBindingSize } });
  }

  // Gives {run, close}; run copies `steps` times and reads a row back, as the others do.
  function prepare(kind, { steps }, { x }) {
    const { COPY_SRC, COPY_DST, MAP_READ, STORAGE } = GPUBufferUsage;
    const row = x.shape[1] * 4;
    const usage = STORAGE | COPY_SRC | COPY_DST;
    const buffers = [0, 1].map(() => device.createBuffer({ size: x.data.byteLength, usage }));
    const staging = device.createBuffer({ size: row, usage: COPY_DST | MAP_READ });
    device.queue.writeBuffer(buffers[0], 0, x.data);
    const copy = by(device, buffers);
    return {
      async run() {
        const encoder = device.createCommandEncoder();
        for (let i = 0; i < steps; i++) copy(encoder, i % 2);
        encoder.copyBufferToBuffer(buffers[steps % 2], 0, staging, 0, row);
        device.queue.submit([encoder.finish()]);
        await staging.mapAsync(GPUMapMode.READ);
        const data = new Float32Array(staging.getMappedRange().slice(0));
        staging.unmap();
        return data;
      },
      close() {
        for (const buffer of [...buffers, staging]) buffer.destroy();
      },
    };
  }

  return { name, device: "ceiling", takes: "arrays", groups: "bandwidth", open, prepare };
}

export const contestants = [ceiling("copying kernel", byKernel), ceiling("device copy", byCommand)];
