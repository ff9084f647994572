"""The CPU device in the browser, by kernels of WebAssembly: against NumPy, and the cases of the ops that have one."""

from __future__ import annotations

import math

import pytest

from tests.cases.marked import params

PRODUCTS = """
from unittest.mock import patch
from tensorcommons.backends.cpu import backend, record

record.loaded.cache_clear()
with patch.dict(record.MODULES, {name: record.MODULES[name] for name in modules}, clear=True):
    what = backend.CpuBackend().features  # loads the kernels
rng = np.random.default_rng(0)
draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
here = place.device
worst = 0.0
for count, (m, n, k) in enumerate([(1, 1, 1), (1, 7, 5), (3, 33, 4), (4, 8, 16), (5, 40, 19), (9, 2, 3), (6, 65, 0)]):
    x, weight, bias = draw(m, k), draw(n, k), draw(n)
    on = lambda array: tc.asarray(array, device=here)
    pairs = [
        (tc.linear(on(x), on(weight), on(bias)), x @ weight.T + bias),
        (tc.relu(tc.linear(on(x), on(weight))), np.maximum(x @ weight.T, 0)),
        (tc.tanh(tc.linear(on(x), on(weight), on(bias))), np.tanh(x @ weight.T + bias)),
        (tc.matmul(on(x), on(np.ascontiguousarray(weight.T))), x @ weight.T),
        (tc.matmul(on(np.stack([x[None]] * 2)), on(np.stack([weight.T] * 3))), np.tile(x @ weight.T, (2, 3, 1, 1))),
    ]
    half = (weight * 10.0 ** rng.integers(-7, 1, (n, 1))).astype(np.float16)
    wide = half.astype(np.float32)
    pairs += [
        (tc.tanh(tc.linear(on(x), on(half), on(bias))), np.tanh(x @ wide.T + bias)),
        (tc.matmul(on(x), on(np.ascontiguousarray(half.T))), x @ wide.T),
        (tc.astype(on(half)[:, ::-1], "float32"), wide[:, ::-1]),
    ]
    for got, wanted in pairs:
        worst = max(worst, float(np.abs(await got.read() - wanted).max(initial=0)))
odd = np.float32([[np.nan, 1], [np.inf, 1], [-np.inf, 1], [1, np.inf]])
got = await tc.linear(tc.asarray(odd, device=here), tc.asarray(np.float32([[1, 0], [1, 1]]), device=here)).read()
with np.errstate(all="ignore"):
    wanted = odd @ np.float32([[1, 0], [1, 1]]).T
special = np.zeros((40, 6), np.float16)
special[[3, 5, 9, 36, 38, 39], [0, 5, 1, 4, 2, 3]] = np.float16([np.inf, -np.inf, np.nan, 65504, 6e-8, np.inf])
special[39, 0] = -65504
tail = np.zeros((40, 6), np.float16)  # all others are finite
tail[[5, 38], [5, 4]] = np.float16([-np.inf, np.inf])
halves = True
for rows, weights in ((rows, weights) for rows in (1, 2, 9) for weights in (special, tail)):
    x = np.ones((rows, 6), np.float32)
    with np.errstate(all="ignore"):
        exact = x @ weights.astype(np.float32).T
    for found in (
        tc.linear(tc.asarray(x, device=here), tc.asarray(weights, device=here)),
        tc.matmul(tc.asarray(x, device=here), tc.asarray(np.ascontiguousarray(weights.T), device=here)),
    ):
        halves = halves and bool(np.array_equal(await found.read(), exact, equal_nan=True))
computing = record.loaded()[1]
record.loaded.cache_clear()
same = bool(np.array_equal(got, wanted, equal_nan=True))
{"worst": worst, "odd": same, "halves": halves, "features": list(what), "computing": computing}
"""


@pytest.mark.parametrize(
    ("modules", "what"),
    [
        (["relaxed", "plain"], "WebAssembly with relaxed SIMD"),
        (["plain"], "WebAssembly with SIMD"),
        ([], "the package was built without kernels"),
    ],
)
def test_products_are_those_of_numpy(lab, modules, what):
    found = lab.run(PRODUCTS, kind="cpu", modules=modules)
    assert found["computing"] == what
    assert found["features"] == [what if modules else f"no kernels: {what}"]
    assert found["worst"] < 2e-5 and found["odd"] and found["halves"]


