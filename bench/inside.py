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
from bench import adapters, contest, decoders, onnx, quantized, workloads
from bench.buckets import buckets_table, measure_buckets
from bench.ours import ALONE, CACHED, CHOOSING, ONE_BY_ONE, Ours, host_times
from bench.rates import measure_rates, rates_table
from bench.report import Figure, Row, compare, from_json, merge, table, to_json
from bench.workloads import Work
from tensorcommons.graph.speed import measure as measure_speed

#: Our other variants by group.
MODES = {
    "heads": (ONE_BY_ONE, CACHED, ALONE),
    "generate": (decoders.GREEDY, decoders.COLD),
    "adapters": (adapters.BASE,),
}


class Peer:
    """A contestant of bench/peers, called through its proxy. ``is_named``: it is to run whatever it takes."""

    def __init__(self, proxy: Any, bytes_of: Callable[[], int], *, is_named: bool) -> None:
        self._proxy = proxy
        self._is_named = is_named
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
        if work.params.get("half") and self.device != "webgpu" and not self._is_named:
            raise contest.NotRunError('its kernels compute in float32 without WebGPU; name it in "only" to have it')
        if self.takes == "onnx":
            data = {**_onnx_of(work), "feeds": {name: _array(work.arrays[name]) for name in work.feeds}}
        else:
            data = {name: _array(array) for name, array in work.arrays.items()}
        return PeerRun(await self._proxy.prepare(work.kind, _object(dict(work.params)), _object(data)))


class PeerRun:
    """Prepared work of a peer."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        settings = getattr(proxy, "settings", "")
        self.extra: dict[str, Any] = {"settings": settings} if settings else {}

    async def sample(self) -> float:
        return float(await self._proxy.sample())

    def result(self) -> Any:
        return np.frombuffer(self._proxy.result().to_bytes(), np.float32)

    async def close(self) -> None:
        ended = self._proxy.close()
        if hasattr(ended, "then"):
            await ended


#: The ONNX files in JavaScript of the work before, by group and folder: rows of one model make them once.
_made: dict[tuple[str, str], dict[str, Any]] = {}


def _onnx_of(work: Work) -> dict[str, Any]:
    """Return the ONNX file(s) ``model`` of ``work``, and the file of their ``constants`` or None."""
    key = work.group, work.folder
    if work.group == "generate" and key in _made:
        return _made[key]
    assert work.model is not None
    built, constants = work.model(), None
    if isinstance(built, onnx.Model):
        _made.clear()
        constants = _joined(built.constants) if built.constants else None
        _made[key] = {"model": _joined(built.graph), "constants": constants}
        return _made[key]
    model = [_to_js(file) for file in built] if isinstance(built, list) else _to_js(built)
    return {"model": model, "constants": None}


def _joined(pieces: Sequence[onnx.Piece]) -> Any:
    """Copy pieces one after another to an array of JavaScript."""
    from js import Uint8Array

    whole, end = Uint8Array.new(sum(map(onnx.nbytes, pieces))), 0
    for piece in pieces:
        data = onnx.read(piece)
        whole.subarray(end, end + len(data)).assign(data)
        end += len(data)
    return whole


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
    ``size`` of the work ("gpu" or "software", for the adapter if not given; "tiny" for ``generate``, ``quantized`` and
    ``adapters``).

    Gives JSON: the device, the figures, their table.
    """
    given = json.loads(options)
    session.own("tensorcommons")
    devices = await tc.open_devices(("webgpu", "webnn", "cpu"))
    gpu = devices.webgpu
    is_software = gpu is None or gpu.is_software
    size = given.get("size", "software" if is_software else "gpu")
    software = size != "gpu"
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
        modes = ("", *MODES.get(group, ()))
        ours = [Ours(gpu, devices, bytes_of, mode) for mode in modes] if gpu else []
        if devices.webnn is not None:
            webnn = devices.webnn
            ours += [Ours(webnn, devices, lambda: webnn.total, mode) for mode in modes]
        cpu = devices.cpu
        if cpu is not None and ((software and group != "load") or gpu is None or given.get("only")):
            cpu_modes = modes if group in CHOOSING else ("",)
            ours += [Ours(cpu, devices, lambda: cpu.total, mode) for mode in cpu_modes]
        if given.get("only"):  # if only peers are named, they are beside ours on the first device
            wanted = [each for each in ours if {each.name, each.beside(group)} & {*given["only"]}]
            ours = wanted or ours[:1]
        contestants: list[Ours | Peer] = [*ours]
        for proxy in () if given.get("profile") else session.contestants:
            if given.get("only") and proxy.name not in given["only"]:
                continue
            is_named = proxy.name in given.get("only", ())
            peer = Peer(proxy, partial(session.bytesOf, proxy.name), is_named=is_named)
            if peer.device in ("wasm", "cpu") and not software and not given.get("only"):
                peer.refuse('the large sizes take minutes on the CPU; name it in "only" to have it')
            else:
                await peer.open()
            contestants.append(peer)
        if given.get("profile"):
            works = _works(group, size, folders, given.get("url", ""))
            chosen = [work for work in works if given.get("match", "") in work.name]
            profiles = [
                (f"{each.name}, {work.name}", await _profiled(each, work))
                for work in chosen
                for each in ours
                if each.does(work) and not work.missing
            ]
            devices.close()
            shown = "\n\n".join(f"{name}\n{text}" for name, text in profiles)
            return json.dumps({**result, "profiles": dict(profiles), "table": shown})
        probed = devices.opened if group in ("generate", "quantized") else ()
        speeds = {each.kind: await measure_speed(each) for each in probed}
        figures, paces = [], dict[str, float]()
        for work in _works(group, size, folders, given.get("url", "")):
            if given.get("match", "") not in work.name:
                continue
            print(work.name)
            named = [each for each in contestants if each.does(work)]
            figure = await contest.measure(named[:1] if work.missing else named, work, rules, paces, print)
            figure.floors = decoders.floors(work, speeds)
            for earlier in figures:
                if earlier.name == work.against:
                    compare(figure, earlier)
            figures.append(figure)
    devices.close()
    result["figures"] = to_json(figures)
    result["table"] = table(figures)
    return json.dumps(result)


