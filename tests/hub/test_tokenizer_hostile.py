"""Untrusted tokenizer.json files: faults are named by their fields, in bounded time, and endless work is stopped."""

from __future__ import annotations

import copy
import json
import random
import re
import time
from typing import Any

import pytest

from scripts.paths import ROOT
from tensorcommons.errors import InvalidWeights
from tests.hub.node_tokenizers import NodeEngine

pytestmark = pytest.mark.slow

FOLDER = ROOT / "tests" / "goldens" / "tokenizers"
KINDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
ALL = {"limit": None, "left": False, "overlap": None, "special": True}
STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    5,
    2**40,
    1.5,
    1e308,
    "",
    "x",
    "\ud800",
    "(",
    "a" * 3000,
    [],
    [[]],
    {},
    {"type": "BPE"},
    [5],
    ["a"],
]
TEXTS = ["The cat sat, 12 times.\n", "naïve  日本 😀", ""]


def build(table):
    return NodeEngine(json.dumps(table).encode(), "{}", "tokenizer.json")


def put(kind, path, value):
    """Return the tokenizer of a kind with one field replaced."""
    table = copy.deepcopy(KINDS[kind])
    *parents, last = path
    at = table
    for part in parents:
        at = at[part]
    at[last] = value
    return table


@pytest.mark.parametrize(
    ("kind", "path", "value", "words"),
    [
        ("gpt2", ["added_tokens"], 5, "added_tokens must be a list, not 5"),
        ("gpt2", ["added_tokens"], [5], r"added_tokens\[0\] must be an object, not 5"),
        ("gpt2", ["added_tokens", 0, "content"], 5, r"added_tokens\[0\]\.content must be a string, not 5"),
        ("gpt2", ["added_tokens", 0, "lstrip"], "no", r"added_tokens\[0\]\.lstrip must be true or false"),
        ("gpt2", ["model"], None, "model"),
        ("gpt2", ["model", "type"], "RNN", "model.type must be one of BPE, WordPiece, WordLevel, Unigram"),
        ("gpt2", ["model", "vocab"], [], "model.vocab must be an object"),
        ("gpt2", ["model", "vocab"], {"a": 2**40}, 'model.vocab gives "a" the id 1099511627776'),
        ("gpt2", ["model", "merges"], 5, "model.merges must be a list"),
        ("gpt2", ["model", "merges"], ["a"], r"model\.merges\[0\] is not a pair"),
        ("gpt2", ["model", "merges"], ["zz qq"], r"model\.merges\[0\] joins .* which the vocabulary does not have"),
        ("gpt2", ["model", "dropout"], 0.5, "model.dropout must be null or 0"),
        ("gpt2", ["pre_tokenizer"], {"type": "Split"}, "pre_tokenizer.pattern is missing|pre_tokenizer.pattern must"),
        ("gpt2", ["pre_tokenizer"], {"type": "UnicodeScripts"}, "UnicodeScripts is not supported"),
        ("gpt2", ["version"], "2.0", 'version must be "1.0"'),
        (
            "gemma",
            ["normalizer", "pattern"],
            {"Regex": "("},
            r"normalizer\.pattern\.Regex is a regular expression that",
        ),
        ("gemma", ["normalizer", "pattern"], {"Regex": "(?<=a+)b"}, "looks behind over an unlimited length"),
        ("gemma", ["normalizer", "pattern"], {"Regex": "\\p{Klingon}"}, "unknown property"),
        ("gemma", ["normalizer", "pattern"], {"Regex": "((ab){900}){900}"}, "more than 20000 steps"),
        ("gemma", ["normalizer", "pattern"], {"Regex": "((?:){1000}){1000}{1000}{1000}"}, "more than 20000 steps"),
        ("gemma", ["decoder", "decoders", 0, "content"], 5, r"decoder\.decoders\[0\]\.content must be a string"),
        ("t5", ["model", "vocab", 3], ["a"], r"model\.vocab\[3\] is not a pair"),
        ("t5", ["model", "unk_id"], 10**6, "model.unk_id must be below the number of tokens"),
        ("t5", ["normalizer", "normalizers", 0, "precompiled_charsmap"], "AAAA", "precompiled_charsmap is not a"),
        ("llama2", ["post_processor", "single"], [{"SpecialToken": {"id": "<x>", "type_id": 0}}], "special_tokens.<x>"),
        ("llama2", ["post_processor", "single"], [{"Sequence": {"id": "B", "type_id": 0}}], r"single\[0\].Sequence.id"),
        ("bert-cased", ["post_processor", "sep"], ["[SEP]", "3"], "post_processor.sep must be a token and its id"),
        ("bert-cased", ["model", "max_input_chars_per_word"], -1, "max_input_chars_per_word must be a whole number"),
    ],
)
def test_a_fault_is_named_by_its_field(kind, path, value, words):
    with pytest.raises(InvalidWeights, match=words) as error:
        build(put(kind, path, value))
    assert str(error.value).startswith("tokenizer.json")
    assert len(str(error.value)) < 400


