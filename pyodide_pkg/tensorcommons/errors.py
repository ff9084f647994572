"""Every exception that the package raises on purpose.

::

    TensorCommonsError
     ├─ DeviceUnavailable      a device that was asked for is not there, with the reason
     ├─ DeviceLost             the browser took a device away
     ├─ ReadRequired           values that cannot be had without `await t.read()` (a TypeError, too)
     ├─ DeviceError            the device refused a kernel, a command or a buffer, with the operation
     ├─ MemoryBudgetError      it does not fit, with who holds the memory
     │   └─ DeviceMemoryError  the device itself has no memory left
     ├─ ManagerClosed          a manager that was closed, or is gone
     ├─ TensorNotFound         no tensor of that name
     ├─ TensorReleased         the tensor was given back
     ├─ ViewOutOfBounds        a view reaches past its parent
     ├─ NotAConsumer           a model that was not granted the tensor
     ├─ ShapeMismatch          shapes that do not go together
     ├─ UnsupportedDtype       a dtype that the operation or device cannot take
     ├─ UnsupportedOp          an op that the device cannot run, with the reason
     ├─ InvalidWeights         a checkpoint that cannot be trusted, with file and cause
     ├─ UnsupportedModel       an architecture that is not built in
     ├─ DownloadError          a file that could not be fetched, with its address and cause
     └─ InternalError          a bug in the package: something that must hold does not

A message says what was wrong, with the values, and what to do about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

QUOTED = 80  # characters of an untrusted value that a message shows


class TensorCommonsError(Exception):
    """The root of the tree: ``except TensorCommonsError`` catches whatever the package refuses."""


class DeviceUnavailable(TensorCommonsError):
    """A device of kind ``kind`` cannot be opened; ``reason`` says why in one sentence."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"the {kind} device is not available: {reason}")
        self.kind = kind
        self.reason = reason


class DeviceLost(TensorCommonsError):
    """The browser took the device away (driver reset, tab in the background, GPU process restart)."""


class ReadRequired(TensorCommonsError, TypeError):
    """The values of a tensor are on a device that has to be waited for: ``await t.read()`` gives them."""


class MemoryBudgetError(TensorCommonsError):
    """``needed`` more bytes would pass ``limit``; ``holders`` lists ``(who, bytes)``, largest first.

    ``remedy`` is the end of the message: what would free enough.
    """

    def __init__(
        self, needed: int, limit: int, holders: Sequence[tuple[str, int]], remedy: str = "raise max_memory_mb"
    ) -> None:
        self.needed = needed
        self.limit = limit
        self.holders = sorted(holders, key=lambda holder: -holder[1])
        held = ", ".join(f"{who} {nbytes:,}" for who, nbytes in self.holders[:5]) or "nothing"
        super().__init__(
            f"{needed:,} more bytes do not fit under the limit of {limit:,} bytes; held: {held}. "
            f"To make it fit: {remedy}."
        )


class DeviceError(TensorCommonsError):
    """``device`` (a kind) refused ``work``, an operation or a kernel; ``reason`` is its own message."""

    def __init__(self, device: str, work: str, reason: str) -> None:
        super().__init__(f"{work} failed on {device}: {reason}")
        self.device = device
        self.work = work
        self.reason = reason


class DeviceMemoryError(MemoryBudgetError):
    """``device`` (a kind) has no memory left for ``work``, whatever limit was set; ``reason`` is its own message.

    ``needed`` and ``limit`` are 0 where the device does not say them.
    """

    def __init__(
        self,
        device: str,
        work: str,
        reason: str,
        needed: int = 0,
        limit: int = 0,
        remedy: str = "compute less at a time, or release tensors",
    ) -> None:
        TensorCommonsError.__init__(self, f"{work} does not fit on {device}: {reason}. To make it fit: {remedy}.")
        self.needed = needed
        self.limit = limit
        self.holders = []
        self.device = device
        self.work = work
        self.reason = reason


class ManagerClosed(TensorCommonsError):
    """The manager was closed, or nothing refers to it any more: it holds nothing and takes nothing."""


class TensorNotFound(TensorCommonsError):
    """No tensor of that name is registered."""


class TensorReleased(TensorCommonsError):
    """The tensor's bytes were given back by ``release()`` or ``unload()``; it cannot be used again."""


class ViewOutOfBounds(TensorCommonsError):
    """A view's offset and size reach past the shape of its parent."""


class NotAConsumer(TensorCommonsError):
    """The model was never granted the tensor."""


class ShapeMismatch(TensorCommonsError):
    """Shapes that do not go together; the message shows them."""


class UnsupportedDtype(TensorCommonsError):
    """The operation or the device cannot take the dtype."""


class UnsupportedOp(TensorCommonsError):
    """``device`` cannot run ``op``; ``reason`` says which property of it is in the way."""

    def __init__(self, op: str, device: str, reason: str) -> None:
        super().__init__(f"{op} cannot run on {device}: {reason}")
        self.op = op
        self.device = device
        self.reason = reason


class InvalidWeights(TensorCommonsError):
    """``file`` of a checkpoint is missing a part, damaged or contradicts itself; ``reason`` says how."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class UnsupportedModel(TensorCommonsError):
    """``model_type`` of a ``config.json`` is not one of ``supported``."""

    def __init__(self, model_type: str, supported: Iterable[str]) -> None:
        self.model_type = model_type
        self.supported = sorted(supported)
        super().__init__(f"model type {quoted(model_type)} is not supported; supported: {', '.join(self.supported)}")


class InternalError(TensorCommonsError):
    """Something that must hold inside the package does not hold: a bug in it, which the message describes."""


class DownloadError(TensorCommonsError):
    """``url`` could not be fetched; ``reason`` is the status or the network's complaint.

    Neither holds a query string or ``user:password@``: both may be secrets.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = shown_address(url)
        self.reason = shown_address(reason)
        super().__init__(f"{self.url}: {self.reason}")


def quoted(value: object) -> str:
    """``repr(value)`` for a message, at most 80 characters of it: a file can hold anything, of any length."""
    if isinstance(value, (str, bytes)) and len(value) > QUOTED:
        value = value[:QUOTED]  # before repr, which takes time and memory of the whole length
        return repr(value)[: QUOTED - 3] + "..."
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; nesting
        return f"a {type(value).__name__}"
    return text if len(text) <= QUOTED else text[: QUOTED - 3] + "..."


def shown(text: str) -> str:
    """``text`` of a stranger without quotes around it, at most 80 characters, on one line."""
    plain = text if text.isprintable() else repr(text[: QUOTED + 1])[1:-1]
    return plain if len(plain) <= QUOTED else plain[: QUOTED - 3] + "..."


def shown_address(text: str) -> str:
    """``text`` with the queries, fragments and ``user:password@`` of the addresses in it left out."""
    text = re.sub(r"(?<=://)[^/?#\s]*@", "", text)
    return re.sub(r"(://[^\s?#]*)[?#][^\s)'\"]*", r"\1", text)


def check_listener(name: str, listener: object) -> None:
    """Raises TensorCommonsError for a listener that is neither a function nor None, before there is news for it."""
    if listener is not None and not callable(listener):
        raise TensorCommonsError(f"{name} is called with news, so it must be a function, not {quoted(listener)}")
