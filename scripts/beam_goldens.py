"""Search with beams by ``transformers``: ``tests/goldens/beams.json``, and ``lookup.json`` for prompt lookup.

    python -m scripts.beam_goldens [--check]

``tables`` are searches with a model that is a table of random scores (``tests/cases/score_table.py``): its logits
follow from the last two tokens, so that many searches with few words cost little. A case has its options, the seed of
its table and prompts, and the new tokens, scores and rows of ``generate``, with the log-probability of each token.
``warped`` are scores of tables after the filters for sampled tokens (null: minus infinity), which with beams keep more.
``written`` are searches with the models and prompts of ``scripts/decoder_goldens.py``. The cases of ``lookup.json``
have the tokens so far, the options, and the candidates of ``PromptLookupCandidateGenerator``.

Needs the packages of ``scripts/goldens.py``, and ``pyodide_pkg`` on PYTHONPATH.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import warnings
from typing import Any

import numpy as np

from scripts.decoder_goldens import model_of, prompts_of
from scripts.generation_goldens import DRAWN, options_of
from scripts.goldens import Goldens
from tests.cases.score_table import WORDS, prompts_of_table, scores_after

TABLES = 240
LOOKUPS = 120
STEPS = 12
MODELS = ("tiny-gpt2", "tiny-llama", "tiny-bart", "tiny-t5")
PENALTIES = (-1.5, 0.0, 0.7, 1.0, 2.0)
STOPPINGS = (False, True, "never")


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    with torch.no_grad():
        tables = [searched(table_options(number), number) for number in range(TABLES)]
        written = [case for name in MODELS for case in written_by(name)]
        made.json("beams.json", {"tables": tables, "warped": warped(), "written": written}, tolerance=1e-4)
    made.json("lookup.json", {"lookups": [looked_up(number) for number in range(LOOKUPS)]})
    return made.report()


def table_options(number: int) -> dict[str, Any]:
    """Return the options of a search over a table: every combination of some, others at random."""
    rng = np.random.default_rng([number, 5])
    combined = list(itertools.product((2, 3, 5), PENALTIES, STOPPINGS))
    beams, penalty, stopping = combined[number % len(combined)]
    ends = [[1], [1, 4], [], [1, 3, 30], [2]][int(rng.integers(5))]
    options: dict[str, Any] = {
        "num_beams": beams,
        "length_penalty": penalty,
        "early_stopping": stopping,
        "num_return_sequences": int(rng.integers(1, beams + 1)),
        "max_new_tokens": int(rng.integers(1, 14)),
        "pad_token_id": int(rng.integers(2)) * 3,
        "eos_token_id": ends or None,
    }
    more: dict[str, Any] = {
        "min_new_tokens": 3,
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.4,
        "forced_bos_token_id": 6,
        "forced_eos_token_id": 5,
        "suppress_tokens": [7, 8],
        "sequence_bias": [[[9], 2.5], [[9, 10], -3.0]],
        "renormalize_logits": True,
        "exponential_decay_length_penalty": [2, 1.3] if ends and max(ends) < WORDS else None,
    }
    for name, value in more.items():
        if rng.random() < 0.12 and value is not None:
            options[name] = value
    return options


def table_model(seed: int) -> Any:
    """Make a model of `transformers` whose logits are those of ``scores_after``."""
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    outputs = importlib.import_module("transformers.modeling_outputs")

    class TableModel(transformers.PreTrainedModel, transformers.GenerationMixin):  # type: ignore[misc, name-defined]
        config_class = transformers.PretrainedConfig
        _supports_cache_class = False

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: Any, **_: Any) -> Any:
            logits = torch.from_numpy(scores_after(input_ids.numpy(), seed))[:, None]
            return outputs.CausalLMOutput(logits=logits)

    return TableModel(transformers.PretrainedConfig(vocab_size=WORDS))


def searched(options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Search with the table of this seed."""
    torch = importlib.import_module("torch")
    prompts = torch.from_numpy(prompts_of_table(seed)).long()
    found = result_of(table_model(seed), prompts, torch.ones_like(prompts), {**options, "use_cache": False})
    return {"seed": seed, "options": options, **found}


