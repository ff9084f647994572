"""Mapping from the names of tensors in checkpoints to the parameters of an architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # TensorFlow's names
# Constants that older versions of `transformers` stored with the weights.
BUFFERS = r"(.*\.)?(position_ids|token_type_ids|rotary_emb\.inv_freq|attn\.(bias|masked_bias)|num_batches_tracked)"


@dataclass(frozen=True)
class WeightMapping:
    """Map a tensor's name in a file to the parameter's name.

    The first matching prefix of ``prefixes`` is removed. Then the old names of layer norms and the substrings in
    ``renamed`` are replaced, in order. ``tied`` maps a second name of a parameter's storage to that parameter; it is
    read if the parameter itself is not in the file. Names that fully match an expression of ``ignored`` or ``BUFFERS``
    cause no warning.

    ``folder`` is the folder of a sentence-transformers module with one weights file; its parameters' names begin with
    it. With ``is_base`` the files are those of the encoder's folder, which may have tensors for other purposes.
    `transformers` stores parameters whose names fully match ``from_one`` as differences from 1, which is added; with
    ``is_whole`` these files do not.
    """

    prefixes: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    folder: str = ""
    is_base: bool = False
    from_one: str | None = None
    is_whole: bool = False

    def canonical(self, name: str) -> str:
        """Return the parameter's name for a tensor's name."""
        prefix = next((prefix for prefix in self.prefixes if name.startswith(prefix)), "")
        name = name.removeprefix(prefix)
        for old, new in (*NORMS.items(), *self.renamed.items()):
            name = name.replace(old, new)
        return f"{self.folder}.{name}" if self.folder else name

    def is_from_one(self, parameter: str) -> bool:
        """Return whether `transformers` stores ``parameter`` as its difference from 1."""
        return self.from_one is not None and re.fullmatch(self.from_one, parameter) is not None

    def ignores(self, name: str) -> bool:
        """Return whether ``name`` (canonical) is a tensor that checkpoints may store beside the parameters."""
        return name in self.tied or any(re.fullmatch(pattern, name) for pattern in (BUFFERS, *self.ignored))
