"""SmolLM2 from its GGUF file writes what transformers writes from the same weights, in float32 on NumPy."""

from __future__ import annotations

import json

from scripts.paths import MODELS, ROOT
from tensorcommons import TensorSharingManager, from_pretrained, open_devices

GOLDENS = json.loads((ROOT / "tests" / "goldens" / "smollm2.json").read_text())


async def test_64_tokens_of_a_chat() -> None:
    devices = await open_devices(prefer=["cpu"])
    folder = str(MODELS / "SmolLM2-135M-Instruct")
    model = await from_pretrained(folder, manager=TensorSharingManager(1024, devices=devices), tokenizer=False)
    golden = GOLDENS["written"][0]
    written = await model.generate([golden["ids"]], max_new_tokens=len(golden["new"]), eos_token_id=())
    assert written[0, len(golden["ids"]) :].tolist() == golden["new"]
    model.unload()
    devices.close()
