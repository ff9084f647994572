// Stands in for Pyodide in tests under CPython: the real tokenizer library and our encode.js, one request a line.
import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [libraryPath, helperPath, folder] = process.argv.slice(2);
const library = await import(pathToFileURL(libraryPath));
// Loaded as the package does it where a page registered nothing: no address, so no imports.
const helper = await import(`data:text/javascript;base64,${readFileSync(helperPath).toString("base64")}`);
const read = (name) => readFileSync(`${folder}/${name}`, "utf8");
const tokenizer = helper.create(library, read("tokenizer.json"), read("tokenizer_config.json"));

for await (const line of createInterface({ input: process.stdin })) {
  const { texts, ids, rows, skip, tokens } = JSON.parse(line);
  let answer;
  if (texts) answer = Array.from(helper.encodeBatch(tokenizer, JSON.stringify(texts)));
  else if (rows) answer = JSON.parse(helper.decodeBatch(tokenizer, JSON.stringify(rows), skip));
  else if (tokens) answer = JSON.parse(helper.idsOf(tokenizer, JSON.stringify(tokens)));
  else answer = JSON.parse(helper.tokensOf(tokenizer, JSON.stringify(ids)));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