def warped() -> list[dict[str, Any]]:
    """Return scores of a table after the processors and filters of each set of options."""
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    made = []
    for seed, options in enumerate(options_of(DRAWN, np.random.default_rng(6))):
        ids = np.random.default_rng([seed, 3]).integers(0, WORDS, (4, 5))
        given = {
            "top_k": 0,
            "num_beams": 2,
            "eos_token_id": [[3], [1, 2], None][seed % 3],
            **options,
            "do_sample": True,
        }
        given["bad_words_ids"] = [[[token] for token in range(6)], None]["bad_words_ids" not in options]
        config = transformers.GenerationConfig(**given)
        model = table_model(seed)
        model._prepare_special_tokens(config, device="cpu")  # noqa: SLF001 - as generate() does
        arguments = {"input_ids_seq_length": 5, "encoder_input_ids": torch.from_numpy(ids), "device": "cpu"}
        processors = model._get_logits_processor(config, **arguments)  # noqa: SLF001
        scores = processors(torch.from_numpy(ids), torch.from_numpy(scores_after(ids, seed))).tolist()
        kept = [[None if np.isinf(score) else round(score, 5) for score in row] for row in scores]
        made.append({"seed": seed, "ids": ids.tolist(), "options": given, "scores": kept})
    return made


def result_of(model: Any, ids: Any, mask: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return new tokens, their scores, the rows and the log-probabilities, of a search."""
    if options.get("eos_token_id", 0) is None:
        model.generation_config.eos_token_id = None
    out = model.generate(
        ids, attention_mask=mask, do_sample=False, return_dict_in_generate=True, output_scores=True, **options
    )
    start = 1 if model.config.is_encoder_decoder else ids.shape[1]
    each = model.compute_transition_scores(out.sequences, out.scores, out.beam_indices, normalize_logits=True)
    return {
        "new": out.sequences[:, start:].tolist(),
        "scores": [round(value, 5) for value in out.sequences_scores.tolist()],
        "rows": out.beam_indices.tolist(),
        "logprobs": [[round(value, 4) for value in row] for row in each.tolist()],
    }


def written_by(name: str) -> list[dict[str, Any]]:
    """Search with a model, over the batch of prompts and a prompt of one token."""
    torch = importlib.import_module("torch")
    model, (prompts, mask) = model_of(name), prompts_of(name)
    rng = np.random.default_rng(len(name) + 3)
    cases = []
    settings = list(itertools.product((2, 4, 5), PENALTIES, STOPPINGS))
    for beams, penalty, stopping in [settings[place] for place in rng.permutation(len(settings))[:14]]:
        options: dict[str, Any] = {
            "num_beams": beams,
            "length_penalty": penalty,
            "early_stopping": stopping,
            "num_return_sequences": int(rng.integers(1, beams + 1)),
            "max_new_tokens": STEPS,
            "pad_token_id": 0,
            "eos_token_id": [[5], list(range(0, 100, 9)), list(range(0, 100, 3))][int(rng.integers(3))],
        }
        if rng.random() < 0.3:
            options |= {"no_repeat_ngram_size": 2, "min_new_tokens": 4}
        if name in ("tiny-bart", "tiny-t5") and rng.random() < 0.4:
            options |= {"forced_bos_token_id": 8, "forced_eos_token_id": options["eos_token_id"][0]}
        for is_one in (False, True):
            ids = prompts[:1, -1:] if is_one else prompts
            found = result_of(model, ids, torch.ones_like(ids) if is_one else mask, options)
            cases.append({"model": name, "is_one_token": is_one, "options": options, **found})
    return cases


def looked_up(number: int) -> dict[str, Any]:
    """Look up candidates after random tokens, which repeat since there are few words."""
    torch = importlib.import_module("torch")
    generators = importlib.import_module("transformers.generation.candidate_generator")
    rng = np.random.default_rng([number, 9])
    ids = rng.integers(3, 3 + rng.integers(2, 9), int(rng.integers(1, 30))).tolist()
    ends = [[3], [4, 5], []][number % 3]
    options = {
        "prompt_lookup_num_tokens": int(rng.integers(1, 8)),
        "max_matching_ngram_size": int(rng.integers(1, 5)),
        "longest": len(ids) + int(rng.integers(1, 12)),
    }
    generator = generators.PromptLookupCandidateGenerator(
        eos_token_id=torch.tensor(ends) if ends else None,
        num_output_tokens=options["prompt_lookup_num_tokens"],
        max_matching_ngram_size=options["max_matching_ngram_size"],
        max_length=options["longest"],
    )
    found, _ = generator.get_candidates(torch.tensor([ids]))
    return {"ids": ids, "ends": ends, **options, "candidates": found[0, len(ids) :].tolist()}


if __name__ == "__main__":
    raise SystemExit(main())
