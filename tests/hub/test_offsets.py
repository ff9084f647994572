"""Where tokens stand in a text."""

from __future__ import annotations

import pytest

from tensorcommons.hub.offsets import offsets


@pytest.mark.parametrize(
    ("text", "tokens", "parts"),
    [
        ("Hello, playing!", ["hello", ",", "play", "##ing", "!"], ["Hello", ",", "play", "ing", "!"]),
        ("Ein Café  heißt", ["ein", "cafe", "heißt"], ["Ein", "Café", "heißt"]),
        ("a 😀😀 b", ["a", "[UNK]", "b"], ["a", "😀😀", "b"]),
        ("Hello world", ["Hello", "Ġworld"], ["Hello", "world"]),
        ("à la carte", ["Ãł", "Ġla", "Ġcart", "e"], ["à", "la", "cart", "e"]),
        ("New York", ["▁New", "▁Yor", "k"], ["New", "Yor", "k"]),
        ("日本", ["日", "本"], ["日", "本"]),
        ("", [], []),
    ],
)
def test_the_part_of_the_text_that_each_token_is(text, tokens, parts):
    assert [text[start:end] for start, end in offsets(text, tokens)] == parts
