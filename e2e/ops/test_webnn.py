"""Cases of every op on the browser's WebNN. Refused ops run on NumPy, and are listed with their reasons."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from scripts import paths
from scripts.browser import find_browser
from tests.cases import OPS
from tests.cases.marked import params


@pytest.mark.parametrize("case", params(*OPS, kind="webnn"))
def test_on_webnn(lab, case):
    lab.case(case, "webnn")


def test_the_limits_in_the_docs_are_those_of_this_browser(lab):
    if not find_browser().path.is_relative_to(paths.CHROMIUM):
        pytest.skip("docs/ops.md describes the npm Chromium, and this is another browser")
    known = json.loads((paths.ROOT / "tests" / "goldens" / "webnn_limits.json").read_text("utf-8"))
    found = lab.run("place.device.backend.op_limits", kind="webnn")
    assert found == known, "write the browser's limits to tests/goldens/webnn_limits.json, then update docs/ops.md"
    assert lab.run("place.device.backend.no_constant_tensors", kind="webnn") == (
        "Failed to execute 'createConstantTensor' on 'MLContext': Constant tensors are not supported."
    ), "docs/webnn.md differs: measure again with make bench ARGS=weights"


CROSSING = """
devices = await tc.open_devices()
m = tc.TensorSharingManager(16, devices=devices)
values = np.arange(12, dtype=np.float32).reshape(3, 4)
found = {"why": devices.webnn.not_lent, "right": []}
for kind, other in (("webnn", "webgpu"), ("webgpu", "webnn")):
    shared = m.register_shared_tensor(kind, values.shape, kind, "a", data=values)
    copy = await shared.copy_to(other, name="to " + other)
    moved = await shared.tensor.to(copy.tensor.device)
    found["right"].append(bool((await copy.read() == values).all() and (await moved.read() == values).all()))
    await shared.write(values + 1)  # it is not lent any more
    found["right"].append(bool((await shared.read() == values + 1).all()))
found["crossed"] = m.get_stats()["crossed_bytes"]
found["lost"] = [devices.webnn.backend.is_lost, devices.webgpu.backend.is_lost]
devices.close()
found
"""


def test_without_lending_of_tensors_bytes_are_copied_through_the_host(lab):
    found = lab.run(CROSSING, kind="webnn")
    assert found["right"] == [True] * 4 and found["lost"] == [False, False]
    if found["why"]:  # this browser raises "Context is lost"; one that can lend does not
        assert found["crossed"] == {"rented": 0, "host": 4 * 48}
    else:
        assert found["crossed"] == {"rented": 4 * 48, "host": 0}


@pytest.fixture
def stand_in(lab):
    """Emulate an API that no browser here has, for a number of loans; gives their counter."""
    code = (Path(__file__).parent / "exportable.js").read_text("utf-8")
    switch = partial(lab.run, "from pyodide.code import run_js; run_js(code)(*given)", kind="webnn", code=code)
    answers: list[str] = []

    def off():
        if not answers:
            answers.append(switch(given=[False]))
        return json.loads(answers[0])

    yield lambda *most: switch(given=[True, *most]), off
    off()


@pytest.mark.parametrize("most", [None, 1])  # tensors and buffers are real, the loan is emulated
def test_lent_tensors_are_used_and_failed_loans_are_copied_through_the_host(lab, stand_in, most):
    on, off = stand_in
    on(*([most] if most else []))
    found = lab.run(CROSSING, kind="webnn")
    assert found["right"] == [True] * 4 and found["lost"] == [False, False]
    if most:  # for the first attempt
        assert found["crossed"] == {"rented": 0, "host": 4 * 48}
    else:
        assert found["why"] == "" and found["crossed"] == {"rented": 4 * 48, "host": 0}
        assert off() == {"made": 5, "given_back": 5}  # the first attempt


def test_tensors_are_lent_to_the_webgpu_device_that_replaces_a_lost_one(lab, stand_in):
    on, _ = stand_in
    on()
    found = lab.run(
        """
devices = await tc.open_devices()
values = np.arange(12, dtype=np.float32)
older = tc.asarray(values, device=devices.webnn)
await older.read()
await devices.webgpu.recover()
newer = await tc.asarray(values, device=devices.webnn).realize()
copies = [await each.to(devices.webgpu) for each in (older, newer)]
right = [bool((await each.read() == values).all()) for each in (*copies, older, newer)]
found = {"why": devices.webnn.not_lent, "right": right, "crossed": dict(devices.webgpu.crossings)}
devices.close()
found
""",
        kind="webnn",
    )
    assert found == {"why": "", "right": [True] * 4, "crossed": {"rented": 2 * 48, "host": 0}}


def test_reads_wait_side_by_side_and_block_after_an_awaited_one(lab):
    found = lab.run(
        """
