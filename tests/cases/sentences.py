"""Folders of sentence-transformers compared with the library: modules, prompts, truncation, similarity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.errors import InvalidWeights, TensorCommonsError
from tensorcommons.models.sentence import PASSED_ON
from tests.cases import Place, only, shows
from tests.cases.checkpoints import WEIGHTS, pack, tensors_of
from tests.cases.golden_models import load_goldens
from tests.cases.random_weights import values_of
from tests.cases.support import near, raises, warnings_of

TEXTS = ["The Cat sat on the mat", "a dog", "the red dog ran to the house, not to the cat", "Bob"]
ENCODER = "BertModel null"


def files_of_case(goldens: str, case: dict[str, Any]) -> dict[str, bytes]:
    """Make a folder in memory: the encoder, the tokenizer, and the files of ``case``."""
    entry = json.loads((Path(goldens) / "variants.json").read_text())[ENCODER]
    words, places = 100, 40
    shapes = {
        **entry["tensors"],
        "embeddings.word_embeddings.weight": [words, 24],
        "embeddings.position_embeddings.weight": [places, 24],
    }
    config = {**entry["config"], "vocab_size": words, "max_position_embeddings": places}
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    files = {"config.json": json.dumps(config).encode()}
    files[WEIGHTS] = pack({name: values_of(name, tuple(shape)) for name, shape in shapes.items()})
    for file in ("tokenizer.json", "tokenizer_config.json"):
        files[file] = (Path(goldens) / "tiny-bert" / file).read_bytes()
    for file, value in case.items():
        folder = file.partition("/")[0]
        if folder[:1].isdigit():
            modules.append({"type": f"sentence_transformers.models.{folder.partition('_')[2]}", "path": folder})
        if file.endswith(".json"):
            files[file] = json.dumps(value).encode()
        if "_Dense" in folder:
            files[f"{folder}/{WEIGHTS}"] = pack(_dense(value))
    named = [{"idx": number, "name": str(number), **module} for number, module in enumerate(modules)]
    return {**files, "modules.json": json.dumps(named).encode()}


def _dense(config: dict[str, Any]) -> dict[str, Any]:
    inputs, outputs = config["in_features"], config["out_features"]
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (outputs, inputs)}
    if config["bias"]:
        shapes["linear.bias"] = (outputs,)
    if config.get("use_residual") and inputs != outputs:
        shapes["residual.weight"] = (outputs, inputs)
    return {name: values_of(name, shape) for name, shape in shapes.items()}


@shows("bert", "sentence-transformers: poolings, Dense, prompts, truncation, similarity", "sentences.npz")
@only("webgpu")
async def folders_as_sentence_transformers_reads_them(place: Place) -> None:
    manager = place.manager()
    table, arrays = load_goldens(place.goldens, "sentences")
    for name, case in table.items():
        model = await tc.from_pretrained(files_of_case(place.goldens, case), manager=manager, device=place.device)
        pipe = await tc.pipeline("feature-extraction", model, manager=manager, pooling="model")
        try:
            near(await pipe(TEXTS, batch_size=2, **case.get("call", {})), arrays[f"{name}.vectors"], 1e-4)
            if not case.get("call"):
                alike = await tc.pipeline("sentence-similarity", model, manager=manager)
                near(await alike(TEXTS), arrays[f"{name}.similarity"], 1e-4)
        except AssertionError as error:
            error.add_note(name)
            raise
        model.unload()


@shows("bert", "poolings and Dense behind the encoder, on token ids", "its formula")
async def modules_behind_the_encoder(place: Place) -> None:
    """Compare each pooling of a batch with padding on either side, and each Dense, with NumPy."""
    manager = place.manager()
    ids = np.random.default_rng(0).integers(5, 90, (3, 9))
    left = np.array([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9, [0] * 8 + [1]])
    poolings: dict[str, Any] = {
        "cls_token": lambda rows: rows[0],
        "max_tokens": lambda rows: rows.max(0),
        "mean_tokens": lambda rows: rows.mean(0),
        "mean_sqrt_len_tokens": lambda rows: rows.sum(0) / np.sqrt(len(rows)),
        "weightedmean_tokens": lambda rows: np.average(rows, 0, np.arange(1, len(rows) + 1)),
        "lasttoken": lambda rows: rows[-1],
        "dense with gelu": None,
        "dense and projected residual": None,
    }
    table = load_goldens(place.goldens, "sentences")[0]
    for name, formula in poolings.items():
        files = files_of_case(place.goldens, table[name])
        model = await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)
        for mask in (left, left[:, ::-1].copy()):
            asked = ["last_hidden_state", "sentence_embedding", "mean_embedding"]
            out = await model(input_ids=ids, attention_mask=mask, outputs=asked)
            hidden, vectors, means = [await out[each].read() for each in asked]
            if formula is not None:
                rows = zip(hidden, mask, strict=True)
                wanted = np.stack([formula(row[counts == 1]) for row, counts in rows])
            else:
                dense = _dense(table[name]["2_Dense/config.json"])
                wanted = means @ dense["linear.weight"].T + dense["linear.bias"]
                if "gelu" in name:
                    wanted = await tc.nn.functional.gelu(tc.asarray(wanted, device=place.device)).read()
                else:
                    wanted = np.tanh(wanted) + means @ dense["residual.weight"].T
            near(vectors, wanted, 1e-5)
        model.unload()


async def sentence_folders_that_are_refused(place: Place) -> None:
    manager = place.manager()
    mean = {"1_Pooling/config.json": {"pooling_mode": "mean"}}
    dense = {"in_features": 24, "out_features": 5, "bias": True}
    use = "config_sentence_transformers.json"
    refused: list[tuple[dict[str, dict[str, Any]], tuple[str, ...]]] = [
        ({**mean, "2_Dense/config.json": {**dense, "in_features": 23}}, ("23", "24")),
        ({**mean, "2_Dense/config.json": {**dense, "activation_function": "torch.nn.Softplus"}}, ("Softplus", "Tanh")),
        ({**mean, "2_Dense/config.json": {**dense, "module_input_name": "token_embeddings"}}, ("token_embeddings",)),
        ({**mean, "2_Dense/config.json": {**dense, "out_features": 2**40}}, ("out_features",)),
        ({"1_Dense/config.json": dense}, ("Dense", "Pooling")),
        ({**mean, "2_Normalize": {}, "3_Pooling/config.json": {"pooling_mode": "cls"}}, ("Pooling", "once")),
        ({**mean, use: {"prompts": ["a"]}}, ("prompts",)),
        ({**mean, use: {"prompts": {"a": 5}}}, ("prompts",)),
        ({**mean, use: {"prompts": {"a": "b"}, "default_prompt_name": "c"}}, ("default_prompt_name", "'c'")),
        ({**mean, use: {"truncate_dim": 0}}, ("truncate_dim",)),
        ({**mean, use: {"similarity_fn_name": "maxsim"}}, ("maxsim", "cosine")),
        ({**mean, "sentence_bert_config.json": {"do_lower_case": "yes"}}, ("do_lower_case",)),
    ]
    handed_on: dict[str, Any] = {"use_fast": True, "hidden_act": "relu"}
    for key in PASSED_ON:
        refused.append(({**mean, "sentence_bert_config.json": {key: handed_on}}, (key, "hidden_act")))
    for case, words in refused:
        full = {key: {**dense, **value} if "_Dense" in key else value for key, value in case.items()}
        small = {key: value for key, value in full.items() if value.get("out_features") != 2**40}
        files = {**files_of_case(place.goldens, small)}
        for key, value in full.items():
            if key not in small:
                files[key] = json.dumps(value).encode()
                modules = [*json.loads(files["modules.json"]), {"type": "models.Dense", "path": "2_Dense"}]
                files["modules.json"] = json.dumps(modules).encode()
        load = tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)
        await raises(InvalidWeights, load, *words)
    odd = {**mean, "2_Dense/config.json": {**dense, "activation_function": "mine.Function"}}
    with warnings_of("tensorcommons") as warned:
        files = files_of_case(place.goldens, odd)
        model = await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)
    assert len(warned) == 1 and "mine.Function" in warned[0], warned
    model.unload()
    del files["2_Dense/model.safetensors"]
    index = json.dumps({"weight_map": dict.fromkeys(tensors_of(files), WEIGHTS)}).encode()
    for more in ({}, {"model.safetensors.index.json": index}):  # an index is of the encoder's files
        load = tc.from_pretrained({**files, **more}, manager=manager, device=place.device, tokenizer=False)
        await raises(TensorCommonsError, load, "2_Dense/model.safetensors")
    assert place.device.total == 0


@only("webgpu")
async def prompts_that_are_refused(place: Place) -> None:
    manager = place.manager()
    files = files_of_case(place.goldens, load_goldens(place.goldens, "sentences")[0]["default prompt"])
    pipe = await tc.pipeline("feature-extraction", files, manager=manager, pooling="model")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"prompt_name": "title"}, "query"),
        ({"prompt_name": 5}, "prompt_name"),
        ({"prompt": 5}, "prompt"),
        ({"truncate_dim": 0}, "truncate_dim"),
        ({"truncate_dim": 4, "pooling": "none"}, "pooling"),
    ]
    for options, word in wrong:
        await raises(TensorCommonsError, pipe(TEXTS, **options), word)
    plain = await pipe(TEXTS, pooling="mean")
    near(await pipe(TEXTS, prompt=""), plain, 1e-5)
    near(await pipe(TEXTS, pooling="mean", prompt_name="query"), await pipe(TEXTS), 1e-5)
    pipe.close()
