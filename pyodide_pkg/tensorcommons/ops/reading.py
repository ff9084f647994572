"""Read values on the way, for functions whose result has a shape that depends on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..bridge.runtime import can_suspend
from ..errors import ReadRequired
from ..tensor import Tensor


def values_of(x: Tensor, what: str, remedy: str) -> np.ndarray[Any, Any]:
    """Read ``x`` without ``await`` for ``what``, a function; ``remedy`` is how the host computes the same.

    Raises:
        ReadRequired: the device is asynchronous, and the running Python cannot be suspended.
    """
    device = x.device
    if not device.facts.is_host and not can_suspend():
        raise ReadRequired(
            f"{what}: the shape of the result depends on values, and this Python cannot be suspended here to wait for "
            f"the {device.kind} device: use {remedy}"
        )
    return x.numpy()
