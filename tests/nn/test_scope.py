"""Layers declare their parameters in a manifest; roles decide dtypes; weights are used through their roles."""

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.backends.base import Spec
from tensorcommons.errors import InternalError
from tensorcommons.formats import BLOCKS, DENSE
from tensorcommons.graph.node import argument
from tensorcommons.nn import Embedding, LayerNorm, Linear, Scope, Weight
from tensorcommons.tensor import Tensor


def test_a_layer_declares_its_parameters_below_its_scope():
    scope = Scope({})
    layer = Linear(scope / "encoder" / 0 / "dense", 3, 5)
    assert list(scope.manifest) == ["encoder.0.dense.weight", "encoder.0.dense.bias"]
    assert layer.weight.shape == (5, 3)
    assert scope.manifest["encoder.0.dense.bias"] is layer.bias


def test_a_name_declared_twice_is_one_parameter():
    scope = Scope({})
    assert Linear(scope / "shared", 3, 5).weight is Linear(scope / "shared", 3, 5).weight


@pytest.mark.parametrize(
    ("shape", "role", "checkpoint"), [((3, 5), "matrix", 0), ((5, 3), "table", 0), ((5, 3), "matrix", 1)]
)
def test_another_declaration_of_a_name_is_an_error(shape, role, checkpoint):
    scope = Scope({})
    scope.param("weight", (5, 3), "matrix")
    with pytest.raises(TypeError, match=r"\(5, 3\)"):
        Scope(scope.manifest, checkpoint=checkpoint).param("weight", shape, role)


def test_a_tied_layer_has_no_weight_of_its_own():
    scope = Scope({})
    words = Embedding(scope / "words", 7, 3)
    assert Linear(scope / "head", 3, 7, bias=False, weight=words.weight).weight is words.weight
    assert list(scope.manifest) == ["words.weight"]


@pytest.mark.parametrize("role", ["matrix", "table", "kernel", "positions", "vector"])
def test_only_vectors_stay_float32(role):
    param = Scope({}).param("weight", (1, 1, 4), role)
    assert param.spec("float32").dtype.name == "float32"
    assert param.spec("float16").dtype.name == ("float32" if role == "vector" else "float16")


async def test_layers_compute_with_the_weights_of_a_call():
    scope, rng = Scope({}), np.random.default_rng(0)
    words, dense, norm = Embedding(scope / "w", 7, 3), Linear(scope / "d", 3, 5), LayerNorm(scope / "n", 5, 1e-5)
    turned = Linear(scope / "t", 5, 2, is_transposed=True)
    arrays = {name: rng.standard_normal(param.shape, np.float32) for name, param in scope.manifest.items()}
    weights = {scope.manifest[name]: Weight(tc.asarray(array), array.shape) for name, array in arrays.items()}
    ids = np.array([[1, 6]], np.int32)
    result = await turned(weights, norm(weights, dense(weights, words(weights, ids)))).read()
    x = arrays["w.weight"][ids] @ arrays["d.weight"].T + arrays["d.bias"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * arrays["n.weight"] + arrays["n.bias"]
    assert np.allclose(result, x @ arrays["t.weight"] + arrays["t.bias"], atol=1e-5)


def test_a_block_format_is_not_a_dense_tensor():
    shape = (2, 32)
    weight = Weight(Tensor.symbolic(argument("weight", BLOCKS["q8_0"].spec(shape)), None), shape)
    assert weight.format == "q8_0"
    with pytest.raises(InternalError, match="q8_0"):
        _ = weight.tensor


@pytest.mark.parametrize(
    ("role", "shape", "form"),
    [
        ("matrix", (3, 64), BLOCKS["q8_0"]),
        ("table", (1, 32), BLOCKS["q8_0"]),
        ("matrix", (64, 3), DENSE["float32"]),
        ("kernel", (3, 64), DENSE["float32"]),
        ("positions", (3, 64), DENSE["float32"]),
        ("vector", (64,), DENSE["float32"]),
    ],
)
def test_matrices_and_tables_of_whole_blocks_are_quantised(role, shape, form):
    assert Scope({}).param("weight", shape, role).spec("q8_0") == form.spec(shape)


def test_a_transposed_matrix_stays_dense():
    weight = Linear(Scope({}), 64, 32, is_transposed=True).weight
    assert weight.spec("q8_0").dtype.name == "float32"


def test_weights_without_int8_quants_are_multiplied_exactly():
    x = Tensor.symbolic(argument("x", Spec((1, 32), tc.dtypes.float32), is_stored=False), None)
    for name, wanted in (("int8_g32", "fast"), ("q4_0", "fast"), ("fp8_g32", "exact")):
        weight = Weight(Tensor.symbolic(argument("weight", BLOCKS[name].spec((3, 32))), None), (3, 32), "fast")
        assert weight.linear(x).node.attrs["precision"] == wanted, name
