"""Tokenizers in GGUF metadata: the ids of the tokenizers that llama.cpp made the metadata from."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from scripts.paths import ROOT
from scripts.sentencepiece_goldens import TEXTS
from tensorcommons.bridge.runtime import run_now
from tensorcommons.errors import InvalidWeights
from tensorcommons.hub import gguf_tokenizer
from tensorcommons.hub.encoding import unpack
from tensorcommons.hub.gguf_source import GgufSource
from tensorcommons.hub.gguf_tokenizer import LONGEST, SPACE, GgufTokenizer
from tensorcommons.hub.local_sources import MemorySource
from tensorcommons.hub.tokenizer import Tokenizer
from tests.hub.node_tokenizers import NodeEngine, answers_of, in_node

FOLDER = ROOT / "tests" / "goldens" / "tokenizers"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
PRE = {"gpt2": "gpt-2", "smollm": "smollm", "llama3": "llama-bpe", "qwen": "qwen2"}


@pytest.fixture(scope="module")
def texts():
    with np.load(FOLDER / "answers.npz") as arrays:
        found: list[str] = json.loads(arrays["texts"].tobytes().decode("utf-8", "surrogatepass"))
        return found


def golden(kind: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((FOLDER / f"{kind}.json").read_text("utf-8"))
    return table


def words_of(table: dict[str, Any]) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return the tokens by id, and their types as llama.cpp's converter states them."""
    added = {each["id"]: each for each in table["added_tokens"]}
    by_id = {number: token for token, number in table["model"]["vocab"].items()}
    by_id |= {number: each["content"] for number, each in added.items()}
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(max(by_id) + 3)]
    types = [
        UNUSED
        if number not in by_id
        else NORMAL
        if number not in added
        else CONTROL
        if added[number]["special"]
        else USER_DEFINED
        for number in range(len(tokens))
    ]
    return tokens, np.array(types, np.int32)


def made(values: dict[str, Any], *models: str) -> dict[str, Any]:
    """Make the ``tokenizer.json`` of metadata, whose keys are below "tokenizer.ggml."."""
    data = {key if "." in key else f"tokenizer.ggml.{key}": value for key, value in values.items()}
    raw = run_now(GgufTokenizer(data, "m.gguf", models or ("gpt2", "llama", "bert")).tokenizer(), turns=True)
    table: dict[str, Any] = json.loads(raw)
    return table


def engine(table: dict[str, Any], name: str = "tokenizer.json") -> NodeEngine:
    return NodeEngine(json.dumps(table).encode(), "{}", name)


def byte_bpe(kind: str, **more: Any) -> dict[str, Any]:
    table = golden(kind)
    tokens, types = words_of(table)
    merges = [each if isinstance(each, str) else " ".join(each) for each in table["model"]["merges"]]
    stated = {"model": "gpt2", "pre": PRE[kind], "tokens": tokens, "token_type": types, "merges": merges}
    return {**stated, "add_bos_token": False, **more}


@pytest.mark.parametrize("kind", PRE)
def test_byte_level_bpe_gives_the_ids_of_its_tokenizer(kind, texts):
    table = golden(kind)
    if kind == "qwen":  # the golden splits digits as Llama 3 does
        pattern = table["pre_tokenizer"]["pretokenizers"][0]["pattern"]
        pattern["Regex"] = pattern["Regex"].replace(r"\p{N}{1,3}", r"\p{N}")
    table["post_processor"] = None  # which only trims the offsets
    found, wanted = engine(made(byte_bpe(kind))), engine(table, f"{kind}.json")
    for mine, theirs in zip(answers_of(found, texts), answers_of(wanted, texts), strict=True):
        assert np.array_equal(mine, theirs)
    assert found.ids(["[PAD380]"]) == [None]


def test_a_token_begins_and_ends_a_text_if_the_metadata_say_so(texts):
    values = byte_bpe("llama3", bos_token_id=0, eos_token_id=1)
    with_both, plain = engine(made({**values, "add_bos_token": True, "add_eos_token": True})), engine(made(values))
    options = {"limit": None, "left": False, "overlap": None, "special": True}
    for text in texts[:20]:
        bare = plain.encode([text], None, options)
        assert len(with_both.encode([text], None, options)) > len(bare)
    assert list(with_both.info["added"]) == [2, 4]
    del values["add_bos_token"]
    assert engine(made(values)).info["added"] == engine(made({**values, "add_bos_token": True})).info["added"]
    del values["bos_token_id"]
    with pytest.raises(InvalidWeights, match=r"tokenizer\.ggml\.bos_token_id is missing"):
        made(values)


