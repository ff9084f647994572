"""Writes to a registered tensor, copy on write: other names and models with the same bytes keep them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from .lock import using
from .registry import Entry, Registry
from .residency import Residency
from .shared_tensor import SharedTensor
from .storage import Storage

Pieces: TypeAlias = "Sequence[tuple[int, memoryview]]"  # byte offset, bytes


async def overwrite(
    registry: Registry, residency: Residency, tensor: SharedTensor, pieces: Pieces, content: str | None
) -> None:
    """Write ``pieces`` into ``tensor``, in place unless others have its bytes. ``content`` identifies the result.

    Raises TensorReleased for a tensor that was freed, ManagerClosed, MemoryBudgetError; the tensor is unchanged then.
    """
    async with tensor.writing:
        tensor.check()
        if tensor.is_alone:
            await _write_in_place(registry, tensor, pieces, content)
        else:
            await _write_apart(registry, residency, tensor, pieces, content)


async def _write_apart(
    registry: Registry, residency: Residency, tensor: SharedTensor, pieces: Pieces, content: str | None
) -> None:
    """Write a copy that becomes the tensor's own entry, in one step after everything that waits."""
    entry = tensor.entry
    raw = bytearray(tensor.nbytes)
    if content is None:
        raw[:] = memoryview(await tensor.read()).cast("B")
    for offset, piece in pieces:
        raw[offset : offset + piece.nbytes] = piece
    await residency.make_room(tensor.nbytes, [entry.storage])
    tensor.manager.check_open()
    tensor.check()
    storage = Storage.upload(entry.storage.device, memoryview(raw), "weights", spec=entry.spec)
    fresh = Entry(storage, entry.spec)
    registry.add(fresh)
    registry.rename(fresh, content)
    registry.drop_if_unused(tensor.take(fresh))


async def _write_in_place(registry: Registry, tensor: SharedTensor, pieces: Pieces, content: str | None) -> None:
    """Write bytes that nothing else has. Until it is done they cannot be found by their content."""
    entry, storage, before = tensor.entry, tensor.entry.storage, tensor.entry.content
    version = storage.version
    registry.rename(entry, None)
    try:
        if storage.state == "lost" and content is not None:
            ((_, whole),) = pieces
            storage.revive(whole)
        else:
            async with using([storage], [storage]):
                for offset, piece in pieces:
                    await storage.write(offset, piece)
    except BaseException:
        if storage.version == version and not tensor.is_freed:  # no byte was written
            registry.rename(entry, before)
        raise
    registry.rename(entry, content)
