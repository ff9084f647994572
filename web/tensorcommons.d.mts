/** Types of tensorcommons.mjs; docs/javascript.md describes it. */

/** An array of numbers in row-major order. */
export class Tensor<Data extends ArrayLike<number | bigint> = Float32Array> {
  readonly type: string;
  readonly data: Data;
  readonly dims: number[];
  readonly size: number;
  tolist(): any[];
}

/** An error of the runtime. `name` is its class in Python, such as "MemoryBudgetError"; `kinds` also has its base classes. */
export class TensorCommonsError extends Error {
  readonly kinds: string[];
  readonly [attribute: string]: unknown;
}

export type BootEvent =
  | { step: "download"; loaded: number; total: number; file: string }
  | { step: "python" | "devices" };

export interface ConnectOptions {
  /** Use one runtime for all tabs of this origin. `Runtime.reason` states why it is not shared where that is impossible. */
  shared?: boolean;
  /** The folder of worker.js and manifest.json; by default that of tensorcommons.mjs. It must be of the page's origin. */
  base?: string | URL;
  /** The devices to open, in the order of preference; by default all, the fastest first. */
  devices?: DeviceKind[];
  /** The device that WebNN is asked for; "" is the browser's choice. */
  webnn?: "cpu" | "gpu" | "npu" | "";
  /** The limit of all bytes on the devices, in MB of 2**20 bytes; 1024 by default. */
  max_memory_mb?: number;
  progress_callback?: (event: BootEvent) => void;
  signal?: AbortSignal;
}

export type DeviceKind = "webgpu" | "webnn" | "cpu";

/** Start the runtime of this page, or connect to the shared one. */
export function connect(options?: ConnectOptions): Promise<Runtime>;

export type ProgressEvent =
  | (FileEvent & { status: "initiate" | "download" | "done" })
  | (FileEvent & { status: "progress" })
  | (FileEvent & { status: "progress_total"; files: Record<string, { loaded: number; total: number }> })
  | { status: "ready"; task: string; model: string };

interface FileEvent {
  name: string;
  file: string;
  loaded: number;
  total: number;
  /** 0 to 100. */
  progress: number;
  /** Bytes of weights that were on the device already. */
  shared_bytes: number;
  /** Bytes that came from the browser's storage. */
  from_cache: number;
  /** True if a stored copy was used that could not be compared with the server's. */
  offline: boolean;
  seconds_left: number | null;
}

export interface PipelineOptions {
  dtype?: "float32" | "float16" | "int8" | "fp32" | "fp16" | "q8" | null;
  device?: DeviceKind | "auto";
  revision?: string;
  /** null keeps no files in the browser's storage. */
  cache?: "auto" | null;
  /** Access to a private repository. */
  token?: string;
  progress_callback?: (event: ProgressEvent) => void;
  signal?: AbortSignal;
  /** Defaults of the options of every call. */
  [option: string]: unknown;
}

export interface CallOptions {
  signal?: AbortSignal;
  /** Rows that run at once; by default as many as fit. */
  batch_size?: number;
}

/** "org/name", an address relative to the page, or the files of a model by name. */
export type ModelSource = string | URL | Record<string, Blob | ArrayBuffer | Uint8Array>;
export type ImageInput = string | URL | Blob | ArrayBuffer | CanvasImageSource | ImageData | OffscreenCanvas
  | { data: Uint8Array | Uint8ClampedArray; width: number; height: number } | { data: Uint8Array; dims: number[] };
export interface Message { role: string; content: string | null; [field: string]: unknown }

interface Common {
  readonly task: string;
  readonly model: string;
  readonly device: DeviceKind;
  /** Move the model to a device. */
  to(device: DeviceKind | "auto", options?: { progress_callback?: (event: { loaded: number; total: number }) => void; signal?: AbortSignal }): Promise<this>;
  /** Release the model; it is unloaded when no other pipeline uses it. */
  dispose(): Promise<void>;
}

type One<T> = T extends readonly unknown[] ? true : false;
type Each<Input, Result> = One<Input> extends true ? Result[] : Result;

export interface Label { label: string; score: number }
export interface TextPair { text: string; text_pair: string }
export interface Entity { entity?: string; entity_group?: string; score: number; index?: number; word: string; start: number; end: number }
export interface Answer { answer: string; score: number; start: number; end: number }
export interface Filled { score: number; token: number; token_str: string; sequence: string }
export interface Term { token: string | null; weight: number }

export interface EmbeddingOptions extends CallOptions {
  pooling?: "none" | "mean" | "cls" | "first_token" | "max" | "model";
  normalize?: boolean;
  quantize?: boolean;
  precision?: "binary" | "ubinary";
  prompt_name?: string;
  prompt?: string;
  truncate_dim?: number;
  truncation?: boolean;
}
export interface ClassificationOptions extends CallOptions {
  top_k?: number | null;
  function_to_apply?: "softmax" | "sigmoid" | "none";
  truncation?: boolean;
}
export interface GenerationOptions extends CallOptions {
  max_new_tokens?: number;
  do_sample?: boolean;
  temperature?: number;
  top_k?: number;
  top_p?: number;
  repetition_penalty?: number;
  num_return_sequences?: number;
  return_full_text?: boolean;
  /** The others of docs/generation.md. */
  [option: string]: unknown;
}

