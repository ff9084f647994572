"""from_pretrained: from a folder of files to a model whose weights are shared.

Tensors are read one by one in file order, hashed, and interned as they arrive. A file whose tensors are all on the
device already is not downloaded at all. Whatever goes wrong or is cancelled, the model's holds end with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..backends.device import Device
from ..bridge.runtime import IN_BROWSER
from ..errors import InvalidWeights, TensorReleased, UnsupportedDtype, UnsupportedModel
from ..hub.config import read_json, read_optional_json
from ..hub.safetensors import Header, TensorEntry, as_array, iterate, read_header
from ..hub.sources import Source, open_source
from ..hub.streams import Stream
from ..hub.tokenizer import Tokenizer
from ..sharing.manager import TensorSharingManager
from ..sharing.registry import Entry
from ..sharing.storage import Origin, content_identity
from ..tensor import Tensor
from .bert import Bert, BertConfig, Pooling
from .heads import MlpHead, MlpHeadConfig
from .model import Architecture, Model, check_task

WEIGHTS_FILE = "model.safetensors"
SUPPORTED = ("bert", "mlp-head")
# What checkpoints hold beside weights, or under an older name.
IGNORED = ("embeddings.position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

Progress: TypeAlias = Callable[[dict[str, Any]], None]


@dataclass
class Part:
    """One weights file of a model: an open stream behind its header, and the parameters to take from it by entry."""

    source: Source
    stream: Stream
    header: Header
    wanted: dict[str, str]

    @property
    def end(self) -> int:
        """Offset after the last wanted tensor: what lies behind is not read."""
        return max((entry.stop for entry in self.header.entries if entry.name in self.wanted), default=0)


async def from_pretrained(
    source: str | Mapping[str, bytes],
    *,
    manager: TensorSharingManager,
    device: str | Device = "auto",
    dtype: str = "float32",
    task: str | None = None,
    progress_callback: Progress | None = None,
    tokenizer: bool = True,
) -> Model:
    """Load a model and share its weights with those that ``manager`` holds already.

    ``source`` is the URL of a folder, "org/name[@revision]", a local folder, or ``{"config.json": bytes, ...}``.
    ``device`` is a kind, a Device, or "auto". ``task`` is checked against what the model can do.
    ``progress_callback`` gets ``{"status", "file", "loaded", "total", "shared_bytes"}``, sizes in bytes; ``status`` is
    "initiate", "download", "progress", "progress_total", "done" or "ready". ``tokenizer=False`` loads none.

    Raises:
        DownloadError: a file is missing or its connection broke.
        InvalidWeights: a file is damaged, or does not hold the tensors that its config asks for.
        UnsupportedModel: the architecture is not built in.
        MemoryBudgetError: the weights do not fit.
    """
    files = open_source(source)
    target = manager.devices.choose(device)
    if dtype != "float32":
        raise UnsupportedDtype(f"weights load as float32, not {dtype}")
    report = _Reporter(progress_callback)
    name = manager.add_model(files.name, target)
    try:
        async with AsyncExitStack() as stack:
            architecture, parts, words = await _open(files, stack, report)
            weights = await _Loader(manager, target, name, architecture, parts, report).load()
        reader = await _tokenizer(manager, words) if tokenizer else None
        if task is not None:
            check_task(task, architecture.tasks, name)
        model = Model(name, architecture, weights, target, manager, reader)
    except BaseException:
        manager.release_model_tensors(name)
        raise
    report("ready", files.name, report.total, report.total)
    manager.changed()
    return model


class _Reporter:
    """Sends progress events; ``total`` and ``shared`` are the load's own, in bytes."""

    def __init__(self, callback: Progress | None) -> None:
        self._callback = callback
        self.total = 0
        self.shared = 0

    def __call__(self, status: str, file: str, loaded: int = 0, total: int = 0) -> None:
        if self._callback is not None:
            event = {"status": status, "file": file, "loaded": loaded, "total": total, "shared_bytes": self.shared}
            self._callback(event)