@pytest.mark.parametrize("kind", ["bert-uncased", "bert-cased"])
def test_word_piece_gives_the_ids_of_its_tokenizer(kind, texts):
    table = golden(kind)
    table["added_tokens"] = [each for each in table["added_tokens"] if each["special"]]
    table["decoder"]["cleanup"] = True  # no field states it
    vocabulary = table["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {each["content"] for each in table["added_tokens"]}
    marked = [token if token in special else token[2:] if token[:2] == "##" else SPACE + token for token in tokens]
    types = np.array([CONTROL if token in special else NORMAL for token in tokens], np.int32)
    ids = {
        name: tokens.index(token) for name, token in (("bos", "[CLS]"), ("seperator", "[SEP]"), ("unknown", "[UNK]"))
    }
    numbers = {f"{name}_token_id": number for name, number in ids.items()}
    values = {"model": "bert", "tokens": marked, "token_type": types, **numbers}
    result = made(values)
    assert result["normalizer"] == table["normalizer"]
    found, wanted = engine(result), engine(table, f"{kind}.json")
    for mine, theirs in zip(answers_of(found, texts), answers_of(wanted, texts), strict=True):
        assert np.array_equal(mine, theirs)


def sentence_piece() -> dict[str, Any]:
    """Metadata of a SentencePiece model: the pieces of a golden, scored by the order of its merges."""
    table = golden("llama2")
    tokens, _ = words_of(table)
    ranks = {
        "".join(each.split(" ") if isinstance(each, str) else each): -float(rank)
        for rank, each in enumerate(table["model"]["merges"])
    }
    types = [
        UNUSED
        if token.startswith("[PAD")
        else UNKNOWN
        if token == "<unk>"
        else CONTROL
        if token in ("<s>", "</s>", "<pad>")
        else BYTE
        if token.startswith("<0x")
        else NORMAL
        for token in tokens
    ]
    scores = np.array([ranks.get(token, -1e4) for token in tokens], np.float32)
    values = {"model": "llama", "tokens": tokens, "token_type": np.array(types, np.int32), "scores": scores}
    return {**values, "bos_token_id": tokens.index("<s>"), "unknown_token_id": tokens.index("<unk>")}


def by_scores(text: str, values: dict[str, Any]) -> list[int]:
    """Tokenize by joining the neighbours whose piece has the highest score, the leftmost first, as llama.cpp does."""
    numbers = {
        t: i for i, (t, of) in enumerate(zip(values["tokens"], values["token_type"], strict=True)) if of == NORMAL
    }
    symbols = list(SPACE + text.replace(" ", SPACE))
    while True:
        pairs = [a + b for a, b in pairwise(symbols)]
        scored = [(values["scores"][numbers[pair]], -at) for at, pair in enumerate(pairs) if pair in numbers]
        if not scored:
            break
        at = -max(scored)[1]
        symbols[at : at + 2] = [pairs[at]]
    known = {t: i for i, t in enumerate(values["tokens"])}
    ids = [
        [numbers[each]] if each in numbers else [known[f"<0x{byte:02X}>"] for byte in each.encode()] for each in symbols
    ]
    return [number for some in ids for number in some]


def test_sentence_piece_joins_by_scores(texts):
    values = sentence_piece()
    found = engine(made(values))
    options = {"limit": None, "left": False, "overlap": None, "special": False}
    compared = 0
    for text in texts:
        plain = text.encode("utf-8", "replace").decode()
        if not plain or any(token in plain for token in ("<s>", "</s>", "<unk>", "<pad>")):
            continue
        ((*_, rows),) = unpack(found.encode([plain], None, options))
        assert rows[0].tolist() == by_scores(plain, values), plain
        compared += 1
    assert compared > 30
    assert found.decode([by_scores("New é York", values)], skip_special_tokens=True) == ["New é York"]


def test_a_real_sentence_piece_model_gives_its_ids():
    with np.load(FOLDER / "sentencepiece.npz") as arrays:
        golden = {name: arrays[name] for name in arrays.files}
    values = {"model": "llama", "tokens": json.loads(golden["pieces"].tobytes()), "token_type": golden["types"]}
    values |= {"scores": golden["scores"], "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    found = engine(made(values))
    options = {"limit": None, "left": False, "overlap": None, "special": False}
    wanted = np.split(golden["ids"], golden["lengths"].cumsum()[:-1])
    for text, ids in zip(TEXTS, wanted, strict=True):
        ((*_, rows),) = unpack(found.encode([text], None, options))
        assert rows[0].tolist() == ids.tolist(), text


def test_without_a_prefix_of_a_space():
    values = {**sentence_piece(), "add_space_prefix": False}
    table = made(values)
    assert [each["type"] for each in table["normalizer"]["normalizers"]] == ["Replace"]
    assert "Strip" not in [each["type"] for each in table["decoder"]["decoders"]]


def test_spaces_that_are_one_token_are_merged_like_words():
    """Gemma's tokens of several spaces also stand for those of SentencePiece in a text, as in `transformers`."""
    values = {**sentence_piece(), "add_space_prefix": False}
    first = len(values["tokens"])
    values["tokens"] = [*values["tokens"], "  ", "   ", "<user>"]
    values["token_type"] = np.append(values["token_type"], [USER_DEFINED] * 3)
    values["scores"] = np.append(values["scores"], np.full(3, -1000, np.float32))
    table = made(values)
    contents = [each["content"] for each in table["added_tokens"]]
    assert "<user>" in contents and not any(each.isspace() for each in contents)
    options = {"limit": None, "left": False, "overlap": None, "special": False}
    for text, ids in (("  ", [0]), (f" {SPACE}", [0]), ("   ", [1]), ("  <user>   ", [0, 2, 1]), ("     ", [1, 0])):
        ((*_, rows),) = unpack(engine(table).encode([text], None, options))
        assert rows[0].tolist() == [first + number for number in ids], text


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another model": ({"model": "t5"}, "tokenizer.ggml.model 't5' is not gpt2 or llama or bert: load the model with"),
    "no model": ({"model": None}, "tokenizer.ggml.model None is not"),
    "an unknown split": (
        {"pre": "tekken"},
        "tokenizer.ggml.pre 'tekken', how texts are split, is not one of gpt-2, smollm",
    ),
    "no split": ({"pre": None}, "tokenizer.ggml.pre None"),
    "no tokens": ({"tokens": None}, "tokenizer.ggml.tokens must be an array of strings"),
    "tokens of numbers": ({"tokens": np.zeros(3)}, "tokenizer.ggml.tokens must be an array of strings"),
    "too few types": ({"token_type": np.zeros(3, np.int32)}, r"token_type must be \d+ integers"),
    "types of text": ({"token_type": ["x"]}, "token_type must be"),
    "no merges": ({"merges": None}, "merges of BPE, are missing"),
    "a flag of 3": ({"add_bos_token": 3}, "add_bos_token must be a boolean, not 3"),
    "a token outside": ({"add_bos_token": True, "bos_token_id": 9999}, "bos_token_id 9999 is not one of"),
    "a token of text": ({"add_bos_token": True, "bos_token_id": "x"}, "bos_token_id 'x' is not one of"),
}


@pytest.mark.parametrize(("changes", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_metadata_are_refused_by_name(changes, reason):
    values = {key: value for key, value in {**byte_bpe("gpt2"), **changes}.items() if value is not None}
    with pytest.raises(InvalidWeights, match=reason):
        made(values)


def test_pieces_whose_merges_would_take_too_long_are_refused():
    values = sentence_piece()
    for changes, reason in (
        ({"scores": values["scores"][1:]}, "scores must be"),
        ({"scores": None}, "scores must be"),
        ({"tokens": [*values["tokens"][:-1], "x" * (LONGEST + 1)], "token_type": None}, "pieces of more than 256"),
    ):
        with pytest.raises(InvalidWeights, match=reason):
            made({key: value for key, value in {**values, **changes}.items() if value is not None})


def test_the_merges_of_pieces_are_bounded(monkeypatch):
    monkeypatch.setattr(gguf_tokenizer, "MOST", 2000)
    tokens = ["<unk>", "<s>", *("a" * count for count in range(1, 61))]
    types = np.array([UNKNOWN, CONTROL, *[NORMAL] * 60], np.int32)
    values = {"model": "llama", "tokens": tokens, "token_type": types, "scores": np.zeros(62, np.float32)}
    with pytest.raises(InvalidWeights, match="more than 1,000 pairs of others"):
        made({**values, "bos_token_id": 1, "unknown_token_id": 0})


async def test_the_settings_of_a_file():
    """The special tokens, the chat templates and the longest text are those of the metadata."""
    values = {
        f"tokenizer.ggml.{key}": value for key, value in byte_bpe("smollm", bos_token_id=0, padding_token_id=2).items()
    }
    values |= {"tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}"}
    tokenizer = GgufTokenizer(values, "m.gguf", ("gpt2",))
    source = GgufSource(MemorySource({}), "m.gguf")

    async def config() -> bytes:
        return b'{"model_type": "llama", "max_position_embeddings": 9, "architectures": ["LlamaForCausalLM"]}'

    source.fill(
        {"config.json": config, "tokenizer.json": tokenizer.tokenizer, "tokenizer_config.json": tokenizer.options}
    )
    with in_node():
        found = await Tokenizer.from_source(source)
    tokens = values["tokenizer.ggml.tokens"]
    assert found.pad_id == 2 and found.max_length == 9
    assert found.apply_chat_template([{"role": "user", "content": "x"}]) == f"{tokens[0]}x"
    assert not found.encode_batch(["New York"]).with_types
    several = {"tokenizer.chat_template.tool_use": "tools", **values}
    options = json.loads(await GgufTokenizer(several, "m.gguf", ("gpt2",)).options())
    assert {each["name"] for each in options["chat_template"]} == {"default", "tool_use"}
    with pytest.raises(InvalidWeights, match="chat_template must be a string"):
        await GgufTokenizer({**values, "tokenizer.chat_template": 3}, "m.gguf", ("gpt2",)).options()
