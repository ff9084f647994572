"""Random checkpoints in parts: weights that are computed when they are read, and files as Blobs.

Pyodide's memory holds at most 4 GB and never shrinks, so a model of 2.5 GB is never whole in it: tensorcommons reads a
Blob, which is JavaScript's, and the ONNX file of a peer is written to JavaScript tensor by tensor.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from scripts.random_checkpoint import RandomCheckpoint

Array: TypeAlias = np.ndarray[Any, Any]
DTYPES = {"F32": np.float32, "F16": np.float16}
JOINED = 64  # pieces of 1 MiB that become a Blob at a time


class Stored:
    """An array of known shape and dtype that ``read`` computes: each time it is used, so nothing is kept."""

    def __init__(self, like: Array, read: Callable[[], Array]) -> None:
        self._like = like  # of strides 0: it gives the shapes of views
        self._read = read

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: Any, read: Callable[[], Array]) -> Stored:
        """Make an array of ``shape`` and ``dtype``."""
        return cls(np.broadcast_to(np.zeros((), dtype), shape), read)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._like.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._like.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def T(self) -> Stored:  # noqa: N802 - NumPy's name
        return Stored(self._like.T, lambda: self._read().T)

    def __getitem__(self, index: Any) -> Stored:
        return Stored(self._like[index], lambda: self._read()[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self._read(), dtype)

    def read(self) -> memoryview:
        """Compute the bytes in C order. They are not copied if the array is contiguous."""
        return memoryview(np.ascontiguousarray(self._read()).reshape(-1).view(np.uint8))


@lru_cache(maxsize=1)
def checkpoint(recipe: str) -> RandomCheckpoint:
    """Return the checkpoint of a recipe, which is one file of float32 or float16."""
    return RandomCheckpoint(recipe)


def arrays(recipe: str) -> dict[str, Stored]:
    """Return the weights by the name of their parameter."""
    made = checkpoint(recipe)
    dtype, start = DTYPES[made.recipe.dtype], made.size("model.safetensors") - made.nbytes
    found = {}
    for name, shape in made.shapes.items():
        stop = start + math.prod(shape) * np.dtype(dtype).itemsize

        def read(start: int = start, stop: int = stop, shape: tuple[int, ...] = shape) -> Array:
            data, end = np.empty(stop - start, np.uint8), 0  # filled piece by piece: one copy is in memory
            for piece in made.pieces("model.safetensors", start, stop):
                data[end : end + len(piece)] = np.frombuffer(piece, np.uint8)
                end += len(piece)
            return data.view(dtype).reshape(shape)

        found[name] = Stored.of(shape, dtype, read)
        start = stop
    return found


@lru_cache(maxsize=1)
def files(recipe: str) -> Mapping[str, Any]:
    """Return the files for ``from_pretrained``: the weights as a Blob under Pyodide, else as bytes."""
    made = checkpoint(recipe)
    if sys.platform != "emscripten":
        return made.files()
    weights = _blob(made.pieces("model.safetensors"))
    return {"config.json": made.read("config.json"), "model.safetensors": weights}


def _blob(pieces: Iterable[bytes]) -> Any:
    """Make a Blob of pieces, of which at most :data:`JOINED` are in memory beside it."""
    from js import Blob
    from pyodide.ffi import to_js

    blobs, waiting = [], []
    for piece in pieces:
        waiting.append(piece)
        if len(waiting) == JOINED:
            blobs.append(Blob.new(to_js(waiting)))
            waiting = []
    return Blob.new(to_js([*blobs, Blob.new(to_js(waiting))]))
