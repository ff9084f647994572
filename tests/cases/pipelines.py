"""Pipelines compared with those of `transformers`: values, shapes and words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.errors import ShapeMismatch, TensorCommonsError
from tests.cases import Place, only, shows, variants
from tests.cases.architectures import checkpoint
from tests.cases.checkpoints import WEIGHTS, files_of, pack, tensors_of
from tests.cases.random_weights import picture, values_of
from tests.cases.support import raises

VIT = {"do_resize": True, "size": {"height": 30, "width": 30}, "resample": 3, "do_rescale": True, "do_normalize": True}
VIT |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}
SINGLE = (("single", "A"), ("pair", "A"))
TAGS = {"0": "O", "1": "B-PER", "2": "I-PER"}


def seeing(place: Place, case: str, **processing: Any) -> dict[str, bytes]:
    """Make the model of a golden with an image processor."""
    config = {"image_processor_type": "ViTImageProcessor", **VIT, **processing}
    return {**checkpoint(place, case), "preprocessor_config.json": json.dumps(config).encode()}


def reading(place: Place, case: str, **changes: Any) -> dict[str, bytes]:
    """Make the model of a golden with the tiny tokenizer's vocabulary, 40 positions, and ``changes`` of its config."""
    files, tiny = checkpoint(place, case), files_of(place, "tiny-bert")
    config = {**json.loads(files["config.json"]), "vocab_size": 100, "max_position_embeddings": 40, **changes}
    sizes = {"word_embeddings.weight": 100, "position_embeddings.weight": 40, "predictions.bias": 100}
    sizes |= {"decoder.weight": 100, "decoder.bias": 100}
    tensors = {}
    for name, array in tensors_of(files).items():
        rows = next((count for part, count in sizes.items() if name.endswith(part)), len(array))
        tensors[name] = array if rows == len(array) else values_of(name, (rows, *array.shape[1:]))
    words = {file: data for file, data in tiny.items() if file.startswith("tokenizer")}
    return {**words, "config.json": json.dumps(config).encode(), WEIGHTS: pack(tensors)}


def comparing(place: Place) -> dict[str, bytes]:
    """Return the golden's CLIP with an image processor, a tokenizer that appends an end token, and its 380 words."""
    files = variants.checkpoint(place, "CLIPModel")
    config = json.loads(files["config.json"])
    config["text_config"] |= {"vocab_size": 380, "max_position_embeddings": 40, "eos_token_id": 0}
    tensors = tensors_of(files)
    for table, rows in (("token_embedding", 380), ("position_embedding", 40)):
        name = f"text_model.embeddings.{table}.weight"
        tensors[name] = values_of(name, (rows, tensors[name].shape[1]))
    tensors["logit_scale"] = np.array(3, np.float32)  # the exponent of a factor
    words = json.loads((Path(place.goldens) / "tokenizers/clip.json").read_text())
    end = {"SpecialToken": {"id": "<end>", "type_id": 0}}
    parts: dict[str, Any] = {kind: [{"Sequence": {"id": text, "type_id": 0}}, end] for kind, text in SINGLE}
    parts["pair"] += [{"Sequence": {"id": "B", "type_id": 0}}, end]
    special = {"<end>": {"id": "<end>", "ids": [0], "tokens": ["<end>"]}}
    words["post_processor"] = {"type": "TemplateProcessing", **parts, "special_tokens": special}
    processing = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, "resample": 3}
    processing |= {"do_center_crop": True, "crop_size": {"height": 18, "width": 18}, "image_mean": [0.4, 0.5, 0.6]}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "pad_token": "<end>"}
    made = {"config.json": config, "tokenizer.json": words, "preprocessor_config.json": processing}
    made["tokenizer_config.json"] = kind
    return {**{name: json.dumps(value).encode() for name, value in made.items()}, WEIGHTS: pack(tensors)}


def files_for(place: Place, task: str, case: str, changes: Mapping[str, Any]) -> dict[str, bytes]:
    """Make the checkpoint of a golden of ``task``."""
    if task == "zero-shot-image-classification":
        return comparing(place)
    return seeing(place, case) if task.startswith("image") else reading(place, case, **changes)


def given(inputs: Any) -> Any:
    """Make the inputs of a golden: {"picture": [height, width]} is a picture."""
    if isinstance(inputs, dict) and "picture" in inputs:
        return picture(*inputs["picture"])
    return [given(each) for each in inputs] if isinstance(inputs, list) else inputs


