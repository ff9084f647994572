"""Every exception that the package raises on purpose.

::

    TensorCommonsError
     ├─ DeviceUnavailable      the requested device cannot be opened, with the reason
     ├─ DeviceLost             the browser took the device away
     ├─ ReadRequired           the values need `await t.read()` (also a TypeError)
     ├─ DeviceError            the device rejected a kernel, a command or a buffer
     ├─ MemoryBudgetError      bytes do not fit under the memory limit, with the holders (also a MemoryError)
     │   └─ DeviceMemoryError  the device itself is out of memory
     ├─ ManagerClosed          the manager was closed or no longer exists
     ├─ TensorNotFound         no tensor has that name (also a KeyError)
     ├─ TensorReleased         the tensor's bytes were released
     ├─ ViewOutOfBounds        a view extends past its parent
     ├─ NotAConsumer           the model was not granted the tensor
     ├─ ShapeMismatch          incompatible shapes (also a ValueError)
     ├─ UnsupportedDtype       a dtype that the operation or the device does not support (also a TypeError)
     ├─ UnsupportedOp          an op that the device cannot run, with the reason
     ├─ LinAlgError            a matrix without the inverse or decomposition (also a np.linalg.LinAlgError)
     ├─ InvalidWeights         a damaged or inconsistent checkpoint, with the file and the reason
     ├─ UnsupportedModel       an architecture that is not supported
     ├─ DownloadError          a file that could not be downloaded, with its address and the reason
     └─ InternalError          an invariant of the package does not hold: a bug

A message states the fault, the value, the allowed values and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

QUOTED = 80  # characters of an untrusted value that a message shows


class TensorCommonsError(Exception):
    """Base class: ``except TensorCommonsError`` catches every error that the package raises on purpose.

    >>> try:
    ...     tc.asarray([1, 2], dtype="complex64")
    ... except tc.errors.TensorCommonsError as error:
    ...     print(error)
    dtype 'complex64' is not supported; supported: float32, float16, float64, int64, int32, int8, uint32,...
    """


class DeviceUnavailable(TensorCommonsError):
    """A device of kind ``kind`` cannot be opened; ``reason`` is one sentence.

    >>> tc.zeros(2, device="abacus")
    Traceback (most recent call last):
    tensorcommons.errors.DeviceUnavailable: the abacus device is not available: ...
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"the {kind} device is not available: {reason}")
        self.kind = kind
        self.reason = reason


class DeviceLost(TensorCommonsError):
    """The browser took the device away (driver reset, tab in the background, GPU process restart).

    Runs and reads recover by themselves; the error is raised where values cannot be restored, and while a model loads.

    >>> try:
    ...     total = await tc.sum([1.0, 2.0]).read()
    ... except tc.errors.DeviceLost:
    ...     print("registered without a copy in host memory: register it again")
    """


class ReadRequired(TensorCommonsError, TypeError):
    """The values of a tensor are on an asynchronous device: ``await t.read()`` returns them.

    >>> issubclass(tc.errors.ReadRequired, TypeError)  # np.asarray(tensor) of a tensor on a GPU
    True
    """


