"""The base of all tasks: checks of inputs, and the rows on which a model runs."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..errors import TensorCommonsError, quoted
from ..hub.encoding import Encoding
from ..hub.tokenizer import Tokenizer
from ..models.model import Model

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
Inputs: TypeAlias = "dict[str, np.ndarray[Any, Any]]"


class Rows(Protocol):
    """The rows on which a call runs the model."""

    @property
    def lengths(self) -> Sequence[int]:
        """Number of tokens of each row; for an image, that of its patches."""

    async def take(self, rows: Sequence[int]) -> list[tuple[Sequence[int], Inputs]]:
        """Prepare the model's inputs for these rows, as one or more calls, each with its rows."""

    def columns(self, row: int, width: int) -> slice:
        """Return the tokens of a row among the ``width`` columns of its batch."""


@dataclass(frozen=True)
class Job:
    """One call of a pipeline: the model runs on ``rows``, in batches, for ``outputs``.

    ``each`` gets the number of a row and its slice of each output (without padding, if the output has a value for each
    token), and returns what to keep of it; ``show`` formats the kept values, in the order of the rows, as the result.
    """

    rows: Rows
    outputs: tuple[str, ...]
    each: Callable[[int, Sequence[Array]], Any]
    show: Callable[[list[Any]], Any]


#: Make a Job from a model, the inputs of a call, and the task's options by name.
Task: TypeAlias = Callable[..., Awaitable[Job]]


def check_options(name: str, task: Task, options: Mapping[str, Any]) -> None:
    """Raise TensorCommonsError for an option that ``task``, of the given ``name``, does not have."""
    known = [key for key, entry in inspect.signature(task).parameters.items() if entry.kind is entry.KEYWORD_ONLY]
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise TensorCommonsError(f"{name} has no option {', '.join(wrong)}; options: {', '.join(known) or 'none'}")


def tokenizer_of(model: Model) -> Tokenizer:
    """Return the model's tokenizer. Raises TensorCommonsError if it has none."""
    if model.tokenizer is None:
        raise TensorCommonsError(f"{model.name} has no tokenizer to encode this text: {model.why_no_tokenizer}")
    return model.tokenizer


@dataclass(frozen=True)
class TextRows:
    """Encoded texts; ``names`` are the inputs of the model.

    With ``halves`` a row is two texts: one of the first half, and its pair of the second. ``pooling_mask`` is an input
    if not all tokens are pooled.
    """

    encoding: Encoding
    names: Sequence[str]
    halves: bool = False
    pooling_mask: np.ndarray[Any, Any] | None = None

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each row."""
        counts = self.encoding.attention_mask.sum(axis=1)
        if self.halves:
            counts = counts.reshape(2, -1).max(axis=0)
        lengths: list[int] = counts.tolist()
        return lengths

    async def take(self, rows: Sequence[int]) -> list[tuple[Sequence[int], Inputs]]:
        """See :class:`Rows`."""
        arrays: Inputs = {name: array for name, array in self.encoding.as_inputs().items() if name in self.names}
        if self.pooling_mask is not None:
            arrays["pooling_mask"] = self.pooling_mask
        total = len(self.encoding.input_ids) // (2 if self.halves else 1)
        if list(rows) != list(range(total)):
            places = [*rows, *(row + total for row in rows)] if self.halves else list(rows)
            used = np.flatnonzero(self.encoding.attention_mask[places].any(axis=0))
            columns = slice(used[0], used[-1] + 1) if len(used) else slice(0, 1)
            arrays = {name: array[places, columns] for name, array in arrays.items()}
        return [(rows, arrays)]

    def columns(self, row: int, width: int) -> slice:
        """See :class:`Rows`."""
        mask = self.encoding.attention_mask[row]
        count = int(mask.sum())
        return slice(width - count, width) if count and not mask[0] else slice(0, count)


def text_rows(
    model: Model, encoding: Encoding, *, halves: bool = False, pooling_mask: np.ndarray[Any, Any] | None = None
) -> TextRows:
    """Make the rows of the texts of ``encoding`` for the model; ``pooling_mask`` marks the tokens to pool."""
    return TextRows(encoding, model.input_names, halves, pooling_mask)


def strings(batch: Sequence[Any]) -> list[str]:
    """Return ``batch`` as a list. Raises TensorCommonsError unless all are strings."""
    for text in batch:
        if not isinstance(text, str):
            raise TensorCommonsError(f"this task takes strings, not {type(text).__name__} ({quoted(text)})")
    return list(batch)


def texts_of(given: Any) -> tuple[list[str], bool]:
    """Return the texts of a call, and True if the call got a single text instead of a list."""
    single = isinstance(given, str)
    return strings([given] if single else several(given)), single


def several(given: Any) -> list[Any]:
    """Return the inputs of a call as a list. Raises TensorCommonsError unless they are a list or another iterable."""
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Iterable):
        raise TensorCommonsError(
            f"a call takes one input or a list of inputs, not {type(given).__name__} ({quoted(given)})"
        )
    return list(given)


def count(name: str, value: Any, *, low: int = 1) -> int:
    """Check the option ``name``. Raises TensorCommonsError unless it is an integer of at least ``low``."""
    if type(value) is not int or value < low:
        raise TensorCommonsError(f"{name} must be an integer from {low}, not {quoted(value)}")
    return value


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """Check the option ``name``. Raises TensorCommonsError unless it is one of ``known``."""
    if value not in known:
        raise TensorCommonsError(f"{name} must be one of {', '.join(known)}, not {quoted(value)}")
    return str(value)
