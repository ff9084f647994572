"""``@huggingface/tokenizers`` behind three calls; ``bridge/encode.js`` is their other half."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidWeights
from .loader import load_js_module

if TYPE_CHECKING:
    from numpy.typing import NDArray


class JsTokenizer:
    """A tokenizer that lives in JavaScript. A batch crosses over in one call."""

    def __init__(self, helper: Any, tokenizer: Any) -> None:
        self._helper = helper
        self._tokenizer = tokenizer

    def encode(self, texts: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """``(lengths [n], ids of all texts in a row)``; no special tokens, no truncation."""
        packed = self._helper.encodeBatch(self._tokenizer, json.dumps(texts)).to_bytes()
        values = np.frombuffer(packed, dtype=np.int32)
        return values[: len(texts)], values[len(texts) :]

    def tokens(self, ids: list[int]) -> list[str | None]:
        """The token of each id, None for an id that the vocabulary does not have."""
        found: list[str | None] = json.loads(self._helper.tokensOf(self._tokenizer, json.dumps(ids)))
        return found

    def ids(self, tokens: list[str]) -> list[int | None]:
        """The id of each token, None for what the vocabulary does not have."""
        found: list[int | None] = json.loads(self._helper.idsOf(self._tokenizer, json.dumps(tokens)))
        return found

    def decode(self, rows: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """The text of each row of ids."""
        texts: list[str] = json.loads(self._helper.decodeBatch(self._tokenizer, json.dumps(rows), skip_special_tokens))
        return texts

    def close(self) -> None:
        """Let JavaScript forget the tokenizer; a second call does nothing."""
        self._tokenizer = None  # a proxy holds its object until Python lets go of the proxy


async def create_tokenizer(tokenizer_json: str, config_json: str, file: str) -> JsTokenizer:
    """Raises ``InvalidWeights(file)`` for a tokenizer the library does not take, ``DeviceUnavailable`` without JS."""
    tokenizers = await load_js_module("tokenizers", "vendor/tokenizers.min.mjs")
    helper = await load_js_module("encode", "encode.js")
    from pyodide.ffi import JsException

    try:
        return JsTokenizer(helper, helper.create(tokenizers, tokenizer_json, config_json))
    except JsException as error:
        raise InvalidWeights(file, f"not a tokenizer that can be used: {error.message}") from None
