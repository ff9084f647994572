"""Models whose graphs are larger than a device takes at once: segments give the bits of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Model
from tests.cases import Place
from tests.cases.architectures import checkpoint
from tests.cases.golden_models import INPUTS, load_goldens
from tests.cases.requests import arrays_of, drawn
from tests.cases.seeded import checkpoint as decoder

ENCODERS = (
    "BertForSequenceClassification", "DistilBertForMaskedLM", "RobertaForQuestionAnswering", "MPNetForMaskedLM",
    "ElectraForTokenClassification", "AlbertModel", "ViTForImageClassification", "Dinov2Model",
)  # fmt: skip
SHARES = (2, 3, 8)


@contextmanager
def graphs_of(device: Device, nbytes: int, nodes: int | None = None) -> Iterator[None]:
    """The device takes no more bytes of leaves, and no more nodes, in one program in the block."""
    most = device.backend.graph_nodes
    device.backend.graph_bytes, device.backend.graph_nodes = nbytes, nodes or most
    try:
        yield
    finally:
        del device.backend.graph_bytes, device.backend.graph_nodes


async def _load(place: Place, files: dict[str, bytes]) -> Model:
    manager = place.manager(activation_cache=False)
    return await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)


async def _bits(model: Model, inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: (await tensor.read()).tobytes() for name, tensor in (await model(**inputs)).items()}


async def _same_in_segments(place: Place, files: dict[str, bytes], inputs: dict[str, Any]) -> None:
    model = await _load(place, files)
    wanted, worth = await _bits(model, inputs), model.manager.report().unique_weight_bytes
    model.unload()
    counts = []
    for share in SHARES:
        with graphs_of(place.device, worth // share):
            model = await _load(place, files)
            assert await _bits(model, inputs) == wanted, share
            counts.append(len(model.manager.last_run["parts"]))
            model.unload()
    assert 2 <= counts[0] <= counts[1] <= counts[2], counts


async def encoders_in_segments(place: Place) -> None:
    arrays = load_goldens(place.goldens, "architectures")[1]
    for case in ENCODERS:
        mine = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{case}.")}
        inputs = {name: mine[name] for name in INPUTS if name in mine}
        try:
            await _same_in_segments(place, checkpoint(place, case), inputs)
        except AssertionError as error:
            error.add_note(case)
            raise


async def decoders_in_segments(place: Place) -> None:
    ids = np.array([[5, 9, 2, 7, 1]])
    for name in ("tiny-gpt2", "tiny-llama", "tiny-t5-gated"):
        files = decoder(place, name)
        more = {"decoder_input_ids": np.array([[0, 3]])} if "t5" in name else {}
        await _same_in_segments(place, files, {"input_ids": ids, **more})
        written = []
        for share in (1, 4):
            model = await _load(place, files)
            worth = model.manager.report().unique_weight_bytes
            with graphs_of(place.device, worth // share if share > 1 else 2**62):
                written.append((await model.generate(ids, max_new_tokens=6, pad_token_id=0)).tolist())
            assert ("parts" in model.manager.last_run) == (share > 1), (name, share)
            model.unload()
        assert written[0] == written[1], name


async def random_graphs_in_segments(place: Place) -> None:
    device, arrays = place.device, arrays_of("float32")
    for seed in range(12 if device.kind == "cpu" else 4):
        graph, results = drawn(seed), []
        for bounds in ((2**62, None), (1, None), (2**62, 1), (2**62, 3), (50_000, 7)):
            given = {name: tc.asarray(array, device=device) for name, array in arrays.items()}
            with graphs_of(device, *bounds):
                results.append([array.tobytes() for array in await tc.read_together(graph.of(given))])
            assert results[-1] == results[0], (seed, bounds, graph.done)
            for program in device.programs.values():
                program.discard()
            device.programs.clear()
