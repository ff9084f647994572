"""The page's Python: passages of a text, and the package as the page's runtime imports it."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorcommons as tc
from scripts.paths import ROOT
from tensorcommons.errors import TensorReleased
from tensorcommons.remote.runtime import Runtime
from tensorcommons.tasks import TASKS, text_generation
from web import workbench
from web.workbench.images import map_of, pixels_of
from web.workbench.own import CALLS, GENERATION
from web.workbench.progress import Progress
from web.workbench.search import LONGEST, cut, words_of
from web.workbench.session import session
from web.workbench.texts import Part, run, usable

TINY = ROOT / "tests" / "goldens"
HANDBOOK = (ROOT / "web" / "samples" / "handbook.txt").read_text("utf-8")
SENTENCE = "A sentence that is long enough to be a passage by itself, and ends with a point. "


def passages(text: str) -> list[str]:
    return [text[start:stop] for start, stop in cut(text)]


def test_each_paragraph_is_a_passage():
    found = passages(HANDBOOK)
    assert len(found) == 12
    assert found[2].startswith("The key of the bicycle shed") and found[2].endswith("what is broken.")
    assert passages("") == passages(" \n\n \t\n") == []


def test_a_heading_joins_the_paragraph_below_it_and_the_last_line_stays():
    assert passages(f"# Title\n\n{SENTENCE}\n\nEnd") == [f"# Title\n\n{SENTENCE.strip()}", "End"]


@pytest.mark.parametrize(
    ("text", "ends"), [(SENTENCE * 30, "."), ("word " * 900, "d"), ("一句话。" * 700, "。"), ("x" * 2000, "x")]
)
def test_a_long_paragraph_is_cut_after_a_sentence_or_a_word(text, ends):
    found = passages(text)
    assert len(found) > 1
    assert all(0 < len(passage) <= LONGEST and passage.endswith(ends) for passage in found)
    assert "".join("".join(found).split()) == "".join(text.split())


@given(st.text(alphabet="a b.\n\r\t!。é😀", max_size=3000))
def test_passages_are_in_order_and_leave_no_word_out(text):
    places = list(cut(text))
    flat = [at for place in places for at in place]
    assert flat == sorted(flat) and all(start < stop for start, stop in places)
    assert "".join("".join(text[start:stop] for start, stop in places).split()) == "".join(text.split())


def test_words_are_the_same_under_another_line_break():
    text = "one two\nthree   four"
    assert words_of(text, (0, len(text))) == "one two three four"


@pytest.fixture
def parts():
    """The parts that a call sends, as the page gets them: they are JSON or arrays."""
    return []


@pytest.fixture
async def runtime():
    """A runtime as a page has it; its messages, the reports, go nowhere."""
    runtime = Runtime(await tc.open_devices(), lambda name, text, buffers: None)
    with runtime.manager:
        await workbench.start(runtime)
        yield runtime
        session.models.clear()


async def test_a_model_is_described_loaded_moved_and_unloaded(runtime, parts):
    source = str(TINY / "tiny-bert")
    cost = await workbench.cost(source, {"dtype": None})
    assert json.loads(json.dumps(cost))["new_bytes"] == cost["weight_bytes"] > 0
    answer = await workbench.load("tiny", source, {}, send=parts.append)
    assert answer == {"name": "tiny-bert", "device": "cpu", "mask": None}
    assert parts[-1]["loaded"] == parts[-1]["total"] > 0
    assert (await workbench.cost(source, {}))["device_bytes"] == cost["weight_bytes"]
    assert await workbench.move("tiny", "cpu", send=parts.append) == {"device": "cpu"}
    workbench.pin("cpu")
    assert (await workbench.cost(source, {}))["device"] == "cpu"
    await workbench.unload("tiny")
    assert runtime.manager.report().device_bytes == 0
    with pytest.raises(TensorReleased, match="tiny is not loaded"):
        session.model("tiny")


async def test_unloading_cancels_a_run_that_uses_the_model(runtime, parts):
    await workbench.load("tiny", str(TINY / "tiny-bert"), {}, send=parts.append)
    began = asyncio.Event()

    async def runs():
        async with session.turn(parts.append):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(runs())
    await began.wait()
    await workbench.unload("tiny")
    assert task.cancelled()


async def test_a_part_whose_model_is_not_loaded_says_what_it_needs(runtime, parts):
    assert await run([Part("nli", "absent", "text-classification")], ["a", "b"], ["note"], parts.append) == {
        "stats": None
    }
    assert parts == [{"part": "notices", "notices": ["note"]}, {"part": "nli", "needs": "absent"}]
    assert usable([], ["a", " "], ["A", "B"]) == ([0], ["B is empty and left out."])
    assert (await workbench.pair({"texts": ["a", ""]}, send=parts.append))["empty"]
    assert (await workbench.sentences({"texts": [""]}, send=parts.append))["empty"]
    assert (await workbench.search({"text": "", "question": "?"}, send=parts.append))["empty"]


def test_every_task_of_the_package_has_a_form():
    known = {*TASKS, *text_generation.TASKS} - {"sentence-similarity"}
    assert {*CALLS, *GENERATION} == known


def test_progress_is_over_all_files_when_the_load_says_so(parts):
    progress = Progress(parts.append)
    progress({"status": "initiate", "file": "config.json"})
    progress({"status": "progress", "file": "a", "loaded": 10, "total": 10})
    progress({"status": "progress", "file": "b", "loaded": 5, "total": 5})
    progress({"status": "progress_total", "file": "m", "loaded": 20, "total": 20, "shared_bytes": 3})
    assert [(part["loaded"], part["total"]) for part in parts] == [(10, 10), (15, 15), (20, 20)]
    assert parts[-1] == {"loaded": 20, "total": 20, "shared": 3, "stored": 0}


def test_the_picture_of_a_request():
    request = {"pixels": np.arange(24, dtype=np.uint8), "height": 2, "width": 3}
    assert pixels_of(request).shape == (2, 3, 4)
    assert map_of(np.array([0.0, 0.5, 1.0])).tolist() == [0, 128, 255]
