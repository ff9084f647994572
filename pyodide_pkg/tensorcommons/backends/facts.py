"""Facts of a device. Decisions depend on them, not on the kind of device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """Cost of a part of a graph on a device: ``fixed`` ms, and one ms for so many multiply-adds, elements, and bytes
    that cross to it.

    As ``make bench ARGS=rates`` found them with two cores in Chromium 153: on 2026-11-23, the CPU device's kernels on
    2026-11-30. What crosses is written to WebNN or read from there at the rate of WebNN, whatever the other device is.
    """

    fixed: float
    multiply_adds: float
    elements: float
    crossing_bytes: float


@dataclass(frozen=True)
class Facts:
    """Facts of an opened device.

    "auto" means the device of the lowest ``rank``, of those of about the same speed (select.py): ``what`` it is, and
    ``why`` it is chosen where none of a lower rank was opened and nothing was measured. ``fallback_rank`` orders the
    devices that run what another one refuses. A write begins and ends at multiples of ``granularity`` bytes. ``badge``
    is a word that lists show beside it. ``is_host``: values lie in Python's own memory, and a read neither waits nor
    takes a buffer. ``dtypes`` are the names of those that it computes.
    """

    rank: int
    fallback_rank: int
    what: str
    why: str
    rates: Rates
    granularity: int = 1
    badge: str = ""
    is_host: bool = False
    dtypes: tuple[str, ...] = ("bool", "int8", "uint8", "int32", "uint32", "int64", "float16", "float32")
