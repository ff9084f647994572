"""Where tokens stand in a text."""

from __future__ import annotations

import pytest

from tensorcommons.errors import ShapeMismatch
from tensorcommons.hub.offsets import offsets, words
from tensorcommons.hub.windows import spans


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
        ("is 42? No", ["is", "[UNK]", "?", "no"], ["is", "42", "?", "No"]),
        ("a日b", ["a", "[UNK]", "b"], ["a", "日", "b"]),
        ("", [], []),
    ],
)
def test_the_part_of_the_text_that_each_token_is(text, tokens, parts):
    assert [text[start:end] for start, end in offsets(text, tokens)] == parts


@pytest.mark.parametrize(
    ("text", "tokens", "prefix", "metaspace", "numbers"),
    [
        ("Hello, playing!", ["hello", ",", "play", "##ing", "!"], "##", False, [0, 1, 2, 2, 3]),
        ("Hello, playing 12!", ["Hello", ",", "Ġplay", "ing", "Ġ1", "2", "!"], "", False, [0, 1, 2, 2, 3, 3, 4]),
        ("New York.", ["▁New", "▁Yor", "k", "."], "", True, [0, 1, 1, 1]),
    ],
)
def test_the_word_that_each_token_belongs_to(text, tokens, prefix, metaspace, numbers):
    assert words(text, tokens, offsets(text, tokens), prefix, metaspace) == numbers


def test_windows_cover_all_and_share_what_was_asked():
    assert spans(0, 5, 2) == [(0, 0)]
    assert spans(5, 5, 2) == [(0, 5)]
    assert spans(9, 5, 2) == [(0, 5), (3, 8), (6, 9)]
    assert spans(8, 5, 2) == [(0, 5), (3, 8)]
    assert spans(7, 3, 0) == [(0, 3), (3, 6), (6, 7)]
    with pytest.raises(ShapeMismatch, match="share 5"):
        spans(6, 5, 5)
