"""The array API's inspection of a namespace: devices, dtypes and abilities."""

from __future__ import annotations

from typing import Any

from . import dtypes
from .backends.current import default_device, device_of, known_devices
from .backends.device import Device
from .dtypes import DType
from .ops.data_types import isdtype


class NamespaceInfo:
    """Facts of the namespace, as the standard asks for them: see :func:`__array_namespace_info__`.

    >>> tc.__array_namespace_info__().capabilities()["boolean indexing"]
    True
    >>> sorted(tc.__array_namespace_info__().dtypes(device="cpu", kind="real floating"))
    ['float32', 'float64']
    """

    def capabilities(self) -> dict[str, Any]:
        """Return which optional features exist. Masks and ``nonzero`` read their operand: see docs/arrays.md."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": None}

    def default_device(self) -> Device:
        """Return the device of tensors for which none is named.

        >>> tc.__array_namespace_info__().default_device().kind
        'cpu'
        """
        return default_device()

    def devices(self) -> list[Device]:
        """Return the opened devices; the CPU device is always among them.

        >>> "cpu" in [device.kind for device in tc.__array_namespace_info__().devices()]
        True
        """
        return known_devices()

    def default_dtypes(self, *, device: Device | str | None = None) -> dict[str, DType]:
        """Return the default dtypes, which are those of every device.

        >>> tc.__array_namespace_info__().default_dtypes()["real floating"]
        tensorcommons.dtypes.float32
        """
        return {"real floating": dtypes.float32, "integral": dtypes.int32, "indexing": dtypes.int32}

    def dtypes(self, *, device: Device | str | None = None, kind: Any = None) -> dict[str, DType]:
        """Return the standard's dtypes that a device computes, optionally of a ``kind`` as in :func:`isdtype`."""
        place = default_device() if device is None else device_of(device)
        has = {name: dtypes.ALL[name] for name in place.facts.dtypes if name != "float16"}  # not in the standard
        return {name: dtype for name, dtype in has.items() if kind is None or isdtype(dtype, kind)}


def __array_namespace_info__() -> NamespaceInfo:  # noqa: N807 - the array API's name
    """Return an object that describes devices, dtypes and abilities, as the array API standard defines it.

    >>> tc.__array_namespace_info__().default_dtypes()["integral"]
    tensorcommons.dtypes.int32
    """
    return NamespaceInfo()
