"""The inputs of an encoder-decoder: a source text and the answer to it, each padded to its bucket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtypes import host_array
from ..errors import ShapeMismatch, TensorCommonsError
from ..shapes import Shape
from .architecture import Prepared
from .text import TextInputs, first_shape


@dataclass(frozen=True)
class AnswerInputs:
    """The inputs ``input_ids`` and ``attention_mask`` (batch, source), ``decoder_input_ids`` (batch, target).

    With ``start_token`` a missing ``decoder_input_ids`` is the source, shifted by one token. With ``end_token`` the
    forward also gets ``last_tokens`` (batch,), the rows of each source's last end token in the answers' hidden states.
    """

    vocab_size: int
    max_length: int
    start_token: int | None = None
    end_token: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs that a call may pass."""
        return ("input_ids", "attention_mask", "decoder_input_ids")

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """Convert the inputs to int32, each padded to its bucket; a missing mask is filled with ones."""
        asked = TextInputs(self.vocab_size, self.max_length, per_token=frozenset({"encoder_last_hidden_state"}))
        of_answer = frozenset({"logits", "last_hidden_state", "start_logits", "end_logits"})
        answer = TextInputs(
            self.vocab_size, self.max_length, per_token=of_answer if self.end_token is None else frozenset()
        )
        given = inputs.get("decoder_input_ids")
        if given is None and self.start_token is None:
            raise TensorCommonsError(
                f"the input decoder_input_ids of {model} is missing: pass it, or use generate(), which makes it"
            )
        source = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        first = asked.prepare(source, model)
        if given is None:
            ids = host_array(inputs["input_ids"])
            given = np.concatenate([np.full((len(ids), 1), self.start_token), ids[:, :-1]], axis=1)
        second = answer.prepare({"input_ids": given}, model)
        arrays = {**first.arrays, "decoder_input_ids": second.arrays["input_ids"]}
        if len({len(array) for array in arrays.values()}) > 1:
            raise ShapeMismatch(
                "input_ids and decoder_input_ids must have one batch size, not "
                f"{len(first.arrays['input_ids'])} and {len(arrays['decoder_input_ids'])}"
            )
        if self.end_token is not None:
            ids = host_array(inputs["input_ids"])
            arrays["last_tokens"] = self._ends(ids, host_array(given).shape, arrays["decoder_input_ids"].shape[1])
        return Prepared(arrays, {**first.cuts, **second.cuts})

    def _ends(self, ids: np.ndarray[Any, Any], answer: Shape, columns: int) -> np.ndarray[Any, Any]:
        """Return the rows of the last end token of each text among hidden states of ``columns`` tokens a text."""
        ends = ids == self.end_token
        counts = set(ends.sum(axis=1).tolist())
        if counts == {0} or len(counts) > 1:
            raise TensorCommonsError(
                f"each text must have the same number of end tokens ({self.end_token}), "
                f"at least one, not {sorted(counts)}"
            )
        if answer != ids.shape:
            raise ShapeMismatch(f"decoder_input_ids must have the shape of input_ids, {ids.shape}, not {answer}")
        last = ids.shape[1] - 1 - ends[:, ::-1].argmax(axis=1)
        rows: np.ndarray[Any, Any] = np.arange(len(ids)) * columns + last
        return rows.astype(np.int32)

    def example(self, shape: Shape | None = None) -> Mapping[str, Any]:
        """Create source and target of one ``shape`` (batch, sequence)."""
        size = first_shape(self.max_length) if shape is None else shape
        ids = self.vocab_size - 1 if self.end_token is None else self.end_token
        return {"input_ids": np.full(size, ids), "decoder_input_ids": np.full(size, self.vocab_size - 2)}
