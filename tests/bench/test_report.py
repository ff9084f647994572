"""The report of the benchmarks: medians, ratios to the best peer, and a row for every contestant."""

from __future__ import annotations

import json

import pytest

from bench.report import Figure, Row, from_json, merge, table, to_json


def row(name, device, samples, amount=8e9, **rest):
    return Row(name, "1.0", device, amount=amount, samples_ms=samples, **rest)


@pytest.fixture
def figure():
    return Figure(
        *("bandwidth", "softmax over 64 MiB", 4, "byte"),
        [
            row("tensorcommons", "webgpu", [2.0, 4.0, 3.0], ready_ms=1234.0, device_bytes=2_000_000),
            row("Slow", "webgpu", [9.0, 12.0, 9.0]),
            row("Quick", "webgpu", [6.0, 6.0]),
            row("Wasm", "wasm", [1.5]),
            row("Broken", "webgpu", [], error="TypeError: no such op"),
            row("device copy", "ceiling", [1.0], amount=4e9),
        ],
    )


def test_ratios_are_to_the_best_webgpu_peer_and_to_the_best_of_all(figure):
    assert [(ratio, peer.name) for ratio, peer in figure.ratios()] == [(2.0, "Quick"), (0.5, "Wasm")]


def test_the_best_of_all_is_named_once():
    figure = Figure("g", "w", 1, "ms", [row("tensorcommons", "webgpu", [2.0]), row("Peer", "webgpu", [3.0])])
    assert [peer.name for _, peer in figure.ratios()] == ["Peer"]


def test_there_is_no_ratio_without_our_samples():
    assert (
        Figure(
            "g", "w", 1, "ms", [row("tensorcommons", "webgpu", [], error="lost"), row("P", "webgpu", [1.0])]
        ).ratios()
        == []
    )


def test_our_other_variants_are_compared_but_do_not_count_as_peers():
    figure = Figure("g", "w", 1, "ms", [row("tensorcommons", "webgpu", [2.0]), row("alone", "part", [1.6])])
    assert figure.ratios() == [] and [(ratio, part.name) for ratio, part in figure.parts()] == [(1.25, "alone")]
    assert "  1.25 × the time of alone" in table([figure])


def test_the_table_has_the_ratio_first_then_every_contestant(figure):
    lines = table([figure]).splitlines()
    assert lines[0] == "softmax over 64 MiB; ms of one in a chain of 4"
    assert lines[1] == "  2.00 × the best WebGPU peer, Quick (1.58 × at the 90th percentile)"
    assert lines[2] == "  0.50 × the best peer of any kind, Wasm (0.39 × at the 90th percentile)"
    ours = lines[3]
    assert "tensorcommons 1.0" in ours and "0.750  (0.500 to 1.00, 90 % to 0.950, n=3)" in ours
    assert "2,666.7 GB/s" in ours and "67% of the copy" in ours and "ready in 1,234, 2.0 MB" in ours
    assert any("Broken" in line and "failed: TypeError: no such op" in line for line in lines)


def test_a_busy_processor_is_reported(figure):
    figure.loop_ms = [4.0, 9.0, 4.5]
    assert "  the processor: 4.50 (4.00 to 9.00) for 1,000,000 additions in Python" in table([figure])


def test_json_round_trip(figure):
    data = json.loads(json.dumps(to_json([figure])))
    assert data[0]["ratios"][0] == {"ratio": 2.0, "peer": "Quick"}
    assert from_json(data) == [figure]


def test_the_samples_of_merged_processes_are_their_medians():
    def process(ours, peer, error=""):
        rows = [row("tensorcommons", "webgpu", ours, extra={"of": f"{ours[0]}"}), row("P", "webgpu", peer, error=error)]
        return [Figure("g", "w", 1, "ms", rows, loop_ms=[ours[0]], floors={"webgpu": ours[0] / 2})]

    (merged,) = merge([process([1.0, 3.0], [9.0]), process([5.0, 5.0], [8.0]), process([4.0], [], "lost")])
    ours, peer = merged.rows
    assert ours.samples_ms == [2.0, 5.0, 4.0] and ours.extra == {"of": "1.0; 5.0; 4.0"} and not ours.error
    assert peer.samples_ms == [9.0, 8.0] and peer.error == "lost (1 of 3 processes)"
    assert merged.loop_ms == [1.0, 5.0, 4.0] and merged.floors == {"webgpu": 2.0}


def test_a_contestant_that_failed_in_every_process_has_its_error_once():
    failed = [Figure("g", "w", 1, "ms", [row("P", "webgpu", [], error="no adapter")])]
    (merged,) = merge([failed, failed])
    assert merged.rows[0].error == "no adapter" and not merged.rows[0].samples_ms
