// jax-js on WebGPU. Every piece of work is one jitted function, traced and compiled in the warm-up.
import { defaultDevice, init, jit, lax, nn, numpy as np } from "@jax-js/jax";

async function open() {
  if (!(await init("webgpu")).includes("webgpu")) throw new Error("jax-js found no WebGPU");
  defaultDevice("webgpu");
}

// Gives {run, close}; run computes and reads back. An array is used up by its use: `.ref` keeps it.
function prepare(kind, params, arrays) {
  const kept = Object.fromEntries(Object.entries(arrays).map(([key, { data, shape }]) =>
    [key, np.array(data, { dtype: data instanceof Int32Array ? np.int32 : np.float32 }).reshape(shape)]));
  const work = works[kind];
  if (!work) throw new Error(`jax-js has no ${kind} here`);
  const compiled = jit((inputs) => work(inputs, params));
  return {
    async run() {
      const inputs = Object.fromEntries(Object.entries(kept).map(([key, array]) => [key, array.ref]));
      return await compiled(inputs).data();
    },
    close() {
      compiled.dispose();
      for (const array of Object.values(kept)) array.dispose();
    },
  };
}

function chain(x, steps, step) {
  for (let i = 0; i < steps; i++) x = step(x);
  return x.slice([0, 1]);
}

function layerNorm(x, weight, bias, epsilon) {
  return nn.standardize(x, -1, { epsilon }).mul(weight).add(bias);
}

const works = {
  matmul: ({ x, b }, { steps }) => chain(x, steps, (y) => np.matmul(y, b.ref)),
  softmax: ({ x }, { steps }) => chain(x, steps, (y) => nn.softmax(y, -1)),
  layer_norm: ({ x, weight, bias }, { steps }) => chain(x, steps, (y) => layerNorm(y, weight.ref, bias.ref, 1e-5)),

  add({ x, y }, { steps }) {
    let [older, newer] = [x, y];
    for (let i = 0; i < steps; i++) [older, newer] = [newer.ref, newer.add(older)];
    return newer.slice([0, 1]);
  },

  encoder(w, { layers, heads, epsilon }) {
    const [batch, length] = w.input_ids.shape;
    const size = w["embeddings.word_embeddings.weight"].shape[1];
    const norm = (x, layer) => layerNorm(x, w[`${layer}.weight`], w[`${layer}.bias`], epsilon);
    const linear = (x, layer) => np.matmul(x, np.transpose(w[`${layer}.weight`])).add(w[`${layer}.bias`]);
    const split = (x) => np.transpose(x.reshape([batch, length, heads, size / heads]), [0, 2, 1, 3]);
    const mask = np.array(1).sub(w.attention_mask.astype(np.float32)).mul(-3.4e38).reshape([batch, 1, 1, length]);

    const words = w["embeddings.word_embeddings.weight"].slice(w.input_ids);
    const types = w["embeddings.token_type_embeddings.weight"].slice(w.token_type_ids);
    const positions = w["embeddings.position_embeddings.weight"].slice([0, length]);
    let x = norm(words.add(types).add(positions), "embeddings.LayerNorm").reshape([batch * length, size]);
    for (let i = 0; i < layers; i++) {
      const layer = `encoder.layer.${i}`;
      const [query, key, value] = ["query", "key", "value"].map((part) => split(linear(x.ref, `${layer}.attention.self.${part}`)));
      const scores = np.matmul(query, np.transpose(key, [0, 1, 3, 2])).mul(1 / Math.sqrt(size / heads)).add(mask.ref);
      const mixed = np.transpose(np.matmul(nn.softmax(scores, -1), value), [0, 2, 1, 3]).reshape([batch * length, size]);
      x = norm(linear(mixed, `${layer}.attention.output.dense`).add(x), `${layer}.attention.output.LayerNorm`);
      const inner = linear(x.ref, `${layer}.intermediate.dense`);
      const active = inner.ref.mul(0.5).mul(lax.erf(inner.mul(Math.SQRT1_2)).add(1));
      x = norm(linear(active, `${layer}.output.dense`).add(x), `${layer}.output.LayerNorm`);
    }
    return x;
  },
};

export const contestants = [{ name: "jax-js", device: "webgpu", takes: "arrays", open, prepare }];