ATTENTION = """
rng = np.random.default_rng(0)
draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
on = lambda array: tc.asarray(array, device=place.device)
reference = tc.ops.registry.OPS["scaled_dot_product_attention"].reference
worst = 0.0
for heads, shared, queries, keys, width in [(1, 1, 1, 1, 1), (4, 2, 5, 7, 3), (2, 2, 37, 33, 32), (3, 1, 16, 70, 20)]:
    q, k, v = draw(2, heads, queries, width), draw(2, shared, keys, width), draw(2, shared, keys, width + 1)
    allowed = rng.random((2, 1, queries, keys)) < 0.5
    allowed[0, 0, 0] = False
    masks = [None, draw(keys), draw(2, 1, 1, keys), allowed, np.where(allowed, 0, -np.inf).astype(np.float32)]
    for mask in masks:
        for causal in (False, True):
            given = [] if mask is None else [np.broadcast_to(mask, (2, heads, queries, keys))]
            wanted = reference(q, k, v, *given, scale=0.3, causal=causal)
            more = None if mask is None else on(mask)
            got = await tc.scaled_dot_product_attention(on(q), on(k), on(v), more, 0.3, causal).read()
            worst = max(worst, float(np.abs(got - wanted).max()))
{"worst": worst, "masked": float(np.abs(got[0, :, 0]).max())}
"""


def test_attention_is_that_of_numpy(lab):
    found = lab.run(ATTENTION, kind="cpu")
    assert found["worst"] < 2e-5 and found["masked"] == 0


PAGED = """
from tensorcommons.ops.paging import paged_append, paged_mask, paged_rows

rng = np.random.default_rng(0)
draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
on = lambda array: tc.asarray(array, device=place.device)
lengths, size, same = (70, 37), 16, {}
cases = [(3, 1, 64, 64, 0), (7, 1, 20, 5, 0), (4, 2, 6, 33, 50), (2, 2, 8, 8, 3)]
for heads, shared, width, value_width, window in cases:
    keys, values = (np.full((20, shared, size, n), np.nan, np.float32) for n in (width, value_width))
    pages = rng.permutation(20)[:12].reshape(2, 6)
    whole = np.concatenate([np.int32([[0, length] for length in lengths]), pages], 1, dtype=np.int32)
    q, k, v = draw(2, heads, 70, width), draw(2, shared, 70, width), draw(2, shared, 70, value_width)

    @tc.compile
    def step(q, k, v, keys, values, table):
        keys, values = paged_append(keys, k, table), paged_append(values, v, table)
        mask = paged_mask(table, q.shape[2], size, window)
        found = paged_rows(keys, table), paged_rows(values, table)
        return tc.scaled_dot_product_attention(q, *found, mask), keys, values

    wanted, *_ = await step(*map(on, (q, k, v, keys, values, whole)))
    wanted = await wanted.read()
    kept, got = [on(keys), on(values)], np.zeros_like(wanted)
    for first, last in [(0, 1), (1, 30), (30, 33), (33, 34), (34, 69), (69, 70)]:
        table = whole.copy()
        for row, length in enumerate(lengths):
            table[row, :2] = min(first, length), min(last, length) - min(first, length)
        part, *kept = await step(*(on(x[:, :, first:last]) for x in (q, k, v)), *kept, on(table))
        got[:, :, first:last] = await part.read()
    sizes = [slice(0, length) for length in lengths]
    same[width] = all(np.array_equal(got[i, :, at], wanted[i, :, at]) for i, at in enumerate(sizes))
    reference = tc.ops.registry.OPS["scaled_dot_product_attention"].reference
    for row, length in enumerate(lengths):
        own = np.arange(length)
        seen = (own <= own[:, None]) & ((own > own[:, None] - window) | (not window))
        operands = (x[row : row + 1, :, :length] for x in (q, k, v))
        mask = np.broadcast_to(seen, (1, heads, length, length))
        exact = reference(*operands, mask, scale=width**-0.5, causal=False)
        same[width] = same[width] and bool(np.abs(wanted[row : row + 1, :, :length] - exact).max() < 2e-5)
commands = {work.op.name: command.kernel for program in place.device.programs.values()
            for command in place.device.backend.commands(program.executable.plan) for work in command.work}
{"same": same, "kernels": {name: kernel for name, kernel in commands.items() if "paged" in name}}
"""


