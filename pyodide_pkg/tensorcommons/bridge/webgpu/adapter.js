// Adapters: the request of a device with all that its adapter offers, and the facts of both.

export const LARGEST = 2 ** 30 - 2 ** 16; // bytes of a buffer: SwiftShader cannot allocate the GiB that it states, which Dawn pads
const WANTED = ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix", "timestamp-query"];

// Request an adapter and its device with every limit and feature that it offers: {adapter, device}, or null if there is none.
export async function requestDevice() {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return null;
  const requiredLimits = {};
  for (const name in adapter.limits) {
    if (typeof adapter.limits[name] === "number" && !name.startsWith("minSubgroup") && !name.startsWith("maxSubgroup")) {
      requiredLimits[name] = adapter.limits[name];
    }
  }
  const requiredFeatures = [...adapter.features].filter((name) => WANTED.includes(name));
  // A browser may refuse what its adapter states: then the limits and features that every device has.
  const device = await adapter.requestDevice({ requiredLimits, requiredFeatures }).catch(() => requestPlainDevice());
  return { adapter, device };
}

// From another adapter: one that refused a device may be consumed.
async function requestPlainDevice() {
  const adapter = await globalThis.navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("the adapter is gone");
  return adapter.requestDevice();
}

export function reasonWithoutAdapter() {
  if (!globalThis.isSecureContext && globalThis.isSecureContext !== undefined) return "the page is not served from a secure context (https or localhost)";
  if (!globalThis.navigator?.gpu) return "this browser does not offer WebGPU (navigator.gpu is missing)";
  return "the browser offers WebGPU but found no adapter to run it on";
}

/** True if an adapter computes on the CPU. */
export function isSoftware(adapter) {
  const { info } = adapter;
  return Boolean(info.isFallbackAdapter ?? adapter.isFallbackAdapter) || /swiftshader|llvmpipe|basic render/i.test(info.description + info.device + info.architecture);
}

// The facts of an adapter and its device, which bridge/webgpu.py reads.
export function facts(adapter, { features, limits }) {
  const { info } = adapter;
  return {
    description: [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(" ") || "unnamed adapter",
    fallback: isSoftware(adapter),
    features: [...features, ...(globalThis.navigator.gpu.wgslLanguageFeatures ?? [])],
    subgroups: [info.subgroupMinSize ?? 0, info.subgroupMaxSize ?? 0],
    matrices: [...(info.subgroupMatrixConfigs ?? [])].map((each) => [each.componentType, each.resultComponentType, each.M, each.N, each.K]),
    limits: Object.fromEntries(Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(limits)))
      .filter(([name]) => typeof limits[name] === "number")
      .map(([name]) => [name, name === "maxBufferSize" ? Math.min(limits[name], LARGEST) : limits[name]])),
  };
}
