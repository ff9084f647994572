from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tensorcommons.errors import DownloadError, InvalidWeights
from tensorcommons.hub.native_http import open_native
from tensorcommons.hub.source import LIMITS
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.streams import READ, FileMissingError, ShortReadError
from tests.hub.server import FileServer, serving

DATA = bytes(range(256)) * 1000
SERVED = ["good", "plain", "chunked", "slow", "redirect", "shifted", "refused", "whole", "gzip"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "1_Pooling").mkdir()
    (tmp_path / "model" / "config.json").write_bytes(b"{}")
    (tmp_path / "model" / "1_Pooling" / "config.json").write_bytes(b"[]")
    (tmp_path / "model" / "data.bin").write_bytes(DATA)
    return tmp_path / "model"


def forbid_reads(path: Path) -> None:
    """Replace the descriptor with which this process has opened ``path`` by one that is only written to."""
    opened = Path("/proc/self/fd").iterdir()
    number = next(int(each.name) for each in opened if each.resolve() == path.resolve())
    with Path(os.devnull).open("wb") as unreadable:
        os.dup2(unreadable.fileno(), number)


@pytest.fixture
def served(server):
    server.files["model/data.bin"] = DATA[: 20 * 1024]
    return server


class TestSpec:
    def test_the_form_of_a_string_selects_the_source(self, folder, monkeypatch):
        monkeypatch.delenv("HF_ENDPOINT", raising=False)
        hub = "https://huggingface.co"
        cases = {
            "org/name": f"{hub}/org/name/resolve/main/f",
            "org/na.me-1@v2.0": f"{hub}/org/na.me-1/resolve/v2.0/f",
            "org/name@refs/pr/3": f"{hub}/org/name/resolve/refs%2Fpr%2F3/f",
            "https://host/a/b": "https://host/a/b/f",
            "https://host/a/b/": "https://host/a/b/f",
            "https://host:8000": "https://host:8000/f",
            "http://host/a?token=1#here": "http://host/a/f?token=1",
            str(folder): (folder / "f").as_uri(),
            folder.as_uri(): (folder / "f").as_uri(),
        }
        assert {spec: open_source(spec).key("f") for spec in cases} == cases

    def test_an_existing_folder_is_preferred_to_a_repository_of_that_name(self, folder, monkeypatch):
        monkeypatch.chdir(folder.parent)
        (folder.parent / "org" / "name").mkdir(parents=True)
        assert open_source("org/name").key("f").startswith("file://")
        assert open_source("other/name").key("f").startswith("https://")
        assert open_source("model").key("f") == (folder / "f").as_uri()

    def test_the_endpoint_comes_from_the_argument_then_the_environment(self, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://mirror/")
        assert open_source("a/b").key("f") == "http://mirror/a/b/resolve/main/f"
        assert open_source("a/b", endpoint="http://other").key("f") == "http://other/a/b/resolve/main/f"

    @pytest.mark.parametrize(
        "spec",
        [
            "",
            "bert",
            "a/b/c",
            "a/b@",
            "ftp://host/x",
            "https://",
            "a b/c",
            "x" * 5000,
            "a\0/b",
            "http://[a",
            "file://[a",
        ]
        + ["~not a user/model"],
    )
    def test_other_specifications_are_refused_with_the_accepted_ones(self, spec):
        with pytest.raises(DownloadError, match=r"not a model source|no host|not an address|home directory"):
            open_source(spec)

    def test_names_in_messages(self, folder):
        assert open_source("org/name@rev").name == "name"
        assert open_source("https://host/models/all%20mini/").name == "all mini"
        assert open_source("https://host:1").name == "host:1"
        assert open_source(folder).name == "model"

    @pytest.mark.parametrize(
        "file", ["../x", "/etc/passwd", "a/../../x", "", "a//b", "./x", "a\\b", "C:x", "x\0y", "\ud800", "x" * 256]
    )
    @pytest.mark.parametrize("spec", ["org/name", "https://host/a", "/tmp"])
    async def test_a_file_name_cannot_leave_the_folder(self, spec, file):
        source = open_source(spec)
        with pytest.raises(InvalidWeights, match="inside the model's folder"):
            source.key(file)
        with pytest.raises(InvalidWeights):
            await source.open(file)


class TestSibling:
    def test_the_sibling_of_a_url_keeps_host_and_query(self):
        source = open_source("https://host/models/head/?token=1")
        assert source.sibling("base").key("f") == "https://host/models/base/f?token=1"

    def test_the_sibling_of_a_folder(self, folder):
        assert open_source(folder).sibling("base").key("f") == (folder.parent / "base" / "f").as_uri()

    def test_the_sibling_of_a_repository_has_its_organisation_and_endpoint(self):
        source = open_source("org/head@v1", endpoint="http://mirror")
        assert source.sibling("base").key("f") == "http://mirror/org/base/resolve/main/f"
        assert source.sibling("else/base").key("f") == "http://mirror/else/base/resolve/main/f"

    def test_a_full_repository_name_is_a_repository_beside_any_source(self, folder, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://mirror")
        for spec in (folder, {"a": b""}, "https://host/x"):
            assert open_source(spec).sibling("org/base").key("f") == "http://mirror/org/base/resolve/main/f"

    @pytest.mark.parametrize("name", ["", "..", ".", "../x", "/etc", "a\\b", "a/b/c", "\ud800", "x" * 256])
    @pytest.mark.parametrize("spec", ["org/name", "https://host/a/b", "/tmp/model", {"config.json": b"{}"}])
    def test_invalid_names_are_refused(self, spec, name):
        with pytest.raises(InvalidWeights, match="base model"):
            open_source(spec).sibling(name)


class TestFolderAndMemory:
    @pytest.fixture(params=["folder", "memory"])
    def source(self, request, folder):
        if request.param == "folder":
            return open_source(folder)
        return open_source({"config.json": b"{}", "1_Pooling/config.json": b"[]", "data.bin": DATA})

    async def test_bytes_are_reported_after_each_mebibyte(self, folder):
        (folder / "big").write_bytes(bytes(3 << 20))
        for source in (open_source(folder), open_source({"big": bytes(3 << 20)})):
            seen: list[tuple[int, int | None]] = []
            await source.read("big", on_bytes=lambda *given, seen=seen: seen.append(given))
            assert [done for done, _ in seen] == [1_048_576, 2_097_152, 3_145_728]

    async def test_reads(self, source):
        seen = []
        assert await source.read("data.bin", on_bytes=lambda done, size: seen.append((done, size))) == DATA
        assert seen[-1] == (len(DATA), len(DATA))
        assert await source.read("1_Pooling/config.json") == b"[]"
        assert await source.exists("config.json")

    async def test_reads_a_range(self, source):
        async with await source.open("data.bin", start=300, stop=310) as stream:
            assert stream.size == len(DATA)
            assert await stream.read_exact(4) == DATA[300:304]
            assert await stream.read_exact(6) == DATA[304:310]
            with pytest.raises(ShortReadError):
                await stream.read_exact(1)

    async def test_missing(self, source):
        assert not await source.exists("tokenizer.json")
        with pytest.raises(FileMissingError) as caught:
            await source.read("tokenizer.json")
        assert caught.value.status == 404
        assert "tokenizer.json" in str(caught.value)

    async def test_a_folder_as_a_file_and_a_file_as_a_folder(self, folder):
        with pytest.raises(DownloadError):
            await open_source(folder).read("1_Pooling")
        with pytest.raises(FileMissingError, match="no such folder"):
            await open_source(folder / "nowhere").read("config.json")

    async def test_two_memory_sources_never_have_one_identity(self):
        assert open_source({"f": b"1"}).key("f") != open_source({"f": b"1"}).key("f")


class TestStream:
    async def test_exact_reads_count_the_position(self):
        async with await open_source({"f": DATA}).open("f") as stream:
            assert (await stream.read_exact(0), stream.position) == (b"", 0)
            assert (await stream.read_exact(300), stream.position) == (DATA[:300], 300)
            await stream.skip(100)
            assert await stream.read_some(5) == DATA[400:405]
            await stream.skip(len(DATA) - 405)
            assert await stream.read_some() == b""

    async def test_the_end_of_a_file_differs_from_a_cut(self):
        async with await open_source({"f": b"12345"}).open("f") as stream:
            await stream.read_exact(2)
            with pytest.raises(ShortReadError, match="the file ends after 5 of 12 bytes") as caught:
                await stream.read_exact(10)
            assert caught.value.complete

    async def test_reading_a_closed_stream_is_an_error(self):
        stream = await open_source({"f": DATA}).open("f")
        await stream.close()
        await stream.close()
        with pytest.raises(DownloadError, match="closed"):
            await stream.read_exact(1)

    async def test_a_claimed_size_allocates_nothing(self):
        async with await open_source({"f": b"12345"}).open("f") as stream:
            with pytest.raises(ShortReadError):
                await stream.read_exact(1 << 60)

    async def test_other_tasks_run_while_a_file_is_read(self, folder):
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        async with await open_source(folder).open("data.bin") as stream:
            before, pieces = turns, 0
            while await stream.read_some(READ // 4):
                pieces += 1
            assert turns - before >= pieces > 0
        counting.cancel()

    @pytest.mark.skipif(sys.platform != "linux", reason="finds and replaces an open file in /proc")
    async def test_a_file_that_cannot_be_read_is_an_error(self, folder):
        (folder / "memory.bin").symlink_to("/proc/self/mem")  # has no end to seek
        with pytest.raises(DownloadError, match=r"memory\.bin: .*Invalid argument"):
            await open_source(folder).open("memory.bin")
        async with await open_source(folder).open("data.bin") as stream:
            forbid_reads(folder / "data.bin")
            with pytest.raises(DownloadError, match=r"data\.bin: .*Bad file descriptor"):
                await stream.read_some(10)


class TestHttp:
    @pytest.mark.parametrize("mode", SERVED)
    async def test_reads_the_file(self, served, mode):
        source = open_source(f"{served.address}/{mode}/model")
        seen = []
        assert await source.read("data.bin", on_bytes=lambda done, size: seen.append((done, size))) == DATA[: 20 * 1024]
        assert seen[-1] == (20 * 1024, None if mode in ("chunked", "gzip") else 20 * 1024)
        assert seen == sorted(seen)

    @pytest.mark.parametrize("mode", SERVED)
    async def test_reads_from_the_middle_with_and_without_ranges(self, served, mode):
        source = open_source(f"{served.address}/{mode}/model")
        async with await source.open("data.bin", start=3000, stop=3010) as stream:
            assert stream.position == 3000
            assert await stream.read_exact(10) == DATA[3000:3010]
        assert served.requests[0][1] == "bytes=3000-3009"
        assert stream.size in (20 * 1024, None)

    async def test_a_whole_file_is_requested_without_a_range(self, served):
        await open_source(f"{served.address}/good/model").read("data.bin")
        assert served.requests == [("/good/model/data.bin", None)]

    @pytest.mark.parametrize("mode", ["good", "chunked"])
    async def test_a_small_file_is_read_up_to_the_limit(self, server, mode, monkeypatch):
        monkeypatch.setitem(LIMITS, "vocab.txt", 3000)
        for size in (3000, 3001):
            server.files[f"{size}/vocab.txt"] = DATA[:size]
        assert await open_source(f"{server.address}/{mode}/3000").read("vocab.txt") == DATA[:3000]
        with pytest.raises(InvalidWeights, match="limit of 3,000 bytes"):
            await open_source(f"{server.address}/{mode}/3001").read("vocab.txt")

    async def test_a_close_waits_for_its_thread(self, served):
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        body = await open_native(f"{served.address}/stall/model/data.bin", {})
        free = threading.Event()
        occupied = loop.run_in_executor(None, free.wait)
        closing = asyncio.create_task(body.close())
        for _ in range(10):
            await asyncio.sleep(0)
        waits = not closing.done()
        free.set()
        await asyncio.gather(occupied, closing)
        assert waits

    async def test_the_hub_layout(self, server):
        server.files["org/name/resolve/v1/sub dir/f.json"] = b"{}"
        source = open_source("org/name@v1", endpoint=f"{server.address}/good")
        assert await source.read("sub dir/f.json") == b"{}"
        assert server.requests[0][0] == "/good/org/name/resolve/v1/sub%20dir/f.json"

    async def test_missing(self, served):
        source = open_source(f"{served.address}/good/model")
        assert await source.exists("data.bin")
        assert not await source.exists("tokenizer.json")
        with pytest.raises(FileMissingError, match=r"tokenizer.json.*404") as caught:
            await source.read("tokenizer.json")
        assert caught.value.status == 404
        assert caught.value.url == source.key("tokenizer.json")

    async def test_a_cut_connection_is_an_error_with_the_bytes_received(self, served):
        source = open_source(f"{served.address}/cut/model")
        with pytest.raises(ShortReadError, match=r"cut after 10,240 of 20,480 bytes") as caught:
            await source.read("data.bin")
        assert not caught.value.complete
        assert (caught.value.received, caught.value.expected) == (10240, 20480)
        async with await source.open("data.bin") as stream:
            await stream.read_exact(10_000)
            with pytest.raises(ShortReadError):
                await stream.read_exact(1_000)

    @pytest.mark.parametrize(
        ("mode", "reason"), [("error", "500"), ("loop", "redirects"), ("nowhere", "not an address")]
    )
    async def test_other_responses_raise_typed_errors(self, served, mode, reason):
        with pytest.raises(DownloadError, match=reason) as caught:
            await open_source(f"{served.address}/{mode}/model").open("data.bin", start=5)
        assert not isinstance(caught.value, FileMissingError)

    async def test_a_refused_connection_is_an_error(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(DownloadError, match="no connection"):
                await open_source(f"http://127.0.0.1:{taken.getsockname()[1]}/x").read("f")

    async def test_a_server_without_http_is_an_error(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def babble() -> None:
                client, _ = listener.accept()
                with client:
                    client.recv(1000)
                    client.sendall(b"what?\r\n")

            thread = threading.Thread(target=babble)
            thread.start()
            with pytest.raises(DownloadError, match="no response"):
                await open_source(f"http://127.0.0.1:{listener.getsockname()[1]}/x").read("f")
            thread.join()

    async def test_cancel_closes_the_connection(self, served):
        source = open_source(f"{served.address}/stall/model")
        started = asyncio.Event()
        task = asyncio.create_task(source.read("data.bin", on_bytes=lambda *_: started.set()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(served.gone.wait, 15), (
            "the connection is still open"
        )  # the server waits for 20 s

    async def test_cancel_before_the_answer_leaves_no_socket(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            task = asyncio.create_task(open_source(f"http://127.0.0.1:{silent.getsockname()[1]}/x").read("f"))
            client, _ = await asyncio.to_thread(silent.accept)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            client.close()  # from now on the thread can see the end
            await asyncio.sleep(0.05)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            gc.collect()

    async def test_leaving_early_closes_the_connection(self, served):
        async with await open_source(f"{served.address}/stall/model").open("data.bin") as stream:
            await stream.read_exact(100)
        assert await asyncio.to_thread(served.gone.wait, 15)

    async def test_a_large_file_is_never_in_memory_as_a_whole(self, server):
        server.files["big"] = bytes(8 * READ)
        async with await open_source(f"{server.address}/good").open("big") as stream:
            total = 0
            while piece := await stream.read_some():
                assert len(piece) <= READ
                total += len(piece)
        assert total == 8 * READ


class TestToken:
    async def test_the_token_is_sent_to_the_server_of_the_model_only(self, served):
        with serving(FileServer()) as other:
            served.other = other
            other.files["model/data.bin"] = DATA
            for mode in ("good", "redirect", "elsewhere"):
                source = open_source(f"{served.address}/{mode}/model", token="s3cret")
                assert await source.read("data.bin")
                assert await source.sibling("model").read("data.bin")
            assert served.granted == ["Bearer s3cret"] * 8 and other.granted == [None] * 2

    def test_a_repository_of_another_host_gets_no_token(self):
        beside: Any = open_source("http://host/a/b", "http://mirror", token="s3cret").sibling("org/name")
        assert beside._granted() == {}  # noqa: SLF001 - no request leaves this machine
        same: Any = open_source("org/b", "http://mirror", token="s3cret").sibling("org/c")
        assert same._granted()  # noqa: SLF001

    async def test_no_message_contains_the_token(self, served, caplog):
        for address in (f"{served.address}/error/model", f"{served.address}/good/nothing", "http://127.0.0.1:9/model"):
            with pytest.raises(DownloadError) as caught:
                await open_source(address, token="s3cret").read("data.bin")
            assert "s3cret" not in f"{caught.value!r} {vars(caught.value)} {caught.value.__cause__} {caplog.text}"