class MemoryBudgetError(TensorCommonsError, MemoryError):
    """``needed`` more bytes would exceed ``limit``; ``holders`` lists ``(name, bytes)``, largest first.

    ``remedy`` ends the message: it states how to free enough memory.

    >>> manager = tc.TensorSharingManager(max_memory_mb=1)
    >>> try:
    ...     manager.register_shared_tensor("table", (1024, 1024))
    ... except tc.errors.MemoryBudgetError as error:
    ...     print(error.needed, error.limit)
    4194304 1048576
    >>> manager.close()
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
    """``device`` (a kind) rejected ``work``, an operation or a kernel; ``reason`` is the device's message.

    >>> error = tc.errors.DeviceError("webgpu", "matmul", "the shader has too many bindings")
    >>> print(error)
    matmul failed on webgpu: the shader has too many bindings
    """

    def __init__(self, device: str, work: str, reason: str) -> None:
        super().__init__(f"{work} failed on {device}: {reason}")
        self.device = device
        self.work = work
        self.reason = reason


class DeviceMemoryError(MemoryBudgetError):
    """``device`` (a kind) is out of memory for ``work``, below any limit that was set.

    ``reason`` is the device's message. ``needed`` and ``limit`` are 0 if the device does not report them.

    >>> error = tc.errors.DeviceMemoryError("webgpu", "matmul 8192×8192", "out of memory")
    >>> print(error)
    matmul 8192×8192 does not fit on webgpu: out of memory. To make it fit: compute less at a time, or release tensors.
    >>> isinstance(error, tc.errors.MemoryBudgetError)
    True
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
    """The manager was closed or garbage-collected, so it holds no tensors and accepts no calls.

    >>> with tc.TensorSharingManager() as manager:
    ...     pass
    >>> manager.register_shared_tensor("table", (2,))
    Traceback (most recent call last):
    tensorcommons.errors.ManagerClosed: ...
    """


class TensorNotFound(TensorCommonsError, KeyError):
    """No tensor is registered under that name.

    >>> manager = tc.TensorSharingManager()
    >>> manager.create_tensor_view("table", "row", offset=(0,), size=(1,))
    Traceback (most recent call last):
    tensorcommons.errors.TensorNotFound: ...
    >>> manager.close()
    """

    __str__ = Exception.__str__  # that of KeyError quotes the message


class TensorReleased(TensorCommonsError):
    """The tensor's bytes were freed by ``release()`` or ``unload()``; it cannot be used again.

    >>> x = tc.asarray([1.0, 2.0])
    >>> x.release()
    >>> x.numpy()
    Traceback (most recent call last):
    tensorcommons.errors.TensorReleased: ...
    """


class ViewOutOfBounds(TensorCommonsError):
    """A view's offset and size extend past the shape of its parent.

    >>> manager = tc.TensorSharingManager()
    >>> table = manager.register_shared_tensor("table", (2, 2))
    >>> table.create_view("row", offset=(2, 0), size=(1, 2))
    Traceback (most recent call last):
    tensorcommons.errors.ViewOutOfBounds: ...
    >>> manager.close()
    """


class NotAConsumer(TensorCommonsError):
    """The model was never granted the tensor: a holder grants it by ``share_tensor_between_models``.

    >>> manager = tc.TensorSharingManager()
    >>> table = manager.register_shared_tensor("table", (2,), producer_model="encoder")
    >>> table.acquire("reader")
    Traceback (most recent call last):
    tensorcommons.errors.NotAConsumer: ...
    >>> manager.close()
    """


class ShapeMismatch(TensorCommonsError, ValueError):
    """The shapes are incompatible; the message shows them.

    >>> tc.matmul(tc.ones((2, 3)), tc.ones((2, 3)))
    Traceback (most recent call last):
    tensorcommons.errors.ShapeMismatch: ...
    """


class DeviceMismatch(TensorCommonsError):
    """Tensors that are computed together are on different devices; the message names them.

    >>> error = tc.errors.DeviceMismatch("add", ["cpu", "webgpu"])
    >>> print(error)
    add: tensors on different devices cannot be computed together: cpu, webgpu; move them to one with...
    """

    def __init__(self, work: str, devices: Iterable[object]) -> None:
        named = ", ".join(sorted(map(str, devices)))
        super().__init__(
            f"{work}: tensors on different devices cannot be computed together: {named}; move them to one with "
            "`await t.to(device)`"
        )


class UnsupportedDtype(TensorCommonsError, TypeError):
    """The operation or the device does not support the dtype.

    >>> tc.sqrt([1, 4])
    Traceback (most recent call last):
    tensorcommons.errors.UnsupportedDtype: sqrt takes floats, not int32: cast with tc.astype()
    """


