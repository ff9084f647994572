"""from_pretrained: from a folder of files to a model whose weights are shared.

This file decides what a model is made of: its architecture, its files, and which of their tensors are its parameters.
``weight_loader.py`` then brings these in. Whatever goes wrong or is cancelled, the model's holds end with it.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from ..backends.base import Spec
from ..backends.device import Device
from ..bridge.runtime import IN_BROWSER
from ..dtypes import as_dtype, float32
from ..errors import (
    DeviceMemoryError,
    DeviceUnavailable,
    InvalidWeights,
    UnsupportedDtype,
    UnsupportedModel,
    quoted,
    shown,
)
from ..graph.needs import compile_kernels, least_need, misfit
from ..hub.cached import CachedSource
from ..hub.config import read_json, read_optional_json
from ..hub.open_cache import CacheSpec, open_cache
from ..hub.source import Source
from ..hub.sources import open_source
from ..hub.streams import FileMissingError
from ..hub.tokenizer import Tokenizer
from ..hub.weights import WeightsFile
from ..sharing.manager import TensorSharingManager
from ..sharing.storage import Storage
from ..tensor import Tensor
from .architecture import Architecture, check_task, forward_nodes
from .checkpoint import Checkpoint
from .checkpoint_match import match
from .config import architectures
from .mlp_head import MlpHead, MlpHeadConfig
from .model import Model
from .prefetch import beside
from .preprocessing import ImageProcessor
from .registry import FAMILIES, GENERATIVE, TEXT_FAMILIES
from .sentence import Sentence, SentenceUse, read_sentence
from .weight_loader import Part, Progress, Reporter, WeightLoader
from .weight_mapping import WeightMapping

logger = logging.getLogger("tensorcommons")
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
MAX_FILES = 1_000  # of one checkpoint
MAX_NAME = 80  # characters of a file's name that an index gives
OTHER_KINDS = {
    "adapter_config.json": "an adapter, not a model: load its base model",
    "pytorch_model.bin": "a pickle, which can run any code when it is read: save the model as model.safetensors",
    "pytorch_model.bin.index.json": "pickles, which can run any code when they are read: save the model as safetensors",
    "onnx/model.onnx": "an ONNX model, which is not read: save the model as model.safetensors",
    "model.onnx": "an ONNX model, which is not read: save the model as model.safetensors",
    "tf_model.h5": "a TensorFlow model, which is not read: save the model as model.safetensors",
}


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
    token: str | None = None,
) -> Model:
    """Load a model and share its weights with those that ``manager`` holds already.

    ``source`` is the URL of a folder, "org/name[@revision]", a local folder, or ``{"config.json": bytes, ...}``.
    ``device`` is a kind, a Device, or "auto". With ``dtype`` "float16" matrices and tables are stored in half the bytes
    (computing, and what has one axis, stay float32); floats of other dtypes in the file are converted. ``task`` is
    checked against what the model can do.
    ``progress_callback`` gets ``{"status", "file", "loaded", "total", "shared_bytes", "from_cache", "offline",
    "seconds_left"}``, sizes in bytes; ``status`` is "initiate", "download", "progress", "progress_total", "done" or
    "ready"; ``from_cache`` counts the weights read from the cache so far; ``offline`` is true where a copy was used
    that could not be compared with the server's; ``seconds_left`` is an estimate that comes with "progress_total", else
    None. ``tokenizer=False`` loads none.

    ``cache`` is where downloads are kept: "auto" is the browser's storage for this page, and nothing elsewhere; None is
    nothing; a path is that folder; or a :class:`Cache` of ``open_cache``. What is in it is not downloaded again;
    :mod:`tensorcommons.hub.cached` says how its freshness is checked. ``token`` opens a private or gated model: it goes
    to the server that has the model, and into no message.

    Raises:
        DownloadError: a file is missing or its connection broke.
        InvalidWeights: a file is damaged, or does not hold the tensors that its config asks for.
        UnsupportedModel: the architecture is not built in.
        MemoryBudgetError: the weights do not fit under the limit, or (DeviceMemoryError) the device cannot hold them:
            "auto" takes the next device then, so every device was asked.
        DeviceUnavailable: the device was lost before and does not come back; "auto" takes the next one then.
        DeviceLost: the device was lost meanwhile.
    """
    options = source, manager, device, dtype, task, progress_callback, tokenizer, cache, token
    refused: dict[Device, str] = {}
    try:
        while True:
            asked = len(refused)
            try:
                return await _loaded(*options, refused)
            except DeviceMemoryError as error:
                if len(refused) == asked:
                    raise
                _clear_frames(error)  # another device is chosen now, or the error that says what could be
    except BaseException as error:
        _clear_frames(error)
        raise
    finally:
        del manager, options  # a traceback that is kept would keep it, and its limit


def _clear_frames(error: BaseException) -> None:
    """Let go of what the frames of a failed load hold: the manager that its user dropped, and the bytes of files."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            waiting += each.__cause__, each.__context__


