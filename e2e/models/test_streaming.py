"""Models larger than the limit in a real browser, whose weights are streamed from its storage."""

from __future__ import annotations

import pytest

STREAM = """
import time
root = place.models.removesuffix("/models")
inputs = {"input_ids": np.arange(100, 132)[None]}
runs, wanted = [], None
for limit in limits:
    m = place.manager(limit, activation_cache=False)
    started = time.perf_counter()
    model = await tc.from_pretrained(f"{root}/random/{recipe}", manager=m, device=place.device, tokenizer=False)
    loaded = time.perf_counter() - started
    for _ in range(count):
        started = time.perf_counter()
        hidden = await (await model(**inputs, outputs=["last_hidden_state"]))["last_hidden_state"].read()
        seconds = time.perf_counter() - started
        wanted = hidden.tobytes() if wanted is None else wanted
        run, report = m.last_run, m.report()
        runs.append({
            "limit": limit, "same": hidden.tobytes() == wanted, "load_s": round(loaded, 2), "s": round(seconds, 2),
            "segments": run["segments"], "moved": run["moved_bytes"], "stays": run["resident_bytes"],
            "peak": report.peak_bytes, "weights": report.unique_weight_bytes,
            "kept": sum(e.storage.nbytes for e in m.registry if e.storage.host_copy is not None),
        })
    plan = tc.explain_plan(model, inputs)
    model.unload()
    m.close()
[runs, plan]
"""
SMALL = "bert-base,layers=3,vocab_size=6000"


@pytest.mark.parametrize("kind", ["webgpu", "webnn"])
def test_a_model_larger_than_the_limit_gives_the_bits_of_one_that_fits(lab, kind):
    (free, *streamed), plan = lab.run(STREAM, kind=kind, recipe=SMALL, limits=[1024, 60], count=1)
    assert free["segments"] == free["moved"] == 0
    for run in streamed:
        assert run["same"] and run["segments"] > 1 and run["kept"] == 0
        assert run["peak"] <= 60 * 2**20 and run["weights"] - 60 * 2**20 < run["moved"] < run["weights"]
    assert "come and go in" in plan


@pytest.mark.long
@pytest.mark.parametrize("kind", ["webgpu", "webnn"])
def test_bert_base_runs_under_a_half_and_a_quarter(lab, kind):
    runs, plan = lab.run(STREAM, kind=kind, recipe="bert-base", limits=[1024, 200, 110], count=2)
    for run in runs:
        print(run)
        assert run["same"] and run["peak"] <= run["limit"] * 2**20
    print(plan)