x = tc.asarray(np.arange(6, dtype=np.float32), device=place.device)
ys = [tc.add(x, float(n)) for n in range(8)]
together = await asyncio.gather(*(y.read() for y in ys))
waiting = asyncio.ensure_future(tc.exp(x).read())
await asyncio.sleep(0)
waiting.cancel()  # the read is under way
cancelled = (await asyncio.gather(waiting, return_exceptions=True))[0]
after = await tc.negative(x).read()
blocking = tc.negative(x).numpy() if "Suspending" in dir(__import__("js").WebAssembly) else after
[[float(y[0]) for y in together], type(cancelled).__name__, after.tolist(), blocking.tolist()]
""",
        kind="webnn",
    )
    assert found == [list(range(8)), "CancelledError", [0, -1, -2, -3, -4, -5], [0, -1, -2, -3, -4, -5]]


def test_a_build_reports_its_graphs_and_keeps_nothing_if_cancelled(lab):
    found = lab.run(
        """
events, device = [], place.device
rng = np.random.default_rng(0)
w = tc.asarray(rng.standard_normal((512, 512), np.float32) / 23, device=device)
x = tc.asarray(rng.standard_normal((256, 512), np.float32), device=device)
cores, device.backend.cores = device.backend.cores, 2
network = tc.compile(lambda x, w: tc.linear(tc.softmax(tc.linear(x, w)), w))
task = None
def stop(event):
    events.append(event)
    if event["done"] == 1:
        task.cancel()
place.devices.on_build(stop)
before = device.memory()["scratch"]
task = asyncio.ensure_future(network(x, w))
cancelled = False
try:
    await task
except asyncio.CancelledError:
    cancelled = True
scratch = device.memory()["scratch"]
stopped, events[:] = events[:], []
place.devices.on_build(events.append)
y = await network(x, w)
got = await y.read()
place.devices.on_build(None)
device.backend.cores = cores
a, b = await x.read(), await w.read()
e = np.exp((a @ b.T) - (a @ b.T).max(-1, keepdims=True))
right = bool(np.allclose(got, (e / e.sum(-1, keepdims=True)) @ b.T, atol=1e-4))
for tensor in (x, w, y):
    tensor.release()
{"cancelled": cancelled, "stopped": stopped, "events": events, "right": right, "left": scratch - before}
""",
        kind="webnn",
    )
    total = found["events"][0]["total"]
    assert found["cancelled"] and found["stopped"][-1]["done"] == 1 < total and found["left"] == 0
    wanted = [{"status": "build", "device": "webnn", "done": i, "total": total} for i in range(total + 1)]
    assert found["events"] == wanted and found["right"]


REPLAYS = """
bridge, at_once = place.device.backend.bridge, []
run = bridge.run
def counted(*given):
    queued = run(*given)
    at_once.append(queued is None)
    return queued
x = tc.asarray(np.arange(6, dtype=np.float32), device=place.device)
call = tc.compile(lambda x: tc.abs(x - 3) * 2)
results, spare = [], []
bridge.run = counted
try:
    for _ in range(4):
        y = await call(x)
        results.append((await y.read()).tolist())
        del y
        spare.append(place.device.output_pool.nbytes)
finally:
    del bridge.run
x.release()
{"at_once": at_once, "results": results, "spare": spare}
"""


def test_a_replayed_run_is_queued_at_once_and_reuses_an_output(lab):
    found = lab.run(REPLAYS, kind="webnn")
    assert found["at_once"] == [False, False, True, True], "from the third run on nothing may be created"
    assert found["spare"] == [0, 24, 24, 24]
    assert found["results"] == [[6, 4, 2, 0, 2, 4]] * 4


PACKED = """
device, m = place.device, tc.TensorSharingManager(64, devices=place.devices)
rng = np.random.default_rng(0)
rows = [rng.standard_normal(5, np.float32) for _ in range(20)]
network = tc.compile(lambda x, ws: functools.reduce(lambda y, w: tc.sin(y * w + w), ws, x))
x = np.ones((3, 5), np.float32)

def expected(ws):
    return functools.reduce(lambda y, w: np.sin(y * w + w), ws, x)

async def error(ws, values):
    y = await network(tc.asarray(x, device=device), ws)
    return float(abs(await y.read() - expected(values)).max())

shared = m.register_shared_tensor("w", (5,), "webnn", "a", data=rows[7])
first = [tc.asarray(row, device=device) for row in rows]
first[7] = shared.tensor
second = [tc.asarray(2 * row, device=device) for row in rows]
found = [await error(first, rows) for _ in range(4)]
found += [await error(second, [2 * row for row in rows]), await error(first, rows)]
await shared.write(rows[3])
first[7], rows[7] = shared.tensor, rows[3]
found += [await error(first, rows), await error(first, rows)]
made = await (tc.asarray(rows[1], device=device) * 3).realize()  # a new tensor, where one of the program's results was
first[1], rows[1] = made, 3 * rows[1]
found += [await error(first, rows), await error(first, rows)]
m.close()
found
"""


def test_small_leaves_are_packed_again_where_they_changed(lab):
    found = lab.run("import functools\n" + PACKED, kind="webnn")
    assert len(found) == 10 and max(found) < 1e-5, found
