"""Where in a text its tokens stand: what the Rust tokenizers call offsets, found again from the tokens themselves.

A token is looked for where the one before it ended, both without case, accents and spaces. What is not found there (an
unknown token, a character that the tokenizer replaced) is given the rest of the word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

MARKS = ("##", "Ġ", "▁", "</w>")
DROPPED = ("Mn", "Cf", "Cc")  # categories: accents, format and control characters
NEAR = 16  # characters that a tokenizer may have dropped between two tokens


def offsets(text: str, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """(start, end) in ``text`` of each of ``tokens``, which are all of its tokens in order, without special ones."""
    found = [(char, i) for i, source in enumerate(text) for char in _folded(source)]
    plain = "".join(char for char, _ in found)
    at, result = 0, []
    for token in tokens:
        wanted = _folded(_stripped(token))
        place = plain.find(wanted, at, at + len(wanted) + NEAR) if wanted else -1
        if place < 0:
            place, stop = at, _end_of_word(text, found, at)
        else:
            stop = place + len(wanted)
        if place >= len(found):
            result.append((len(text), len(text)))
            continue
        result.append((found[place][1], found[max(stop, place + 1) - 1][1] + 1))
        at = max(stop, place)
    return result


def words(
    text: str, tokens: Sequence[str], spans: Sequence[tuple[int, int]], prefix: str, metaspace: bool
) -> list[int]:
    """The number of the word that each token belongs to, as the Rust tokenizers split a text before they look words up.

    Words are known by the tokens' marks: ``prefix`` on what goes on with a word, or "▁" (``metaspace``) on what begins
    one. Without marks (byte-level) a word ends at a space, and where letters, digits and other characters meet.
    """
    numbers: list[int] = []
    for n, (token, (start, _)) in enumerate(zip(tokens, spans, strict=True)):
        if prefix:
            inside = token.startswith(prefix)
        elif metaspace:
            inside = not token.startswith("▁")
        else:
            inside = 0 < start == spans[n - 1][1] and n > 0 and _kind(text[start - 1]) == _kind(text[start : start + 1])
        numbers.append((numbers[-1] + (not inside)) if numbers else 0)
    return numbers


def _kind(char: str) -> str:
    kind = unicodedata.category(char)[0] if char else ""
    return kind if kind in "LN" else "other"


def _folded(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text.lower())
    return "".join(
        char for char in parts if not char.isspace() and unicodedata.category(char) not in ("Mn", "Cf", "Cc")
    )


def _stripped(token: str) -> str:
    bytelevel = "Ġ" in token or any(char in _BYTES and ord(char) > 126 for char in token)
    if bytelevel and all(char in _BYTES for char in token):
        return bytes(_BYTES[char] for char in token).decode("utf-8", "ignore")
    for mark in MARKS:
        token = token.removeprefix(mark).removesuffix(mark) if token != mark else ""
    return token


def _end_of_word(text: str, found: Sequence[tuple[str, int]], at: int) -> int:
    """Where the word ends that begins at ``at``: at a space, and around each character that is a word by itself."""
    stop = min(at + 1, len(found))
    if stop > at and _is_a_word(found[at][0]):
        return stop
    while stop < len(found) and not _is_a_word(found[stop][0]):
        if any(char.isspace() for char in text[found[stop - 1][1] : found[stop][1]]):
            break
        stop += 1
    return stop


def _is_a_word(char: str) -> bool:
    """Punctuation and Chinese characters."""
    mark = char.isascii() and not char.isalnum()
    return mark or unicodedata.category(char)[0] == "P" or unicodedata.name(char, "").startswith("CJK")


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers (GPT-2, RoBERTa) write bytes as."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return {**{chr(byte): byte for byte in kept}, **{chr(256 + n): byte for n, byte in enumerate(others)}}


_BYTES = _byte_alphabet()
