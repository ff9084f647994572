// What a page in TypeScript writes: it is checked by the compiler, never run (test_types.py).
import { connect, TensorCommonsError, type Entity, type Label, type MemoryReport, type Term } from "../../web/tensorcommons.mjs";

const tc = await connect({ shared: true, devices: ["webgpu", "cpu"], max_memory_mb: 512, progress_callback: (event) => {
  if (event.step === "download") console.log(event.loaded / event.total, event.file);
} });
const reason: string = tc.shared ? "" : tc.reason;

const embed = await tc.pipeline("feature-extraction", "org/name", { dtype: "fp16", pooling: "mean", progress_callback: (event) => {
  if (event.status === "ready") console.log(event.task);
  else console.log(event.file, event.progress);
} });
const vectors = await embed(["one", "two"], { normalize: true, signal: AbortSignal.timeout(1000) });
const rows: number[][] = vectors.tolist();
const dims: number[] = vectors.dims;

const terms = await tc.pipeline("sparse-embedding", new URL("https://example.com/model"));
const one: Term[] = await terms("a");
const many: Term[][] = await terms(["a", "b"]);

const tags = await tc.pipeline("token-classification", { "config.json": new Blob(), "model.safetensors": new Uint8Array(3) });
const entities: Entity[] = await tags("a", { aggregation_strategy: "simple" });

const clip = await tc.pipeline("zero-shot-image-classification", "org/clip");
const labels: Label[] = await clip(document.createElement("canvas"), ["cat", "dog"]);

const chat = await tc.pipeline("text-generation", "org/chat", { dtype: "int8" });
for await (const piece of chat.stream([{ role: "user", content: "Hello" }], { max_new_tokens: 20 })) piece.toUpperCase();
const [{ generated_text }] = await chat("Hello");

const stop: () => void = tc.onReport((report: MemoryReport) => console.log(report.devices.chosen, report.by_category.weights));
const program = await tc.importPython({ "a.py": "def f(x): return x" });
const value: unknown = await program.call("f", new Float32Array(3), { onPart: (part: string) => part, signal: undefined });
await tc.runPipelines([[embed, "a"], [terms, ["b"]]]);
try {
  await (await embed.to("cpu")).dispose();
} catch (error) {
  if (error instanceof TensorCommonsError && error.kinds.includes("MemoryBudgetError")) console.log(error.name);
}
console.log(reason, rows, dims, one, many, entities, labels, generated_text, stop, value);

// @ts-expect-error there is no such task
await tc.pipeline("fly", "org/name");
// @ts-expect-error an option's value
await embed("a", { pooling: "best" });
// @ts-expect-error labels are needed
await clip("a.png");
