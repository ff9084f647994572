"""from_pretrained: load a model from a folder of files and share its weights.

This file chooses the architecture, opens the files and matches their tensors with the parameters.
``weight_loader.py`` loads these. After an error or a cancellation the model holds no tensors.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from ..backends.base import BlockSpec, Spec
from ..backends.device import Device
from ..bridge.runtime import IN_BROWSER
from ..errors import (
    DeviceMemoryError,
    DeviceUnavailable,
    InvalidWeights,
    TensorCommonsError,
    UnsupportedModel,
    quoted,
    shown,
)
from ..formats import BLOCKS, BY_OPTION
from ..graph.needs import compile_kernels, least_need, misfit
from ..hub.cached import CachedSource
from ..hub.config import read_json, read_optional_json
from ..hub.gguf_source import GgufSource
from ..hub.open_cache import CacheSpec, open_cache
from ..hub.source import Source, is_gguf_file
from ..hub.sources import cached, open_source
from ..hub.streams import FileMissingError
from ..hub.tokenizer import Tokenizer
from ..hub.weights import WeightsFile
from ..ops.quantized import check_precision
from ..sharing.manager import TensorSharingManager
from ..sharing.storage import Storage
from ..tensor import Tensor
from .architecture import Architecture, check_task, forward_nodes, precision_on, weights_of
from .assembly import compose
from .checkpoint import Checkpoint
from .checkpoint_match import match, orders_of
from .config import architectures
from .decoder import Decoder, product_of
from .gguf import open_gguf
from .model import Model
from .other_formats import refuse_other_formats
from .prefetch import beside
from .preprocessing import ImageProcessor
from .quantization import quantization_of
from .registry import FAMILIES
from .sentence import Sentence, SentenceUse, read_sentence
from .weight_loader import Progress, Reporter, Shard, WeightLoader
from .weight_specs import DTYPES, check_dtype, checked_cache_dtype, formats_of, specs_of

logger = logging.getLogger("tensorcommons")
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
MOST_FILES = (
    *("config.json", WEIGHTS_FILE, "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
    *("1_Pooling/config.json", "generation_config.json", "preprocessor_config.json"),
)
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")
MAX_FILES = 1_000  # weights files of a checkpoint
MAX_NAME = 80  # characters of a file name in an index
ADAPTER_FILE = "adapter_config.json"


async def from_pretrained(
    source: str | bytes | Mapping[str, bytes],
    *,
    manager: TensorSharingManager,
    device: str | Device = "auto",
    dtype: str | None = None,
    precision: str = "fast",
    cache_dtype: str | None = None,
    task: str | None = None,
    progress_callback: Progress | None = None,
    tokenizer: bool = True,
    cache: CacheSpec = "auto",
    token: str | None = None,
) -> Model:
    """Load a model and share its weights with the models of ``manager``.

    ``source`` is the URL of a folder, "org/name[@revision]", a local folder, or ``{"config.json": bytes, ...}``, where
    in a browser a Blob may be in the place of bytes. It may be one GGUF file instead: "org/name/file.gguf", a URL or
    path that ends so, or its bytes; config, tokenizer and defaults of generation come from its metadata.
    ``device`` is a kind, a Device, or "auto". A ``task`` that the model does not support is an error.
    ``tokenizer=False`` loads no tokenizer.

    ``dtype`` is that of the stored weights. By default (None) matrices and tables that a file has in blocks (GGUF,
    GPTQ, AWQ, compressed-tensors, FP8) stay as they are, and everything else is float32. Otherwise they are converted
    while they are loaded: "float32"; "float16", with matrices and tables in half the bytes; "int8", with those in 27 %
    of the bytes, as blocks of 32 int8 numbers with a scale (GGUF's Q8_0); or "int4", with matrices in 14 % of the
    bytes, as blocks of 32 int4 numbers with a scale (Q4_0), and tables of tokens and the output head as with "int8".
    "fp32", "fp16", "q8" and "q4" are other names. Vectors, computation, and matrices whose rows are not whole blocks
    are float32. A device that does not store a block format (:attr:`Model.weight_formats`) has such weights as float32,
    which a warning names.

    ``precision`` is that of products with quantised weights: "fast" (the default) rounds activations to int8 in blocks
    of 32 on devices that multiply such numbers faster, except beside weights of FP8; "exact" computes with float
    activations, as all other devices do with either.

    ``cache_dtype`` is that of the keys and values of a generation: "float32" (the default), or "float16", with half the
    bytes, rounded. Attention computes in float32. A key or value that float16 cannot hold ends the generation with the
    error for NaN scores.

    ``progress_callback`` gets ``{"status", "file", "loaded", "total", "shared_bytes", "from_cache", "offline",
    "seconds_left"}``, sizes in bytes. ``status`` is "initiate", "download", "progress", "progress_total", "done" or
    "ready"; ``from_cache`` counts the bytes of weights read from the cache so far; ``offline`` is true if a cached copy
    was used that could not be compared with the server's; ``seconds_left`` is an estimate, and None except with
    "progress_total".

    ``cache`` selects where downloads are kept: "auto" is the browser's storage for this page (outside a browser:
    nowhere), None is nowhere, a path is that folder; or pass a :class:`Cache` from ``open_cache``. Cached files are not
    downloaded again unless they changed on the server. ``token`` grants access to a private or gated model: it is sent
    only to the model's server, and appears in no message.

    Raises:
        DownloadError: a file is missing or its connection broke.
        InvalidWeights: a file is damaged, lacks tensors that its config requires, has a format that is not supported,
            or numbers that cannot be quantised.
        UnsupportedModel: the architecture is not supported.
        UnsupportedDtype: ``dtype`` or ``cache_dtype`` is unknown.
        TensorCommonsError: ``precision`` is unknown, or ``cache_dtype`` is given for a model that generates no text.
        MemoryBudgetError: the weights exceed the limit, or (DeviceMemoryError) the memory of the device; with "auto",
            of every device.
        DeviceUnavailable: the device was lost before and cannot be opened again; with "auto", every device was.
        DeviceLost: the device was lost during loading.

    >>> manager = tc.TensorSharingManager(max_memory_mb=256)
    >>> model = await tc.from_pretrained("./models/all-MiniLM-L6-v2", manager=manager, dtype="float16")
    >>> tokens = model.tokenizer.encode_batch(["The cat sleeps."])
    >>> outputs = await model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
    >>> outputs["last_hidden_state"].shape
    (1, 6, 384)
    >>> manager.close()
    """
    options = source, manager, device, dtype, precision, cache_dtype, task, progress_callback, tokenizer, cache, token
    refused: dict[Device, str] = {}
    try:
        while True:
            known = len(refused)
            try:
                return await _loaded(*options, refused)
            except DeviceMemoryError as error:
                if len(refused) == known:
                    raise
                _clear_frames(error)  # the next attempt chooses another device, or raises an error with the reasons
    except BaseException as error:
        _clear_frames(error)
        raise
    finally:
        del manager, options  # a stored traceback must not keep the manager and its limit alive


def _clear_frames(error: BaseException) -> None:
    """Clear the frames of a failed load, so that a stored error keeps neither the manager nor bytes of files alive."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            waiting += each.__cause__, each.__context__


