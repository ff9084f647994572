"""Parameters, declared where they are used: a layer made from a scope records its parameters in the model's manifest.

Loading, compilation before the weights arrive, and moves between devices work from the manifest alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from ..backends.base import Spec
from ..formats import DENSE, FORMATS, BlockFormat
from ..shapes import Shape

Role: TypeAlias = Literal["matrix", "table", "kernel", "positions", "vector"]


@dataclass(eq=False, slots=True)  # frozen, it would take twice as long to make
class Param:
    """A parameter of a model. There is one object for each name, so it is equal only to itself.

    The ``role`` decides the dtype on the device. A "matrix" is used by :meth:`Weight.linear`, a "table" by
    :meth:`Weight.rows` (by both, if a matrix is tied to it); a "kernel" of a convolution and "positions" are plain
    tensors. These have the dtype of the model, and matrices and tables may be quantised. A "vector" (a bias, a norm, a
    learned token) is always float32: it is small, and sensitive. ``checkpoint`` is the index of the files that
    store it (architecture.py).
    """

    name: str
    shape: Shape
    role: Role
    checkpoint: int = 0

    def spec(self, form: str) -> Spec:
        """Return the spec in the format ``form``.

        What cannot be quantised is float32: other roles, and matrices whose rows are not whole blocks.
        """
        return _spec(self.role, self.shape, form)


@lru_cache(maxsize=1024)  # a model has hundreds of parameters, of a few shapes
def _spec(role: Role, shape: Shape, name: str) -> Spec:
    form = FORMATS["float32" if role == "vector" else name]
    fits = role in ("matrix", "table") and not form.misfit(shape)
    return (form if fits or not isinstance(form, BlockFormat) else DENSE["float32"]).spec(shape)


Manifest: TypeAlias = Mapping[str, Param]


class Scope(NamedTuple):
    """A part of a model: declares parameters whose names begin with ``prefix`` in ``manifest``."""

    manifest: dict[str, Param]
    prefix: str = ""
    checkpoint: int = 0

    def __truediv__(self, name: str | int) -> Scope:
        """Return the scope ``name`` below this one."""
        return Scope(self.manifest, f"{self.prefix}{name}.", self.checkpoint)

    def param(self, name: str, shape: Shape, role: Role) -> Param:
        """Declare a parameter. A name that is declared twice is one parameter, used twice.

        Raises TypeError if the first declaration had another shape, role or checkpoint.
        """
        param = Param(self.prefix + name, shape, role, self.checkpoint)
        known = self.manifest.setdefault(param.name, param)
        if known is not param and (known.shape, known.role, known.checkpoint) != (shape, role, self.checkpoint):
            raise TypeError(f"{known} is declared again as {param}")
        return known
