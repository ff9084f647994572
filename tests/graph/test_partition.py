"""Partition of graphs: nodes that a device refuses run on its fallback, with the results of a single device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.facts import Rates
from tensorcommons.errors import DeviceLost, DeviceUnavailable, UnsupportedOp
from tensorcommons.graph.parted import PartedProgram
from tensorcommons.tensor import Tensor
from tests.cases.support import numbers
from tests.graph.graph_device import graph_device


def program_of(device: Device) -> PartedProgram:
    (found,) = (program for program in device.programs.values() if isinstance(program, PartedProgram))
    return found


def cpu_takes(monkeypatch: pytest.MonkeyPatch, rates: Rates) -> None:
    monkeypatch.setattr(CpuBackend, "facts", replace(CpuBackend.facts, rates=rates))


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make moving the whole graph too expensive."""
    cpu_takes(monkeypatch, Rates(0.0, 1e-6, 1e9, 1e9))


def network(x: Tensor, weight: Tensor) -> Tensor:
    hidden = tc.linear(x, weight)
    for _ in range(2):
        hidden = tc.linear(tc.sort(tc.exp(hidden * 0.1), axis=-1), weight) + tc.sum(x)
    return hidden


async def test_parts_compute_what_one_device_computes(splits: None) -> None:
    device, alone = graph_device("leaders", "merge_runs"), Device(CpuBackend())
    x, weight = numbers(5, 8), numbers(8, 8, seed=1) / 3
    got, wanted = (network(*(tc.asarray(a, device=each) for a in (x, weight))) for each in (device, alone))
    np.testing.assert_array_equal(await got.read(), await wanted.read())
    program = program_of(device)
    assert [part.device.kind for part in program.parts] == ["webnn", "cpu", "webnn", "cpu", "webnn"]
    assert program.why == {"leaders": "it is refused"}
    assert (program.traffic.transfers, program.traffic.transferred) == (4, 4 * got.nbytes)
    assert got.device is device


