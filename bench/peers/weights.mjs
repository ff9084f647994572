// Three ways of giving WebNN graphs the weights of a backbone and its heads: bench/weights.py measures their memory and
// speed. A BERT by hand, so that only the way differs: "constants" of one graph, "inputs" (shared tensors, each weight on
// the left of its product, which LiteRT reads as it lies), and "constant tensors" where a browser has them.

export async function read(url) {
  const file = await (await fetch(url)).arrayBuffer();
  const size = Number(new DataView(file).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, size)));
  const found = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] = [] }] of Object.entries(header)) {
    if (dtype === "F32") found[name.replace(/^bert\./, "").replace(/gamma$/, "weight").replace(/beta$/, "bias")] = { shape, data: new Float32Array(file.slice(8 + size + from, 8 + size + to)) };
  }
  return found;
}

// The hidden states and every head's answer for one text of `length` tokens. `weight(name)` gives an operand.
function forward(b, weight, { config, heads, has }, length, onLeft) {
  const { hidden_size: hidden, num_attention_heads: count, num_hidden_layers: layers } = config;
  const number = (value) => b.constant({ dataType: "float32", shape: [] }, new Float32Array([value]));
  const linear = (x, w, bias) => onLeft ? b.add(b.transpose(b.matmul(w, b.transpose(x))), bias) : b.gemm(x, w, { bTranspose: true, c: bias });
  const dense = (x, name) => linear(x, weight(`${name}.weight`), weight(`${name}.bias`));
  const norm = (x, name) => b.layerNormalization(x, { scale: weight(`${name}.weight`), bias: weight(`${name}.bias`), axes: [1], epsilon: 1e-12 });
  const apart = (x, permutation) => b.transpose(b.reshape(x, [length, count, hidden / count]), { permutation });
  const ids = b.input("ids", { dataType: "int32", shape: [length] });
  let x = b.gather(weight("embeddings.word_embeddings.weight"), ids);
  x = b.add(x, b.slice(weight("embeddings.position_embeddings.weight"), [0, 0], [length, hidden]));
  x = norm(b.add(x, b.slice(weight("embeddings.token_type_embeddings.weight"), [0, 0], [1, hidden])), "embeddings.LayerNorm");
  for (let i = 0; i < layers; i++) {
    const at = `encoder.layer.${i}.`;
    const [q, k, v] = ["query", "key", "value"].map((part) => dense(x, `${at}attention.self.${part}`));
    const scores = b.mul(b.matmul(apart(q, [1, 0, 2]), apart(k, [1, 2, 0])), number((hidden / count) ** -0.5));
    const seen = b.reshape(b.transpose(b.matmul(b.softmax(scores, 2), apart(v, [1, 0, 2])), { permutation: [1, 0, 2] }), [length, hidden]);
    x = norm(b.add(dense(seen, `${at}attention.output.dense`), x), `${at}attention.output.LayerNorm`);
    x = norm(b.add(dense(b.gelu(dense(x, `${at}intermediate.dense`)), `${at}output.dense`), x), `${at}output.LayerNorm`);
  }
  const outputs = { hidden: x };
  const first = b.slice(x, [0, 0], [1, hidden]);
  for (const [i, sizes] of heads.entries()) {
    let y = sizes[0] === hidden ? first : b.concat(new Array(sizes[0] / hidden).fill(first), 1); // a pair of the same text
    for (let layer = 0; layer < sizes.length - 1; layer++) y = dense(layer ? b.relu(y) : y, `head ${i}.layers.${layer}`);
    outputs[`head${i}`] = y;
  }
  if (has("cls.predictions.bias")) { // SPLADE: how much each word of the vocabulary says
    const y = norm(b.gelu(dense(x, "cls.predictions.transform.dense")), "cls.predictions.transform.LayerNorm");
    const logits = linear(y, weight("embeddings.word_embeddings.weight"), weight("cls.predictions.bias"));
    outputs.words = b.log(b.add(b.reduceMax(b.relu(logits), { axes: [0] }), number(1)));
  }
  return outputs;
}

// Builds a graph for each of `lengths` and runs it; gives what that took, and a sum by which ways are compared.
export async function measure({ way, folder, headFolders, lengths, rounds }) {
  const json = async (from) => (await fetch(`/models/${from}/config.json`)).json();
  const files = await read(`/models/${folder}/model.safetensors`);
  const heads = [];
  for (const [i, head] of headFolders.entries()) {
    heads.push((await json(head)).layer_sizes);
    for (const [name, value] of Object.entries(await read(`/models/${head}/model.safetensors`))) files[`head ${i}.${name}`] = value;
  }
  const config = await json(folder);
  const context = await navigator.ml.createContext({ deviceType: "cpu" });
  if (way === "constant tensors") {
    try {
      (await context.createConstantTensor({ dataType: "float32", shape: [1] }, new Float32Array(1))).destroy();
    } catch (error) {
      return { why: error.message };
    }
  }
  const tensors = {};
  const bytes = Object.values(files).reduce((total, { data }) => total + data.byteLength, 0);
  const result = { bytes, sizes: [] };
  const kept = globalThis.kept = { context, tensors, graphs: [] };
  for (const length of lengths) {
    const started = performance.now();
    const builder = new globalThis.MLGraphBuilder(context);
    const operands = {};
    const operand = (name) => {
      const { shape, data } = files[name];
      const descriptor = { dataType: "float32", shape };
      if (way === "inputs") return builder.input(name, descriptor);
      return builder.constant(...(way === "constants" ? [descriptor, data] : [tensors[name]]));
    };
    if (way !== "constants" && !kept.graphs.length) {
      for (const [name, { shape, data }] of Object.entries(files)) {
        const descriptor = { dataType: "float32", shape, writable: true };
        tensors[name] = way === "inputs" ? await context.createTensor(descriptor) : await context.createConstantTensor(descriptor, data);
        if (way === "inputs") context.writeTensor(tensors[name], data);
      }
    }
    const described = { config, heads, has: (name) => name in files };
    const outputs = forward(builder, (name) => operands[name] ??= operand(name), described, length, way === "inputs");
    const graph = await builder.build(outputs);
    const built = performance.now() - started;
    const make = (dataType, shape) => context.createTensor({ dataType, shape, readable: true, writable: true });
    const inputs = { ids: await make("int32", [length]) };
    context.writeTensor(inputs.ids, new Int32Array(length).map((_, i) => 1000 + i));
    if (way === "inputs") for (const name of Object.keys(operands)) inputs[name] = tensors[name];
    const results = {};
    for (const [name, { shape }] of Object.entries(outputs)) results[name] = await make("float32", shape);
    kept.graphs.push({ graph, inputs, results });
    result.sizes.push({ length, built, samples: [], sum: 0 });
  }
  for (let round = 0; round < rounds; round++) {
    for (const [i, { graph, inputs, results }] of kept.graphs.entries()) {
      const started = performance.now();
      context.dispatch(graph, inputs, results);
      const data = new Float32Array(await context.readTensor(results.hidden));
      result.sizes[i].samples.push(performance.now() - started);
      result.sizes[i].sum = data.reduce((total, value) => total + Math.abs(value), 0);
    }
  }
  return result;
}
