"""Long chains and wide graphs: built, freed and computed without deep recursion, in time linear in their nodes."""

from __future__ import annotations

import copy
import pickle

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Tensor
from tests.cases import long, slow
from tests.cases.support import on

LONG, LONGER = 6_000, 20_000  # a browser's stack holds 2,500 frames
START = np.arange(4, dtype=np.float32) / 8
TURN = np.array([[0, 1], [-1, 0]], np.float32)


def _chain(x: Tensor, count: int) -> Tensor:
    for _ in range(count):
        x = tc.negative(x)
    return x


def _turned(x: Tensor, count: int) -> Tensor:
    """Build a chain of matrix products."""
    assert x.device is not None
    (turn,) = on(x.device, TURN)
    y = tc.reshape(x, (2, 2))
    for _ in range(count):
        y = y @ turn
    return y


def _joined(x: Tensor, count: int) -> Tensor:
    for _ in range(count):
        x = tc.concat([x[1:], x[:1]])
    return x


def _viewed(x: Tensor, count: int) -> Tensor:
    for _ in range(count):
        x = x[::-1]
    return tc.exp(x)


def _copied(x: Tensor, count: int) -> Tensor:
    """Build a chain of views that no layout expresses, each of which is a copy."""
    for _ in range(count):
        x = tc.reshape(tc.permute_dims(tc.reshape(x, (2, 2)), (1, 0)), (4,))
    return x


def _wide(x: Tensor, count: int) -> Tensor:
    """Build one value with many uses."""
    total = shared = tc.exp(x)
    for i in range(count):
        total = total + shared * float(i % 3)
    return total


async def a_long_chain_is_dropped(device: Device) -> None:
    (x,) = on(device, START)
    for make in (_chain, _turned, _viewed):
        tensor = make(x, LONG)
        assert repr(tensor.node)
        del tensor


async def a_long_chain_is_computed(device: Device) -> None:
    (x,) = on(device, START)
    count = LONG if device.kind != "webnn" else 1000
    assert (await _chain(x, count).read()).tolist() == START.tolist()


@slow
async def chains_of_other_ops_and_wide_graphs_are_computed(device: Device) -> None:
    (x,) = on(device, START)
    count = 600 if device.kind == "cpu" else 300
    assert (await _turned(x, count).read()).tolist() == START.reshape(2, 2).tolist()
    assert (await _joined(x, count).read()).tolist() == START.tolist()
    assert (await _copied(x, count).read()).tolist() == START.tolist()
    np.testing.assert_allclose(await _viewed(x, 10 * count).read(), np.exp(START), rtol=1e-5)
    np.testing.assert_allclose(await _wide(x, 3 * count).read(), np.exp(START) * (1 + 3 * count), rtol=1e-3)
    shared = tc.exp(x)
    several = await tc.read_together([shared * float(i) for i in range(count)])
    np.testing.assert_allclose(several[-1], np.exp(START) * (count - 1), rtol=1e-5)


async def a_long_chain_is_traced(device: Device) -> None:
    (x,) = on(device, START)
    call = tc.compile(lambda x: _chain(x, 3000))
    for _ in range(2):
        assert (await (await call(x)).read()).tolist() == START.tolist()
    assert (await (await call(_chain(x, 2999))).read()).tolist() == (-START).tolist()


async def a_long_chain_is_copied_and_pickled(device: Device) -> None:
    (x,) = on(device, START)
    chain = _chain(x, 3001)
    for twin in (copy.copy(chain), copy.deepcopy(chain), copy.deepcopy({"a": chain})["a"]):
        assert twin.shape == (4,) and twin.node is chain.node
    if device.kind == "cpu":
        twin = pickle.loads(pickle.dumps([chain]))[0]
        assert (await twin.read()).tolist() == (await chain.read()).tolist()


@long("cpu", "webgpu", "webnn")
async def long_chains_of_every_kind(device: Device) -> None:
    for make in (_chain, _turned, _joined, _copied, _viewed, _wide):
        (x,) = on(device, START)
        count = 5 * LONGER if make is _chain else LONGER if device.kind == "cpu" else LONGER // 10
        assert np.isfinite(await make(x, count).read()).all()
