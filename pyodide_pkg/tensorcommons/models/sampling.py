"""From logits to the next token: the options of generation, and what they do to the scores.

In the order of ``transformers``: repetition penalty, then, where tokens are drawn, temperature, top-k, top-p. Scores
are float32 (batch, vocabulary), worked on in NumPy: one row of a vocabulary is read a step, whatever the model's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np

from ..errors import TensorCommonsError

Scores: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
FEW = 1024  # the likeliest, among which a nucleus is looked for first
COLD = 0.01  # a temperature below which scores of float32 may overflow
Ids: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


@dataclass(frozen=True)
class Options:
    """How to write, with the names and defaults of ``transformers.GenerationConfig``.

    ``do_sample=False`` takes the likeliest token. ``temperature``, ``top_k`` (0: off), ``top_p`` and ``seed`` are for
    drawn ones; the same seed draws the same tokens, each row of a batch as if it were alone. ``eos_token_id`` (one or
    several) ends a row, which goes on as ``pad_token_id``; so does a text that holds one of ``stop_strings``. No end
    token comes among the first ``min_new_tokens``.
    """

    max_new_tokens: int = 256
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_strings: tuple[str, ...] = ()
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("max_new_tokens", 1),
            ("min_new_tokens", 0),
            ("top_k", 0),
            ("seed", 0),
            ("pad_token_id", 0),
        ):
            count = getattr(self, name)
            if count is None and name in ("seed", "pad_token_id"):
                continue
            if type(count) is not int or count < least:
                raise TensorCommonsError(f"{name} must be a whole number from {least} on, not {count!r}")
        if type(self.do_sample) is not bool:
            raise TensorCommonsError(f"do_sample is True or False, not {self.do_sample!r}")
        for name in ("temperature", "top_p", "repetition_penalty"):
            value = getattr(self, name)
            most = 1 if name == "top_p" else float(np.finfo(np.float32).max)
            if type(value) not in (int, float) or not 0 < value <= most:
                up = " up to 1" if most == 1 else ""
                raise TensorCommonsError(f"{name} must be a number above 0{up}, not {value!r:.40}")
        if any(type(token) is not int for token in self.eos_token_id):
            raise TensorCommonsError(f"eos_token_id is one or a list of whole numbers, not {self.eos_token_id!r}")
        if any(not text or not isinstance(text, str) for text in self.stop_strings):
            raise TensorCommonsError(f"stop_strings are strings that are not empty, not {self.stop_strings!r}")

    @classmethod
    def of(cls, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Options:
        """The options ``given``, over those of ``defaults`` that this class knows (a ``generation_config.json``).

        Raises:
            TensorCommonsError: an option given is unknown, or a value is out of range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := set(given) - known:
            names = ", ".join(sorted(known))
            raise TensorCommonsError(f"unknown option {', '.join(sorted(unknown))}; generation takes {names}")
        values = {name: value for name, value in defaults.items() if name in known and value is not None}
        if type(values.get("pad_token_id")) is int and values["pad_token_id"] < 0:
            del values["pad_token_id"]  # so older files say that there is none
        values |= given
        values = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        for name, kind in (("eos_token_id", int), ("stop_strings", str)):
            value = values.get(name, ())
            if not (value is None or isinstance(value, (kind, list, tuple))):
                raise TensorCommonsError(f"{name} is one or a list of {kind.__name__}, not {value!r}")
            values[name] = tuple(value or ()) if isinstance(value, (list, tuple, type(None))) else (value,)
        return cls(**values)

    @property
    def padding(self) -> int:
        """What a row that has ended goes on as."""
        return self.pad_token_id if self.pad_token_id is not None else (self.eos_token_id or (0,))[0]

    def but(self, **changes: Any) -> Options:
        """The same with other values."""
        return replace(self, **changes)


def penalize(scores: Scores, ids: Ids, penalty: float) -> Scores:
    """Tokens of ``ids`` (batch, sequence) become less likely (Keskar et al., 2019): a score is divided if above 0."""
    seen = np.take_along_axis(scores, ids, axis=1)
    scores = scores.copy()
    np.put_along_axis(scores, ids, np.where(seen < 0, seen * np.float32(penalty), seen / np.float32(penalty)), axis=1)
    return scores


