"""Converters of published heads: correct values and shapes, reproducible bytes, and no code run by unpickling."""

from __future__ import annotations

import base64
import json
import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from scripts import paths
from scripts.convert import ConversionError, checkpoint_head, layer_sizes, mlp_json_head, read_checkpoint
from scripts.models import head_files, load_models
from scripts.safetensors import F32Tensor, encode


class Named:
    """Pickled as a bare reference to a global."""

    def __init__(self, name):
        self.name = name


PythonPickler: Any = vars(pickle)["_Pickler"]  # the implementation in Python can be extended


class CheckpointPickler(PythonPickler):
    """Pickler with the output of torch.save: tensors are calls of torch._utils._rebuild_tensor_v2 on persistent ids."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Named):
            self.write(f"c{obj.name}\n".encode())  # the GLOBAL opcode
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Storage) else None


class Storage:
    def __init__(self, key, count, kind="torch\nFloatStorage"):
        self.pid = ("storage", Named(kind), key, "cpu", count)


class Call:
    """Pickled as a call of a global."""

    def __init__(self, name, args):
        self._name = name
        self._args = args

    def __reduce__(self):
        return _Callable(self._name), self._args


class _Callable(Named):
    def __call__(self):
        raise AssertionError("never called while pickling")


def tensor(key, shape, *, strides=None, offset=0, count=None, kind="torch\nFloatStorage"):
    contiguous = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    storage = Storage(key, math.prod(shape) if count is None else count, kind)
    hooks: OrderedDict[str, object] = OrderedDict()
    arguments = (storage, offset, shape, strides or contiguous, False, hooks)
    return Call("torch._utils\n_rebuild_tensor_v2", arguments)


def write_checkpoint(path, tree, arrays, *, byteorder=b"little"):
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("heads/data.pkl", "w") as file:
            CheckpointPickler(file, protocol=2).dump(tree)
        archive.writestr("heads/byteorder", byteorder)
        for key, values in arrays.items():
            archive.writestr(f"heads/data/{key}", np.asarray(values, "<f4").tobytes())
    return path


@pytest.fixture
def checkpoint(tmp_path):
    """Make a head of two layers, 3 → 2 → 1, as torch.save would write it."""
    arrays = {"0": np.arange(6), "1": [10, 11], "2": [-1, 1], "3": [0.5]}
    state = OrderedDict(
        [
            ("net.0.weight", tensor("0", (2, 3))),
            ("net.0.bias", tensor("1", (2,))),
            ("net.3.weight", tensor("2", (1, 2))),
            ("net.3.bias", tensor("3", (1,))),
        ]
    )
    return write_checkpoint(tmp_path / "heads.pt", {"nli": state, "hidden_dim": 3}, arrays)


def values(t: F32Tensor):
    return np.frombuffer(t.data, "<f4").reshape(t.shape)


def test_a_checkpoint_is_read(checkpoint):
    layers = checkpoint_head(checkpoint, "nli")
    assert list(layers) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    np.testing.assert_array_equal(values(layers["layers.0.weight"]), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(values(layers["layers.1.bias"]), [0.5])
    assert layer_sizes(layers) == [3, 2, 1]
    assert read_checkpoint(checkpoint)["hidden_dim"] == 3


def test_a_missing_head_is_an_error(checkpoint):
    with pytest.raises(ConversionError, match=r"heads\.pt: holds no head named 'other'"):
        checkpoint_head(checkpoint, "other")


@pytest.mark.parametrize(
    "name", ["os\nsystem", "builtins\neval", "torch\nload", "torch._utils\n_rebuild_parameter", "numpy\nndarray"]
)
def test_a_pickle_that_calls_anything_else_is_refused(tmp_path, name):
    marker = tmp_path / "ran"
    path = write_checkpoint(tmp_path / "evil.pt", {"nli": Call(name, (f"touch {marker}",))}, {})
    with pytest.raises(ConversionError, match=f"asks for {name.replace(chr(10), '.')}, which is refused"):
        read_checkpoint(path)
    assert not marker.exists()


def test_a_reduce_that_runs_a_command_is_refused(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"a": Evil()}))
    with pytest.raises(ConversionError, match="which is refused"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"a": tensor("0", (2, 3), strides=(1, 2))}, "strides"),
        ({"a": tensor("0", (2, 3), offset=1)}, "outside"),
        ({"a": tensor("0", (2, 3), count=600)}, "outside"),
        ({"a": tensor("9", (2, 3))}, "data/9"),
        ({"a": tensor("0", (2, 3), kind="torch\nHalfStorage")}, "HalfStorage"),
        ({"a": tensor("0", (-2, 3), strides=(3, 1))}, "described"),
        ([1, 2], "list instead of a dictionary"),
        ({1: 2}, "instead of a name"),
    ],
)
def test_an_inconsistent_checkpoint_is_refused(tmp_path, bad, message):
    path = write_checkpoint(tmp_path / "bad.pt", bad, {"0": np.arange(6)})
    with pytest.raises(ConversionError, match=message):
        read_checkpoint(path)


def test_big_endian_tensors_are_refused(tmp_path):
    path = write_checkpoint(tmp_path / "big.pt", {}, {}, byteorder=b"big")
    with pytest.raises(ConversionError, match="little-endian"):
        read_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(checkpoint, tmp_path):
    path = tmp_path / "cut.pt"
    path.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(ConversionError, match=r"cut\.pt: not a PyTorch checkpoint"):
        read_checkpoint(path)


def test_layers_that_do_not_fit_together_are_refused(tmp_path):
    state = OrderedDict(
        [
            ("net.0.weight", tensor("0", (2, 3))),
            ("net.0.bias", tensor("1", (2,))),
            ("net.1.weight", tensor("0", (2, 3))),
            ("net.1.bias", tensor("1", (2,))),
        ]
    )
    path = write_checkpoint(tmp_path / "odd.pt", {"h": state}, {"0": np.arange(6), "1": [1, 2]})
    with pytest.raises(ConversionError, match="layer 1 has weight"):
        checkpoint_head(path, "h")


# ── the JSON head ─────────────────────────────────────────────────────────────────────────────────────────────────────


def b64(values):
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def write_json(path, layers, fmt="mlp-weights-v1"):
    layers = [{"shape": list(np.shape(w)), "weights_b64": b64(w), "bias_b64": b64(b)} for w, b in layers]
    path.write_text(json.dumps({"format": fmt, "layers": layers}))
    return path


def test_the_json_head_is_transposed_once(tmp_path):
    rng = np.random.default_rng(0)
    weights = [(rng.normal(size=(4, 3)), rng.normal(size=3)), (rng.normal(size=(3, 1)), rng.normal(size=1))]
    layers = mlp_json_head(write_json(tmp_path / "mlp.json", weights))
    for index, (weight, bias) in enumerate(weights):
        np.testing.assert_array_equal(values(layers[f"layers.{index}.weight"]), weight.T.astype("f4"))
        np.testing.assert_array_equal(values(layers[f"layers.{index}.bias"]), bias.astype("f4"))
    assert layer_sizes(layers) == [4, 3, 1]


def test_an_inconsistent_json_head_is_refused(tmp_path):
    path = write_json(tmp_path / "mlp.json", [(np.ones((4, 3)), np.ones(2))])
    with pytest.raises(ConversionError, match=r"mlp\.json"):
        mlp_json_head(path)
    with pytest.raises(ConversionError, match="format is 'v9'"):
        mlp_json_head(write_json(path, [], fmt="v9"))
    path.write_text("not JSON")
    with pytest.raises(ConversionError, match="not a readable MLP"):
        mlp_json_head(path)


# ── safetensors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def read_safetensors(data):
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    body = data[8 + length :]
    assert length % 8 == 0
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(body)
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
    }


def test_written_tensors_are_read_back():
    a, b = np.arange(6, dtype="<f4").reshape(2, 3), np.array(1.5, "<f4")
    read = read_safetensors(encode({"a": F32Tensor((2, 3), a.tobytes()), "b": F32Tensor((), b.tobytes())}))
    np.testing.assert_array_equal(read["a"], a)
    np.testing.assert_array_equal(read["b"], b)


def test_a_shape_that_does_not_fit_its_bytes_is_refused():
    with pytest.raises(ValueError, match="8 bytes do not hold"):
        F32Tensor((3,), bytes(8))


# ── the real heads that set-up fetched ────────────────────────────────────────────────────────────────────────────────

HEADS = {model.id: model for model in load_models() if model.head}
SIZES = {
    "skill-head": [384, 256, 128, 64, 1],
    "splade-tiny-nli": [512, 128, 64, 3],
    "splade-tiny-relevance": [512, 64, 2],
    "splade-tiny-polarity": [128, 32, 3],
    "splade-tiny-relation-type": [128, 32, 5],
}


@pytest.mark.parametrize("name", HEADS)
def test_a_real_head_converts_to_the_same_bytes_each_time(name):
    first, second = (head_files(HEADS[name], paths.DOWNLOADS) for _ in range(2))
    assert first == second
    for file, data in first.items():
        assert (paths.MODELS / name / file).read_bytes() == data
    config = json.loads(first["config.json"])
    assert config["layer_sizes"] == SIZES[name]
    assert config["pair"] == (config["layer_sizes"][0] == 4 * 128)
    assert (paths.MODELS / config["base_model_name_or_path"] / "config.json").is_file()
    tensors = read_safetensors(first["model.safetensors"])
    assert [tensors[f"layers.{i}.weight"].shape for i in range(len(SIZES[name]) - 1)] == [
        (out, into) for into, out in zip(SIZES[name], SIZES[name][1:], strict=False)
    ]
    assert all(np.isfinite(t).all() for t in tensors.values())


def test_the_real_skill_head_is_the_published_one_transposed():
    spec = json.loads((paths.DOWNLOADS / "sources/skill-head/mlp.json").read_bytes())
    tensors = read_safetensors((paths.MODELS / "skill-head/model.safetensors").read_bytes())
    for index, layer in enumerate(spec["layers"]):
        published = np.frombuffer(base64.b64decode(layer["weights_b64"]), "<f4").reshape(layer["shape"])
        np.testing.assert_array_equal(tensors[f"layers.{index}.weight"], published.T)


def test_the_real_checkpoint_keeps_its_values():
    # From torch.load(…, weights_only=True) of heads.pt, PyTorch 2.13: sum and first value of nli's first weight.
    tensors = read_safetensors((paths.MODELS / "splade-tiny-nli/model.safetensors").read_bytes())
    weight = tensors["layers.0.weight"].astype(np.float64)
    assert (weight.sum(), weight[0, 0]) == pytest.approx((-279.87388056073377, 0.011168168857693672), rel=1e-6)
