// A compiled program: its dispatches, and the buffers in its slots. Slot 0 has the uniforms, 1 the arena; then come the leaves,
// then the outputs.

export const [ARENA, LEAVES] = [1, 2];
const PIECE = 12; // dispatches of a first submit: the device works on them while the next are encoded
export const LARGE_PIECE = 256; // most dispatches of a submit

// Workgroups without trailing ones: an argument of a call takes 0.05 µs in Node, of 3 µs for a dispatch.
function trimmed(groups) {
  return groups.slice(0, groups.findLastIndex((count) => count > 1) + 1 || 1);
}

// Submit dispatches over the buffers `bound` by slot. The first submit has `piece` of them, later ones have more. `before` may
// add to the first encoder; `after` may add to the last, and gives what to do after its submission.
export function submit(device, dispatches, bound, { before, after, piece = PIECE } = {}) {
  for (let i = 0; i < dispatches.length; piece = Math.min(2 * piece, LARGE_PIECE)) {
    const encoder = device.createCommandEncoder();
    if (!i) before?.(encoder);
    const pass = encoder.beginComputePass();
    let current = null;
    for (const end = Math.min(i + piece, dispatches.length); i < end; i++) {
      const dispatch = dispatches[i];
      if (dispatch.pipeline !== current) pass.setPipeline((current = dispatch.pipeline));
      pass.setBindGroup(0, (dispatch.group ??= groupOf(device, dispatch, bound)));
      pass.dispatchWorkgroups(...dispatch.groups);
    }
    pass.end();
    const next = i === dispatches.length && after?.(encoder);
    device.queue.submit([encoder.finish()]);
    if (next) next();
  }
}

function groupOf(device, { layout, bindings }, bound) {
  return device.createBindGroup({
    layout,
    entries: bindings.map(([slot, offset, size], binding) => {
      const place = slot ? bound[slot].at(offset) : { buffer: bound[slot], offset };
      return { binding, resource: { buffer: place.buffer, offset: place.offset, size } };
    }),
  });
}

export class Program {
  // `description` is that of Programs.compile, `ready` has the compiled pipelines.
  constructor(device, { work, outputs, written, part, host, dispatches }, ready, uniform) {
    Object.assign(this, { device, work, outputs, written, part, uniform });
    this.host = new Uint8Array(host);
    this.handles = []; // of the arena, then the leaves
    this.read = null; // what of the outputs was read after the last run: [number, offset, size] for each range, flat
    this.spares = []; // by output: a buffer that the next run writes it to
    this.dispatches = dispatches.map(([index, groups, bindings]) => ({ ...ready[index], groups: trimmed(groups), bindings, group: null }));
    this.uses = []; // by slot: the dispatches that bind it
    for (const dispatch of this.dispatches) for (const [slot] of dispatch.bindings) (this.uses[slot] ??= []).push(dispatch);
    this.unbind();
  }

  // The next run binds everything anew, and is watched.
  unbind() {
    this.bound = [this.uniform]; // by slot: the buffer that the bind groups hold
    this.proved = false; // whether the device took a run of it
  }

  // Bind the buffers under `handles` in the slots from `slot` on. Returns whether one changed. A bind group is kept as long as its
  // buffers are the very same objects: what leaves and comes back is another one.
  place(buffers, slot, handles) {
    let changed = false;
    for (const handle of handles) {
      const buffer = buffers.get(handle);
      if (this.bound[slot] !== buffer) {
        this.bound[slot] = buffer;
        for (const dispatch of this.uses[slot] ?? []) dispatch.group = null;
        changed = true;
      }
      slot++;
    }
    return changed;
  }

  // Have the outputs of a run under `first` and the handles after it: spare buffers, or those that `create(size)` gives.
  placeOutputs(buffers, first, create) {
    this.outputs.forEach((size, i) => buffers.set(first + i, this.spares[i] ?? create(size)));
    this.spares.length = 0;
    this.place(buffers, ARENA + this.handles.length, this.outputs.map((_, i) => first + i));
  }

  // True if the next run writes to the same output buffers as the last one.
  get hasSpares() {
    const first = ARENA + this.handles.length;
    return this.outputs.every((_, i) => this.spares[i] && this.bound[first + i] === this.spares[i]);
  }

  // The unconfirmed work that filled what a run reads.
  get sources() {
    const found = [];
    for (let slot = ARENA; slot <= this.handles.length; slot++) if (this.bound[slot]?.doubt) found.push(this.bound[slot].doubt);
    return found;
  }

  // The buffers that a run wrote.
  get made() {
    return [...this.bound.slice(ARENA + this.handles.length), ...this.written.map((leaf) => this.bound[LEAVES + leaf])];
  }

  // Submit the dispatches, or some of them.
  submit(options, dispatches = this.dispatches) {
    submit(this.device, dispatches, this.bound, options);
  }
}
