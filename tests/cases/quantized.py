"""``dtype="int8"``: matrices and tables in blocks of Q8_0, quantised while a model is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from scripts.random_checkpoint import RandomCheckpoint
from tensorcommons import Model, TensorSharingManager
from tensorcommons.backends.budget import STAGING_RESERVE
from tensorcommons.bridge.byte_buffer import pool
from tensorcommons.errors import InvalidWeights, TensorCommonsError
from tensorcommons.formats import BLOCKS
from tests.cases import Place, only, shows
from tests.cases.checkpoints import WEIGHTS, Tensors, pack, tensors_of
from tests.cases.golden_models import INPUTS, checkpoint_of, load_goldens
from tests.cases.seeded import checkpoint
from tests.cases.support import near, raises, warnings_of

# Rows of 100 numbers are not whole blocks: the second matrix of the feed-forward stays dense.
BERT = (
    "bert-base,hidden_size=64,num_attention_heads=2,intermediate_size=100,vocab_size=301,layers=2,"
    "max_position_embeddings=48"
)
LLAMA = (
    "smollm2-135m,dtype=F32,hidden_size=64,num_attention_heads=2,num_key_value_heads=1,intermediate_size=96,"
    "vocab_size=301,layers=2"
)
IDS = {"input_ids": np.array([[2, 17, 31, 5, 3], [2, 9, 300, 3, 0]])}
Q8_0 = BLOCKS["q8_0"]


def files_of(recipe: str) -> dict[str, bytes]:
    """The files of a small checkpoint."""
    checkpoint = RandomCheckpoint(recipe)
    return {name: checkpoint.read(name) for name in checkpoint.names}


async def _load(place: Place, manager: TensorSharingManager, files: Any, dtype: str | None = "int8") -> Model:
    """Load a model that computes exactly, to be compared with float32."""
    options: dict[str, Any] = {"dtype": dtype, "precision": "exact", "tokenizer": False}
    return await tc.from_pretrained(files, manager=manager, device=place.device, **options)


async def _read(model: Model, name: str, inputs: Any = IDS) -> Any:
    return await (await model(**inputs, outputs=[name]))[name].read()


def _quantized(model: Model) -> set[str]:
    """Names of the parameters that are quantised: those of products and look-ups with rows of whole blocks."""
    params = model.architecture.manifest.values()
    return {each.name for each in params if each.role in ("matrix", "table") and each.shape[-1] % 32 == 0}


def _widened(tensors: Tensors, model: Model) -> Tensors:
    """The checkpoint with the numbers that quantised weights stand for."""
    names, (mapping, *_) = _quantized(model), model.architecture.names
    found = {}
    for name, array in tensors.items():
        words = np.frombuffer(Q8_0.pack(Q8_0.quantize(array)), np.int8) if mapping.canonical(name) in names else None
        found[name] = array if words is None else Q8_0.dense(words, array.shape)
    return found


async def _compare(place: Place, recipe: str, output: str) -> None:
    manager, files = place.manager(), files_of(recipe)
    model = await _load(place, manager, files)
    params = model.architecture.manifest.values()
    names = _quantized(model)
    packed = sum(Q8_0.spec(each.shape).nbytes for each in params if each.name in names)
    dense = 4 * sum(int(np.prod(each.shape)) for each in params if each.name not in names)
    assert model.weight_formats == {"q8_0": packed, "float32": dense}
    assert model.weight_bytes == place.device.memory()["weights"] == packed + dense
    rows = [row for row in manager.report().tensors if row.format == "q8_0"]
    assert sum(row.nbytes for row in rows) == packed and len(rows) == len(names)
    assert {row.shape for row in rows} == {each.shape for each in params if each.name in names}
    wide = await _load(place, manager, {**files, WEIGHTS: pack(_widened(tensors_of(files), model))}, None)
    near(await _read(model, output), await _read(wide, output), 1e-4)
    model.unload()
    wide.unload()


@shows("bert", "int8 (Q8_0)", "float32 of its numbers")
async def an_encoder_computes_with_the_quantised_numbers(place: Place) -> None:
    await _compare(place, BERT, "last_hidden_state")


@shows("bart, clip, mistral, modernbert, qwen3", "int8 (Q8_0)", "quantized.npz")
async def five_architectures_as_the_reference(place: Place) -> None:
    """The reference is `transformers` with the numbers to which gguf quantises the weights."""
    manager, (table, arrays) = place.manager(), load_goldens(place.goldens, "quantized")
    for name, entry in table.items():
        model = await _load(place, manager, checkpoint_of(entry))
        mine = {key.partition(".")[2]: array for key, array in arrays.items() if key.startswith(f"{name}.")}
        inputs = {key: mine.pop(key) for key in INPUTS if key in mine}
        out = await model(**inputs, outputs=list(mine))
        counts = inputs["attention_mask"] == 1
        for key, wanted in mine.items():
            given = await out[key].read()
            if wanted.shape[:2] == counts.shape and name != "bart":  # values at padding are undefined
                given, wanted = given[counts], wanted[counts]
            near(given, wanted, 1e-4)
        assert set(model.weight_formats) == {"q8_0", "float32"}, name
        model.unload()


@shows("llama", "int8 (Q8_0)", "float32 of its numbers")
async def a_decoder_with_a_tied_head(place: Place) -> None:
    """One storage is its table and its head."""
    await _compare(place, LLAMA, "logits")
    manager = place.manager()
    model = await _load(place, manager, files_of(LLAMA), "q8")
    tokens = await model.generate(np.array([[5, 17, 31, 200]]), max_new_tokens=6)
    assert tokens.shape == (1, 10)
    model.unload()


async def models_share_equal_blocks(place: Place) -> None:
    """Blocks of equal numbers are one storage whatever the dtype in the file, also beside the dense weight."""
    manager, files = place.manager(), files_of(BERT)
    halves = {name: array.astype(np.float16) for name, array in tensors_of(files).items()}
    wide = {name: array.astype(np.float64) for name, array in halves.items()}
    model = await _load(place, manager, {**files, WEIGHTS: pack(halves, **{name: {"dtype": "F16"} for name in halves})})
    total = place.device.memory()["weights"]
    other = await _load(place, manager, {**files, WEIGHTS: pack(wide, **{name: {"dtype": "F64"} for name in wide})})
    assert place.device.memory()["weights"] == total
    wanted = await _read(model, "last_hidden_state")
    single = {name: array.astype(np.float32) for name, array in halves.items()}
    full = await _load(place, manager, {**files, WEIGHTS: pack(single)}, None)
    assert place.device.memory()["weights"] == total + full.weight_bytes - model.weight_formats["float32"]
    answers = await manager.run_together([(each, IDS) for each in (model, full, other)])
    alone = [await _read(each, "last_hidden_state") for each in (model, full, other)]
    for answer, own in zip(answers, alone, strict=True):
        np.testing.assert_array_equal(await answer["last_hidden_state"].read(), own)
    np.testing.assert_array_equal(alone[0], wanted)
    np.testing.assert_array_equal(alone[2], wanted)
    for each in (model, other, full):
        each.unload()
    assert place.device.memory()["weights"] == 0


async def a_model_of_dense_matrices_is_named(place: Place) -> None:
    """A warning names GPT-2, whose (in, out) matrices stay dense."""
    manager = place.manager()
    for files, dense in ((checkpoint(place, "tiny-gpt2"), True), (files_of(LLAMA), False)):
        with warnings_of("tensorcommons") as warned:
            model = await _load(place, manager, files)
        assert any("cannot be quantised to q8_0" in text for text in warned) == dense, warned
        model.unload()


async def numbers_that_cannot_be_quantised(place: Place) -> None:
    """They are named with their tensor, and nothing stays; zeros have a scale of 0, and vectors may have any number."""
    manager, files = place.manager(), files_of(BERT)
    tensors = tensors_of(files)
    matrix = next(name for name in tensors if name.endswith("query.weight"))
    for value in (np.nan, -np.inf, 1e9):
        broken = {**tensors, matrix: tensors[matrix].copy()}
        broken[matrix][3, 40] = value
        words = matrix, str(np.float32(value)) if value != 1e9 else "1000000000.0", "float32"
        taken = pool.taken
        await raises(InvalidWeights, _load(place, manager, {**files, WEIGHTS: pack(broken)}), *words)
        assert taken == pool.taken, "a buffer was dropped, not freed"
        assert place.device.memory()["weights"] == 0
    zeros = {**tensors, matrix: np.zeros_like(tensors[matrix])}
    model = await _load(place, manager, {**files, WEIGHTS: pack(zeros)})
    dense = await _load(place, manager, {**files, WEIGHTS: pack(_widened(zeros, model))}, None)
    near(await _read(model, "last_hidden_state"), await _read(dense, "last_hidden_state"), 1e-4)
    model.unload()
    dense.unload()


async def weights_that_come_and_go(place: Place) -> None:
    """Under a limit that the weights exceed, each run reads some of them again, with the same bits."""
    manager, files = place.manager(), files_of(BERT.replace("layers=2", "layers=12"))
    model = await _load(place, manager, files)
    wanted, nbytes = await _read(model, "last_hidden_state"), model.weight_bytes
    model.unload()
    manager.close()
    small = place.manager((nbytes * 0.6 + STAGING_RESERVE) / 2**20)
    model = await _load(place, small, files)
    for _ in range(2):
        np.testing.assert_array_equal(await _read(model, "last_hidden_state"), wanted)
    assert small.report().peak_bytes <= small.limit_bytes
    model.unload()
    small.close()


@only("webgpu")
async def a_quantised_model_on_every_device(place: Place) -> None:
    """It moves with the same bits: what comes back is one storage with what was loaded again."""
    manager, files = place.manager(), files_of(BERT)
    model = await _load(place, manager, files)
    wanted = await _read(model, "last_hidden_state")
    identities = {row.identity for row in manager.report().tensors}
    start, *others = place.devices.opened
    held = start.memory()["weights"]
    for device in (*others, start):
        await model.to(device)
        near(await _read(model, "last_hidden_state"), wanted, 1e-4)
        assert manager.last_run["device"] == device.kind
        assert device.memory()["weights"] == held and model.weight_formats["q8_0"] > 0
        assert {row.identity for row in manager.report().tensors} == identities
    np.testing.assert_array_equal(await _read(model, "last_hidden_state"), wanted)
    again = await _load(place, manager, files)
    assert start.memory()["weights"] == held
    model.unload()
    again.unload()


def _precisions(model: Model) -> set[Any]:
    """The precisions of the quantised products in the graph of a call."""
    waiting, seen = list(model.request(IDS, None).trace.nodes), {}
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen[id(node)] = node
            waiting += node.inputs
    return {each.attrs["precision"] for each in seen.values() if each.op and each.op.name == "quantized_linear"}


async def precision_is_checked_and_part_of_the_graph(place: Place) -> None:
    """It is "exact" for "fast" where the device has no other products, and an unknown one is named before a load."""
    manager, files = place.manager(), files_of(BERT)
    await raises(TensorCommonsError, tc.from_pretrained(files, manager=manager, precision="best"), "best", "fast")
    model = await tc.from_pretrained(files, manager=manager, device=place.device, dtype="int8", precision="exact")
    assert _precisions(model) == {"exact"} and model.precision == "exact"
    task = "feature-extraction"
    wrongs: tuple[Any, ...] = ("best", 1)
    for wrong in wrongs:
        await raises(TensorCommonsError, tc.pipeline(task, model, manager=manager, precision=wrong), repr(wrong))
    assert (await tc.pipeline(task, model, manager=manager, precision="exact")).model is model
    for dtype in ("float32", "int8"):
        await raises(TensorCommonsError, tc.pipeline(task, model, manager=manager, dtype=dtype), "dtype")
    fast = await tc.from_pretrained(files, manager=manager, device=place.device, dtype="int8")
    await raises(TensorCommonsError, tc.pipeline(task, fast, manager=manager, precision="exact"), "precision")
    wanted = "fast" if place.device.backend.multiplies_int8 else "exact"
    assert _precisions(fast) == {wanted} and fast.precision == "fast"
    model.unload()
    fast.unload()


@shows("bert", "MiniLM, int8", "float32")
async def minilm(place: Place) -> None:
    """The sentence model: 27 % of the bytes, nearly the same direction."""
    manager = place.manager()
    ids = np.random.default_rng(0).integers(1000, 20000, (2, 12))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    found, sizes = [], []
    for dtype in (None, "int8"):
        model = await _load(place, manager, f"{place.models}/all-MiniLM-L6-v2", dtype)
        found.append(np.float64(await _read(model, "sentence_embedding", inputs)))
        sizes.append(model.weight_bytes)
        model.unload()
    assert sizes[1] <= 0.275 * sizes[0], sizes
    cosines = (found[0] * found[1]).sum(1) / np.linalg.norm(found[0], axis=1) / np.linalg.norm(found[1], axis=1)
    print(f"MiniLM: {sizes[1] / sizes[0]:.1%} of the bytes, least cosine {cosines.min():.5f}")
    assert cosines.min() >= 0.999
