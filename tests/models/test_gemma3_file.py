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


@pytest.mark.long
async def test_it_is_read_as_by_the_references():
    written = GOLDEN["written"]
    devices = await open_devices(prefer=["cpu"])
    manager = TensorSharingManager(4096, devices=devices)
    path = gemma.fetch()
    stream = await FolderSource(path.parent).open(path.name)
    _, header = await read_gguf_header(stream, path.name)
    await stream.close()
    made = GgufTokenizer(header.metadata, path.name, ("llama",))
    tokenizer = await tokenizer_of(
        {"config.json": b"{}", "tokenizer.json": await made.tokenizer(), "tokenizer_config.json": await made.options()}
    )
    encoding = tokenizer.encode_batch([case["text"] for case in GOLDEN["encoded"]])
    for row, mask, case in zip(encoding.input_ids, encoding.attention_mask, GOLDEN["encoded"], strict=True):
        assert row[mask == 1].tolist() == case["ids"], case
        assert tokenizer.decode(case["ids"]) == case["decoded"]

    model = await from_pretrained(str(path), manager=manager, dtype="float32", tokenizer=False)
    ids = tokenizer.encode_batch([written["prompt"]]).input_ids
    assert ids.tolist() == [written["ids"]]
    logits = (await (await model(input_ids=ids, outputs=["logits"]))["logits"].read())[0, -1]
    near(logits[written["largest"]], np.array(written["logits"], np.float32), 1e-4)
    assert (-logits).argsort()[: len(written["largest"])].tolist() == written["largest"]
    found = await model.generate(ids, max_new_tokens=len(written["new"]))
    assert found[0, ids.shape[1] :].tolist() == written["new"]
    devices.close()
