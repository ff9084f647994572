"""Accounts: consistent sums, the keys of the earlier API, immutable reports, and subscriptions."""

from __future__ import annotations

import json
import logging

import pytest

import tensorcommons as tc
from tests.sharing.devices import check, empty, manager_on, some

KB = 1024


@pytest.fixture
def manager():
    manager = manager_on("cpu", "webgpu")
    text = some((256,))
    manager.register_shared_tensor("text", (256,), "webgpu", "bert", ["t5", "gpt2"], data=text)
    manager.register_shared_tensor("twin", (256,), "webgpu", "roberta", data=text)
    manager.register_shared_tensor("image", (512,), "cpu", "vit", data=some((512,), seed=1))
    manager.register_shared_tensor("nobody's", (128,), "cpu", data=some((128,), seed=2))
    manager.get_shared_tensor("text", "t5")
    manager.create_tensor_view("text", "half", (0,), (128,), "view-only")
    yield manager
    check(manager)
    empty(manager)


def test_models(manager):
    usage = manager.get_model_memory_usage()
    assert set(usage) == {"bert", "t5", "roberta", "vit", "view-only"}
    for name in ("bert", "t5", "roberta", "view-only"):
        row = usage[name]
        assert (row["total_memory_bytes"], row["exclusive_bytes"], row["shared_bytes"]) == (KB, 0, KB)
        assert row["attributed_bytes"] == KB / 4 and row["total_memory_mb"] == KB / 2**20
    assert usage["vit"]["exclusive_bytes"] == 2 * KB == usage["vit"]["attributed_bytes"]
    assert usage["bert"]["tensors"] == ["text"] and usage["view-only"]["tensors"] == ["half"]
    assert usage["bert"]["tensor_count"] == 1


async def test_evicted_bytes_are_attributed_to_no_model(manager):
    assert await manager.tensors["image"].entry.storage.evict()
    row = manager.get_model_memory_usage()["vit"]
    assert (row["total_memory_bytes"], row["attributed_bytes"]) == (2 * KB, 0)
    report = manager.report()
    held = sum(model.attributed_bytes for model in report.models)
    assert held + report.unheld_bytes == report.by_category["weights"] == KB + KB // 2


def test_tensors(manager):
    usage = manager.get_tensor_memory_usage()
    assert set(usage) == {"text", "twin", "image", "nobody's"}
    row = usage["text"]
    assert row["memory_bytes"] == KB and row["storage_type"] == "webgpu" and row["dtype"] == "float32"
    assert row["producer_model"] == "bert" and row["consumer_models"] == ["bert", "gpt2", "t5"]
    assert row["reference_count"] == 3 and row["same_bytes_as"] == ["twin"]
    assert row["views"] == {"half": {"shape": (128,), "holders": ["view-only"]}}
    json.dumps(usage)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int8", "bool"])
def test_sizes_come_from_dtypes(manager, dtype):
    tensor = manager.register_shared_tensor("sized", (10,), "cpu", dtype=dtype)
    wanted = 10 * tensor.dtype.itemsize
    assert tensor.get_memory_usage() == wanted == manager.get_tensor_memory_usage()["sized"]["memory_bytes"]


def test_stats(manager):
    assert manager.get_shared_tensor("unknown") is None
    stats = manager.get_stats()
    json.dumps(stats)
    assert stats["memory_usage_bytes"] == manager.report().device_bytes == KB + 2 * KB + KB // 2
    assert stats["memory_usage_mb"] == stats["memory_usage_bytes"] / 2**20
    assert (stats["cache_hits"], stats["cache_misses"], stats["hit_rate"]) == (1, 1, 0.5)
    assert set(stats["models"]) == {"bert", "t5", "roberta", "vit", "view-only"} and stats["total_models"] == 5
    assert {"total_tensors", "sharing_opportunities", "max_memory_mb", "evictions", "restores", "last_run"} <= set(
        stats
    )


