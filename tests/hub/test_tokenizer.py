"""The tokenizer's Python part, and both parts together: JavaScript runs in Node here, and in a browser in e2e/."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pytest

from scripts.paths import MODELS, ROOT
from tensorcommons.errors import DeviceUnavailable, DownloadError, InvalidWeights, ShapeMismatch, TensorCommonsError
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.streams import FileMissingError
from tensorcommons.hub.tokenizer import Tokenizer
from tests.hub.node_tokenizers import host, tokenizer_of

GOLDENS = ROOT / "tests" / "goldens"


@contextmanager
def running(folder):
    if not folder.exists():
        pytest.fail(f"{folder} is missing: run make first")
    yield asyncio.run(tokenizer_of(str(folder)))


@pytest.fixture(scope="module", params=["all-MiniLM-L6-v2", "splade-tiny"])
def named(request):
    with running(MODELS / request.param) as tokenizer:
        yield request.param, tokenizer


@pytest.fixture(scope="module")
def tiny():
    with running(GOLDENS / "tiny-bert") as tokenizer:
        yield tokenizer


@pytest.fixture
def calls(tiny):
    host().calls = 0
    return host()


class TestAgainstTheReference:
    def test_ids_of_every_text_and_pair(self, named):
        model, tokenizer = named
        goldens = json.loads((GOLDENS / "tokenizer.json").read_text())
        ids, second = goldens["ids"][model], goldens["second"][model]
        if isinstance(ids, str):
            ids, second = goldens["ids"][ids], goldens["second"][second]
        groups: dict = {}
        for number, case in enumerate(goldens["cases"]):
            groups.setdefault((case["max_length"], case["pair"] is None), []).append(number)
        assert len(goldens["cases"]) > 500
        for (max_length, single), numbers in groups.items():
            cases = [goldens["cases"][number] for number in numbers]
            pairs = None if single else [case["pair"] for case in cases]
            encoding = tokenizer.encode_batch([case["text"] for case in cases], pairs, max_length=max_length)
            for row, number in enumerate(numbers):
                mask = encoding.attention_mask[row].astype(bool)
                assert encoding.input_ids[row][mask].tolist() == ids[number], goldens["cases"][number]
                types = encoding.token_type_ids[row][mask]
                begins = len(types) if second[number] is None else second[number]
                assert types.tolist() == [0] * begins + [1] * (len(types) - begins)
                assert (encoding.input_ids[row][~mask] == 0).all()

    def test_inputs_of_the_model_goldens(self, named):
        model, tokenizer = named
        short = "minilm" if model == "all-MiniLM-L6-v2" else "splade"
        index = json.loads((GOLDENS / "index.json").read_text())
        with np.load(GOLDENS / f"{short}.npz") as arrays:
            cases = [case for case in index[short] if f"{case}.input_ids" in arrays.files and case != "one_token"]
            for case in cases:
                encoding = tokenizer.encode_batch(index[short][case], max_length=512)
                np.testing.assert_array_equal(encoding.input_ids, arrays[f"{case}.input_ids"])
                np.testing.assert_array_equal(encoding.attention_mask, arrays[f"{case}.attention_mask"])
        assert len(cases) >= 3

    def test_the_files_own_padding_and_truncation_are_not_applied(self, named):
        encoding = named[1].encode_batch(["word " * 300], max_length=512)
        assert encoding.input_ids.shape == (1, 302)
        assert named[1].encode_batch(["word"]).input_ids.shape == (1, 3)


class TestBatch:
    def test_tokens_have_ids_and_others_have_none(self, tiny):
        ids = tiny.convert_tokens_to_ids(["cat", "##ing", "zebra"])
        assert tiny.convert_ids_to_tokens(ids[:2]) == ["cat", "##ing"] and ids[2] is None

    def test_a_batch_is_one_call(self, tiny, calls):
        encoding = tiny.encode_batch(["the cat", "a dog sat", ""], ["on the mat", "", "red"])
        assert calls.calls == 1
        assert encoding.owners.tolist() == [0, 1, 2]
        assert encoding.input_ids.dtype == encoding.attention_mask.dtype == encoding.token_type_ids.dtype == np.int32
        assert encoding.as_inputs().keys() == {"input_ids", "attention_mask", "token_type_ids"}
        tokens = [" ".join(tiny.convert_ids_to_tokens(row)) for row in encoding.input_ids]
        assert tokens[0] == "[CLS] the cat [SEP] on the mat [SEP]"
        assert tokens[1] == "[CLS] a dog sat [SEP] [SEP] [PAD] [PAD]"
        assert tokens[2] == "[CLS] [SEP] red [SEP] [PAD] [PAD] [PAD] [PAD]"
        assert encoding.token_type_ids.tolist()[0] == [0, 0, 0, 0, 1, 1, 1, 1]
        assert encoding.attention_mask.sum(axis=1).tolist() == [8, 6, 4]

    def test_padding(self, tiny):
        assert tiny.encode_batch(["cat", "the cat"]).input_ids.shape == (2, 4)
        assert tiny.encode_batch(["cat", "the cat"], padding=16).input_ids.shape == (2, 16)
        assert tiny.encode_batch(["cat", "dog"], padding=None).input_ids.shape == (2, 3)
        with pytest.raises(ShapeMismatch, match="3 to 4 tokens"):
            tiny.encode_batch(["cat", "the cat"], padding=None)
        with pytest.raises(ShapeMismatch, match="padding=3"):
            tiny.encode_batch(["cat", "the cat"], padding=3)

    def test_max_length_defaults_to_that_of_the_model(self, tiny):
        long = ["cat " * 100]
        assert tiny.max_length == 40
        assert tiny.encode_batch(long).input_ids.shape == (1, 40)
        assert tiny.encode_batch(long, max_length=7).input_ids.shape == (1, 7)
        assert tiny.encode_batch(long, max_length=2).input_ids.shape == (1, 2)
        assert tiny.encode_batch(long, truncation=False).input_ids.shape == (1, 102)
        with pytest.raises(ShapeMismatch, match="max_length 1 has no room for the 2 special tokens"):
            tiny.encode_batch(long, max_length=1)
        with pytest.raises(ShapeMismatch, match="max_length 2 has no room for the 3"):
            tiny.encode_batch(long, ["x"], max_length=2)

    def test_sides_of_padding_and_truncation(self):
        sides = json.loads(FILES["tokenizer_config.json"]) | {"padding_side": "left", "truncation_side": "left"}
        left = asyncio.run(tokenizer_of({**FILES, "tokenizer_config.json": json.dumps(sides).encode()}))
        encoding = left.encode_batch(["the cat sat", "dog"], max_length=4)
        assert [left.convert_ids_to_tokens(row) for row in encoding.input_ids] == [
            ["[CLS]", "cat", "sat", "[SEP]"],
            ["[PAD]", "[CLS]", "dog", "[SEP]"],
        ]
        assert encoding.attention_mask.tolist()[1] == [0, 1, 1, 1]

    def test_strange_texts(self, tiny):
        texts = ["\ud800", "cat\udfffdog", "\ud83d\ude00", "\x00", "", "x" * 10_000, "😀" * 2_000, "cat " * 2_500]
        encoding = tiny.encode_batch(texts)
        rows = [tiny.convert_ids_to_tokens(row[row != 0])[1:-1] for row in encoding.input_ids]
        assert rows[0] == rows[3] == rows[4] == []
        assert rows[1] == tiny.convert_ids_to_tokens(tiny.encode_batch(["cat\ufffddog"]).input_ids[0])[1:-1]
        assert rows[2] == rows[5] == rows[6] == ["[UNK]"]
        assert rows[7] == ["cat"] * 38

    def test_an_empty_batch(self, tiny):
        assert tiny.encode_batch([]).input_ids.shape == (0, 0)
        assert tiny.encode_batch([], [], padding=8).input_ids.shape == (0, 8)
        assert tiny.convert_ids_to_tokens([]) == []

    def test_wrong_calls_are_refused(self, tiny):
        for texts, pairs in (("cat", None), (None, None), (["cat", None], None), ([5], None), (["cat"], ["dog", b""])):
            with pytest.raises(TensorCommonsError, match="lists of strings"):
                tiny.encode_batch(texts, pairs)
        for length in (-5, 0, "5", 2.0):
            with pytest.raises(ShapeMismatch, match="max_length"):
                tiny.encode_batch(["cat"], max_length=length)
        for ids in (["a"], "5", None, [1.5], 5):
            with pytest.raises(TensorCommonsError, match="whole numbers"):
                tiny.decode(ids)
        with pytest.raises(ShapeMismatch, match="2 texts and 1 pairs"):
            tiny.encode_batch(["a", "b"], ["c"])
        with pytest.raises(InvalidWeights, match="no token has id 100"):
            tiny.convert_ids_to_tokens(np.array([5, 100]))

    def test_the_longer_text_of_a_pair_is_truncated_first(self, tiny):
        cases = {(3, 4, 10): (3, 4), (3, 9, 10): (3, 7), (9, 3, 10): (7, 3), (9, 9, 9): (4, 5), (9, 8, 9): (5, 4)}
        cases |= {(8, 9, 9): (4, 5), (1, 9, 1): (0, 1), (9, 1, 1): (1, 0), (0, 9, 4): (0, 4), (5, 5, 0): (0, 0)}
        for (first, second, limit), kept in cases.items():
            encoding = tiny.encode_batch(["cat " * first], ["dog " * second], max_length=limit + 3)
            found = [int((encoding.sequence_ids == number).sum()) for number in (0, 1)]
            assert (*found, encoding.dropped) == (*kept, max(0, first + second - limit))

    def test_windows_cover_the_text_with_the_requested_overlap(self, tiny):
        for length, size, overlap, windows in (
            (0, 5, 2, [(0, 0)]),
            (5, 5, 2, [(0, 5)]),
            (9, 5, 2, [(0, 5), (3, 8), (6, 9)]),
            (8, 5, 2, [(0, 5), (3, 8)]),
            (7, 3, 0, [(0, 3), (3, 6), (6, 7)]),
        ):
            encoding = tiny.encode_windows(["cat " * length], max_length=size + 2, overlap=overlap)
            found = [words[words >= 0] for words in encoding.word_ids]
            assert [(int(row[0]), int(row[-1]) + 1) if len(row) else (0, 0) for row in found] == windows
            assert encoding.rows_of(0) == list(range(len(windows)))
        with pytest.raises(ShapeMismatch, match="share 5"):
            tiny.encode_windows(["cat " * 6], max_length=7, overlap=5)
        with pytest.raises(ShapeMismatch, match="first text takes all of the 9"):
            tiny.encode_windows(["cat " * 6], ["dog"], max_length=9)

    def test_offsets_refer_to_the_given_text(self, tiny):
        text = "the \ud83d\ude00 c\u0301at \ud800dog"
        encoding = tiny.encode_batch([text])
        parts = [text[start:end] for start, end in encoding.offsets[0, 1:-1]]
        assert parts == ["the", "\ud83d\ude00", "c\u0301at", "dog"]
        assert encoding.word_ids.tolist() == [[-1, 0, 1, 2, 3, -1]]

    def test_truncation_is_logged_once(self, caplog):
        tokenizer = asyncio.run(tokenizer_of(FILES))
        with caplog.at_level(logging.WARNING, "tensorcommons"):
            tokenizer.encode_batch(["cat " * 38])
            tokenizer.encode_batch(["cat " * 100], max_length=10)
            assert not caplog.records
            tokenizer.encode_batch(["cat " * 39])
            tokenizer.encode_batch(["cat " * 40])
        (message,) = [record.getMessage() for record in caplog.records]
        assert re.match(r"memory-\d+/tokenizer.json: a text is longer than the 40 tokens that the model takes", message)

    def test_closing_a_tokenizer_keeps_another_of_equal_files(self):
        shared: WeakValueDictionary[str, Any] = WeakValueDictionary()
        engines = host().ask("", "count")
        first, second = (asyncio.run(tokenizer_of(FILES, shared)) for _ in range(2))
        other = asyncio.run(tokenizer_of({**FILES, "tokenizer_config.json": b'{"do_lower_case": false}'}, shared))
        assert host().ask("", "count") == engines + 2
        first.close()
        first.close()
        assert second.encode_batch(["cat"]).input_ids.shape == (1, 3)
        with pytest.raises(TensorCommonsError, match="closed"):
            first.encode_batch(["cat"])
        second.close()
        assert host().ask("", "count") == engines + 1
        assert other.encode_batch(["cat"]).input_ids.shape == (1, 3)


NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json")
FILES = {name: (GOLDENS / "tiny-bert" / name).read_bytes() for name in NAMES}


class TestFromSource:
    async def test_the_mark_of_a_token_inside_a_word_is_that_of_the_file(self):
        assert (await tokenizer_of(FILES)).subword_prefix == "##"
        raw = (GOLDENS / "tokenizers" / "gpt2.json").read_bytes()
        assert (await tokenizer_of({"config.json": b"{}", "tokenizer.json": raw})).subword_prefix == ""

    async def test_special_tokens_are_looked_up_in_the_vocabulary(self):
        vocab = json.loads(FILES["tokenizer.json"])["model"]["vocab"]
        tokenizer = await tokenizer_of(FILES)
        assert (tokenizer.cls_id, tokenizer.unk_id) == (vocab["[CLS]"], vocab["[UNK]"])

    async def test_a_missing_tokenizer_is_named(self, server):
        server.files["m/config.json"] = b"{}"
        for spec in ({"config.json": b"{}"}, f"{server.address}/good/m"):
            with pytest.raises(FileMissingError, match=r"tokenizer.json: without this file"):
                await Tokenizer.from_source(open_source(spec))

    async def test_a_damaged_tokenizer_is_named(self):
        for raw in (b"", b"{", b"[]", b'{"post_processor": 5}', FILES["tokenizer.json"][:-100]):
            with pytest.raises(InvalidWeights, match=r"tokenizer\.json"):
                await tokenizer_of({**FILES, "tokenizer.json": raw})

    async def test_without_javascript_loading_is_an_error(self):
        with pytest.raises(DeviceUnavailable, match="Pyodide"):
            await Tokenizer.from_source(open_source(FILES))

    async def test_the_sentence_config_is_requested_only_where_it_can_exist(self, server):
        for folder, architecture in (("plain", "BertModel"), ("masked", "BertForMaskedLM")):
            for name, data in FILES.items():
                server.files[f"{folder}/{name}"] = data
            config = json.dumps({"architectures": [architecture]}).encode()
            server.files[f"{folder}/config.json"] = config
            with pytest.raises(DeviceUnavailable):
                await Tokenizer.from_source(open_source(f"{server.address}/good/{folder}"))
        asked = [path for path, _ in server.requests if "sentence_bert" in path]
        assert asked == ["/good/plain/sentence_bert_config.json"]

    async def test_a_cut_connection_is_an_error_for_optional_files_too(self, server):
        server.files["m/tokenizer.json"] = FILES["tokenizer.json"]
        with pytest.raises(DownloadError, match="cut"):
            await Tokenizer.from_source(open_source(f"{server.address}/cut/m"))
