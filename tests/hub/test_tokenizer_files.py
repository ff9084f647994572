"""Special tokens, added tokens, lengths and sides, from several files with the precedence of ``transformers``."""

from __future__ import annotations

import json

import pytest

from scripts.paths import ROOT
from tensorcommons.errors import InvalidWeights
from tensorcommons.hub.streams import FileMissingError
from tests.hub.node_tokenizers import tokenizer_of

FOLDER = ROOT / "tests" / "goldens" / "tokenizers"
BERT = json.loads((FOLDER / "bert-uncased.json").read_text())
ROBERTA = json.loads((FOLDER / "roberta.json").read_text())
GPT2 = json.loads((FOLDER / "gpt2.json").read_text())


async def load(table, config=None, **files):
    given = {"config.json": json.dumps({"model_type": "bert"} if config is None else config).encode()}
    if table is not None:
        given["tokenizer.json"] = json.dumps(table).encode()
    for name, value in files.items():
        file = name + (".txt" if isinstance(value, str) else ".json")
        given[file] = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    return await tokenizer_of(given)


def tokens(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer.encode_batch([text]).input_ids[0].tolist())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("padding_side", ["LEFT", "", 0, True, ["left"]]),
        ("truncation_side", ["middle", 5, {}]),
        ("do_lower_case", ["false", 0, 1, []]),
        ("strip_accents", ["", 1]),
        ("tokenize_chinese_chars", ["no", 0]),
        ("model_max_length", ["512", True, [5], {}, float("nan")]),
        ("additional_special_tokens", ["<a>", 5, True, [5], [None], [{}], {"a": 5}]),
        ("extra_special_tokens", ["<a>", 5, [["<a>"]], {"a": None}]),
    ],
)
async def test_settings_of_a_wrong_type_are_named(name, values):
    for value in values:
        with pytest.raises(InvalidWeights, match=name):
            await load(BERT, tokenizer_config={name: value})
    await load(BERT, tokenizer_config={name: None})


@pytest.mark.parametrize("value", ["12", True, [], {}])
async def test_a_sentence_length_of_a_wrong_type_is_named(value):
    config = {"model_type": "bert", "architectures": ["BertModel"]}
    with pytest.raises(InvalidWeights, match=r"sentence_bert_config.json.*max_seq_length"):
        await load(BERT, config, sentence_bert_config={"max_seq_length": value})


