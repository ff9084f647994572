"""Tokenizers of generative models, and streamed text; in Node, like tests/hub/test_tokenizer.py.

SmolLM2's is made from its GGUF file, T5's is a Unigram one of SentencePiece's kind (scripts/t5_goldens.py).
"""

from __future__ import annotations

import json

import pytest

from scripts.paths import MODELS, ROOT
from tensorcommons.errors import InvalidWeights, TensorCommonsError
from tensorcommons.hub.text_stream import TextStream
from tests.cases import shows
from tests.hub.node_tokenizers import tokenizer_of
from tests.hub.test_tokenizer import running

GOLDENS = json.loads((ROOT / "tests" / "goldens" / "smollm2.json").read_text())


@pytest.fixture(scope="module")
def smollm2():
    with running(MODELS / "SmolLM2-135M-Instruct") as tokenizer:
        yield tokenizer


@shows("SmolLM2-135M-Instruct", "token ids and texts", "smollm2.json")
def test_ids_and_texts_are_those_of_the_reference(smollm2):
    encoding = smollm2.encode_batch([case["text"] for case in GOLDENS["encoded"]])
    for row, mask, case in zip(encoding.input_ids, encoding.attention_mask, GOLDENS["encoded"], strict=True):
        assert row[mask == 1].tolist() == case["ids"], case
        assert smollm2.decode(case["ids"]) == case["decoded"]


def test_special_tokens_are_decoded_only_on_request(smollm2):
    ids = smollm2.encode_batch(["<|im_start|>hi<|im_end|>"]).input_ids[0]
    assert smollm2.decode(ids) == "hi"
    assert smollm2.decode(ids, skip_special_tokens=False) == "<|im_start|>hi<|im_end|>"
    assert smollm2.decode([]) == ""


def test_pieces_are_whole_characters_that_join_to_the_text(smollm2):
    for text in ("A naïve café — 東京 🗼🇯🇵, then more. " * 9, "plain words\n\n  and   spaces " * 30):
        ids = smollm2.encode_batch([text]).input_ids[0].tolist()
        stream = TextStream(smollm2, ids[:5])
        pieces = [stream.push(token) for token in ids[5:]]
        assert not any("\ufffd" in piece for piece in pieces)
        assert "".join(pieces) + stream.end() == smollm2.decode(ids)[len(smollm2.decode(ids[:5])) :]
        assert sum(map(bool, pieces)) > len(pieces) / 2


def test_an_incomplete_character_is_flushed_at_the_end(smollm2):
    ids = smollm2.encode_batch(["ok 🗼"]).input_ids[0].tolist()
    stream = TextStream(smollm2)
    assert "".join(stream.push(token) for token in ids[:-1]) + stream.end() == "ok \ufffd"


def test_chats_are_those_of_the_reference(smollm2):
    for chat in GOLDENS["chats"]:
        assert smollm2.apply_chat_template(chat["messages"]) == chat["prompt"]
        assert smollm2.apply_chat_template(chat["messages"], add_generation_prompt=False) == chat["without"]


def test_without_a_template_messages_are_refused():
    with running(ROOT / "tests" / "goldens" / "tiny-t5-text") as t5:
        with pytest.raises(TensorCommonsError, match="chat template"):
            t5.apply_chat_template([{"role": "user", "content": "hi"}])
        text = t5.apply_chat_template([{"role": "user", "content": "hi"}], chat_template="{{ messages[0].content }}")
        assert text == "hi"


@pytest.mark.parametrize("named", [True, False])
async def test_template_files_override_the_tokenizer_config(named):
    folder = MODELS / "SmolLM2-135M-Instruct"
    names = ("tokenizer.json", "tokenizer_config.json", "config.json")
    files = {name: (folder / name).read_bytes() for name in names}
    files["chat_template.jinja"] = b"{{ messages[0].role }}"
    files |= (
        {"additional_chat_templates/rag.jinja": b"rag", "additional_chat_templates/note.txt": b"x"} if named else {}
    )
    tokenizer = await tokenizer_of(files)
    messages = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(messages) == "user"
    assert tokenizer.apply_chat_template(messages, chat_template="rag") == "rag"
    files["chat_template.jinja"] = b"\xff"
    with pytest.raises(InvalidWeights, match="chat_template"):
        await tokenizer_of(files)
    bad = {**files, "tokenizer_config.json": b'{"chat_template": [5]}', "chat_template.jinja": b""}
    with pytest.raises(InvalidWeights, match="chat_template"):
        await tokenizer_of(bad)


def test_unigram_ids_and_texts_are_those_of_the_reference():
    folder = ROOT / "tests" / "goldens" / "tiny-t5-text"
    cases = json.loads((folder / "answers.json").read_text())["encoded"]
    with running(folder) as t5:
        encoding = t5.encode_batch([case["text"] for case in cases], truncation=False)
        for row, mask, case in zip(encoding.input_ids, encoding.attention_mask, cases, strict=True):
            assert row[mask == 1].tolist() == case["ids"], case
            assert t5.decode(case["ids"]) == case["decoded"]
