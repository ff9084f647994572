"""The files that describe a tokenizer, with the precedence of ``transformers``.

- ``tokenizer.json`` is the tokenizer itself. Without it one is built from ``vocab.txt`` (BERT's) or ``vocab.json`` and
  ``merges.txt`` (GPT-2's and RoBERTa's); ``spiece.model`` and ``tokenizer.model`` are refused by name.
- ``tokenizer_config.json`` names special tokens, sides, lengths, and ``added_tokens_decoder`` adds tokens. Without that
  field ``special_tokens_map.json`` names special tokens, too, and ``added_tokens.json`` adds tokens.
- A token that no file names is taken from ``tokenizer.json`` (its unknown token and padding) and from the tokenizer's
  class, which is ``tokenizer_class``, or else ``model_type`` of ``config.json``; a class's token counts if the
  vocabulary has it. ``do_lower_case`` and its like count where they are stated: a class's own default does not change
  ``tokenizer.json``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InvalidWeights, quoted
from .config import parse_json, read_json, read_optional_json
from .streams import FileMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .source import Source

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
OPTIONS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
LOWER = {"do_lower_case": "lowercase", "strip_accents": "strip_accents"}
LOWER["tokenize_chinese_chars"] = "handle_chinese_chars"

_BERT = dict(zip(SPECIAL[2:], ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), strict=True))
_ROBERTA = dict(zip(SPECIAL, ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"), strict=True))
_GPT2 = dict.fromkeys(SPECIAL[:3], "<|endoftext|>")
_T5 = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_ALBERT = {**_BERT, "bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "pad_token": "<pad>"}

#: Special tokens of a tokenizer's class, by its ``model_type`` without punctuation.
CLASSES: dict[str, dict[str, str]] = {
    **dict.fromkeys(("bert", "distilbert", "electra", "mobilebert", "convbert"), _BERT),
    **dict.fromkeys(("roberta", "xlmroberta", "camembert"), _ROBERTA),
    "mpnet": {**_ROBERTA, "unk_token": "[UNK]"},
    "gpt2": _GPT2,
    "t5": _T5,
    "albert": _ALBERT,
}
WITHOUT_TYPES = ("roberta", "xlmroberta", "camembert", "mpnet", "gpt2", "t5", "distilbert")
#: Models whose positions begin after the padding's id, so that fewer tokens fit.
OFFSET_POSITIONS = {"roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 1}


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of a tokenizer.

    ``added`` are tokens to add, in order, each as ``tokenizer.json`` has them; one that is ``named`` is added only
    where the tokenizer does not have it. ``changes`` are options of a BertNormalizer.
    """

    raw: bytes
    name: str  # of the file that `raw` is, for messages
    options: dict[str, Any]
    config: dict[str, Any]
    sentence: dict[str, Any]
    special: dict[str, dict[str, Any] | str]
    added: list[dict[str, Any]]
    changes: dict[str, Any]
    kind: str  # of CLASSES, or ""
    config_name: str


@dataclass(frozen=True)
class Settings:
    """Settings of the files for a batch. ``max_length`` is None where no limit is stated.

    ``subword_prefix`` marks a token inside a word ("##"); it is "" if there is no such mark.
    """

    max_length: int | None
    pad_id: int
    pad_type_id: int
    mask_id: int | None
    pad_left: bool
    truncate_left: bool
    cls_id: int | None = None
    unk_id: int | None = None
    subword_prefix: str = ""
    with_types: bool = True
    special: dict[str, str] = field(default_factory=dict)  # "bos_token" and so on


