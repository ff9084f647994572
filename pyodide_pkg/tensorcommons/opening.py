"""Open the devices of this browser, all at once, with a limit of time for each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from .backends.cpu.backend import CpuBackend
from .backends.current import return_cpu, take_cpu, use_devices
from .backends.device import Device
from .backends.kinds import KINDS
from .backends.select import Devices
from .backends.timeouts import OPEN_SECONDS, in_time
from .backends.webnn.backend import KIND as WEBNN
from .errors import DeviceUnavailable, TensorCommonsError, quoted, shown
from .ranking import rank


async def open_devices(
    prefer: Sequence[str] | None = None,
    *,
    webnn: str = "cpu",
    timeout: float = OPEN_SECONDS,  # noqa: ASYNC109 - one a device
) -> Devices:
    """Open the devices of this browser, all at once.

    ``prefer`` names those to open, in the order in which "auto" takes them. By default all are opened, and "auto" takes
    a hardware GPU, or without one, of the devices that take at most three times as long as the fastest, the first of
    WebNN, the CPU device and a software adapter of WebGPU; for models that generate text, the fastest. The measurement
    takes about half a second, at most another ``timeout``, and is kept for a week where the browser keeps files for the
    page. A device that is missing, or that does not answer within ``timeout`` seconds, is left out, with its reason.

    ``webnn`` is the requested device of WebNN: "cpu", "gpu", "npu", or "" for the browser's choice. Browsers do not
    report whether they follow the request.

    Raises:
        DeviceUnavailable: a name in ``prefer`` or ``webnn`` is not known, or no device could be opened.
        TensorCommonsError: ``prefer`` is not a list, or ``timeout`` not a number above 0.

    >>> devices = await tc.open_devices()
    >>> devices.choose().kind  # under CPython; in a browser also 'webgpu' or 'webnn'
    'cpu'
    """
    if isinstance(prefer, str) or not isinstance(prefer, (Iterable, type(None))):
        raise TensorCommonsError(f"prefer must be a list of kinds of devices, such as ['webgpu'], not {quoted(prefer)}")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise TensorCommonsError(f"timeout must be a number of seconds above 0, not {quoted(timeout)}")
    listed = list(KINDS if prefer is None else prefer)
    unknown = shown(", ".join(str(kind) for kind in listed if not isinstance(kind, str) or kind not in KINDS))
    if unknown or not listed:
        raise DeviceUnavailable(unknown or "any", f"the kinds of devices are {', '.join(KINDS)}")
    wanted = tuple(dict.fromkeys(listed))
    if webnn not in WEBNN.wishes:
        known = ", ".join(map(repr, WEBNN.wishes))
        raise DeviceUnavailable(WEBNN.name, f"it can be asked for {known}, not {quoted(webnn)}")
    wishes = {WEBNN.name: webnn}
    tasks = [asyncio.ensure_future(in_time(kind, _open(kind, wishes), timeout, Device.close)) for kind in wanted]
    try:
        await asyncio.wait(tasks)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        for answer in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(answer, Device):
                _give_up(answer)
        raise
    opened = [answer for answer in answers if isinstance(answer, Device)]
    missing = {kind: "it was not asked for" for kind in KINDS if kind not in wanted}
    for kind, answer in zip(wanted, answers, strict=True):
        if isinstance(answer, DeviceUnavailable):
            missing[kind] = answer.reason
        elif isinstance(answer, BaseException):
            for device in opened:
                _give_up(device)
            raise answer
    if not opened:
        raise DeviceUnavailable(", ".join(wanted), "; ".join(f"{kind}: {why}" for kind, why in missing.items()))
    devices = Devices(
        sorted(opened, key=lambda each: each.facts.rank) if prefer is None else opened, missing, by_facts=prefer is None
    )
    try:
        await devices.try_lending(timeout)
        if prefer is None:
            await rank(devices, timeout)
    except BaseException:
        for device in opened:
            _give_up(device)
        raise
    use_devices(devices)
    return devices


def _give_up(device: Device) -> None:
    """Close a device; the CPU device stays open for the tensors on it."""
    if device.kind == CpuBackend.kind:
        return_cpu(device)
    else:
        device.close()


async def _open(kind: str, wishes: Mapping[str, str]) -> Device:
    if kind == CpuBackend.kind:
        return take_cpu()
    return Device(await KINDS[kind].open(wishes.get(kind, "")))