class TestSpecialTokens:
    async def test_a_folder_with_only_a_tokenizer(self):
        bert = await load(BERT)
        assert (bert.pad_id, bert.unk_id, bert.cls_id, bert.mask_id) == (0, 1, 2, 4)
        roberta = await load(ROBERTA, {"model_type": "roberta"})
        assert roberta.convert_ids_to_tokens([roberta.pad_id, roberta.unk_id, roberta.cls_id, roberta.mask_id]) == [
            "<pad>",
            "<unk>",
            "<s>",
            "<mask>",
        ]

    async def test_a_short_tokenizer_config(self):
        roberta = await load(ROBERTA, {"model_type": "roberta"}, tokenizer_config={"model_max_length": 99})
        assert roberta.mask_id is not None
        assert roberta.max_length == 99

    async def test_a_stated_class_overrides_that_of_the_model(self):
        plain = await load(BERT, tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast"})
        assert (plain.mask_id, plain.cls_id, plain.unk_id) == (None, None, 1)

    async def test_the_map_adds_special_tokens(self):
        found = await load(BERT, special_tokens_map={"additional_special_tokens": ["<own>", {"content": "<two>"}]})
        assert [word for word in tokens(found, "<own> cat <two>") if word[0] == "<"] == ["<own>", "<two>"]

    async def test_the_map_is_used_unless_tokens_are_decoded_by_id(self):
        other = {"mask_token": "[SEP]"}
        found = await load(BERT, tokenizer_config={"mask_token": "[CLS]"}, special_tokens_map=other)
        assert found.mask_id == 3
        decoder = {"2": {"content": "[CLS]", "special": True}}
        stated = {"mask_token": "[CLS]", "added_tokens_decoder": decoder}
        assert (await load(BERT, tokenizer_config=stated, special_tokens_map=other)).mask_id == 2

    async def test_tokens_that_the_vocabulary_lacks_are_added(self):
        size = len(BERT["model"]["vocab"]) + sum(
            t["content"] not in BERT["model"]["vocab"] for t in BERT["added_tokens"]
        )
        named = await load(BERT, tokenizer_config={"mask_token": "<blank>", "additional_special_tokens": ["<one>"]})
        assert named.mask_id == size
        assert named.convert_tokens_to_ids(["<one>"]) == [size + 1]
        assert tokens(named, "cat <blank>dog<one>")[2:-1] != tokens(named, "cat dog")[2:-1]
        for content in ("<blank>", "<one>"):
            assert content in tokens(named, f"cat {content} dog")

    async def test_added_tokens_json_and_added_tokens_decoder(self):
        added = await load(BERT, added_tokens={"<ent>": 500})
        assert "<ent>" in tokens(added, "cat <ENT> <ent>")
        token = {"content": "<Ent>", "normalized": False, "single_word": True}
        decoded = await load(BERT, tokenizer_config={"added_tokens_decoder": {"500": token}})
        assert tokens(decoded, "a<Ent> <Ent>").count("<Ent>") == 1

    async def test_vocabulary_tokens_are_special_by_class(self):
        bare = {**BERT, "added_tokens": []}
        assert "[MASK]" in tokens(await load(bare), "cat [MASK]")
        generic = {"tokenizer_class": "PreTrainedTokenizerFast"}
        assert "[MASK]" not in tokens(await load(bare, tokenizer_config=generic), "cat [MASK]")


class TestSettings:
    async def test_do_lower_case_replaces_the_files_own(self):
        cased = await load(BERT, tokenizer_config={"do_lower_case": False, "strip_accents": False})
        assert tokens(cased, "É") == ["[CLS]", "[UNK]", "[SEP]"] or tokens(cased, "É") == ["[CLS]", "É", "[SEP]"]
        assert tokens(await load(BERT), "CAT") == tokens(await load(BERT), "cat") != tokens(cased, "CAT")

    async def test_the_smallest_length_is_used_and_roberta_has_fewer_positions(self):
        assert (await load(BERT)).max_length is None
        positions = {"max_position_embeddings": 66}
        assert (await load(BERT, {"model_type": "bert", **positions})).max_length == 66
        assert (await load(ROBERTA, {"model_type": "roberta", **positions})).max_length == 64
        assert (await load(ROBERTA, {"model_type": "roberta", "pad_token_id": 0, **positions})).max_length == 65
        for kind in ("roberta", "xlm-roberta", "camembert", "mpnet"):
            assert (await load(ROBERTA, {"model_type": kind, **positions})).max_length == 64
        assert (await load(ROBERTA, {"model_type": "mpnet", "pad_token_id": 0, **positions})).max_length == 64
        huge = {"model_max_length": 10**30}
        assert (await load(BERT, {"model_type": "bert", **positions}, tokenizer_config=huge)).max_length == 66
        encoder = {"model_type": "bert", "architectures": ["BertModel"]}
        assert (await load(BERT, encoder, sentence_bert_config={"max_seq_length": 7})).max_length == 7

    async def test_sides_of_padding_and_truncation(self):
        left = await load(BERT, tokenizer_config={"padding_side": "left", "truncation_side": "left"})
        encoding = left.encode_batch(["cat cat dog", "a"], max_length=4)
        assert encoding.attention_mask.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1]]
        assert encoding.offsets[0].tolist() == [[0, 0], [4, 7], [8, 11], [0, 0]]
        table = {**BERT, "padding": {"direction": "Left", "pad_token": "[SEP]", "pad_id": 3, "pad_type_id": 1}}
        plain = await load(table, tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast"})
        encoding = plain.encode_batch(["cat dog", "cat"])
        assert encoding.input_ids[1, 0] == 3
        assert encoding.token_type_ids[1, 0] == 1

    async def test_token_types_are_returned_by_class_and_file(self):
        assert "token_type_ids" in (await load(BERT)).encode_batch(["cat"], ["dog"]).as_inputs()
        roberta = await load(ROBERTA, {"model_type": "roberta"})
        assert "token_type_ids" not in roberta.encode_batch(["cat"], ["dog"]).as_inputs()
        for names, given in ((["input_ids"], False), (["input_ids", "token_type_ids"], True)):
            stated = await load(BERT, tokenizer_config={"model_input_names": names})
            assert ("token_type_ids" in stated.encode_batch(["cat"], ["dog"]).as_inputs()) is given

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("pad_token_type_id", "1"),
            ("pad_token_type_id", -1),
            ("model_input_names", "input_ids"),
            ("mask_token", 5),
            ("added_tokens_decoder", []),
            ("added_tokens_decoder", {"x": {"content": "a"}}),
            ("added_tokens_decoder", {"5": "a"}),
            ("added_tokens_decoder", {"5": {"content": "a", "lstrip": 5}}),
        ],
    )
    async def test_a_setting_of_the_wrong_type_is_named(self, field, value):
        with pytest.raises(InvalidWeights, match=r"tokenizer_config\.json.*(" + field + "|lstrip)"):
            await load(BERT, tokenizer_config={field: value})


class TestOlderFiles:
    async def test_a_bert_vocabulary(self):
        words = "\n".join(sorted(BERT["model"]["vocab"], key=BERT["model"]["vocab"].get)) + "\n"
        built = await load(None, vocab=words)
        whole = await load({**BERT, "added_tokens": BERT["added_tokens"][:5]})
        for text in ("Naïve CAT, [MASK] on the mat!", "你好 world", "", "dog\ncat"):
            one, two = (each.encode_batch([text], ["a cat"]) for each in (built, whole))
            assert one.input_ids.tolist() == two.input_ids.tolist()
            assert one.offsets.tolist() == two.offsets.tolist()
        assert "[UNK]" in tokens(await load(None, vocab=words, tokenizer_config={"do_lower_case": False}), "CAT")

    @pytest.mark.parametrize(("kind", "table"), [("gpt2", GPT2), ("roberta", ROBERTA)])
    async def test_a_bpe_vocabulary_with_merges(self, kind, table):
        merges = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in table["model"]["merges"])
        files = {"vocab": table["model"]["vocab"], "merges": merges}
        files["vocab"] = {**files["vocab"], **{t["content"]: t["id"] for t in table["added_tokens"]}}
        built, whole = await load(None, {"model_type": kind}, **files), await load(table, {"model_type": kind})
        for text in ("The cat  sat\non", "naïve 😀", "it's <mask> 12"):
            one, two = (each.encode_batch([text]) for each in (built, whole))
            assert one.input_ids.tolist() == two.input_ids.tolist()
            assert one.offsets.tolist() == two.offsets.tolist()

    async def test_a_sentencepiece_model_is_refused_by_name(self):
        with pytest.raises(FileMissingError, match=r"spiece\.model is not read"):
            await tokenizer_of({"config.json": b'{"model_type": "t5"}', "spiece.model": b"x"})