export interface Pipelines {
  "feature-extraction": Common & ((texts: string | string[], options?: EmbeddingOptions) => Promise<Tensor<any>>);
  "sentence-similarity": Common & ((texts: string[], options?: CallOptions & Pick<EmbeddingOptions, "prompt" | "prompt_name" | "truncation">) => Promise<Tensor>);
  "sparse-embedding": Common & (<T extends string | string[]>(texts: T, options?: CallOptions & { truncation?: boolean }) => Promise<Each<T, Term[]>>);
  "fill-mask": Common & (<T extends string | string[]>(texts: T, options?: CallOptions & { top_k?: number; targets?: string | string[] }) => Promise<Each<T, Filled[]>>);
  "text-classification": Common & ((texts: string | TextPair | (string | TextPair)[], options?: ClassificationOptions) => Promise<any>);
  "zero-shot/nli": Common & ((pairs: TextPair | TextPair[], options?: ClassificationOptions) => Promise<any>);
  "token-classification": Common & (<T extends string | string[]>(texts: T, options?: CallOptions & { aggregation_strategy?: "none" | "simple" | "first" | "average" | "max"; ignore_labels?: string[]; stride?: number }) => Promise<Each<T, Entity[]>>);
  "question-answering": Common & ((question: string | string[], context: string | string[], options?: CallOptions & { top_k?: number; doc_stride?: number; max_answer_len?: number; max_seq_len?: number; handle_impossible_answer?: boolean }) => Promise<any>);
  "image-feature-extraction": Common & ((images: ImageInput | ImageInput[], options?: CallOptions & { pool?: boolean | null }) => Promise<Tensor>);
  "image-classification": Common & (<T extends ImageInput | ImageInput[]>(images: T, options?: ClassificationOptions) => Promise<Each<T, Label[]>>);
  "zero-shot-image-classification": Common & (<T extends ImageInput | ImageInput[]>(images: T, candidate_labels: string[], options?: CallOptions & { hypothesis_template?: string }) => Promise<Each<T, Label[]>>);
  "saliency": Common & (<T extends ImageInput | ImageInput[]>(images: T, options?: CallOptions) => Promise<Each<T, Tensor>>);
  "text-generation": Generation<"generated_text">;
  "text2text-generation": Generation<"generated_text">;
  "summarization": Generation<"summary_text">;
}

export type Generation<Key extends string> = Common & {
  (texts: string | Message[], options?: GenerationOptions): Promise<Record<Key, any>[]>;
  (texts: string[] | Message[][], options?: GenerationOptions): Promise<any[]>;
  /** The answer to one prompt, piece by piece; leaving the loop ends the generation. */
  stream(prompt: string | Message[], options?: GenerationOptions): AsyncGenerator<string, void, void>;
};

export interface Runtime {
  readonly version: string;
  /** Whether other tabs use the same runtime. */
  readonly shared: boolean;
  /** Why the runtime is not shared, or "". */
  readonly reason: string;
  /** What Python started without, with the reasons. */
  readonly without: string[];
  /** Milliseconds of the start. */
  readonly timings: { download: number; total: number };
  /** The models of the site. */
  readonly models: { id: string; title: string; task: string; base: string | null; bytes: number }[];
  /** Resolves with the error that ended the connection. */
  readonly closed: Promise<TensorCommonsError>;
  pipeline<Task extends keyof Pipelines>(task: Task, model: ModelSource, options?: PipelineOptions): Promise<Pipelines[Task]>;
  /** Run several pipelines as one graph, in which common parts are computed once. */
  runPipelines(calls: [pipeline: Common, inputs: unknown, ...more: unknown[]][], options?: { signal?: AbortSignal }): Promise<any[]>;
  /** Call `listener` with the memory report, now and after each change; the function returned ends this. */
  onReport(listener: (report: MemoryReport) => void): () => void;
  report(): Promise<MemoryReport>;
  setMemoryLimit(max_memory_mb: number): Promise<void>;
  stats(): Promise<Record<string, any>>;
  diagnostics(): Promise<string>;
  /** Add Python: the address of a file, of several (the first is called), or their texts by path. */
  importPython(source: string | URL | (string | URL)[] | Record<string, string>, options?: { signal?: AbortSignal }): Promise<Program>;
  /** End the use of the runtime by this page. */
  close(): void;
}

export interface Program {
  /** Call a function with JSON values, typed arrays, ArrayBuffers, Blobs and images, and last {onPart, signal}. */
  call(name: string, ...given: unknown[]): Promise<any>;
}

/** Bytes on the devices; see docs/sharing.md. */
export interface MemoryReport {
  limit_bytes: number;
  device_bytes: number;
  peak_bytes: number;
  by_category: Record<"weights" | "constants" | "activations" | "scratch" | "staging", number>;
  activation_cache_bytes: number;
  reused_from_cache: number;
  unique_weight_bytes: number;
  separate_weight_bytes: number;
  saved_bytes: number;
  unheld_bytes: number;
  moved_bytes: Record<string, number>;
  models: { name: string; device: DeviceKind; total_bytes: number; exclusive_bytes: number; shared_bytes: number; attributed_bytes: number }[];
  tensors: { name: string; shape: number[]; dtype: string; format: string; device: DeviceKind; nbytes: number; holders: string[]; identity: string; state: string }[];
  devices: { chosen: DeviceKind; why: string; kinds: Record<DeviceKind, { state: "present" | "software" | "missing" | "lost"; is: string }>; models: Record<string, string> };
  storage: string;
}
