"""Make ``tests/goldens/architectures.json`` and ``.npz``: every architecture and head, tiny and with random weights.

    python -m scripts.architecture_goldens            write the files
    python -m scripts.architecture_goldens --check    compute everything again and compare with the committed files

Needs ``torch`` (CPU) and ``transformers``. The ``.json`` has for each case the ``config.json`` that ``save_pretrained``
writes, and the names and shapes of the tensors that it saves; their values are made from the names
(tests/cases/random_weights.py), so that no weights are committed. The ``.npz`` has inputs and outputs.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from scripts.goldens import Arrays, Goldens
from tests.cases.random_weights import picture, values_of

# Sizes that no tile divides: 3 heads of 8, 36 in the middle, 50 words, 20 positions.
TEXT = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "max_position_embeddings": 20,
}
LABELS = {"id2label": {0: "one", 1: "two", 2: "three"}, "label2id": {"one": 0, "two": 1, "three": 2}}
HEADS: dict[str, dict[str, Any]] = {
    "Model": {},
    "ForMaskedLM": {},
    "ForSequenceClassification": {**LABELS, "problem_type": "multi_label_classification"},
    "ForTokenClassification": LABELS,
    "ForQuestionAnswering": {},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": TEXT,
    "DistilBert": {
        "vocab_size": 50,
        "dim": 24,
        "n_layers": 2,
        "n_heads": 3,
        "hidden_dim": 36,
        "max_position_embeddings": 20,
    },
    "Roberta": {**TEXT, "pad_token_id": 1},
    "XLMRoberta": {**TEXT, "pad_token_id": 1, "type_vocab_size": 1},
    "MPNet": TEXT,
    "Electra": {**TEXT, "embedding_size": 16},
    "Albert": {
        **TEXT,
        "num_hidden_layers": 4,
        "num_hidden_groups": 2,
        "embedding_size": 16,
        "hidden_act": "gelu_new",
    },
    # Half a window of 4 tokens: each token of the inputs sees one that is not padding.
    "ModernBert": {**TEXT, "num_hidden_layers": 3, "local_attention": 8, "pad_token_id": 1},
}
TYPED = ("Bert", "Electra", "Albert")  # with more than one token type
# 3 heads of 8, 5 x 5 patches of 6 x 6 pixels; images have the size of the model or another one.
VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "image_size": 30,
    "patch_size": 6,
}
IMAGES: dict[str, dict[str, Any]] = {
    "ViTModel": VISION,
    "ViTForImageClassification": {**VISION, **LABELS},
    "DeiTModel": VISION,
    "DeiTForImageClassification": {**VISION, **LABELS},
    "DeiTForImageClassificationWithTeacher": {**VISION, **LABELS},
    "Dinov2Model": VISION,
    "Dinov2ForImageClassification": {**VISION, **LABELS, "qkv_bias": False},
    "Dinov2WithRegistersModel": {**VISION, "use_swiglu_ffn": True},
    "Dinov2WithRegistersForImageClassification": {**VISION, **LABELS, "num_register_tokens": 2},
}
OUTPUTS = (
    "last_hidden_state",
    "pooler_output",
    "encoder_last_hidden_state",
    "text_embeds",
    "image_embeds",
    "logits",
    "logits_per_image",
    "logits_per_text",
    "start_logits",
    "end_logits",
    "cls_logits",
    "distillation_logits",
)


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    table: dict[str, Any] = {}
    arrays: Arrays = {}
    with torch.no_grad():
        for family, sizes in FAMILIES.items():
            for head, more in HEADS.items():
                case = f"{family}{head}"
                table[case] = text_case(case, {**sizes, **more}, arrays)
        for case, sizes in IMAGES.items():
            table[case] = image_case(case, sizes, arrays)
    processing = processor_goldens(arrays)
    made.json("preprocessing.json", processing)
    made.json("architectures.json", table)
    made.arrays("architectures.npz", arrays)
    return made.report()


def text_case(case: str, sizes: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """Add the arrays of one text model to ``arrays``; gives its config and the shapes of its tensors."""
    torch = importlib.import_module("torch")
    family = next(name for name in sorted(FAMILIES, key=len, reverse=True) if case.startswith(name))
    model, entry = tiny(family, case, sizes)
    rng = np.random.default_rng(len(case))
    mask = np.array([[1] * 9, [1] * 5 + [0] * 4])
    ids = rng.integers(2, 50, (2, 9))
    inputs = {"input_ids": np.where(mask == 1, ids, sizes.get("pad_token_id", 1)), "attention_mask": mask}
    if family in TYPED:
        inputs["token_type_ids"] = rng.integers(0, 2, (2, 9)) * mask
    output = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    for name, array in inputs.items():
        arrays[f"{case}.{name}"] = array.astype(np.int32)
    for name in OUTPUTS:
        if output.get(name) is not None:
            arrays[f"{case}.{name}"] = output[name].numpy()
    return entry


def image_case(case: str, sizes: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """Like ``text_case``; a DINOv2 without a head also gets an image that is not square."""
    torch = importlib.import_module("torch")
    model, entry = tiny(case.partition("For")[0].removesuffix("Model"), case, sizes)
    rng = np.random.default_rng(len(case))
    shapes = {case: (2, 3, 30, 30)}
    if case == "Dinov2Model":
        shapes[f"{case}Wide"] = (1, 3, 25, 44)
    for name, shape in shapes.items():
        pixels = rng.standard_normal(shape).astype(np.float32)
        output = model(pixel_values=torch.from_numpy(pixels))
        arrays[f"{name}.pixel_values"] = pixels
        arrays |= {f"{name}.{key}": output[key].numpy() for key in OUTPUTS if output.get(key) is not None}
    return entry


def processor_goldens(arrays: Arrays) -> dict[str, Any]:
    """Return the configs of image processors; adds the pixel values of a wide and a tall picture to ``arrays``."""
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "vit": ("ViTImageProcessorPil", {"size": {"height": 20, "width": 20}}),
        "deit": (
            "DeiTImageProcessorPil",
            {"size": {"height": 24, "width": 24}, "crop_size": {"height": 21, "width": 20}, "resample": 1},
        ),
        "bit": (
            "BitImageProcessorPil",
            {"size": {"shortest_edge": 25}, "crop_size": {"height": 22, "width": 22}, "do_convert_rgb": True},
        ),
        "small": (
            "DeiTImageProcessorPil",
            {"size": {"height": 9, "width": 12}, "crop_size": {"height": 14, "width": 11}, "do_normalize": False},
        ),
    }
    table = {}
    for name, (kind, options) in kinds.items():
        processor = getattr(importlib.import_module("transformers"), kind)(**options)
        table[name] = json.loads(processor.to_json_string())
        for shape in ((45, 70), (66, 31)):
            values = processor(picture(*shape), return_tensors="np")["pixel_values"][0]
            arrays[f"{name}-{shape[0]}x{shape[1]}.processed"] = values.astype(np.float32)
    return table


def tiny(family: str, case: str, sizes: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Make a model with weights made from the names of its checkpoint, and the committed description of it."""
    transformers = importlib.import_module("transformers")
    files = importlib.import_module("safetensors.numpy")
    made = getattr(transformers, case)(getattr(transformers, f"{family}Config")(**sizes))
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        weights = Path(folder) / "model.safetensors"
        shapes = {name: array.shape for name, array in sorted(files.load_file(weights).items())}
        files.save_file({name: values_of(name, shape) for name, shape in shapes.items()}, weights, {"format": "pt"})
        settings = json.loads((Path(folder) / "config.json").read_text())
        model, found = getattr(transformers, case).from_pretrained(
            folder, attn_implementation="eager", output_loading_info=True
        )
    if any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise SystemExit(f"{case}: {found}")
    return model.eval(), {"config": settings, "tensors": {name: list(shape) for name, shape in shapes.items()}}


if __name__ == "__main__":
    raise SystemExit(main())
