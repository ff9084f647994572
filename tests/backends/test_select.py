"""Choice of a device and its reason, and devices that do not answer."""

from __future__ import annotations

import asyncio
import itertools

import pytest

import tensorcommons as tc
from tensorcommons import Device, Devices, opening
from tensorcommons.backends.base import Spec
from tensorcommons.backends.kinds import KINDS
from tensorcommons.backends.timeouts import in_time
from tensorcommons.backends.webgpu.backend import SOFTWARE as SOFTWARE_FACTS
from tensorcommons.errors import DeviceMemoryError, DeviceUnavailable, TensorCommonsError
from tests.sharing.devices import Backend

SOFTWARE, HARDWARE, WEBNN, NUMPY = "software webgpu", "hardware webgpu", "software webnn", "software cpu"


def device(what: str) -> Device:
    how, kind = what.split()
    backend = Backend(kind)
    backend.is_software = how == "software"
    backend.facts = SOFTWARE_FACTS if what == SOFTWARE else backend.facts
    backend.name = f"the {what}"
    return Device(backend)


def devices(*found: str, by_facts: bool = True) -> Devices:
    opened = [device(what) for what in found]
    missing = {kind: f"no {kind} here" for kind in KINDS if not any(each.kind == kind for each in opened)}
    return Devices(sorted(opened, key=lambda each: each.facts.rank) if by_facts else opened, missing, by_facts=by_facts)


def backend_of(device: Device) -> Backend:
    assert isinstance(device.backend, Backend)
    return device.backend


def take_away(device: Device) -> None:
    backend_of(device).lose()
    device.gone = "the test took it"


@pytest.mark.parametrize(
    ("found", "first", "why"),
    [
        ((HARDWARE, WEBNN, NUMPY), "webgpu", "it is a hardware GPU"),
        ((HARDWARE, NUMPY), "webgpu", "it is a hardware GPU"),
        ((SOFTWARE, WEBNN, NUMPY), "webnn", "no hardware GPU was found"),
        ((WEBNN, NUMPY), "webnn", "no hardware GPU was found"),
        ((SOFTWARE, NUMPY), "webgpu", "neither a hardware GPU nor WebNN was found"),
        ((NUMPY,), "cpu", "neither a GPU adapter nor WebNN was found"),
    ],
)
def test_auto_chooses_by_facts_in_any_order_of_devices(found, first, why):
    for order in itertools.permutations(found):
        ours = devices(*order)
        decision = ours.decide()
        assert (ours.choose().kind, decision.device.kind) == (first, first)
        assert why in decision.why
        sentence = ours.explain()
        assert sentence.startswith(f"{first} (the ")
        assert sentence.endswith(".") and sentence.count(". ") == 0 and "\n" not in sentence
        others = ours.alternatives(decision.device)
        assert set(others) == set(KINDS) - {first}, "an alternative is missing without a reason"
        assert all(reason in sentence for reason in others.values())


def test_a_request_overrides_a_pin_and_a_pin_overrides_the_facts():
    ours = devices(SOFTWARE, WEBNN, NUMPY)
    ours.pin("cpu")
    assert ours.choose().kind == "cpu" and "pinned" in ours.explain()
    assert ours.choose("webgpu").kind == "webgpu" and "asked for" in ours.explain("webgpu")
    assert ours.choose(ours.choose("webgpu")) is ours.choose("webgpu")
    ours.pin(None)
    assert ours.choose().kind == "webnn"


def test_pinning_a_missing_device_is_an_error_with_the_reason():
    ours = devices(HARDWARE, NUMPY)
    ours.pin("cpu")
    with pytest.raises(DeviceUnavailable, match="no webnn here"):
        ours.pin("webnn")
    with pytest.raises(DeviceUnavailable, match="webgpu, webnn, cpu, not 'abacus'"):
        ours.pin("abacus")
    assert ours.choose().kind == "cpu"


def test_a_given_order_is_kept():
    ours = devices(NUMPY, HARDWARE, by_facts=False)
    assert ours.choose().kind == "cpu" and "the order asked for" in ours.explain()


def test_a_lost_device_is_not_chosen_until_it_is_open_again():
    ours = devices(HARDWARE, WEBNN, NUMPY)
    take_away(ours.choose("webgpu"))
    assert ours.choose().kind == "webnn" and ours.after(ours.choose("webgpu")) is ours.choose("webnn")
    assert "webgpu is lost: the test took it" in ours.explain()
    ours.pin("webgpu")
    assert ours.choose().kind == "webnn", "a lost device was chosen because of its pin"
    take_away(ours.choose("webnn"))
    assert ours.after(ours.choose("webgpu")) is ours.choose("cpu")
    backend_of(ours.choose("webgpu")).lost = False
    assert ours.choose().kind == "webgpu"


def test_no_usable_device_is_an_error_with_every_reason():
    ours = devices(HARDWARE)
    take_away(ours.choose("webgpu"))
    assert ours.after(ours.choose("webgpu")) is None
    with pytest.raises(DeviceUnavailable, match="the test took it"):
        ours.decide()


async def test_without_a_browser_numpy_is_chosen_with_the_reasons():
    ours = await tc.open_devices()
    assert ours.choose().kind == "cpu" and set(ours.missing) == {"webgpu", "webnn"}
    assert all(reason in ours.explain() for reason in ours.missing.values())
    with pytest.raises(DeviceUnavailable, match="abacus"):
        await tc.open_devices(["abacus"])
    with pytest.raises(DeviceUnavailable, match="'cpu', 'gpu', 'npu', '', not 'tpu'"):
        await tc.open_devices(webnn="tpu")
    with pytest.raises(DeviceUnavailable, match="webgpu: "):
        await tc.open_devices(["webgpu"])

    ours.close()


