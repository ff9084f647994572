"""Shared by all tasks: inputs checked, and the rows that a model runs on."""

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
    """The rows on which a call runs the model. ``lengths`` are their tokens, or as many as an image takes."""

    @property
    def lengths(self) -> Sequence[int]:
        """See above."""
        ...

    async def take(self, rows: Sequence[int]) -> list[tuple[Sequence[int], Inputs]]:
        """The model's inputs for these rows: one call, or several where they do not go into one. With each its rows."""
        ...

    def columns(self, row: int, width: int) -> slice:
        """The tokens of a row among the ``width`` columns of its batch."""
        ...


@dataclass(frozen=True)
class Job:
    """One call of a pipeline: the model runs on ``rows``, in batches, for ``outputs``.

    ``each`` gets a row's number and its part of each output (of those with a value a token only the tokens, without
    padding), and gives what of it is kept; ``show`` makes the pipeline's answer of these, in the order of the rows.
    """

    rows: Rows
    outputs: tuple[str, ...]
    each: Callable[[int, Sequence[Array]], Any]
    show: Callable[[list[Any]], Any]


#: From a model, what the user gave, and the task's options by name, to a Job.
Task: TypeAlias = Callable[..., Awaitable[Job]]


def check_options(name: str, task: Task, options: Mapping[str, Any]) -> None:
    """Raises TensorCommonsError for an option that ``task``, called ``name``, does not know."""
    known = [key for key, entry in inspect.signature(task).parameters.items() if entry.kind is entry.KEYWORD_ONLY]
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise TensorCommonsError(f"{name} does not take {', '.join(wrong)}; options: {', '.join(known) or 'none'}")


def tokenizer_of(model: Model) -> Tokenizer:
    """The model's tokenizer. Raises TensorCommonsError where it has none."""
    if model.tokenizer is None:
        raise TensorCommonsError(f"{model.name} has no tokenizer for this text: {model.why_no_tokenizer}")
    return model.tokenizer


@dataclass(frozen=True)
class TextRows:
    """Encoded texts, of which the model takes the inputs ``names``.

    With ``halves`` a row is two of them: one of the first half, and its pair of the second. ``pooling_mask`` is an
    input where not all tokens are pooled.
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
    """The texts of ``encoding``, with the arrays that the model takes; ``pooling_mask`` has the tokens to pool."""
    return TextRows(encoding, model.input_names, halves, pooling_mask)


def strings(batch: Sequence[Any]) -> list[str]:
    """``batch``, of which all are strings. Raises TensorCommonsError for another one."""
    for text in batch:
        if not isinstance(text, str):
            raise TensorCommonsError(f"this task takes strings, not {type(text).__name__} ({quoted(text)})")
    return list(batch)


def texts_of(given: Any) -> tuple[list[str], bool]:
    """The texts of a call, and whether it was one alone."""
    single = isinstance(given, str)
    return strings([given] if single else several(given)), single


def several(given: Any) -> list[Any]:
    """The inputs of a call that got a list of them. Raises TensorCommonsError for anything else."""
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Iterable):
        raise TensorCommonsError(
            f"a call takes one input or a list of them, not {type(given).__name__} ({quoted(given)})"
        )
    return list(given)


def count(name: str, value: Any, *, low: int = 1) -> int:
    """The option ``name``, a whole number of at least ``low``. Raises TensorCommonsError for anything else."""
    if type(value) is not int or value < low:
        raise TensorCommonsError(f"{name} is a whole number from {low}, not {quoted(value)}")
    return value


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """The option ``name``, one of ``known``. Raises TensorCommonsError for anything else."""
    if value not in known:
        raise TensorCommonsError(f"{name} {quoted(value)} is not one of {', '.join(known)}")
    return str(value)


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float32)
