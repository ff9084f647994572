"""estimate_load: the cost of loading a model beyond what is loaded, from its config and the headers of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from ..backends.device import Device
from ..hub.open_cache import CacheSpec, open_cache
from ..hub.sources import cached, open_source
from ..shapes import size_of
from ..sharing.manager import TensorSharingManager
from .checkpoint_match import orders_of
from .decoder import product_of
from .loading import open_checkpoint
from .weight_loader import Conversion, Reporter, known_entry
from .weight_specs import check_dtype, formats_of, specs_of


@dataclass(frozen=True)
class LoadEstimate:
    """A model that is not loaded, and what loading it would cost. Sizes are bytes.

    ``model_type`` is the name of the architecture, ``tasks`` the pipelines that it supports, ``parameters`` the number
    of its numbers, and ``stored_formats`` their bytes in the files by dtype (the names of safetensors) or block format,
    such as "Q4_K". ``device`` is the kind of device that would be chosen.

    ``weight_bytes`` are the weights on the device. ``shared_bytes`` of them are there already, as weights of equal
    content. Content that was never read is unknown before it is loaded, so the true number may be larger:
    ``shareable_bytes`` counts the tensors, too, whose name, shape and dtype are those of a weight on the device.
    ``download_bytes`` are the bytes of weights that are neither on the device nor in local storage. Scratch memory,
    outputs and tokenizers are not included.

    >>> manager = tc.TensorSharingManager(max_memory_mb=256)
    >>> estimate = await tc.estimate_load("./models/splade-tiny", manager=manager)
    >>> "fill-mask" in estimate.tasks, estimate.new_bytes == estimate.weight_bytes
    (True, True)
    """

    name: str
    model_type: str
    tasks: tuple[str, ...]
    parameters: int
    stored_formats: Mapping[str, int]
    device: str
    weight_bytes: int
    shared_bytes: int
    shareable_bytes: int
    download_bytes: int

    @property
    def new_bytes(self) -> int:
        """Bytes that loading would add to the device, at most."""
        return self.weight_bytes - self.shared_bytes


async def estimate_load(
    source: str | bytes | Mapping[str, bytes],
    *,
    manager: TensorSharingManager,
    device: str | Device = "auto",
    dtype: str | None = None,
    cache: CacheSpec = "auto",
    token: str | None = None,
) -> LoadEstimate:
    """Return what ``from_pretrained`` with the same arguments would cost, without loading anything.

    Reads ``config.json``, the small files that select the architecture, and the headers of the weights files, which
    are then in the cache.

    Raises:
        DownloadError: a file is missing or its connection broke.
        InvalidWeights: a file is damaged, or lacks tensors that its config requires.
        UnsupportedModel: the architecture is not supported.
        DeviceMemoryError: the device, with "auto" each device, cannot hold the weights.
        DeviceUnavailable: the device is not available; the message has the reason.

    >>> manager = tc.TensorSharingManager(max_memory_mb=256)
    >>> estimate = await tc.estimate_load("./models/splade-tiny", manager=manager)
    >>> estimate.model_type, estimate.weight_bytes, estimate.shared_bytes
    ('bert', 17666792, 0)
    """
    check_dtype(dtype)
    files = open_source(source, token=token)
    files = cached(files, await open_cache(cache))
    async with AsyncExitStack() as stack:
        architecture, shards, _, _ = await open_checkpoint(files, stack, Reporter(None))
        wanted = specs_of(architecture.manifest, formats_of(shards), dtype)
        wanted |= (orders := orders_of(shards, wanted, architecture.manifest))
        target = manager.devices.decide_for(files.name, wanted, device, product_of(architecture)).device
        specs = {name: target.stored_as(spec) for name, spec in wanted.items()}
        held = [entry for entry in manager.registry if entry.storage.device is target]
        there = {(name, entry.spec) for entry in held for names in entry.names.values() for name in names}
        stored = Counter[str]()
        shared = shareable = download = 0
        for shard in shards:
            for entry in shard.entries:
                name = shard.wanted[entry.name]
                is_order = name in orders  # whose bytes in the file are counted with those of its matrix
                if not is_order:
                    stored[entry.dtype] += entry.nbytes
                spec = specs[name]
                conversion = Conversion(entry, wanted[name], spec, files.name)
                if known_entry(manager, target, shard.weights, conversion) is not None:
                    shared += spec.nbytes
                else:
                    shareable += spec.nbytes * ((name, spec) in there)
                    download += shard.weights.bytes_to_download(entry) if not is_order else 0
    return LoadEstimate(
        name=files.name,
        model_type=architecture.model_type,
        tasks=architecture.tasks,
        parameters=sum(size_of(param.shape) for param in architecture.manifest.values()),
        stored_formats=dict(stored),
        device=target.kind,
        weight_bytes=sum(spec.nbytes for spec in specs.values()),
        shared_bytes=shared,
        shareable_bytes=shared + shareable,
        download_bytes=download,
    )
