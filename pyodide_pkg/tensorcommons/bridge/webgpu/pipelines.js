// Pipelines of WGSL texts, with the lines around an error that their compiler finds.
import { Fault, watched } from "./faults.js";

const [AROUND, WIDE, MESSAGE] = [3, 160, 500]; // of a shader that does not compile: lines around the error, characters of one
const TYPES = { u: "uniform", r: "read-only-storage", w: "storage" };

// Compile a pipeline. `bindings` has a letter a binding, "u" uniform, "r" read-only storage, "w" storage that is written. Gives
// {pipeline, layout}; throws a Fault, which does not name an operation yet.
export async function compilePipeline(device, label, code, bindings) {
  const { result, checked } = watched(device, "", () => {
    const layout = device.createBindGroupLayout({
      label,
      entries: [...bindings].map((letter, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: TYPES[letter] } })),
    });
    const module = device.createShaderModule({ label, code });
    const made = device.createComputePipelineAsync({
      label,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: "main" },
    });
    return { layout, module, made };
  });
  const [pipeline, fault] = await Promise.all([result.made.catch((error) => error), checked]);
  if (fault) {
    const lines = await faultyLines(result.module, code).catch(() => ""); // a lost device has no answer
    throw lines ? new Fault(fault.kind, fault.work, `${fault.message.slice(0, MESSAGE)}\n${lines}`) : fault;
  }
  if (pipeline instanceof Error) throw new Fault(pipeline.reason ?? "internal", "", pipeline.message);
  return { pipeline, layout: result.layout };
}

// The lines of a shader around the errors that its compiler found, numbered, below each error. A long shader is cut.
async function faultyLines(module, code) {
  const { messages } = await module.getCompilationInfo();
  const lines = code.split("\n");
  const shown = messages.filter(({ type, lineNum }) => type === "error" && lineNum > 0).slice(0, 3).map(({ lineNum, linePos, message }) => {
    const first = Math.max(lineNum - 1 - AROUND, 0);
    const around = lines.slice(first, lineNum + AROUND).map((line, i) => {
      const number = first + i + 1;
      return `${number === lineNum ? ">" : " "} ${String(number).padStart(4)} | ${line.slice(0, WIDE)}`;
    });
    return [`line ${lineNum}, column ${linePos}: ${message.slice(0, WIDE)}`, ...around].join("\n");
  });
  return shown.join("\n");
}
