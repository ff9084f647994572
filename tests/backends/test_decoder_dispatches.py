"""Dispatches of a decoder's step on hardware: six a layer, and as many with quantised weights as with dense ones."""

from __future__ import annotations

import asyncio

import tensorcommons as tc
from tensorcommons import Device, Devices, TensorSharingManager
from tensorcommons.backends.base import Plan
from tensorcommons.backends.cpu.code import Code
from tests.backends.test_naga import LARGE as LIMITS
from tests.backends.test_naga import SUBGROUPS, Composing, adapter
from tests.cases.quantized import LLAMA, files_of


class Counting(Composing):
    """Keep the kernels of each plan that is compiled."""

    def __init__(self) -> None:
        super().__init__([adapter("hardware", LIMITS, **SUBGROUPS)], {})
        self.plans: list[list[str]] = []

    async def compile(self, plan: Plan) -> Code:
        self.plans.append([command.kernel for command in self.own.commands(plan)])
        return await super().compile(plan)


async def step_of(layers: int, dtype: str | None, precision: str) -> list[str]:
    """Return the kernels of a step that generates a token."""
    backend = Counting()
    device = Device(backend)
    manager = TensorSharingManager(256, devices=Devices([device], {}))
    files = files_of(LLAMA.replace("layers=2", f"layers={layers}"))
    model = await tc.from_pretrained(files, manager=manager, dtype=dtype, precision=precision, tokenizer=False)
    await model.generate([[5, 6, 7]], max_new_tokens=3)
    model.unload()
    manager.close()
    return next(plan for plan in reversed(backend.plans) if "matmul/few_rows" in plan and len(plan) > 6 * layers)


def test_quantised_decoders_take_the_dispatches_of_dense_ones() -> None:
    dense = [asyncio.run(step_of(layers, None, "exact")) for layers in (2, 3)]
    assert len(dense[1]) - len(dense[0]) == 6 and dense[1].count("matmul/few_rows") == 4 * 3 + 1, dense
    for precision in ("exact", "fast"):
        assert asyncio.run(step_of(3, "int8", precision)) == dense[1], precision
