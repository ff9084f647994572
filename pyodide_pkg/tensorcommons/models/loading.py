"""from_pretrained: from a folder of files to a model whose weights are shared.

This file decides what a model is made of: its architecture, its files, and which of their tensors are its parameters.
``interning.py`` then brings these in. Whatever goes wrong or is cancelled, the model's holds end with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from ..backends.base import Spec
from ..backends.device import Device
from ..bridge.runtime import IN_BROWSER
from ..dtypes import float32
from ..errors import UnsupportedDtype, UnsupportedModel
from ..graph.program import compile_kernels
from ..hub.cache import CacheSpec, open_cache
from ..hub.cached import CachedSource
from ..hub.config import read_json, read_optional_json
from ..hub.sources import Source, open_source
from ..hub.tokenizer import Tokenizer
from ..hub.weights import WeightsFile
from ..nn.pooling import Pooling
from ..sharing.manager import TensorSharingManager
from .architecture import Architecture, check_task, forward_nodes
from .bert import Bert, BertConfig
from .config import architectures
from .folder import Folder
from .heads import MlpHead, MlpHeadConfig
from .interning import Interner, Part, Progress, Reporter
from .matching import match
from .model import Model
from .registry import FAMILIES, WRITERS

WEIGHTS_FILE = "model.safetensors"


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
    decision = manager.devices.decide(device)
    target = decision.device
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
        model = Model(name, architecture, weights, target, manager, reader, decision.why)
    except BaseException:
        manager.release_model_tensors(name)
        raise
    report("ready", files.name, report.total, report.total)
    manager.changed()
    return model


@asynccontextmanager
async def _compiling_ahead(architecture: Architecture, device: Device) -> AsyncIterator[None]:
    """Compile what a forward takes while the block brings its weights: no kernel depends on what they are."""
    specs = {name: Spec(shape, float32) for name, shape in architecture.parameters().items()}
    work = asyncio.ensure_future(compile_kernels(device, forward_nodes(architecture, device, specs)))
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
    if config.get("model_type") == "mlp-head":
        head_config = MlpHeadConfig.from_dict(config, file)
        base_source = source.sibling(head_config.base)
        base_config = await read_json(base_source, "config.json")
        if base_config.get("model_type") != "bert":
            raise UnsupportedModel(f"mlp-head on {base_config.get('model_type')}", ["mlp-head on bert"])
        base = Bert(
            BertConfig.of(Folder(base_config, f"{base_source.name}/config.json")), masked_lm=False, pooler=False
        )
        head = MlpHead(head_config, base, file)
        encoder = match([await _weights(base_source, stack, report)], base, surplus_allowed=True)
        return head, encoder + match([await _weights(source, stack, report)], head.layers), base_source
    if config.get("model_type") not in FAMILIES:
        raise UnsupportedModel(str(config.get("model_type")), (*FAMILIES, "mlp-head"))
    pooling = await _pooling(source, config)
    weights = await _weights(source, stack, report)
    names = frozenset(entry.name for entry in weights.header.entries)
    options = await read_optional_json(source, "generation_config.json") if config["model_type"] in WRITERS else None
    architecture = FAMILIES[config["model_type"]](Folder(config, file, names, pooling, options or {}))
    return architecture, match([weights], architecture), source


async def _pooling(source: Source, config: Mapping[str, Any]) -> Pooling:
    """What ``1_Pooling`` of a sentence-transformers folder says; elsewhere the mean. Both normalized."""
    if "BertModel" not in architectures(config, f"{source.name}/config.json"):
        return Pooling()
    pooling = await read_optional_json(source, "1_Pooling/config.json")
    if pooling is None:
        return Pooling()
    return Pooling("cls" if pooling.get("pooling_mode_cls_token") else "mean")


async def _weights(source: Source, stack: AsyncExitStack, report: Reporter) -> WeightsFile:
    report("download", f"{source.name}/{WEIGHTS_FILE}")
    return await stack.enter_async_context(await WeightsFile.open(source, WEIGHTS_FILE))


async def _tokenizer(manager: TensorSharingManager, source: Source) -> Tokenizer | None:
    """The tokenizer of ``source``, the same object for all models that use it. ``None`` outside a browser."""
    if not IN_BROWSER:
        return None
    key = source.key("tokenizer.json")
    found: Tokenizer | None = manager.tokenizers.get(key)
    if found is None:
        found = manager.tokenizers[key] = await Tokenizer.from_source(source)
    return found
