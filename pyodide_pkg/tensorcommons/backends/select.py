"""The devices of this browser: which were opened, why one is missing, and which of them a model runs on.

``device="auto"`` is a hardware GPU. Without one, it is the device of the lowest rank (facts.py) among those that take
at most :data:`CLOSE` times as long as the fastest, which :mod:`tensorcommons.ranking` measures: with a product of
matrices, and for models that generate with a product of one row. A requested kind, a pinned device or the caller's own
order has priority over both, and the memory that a model needs over all of them (:meth:`Devices.decide_for`).
:meth:`Devices.explain` describes the decision in one sentence.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import DeviceMemoryError, DeviceUnavailable, check_listener, quoted, shown
from .base import Spec
from .device import Device
from .kinds import KINDS
from .timeouts import OPEN_SECONDS, in_time
from .webnn.backend import KIND as WEBNN

logger = logging.getLogger("tensorcommons")

# The operands of the product that a model's time consists of: texts and images of many rows, or a token at a time.
MATRICES, ROW = "matrices", "one row"
CLOSE = {MATRICES: 3, ROW: 1}  # times the shortest time: devices up to there are in the order of their ranks


@dataclass(frozen=True)
class Decision:
    """A device, and in a few words why it."""

    device: Device
    why: str


class Devices:
    """The devices that were opened, best first.

    ``opened`` lists them; ``webgpu``, ``webnn`` and ``cpu`` are the device of each kind or None, and ``missing`` has
    the reasons by kind.

    >>> devices = await tc.open_devices()
    >>> devices.choose("cpu").kind
    'cpu'
    >>> devices.cpu in devices.opened
    True
    >>> devices.pin("cpu")
    >>> devices.explain()
    'cpu (NumPy...), because it is pinned...'
    >>> devices.pin(None)
    >>> devices.on_build(print)
    >>> devices.on_build(None)
    >>> devices.close()
    """

    def __init__(self, opened: Sequence[Device], missing: dict[str, str], *, by_facts: bool = False) -> None:
        self.opened = tuple(opened)
        self.missing = MappingProxyType(missing)
        self._by_facts = by_facts  # else in the order that the caller gave
        self._pinned: Device | None = None
        self._measured: dict[str, dict[Device, float]] = {MATRICES: {}, ROW: {}}  # milliseconds of one product
        self._unmeasured: dict[Device, str] = {}  # reasons for devices without a time
        by_kind = {device.kind: device for device in opened}
        self.webgpu: Device | None = by_kind.get("webgpu")
        self.webnn: Device | None = by_kind.get("webnn")
        self.cpu: Device | None = by_kind.get("cpu")
        if self.webnn is not None and not self.webnn.fallbacks:
            self.webnn.fall_back_to(each for each in opened if each is not self.webnn)

    def __repr__(self) -> str:
        return f"<Devices {', '.join(device.kind for device in self.opened)}; missing: {dict(self.missing)}>"

    def set_times(self, milliseconds: Mapping[str, Mapping[str, float]], failures: Mapping[str, str]) -> None:
        """Order the devices by ``milliseconds``, each product's times by kind; ``failures`` has reasons for the others.

        For products of matrices, those that take at most :data:`CLOSE` times the shortest time are in the order of
        their ranks, since a model on a busy machine differs from one product by as much. Kinds without a time come
        last.
        """
        for product, times in milliseconds.items():
            self._measured[product] = {each: times[each.kind] for each in self.opened if each.kind in times}
        self._unmeasured = {device: failures[device.kind] for device in self.opened if device.kind in failures}
        self.opened = tuple(self._best_first(MATRICES))

    def _best_first(self, product: str) -> list[Device]:
        """Return the opened devices in the order in which "auto" takes them."""
        measured = self._measured[product]
        close = CLOSE[product] * min(measured.values(), default=0)

        def place(device: Device) -> float:
            time = measured.get(device, math.inf)
            return time if time > close else 0

        return sorted(self.opened, key=place)

    def pin(self, kind: str | None) -> None:
        """Make ``kind`` the device of "auto"; ``None`` restores the choice by speed. Loaded models stay.

        Raises:
            DeviceUnavailable: that kind is missing; what was pinned before stays.
        """
        self._pinned = None if kind is None else self._named(kind)

    def decide(self, wish: str | Device = "auto", product: str = MATRICES) -> Decision:
        """The device for ``wish`` (a kind, a Device, or "auto"), and why; ``product`` is what "auto" is to be fast at.

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
        here = [device for device in self._best_first(product) if not device.is_gone]
        if not here:
            raise DeviceUnavailable("auto", "; ".join(f"{device.kind}: {device.gone}" for device in self.opened))
        return Decision(
            here[0], self._why_first(here[0], product) if self._by_facts else "it comes first in the order asked for"
        )

    def _why_first(self, first: Device, product: str) -> str:
        measured = self._measured[product]
        others = [device for device in measured if device is not first and not device.is_gone]
        others.sort(key=measured.__getitem__)
        failures = {device.kind: why for device, why in self._unmeasured.items() if device not in measured}
        failed = "; ".join(f"{kind} could not be measured: {why}" for kind, why in failures.items())
        if first not in measured or not others:
            return f"no hardware GPU was found; {failed}" if failed else first.facts.why
        times = " and ".join(f"{measured[device]:.3g} on {device.kind}" for device in others)
        own = measured[first]
        is_fastest = all(own <= measured[device] for device in others)
        place = "is the fastest" if is_fastest else f"takes at most {CLOSE[product]} times as long as the fastest"
        why = f"no hardware GPU was found, and it {place}: {own:.3g} ms for a product of {product}, {times}"
        return f"{why}; {failed}" if failed else why

    def choose(self, wish: str | Device = "auto") -> Device:
        """Return the device for ``wish``: a kind, a Device, or "auto".

        Raises:
            DeviceUnavailable: there is no such device, with the reason.
        """
        return self.decide(wish).device

    def decide_for(
        self,
        name: str,
        tensors: Mapping[str, Spec],
        wish: str | Device = "auto",
        product: str = MATRICES,
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
        first = self.decide(wish, product)

        def refusal(device: Device, form: Mapping[str, Spec] = tensors) -> str:
            return device.refusal(form) or refused.get(device, "")

        passed: dict[Device, str] = {}
        fit = [device for device in self.opened if not device.is_gone and not refusal(device)]
        is_free = wish == "auto" and first.device is not self._pinned
        for device in [each for each in self._best_first(product) if not each.is_gone] if is_free else [first.device]:
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

    def after(
        self, device: Device, tensors: Mapping[str, Spec] = MappingProxyType({}), product: str = MATRICES
    ) -> Device | None:
        """Return the best other device that is there and can hold ``tensors``: it finishes what ``device`` cannot."""
        others = (other for other in self._best_first(product) if other is not device and not other.is_gone)
        return next((other for other in others if not other.refusal(tensors)), None)

    def alternatives(self, device: Device) -> dict[str, str]:
        """Describe every other kind: what it is, or why it is missing."""
        known = {kind: f"missing: {why}" for kind, why in self.missing.items()}
        for other in self.opened:
            known[other.kind] = f"lost: {other.gone}" if other.is_gone else f"{other.name}, {other.facts.what}"
        return {kind: known[kind] for kind in KINDS if kind in known and kind != device.kind}

    def explain(self, wish: str | Decision = "auto") -> str:
        """Return a sentence that names the device for ``wish``, the reason, and the other devices.

        It names the device of models that generate, if that is another one.
        """
        decision = wish if isinstance(wish, Decision) else self.decide(wish)
        by_row = decision if isinstance(wish, Decision) else self.decide(wish, ROW)
        others = "".join(f"; {kind} is {what}" for kind, what in self.alternatives(decision.device).items())
        if by_row.device is not decision.device:
            others = f"; models that generate run on {by_row.device.kind}, because {by_row.why}{others}"
        return f"{decision.device.kind} ({decision.device.name}), because {decision.why}{others}."

    def on_build(self, call: Callable[[dict[str, Any]], None] | None) -> None:
        """Call ``call`` while graphs or pipelines are built; None ends this.

        It gets {"status": "build", "device", "done", "total"}.

        ``done`` of ``total`` graphs of one program are built; it is called before the first and after each. A WebNN
        program is several where it runs on several cores, and a cancelled build ends after the graph under way.
        """
        check_listener("on_build", call)
        for device in self.opened:

            def report(done: int, total: int, kind: str = device.kind) -> None:
                if call is not None:
                    call({"status": "build", "device": kind, "done": done, "total": total})

            device.backend.on_build = report

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
