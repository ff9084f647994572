"""Weights in a file's blocks: kept where the device stores them, widened elsewhere, shared, moved and evicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from scripts.paths import DOWNLOADS, ROOT
from tensorcommons import Device, Devices, Model
from tensorcommons.errors import UnsupportedDtype
from tensorcommons.formats import BLOCKS
from tests.cases import Place
from tests.cases.checkpoints import WEIGHTS, pack, tensors_of
from tests.cases.gguf import IDS, both, files_for
from tests.cases.quantized import BERT
from tests.cases.quantized import IDS as TEXTS
from tests.cases.quantized import files_of as random_files
from tests.cases.support import near, warnings_of
from tests.hub.server import FileServer, serving
from tests.sharing.devices import Backend

TYPES = ("Q4_K", "Q8_0", "Q6_K", "Q4_1", "F16")
KEPT = {"q4_k", "q8_0", "q6_k", "q4_1", "float32"}
PLACE: Any = Place(None, "", "", "", str(ROOT / "tests" / "goldens"))  # type: ignore[arg-type]
REAL = DOWNLOADS / "sources" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def forms() -> tuple[bytes, dict[str, bytes]]:
    """A Llama in a GGUF file of several formats, and as safetensors of its numbers."""
    return both("llama", files_for(PLACE, "llama"), TYPES)


@pytest.fixture
def devices() -> Devices:
    """A device that stores every format, and one that stores Q8_0, as WebNN does."""
    narrow = Backend("webnn")
    narrow.block_formats = frozenset(["q8_0"])
    return Devices([Device(Backend()), Device(narrow)], {})


@pytest.fixture
def manager(devices: Devices) -> Any:
    with tc.TensorSharingManager(256, devices=devices) as manager:
        yield manager


@pytest.fixture
def server() -> Any:
    with serving(FileServer()) as running:
        yield running


async def load(source: Any, manager: Any, device: Any = "cpu", **options: Any) -> Model:
    return await tc.from_pretrained(
        source, manager=manager, device=device, precision="exact", tokenizer=False, **options
    )


async def scores(model: Model) -> Any:
    return await (await model(**IDS, outputs=["logits"]))["logits"].read()


async def hidden(model: Model) -> Any:
    inputs: Any = TEXTS
    return await (await model(**inputs))["last_hidden_state"].read()


def identities(manager: Any) -> list[str]:
    return sorted(row.identity for row in manager.report().tensors)


def bytes_in_file(data: bytes, manager: Any) -> Any:
    return tc.estimate_load({"m.gguf": data}, manager=manager, device="cpu")


async def test_bytes_are_those_of_the_file(forms, manager):
    before = await bytes_in_file(forms[0], manager)
    model = await load({"m.gguf": forms[0]}, manager)
    assert set(model.weight_formats) == KEPT
    for name in KEPT - {"float32"}:
        stored = before.stored_formats[name.upper()]
        assert stored <= model.weight_formats[name] < stored + 4 * len(model.specs), name
    widened = before.stored_formats["F32"] + 2 * before.stored_formats["F16"]
    assert model.weight_formats["float32"] == widened
    rows = manager.report().tensors
    assert {row.format for row in rows} == KEPT
    assert sum(row.nbytes for row in rows) == model.weight_bytes == manager.report().unique_weight_bytes
    assert model.weight_bytes == before.weight_bytes


async def test_equal_tensors_of_files_are_one(forms, manager):
    """The same file again adds nothing, and a fine-tune adds the tensors that differ."""
    model = await load({"m.gguf": forms[0]}, manager)
    golden, once = await scores(model), manager.report().unique_weight_bytes
    again = await load({"m.gguf": forms[0]}, manager)
    assert manager.report().unique_weight_bytes == once
    np.testing.assert_array_equal(await scores(again), golden)
    data = bytearray(forms[0])
    data[-1000] ^= 1  # in the last tensor
    tuned = await load({"m.gguf": bytes(data)}, manager)
    added = manager.report().unique_weight_bytes - once
    held = manager.registry.held_by(tuned.name)
    own = [entry for entry in held.values() if set(entry.names) == {tuned.name}]
    assert len(own) == 1 and added == own[0].storage.nbytes
    assert np.abs(await scores(tuned) - golden).max() > 0


async def test_a_device_without_the_formats_widens_once_and_counts(forms, manager, devices):
    with warnings_of("tensorcommons") as warned:
        model = await load({"m.gguf": forms[0]}, manager, "webnn")
    assert any("does not store weights in q4_1, q4_k, q6_k" in text for text in warned), warned
    assert set(model.weight_formats) == {"q8_0", "float32"}
    assert devices.opened[1].memory()["weights"] == model.weight_bytes
    estimate = await tc.estimate_load({"m.gguf": forms[0]}, manager=manager, device="webnn")
    assert estimate.weight_bytes == model.weight_bytes and estimate.device == "webnn"
    dense = await load(forms[1], manager, "webnn")
    only = [entry for entry in manager.registry.held_by(dense.name).values() if set(entry.names) == {dense.name}]
    assert sum(entry.storage.nbytes for entry in only) < dense.weight_bytes, "equal numbers are one"
    near(await scores(model), await scores(dense), 1e-4)


async def test_a_model_moves_to_a_device_without_the_formats_and_back(forms, manager, devices):
    model = await load({"m.gguf": forms[0]}, manager)
    golden, before, formats = await scores(model), identities(manager), model.weight_formats
    await model.to("webnn")
    assert set(model.weight_formats) == {"q8_0", "float32"} and not devices.opened[0].memory()["weights"]
    assert devices.opened[1].memory()["weights"] == model.weight_bytes
    near(await scores(model), golden, 1e-4)
    other = await load({"m.gguf": forms[0]}, manager, "webnn")
    assert devices.opened[1].memory()["weights"] == model.weight_bytes, "what was loaded there is equal"
    np.testing.assert_array_equal(await scores(other), await scores(model))
    other.unload()
    await model.to("cpu")
    assert model.weight_formats == formats and identities(manager) == before
    assert not devices.opened[1].memory()["weights"]
    np.testing.assert_array_equal(await scores(model), golden)


async def test_a_model_that_was_widened_becomes_blocks(forms, manager, devices):
    """Also beside a model that is float32 on purpose and shares the numbers: this one stays so."""
    model = await load({"m.gguf": forms[0]}, manager, "webnn")
    wide = await load({"m.gguf": forms[0]}, manager, "webnn", dtype="float32")
    kept = await load({"m.gguf": forms[0]}, manager)
    golden, held = await scores(kept), devices.opened[0].memory()["weights"]
    await model.to("cpu")
    assert devices.opened[0].memory()["weights"] == held, "the blocks are there already"
    np.testing.assert_array_equal(await scores(model), golden)
    await wide.to("cpu")
    assert set(wide.weight_formats) == {"float32"}
    near(await scores(wide), golden, 1e-4)
    kept.unload()
    await model.to("webnn")
    await model.to("cpu")
    np.testing.assert_array_equal(await scores(model), golden)


async def test_blocks_are_known_of_a_twin_that_was_dense(forms, manager, server):
    """A file whose numbers are on the device as those of another one, and which is known without reading it."""
    server.files["m.gguf"] = forms[0]
    file = f"{server.address}/good/m.gguf"  # whose ETag proves the version
    await load(forms[1], manager, "webnn")
    wide = await load(file, manager, dtype="float32")
    other = await load(random_files(BERT), manager)
    await other.to("webnn")  # the origins of the device are known on the other one from here on
    for dtype in ("float32", None):
        model = await load(file, manager, "webnn", dtype=dtype)
        await model.to("cpu")
        assert set(model.weight_formats) == ({"float32"} if dtype else KEPT)
        near(await scores(model), await scores(wide), 1e-4)
    await wide.to("webnn")
    again = await load(file, manager, "webnn")
    await again.to("cpu")
    assert set(again.weight_formats) == KEPT


async def test_widened_weights_survive_eviction_and_a_lost_device(forms, manager, devices):
    model = await load({"m.gguf": forms[0]}, manager)
    await model.to("webnn")
    golden = await scores(model)
    for entry in manager.registry.held_by(model.name).values():
        assert await entry.storage.evict()
    assert not devices.opened[1].memory()["weights"]
    np.testing.assert_array_equal(await scores(model), golden)
    for entry in manager.registry.held_by(model.name).values():
        entry.storage.lose()
    np.testing.assert_array_equal(await scores(model), golden)


async def test_int4_is_q4_0_and_q8_0_for_tables(manager, devices):
    files = random_files(BERT)
    model = await load(files, manager, dtype="int4")
    tables = {param.shape for param in model.architecture.manifest.values() if param.role == "table"}
    wide = {}
    mapping, *_ = model.architecture.names
    names = {name: mapping.canonical(name) for name in tensors_of(files)}
    params = model.architecture.manifest
    for name, array in tensors_of(files).items():
        param = params.get(names[name])
        wide[name] = array
        if param is not None and param.role in ("matrix", "table") and array.shape[1] % 32 == 0:
            form = BLOCKS["q8_0" if array.shape in tables else "q4_0"]
            assert getattr(model.specs[param.name], "format", "") == form.name
            wide[name] = form.numbers(form.quantize(array)).reshape(array.shape)
    assert set(model.weight_formats) == {"q4_0", "q8_0", "float32"}
    dense = await load({**files, WEIGHTS: pack(wide)}, manager)
    out = [await hidden(each) for each in (model, dense)]
    near(out[0], out[1], 1e-4)
    narrow = await load(files, manager, "webnn", dtype="q4")
    assert set(narrow.weight_formats) == {"q8_0", "float32"}
    near(await hidden(narrow), out[1], 1e-4)
    held = manager.registry.held_by(model.name)
    kept = {name: entry.storage.identity for name, entry in held.items()}
    model.unload()
    await narrow.to("cpu")
    assert {name: e.storage.identity for name, e in manager.registry.held_by(narrow.name).items()} == kept


async def test_quantising_again_is_named(forms, manager):
    for dtype, kept in (("int8", "q8_0"), ("int4", "q4_0")):
        with warnings_of("tensorcommons") as warned:
            model = await load({"m.gguf": forms[0]}, manager, dtype=dtype)
        assert any(f"q4_k to {kept}" in text and "dtype=None keeps them" in text for text in warned), warned
        model.unload()
    with pytest.raises(UnsupportedDtype, match="int4"):
        await load({"m.gguf": forms[0]}, manager, dtype="int2")


@pytest.mark.slow
async def test_a_real_file_keeps_its_bytes_scores_and_tokens(devices):
    """SmolLM2 in Q4_1: what is greedy for the float32 numbers is greedy for the blocks, 64 tokens long."""
    with tc.TensorSharingManager(2048, devices=devices) as manager:
        before = await tc.estimate_load(str(REAL), manager=manager, device="cpu")
        stored = sum(list(before.stored_formats.values()))
        dense = await load(REAL, manager, dtype="float32")
        prompt = np.array([[1, 504, 3575, 282, 4649, 314]])
        tokens = await dense.generate(prompt, max_new_tokens=64, min_new_tokens=64)
        wanted = await (await dense(input_ids=tokens[:, :-1]))["logits"].read()
        dense.unload()
        model = await load(REAL, manager)
        assert model.weight_bytes == manager.report().unique_weight_bytes <= 1.03 * stored
        print(f"SmolLM2 Q4_1: {model.weight_formats} of {stored:,} bytes in the file")
        found = await (await model(input_ids=tokens[:, :-1]))["logits"].read()
    near(found, wanted, 1e-4)
    new = found[0, prompt.shape[1] - 1 :]
    assert new.shape[0] == 64 and (new.argmax(1) == tokens[0, prompt.shape[1] :]).all()