def test_optimize(manager):
    answer = manager.optimize_memory_usage()
    assert answer == {
        "initial_memory_bytes": 3 * KB + KB // 2,
        "current_memory_bytes": 3 * KB,
        "freed_memory_bytes": KB // 2,
        "freed_tensors": ["nobody's"],
        "freed_tensors_count": 1,
        "memory_reduction_percent": pytest.approx(100 / 7),
        "remaining_tensor_count": 3,
    }
    assert manager.optimize_memory_usage()["memory_reduction_percent"] == 0
    assert manager_on("cpu").optimize_memory_usage()["memory_reduction_percent"] == 0


def test_recommendations(manager):
    found = manager.get_optimization_recommendations()
    json.dumps(found)
    assert found["largest_tensors"][0] == {"name": "image", "memory_mb": 2 * KB / 2**20, "holders": ["vit"]}
    assert [row["name"] for row in found["low_reference_tensors"]] == ["image", "twin", "nobody's"]
    assert found["potential_savings_mb"] == KB / 2 / 2**20
    assert found["cache_efficiency"]["hit_rate"] == 1 and "sharing_opportunities" in found


def test_a_report_is_immutable(manager):
    report = manager.report()
    kept = json.dumps(report.to_dict())
    with pytest.raises(AttributeError):
        report.device_bytes = 0
    with pytest.raises(TypeError):
        report.by_category["weights"] = 0
    manager.release_model_tensors("bert")
    manager.register_shared_tensor("more", (4,), "cpu", "m")
    assert json.dumps(report.to_dict()) == kept and manager.report() != report
    copy = report.to_dict()
    copy["by_category"]["weights"] = copy["tensors"][0]["name"] = -1
    assert json.dumps(report.to_dict()) == kept
    assert report.saved_bytes == report.separate_weight_bytes - report.unique_weight_bytes == 3 * KB


async def test_every_change_is_reported_once_it_is_complete(manager):
    told = []

    def hear(report):
        check(manager)
        told.append(report)

    end = manager.subscribe(hear)
    text = manager.tensors["text"]
    for change in (
        lambda: manager.register_shared_tensor("x", (4,), "cpu", "m"),
        lambda: manager.get_shared_tensor("text", "gpt2"),
        lambda: manager.share_tensor_between_models("text", "bert", ["whisper"]),
        lambda: manager.create_tensor_view("text", "w", (0,), (1,), "m"),
        lambda: text.release("gpt2"),
        text.pin,
        text.unpin,
        lambda: manager.release_model_tensors("m"),
        manager.optimize_memory_usage,
    ):
        before = len(told)
        change()
        assert len(told) > before and told[-1] == manager.report()
    for change in (
        lambda: text.write(some((256,), seed=7)),
        lambda: text.views["half"].write(some((128,), seed=8)),
        lambda: text.copy_to("cpu"),
        lambda: manager.make_room(63 * 2**20),
        text.read,
        lambda: manager.set_memory_limit(4),
    ):
        before = len(told)
        await change()
        if before == len(told):
            assert change == text.read and text.entry.storage.is_resident
        assert told[-1].tensors == manager.report().tensors and told[-1].models == manager.report().models
    before = len(told)
    assert not text.release("nobody") and manager.get_shared_tensor("text") is text
    assert len(told) == before, "a call without an effect was reported"
    end()
    end()
    manager.optimize_memory_usage()
    assert len(told) == before


def test_a_subscriber_may_fail_or_change_tensors(manager, caplog):
    told: list[tc.MemoryReport] = []
    later: list[tc.MemoryReport] = []

    def fail(report):
        raise ValueError("a chart broke")

    def change(report):
        told.append(report)
        if "from a callback" not in manager.tensors:
            manager.register_shared_tensor("from a callback", (4,))

    ends = [manager.subscribe(each) for each in (fail, change, later.append)]
    with caplog.at_level(logging.ERROR):
        manager.register_shared_tensor("x", (4,))
    assert "a chart broke" in caplog.text and "x" in manager.tensors
    assert told == later and told[-1] == manager.report() and len(told) == 2, (
        "subscribers must receive reports in the same order"
    )
    for end in ends:
        end()