def test_the_nesting_of_sequences_is_bounded():
    part: dict[str, Any] = {"type": "NFC"}
    for _ in range(200):
        part = {"type": "Sequence", "normalizers": [part]}
    with pytest.raises(InvalidWeights, match="nested more than 50"):
        build({**KINDS["gpt2"], "normalizer": part})


HANGS = [
    "(a+)+$",
    "(a|a)*b",
    "(.*)*x",
    "(a|b|ab)*c",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(?=(a+)+b)",
    "(a*)*\\1b",
    "(\\w*\\s?)*!",
]


@pytest.mark.parametrize("pattern", HANGS)
def test_a_pattern_with_endless_backtracking_is_stopped(pattern):
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    engine = build({**KINDS["gpt2"], "pre_tokenizer": split})
    assert engine.encode(["ab ab", "", "b"], None, ALL).size
    with pytest.raises(InvalidWeights, match="takes too many steps"):
        engine.encode(["a" * 60 + " " + "ab" * 40], None, ALL)
    assert engine.encode(["ab"], None, ALL).size  # the tokenizer still works


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ({"Regex": "(a+)\\1b"}, ("a" * 20_000 + "c") * 2),  # long comparisons that fail
        ({"Regex": "(?<=" + "a{1000}" * 100 + ")b"}, "b" * 20_000),  # long backtracking
        ({"String": "b" + "a" * 300_000}, "a" * 1_000_000),
    ],
)
def test_work_outside_the_steps_of_a_pattern_is_counted(pattern, text):
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    engine = build({**KINDS["gpt2"], "pre_tokenizer": split})
    with pytest.raises(InvalidWeights, match="takes too many steps"):
        engine.encode([text], None, ALL)


@pytest.mark.parametrize("side", ["lstrip", "rstrip"])
def test_an_added_token_of_a_space_counts_the_adjacent_spaces(side):
    token = {"id": 0, "content": " ", "special": True, side: True}
    engine = build({**KINDS["gpt2"], "added_tokens": [*KINDS["gpt2"]["added_tokens"], token]})
    if side == "lstrip":
        assert engine.encode([" " * 20_000], None, ALL).size
    else:
        with pytest.raises(InvalidWeights, match="an added token takes too many steps"):
            engine.encode([" " * 20_000], None, ALL)


def test_replacements_that_double_a_text_are_stopped():
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    engine = build({**KINDS["gemma"], "normalizer": {"type": "Sequence", "normalizers": [double] * 60}})
    with pytest.raises(InvalidWeights, match="takes too many steps"):
        engine.encode(["banana"], None, ALL)


def mutated(rng):
    """Draw a tokenizer with up to three fields replaced, removed, or moved from another one."""
    table = copy.deepcopy(KINDS[rng.choice(list(KINDS))])
    for _ in range(rng.randint(1, 3)):
        at = table
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(at[key], (dict, list)) and rng.random() < 0.8:
                at = at[key]
                continue
            choice = rng.random()
            if choice < 0.2:
                del at[key]
            elif choice < 0.4:
                part = rng.choice(["normalizer", "pre_tokenizer", "post_processor", "decoder", "model"])
                at[key] = copy.deepcopy(rng.choice(list(KINDS.values()))[part])
            else:
                at[key] = copy.deepcopy(rng.choice(STRANGE))
            break
    return table


def check_mutations(count, seed):
    rng = random.Random(seed)
    usable = 0
    for number in range(count):
        table = mutated(rng)
        began = time.monotonic()
        try:
            engine = build(table)
            packed = engine.encode(TEXTS, None, ALL)
            engine.encode(TEXTS, TEXTS, {**ALL, "limit": 40})
            engine.decode([packed[packed >= 0][:50].tolist()], skip_special_tokens=True)
            usable += 1
        except InvalidWeights as error:
            text = str(error)
            assert len(text) < 500, (number, text)
            assert "not a tokenizer that can be used" not in text or "JSON" in text, (number, text)
            assert not re.search(r"undefined|is not a function|Cannot read|not iterable", text), (number, text)
        assert time.monotonic() - began < 60, number  # a bound, not a measurement
    assert usable > count / 20


def test_mutated_tokenizers_work_or_are_refused_by_name():
    check_mutations(100, 1)


@pytest.mark.long
def test_many_mutated_tokenizers():
    for seed in range(2, 42):
        check_mutations(250, seed)