def same(actual: Any, wanted: Any, path: str = "") -> None:
    """Assert that ``actual`` has the structure, keys, words and, within 1e-4, numbers of ``wanted``."""
    if isinstance(wanted, dict):
        assert set(actual) == set(wanted), f"{path}: {sorted(actual)} instead of {sorted(wanted)}"
        for key, value in wanted.items():
            same(actual[key], value, f"{path}.{key}")
    elif isinstance(wanted, list):
        assert len(actual) == len(wanted), f"{path}: {len(actual)} instead of {len(wanted)}"
        for number, value in enumerate(wanted):
            same(actual[number], value, f"{path}[{number}]")
    elif isinstance(wanted, float):
        assert abs(actual - wanted) <= 1e-4 * max(abs(wanted), 0.1), f"{path}: {actual} instead of {wanted}"
    else:
        assert actual == wanted and type(actual) is type(wanted), f"{path}: {actual!r} instead of {wanted!r}"


async def _agree(place: Place, *tasks: str) -> None:
    manager = place.manager()
    for golden in json.loads((Path(place.goldens) / "pipelines.json").read_text())["models"]:
        if golden["task"] not in tasks:
            continue
        files = files_for(place, golden["task"], golden["model"], golden["changes"])
        pipe = await tc.pipeline(golden["task"], files, manager=manager, device=place.device.kind)
        for number, call in enumerate(golden["calls"]):
            answer = await pipe(given(call["inputs"]), **call["options"])
            path = f"{golden['task']} {golden['model']} {number} {call['inputs']!r:.60} {call['options']}"
            shaped = np.shape(answer) if isinstance(answer, np.ndarray) else None
            assert shaped is None or shaped == np.shape(call["answer"]), f"{path}: {shaped}"
            same(answer.tolist() if isinstance(answer, np.ndarray) else answer, call["answer"], path)
        pipe.close()


@shows("vit, dinov2", "image-classification, image-feature-extraction", "pipelines.json")
async def images_as_transformers_answers(place: Place) -> None:
    await _agree(place, "image-classification", "image-feature-extraction")


@shows("clip", "zero-shot-image-classification", "pipelines.json")
@only("webgpu", "webnn")
async def labels_in_words_as_transformers_answers(place: Place) -> None:
    await _agree(place, "zero-shot-image-classification")


@shows("bert", "text-classification: one label, several, a number; pairs", "pipelines.json")
@shows("bert", "feature-extraction", "pipelines.json")
@only("webgpu", "webnn")
async def labels_of_texts_as_transformers_answers(place: Place) -> None:
    await _agree(place, "text-classification", "feature-extraction")


@shows("bert", "fill-mask", "pipelines.json")
@only("webgpu", "webnn")
async def words_for_masks_as_transformers_answers(place: Place) -> None:
    await _agree(place, "fill-mask")


@shows("bert", "token-classification", "pipelines.json")
@only("webgpu", "webnn")
async def entities_as_transformers_answers(place: Place) -> None:
    await _agree(place, "token-classification")


@shows("bert", "question-answering", "pipelines.json")
@only("webgpu", "webnn")
async def answers_as_transformers_answers(place: Place) -> None:
    await _agree(place, "question-answering")


@only("webgpu")
async def many_inputs_in_batches(place: Place) -> None:
    """Results are in order and equal to those of each input alone, for batches of any size."""
    manager = place.manager()
    words = ["the", "cat", "sat", "on", "mat", "and", "a", "dog", "ran", "to", "red", "house"]
    rng = np.random.default_rng(7)
    texts = [" ".join(rng.choice(words, rng.integers(1, 30))) for _ in range(24)]
    for task, case, given, options in (
        ("feature-extraction", "BertModel", texts, {}),
        ("feature-extraction", "BertModel", texts, {"pooling": "max", "normalize": True}),
        ("text-classification", "BertForSequenceClassification", [(t, "dog") for t in texts], {"top_k": None}),
        ("token-classification", "BertForTokenClassification", texts, {"aggregation_strategy": "simple"}),
        ("fill-mask", "BertForMaskedLM", [f"[MASK] {text}" for text in texts], {"top_k": 2}),
        ("question-answering", "BertForQuestionAnswering", [{"question": "dog", "context": t} for t in texts], {}),
        ("sparse-embedding", "BertForMaskedLM", texts[:3], {}),
    ):
        pipe = await tc.pipeline(task, reading(place, case), manager=manager, device=place.device.kind, **options)
        whole = await pipe(given)
        for size in (5, 1):
            parts = await pipe(given, batch_size=size)
            for number, (one, other) in enumerate(zip(whole, parts, strict=True)):
                first, second = [each.tolist() if isinstance(each, np.ndarray) else each for each in (one, other)]
                same(first, second, f"{task} {options} {size} {number}")
        await raises(TensorCommonsError, pipe(given, batch_size=0), "batch_size")
        pipe.close()
    pipe = await tc.pipeline(
        "image-classification", seeing(place, "ViTForImageClassification"), manager=manager, batch_size=2
    )
    pictures = [picture(20 + n, 30) for n in range(5)]
    assert [row[0]["label"] for row in await pipe(pictures)] == [(await pipe(p))[0]["label"] for p in pictures]
    pipe.close()


