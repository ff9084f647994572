"""Golden values of block formats, made by the package `gguf`.

    python -m scripts.format_goldens [--check]

It is not installed by set-up: `pip install -r scripts/converter.lock` into another environment has it. The file
``tests/goldens/formats.json`` has the SHA-256 of what `gguf` makes of the numbers and blocks of
``tests/cases/blocks.py``, by format.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from scripts.goldens import Goldens
from tests.cases.blocks import BYTES, LARGE, any_blocks, blocks, digest, numbers, without_payloads


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    gguf: Any = importlib.import_module("gguf")
    found = {}
    for name in BYTES:
        kind = gguf.GGMLQuantizationType[name.upper()]
        with np.errstate(all="ignore"):
            every = numbers(name) if name in LARGE else {}
            found[name] = {
                "quantized": {what: digest(gguf.quants.quantize(values, kind)) for what, values in every.items()},
                "dense": digest(gguf.quants.dequantize(blocks(name), kind)),
                "any": digest(without_payloads(gguf.quants.dequantize(any_blocks(name), kind))),
            }
    made.json("formats.json", found)
    return made.report()


if __name__ == "__main__":
    raise SystemExit(main())
