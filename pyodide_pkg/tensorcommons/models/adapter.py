"""Adapters: small changes of a loaded model, chosen by each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.base import Spec
from ..errors import ShapeMismatch, TensorCommonsError, TensorReleased, quoted, shown
from ..tensor import Tensor
from .adapter_base import Base
from .adapter_layout import Layout
from .adapter_merge import merged
from .adapter_set import AdapterSet


class Adapter:
    """An adapter that :meth:`Model.load_adapter` loaded. Its name selects it in calls: ``model(..., adapter="fr")``.

    ``name`` is that name, and ``model`` the base. ``weight_bytes`` are the bytes of its own weights; ``is_unloaded`` is
    true after :meth:`unload`, and if the model was unloaded.

    >>> import json
    >>> module, rng = "base_model.model.encoder.layer.5.output.dense", np.random.default_rng(1)
    >>> down, up = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 1536), (384, 4)))
    >>> table = {
    ...     f"{module}.lora_A.weight": {"dtype": "F32", "shape": [4, 1536], "data_offsets": [0, 24576]},
    ...     f"{module}.lora_B.weight": {"dtype": "F32", "shape": [384, 4], "data_offsets": [24576, 30720]},
    ... }
    >>> header = json.dumps(table).encode()
    >>> config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["output.dense"]}
    >>> files = {
    ...     "adapter_config.json": json.dumps(config).encode(),
    ...     "adapter_model.safetensors": len(header).to_bytes(8, "little") + header + down.tobytes() + up.tobytes(),
    ... }
    >>> manager = tc.TensorSharingManager(max_memory_mb=256)
    >>> model = await tc.from_pretrained("./models/all-MiniLM-L6-v2", manager=manager)
    >>> adapter = await model.load_adapter(files, "fr")
    >>> adapter, model.adapters, adapter.weight_bytes
    (<Adapter fr of all-MiniLM-L6-v2>, ['fr'], 30724)
    >>> ids = np.array([[101, 1996, 4937, 102]] * 2)
    >>> outputs = await model(input_ids=ids, adapter=["fr", None])
    >>> rows = await outputs["last_hidden_state"].read()
    >>> bool((rows[0] == rows[1]).any())
    False
    >>> merged = await adapter.merge()
    >>> merged
    <Model all-MiniLM-L6-v2-fr on cpu>
    >>> adapter.unload()
    >>> manager.close()
    """

    def __init__(
        self, name: str, model: Base, layout: Layout, tensors: Mapping[str, Tensor], scales: Mapping[float, Tensor]
    ) -> None:
        self.name = name
        self.model = model
        self.layout = layout
        self.tensors = dict(tensors)
        self._scales = dict(scales)
        self.is_unloaded = False

    def __repr__(self) -> str:
        return f"<Adapter {self.name} of {self.model.name}{', unloaded' if self.is_unloaded else ''}>"

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights, on the device or evicted."""
        storages = {tensor.node.storage for tensor in (*self.tensors.values(), *self._scales.values())}
        return sum(storage.nbytes for storage in storages if storage is not None)

    @property
    def specs(self) -> dict[str, Spec]:
        """Shape and dtype of its tensors, by the names under which the model holds them."""
        return {held_name(self.name, name): tensor.spec for name, tensor in self.tensors.items()}

    def scale(self, value: float) -> Tensor:
        """Return the tensor (1,) of a scale."""
        return self._scales[value]

    def moved(self, weights: Mapping[str, Tensor]) -> None:
        """Use the tensors on another device: ``weights``, by the names under which the model holds them."""
        for name, tensor in self.tensors.items():
            self.tensors[name] = weights.get(held_name(self.name, name), tensor)
        for value, tensor in self._scales.items():
            self._scales[value] = weights.get(held_name(self.name, scale_name(value)), tensor)

    def unload(self) -> None:
        """Release its weights; those that others hold stay on the device. Safe to call twice."""
        if not self.is_unloaded:
            self.model.forget_adapter(self)
            self.closed()

    def closed(self) -> None:
        """Mark the adapter as unloaded, after its weights were released."""
        self.is_unloaded = True
        self.tensors.clear()
        self._scales.clear()

    async def merge(self) -> Any:
        """Return a :class:`Model` of the base's weights with the adapter's changes added.

        Weights that do not change are shared with the base. Those that change have the dtype of the base; a
        quantised matrix becomes float32, since to quantise it again would change the results. The model is called
        "base-adapter" and lives on its own: neither the base nor the adapter has to stay loaded.

        Raises:
            TensorCommonsError: the adapter changes one of two uses of a tied weight.
            TensorReleased: the adapter or the model was unloaded.
            MemoryBudgetError: the changed weights do not fit.
        """
        if self.is_unloaded:
            raise TensorReleased(f"adapter {self.name} was unloaded; load it again with load_adapter()")
        return await merged(self.model, self)


