"""SmolLM2-135M from its GGUF file (Q4_1) on one core: the CPU device beside llama.cpp in WebAssembly (wllama).

    make bench ARGS=gguf

Both load the same file in one page, tokenize the same texts, and write tokens greedily: in the precision "fast" with
activations in int8, as llama.cpp computes, and in "exact". They take turns; every text begins with another word, since
the keys of an equal beginning would be reused. wllama's figures are its own (``timings``), which leave out its messages
between threads.
"""

from __future__ import annotations

import json
import os
import statistics
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Error

from scripts import paths
from scripts.console import SetupError, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser

FOLDER = paths.DOWNLOADS / "sources" / "smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NEW, LONG, ROUNDS = 32, 20, 5  # tokens that are written, sentences of a prompt, texts
PEER = "wllama, one thread"
PRECISIONS = ("fast", "exact")
LOAD = """
import time
import numpy as np
import tensorcommons as tc
devices = await tc.open_devices(prefer=["cpu"])
manager = tc.TensorSharingManager(2048, devices=devices)
models = {}
for precision in ("fast", "exact"):
    models[precision] = await tc.from_pretrained(url, manager=manager, device=devices.opened[0], precision=precision)

async def measure(precision, text, new):
    model = models[precision]
    ids = model.tokenizer.encode_batch([text]).input_ids
    started, first, tokens = time.perf_counter(), 0.0, []
    async for chosen in model.stream(ids, max_new_tokens=new + 1, do_sample=False, eos_token_id=()):
        tokens.append(int(chosen[0]))
        first = first or time.perf_counter()
    ended = time.perf_counter()
    return ids.shape[1], (first - started) * 1e3, (ended - first) * 1e3, model.tokenizer.decode(tokens)
"""
OURS = """async ([source, url]) => {
  pyodide.globals.set("url", url);
  await pyodide.runPythonAsync(source);
}"""
TIMED = """async ([precision, text, count]) => {
  const measured = await pyodide.globals.get("measure")(precision, text, count);
  const [prompt, first, rest, written] = measured.toJs();
  return { prompt, first, rest: rest / count, written };
}"""
LOAD_PEER = """async ([base, url]) => {
  const { Wllama, LoggerWithoutDebug } = await import(`${base}@wllama/wllama/esm/index.js`);
  const path = { default: `${base}@wllama/wllama/esm/wasm/wllama.wasm` };
  globalThis.peer = new Wllama(path, { suppressNativeLog: true, logger: LoggerWithoutDebug });
  const file = await (await fetch(url)).blob();
  await peer.loadModel([file], { n_ctx: 2048, n_threads: 1, n_gpu_layers: 0 });
  return peer.getNumThreads();
}"""
TIMED_PEER = """async ([text, count]) => {
  const found = await peer.createCompletion({
    prompt: text, max_tokens: count + 1, temperature: 0, ignore_eos: true, cache_prompt: false,
  });
  const { prompt_n: prompt, prompt_ms: first, predicted_ms, predicted_n, cache_n } = found.timings;
  return { prompt: prompt + (cache_n ?? 0), cached: cache_n ?? 0, first, rest: predicted_ms / predicted_n,
    tokens: predicted_n, written: found.choices[0].text };
}"""


def measure_gguf(launch: Callable[..., Browser], url: str) -> list[dict[str, Any]]:
    """Measure a row per contestant and length of prompt."""
    options = json.loads(os.environ.get("BENCH_OPTIONS", "{}"))
    browser = launch()
    try:
        page = browser.new_page()
        page.goto(url + "bench/")
        page.wait_for_function("Boolean(globalThis.run)", timeout=120_000)
        file = f"{url}bench/gguf/{FILE}"
        page.evaluate(OURS, [LOAD, file])
        threads = page.evaluate(LOAD_PEER, [f"{url}bench/npm/", file])
        if threads != 1:
            raise SetupError(f"{PEER} runs on {threads} threads")
        rows = []
        for sentences in (1, LONG):
            samples: dict[str, list[dict[str, Any]]] = {name: [] for name in (*PRECISIONS, PEER)}
            for turn in range(options.get("rounds", ROUNDS) + 1):  # the first compiles
                text = f"{turn} days " + "and the same number of nights went by, until somebody came. " * sentences
                for name, found in samples.items():
                    if name == PEER:
                        sample = page.evaluate(TIMED_PEER, [text, NEW])
                    else:
                        sample = page.evaluate(TIMED, [name, text, NEW])
                    if turn:
                        found.append(sample)
            for name, found in samples.items():
                middle = {key: statistics.median(each[key] for each in found) for key in ("first", "rest")}
                rows.append({"name": name, "samples": found, "prompt": found[0]["prompt"], **middle})
                say(f"{name}, {found[0]['prompt']} tokens: {middle}")
        return rows
    except Error as error:
        return [{"name": PEER, "why": error.message[:500]}]
    finally:
        browser.close()


def gguf_table(rows: list[dict[str, Any]]) -> str:
    """Format the table."""
    lines = ["| | tokens of the prompt | to the first token, ms | a token after it, ms | tokens/s |", "|---" * 5 + "|"]
    for row in rows:
        name = row["name"] if row["name"] == PEER else f"tensorcommons on CPU, {row['name']}"
        if row.get("why"):
            lines.append(f"| {name} | {row['why']} | | | |")
            continue
        least = min(each["rest"] for each in row["samples"])
        lines.append(
            f"| {name} | {row['prompt']} | {row['first']:.0f} | {row['rest']:.1f} (least {least:.1f}) "
            f"| {1e3 / row['rest']:.0f} |"
        )
    return "\n".join(lines)
