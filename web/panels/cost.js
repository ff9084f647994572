// What a model costs beyond what is loaded, in words, before it is loaded.
import { bytes } from "../format.js";

/**
 * Describe the result of Python's `cost` in sentences. Weights that may be shared are mentioned from half of the bytes
 * on: a few of equal names do not indicate a common origin.
 */
export function costWords({ download_bytes, new_bytes, weight_bytes, shared_bytes, shareable_bytes, limit_bytes, device_bytes }) {
  const adds = new_bytes ? `adds ${bytes(new_bytes)} to the device.` : "";
  const words = download_bytes ? [`Loading downloads ${bytes(download_bytes)}${adds ? ` and ${adds}` : "."}`] : [`Nothing to download${adds ? `; loading ${adds}` : "."}`];
  if (!new_bytes) words.push("All of its weights are on the device already.");
  if (shared_bytes && new_bytes) words.push(`${bytes(shared_bytes)} of its ${bytes(weight_bytes)} are there already and are shared.`);
  const unknown = shareable_bytes - shared_bytes;
  if (unknown > weight_bytes / 2) words.push(`Up to ${bytes(unknown)} of that may turn out to be shared: content is compared while it loads.`);
  if (weight_bytes > limit_bytes) words.push(`It is larger than the memory limit of ${bytes(limit_bytes)}: its weights are streamed to the device at each run, which is slower.`);
  else if (device_bytes + new_bytes > limit_bytes) words.push(`The memory limit of ${bytes(limit_bytes)} is smaller than everything together: weights that are not in use leave the device, and come back when they are needed.`);
  return words.join(" ");
}
