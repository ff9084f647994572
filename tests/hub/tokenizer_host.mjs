// Stands in for Pyodide in tests under CPython: bridge/tokenizer.js, one request a line, for any number of tokenizers.
import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const helper = await import(pathToFileURL(process.argv[2]));
const open = new Map();
let last = 0;

const calls = {
  create(file, changes) {
    open.set(++last, helper.create(readFileSync(file), changes));
    return [last, JSON.parse(helper.infoOf(open.get(last)))];
  },
  addTokens: (number, tokens, file) => helper.addTokens(open.get(number), tokens, file) ?? null,
  encodeBatch: (number, ...given) => Array.from(helper.encodeBatch(open.get(number), ...given)),
  tokensOf: (number, ids) => helper.tokensOf(open.get(number), ids),
  idsOf: (number, tokens) => helper.idsOf(open.get(number), tokens),
  decodeBatch: (number, rows, skip) => helper.decodeBatch(open.get(number), rows, skip),
  joinTokens: (number, rows) => helper.joinTokens(open.get(number), rows),
  close: (number) => open.delete(number),
  count: () => open.size,
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...given] = JSON.parse(line);
  let answer;
  try {
    answer = { value: calls[name](...given) };
  } catch (error) {
    answer = { name: error.name, message: error.message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
