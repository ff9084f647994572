"""Text to token ids and back, exactly as the model was trained with.

``bridge/tokenizer.js`` executes ``tokenizer.json``, equal to the Rust ``tokenizers``: ids, offsets, truncation,
windows, special tokens, and decoding. Batches are put together here, in NumPy. ``tokenizer.json`` may contain
truncation and padding of its own, left over from a training run (the one of all-MiniLM-L6-v2 pads everything to 128);
as in ``transformers`` they are not applied.

The longest input is, unless the caller sets it, the least of what these files state:

- ``max_seq_length`` of ``sentence_bert_config.json`` (with which a sentence-transformers model was trained). It is only
  requested beside a bare encoder (``architectures`` ends in ``Model``), because a request for a missing file leaves a
  404 in a browser's console;
- without it, ``model_max_length`` of ``tokenizer_config.json``;
- ``max_position_embeddings`` of ``config.json``, less the positions that RoBERTa and its like leave out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import operator
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ..errors import InvalidWeights, ShapeMismatch, TensorCommonsError, quoted
from .chat_template import ChatTemplate, texts_of
from .config import parse_json
from .encoding import Encoding, pad, unpack
from .streams import FileMissingError
from .tokenizer_files import CLASSES, Settings, TokenizerFiles, read_files, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .encoding import Ids
    from .source import Source

logger = logging.getLogger("tensorcommons")


class Engine(Protocol):
    """The part of a tokenizer that runs in JavaScript; see ``bridge/tokenizers.py``."""

    info: dict[str, Any]

    def add(self, tokens: list[dict[str, Any]], file: str) -> None:
        """Add tokens, in order."""
        ...

    def encode(self, texts: list[str], pairs: list[str] | None, options: dict[str, Any]) -> Ids:
        """Return the inputs, packed; see ``unpack``."""
        ...

    def tokens(self, ids: list[int]) -> list[str | None]:
        """Return the token of each id, or None."""
        ...

    def ids(self, tokens: list[str]) -> list[int | None]:
        """Return the id of each token, or None."""
        ...

    def decode(self, rows: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """Return the text of each row of ids."""
        ...

    def join(self, rows: list[list[str]]) -> list[str]:
        """Return the text of each row of tokens."""
        ...


class Tokenizer:
    """The tokenizer of a model, ``model.tokenizer``; ``pad_id``, ``mask_id`` and ``max_length`` are numbers or None.

    >>> manager = tc.TensorSharingManager(max_memory_mb=64)
    >>> model = await tc.from_pretrained("./models/splade-tiny", manager=manager)
    >>> batch = model.tokenizer.encode_batch(["It never rains.", "Cats"])
    >>> batch.input_ids.shape, batch.attention_mask[1].tolist()
    ((2, 6), [1, 1, 1, 0, 0, 0])
    >>> ids = batch.input_ids[0].tolist()
    >>> model.tokenizer.convert_ids_to_tokens(ids)
    ['[CLS]', 'it', 'never', 'rains', '.', '[SEP]']
    >>> model.tokenizer.decode(ids)
    'it never rains.'
    >>> model.tokenizer.encode_windows(["It never rains."], max_length=4, overlap=1).input_ids.shape
    (3, 4)
    >>> messages = [{"role": "user", "content": "Hello"}]
    >>> template = "{% for message in messages %}<{{ message.role }}> {{ message.content }}{% endfor %}"
    >>> model.tokenizer.apply_chat_template(messages, chat_template=template)
    '<user> Hello'
    >>> manager.close()
    """

    def __init__(
        self, engine: Engine, settings: Settings, file: str = "tokenizer.json", chat: ChatTemplate | None = None
    ) -> None:
        self._shared: Engine | None = engine
        self._chat = chat
        self._settings = settings
        self._file = file
        self._warned = False
        self.pad_id = settings.pad_id
        self.mask_id = settings.mask_id
        self.max_length = settings.max_length
        self.cls_id = settings.cls_id
        self.unk_id = settings.unk_id
        self.subword_prefix = settings.subword_prefix

    @classmethod
    async def from_source(
        cls,
        source: Source,
        config: dict[str, Any] | None = None,
        shared: MutableMapping[str, Engine] | None = None,
    ) -> Tokenizer:
        """Load the tokenizer of ``source``, whose ``config.json`` is read unless ``config`` is given.

        Tokenizers of equal files share one engine, which is looked up in ``shared`` by the files' contents.

        Raises ``FileMissingError`` (a ``DownloadError``) if there is none, ``InvalidWeights`` for one that is damaged,
        ``DeviceUnavailable`` if there is no JavaScript.
        """
        files = await read_files(source, config)
        stated = json.dumps([files.changes, files.added, files.kind], sort_keys=True)
        key = hashlib.sha256(files.raw + stated.encode()).hexdigest()
        engine = None if shared is None else shared.get(key)
        if engine is None:
            engine = await _build_engine(files)
            if shared is not None:
                shared[key] = engine

        def id_of(token: str) -> int | None:
            return engine.ids([token])[0]

        settings = read_settings(files, engine.info, id_of, str(engine.info.get("continuing_subword_prefix") or ""))
        return cls(engine, settings, files.name, await _chat_template(source, files.options, files.config))

    @property
    def _engine(self) -> Engine:
        if self._shared is None:
            raise TensorCommonsError("this tokenizer was closed")
        return self._shared

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        padding: Literal["longest"] | int | None = "longest",
        truncation: bool = True,
        add_special_tokens: bool = True,
    ) -> Encoding:
        """Encode ``texts`` (each with the text of ``pairs`` at its index) as one batch.

        ``max_length`` counts special tokens; None is the tokenizer's own, and a truncated text is logged once.
        ``padding`` to the longest of the batch, to a number, or None for texts that are known to be of one
        length. A character that is not Unicode (a lone surrogate) counts as U+FFFD. Raises ``ShapeMismatch`` if the
        sizes are incompatible, and ``TensorCommonsError`` for anything but a list of strings.
        """
        limit = self._limit(max_length, paired=pairs is not None, special=add_special_tokens) if truncation else None
        inputs = self._encode(texts, pairs, limit, None, special=add_special_tokens)
        encoding = self._pad(inputs, padding)
        if encoding.dropped and max_length is None and not self._warned:
            self._warned = True
            text = "%s: a text is longer than the %d tokens that the model takes: the rest of it is left out"
            logger.warning(text, self._file, limit)
        return encoding

    def encode_windows(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        overlap: int = 0,
    ) -> Encoding:
        """Encode ``texts`` in windows of at most ``max_length`` tokens (with special ones) that share ``overlap``.

        ``owners`` and ``rows_of`` of the batch map windows to texts. With ``pairs`` every window begins with the whole
        text, and the pair's is cut. Raises ``ShapeMismatch`` if nothing fits beside a text.
        """
        limit = self._limit(max_length, paired=pairs is not None, special=True)
        return self._pad(self._encode(texts, pairs, limit, overlap, special=True), "longest")

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of ids. Bytes that are not a complete character (yet) become U+FFFD.

        Raises TensorCommonsError for anything but a list of whole numbers.
        """
        try:
            row = [operator.index(value) for value in ids]
        except TypeError:
            raise TensorCommonsError(f"ids must be whole numbers, not {quoted(ids)}") from None
        return self._engine.decode([row], skip_special_tokens=skip_special_tokens)[0]

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Return the prompt for ``messages``, each ``{"role": ..., "content": ...}``, as the model was trained on it.

        ``options``, as in ``transformers``: ``add_generation_prompt`` begins the answer (here the default unless a
        message is continued); ``continue_final_message`` leaves the last message open, True for its content or the name
        of a field; ``tools`` are JSON schemas, ``documents`` have titles and texts; ``chat_template`` is another
        template, or the name of one of several. All others are variables for the template, such as
        ``enable_thinking``.

        Raises:
            TensorCommonsError: the model has no template, or it refuses these messages, or takes too long.
        """
        chat = self._chat
        if chat is None:
            if options.get("chat_template") is None:
                raise TensorCommonsError("this model has no chat template: pass text instead of messages")
            chat = ChatTemplate({})
        return chat.render(messages, **{**self._settings.special, **options})

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the token of each id. Raises ``InvalidWeights`` for an id outside the vocabulary."""
        numbers = [int(value) for value in ids]
        tokens: list[str] = []
        for value, token in zip(numbers, self._engine.tokens(numbers), strict=True):
            if token is None:
                raise InvalidWeights(self._file, f"no token has id {value}: not this model's tokenizer?")
            tokens.append(token)
        return tokens

    def tokens_of(self, ids: Sequence[int]) -> list[str | None]:
        """Return the token of each id; None outside the vocabulary, to which models may be padded."""
        return self._engine.tokens(list(ids))

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int | None]:
        """Return the id of each token, None for a text that is not a token of the vocabulary."""
        return self._engine.ids(list(tokens))

    def convert_tokens_to_strings(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Return the text of each row of tokens. A text that is not a token is kept as it is."""
        return self._engine.join([list(row) for row in rows])

    def close(self) -> None:
        """Release the engine, which is freed with the last tokenizer that uses it."""
        self._shared = None

    def _encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        limit: int | None,
        overlap: int | None,
        *,
        special: bool,
    ) -> list[tuple[int, int, Ids]]:
        for given in (texts, pairs or ()):
            whole = isinstance(given, Iterable) and not isinstance(given, str)
            if not whole or not all(isinstance(text, str) for text in given):
                raise TensorCommonsError(f"texts and pairs must be lists of strings, not {quoted(given)}")
        if pairs is not None and len(pairs) != len(texts):
            raise ShapeMismatch(f"{len(texts)} texts and {len(pairs)} pairs: every text needs one")
        if not texts:
            return []
        sides = [list(texts), list(pairs or ())]
        sent = [[_whole_characters(text) for text in side] for side in sides]
        options = {"limit": limit, "left": self._settings.truncate_left, "overlap": overlap, "special": special}
        inputs = unpack(self._engine.encode(sent[0], None if pairs is None else sent[1], options))
        if sent != sides:
            inputs = [(owner, left_out, _in_the_original(sides, owner, rows)) for owner, left_out, rows in inputs]
        return inputs

    def _limit(self, max_length: int | None, *, paired: bool, special: bool) -> int | None:
        limit = self.max_length if max_length is None else max_length
        if limit is None:
            return None
        added = self._engine.info["added"][paired] if special else 0
        if type(limit) is not int or limit < added:
            raise ShapeMismatch(f"max_length {limit} has no room for the {added} special tokens of an input")
        return limit

    def _pad(self, inputs: list[tuple[int, int, Ids]], padding: Literal["longest"] | int | None) -> Encoding:
        lengths = [rows.shape[1] for *_, rows in inputs]
        width = max(lengths, default=0)
        if padding is None and min(lengths, default=0) != width:
            raise ShapeMismatch(f"texts of {min(lengths)} to {width} tokens need padding to form a batch")
        if isinstance(padding, int):
            if padding < width:
                raise ShapeMismatch(f"a text of {width} tokens does not fit padding={padding}; truncate first")
            width = padding
        given = self._settings
        sides = {"left": given.pad_left, "with_types": given.with_types}
        return pad(inputs, width, given.pad_id, given.pad_type_id, **sides)


def _whole_characters(text: str) -> str:
    """Return ``text`` with each pair of surrogates as one character, and a lone one as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _in_the_original(sides: list[list[str]], owner: int, rows: Ids) -> Ids:
    """Return the rows of an input with offsets in the given texts, where a pair of surrogates is two characters."""
    rows = rows.copy()
    for side, texts in enumerate(sides[: 2 if sides[1] else 1]):
        text = texts[owner]
        pairs = [0xD800 <= ord(a) < 0xDC00 <= ord(b) < 0xE000 for a, b in pairwise(text)]
        begins = [at for at in range(len(text)) if at == 0 or not pairs[at - 1]]
        places = np.array([*begins, len(text)], np.int32)
        here = rows[2] == side
        rows[3:5, here] = places[rows[3:5, here]]
    return rows


async def _build_engine(files: TokenizerFiles) -> Engine:
    """Build the engine of the files, with the tokens that they add."""
    from ..bridge.tokenizers import create_tokenizer

    try:
        engine: Engine = await create_tokenizer(files.raw, json.dumps(files.changes), files.name)
    except InvalidWeights:
        parse_json(files.raw, files.name)  # a better message for a file that is not JSON
        raise
    engine.add(files.added, files.config_name)
    known = [token for token in set(CLASSES.get(files.kind, {}).values()) if engine.ids([token])[0] is not None]
    engine.add([{"content": token, "named": True} for token in sorted(known)], files.config_name)
    return engine


async def _chat_template(source: Source, options: dict[str, Any], config: dict[str, Any]) -> ChatTemplate | None:
    """Read the chat templates: files beside a generative model, else those of ``tokenizer_config.json``.

    ``additional_chat_templates/`` is read where the source can list its files: a server cannot.
    """
    from ..bridge.packages import provide

    stated = ChatTemplate.of(options.get("chat_template"), f"{source.name}/tokenizer_config.json")
    files: dict[str, bytes] = {}
    if any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ()):
        with suppress(FileMissingError):
            files["default"] = await source.read("chat_template.jinja")
        for file in source.files_in("additional_chat_templates"):
            if file.endswith(".jinja"):
                files[file.removesuffix(".jinja").rpartition("/")[2]] = await source.read(file)
    found = ChatTemplate(texts_of(files, source.name)) if files else stated
    if found is not None:
        await provide("jinja2")  # if that fails, the first chat raises
    return found