async def _open(source: Source, stack: AsyncExitStack, report: _Reporter) -> tuple[Architecture, list[Part], Source]:
    """The architecture that ``config.json`` asks for, its files opened, and the source that has its tokenizer."""
    report("initiate", f"{source.name}/config.json")
    config = await read_json(source, "config.json")
    file = f"{source.name}/config.json"
    kind = config.get("model_type")
    if kind == "bert":
        stream, header = await _header(source, stack, report)
        architecture = _bert(config, file, header, await _pooling(source, config))
        return architecture, [_part(source, stream, header, architecture)], source
    if kind == "mlp-head":
        head_config = MlpHeadConfig.from_dict(config, file)
        base_source = source.sibling(head_config.base)
        base_config = await read_json(base_source, "config.json")
        if base_config.get("model_type") != "bert":
            raise UnsupportedModel(f"mlp-head on {base_config.get('model_type')}", ["mlp-head on bert"])
        base = Bert(BertConfig.from_dict(base_config, f"{base_source.name}/config.json"), masked_lm=False, pooler=False)
        head = MlpHead(head_config, base, file)
        parts = []
        for each, only in ((base_source, base), (source, None)):
            stream, header = await _header(each, stack, report)
            parts.append(_part(each, stream, header, only or head, surplus_allowed=only is not None))
        return head, parts, base_source
    raise UnsupportedModel(str(kind), SUPPORTED)


def _architectures(config: Mapping[str, Any], file: str) -> list[str]:
    """The classes that ``config.json`` names, if any. Raises InvalidWeights for what is no list."""
    named = config.get("architectures") or []
    if not isinstance(named, list):
        raise InvalidWeights(file, f"architectures must be a list of names, not {named!r}")
    return named


def _bert(config: Mapping[str, Any], file: str, header: Header, pooling: Pooling) -> Bert:
    """A masked language model if the config says so; the pooler if the checkpoint has one."""
    masked_lm = "BertForMaskedLM" in _architectures(config, file)
    names = {_canonical(entry.name) for entry in header.entries}
    return Bert(
        BertConfig.from_dict(config, file),
        masked_lm=masked_lm,
        pooler=not masked_lm and "pooler.dense.weight" in names,
        pooling=pooling,
    )


async def _pooling(source: Source, config: Mapping[str, Any]) -> Pooling:
    """What ``1_Pooling`` of a sentence-transformers folder says; elsewhere the mean. Both normalized."""
    if "BertModel" not in _architectures(config, f"{source.name}/config.json"):
        return Pooling()
    pooling = await read_optional_json(source, "1_Pooling/config.json")
    if pooling is None:
        return Pooling()
    return Pooling("cls" if pooling.get("pooling_mode_cls_token") else "mean")


async def _header(source: Source, stack: AsyncExitStack, report: _Reporter) -> tuple[Stream, Header]:
    file = f"{source.name}/{WEIGHTS_FILE}"
    report("download", file)
    stream = await stack.enter_async_context(await source.open(WEIGHTS_FILE))
    return stream, await read_header(stream, file)


def _canonical(name: str) -> str:
    name = name.removeprefix("bert.")
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def _part(
    source: Source, stream: Stream, header: Header, architecture: Architecture, *, surplus_allowed: bool = False
) -> Part:
    """Match a file's tensors with the architecture's parameters. Raises InvalidWeights for any that do not fit."""
    shapes = architecture.parameters()
    if isinstance(architecture, MlpHead):
        shapes = {name: shape for name, shape in shapes.items() if name.startswith("layers.")}
    wanted: dict[str, str] = {}
    surplus = []
    for entry in header.entries:
        name = _canonical(entry.name)
        if name in shapes:
            if entry.shape != shapes[name]:
                raise InvalidWeights(
                    header.file, f"tensor {entry.name!r} is {entry.shape}, the config asks for {shapes[name]}"
                )
            if entry.dtype != "F32":
                raise InvalidWeights(header.file, f"tensor {entry.name!r} is {entry.dtype}; only F32 is read so far")
            if name in wanted.values():
                raise InvalidWeights(
                    header.file, f"tensor {entry.name!r} is there twice, as {name!r} under two spellings"
                )
            wanted[entry.name] = name
        elif name not in IGNORED and not name.startswith("pooler.") and not surplus_allowed:
            surplus.append(entry.name)
    missing = sorted(set(shapes) - set(wanted.values()))
    if missing or surplus:
        problems = [
            f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
            for what, names in (("missing", missing), ("unexpected", surplus))
            if names
        ]
        raise InvalidWeights(header.file, f"tensors do not match the config; {'; '.join(problems)}")
    return Part(source, stream, header, wanted)


