"""Make ``tests/goldens/``: results of the reference implementations, for comparisons by the tests.

    python -m scripts.goldens            write the files
    python -m scripts.goldens --check    compute everything again and compare with the committed files

Needs packages that the tests do not need: ``torch`` (CPU), ``transformers``, ``tokenizers``, ``safetensors`` (versions
in ``tests/goldens/index.json``), and the sample models that ``make`` puts in ``.cache/``.

=====================  =================================================================================================
``tokenizer.json``     ids of ``transformers.AutoTokenizer`` for the texts and pairs of ``golden_texts.py``
``minilm.npz``         all-MiniLM-L6-v2: ``BertModel`` outputs, sentence embeddings (mean pooling, L2), skill
                       probabilities
``pairs.npz``          all-MiniLM-L6-v2: the cosines of all pairs of ``golden_texts.TOPICS``, 300 of them
``splade.npz``         SPLADE-tiny: ``BertForMaskedLM`` hidden states, logits, sparse vectors, and the four heads of
                       ``heads.pt`` on the first hidden state
``tiny-*/``            three small checkpoints with random weights: an encoder, the same encoder under a masked-LM head,
                       a pair classifier on top; ``tiny.npz`` has their outputs, every layer's hidden state included
``index.json``         versions, the texts of every case, and a description of each array
=====================  =================================================================================================

An array is named ``case.output``. A long output has only every ``ROW_STEP``-th position (``.rows``), with the
norm of the whole (``.norm``); logits also have only every ``VOCAB_STEP``-th column.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import itertools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from scripts import golden_texts as texts
from scripts.paths import DOWNLOADS, MODELS, ROOT

GOLDENS = ROOT / "tests" / "goldens"
MINILM = "all-MiniLM-L6-v2"
SPLADE = "splade-tiny"
ROW_STEP = 16
VOCAB_STEP = 97
# For --check, of ‖new − committed‖ / ‖committed‖. Machines differ in the order of sums: eager and fused attention by
# 2.5e-6, float32 and float64 by 1.5e-6.
TOLERANCE = 1e-5

Arrays = dict[str, np.ndarray[Any, Any]]


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    parser = arguments_of(__doc__)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--sources", type=Path, default=DOWNLOADS / "sources")
    arguments = parser.parse_args()

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)

    made = Goldens(check=arguments.check)
    with torch.no_grad():
        made.json("tokenizer.json", tokenizer_goldens(arguments.models))
        made.arrays("minilm.npz", minilm_goldens(arguments.models, arguments.sources))
        made.arrays("pairs.npz", pair_goldens(arguments.models))
        made.arrays("splade.npz", splade_goldens(arguments.models, arguments.sources))
        made.arrays("tiny.npz", tiny_goldens(made))
    made.json("index.json", index())
    status = made.report()
    total = sum(path.stat().st_size for path in GOLDENS.rglob("*") if path.is_file())
    print(f"{len(made.files)} files, {total:,} bytes in all" + (", all as committed" if not made.differences else ""))
    return status


def arguments_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of a script's command line, with ``--check``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    return parser


class Goldens:
    """Writes files, or in ``check`` mode compares them and collects ``differences``."""

    def __init__(self, *, check: bool) -> None:
        self.check = check
        self.files: list[str] = []
        self.differences: list[str] = []

    @classmethod
    def from_arguments(cls, description: str | None) -> Goldens:
        """Parse the command line of a script that has only ``--check``."""
        return cls(check=arguments_of(description).parse_args().check)

    def report(self) -> int:
        """Print the differences; gives the exit status, which is 1 where there are any."""
        for line in self.differences:
            print(f"differs: {line}")
        return 1 if self.differences else 0

    def data(self, name: str, data: bytes) -> None:
        """Write a file, or compare its bytes."""
        path = GOLDENS / name
        self.files.append(name)
        if self.check:
            if not path.exists() or path.read_bytes() != data:
                self.differences.append(name)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{name}: {len(data):,} bytes")

    def json(self, name: str, value: Any, *, tolerance: float = 0.0) -> None:
        """Write a JSON file with one line per entry, so that a change is a readable diff, or compare it. Its floats may
        differ by ``tolerance``, relative to values above 1.
        """
        text, path = _json(value), GOLDENS / name
        if self.check and path.exists() and _close(json.loads(path.read_text()), json.loads(text), tolerance):
            self.files.append(name)
        else:
            self.data(name, text.encode())

    def arrays(self, name: str, arrays: Arrays) -> None:
        """Write an ``.npz``, or compare its arrays: integers exactly, floats within ``TOLERANCE``."""
        path = GOLDENS / name
        self.files.append(name)
        if not self.check:
            named: dict[str, Any] = dict(sorted(arrays.items()))
            np.savez_compressed(path, **named)
            print(f"{name}: {path.stat().st_size:,} bytes")
            return
        with np.load(path) as committed:
            if set(committed.files) != set(arrays):
                self.differences.append(f"{name}: {sorted(set(committed.files) ^ set(arrays))}")
            for key in sorted(set(committed.files) & set(arrays)):
                old, new = committed[key], arrays[key]
                if old.shape != new.shape or old.dtype != new.dtype:
                    self.differences.append(f"{name} {key}: {old.dtype}{old.shape} is now {new.dtype}{new.shape}")
                elif np.issubdtype(old.dtype, np.floating):
                    error = float(np.linalg.norm(new - old) / max(float(np.linalg.norm(old)), 1e-30))
                    if error > TOLERANCE:
                        self.differences.append(f"{name} {key}: relative difference {error:.1e}")
                elif not np.array_equal(old, new):
                    self.differences.append(f"{name} {key}")


def index() -> dict[str, Any]:
    """Describe the other files, and the versions that made them."""
    names = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
    return {
        "versions": {name: importlib.import_module(name).__version__.partition("+")[0] for name in names},
        "row_step": ROW_STEP,
        "vocab_step": VOCAB_STEP,
        "minilm": {
            "padding": texts.SENTENCES[:3],
            "empty": [""],
            "non_ascii": texts.SENTENCES[5:7],
            "unk": ["😀 " + "x" * 101 + " [UNK]"],
            "long": [texts.LONG],
            "embeddings": texts.SENTENCES,
            "skill": [f"{skill} : {context}" for skill, context in texts.SKILLS],
            "one_token": "input_ids [[101]]: no text makes a single token",
        },
        "splade": {
            "padding": texts.SENTENCES[:3],
            "mask": ["The capital of France is [MASK]."],
            "long": [texts.LONG],
            "sparse": texts.SENTENCES[:8],
            "nli": texts.CLAIMS,
            "relevance": texts.CLAIMS,
            "polarity": texts.STATEMENTS,
            "relation_type": texts.STATEMENTS,
        },
    }


def tokenizer_goldens(models: Path) -> dict[str, Any]:
    """Return ``ids[model][i]`` for ``cases[i]``; ``second[i]`` is the position of the second text of a pair."""
    cases: list[dict[str, Any]] = []
    for text in texts.PICKED + texts.generated() + [texts.LONG]:
        cases += [{"text": text, "pair": None, "max_length": limit} for limit in texts.LIMITS]
    for text, pair in texts.PAIRS:
        cases += [{"text": text, "pair": pair, "max_length": limit} for limit in texts.LIMITS + texts.PAIR_LIMITS]
    result: dict[str, Any] = {"cases": cases, "ids": {}, "second": {}}
    for model in (MINILM, SPLADE):
        reference = _tokenizer(models / model)
        rust = importlib.import_module("tokenizers").Tokenizer.from_file(str(models / model / "tokenizer.json"))
        rust.no_padding()
        ids, second = [], []
        for case in cases:
            # As a batch of one: for a single string, transformers ignores an empty second text.
            other = None if case["pair"] is None else [case["pair"]]
            batch = reference([case["text"]], other, truncation=True, max_length=case["max_length"])
            encoded = {name: rows[0] for name, rows in batch.items()}
            rust.enable_truncation(case["max_length"])
            plain = rust.encode(case["text"]) if case["pair"] is None else rust.encode(case["text"], case["pair"])
            if plain.ids != encoded["input_ids"]:
                raise SystemExit(f"{model}: transformers and tokenizers differ on {case!r}")
            ids.append(encoded["input_ids"])
            second.append(encoded["token_type_ids"].index(1) if 1 in encoded["token_type_ids"] else None)
        result["ids"][model] = ids
        result["second"][model] = second
    if result["ids"][MINILM] == result["ids"][SPLADE]:  # one vocabulary, stored once
        for table in (result["ids"], result["second"]):
            table[SPLADE] = MINILM
    return result


def minilm_goldens(models: Path, sources: Path) -> Arrays:
    """Compute outputs of ``BertModel``, sentence embeddings, and the skill head (a scikit-learn MLP, from JSON)."""
    model = _model("AutoModel", models / MINILM)
    tokenizer = _tokenizer(models / MINILM)
    torch = importlib.import_module("torch")
    arrays: Arrays = {}
    cases = index()["minilm"]
    for case in ("padding", "empty", "non_ascii", "unk", "long"):
        inputs = tokenizer(cases[case], padding=True, truncation=True, max_length=512, return_tensors="pt")
        _store(arrays, case, inputs, model(**inputs), ("last_hidden_state", "pooler_output"))
    one = {"input_ids": torch.tensor([[101]]), "attention_mask": torch.tensor([[1]])}
    _store(arrays, "one_token", one, model(**one), ("last_hidden_state", "pooler_output"))

    def embed(case: str) -> Any:
        inputs = tokenizer(cases[case], padding=True, truncation=True, max_length=256, return_tensors="pt")
        _store(arrays, case, inputs, {}, ())
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        pooled = (model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, dim=-1)

    arrays["embeddings.sentence_embedding"] = embed("embeddings").numpy()
    spec = json.loads((sources / "skill-head" / "mlp.json").read_text())
    hidden = embed("skill")
    for number, layer in enumerate(spec["layers"]):
        weight, bias = (np.frombuffer(base64.b64decode(layer[key]), np.float32) for key in ("weights_b64", "bias_b64"))
        hidden = hidden @ torch.from_numpy(weight.reshape(layer["shape"]).copy()) + torch.from_numpy(bias.copy())
        hidden = torch.relu(hidden) if number < len(spec["layers"]) - 1 else hidden
    arrays["skill.logits"] = hidden.numpy()
    arrays["skill.probability"] = torch.sigmoid(hidden).numpy()
    return arrays


def pair_goldens(models: Path) -> Arrays:
    """Compute token ids of the sentences, and the cosine of each pair."""
    model, tokenizer = _model("AutoModel", models / MINILM), _tokenizer(models / MINILM)
    inputs = tokenizer(texts.TOPICS, padding=True, return_tensors="pt")
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    pooled = ((model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)).numpy().astype(np.float64)
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    named = {f"pairs.{name}": inputs[name].numpy().astype(np.int32) for name in ("input_ids", "attention_mask")}
    return {**named, "cosines": (unit @ unit.T)[np.triu_indices(len(unit), 1)]}


def splade_goldens(models: Path, sources: Path) -> Arrays:
    """Compute outputs of ``BertForMaskedLM``, sparse vectors max(log(1 + relu(logits))) over positions, and heads."""
    torch = importlib.import_module("torch")
    model = _model("AutoModelForMaskedLM", models / SPLADE)
    tokenizer = _tokenizer(models / SPLADE)
    arrays: Arrays = {}
    cases = index()["splade"]
    for case in ("padding", "mask", "long"):
        inputs = tokenizer(cases[case], padding=True, truncation=True, max_length=512, return_tensors="pt")
        output = model(**inputs, output_hidden_states=True)
        _store(arrays, case, inputs, {"last_hidden_state": output.hidden_states[-1]}, ("last_hidden_state",))
        logits = output.logits.numpy()
        step = ROW_STEP if case == "long" else 1
        arrays[f"{case}.logits.columns"] = logits[:, ::step, ::VOCAB_STEP].copy()
        arrays[f"{case}.logits.norm"] = _norm(logits)
        arrays[f"{case}.logits.argmax"] = logits.argmax(-1).astype(np.int32)

    inputs = tokenizer(cases["sparse"], padding=True, truncation=True, max_length=512, return_tensors="pt")
    weights = torch.log1p(torch.relu(model(**inputs).logits)) * inputs["attention_mask"].unsqueeze(-1)
    sparse = weights.max(dim=1).values.numpy()
    rows, columns = np.nonzero(sparse)
    arrays["sparse.rows"] = rows.astype(np.int32)
    arrays["sparse.columns"] = columns.astype(np.int32)
    arrays["sparse.values"] = sparse[rows, columns]

    def first_state(case: str, sentences: list[str]) -> Any:
        inputs = tokenizer(sentences, padding=True, truncation=True, max_length=512, return_tensors="pt")
        _store(arrays, case, inputs, {}, ())
        return model.base_model(**inputs).last_hidden_state[:, 0]

    checkpoint = torch.load(sources / SPLADE / "heads.pt", map_location="cpu", weights_only=True)
    premises, claims = (
        first_state(f"nli.{place}", [pair[side] for pair in texts.CLAIMS])
        for side, place in enumerate(("first", "second"))
    )
    paired = torch.cat([premises, claims, (premises - claims).abs(), premises * claims], dim=-1)
    single = first_state("polarity", texts.STATEMENTS)
    for head, features in (("nli", paired), ("relevance", paired), ("polarity", single), ("relation_type", single)):
        logits = _head(checkpoint[head])(features)
        arrays[f"{head}.logits"] = logits.numpy()
        arrays[f"{head}.probabilities"] = torch.softmax(logits, -1).numpy()
    return arrays


def tiny_goldens(made: Goldens) -> Arrays:
    """Write ``tiny-bert``, ``tiny-bert-mlm`` (the same encoder) and ``tiny-head`` (on tiny-bert); return outputs."""
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    save = importlib.import_module("safetensors.torch").save
    # Sizes that no tile divides: 36 = 3 heads of 12, 50 in the middle, 100 words, 40 positions.
    config = transformers.BertConfig(
        vocab_size=100,
        hidden_size=36,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=50,
        max_position_embeddings=40,
        attn_implementation="eager",
    )
    masked = transformers.BertForMaskedLM(config).eval()
    encoder = transformers.BertModel(config).eval()
    sizes = [4 * 36, 10, 3]
    layers = [torch.nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    rng = np.random.default_rng(7)  # random numbers of NumPy are equal on every machine, those of torch are not
    for module in (masked, encoder, *layers):
        for name, parameter in sorted(module.named_parameters()):
            values = rng.standard_normal(parameter.shape) * (0.1 if parameter.ndim == 1 else 0.3)
            norm = name.endswith("LayerNorm.weight")  # ones and zeros would hide mistakes
            parameter.copy_(torch.from_numpy((1 + values if norm else values).astype(np.float32)))
    encoder.load_state_dict(masked.bert.state_dict(), strict=False)  # all but the pooler

    mlm_state = {
        name: tensor for name, tensor in masked.state_dict().items() if not name.startswith("cls.predictions.dec")
    }
    head_state = {
        f"layers.{n}.{part}": getattr(layer, part) for n, layer in enumerate(layers) for part in ("weight", "bias")
    }
    shared = {
        key: getattr(config, key)
        for key in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
            "hidden_act",
            "layer_norm_eps",
            "pad_token_id",
        )
    }
    head_config = {
        "model_type": "mlp-head",
        "architectures": ["MlpHead"],
        "base_model_name_or_path": "tiny-bert",
        "pooling": "cls",
        "normalize": False,
        "pair": True,
        "layer_sizes": sizes,
        "hidden_act": "relu",
        "output_activation": "softmax",
        "id2label": {"0": "yes", "1": "no", "2": "maybe"},
        "torch_dtype": "float32",
    }
    checkpoints: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("tiny-bert", {"model_type": "bert", "architectures": ["BertModel"], **shared}, encoder.state_dict()),
        ("tiny-bert-mlm", {"model_type": "bert", "architectures": ["BertForMaskedLM"], **shared}, mlm_state),
        ("tiny-head", head_config, head_state),
    ]
    for folder, settings, state in checkpoints:
        made.json(f"{folder}/config.json", settings)
        tensors = {name: tensor.detach().contiguous().clone() for name, tensor in sorted(state.items())}
        made.data(f"{folder}/model.safetensors", save(tensors, metadata={"format": "pt"}))
        if folder != "tiny-head":
            made.json(f"{folder}/tokenizer.json", _tiny_tokenizer())
            made.json(f"{folder}/tokenizer_config.json", TINY_TOKENIZER_CONFIG)

    arrays: Arrays = {}
    for case, lengths in (
        ("one", [1]),
        ("seven", [7]),
        ("thirteen", [13, 5]),
        ("full", [40]),
        ("batch", [3, 9, 1, 6, 9]),
    ):
        width = max(lengths)
        mask = torch.tensor([[1] * length + [0] * (width - length) for length in lengths])
        inputs = {
            "input_ids": torch.from_numpy(rng.integers(0, 100, (len(lengths), width))) * mask,
            "attention_mask": mask,
            "token_type_ids": torch.from_numpy(rng.integers(0, 2, (len(lengths), width))) * mask,
        }
        output = encoder(**inputs, output_hidden_states=True)
        _store(arrays, case, inputs, output, ("last_hidden_state", "pooler_output"), step=1)
        arrays[f"{case}.hidden_states"] = torch.stack(output.hidden_states).numpy()
        arrays[f"{case}.logits"] = masked(**inputs).logits.numpy()
    first = torch.from_numpy(arrays["batch.last_hidden_state"][:, 0])
    second = first.flip(0)
    hidden = torch.cat([first, second, (first - second).abs(), first * second], dim=-1)
    logits = layers[1](torch.relu(layers[0](hidden)))
    arrays["head.logits"] = logits.numpy()  # batch row i paired with row n - 1 - i
    arrays["head.probabilities"] = torch.softmax(logits, -1).numpy()
    return arrays


TINY_TOKENIZER_CONFIG = {
    "do_lower_case": True,
    "model_max_length": 40,
    "tokenizer_class": "BertTokenizer",
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def _tiny_tokenizer() -> dict[str, Any]:
    """Make a tokenizer of a hundred tokens: special ones, letters at the beginning of words and inside, some words."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["the", "and", "of", "a man", "##ing", "##ed", "cat", "dog", "sat", "mat", "on", "is", "run", "red", "not"]
    words = [word for word in words if " " not in word]
    vocabulary = [*special, *letters, *(f"##{letter}" for letter in letters), *"0123456789", *".,!?:;-'()", *words]
    vocabulary += [f"[unused{number}]" for number in range(100 - len(vocabulary))]
    assert len(vocabulary) == len(set(vocabulary)) == 100

    def token(name: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": type_id}}

    single = [token("[CLS]", 0), {"Sequence": {"id": "A", "type_id": 0}}, token("[SEP]", 0)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": name, **flags} for number, name in enumerate(special)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}, token("[SEP]", 1)],
            "special_tokens": {
                name: {"id": name, "ids": [special.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: number for number, word in enumerate(vocabulary)},
        },
    }


def _tokenizer(folder: Path) -> Any:
    return importlib.import_module("transformers").AutoTokenizer.from_pretrained(folder)


def _model(kind: str, folder: Path) -> Any:
    torch = importlib.import_module("torch")
    model, loading = getattr(importlib.import_module("transformers"), kind).from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    if loading["missing_keys"] or loading["mismatched_keys"]:
        raise SystemExit(f"{folder.name}: not all weights were found: {loading}")
    return model.eval()


def _head(state: dict[str, Any]) -> Any:
    """Make Linear, ReLU, (Dropout,) Linear, ...: the numbers in the names count all layers."""
    torch = importlib.import_module("torch")
    parts: list[Any] = []
    for name in sorted((key for key in state if key.endswith("weight")), key=lambda key: int(key.split(".")[1])):
        linear = torch.nn.Linear(*reversed(state[name].shape))
        linear.weight.copy_(state[name])
        linear.bias.copy_(state[name.replace("weight", "bias")])
        parts += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1]).eval()