class UnsupportedOp(TensorCommonsError):
    """``device`` cannot run ``op``; ``reason`` names the property of the op that prevents it.

    >>> error = tc.errors.UnsupportedOp("sort", "webgpu", "int64 has no type in WGSL")
    >>> print(error)
    sort cannot run on webgpu: int64 has no type in WGSL
    """

    def __init__(self, op: str, device: str, reason: str) -> None:
        super().__init__(f"{op} cannot run on {device}: {reason}")
        self.op = op
        self.device = device
        self.reason = reason


class LinAlgError(TensorCommonsError, np.linalg.LinAlgError):
    """A matrix does not have the inverse or decomposition, or the iteration for it does not converge.

    >>> tc.linalg.inv([[1.0, 2.0], [2.0, 4.0]])
    Traceback (most recent call last):
    tensorcommons.errors.LinAlgError: linalg.inv of shape (2, 2): Singular matrix
    """


class InvalidWeights(TensorCommonsError):
    """``file`` of a checkpoint is incomplete, damaged or inconsistent, for ``reason``.

    >>> error = tc.errors.InvalidWeights("model.safetensors", "the header is not JSON")
    >>> print(error)
    model.safetensors: the header is not JSON
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class UnsupportedModel(TensorCommonsError):
    """``model_type`` of a ``config.json`` is not one of ``supported``.

    >>> error = tc.errors.UnsupportedModel("mamba", ["bert", "llama"])
    >>> print(error)
    model type 'mamba' is not supported; supported: bert, llama
    """

    def __init__(self, model_type: str, supported: Iterable[str], remedy: str = "") -> None:
        self.model_type = model_type
        self.supported = sorted(supported)
        text = f"model type {quoted(model_type)} is not supported; supported: {', '.join(self.supported)}"
        super().__init__(f"{text}. {remedy}" if remedy else text)


class InternalError(TensorCommonsError):
    """An invariant of the package does not hold. This is a bug in the package; the message describes it.

    >>> issubclass(tc.errors.InternalError, tc.errors.TensorCommonsError)
    True
    """


class DownloadError(TensorCommonsError):
    """``url`` could not be downloaded; ``reason`` is the HTTP status or the network error.

    Query strings and ``user:password@`` are removed from both, since they may be secrets.

    >>> print(tc.errors.DownloadError("https://example.org/model?token=secret", "404 Not Found"))
    https://example.org/model: 404 Not Found
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = shown_address(url)
        self.reason = shown_address(reason)
        super().__init__(f"{self.url}: {self.reason}")


def quoted(value: object) -> str:
    """Return at most 80 characters of ``repr(value)``, for a message: a value from a file can be of any length."""
    if isinstance(value, (str, bytes)) and len(value) > QUOTED:
        value = value[:QUOTED]  # before repr(), whose time and memory grow with the whole length
        return repr(value)[: QUOTED - 3] + "..."
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; nesting
        return f"a {type(value).__name__}"
    return text if len(text) <= QUOTED else text[: QUOTED - 3] + "..."


def shown(text: str) -> str:
    """Return at most 80 characters of an untrusted ``text``, on one line and without quotes."""
    plain = text if text.isprintable() else repr(text[: QUOTED + 1])[1:-1]
    return plain if len(plain) <= QUOTED else plain[: QUOTED - 3] + "..."


def shown_address(text: str) -> str:
    """Return ``text`` without the queries, fragments and ``user:password@`` of the addresses in it."""
    text = re.sub(r"(?<=://)[^/?#\s]*@", "", text)
    return re.sub(r"(://[^\s?#]*)[?#][^\s)'\"]*", r"\1", text)


def check_listener(name: str, listener: object) -> None:
    """Raise TensorCommonsError unless ``listener`` is a function or None."""
    if listener is not None and not callable(listener):
        raise TensorCommonsError(f"{name} must be a function or None, not {quoted(listener)}")
