"""Transfer: a copy of a storage on another device, without the host where the two can lend each other their bytes.

WebNN lends a tensor to WebGPU where the browser can (:meth:`Device.lends_to`): while it is rented WebNN cannot use it,
one command copies it on the GPU, and it is given back. Everywhere else the bytes are read and written once. Both ways
are counted on the device that the copy is made on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext

from ..backends.base import BlockSpec, Spec
from ..backends.budget import Category
from ..backends.device import Device, Way
from ..bridge.byte_buffer import ByteBuffer
from ..errors import TensorCommonsError
from .lock import using
from .provenance import Origin
from .storage import Storage


async def cross(
    storage: Storage,
    device: Device,
    category: Category,
    spec: Spec,
    identity: str | None = None,
    origin: Origin | None = None,
) -> tuple[Storage, Way]:
    """Copy ``storage``, which holds a value of ``spec``, to ``device``. Return the copy and the way it went.

    Raises:
        TensorReleased, DeviceLost: the bytes are gone.
        MemoryBudgetError: the copy does not fit; nothing changed.
    """
    async with using([storage]):
        if not storage.is_resident:
            await device.budget.ensure((), storage.nbytes)
            chunks = storage.chunks()  # past its own device
            return await copied(chunks, storage.nbytes, device, category, spec, identity, origin), "host"
        await storage.ensure()
        await device.budget.ensure([storage], storage.nbytes)
        copy = await _rented(storage, device, category, spec)
        if copy is not None:
            device.count_crossing("rented", storage.nbytes)
            return Storage(device, copy, storage.nbytes, identity, category, origin), "rented"
        chunks = storage.device.chunks(storage.handle, storage.nbytes)
        return await copied(chunks, storage.nbytes, device, category, spec, identity, origin), "host"


async def copied(
    chunks: AsyncGenerator[ByteBuffer],
    nbytes: int,
    device: Device,
    category: Category,
    spec: Spec,
    identity: str | None = None,
    origin: Origin | None = None,
) -> Storage:
    """Make a storage of the ``nbytes`` of ``chunks`` on ``device``, for which the caller has made room.

    Raises MemoryBudgetError and what ``chunks`` raises.
    """
    copy, offset = Storage.reserve(device, nbytes, category, spec, identity, origin), 0
    try:
        with device.budget.arriving(nbytes):
            async with aclosing(chunks):
                async for block in chunks:
                    with block:
                        copy.fill(offset, block)
                        offset += block.nbytes
    except BaseException:
        copy.release()
        raise
    device.count_crossing("host", nbytes)
    return copy


async def _rented(storage: Storage, device: Device, category: Category, spec: Spec) -> int | None:
    """Copy while the tensor is rented. Return the handle of the copy; None where renting does not work."""
    source = storage.device
    lender, borrower = (source, device) if source.lends_to(device) else (device, source)
    is_whole = storage.nbytes % 4 == 0 and not isinstance(spec, BlockSpec)  # whole words, in one tensor of WebNN
    if not lender.lends_to(borrower) or not storage.nbytes or not is_whole:
        return None
    handle = device.allocate(storage.nbytes, category, spec)
    pair = (storage.handle, handle) if lender is source else (handle, storage.handle)
    try:
        with storage.rented() if lender is source else nullcontext():
            await lender.backend.lend(pair[0], borrower.backend, pair[1], storage.nbytes, give=lender is source)
    except BaseException as error:
        device.free(handle)
        if not isinstance(error, TensorCommonsError):
            raise
        lender.stop_lending(str(error))  # once is enough: from now on through the host
        return None
    return handle
