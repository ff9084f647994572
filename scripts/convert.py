"""Conversion of classification heads from their published, untrusted files: unpickling runs no code.

The sources are a PyTorch checkpoint (a zip with the pickle data.pkl and the bytes of the tensors) and the skill
extractor's JSON (base64 float32, weights as [in, out]). Both become `layers.<i>.weight` [out, in], `layers.<i>.bias`.
"""

from __future__ import annotations

import array
import base64
import binascii
import collections
import io
import json
import math
import pickle
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.safetensors import F32Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class ConversionError(Exception):
    """The file cannot be converted; the message names the file and the cause."""


# ── PyTorch checkpoints ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Storage:
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _FloatStorage:
    """Placeholder of torch.FloatStorage, a name in a pickle that is never instantiated."""


def _rebuild_tensor(storage: object, offset: object, shape: object, strides: object, *_ignored: object) -> _Tensor:
    """Replace torch._utils._rebuild_tensor_v2; records its arguments."""
    if not (
        isinstance(storage, _Storage)
        and isinstance(offset, int)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides)
        and all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides))
    ):
        raise pickle.UnpicklingError("a tensor is described in a way that is not understood")
    return _Tensor(storage, offset, shape, strides)


class _CheckpointUnpickler(pickle.Unpickler):
    """Unpickler that resolves three names and refuses all others, so that a pickle cannot call anything else."""

    NAMES: dict[tuple[str, str], Callable[..., Any]] = {  # noqa: RUF012 (never changed)
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch", "FloatStorage"): _FloatStorage,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return self.NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused") from None

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", kind, str(key), str(), int(count)) if kind is _FloatStorage:
                return _Storage(key, count)
        raise pickle.UnpicklingError(f"it refers to {pid!r}, which is refused")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the nested dictionaries of a `torch.save` file, with float32 tensors as F32Tensor.

    Raises:
        ConversionError: the file has another format, or its pickle has more than tensors in dictionaries.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise ConversionError(f"{path.name}: {len(names)} data.pkl in the archive instead of one")
            prefix = names[0].removesuffix("data.pkl")
            if prefix + "byteorder" in archive.namelist() and archive.read(prefix + "byteorder") != b"little":
                raise ConversionError(f"{path.name}: its tensors are not little-endian")
            tree = _CheckpointUnpickler(io.BytesIO(archive.read(names[0]))).load()
            return _with_values(tree, path, archive, prefix)
    except zipfile.BadZipFile as error:
        raise ConversionError(f"{path.name}: not a PyTorch checkpoint ({error})") from error
    # A broken pickle can raise many errors; each is a refusal.
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        raise ConversionError(f"{path.name}: its pickle is refused: {error}") from error


def _with_values(tree: object, path: Path, archive: zipfile.ZipFile, prefix: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise ConversionError(f"{path.name}: holds a {type(tree).__name__} instead of a dictionary")
    result: dict[str, Any] = {}
    for name, value in tree.items():
        if not isinstance(name, str):
            raise ConversionError(f"{path.name}: a key is {name!r} instead of a name")
        if isinstance(value, dict):
            result[name] = _with_values(value, path, archive, prefix)
        elif isinstance(value, _Tensor):
            result[name] = F32Tensor(value.shape, _contiguous(value, archive.read(f"{prefix}data/{value.storage.key}")))
        else:
            result[name] = value
    return result


def _contiguous(tensor: _Tensor, storage: bytes) -> bytes:
    count = math.prod(tensor.shape)
    expected = tuple(math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape)))
    if tensor.strides != expected:
        raise ValueError(f"a tensor of shape {tensor.shape} has strides {tensor.strides}, only {expected} is read")
    if 4 * tensor.storage.count != len(storage) or tensor.offset + count > tensor.storage.count:
        raise ValueError(f"a tensor of shape {tensor.shape} lies outside its {len(storage)} bytes")
    return storage[4 * tensor.offset : 4 * (tensor.offset + count)]


def checkpoint_head(path: Path, key: str) -> dict[str, F32Tensor]:
    """Return the linear layers of one head of a checkpoint: {key: {"net.<i>.weight", "net.<i>.bias", …}}."""
    state = read_checkpoint(path).get(key)
    if not isinstance(state, dict):
        raise ConversionError(f"{path.name}: holds no head named {key!r}")
    indices = sorted({int(found[1]) for name in state if (found := re.fullmatch(r"net\.(\d+)\.(weight|bias)", name))})
    layers: dict[str, F32Tensor] = {}
    for layer, index in enumerate(indices):
        for part in ("weight", "bias"):
            tensor = state.get(f"net.{index}.{part}")
            if not isinstance(tensor, F32Tensor):
                raise ConversionError(f"{path.name}: head {key!r} has no net.{index}.{part}")
            layers[f"layers.{layer}.{part}"] = tensor
    _check_chain(layers, f"{path.name}: head {key!r}")
    return layers


# ── the skill extractor's JSON ────────────────────────────────────────────────────────────────────────────────────────


def mlp_json_head(path: Path) -> dict[str, F32Tensor]:
    """Read the linear layers of an "mlp-weights-v1" file, whose [in, out] weights are transposed here."""
    try:
        spec = json.loads(path.read_bytes())
        if spec["format"] != "mlp-weights-v1":
            raise ValueError(f"format is {spec['format']!r} instead of 'mlp-weights-v1'")
        layers: dict[str, F32Tensor] = {}
        for index, layer in enumerate(spec["layers"]):
            rows, columns = layer["shape"]
            weight = base64.b64decode(layer["weights_b64"], validate=True)
            F32Tensor((rows, columns), weight)  # checks the size
            bias = base64.b64decode(layer["bias_b64"], validate=True)
            layers[f"layers.{index}.weight"] = F32Tensor((columns, rows), _transposed(weight, columns))
            layers[f"layers.{index}.bias"] = F32Tensor((columns,), bias)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise ConversionError(f"{path.name}: not a readable MLP: {error}") from error
    _check_chain(layers, path.name)
    return layers


def _transposed(data: bytes, columns: int) -> bytes:
    values = array.array("I", data)  # bit patterns: no float is touched
    assert values.itemsize == 4
    return b"".join(values[column::columns].tobytes() for column in range(columns))


# ── both ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def layer_sizes(layers: Mapping[str, F32Tensor]) -> list[int]:
    """Return the widths from input to output, e.g. [512, 128, 64, 3]."""
    weights = [layers[f"layers.{index}.weight"].shape for index in range(len(layers) // 2)]
    return [weights[0][1], *(shape[0] for shape in weights)]


def _check_chain(layers: Mapping[str, F32Tensor], where: str) -> None:
    if not layers:
        raise ConversionError(f"{where}: has no layers")
    width = layers["layers.0.weight"].shape[-1]
    for index in range(len(layers) // 2):
        weight, bias = layers[f"layers.{index}.weight"].shape, layers[f"layers.{index}.bias"].shape
        if len(weight) != 2 or weight[1] != width or bias != (weight[0],):
            raise ConversionError(f"{where}: layer {index} has weight {weight} and bias {bias} after width {width}")
        width = weight[0]
