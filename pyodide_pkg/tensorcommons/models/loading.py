"""from_pretrained: from a folder of files to a model whose weights are shared.

This file decides what a model is made of: its architecture, its files, and which of their tensors are its parameters.
``interning.py`` then brings these in. Whatever goes wrong or is cancelled, the model's holds end with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from ..backends.device import Device
from ..bridge.runtime import IN_BROWSER
from ..errors import InvalidWeights, UnsupportedDtype, UnsupportedModel
from ..graph.program import compile_kernels
from ..hub.cache import CacheSpec, open_cache
from ..hub.cached import CachedSource
from ..hub.config import read_json, read_optional_json
from ..hub.safetensors import Header
from ..hub.sources import Source, open_source
from ..hub.tokenizer import Tokenizer
from ..hub.weights import WeightsFile
from ..sharing.manager import TensorSharingManager
from .bert import Bert, BertConfig, Pooling
from .heads import MlpHead, MlpHeadConfig
from .interning import Interner, Part, Progress, Reporter
from .model import Architecture, Model, check_task, forward_nodes

WEIGHTS_FILE = "model.safetensors"
FIRST_SHAPE = (2, 16)  # (batch, sequence) of a pair of short texts: what is compiled while weights are on their way
SUPPORTED = ("bert", "mlp-head")
# What checkpoints hold beside weights, or under an older name.
IGNORED = ("embeddings.position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


async def from_pretrained(
    source: str | Mapping[str, bytes],
    *,
    manager: TensorSharingManager,
    device: str | Device = "auto",
    dtype: str = "float32",
    task: str | None = None,
    progress_callback: Progress | None = None,
    tokenizer: bool = True,
    cache: CacheSpec = "auto",
) -> Model:
    """Load a model and share its weights with those that ``manager`` holds already.

    ``source`` is the URL of a folder, "org/name[@revision]", a local folder, or ``{"config.json": bytes, ...}``.
    ``device`` is a kind, a Device, or "auto". ``task`` is checked against what the model can do.
    ``progress_callback`` gets ``{"status", "file", "loaded", "total", "shared_bytes", "from_cache", "offline"}``,
    sizes in bytes; ``status`` is "initiate", "download", "progress", "progress_total", "done" or "ready";
    ``from_cache`` counts the weights read from the cache so far; ``offline`` is true where a copy was used that could
    not be compared with the server's. ``tokenizer=False`` loads none.

    ``cache`` is where downloads are kept: "auto" is the browser's storage for this page, and nothing elsewhere; None is
    nothing; a path is that folder; or a :class:`Cache` of ``open_cache``. What is in it is not downloaded again;
    :mod:`tensorcommons.hub.cached` says how its freshness is checked.

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
    report = Reporter(progress_callback)
    name = manager.add_model(files.name, target)
    try:
        kept = await open_cache(cache)
        if kept.is_on and not files.is_local:
            files = CachedSource(files, kept)
        async with AsyncExitStack() as stack:
            architecture, parts, words = await _open(files, stack, report)
            async with _compiling_ahead(architecture, target):
                weights = await Interner(manager, target, name, parts, report).load(architecture.parameters())
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


@asynccontextmanager
async def _compiling_ahead(architecture: Architecture, device: Device) -> AsyncIterator[None]:
    """Compile what a forward takes while the block brings its weights: no kernel depends on what they are."""
    work = asyncio.ensure_future(compile_kernels(device, forward_nodes(architecture, device, FIRST_SHAPE)))
    try:
        yield
        await asyncio.shield(work)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _open(source: Source, stack: AsyncExitStack, report: Reporter) -> tuple[Architecture, list[Part], Source]:
    """The architecture that ``config.json`` asks for, its files opened, and the source that has its tokenizer."""
    report("initiate", f"{source.name}/config.json")
    config = await read_json(source, "config.json")
    file = f"{source.name}/config.json"
    kind = config.get("model_type")
    if kind == "bert":
        weights = await _weights(source, stack, report)
        architecture = _bert(config, file, weights.header, await _pooling(source, config))
        return architecture, [_part(weights, architecture)], source
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
            weights = await _weights(each, stack, report)
            parts.append(_part(weights, only or head, surplus_allowed=only is not None))
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


async def _weights(source: Source, stack: AsyncExitStack, report: Reporter) -> WeightsFile:
    report("download", f"{source.name}/{WEIGHTS_FILE}")
    return await stack.enter_async_context(await WeightsFile.open(source, WEIGHTS_FILE))


def _canonical(name: str) -> str:
    name = name.removeprefix("bert.")
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def _part(weights: WeightsFile, architecture: Architecture, *, surplus_allowed: bool = False) -> Part:
    """Match a file's tensors with the architecture's parameters. Raises InvalidWeights for any that do not fit."""
    header, shapes = weights.header, architecture.parameters()
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
    return Part(weights, wanted)


async def _tokenizer(manager: TensorSharingManager, source: Source) -> Tokenizer | None:
    """The tokenizer of ``source``, the same object for all models that use it. ``None`` outside a browser."""
    if not IN_BROWSER:
        return None
    key = source.key("tokenizer.json")
    found: Tokenizer | None = manager.tokenizers.get(key)
    if found is None:
        found = manager.tokenizers[key] = await Tokenizer.from_source(source)
    return found
