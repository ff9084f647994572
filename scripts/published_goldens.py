"""Make ``tests/goldens/published.json``: the numbers of quantised matrices, by the programs that define their layouts.

    python -m scripts.published_goldens [--check]

Needs ``torch`` (CPU), ``transformers``, ``compressed-tensors``, and the files of ``autoawq`` and ``auto-gptq`` on
PYTHONPATH, unpacked: one module each is read, since the packages themselves ask for a GPU. The file has the SHA-256 of
the numbers, as float32, by layout (tests/cases/published_files.py). What no reference reads now is not in it: act-order
of compressed-tensors and "gptq_v2".
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from scripts.goldens import Goldens
from tests.cases.published_files import EVERY, config_of, key_of, quantized


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    found = {}
    for how, _ in EVERY:
        parts, _ = quantized("x.q_proj", (256, 256), how)
        tensors = {name.rsplit(".", 1)[1]: _tensor(*each) for name, each in parts.items()}
        numbers = _numbers(how, tensors)
        if numbers is not None:
            raw = np.ascontiguousarray(numbers.float().numpy(), np.float32)
            found[key_of(how)] = hashlib.sha256(raw.tobytes()).hexdigest()
    made.json("published.json", found)
    return made.report()


def _tensor(dtype: str, array: Any) -> Any:
    """Return a tensor; scales as float32, so that the reference rounds nothing to their dtype."""
    torch: Any = importlib.import_module("torch")
    tensor = torch.from_numpy(array.copy())
    if dtype == "BF16":
        return tensor.view(torch.bfloat16).float()
    if dtype == "F8_E4M3":
        return tensor.view(torch.float8_e4m3fn)
    return tensor.float() if dtype == "F16" else tensor


def _numbers(how: dict[str, Any], tensors: dict[str, Any]) -> Any:
    """Return the numbers (outputs, inputs) that the reference makes of ``tensors``; None if there is none."""
    layout = how["layout"]
    if layout == "awq":
        awq = _module("awq", "utils/packing_utils.py")
        return awq.dequantize_gemm(tensors["qweight"], tensors["qzeros"], tensors["scales"], 4, how["group"]).T
    if layout == "gptq":
        return _gptq(how, tensors)
    if how.get("name") == "weight_scale_inv":
        fp8: Any = importlib.import_module("transformers.integrations.finegrained_fp8")
        torch: Any = importlib.import_module("torch")
        dequantize = fp8.Fp8Dequantize(None)._dequantize_one  # noqa: SLF001 - its public method loads whole models
        rows, columns = tensors["weight"].shape
        if rows % how["block"][0] or columns % how["block"][1]:
            return None
        return dequantize(tensors["weight"], tensors["weight_scale_inv"], torch.float32)
    if how.get("ordered"):
        return None
    settings: Any = importlib.import_module("compressed_tensors.quantization")
    compressors: Any = importlib.import_module("compressed_tensors.compressors")
    kinds = {"packed": "Packed", "plain": "Int", "fp8": "Float"}
    weights = config_of(how)["config_groups"]["group_0"]["weights"]
    scheme = settings.QuantizationScheme(targets=["Linear"], weights=settings.QuantizationArgs(**weights))
    if how.get("tensor"):
        tensors["weight_scale"] = tensors["weight_scale"].reshape(1)
    compressor = getattr(compressors, f"{kinds[layout]}QuantizationCompressor")
    return compressor.decompress(tensors, scheme)["weight"]


def _gptq(how: dict[str, Any], tensors: dict[str, Any]) -> Any:
    if not how.get("offset", 1):
        return None
    torch: Any = importlib.import_module("torch")
    linear = _module("auto_gptq", "nn_modules/qlinear/qlinear_cuda.py").QuantLinear
    layer = linear(how.get("bits", 4), how["group"] or -1, 256, 256, bias=False, weight_dtype=torch.float32)
    layer.autogptq_cuda_available = False
    for name, value in tensors.items():
        setattr(layer, name, value)
    return layer(torch.eye(256)).T


def _module(package: str, path: str) -> ModuleType:
    """Load one file of a package without the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the files of {package} are not on the path")
    file = Path(next(iter(spec.submodule_search_locations))) / path
    own = importlib.util.spec_from_file_location(file.stem, file)
    assert own is not None and own.loader is not None
    module = importlib.util.module_from_spec(own)
    own.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main())