async def read_files(source: Source, config: dict[str, Any] | None = None) -> TokenizerFiles:
    """Read the files of ``source``, whose ``config.json`` is read unless ``config`` is given.

    Raises ``FileMissingError`` if it has no tokenizer, ``InvalidWeights`` for a file that is damaged.
    """
    options = await read_optional_json(source, "tokenizer_config.json") or {}
    if config is None:
        config = await read_json(source, "config.json")
    sentence: dict[str, Any] | None = None
    if any(str(name).endswith("Model") for name in config.get("architectures") or ()):
        sentence = await read_optional_json(source, "sentence_bert_config.json")
    name = f"{source.name}/tokenizer_config.json"
    stated = options.get("tokenizer_class")
    called = stated if isinstance(stated, str) else f"{config.get('model_type') or ''}"
    kind = re.sub(r"Tokenizer(Fast)?$|[^a-zA-Z0-9]", "", called).lower()
    kind = kind if kind in CLASSES else ""
    special: dict[str, Any] = {key: options[key] for key in SPECIAL if options.get(key) is not None}
    added: dict[int, dict[str, Any]] = {}
    extra = _extra(options, name)
    if "added_tokens_decoder" in options:
        added = _added(options["added_tokens_decoder"], name)
    else:
        stated_map = await _optional(source, "special_tokens_map.json", options)
        special |= {key: stated_map[key] for key in SPECIAL if stated_map.get(key) is not None}
        extra += _extra(stated_map, f"{source.name}/special_tokens_map.json")
        named = set(map(_content, (*special.values(), *extra)))
        for content, number in (await _optional(source, "added_tokens.json", options)).items():
            if type(number) is not int:
                raise InvalidWeights(f"{source.name}/added_tokens.json", f"the id of {quoted(content)} is not a number")
            options_of = {"special": content in named, "normalized": content not in named}
            added[number] = {"content": content, "named": True, **options_of}
    for key, token in special.items():
        if not _content(token):
            raise InvalidWeights(name, f"{key} must be a string or an object with content, not {quoted(token)}")
    tokens = [added[number] for number in sorted(added)]
    tokens += [{**_token(token), "named": True} for token in (*special.values(), *extra)]
    changes = {other: options[key] for key, other in LOWER.items() if options.get(key) is not None}
    for key in LOWER:
        if not isinstance(options.get(key), bool | None):
            raise InvalidWeights(name, f"{key} must be true, false or null, not {quoted(options[key])}")
    raw, file = await _tokenizer_json(source, kind, options, special)
    return TokenizerFiles(
        raw, f"{source.name}/{file}", options, config, sentence or {}, special, tokens, changes, kind, name
    )


def read_settings(
    files: TokenizerFiles, info: Mapping[str, Any], id_of: Callable[[str], int | None], prefix: str = ""
) -> Settings:
    """Return the settings of a batch. ``info`` is the engine's, ``id_of`` returns the id of a token or None.

    Raises ``InvalidWeights`` for a setting of the wrong kind.
    """
    options, config = files.options, files.config
    # As in sentence-transformers, max_seq_length counts in place of model_max_length.
    folder = files.config_name.rpartition("/")[0]
    own = _length(files.sentence, "max_seq_length", f"{folder}/sentence_bert_config.json")
    limits = [own or _length(options, "model_max_length", files.config_name), _positions(config)]
    stated = [int(value) for value in limits if value is not None and 0 < value < float("inf")]
    padding, truncation = info.get("padding") or {}, info.get("truncation") or {}
    names = {key: _content(token) for key, token in files.special.items()}
    if isinstance(info.get("unk_token"), str):
        names.setdefault("unk_token", info["unk_token"])
    if isinstance(padding.get("pad_token"), str) and id_of(padding["pad_token"]) is not None:
        names.setdefault("pad_token", padding["pad_token"])
    for key, token in CLASSES.get(files.kind, {}).items():
        if id_of(token) is not None:
            names.setdefault(key, token)
    ids = {key: id_of(token) for key, token in names.items()}
    pad_id = next((each for each in (ids.get("pad_token"), config.get("pad_token_id")) if type(each) is int), 0)
    pad_type = options.get("pad_token_type_id", padding.get("pad_type_id", 0))
    if type(pad_type) is not int or not 0 <= pad_type < 2**31:
        raise InvalidWeights(
            files.config_name, f"pad_token_type_id must be a whole number from 0, not {quoted(pad_type)}"
        )
    inputs = options.get("model_input_names")
    if inputs is not None and not (isinstance(inputs, list) and all(isinstance(each, str) for each in inputs)):
        raise InvalidWeights(files.config_name, f"model_input_names must be a list of names, not {quoted(inputs)}")
    return Settings(
        max_length=min(stated, default=None),
        pad_id=pad_id,
        pad_type_id=pad_type,
        mask_id=ids.get("mask_token"),
        pad_left=_is_left(options, "padding_side", padding, files.config_name),
        truncate_left=_is_left(options, "truncation_side", truncation, files.config_name),
        cls_id=ids.get("cls_token"),
        unk_id=ids.get("unk_token"),
        subword_prefix=prefix,
        with_types="token_type_ids" in inputs if inputs is not None else files.kind not in WITHOUT_TYPES,
        special=names,
    )


