"""The devices of this browser: which were opened, why one is missing, and which of them a model runs on.

``device="auto"`` decides from facts, in this order: a hardware GPU, WebNN, a GPU adapter that runs in software, NumPy.
A wish for a kind, a pin, or an order of one's own comes before the facts, and what a model needs before all of them:
:meth:`Devices.decide_for`. Whatever decided can be asked for in one sentence: :meth:`Devices.explain`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import DeviceMemoryError, DeviceUnavailable, check_listener, quoted, shown
from .base import Spec
from .cpu import CpuBackend
from .current import take_cpu, use_devices
from .device import Device
from .kinds import KINDS
from .timeouts import OPEN_SECONDS, in_time
from .webnn.backend import KIND as WEBNN

logger = logging.getLogger("tensorcommons")


@dataclass(frozen=True)
class Decision:
    """A device, and in a few words why it."""

    device: Device
    why: str


class Devices:
    """The devices that were opened, best first. A kind that is ``None`` has its reason in ``missing``."""

    def __init__(self, opened: Sequence[Device], missing: dict[str, str], *, by_facts: bool = False) -> None:
        self.opened = tuple(opened)
        self.missing = MappingProxyType(missing)
        self._by_facts = by_facts  # else in the order that the caller gave
        self._pinned: Device | None = None
        by_kind = {device.kind: device for device in opened}
        self.webgpu: Device | None = by_kind.get("webgpu")
        self.webnn: Device | None = by_kind.get("webnn")
        self.cpu: Device | None = by_kind.get("cpu")
        if self.webnn is not None and not self.webnn.fallbacks:
            self.webnn.fall_back_to(each for each in opened if each is not self.webnn)

    def __repr__(self) -> str:
        return f"<Devices {', '.join(device.kind for device in self.opened)}; missing: {dict(self.missing)}>"

    def pin(self, kind: str | None) -> None:
        """Have "auto" mean ``kind`` from now on; ``None`` leaves it to the facts again. Loaded models stay.

        Raises:
            DeviceUnavailable: that kind is missing; what was pinned before stays.
        """
        self._pinned = None if kind is None else self._named(kind)

    def decide(self, wish: str | Device = "auto") -> Decision:
        """The device for ``wish`` (a kind, a Device, or "auto"), and why.

        Raises:
            DeviceUnavailable: that kind is missing, with the reason found when it was opened, or unknown.
        """
        if isinstance(wish, Device):
            if wish not in self.opened:
                raise DeviceUnavailable(wish.kind, "it is not one of the devices that were opened here")
            return Decision(wish, "it was asked for")
        if wish != "auto":
            return Decision(self._named(wish), "it was asked for")
        if self._pinned is not None and not self._pinned.is_gone:
            return Decision(self._pinned, "it is pinned")
        here = [device for device in self.opened if not device.is_gone]
        if not here:
            raise DeviceUnavailable("auto", "; ".join(f"{device.kind}: {device.gone}" for device in self.opened))
        return Decision(here[0], here[0].facts.why if self._by_facts else "it comes first in the order asked for")

    def choose(self, wish: str | Device = "auto") -> Device:
        """The device that :meth:`decide` gives. Raises as it does."""
        return self.decide(wish).device

    def decide_for(
        self,
        name: str,
        tensors: Mapping[str, Spec],
        wish: str | Device = "auto",
        *,
        forms: Mapping[str, Mapping[str, Spec]] = MappingProxyType({}),
        refused: Mapping[Device, str] = MappingProxyType({}),
    ) -> Decision:
        """:meth:`decide` for a model ``name`` with the weights ``tensors``: "auto" passes over what cannot hold them.

        It logs a warning then, and the decision says why. ``forms`` has the weights in other dtypes, by how to ask for
        these, to be named where they would fit. ``refused`` says of devices what is known of them beside that.

        Raises:
            DeviceMemoryError: the device that was asked for or pinned, or each of them, cannot hold the weights.
            DeviceUnavailable: as :meth:`decide` does.
        """
        first = self.decide(wish)

        def refusal(device: Device, form: Mapping[str, Spec] = tensors) -> str:
            return device.refusal(form) or refused.get(device, "")

        passed: dict[Device, str] = {}
        fit = [device for device in self.opened if not device.is_gone and not refusal(device)]
        is_free = wish == "auto" and first.device is not self._pinned
        for device in (each for each in self.opened if not each.is_gone) if is_free else (first.device,):
            why = refusal(device)
            if not why:
                return first if not passed else self._passed_over(name, device, passed)
            passed[device] = why
        whose = " and ".join(device.kind for device in passed)
        reason = "; ".join(f"{device.kind}: {why}" for device, why in passed.items()) if is_free else why
        remedies = [f'device="{device.kind}"' for device in fit]
        remedies += [how for how, form in forms.items() if any(not refusal(device, form) for device in passed)]
        raise DeviceMemoryError(whose, name, reason, remedy=" or ".join(remedies) or "load a smaller model")

    def _passed_over(self, name: str, device: Device, passed: Mapping[Device, str]) -> Decision:
        why = "; ".join(f"{other.kind} cannot hold {name}: {reason}" for other, reason in passed.items())
        logger.warning("%s goes to %s, because %s", name, device.kind, why)
        return Decision(device, why)

    def after(self, device: Device, tensors: Mapping[str, Spec] = MappingProxyType({})) -> Device | None:
        """Return the best other device that is there and can hold ``tensors``: it finishes what ``device`` cannot."""
        others = (other for other in self.opened if other is not device and not other.is_gone)
        return next((other for other in others if not other.refusal(tensors)), None)

    def alternatives(self, device: Device) -> dict[str, str]:
        """Describe every other kind: what it is, or why it is missing."""
        known = {kind: f"missing: {why}" for kind, why in self.missing.items()}
        for other in self.opened:
            known[other.kind] = f"lost: {other.gone}" if other.is_gone else f"{other.name}, {other.facts.what}"
        return {kind: known[kind] for kind in KINDS if kind in known and kind != device.kind}

    def explain(self, wish: str | Decision = "auto") -> str:
        """Explain in a sentence which device ``wish`` gives, why, and what the others are. Raises as :meth:`decide`."""
        decision = wish if isinstance(wish, Decision) else self.decide(wish)
        others = "".join(f"; {kind} is {what}" for kind, what in self.alternatives(decision.device).items())
        return f"{decision.device.kind} ({decision.device.name}), because {decision.why}{others}."

    def on_build(self, call: Callable[[dict[str, Any]], None] | None) -> None:
        """Call ``call`` as graphs or pipelines are built; None ends it.

        It gets {"status": "build", "device", "done", "total"}.

        ``done`` of ``total`` graphs of one program are built; it is called before the first and after each. A WebNN
        program is several where it runs on several cores, and a cancelled build ends after the graph under way.
        """
        check_listener("on_build", call)
        for device in self.opened:

            def tell(done: int, total: int, kind: str = device.kind) -> None:
                if call is not None:
                    call({"status": "build", "device": kind, "done": done, "total": total})

            device.backend.on_build = tell

    async def try_lending(self, seconds: float = OPEN_SECONDS) -> None:
        """Find out whether WebNN can lend WebGPU its tensors; ``webnn.not_lent`` says why if it cannot."""
        if self.webnn is not None and self.webgpu is not None:
            try:
                await in_time(WEBNN.name, self.webnn.try_lending(self.webgpu), seconds)
            except DeviceUnavailable as error:
                self.webnn.stop_lending(error.reason)

    def close(self) -> None:
        """Free everything on every device. Safe to call twice."""
        for device in self.opened:
            device.close()

    def _named(self, kind: str) -> Device:
        for device in self.opened:
            if device.kind == kind:
                return device
        if not isinstance(kind, str) or kind not in KINDS:
            reason = f"a device is a Device, 'auto' or one of {', '.join(KINDS)}, not {quoted(kind)}"
            raise DeviceUnavailable(shown(str(kind)), reason)
        raise DeviceUnavailable(kind, self.missing.get(kind, "it was not opened"))


async def open_devices(
    prefer: Sequence[str] | None = None,
    *,
    webnn: str = "cpu",
    timeout: float = OPEN_SECONDS,  # noqa: ASYNC109 - one a device
) -> Devices:
    """Open the devices of this browser, all at once; "auto" then decides from what they are.

    ``prefer`` names those to open, in an order that "auto" keeps to. A device that is missing, or that does not answer
    within ``timeout`` seconds, is left out, with its reason.

    ``webnn`` is what WebNN is asked to run on: "cpu", "gpu", "npu", or "" for the browser's choice. It is a wish: the
    browser does not say whether it came true.

    Raises:
        DeviceUnavailable: a name in ``prefer`` or ``webnn`` is not known, or no device could be opened.
    """
    if isinstance(prefer, str) or not isinstance(prefer, (Iterable, type(None))):
        raise DeviceUnavailable(str(prefer), "prefer= is a list of kinds of devices")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise DeviceUnavailable("any", f"timeout= is a number of seconds above 0, not {quoted(timeout)}")
    wanted = tuple(dict.fromkeys(KINDS if prefer is None else prefer))
    unknown = [str(kind) for kind in wanted if kind not in KINDS]
    if unknown or not wanted:
        raise DeviceUnavailable(", ".join(unknown) or "any", f"the kinds of devices are {', '.join(KINDS)}")
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
                answer.close()
        raise
    opened = [answer for answer in answers if isinstance(answer, Device)]
    missing = {kind: "it was not asked for" for kind in KINDS if kind not in wanted}
    for kind, answer in zip(wanted, answers, strict=True):
        if isinstance(answer, DeviceUnavailable):
            missing[kind] = answer.reason
        elif isinstance(answer, BaseException):
            for device in opened:
                device.close()
            raise answer
    if not opened:
        raise DeviceUnavailable(", ".join(wanted), "; ".join(f"{kind}: {why}" for kind, why in missing.items()))
    devices = Devices(
        sorted(opened, key=lambda each: each.facts.rank) if prefer is None else opened, missing, by_facts=prefer is None
    )
    await devices.try_lending(timeout)
    use_devices(devices)
    return devices


async def _open(kind: str, wishes: Mapping[str, str]) -> Device:
    if kind == CpuBackend.kind:
        return take_cpu()
    return Device(await KINDS[kind].open(wishes.get(kind, "")))