def test_attention_in_pages_has_the_bits_of_its_keys_alone(lab):
    """The bits of a token are those of the whole text, in whatever pieces it comes and whatever rows are beside it."""
    found = lab.run(PAGED, kind="cpu")
    assert found["same"] == {"64": True, "20": True, "6": True, "8": True}
    assert found["kernels"] == dict.fromkeys(("paged_append", "paged_attention"), "WebAssembly")


BLOCKS = """
from unittest.mock import patch
from tensorcommons.backends.cpu import record
from tensorcommons.formats import OF_GGUF
from tensorcommons.formats.int8_blocks import int8_blocks
from tensorcommons.ops.quantized import quantized_linear, quantized_rows
from tests.cases.blocks import any_blocks, blocks

rng, errors, taken, kernels = np.random.default_rng(0), {}, {}, set()
on = lambda array: tc.asarray(array, device=place.device)

async def error_of(form, x, words, shape, precision):
    '''The largest error of a product, to the sum of the sizes of its terms; 9 if NaN and infinity are not NumPy's.'''
    wide, bias = form.dense(words, shape).astype(np.float64), np.ones(shape[0], np.float32)
    seen = int8_blocks(x) if precision == "fast" else x
    result = quantized_linear(on(x), on(words), on(bias), block_format=form.name, shape=shape, precision=precision)
    got, wanted, size = await result.read(), seen @ wide.T + bias, np.abs(seen) @ np.abs(wide).T + 1
    for program in place.device.programs.values():
        for command in place.device.backend.commands(program.executable.plan):
            kernels.update((work.op.name, command.kernel) for work in command.work)
    finite = size < 3e38
    same = np.isfinite(got) | ~finite, (np.isnan(got) == np.isnan(wanted)) | np.isfinite(wanted)
    return max(float((np.abs(got - wanted) / size)[finite].max()), 0.0 if np.all(same) else 9.0)

for form in OF_GGUF:
    found, packed = [], lambda raw, shape: np.frombuffer(form.pack(raw[: form.blocks(shape)].tobytes()), np.int8)
    for rows, columns, count in ((1, 5, 1), (2, 67, 3), (3, 33, 2), (4, 35, 2), (131, 3, 1)):
        shape = columns, count * form.size
        x = rng.standard_normal((rows, shape[1])).astype(np.float32)
        for precision in ("exact", "fast"):
            found.append(await error_of(form, x, packed(blocks(form.name), shape), shape, precision))
            with patch.object(record, "MOST", 34 * rows * shape[1]):
                found.append(await error_of(form, x, packed(blocks(form.name), shape), shape, precision))
    shape, ids = (300, form.size), np.array([[3, -1, 299], [0, 300, 7]], np.int32)
    words = packed(any_blocks(form.name), shape)  # some scales are infinite or NaN, and some products overflow
    with np.errstate(all="ignore"):
        for rows in (1, 5):
            x = rng.standard_normal((rows, form.size)) * 10.0 ** rng.integers(-30, 38, (rows, 1))
            for precision in ("exact", "fast"):
                found.append(await error_of(form, x.astype(np.float32), words, shape, precision))
        dense = form.dense(words, shape)
    got = await quantized_rows(on(words), on(ids), block_format=form.name, shape=shape).read()
    wanted = np.where(((ids < 0) | (ids > 299))[..., None], np.float32(np.nan), dense[np.clip(ids, 0, 299)])
    errors[form.name], taken[form.name] = max(found), bool(np.array_equal(got, wanted, equal_nan=True))
{"errors": errors, "taken": taken, "kernels": sorted(kernels)}
"""


def test_weights_of_every_block_format_mean_what_numpy_says(lab):
    found = lab.run(BLOCKS, kind="cpu")
    assert found["kernels"] == [["quantized_linear", "WebAssembly"]]
    assert len(found["errors"]) == 11 and all(error < 1e-6 for error in found["errors"].values()), found["errors"]
    assert all(found["taken"].values()), found["taken"]


