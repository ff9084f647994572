"""The facts of a checkpoint from which its architecture is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .config import architectures
from .sentence import Sentence


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as architectures see it: ``config.json``, the names in its weights files, how sentences are pooled.

    ``file`` is the config's address for messages. ``tensors`` are names as the files spell them. ``generation`` is what
    ``generation_config.json`` says, None if the file is missing.
    """

    config: Mapping[str, Any]
    file: str
    tensors: frozenset[str] = frozenset()
    sentence: Sentence = field(default_factory=Sentence)
    generation: Mapping[str, Any] | None = None

    @property
    def generation_defaults(self) -> Mapping[str, Any]:
        """Default options of generation: ``config.json`` counts where there is no ``generation_config.json`` alone."""
        return self.config if self.generation is None else self.generation

    @property
    def architectures(self) -> list[str]:
        """The classes of `transformers` that the config names, if any."""
        return architectures(self.config, self.file)

    def has(self, parameter: str) -> bool:
        """True if a tensor of that name is there, under any prefix."""
        return any(name == parameter or name.endswith(f".{parameter}") for name in self.tensors)

    def output(self, weight: str, embeddings: str, *, tied: bool) -> str:
        """The parameter that makes logits: ``weight``, or where that is not stored and ``tied`` the ``embeddings``.

        As in `transformers`, weights that a file stores under both names are not tied, whatever its config says; where
        they are equal they are one storage all the same.
        """
        return weight if not tied or (self.has(weight) and self.has(embeddings)) else embeddings