@pytest.mark.slow
@pytest.mark.parametrize("refused", [(), ("leaders", "merge_runs")])
async def test_a_graph_with_too_many_nodes_runs_as_several_on_its_device(
    monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    cpu_takes(monkeypatch, Rates(0.0, 1e9, 1e-3, 1e9))  # moving the whole graph is too expensive
    device = graph_device(*refused)
    x = tc.asarray(numbers(5), device=device)
    y = x
    most = device.backend.graph_nodes
    for _ in range(most + 10):
        y = tc.negative(y)
    y = tc.sort(y) + y
    for _ in range(2 * most):
        y = tc.negative(y)
    np.testing.assert_array_equal(await y.read(), np.sort(numbers(5)) + numbers(5))
    kinds = [part.device.kind for part in program_of(device).parts]
    assert kinds == (["webnn", "webnn", "cpu", "webnn", "webnn", "webnn"] if refused else ["webnn"] * 4)
    assert all(part.graph.executed <= most for part in program_of(device).parts)


async def test_a_graph_moves_as_a_whole_where_parts_cost_more() -> None:
    device = graph_device("leaders")
    x = tc.asarray(numbers(3, 4), device=device)
    result = tc.sort(tc.exp(x)) + 1
    np.testing.assert_allclose(await result.read(), np.sort(np.exp(numbers(3, 4))) + 1, rtol=1e-6)
    assert [part.device for part in program_of(device).parts] == [device.fallback]


async def test_a_run_in_parts_frees_everything_and_copies_no_scalars(splits: None) -> None:
    device = graph_device("exp")
    assert device.fallback is not None
    x = tc.asarray(numbers(4, 4), device=device)
    weight = tc.asarray(numbers(4, 4), device=device)
    result = tc.exp(tc.linear(x, weight) * 2.0) * 2.0 + tc.full((4,), 3.0, device=device)
    await result.read()
    assert program_of(device).traffic.transfers <= 2
    for tensor in (x, weight, result):
        tensor.release()
    assert (device.total, device.fallback.total) == (0, 0)
    assert (device.backend.live_buffers(), device.fallback.backend.live_buffers()) == (0, 0)


async def test_outputs_can_be_leaves_views_and_values_of_both_devices(splits: None) -> None:
    device = graph_device("exp")
    a = numbers(3, 4)
    function = tc.compile(lambda x: [x, tc.exp(x), tc.permute_dims(tc.exp(x), (1, 0)), tc.linear(x, x), x[:, 1:]])
    got = await function(tc.asarray(a, device=device))
    for tensor, wanted in zip(got, [a, np.exp(a), np.exp(a).T, a @ a.T, a[:, 1:]], strict=True):
        np.testing.assert_allclose(await tensor.read(), wanted, rtol=1e-6)


async def test_a_failed_run_frees_its_copies_at_once(splits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    device = graph_device("exp")
    assert device.fallback is not None
    x = tc.asarray(numbers(64, 64), device=device)
    function = tc.compile(lambda x: tc.exp(tc.exp(x) + x), device=device)
    await function(x)
    before = device.total, device.fallback.total

    async def fail(*given: Any) -> None:
        raise MemoryError("the test fails the run on the fallback")

    monkeypatch.setattr(type(device.fallback.backend), "run", fail)
    with pytest.raises(MemoryError) as kept:
        await function(x)
    assert kept.value.__traceback__ is not None and (device.total, device.fallback.total) <= before
    x.release()
    assert device.fallback.memory()["activations"] == 0


async def test_without_a_fallback_the_reason_is_raised() -> None:
    device = graph_device("exp")
    device.fallbacks = ()
    with pytest.raises(UnsupportedOp, match="refused"):
        await tc.exp(tc.asarray(numbers(3), device=device)).read()


def growing_model() -> tuple[tc.TensorSharingManager, Device, tc.SharedTensor]:
    """Build a graph of which a device without exp holds a weight that the part with exp needs."""
    device = graph_device("exp")
    cpu = device.fallback
    assert cpu is not None
    manager = tc.TensorSharingManager(64, tc.Devices([device, cpu], {"webgpu": "it is not there"}))
    data = numbers(8, 8, seed=1)
    return manager, device, manager.register_shared_tensor("w", (8, 8), "webnn", "a", data=data)


async def test_a_weight_stays_on_the_fallback_while_the_program_lives(splits: None) -> None:
    manager, device, weight = growing_model()
    cpu = device.fallback
    assert cpu is not None
    function = tc.compile(lambda x, w: tc.linear(tc.exp(w) + x, w), device=device)
    for turn in range(3):
        x = numbers(8, 8, seed=turn)
        (got,) = [await (await function(x, weight.tensor)).read()]
        np.testing.assert_allclose(got, (np.exp(await weight.read()) + x) @ (await weight.read()).T, rtol=1e-5)
        program = program_of(device)
        brought = program.traffic.transferred
        assert (brought < 2 * weight.nbytes) == (turn > 0)
    assert program.idle_bytes == cpu.memory()["weights"] == weight.nbytes
    await weight.write(numbers(8, 8, seed=9))
    assert cpu.memory()["weights"] == 0
    await (await function(numbers(8, 8), weight.tensor)).read()
    assert cpu.memory()["weights"] == weight.nbytes
    manager.release_model_tensors("a")
    manager.optimize_memory_usage()
    assert (device.total, cpu.total) == (0, 0)


class Lost(CpuBackend):
    """A device that is lost in its first run and cannot be opened again."""

    is_lost = False
    kind = "webgpu"

    async def run(self, *args: object) -> None:
        self.is_lost = True
        raise DeviceLost("it is gone")

    async def reopen(self) -> None:
        raise DeviceUnavailable("webgpu", "it does not come back")


async def test_a_lost_fallback_is_replaced_by_the_next_one(splits: None) -> None:
    device = graph_device("leaders", "merge_runs")
    device.fallbacks = (Device(Lost()), *device.fallbacks)
    x, weight = numbers(5, 8), numbers(8, 8, seed=1) / 3
    alone = Device(CpuBackend())
    got, wanted = (network(*(tc.asarray(a, device=each) for a in (x, weight))) for each in (device, alone))
    np.testing.assert_array_equal(await got.read(), await wanted.read())
    assert {part.device.kind for part in program_of(device).parts} == {"webnn", "cpu"}
    assert device.fallback is device.fallbacks[1]
