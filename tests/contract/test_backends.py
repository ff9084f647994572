"""The contract of backends: exactly its methods and signatures, and a kernel for every op."""

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.backends.backend import Backend
from tensorcommons.backends.kinds import KINDS
from tensorcommons.backends.webgpu.kernels import KERNELS
from tensorcommons.backends.webgpu.kernels.elementwise_wgsl import FORMULAS
from tensorcommons.backends.webgpu.kernels.matmul import ACTIVATIONS, parts_of_depth
from tensorcommons.backends.webgpu.shader import library
from tensorcommons.backends.webnn.lowering import REFUSED, RULES
from tensorcommons.graph.rotary_fusion import FUSED
from tensorcommons.ops import activation
from tensorcommons.ops.registry import OPS


def backends() -> list[type[Backend[Any]]]:
    """Return the backend of every registered kind."""
    found = [each for each in Backend.__subclasses__() if each.__module__.startswith("tensorcommons.")]
    assert {each.kind for each in found} == set(KINDS)
    return found


BACKENDS = backends()
SHADERS = Path(__file__).parents[2] / "shaders"


def methods(cls: type) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(cls).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_has_the_methods_of_the_contract_and_no_others(backend: type) -> None:
    assert set(methods(backend)) <= set(vars(Backend))
    assert not getattr(backend, "__abstractmethods__", None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_have_the_names_of_the_contract(backend: type) -> None:
    for name, value in methods(backend).items():
        wanted = getattr(Backend, name)
        if inspect.isfunction(wanted):
            assert list(inspect.signature(value).parameters) == list(inspect.signature(wanted).parameters), name  # type: ignore[arg-type]
            assert inspect.iscoroutinefunction(value) == inspect.iscoroutinefunction(wanted), name


def test_every_compute_op_has_a_webgpu_kernel() -> None:
    compute = {name for name, op in OPS.items() if op.view is None}
    fused = {"chain", "linears", "linear_parts", "sum_norm", "row_products", "int8_blocks"}
    fused |= {"paged_attention", "attention_parts", "combined_attention", *(op.name for _, op in FUSED.values())}
    assert compute | {"copy", "scatter_into"} | fused == set(KERNELS)


def test_only_products_that_leave_hardware_idle_are_split() -> None:
    cut = {(128, 3072, 768): 4, (128, 768, 768): 4, (128, 1536, 384): 8, (17, 192, 4): 2}
    whole = [(16, 3072, 768), (1024, 1536, 384), (128, 3072, 3072), (128, 95, 768), (128, 1536, 383)]
    empty = [(0, 768, 768), (128, 0, 768), (128, 768, 0)]
    assert {sizes: parts_of_depth(*sizes) for sizes in (*cut, *whole, *empty)} == cut | dict.fromkeys(whole + empty, 1)


def test_every_op_has_a_webnn_rule_or_a_reason() -> None:
    assert set(OPS) == {*RULES, *REFUSED}
    assert not RULES.keys() & REFUSED.keys()


def test_elementwise_names_agree_between_ops_kernels_and_shader() -> None:
    assert {*FORMULAS, "cast", "full"} == {name for name, op in OPS.items() if op.elementwise}
    called = set(re.findall(r"(?:op|int|uint)_\w+(?=\()", str(FORMULAS)))
    assert called <= set(library())
    cases = re.findall(r"case (\d)u: \{ return op_(\w+)\(x\); \}", library()["activate"])
    assert [(str(i), name) for i, name in enumerate(ACTIVATIONS)][1:] == cases


@pytest.mark.parametrize("path", sorted(SHADERS.rglob("*.wgsl")), ids=lambda path: path.stem)
def test_a_shader_opens_with_its_formula_bindings_and_dispatch(path: Path) -> None:
    head = path.read_text("utf-8").split("\n\nstruct")[0]
    assert head.startswith("// ")
    if "fn main(" in path.read_text("utf-8"):
        assert "bindings:" in head and "dispatch:" in head


def test_erf_is_accurate_in_float32() -> None:
    import math

    x = np.concatenate([np.linspace(-6, 6, 20001), [0.0, -0.0, np.inf, -np.inf]])
    wanted = np.array([math.erf(value) for value in x])
    assert np.abs(activation.erf_reference(x) - wanted).max() < 2e-7
    assert np.isnan(activation.erf_reference(np.array([np.nan]))).all()


def test_public_names_are_listed_and_documented() -> None:
    for name in tc.__all__:
        value = getattr(tc, name)
        assert value is None or isinstance(value, float) or inspect.getdoc(value), f"{name} has no docstring"
