"""What the files beside a model say of its tokenizer: special tokens and where they go, lengths, sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidWeights

if TYPE_CHECKING:
    from .encoding import Ids

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Template:
    """Where the special tokens go. A part is ``(ids, type_id)``, with ``"A"`` or ``"B"`` for a text's own ids."""

    single: tuple[tuple[Any, int], ...]
    pair: tuple[tuple[Any, int], ...]

    def added(self, *, paired: bool) -> int:
        """How many special tokens an input gets."""
        return sum(len(part) for part, _ in (self.pair if paired else self.single) if not isinstance(part, str))

    def sequences(self, first: int, second: int | None) -> Ids:
        """Where each id of an input comes from, of texts of so many ids; see :class:`Encoding`."""
        lengths = {"A": (first, 0), "B": (second or 0, 1)}
        parts = self.single if second is None else self.pair
        pieces = [
            np.full(*(lengths[part] if isinstance(part, str) else (len(part), -1)), np.int32) for part, _ in parts
        ]
        return np.concatenate([np.zeros(0, np.int32), *pieces])

    def apply(self, first: Ids, second: Ids | None) -> tuple[Ids, Ids]:
        """``(ids, type ids)`` of one input."""
        texts = {"A": first, "B": second}
        ids: list[Ids] = [np.zeros(0, np.int32)]
        types: list[Ids] = [np.zeros(0, np.int32)]
        for part, type_id in self.single if second is None else self.pair:
            piece = texts[part] if isinstance(part, str) else np.array(part, np.int32)
            assert piece is not None
            ids.append(piece)
            types.append(np.full(len(piece), type_id, np.int32))
        return np.concatenate(ids), np.concatenate(types)


@dataclass(frozen=True)
class Settings:
    """What the files say about a batch. ``max_length`` None: no limit is stated anywhere.

    ``subword_prefix`` is what marks a token inside a word ("##"), "" where nothing does; with ``metaspace`` the first
    token of a word is marked instead ("▁").
    """

    template: Template
    max_length: int | None
    pad_id: int
    pad_type_id: int
    mask_id: int | None
    pad_left: bool
    truncate_left: bool
    split_han: bool
    lowercase: bool
    cls_id: int | None = None
    unk_id: int | None = None
    subword_prefix: str = ""
    metaspace: bool = False
    special: dict[str, str] = field(default_factory=dict)  # "bos_token" and so on


def read_settings(
    table: dict[str, Any], options: dict[str, Any], config: dict[str, Any], sentence: dict[str, Any], file: str
) -> Settings:
    """What ``tokenizer.json``, ``tokenizer_config.json``, ``config.json`` and ``sentence_bert_config.json`` say.

    Raises ``InvalidWeights(file)`` for a ``tokenizer.json`` with special tokens that cannot be understood.
    """
    limits = (sentence.get("max_seq_length"), options.get("model_max_length"), config.get("max_position_embeddings"))
    stated = [value for value in limits if isinstance(value, int) and value > 0]
    padding = table.get("padding")
    bert = _bert_normalizer(table.get("normalizer"))
    pad_id = _token_id(table, options.get("pad_token"))
    if pad_id is None and isinstance(padding, dict):
        pad_id = padding.get("pad_id")
    if pad_id is None:
        pad_id = config.get("pad_token_id")
    return Settings(
        template=read_template(table.get("post_processor"), file),
        max_length=min(stated, default=None),
        pad_id=pad_id if isinstance(pad_id, int) else 0,
        pad_type_id=int(options.get("pad_token_type_id") or 0),
        mask_id=_token_id(table, options.get("mask_token")),
        pad_left=options.get("padding_side") == "left",
        truncate_left=options.get("truncation_side") == "left",
        split_han=bool(bert.get("handle_chinese_chars")),
        lowercase=bool(bert.get("lowercase")),
        cls_id=_token_id(table, options.get("cls_token")),
        unk_id=_token_id(table, options.get("unk_token")),
        subword_prefix=_subword_prefix(table.get("model")),
        metaspace=_has_part(table.get("pre_tokenizer"), "Metaspace"),
        special={name: text for name in SPECIAL if (text := _content(options.get(name)))},
    )


def read_template(post_processor: object, file: str) -> Template:
    """The ``post_processor`` of ``tokenizer.json`` as a template. Raises ``InvalidWeights``."""
    try:
        return _template(post_processor)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InvalidWeights(file, f"post_processor cannot be understood: {error!r}") from None


def _template(processor: Any) -> Template:
    kind = None if processor is None else processor["type"]
    if kind == "Sequence":
        adding = [part for part in processor["processors"] if part["type"] != "ByteLevel"]
        if len(adding) > 1:
            raise ValueError(f"{len(adding)} processors that add tokens")
        return _template(adding[0] if adding else None)
    if kind is None or kind == "ByteLevel":
        return Template((("A", 0),), (("A", 0), ("B", 1)))
    if kind in ("BertProcessing", "RobertaProcessing"):
        cls, sep = (int(processor["cls"][1]),), (int(processor["sep"][1]),)
        single: tuple[tuple[Any, int], ...] = ((cls, 0), ("A", 0), (sep, 0))
        if kind == "BertProcessing":
            return Template(single, (*single, ("B", 1), (sep, 1)))
        return Template(single, (*single, (sep, 0), ("B", 0), (sep, 0)))
    if kind == "TemplateProcessing":
        special = processor["special_tokens"]
        return Template(_parts(processor["single"], special, "A"), _parts(processor["pair"], special, "AB"))
    raise ValueError(f"type {kind!r} is not known")


def _parts(items: list[Any], special: dict[str, Any], texts: str) -> tuple[tuple[Any, int], ...]:
    parts: list[tuple[Any, int]] = []
    for item in items:
        ((kind, value),) = item.items()
        if kind == "SpecialToken":
            parts.append((tuple(int(number) for number in special[value["id"]]["ids"]), int(value["type_id"])))
        elif kind == "Sequence" and value["id"] in texts:
            parts.append((value["id"], int(value["type_id"])))
        else:
            raise ValueError(f"part {item!r}")
    return tuple(parts)


def _content(token: object) -> str:
    """A token that ``tokenizer_config.json`` gives as a string or as ``{"content": ...}``; "" for none."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _token_id(table: dict[str, Any], token: object) -> int | None:
    """The id of a token that ``tokenizer_config.json`` names, as a string or as ``{"content": ...}``."""
    content = _content(token)
    for added in table.get("added_tokens") or ():
        if isinstance(added, dict) and added.get("content") == content and isinstance(added.get("id"), int):
            return int(added["id"])
    model = table.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    found = vocabulary.get(content) if isinstance(vocabulary, dict) else None
    return found if isinstance(found, int) else None


def _subword_prefix(model: object) -> str:
    prefix = model.get("continuing_subword_prefix") if isinstance(model, dict) else None
    return prefix if isinstance(prefix, str) else ""


def _has_part(processor: object, kind: str) -> bool:
    """Whether a pre-tokenizer is of that type, or a sequence with one that is."""
    if not isinstance(processor, dict):
        return False
    parts = processor.get("pretokenizers")
    return processor.get("type") == kind or any(
        _has_part(part, kind) for part in (parts if isinstance(parts, list) else ())
    )


def _bert_normalizer(normalizer: object) -> dict[str, Any]:
    """The BertNormalizer of ``tokenizer.json``, alone or in a sequence; empty where it has none."""
    if not isinstance(normalizer, dict):
        return {}
    if normalizer.get("type") == "BertNormalizer":
        return normalizer
    return next((found for part in normalizer.get("normalizers") or () if (found := _bert_normalizer(part))), {})
