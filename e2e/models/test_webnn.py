"""Cases of models on the browser's WebNN."""

from __future__ import annotations

import pytest

from tests.cases import MODELS
from tests.cases.marked import params


@pytest.mark.parametrize("case", params(*MODELS, kind="webnn"))
def test_on_webnn(lab, case):
    lab.case(case, "webnn")


def test_a_lost_context_is_opened_again_and_its_weights_are_restored(lab):
    same, losses = lab.run(
        """
m = place.manager(512, activation_cache=False)
device = place.device
model = await tc.from_pretrained(place.tiny + "/tiny-bert", manager=m)
ids = np.array([[1, 2, 3, 4]], np.int32)
inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
before, losses = await (await model(**inputs))["last_hidden_state"].read(), device.losses
device.backend.bridge.proxy.context.destroy()
after = await (await model(**inputs))["last_hidden_state"].read()
model.unload()
[bool((before == after).all()), device.losses - losses]
""",
        kind="webnn",
    )
    assert (same, losses) == (True, 1)


def test_a_model_runs_in_parts_with_their_devices_and_reasons(lab):
    run = lab.run(
        """
x = tc.asarray(np.arange(12, dtype=np.float32).reshape(3, 4), device=place.device)
y = tc.sort(tc.exp(x), descending=True)
got = await y.read()
program = next(p for p in place.device.programs.values() if hasattr(p, "parts"))
right = bool((np.diff(got) <= 0).all())
found = {"parts": program.devices, "why": program.why, "moved": program.traffic.transferred, "right": right}
x.release(), y.release()
found
""",
        kind="webnn",
    )
    assert run["right"] and {part["device"] for part in run["parts"]} <= {"webnn", "cpu"}
    assert run["why"] == {"leaders": "WebNN has no sorting"} and run["moved"] > 0