class Answer:
    """A device that opens when the test releases it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may = asyncio.Event()
        self.device = device(HARDWARE)

    async def open(self, kind: str, webnn: str) -> Device:
        if kind != "webgpu":
            return device(f"software {kind}")
        self.asked.set()
        await self.may.wait()
        return self.device

    async def closed(self) -> bool:
        self.may.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return self.device.is_closed


async def test_a_device_that_times_out_is_left_out_and_closed_if_it_opens_late(monkeypatch):
    late = Answer()
    monkeypatch.setattr(opening, "_open", late.open)
    ours = await tc.open_devices(timeout=0.01)
    assert {device.kind for device in ours.opened} == {"webnn", "cpu"}
    assert ours.missing == {"webgpu": "the browser did not answer within 0.01 s"}
    assert await late.closed()


async def test_cancelling_the_opening_closes_every_device(monkeypatch):
    late = Answer()
    monkeypatch.setattr(opening, "_open", late.open)
    task = asyncio.create_task(tc.open_devices(timeout=60))
    await late.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await late.closed()


async def test_an_unexpected_failure_closes_the_other_devices_but_the_cpu(monkeypatch):
    opened: list[Device] = []

    async def opens(kind: str, webnn: str) -> Device:
        if kind == "webnn":
            raise ZeroDivisionError
        opened.append(device(f"software {kind}"))
        return opened[-1]

    monkeypatch.setattr(opening, "_open", opens)
    with pytest.raises(ZeroDivisionError):
        await tc.open_devices()
    assert {each.kind: each.is_closed for each in opened} == {"webgpu": True, "cpu": False}


async def test_in_time_returns_results_and_raises_errors():
    async def answer() -> int:
        return 3

    async def failure() -> int:
        raise DeviceUnavailable("webgpu", "no driver")

    assert await in_time("webgpu", answer()) == 3
    with pytest.raises(DeviceUnavailable, match="no driver"):
        await in_time("webgpu", failure())


async def test_a_lost_device_that_times_out_is_gone(monkeypatch):
    ours = devices(HARDWARE, NUMPY)
    backend_of(ours.choose("webgpu")).lose()

    async def reopen() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ours.choose("webgpu").backend, "reopen", reopen)
    monkeypatch.setattr("tensorcommons.backends.device.in_time", lambda kind, work: in_time(kind, work, 0.01))
    with pytest.raises(DeviceUnavailable, match="did not answer"):
        await ours.choose("webgpu").recover()
    assert ours.choose("webgpu").is_gone and ours.choose().kind == "cpu"


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"prefer": 5}, TensorCommonsError, "prefer must be a list"),
        ({"prefer": "cpu"}, TensorCommonsError, "prefer must be a list .* not 'cpu'"),
        ({"prefer": [5]}, DeviceUnavailable, "the kinds of devices are webgpu, webnn, cpu"),
        ({"timeout": "1"}, TensorCommonsError, "timeout must be a number"),
        ({"timeout": 0}, TensorCommonsError, "above 0, not 0"),
    ],
)
async def test_wrong_arguments_are_refused(wrong, error, words):
    with pytest.raises(error, match=words):
        await tc.open_devices(**wrong)


def test_a_manager_takes_what_open_devices_returns():
    with pytest.raises(TensorCommonsError, match=r"open_devices\(\)` returns, not 'webgpu'"):
        tc.TensorSharingManager(devices="webgpu")  # type: ignore[arg-type]


class Small(Backend):
    """A device that cannot hold a tensor of more than ``most`` bytes."""

    most = 100

    def refusal(self, tensors):
        large = [f"{name} has {spec.nbytes} bytes" for name, spec in tensors.items() if spec.nbytes > self.most]
        return ", ".join(large)


def with_small(kind: str, *others: str) -> Devices:
    small = Device(Small(kind))
    return Devices([small, *map(device, others)], {}, by_facts=True)


LARGE = {"table": Spec((50,), tc.dtypes.float32)}


def test_auto_skips_a_device_that_cannot_hold_a_model_and_gives_the_reason(caplog):
    ours = with_small("webnn", SOFTWARE, NUMPY)
    decision = ours.decide_for("m", LARGE)
    assert decision.device.kind == "webgpu" and decision.why == "webnn cannot hold m: table has 200 bytes"
    assert decision.why in ours.explain(decision) and decision.why in caplog.text
    assert ours.decide_for("m", {"table": Spec((25,), tc.dtypes.float32)}).device.kind == "webnn"
    assert ours.after(device(NUMPY), LARGE) is ours.webgpu
    refused = {ours.opened[1]: "its memory is full"}
    assert ours.decide_for("m", LARGE, refused=refused).why.endswith("webgpu cannot hold m: its memory is full")


@pytest.mark.parametrize("pinned", [False, True])
def test_a_requested_device_that_cannot_hold_a_model_is_refused_with_a_remedy(pinned):
    ours = with_small("webnn", NUMPY)
    ours.pin("webnn" if pinned else None)
    with pytest.raises(DeviceMemoryError, match="m does not fit on webnn: table has 200 bytes") as caught:
        ours.decide_for(
            "m",
            LARGE,
            "auto" if pinned else "webnn",
            forms={"dtype='float16'": {"table": Spec((50,), tc.dtypes.float16)}},
        )
    assert str(caught.value).endswith("""To make it fit: device="cpu" or dtype='float16'.""")


def test_a_model_that_no_device_can_hold_is_refused_with_each_reason():
    ours = with_small("webnn")
    with pytest.raises(DeviceMemoryError, match="on webnn: webnn: table has 200 bytes"):
        ours.decide_for("m", LARGE)