EXTREMES = """
one = tc.asarray(np.ones((4, 1), np.float32), device=place.device)
refused = []
for function in (tc.sum, tc.mean):
    for length in (2**31 + 5, 2**32 + 5):
        try:
            await function(tc.broadcast_to(one, (4, length)), 1).read()
        except tc.errors.DeviceMemoryError as error:
            refused.append(str(error))
deep = await tc.silu(tc.asarray(np.float32([-88.74, -91]), device=place.device)).read()
{"refused": refused, "deep": deep.tolist()}
"""


def test_sizes_of_more_than_32_bits_are_refused_and_small_results_kept(lab):
    found = lab.run(EXTREMES, kind="cpu")
    assert len(found["refused"]) == 4 and all("elements does not fit on cpu" in each for each in found["refused"])
    assert found["deep"] == pytest.approx([-88.74 * math.exp(-88.74), -91 * math.exp(-91)], rel=1e-5)


DIVIDED = """
from unittest.mock import patch
from tensorcommons.backends.cpu import record, rows

rng = np.random.default_rng(0)
shapes = [((5003,), 0), ((2, 3001), 1), ((2, 601, 5), 1), ((1001, 2), 0), ((2, 3, 2050), 1), ((3001, 1), 0)]
draw = lambda shape: tc.asarray(rng.standard_normal(shape).astype(np.float32), device=place.device)
values = [(draw(shape), axis) for shape, axis in shapes]
functions = (tc.sum, tc.mean, tc.max, tc.min, tc.argmax, tc.logsumexp)

async def results():
    made = [await function(x, axis=axis).read() for x, axis in values for function in functions]
    codes = [program.executable for program in place.device.programs.values()]
    words = sum(len(code.words) for code in codes)
    for program in place.device.programs.values():
        program.discard()
    place.device.programs.clear()
    return made, words

whole, few = await results()
with patch.object(record, "MOST", 2**13), patch.object(rows, "MOST", 2**13):
    divided, many = await results()
wanted = [getattr(np, name)((await x.read()).astype(np.float64), axis) for x, axis in values
          for name in ("sum", "mean", "max", "min", "argmax")]
apart = [each for at, each in enumerate(whole) if at % 6 < 5]
{"same": all(map(np.array_equal, whole, divided)), "few": few, "many": many,
 "worst": max(float(np.abs(got - want).max()) for got, want in zip(apart, wanted, strict=True))}
"""


def test_reductions_of_long_axes_are_divided_without_changing_their_bits(lab):
    found = lab.run(DIVIDED, kind="cpu")
    assert found["same"] and found["worst"] < 1e-3 and found["many"] > 2 * found["few"]


WRITTEN = """
from unittest.mock import patch
import pyodide_js
from pyodide.code import run_js
from pyodide.ffi import to_js
from tensorcommons.backends.cpu.code import Code, address_of
from tensorcommons.backends.cpu.record import loaded
from tests.cases.fuzz import check, seeded

memory = getattr(pyodide_js._module, "wasmMemory", None) or pyodide_js._module.memory
first_change_outside = run_js('''let before = new Int32Array(0);
(memory, kernels, start, end, ranges) => {
  if (before.byteLength < memory.buffer.byteLength) before = new Int32Array(memory.buffer.byteLength / 4);
  before.set(new Int32Array(memory.buffer));
  const old = new Uint8Array(before.buffer);
  kernels.run(start, end);
  const after = new Int32Array(memory.buffer), bytes = new Uint8Array(memory.buffer);
  for (let i = 0; i < after.length; i++) {
    if (after[i] === before[i]) continue;
    for (let at = 4 * i; at < 4 * i + 4; at++)
      if (bytes[at] !== old[at] && !ranges.some(([start, end]) => at >= start && at < end)) return at;
  }
  return 0;
}''')
link, found = Code.link, []

def watched_link(self, addresses):
    plan = self.plan
    leaves = [0] * plan.leaves  # none is donated, so none is written
    sizes = [plan.arena_bytes, *leaves, *plan.output_bytes, self.scratch_bytes]
    ranges = [[at, at + size] for at, size in zip(addresses, sizes, strict=True)]
    object.__setattr__(self, "ranges", ranges)
    link(self, addresses)

def watched_execute(self, part):
    start = address_of(self.words)
    ranges = to_js(self.ranges)
    found.append(first_change_outside(memory, loaded()[0], start + part.first, start + part.end, ranges))

with patch.object(Code, "link", watched_link), patch.object(Code, "execute", watched_execute):
    for seed in range(seeds):
        await check(place.device, seeded(seed))
[len(found), sum(map(bool, found))]
"""


