"""The inputs of a model of texts and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import TensorCommonsError
from ..shapes import Shape
from .architecture import Prepared
from .image import ImageInputs
from .text import TextInputs


@dataclass(frozen=True)
class TextImageInputs:
    """The inputs of both towers. A call may leave out those of one, and gets the features of the other."""

    text: TextInputs
    image: ImageInputs

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs that a call may pass."""
        return (*self.text.names, *self.image.names)

    @property
    def size(self) -> int:
        """The side of an image in pixels."""
        return self.image.size

    @property
    def patch(self) -> int:
        """The side of a patch in pixels."""
        return self.image.patch

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """See :class:`TextInputs` and :class:`ImageInputs`. Raises TensorCommonsError if both have no input."""
        prepared = Prepared({})
        for part in (self.text, self.image):
            given = {name: inputs[name] for name in part.names if inputs.get(name) is not None}
            if given:
                prepared = Prepared({**prepared.arrays, **part.prepare(given, model).arrays})
        if not prepared.arrays:
            raise TensorCommonsError(f"{model} needs an input; inputs: {', '.join(self.names)}")
        return prepared

    def example(self, shape: Shape | None = None) -> Mapping[str, Any]:
        """Create a text and an image; ``shape`` is (batch, sequence) of texts."""
        return {**self.text.example(shape), **self.image.example()}
