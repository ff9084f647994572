"""Choose the next token: the most likely one, or a sample from the tokens that top-k, top-p and so on keep.

Scores are float32 (batch, vocabulary). After the processors of ``logits_process.py`` they are filtered in NumPy, in the
order of ``transformers``: temperature, top-h, top-k, top-p, min-p, typical, epsilon, eta, renormalization. Filters keep
``least`` tokens or more: one, with beams so many that one remains beside all end tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import TensorCommonsError
from ..ops.choosing import NOT_A_NUMBER, Scores, draw, keep_min_p, keep_top_k, keep_top_p, only, softmax, temper, within
from .decode_programs import LOGITS, Choice
from .generation_options import Options
from .logits_process import Ids, Processor, Prompt, build, renormalize

TOP_H_TOKENS = 100  # tokens: top-h keeps some of so many of the most likely ones


def keep_top_h(scores: Scores, part: float, least: int = 1) -> Scores:
    """Keep the most likely tokens whose entropy is at most ``part`` of the total (https://arxiv.org/abs/2509.02510).

    Both entropies are those of the 100 most likely tokens. Of these filters only this one ignores ``least``.
    """
    count = min(TOP_H_TOKENS, scores.shape[1])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    terms = _entropy_terms(np.take_along_axis(scores, order, axis=1))
    stays = np.cumsum(terms, axis=1) <= terms.sum(axis=1, keepdims=True) * np.float32(part)
    return _kept_in_order(scores, order, stays)


def keep_typical(scores: Scores, mass: float, least: int = 1) -> Scores:
    """Keep typical tokens (Meister et al., 2022, https://arxiv.org/abs/2202.00666).

    These are the tokens whose information is nearest to the entropy, as many as reach probability ``mass``.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = softmax(scores)
        information = -np.log(weights)
        distance = np.abs(information - _entropy_terms(scores).sum(axis=1, keepdims=True))
    order = np.argsort(distance, axis=1, kind="stable")
    ordered = np.take_along_axis(distance, order, axis=1)
    reached = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1, dtype=np.float32)
    last = np.minimum((reached < np.float32(mass)).sum(axis=1, keepdims=True), scores.shape[1] - 1)
    stays = ~(ordered > np.take_along_axis(ordered, last, axis=1))
    return _kept_in_order(scores, order, stays, least)


def keep_epsilon(scores: Scores, cutoff: float, least: int = 1) -> Scores:
    """Keep tokens with a probability of at least ``cutoff`` (Hewitt et al., 2022, https://arxiv.org/abs/2210.15191)."""
    return only(scores, (softmax(scores) >= np.float32(cutoff)) | within(scores, least))


def keep_eta(scores: Scores, cutoff: float, least: int = 1) -> Scores:
    """Keep tokens as :func:`keep_epsilon`, with a lower cutoff if the entropy is high (the same paper)."""
    entropy = _entropy_terms(scores).sum(axis=1, keepdims=True)
    lowered = np.minimum(np.float32(cutoff), np.sqrt(np.float32(cutoff)) * np.exp(-entropy))
    return only(scores, (softmax(scores) >= lowered) | within(scores, least))


def _entropy_terms(scores: Scores) -> Scores:
    """Return ``-p log p`` of each token, 0 for probability 0."""
    weights = softmax(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weights > 0, -weights * np.log(weights), np.float32(0))


def _kept_in_order(
    scores: Scores,
    order: np.ndarray[Any, np.dtype[np.int_]],
    stays: np.ndarray[Any, np.dtype[np.bool_]],
    least: int = 1,
) -> Scores:
    """Keep the tokens of ``order`` (batch, tokens) that ``stays`` selects, and the first ``least`` ones."""
    stays[:, :least] = True
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, order, stays, axis=1)
    return only(scores, kept)


#: Option -> (a test of whether a value has an effect, the filter), in the order of application.
WARPERS: dict[str, tuple[Callable[[float], bool], Callable[[Scores, Any, int], Scores]]] = {
    "top_h": (lambda value: True, keep_top_h),
    "top_k": (lambda value: value > 0, keep_top_k),
    "top_p": (lambda value: value < 1, keep_top_p),
    "min_p": (lambda value: True, keep_min_p),
    "typical_p": (lambda value: value < 1, keep_typical),
    "epsilon_cutoff": (lambda value: 0 < value < 1, keep_epsilon),
    "eta_cutoff": (lambda value: 0 < value < 1, keep_eta),
}


ON_DEVICES = {"top_k", "top_p", "min_p"}  # the filters that a device applies, too
TEMPERATURES = 1e-30, 1e30  # a colder or hotter one gives the same tokens
AT_ONCE = 64  # steps whose random numbers are made together


