"""Gemma 3 270M from a real GGUF file with K-quants, 253 MB: its tokenizer, logits and tokens; `make long` runs it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from scripts import gemma, paths
from tensorcommons import TensorSharingManager, from_pretrained, open_devices
from tensorcommons.hub.gguf import read_gguf_header
from tensorcommons.hub.gguf_tokenizer import GgufTokenizer
from tensorcommons.hub.local_sources import FolderSource
from tests.cases.support import near
from tests.hub.node_tokenizers import tokenizer_of

GOLDEN: dict[str, Any] = json.loads((paths.ROOT / "tests/goldens/gemma3.json").read_text("utf-8"))


async def header_of(path: Any) -> Any:
    stream = await FolderSource(path.parent).open(path.name)
    _, header = await read_gguf_header(stream, path.name)
    await stream.close()
    return header


@pytest.mark.long
async def test_ids_and_texts_are_those_of_its_tokenizer():
    path = gemma.fetch()
    made = GgufTokenizer((await header_of(path)).metadata, path.name, ("llama",))
    tokenizer = await tokenizer_of(
        {"config.json": b"{}", "tokenizer.json": await made.tokenizer(), "tokenizer_config.json": await made.options()}
    )
    encoding = tokenizer.encode_batch([case["text"] for case in GOLDEN["encoded"]])
    for row, mask, case in zip(encoding.input_ids, encoding.attention_mask, GOLDEN["encoded"], strict=True):
        assert row[mask == 1].tolist() == case["ids"], case
        assert tokenizer.decode(case["ids"]) == case["decoded"]


@pytest.mark.long
@pytest.mark.parametrize("dtype", [None, "float32"])
async def test_logits_and_tokens_are_those_of_the_reference(dtype):
    """They are the same with the blocks of the file, which take the bytes that they have there."""
    path, written = gemma.fetch(), GOLDEN["written"]
    devices = await open_devices(prefer=["cpu"])
    manager = TensorSharingManager(4096, devices=devices)
    model = await from_pretrained(str(path), manager=manager, dtype=dtype, precision="exact", tokenizer=False)
    stored = sum(entry.nbytes for entry in (await header_of(path)).entries)
    assert (manager.report().unique_weight_bytes == stored) == (dtype is None)
    ids = np.array([written["ids"]])
    logits = (await (await model(input_ids=ids, outputs=["logits"]))["logits"].read())[0, -1]
    near(logits[written["largest"]], np.array(written["logits"], np.float32), 1e-4)
    assert (-logits).argsort()[: len(written["largest"])].tolist() == written["largest"]
    found = await model.generate(ids, max_new_tokens=len(written["new"]))
    assert found[0, ids.shape[1] :].tolist() == written["new"]
    devices.close()
