"""A batch of texts as a model takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Encoding:
    """A batch, ready for a model: int32 arrays of shape ``[texts, length]``.

    ``sequence_ids`` says what each token comes from: 0 the text, 1 the text of the pair, -1 neither.
    """

    input_ids: Ids
    attention_mask: Ids
    token_type_ids: Ids
    sequence_ids: Ids

    def as_inputs(self) -> dict[str, Ids]:
        """The arrays by the names that the models take them by."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "token_type_ids": self.token_type_ids,
        }