class _Loader:
    """Reads the wanted tensors of all parts into the registry."""

    def __init__(
        self,
        manager: TensorSharingManager,
        device: Device,
        model: str,
        architecture: Architecture,
        parts: list[Part],
        report: _Reporter,
    ) -> None:
        self.manager = manager
        self.device = device
        self.model = model
        self.architecture = architecture
        self.parts = parts
        self.report = report
        self.loaded = 0

    async def load(self) -> dict[str, Tensor]:
        """Every parameter as a tensor over its shared storage."""
        known = [entry.storage for part in self.parts for entry in self._known(part).values()]
        sizes = [Spec(shape, dtypes.float32).nbytes for shape in self.architecture.parameters().values()]
        self.manager.residency.check_together(sum(sizes), known)  # a model that can never run is not loaded at all
        self.report.total = sum(part.end - part.header.data_start for part in self.parts if part.wanted)
        for part in self.parts:
            await self._read(part)
        if self.model not in self.manager.models:
            raise TensorReleased(f"the tensors of {self.model} were released while it was loading")
        held = self.manager.registry.held_by(self.model)
        return {name: Tensor.of_storage(held[name].storage, held[name].spec) for name in self.architecture.parameters()}

    async def _read(self, part: Part) -> None:
        """Intern one file's tensors; what is on the device already is held and not read again."""
        file, start = part.header.file, part.header.data_start
        known = self._known(part)
        for name, held in known.items():
            held.hold(self.model, part.wanted[name])
            self.report.shared += held.storage.nbytes
        if len(known) < len(part.wanted):
            before = self.loaded
            part.stream.watch(lambda position, size: self._progress(file, before, position - start, part.end - start))
            last = max(i for i, entry in enumerate(part.header.entries) if entry.name in part.wanted)
            async with aclosing(
                iterate(
                    part.stream, part.header, skip=lambda entry: entry.name not in part.wanted or entry.name in known
                )
            ) as tensors:
                async for entry, data in tensors:
                    await self._intern(part, entry, data)
                    if entry is part.header.entries[last]:
                        break
        self.loaded += part.end - start
        self.report("done", file, part.end - start, part.end - start)
        self.manager.changed()

    def _known(self, part: Part) -> dict[str, Entry]:
        """The tensors of a file that are on the device already, by their name in the file."""
        known = {}
        for entry in part.header.entries:
            held = self.manager.registry.at_origin(self.device, self._address(part, entry))
            if entry.name in part.wanted and held is not None:
                known[entry.name] = held
        return known

    async def _intern(self, part: Part, entry: TensorEntry, data: bytearray) -> None:
        array = as_array(entry, data)
        spec = Spec(entry.shape, dtypes.float32)
        raw = memoryview(array.reshape(-1).view(np.uint8))
        identity = content_identity(raw, spec.shape, spec.dtype)
        registry = self.manager.registry
        if registry.find(self.device, identity) is not None:
            self.report.shared += entry.nbytes
        else:
            await self.manager.residency.make_room(raw.nbytes)
        held = registry.intern(self.device, raw, spec, identity, self._origin(part, entry, identity))
        held.hold(self.model, part.wanted[entry.name])
        registry.remember(self.device, self._address(part, entry), identity)

    def _origin(self, part: Part, entry: TensorEntry, identity: str) -> Origin:
        """How to read the bytes again."""
        source, file = part.source, part.header.file

        async def read() -> memoryview:
            async with await source.open(WEIGHTS_FILE, entry.start, entry.stop) as stream:
                data = await stream.read_exact(entry.nbytes)
            array = as_array(entry, data)
            raw = memoryview(array.reshape(-1).view(np.uint8))
            if content_identity(raw, entry.shape, dtypes.float32) != identity:
                raise InvalidWeights(file, f"tensor {entry.name!r} has other bytes than when the model was loaded")
            return raw

        return Origin(read, source.is_local)

    def _address(self, part: Part, entry: TensorEntry) -> str:
        """Where the bytes come from: the file's address and size, and their range."""
        return f"{part.source.key(WEIGHTS_FILE)} {part.header.size} {entry.start}-{entry.stop}"

    def _progress(self, file: str, before: int, loaded: int, total: int) -> None:
        self.report("progress", file, min(loaded, total), total)
        self.report("progress_total", self.model, before + min(loaded, total), self.report.total)


async def _tokenizer(manager: TensorSharingManager, source: Source) -> Tokenizer | None:
    """The tokenizer of ``source``, the same object for all models that use it. ``None`` outside a browser."""
    if not IN_BROWSER:
        return None
    key = source.key("tokenizer.json")
    found: Tokenizer | None = manager.tokenizers.get(key)
    if found is None:
        found = manager.tokenizers[key] = await Tokenizer.from_source(source)
    return found
