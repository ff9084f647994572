"""Make small tokenizers of every kind, and the results of the Rust ``tokenizers`` for texts in many scripts.

    python -m scripts.tokenizer_goldens            write tests/goldens/tokenizers
    python -m scripts.tokenizer_goldens --check    compute the answers again and compare with the committed files
    python -m scripts.tokenizer_goldens 100000     compare this many generated texts, with each of them
    python -m scripts.tokenizer_goldens 100000 path/to/tokenizer.json

Needs ``tokenizers`` (0.23) and ``sentencepiece``. The comparison also needs Node: ids, offsets, words and both decoded
texts must be equal. Texts have code points that were assigned by Unicode 3.2, which all Unicode tables have.
"""

# ruff: noqa: S106, S311 - unk_token is not a password; texts are reproducible, not secret
from __future__ import annotations

import importlib
import io
import json
import random
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scripts import golden_texts
from scripts.goldens import GOLDENS, Goldens, arguments_of

FOLDER = "tokenizers"
TEXTS = 24
LETTERS = "the a of and cat sat on mat dog house I'm we'll DON'T café naïve über straße Köln résumé Ελλάδα Привет мир"
OTHERS = "नमस्ते 你好 世界 日本語 한국어 İstanbul ΣΊΣΥΦΟΣ ﬁne ½ ²³ Ⅷ ٣ 12345 3.14 snake_case foo(bar) <mask> [MASK]"
WORDS = f"{LETTERS} {OTHERS}".split()
SPACES = [
    "\t",
    "\n",
    "\r\n",
    "\x0b",
    "\x85",
    "\xa0",
    "\u2003",
    "\u200b",
    "\u2028",
    "\u3000",
    "\ufeff",
    " ",
    "  ",
    " \n",
]
EMOJI = ["😀", "🗼", "👩\u200d👩\u200d👧", "🇯🇵", "👍🏽", "☺️"]
KNOWN = [c for c in range(0x20, 0x30000) if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs", "Co")]
MARKS = [chr(c) for c in KNOWN if 0x300 <= c < 0x3100 and unicodedata.category(chr(c)) in ("Mn", "Mc")]


def _piece(rng: random.Random) -> str:
    place = rng.randrange(len(KNOWN))
    kinds: list[tuple[float, Callable[[], str]]] = [
        (0.45, lambda: rng.choice(WORDS) + rng.choice([" ", "", ", ", ". "])),
        (0.60, lambda: "".join(map(chr, KNOWN[place : place + rng.randint(1, 6)]))),
        (0.72, lambda: rng.choice(SPACES) * rng.choice([1, 1, 2, 3])),
        (0.80, lambda: rng.choice(EMOJI)),
        (0.88, lambda: rng.choice("aeoSAEzZ한カは") + "".join(rng.choices(MARKS, k=rng.randint(1, 3)))),
        (0.95, lambda: "".join(rng.choices("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", k=rng.randint(1, 4)))),
        (1.00, lambda: str(rng.randrange(10 ** rng.randint(1, 9)))),
    ]
    chosen = rng.random()
    return next(make for most, make in kinds if chosen <= most)()


def generated(count: int, seed: int) -> Iterator[str]:
    """Generate texts of up to 14 pieces: words, runs of a script, spaces, emoji, marks, punctuation, numbers."""
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(_piece(rng) for _ in range(rng.randint(0, 14)))


def charsmap(corpus: list[str]) -> bytes:
    """Make a small SentencePiece normalizer, a part of nmt_nfkc."""
    sentencepiece = importlib.import_module("sentencepiece")
    proto = importlib.import_module("sentencepiece.sentencepiece_model_pb2").ModelProto()
    pairs = {chr(c): unicodedata.normalize("NFKC", chr(c)) for c in KNOWN if c < 0x3400}
    pairs = {old: new for n, (old, new) in enumerate(pairs.items()) if old != new and n % 9 == 0}
    pairs |= {"\u200b": " ", "\ufeff": " ", "\t": " ", "\n": " ", "ﬁ": "fi", "e\u0301": "é", "½": "1⁄2", "\u00ad": ""}
    rules = "\n".join(
        " ".join(f"{ord(c):X}" for c in old) + "\t" + " ".join(f"{ord(c):X}" for c in new) for old, new in pairs.items()
    )
    path = GOLDENS / "rules.tsv"
    path.write_text(rules)
    model = io.BytesIO()
    options = {"vocab_size": 2000, "hard_vocab_limit": False, "character_coverage": 0.98, "minloglevel": 5}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model, normalization_rule_tsv=str(path), **options
    )
    path.unlink()
    proto.ParseFromString(model.getvalue())
    found: bytes = proto.normalizer_spec.precompiled_charsmap
    return found


