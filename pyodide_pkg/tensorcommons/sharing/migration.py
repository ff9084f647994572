"""Migration of a model: its weights are copied to another device, each content once, all of them or none.

The copies are held under a name of their own until all are complete. Then, in one step, the model's holds move from the
originals to the copies; a weight without a holder on the old device is freed there. A failure or a cancellation before
that step ends the holds of the copies and changes nothing else: weights that were evicted meanwhile are restored by
their next use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias
from weakref import WeakMethod, ref

import numpy as np

from ..backends.base import BlockSpec, Spec
from ..backends.device import Device
from ..errors import DeviceLost, DeviceUnavailable, TensorReleased
from ..graph.needs import least_need
from ..graph.views import resolve_view
from ..tensor import Tensor
from .contract import Movable
from .packed import Chunks, Packed, identity_of_chunks, widened
from .provenance import Origin, content_label
from .registry import REGISTERED, Entry, Registry
from .residency import Residency
from .transfer import copied, cross

Progress: TypeAlias = Callable[[int, int], None]


Run: TypeAlias = Callable[..., Awaitable[list[dict[str, Tensor]]]]


async def bring(
    registry: Registry, residency: Residency, moving: Movable, target: Device, on_progress: Progress
) -> dict[str, Entry]:
    """Have ``moving`` hold on ``target`` what it holds elsewhere. Return the entries there by name.

    Weights in blocks that ``target`` does not store are widened, and widened ones become blocks where it does. Tensors
    that were registered by name stay. ``on_progress(done, total)`` is called with the bytes; those that are on
    ``target`` already are done at once.

    Raises:
        DeviceUnavailable: the target was lost and does not come back.
        MemoryBudgetError: the weights do not fit, or (DeviceMemoryError) the device has no memory for one.
        TensorReleased: the model was unloaded meanwhile. In all cases the model holds what it held.
    """
    model = moving.name
    await target.recover()
    leaving = _weights(registry, model, target)
    stored, coming = moving.stored_specs, dict[tuple[Entry, Spec], set[str]]()
    for entry, names in leaving.items():
        for name in names:
            coming.setdefault((entry, _spec_on(target, entry, stored.get(name, entry.spec))), set()).add(name)
    total = sum(spec.nbytes for _, spec in coming)
    found = [registry.find(target, entry.storage.identity) for entry, spec in coming if spec == entry.spec]
    there = [entry.storage for entry in found if entry is not None]
    await residency.check_streams(total, set(there), lambda: least_need.slices(target, moving.traces.probe().nodes))
    arriving = f"{model} (moving to {target.kind})"
    arrived: dict[str, Entry] = {}
    done = 0
    on_progress(done, total)
    try:
        for (entry, spec), names in coming.items():
            fresh = registry.find(target, entry.storage.identity) if spec == entry.spec else None
            if spec != entry.spec:
                fresh = await _converted(registry, residency, entry, target, spec)
            elif fresh is None or fresh.storage.state == "lost":
                fresh = await _brought(registry, residency, entry, target)
            for form, blocks in entry.packed.items() if spec == entry.spec else ():
                fresh.packed.setdefault(form, blocks)
            for name in names:
                arrived[name] = fresh
                fresh.hold(arriving, name)
            done += spec.nbytes
            on_progress(done, total)
        await target.backend.check([fresh.storage.handle for fresh in arrived.values()])
        if moving.is_unloaded or _weights(registry, model, target) != leaving:  # another may have its name by now
            raise TensorReleased
        for source in {entry.storage.device for entry in leaving}:  # no wait from here on
            registry.copy_origins(target, source)
        for entry, names in leaving.items():
            for name in names:
                arrived[name].hold(model, name)
                entry.release(model, name)
            registry.drop_if_unused(entry)
        return arrived
    except TensorReleased:
        raise TensorReleased(f"the tensors of {model} were released while it was moving") from None
    finally:
        registry.release(arriving)


async def _brought(registry: Registry, residency: Residency, entry: Entry, target: Device) -> Entry:
    """Copy the content of ``entry`` to ``target``: rented where that works, else through the host. Return the entry."""
    storage, origin = entry.storage, entry.storage.origin
    known = registry.find(target, storage.identity)
    if known is not None:  # it was lost with the device
        if origin is not None:
            known.storage.regain(origin)
        else:
            data = await storage.content()
            if known.storage.state == "lost":
                known.storage.revive(data)
        return known
    if not storage.device.is_gone:
        with suppress(DeviceUnavailable):  # then the bytes come from their copy or origin
            await storage.device.recover()
    await residency.make_room(storage.nbytes)  # this may evict the storage itself: source and copy need not fit at once
    copy, _ = await cross(storage, target, "weights", entry.spec, storage.identity, origin)
    known = registry.find(target, copy.identity)
    if known is not None:  # added meanwhile
        copy.release()
        return known
    fresh = Entry(copy, entry.spec, content=entry.content, packed=dict(entry.packed))
    registry.add(fresh)
    return fresh


def _spec_on(target: Device, entry: Entry, stored: Spec) -> Spec:
    """Return the spec on ``target`` of what ``entry`` holds, for a weight whose model has it as ``stored``."""
    spec = target.stored_as(stored)
    is_known = spec == entry.spec or not isinstance(spec, BlockSpec) or spec.format in entry.packed
    return spec if is_known else target.stored_as(entry.spec)


async def _converted(registry: Registry, residency: Residency, entry: Entry, target: Device, spec: Spec) -> Entry:
    """Bring ``entry`` to ``target`` in another form: widened from its blocks, or as the blocks that it was."""
    storage, packed = entry.storage, dict(entry.packed)
    if not storage.device.is_gone:
        with suppress(DeviceUnavailable):  # then the bytes come from their copy or origin
            await storage.device.recover()
    if isinstance(spec, BlockSpec):
        blocks = packed.pop(spec.format)
        origin, identity = blocks.origin, await blocks.identity()
        chunks: Chunks = origin.chunks
    else:
        assert isinstance(entry.spec, BlockSpec)
        again = storage.origin or Origin.of_bytes(bytes(await storage.content()))
        packed[entry.spec.format] = Packed(entry.spec, again, entry.content)
        origin = Origin(partial(widened, entry.spec, again.chunks), again.is_local)
        chunks = partial(widened, entry.spec, storage.chunks)
        identity = await identity_of_chunks(chunks, content_label(spec.shape, spec.dtype.name))
    known = registry.find(target, identity)
    if known is None:
        await residency.make_room(spec.nbytes)
        copy = await copied(chunks(), spec.nbytes, target, "weights", spec, identity, origin)
        known = registry.find(target, identity)
        if known is None:
            known = Entry(copy, spec, content=identity)
            registry.add(known)
        else:  # added meanwhile
            copy.release()
    known.storage.regain(origin)
    for form, blocks in packed.items() if not isinstance(spec, BlockSpec) else ():
        known.packed.setdefault(form, blocks)
    return known


def _weights(registry: Registry, model: str, target: Device) -> dict[Entry, set[str]]:
    """List what ``model`` holds on other devices than ``target``, with the names; not what was registered by name."""
    found: dict[Entry, set[str]] = {}
    for name, entry in registry.held_by(model).items():
        if entry.storage.device is not target and not name.startswith(REGISTERED):
            found.setdefault(entry, set()).add(name)
    return found


def make_recomputable(run: Run, model: Movable, inputs: Mapping[str, Any], answer: Mapping[str, Tensor]) -> None:
    """Have ``run`` compute an answer again that is lost with its device before it is read."""
    if [value for value in inputs.values() if isinstance(value, Tensor)]:  # what they show may be lost as well
        return
    kept = {name: np.array(value) for name, value in inputs.items()}  # the caller may change its arrays
    who = WeakMethod(run), ref(model)
    for name, tensor in answer.items():
        found = resolve_view(tensor.node)
        storage = found[0].storage if found is not None else None
        if storage is not None:
            storage.recompute_by(partial(_again, *who, kept, name))


async def _again(run: WeakMethod[Run], model: ref[Movable], inputs: Mapping[str, Any], name: str) -> memoryview:
    again, computed_by = run(), model()
    if again is None or computed_by is None:
        raise DeviceLost("the tensor's bytes were lost with their device, and the model that computed them is gone")
    ((tensor,),) = [answer.values() for answer in await again([(computed_by, inputs)], [[name]])]
    await tensor.realize()
    found = resolve_view(tensor.node)
    assert found is not None and found[0].storage is not None
    return await found[0].storage.content()