def _store(
    arrays: Arrays, case: str, inputs: Any, outputs: Any, names: tuple[str, ...], step: int | None = None
) -> None:
    for name, tensor in inputs.items():
        if name != "token_type_ids" or tensor.any():
            arrays[f"{case}.{name}"] = tensor.numpy().astype(np.int32)
    for name in names:
        value = outputs[name].numpy()
        if step is None and value.ndim == 3 and value.shape[1] > 64:
            arrays[f"{case}.{name}.rows"] = value[:, ::ROW_STEP].copy()
            arrays[f"{case}.{name}.norm"] = _norm(value)
        else:
            arrays[f"{case}.{name}"] = value


def _norm(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.array(np.linalg.norm(value.astype(np.float64)))


def _close(old: Any, new: Any, tolerance: float) -> bool:
    """True if two values read from JSON are equal, their floats within ``tolerance``."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_close(old[key], new[key], tolerance) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(_close(*pair, tolerance) for pair in zip(old, new, strict=True))
    if isinstance(old, float) and isinstance(new, float):
        return abs(new - old) <= tolerance * max(1.0, abs(old))
    return type(old) is type(new) and bool(old == new)


def _json(value: Any, depth: int = 0) -> str:
    """Format JSON with two levels on separate lines, and the rest compact."""
    if depth < 3 and isinstance(value, dict) and value:
        inside = ",\n".join(f"{json.dumps(key)}: {_json(item, depth + 1)}" for key, item in value.items())
        return "{\n" + inside + "\n}" + ("\n" if depth == 0 else "")
    if depth < 3 and isinstance(value, list) and value and isinstance(value[0], list | dict):
        return "[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in value) + "\n]"
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    raise SystemExit(main())