async def _loaded(
    source: str | bytes | Mapping[str, bytes],
    manager: TensorSharingManager,
    device: str | Device,
    dtype: str | None,
    precision: str,
    cache_dtype: str | None,
    task: str | None,
    progress_callback: Progress | None,
    tokenizer: bool,
    cache: CacheSpec,
    token: str | None,
    refused: dict[Device, str],
) -> Model:
    """Try to load once. A device that turns out to have too little memory is added to ``refused``, with the reason."""
    report = Reporter(progress_callback)
    files = open_source(source, token=token)
    check_dtype(dtype)
    check_precision(precision)
    keys = checked_cache_dtype(cache_dtype)
    name = manager.add_model(files.name, manager.devices.choose(device))
    try:
        files = cached(files, await open_cache(cache))
        async with AsyncExitStack() as stack:
            if isinstance(files, CachedSource):
                await stack.enter_async_context(files.comparing(MOST_FILES + TOKENIZER_FILES * tokenizer))
            architecture, shards, words, use = await open_checkpoint(files, stack, report)
            if cache_dtype is not None and not isinstance(architecture, Decoder):
                raise TensorCommonsError(
                    f"cache_dtype is of keys and values of a generation, and {files.name} ({architecture.model_type}) "
                    "generates no text: leave it out"
                )
            formats = formats_of(shards)
            stored = specs_of(architecture.manifest, formats, dtype)
            options = {each: specs_of(architecture.manifest, formats, each) for each in DTYPES}
            others = {f"dtype={each and json.dumps(each)}": specs for each, specs in options.items() if specs != stored}
            stored |= orders_of(shards, stored, architecture.manifest)
            while True:
                product = product_of(architecture)
                decision = manager.devices.decide_for(name, stored, device, product, forms=others, refused=refused)
                target = decision.device
                if not target.backend.is_lost:
                    break
                try:
                    await target.recover()
                except DeviceUnavailable:
                    if device != "auto":
                        raise
            manager.place_model(name, target)
            loader = WeightLoader(manager, target, name, shards, report)
            loader.read_ahead(stored)
            specs = {name: target.stored_as(spec) for name, spec in stored.items()}
            nodes = forward_nodes(architecture, target, specs, precision)
            if reason := await misfit(target, nodes, specs.values()):
                refused[target] = reason
                raise DeviceMemoryError(target.kind, name, reason, remedy="load it on another device")
            kernels = compile_kernels(target, nodes)  # does not depend on the values of the weights
            names = architecture.inputs.names
            wanted = words if tokenizer and "input_ids" in names else None
            async with beside(kernels), beside(_tokenizer(manager, wanted)) as reading:
                try:
                    weights = await loader.load(stored, lambda: least_need.slices(target, nodes))
                    storages = [storage for weight in weights.values() if (storage := weight.node.storage) is not None]
                    await target.backend.check([storage.handle for storage in storages if storage.is_resident])
                except DeviceMemoryError as error:
                    message = error.reason.partition("\n")[0] or "no reason given"
                    refused[target] = f"{error.work} was refused ({message}) with {target.total:,} bytes on it"
                    raise
        if loader.streams:
            _warn_of_streaming(name, manager, storages)
        _warn_of_untied(files.name, architecture, weights)
        _warn_of_widened(name, target, stored.values())
        if dtype is not None and (form := BY_OPTION[dtype]) in BLOCKS:
            _warn_of_dense(name, form, stored.values())
            _warn_of_requantized(name, formats, stored)
        reader, why_none = reading.result()
        processor = await _processor(files, architecture.model_type) if "pixel_values" in names else None
        if task is not None:
            check_task(task, architecture.tasks, name)
        held = weights_of(architecture, weights, precision_on(target, precision))
        more = decision.why, processor, precision, keys
        model = Model(name, architecture, held, stored, target, manager, reader, *more)
        model.why_no_tokenizer, model.use = why_none, use
    except BaseException:
        manager.abandon_model(name)
        raise
    report("ready", files.name, report.total, report.total)
    manager.changed()
    return model