def _length(table: Mapping[str, Any], name: str, file: str) -> float | None:
    """Return a number of tokens, None if it is not stated. Raises ``InvalidWeights`` for anything but a number."""
    value = table.get(name)
    if value is not None and (type(value) not in (int, float) or value != value):
        raise InvalidWeights(file, f"{name} must be a number of tokens, not {quoted(value)}")
    return value


def _is_left(options: Mapping[str, Any], name: str, own: Mapping[str, Any], file: str) -> bool:
    """Return True for the left side; ``own`` is what ``tokenizer.json`` states and is used where the options do not.

    Raises ``InvalidWeights`` for any other value.
    """
    value = options.get(name)
    if value not in (None, "left", "right"):
        raise InvalidWeights(file, f'{name} must be "left" or "right", not {quoted(value)}')
    return (str(own.get("direction")).lower() if value is None else value) == "left"


def _positions(config: Mapping[str, Any]) -> int | None:
    """Return the number of tokens that the model has positions for."""
    most = config.get("max_position_embeddings")
    if type(most) is not int:
        return None
    kind = str(config.get("model_type"))
    pad = config.get("pad_token_id") if kind != "mpnet" else None  # its positions count from 1 whatever that is
    default = OFFSET_POSITIONS.get(kind)
    return most if default is None else most - 1 - (pad if type(pad) is int else default)


