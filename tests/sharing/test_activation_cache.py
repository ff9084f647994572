"""The cache of activations alone: kept values, order of eviction, and invalidation."""

from __future__ import annotations

from weakref import ref

import pytest

import tensorcommons as tc
from tensorcommons.backends.base import Spec
from tensorcommons.sharing.activation_cache import ActivationCache
from tensorcommons.sharing.storage import Storage
from tests.sharing.devices import manager_on, some

KB = 1024
SPEC = Spec((256,), tc.dtypes.float32)


@pytest.fixture
def device():
    return manager_on("cpu").devices.choose("cpu")


def stored(device, seed, category="activations"):
    return Storage.upload(device, memoryview(some((256,), seed=seed)).cast("B"), category, f"content {seed}")


def keep(cache, device, key, weight, seed=0):
    storage = stored(device, seed)
    cache.keep(key, storage, SPEC, ((ref(weight), weight.identity),), 16 * KB)
    return storage


def test_the_least_recently_used_is_evicted_first(device):
    cache, weight = ActivationCache(0.25), stored(device, 0, "weights")
    for name in "abcd":
        keep(cache, device, name, weight)
    assert cache.nbytes == 4 * KB == cache.idle_bytes
    cache.use(device, "a")
    keep(cache, device, "e", weight)
    assert [name for name in "abcde" if cache.find(device, name)] == ["a", "c", "d", "e"]
    assert device.memory()["activations"] == 4 * KB, "an evicted value is still on the device"
    assert cache.drop_oldest() and [name for name in "acde" if cache.find(device, name)] == ["a", "d", "e"]
    cache.clear()
    assert device.memory()["activations"] == 0 and not cache.drop_oldest()


def test_a_value_that_is_too_large_is_not_kept(device):
    cache, weight = ActivationCache(0.05), stored(device, 0, "weights")
    keep(cache, device, "a", weight)
    assert len(cache) == 0 and device.memory()["activations"] == 0
    off = ActivationCache(0.0)
    keep(off, device, "a", weight)
    assert len(off) == 0


@pytest.mark.parametrize("how", ["written", "released", "gone"])
def test_a_value_is_dropped_with_its_weights(device, how):
    cache, weight, other = ActivationCache(0.5), stored(device, 0, "weights"), stored(device, 1, "weights")
    keep(cache, device, "a", weight)
    keep(cache, device, "b", other)
    if how == "written":
        weight.rename("other content")
    elif how == "released":
        weight.release()
    else:
        del weight
    cache.sweep()
    assert cache.find(device, "a") is None and cache.find(device, "b") is not None
    assert device.memory()["activations"] == KB


def test_a_value_whose_weight_was_freed_meanwhile_is_not_kept(device):
    cache, weight = ActivationCache(0.5), stored(device, 0, "weights")
    storage = stored(device, 1)
    weight.release()
    cache.keep("a", storage, SPEC, ((ref(weight), weight.identity),), 16 * KB)
    assert len(cache) == 0 and not storage.is_kept


def test_a_value_of_a_tensor_is_freed_with_the_tensor(device):
    cache, weight = ActivationCache(0.5), stored(device, 0, "weights")
    shown = tc.Tensor.of_storage(keep(cache, device, "a", weight), SPEC)
    assert cache.idle_bytes == 0 and not cache.drop_oldest()
    shown.release()
    assert cache.find(device, "a") is not None, "the value must stay in the cache"
    cache.clear()
    assert shown.node.storage is not None and shown.node.storage.is_resident
    shown.release()
    assert device.memory()["activations"] == 0


def test_one_storage_is_kept_once(device):
    cache, weight = ActivationCache(0.5), stored(device, 0, "weights")
    storage = keep(cache, device, "a", weight)
    cache.keep("b", storage, SPEC, ((ref(weight), weight.identity),), 16 * KB)
    assert len(cache) == 1 and cache.nbytes == KB
    second = keep(cache, device, "a", weight, seed=1)
    found = cache.find(device, "a")
    assert found is not None and found.storage is storage and not second.is_kept, "the first value must stay"


def test_released_values_are_not_found(device):
    cache, weight = ActivationCache(0.5), stored(device, 0, "weights")
    storage = keep(cache, device, "a", weight)
    storage.release()
    assert cache.find(device, "a") is None and len(cache) == 0