async def _loaded(
    source: str | Mapping[str, bytes],
    manager: TensorSharingManager,
    device: str | Device,
    dtype: str,
    task: str | None,
    progress_callback: Progress | None,
    tokenizer: bool,
    cache: CacheSpec,
    token: str | None,
    refused: dict[Device, str],
) -> Model:
    """Load once. A device that has no memory for the weights after all is added to ``refused``, with the reason."""
    report = Reporter(progress_callback)
    files = open_source(source, token=token)
    if dtype not in ("float32", "float16"):
        raise UnsupportedDtype(f"weights load as float32 or float16, not {dtype}")
    name = manager.add_model(files.name, manager.devices.choose(device))
    try:
        kept = await open_cache(cache)
        if kept.is_on and not files.is_local:
            files = CachedSource(files, kept)
        async with AsyncExitStack() as stack:
            architecture, parts, words, use = await _open(files, stack, report)
            specs = _specs(architecture, dtype)
            other = "float32" if dtype == "float16" else "float16"
            forms = {f'dtype="{other}"': _specs(architecture, other)}
            while True:
                decision = manager.devices.decide_for(name, specs, device, forms=forms, refused=refused)
                target = decision.device
                if not target.backend.is_lost:
                    break
                try:
                    await target.recover()
                except DeviceUnavailable:
                    if device != "auto":
                        raise
            manager.place_model(name, target)
            nodes = forward_nodes(architecture, target, specs)
            if reason := await misfit(target, nodes, specs.values()):
                refused[target] = reason
                raise DeviceMemoryError(target.kind, name, reason, remedy="load it on another device")
            kernels = compile_kernels(target, nodes)  # whatever the weights are
            names = architecture.inputs.names
            wanted = words if tokenizer and "input_ids" in names else None
            async with beside(kernels), beside(_tokenizer(manager, wanted)) as reading:
                interner = WeightLoader(manager, target, name, parts, report)
                try:
                    weights = await interner.load(specs, lambda: least_need.slices(target, nodes))
                    storages = [storage for weight in weights.values() if (storage := weight.node.storage) is not None]
                    await target.backend.check([storage.handle for storage in storages if storage.is_resident])
                except DeviceMemoryError as error:
                    refused[target] = _why_refused(target, error)
                    raise
        if interner.streams:
            _warn_of_streaming(name, manager, storages)
        _warn_of_untied(files.name, architecture, weights)
        reader, why_none = reading.result()
        processor = await _processor(files, architecture.model_type) if "pixel_values" in names else None
        if task is not None:
            check_task(task, architecture.tasks, name)
        model = Model(name, architecture, weights, target, manager, reader, decision.why, processor)
        model.why_no_tokenizer, model.use = why_none, use
    except BaseException:
        manager.abandon_model(name)
        raise
    report("ready", files.name, report.total, report.total)
    manager.changed()
    return model


