"""Generation with several steps in a call, as on hardware, and a decoder with the kernels for hardware."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tensorcommons.models.decode_programs import DecodePrograms
from tests.cases import Place, case_of, only
from tests.cases.decoders import goldens, load
from tests.cases.hardware import hardware

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
def _several_steps(place: Place) -> Iterator[None]:
    chains = patch.object(type(place.device.backend), "chains_runs", True)
    with chains, patch.object(DecodePrograms, "runs_ahead", True):
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


for _name in AGAIN:
    globals()[_name] = _chained(_name)
