"""Make ``tests/goldens/tokenizers/sentencepiece.npz``: a real SentencePiece model, and its ids of texts.

    python -m scripts.sentencepiece_goldens MODEL [--check]

MODEL is ``mistral_common/data/tokenizer.model.v1`` of the package `mistral-common` (1.12.0, Apache-2.0): 32,000 pieces
as Llama 2 has. GGUF files of such models have the pieces, their scores and types as metadata. Needs `sentencepiece`.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np

from scripts import golden_texts as texts
from scripts.goldens import Goldens, arguments_of

OTHERS = [
    "1234 5.6e7 ٣٤",
    "def f(x):\n\treturn x**2\n\n",
    "  two  spaces   and\t\ttabs \n\n\n x",
    "a<b>bold</b> <h1>x</h1>",
    "日本語のテキスト。",
    "🎉👩‍👩‍👧 \u200d",
    "x" * 50 + " " * 40 + "y",
]
TEXTS = [*texts.PICKED, *texts.SENTENCES, *OTHERS]
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    parser = arguments_of(__doc__)
    parser.add_argument("model")
    options = parser.parse_args()
    made = Goldens(check=options.check)
    model = importlib.import_module("sentencepiece").SentencePieceProcessor(model_file=options.model)
    numbers = range(model.vocab_size())
    rows = [model.encode(text) for text in TEXTS]
    pieces = json.dumps([model.id_to_piece(number) for number in numbers], ensure_ascii=False).encode()
    made.arrays(
        "tokenizers/sentencepiece.npz",
        {
            "pieces": np.frombuffer(pieces, np.uint8),
            "scores": np.array([model.get_score(number) for number in numbers], np.float32),
            "types": np.array([_type(model, number) for number in numbers], np.int32),
            "lengths": np.array([len(row) for row in rows], np.int32),
            "ids": np.array([number for row in rows for number in row], np.int32),
        },
    )
    return made.report()


def _type(model: Any, number: int) -> int:
    if model.is_unknown(number):
        return UNKNOWN
    if model.is_control(number):
        return CONTROL
    return BYTE if model.is_byte(number) else NORMAL


if __name__ == "__main__":
    raise SystemExit(main())
