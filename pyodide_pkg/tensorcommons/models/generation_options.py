"""Options of text generation: the fields of ``transformers.GenerationConfig``, each supported, inert or refused.

The fields of :class:`Options` are supported. :data:`INERT` lists those that do not change the generated tokens, and
:data:`REFUSED` those that would but are not supported: requesting one is an error that names it. docs/generation.md has
the same table; a test compares both with each other and with the class of ``transformers``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from ..errors import TensorCommonsError, quoted, shown

logger = logging.getLogger(__name__)

FILE = "generation_config.json"
DEFAULT_NEW_TOKENS = 256
MOST_SEQUENCES = 1 << 16  # rows of one prompt: they are allocated before the size of the cache is checked
LARGEST = float(np.finfo(np.float32).max)
Biases: TypeAlias = "tuple[tuple[tuple[int, ...], float], ...]"

#: Field -> the reason why it has no effect.
INERT: dict[str, str] = {
    **dict.fromkeys(
        ("use_cache", "cache_config", "max_cache_len", "low_memory", "prefill_chunk_size"),
        "the key/value cache is always on the device, and grows",
    ),
    **dict.fromkeys(
        ("compile_config", "disable_compile", "continuous_batching_config"), "programs are always compiled"
    ),
    **dict.fromkeys(
        ("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
        "ignored without `return_dict_in_generate`, as in `transformers`",
    ),
    "diversity_penalty": "for beams in groups only",
    **dict.fromkeys(
        (
            *("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
            *("assistant_early_exit", "assistant_lookbehind"),
            *("target_lookbehind", "assistant_ensemble_weight", "speculation_type"),
        ),
        "assisted generation gives the same tokens, faster",
    ),
    "transformers_version": "metadata",
    "_from_model_config": "metadata",
    "task_specific_params": "ignored by `transformers` from version 5 on",
}

CACHES = (
    *("static", "offloaded_static", "sliding_window", "hybrid", "hybrid_chunked", "offloaded_hybrid"),
    *("offloaded_hybrid_chunked", "dynamic", "offloaded", "paged"),
)


def _is_contrastive(value: Any, values: Mapping[str, Any]) -> bool:
    top_k = values.get("top_k", 50)
    asked = _is_number(value) and value > 0 and (not _is_number(top_k) or top_k > 1)
    return asked and values.get("do_sample") is not True and not _has_beams(values)


def _has_beams(values: Mapping[str, Any]) -> bool:
    return _plain(values.get("num_beams")) not in (None, 1)


#: Field -> (the feature, a test of whether its value requests the feature, given all values). ``None`` never does.
REFUSED: dict[str, tuple[str, Callable[[Any, Mapping[str, Any]], bool]]] = {
    "num_beam_groups": ("beam search in groups", lambda value, values: value != 1 and _has_beams(values)),
    "constraints": ("constrained beam search", lambda value, _: True),
    "force_words_ids": ("constrained beam search", lambda value, _: True),
    "penalty_alpha": ("contrastive search", _is_contrastive),
    "dola_layers": ("DoLa decoding", lambda _, values: not _has_beams(values)),
    "use_mtp": ("multi-token prediction", lambda value, _: value is not False),
    "is_assistant": ("drafting for another model", lambda value, _: value is not False),
    "guidance_scale": ("classifier-free guidance", lambda value, _: value != 1),
    "watermarking_config": ("watermarks", lambda value, _: True),
    "token_healing": ("token healing", lambda value, _: value is not False),
    "return_dict_in_generate": ("results beside the tokens", lambda value, _: value is not False),
    "cache_implementation": ("a quantized cache", lambda value, _: value not in CACHES),
    # Arguments of `generate` that are functions or models; `transformers` rejects them in a file, too.
    **dict.fromkeys(
        (
            *("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "assistant_model", "streamer"),
            *("synced_gpus", "negative_prompt_ids", "negative_prompt_attention_mask"),
        ),
        ("an object that generation calls", lambda value, _: True),
    ),
}
#: Refused only in a call: in a file it is a setting of the library that wrote the file.
ONLY_IN_CALLS = ("return_dict_in_generate",)
#: Supported options that a file does not have.
OF_CALLS = ("seed", "output_logprobs")
#: Options without effect unless tokens are sampled, and the values that mean "not set".
SAMPLING: dict[str, float | None] = {
    **dict.fromkeys(("temperature", "top_p", "typical_p"), 1),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff"), 0),
    **dict.fromkeys(("min_p", "top_h")),
    "top_k": 50,
}
#: Option -> its value for a negative number in a file, which older files have for "none". In a call it is an error.
BELOW_ZERO: dict[str, int | None] = {"min_length": 0, "min_new_tokens": 0, "pad_token_id": None}
BEAMS = {"early_stopping": False, "length_penalty": 1}


@dataclass(frozen=True)
class Options:
    """Options of one generation, with the names and semantics of ``transformers.GenerationConfig``.

    Lengths are in tokens and include the prompt, except ``max_new_tokens`` (which takes precedence over ``max_length``;
    256 if neither is set) and ``min_new_tokens``. ``do_sample=False`` takes the most likely token; the options from
    ``temperature`` to ``eta_cutoff`` and ``seed`` apply to sampled tokens. The same seed samples the same tokens,
    independently for each row of a batch. A row ends at an ``eos_token_id`` (one or several) or when its text contains
    one of ``stop_strings``, and is padded with ``pad_token_id``. More than one of ``num_beams`` search the likeliest
    texts (see beams.py), ``prompt_lookup_num_tokens`` drafts tokens from the text so far (see lookup.py).
    docs/generation.md explains each option.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int | None = None
    min_length: int = 0
    max_time: float | None = None
    stop_strings: tuple[str, ...] = ()
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float | None = None
    top_h: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    sequence_bias: Biases = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    exponential_decay_length_penalty: tuple[int, float] | None = None
    remove_invalid_values: bool = False
    renormalize_logits: bool = False
    num_return_sequences: int = 1
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int = 2
    output_logprobs: bool = False
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    bos_token_id: tuple[int, ...] = ()
    decoder_start_token_id: tuple[int, ...] = ()
    seed: int | None = None

    @classmethod
    def of(cls, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Options:
        """Merge the options ``given`` in a call with the ``defaults`` of a file.

        A null in a file means the default of this class; ``None`` in a call disables the option of the file.

        Raises:
            TensorCommonsError: an option is unknown, of a wrong type, out of range, or not supported.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(given) - known - set(INERT) - set(REFUSED)):
            names = ", ".join(sorted(known))
            raise TensorCommonsError(f"unknown option {shown(', '.join(unknown))}; options: {names}")
        stated = {name: value for name, value in defaults.items() if value is not None and name not in OF_CALLS}
        for name, off in BELOW_ZERO.items():
            if type(value := stated.get(name)) is int and value < 0:
                stated[name] = off
        values = {**stated, **given}
        for name, (what, is_asked) in REFUSED.items():
            value = values.get(name)
            if value is not None and (name in given or name not in ONLY_IN_CALLS) and is_asked(value, values):
                raise TensorCommonsError(_refusal(name, value, what, in_call=name in given))
        wanted: dict[str, Any] = {}
        for name in known & values.keys():
            value = values[name]
            try:
                if value is not None:
                    wanted[name] = READERS[name](value)
                elif name == "top_k":
                    wanted[name] = 0
            except (TypeError, ValueError, OverflowError) as error:
                where = "" if name in given else f" in the model's {FILE} or config.json"
                raise TensorCommonsError(f"{name}{where} must be {error}, not {quoted(value)}") from None
        options = cls(**wanted)
        options.check()
        for message in _remarks(given, options):
            _warn_once(message)
        return options

    def check(self) -> None:
        """Raise TensorCommonsError for values that are out of range, alone or together."""
        if self.do_sample:
            for name, fits, allowed in DRAWN:
                value = getattr(self, name)
                if value is not None and not fits(value):
                    raise TensorCommonsError(f"{name} must be {allowed}, not {quoted(value)}")
        elif self.num_return_sequences > 1 and self.num_beams == 1:
            raise TensorCommonsError(
                f"num_return_sequences={self.num_return_sequences} needs do_sample=True or num_beams: "
                "otherwise all sequences are the same"
            )
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise TensorCommonsError(
                f"num_return_sequences={self.num_return_sequences} must be at most num_beams, which is {self.num_beams}"
            )
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            value = getattr(self, name)
            tokens = {value} if isinstance(value, int) else set(value or ())
            if tokens and tokens <= set(self.suppress_tokens):
                raise TensorCommonsError(
                    f"{name} {quoted(sorted(tokens)[:9])} is also in suppress_tokens: no token would remain"
                )

    @property
    def copies(self) -> int:
        """Rows that each prompt has during the generation."""
        return max(self.num_beams, self.num_return_sequences)

    @property
    def padding(self) -> int:
        """Padding token for finished rows."""
        return self.pad_token_id if self.pad_token_id is not None else (self.eos_token_id or (0,))[0]


# --- readers: convert a value of a call or a file; a ValueError or TypeError states the allowed values ---


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """Convert NumPy numbers and arrays to Python numbers and lists."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _whole(least: int | None = None, most: int | None = None) -> Callable[[Any], int]:
    end = "" if most is None else f" to {most:,}"

    def read(value: Any) -> int:
        value = _plain(value)
        if type(value) is not int or (least is not None and value < least) or (most is not None and value > most):
            raise ValueError("an integer" + ("" if least is None else f" from {least}{end}"))
        return value

    return read


def _number(name: str, fits: Callable[[float], bool]) -> Callable[[Any], float]:
    """Return a reader of numbers that float32 can represent."""

    def read(value: Any) -> float:
        value = _plain(value)
        if not (_is_number(value) and abs(value) <= LARGEST and fits(value)):
            raise ValueError(name)
        return float(value)

    return read


def _truth(value: Any) -> bool:
    value = _plain(value)
    if type(value) is not bool:
        raise ValueError("True or False")
    return value


def _early_stopping(value: Any) -> bool | str:
    value = _plain(value)
    if type(value) is not bool and not (isinstance(value, str) and value == "never"):
        raise ValueError('True, False or "never"')
    return value


def _tokens(least: int | None = 0) -> Callable[[Any], tuple[int, ...]]:
    """Return a reader of one token id, or several."""

    def read(value: Any) -> tuple[int, ...]:
        value = _plain(value)
        several = tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else (value,)
        if any(type(token) is not int or (least is not None and token < least) for token in several):
            up = "" if least is None else f" from {least}"
            raise ValueError(f"a token id or a list of token ids, which are integers{up}")
        return several

    return read


def _strings(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if (not texts and value not in ([], ())) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("a non-empty string, or a list of these")
    return texts


def _sequences(value: Any) -> tuple[tuple[int, ...], ...]:
    read = _tokens()
    value = _plain(value)
    if (
        not isinstance(value, (list, tuple))
        or not value
        or not all(isinstance(_plain(row), (list, tuple)) for row in value)
    ):
        raise ValueError("a non-empty list of lists of token ids")
    return tuple(read(row) for row in value)


def _biases(value: Any) -> Biases:
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, (list, tuple)) or not pairs or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], (list, tuple)) and pair[0]
        for pair in pairs
    ):  # fmt: skip
        raise ValueError("a non-empty dict of tuples of token ids to numbers, or a list of [token ids, number]")
    read = _tokens()
    for _, bias in pairs:
        if not _is_number(bias) or math.isnan(bias):
            raise ValueError("a number for each sequence of token ids")
    return tuple({read(tokens): float(bias) for tokens, bias in pairs}.items())


