"""Make ``tests/goldens/pipelines.json``: answers of the pipelines of `transformers`, with tiny random models.

    python -m scripts.pipeline_goldens            write the file
    python -m scripts.pipeline_goldens --check    compute everything again and compare with the committed file

Needs ``torch`` (CPU) and ``transformers``. Version 5 no longer has a pipeline for question-answering; version 4 makes
the answers of this task. Answers of a task that the installed version does not have are kept, and not compared.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scripts.goldens import GOLDENS, TOLERANCE, Goldens
from tests.cases.pipelines import TAGS, files_for, given

LONG = "The cat and the red dog sat on a mat, not in Zurich. Is it 42? The man runs; a cat is on the run. " * 2
NAMES = "Édda sat on日 the mat-cat and Runs 17 dogs, Bob"
WORDS = "the [MASK] sat on the mat."
MASKS = ["the cat sat on the [MASK].", WORDS]
ASKED = {"question": "is the dog red", "context": "The Cat sat on the mat, not the dog. It's 日 42."}
FAR = {"question": "who runs", "context": LONG}
PAIR = {"text": "the cat", "text_pair": "a dog sat"}
IMAGE, TALL = {"picture": [45, 70]}, {"picture": [66, 31]}

Call = tuple[Any, dict[str, Any]]
LABELLED: list[Call] = [
    ("the cat", {}),
    (["the cat", "a red dog"], {}),
    (["the cat"], {}),
    ("the cat", {"top_k": None}),
    ("the cat", {"top_k": 1}),
    (["the cat", "a red dog"], {"top_k": 2}),
    ("the cat", {"function_to_apply": "none", "top_k": None}),
    ("the cat", {"function_to_apply": "softmax"}),
    (PAIR, {}),
    ([PAIR, {"text": "on", "text_pair": "off"}], {}),
    (PAIR, {"top_k": 9}),
]
CASES: list[tuple[str, str, dict[str, Any], list[Call]]] = [
    ("text-classification", "BertForSequenceClassification", {}, LABELLED),
    ("text-classification", "BertForSequenceClassification", {"problem_type": None}, LABELLED[:3]),
    ("text-classification", "BertForSequenceClassification", {"problem_type": "regression"}, LABELLED[3:4]),
    ("feature-extraction", "BertModel", {}, [("the cat", {}), (["the cat", "a"], {}), (["a"], {})]),
    (
        "fill-mask",
        "BertForMaskedLM",
        {},
        [
            (WORDS, {}),
            (MASKS, {"top_k": 2}),
            ([WORDS], {"top_k": 2}),
            ("a [MASK] and [MASK] dog", {"top_k": 3}),
            ([WORDS, "a [MASK] and [MASK] dog"], {"top_k": 1}),
            (WORDS, {"targets": ["dog", "cat", "##ing", "mats"]}),
            (WORDS, {"targets": "dog", "top_k": 4}),
        ],
    ),
    (
        "token-classification",
        "BertForTokenClassification",
        {"id2label": TAGS, "label2id": {name: int(n) for n, name in TAGS.items()}},
        [
            (NAMES, {}),
            ([NAMES, "a dog"], {}),
            ([NAMES], {"ignore_labels": []}),
            *((NAMES, {"aggregation_strategy": kind}) for kind in ("simple", "first", "average", "max")),
            (LONG, {"aggregation_strategy": "simple", "ignore_labels": []}),
            *((LONG, {"aggregation_strategy": kind, "stride": 7}) for kind in ("simple", "average")),
        ],
    ),
    (
        "question-answering",
        "BertForQuestionAnswering",
        {},
        [
            (ASKED, {}),
            ([ASKED], {}),
            ([ASKED, FAR], {}),
            (ASKED, {"top_k": 3}),
            (ASKED, {"top_k": 3, "align_to_words": False}),
            (ASKED, {"max_answer_len": 2}),
            (ASKED, {"handle_impossible_answer": True, "top_k": 4}),
            (FAR, {}),
            (FAR, {"max_seq_len": 20, "doc_stride": 5, "top_k": 4}),
            (FAR, {"max_seq_len": 24, "doc_stride": 12, "handle_impossible_answer": True, "top_k": 2}),
        ],
    ),
    (
        "image-classification",
        "ViTForImageClassification",
        {},
        [
            (IMAGE, {}),
            ([IMAGE, TALL], {}),
            ([IMAGE], {"top_k": 1}),
            (IMAGE, {"top_k": 2, "function_to_apply": "sigmoid"}),
            (IMAGE, {"function_to_apply": "none"}),
        ],
    ),
    (
        "image-feature-extraction",
        "ViTModel",
        {},
        [(IMAGE, {"pool": True}), ([IMAGE, TALL], {"pool": True}), ([IMAGE], {"pool": True})],
    ),
    ("image-feature-extraction", "Dinov2Model", {}, [(IMAGE, {}), ([TALL], {})]),
    (
        "zero-shot-image-classification",
        "CLIPModel",
        {},
        [
            (IMAGE, {"candidate_labels": ["a cat", "two dogs", "the red house on a hill"]}),
            ([IMAGE, TALL], {"candidate_labels": ["a cat", "two dogs"]}),
            ([TALL], {"candidate_labels": ["cat", "dog", "mat"], "hypothesis_template": "{}, in Zurich"}),
            (TALL, {"candidate_labels": ["a cat"]}),
        ],
    ),
]


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    transformers = importlib.import_module("transformers")
    tasks = importlib.import_module("transformers.pipelines").PIPELINE_REGISTRY.get_supported_tasks()
    path = GOLDENS / "pipelines.json"
    old = json.loads(path.read_text()) if path.exists() else {"versions": {}, "models": []}
    table: dict[str, Any] = {"versions": dict(old["versions"]), "models": []}
    for task, case, changes, calls in CASES:
        kept = [
            model
            for model in old["models"]
            if (model["task"], model["model"], model["changes"]) == (task, case, changes)
        ]
        if task not in tasks or (kept and numbers(transformers.__version__) < numbers(old["versions"].get(task, "0"))):
            print(f"{task}: kept as made with transformers {old['versions'].get(task)}")
            table["models"] += kept
            continue
        table["versions"][task] = transformers.__version__
        with tempfile.TemporaryDirectory() as folder:
            place: Any = SimpleNamespace(goldens=str(GOLDENS))
            for name, data in files_for(place, task, case, changes).items():
                (Path(folder) / name).write_bytes(settled(data, task) if name.endswith("config.json") else data)
            pipe = transformers.pipeline(task, model=folder)
            answers = [
                {"inputs": inputs, "options": options, "answer": plain(pipe(pictures(inputs), **options))}
                for inputs, options in calls
            ]
        table["models"].append({"task": task, "model": case, "changes": changes, "calls": answers})
    made.json(path.name, table, tolerance=TOLERANCE)
    return made.report()


def numbers(version: str) -> list[int]:
    """Return the numbers of a version such as "5.23.0", for comparisons."""
    return [int(each) for each in version.split(".")[:2]]


def settled(data: bytes, task: str) -> bytes:
    """Add the fields to a config by which `transformers` selects classes."""
    config = json.loads(data)
    if "image_mean" in config:
        config.setdefault("image_processor_type", "ViTImageProcessor")
    return json.dumps(config).encode()


def pictures(inputs: Any) -> Any:
    """Convert the inputs of a golden, with pictures as Pillow images."""
    values = given(inputs)
    image = importlib.import_module("PIL.Image")
    if isinstance(values, list):
        return [image.fromarray(value) if hasattr(value, "dtype") else value for value in values]
    return image.fromarray(values) if hasattr(values, "dtype") else values


def plain(answer: Any) -> Any:
    """Convert ``answer`` to JSON values, with floats of seven digits."""
    if isinstance(answer, dict):
        return {key: plain(value) for key, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return [plain(value) for value in answer]
    if hasattr(answer, "item"):
        answer = answer.item()
    return float(f"{answer:.7g}") if isinstance(answer, float) else answer


if __name__ == "__main__":
    raise SystemExit(main())