def keep_top_k(scores: Scores, count: int) -> Scores:
    """All but the ``count`` largest become minus infinity; ties of the last of them stay."""
    count = min(count, scores.shape[1])
    least = np.partition(scores, -count, axis=1)[:, -count, None]
    return np.where(scores < least, np.float32(-np.inf), scores)


def keep_top_p(scores: Scores, part: float) -> Scores:
    """Nucleus sampling (Holtzman et al., 2020): the likeliest that together reach ``part`` stay, at least one."""
    return np.stack([_nucleus(row, part) for row in scores])


def _nucleus(row: Scores, part: float) -> Scores:
    places = np.flatnonzero(row != -np.inf)  # NaN stays, for who draws to find
    weights, rest = softmax(row[places]), 0.0
    if places.size > FEW:  # sorting a vocabulary takes longer than all else: mostly the first of them reach ``part``
        first = weights >= np.partition(weights, -FEW)[-FEW]
        reached = float(weights[first].sum(dtype=np.float64))
        if reached >= part:
            places, weights, rest = places[first], weights[first], 1 - reached
    order = np.argsort(row[places], kind="stable")
    cumulative = np.float32(rest) + np.cumsum(weights[order], dtype=np.float32)
    stay = cumulative > np.float32(1 - part)
    stay[-1:] = True
    kept = np.full_like(row, -np.inf)
    kept[places[order[stay]]] = row[places[order[stay]]]
    return kept


def softmax(scores: Scores) -> Scores:
    """Along the last axis."""
    with np.errstate(under="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float32)


class Sampler:
    """Chooses tokens as ``options`` say. Each row draws from a stream of its own."""

    def __init__(self, options: Options, rows: int) -> None:
        self.options = options
        seed = int(np.random.default_rng().integers(2**63)) if options.seed is None else options.seed
        self._streams = [np.random.default_rng([seed, row]) for row in range(rows)]

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is chosen, whatever came before: that needs no logits here."""
        o = self.options
        return not o.do_sample and o.repetition_penalty == 1 and not (o.min_new_tokens and o.eos_token_id)

    def scores(self, logits: Scores, ids: Ids, new: int) -> Scores:
        """``logits`` after every processor, given all tokens so far (batch, sequence), of which ``new`` are written."""
        o = self.options
        scores = logits if o.repetition_penalty == 1 else penalize(logits, ids, o.repetition_penalty)
        if new < o.min_new_tokens:
            ends = [token for token in o.eos_token_id if 0 <= token < scores.shape[1]]
            scores = scores.copy()
            scores[:, ends] = -np.inf
        if not o.do_sample:
            return scores
        if o.temperature < COLD:  # only differences count, and those of the likeliest must not be infinite
            scores = scores - scores.max(axis=1, keepdims=True)
        if o.temperature != 1:
            with np.errstate(over="ignore"):
                scores = scores / max(np.float32(o.temperature), np.finfo(np.float32).tiny)
        if o.top_k:
            scores = keep_top_k(scores, o.top_k)
        return scores if o.top_p == 1 else keep_top_p(scores, o.top_p)

    def choose(self, logits: Scores, ids: Ids, new: int) -> Ids:
        """The next token of each row: (batch,) int32. Raises TensorCommonsError where there is no number to draw by."""
        scores = self.scores(logits, ids, new)
        if not self.options.do_sample:
            return np.asarray(scores.argmax(axis=1), np.int32)
        chosen = []
        for row, stream in zip(scores, self._streams, strict=True):
            if not row.max() < np.inf:  # nor if one is NaN
                raise TensorCommonsError("the model's scores are NaN or infinite: no token can be drawn by them")
            possible = np.flatnonzero(row > -np.inf)
            weights = np.cumsum(softmax(row[possible]), dtype=np.float64)
            chosen.append(possible[np.searchsorted(weights, stream.random() * weights[-1], side="right")])
        return np.array(chosen, np.int32)