def _decay(value: Any) -> tuple[int, float]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError("a pair (start in tokens, factor)")
    return _whole()(value[0]), _number("a pair (an integer, a number)", lambda _: True)(value[1])


_any, _above_zero = _number("a number", lambda _: True), _number("a number above 0", lambda value: value > 0)
READERS: dict[str, Callable[[Any], Any]] = {
    "max_new_tokens": _whole(1),
    **dict.fromkeys(("num_return_sequences", "num_beams", "prompt_lookup_num_tokens"), _whole(1, MOST_SEQUENCES)),
    "max_matching_ngram_size": lambda value: _whole(0)(value) or 2,
    "early_stopping": _early_stopping,
    **dict.fromkeys(("max_length", "min_new_tokens", "min_length", "seed", "pad_token_id"), _whole(0)),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "top_k"), _whole()),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), _above_zero),
    **dict.fromkeys(("temperature", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"), _any),
    **dict.fromkeys(("do_sample", "remove_invalid_values", "renormalize_logits", "output_logprobs"), _truth),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens", "bos_token_id", "eos_token_id"), _tokens(None)),
    **dict.fromkeys(("forced_eos_token_id", "decoder_start_token_id"), _tokens()),
    "forced_bos_token_id": _whole(0),
    **dict.fromkeys(("max_time", "length_penalty"), _any),
    "stop_strings": _strings,
    "bad_words_ids": _sequences,
    "sequence_bias": _biases,
    "exponential_decay_length_penalty": _decay,
}
#: Ranges of the options for sampled tokens. Other values of the cutoffs, and a mass of 1 or more, disable them.
DRAWN: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("temperature", lambda value: value > 0, "a number above 0 (for the most likely token pass do_sample=False)"),
    ("top_k", lambda value: value >= 0, "an integer from 0 (off)"),
    ("top_p", lambda value: value >= 0, "a number from 0 to 1"),
    ("min_p", lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    ("top_h", lambda value: 0 < value <= 1, "a number above 0, up to 1"),
    ("typical_p", lambda value: value > 0, "a number above 0, up to 1"),
)


# --- messages ---


def _refusal(name: str, value: Any, what: str, *, in_call: bool) -> str:
    where = "this call" if in_call else f"the model's {FILE} or config.json"
    remedy = "leave it out" if in_call else f"pass {name}=None to generate without it"
    return f"{name}={quoted(value)} in {where} requests {what}, which is not supported: {remedy}"


def _remarks(given: Mapping[str, Any], options: Options) -> list[str]:
    """List warnings about options without effect, as ``transformers`` does."""

    def changed(defaults: Mapping[str, Any]) -> str:
        return ", ".join(n for n, default in defaults.items() if given.get(n) is not None and given[n] != default)

    sampling, beams = changed(SAMPLING), changed(BEAMS)
    outputs = ", ".join(name for name in INERT if name.startswith("output_") and given.get(name) is True)
    ends = list(options.eos_token_id)
    remarks = {
        f"{sampling}: without effect unless do_sample=True": sampling and not options.do_sample,
        f"{beams}: without effect unless num_beams is above 1": beams and options.num_beams == 1,
        f"{outputs}: without effect, since generate() returns the tokens": outputs,
        "max_new_tokens and max_length are both set: max_new_tokens is used": (
            options.max_new_tokens is not None and options.max_length is not None
        ),
        "min_new_tokens and min_length are both set: min_new_tokens is used": (
            options.min_new_tokens is not None and options.min_length
        ),
        f"eos_token_id {quoted(ends[:9])}: a negative number matches no token": any(token < 0 for token in ends),
    }
    return [remark for remark, applies in remarks.items() if applies]


@lru_cache(256)
def _warn_once(message: str) -> None:
    logger.warning(message)
