// Formatted numbers. 1 MB is 2**20 bytes, as in the Python API.

const MB = 2 ** 20;

/** 0 → "0 MB", 300 → "0.3 KB", 91e6 → "86.8 MB" */
export function bytes(count) {
  if (count === 0) return "0 MB";
  if (count < 0.1 * MB) return `${(count / 1024).toFixed(1)} KB`;
  return `${megabytes(count)} MB`;
}

/** The number alone, for "3.1 of 86.8 MB". */
export const megabytes = (count) => (count / MB).toFixed(count >= 1000 * MB ? 0 : 1);

export const seconds = (value) => (value < 9.95 ? `${value.toFixed(2)} s` : `${value.toFixed(1)} s`);

/** How long a run took: 0.091 → "91 ms", 1.2 → "1.20 s" */
export const duration = (value) => (value < 0.9995 ? `${Math.round(1000 * value)} ms` : seconds(value));

export const percent = (fraction) => `${(100 * fraction).toFixed(fraction < 0.1 && fraction > 0 ? 1 : 0)} %`;

export const clock = (value) => `${Math.floor(value / 60)}:${String(Math.floor(value % 60)).padStart(2, "0")}`;

export const count = (value) => value.toLocaleString("en");

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
