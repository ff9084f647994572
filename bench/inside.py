"""The part of a session that runs in Pyodide, in a page or in Node: opens the contestants and runs a group of work.

JavaScript calls :func:`run` and gets JSON. One group is one session, so that faults and leaks of a contestant end
with it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tensorcommons as tc
from bench import contest, workloads
from bench.buckets import buckets_table, measure_buckets
from bench.ours import ALONE, CACHED, ONE_BY_ONE, Ours, host_times
from bench.rates import measure_rates, rates_table
from bench.report import Figure, Row, table, to_json
from bench.workloads import Work


class Peer:
    """A contestant of bench/peers, called through its proxy."""

    def __init__(self, proxy: Any, bytes_of: Callable[[], int]) -> None:
        self._proxy = proxy
        self.name: str = proxy.name
        self.device: str = proxy.device
        self.takes: str = proxy.takes
        self.groups: list[str] = proxy.groups.split()  # all if empty
        self.version = ""
        self.device_bytes = bytes_of
        self._refused: Exception | None = None

    async def open(self) -> None:
        """Start the peer. If that fails, every piece of work reports the error."""
        try:
            self.version = await self._proxy.open()
        except Exception as error:
            self._refused = error

    def refuse(self, reason: str) -> None:
        """Report ``reason`` for every piece of work."""
        self._refused = contest.NotRunError(reason)

    def does(self, work: Work) -> bool:
        """Return True if the peer takes part in ``work``."""
        reads = work.takes_arrays or self.takes != "arrays"
        return work.has_peers and reads and (not self.groups or work.group in self.groups)

    async def prepare(self, work: Work) -> Any:
        if self._refused is not None:
            raise self._refused
        if self.takes == "onnx":
            assert work.model is not None
            built = work.model()
            model = [_to_js(file) for file in built] if isinstance(built, list) else _to_js(built)
            data = {"model": model, "feeds": {name: _array(work.arrays[name]) for name in work.feeds}}
        else:
            data = {name: _array(array) for name, array in work.arrays.items()}
        return PeerRun(await self._proxy.prepare(work.kind, _object(dict(work.params)), _object(data)))


class PeerRun:
    """Prepared work of a peer."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy

    async def sample(self) -> float:
        return float(await self._proxy.sample())

    def result(self) -> Any:
        return np.frombuffer(self._proxy.result().to_bytes(), np.float32)

    async def close(self) -> None:
        ended = self._proxy.close()
        if hasattr(ended, "then"):
            await ended


def _to_js(data: Any) -> Any:
    from pyodide.ffi import to_js

    return to_js(memoryview(data))


def _array(array: Any) -> Any:
    return _object({"data": _to_js(np.ascontiguousarray(array).reshape(-1)), "shape": list(array.shape)})


def _object(values: Mapping[str, Any]) -> Any:
    from js import Object
    from pyodide.ffi import to_js

    return to_js(values, dict_converter=Object.fromEntries)


async def run(session: Any, group: str, options: str) -> str:
    """Run one group. ``options`` is JSON: ``models`` (folders by name; missing ones are made at random), ``rounds``,
    ``cap_s``, ``warm_ms``, ``only`` (contestants, all if empty), ``match`` (part of the names of the work to do),
    ``profile`` (true: no contest, but a profile of each of our runs), and
    ``size`` of the work ("gpu" or "software", for the adapter if not given).

    Gives JSON: the device, the figures, their table.
    """
    given = json.loads(options)
    session.own("tensorcommons")
    devices = await tc.open_devices(("webgpu", "webnn", "cpu"))
    gpu = devices.webgpu
    is_software = gpu is None or gpu.is_software
    software = given.get("size", "software" if is_software else "gpu") == "software"
    folders = {name: Path(folder) for name, folder in given.get("models", {}).items()}
    result: dict[str, Any] = {"device": devices.opened[0].name, "is_software": is_software, "group": group}
    rules = contest.Rules(
        given.get("rounds", 7 if software else 15),
        given.get("cap_s", 10),
        warm_ms=given.get("warm_ms", 0 if software else 100),
    )
    if group == "rates":
        rates = await measure_rates(devices, max(rules.rounds, 40))
        devices.close()
        return json.dumps({**result, "rates": rates, "table": rates_table(rates)})
    if group == "buckets":
        times = await measure_buckets(devices, _minilm(folders), 5, given.get("only", ()))
        devices.close()
        return json.dumps({**result, "buckets": times, "table": buckets_table(times)})
    if group == "host":
        figures = await _host(devices, folders, rules)
    else:
        bytes_of = partial(session.bytesOf, "tensorcommons")
        modes = ("", ONE_BY_ONE, CACHED, ALONE) if group == "heads" else ("",)
        contestants: list[contest.Contestant] = [Ours(gpu, devices, bytes_of, mode) for mode in modes] if gpu else []
        if devices.webnn is not None:
            webnn = devices.webnn
            contestants += [Ours(webnn, devices, lambda: webnn.total, mode) for mode in modes]
        cpu = devices.cpu
        if cpu is not None and ((software and group != "load") or gpu is None or given.get("only")):
            contestants.append(Ours(cpu, devices, lambda: cpu.total))
        ours = [each for each in contestants if each.name in given.get("only", ())]
        if given.get("only"):  # only peers are named beside ours on WebGPU
            contestants = ours or contestants[:1]
        for proxy in () if given.get("profile") else session.contestants:
            if given.get("only") and proxy.name not in given["only"]:
                continue
            peer = Peer(proxy, partial(session.bytesOf, proxy.name))
            if peer.device in ("wasm", "cpu") and not software and not given.get("only"):
                peer.refuse('the large sizes take minutes on the CPU; name it in "only" to have it')
            else:
                await peer.open()
            contestants.append(peer)
        if given.get("profile"):
            works = _works(group, software, folders, given.get("url", ""))
            chosen = [work for work in works if given.get("match", "") in work.name]
            profiles = [
                (f"{each.name}, {work.name}", await _profiled(each, work))
                for work in chosen
                for each in ours_of(contestants)
            ]
            devices.close()
            shown = "\n\n".join(f"{name}\n{text}" for name, text in profiles)
            return json.dumps({**result, "profiles": dict(profiles), "table": shown})
        figures, paces = [], dict[str, float]()
        for work in _works(group, software, folders, given.get("url", "")):
            if given.get("match", "") not in work.name:
                continue
            print(work.name)
            named = [each for each in contestants if not isinstance(each, Peer) or each.does(work)]
            figures.append(await contest.measure(named, work, rules, paces, print))
    devices.close()
    result["figures"] = to_json(figures)
    result["table"] = table(figures)
    return json.dumps(result)


