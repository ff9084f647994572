"""Loading of an adapter: its files are matched with the loaded model, then its tensors loaded as those of models are.

They are held under a name of their own until all are on the model's device, so that a failure or a cancellation leaves
nothing, and a move of the model meanwhile moves what it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..bridge.runtime import Slices
from ..dtypes import float32
from ..errors import InvalidWeights, TensorCommonsError, TensorReleased, quoted
from ..graph.needs import Need
from ..hub.cached import CachedSource
from ..hub.config import read_json
from ..hub.open_cache import CacheSpec, open_cache
from ..hub.source import Source
from ..hub.sources import cached, open_source
from ..hub.streams import FileMissingError
from ..hub.weights import WeightsFile
from ..tensor import Tensor
from .adapter import Adapter, held_name, scale_name
from .adapter_base import Base
from .adapter_config import FILE, LoraConfig
from .adapter_layout import Layout, layout_of
from .checkpoint_match import add_one
from .weight_loader import Progress, Reporter, Shard, WeightLoader

WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
LONGEST = 80  # characters of an adapter's name


async def load_adapter(
    model: Base,
    source: str | bytes | Mapping[str, bytes],
    name: str | None,
    progress_callback: Progress | None,
    cache: CacheSpec,
    token: str | None,
) -> Adapter:
    """Load an adapter for ``model``; see :meth:`Model.load_adapter`."""
    report = Reporter(progress_callback)
    files = open_source(source, token=token)
    name = checked_name(model, files.name[:LONGEST] if name is None else name)
    opened = await open_cache(cache)
    while True:
        adapter = await _loaded(model, cached(files, opened), name, report)
        if adapter is not None:
            report("ready", files.name, report.total, report.total)
            model.manager.changed()
            return adapter


def checked_name(model: Base, name: object) -> str:
    """Return the name of a new adapter. Raises TensorCommonsError unless it is a text that no other one has."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST:
        raise TensorCommonsError(f"adapter_name must be 1 to {LONGEST} characters, not {quoted(name)}")
    if ": " in name:  # ends the name of the adapter in those of its weights
        raise TensorCommonsError(f'adapter_name must not contain ": ", as {quoted(name)} does')
    if name in model.adapters:
        raise TensorCommonsError(f"{model.name} has an adapter {quoted(name)}: unload it first, or pass adapter_name")
    return name


async def _loaded(model: Base, files: Source, name: str, report: Reporter) -> Adapter | None:
    """Load an adapter on the device on which the model is; None if the model moved meanwhile."""
    manager, device = model.manager, model.device
    holder = manager.add_model(f"{model.name} (adapter {name})", device)
    try:
        async with AsyncExitStack() as stack:
            if isinstance(files, CachedSource):
                await stack.enter_async_context(files.comparing((FILE, WEIGHTS)))
            report("initiate", f"{files.name}/{FILE}")
            config = LoraConfig.of(await read_json(files, FILE), f"{files.name}/{FILE}")
            report("download", f"{files.name}/{WEIGHTS}")
            try:
                weights = await stack.enter_async_context(await WeightsFile.open(files, WEIGHTS))
            except FileMissingError:
                if await files.exists(PICKLE):
                    raise InvalidWeights(
                        f"{files.name}/{PICKLE}",
                        "a pickle can run any code when it is read: save the adapter as safetensors",
                    ) from None
                raise
            layout = layout_of(model.architecture, model.present_specs(), config, weights.header)
            add_one(weights, layout.from_one)
            names = {tensor: held_name(name, tensor) for tensor in layout.specs}
            specs = {names[tensor]: spec for tensor, spec in layout.specs.items()}
            loader = WeightLoader(manager, device, holder, [Shard(weights, names)], report)
            loader.read_ahead(specs)
            loaded = await loader.load(specs, lambda: _all_of(specs))
        scales = {value: await _scale(model, holder, device, name, value) for value in _scales(layout)}
        tensors = {tensor: loaded[held] for tensor, held in names.items()}
        own = {param: weight.data.node.storage for param, weight in model.weights().items()}
        layout.saved = {  # PEFT stores embeddings that did not change, too
            (param, use): tensor
            for (param, use), tensor in layout.saved.items()
            if tensors[tensor].node.storage is not own[param]
        }
        storages = [storage for each in tensors.values() if (storage := each.node.storage) is not None]
        await device.backend.check([storage.handle for storage in storages if storage.is_resident])
        adapter = Adapter(name, model, layout, tensors, scales)
        async with manager.adopting(model, holder) as is_there:
            if not is_there:
                return None
            checked_name(model, name)
            model.add_adapter(adapter)
        return adapter
    finally:
        manager.abandon_model(holder)


def _scales(layout: Layout) -> list[float]:
    return sorted({change.scale for change in layout.changes.values()})


def _all_of(specs: Mapping[str, Spec]) -> Slices[Need]:
    """Return the need of an adapter: all of its weights at once."""
    yield
    name, spec = max(specs.items(), key=lambda item: item[1].nbytes)
    total = sum(each.nbytes for each in specs.values())
    return Need(total, total, name, spec.nbytes)


async def _scale(model: Base, holder: str, device: Device, name: str, value: float) -> Tensor:
    """Store a scale on the device, and have ``holder`` hold it."""
    manager = model.manager
    spec = Spec((1,), float32)
    await manager.residency.make_room(spec.nbytes)
    manager.check_open()
    if holder not in manager.models:
        raise TensorReleased(f"the tensors of {holder} were released while it was loading")
    entry = manager.registry.intern(device, memoryview(np.array([value], np.float32).view(np.uint8)), spec)
    entry.hold(holder, held_name(name, scale_name(value)))
    return Tensor.of_storage(entry.storage, entry.spec)
