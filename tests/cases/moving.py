"""Models that change their device in a browser, on request or after the loss of the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorcommons as tc
from tests.cases import Place, only

IDS = {"input_ids": np.array([[2, 17, 31, 5, 3]])}


async def _load(place: Place, manager: tc.TensorSharingManager) -> Any:
    return await tc.from_pretrained(f"{place.tiny}/tiny-bert", manager=manager)


async def _answer(model: Any) -> np.ndarray[Any, Any]:
    return await (await model(**IDS))["last_hidden_state"].read()


def _close(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@only("webgpu")
async def a_model_moves_through_every_device_and_back(place: Place) -> None:
    manager = place.manager()
    model, other = await _load(place, manager), await _load(place, manager)
    wanted = await _answer(model)
    start, *others = place.devices.opened
    held = start.memory()["weights"]
    for device in (*others, start):
        for each in (model, other):
            await each.to(device)
        _close(await _answer(model), wanted)
        assert manager.last_run["device"] == device.kind
        assert device.memory()["weights"] == held, "shared tensors must exist once"
        assert all(left.total == 0 for left in place.devices.opened if left is not device)
        print(model.explain())
    model.unload()
    other.unload()
    manager.optimize_memory_usage()


@only("webgpu")
async def a_forward_whose_adapter_is_gone_ends_on_the_next_device(place: Place) -> None:
    manager = place.manager(activation_cache=False)
    model = await _load(place, manager)
    wanted = await _answer(model)
    unread = (await model(**IDS))["last_hidden_state"]
    with _no_adapter(), _dying_at_submit(place.device, 2):
        _close(await _answer(model), wanted)
        run = manager.last_run
        assert run["device"] == model.device.kind == place.devices.opened[1].kind
        assert "webgpu was lost (destroyed" in run["fallback"] and "no adapter" in run["fallback"], run["fallback"]
        assert "webgpu is lost" in model.explain()
        assert place.device.is_gone and place.device.total == place.device.backend.live_buffers() == 0
        _close(await unread.read(), wanted)
    print(run["fallback"])
    await model.to("webgpu")  # the adapter is available again
    assert not place.device.is_gone
    _close(await _answer(model), wanted)
    model.unload()
    unread.release()


@only("webgpu")
async def a_wish_for_webnn_is_told_as_a_wish(place: Place) -> None:
    devices = await tc.open_devices(["webnn", "cpu"], webnn="npu")
    assert devices.webnn is not None, devices.missing
    assert "asked for npu" in devices.explain(), "no adapter is available, but no reason is given"
    manager = tc.TensorSharingManager(devices=devices)
    model = await _load(place, manager)
    wanted = await _answer(model)
    start, *others = devices.opened
    for device in (*others, start):
        await model.to(device)
        _close(await _answer(model), wanted)
        assert manager.last_run["device"] == model.device.kind == device.kind
        assert all(left.total == 0 for left in devices.opened if left is not device)
    model.unload()
    devices.close()


@only("webgpu")
async def a_forward_whose_device_comes_back_ends_on_it(place: Place) -> None:
    manager = place.manager(activation_cache=False)
    model = await _load(place, manager)
    wanted = await _answer(model)
    with _dying_at_submit(place.device, 2):
        assert np.array_equal(await _answer(model), wanted)
    assert manager.last_run["device"] == model.device.kind == "webgpu"
    assert "webgpu was lost (destroyed" in manager.last_run["fallback"]
    model.unload()


@contextmanager
def _no_adapter() -> Iterator[None]:
    """Make the browser return no adapter, as after too many crashes of its GPU process."""
    with _instead(_js("navigator.gpu"), "requestAdapter", "async () => null"):
        yield


@contextmanager
def _dying_at_submit(device: tc.Device, number: int) -> Iterator[None]:
    """Destroy the device just before its ``number``-th submit from now on, in the middle of a run."""
    backend: Any = device.backend
    gpu = backend.bridge.proxy
    with _instead(
        gpu.device.queue,
        "submit",
        f"(() => {{ let left = {number}; return function (commands) {{ if (!--left) die(); "
        "return Object.getPrototypeOf(this).submit.call(this, commands); }; })()",
        die=gpu.device.destroy.bind(gpu.device),
    ):
        yield


@contextmanager
def _instead(target: Any, name: str, source: str, **names: Any) -> Iterator[None]:
    """Replace ``target[name]`` by the value of the JavaScript ``source`` within the block."""
    make: Callable[..., Any] = _js(f"({', '.join(['target', *names])}) => {{ target.{name} = {source}; }}")
    make(target, *names.values())
    try:
        yield
    finally:
        _js(f"(target) => delete target.{name}")(target)


def _js(source: str) -> Any:
    from pyodide.code import run_js

    return run_js(source)