def test_kernels_write_only_arena_results_and_scratch_memory(lab):
    count, wrong = lab.run(WRITTEN, kind="cpu", seeds=15)
    assert count >= 10 and wrong == 0


CANCELLED = """
import asyncio

x, weight = (tc.asarray(np.ones((size, 2048), np.float32), device=place.device) for size in (2048, 2048))
product = tc.compile(tc.linear)

async def turns_of(rows, most=10**9):
    '''Run a product, and cancel it after ``most`` turns of the event loop; returns the turns and the result.'''
    async def work():
        return await (await product(rows, weight)).read()
    task, turns = asyncio.ensure_future(work()), 0
    while not task.done() and turns < most:
        await asyncio.sleep(0)
        turns += 1
    task.cancel()
    return turns, (await asyncio.gather(task, return_exceptions=True))[0]

small = x[:3]
for rows in (small, x):
    await turns_of(rows)  # compiles
few, _ = await turns_of(small)
many, _ = await turns_of(x)
_, ended = await turns_of(x, few + 1)
_, again = await turns_of(small)
{"few": few, "many": many, "ended": type(ended).__name__, "again": [float(again.min()), float(again.max())]}
"""


def test_a_run_yields_to_the_event_loop_and_is_cancelled(lab):
    found = lab.run(CANCELLED, kind="cpu")
    assert found["many"] > found["few"] + 1, "a long run takes more turns of the event loop than a short one"
    assert found["ended"] == "CancelledError" and found["again"] == [2048, 2048]


PIECES = """
from unittest.mock import patch
from tensorcommons.backends.cpu import code, pieces

draw = np.random.default_rng(0).standard_normal
on = lambda *shape: tc.asarray(draw(shape).astype(np.float32), device=place.device)
x, weight, bias = on(2, 3, 40, 50), on(9, 50), on(9)
half = tc.astype(x, "float16")

def results():
    yield from (tc.sort(x, axis=2), tc.argsort(x), tc.cumulative_sum(x, axis=1), tc.sin(x), tc.pow(tc.abs(x), 1.5))
    yield from (tc.softmax(x, axis=1), tc.sum(x, axis=(0, 2)), tc.gelu(half) * half)
    yield tc.take(x, tc.argmax(x[0, 0, :3], axis=1), axis=3)
    yield from (tc.linear(x, weight, bias), tc.matmul(x, x[:, :1, :1].mT), tc.layer_norm(x, x[0, 0, 0], x[0, 0, 1]))
    yield from (tc.avg_pool2d(x, 2), tc.conv2d(x, x[:1, :, :3, :3]), tc.astype(x * 8, "int32") // 3)
    yield tc.scaled_dot_product_attention(x, x, x, is_causal=True)

async def run(most):
    place.device.free_scratch()
    for program in place.device.programs.values():
        program.discard()
    place.device.programs.clear()
    with patch.object(code, "records_of", lambda step: None), patch.multiple(pieces, FLOPS=8 * most, ELEMENTS=most):
        made = [await result.read() for result in results()]
    return made, sum(len(program.executable.parts) for program in place.device.programs.values())

whole, few = await run(2**30)
divided, many = await run(500)
wrong = [i for i, pair in enumerate(zip(whole, divided, strict=True)) if not np.allclose(*pair, rtol=1e-6, atol=1e-6)]
{"wrong": wrong, "few": few, "many": many}
"""


def test_steps_of_numpy_are_divided_so_that_a_run_can_be_cancelled(lab):
    found = lab.run(PIECES, kind="cpu")
    assert found["wrong"] == [] and found["many"] > 10 * found["few"]


