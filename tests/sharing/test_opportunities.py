"""Sharing opportunities, each found with its evidence and not without it, and the table of families."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.models.registry import FAMILIES as REGISTERED
from tensorcommons.sharing.compatibility import FAMILIES, architecture_of
from tests.cases.checkpoints import WEIGHTS, pack, tensors_of
from tests.sharing.devices import check, empty, manager_on, some

TINY = Path(__file__).parents[1] / "goldens"
KINDS = {"shared", "equal_content", "common_prefix", "similar_weights", "families"}


def source(name="tiny-bert", change=()):
    files = {path.name: path.read_bytes() for path in (TINY / name).iterdir()}
    if change:
        tensors = tensors_of(files)
        files[WEIGHTS] = pack({k: v + np.float32(1) if k.startswith(change) else v for k, v in tensors.items()})
    return files


async def load(manager, device="cpu", **more):
    return await tc.from_pretrained(source(**more), manager=manager, device=device, tokenizer=False)


@pytest.fixture
def manager():
    manager = manager_on("cpu", "webgpu")
    yield manager
    json.dumps(manager.analyze_sharing_opportunities())
    check(manager, others=1)  # a traced model's constants
    empty(manager)


def test_an_empty_manager_has_no_opportunities(manager):
    found = manager.analyze_sharing_opportunities()
    assert set(found) == KINDS and not any(found.values())


def test_shared_bytes_are_an_opportunity(manager):
    manager.register_shared_tensor("x", (4,), "cpu", "a", ["b", "c"], data=some((4,)))
    assert not manager.analyze_sharing_opportunities()["shared"]
    manager.get_shared_tensor("x", "b")
    manager.create_tensor_view("x", "v", (0,), (2,), "c")
    (row,) = manager.analyze_sharing_opportunities()["shared"]
    assert (row["models"], row["tensors"], row["evidence"]) == (["a", "b", "c"], 1, "equal content")
    assert (row["shared_bytes"], row["saved_bytes"]) == (16, 32)


async def test_equal_content_held_twice_is_an_opportunity(manager):
    manager.register_shared_tensor("a", (4,), "cpu", "m", data=some((4,)))
    b = manager.register_shared_tensor("b", (4,), "cpu", "n", data=some((4,), seed=1))
    manager.register_shared_tensor("elsewhere", (4,), "webgpu", "n", data=some((4,)))
    assert not manager.analyze_sharing_opportunities()["equal_content"], "copies on two devices are not shared bytes"
    await b.write(some((4,)))
    (row,) = manager.analyze_sharing_opportunities()["equal_content"]
    assert sorted(row["names"]) == ["a", "b"] and row["copies"] == 2 and row["saved_bytes"] == 16
    await b.create_view("v", (0,), (1,)).write([7])
    assert not manager.analyze_sharing_opportunities()["equal_content"]


async def test_models_with_a_common_prefix_are_an_opportunity(manager):
    kept = [await load(manager)]  # referenced, so that the models stay loaded
    assert not manager.analyze_sharing_opportunities()["common_prefix"]
    kept.append(await load(manager))
    (same,) = manager.analyze_sharing_opportunities()["common_prefix"]
    assert same["common_nodes"] == same["nodes"][0] == same["nodes"][1]
    manager.release_model_tensors(same["models"][1])
    kept.append(await load(manager, change=("encoder.layer.1", "bert.encoder.layer.1", "pooler")))
    (prefix,) = manager.analyze_sharing_opportunities()["common_prefix"]
    assert 0 < prefix["common_nodes"] < prefix["nodes"][0] and len(prefix["activation"]["shape"]) == 3
    manager.release_model_tensors(prefix["models"][1])
    kept.append(await load(manager, change=("embeddings", "bert.embeddings")))
    rows = manager.analyze_sharing_opportunities()["common_prefix"]
    assert not rows or rows[0]["common_nodes"] < prefix["common_nodes"], "computations on other weights are not common"


async def test_models_on_two_devices_have_no_common_computation(manager):
    kept = [await load(manager), await load(manager, device="webgpu")]
    assert kept and not manager.analyze_sharing_opportunities()["common_prefix"]


async def test_a_fine_tune_has_the_common_prefix_of_equal_weights(manager):
    await load(manager)
    await load(manager)
    assert not manager.analyze_sharing_opportunities()["similar_weights"], (
        "entirely equal models are shared, not similar"
    )
    await load(manager, change=("encoder.layer.1", "bert.encoder.layer.1"))
    rows = manager.analyze_sharing_opportunities()["similar_weights"]
    assert len(rows) == 2
    for row in rows:
        assert 0 < row["equal_tensors"] < row["comparable_tensors"] and row["equal_bytes"] < row["comparable_bytes"]
        assert row["equal_share"] == row["equal_tensors"] / row["comparable_tensors"]


def test_families_are_found_by_architecture(manager):
    manager.register_shared_tensor("x", (4,), "cpu", "bert-base-uncased", ["t5-small"], data=some((4,)))
    assert not manager.analyze_sharing_opportunities()["families"]
    manager.get_shared_tensor("x", "t5-small")
    manager.register_shared_tensor("y", (4,), "cpu", "google/vit-base-patch16-224", data=some((4,), seed=1))
    (row,) = manager.analyze_sharing_opportunities()["families"]
    assert row["tensor_type"] == "text_embedding" and row["models"] == ["bert-base-uncased", "t5-small"]
    assert row["evidence"] == "compatible by family, not proven"


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("bert-base-uncased", "bert"),
        ("google-bert/bert-base-uncased", "bert"),
        ("distilbert-base-uncased", "distilbert"),
        ("roberta-large", "roberta"),
        ("xlm-roberta-base", "xlm-roberta"),
        ("flan-t5-small", "t5"),
        ("openai-community/gpt2-medium", "gpt2"),
        ("meta-llama/Llama-3.2-1B", "llama"),
        ("facebook/bart-large-mnli", "bart"),
        ("google/vit-base-patch16-224", "vit"),
        ("facebook/dinov2-small", "dinov2"),
        ("facebook/dino-vits16", "dino"),
        ("openai/clip-vit-base-patch32", "clip"),
        ("openai/whisper-tiny.en", "whisper"),
        ("facebook/wav2vec2-base-960h", "wav2vec2"),
        ("llava-1.5-7b", "llava"),
        ("bert", "bert"),
        ("my_bert_2", "bert"),
        ("microsoft/deberta-v3-base", None),
        ("resnet-50", None),
        ("albertina", None),
        ("", None),
    ],
)
def test_architecture_of_a_name(name, architecture):
    assert architecture_of(name) == architecture


def test_the_table_has_every_architecture_that_loads():
    own = {architecture_of(name) for name, family in REGISTERED.items() if family.base is None}
    assert own <= {name for names in FAMILIES.values() for name in names}


def test_the_table_is_one():
    for kind, wanted in {
        "text_embedding": {"bert", "distilbert", "roberta", "t5", "gpt2", "llama", "bart"},
        "vision_embedding": {"vit", "dino", "clip", "detr", "swin"},
        "audio_embedding": {"whisper", "wav2vec2", "hubert", "clap"},
        "vision_text_joint": {"clip", "blip", "llava", "xclip"},
        "audio_text_joint": {"clap", "whisper", "wav2vec2"},
    }.items():
        assert wanted <= set(tc.get_compatible_models_for_tensor(kind)) == set(FAMILIES[kind])
    assert tc.get_compatible_models_for_tensor("nothing") == []
    tc.get_compatible_models_for_tensor("text_embedding").clear()
    assert tc.get_compatible_models_for_tensor("text_embedding")
