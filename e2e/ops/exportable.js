// A substitute for createExportableTensor and exportToGPU, which no browser of the tests has: the tensor's bytes are
// copied to a real GPUBuffer and, when that is destroyed, back. Meanwhile WebNN refuses the tensor, as the specification
// says. (isOn, most): switch it on, for at most `most` exports; off, it returns the numbers of exports and returns.
(isOn, most = Infinity) => {
  const own = globalThis.MLContext.prototype;
  const state = (globalThis.standIn ??= { made: 0, given_back: 0, real: null });
  if (!isOn) {
    Object.assign(own, state.real);
    delete globalThis.standIn;
    return JSON.stringify({ made: state.made, given_back: state.given_back });
  }
  const { createExportableTensor, exportToGPU, readTensor, writeTensor, dispatch } = own;
  state.real = { createExportableTensor, exportToGPU, readTensor, writeTensor, dispatch };
  const devices = new WeakMap(); // tensor -> GPUDevice
  const lent = new Set();
  const coming = new Map(); // tensor -> the promise of its bytes
  const refuse = (tensor) => { if (lent.has(tensor)) throw new TypeError("The tensor is exported."); };
  own.createExportableTensor = async function (descriptor, device) {
    const tensor = await this.createTensor(descriptor);
    devices.set(tensor, device);
    return tensor;
  };
  own.exportToGPU = async function (tensor) {
    refuse(tensor);
    if (!devices.has(tensor) || state.made >= most) throw new TypeError("The tensor does not support WebGPU interop.");
    const device = devices.get(tensor);
    const bytes = await this.readTensor(tensor);
    lent.add(tensor);
    state.made += 1;
    const buffer = device.createBuffer({ size: bytes.byteLength, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
    device.queue.writeBuffer(buffer, 0, bytes);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      const staging = device.createBuffer({ size: bytes.byteLength, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(buffer, 0, staging, 0, bytes.byteLength);
      device.queue.submit([encoder.finish()]);
      lent.delete(tensor);
      state.given_back += 1;
      coming.set(tensor, staging.mapAsync(GPUMapMode.READ).then(() => {
        coming.delete(tensor);
        writeTensor.call(this, tensor, staging.getMappedRange());
        staging.destroy();
        destroy();
      }).catch(() => {})); // the context of the trial is gone by then
    };
    return buffer;
  };
  own.readTensor = async function (tensor, ...rest) {
    refuse(tensor);
    await coming.get(tensor);
    return readTensor.call(this, tensor, ...rest);
  };
  own.writeTensor = function (tensor, data) {
    refuse(tensor);
    if (coming.has(tensor)) coming.set(tensor, coming.get(tensor).then(() => writeTensor.call(this, tensor, data)));
    else writeTensor.call(this, tensor, data);
  };
};