def _warn_of_streaming(name: str, manager: TensorSharingManager, storages: Sequence[Storage]) -> None:
    """Warn that each run moves weights to the device, with the bytes moved and the bytes kept in host memory."""
    total, room = sum(storage.nbytes for storage in set(storages)), manager.residency.room()
    kept = sum(len(block) for storage in set(storages) for block in storage.host_copy or ())
    logger.warning(
        "%s: its %s bytes of weights do not fit under the limit of %s bytes, so each run (of a generation: each token) "
        "moves at least %s of them to the device. %s",
        name,
        f"{total:,}",
        f"{manager.limit_bytes:,}",
        f"{max(total - room, 0):,}",
        f"{kept:,} bytes of them are kept in the memory of the page or process, since they are not in local storage: "
        'load with cache="auto", or raise max_memory_mb.'
        if kept
        else "They are read from local storage.",
    )


def _warn_of_dense(name: str, form: str, specs: Collection[Spec]) -> None:
    """Warn if most bytes of the weights of a quantised model are dense."""
    total = sum(spec.nbytes for spec in specs)
    dense = sum(spec.nbytes for spec in specs if not isinstance(spec, BlockSpec))
    if 2 * dense > total:
        logger.warning(
            "%s: %s bytes of its %s bytes of weights cannot be quantised to %s and are float32. Their rows are not "
            'whole blocks, or are stored as columns: dtype="float16" may take fewer bytes.',
            name,
            f"{dense:,}",
            f"{total:,}",
            form,
        )


