"""Text to token ids, exactly as the model was trained with: ``tokenizer.json`` through ``@huggingface/tokenizers``.

The JavaScript library turns each text into ids. What belongs to a batch is done here, in NumPy: truncation, special
tokens, padding. ``tokenizer.json`` may carry truncation and padding of its own, left over from a training run (the one
of all-MiniLM-L6-v2 pads everything to 128); as in ``transformers`` they are not applied.

The longest input is, unless the caller says otherwise, the least of what these files state:

- ``max_seq_length`` of ``sentence_bert_config.json`` (what a sentence-transformers model was trained with). It is only
  looked for beside a bare encoder (``architectures`` ends in ``Model``), because in a browser asking for a file that is
  not there leaves a 404 in the console;
- ``model_max_length`` of ``tokenizer_config.json``;
- ``max_position_embeddings`` of ``config.json``.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ..errors import InvalidWeights, ShapeMismatch, TensorCommonsError
from .config import parse_json, read_json, read_optional_json
from .encoding import Encoding
from .sources import FileMissingError
from .tokenizer_files import Settings, read_settings
from .windows import Windows, spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .encoding import Ids
    from .sources import Source


# The supplementary-plane part of what BertNormalizer of the Rust tokenizers takes for a Chinese character.
RARE_HAN = re.compile("[\U00020000-\U0002a6df\U0002a700-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f]")


class Engine(Protocol):
    """The part that runs in JavaScript; see ``bridge/tokenizers.py``."""

    def encode(self, texts: list[str]) -> tuple[Ids, Ids]:
        """``(lengths [n], ids of all texts in a row)``, without special tokens."""
        ...

    def tokens(self, ids: list[int]) -> list[str | None]:
        """The token of each id, or None."""
        ...

    def ids(self, tokens: list[str]) -> list[int | None]:
        """The id of each token, or None."""
        ...

    def decode(self, rows: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """The text of each row of ids."""
        ...

    def close(self) -> None:
        """Free it."""
        ...


class ChatTemplate(Protocol):
    """What writes a conversation as one prompt; see ``bridge/chat.py``."""

    def render(self, context: dict[str, Any]) -> str:
        """The prompt, of plain data. Raises TensorCommonsError for what the template refuses."""
        ...


class Tokenizer:
    """Turns texts into ids and back; ``pad_id``, ``mask_id`` and ``max_length`` are what the files say (or None)."""

    def __init__(
        self, engine: Engine, settings: Settings, file: str = "tokenizer.json", chat: ChatTemplate | None = None
    ) -> None:
        self._engine = engine
        self._chat = chat
        self._settings = settings
        self._file = file
        self.pad_id = settings.pad_id
        self.mask_id = settings.mask_id
        self.max_length = settings.max_length
        self.cls_id = settings.cls_id
        self.unk_id = settings.unk_id
        self.subword_prefix = settings.subword_prefix
        self.metaspace = settings.metaspace

    @classmethod
    async def from_source(cls, source: Source, config: dict[str, Any] | None = None) -> Tokenizer:
        """The tokenizer of ``source``; ``config`` spares reading its ``config.json`` again.

        Raises ``FileMissingError`` (a ``DownloadError``) where it has no ``tokenizer.json``, ``InvalidWeights`` for one
        that is damaged, ``DeviceUnavailable`` where there is no JavaScript.
        """
        from ..bridge.tokenizers import create_tokenizer

        file = f"{source.name}/tokenizer.json"
        try:
            raw = await source.read("tokenizer.json")
        except FileMissingError as error:
            raise FileMissingError(error.url, f"without this file text cannot become tokens ({error.reason})") from None
        table = parse_json(raw, file)
        options = await read_optional_json(source, "tokenizer_config.json") or {}
        if config is None:
            config = await read_json(source, "config.json")
        sentence: dict[str, Any] | None = None
        if any(str(name).endswith("Model") for name in config.get("architectures") or ()):
            sentence = await read_optional_json(source, "sentence_bert_config.json")
        settings = read_settings(table, options, config, sentence or {}, file)
        engine = await create_tokenizer(raw.decode("utf-8-sig"), json.dumps(options), file)
        return cls(engine, settings, file, await _chat_template(source, options, config))

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        padding: Literal["longest"] | int | None = "longest",
        truncation: bool = True,
        add_special_tokens: bool = True,
    ) -> Encoding:
        """``texts`` (each with the text of ``pairs`` at its place) as one batch.

        ``max_length`` counts special tokens; None is the tokenizer's own. ``padding`` to the longest of the batch, to a
        number, or None for texts that are known to be of one length. A character that is no Unicode (a lone
        surrogate) counts as U+FFFD. Raises ``ShapeMismatch`` where the sizes do not go together, and
        ``TensorCommonsError`` for what is no list of strings.
        """
        rows = self._encode(texts, pairs)
        if pairs is not None and len(pairs) != len(texts):
            raise ShapeMismatch(f"{len(texts)} texts and {len(pairs)} pairs: every text needs one")
        seconds: Sequence[Ids | None] = [None] * len(texts) if pairs is None else rows[len(texts) :]
        limit = self._limit(max_length, paired=pairs is not None) if truncation else None
        if not add_special_tokens:  # they are in the text already, as a chat template writes them
            return self._pad([(row, np.zeros_like(row), np.zeros_like(row)) for row in rows], padding)
        inputs = [self._input(first, second, limit) for first, second in zip(rows, seconds, strict=False)]
        return self._pad(inputs, padding)

    def encode_windows(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        overlap: int | None = None,
    ) -> Windows:
        """``texts`` in windows of at most ``max_length`` tokens, special ones included, that share ``overlap`` tokens.

        With ``pairs`` every window begins with the whole text, and the pair's is cut. With ``overlap`` None a text is
        one window: what does not fit is left out. Raises ``ShapeMismatch`` where nothing fits beside a text.
        """
        rows = self._encode(texts, pairs)
        firsts: Sequence[Ids | None] = [None] * len(texts) if pairs is None else rows[: len(texts)]
        ids = rows if pairs is None else rows[len(texts) :]
        limit = self._limit(max_length, paired=pairs is not None)
        inputs, places = [], []
        for number, (first, row) in enumerate(zip(firsts, ids, strict=True)):
            size = len(row) if limit is None else limit - (0 if first is None else len(first))
            if size < min(1, len(row)):
                raise ShapeMismatch(f"the first text takes all of the {limit} tokens: none is left for the second")
            cuts = spans(len(row), size, overlap or 0)
            if overlap is None:
                cuts = [(len(row) - min(size, len(row)), len(row))] if self._settings.truncate_left else cuts[:1]
            for start, stop in cuts:
                cut = row[start:stop]
                inputs.append(self._input(cut, None, None) if first is None else self._input(first, cut, None))
                places.append((number, start))
        return Windows(self._pad(inputs, "longest"), ids, places)

    def text_of(self, ids: Sequence[int], unknown: Sequence[str] = ()) -> str:
        """The text of ids; of those that stand for what the vocabulary lacks it is that of ``unknown``, in order."""
        text = self.decode(ids, skip_special_tokens=False)
        for part in unknown:
            text = text.replace(self._settings.special.get("unk_token", "[UNK]"), part, 1)
        return text

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids. Bytes that are no whole character (yet) show as U+FFFD.

        Raises TensorCommonsError for what is no list of whole numbers.
        """
        try:
            row = [operator.index(value) for value in ids]
        except TypeError:
            raise TensorCommonsError(f"ids are whole numbers, not {ids!r:.60}") from None
        return self._engine.decode([row], skip_special_tokens=skip_special_tokens)[0]

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **more: Any
    ) -> str:
        """The prompt that the model was trained with for ``messages``, each ``{"role": ..., "content": ...}``.

        ``add_generation_prompt`` lets the answer begin. ``more`` are other names that the template may know, such as
        ``tools``; all of it must be data that JSON holds.

        Raises:
            TensorCommonsError: the model has no template, or it refuses these messages.
        """
        if self._chat is None:
            raise TensorCommonsError("this model comes without a chat template: pass text instead of messages")
        if not all(isinstance(message, Mapping) and "role" in message for message in messages):
            raise TensorCommonsError('messages are objects like {"role": "user", "content": "Hello"}')
        context = {"messages": [dict(message) for message in messages], **self._settings.special, **more}
        return self._chat.render({**context, "add_generation_prompt": add_generation_prompt})

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The token of each id. Raises ``InvalidWeights`` for an id outside the vocabulary."""
        numbers = [int(value) for value in ids]
        tokens: list[str] = []
        for value, token in zip(numbers, self._engine.tokens(numbers), strict=True):
            if token is None:
                raise InvalidWeights(self._file, f"no token has id {value}: not this model's tokenizer?")
            tokens.append(token)
        return tokens

    def tokens_of(self, ids: Sequence[int]) -> list[str | None]:
        """The token of each id, None for an id outside the vocabulary, as models have that are padded to a multiple."""
        return self._engine.tokens(list(ids))

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int | None]:
        """The id of each token, None for what is no token of the vocabulary."""
        return self._engine.ids(list(tokens))

    def close(self) -> None:
        """Free the JavaScript side; a second call does nothing."""
        self._engine.close()

    def _encode(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Ids]:
        """The ids of the texts, then those of their pairs."""
        for given in (texts, pairs or ()):
            whole = isinstance(given, Iterable) and not isinstance(given, str)
            if not whole or not all(isinstance(text, str) for text in given):
                raise TensorCommonsError(f"texts and pairs are lists of strings, not {given!r:.60}")
        every = [self._prepare(text) for text in (*texts, *(pairs or ()))]
        lengths, ids = self._engine.encode(every)
        return np.split(ids, np.cumsum(lengths)[:-1]) if every else []

    def _prepare(self, text: str) -> str:
        """``text`` such that the JavaScript library (0.2.0) gives the ids that the Rust one gives.

        It looks at UTF-16 units, so Han characters beyond U+FFFF are not split from their neighbours, and it lowercases
        whole strings, which makes a Σ at a word's end ς, where Rust has σ everywhere. What remains different is only
        what was assigned after Unicode 8, the tables of the Rust library: marks and punctuation of rare scripts.
        """
        if text.isascii():
            return text
        # Two surrogates that form a pair become the character they stand for, a lone one U+FFFD.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if self._settings.split_han:
            text = RARE_HAN.sub(r" \g<0> ", text)
        return text.replace("Σ", "σ") if self._settings.lowercase else text

    def _limit(self, max_length: int | None, *, paired: bool) -> int | None:
        limit = self.max_length if max_length is None else max_length
        if limit is None:
            return None
        added = self._settings.template.added(paired=paired)
        if type(limit) is not int or limit < added:
            raise ShapeMismatch(f"max_length {limit} has no room for the {added} special tokens of an input")
        return limit - added

    def _input(self, first: Ids, second: Ids | None, limit: int | None) -> tuple[Ids, Ids, Ids]:
        if limit is not None:
            keep, keep_second = longest_first(len(first), 0 if second is None else len(second), limit)
            first = self._cut(first, keep)
            second = None if second is None else self._cut(second, keep_second)
        template = self._settings.template
        return *template.apply(first, second), template.sequences(len(first), None if second is None else len(second))

    def _cut(self, ids: Ids, keep: int) -> Ids:
        return ids[len(ids) - keep :] if self._settings.truncate_left else ids[:keep]

    def _pad(self, inputs: list[tuple[Ids, Ids, Ids]], padding: Literal["longest"] | int | None) -> Encoding:
        lengths = [len(ids) for ids, *_ in inputs]
        width = max(lengths, default=0)
        if padding is None and min(lengths, default=0) != width:
            raise ShapeMismatch(f"texts of {min(lengths)} to {width} tokens make no batch without padding")
        if isinstance(padding, int):
            if width > padding:
                raise ShapeMismatch(f"a text of {width} tokens is longer than padding={padding}: pass max_length too")
            width = padding
        shape = (len(inputs), width)
        encoding = Encoding(
            np.full(shape, self.pad_id, np.int32),
            np.zeros(shape, np.int32),
            np.full(shape, self._settings.pad_type_id, np.int32),
            np.full(shape, -1, np.int32),
        )
        for row, (ids, types, sequences) in enumerate(inputs):
            place = slice(width - len(ids), None) if self._settings.pad_left else slice(len(ids))
            encoding.input_ids[row, place] = ids
            encoding.attention_mask[row, place] = 1
            encoding.token_type_ids[row, place] = types
            encoding.sequence_ids[row, place] = sequences
        return encoding


def longest_first(first: int, second: int, limit: int) -> tuple[int, int]:
    """How many tokens of two texts stay when together they may have ``limit``: the longer one gives way first.

    To the token what the Rust ``tokenizers`` keep: where both must shrink, an odd token goes to the longer one, and to
    the second where they are of one length.
    """
    if first + second <= limit:
        return first, second
    short, long = sorted((first, second))
    long = max(short, limit - short)
    if short + long > limit:
        short, long = limit // 2, limit - limit // 2
    return (long, short) if first > second else (short, long)


async def _chat_template(source: Source, options: dict[str, Any], config: dict[str, Any]) -> ChatTemplate | None:
    """The template of ``tokenizer_config.json``, or of ``chat_template.jinja`` beside a model that writes; if any."""
    template = options.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if template is None and any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ()):
        with suppress(FileMissingError):
            template = (await source.read("chat_template.jinja")).decode("utf-8-sig", "replace")
    if not isinstance(template, str):
        return None
    from ..bridge.chat import create_template

    return await create_template(template)
