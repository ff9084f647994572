"""The small JSON files beside the weights: ``config.json`` and its like."""

from __future__ import annotations

import json
import re
from typing import Any

from ..errors import InvalidWeights
from .foreign import foreign
from .source import Source
from .streams import FileMissingError

MAX_DEPTH = 500
MAX_VALUES = 4_000_000  # each takes some 100 bytes of memory; a tokenizer of 262,144 words has 2 million


async def read_json(source: Source, file: str) -> dict[str, Any]:
    """Read the JSON object in ``file``. Raises ``InvalidWeights`` for anything else, else as ``source.read``."""
    return parse_json(await source.read(file), f"{source.name}/{file}")


async def read_optional_json(source: Source, file: str) -> dict[str, Any] | None:
    """Read the JSON object in ``file``, or return None if the source has no such file. Raises as ``read_json``."""
    try:
        return await read_json(source, file)
    except FileMissingError:
        return None


async def read_optional_list(source: Source, file: str) -> list[Any] | None:
    """Read the JSON list in ``file``, or return None if the source has no such file. Raises as ``read_json``."""
    try:
        value = _parse(await source.read(file), f"{source.name}/{file}")
    except FileMissingError:
        return None
    if not isinstance(value, list):
        raise InvalidWeights(f"{source.name}/{file}", f"holds a JSON {type(value).__name__}, not a list")
    return value


def load_json(text: str, **options: Any) -> Any:
    """Parse JSON as ``json.loads``, with RecursionError over 500 levels and ValueError over 4,000,000 values.

    Python's own check comes too late in a browser: 5,000 levels overflow the JavaScript stack below it, and that ends
    the interpreter.
    """
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values")
    if text.count("[") + text.count("{") > MAX_DEPTH:
        depth = 0
        for bracket in re.finditer(r"[][{}]", re.sub(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', "", text)):
            depth += 1 if bracket[0] in "[{" else -1
            if depth > MAX_DEPTH:
                raise RecursionError(f"nested more than {MAX_DEPTH} levels deep")
    return json.loads(text, **options)


def parse_json(raw: bytes, file: str) -> dict[str, Any]:
    """Parse the JSON object in ``raw``. Raises ``InvalidWeights``, naming ``file``, for anything else."""
    value = _parse(raw, file)
    if not isinstance(value, dict):
        raise InvalidWeights(file, f"holds a JSON {type(value).__name__}, not an object")
    return value


def _parse(raw: bytes, file: str) -> Any:
    try:
        return load_json(raw.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        what = foreign(raw)
        if what is not None:
            raise InvalidWeights(file, f"it is not JSON but {what}") from None
        if isinstance(error, UnicodeDecodeError):
            raise InvalidWeights(file, f"not JSON: byte {error.start:,} is not UTF-8") from None
        raise InvalidWeights(file, f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; an integer of thousands of digits
        raise InvalidWeights(file, f"not JSON that can be read: {error}") from None