def _warn_of_widened(name: str, device: Device, stored: Collection[Spec]) -> None:
    """Warn of weights in a block format that the device does not store, with their bytes."""
    wide = [spec for spec in stored if device.stored_as(spec) is not spec]
    if wide:
        logger.warning(
            "%s: the %s device does not store weights in %s, so %s bytes of them are widened to %s bytes of float32.",
            name,
            device.kind,
            ", ".join(sorted({spec.format for spec in wide if isinstance(spec, BlockSpec)})),
            f"{sum(spec.nbytes for spec in wide):,}",
            f"{sum(device.stored_as(spec).nbytes for spec in wide):,}",
        )


def _warn_of_requantized(name: str, formats: Mapping[str, str], stored: Mapping[str, Spec]) -> None:
    """Warn of weights that the file has in one block format, and that are quantised to another one."""
    again = sorted(
        {
            f"{formats[each]} to {spec.format}"
            for each, spec in stored.items()
            if isinstance(spec, BlockSpec) and formats[each] in BLOCKS and formats[each] != spec.format
        }
    )
    if again:
        logger.warning(
            "%s: weights that are quantised in the file are quantised again, from %s, which loses accuracy. dtype=None "
            "keeps them as they are.",
            name,
            ", ".join(again),
        )


def _warn_of_untied(name: str, architecture: Architecture, weights: Mapping[str, Tensor]) -> None:
    """Warn of weights that the config ties but the file stores with different values, as `transformers` does."""
    if not getattr(architecture.config, "tie_word_embeddings", False):
        return
    tied = [pair for names in architecture.names for pair in names.tied.items()]
    for other, parameter in tied:
        pair = [weights[each].node.storage for each in (other, parameter) if each in weights]
        if len(pair) == 2 and pair[0] is not pair[1]:
            logger.warning(
                "%s: config.json ties %s to %s, but the file stores both with different values, so they are not tied. "
                "Set tie_word_embeddings to false.",
                name,
                other,
                parameter,
            )


async def open_checkpoint(
    source: Source, stack: AsyncExitStack, report: Reporter
) -> tuple[Architecture, list[Shard], Source, SentenceUse]:
    """Open the files of a model.

    Returns the architecture, the tensors to read from each weights file, the source of the tokenizer, and the prompts.
    """
    gguf: WeightsFile | None = None
    rope_factors: tuple[float, ...] = ()
    if isinstance(source, GgufSource):
        report("initiate", source.name)
        report("download", f"{source.folder.name}/{source.file}")
        gguf, rope_factors = await open_gguf(source, stack)
    else:
        report("initiate", f"{source.name}/config.json")
    try:
        config = await read_json(source, "config.json")
    except FileMissingError:
        await _name_another_kind(source)
        raise
    file, kind = f"{source.name}/config.json", config.get("model_type")
    if not isinstance(kind, str):
        raise InvalidWeights(file, "model_type, the name of the architecture, is missing: use the model's config.json")
    family = FAMILIES.get(kind)
    if family is None:
        raise UnsupportedModel(kind, FAMILIES)
    base, sources = None, [source]
    if family.base is not None:
        sources.insert(0, source.sibling(family.base(config, file)))
        base = Checkpoint(await read_json(sources[0], "config.json"), f"{sources[0].name}/config.json")
    async with beside(_sentence(source, config)) as reading:
        weights = [[gguf]] if gguf else [await _weights(each, stack, report) for each in sources]
    sentence, use = reading.result()
    if (quantization := quantization_of(config, file)) is not None:
        for each in weights[-1]:
            compose(each, quantization)
        config = {name: value for name, value in config.items() if name != "quantization_config"}
        if quantization.rounds:
            logger.warning(
                '%s: quantization_config asks to round activations, which is ignored: precision="exact" rounds none, '
                '"fast" those that the device multiplies in int8',
                source.name,
            )
    names = frozenset(entry.name for each in weights[-1] for entry in each.header.entries)
    options = await read_optional_json(source, "generation_config.json") if family.generates else None
    architecture = family.build(
        Checkpoint(config, file, names, sentence, options, base, is_gguf=gguf is not None, rope_factors=rope_factors)
    )
    shards: list[Shard] = []
    for number, mapping in enumerate(architecture.names):
        opened = await _weights(source, stack, report, mapping.folder) if mapping.folder else weights[number]
        stored = {name: param.shape for name, param in architecture.manifest.items() if param.checkpoint == number}
        shards += match(opened, stored, mapping)
    return architecture, shards, sources[0], use