def ours_of(contestants: Sequence[contest.Contestant]) -> list[Ours]:
    """Select the contestants that can be profiled."""
    return [each for each in contestants if isinstance(each, Ours)]


async def _profiled(ours: Ours, work: Work) -> str:
    """Profile one sample of ``work``, after one that compiles. Returns the text of the profile or of the error."""
    try:
        prepared = await ours.prepare(work)
        try:
            await prepared.sample()
            async with tc.profile() as profile:
                await prepared.sample()
            return profile.table()
        finally:
            await prepared.close()
    except Exception as error:
        return contest.describe(error)


def _works(group: str, software: bool, folders: dict[str, Path], url: str) -> Iterator[Work]:
    """Return the work of the group. Encoders without a folder get random weights."""
    if group == "load":
        return workloads.loads(url)
    if group == "sentences":
        return workloads.sentences(folders["MiniLM"])
    if group == "matmul":
        return workloads.matmuls(software)
    if group == "bandwidth":
        return workloads.bandwidth(software)
    if group == "encoder":
        for name, sizes in (("MiniLM", workloads.MINILM), ("BERT-base", workloads.BERT_BASE)):
            if name not in folders and not (software and name == "BERT-base"):
                folders[name] = Path(tempfile.mkdtemp()) / name
                workloads.write_encoder(folders[name], sizes)
        return workloads.encoders(software, folders)
    place = Path(tempfile.mkdtemp())
    if group == "generate":
        folders = {name: place / name for name in workloads.DECODERS}
        for name, folder in folders.items():
            workloads.write_random(folder, workloads.DECODERS[name], 0.08)  # a smaller one gives equal tokens
        return workloads.generations(software, folders)
    if group == "images":
        workloads.write_random(place, workloads.DINOV2)
        return workloads.images(software, place)
    workloads.write_encoder(place / "MiniLM", workloads.MINILM)
    workloads.write_heads(place, "MiniLM", workloads.MINILM["hidden_size"])
    return workloads.heads(software, {"MiniLM": place / "MiniLM"})


def _minilm(folders: dict[str, Path]) -> Path:
    """Return the folder of MiniLM, with random weights if there is none."""
    if "MiniLM" in folders:
        return folders["MiniLM"]
    folder = Path(tempfile.mkdtemp()) / "MiniLM"
    workloads.write_encoder(folder, workloads.MINILM)
    return folder


async def _host(devices: tc.Devices, folders: dict[str, Path], rules: contest.Rules) -> list[Figure]:
    """Measure the cost of a replayed forward in Python."""
    folder = _minilm(folders)
    figures = []
    for length in (16, 128):
        found = await host_times(devices, folder, length, rules)
        calls = {"calls into JavaScript": found["calls"]}
        for name, samples in (("Python", found["python_ms"]), ("call to submitted", found["submit_ms"])):
            row = Row("tensorcommons", tc.__version__, "webgpu", samples_ms=samples, extra=calls)
            figures.append(Figure("host", f"{name}, a replayed forward of MiniLM 1 × {length}", 1, "ms", [row]))
    return figures
