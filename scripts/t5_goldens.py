"""Make ``tests/goldens/tiny-t5-text``: T5 from text to text, by ``transformers``.

    python -m scripts.t5_goldens [--check]

A Unigram tokenizer like those of T5 (NFKC, SentencePiece's spaces, ``</s>`` after every text, sentinels at the
end of the vocabulary) is trained on the texts of ``golden_texts``, and a tiny model with its vocabulary runs. Weights
are made from their names, as in ``scripts/decoder_goldens.py``, which lists the required packages.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

from scripts import golden_texts as texts
from scripts.decoder_goldens import T5
from scripts.goldens import GOLDENS, Goldens
from tests.cases.seeded import weight

FOLDER = "tiny-t5-text"
PIECES, SENTINELS, STEPS = 400, 4, 24
ASKED = ["translate English to German: The house is wonderful.", "summarize: A naïve café — twice", "<extra_id_0> ﬁne"]


def tokenizer() -> Any:
    """Make the tokenizer that ``transformers`` converts from T5's SentencePiece model."""
    library = importlib.import_module("tokenizers")
    parts = {
        name: importlib.import_module(f"tokenizers.{name}") for name in ("normalizers", "pre_tokenizers", "decoders")
    }
    normalizers, pre_tokenizers, decoders = parts.values()
    made = library.Tokenizer(library.models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(library.Regex(" {2,}"), " ")])
    spaces = {"replacement": "▁", "prepend_scheme": "always"}
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**spaces)])
    made.decoder = decoders.Metaspace(**spaces)
    options = {"vocab_size": PIECES, "special_tokens": ["<pad>", "</s>", "<unk>"], "unk_token": "<unk>"}
    trainer = importlib.import_module("tokenizers.trainers").UnigramTrainer(**options, show_progress=False)
    made.train_from_iterator([texts.ENGLISH, *texts.SENTENCES, *ASKED], trainer)
    made.add_special_tokens([f"<extra_id_{i}>" for i in reversed(range(SENTINELS))])
    made.post_processor = importlib.import_module("tokenizers.processors").TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return made


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    torch.set_num_threads(1)
    kept_file = GOLDENS / FOLDER / "tokenizer.json"  # training is not deterministic: delete it to train again
    trained = (
        importlib.import_module("tokenizers").Tokenizer.from_file(str(kept_file)) if kept_file.exists() else tokenizer()
    )
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=trained, **names)
    settings = {**T5, "vocab_size": trained.get_vocab_size(), "eos_token_id": 1}
    config = transformers.T5Config(**settings, attn_implementation="eager")
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weight(key, tuple(parameter.shape))))
        batch = fast(ASKED, return_tensors="pt", padding=True)
        written = model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=False, max_new_tokens=STEPS
        )
    spaces = ("\x85", "\ufeff")  # the first is a space only in Rust, the second only in JavaScript
    picked = [text for text in texts.PICKED if not any(space in text for space in spaces)]
    encoded = [{"text": text, "ids": fast(text)["input_ids"]} for text in (*picked, *texts.SENTENCES, *ASKED)]
    for case in encoded:
        case["decoded"] = fast.decode(case["ids"], skip_special_tokens=True)
    kept = (*settings, "model_type", "tie_word_embeddings", "is_encoder_decoder")
    made.json(f"{FOLDER}/config.json", {key: getattr(config, key) for key in dict.fromkeys(kept)})
    made.json(f"{FOLDER}/tokenizer.json", json.loads(trained.to_str()))
    made.json(
        f"{FOLDER}/tokenizer_config.json", {**names, "model_max_length": 512, "tokenizer_class": "T5TokenizerFast"}
    )
    answers = [
        {"text": text, "answer": answer}
        for text, answer in zip(ASKED, fast.batch_decode(written, skip_special_tokens=True), strict=True)
    ]
    made.json(f"{FOLDER}/answers.json", {"encoded": encoded, "answers": answers, "steps": STEPS})
    return made.report()


if __name__ == "__main__":
    raise SystemExit(main())
