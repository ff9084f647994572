// The page of the tests, under the strict policy: a program that is not written in Python.
import { connect } from "/tensorcommons.mjs";

/** Connect, and keep what connect() gives as `tc`. */
globalThis.open = async (options) => {
  const tc = globalThis.tc = await connect(options);
  return { shared: tc.shared, reason: tc.reason };
};

/** Results as JSON: {tensor: nested lists, dims, type} in place of a Tensor. */
function shown(value) {
  if (value?.tolist) return { tensor: value.tolist(), dims: value.dims, type: value.type };
  return Array.isArray(value) ? value.map(shown) : value;
}
globalThis.shown = shown;

/** Give {error: {name, kinds, message}} for a promise that rejects, else {value}. */
globalThis.settled = (promise) => promise.then((value) => ({ value: shown(value) }),
  ({ name, kinds, message }) => ({ error: { name, kinds, message } }));

globalThis.ready = true;
