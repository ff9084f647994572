"""Files in tests/goldens, and the scripts that make and check them."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest

from scripts.paths import ROOT
from tensorcommons.hub.config import read_json
from tensorcommons.hub.safetensors import as_array, iterate, read_header
from tensorcommons.hub.sources import open_source

GOLDENS = ROOT / "tests" / "goldens"


def test_the_goldens_stay_small():
    assert sum(path.stat().st_size for path in GOLDENS.rglob("*")) < 4_800_000


def test_every_case_of_the_index_has_its_arrays():
    index = json.loads((GOLDENS / "index.json").read_text())
    assert index["versions"].keys() >= {"torch", "transformers", "tokenizers"}
    for name in ("minilm", "splade"):
        with np.load(GOLDENS / f"{name}.npz") as arrays:
            cases = {key.partition(".")[0] for key in arrays.files}
            assert cases == index[name].keys()
            for case in cases:
                if f"{case}.input_ids" in arrays.files and isinstance(index[name][case], list):
                    assert len(arrays[f"{case}.input_ids"]) == len(index[name][case])
            assert all(np.isfinite(arrays[key]).all() for key in arrays.files)


def test_embeddings_are_unit_vectors_and_near_for_similar_sentences():
    with np.load(GOLDENS / "minilm.npz") as arrays:
        embedded = arrays["embeddings.sentence_embedding"]
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-6)
    similar = embedded @ embedded.T
    assert similar[0, 1] > 0.5 > similar[0, 2]


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-bert-mlm", "tiny-head"])
async def test_tiny_checkpoints_can_be_read(model):
    source = open_source(GOLDENS / model)
    config = await read_json(source, "config.json")
    async with await source.open("model.safetensors") as stream:
        header = await read_header(stream, "model.safetensors")
        tensors = {found.name: as_array(found, data) async for found, data in iterate(stream, header)}
    assert config["model_type"] in ("bert", "mlp-head")
    assert all(np.isfinite(array).all() for array in tensors.values())


async def test_the_tiny_models_share_their_encoder_to_the_byte():
    states = []
    for model in ("tiny-bert", "tiny-bert-mlm"):
        async with await open_source(GOLDENS / model).open("model.safetensors") as stream:
            header = await read_header(stream, model)
            states.append(
                {found.name.removeprefix("bert."): bytes(data) async for found, data in iterate(stream, header)}
            )
    common = states[0].keys() & states[1].keys()
    assert len(common) == 37
    assert all(states[0][name] == states[1][name] for name in common)


def test_goldens_of_generation_have_many_distinct_tokens():
    """A model that repeats one token would hide a mistake in positions, masks and caches."""
    with np.load(GOLDENS / "decoders.npz") as arrays:
        rows = [(key, row) for key in arrays.files if key.endswith((".greedy", ".batch")) for row in arrays[key]]
    smollm2 = json.loads((GOLDENS / "smollm2.json").read_text())["written"]
    rows += [(f"smollm2 {number}", np.array(case["new"])) for number, case in enumerate(smollm2)]
    assert len(rows) >= 6 * 4 + 2
    assert {key: len(np.unique(row)) for key, row in rows if len(np.unique(row)) < 16} == {}


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "scripts").glob("*goldens*.py")))
def test_scripts_check_goldens_and_reject_unknown_options(monkeypatch, capsys, script):
    main = importlib.import_module(f"scripts.{script}").main
    for option, status in (("--help", 0), ("--chek", 2)):
        monkeypatch.setattr(sys, "argv", [script, option])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == status
    assert "--check" in capsys.readouterr().out
