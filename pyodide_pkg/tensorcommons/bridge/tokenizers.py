"""A tokenizer that runs in JavaScript; ``bridge/tokenizer.js`` is the other half."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import InvalidWeights, ShapeMismatch
from .loader import load_js_module

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")


class JsTokenizer:
    """A tokenizer in JavaScript. A batch takes one call.

    ``info`` describes it: the size of its vocabulary, its unknown token, truncation and padding, and how
    many special tokens are ``added`` to a text and to a pair. Every method raises ``InvalidWeights`` if the file
    requires something that is not supported, or too much work.
    """

    def __init__(self, helper: Any, raw: bytes, changes: str, file: str) -> None:
        from pyodide.ffi import to_js

        self._helper = helper
        self._file = file
        buffer = to_js(raw)  # bytes: a string would take twice as much of Python's memory
        self._tokenizer = self._call(helper.create, buffer, changes)
        self.info: dict[str, Any] = json.loads(helper.infoOf(self._tokenizer))

    def add(self, tokens: list[dict[str, Any]], file: str) -> None:
        """Add tokens in the form of ``tokenizer.json``; ``file`` names their file in messages."""
        self._call(self._helper.addTokens, self._tokenizer, json.dumps(tokens), file)

    def encode(self, texts: list[str], pairs: list[str] | None, options: dict[str, Any]) -> NDArray[np.int32]:
        """Return the inputs, as ``encodeBatch`` packs them. Raises ``ShapeMismatch`` if a limit leaves no room."""
        sides = json.dumps(texts), json.dumps(pairs)
        packed = self._call(self._helper.encodeBatch, self._tokenizer, *sides, json.dumps(options))
        return np.frombuffer(packed.to_bytes(), dtype=np.int32)

    def tokens(self, ids: list[int]) -> list[str | None]:
        """Return the token of each id, None for an id that the vocabulary does not have."""
        found: list[str | None] = json.loads(self._helper.tokensOf(self._tokenizer, json.dumps(ids)))
        return found

    def ids(self, tokens: list[str]) -> list[int | None]:
        """Return the id of each token, None for a text that is not in the vocabulary."""
        found: list[int | None] = json.loads(self._helper.idsOf(self._tokenizer, json.dumps(tokens)))
        return found

    def decode(self, rows: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """Return the text of each row of ids."""
        rows_json = json.dumps(rows)
        found: str = self._call(self._helper.decodeBatch, self._tokenizer, rows_json, skip_special_tokens)
        texts: list[str] = json.loads(found)
        return texts

    def join(self, rows: list[list[str]]) -> list[str]:
        """Return the text of each row of tokens."""
        found: str = self._call(self._helper.joinTokens, self._tokenizer, json.dumps(rows))
        texts: list[str] = json.loads(found)
        return texts

    def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        from pyodide.ffi import JsException

        try:
            return function(*arguments)
        except JsException as error:
            raise error_of(error.name, error.message, self._file) from None


def error_of(name: str, message: str, file: str) -> Exception:
    """Return the exception for one that JavaScript raised."""
    if name == "LengthError":
        return ShapeMismatch(message)
    return InvalidWeights(file, message if name == "TokenizerError" else f"not a tokenizer that can be used: {message}")


async def create_tokenizer(raw: bytes, changes: str, file: str) -> JsTokenizer:
    """Build the tokenizer of a ``tokenizer.json``; ``changes`` replace options of its BertNormalizer.

    Raises ``InvalidWeights(file)`` for one that cannot be used, ``DeviceUnavailable`` if there is no JavaScript.
    """
    return JsTokenizer(await load_js_module("tokenizer", "tokenizer.js"), raw, changes, file)