def _warn_of_streaming(name: str, manager: TensorSharingManager, storages: Sequence[Storage]) -> None:
    """Say that each run moves weights, how many, and what of them this page's own memory keeps."""
    total, room = sum(storage.nbytes for storage in set(storages)), manager.residency.room()
    kept = sum(len(block) for storage in set(storages) for block in storage.host_copy or ())
    logger.warning(
        "%s: its %s bytes of weights do not fit under the limit of %s bytes, so each run (of a generation: each token) "
        "moves at least %s of them to the device. %s",
        name,
        f"{total:,}",
        f"{manager.limit_bytes:,}",
        f"{max(total - room, 0):,}",
        f"{kept:,} bytes of them are kept in the memory of the page or process meanwhile, since no local storage has "
        'them: load with cache="auto", or raise max_memory_mb.'
        if kept
        else "They come from local storage.",
    )


def _why_refused(device: Device, error: DeviceMemoryError) -> str:
    """Describe a device that had no memory for a weight."""
    complaint = error.reason.splitlines()[0] if error.reason else "no reason given"
    return f"{error.work} was refused ({complaint}) with {device.total:,} bytes on it"


def _warn_of_untied(name: str, architecture: Architecture, weights: Mapping[str, Tensor]) -> None:
    """Say where a file has two weights for what its config says is one: `transformers` does not tie them, either."""
    if not getattr(architecture.config, "tie_word_embeddings", False):
        return
    for other, parameter in architecture.names.tied.items():
        pair = [weights[each].node.storage for each in (other, parameter) if each in weights]
        if len(pair) == 2 and pair[0] is not pair[1]:
            logger.warning(
                "%s: config.json ties %s to %s, but the file has both with different values: they are not tied. "
                "tie_word_embeddings: false says so.",
                name,
                other,
                parameter,
            )


def _specs(architecture: Architecture, dtype: str) -> dict[str, Spec]:
    """Choose the spec of each parameter on the device. Biases and norms stay float32: small, and precision needs it."""
    return {
        name: Spec(shape, as_dtype(dtype) if len(shape) > 1 else float32)
        for name, shape in architecture.parameters().items()
    }


async def _open(
    source: Source, stack: AsyncExitStack, report: Reporter
) -> tuple[Architecture, list[Part], Source, SentenceUse]:
    """The architecture that ``config.json`` asks for, its files opened, the tokenizer's source, and the prompts."""
    report("initiate", f"{source.name}/config.json")
    try:
        config = await read_json(source, "config.json")
    except FileMissingError:
        await _name_another_kind(source)
        raise
    file = f"{source.name}/config.json"
    if config.get("model_type") == "mlp-head":
        head_config = MlpHeadConfig.from_dict(config, file)
        base_source = source.sibling(head_config.base)
        base_config = await read_json(base_source, "config.json")
        text_family = TEXT_FAMILIES.get(str(base_config.get("model_type")))
        if text_family is None:
            kinds = [f"mlp-head on {kind}" for kind in TEXT_FAMILIES]
            raise UnsupportedModel(f"mlp-head on {base_config.get('model_type')}", kinds)
        base = text_family(Checkpoint(base_config, f"{base_source.name}/config.json"))
        head = MlpHead(head_config, base, file)
        weights = await _weights(base_source, stack, report)
        encoder = match(weights, base.encoder.parameters(), base.names, warns=False)
        parts = encoder + match(await _weights(source, stack, report), head.layers(), head.names)
        return head, parts, base_source, SentenceUse()
    if not isinstance(config.get("model_type"), str):
        raise InvalidWeights(file, "it has no model_type, which names the architecture: is it the model's config.json?")
    family = FAMILIES.get(config["model_type"])
    if family is None:
        raise UnsupportedModel(str(config.get("model_type")), (*FAMILIES, "mlp-head"))
    async with beside(_sentence(source, config)) as reading:
        weights = await _weights(source, stack, report)
    sentence, use = reading.result()
    names = frozenset(entry.name for each in weights for entry in each.header.entries)
    options = await read_optional_json(source, "generation_config.json") if config["model_type"] in GENERATIVE else None
    architecture = family(Checkpoint(config, file, names, sentence, options))
    own = sentence.parameters()
    shapes = {name: shape for name, shape in architecture.parameters().items() if name not in own}
    parts = match(weights, shapes, architecture.names)
    if own.keys() <= architecture.parameters().keys():
        for dense in sentence.dense:
            files = await _weights(source, stack, report, dense.path)
            parts += [part.renamed(dense.named) for part in match(files, dense.parameters(), WeightMapping())]
    return architecture, parts, source, use


