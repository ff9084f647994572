// The bytes under a handle, and how they are written and copied.

const WRITE = 1 << 20; // bytes a write: browsers keep the memory that the largest one passed through, in both processes

// Bytes in one GPUBuffer, or in several of `bufferBytes` bytes each (the last may be smaller) where a device makes none that
// large. Whatever is bound or copied at once lies in one of them.
export class Memory {
  constructor(device, size, bufferBytes) {
    this.bufferBytes = bufferBytes;
    this.size = Math.max(16, Math.ceil(size / 16) * 16);
    this.doubt = null; // see faults.js
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    this.buffers = [];
    for (let at = 0; at < this.size; at += bufferBytes) this.buffers.push(device.createBuffer({ size: Math.min(bufferBytes, this.size - at), usage }));
  }

  // The GPUBuffer that has byte `offset`, where it lies there, and how many bytes there are from it on.
  at(offset) {
    const start = offset % this.bufferBytes;
    return { buffer: this.buffers[Math.floor(offset / this.bufferBytes)], offset: start, room: this.bufferBytes - start };
  }

  // Queue a write of `data` from byte `start` on. A last partial word is padded with zeros.
  write(queue, start, data) {
    const whole = data.length & ~3;
    for (let done = 0; done < whole;) {
      const { buffer, offset, room } = this.at(start + done);
      const piece = Math.min(whole - done, room, WRITE);
      queue.writeBuffer(buffer, offset, data, done, piece);
      done += piece;
    }
    if (data.length === whole) return;
    const [tail, { buffer, offset }] = [new Uint8Array(4), this.at(start + whole)];
    tail.set(data.subarray(whole));
    queue.writeBuffer(buffer, offset, tail);
  }

  destroy() {
    for (const buffer of this.buffers) buffer.destroy();
  }
}

// A foreign GPUBuffer with the interface of a Memory for copies, or a Memory.
function memoryOf(source) {
  return source instanceof Memory ? source : { at: (offset) => ({ buffer: source, offset, room: Infinity }) };
}

// Copy whole words between Memories or GPUBuffers.
export function encodeCopy(encoder, source, sourceOffset, target, targetOffset, size) {
  const [given, taken] = [memoryOf(source), memoryOf(target)];
  for (let done = 0; done < size;) {
    const [from, to] = [given.at(sourceOffset + done), taken.at(targetOffset + done)];
    const piece = Math.min(size - done, from.room, to.room);
    encoder.copyBufferToBuffer(from.buffer, from.offset, to.buffer, to.offset, piece);
    done += piece;
  }
}
