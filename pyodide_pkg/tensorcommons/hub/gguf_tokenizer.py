"""The tokenizer in a GGUF file's metadata, as the files ``tokenizer.json`` and ``tokenizer_config.json``.

The metadata has the tokens with their types, and for byte-level BPE its merges and the name of the expression that
splits texts; for SentencePiece's BPE the score of each piece, from which the merges follow; for WordPiece the words,
with the mark of a word's beginning in place of that of its continuation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bridge.runtime import in_slices
from ..errors import InvalidWeights, quoted

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of tokens
SPACE = "\u2581"  # stands for a space in SentencePiece, and for the beginning of a word
LONGEST = 256  # characters of a piece of SentencePiece, whose merges are searched in all its divisions
MOST = 8_000_000  # characters of all pieces; those of 262,144 have 2 million
EVERY = 256  # pieces that are divided before the event loop may get a turn

_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Split:
    """Rule that splits texts before byte-level BPE: ``pattern``, or GPT-2's, with ``digits`` split one by one.

    With ``whole`` a part that is a token is not divided (``ignore_merges``); ``composed`` texts are normalized to NFC;
    ``begins`` is the default of ``add_bos_token``.
    """

    pattern: str = ""
    digits: bool = False
    whole: bool = False
    composed: bool = False
    begins: bool = False


LLAMA3 = Split(rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_OTHERS}", whole=True, begins=True)
QWEN2 = Split(rf"{_ENDINGS}|{_WORDS}|\p{{N}}|{_OTHERS}", composed=True)
#: By ``tokenizer.ggml.pre``.
SPLITS: dict[str, Split] = {
    "gpt-2": Split(),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), Split(digits=True)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), QWEN2),
}
SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # spelled so
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}


class GgufTokenizer:
    """The tokenizer of the metadata ``values`` of ``file``. ``models`` are those that its architecture supports."""

    def __init__(self, values: Mapping[str, Any], file: str, models: tuple[str, ...]) -> None:
        self.values = values
        self.file = file
        self.models = models

    async def tokenizer(self) -> bytes:
        """Make ``tokenizer.json``. Raises InvalidWeights for a tokenizer that is damaged or not supported."""
        return await in_slices(self._steps())

    async def options(self) -> bytes:
        """Make ``tokenizer_config.json``. Raises as :meth:`tokenizer`."""
        kind, tokens = self._model, self._tokens
        table: dict[str, Any] = {
            "tokenizer_class": "BertTokenizer" if kind == "bert" else "PreTrainedTokenizerFast",
            "added_tokens_decoder": {},
            **{name: tokens[number] for name in SPECIAL if (number := self._special(name)) is not None},
        }
        if kind != "bert":
            table["model_input_names"] = ["input_ids", "attention_mask"]
        if chats := self._chats():
            table["chat_template"] = chats
        return json.dumps(table).encode()

    def _steps(self) -> Generator[None, None, bytes]:
        kind = self._model
        make = {"gpt2": self._byte_bpe, "llama": self._sentence_piece, "bert": self._word_piece}[kind]
        table = yield from make()
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        tokens = list(map(_word, self._tokens, self._types)) if kind == "bert" else self._tokens
        added = [
            {"id": number, "content": token, **flags, "special": of != USER_DEFINED}
            for number, (token, of) in enumerate(zip(tokens, self._types, strict=True))
            if of == CONTROL
            or (of == USER_DEFINED and not (kind == "llama" and _is_spaces(token)))
            or (of == UNKNOWN and kind != "gpt2")
        ]
        yield
        whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **table}
        return json.dumps(whole).encode()

    # --- models ---

    def _byte_bpe(self) -> Generator[None, None, dict[str, Any]]:
        name = self.values.get("tokenizer.ggml.pre")
        split = SPLITS.get(name) if isinstance(name, str) else None
        if split is None:
            raise self._bad(
                f"tokenizer.ggml.pre {quoted(name)}, how texts are split, is not one of {', '.join(SPLITS)}: load the "
                "model with tokenizer=False and its tokens, or from its folder with tokenizer.json"
            )
        merges = self.values.get("tokenizer.ggml.merges")
        if not isinstance(merges, list):
            raise self._bad("tokenizer.ggml.merges, the merges of BPE, are missing")
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": not split.pattern}
        parts: list[dict[str, Any]] = [{"type": "Digits", "individual_digits": True}] * split.digits
        if split.pattern:
            parts = [{"type": "Split", "pattern": {"Regex": split.pattern}, "behavior": "Isolated", "invert": False}]
        yield
        return {
            "normalizer": {"type": "NFC"} if split.composed else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*parts, level]},
            "post_processor": self._ends(begins=split.begins),
            "decoder": level,
            "model": {
                "type": "BPE",
                "vocab": self._vocabulary,
                "merges": merges,
                "byte_fallback": False,
                "ignore_merges": split.whole,
            },
        }

    def _sentence_piece(self) -> Generator[None, None, dict[str, Any]]:
        # As in `transformers`, several spaces that are one token are divided and merged like words, before all others.
        tokens = [token.replace(" ", SPACE) if _is_spaces(token) else token for token in self._tokens]
        types = [NORMAL if _is_spaces(token) else of for token, of in zip(self._tokens, self._types, strict=True)]
        vocabulary = {
            token: number for number, (token, of) in enumerate(zip(tokens, types, strict=True)) if of != UNUSED
        }
        scores = self.values.get("tokenizer.ggml.scores")
        if not isinstance(scores, np.ndarray) or scores.shape != (len(self._tokens),):
            raise self._bad(f"tokenizer.ggml.scores must be {len(self._tokens):,} numbers, one for each token")
        pieces = list(dict.fromkeys(token for token, of in zip(tokens, types, strict=True) if of == NORMAL))
        if max(map(len, pieces), default=0) > LONGEST or sum(map(len, pieces)) > MOST:
            raise self._bad(
                f"tokenizer.ggml.tokens has pieces of more than {LONGEST} characters, or of {MOST:,} together"
            )
        merges: list[tuple[float, str, str]] = []
        for number, piece in enumerate(pieces):
            score = math.inf if _is_spaces(self._tokens[vocabulary[piece]]) else float(scores[vocabulary[piece]])
            divided = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
            known = [pair for pair in divided if pair[0] in vocabulary and pair[1] in vocabulary]
            known.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
            merges += [(score, *pair) for pair in known]
            if len(merges) > MOST // 2:
                raise self._bad(f"tokenizer.ggml.tokens has pieces of more than {MOST // 2:,} pairs of others")
            if number % EVERY == 0:
                yield
        # As in `transformers`: by score, and of equal ones the longer parts first.
        merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
        yield
        unknown = self._special("unk_token")
        prefixed = self._flag("add_space_prefix", default=True)
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] * prefixed
        return {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [*[{"type": "Prepend", "prepend": SPACE}] * prefixed, spaces],
            },
            "pre_tokenizer": None,
            "post_processor": self._ends(begins=True),
            "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
            "model": {
                "type": "BPE",
                "vocab": vocabulary,
                "merges": [[left, right] for _, left, right in merges],
                "unk_token": None if unknown is None else self._tokens[unknown],
                "fuse_unk": True,
                "byte_fallback": True,
            },
        }

    def _word_piece(self) -> Generator[None, None, dict[str, Any]]:
        words = dict(zip(map(_word, self._tokens, self._types), range(len(self._tokens)), strict=True))
        yield
        ends = {
            name: self._first(f"{name}_token", other) for name, other in (("cls", "bos_token"), ("sep", "eos_token"))
        }
        unknown = self._first("unk_token") if self._special("unk_token") is not None else "[UNK]"
        if unknown not in words:
            raise self._bad("tokenizer.ggml.unknown_token_id is missing")
        lowers = not any(
            word != word.lower() for word, of in zip(self._tokens, self._types, strict=True) if of == NORMAL
        )
        return {
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": lowers,  # no field states it: of a vocabulary without capitals
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "BertProcessing",
                **{name: [token, words[token]] for name, token in ends.items()},
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": unknown,
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": words,
            },
        }

    def _ends(self, *, begins: bool) -> dict[str, Any] | None:
        """Return the processor that adds the tokens at the beginning and the end of each text, if there are any."""
        names = {
            "bos_token": self._flag("add_bos_token", default=begins),
            "eos_token": self._flag("add_eos_token", default=False),
        }
        tokens = {name: self._first(name) for name, adds in names.items() if adds}
        if not tokens:
            return None

        def around(text: str, kind: int) -> list[dict[str, Any]]:
            special = {name: [{"SpecialToken": {"id": token, "type_id": kind}}] for name, token in tokens.items()}
            middle = {"Sequence": {"id": text, "type_id": kind}}
            return [*special.get("bos_token", []), middle, *special.get("eos_token", [])]

        ids = {token: self._special(name) for name, token in tokens.items()}
        return {
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": [*around("A", 0), *around("B", 1)],
            "special_tokens": {
                token: {"id": token, "ids": [number], "tokens": [token]} for token, number in ids.items()
            },
        }

    # --- fields ---

    @property
    def _model(self) -> str:
        kind = self.values.get("tokenizer.ggml.model")
        if not isinstance(kind, str) or kind not in self.models:
            raise self._bad(
                f"tokenizer.ggml.model {quoted(kind)} is not {' or '.join(self.models)}: load the model with "
                "tokenizer=False and its tokens, or from its folder with tokenizer.json"
            )
        return kind

    @property
    def _tokens(self) -> list[str]:
        tokens = self.values.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, list) or not tokens:
            raise self._bad("tokenizer.ggml.tokens must be an array of strings")
        return tokens

    @property
    def _types(self) -> list[int]:
        types = self.values.get("tokenizer.ggml.token_type")
        if types is None:
            return [NORMAL] * len(self._tokens)
        if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or types.shape != (len(self._tokens),):
            raise self._bad(f"tokenizer.ggml.token_type must be {len(self._tokens):,} integers, one for each token")
        numbers: list[int] = types.tolist()
        return numbers

    @property
    def _vocabulary(self) -> dict[str, int]:
        """The id of each token but unused ones; of equal tokens the last, as in llama.cpp."""
        table = zip(self._tokens, range(len(self._tokens)), self._types, strict=True)
        return {token: number for token, number, of in table if of != UNUSED}

    def _special(self, name: str) -> int | None:
        """Return the id of a special token, None if it is not stated."""
        number = self.values.get(f"tokenizer.ggml.{SPECIAL[name]}")
        if number is None:
            return None
        if type(number) is not int or not 0 <= number < len(self._tokens):
            raise self._bad(
                f"tokenizer.ggml.{SPECIAL[name]} {quoted(number)} is not one of {len(self._tokens):,} tokens"
            )
        return number

    def _first(self, *names: str) -> str:
        """Return the first of the special tokens ``names`` that is stated. Raises InvalidWeights if none is."""
        for name in names:
            if (number := self._special(name)) is not None:
                return self._tokens[number]
        raise self._bad(f"tokenizer.ggml.{SPECIAL[names[0]]} is missing")

    def _flag(self, name: str, *, default: bool) -> bool:
        value = self.values.get(f"tokenizer.ggml.{name}", default)
        if type(value) is not bool:
            raise self._bad(f"tokenizer.ggml.{name} must be a boolean, not {quoted(value)}")
        return value

    def _chats(self) -> str | list[dict[str, str]] | None:
        """Return the chat template, or the templates if they have names."""
        key = "tokenizer.chat_template"
        named = {"default": self.values[key]} if key in self.values else {}
        named |= {
            name.removeprefix(f"{key}."): text for name, text in self.values.items() if name.startswith(f"{key}.")
        }
        if any(not isinstance(text, str) for text in named.values()):
            raise self._bad(f"{key} must be a string")
        if list(named) == ["default"]:
            text: str = named["default"]
            return text
        return [{"name": name, "template": text} for name, text in named.items()] or None

    def _bad(self, reason: str) -> InvalidWeights:
        return InvalidWeights(self.file, f"metadata {reason}")


def _is_spaces(token: str) -> bool:
    """Return whether a token is several spaces, which llama.cpp stores as such instead of as those of SentencePiece."""
    return len(token) > 1 and not token.strip(" ")


def _word(token: str, of: int) -> str:
    """Return a token of WordPiece as in ``vocab.txt``: a word as it is, its continuation with "##"."""
    if of not in (NORMAL, USER_DEFINED) or (len(token) > 2 and token[0] == "[" and token[-1] == "]"):
        return token
    return token[1:] if token.startswith(SPACE) else f"##{token}"
