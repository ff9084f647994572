"""Tokenizers of every kind against the Rust ``tokenizers``; the goldens are made by scripts/tokenizer_goldens.py."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scripts.paths import ROOT
from tests.hub.node_tokenizers import NodeEngine, answers_of

FOLDER = ROOT / "tests" / "goldens" / "tokenizers"
KINDS = sorted(path.stem for path in FOLDER.glob("*.json"))


def _json(array):
    return json.loads(array.tobytes().decode("utf-8", "surrogatepass"))


@pytest.fixture(scope="module")
def answers():
    with np.load(FOLDER / "answers.npz") as arrays:
        return dict(arrays)


def _rows(numbers):
    """Split the rows of a golden into [ids, starts, ends, words] for each text."""
    at, rows = 0, []
    while at < len(numbers):
        length = int(numbers[at])
        rows.append(numbers[at + 1 : at + 1 + 4 * length].reshape(4, length).tolist())
        at += 1 + 4 * length
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_ids_offsets_words_and_texts_are_those_of_the_reference(kind, answers):
    texts = _json(answers["texts"])
    engine = NodeEngine((FOLDER / f"{kind}.json").read_bytes(), "{}", f"{kind}.json")
    numbers, decoded = answers_of(engine, texts)
    got, wanted = _rows(numbers), _rows(answers[kind])
    assert len(got) == len(wanted) == len(texts) > 40
    for text, mine, theirs in zip(texts, got, wanted, strict=True):
        for name, one, two in zip(("ids", "starts", "ends", "words"), mine, theirs, strict=True):
            assert one == two, (name, text)
    assert decoded == _json(answers[f"{kind}.decoded"])


def test_the_goldens_have_the_common_kinds():
    assert len(KINDS) >= 12


@pytest.mark.parametrize(
    ("kind", "tokens", "text"),
    [
        ("roberta", ["New", "ĠYork"], "New York"),
        ("roberta", ["New York", " x"], "New York x"),
        ("roberta", ["é", "Ġa"], "\ufffd a"),  # a part of the text that resembles a byte token
        ("bert-uncased", ["new", "##s", "é"], "news é"),
        ("bert-uncased", ["it", "'", "s"], "it ' s"),
        ("xlm-roberta", ["▁New", "▁York"], "New York"),
        ("wordlevel", ["a", "b"], "a b"),
        ("wordlevel", [], ""),
    ],
)
def test_decoded_parts_join_as_in_the_reference(kind, tokens, text):
    engine = NodeEngine((FOLDER / f"{kind}.json").read_bytes(), "{}", f"{kind}.json")
    assert engine.join([tokens]) == [text]