def main() -> int:
    """Write, check, or compare generated texts; the exit status is 1 where something differs."""
    parser = arguments_of(__doc__)
    parser.add_argument("count", type=int, nargs="?", help="compare this many generated texts instead")
    parser.add_argument("files", type=Path, nargs="*", help="tokenizers for these texts; default: the committed ones")
    arguments = parser.parse_args()
    if arguments.count is None:
        return write(Goldens(check=arguments.check))
    return compare(arguments.count, arguments.files or sorted((GOLDENS / FOLDER).glob("*.json")))


def trained() -> Iterator[tuple[str, Any]]:
    """Train a tokenizer of each kind; yields (kind, tokenizer)."""
    names = ("models", "normalizers", "pre_tokenizers", "decoders", "processors", "trainers")
    m, n, p, d, r, t = (importlib.import_module(f"tokenizers.{name}") for name in names)
    library = importlib.import_module("tokenizers")
    added, regex = library.AddedToken, library.Regex
    corpus = [*golden_texts.SENTENCES, *(" ".join(random.Random(i).choices(WORDS, k=12)) for i in range(60))]
    alphabet = p.ByteLevel.alphabet()
    quiet = {"show_progress": False}
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    spm = n.Precompiled(charsmap(corpus))
    mask = added("<mask>", lstrip=True, special=True)

    def fit(model: Any, trainer: Any, norm: Any, pre: Any, dec: Any, post: Any, extra: tuple[Any, ...] = ()) -> Any:
        made = library.Tokenizer(model)
        if norm:
            made.normalizer = norm
        if pre:
            made.pre_tokenizer = pre
        made.train_from_iterator(corpus, trainer)
        table = json.loads(made.to_str())
        table["added_tokens"] = [each for each in table["added_tokens"] if not each["content"].startswith("<0x")]
        if "<0x00>" in str(table["model"]["vocab"]) and table["model"]["type"] == "Unigram":
            table["model"]["byte_fallback"] = True
        made = library.Tokenizer.from_str(json.dumps(table))
        if dec:
            made.decoder = dec
        if post:
            made.post_processor = post
        made.add_tokens(list(extra))
        return made

    def bpe(special: list[str], **more: Any) -> Any:
        return t.BpeTrainer(vocab_size=380, special_tokens=special, **{**quiet, **more})

    level, ends = {"initial_alphabet": alphabet}, ["<s>", "<pad>", "</s>", "<unk>"]

    def roberta(prefix: bool) -> Any:
        return r.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=prefix)

    bert = r.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    pair = r.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fallback = d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)])
    gpt2 = p.ByteLevel(add_prefix_space=False)
    llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    llama3 += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    cut = p.Sequence([p.Split(regex(llama3), "isolated"), p.ByteLevel(add_prefix_space=False, use_regex=False)])

    def word(pattern: str) -> Any:
        return p.Split(regex(pattern), "removed", invert=True)

    clip = p.Sequence([word(r"'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), gpt2])
    yield "gpt2", fit(m.BPE(), bpe(["<end>"], **level), None, gpt2, d.ByteLevel(), r.ByteLevel(trim_offsets=False))
    yield "roberta", fit(m.BPE(), bpe(ends, **level), None, gpt2, d.ByteLevel(), roberta(False), (mask,))
    yield "roberta-prefix", fit(m.BPE(), bpe(ends, **level), None, p.ByteLevel(), d.ByteLevel(), roberta(True), (mask,))
    yield "llama3", fit(m.BPE(ignore_merges=True), bpe(["<s>"], **level), None, cut, d.ByteLevel(), r.ByteLevel())
    yield "qwen", fit(m.BPE(), bpe(["<end>"], **level), n.NFC(), cut, d.ByteLevel(), r.ByteLevel(trim_offsets=False))
    digits = p.Sequence([p.Digits(individual_digits=True), gpt2])
    yield "smollm", fit(m.BPE(), bpe(["<end>"], **level), None, digits, d.ByteLevel(), None)
    clips = n.Sequence([n.NFC(), n.Replace(regex(r"\s+"), " "), n.Lowercase()])
    ends_of_words = {"end_of_word_suffix": "</w>"}
    yield (
        "clip",
        fit(
            m.BPE(unk_token="<end>", **ends_of_words),
            bpe(["<end>"], **level, **ends_of_words),
            clips,
            clip,
            d.ByteLevel(),
            None,
        ),
    )
    gemma = m.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    spaces = p.Split(" ", "merged_with_previous")
    yield "gemma", fit(gemma, bpe([*ends, *bytes_], limit_alphabet=30), n.Replace(" ", "▁"), spaces, fallback, None)
    llama2 = n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")])
    yield "llama2", fit(gemma, bpe([*ends, *bytes_], limit_alphabet=30), llama2, None, fallback, pair)

    def uni(special: list[str]) -> Any:
        return t.UnigramTrainer(vocab_size=420, special_tokens=special, unk_token="<unk>", **quiet)

    meta = p.Metaspace()
    split = p.Sequence([p.WhitespaceSplit(), meta])
    yield "xlm-roberta", fit(m.Unigram(), uni(ends), spm, split, d.Metaspace(), pair, (mask,))
    t5 = n.Sequence([spm, n.Strip(left=False, right=True), n.Replace(regex(" {2,}"), "▁")])
    yield "t5", fit(m.Unigram(), uni(ends), t5, meta, d.Metaspace(), pair)
    albert = n.Sequence([n.Replace("``", '"'), n.NFKD(), n.StripAccents(), n.Lowercase(), spm])
    yield "albert", fit(m.Unigram(), uni(ends), albert, meta, d.Metaspace(), pair, (mask,))
    yield "unigram-bytes", fit(m.Unigram(), uni([*ends, *bytes_]), n.Nmt(), meta, fallback, pair)
    pieces = t.WordPieceTrainer(
        vocab_size=380, limit_alphabet=70, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], **quiet
    )
    own = (added("mat", single_word=True), added("  two", normalized=False), added("Été", rstrip=True, lstrip=True))
    piece, basic = m.WordPiece(unk_token="[UNK]"), p.BertPreTokenizer()
    yield "bert-uncased", fit(piece, pieces, n.BertNormalizer(), basic, d.WordPiece(), bert, own)
    yield (
        "bert-cased",
        fit(piece, pieces, n.BertNormalizer(lowercase=False), basic, d.WordPiece(cleanup=False), bert, own),
    )
    plain = n.Sequence([n.NFD(), n.Lowercase(), n.StripAccents(), n.Strip()])
    other = p.Sequence([p.Whitespace(), p.Digits(), p.Punctuation("merged_with_next")])
    yield "wordpiece", fit(piece, pieces, plain, other, d.WordPiece(), None)
    level_words = t.WordLevelTrainer(vocab_size=200, special_tokens=["<unk>"], **quiet)
    yield "wordlevel", fit(m.WordLevel(unk_token="<unk>"), level_words, n.NFKC(), p.Whitespace(), None, None)


def answers(tokenizer: Any, texts: list[str]) -> tuple[np.ndarray[Any, Any], list[list[str]]]:
    """Return length, ids, starts, ends and words of each text, and the text decoded without and with special tokens."""
    rows, decoded = [], []
    for text in texts:
        encoding = tokenizer.encode(text)
        words = [-1 if word is None else word for word in encoding.word_ids]
        rows += [len(encoding.ids), *encoding.ids, *(start for start, _ in encoding.offsets)]
        rows += [*(end for _, end in encoding.offsets), *words]
        decoded.append([tokenizer.decode(encoding.ids, skip_special_tokens=skip) for skip in (True, False)])
    return np.array(rows, np.int32), decoded


def write(made: Goldens) -> int:
    """Write or check; the exit status is 1 where something differs."""
    texts = [*(text for text in golden_texts.PICKED[::2] if text.isprintable()), *generated(TEXTS, 1)]
    arrays = {"texts": _bytes(texts)}
    kept = sorted((GOLDENS / FOLDER).glob("*.json"))  # training is not deterministic: delete them to train again
    load = importlib.import_module("tokenizers").Tokenizer.from_file
    for kind, tokenizer in [(path.stem, load(str(path))) for path in kept] or trained():
        table = json.loads(tokenizer.to_str())
        made.data(f"{FOLDER}/{kind}.json", json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode())
        numbers, decoded = answers(tokenizer, texts)
        arrays |= {kind: numbers.astype(np.int16), f"{kind}.decoded": _bytes(decoded)}
    made.arrays(f"{FOLDER}/answers.npz", arrays)
    return made.report()


def _bytes(value: Any) -> np.ndarray[Any, Any]:
    """Encode JSON as bytes, which an ``.npz`` compresses."""
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), np.uint8)


def compare(count: int, paths: list[Path]) -> int:
    """Compare generated texts; the exit status is 1 where something differs."""
    from tests.hub.node_tokenizers import NodeEngine, answers_of

    library, differing = importlib.import_module("tokenizers"), 0
    for path in paths:
        theirs = library.Tokenizer.from_file(str(path))
        theirs.no_padding()
        theirs.no_truncation()
        ours, found = NodeEngine(path.read_bytes(), "{}", path.name), 0
        for start in range(0, count, 500):
            texts = list(generated(min(500, count - start), start + 1))
            wanted, got = answers(theirs, texts), answers_of(ours, texts)
            if np.array_equal(wanted[0], got[0]) and wanted[1] == got[1]:
                continue
            for text in texts:
                (one, said), (two, told) = answers(theirs, [text]), answers_of(ours, [text])
                if not np.array_equal(one, two) or said != told:
                    found += 1
                    print(f"{path}: {text!a:.300}")
        differing += found
        print(f"{path}: {count} texts, {found} differ")
    return int(differing > 0)


if __name__ == "__main__":
    raise SystemExit(main())
