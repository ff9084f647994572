"""Records of the CPU device's kernels: which steps have some, and how large ones are cut.

The kernels themselves run in a browser only (e2e/ops/test_cpu.py).
"""

from __future__ import annotations

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.backends.base import Plan
from tensorcommons.backends.cpu import backend, code, elementwise, kernels, products, quantized
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.cpu.record import MOST, SCRATCH, Record
from tensorcommons.formats import BLOCKS, OF_GGUF
from tensorcommons.graph.elementwise_fusion import chain_elementwise
from tensorcommons.graph.graph import Graph
from tensorcommons.graph.paged_attention import attend_in_pages
from tensorcommons.graph.plan import make_plan
from tensorcommons.ops import paging


@pytest.fixture
def cpu(monkeypatch):
    """Return a CPU device as in a browser that has the kernels."""
    for module in (backend, code, elementwise, kernels):
        monkeypatch.setattr(module, "loaded", lambda: (object(), "kernels"))
    return CpuBackend()


def _plan(cpu: CpuBackend, *tensors: tc.Tensor) -> Plan:
    return make_plan(chain_elementwise(Graph([tensor.node for tensor in tensors]), cpu), cpu).plan


def test_a_large_product_is_several_records_of_its_rows_and_parts(cpu):
    x, weight = tc.asarray(np.zeros((1001, 700), np.float32)), tc.asarray(np.zeros((1000, 700), np.float32))
    plan = _plan(cpu, tc.linear(x, weight))
    records = kernels.records_of(plan.steps[-1])
    assert records is not None and len(records) == 3
    assert all(record.work <= MOST for record in records)
    assert sum(record.work for record in records) == 1001 * 1000 * 700
    rows = [word for record in records if isinstance(word := record.words[4], int)]
    assert sum(rows) == 1001 and all(number % products.ROWS == 0 for number in rows[:-1])
    made = code.assemble(plan)
    assert len([part for part in made.parts if part.step is None]) == 3
    assert made.parts[-1].end == made.words.nbytes


def test_small_steps_are_one_part_until_numpy_computes_one(cpu):
    x = tc.asarray(np.ones((4, 8), np.float32))
    ones = tc.asarray(np.ones(8, np.float32))
    plan = _plan(cpu, tc.sin(tc.layer_norm(tc.softmax(x), ones, ones)))
    parts = code.assemble(plan).parts
    assert [part.step.op.name if part.step else "records" for part in parts] == ["records", "sin"]
    apart = code.assemble(plan, apart=True)
    assert len(apart.parts) == len(plan.steps) and np.array_equal(apart.words, code.assemble(plan).words)


def test_the_bytes_of_a_code_are_those_of_all_its_arrays(cpu):
    x = tc.asarray(np.ones((4, 8), np.float32))
    made = code.assemble(_plan(cpu, tc.softmax(x) * 2))
    arrays = [made.words, made.positions, made.bases, made.offsets]
    assert all(array.nbytes for array in arrays)
    assert made.nbytes == made.scratch_bytes + sum(array.nbytes for array in arrays)


def test_the_words_of_a_record_are_as_many_as_it_says(cpu):
    q = tc.asarray(np.ones((2, 4, 5, 8), np.float32))
    x = tc.asarray(np.ones((6, 8), np.float32))
    ones, half = tc.asarray(np.ones(8, np.float32)), tc.asarray(np.ones((6, 8), np.float16))
    pool, table = tc.asarray(np.ones((3, 4, 16, 8), np.float32)), tc.asarray(np.array([[5, 3, 1, 2]], np.int32))
    made = [
        tc.scaled_dot_product_attention(q, q, q, is_causal=True),
        tc.rms_norm(x, ones),
        tc.take(x, tc.asarray(np.zeros(3, np.int32)), axis=0),
        tc.gelu(x * 2 + ones) * x,
        tc.mean(q, axis=(1, 2)),
        tc.matmul(q, tc.permute_dims(q, (0, 1, 3, 2))),
        tc.linear(x, half, np.ones(6, np.float32)),
        tc.matmul(x, tc.permute_dims(half, (1, 0))),
        tc.astype(half, "float32") + ones,
        paging.paged_append(pool, q[:1, :, :3], table),
        paging.paged_rows(pool, table),
        paging.paged_mask(table, 5, 16, 3),
    ]
    for step in _plan(cpu, *made).steps:
        records = kernels.records_of(step)
        assert step.op.name == "copy" or records, step.op.name
        assert all(len(record.words) == record.words[1] for record in records or ())


