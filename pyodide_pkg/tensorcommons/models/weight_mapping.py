"""The names of an architecture's parameters in checkpoints, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # as TensorFlow called them
# Constants that older versions of `transformers` stored beside the weights.
BUFFERS = r"(.*\.)?(position_ids|token_type_ids|rotary_emb\.inv_freq|attn\.(bias|masked_bias)|num_batches_tracked)"


@dataclass(frozen=True)
class WeightMapping:
    """From a tensor's name in a file to the parameter's name.

    Of ``prefixes`` the first that fits is taken off; each text of ``renamed`` found in the rest is replaced, in order,
    and so are the old names of layer norms. ``tied`` maps another name of a parameter's storage to that parameter: it
    is read where the parameter itself is not in the file. Names that match an expression of ``ignored`` or ``BUFFERS``
    as a whole are passed over without a warning.
    """

    prefixes: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def canonical(self, name: str) -> str:
        """The name that a parameter would have."""
        prefix = next((prefix for prefix in self.prefixes if name.startswith(prefix)), "")
        name = name.removeprefix(prefix)
        for old, new in (*NORMS.items(), *self.renamed.items()):
            name = name.replace(old, new)
        return name

    def ignores(self, name: str) -> bool:
        """True if checkpoints hold ``name`` (canonical) beside the parameters."""
        return name in self.tied or any(re.fullmatch(pattern, name) for pattern in (BUFFERS, *self.ignored))