CASES = (
    *params("attention", "rotary", "kv_cache", "paging", "convolution", "chains", "full_range", "fuzz", kind="cpu"),
    *("matmul.linear_residuals_fused_and_not", "matmul.linear_through_views", "matmul.matmul_batches_broadcast"),
    *("matmul.matmul_keeps_nan_and_infinity", "linalg.decompositions", "linalg.decompositions_refuse"),
    *("normalization.layer_norm_keeps_its_digits", "normalization.layer_norm_of_a_sum", "normalization.packed_rows"),
    *("normalization.softmax_of_extreme_values", "normalization.log_softmax_of_extreme_values"),
    *("normalization.embeddings_out_of_the_table_are_nan_in_their_norm", "embedding.ids_outside_the_table_give_nan"),
    *("reduction.nan_and_infinities", "reduction.through_views", "reduction.sums_of_exponentials_that_overflow"),
    *("rewriting.chains_of_elementwise_operations", "rewriting.epilogues_of_products", "rewriting.norms_of_sums"),
    *(
        f"conformance.op_{name}"
        for name in ("argmax", "cast", "concat", "equal", "isnan", "less", "logical_not", "where")
    ),
    *("conformance.op_quantized_linear", "conformance.op_quantized_rows"),
    *("conformance.op_paged_append", "conformance.op_paged_rows", "conformance.op_paged_mask"),
    *("matmul.products_of_one_value_are_one_step", "rewriting.products_of_one_value_side_by_side"),
)


ROWS = """
def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)

def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))

def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

def rms_norm(x):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-5)

def kernels(x):
    ones, zeros = tc.ones(x.shape[-1]), tc.zeros(x.shape[-1])
    return (
        tc.softmax(x), tc.log_softmax(x), tc.layer_norm(x, ones, zeros, eps=1e-5), tc.rms_norm(x, ones, eps=1e-5),
        *(reduce(x, axis=-1) for reduce in (tc.sum, tc.mean, tc.max, tc.min, tc.argmax, tc.argmin, tc.logsumexp)),
    )

def numpys(x):
    largest = x.max(-1, keepdims=True)
    shift = np.where(np.isfinite(largest), largest, 0)
    logs = np.log(np.exp(x - shift).sum(-1)) + shift[..., 0]
    rows = softmax(x), log_softmax(x), layer_norm(x), rms_norm(x)
    return *rows, x.sum(-1), x.mean(-1), x.max(-1), x.min(-1), x.argmax(-1), x.argmin(-1), logs

rng, worst = np.random.default_rng(0), {}
for size in (1, 3, 4, 5, 1000, 49_152, 262_144):
    x = (3 * rng.standard_normal((5, size))).astype(np.float32)
    x[1, -1], x[2, size // 2], x[3, 0] = np.nan, np.inf, -np.inf
    x[4] = -np.inf
    results = kernels(tc.asarray(x, device=place.device))
    with np.errstate(all="ignore"):
        expected = numpys(x.astype(np.float64))
    for number, (result, wanted) in enumerate(zip(await tc.read_together(results), expected)):
        if number == 5 and size == 1: wanted = x[:, 0]
        scale = np.abs(np.nan_to_num(wanted, nan=0, posinf=0, neginf=0)).max() + 1e-3
        apart = np.where(result == wanted, 0, np.abs(result - wanted) / scale)
        apart[np.isnan(result) & np.isnan(wanted)] = 0
        worst[f"{number} of {size}"] = float(np.nan_to_num(apart, nan=9).max())
{name: error for name, error in worst.items() if error > 4e-6}
"""


def test_rows_of_any_length_are_those_of_numpy(lab):
    assert lab.run(ROWS, kind="cpu") == {}


def test_the_device_of_the_cases_has_kernels(lab):
    (kernels,) = lab.run("list(place.device.backend.features)", kind="cpu")
    assert kernels in ("WebAssembly with relaxed SIMD", "WebAssembly with SIMD")


@pytest.mark.parametrize("case", CASES)
def test_cases_of_kernels(lab, case):
    lab.case(case, "cpu")
