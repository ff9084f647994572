"""The one policy for devices that are lost while they are in use.

Work whose device was lost is done again from its start: on the same device, opened again, until it was lost
:data:`ATTEMPTS` times in this work or does not come back. Then it is given up, and the caller decides what takes its
place: another device for the models of a run, the next fallback for a part of a graph, the origin of bytes that are
read. Nested work counts the losses of its own devices only, so attempts do not multiply.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from ..errors import DeviceLost, DeviceUnavailable
from .device import Device

T = TypeVar("T")
ATTEMPTS = 3  # losses of one device in one piece of work after which it is given up


async def surviving(
    work: Callable[[], Awaitable[T]],
    devices: Callable[[], Iterable[Device]],
    replace: Callable[[Device], Awaitable[bool]],
) -> T:
    """Do ``work``, again for every loss of one of its ``devices``; see the module's policy.

    ``devices`` gives those of the next attempt, which are open when it begins. ``replace`` puts something in the place
    of a device that was given up, and returns whether it could.

    Raises what ``work`` raises, and DeviceLost or DeviceUnavailable where nothing takes a device's place.
    """
    losses: dict[Device, int] = {}
    while True:
        before = {device: device.losses for device in devices()}
        try:
            for device in before:
                if device.backend.is_lost:
                    await device.recover()
            return await work()
        except (DeviceLost, DeviceUnavailable) as error:
            lost = [device for device, count in before.items() if device.backend.is_lost or device.losses != count]
            for device in lost:
                losses[device] = losses.get(device, 0) + 1
                if losses[device] < ATTEMPTS and isinstance(error, DeviceLost):
                    continue  # the next attempt opens it again
                device.give_up()
                if losses[device] > ATTEMPTS or not await replace(device):
                    raise
            if not lost:
                raise
