"""Make ``tests/goldens/tiny-bart-text``: summaries by BART's ``generate`` in ``transformers``, which has no pipeline.

    python -m scripts.bart_goldens [--check]

The tokenizer is that of ``tiny-t5-text``, the options of generation are those of the ``config.json``. Weights are made
from their names, as in ``scripts/decoder_goldens.py``, which lists the required packages.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

from scripts import golden_texts as texts
from scripts.decoder_goldens import BART
from scripts.goldens import GOLDENS, Goldens
from tests.cases.seeded import weight

FOLDER = "tiny-bart-text"
ASKED = [texts.ENGLISH, "A naïve café — twice", texts.SENTENCES[0]]
TOKENS: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": [1, 165], "pad_token_id": 0, "decoder_start_token_id": 1}
OPTIONS: dict[str, Any] = {
    "max_length": 40,
    "min_length": 12,
    "no_repeat_ngram_size": 3,
    "forced_bos_token_id": 5,
    "forced_eos_token_id": 1,
    "num_beams": 1,
    "task_specific_params": {"summarization": {"max_length": 20, "num_beams": 4}},  # not read
}
BEAMS: dict[str, Any] = {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "num_return_sequences": 2}
DISTINCT = 16  # least number of different tokens in a summary


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    torch.set_num_threads(1)
    path = str(GOLDENS / "tiny-t5-text" / "tokenizer.json")
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=path, **special)
    config = {**BART, **TOKENS, "vocab_size": len(tokenizer), "model_type": "bart", **OPTIONS}
    config |= {"architectures": ["BartForConditionalGeneration"], "is_encoder_decoder": True}
    kind = transformers.BartForConditionalGeneration
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        (Path(folder) / "config.json").write_text(json.dumps(config))
        settings = kind.config_class.from_pretrained(folder)
        kind(settings).save_pretrained(folder)
        (Path(folder) / "config.json").write_text(json.dumps(config))
        (Path(folder) / "generation_config.json").unlink()
        model = kind.from_pretrained(folder, attn_implementation="eager").eval()
        for key, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weight(key, tuple(parameter.shape))))
        shape = (1, config["vocab_size"])
        model.final_logits_bias.copy_(torch.from_numpy(weight("final_logits_bias", shape)))
        summaries = []
        for text in ASKED:
            given = tokenizer(text, return_tensors="pt", max_length=190, truncation=True)
            ids = model.generate(input_ids=given["input_ids"], attention_mask=given["attention_mask"])[0]
            summaries.append({"text": text, "ids": ids.tolist()})
            summaries[-1]["summary_text"] = tokenizer.decode(ids, skip_special_tokens=True)
            found = model.generate(input_ids=given["input_ids"], attention_mask=given["attention_mask"], **BEAMS)
            summaries[-1]["by_beams"] = [tokenizer.decode(row, skip_special_tokens=True) for row in found]
    if max(len(set(each["ids"])) for each in summaries) < DISTINCT:
        raise SystemExit(f"no summary has {DISTINCT} different tokens: {summaries}")
    made.json(f"{FOLDER}/config.json", config)
    made.json(f"{FOLDER}/summaries.json", summaries)
    return made.report()


if __name__ == "__main__":
    raise SystemExit(main())