async def _sentence(source: Source, config: Mapping[str, Any]) -> tuple[Sentence, SentenceUse]:
    """The modules that a sentence-transformers folder puts behind a bare model; elsewhere the mean, normalized."""
    if not any(name.endswith("Model") for name in architectures(config, f"{source.name}/config.json")):
        return Sentence(), SentenceUse()
    return await read_sentence(source)


async def _name_another_kind(source: Source) -> None:
    """Raise InvalidWeights where a folder without the files of a model holds those of something else."""
    if source.name.lower().endswith((".safetensors", ".gguf", ".onnx", ".bin", ".pt", ".json")):
        raise InvalidWeights(source.name, "that is the name of a file: give the folder that holds it and config.json")
    for file, what in OTHER_KINDS.items():
        if await source.exists(file):
            raise InvalidWeights(f"{source.name}/{file}", f"the folder holds {what}")


async def _weights(source: Source, stack: AsyncExitStack, report: Reporter, folder: str = "") -> list[WeightsFile]:
    """The files of a checkpoint, open: one, or the shards that ``model.safetensors.index.json`` lists.

    ``folder`` is that of a module, which has one file.
    """
    single = f"{folder}/{WEIGHTS_FILE}" if folder else WEIGHTS_FILE
    report("download", f"{source.name}/{single}")
    try:
        return [await stack.enter_async_context(await WeightsFile.open(source, single))]
    except FileMissingError as missing:
        index = None if folder else await read_optional_json(source, INDEX_FILE)
        if index is None:
            await _name_another_kind(source)
            raise missing from None
    table = index.get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise InvalidWeights(f"{source.name}/{INDEX_FILE}", "weight_map does not name a file for each tensor")
    long = max(table.values(), key=len)
    if len(long) > MAX_NAME:
        raise InvalidWeights(f"{source.name}/{INDEX_FILE}", f"{quoted(long)} is too long for the name of a file")
    count = len(set(table.values()))
    if count > MAX_FILES:
        raise InvalidWeights(f"{source.name}/{INDEX_FILE}", f"{count:,} files are over the limit of {MAX_FILES:,}")
    files = []
    for name in sorted(set(table.values())):
        report("download", f"{source.name}/{name}")
        file = await stack.enter_async_context(await WeightsFile.open(source, name))
        await file.pause()  # the others' headers come first
        files.append(file)
    held = {entry.name: file.file for file in files for entry in file.header.entries}
    wrong = sorted(name for name in held.keys() | table.keys() if held.get(name) != table.get(name))
    if wrong:
        raise InvalidWeights(
            f"{source.name}/{INDEX_FILE}",
            f"{len(wrong)} tensors are not where it says, as {', '.join(map(shown, wrong[:5]))}",
        )
    return files


async def _tokenizer(manager: TensorSharingManager, source: Source | None) -> tuple[Tokenizer | None, str]:
    """The tokenizer of ``source``, with one engine for all that have equal files, or None and the reason."""
    if source is None:
        return None, "it was loaded without one"
    if not IN_BROWSER:
        return None, "this Python has no JavaScript"
    try:
        return await Tokenizer.from_source(source, shared=manager.tokenizers), ""
    except FileMissingError as error:
        return None, str(error)


async def _processor(source: Source, model_type: str) -> ImageProcessor | None:
    """Read the image processor, where the folder has one."""
    file = "preprocessor_config.json"
    config = await read_optional_json(source, file)
    return None if config is None else ImageProcessor.of(config, f"{source.name}/{file}", model_type)