async def _optional(source: Source, file: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Read a file of old folders. It is not requested if ``tokenizer_config.json`` names special tokens already and a
    browser would print a 404 in its console: folders of that age have the same tokens in ``tokenizer.json``.
    """
    if not source.is_local and any(options.get(key) for key in SPECIAL):
        return {}
    return await read_optional_json(source, file) or {}


async def _tokenizer_json(
    source: Source, kind: str, options: Mapping[str, Any], special: Mapping[str, Any]
) -> tuple[bytes, str]:
    """Return the bytes of ``tokenizer.json``, or of one built from older files, and the name of the file."""
    try:
        return await source.read("tokenizer.json"), "tokenizer.json"
    except FileMissingError as error:
        missing = error
    names = {**CLASSES.get(kind, {}), **{key: _content(token) for key, token in special.items()}}
    if names.keys() >= _BERT.keys() and CLASSES.get(kind) is _BERT:
        try:
            lines = (await source.read("vocab.txt")).decode("utf-8-sig", "replace")
            return json.dumps(_word_piece(lines, names, options)).encode(), "vocab.txt"
        except FileMissingError:
            pass
    if kind in ("gpt2", "roberta"):
        try:
            vocabulary = parse_json(await source.read("vocab.json"), f"{source.name}/vocab.json")
            merges = (await source.read("merges.txt")).decode("utf-8-sig", "replace")
            return json.dumps(_byte_bpe(vocabulary, merges, names, options, kind)).encode(), "vocab.json"
        except FileMissingError:
            pass
    for file in ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model") if source.is_local else ():
        if await source.exists(file):
            raise FileMissingError(missing.url, f"{file} is not read: save the tokenizer as tokenizer.json")
    raise FileMissingError(missing.url, f"without this file text cannot be tokenized ({missing.reason})") from None


def _word_piece(lines: str, names: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Build BERT's tokenizer over the tokens of ``vocab.txt``, one a line."""
    tokens = re.split(r"\r\n|\r|\n", lines)
    vocabulary = {token: number for number, token in enumerate(tokens[:-1] if tokens[-1] == "" else tokens)}
    lower = options.get("do_lower_case") is not False
    return {
        "version": "1.0",
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": options.get("tokenize_chinese_chars") is not False,
            "strip_accents": options.get("strip_accents"),
            "lowercase": lower,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _bert_like("BertProcessing", vocabulary, names),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": names["unk_token"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }


def _byte_bpe(
    vocabulary: dict[str, Any], merges: str, names: Mapping[str, str], options: Mapping[str, Any], kind: str
) -> dict[str, Any]:
    """Build GPT-2's or RoBERTa's tokenizer over ``vocab.json`` and ``merges.txt``."""
    prefix = options.get("add_prefix_space") is True
    level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": kind == "roberta", "use_regex": True}
    lines = [line for line in re.split(r"\r\n|\r|\n", merges) if line and not line.startswith("#version")]
    mask = {"id": vocabulary.get("<mask>", 0), "content": "<mask>", "lstrip": True, "special": True}
    post: dict[str, Any] = {**level, "trim_offsets": False}
    if kind == "roberta":
        post = {**_bert_like("RobertaProcessing", vocabulary, names), "trim_offsets": True, "add_prefix_space": prefix}
    return {
        "version": "1.0",
        "pre_tokenizer": level,
        "post_processor": post,
        "decoder": level,
        "added_tokens": [mask] if kind == "roberta" else [],
        "model": {"type": "BPE", "vocab": vocabulary, "merges": lines},
    }


def _bert_like(kind: str, vocabulary: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    ends = {key: [names[f"{key}_token"], vocabulary.get(names[f"{key}_token"])] for key in ("cls", "sep")}
    return {"type": kind, **ends}


def _added(table: Any, name: str) -> dict[int, dict[str, Any]]:
    """Read ``added_tokens_decoder``: {"id": token}."""
    if not isinstance(table, dict):
        raise InvalidWeights(name, f"added_tokens_decoder must be an object, not {quoted(table)}")
    for number, token in table.items():
        if not re.fullmatch(r"[0-9]{1,9}", number) or not isinstance(token, dict) or not _content(token):
            raise InvalidWeights(
                name, f"added_tokens_decoder has {quoted(number)}: {quoted(token)}, which is not a token"
            )
    return {int(number): _token(token) for number, token in table.items()}


def _extra(options: Mapping[str, Any], file: str) -> list[Any]:
    """Read ``additional_special_tokens``, also by its new name. Raises ``InvalidWeights`` for anything but tokens."""
    key = next((k for k in ("extra_special_tokens", "additional_special_tokens") if options.get(k)), None)
    found = options[key] if key else []
    tokens = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(tokens, list) or not all(isinstance(_stated(token), str) for token in tokens):
        raise InvalidWeights(file, f"{key} must be a list of tokens or an object of named ones, not {quoted(found)}")
    return [token for token in tokens if _content(token)]


def _token(token: Any) -> dict[str, Any]:
    """Return a token as in ``tokenizer.json``, without options if it is only named."""
    if isinstance(token, dict):
        return {key: token[key] for key in OPTIONS if token.get(key) is not None}
    return {"content": token}


def _content(token: object) -> str:
    """Return a token that a file states as a string or as ``{"content": ...}``; "" for none."""
    content = _stated(token)
    return content if isinstance(content, str) else ""


def _stated(token: object) -> object:
    return token.get("content") if isinstance(token, dict) else token