class Sampler:
    """Choose the tokens of one generation by its ``options``.

    Raises:
        TensorCommonsError: an option names a token outside the vocabulary.
    """

    def __init__(self, options: Options, rows: int, prompt: Prompt, vocab_size: int) -> None:
        self.options = options
        seed = int(np.random.default_rng().integers(2**63)) if options.seed is None else options.seed
        self._key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self._rows, self._prompt, self._vocab_size = rows, prompt.length, vocab_size
        self._numbers: tuple[int, Scores] = (-1, np.empty((rows, 0), np.float32))
        self._processors: list[Processor] = build(options, prompt, vocab_size)
        self._least = max(2, 1 + len(options.eos_token_id)) if options.num_beams > 1 else 1
        set_ones = {name: getattr(options, name) for name in WARPERS if getattr(options, name) is not None}
        self._filters = {
            name: value for name, value in set_ones.items() if options.do_sample and WARPERS[name][0](value)
        }

    def choice(self, *, samples: bool) -> Choice:
        """Return what a step does with its logits: whether a device chooses, one that ``samples`` or not, or the host.

        Every device takes the likeliest token of unchanged logits. One that ``samples`` applies the repetition penalty,
        the temperature and the filters :data:`ON_DEVICES`, too. With any other option that has an effect, the host
        chooses from the logits; it does with beams.
        """
        if self.options.num_beams > 1:
            return LOGITS
        penalizes = self.options.repetition_penalty != 1
        if len(self._processors) > penalizes or not self._filters.keys() <= ON_DEVICES:
            return LOGITS
        if self.options.output_logprobs or (not samples and (penalizes or self.options.do_sample)):
            return LOGITS
        return Choice("sample" if self.options.do_sample else "likeliest", penalizes)

    def inputs(self, choice: Choice, width: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the inputs of ``choice`` for the step after ``width`` tokens; see :class:`Choice`."""
        o = self.options
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        if choice.kind == "sample":
            filters = np.clip(o.temperature, *TEMPERATURES), min(o.top_k, self._vocab_size), o.top_p, o.min_p or 0, 0
            arrays["settings"] = np.tile(np.array(filters, np.float32), (self._rows, 1))
            arrays["settings"][:, 4] = self.numbers(width)
        if choice.penalizes:
            arrays["penalty"] = np.full(self._rows, o.repetition_penalty, np.float32)
        return arrays

    def numbers(self, width: int) -> Scores:
        """Return a random number from 0 to below 1 for each row, for the token after ``width`` tokens.

        It is a function of the seed, the row and the number of new tokens alone: a multiple of 2**-24.
        """
        block, step = divmod(max(width - self._prompt, 0), AT_ONCE)
        if self._numbers[0] != block:
            bits = np.random.Philox(key=self._key, counter=[0, block, 0, 0]).random_raw(self._rows * AT_ONCE)
            numbers = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
            self._numbers = block, numbers.reshape(self._rows, AT_ONCE)
        return self._numbers[1][:, step]

    def several(self, step: int, prompts: int, count: int) -> Scores:
        """Return ``count`` random numbers, from 0 to below 1, for each prompt: those of the new token ``step``.

        They are a function of the seed, the prompt's number and the step alone: multiples of 2**-24.
        """
        counters = ([0, step, prompt, 1] for prompt in range(prompts))
        bits = np.stack([np.random.Philox(key=self._key, counter=each).random_raw(count) for each in counters])
        return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)

    def scores(self, logits: Scores, ids: Ids) -> Scores:
        """Apply every processor and filter to ``logits``, given all tokens so far (batch, sequence)."""
        o, scores = self.options, logits
        for process in self._processors:
            scores = process(ids, scores)
        if o.do_sample:
            if o.temperature != 1:
                scores = temper(scores, o.temperature)
            for name, value in self._filters.items():
                scores = WARPERS[name][1](scores, value, self._least)
        return renormalize(ids, scores) if o.renormalize_logits else scores

    def logprobs(self, logits: Scores, ids: Ids, chosen: Ids) -> Scores:
        """Return the logarithm of the probability of each row's ``chosen`` token, after processors and filters."""
        with np.errstate(invalid="ignore"):
            scores = renormalize(ids, self.scores(logits, ids))
        return np.take_along_axis(scores, chosen[:, None], axis=1)[:, 0]

    def choose(self, logits: Scores, ids: Ids) -> Ids:
        """Choose the next token of each row: (batch,) int32.

        Raises:
            TensorCommonsError: tokens are sampled, and scores are NaN or infinite, or the options exclude every token.
        """
        with np.errstate(invalid="ignore"):  # NaN is reported below
            scores = self.scores(logits, ids)
        if not self.options.do_sample:
            return np.asarray(scores.argmax(axis=1), np.int32)
        chosen = draw(scores, self.numbers(ids.shape[1]))
        if (chosen == NOT_A_NUMBER).any():
            if (scores == -np.inf).all(axis=1).any():
                raise TensorCommonsError("the options exclude every token, so none can be sampled: relax them")
            raise TensorCommonsError(
                "the model's scores are NaN or infinite, so no token can be sampled: "
                "its weights are damaged, or a value overflowed"
            )
        return chosen
