"""Models larger than the limit, and graphs larger than a program: segments give the bits of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Model
from tensorcommons.backends.budget import STAGING_RESERVE
from tensorcommons.graph import streaming
from tensorcommons.graph.needs import least_need
from tensorcommons.models.page_pool import FEW_PAGES
from tests.cases import Place, long, only, slow
from tests.cases.architectures import checkpoint
from tests.cases.golden_models import INPUTS, load_goldens
from tests.cases.seeded import checkpoint as decoder

ENCODERS = (
    "BertForSequenceClassification", "DistilBertForMaskedLM", "RobertaForQuestionAnswering", "MPNetForMaskedLM",
    "ElectraForTokenClassification", "AlbertModel", "ViTForImageClassification", "Dinov2Model",
)  # fmt: skip
PROMPT = np.array([[5, 9, 2, 7, 1]])
# The fraction of the weights that fits, and the number of parts that this room is divided into.
LIMITS = ((0.8, 2), (0.25, 16))


@contextmanager
def divided(parts: int) -> Iterator[None]:
    """Divide the room for weights into this many parts within the block."""
    before, streaming.PARTS = streaming.PARTS, parts
    try:
        yield
    finally:
        streaming.PARTS = before


def _limit(device: Device, usable: float) -> int:
    """Return the limit that leaves ``usable`` bytes beside the reserve for reads."""
    return int(usable) if device.kind == "cpu" else int(usable + min(STAGING_RESERVE, usable // 3)) + 16


async def _load(place: Place, files: dict[str, bytes], limit: int = 2**30) -> Model:
    manager = place.manager(limit / 2**20, activation_cache=False)
    return await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)


async def _bits(model: Model, inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: (await tensor.read()).tobytes() for name, tensor in (await model(**inputs)).items()}


async def _same_in_segments(place: Place, files: dict[str, bytes], inputs: dict[str, Any]) -> None:
    """Assert the bits of a run without a limit under ever smaller limits, which are never exceeded."""
    model = await _load(place, files)
    wanted, worth = await _bits(model, inputs), model.manager.report().unique_weight_bytes
    asked = model.request(inputs, None).trace.nodes, model.traces.probe().nodes
    least = max(least_need(place.device, nodes).nbytes for nodes in asked)
    model.manager.close()
    beside = 0 if place.device.kind == "cpu" else 8192  # for compiled programs
    counts = []
    for share, parts in LIMITS if place.device.kind == "cpu" else LIMITS[:1]:
        with divided(parts):
            model = await _load(place, files, _limit(place.device, max(worth * share, least * 1.125 + beside)))
            for _ in range(2):
                assert await _bits(model, inputs) == wanted, share
            run, report = model.manager.last_run, model.manager.report()
            assert run["moved_bytes"] > 0 and report.peak_bytes <= report.limit_bytes, (share, worth, least, run)
            counts.append(run["segments"])
            model.manager.close()
    assert 2 <= counts[0] <= counts[-1], (counts, worth, least)


async def _encoders(place: Place, *cases: str) -> None:
    arrays = load_goldens(place.goldens, "architectures")[1]
    for case in cases:
        mine = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{case}.")}
        inputs = {name: mine[name] for name in INPUTS if name in mine}
        try:
            await _same_in_segments(place, checkpoint(place, case), inputs)
        except AssertionError as error:
            error.add_note(case)
            raise


async def _generates(place: Place, name: str, ids: Any, count: int) -> None:
    """Assert that the tokens are those without a limit, and that the cache is freed."""
    written = []
    for share in (None, 0.5):
        model = await _load(place, decoder(place, name))
        worth = model.manager.report().unique_weight_bytes
        beside = 100_000 if place.device.backend.takes_graphs else 20_000  # where pools that have grown are new tensors
        if share is not None:
            await model.manager.set_memory_limit(_limit(place.device, worth * share + beside) / 2**20)
        tokens, most = list[int](), 0
        async for token in model.stream(ids, max_new_tokens=count, pad_token_id=0):
            tokens += token.tolist()
            most = max(most, place.device.memory()["activations"])
        written.append(tokens)
        if not beside or name != "tiny-t5-gated":  # of which it is too much
            assert (model.manager.last_run["segments"] > 1) == (share is not None), (name, share)
        cache = model.batch().steps.pools(FEW_PAGES)
        freed = most - place.device.memory()["activations"]  # programs keep their constants
        assert freed >= sum(spec.nbytes for spec in cache.values()), (name, share, most, freed)
        model.manager.close()
    assert written[0] == written[1], name


@only("webgpu")
async def a_decoder_generates_in_segments(place: Place) -> None:
    await _generates(place, "tiny-llama", PROMPT, 2)


@long("webgpu")
@slow
async def encoders_in_segments(place: Place) -> None:
    await _encoders(place, *ENCODERS)


@long("webgpu")
@slow
async def decoders_in_segments(place: Place) -> None:
    for name in ("tiny-gpt2", "tiny-llama", "tiny-t5-gated"):
        more = {"decoder_input_ids": np.array([[0, 3]])} if "t5" in name else {}
        await _same_in_segments(place, decoder(place, name), {"input_ids": PROMPT, **more})
        await _generates(place, name, PROMPT, 6)
