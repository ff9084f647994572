"""``tensorcommons.nn.functional`` has PyTorch's names, and its parameters PyTorch's names and order."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from tensorcommons.nn import functional
from tests.cases.torch_calls import CALLS

GOLDENS = Path(__file__).parents[1] / "goldens"
PARAMETERS = json.loads((GOLDENS / "functional.json").read_text())["parameters"]
EXPECTED = """
adaptive_avg_pool2d adaptive_max_pool2d avg_pool2d batch_norm binary_cross_entropy binary_cross_entropy_with_logits
conv1d conv2d conv_transpose2d cosine_similarity cross_entropy elu embedding gelu group_norm hardsigmoid hardswish
huber_loss instance_norm interpolate kl_div l1_loss layer_norm leaky_relu linear log_softmax max_pool2d mse_loss
nll_loss normalize one_hot pad relu rms_norm scaled_dot_product_attention sigmoid silu smooth_l1_loss softmax softplus
tanh
"""


def test_functional_has_these_names():
    assert functional.__all__ == EXPECTED.split() == sorted(PARAMETERS)


@pytest.mark.parametrize("name", functional.__all__)
def test_parameters_are_those_of_pytorch(name):
    own = list(inspect.signature(getattr(functional, name)).parameters)
    theirs = [parameter for parameter in PARAMETERS[name] if parameter in own]
    assert own == theirs


@pytest.mark.parametrize("name", functional.__all__)
def test_each_function_is_documented_and_compared_with_pytorch(name):
    assert inspect.getdoc(getattr(functional, name))
    assert any(call.function == name for call in CALLS.values())
