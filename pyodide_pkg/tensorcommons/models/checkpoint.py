"""The contents of a checkpoint from which its architecture is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InvalidWeights, quoted
from ..nn import Param
from .config import architectures
from .sentence import Sentence


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: ``config.json``, the names of its tensors, and the pooling of sentences.

    ``file`` is the config's address for messages. ``tensors`` are the names in the weights files. ``generation`` is the
    parsed ``generation_config.json``, None if the file is missing. ``base`` is the folder of the encoder, if it is
    another one. ``is_gguf`` is true if the weights are in a GGUF file, whose matrices are (out, in) even for GPT-2, and
    whose norms are whole even for Gemma. ``rope_factors`` divide the angles of rotary positions, if it has them.
    """

    config: Mapping[str, Any]
    file: str
    tensors: frozenset[str] = frozenset()
    sentence: Sentence = field(default_factory=Sentence)
    generation: Mapping[str, Any] | None = None
    base: Checkpoint | None = None
    is_gguf: bool = False
    rope_factors: tuple[float, ...] = ()

    @property
    def generation_defaults(self) -> Mapping[str, Any]:
        """Default options of generation: ``generation_config.json``, or ``config.json`` if that is missing."""
        return self.config if self.generation is None else self.generation

    @property
    def architectures(self) -> list[str]:
        """The classes of `transformers` named in the config, if any."""
        return architectures(self.config, self.file)

    def part(self, name: str, **fields: Any) -> Checkpoint:
        """Return the checkpoint with the object ``name`` of the config as its config, and ``fields``; null is empty.

        Raises InvalidWeights for another value.
        """
        config = self.config.get(name)
        if not isinstance(config, dict | None):
            raise InvalidWeights(self.file, f"{name} must be an object, not {quoted(config)}")
        return replace(self, config={**(config or {}), **fields})

    def has(self, parameter: str) -> bool:
        """Return whether a tensor has the name ``parameter``, after any prefix."""
        return any(name == parameter or name.endswith(f".{parameter}") for name in self.tensors)

    def ties(self, weight: str, embeddings: Param, *, tied: bool) -> Param | None:
        """Return ``embeddings`` if the vocabulary head uses this table, None if it has its own ``weight``.

        As in `transformers`, weights that a file stores under both names are not tied, whatever its config says. If
        they are equal, they share one storage in any case.
        """
        return embeddings if tied and not (self.has(weight) and self.has(embeddings.name)) else None
