"""Mutated ``config.json`` files: the model runs or a typed error is raised, in bounded memory and without leaks."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorcommons as tc
from scripts import paths
from tensorcommons.errors import TensorCommonsError
from tests.cases import Place
from tests.cases.variants import checkpoint

pytestmark = pytest.mark.slow

GOLDENS = str(paths.ROOT / "tests/goldens")
TABLE: dict[str, Any] = json.loads((paths.ROOT / "tests/goldens/variants.json").read_text())
NAMES = [name for name in TABLE if name != "fields"]
PLACE = Place(devices=None, models="", tiny="", faulty="", goldens=GOLDENS)  # type: ignore[arg-type]
MOST_BYTES, MOST_SECONDS = 96 << 20, 20.0  # far below the sizes that a config alone can state

numbers = st.one_of(
    st.sampled_from([0, 1, 2, 3, 7, 24, 50, 10**3, 10**4, 10**5, 2**20, 2**26, 2**31 - 1, 2**31, 2**40, 10**30, -1]),
    st.integers(-(2**33), 2**33),
)
values = st.one_of(
    numbers,
    st.none(),
    st.booleans(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["gelu", "relu2", "mish", "linear", "yarn", "regression", "x" * 10_000]),
    st.lists(numbers, max_size=3),
    st.dictionaries(st.sampled_from(["type", "rope_type", "factor", "rope_theta", "0", "1"]), numbers, max_size=3),
)
MORE = (
    *("id2label", "num_labels", "problem_type", "architectures", "rope_scaling", "rope_theta", "pruned_heads"),
    *("quantization_config", "position_embedding_type", "dense_act_fn", "is_gated_act", "scale_decoder_outputs"),
    *("decoder_start_token_id", "inner_group_num", "num_hidden_groups", "mlp_ratio", "head_dim", "embedding_size"),
)


async def _load(files: dict[str, bytes]) -> None:
    devices = await tc.open_devices(prefer=["cpu"])
    manager, message, model = tc.TensorSharingManager(64, devices=devices), "", None
    try:
        model = await tc.from_pretrained(files, manager=manager, tokenizer=False)
        await model(**model.architecture.inputs.example())
    except TensorCommonsError as error:
        message = str(error)
    if model is not None:
        model.unload()
    kept = devices.opened[0].memory()["weights"]
    devices.close()
    assert kept == 0 and len(message) < 2_000, message


def _check(name: str, changes: dict[str, Any]) -> None:
    files = checkpoint(PLACE, name)
    config = {**json.loads(files["config.json"]), **changes}
    files["config.json"] = json.dumps(config).encode()
    start = time.process_time()
    tracemalloc.start()
    try:
        asyncio.run(_load(files))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES, f"{peak >> 20} MB for {changes}"
    assert time.process_time() - start < MOST_SECONDS, changes


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(NAMES))
    config = TABLE[name]["config"]
    fields = [*TABLE["fields"][config["model_type"]], *config, *MORE]
    known = sorted({field for field in fields if field != "model_type"})
    return name, draw(st.dictionaries(st.sampled_from(known), values, min_size=1, max_size=3))


@settings(max_examples=10, derandomize=True, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_mutated_configs_load_or_are_refused(mutation):
    _check(*mutation)


@pytest.mark.long
@settings(max_examples=4000, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_many_mutated_configs(mutation):
    _check(*mutation)


LARGE: list[tuple[str, dict[str, Any]]] = [
    ("T5ForConditionalGeneration scaled", {"relative_attention_max_distance": 2**31 - 1}),
    ("T5ForConditionalGeneration scaled", {"num_layers": 10**9}),
    ("T5ForConditionalGeneration scaled", {"num_decoder_layers": 10_000}),
    ("BertForMaskedLM untied", {"num_hidden_layers": 10_000}),
    ("BertForMaskedLM untied", {"vocab_size": 2**31 - 1, "hidden_size": 2**30, "num_attention_heads": 1}),
    ("AlbertModel groups", {"inner_group_num": 2**31 - 1}),
    ("AlbertModel groups", {"num_hidden_groups": 2**31 - 1}),
    ("LlamaForSequenceClassification", {"num_labels": 2**31 - 1, "id2label": None}),
    ("LlamaForSequenceClassification", {"num_labels": 2**17, "id2label": None}),
    ("LlamaModel linear", {"max_position_embeddings": 2**31 - 1, "head_dim": 2**30}),
    ("LlamaModel linear", {"num_attention_heads": 2**30, "num_key_value_heads": 2**30}),
    ("ViTModel pooler", {"image_size": 2**31 - 1}),
    ("ViTModel pooler", {"image_size": 35, "num_channels": 2**30}),
    ("Dinov2Model inert", {"mlp_ratio": 2**30}),
    ("MPNetModel 40 buckets", {"relative_attention_num_buckets": 2**30}),
    ("RobertaModel pad_token_id", {"max_position_embeddings": 2**31 - 1}),
    ("RobertaModel pad_token_id", {"pad_token_id": 40}),
]


@pytest.mark.parametrize(("name", "changes"), LARGE)
def test_a_config_without_matching_weights_allocates_little(name, changes):
    _check(name, changes)
