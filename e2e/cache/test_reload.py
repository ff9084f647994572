"""Weights after a reload: the second visit downloads nothing, unless the storage was damaged in between."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error

from e2e.cache.conftest import Server, Visit
from e2e.page.driver import SPLADE, Tab
from scripts.browser import find_browser
from scripts.paths import MODELS
from scripts.serve import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Playwright

LOAD = """
kind = "{1}"
manager = tc.TensorSharingManager(1024, devices=devices, activation_cache=False)  # every answer takes the weights
started = time.perf_counter()
model, last = await load("{0}", manager, kind)
seconds = time.perf_counter() - started
cache = await tc.open_cache()
found = {{"last": last, "seconds": seconds, "answer": await answer(model)}}
import random
{{**found, "status": cache.status, "usage": await cache.usage(), "random": random.random()}}
"""


def load_of(model_id: str, kind: str = "cpu") -> str:
    """A program that loads the model and runs it: on NumPy, since WebGPU compiles its kernels again at every visit."""
    return LOAD.format(model_id, kind)


# In the page: change the largest tensor that is stored, shorten the next, and remove the third. Gives their bytes.
DAMAGE = """async () => {
  const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("tensorcommons");
  const files = [];
  for await (const handle of folder.values()) files.push([handle, (await handle.getFile()).size]);
  const tensors = files.filter(([, size]) => size % 4 === 0);  // unlike the vocabulary
  const [[changed, size], [short, long], [gone, last]] = tensors.sort((one, other) => other[1] - one[1]);
  const write = async (handle, act) => {
    const stream = await handle.createWritable({ keepExistingData: true });
    await act(stream);
    await stream.close();
  };
  await write(changed, (to) => to.write({ type: "write", position: size / 2, data: new Uint8Array([1, 2, 3]) }));
  await write(short, (to) => to.truncate(long - 4));
  await folder.removeEntry(gone.name);
  return [size, long, last];
}"""


# In the page: every progress text of a card.
RECORD = """addEventListener("DOMContentLoaded", () => {
  window.said = [];
  const note = () => document.querySelectorAll('[data-role="bytes"]').forEach((e) => window.said.push(e.textContent));
  new MutationObserver(note).observe(document.body, {childList: true, characterData: true, subtree: true});
});"""


@pytest.fixture(params=["worker", "page"])
def lasting_visit(
    request: pytest.FixtureRequest, context: BrowserContext, playwright: Playwright, server: Server, tmp_path: Path
) -> Iterator[Visit]:
    """A first visit: with Python in a worker and storage on disk, or in a page without workers and in memory."""
    if request.param == "page":
        context.add_init_script("delete globalThis.Worker")
        yield Visit(context.new_page(), server.url + "visit/?main")
        return
    found = find_browser()
    on_disk = playwright.chromium.launch_persistent_context(
        tmp_path, executable_path=found.path, args=list(found.flags), env={**found.environment()}
    )
    yield Visit(on_disk.new_page(), server.url + "visit/")
    on_disk.close()


def test_the_second_visit_downloads_nothing_and_works_without_the_server(lasting_visit: Visit, server: Server) -> None:
    first = lasting_visit.run(load_of(SPLADE))
    assert first["last"]["from_cache"] == 0
    assert first["status"].startswith("on: ")
    assert first["usage"] > first["last"]["total"]
    assert server.body_bytes() > first["last"]["total"]
    visit = lasting_visit.again()
    second = visit.run(load_of(SPLADE))
    print(f"\n{SPLADE}: first visit {first['seconds']:.2f} s, second {second['seconds']:.2f} s")
    assert {(answer.status, answer.nbytes) for answer in server.since() if answer.status != 404} == {(304, 0)}
    assert second["last"]["from_cache"] == second["last"]["loaded"] == second["last"]["total"]
    assert second["answer"] == first["answer"]
    assert second["usage"] == first["usage"]
    assert second["random"] != first["random"], "the random state of the snapshot was used twice"
    server.is_down = True
    third = visit.run(load_of(SPLADE))
    assert third["answer"] == first["answer"]
    assert third["last"]["offline"]
    assert "could not be compared" in third["status"]


# Wait until the record, which another tab would find, has this many bytes of the file.
RECORDED = """
address = models + "{}/model.safetensors"
while True:
    record = await (await tc.open_cache()).record(address)
    recorded = sum(piece.stop - piece.start for piece in record.pieces.values()) if record else 0
    if recorded >= {}:
        break
    await asyncio.sleep(0.02)