async def _sentence(source: Source, config: Mapping[str, Any]) -> tuple[Sentence, SentenceUse]:
    """Read the modules after the encoder of a sentence-transformers folder; the default is the normalized mean."""
    if not any(name.endswith("Model") for name in architectures(config, f"{source.name}/config.json")):
        return Sentence(), SentenceUse()
    return await read_sentence(source)


async def _name_another_kind(source: Source) -> None:
    """Raise InvalidWeights if a folder without a model's files contains files of another known kind."""
    if source.name.lower().endswith((".safetensors", ".gguf", ".onnx", ".bin", ".pt", ".json")):
        raise InvalidWeights(
            source.name, "this is the name of a file: pass the folder that contains it and config.json"
        )
    for file in source.files_in(""):
        if is_gguf_file(file):
            name = f"{source.name}/{file.lstrip('/')}"
            raise InvalidWeights(name, "the folder contains a GGUF file: pass its own address, which ends in .gguf")
    if await source.exists(ADAPTER_FILE):
        raise InvalidWeights(
            f"{source.name}/{ADAPTER_FILE}", "the folder contains an adapter, not a model: load its base model"
        )
    await refuse_other_formats(source)


async def _weights(source: Source, stack: AsyncExitStack, report: Reporter, folder: str = "") -> list[WeightsFile]:
    """Open the weights files of a checkpoint: one, or the shards that ``model.safetensors.index.json`` lists.

    ``folder`` is the folder of a sentence-transformers module, which has one file.
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
        raise InvalidWeights(f"{source.name}/{INDEX_FILE}", "weight_map must be an object of tensor and file names")
    long = max(table.values(), key=len)
    if len(long) > MAX_NAME:
        raise InvalidWeights(
            f"{source.name}/{INDEX_FILE}", f"{quoted(long)} is longer than the {MAX_NAME} characters of a file name"
        )
    count = len(set(table.values()))
    if count > MAX_FILES:
        raise InvalidWeights(f"{source.name}/{INDEX_FILE}", f"{count:,} files are over the limit of {MAX_FILES:,}")
    files = []
    for name in sorted(set(table.values())):
        report("download", f"{source.name}/{name}")
        file = await stack.enter_async_context(await WeightsFile.open(source, name))
        await file.pause()  # read the headers of the other files first
        files.append(file)
    held = {entry.name: file.file for file in files for entry in file.header.entries}
    wrong = sorted(name for name in held.keys() | table.keys() if held.get(name) != table.get(name))
    if wrong:
        raise InvalidWeights(
            f"{source.name}/{INDEX_FILE}",
            f"{len(wrong)} tensors are not in the file that weight_map names: {', '.join(map(shown, wrong[:5]))}"
            + (" ..." if len(wrong) > 5 else ""),
        )
    return files


async def _tokenizer(manager: TensorSharingManager, source: Source | None) -> tuple[Tokenizer | None, str]:
    """Open the tokenizer of ``source``, or return None and the reason. Tokenizers of equal files share one engine."""
    if source is None:
        return None, "it was loaded without one"
    if not IN_BROWSER:
        return None, "tokenizers run in JavaScript, which this Python does not have"
    try:
        return await Tokenizer.from_source(source, shared=manager.tokenizers), ""
    except FileMissingError as error:
        return None, str(error)


async def _processor(source: Source, model_type: str) -> ImageProcessor | None:
    """Read the image processor, if the folder has one."""
    file = "preprocessor_config.json"
    config = await read_optional_json(source, file)
    return None if config is None else ImageProcessor.of(config, f"{source.name}/{file}", model_type)