def scale_name(value: float) -> str:
    """Return the name of the tensor of a scale."""
    return f"scale {value!r}"


def held_name(adapter: str, tensor: str) -> str:
    """Return the name under which a model holds a tensor of an adapter."""
    return f"adapter {adapter}: {tensor}"


@dataclass(frozen=True)
class Chosen:
    """The adapters of one call. ``slots`` has for each row the number of its adapter in the set, from 1; 0 is the base.

    Without ``slots`` the one adapter of the set applies to all rows.
    """

    adapters: AdapterSet
    slots: tuple[int, ...] = ()

    def repeated(self, copies: int) -> Chosen:
        """Return the choice if each row becomes ``copies`` consecutive rows."""
        return Chosen(self.adapters, tuple(slot for slot in self.slots for _ in range(copies)))


def chosen(model: Base, asked: Any, rows: int) -> Chosen | None:
    """Return the adapters that ``asked`` selects: a name, an adapter, None, or a list of these, one for each row.

    None is the base. ``rows`` is the number of rows of the batch.

    Raises:
        TensorCommonsError: no adapter of the model has that name.
        ShapeMismatch: a list has another number of entries than the batch has rows.
    """
    if isinstance(asked, np.ndarray):
        asked = asked.tolist()
    if not isinstance(asked, (list, tuple)):
        return None if asked is None else Chosen(AdapterSet((adapter_of(model, asked),)))
    if len(asked) != rows:
        raise ShapeMismatch(f"{model.name}: adapter has {len(asked)} entries for {rows} rows: pass one for each row")
    each = [None if one is None else adapter_of(model, one) for one in asked]
    if all(one is each[0] for one in each):
        return None if not each or each[0] is None else Chosen(AdapterSet((each[0],)))
    used = [one for one in model.loaded_adapters() if any(one is other for other in each)]
    return Chosen(AdapterSet(tuple(used), by_row=True), tuple(_slot(used, one) for one in each))


def _slot(used: Sequence[Adapter], one: Adapter | None) -> int:
    return 0 if one is None else 1 + used.index(one)


def adapter_of(model: Base, asked: Any) -> Adapter:
    """Return the adapter that ``asked`` is or names. Raises TensorCommonsError if the model does not have it."""
    loaded: Sequence[Adapter] = model.loaded_adapters()
    for adapter in loaded:
        if asked is adapter or (isinstance(asked, str) and asked == adapter.name):
            return adapter
    if isinstance(asked, Adapter):
        raise TensorCommonsError(f"{asked!r} is not loaded for {model.name}")
    if not isinstance(asked, str):
        raise TensorCommonsError(
            f"adapter must be a name, None, or a list with one of these for each row, not {quoted(asked)}"
        )
    names = shown(", ".join(each.name for each in model.loaded_adapters())) or "none"
    raise TensorCommonsError(f"{model.name} has no adapter {quoted(asked)}; adapters: {names}")
