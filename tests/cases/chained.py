"""Generation with several steps in a call, as on hardware, and a decoder with the kernels for hardware."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from tensorcommons.models.decode_programs import DecodePrograms
from tests.cases import Place, case_of, only
from tests.cases.decoders import goldens, load
from tests.cases.hardware import hardware
from tests.cases.harness import let_go

AGAIN = (
    "gpt2_writes",
    "llama_writes",
    "mistral_writes",
    "t5_answers",
    "a_step_compiles_nothing",
    "cancelled_writing_leaves_nothing",
    "writing_goes_on_after_a_move_and_a_loss",
)


@contextmanager
def _several_steps(place: Place, *, samples: bool = True) -> Iterator[None]:
    backend = type(place.device.backend)
    chains, draws = patch.object(backend, "chains_runs", True), patch.object(backend, "samples", samples)
    with chains, draws, patch.object(DecodePrograms, "runs_ahead", True):
        yield


def _chained(name: str) -> Callable[[Place], Coroutine[Any, Any, None]]:
    @only("webgpu")
    async def case(place: Place) -> None:
        with _several_steps(place):
            await case_of(f"decoders.{name}")(place)

    return case


@only("webgpu")
async def llama_with_kernels_for_hardware(place: Place) -> None:
    golden = goldens(place, "tiny-llama")
    with _several_steps(place), hardware(place.device):
        model = await load(place, "tiny-llama")
        written = await model.generate(golden["prompt"], max_new_tokens=20, eos_token_id=())
        assert written[0, -20:].tolist() == golden["greedy"][0, :20].tolist()
        model.unload()


@only("webgpu")
async def tokens_chosen_on_the_device_are_those_of_the_host(place: Place) -> None:
    """Compare steps that choose tokens with steps whose logits the host reads."""
    prompts, mask = np.array([[0, 0, 5, 6, 7], [9, 8, 7, 6, 5]]), np.array([[0, 0, 1, 1, 1], [1] * 5])
    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        ("tiny-llama", {"do_sample": True, "temperature": 1.3, "top_k": 20, "top_p": 0.9}),
        ("tiny-llama", {"do_sample": True, "top_k": 0, "min_p": 0.02, "repetition_penalty": 1.4}),
        ("tiny-gpt2", {"repetition_penalty": 1.5}),
        ("tiny-t5", {"do_sample": True, "repetition_penalty": 1.2}),
    )
    for name, options in calls:
        found = []
        for samples in (False, True):
            with _several_steps(place, samples=samples):
                model = await load(place, name)
                found.append(await model.generate(prompts, mask, max_new_tokens=40, seed=5, pad_token_id=0, **options))
                model.unload()
                del model
                await let_go()  # pools and programs have other parts by ``samples``
        np.testing.assert_array_equal(found[0], found[1], f"{name} {options}")


for _name in AGAIN:
    globals()[_name] = _chained(_name)
