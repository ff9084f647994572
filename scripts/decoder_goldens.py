"""Make ``tests/goldens/decoders.npz`` and configs: results of ``transformers`` for tiny decoders with random weights.

    python -m scripts.decoder_goldens [--check]

Weights are made from their names (``tests/cases/seeded.py``), here and in the tests, and are not committed. For each
model: the logits of a padded batch, 64 greedy tokens of one prompt with the logits of each step, and of a batch of
prompts of different lengths (padded on the left) that stops at an end token. ``sampling.*`` are the scores after each
of the logits processors.

Needs the packages of ``scripts/goldens.py``, and ``pyodide_pkg`` on PYTHONPATH.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

import numpy as np

from scripts import golden_texts as texts
from scripts.goldens import Arrays, Goldens
from scripts.paths import CONVERTED
from tests.cases.seeded import weight

STEPS = 64
LENGTHS = (7, 3, 12)  # of the prompts in a batch
SIZES: dict[str, Any] = {"vocab_size": 100, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
LLAMA: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 50,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 200,
    **SIZES,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA3: dict[str, Any] = {
    "head_dim": 20,
    "query_pre_attn_scalar": 30,
    "tie_word_embeddings": False,
    "final_logit_softcapping": 9.0,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 3000.0, "factor": 2.0},
    },
}
T5: dict[str, Any] = {
    "d_model": 36,
    "d_kv": 10,
    "d_ff": 50,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
    **SIZES,
}
BART: dict[str, Any] = {
    "d_model": 36,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 50,
    "decoder_ffn_dim": 44,
    "max_position_embeddings": 200,
    "scale_embedding": True,
    "decoder_start_token_id": 7,
    **SIZES,
}
# Folder -> class of `transformers`, config.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny-gpt2": ("GPT2LMHeadModel", {"n_embd": 36, "n_layer": 2, "n_head": 3, "n_positions": 200, **SIZES}),
    "tiny-llama": ("LlamaForCausalLM", {**LLAMA, "tie_word_embeddings": True}),
    "tiny-llama-scaled": (
        "LlamaForCausalLM",
        {**LLAMA, "head_dim": 20, "attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3_ROPE},
    ),
    "tiny-qwen2": ("Qwen2ForCausalLM", {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}),
    "tiny-qwen3": (
        "Qwen3ForCausalLM",
        {**LLAMA, "head_dim": 20, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "tiny-mistral": ("MistralForCausalLM", {**LLAMA, "sliding_window": 5}),
    "tiny-gemma3": ("Gemma3ForCausalLM", {**LLAMA, **GEMMA3}),
    "tiny-bart": ("BartForConditionalGeneration", BART),
    "tiny-t5": ("T5ForConditionalGeneration", T5),
    "tiny-t5-gated": ("T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu"}),
}


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    arrays: Arrays = {}
    with torch.no_grad():
        for name in MODELS:
            arrays |= {f"{name}.{key}": value for key, value in model_goldens(name, made).items()}
        arrays |= sampling_goldens()
    made.arrays("decoders.npz", arrays)
    with torch.no_grad():
        made.json("smollm2.json", smollm2_goldens())
    return made.report()


def model_of(name: str) -> Any:
    """Make the model of `transformers`, with weights made from their names."""
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    kind, settings = MODELS[name]
    model_class = getattr(transformers, kind)
    model = model_class(model_class.config_class(**settings, attn_implementation="eager")).eval()
    if name == "tiny-t5-gated":  # like the published T5 1.1
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        model.config.tie_word_embeddings = model.config.scale_decoder_outputs = False
        model.scale_decoder_outputs = False
    for key, parameter in model.named_parameters():  # a tied one once
        parameter.copy_(torch.from_numpy(weight(key, tuple(parameter.shape))))
    if name == "tiny-bart":
        model.final_logits_bias.copy_(torch.from_numpy(weight("final_logits_bias", (1, 100))))
    return model


def _texts(name: str) -> tuple[np.random.Generator, Any, Any]:
    """Return a random generator, token ids (batch, width), and their mask with padding on the left."""
    torch = importlib.import_module("torch")
    rng = np.random.default_rng(len(name))
    width = max(LENGTHS)
    left = torch.tensor([[0] * (width - length) + [1] * length for length in LENGTHS])
    return rng, torch.from_numpy(rng.integers(3, 100, (len(LENGTHS), width))), left


def prompts_of(name: str) -> tuple[Any, Any]:
    """Return prompts of three lengths and their mask: padded on the left, or on the right for an encoder."""
    _, ids, left = _texts(name)
    mask = left.flip(1) if MODELS[name][0].endswith("ForConditionalGeneration") else left
    return ids * mask, mask


def model_goldens(name: str, made: Goldens) -> Arrays:
    """Write the ``config.json`` of the folder; gives inputs, logits and greedy tokens."""
    torch = importlib.import_module("torch")
    model = model_of(name)
    config = model.config.to_dict()
    kept = (*MODELS[name][1], "model_type", "tie_word_embeddings", "rope_parameters", "is_encoder_decoder")
    made.json(f"{name}/config.json", {key: config[key] for key in dict.fromkeys(kept) if key in config})

    rng, ids, left = _texts(name)
    width, right = max(LENGTHS), left.flip(1)
    encoder_decoder = model.config.is_encoder_decoder
    prompts, mask = prompts_of(name)
    arrays: Arrays = {"input_ids": (ids * right).numpy(), "attention_mask": right.numpy()}
    extra = {"decoder_input_ids": torch.from_numpy(rng.integers(3, 100, (len(LENGTHS), 9)))} if encoder_decoder else {}
    output = model(input_ids=ids * right, attention_mask=right, **extra)
    arrays |= {key: value.numpy() for key, value in extra.items()}
    arrays["logits"] = output.logits.numpy()

    options = {"do_sample": False, "max_new_tokens": STEPS, "pad_token_id": 0}
    single = model.generate(ids[:1, :5], **options, return_dict_in_generate=True, output_logits=True)
    arrays["prompt"], arrays["greedy"] = ids[:1, :5].numpy(), single.sequences[:, -STEPS:].numpy()
    arrays["greedy_logits"] = torch.stack(single.logits, 1).numpy()
    batch = model.generate(prompts, attention_mask=mask, **options)[:, -STEPS:]
    stop = _stop(batch.numpy())
    stopped = model.generate(prompts, attention_mask=mask, **options, eos_token_id=stop)
    start = 1 if encoder_decoder else width
    arrays |= {"prompts": prompts.numpy(), "prompts_mask": mask.numpy(), "batch": batch.numpy()}
    arrays |= {"eos": np.array(stop), "stopped": stopped[:, start:].numpy()}
    repeated = model.generate(ids[:1, :5], **options, repetition_penalty=1.7)
    arrays["penalized"] = repeated[:, -STEPS:].numpy()
    return {key: value.astype(np.int32) if value.dtype.kind == "i" else value for key, value in arrays.items()}


def _stop(batch: np.ndarray[Any, Any]) -> int:
    """Find a token that ends at least one row, not all of them at once, and none at the first step."""
    for token in np.unique(batch):
        first = [int(np.argmax(row == token)) if token in row else STEPS for row in batch]
        if min(first) > 2 and len(set(first)) > 1 and min(first) < STEPS:
            return int(token)
    raise SystemExit("no token of this batch is suitable as an end token")


CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "You answer in one word."},
        {"role": "user", "content": "Which colour has the sky? {{ 1 + 1 }}"},
        {"role": "assistant", "content": "Blue"},
        {"role": "user", "content": 'And grass — "lawn"?'},
    ],
]


def smollm2_goldens() -> dict[str, Any]:
    """Run SmolLM2 from the converted file, in float32: ids of texts, chats by its template, 64 greedy tokens."""
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    folder = CONVERTED / "SmolLM2-135M-Instruct"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chats = [
        {
            "messages": messages,
            "prompt": tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
            "without": tokenizer.apply_chat_template(messages, tokenize=False),
        }
        for messages in CHATS
    ]
    written = []
    for prompt in (chats[0]["prompt"], "The quick brown fox"):
        ids = tokenizer(prompt, return_tensors="pt")
        row = model.generate(**ids, max_new_tokens=STEPS, do_sample=False, eos_token_id=None, pad_token_id=2)[0]
        answer = row[ids["input_ids"].shape[1] :]
        text = tokenizer.decode(answer, skip_special_tokens=True)
        written.append({"prompt": prompt, "ids": ids["input_ids"][0].tolist(), "new": answer.tolist(), "text": text})
    picked = [
        *texts.PICKED,
        *texts.SENTENCES,
        "1234 5.6e7 ٣٤",
        "<|im_start|>user\nhi<|im_end|>",
        "def f(x):\n\treturn x**2\n\n",
    ]
    # GPT2Tokenizer builds its own pre-tokenizer, without the separate digits of tokenizer.json.
    rust = importlib.import_module("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = [{"text": text, "ids": rust.encode(text).ids} for text in picked]
    for case in encoded:
        case["decoded"] = rust.decode(case["ids"], skip_special_tokens=True)
    return {"chats": chats, "written": written, "encoded": encoded}


def sampling_goldens() -> Arrays:
    """Compute the scores of two rows after each processor alone, and after all in the order of ``generate``."""
    torch = importlib.import_module("torch")
    process = importlib.import_module("transformers.generation.logits_process")
    rng = np.random.default_rng(5)
    ids = torch.from_numpy(rng.integers(0, 50, (2, 9)))
    scores = torch.from_numpy((rng.standard_normal((2, 50)) * 3).astype(np.float32))
    scores[0, 7] = scores[0, 11]  # a tie
    arrays: Arrays = {"sampling.ids": ids.numpy().astype(np.int32), "sampling.scores": scores.numpy()}
    processors = {
        "repetition_penalty": process.RepetitionPenaltyLogitsProcessor(1.3),
        "temperature": process.TemperatureLogitsWarper(0.7),
        "top_k": process.TopKLogitsWarper(10),
        "top_p": process.TopPLogitsWarper(0.8),
    }
    combined = scores
    for name, processor in processors.items():
        arrays[f"sampling.{name}"] = processor(ids, scores.clone()).numpy()
        combined = processor(ids, combined)
    arrays["sampling.all"] = combined.numpy()
    return arrays


if __name__ == "__main__":
    raise SystemExit(main())
