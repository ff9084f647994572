"""Products on the CPU device in the browser, by kernels of WebAssembly: against NumPy, and the cases of products."""

from __future__ import annotations

import pytest

from tests.cases.marked import params

PRODUCTS = """
from tensorcommons.backends.cpu.kernels import kernel_of, loaded
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
    for got, wanted in pairs:
        worst = max(worst, float(np.abs(await got.read() - wanted).max()))
odd = np.float32([[np.nan, 1], [np.inf, 1], [-np.inf, 1], [1, np.inf]])
got = await tc.linear(tc.asarray(odd, device=here), tc.asarray(np.float32([[1, 0], [1, 1]]), device=here)).read()
with np.errstate(all="ignore"):
    wanted = odd @ np.float32([[1, 0], [1, 1]]).T
{"worst": worst, "odd": bool(np.array_equal(got, wanted, equal_nan=True)), "features": list(here.backend.features)}
"""


def test_products_are_those_of_numpy(lab):
    found = lab.run(PRODUCTS, kind="cpu")
    assert found["features"] in (["WebAssembly with relaxed SIMD"], ["WebAssembly with SIMD"])
    assert found["worst"] < 2e-5 and found["odd"]


@pytest.mark.parametrize("case", params("matmul", kind="cpu"))
def test_cases_of_products(lab, case):
    lab.case(case, "cpu")
