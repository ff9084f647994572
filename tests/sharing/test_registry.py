"""Entries of a registry: who keeps one, when its bytes are freed, and what is marked as changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorcommons.backends.base import Spec
from tensorcommons.dtypes import float32
from tensorcommons.sharing.registry import Entry, Registry


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def intern(registry: Registry, cpu: Any) -> Any:
    """Return the entry of three equal numbers."""

    def interned(number: float) -> Entry:
        data = np.full(3, number, np.float32)
        return registry.intern(cpu, memoryview(data.view(np.uint8)), Spec((3,), float32))

    return interned


def test_an_entry_is_freed_with_its_last_holder_or_name(registry: Registry, cpu: Any, intern: Any) -> None:
    entry = intern(1)
    assert intern(1) is entry and len(registry) == 1 and cpu.total == 12
    assert entry.hold("a", "x") and not entry.hold("a", "x") and entry.hold("a", "y") and entry.hold("b", "x")
    entry.register("t")
    assert registry.release("a") == 2
    assert registry.release("a") == 0
    assert list(registry) == [entry] and cpu.total == 12, "b and t keep it"
    entry.unregister("t")
    registry.drop_if_unused(entry)
    assert list(registry) == [entry] and cpu.total == 12, "b keeps it"
    entry.register("t")
    assert registry.release("b") == 1
    assert list(registry) == [entry] and cpu.total == 12, "t keeps it"
    entry.unregister("t")
    registry.drop_if_unused(entry)
    assert list(registry) == [] and cpu.total == 0
    registry.drop_if_unused(entry)  # again: it is gone already
    assert cpu.total == 0


def test_a_change_is_listed_once_and_a_freed_entry_as_none(registry: Registry, intern: Any) -> None:
    one, two = intern(1), intern(2)
    assert registry.changes() == {one.number: one, two.number: two}
    assert registry.changes() == {}
    one.hold("a", "x")
    two.hold("a", "x")
    two.hold("b", "x")
    registry.changes()
    assert registry.release("a") == 2
    assert registry.changes() == {one.number: None, two.number: two}
    two.register("t")
    registry.changes()
    registry.clear()
    assert registry.changes() == {two.number: None}


@pytest.mark.parametrize("given", [False, True])
def test_given_bytes_go_back_to_their_tensors_and_others_are_freed(
    registry: Registry, cpu: Any, intern: Any, given: bool
) -> None:
    entry = intern(1)
    entry.given = ("a leaf of a tensor",) if given else ()
    registry.changes()
    registry.drop_if_unused(entry)
    assert registry.changes() == {entry.number: None}
    assert cpu.memory()["weights"] == 0 and cpu.memory()["activations"] == (12 if given else 0)
    entry.storage.release()


def test_clearing_ends_holds_pins_and_origins(registry: Registry, cpu: Any, intern: Any) -> None:
    one, two = intern(1), intern(2)
    one.hold("a", "x")
    two.register("t")
    two.pin("t")
    registry.record_origin(cpu, "file:0-12", one.storage.identity)
    assert registry.at_origin(cpu, "file:0-12") == one
    registry.clear()
    assert len(registry) == 0 and cpu.total == 0 and not two.pins
    again = intern(1)
    assert registry.at_origin(cpu, "file:0-12") is None, "clearing must forget origins"
    registry.drop_if_unused(again)


def test_bytes_of_unknown_content_get_an_identity_of_their_own(registry: Registry, cpu: Any, intern: Any) -> None:
    one, two = intern(1), intern(2)
    before, known = one.storage.identity, two.storage.identity
    registry.rename(one, None)
    assert one.content is None and registry.find(cpu, before) is None
    assert registry.find(cpu, one.storage.identity) == one
    registry.rename(one, known)  # another entry has this content
    assert one.content == known and one.storage.identity != known and registry.find(cpu, known) == two
    registry.rename(one, before)
    assert registry.find(cpu, before) == one and one.storage.identity == before
    registry.clear()
