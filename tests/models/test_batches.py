"""Batches of the rows of a pipeline call: results in order, equal to those of single rows, under the memory limit."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from scripts import paths
from scripts.random_checkpoint import RandomCheckpoint
from tensorcommons.errors import InvalidWeights, MemoryBudgetError, TensorCommonsError
from tensorcommons.hub.encoding import Encoding
from tensorcommons.tasks.base import Job, TextRows
from tensorcommons.tasks.batches import SMALL, batches, check_size
from tensorcommons.tasks.pipeline import TaskCall, run_calls
from tests.cases import Place
from tests.cases.checkpoints import WEIGHTS, files_of, pack, tensors_of, with_config
from tests.cases.random_weights import values_of
from tests.cases.support import warnings_of
from tests.cases.variants import checkpoint

GOLDENS = str(paths.ROOT / "tests/goldens")
PLACE = Place(devices=None, models="", tiny="", faulty="", goldens=GOLDENS)  # type: ignore[arg-type]
MB = 1 << 20


@asynccontextmanager
async def loaded(source: Any = f"{GOLDENS}/tiny-bert", megabytes: float = 64):
    devices = await tc.open_devices(prefer=["cpu"])
    manager = tc.TensorSharingManager(megabytes, devices=devices)
    model = await tc.from_pretrained(source, manager=manager, tokenizer=False)
    yield model
    model.unload()
    devices.close()


def encoded(lengths: list[int], *, left: bool = False, seed: int = 0) -> Encoding:
    """Draw random tokens, padded to the longest row."""
    width = max(lengths, default=0)
    place = np.arange(width)[::-1] if left else np.arange(width)
    mask = (place[None] < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.random.default_rng(seed).integers(5, 45, mask.shape).astype(np.int32) * mask
    zeros = np.zeros_like(mask)
    return Encoding(
        ids, mask, zeros, zeros, np.zeros((*mask.shape, 2), np.int32), zeros, np.arange(len(mask), dtype=np.int32)
    )


async def answers(model: Any, rows: TextRows, *outputs: str, batch_size: int | None = None) -> tuple[list[Any], int]:
    """Return the part of the outputs of each row, and the number of batches."""
    job = Job(rows, outputs, lambda row, arrays: (row, *arrays), list)
    made = await batches(model, rows, outputs, batch_size)
    assert sorted(row for batch in made for row in batch) == list(range(len(rows.lengths)))
    (shown,) = await run_calls([TaskCall(model, job, made, batch_size is not None)])
    return shown, len(made)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("batch_size", [None, pytest.param(1, marks=pytest.mark.slow), 7, 1000])
async def test_results_are_in_order_and_equal_those_of_single_rows(batch_size, left):
    lengths = np.random.default_rng(3).integers(1, 40, 150).tolist()
    async with loaded() as model:
        rows = TextRows(encoded(lengths, left=left), model.input_names)
        shown, _ = await answers(model, rows, "last_hidden_state", "mean_embedding", batch_size=batch_size)
        assert [row for row, *_ in shown] == list(range(150))
        for row, hidden, pooled in shown:
            assert hidden.shape[0] == lengths[row]
            ids = rows.encoding.input_ids[row][rows.encoding.attention_mask[row] == 1]
            if left:  # padding on the left moves the positions of a BERT
                continue
            out = await model(input_ids=[ids], outputs=["last_hidden_state", "mean_embedding"])
            assert np.allclose(hidden, (await out["last_hidden_state"].read())[0], atol=1e-4)
            assert np.allclose(pooled, (await out["mean_embedding"].read())[0], atol=1e-4)


@pytest.mark.parametrize("megabytes", [3, 8])
async def test_a_call_that_does_not_fit_as_one_batch_stays_under_the_limit(megabytes):
    async with loaded(megabytes=megabytes) as model:
        rows = TextRows(encoded([40] * 600), model.input_names)
        with pytest.raises(MemoryBudgetError):
            await answers(model, rows, "last_hidden_state", batch_size=600)
        shown, count = await answers(model, rows, "mean_embedding")
        assert len(shown) == 600 and count > 1
        assert model.manager.get_stats()["peak_memory_bytes"] <= megabytes * MB


async def test_a_batch_that_turns_out_too_large_is_halved():
    async with loaded(megabytes=4) as model:
        rows = TextRows(encoded([40] * 300), model.input_names)
        job = Job(rows, ("mean_embedding",), lambda row, arrays: row, list)
        (shown,) = await run_calls([TaskCall(model, job, [list(range(300))], is_fixed=False)])
        assert shown == list(range(300))


async def test_few_rows_are_one_batch_in_their_order():
    async with loaded() as model:
        for lengths in ([3], [3, 9, 1], [16] * (SMALL // 16)):
            rows = TextRows(encoded(lengths), model.input_names)
            assert await batches(model, rows, ["last_hidden_state"], None) == [list(range(len(lengths)))]
        assert await batches(model, TextRows(encoded([]), model.input_names), ["last_hidden_state"], None) == []


async def test_pairs_of_a_head_stay_in_one_batch():
    async with loaded() as model:
        lengths = np.random.default_rng(5).integers(1, 30, 20).tolist()
        rows = TextRows(encoded(lengths), model.input_names, halves=True)
        ((taken, inputs),) = await rows.take([3, 1])
        assert taken == [3, 1] and rows.lengths[3] == max(lengths[3], lengths[13])
        wide = rows.encoding.input_ids[[3, 1, 13, 11]]
        assert np.array_equal(inputs["input_ids"], wide[:, : inputs["input_ids"].shape[1]])


async def test_a_decoder_without_a_padding_token_runs_one_text_at_a_time():
    files = checkpoint(PLACE, "LlamaForSequenceClassification without padding")
    async with loaded(files) as model:
        rows = TextRows(encoded([4, 9, 2, 9]), model.input_names)
        shown, count = await answers(model, rows, "logits")
        assert count == 4 and [len(logits) for _, logits in shown] == [3] * 4
        for row, logits in shown:
            ids = rows.encoding.input_ids[row, : rows.lengths[row]]
            alone = await (await model(input_ids=[ids]))["logits"].read()
            assert np.allclose(logits, alone[0], atol=1e-5)


@pytest.mark.parametrize("padding", [50, -51, 2**70])
async def test_only_gpt2_may_have_its_padding_outside_the_vocabulary(padding):
    ids = np.arange(8).reshape(2, 4)
    wanted = []
    for number in (padding, 49):  # 49 does not occur in a text, either
        files = with_config(checkpoint(PLACE, "GPT2ForSequenceClassification"), pad_token_id=number)
        async with loaded(files) as model:
            wanted.append(await (await model(input_ids=ids))["logits"].read())
    assert np.array_equal(*wanted)
    with pytest.raises(InvalidWeights, match="pad_token_id"):
        async with loaded(with_config(checkpoint(PLACE, "LlamaForSequenceClassification"), pad_token_id=padding)):
            pass


async def test_cancelling_ends_a_call_between_two_batches():
    async with loaded() as model:
        rows = TextRows(encoded([20] * 60), model.input_names)
        seen: list[int] = []

        def each(row: int, arrays: Any) -> None:
            seen.append(row)
            if len(seen) == 10:
                task.cancel()

        job = Job(rows, ("mean_embedding",), each, list)
        made = await batches(model, rows, ["mean_embedding"], 10)
        task = asyncio.ensure_future(run_calls([TaskCall(model, job, made, is_fixed=True)]))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(seen) == 10
        await model(input_ids=[[5, 6]])


async def test_cancelling_works_where_no_batch_waits():
    async with loaded() as model:
        rows = TextRows(encoded([20] * 50), model.input_names)
        job = Job(rows, ("mean_embedding",), lambda row, arrays: row, list)
        call = TaskCall(model, job, await batches(model, rows, ["mean_embedding"], 1), is_fixed=True)
        await run_calls([call])  # the second time all results are in the cache, so that nothing waits
        task = asyncio.ensure_future(run_calls([call]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
async def test_non_finite_weights_cause_one_warning(odd):
    files = files_of(PLACE, "tiny-bert")
    tensors = {name: array.copy() for name, array in tensors_of(files).items()}
    tensors["encoder.layer.0.output.dense.bias"][0] = odd
    async with loaded({**files, WEIGHTS: pack(tensors)}) as model:
        rows = TextRows(encoded([3, 4]), model.input_names)
        with warnings_of("tensorcommons") as warned:
            for _ in range(2):
                shown, _ = await answers(model, rows, "mean_embedding")
        assert len(warned) == 1 and "not finite" in warned[0], warned
        assert all(np.isnan(vector).any() for _, vector in shown)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "8", [8]])
def test_wrong_batch_sizes_are_refused(size):
    with pytest.raises(TensorCommonsError, match="batch_size"):
        check_size(size)


async def test_logits_of_an_mlp_head_have_one_row_per_text():
    """Includes a base whose own logits have a value per token, and texts with fewer tokens than labels."""
    words = json.loads(files_of(PLACE, "tiny-bert-mlm")["config.json"])
    labels = {str(number): f"label {number}" for number in range(40)}
    head = {
        "model_type": "mlp-head",
        "base_model_name_or_path": "tiny-bert-mlm",
        "pooling": "mean",
        "pair": False,
        "layer_sizes": [words["hidden_size"], 40],
        "hidden_act": "relu",
        "output_activation": "softmax",
        "id2label": labels,
    }
    weights = {"layers.0.weight": (40, words["hidden_size"]), "layers.0.bias": (40,)}
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files_of(PLACE, "tiny-bert-mlm").items():
            (Path(folder) / "tiny-bert-mlm").mkdir(exist_ok=True)
            (Path(folder) / "tiny-bert-mlm" / name).write_bytes(data)
        (Path(folder) / "head").mkdir()
        (Path(folder) / "head" / "config.json").write_text(json.dumps(head))
        packed = pack({name: values_of(name, shape) for name, shape in weights.items()})
        (Path(folder) / "head" / WEIGHTS).write_bytes(packed)
        async with loaded(f"{folder}/head") as model:
            out = await (await model(input_ids=[[5, 6, 7]]))["logits"].read()
            assert out.shape == (1, 40)
            rows = TextRows(encoded([3, 9, 1]), model.input_names)
            shown, _ = await answers(model, rows, "logits")
            assert [logits.shape for _, logits in shown] == [(40,)] * 3


async def test_a_model_that_is_larger_than_the_limit_takes_many_rows_at_once():
    recipe = "bert-base,layers=8,hidden_size=64,num_attention_heads=4,intermediate_size=128,vocab_size=1000"
    async with loaded(RandomCheckpoint(recipe).files(), 1) as model:
        rows = TextRows(encoded([60] * 36), model.input_names)
        assert model.weight_bytes > model.manager.limit_bytes
        made = await batches(model, rows, ["last_hidden_state"], None)
        assert 1 < len(made) <= 18
        ((_, inputs), *_) = await rows.take(made[0])
        await model(**inputs)
        assert model.manager.last_run["segments"] > 1
        assert model.manager.report().peak_bytes <= model.manager.limit_bytes
