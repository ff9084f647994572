"""A storage: bytes on a device, known by their content.

A weight's identity is the SHA-256 of its bytes with dtype and shape, so two models that carry the same weight under
any two names hold the same storage. Bytes that nobody can compare (activations) get an identity of their own.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

from ..backends.device import Category, Device
from ..dtypes import DType
from ..errors import TensorReleased

_serial = itertools.count()


def content_identity(data: memoryview, shape: Sequence[int], dtype: DType) -> str:
    """Hex SHA-256 over dtype, shape and bytes."""
    digest = hashlib.sha256(f"{dtype.name}{tuple(shape)}".encode())
    digest.update(data)
    return digest.hexdigest()


class Storage:
    """``nbytes`` bytes under ``handle`` on ``device``. Freed by :meth:`release`, or when nothing refers to it."""

    def __init__(self, device: Device, handle: int, nbytes: int, identity: str | None = None) -> None:
        self.device = device
        self.nbytes = nbytes
        self.identity = identity or f"anonymous-{next(_serial)}"
        self._handle: int | None = handle

    @classmethod
    def upload(cls, device: Device, data: memoryview, category: Category, identity: str | None = None) -> Storage:
        """A new storage with ``data`` in it."""
        handle = device.allocate(data.nbytes, category)
        try:
            device.backend.write(handle, 0, data)
        except BaseException:
            device.free(handle)
            raise
        return cls(device, handle, data.nbytes, identity)

    @property
    def handle(self) -> int:
        """The device's name for the bytes. Raises TensorReleased after :meth:`release`."""
        if self._handle is None:
            raise TensorReleased("the tensor's bytes were released; compute or load it again before using it")
        return self._handle

    @property
    def is_released(self) -> bool:
        """Whether the bytes were given back."""
        return self._handle is None

    def release(self) -> None:
        """Give the bytes back. Safe to call twice."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self.device.free(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.release()
