"""Models with many layers: without recursion, and with the results of NumPy on every device."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from scripts.random_checkpoint import RandomCheckpoint
from tests.cases import Place, long, only
from tests.cases.support import near

IDS = np.arange(12).reshape(2, 6)
PIXELS = np.linspace(-1, 1, 192, dtype=np.float32).reshape(1, 3, 8, 8)
INPUTS: dict[str, dict[str, Any]] = {
    "deep-bert": {"input_ids": IDS},
    "deep-llama": {"input_ids": IDS},
    "deep-gpt2": {"input_ids": IDS},
    "deep-t5": {"input_ids": IDS, "decoder_input_ids": IDS},
    "deep-vit": {"pixel_values": PIXELS},
}


async def _answers(devices: tc.Devices, recipe: str, inputs: dict[str, Any], new: int = 0) -> list[Any]:
    """Return every output of the model, and ``new`` generated tokens."""
    manager = tc.TensorSharingManager(256, devices=devices, activation_cache=False)
    files = RandomCheckpoint(recipe).files()
    model = await tc.from_pretrained(files, manager=manager, device=devices.opened[0], tokenizer=False)
    found = [await output.read() for output in (await model(**inputs)).values()]
    if new:
        found.append(np.asarray(await model.generate(inputs["input_ids"], max_new_tokens=new)))
    model.unload()
    return found


async def _same_as_numpy(place: Place, recipe: str, inputs: dict[str, Any], new: int = 0) -> None:
    found = await _answers(place.devices, recipe, inputs, new)
    assert all(np.isfinite(each).all() for each in found) and found[0].std() > 0.05
    if place.device.kind != "cpu":
        devices = await tc.open_devices(prefer=["cpu"])
        for ours, right in zip(found, await _answers(devices, recipe, inputs, new), strict=True):
            near(ours, right, 1e-3)
        devices.close()


@long("webgpu")
async def a_deep_encoder_on_a_batch(place: Place) -> None:
    """Use enough rows for a device that splits work over cores."""
    sizes = "hidden_size=64,intermediate_size=64"
    await _same_as_numpy(place, f"deep-bert,layers=40,{sizes}", {"input_ids": np.arange(128).reshape(2, 64) % 60})


@long("webgpu")
async def a_deep_decoder_writes(place: Place) -> None:
    await _same_as_numpy(place, "deep-gpt2,layers=30", INPUTS["deep-gpt2"], new=2)


@long("cpu", "webgpu", "webnn")
async def an_encoder_of_200_layers(place: Place) -> None:
    await _same_as_numpy(place, "deep-bert,layers=200", INPUTS["deep-bert"])


@long("cpu", "webgpu", "webnn")
async def llama_of_200_layers(place: Place) -> None:
    await _same_as_numpy(place, "deep-llama,layers=200", INPUTS["deep-llama"], new=2)


@long("cpu", "webgpu", "webnn")
async def gpt2_of_200_layers(place: Place) -> None:
    await _same_as_numpy(place, "deep-gpt2,layers=200", INPUTS["deep-gpt2"], new=2)


@long("cpu", "webgpu", "webnn")
async def t5_of_200_layers(place: Place) -> None:
    await _same_as_numpy(place, "deep-t5,layers=100", INPUTS["deep-t5"], new=2)  # in each of its two stacks


@long("cpu", "webgpu", "webnn")
async def a_vision_model_of_200_layers(place: Place) -> None:
    await _same_as_numpy(place, "deep-vit,layers=200", INPUTS["deep-vit"])


@long("cpu", "webgpu")
@only("cpu", "webgpu")
async def an_encoder_of_1000_layers(place: Place) -> None:
    """On WebGPU the reference is NumPy in the same browser, whose stack is smaller than that of CPython."""
    await _same_as_numpy(place, "deep-bert,layers=1000", INPUTS["deep-bert"])
