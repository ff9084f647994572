"""Merging: the changes of an adapter are added to the weights of its base, which gives a model of ordinary weights."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..backends.base import BlockSpec
from ..backends.device import Device
from ..errors import TensorCommonsError, TensorReleased, quoted
from ..formats import DENSE
from ..nn import Param, Weight
from ..ops import astype
from ..tensor import Tensor
from .adapter_base import Base
from .adapter_layout import Use
from .adapter_set import Loaded, dense_change, dense_of


class Merging(Loaded, Protocol):
    """A loaded adapter that may be unloaded meanwhile."""

    is_unloaded: bool


async def merged(base: Base, adapter: Merging) -> Any:
    """Return the model of ``base`` with ``adapter``; see :meth:`Adapter.merge`."""
    manager = base.manager
    places = (*adapter.layout.changes, *adapter.layout.saved)
    tied = {name for names in base.architecture.names for name in names.tied.values()}
    for param in {param for param, _ in places}:
        _check_uses(adapter, param, is_tied=param.name in tied)
    while True:
        device = base.device
        name = manager.add_model(f"{base.name}-{adapter.name}", device)
        try:
            weights = base.weights()
            for param in dict.fromkeys(param for param, _ in places):
                weights[param] = await _stored(base, adapter, device, name, param, weights[param])
            async with manager.settled():
                if base.is_unloaded or adapter.is_unloaded:
                    raise TensorReleased(f"adapter {adapter.name} was unloaded while it was merged")
                if base.device is device and name in manager.models:
                    held = manager.registry.held_by(base.name)
                    for param in weights:
                        if all(param is not other for other, _ in places):
                            for each in {param.name, f"{param.name}.order"} & held.keys():
                                held[each].hold(name, each)
                    model = base.with_weights(name, device, weights)
                    manager.changed()
                    return model
            manager.abandon_model(name)  # the base moved meanwhile
        except BaseException:
            manager.abandon_model(name)
            raise


def _check_uses(adapter: Loaded, param: Param, *, is_tied: bool) -> None:
    """Raise TensorCommonsError if a weight of two uses, as tied embeddings are, would have to be two weights."""
    changes = [adapter.layout.changes.get((param, use)) for use in _uses(is_tied=is_tied)]
    saved = [adapter.layout.saved.get((param, use)) for use in _uses(is_tied=is_tied)]
    if is_tied and (any(changes) or len(set(saved)) > 1):
        raise TensorCommonsError(
            f"adapter {quoted(adapter.name)} changes one use of {quoted(param.name)}, which embeddings and the head "
            "have in common, so it cannot be merged: pass adapter= in calls instead"
        )


def _uses(*, is_tied: bool) -> tuple[Use, ...]:
    return ("product", "table") if is_tied else ("product", "table", "tensor")


async def _stored(base: Base, adapter: Loaded, device: Device, model: str, param: Param, weight: Weight) -> Weight:
    """Compute a changed weight, and have ``model`` hold it."""
    manager, layout = base.manager, adapter.layout
    uses = _uses(is_tied=False)
    names = [name for use in uses if (name := layout.saved.get((param, use))) is not None]
    spec = weight.data.spec
    spec = DENSE["float32"].spec(param.shape) if isinstance(spec, BlockSpec) else spec
    data = adapter.tensors[names[0]] if names else dense_of(weight, param)
    for use in uses:
        if (change := layout.changes.get((param, use))) is not None:
            data = astype(data, "float32") + dense_change(adapter, param, use, change)
    values = np.ascontiguousarray(await astype(data, spec.dtype).read())
    await manager.residency.make_room(spec.nbytes)
    manager.check_open()
    if model not in manager.models:
        raise TensorReleased(f"the tensors of {model} were released while an adapter was merged")
    entry = manager.registry.intern(device, memoryview(values.reshape(-1).view(np.uint8)), spec)
    entry.hold(model, param.name)
    return Weight(Tensor.of_storage(entry.storage, entry.spec), param.shape)