def test_operations_without_a_kernel_are_in_no_chain(cpu):
    x = tc.asarray(np.ones((6, 8), np.float32))
    names = [step.op.name for step in _plan(cpu, tc.sin(x * 2 + 1) + 1).steps]
    assert names == ["chain", "sin", "chain"]


def test_an_operand_that_kernels_cannot_read_is_copied_first(cpu):
    x = tc.asarray(np.ones((6, 8), np.float32))
    assert [step.op.name for step in _plan(cpu, tc.softmax(x[:, ::2])).steps] == ["copy", "softmax"]
    assert [step.op.name for step in _plan(cpu, tc.matmul(x, tc.permute_dims(x, (1, 0)))).steps] == ["matmul"]


@pytest.mark.parametrize("depth", [1, 2, 8])
def test_a_product_says_how_its_weight_is_stored(cpu, depth):
    x, by_rows = tc.asarray(np.ones((3, depth), np.float32)), tc.asarray(np.ones((depth, 4), np.float32))
    by_columns = tc.permute_dims(tc.asarray(np.ones((4, depth), np.float32)), (1, 0))
    for weight, stride in ((by_rows, 4), (by_columns, depth)):
        records = kernels.records_of(_plan(cpu, tc.matmul(x, weight)).steps[-1])
        assert records is not None and len(records) == 1
        is_transposed, count, m, n, k, _, lda, _, ldb = records[0].words[2:11]
        assert (is_transposed, ldb) == (weight is by_columns or depth == 1, depth if depth == 1 else stride)
        assert (count, m, n, k, lda) == (1, 3, 4, depth, depth)


def test_rows_are_along_the_last_axis(cpu):
    x = tc.asarray(np.ones((2, 3, 5), np.float32))
    for rows in (tc.softmax(x), tc.log_softmax(x)):
        records = kernels.records_of(_plan(cpu, rows).steps[-1])
        assert [record.words[2:5] for record in records or ()] == [(0, 6, 5)]


def test_words_have_32_bits(cpu):
    assert Record((2**31 - 1, -(2**31), SCRATCH), 0).fits
    assert not Record((2**31,), 0).fits
    assert not Record((-(2**31) - 1,), 0).fits


def test_attention_in_pages_is_one_step_whose_records_are_few_if_pages_are_many(cpu):
    table = np.zeros((2, 2 + 4096), np.int32)
    q, pool = tc.asarray(np.ones((2, 9, 1, 64), np.float32)), tc.asarray(np.ones((4096, 3, 16, 64), np.float32))
    pages = tc.asarray(table)
    rows, mask = paging.paged_rows(pool, pages), paging.paged_mask(pages, 1, 16)
    graph = attend_in_pages(Graph([tc.scaled_dot_product_attention(q, rows, rows, mask).node]), cpu)
    step, copy = make_plan(graph, cpu).plan.steps
    records = kernels.records_of(step)
    assert (step.op.name, copy.op.name) == ("paged_attention", "copy") and records is not None
    assert all(len(record.words) == record.words[1] for record in records)
    assert len(records) == 1 and records[0].words[2:4] == (0, 6), "a part for each row and each head of keys"


def test_kernels_know_the_fields_of_every_block_format():
    assert quantized.KINDS.keys() >= {form.name for form in OF_GGUF}
    assert set(quantized.BLOCKS) == BLOCKS.keys()
    for name, kind in quantized.KINDS.items():
        form = BLOCKS[name]
        assert (kind.size, kind.fields) == (form.size, tuple(nbytes for _, nbytes in form.fields))
