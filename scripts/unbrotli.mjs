// Decompresses Brotli files with Node's zlib, so that set-up needs no Python package for it: unbrotli.mjs IN OUT [IN OUT …]
import { createReadStream, createWriteStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

const names = process.argv.slice(2);
for (let i = 0; i + 1 < names.length; i += 2) {
  await pipeline(createReadStream(names[i]), createBrotliDecompress(), createWriteStream(names[i + 1]));
}