max(stop for _, stop in record.pieces)
"""
CHUNK = 8 << 20


def test_a_download_ended_by_a_reload_or_a_crash_is_continued(
    visit: Visit, server: Server, context: BrowserContext
) -> None:
    whole = (MODELS / "all-MiniLM-L6-v2" / "model.safetensors").stat().st_size
    load = load_of("all-MiniLM-L6-v2")
    before = 0
    for chunks, how in ((2, "reload"), (5, "crash")):
        server.hold = chunks * CHUNK + CHUNK // 2  # in the middle of the table of 46 MB
        visit.page.evaluate("(source) => { run(source); }", load)
        recorded = visit.run(RECORDED.format("all-MiniLM-L6-v2", chunks * CHUNK))
        sent = [answer for answer in server.since() if answer.path.endswith(".safetensors") and answer.nbytes]
        assert [answer.range for answer in sent] == [f"bytes={before}-" if before else ""]
        before = recorded
        if how == "reload":
            visit = visit.again()
        else:
            url = visit.page.url
            with visit.page.expect_event("crash"), contextlib.suppress(Error):  # no page exists at that address
                visit.page.goto("chrome://crash")
            visit.page.close()
            visit = Visit(context.new_page(), url)
    server.hold = None
    server.since()
    found = visit.run(load)
    sent = [answer for answer in server.since() if answer.path.endswith(".safetensors") and answer.nbytes]
    assert [(answer.status, answer.range, answer.nbytes) for answer in sent] == [
        (206, f"bytes={before}-", whole - before)
    ]
    assert found["last"]["from_cache"] >= before - 100_000, "the download must continue after the stored bytes"
    assert found["answer"] == visit.run(load)["answer"]
    assert server.body_bytes() == 0
    assert found["usage"] < 1.01 * whole + 1_000_000, "the other files must be stored, and nothing else"


def test_only_damaged_entries_are_fetched_again(visit: Visit, server: Server) -> None:
    first = visit.run(load_of(SPLADE))
    sizes = visit.page.evaluate(DAMAGE)
    server.since()
    visit = visit.again()
    later = visit.run(load_of(SPLADE))
    sent = [answer for answer in server.since() if answer.nbytes and answer.status != 404]
    assert {answer.status for answer in sent} == {206}
    assert sum(answer.nbytes for answer in sent) == sum(sizes)
    assert later["answer"] == first["answer"]
    assert later["last"]["from_cache"] == later["last"]["total"] - sum(sizes)
    last = visit.run(load_of(SPLADE))
    assert server.body_bytes() == 0
    assert last["last"]["from_cache"] == last["last"]["total"]
    assert last["answer"] == first["answer"]


def test_a_quota_that_is_too_small_is_reported(visit_anywhere: Visit, server: Server) -> None:
    page = visit_anywhere.page
    devtools = page.context.new_cdp_session(page)
    devtools.send("Storage.overrideQuotaForOrigin", {"origin": server.url.rstrip("/"), "quotaSize": 3_000_000})
    first = visit_anywhere.run(load_of(SPLADE))
    print(f"\n{first['status']}; {first['usage']:,} bytes stored")
    # Chromium reports a full disk, or that the pipe to the storage broke, which has no more detail.
    said = "reading only: this browser's private file system "
    assert first["status"].startswith((f"{said}is full", f"{said}cannot be written to (AbortError"))
    assert first["usage"] < 3_100_000
    devtools.send("Storage.overrideQuotaForOrigin", {"origin": server.url.rstrip("/")})
    server.since()
    visit = visit_anywhere.again()
    second = visit.run(load_of(SPLADE))
    assert server.body_bytes() and second["last"]["from_cache"] > 0  # what was stored before the storage was full
    assert second["answer"] == first["answer"]
    assert second["status"].startswith("on: ")
    third = visit.run(load_of(SPLADE))
    assert server.body_bytes() == 0
    assert third["answer"] == first["answer"]


FORBIDDEN = "StorageManager.prototype.getDirectory = async () => { throw new DOMException('denied', 'SecurityError'); }"
MISSING = "() => { delete StorageManager.prototype.getDirectory; }"


def test_a_browser_without_storage_loads_from_the_network(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    page.add_init_script(FORBIDDEN)  # affects pages, not workers, so Python runs in the page
    visit = Visit(page, server.url + "visit/?main")
    for word in ("SecurityError", "no private file system"):
        server.since()
        found = visit.run(load_of(SPLADE))
        assert found["status"].startswith("off: this browser keeps no files for this page")
        assert word in found["status"]
        assert server.body_bytes() > found["last"]["total"]
        page.evaluate(MISSING)  # a cache that is off is opened again by the next load


def test_an_evicted_weight_is_restored_from_the_storage(visit: Visit, server: Server) -> None:
    first = visit.run(load_of(SPLADE, "webgpu"))
    server.since()
    found = visit.run("""
        answers, states = [], set()
        for _ in range(2):
            for entry in manager.registry:
                assert await entry.storage.evict()
                states.add(entry.storage.state)
            answers.append(await answer(model))
        await manager.set_memory_limit(manager.report().unique_weight_bytes / 2**20 * 1.3)
        for _ in range(2):  # the other tensor and the model do not fit together
            ones = np.ones(2_000_000, "f4")
            other = manager.register_shared_tensor("other", [2_000_000], "webgpu", "another", data=ones)
            assert (await other.read()).all()
            answers.append(await answer(model))
        stats = manager.get_stats()
        {"answers": answers, "states": sorted(states), "evictions": stats["evictions"], "restores": stats["restores"]}
    """)
    assert found["states"] == ["dropped"]  # without a copy in memory
    assert found["answers"] == [first["answer"]] * 4
    assert found["evictions"] >= 3
    assert server.body_bytes() == 0
    print(f"\n{found['evictions']} evictions and {found['restores']} restores under the limit")


# Open a blob, like another tab that reads or writes, and use the cache meanwhile.
IN_USE = """
import js
from pyodide.ffi import to_js
from tensorcommons.bridge.byte_buffer import ByteBuffer
from tensorcommons.bridge.digest import identity_of
from tensorcommons.hub.records import Piece
data, other = bytes(range(256)) * 4096, b"another" * 10_000
cache = await tc.open_cache()
folder = await (await js.navigator.storage.getDirectory()).getDirectoryHandle("tensorcommons")

