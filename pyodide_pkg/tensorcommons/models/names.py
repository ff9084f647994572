"""How checkpoints spell the parameters of an architecture, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Names:
    """From a tensor's name in a file to the parameter's name.

    Of ``prefixes`` the first that fits is taken off; each text of ``renamed`` found in the rest is replaced, in order.
    ``tied`` maps what is another name of a parameter's storage to that parameter: read where the parameter itself is
    not in the file, passed over where it is. Names that match an expression of ``ignored`` as a whole are passed over.
    """

    prefixes: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def canonical(self, name: str) -> str:
        """The name that a parameter would have."""
        prefix = next((prefix for prefix in self.prefixes if name.startswith(prefix)), "")
        name = name.removeprefix(prefix)
        for old, new in self.renamed.items():
            name = name.replace(old, new)
        return name

    def ignores(self, name: str) -> bool:
        """Whether checkpoints hold ``name`` (canonical) beside the parameters."""
        return name in self.tied or any(re.fullmatch(pattern, name) for pattern in self.ignored)
