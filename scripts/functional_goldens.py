"""Make ``tests/goldens/functional.npz`` and ``.json``: results of PyTorch for the calls of tests/cases/torch_calls.py.

    python -m scripts.functional_goldens            write the files
    python -m scripts.functional_goldens --check    compute everything again and compare with the committed files

Computes in float64. Needs ``torch`` (CPU; ``functional.json`` has the version that made the files), which the tests
do not need. The JSON file also has the parameters of every function of ``torch.nn.functional`` that has a counterpart.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from typing import Any

import numpy as np

from scripts.goldens import Goldens
from scripts.paths import ROOT


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    sys.path[:0] = [str(ROOT), str(ROOT / "pyodide_pkg")]
    torch = importlib.import_module("torch")
    calls = importlib.import_module("tests.cases.torch_calls").CALLS
    functional = importlib.import_module("torch.nn.functional")
    names = importlib.import_module("tensorcommons.nn.functional").__all__
    torch.set_num_threads(1)

    def tensor(value: Any) -> Any:
        if not isinstance(value, np.ndarray | np.generic):
            return value
        return torch.tensor(value.astype(np.float64) if value.dtype.kind == "f" else value)

    answers = {}
    for name, call in calls.items():
        options = {key: tensor(value) for key, value in call.options.items()}
        answer = getattr(functional, call.function)(*map(tensor, call.operands), **options).numpy()
        answers[name] = answer.astype(np.float32) if answer.dtype.kind == "f" else answer
    made.arrays("functional.npz", answers)
    made.json(
        "functional.json",
        {
            "torch": torch.__version__.partition("+")[0],
            "parameters": {
                name: parameters(getattr(functional, f"_{name}", getattr(functional, name))) for name in names
            },
        },
    )
    return made.report()


def parameters(function: Any) -> list[str]:
    """Return the names of a function's parameters; for a built-in, from the first line of its docstring."""
    try:
        return [name for name in inspect.signature(function).parameters if not name.startswith("_")]
    except ValueError:
        listed = re.search(r"\((.*?)\)\s*->", function.__doc__, re.DOTALL)
        assert listed is not None, function
        names = re.findall(r"(?:^|,)\s*\*?\*?(\w+)", re.sub(r"=\([^)]*\)", "", listed[1]))
        return [name for name in names if name]


if __name__ == "__main__":
    sys.exit(main())
