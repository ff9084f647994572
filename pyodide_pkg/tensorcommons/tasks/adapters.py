"""The rows of a pipeline call with adapters: one for all of them, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import TensorCommonsError
from .base import Inputs, Rows


@dataclass(frozen=True)
class AdaptedRows:
    """``rows`` that the model runs with ``adapter``: one, or one for each row."""

    rows: Rows
    adapter: Any

    @property
    def lengths(self) -> Sequence[int]:
        """See :class:`Rows`."""
        return self.rows.lengths

    async def take(self, rows: Sequence[int]) -> list[tuple[Sequence[int], Inputs]]:
        """See :class:`Rows`."""
        return [(group, {**inputs, "adapter": self._of(group)}) for group, inputs in await self.rows.take(rows)]

    def columns(self, row: int, width: int) -> slice:
        """See :class:`Rows`."""
        return self.rows.columns(row, width)

    def _of(self, rows: Sequence[int]) -> Any:
        if not isinstance(self.adapter, list):
            return self.adapter
        own = [self.adapter[row] for row in rows]
        return own * 2 if getattr(self.rows, "halves", False) else own


def adapted_rows(rows: Rows, given: Any, adapter: Any) -> AdaptedRows:
    """Return the rows of a call of the inputs ``given``.

    Raises TensorCommonsError if a list of adapters has another length than the list of inputs, or an input is several
    rows, such as a long text that is read in windows.
    """
    if not isinstance(adapter, (list, tuple)):
        return AdaptedRows(rows, adapter)
    count = len(given) if isinstance(given, (list, tuple)) else 1
    if len(adapter) != count:
        raise TensorCommonsError(f"adapter has {len(adapter)} entries for {count} inputs: pass one for each input")
    if len(rows.lengths) != count:
        raise TensorCommonsError(
            f"{count} inputs are {len(rows.lengths)} rows of the model, so the adapters of rows are unclear: call the "
            "pipeline for each adapter by itself"
        )
    return AdaptedRows(rows, list(adapter))