async def read():
    found = await cache.read([Piece(0, len(data), identity_of(data))])
    return found is not None and bytes(found[0][0]) == data

steps = []
for mode in ("read-only", "readwrite"):
    assert await cache.put(identity_of(data), ByteBuffer.of(data))
    file = await folder.getFileHandle("blob-" + identity_of(data))
    handle = await file.createSyncAccessHandle(to_js({"mode": mode}, dict_converter=js.Object.fromEntries))
    steps.append([await read(), await cache.put(identity_of(data), ByteBuffer.of(data))])
    await cache.clear()
    steps[-1] += [await read(), await cache.put(identity_of(other), ByteBuffer.of(other))]
    handle.close()
    steps[-1].append(await read())
    await cache.clear()
    steps[-1] += [await read(), cache.status.split(":")[0]]
steps
"""


def test_two_tabs_share_the_storage(context: BrowserContext, server: Server) -> None:
    tabs = [Visit(context.new_page(), server.url + "visit/") for _ in range(2)]
    answers = []
    for _ in ("from the network", "from storage"):
        server.since()
        for tab in tabs:
            tab.page.evaluate("(source) => { globalThis.pending = run(source); }", load_of(SPLADE))
        replies = [tab.page.evaluate("() => pending") for tab in tabs]
        assert not [reply["error"] for reply in replies if "error" in reply]
        answers += [json.loads(reply["value"])["answer"] for reply in replies]
    assert server.body_bytes() == 0, "both tabs must store everything and read it at the same time"
    assert answers == answers[:1] * 4
    for read, put, stayed, other, after, cleared, status in tabs[0].run(IN_USE):
        assert read and put, "an open entry must be read, and count as stored"
        assert stayed and other and after, "an open entry may not be removed, nor end the writing of others"
        assert not cleared and status == "on"


def test_the_page_shows_the_source_of_a_model(context: BrowserContext, site_folder: Path) -> None:
    """Runs under the strict policy of the page, where JavaScript is registered by URL."""
    server = Server()
    with serve(site_folder, wrap=server.wrap) as url:
        context.add_init_script(RECORD)
        tab = Tab(context.new_page()).open(url, load=SPLADE)
        tab.wait_card(SPLADE, "loaded")
        assert not [text for text in tab.evaluate("said") if "storage" in text]
        assert [worker for worker in tab.page.workers if worker.url.endswith("/bridge/opfs.js")]
        server.since()
        tab.open(url, load=SPLADE)
        tab.wait_card(SPLADE, "loaded")
        assert server.body_bytes() == 0
        assert [text for text in tab.evaluate("said") if "from this browser's storage" in text]
        assert not [error for error in tab.errors if "404" not in error]