def merged(results: str) -> str:
    """Merge the results of one group in several processes, a JSON list: the medians of each process are the samples."""
    parts = json.loads(results)
    if "figures" not in parts[0]:  # a table of another kind
        return json.dumps({**parts[0], "table": "\n\n".join(part["table"] for part in parts)})
    figures = merge([from_json(part["figures"]) for part in parts])
    shown = f"medians of {len(parts)} processes\n\n{table(figures)}"
    return json.dumps({**parts[0], "figures": to_json(figures), "table": shown, "processes": parts})


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


def _works(group: str, size: str, folders: dict[str, Path], url: str) -> Iterator[Work]:
    """Return the work of the group. Encoders without a folder get random weights."""
    software = size != "gpu"
    if group == "load":
        return workloads.loads(url)
    if group == "sentences":
        if "MiniLM" not in folders:
            absent = "the files of all-MiniLM-L6-v2 are absent"
            return iter([Work(group, "texts to MiniLM's embeddings", group, {}, {}, None, (), missing=absent)])
        return workloads.sentences(folders["MiniLM"])
    if group == "matmul":
        return workloads.matmuls(software)
    if group == "bandwidth":
        return workloads.bandwidth(software)
    if group == "quantized":
        return quantized.products(size)
    if group == "generate":
        return decoders.generations(size)
    if group == "encoder":
        for name, sizes in (("MiniLM", workloads.MINILM), ("BERT-base", workloads.BERT_BASE)):
            if name not in folders and not (software and name == "BERT-base"):
                folders[name] = Path(tempfile.mkdtemp()) / name
                workloads.write_encoder(folders[name], sizes)
        return workloads.encoders(software, folders)
    place = Path(tempfile.mkdtemp())
    if group == "images":
        workloads.write_random(place, workloads.DINOV2)
        return workloads.images(software, place)
    if group == "adapters":
        workloads.write_encoder(place, adapters.SIZES[size][1])
        return adapters.adapted(size, place)
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
