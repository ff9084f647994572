"""Models on WebNN whose graphs would be too large for the browser: they run as several graphs with the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.backends.webnn.backend import WebNNBackend
from tensorcommons.errors import DeviceMemoryError
from tests.cases import Place, long, only
from tests.cases.support import raises

KB = 1024
TOKENS = np.arange(12).reshape(1, 12) % 50 + 1


@contextmanager
def at_most(place: Place, nbytes: int | None) -> Iterator[None]:
    """Limit the bytes of a graph of the device."""
    backend = place.device.backend
    assert isinstance(backend, WebNNBackend)
    before = backend.most
    backend.most = nbytes or before
    try:
        _forget_programs(place)
        yield
        _forget_programs(place)
    finally:
        backend.most = before


def _forget_programs(place: Place) -> None:
    while place.device.programs:
        place.device.programs.popitem()[1].discard()


async def _answers(
    place: Place, source: str | dict[str, bytes], nbytes: int | None, dtype: str
) -> tuple[list[Any], int]:
    """Return the outputs of a model, and the number of graphs in its largest call."""
    with at_most(place, nbytes):
        manager = place.manager(activation_cache=False)
        model = await tc.from_pretrained(source, manager=manager, dtype=dtype, tokenizer=False)
        try:
            answers, dispatches = [], 0
            for ids in (TOKENS, np.concatenate([TOKENS, TOKENS[:, ::-1]])):
                answer = await model(input_ids=ids, attention_mask=np.ones_like(ids))
                dispatches = max(dispatches, manager.last_run["dispatches"])
                answers += [await answer[name].read() for name in sorted(answer)]
                assert manager.last_run.get("refused", {}) == {}, manager.last_run["refused"]
            if "logits" in answer:
                answers.append(await model.generate(TOKENS, max_new_tokens=5))
        finally:
            model.unload()
        return answers, dispatches


async def _same_bits(place: Place, source: str | dict[str, bytes], nbytes: int, dtype: str) -> None:
    wanted, one = await _answers(place, source, None, dtype)
    found, several = await _answers(place, source, nbytes, dtype)
    assert several >= one + 2, f"{several} graphs in place of {one}"
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@only("webnn")
async def encoders_in_subgraphs_give_the_same_bits(place: Place) -> None:
    for dtype in ("float32", "float16"):
        await _same_bits(
            place, place.random("deep-bert,layers=4,hidden_size=64,intermediate_size=128"), 160 * KB, dtype
        )


@only("webnn")
async def decoders_in_subgraphs_give_the_same_bits(place: Place) -> None:
    for dtype in ("float32", "float16"):
        await _same_bits(
            place, place.random("deep-llama,layers=4,hidden_size=64,intermediate_size=128"), 160 * KB, dtype
        )


@only("webnn")
async def an_operation_too_large_for_any_graph_runs_elsewhere_and_says_so(place: Place) -> None:
    x = tc.asarray(np.arange(2**16, dtype=np.float32), device=place.device)
    with at_most(place, 64 * KB):
        y = x * 3
        np.testing.assert_array_equal(await y.read(), np.arange(2**16, dtype=np.float32) * 3)
        (program,) = place.device.programs.values()
        assert "more than 65,536" in program.why["multiply"], program.why


@only("webnn")
async def a_tensor_too_large_is_refused_before_the_download(place: Place) -> None:
    manager = place.manager()
    source = place.random("deep-bert,layers=1,vocab_size=4000")
    backend: Any = place.device.backend
    limit, backend.limits["maxTensorByteLength"] = backend.limits["maxTensorByteLength"], 100_000
    seen: list[Any] = []
    try:
        load = tc.from_pretrained(source, manager=manager, device="webnn", progress_callback=seen.append)
        await raises(DeviceMemoryError, load, "takes 128,000 bytes, and one tensor of this WebNN at most 100,000")
        assert not any(event["loaded"] for event in seen)
        model = await tc.from_pretrained(source, manager=manager, tokenizer=False)
        assert model.device.kind == "cpu" and "webnn cannot hold" in model.explain(), model.explain()
        await raises(DeviceMemoryError, model.to("webnn"), 'device="cpu"')
        half = await tc.from_pretrained(source, manager=manager, tokenizer=False, dtype="float16")
        assert half.device.kind == "webnn"
        half.unload()
        model.unload()
    finally:
        backend.limits["maxTensorByteLength"] = limit


async def _gigabyte(place: Place, recipe: str, dtype: str) -> None:
    """A model that is too large for one graph gives the same bits wherever its graphs are cut."""
    manager = place.manager(2048, activation_cache=False)
    model = await tc.from_pretrained(place.random(recipe), manager=manager, dtype=dtype, tokenizer=False, cache=None)
    try:
        answers = []
        for most in (None, 800 * KB * KB):
            with at_most(place, most):
                answer = await model(input_ids=TOKENS)
                answers.append(await answer[sorted(answer)[0]].read())
                assert manager.last_run["dispatches"] > 1 and not manager.last_run.get("refused"), manager.last_run
        assert np.isfinite(answers[0]).all() and np.ptp(answers[0]) > 0
        np.testing.assert_array_equal(answers[1], answers[0])
    finally:
        model.unload()


@only("webnn")
@long("webnn")
async def a_decoder_that_is_widened_past_a_gigabyte(place: Place) -> None:
    await _gigabyte(place, "smollm2-360m", "float16")


@only("webnn")
@long("webnn")
async def an_encoder_with_a_large_table(place: Place) -> None:
    await _gigabyte(place, "xlm-roberta-base", "float32")


@only("webnn")
@long("webnn")
async def an_encoder_of_more_than_a_gigabyte(place: Place) -> None:
    await _gigabyte(place, "bert-large", "float32")


@only("webnn")
async def tensors_past_the_address_space_are_refused(place: Place) -> None:
    backend: Any = place.device.backend
    x = tc.asarray(np.ones(1000, np.float32), device=place.device)
    taken, backend._space = backend._space, 7 * 2**30 - 4096  # noqa: SLF001 - no test fills as much
    try:
        y = tc.asarray(np.ones(1000, np.float32), device=place.device)
        await raises(DeviceMemoryError, _made(np.ones(1, np.float32), place), "7,516,192,772 bytes")
        del y
        np.testing.assert_array_equal(await _made(np.ones(1000, np.float32), place), np.ones(1000, np.float32))
    finally:
        backend._space = taken  # noqa: SLF001
    del x


async def _made(values: Any, place: Place) -> Any:
    return await tc.asarray(values, device=place.device).read()
