"""Generate tokens with ``transformers`` under each option: ``tests/goldens/generation.json`` and ``.npz``.

    python -m scripts.generation_goldens [--check]

The models and prompts are those of ``scripts/decoder_goldens.py``: weights made from their names, prompts of three
lengths padded on the left. ``fields`` are those of ``GenerationConfig``. A case of ``written`` names a model, whether
its prompt is one token, its options, and the new tokens; most cases have one option, the last of each model several at
random. ``scores.N`` of the arrays are random scores after all processors and warpers of the options ``processed[N]``.

Needs the packages of ``scripts/goldens.py``, and ``pyodide_pkg`` on PYTHONPATH.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from typing import Any

import numpy as np

from scripts.decoder_goldens import model_of, prompts_of
from scripts.goldens import Arrays, Goldens

STEPS = 16
VOCABULARY = 100
RANDOM_CASES = 14
MODELS = ("tiny-llama", "tiny-gpt2", "tiny-t5")

# Each with a few values, at least one of which changes the tokens of the tiny models.
GREEDY: dict[str, list[Any]] = {
    "no_repeat_ngram_size": [1, 2, 3],
    "encoder_no_repeat_ngram_size": [1, 2],
    "repetition_penalty": [1.3, 0.6],
    "encoder_repetition_penalty": [1.8, 0.5],
    "min_length": [18, 3],
    "min_new_tokens": [7],
    "max_length": [15, 9],
    "bad_words_ids": [[[5], [7, 9]], [[token] for token in range(40)], [[4, 6], [6, 4], [3]]],
    "forced_bos_token_id": [8],
    "forced_eos_token_id": [4, [6, 5]],
    "suppress_tokens": [list(range(0, 100, 3)), [999, 5]],
    "begin_suppress_tokens": [list(range(50))],
    "sequence_bias": [[[[11], 9.0], [[11, 12], 20.0], [[12, 13, 14], 25.0]], [[[20], -30.0], [[21], 3.5]]],
    "exponential_decay_length_penalty": [[2, 1.6], [0, 1.05]],
    "remove_invalid_values": [True],
    "renormalize_logits": [True],
    "eos_token_id": [list(range(0, 100, 9)), 5],
    "temperature": [0.0, 0.5],
    "top_k": [3],
    "early_stopping": [True],
    "max_new_tokens": [3],
}
# Options that matter beside another one: without the second option the texts end in the first tokens.
TOGETHER: list[dict[str, Any]] = [
    {"eos_token_id": list(range(0, 100, 3))},
    {"eos_token_id": list(range(0, 100, 3)), "min_new_tokens": 7},
]
DRAWN: dict[str, list[Any]] = {
    "temperature": [0.4, 2.5],
    "top_k": [1, 12, 0, 1000],
    "top_p": [0.0, 0.3, 0.95, 1.0, 1.5],
    "min_p": [0.0, 0.05, 1.0],
    "top_h": [0.2, 0.7],
    "typical_p": [0.2, 0.9, 1.0],
    "epsilon_cutoff": [0.02, 0.5, 3.0],
    "eta_cutoff": [0.1, 0.001],
    "renormalize_logits": [True],
    "repetition_penalty": [1.5],
    "bad_words_ids": [[[token] for token in range(30)]],
    "sequence_bias": [[[[3], 8.0]]],
}


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    torch.set_num_threads(1)
    fields = [name for name in vars(transformers.GenerationConfig()) if not name.startswith("_")]
    written = []
    arrays: Arrays = {}
    with torch.no_grad():
        for name in MODELS:
            written += written_by(name)
        processed = scores_of(arrays)
    made.json("generation.json", {"fields": sorted(fields), "written": written, "processed": processed})
    made.arrays("generation.npz", arrays)
    return made.report()


def options_of(table: dict[str, list[Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return each value alone, then several options at random."""
    alone = [{name: value} for name, values in table.items() for value in values]
    several = []
    for _ in range(RANDOM_CASES):
        names = rng.choice(list(table), size=int(rng.integers(2, 6)), replace=False)
        several.append({str(name): table[name][int(rng.integers(len(table[name])))] for name in names})
    return alone + several


def written_by(name: str) -> list[dict[str, Any]]:
    """Generate new tokens of ``name`` under each option, for the batch and for a prompt of one token."""
    torch = importlib.import_module("torch")
    model, (prompts, mask) = model_of(name), prompts_of(name)
    cases = []
    for options in [*options_of(GREEDY, np.random.default_rng(len(name) + 1)), *TOGETHER]:
        for rows, columns in ((slice(None), slice(None)), (slice(1), slice(-1, None))):
            given = {"do_sample": False, "max_new_tokens": STEPS, "eos_token_id": 5, "pad_token_id": 0, **options}
            if "max_length" in options and "max_new_tokens" not in options:
                del given["max_new_tokens"]
            ids, attention = prompts[rows, columns], mask[rows, columns]
            case = {"model": name, "is_one_token": rows == slice(1), "options": given}
            try:
                tokens = model.generate(
                    ids, attention_mask=torch.ones_like(attention) if len(ids) == 1 else attention, **given
                )
            except (ValueError, IndexError) as error:
                cases.append({**case, "refused": type(error).__name__})
                continue
            start = 1 if model.config.is_encoder_decoder else ids.shape[1]
            cases.append({**case, "new": tokens[:, start:].tolist()})
    return cases


def scores_of(arrays: Arrays) -> list[dict[str, Any]]:
    """Add random scores, and these after the processors of each set of options, to ``arrays``; gives the options."""
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    model = model_of("tiny-llama")
    rng = np.random.default_rng(7)
    ids = torch.from_numpy(rng.integers(3, VOCABULARY, (3, 9)))
    scores = torch.from_numpy((rng.standard_normal((3, VOCABULARY)) * [[1], [3], [6]]).astype(np.float32))
    scores[0, 7] = scores[0, 11] = 1.0  # a tie, but not of the largest: `torch.sort` is not stable
    scores[1, 20:60] = -float("inf")
    arrays |= {"ids": ids.numpy().astype(np.int32), "scores": scores.numpy()}
    made = []
    for number, options in enumerate(options_of(DRAWN, rng)):
        given = {"top_k": 0, **options, "do_sample": True}
        config = transformers.GenerationConfig(**given)
        model._prepare_special_tokens(config, device="cpu")  # noqa: SLF001 - as generate() does
        processors = model._get_logits_processor(config, input_ids_seq_length=9, encoder_input_ids=ids, device="cpu")  # noqa: SLF001
        arrays[f"scores.{number}"] = processors(ids, scores.clone()).numpy()
        made.append(given)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
