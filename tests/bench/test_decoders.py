"""The rows of generation on the CPU device, with tiny models; what they read of a checkpoint; their floors."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np
import pytest

import tensorcommons as tc
from bench import decoders, onnx, stored
from bench.contest import Rules, measure
from bench.decoders import COLD, GREEDY, generations
from bench.ours import Ours
from bench.report import Figure, Row, compare, table
from scripts.random_checkpoint import RandomCheckpoint
from tensorcommons.backends.device import Speed

RECIPE = decoders.models("tiny")["SmolLM2-135M float16"].recipe
RULES = Rules(rounds=2, cap_s=1000)
ROWS = 17


@pytest.fixture
async def devices():
    opened = await tc.open_devices(("cpu",))
    yield opened
    opened.close()


async def figure_of(devices, part, **changes):
    """Measure the row whose name has ``part``, ours and our variants."""
    (work,) = (each for each in generations("tiny") if part in each.name)
    work = dataclasses.replace(work, **changes)
    variants = [Ours(devices.cpu, devices, lambda: devices.cpu.total, mode) for mode in ("", GREEDY, COLD)]
    return await measure([each for each in variants if each.does(work)], work, RULES, {})


def test_all_sizes_have_the_same_rows_but_that_of_a_model_too_large_for_software():
    names = {size: [work.name.partition(",")[0] for work in generations(size)] for size in decoders.SIZES}
    assert len(names["tiny"]) == ROWS and len(names["gpu"]) == ROWS + 2  # caches of four lengths
    missing = [work for work in generations("software") if work.missing]
    assert [work.name for work in missing] == ["Llama-1B float16, all rows", "Llama-1B int4, all rows"]
    assert "2.5 GB" in missing[0].missing and "0.8 GB" in missing[1].missing


def test_prompts_differ_from_sample_to_sample_and_peers_begin_with_the_same():
    for work in generations("tiny"):
        prompts = work.arrays["prompts"]
        assert len(np.unique(prompts.reshape(len(prompts), -1), axis=0)) == decoders.PROMPTS
        assert work.prompts is not None and np.array_equal(prompts[[0, 7]], [work.prompts(0), work.prompts(7)])


async def test_every_row_runs(devices):
    for work in generations("tiny"):
        figure = await figure_of(devices, work.name)
        assert [(row.error, len(row.samples_ms)) for row in figure.rows] == [("", 2)] * (1 + len(work.variants))


async def test_sampled_tokens_are_beside_greedy_ones(devices):
    figure = await figure_of(devices, "sampled")
    assert [part.name for _, part in figure.parts()] == ["greedy on CPU"]
    assert "× the time of greedy on CPU" in table([figure])


async def test_conversations_report_what_they_keep_and_the_first_one_is_beside(devices):
    figure = await figure_of(devices, "first token of a conversation")
    ours, _ = figure.rows
    assert [part.name for _, part in figure.parts()] == ["cold on CPU"]
    assert len(ours.extra["first tokens, ms"].split(", ")) == 3
    assert ours.extra["keys and values of one conversation"] == "0.020 MB in float32"
    assert ours.extra["MB kept after the first conversation, and after all 3"]


async def test_a_missing_model_is_reported_and_nothing_is_loaded(devices):
    figure = await figure_of(devices, "GPT-2, prompt", missing="its files are not here", folder="no recipe")
    assert [row.error for row in figure.rows] == ["not run: its files are not here"]


async def test_of_float16_the_first_tokens_must_be_equal(devices, monkeypatch):
    class Peer(Ours):
        changed = 0

        async def prepare(self, work):
            prepared = await super().prepare(work)
            inner = prepared.sample

            async def sample():
                took = await inner()
                prepared.result().flat[self.changed] += 1
                return took

            monkeypatch.setattr(prepared, "sample", sample)
            return prepared

    (work,) = (each for each in generations("tiny") if each.name == "SmolLM2-135M float16, 6 tokens after 24")
    later = type("Later", (Peer,), {"changed": 3})
    contestants = [kind(devices.cpu, devices, lambda: 0) for kind in (Ours, Peer, later)]
    rows = (await measure(contestants, work, RULES, {})).rows
    assert [row.error[-21:] for row in rows] == ["", "from number 0 of 7 on", ""]
    assert rows[2].extra["tokens equal"] == "6 of 7"


def test_stored_arrays_are_those_of_the_file():
    made = stored.checkpoint(RECIPE)
    data = made.read("model.safetensors")
    start = 8 + struct.unpack("<Q", data[:8])[0]
    for name, array in stored.arrays(RECIPE).items():
        expected = np.frombuffer(data, np.float16, array.nbytes // 2, start).reshape(made.shapes[name])
        start += array.nbytes
        assert np.array_equal(np.asarray(array), expected) and array.shape == expected.shape
        assert array.T.read() == expected.T.tobytes() and array.T.shape == expected.T.shape
        assert array[..., 1:3].read() == expected[..., 1:3].tobytes()
    assert start == len(data)


def test_large_constants_can_be_outside_an_onnx_file():
    weights = {"w": stored.Stored.of((32, 16), np.float32, lambda: np.arange(512, dtype=np.float32).reshape(32, 16))}

    def made(*, external):
        graph = onnx.Builder({"x": ("float32", (1, 32))}, external=external)
        y = graph.op("MatMul", "x", graph.constant("w", weights["w"]))
        graph.op("Add", y, graph.constant("small", np.ones(3, np.float32)))
        return graph.file({y: ("float32", (1, 16))})

    inside, outside = made(external=False), made(external=True)
    values = np.arange(512, dtype="<f4").tobytes()
    assert values in bytes(inside) and not inside.constants
    assert values not in bytes(outside) and b"".join(map(onnx.read, outside.constants)) == values
    assert b"weights.bin" in bytes(outside) and b"2048" in bytes(outside) and len(bytes(outside)) < 400


def test_the_graph_of_a_large_model_is_made_without_its_weights(monkeypatch):
    (work,) = (work for work in generations("gpu") if work.name == "Llama-1B float16, prompt of 1,500")
    monkeypatch.delattr(RandomCheckpoint, "pieces")
    assert work.model is not None
    made = work.model()
    assert isinstance(made, onnx.Model)
    assert sum(map(onnx.nbytes, made.graph)) < 1e5
    assert sum(map(onnx.nbytes, made.constants)) == pytest.approx(2.4717e9, rel=0.01)
    assert max(map(onnx.nbytes, made.constants)) == 128_256 * 2048 * 2  # read one at a time


def test_the_floor_is_the_longer_of_copying_and_computing():
    (step,) = (work for work in generations("gpu") if work.name == "Llama-1B float16, 128 tokens after 128")
    (prompt,) = (work for work in generations("gpu") if work.name == "Llama-1B float16, prompt of 1,500")
    speeds = {"webgpu": Speed(4e12, 40e12)}
    assert decoders.floors(step, speeds)["webgpu"] / 128 == pytest.approx(2.4717e9 / 4e12 * 1e3, rel=0.01)
    flops = 2 * 973e6 * 1500 + 2 * 2048 * 128256 + 4 * 1500 * 1501 / 2 * 2048 * 16
    assert decoders.floors(prompt, speeds)["webgpu"] == pytest.approx(flops / 40e12 * 1e3, rel=0.01)


def test_a_row_is_compared_with_an_earlier_one():
    rows = [[Row("tensorcommons", "1", "webgpu", amount=amount, samples_ms=[ms])] for amount, ms in ((4, 8), (8, 24))]
    earlier, later = (Figure("g", name, 1, "token", row) for name, row in zip(("a", "b"), rows, strict=True))
    later.floors = {"webgpu": 6.0}
    compare(later, earlier)
    assert later.rows[0].extra == {"time of a token against that of a": "1.50 ×"}
    assert "  4.00 × the floor of webgpu, 6.00 at its probed rates" in table([later])
