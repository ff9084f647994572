// TensorFlow.js on WebGPU. Ops run eagerly, as its users write them; a product takes its bias along (tf.fused).
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-webgpu";

async function open() {
  if (!(await tf.setBackend("webgpu"))) throw new Error("TF.js found no WebGPU");
  await tf.ready();
  return tf.version_core;
}

// Gives {run, close}; run computes and reads back.
function prepare(kind, params, arrays) {
  const kept = Object.fromEntries(Object.entries(arrays).map(([key, { data, shape }]) =>
    [key, tf.tensor(data, shape, data instanceof Int32Array ? "int32" : "float32")]));
  const close = () => tf.dispose(kept);
  const work = works[kind];
  if (!work) throw new Error(`TF.js has no ${kind} here`);
  return {
    async run() {
      const result = tf.tidy(() => work(kept, params));
      const data = await result.data();
      result.dispose();
      return data;
    },
    close,
  };
}

const firstRow = (x) => tf.slice(x, [0, 0], [1, x.shape[1]]);

// The same step again and again, what is no longer needed freed at once.
function chain(x, steps, step) {
  for (let i = 0; i < steps; i++) {
    const next = tf.tidy(() => step(x));
    if (i) x.dispose();
    x = next;
  }
  return firstRow(x);
}

function layerNorm(x, weight, bias, epsilon) {
  const { mean, variance } = tf.moments(x, -1, true);
  return tf.add(tf.mul(tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, epsilon))), weight), bias);
}

const works = {
  matmul: ({ x, b }, { steps }) => chain(x, steps, (y) => tf.matMul(y, b)),
  softmax: ({ x }, { steps }) => chain(x, steps, (y) => tf.softmax(y, -1)),
  layer_norm: ({ x, weight, bias }, { steps }) => chain(x, steps, (y) => layerNorm(y, weight, bias, 1e-5)),

  add({ x, y }, { steps }) {
    let [older, newer] = [x, y];
    for (let i = 0; i < steps; i++) {
      const next = tf.add(newer, older);
      if (i > 1) older.dispose();
      [older, newer] = [newer, next];
    }
    return firstRow(newer);
  },

  encoder(w, { layers, heads, epsilon }) {
    const [batch, length] = w.input_ids.shape;
    const size = w["embeddings.word_embeddings.weight"].shape[1];
    const norm = (x, layer) => layerNorm(x, w[`${layer}.weight`], w[`${layer}.bias`], epsilon);
    const linear = (x, layer) => tf.fused.matMul({ a: x, b: w[`${layer}.weight`], transposeB: true, bias: w[`${layer}.bias`] });
    const split = (x) => tf.transpose(tf.reshape(x, [batch, length, heads, size / heads]), [0, 2, 1, 3]);
    const mask = tf.reshape(tf.mul(tf.sub(1, tf.cast(w.attention_mask, "float32")), -3.4e38), [batch, 1, 1, length]);

    const words = tf.gather(w["embeddings.word_embeddings.weight"], w.input_ids);
    const types = tf.gather(w["embeddings.token_type_embeddings.weight"], w.token_type_ids);
    const positions = tf.slice(w["embeddings.position_embeddings.weight"], [0, 0], [length, size]);
    let x = tf.reshape(norm(tf.add(tf.add(words, types), positions), "embeddings.LayerNorm"), [batch * length, size]);
    for (let i = 0; i < layers; i++) {
      const layer = `encoder.layer.${i}`;
      const [query, key, value] = ["query", "key", "value"].map((part) => split(linear(x, `${layer}.attention.self.${part}`)));
      const scores = tf.add(tf.mul(tf.matMul(query, key, false, true), 1 / Math.sqrt(size / heads)), mask);
      const mixed = tf.reshape(tf.transpose(tf.matMul(tf.softmax(scores), value), [0, 2, 1, 3]), [batch * length, size]);
      x = norm(tf.add(linear(mixed, `${layer}.attention.output.dense`), x), `${layer}.attention.output.LayerNorm`);
      const inner = linear(x, `${layer}.intermediate.dense`);
      const active = tf.mul(tf.mul(inner, 0.5), tf.add(tf.erf(tf.mul(inner, Math.SQRT1_2)), 1));
      x = norm(tf.add(linear(active, `${layer}.output.dense`), x), `${layer}.output.LayerNorm`);
    }
    return x;
  },
};

export const contestants = [{ name: "TF.js", device: "webgpu", takes: "arrays", open, prepare }];