@only("webgpu")
async def options_that_are_none(place: Place) -> None:
    manager = place.manager()

    async def pipe(task: str, case: str, **options: Any) -> Any:
        return await tc.pipeline(task, reading(place, case), manager=manager, device=place.device.kind, **options)

    await raises(TensorCommonsError, pipe("feature-extraction", "BertModel", top_k=3), "top_k", "pooling")
    features = await pipe("feature-extraction", "BertModel", pooling="mean")
    texts = ["the cat sat", "dog"]
    pooled = await features(texts)
    tokens = await features(texts, pooling="none")
    assert pooled.shape == (2, 24) and [rows.shape for rows in tokens] == [(1, 5, 24), (1, 3, 24)]
    assert np.allclose(pooled, [rows[0].mean(0) for rows in tokens], atol=1e-6)
    unit = await features(texts[1], pooling="model")
    assert unit.shape == (24,) and np.allclose(unit, pooled[1] / np.linalg.norm(pooled[1]), atol=1e-5)
    assert np.allclose(await features(texts[1], normalize=True), unit, atol=1e-5)
    assert await features([]) == []
    await raises(TensorCommonsError, features(texts, pooling="last"), "last", "mean")
    await raises(TensorCommonsError, features(texts, pooling="none", normalize=True), "pooling")
    await raises(TensorCommonsError, features(*texts), "list")
    for wrong in (None, 5, b"dog", {"text": "dog"}, ["dog", None], [b"dog"], [["dog"]], [("a", "b")]):
        await raises(TensorCommonsError, features(wrong), "not")
    long = await features(["", "the cat sat on the mat " * 500], pooling="none")
    assert [rows.shape for rows in long] == [(1, 2, 24), (1, 40, 24)], "tokens without positions must be truncated"
    features.close()
    labels = await pipe("text-classification", "BertForSequenceClassification")
    await raises(TensorCommonsError, labels("dog", top_k=0), "top_k")
    for pair in (None, 5, {"text": "a", "text_pair": None}, ["dog", None]):
        await raises(TensorCommonsError, labels(pair), "not")
    await raises(TensorCommonsError, labels("dog", function_to_apply="tanh"), "tanh", "sigmoid")
    labels.close()
    masks = await pipe("fill-mask", "BertForMaskedLM")
    await raises(TensorCommonsError, masks("a dog"), "mask")
    await raises(TensorCommonsError, masks("a [MASK]", targets=[]), "targets")
    masks.close()
    tags = await pipe("token-classification", "BertForTokenClassification")
    await raises(TensorCommonsError, tags("dog", aggregation_strategy="last"), "last", "simple")
    await raises(TensorCommonsError, tags("dog", stride=4), "aggregation_strategy")
    for ignored in (5, None, [5]):
        await raises(TensorCommonsError, tags("dog", ignore_labels=ignored), "not")
    await raises(ShapeMismatch, tags("the cat " * 30, stride=38, aggregation_strategy="simple"), "38")
    tags.close()
    asked = await pipe("question-answering", "BertForQuestionAnswering")
    await raises(TensorCommonsError, asked({"question": "who"}), "context")
    none: tuple[Any, ...] = ([], [None], {"question": [], "context": []}, {"question": None, "context": "dog"})
    for question in none:
        await raises(TensorCommonsError, asked(question), "context")
    await raises(TensorCommonsError, asked(question="who", context=" "), "empty")
    await raises(ShapeMismatch, asked(question="who " * 40, context="the dog"), "none is left")
    both = await asked(question=["is the dog red", "who"], context="The cat sat on the mat, not the dog.")
    assert both == [
        await asked({"question": text, "context": "The cat sat on the mat, not the dog."})
        for text in ("is the dog red", "who")
    ]
    asked.close()
