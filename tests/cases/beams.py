"""Generation with beams and with prompt lookup: the models of `transformers`, and the pages of their texts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import tensorcommons as tc
from tensorcommons import Model
from tensorcommons.errors import TensorCommonsError
from tensorcommons.models.beam_session import BeamSession
from tensorcommons.models.beams import EXCLUDED
from tensorcommons.models.decode_programs import DecodePrograms
from tests.cases import Place, only, shows, slow
from tests.cases.pressure import _lose
from tests.cases.seeded import checkpoint
from tests.cases.support import raises, refused

PROMPT = np.arange(3, 8)[None]
BEAMS: dict[str, Any] = {"num_beams": 3, "eos_token_id": 5, "pad_token_id": 3}


@lru_cache
def _cases(folder: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = json.loads((Path(folder) / "beams.json").read_text())["written"]
    return made


async def _load(place: Place, name: str = "tiny-llama", **changes: Any) -> Model:
    files = checkpoint(place, name, **changes)
    return await tc.from_pretrained(files, manager=place.manager(), device=place.device, tokenizer=False)


def _pages_in_use(model: Model) -> int:
    return model.batch().pool.pages_in_use


@contextmanager
def _counting() -> Iterator[list[int]]:
    """Give a list of the widths of the steps that run meanwhile."""
    widths: list[int] = []
    extend = DecodePrograms.extend

    async def seen(self: DecodePrograms, ids: Any, *args: Any) -> Any:
        widths.append(ids.shape[1])
        return await extend(self, ids, *args)

    with patch.object(DecodePrograms, "extend", seen):
        yield widths


async def _searches(place: Place, name: str, step: int) -> None:
    with np.load(Path(place.goldens) / "decoders.npz") as arrays:
        ids, mask = arrays[f"{name}.prompts"], arrays[f"{name}.prompts_mask"]
    model, wrong = await _load(place, name), []
    cases = [case for case in _cases(place.goldens) if case["model"] == name]
    for case in cases[::step]:
        prompt = (ids[:1, -1:], None) if case["is_one_token"] else (ids, mask)
        tokens, logprobs = await model.generate(*prompt, output_logprobs=True, **case["options"])
        new = tokens[:, 1 if name in ("tiny-bart", "tiny-t5") else prompt[0].shape[1] :].tolist()
        if min(case["scores"]) < EXCLUDED / 100:  # texts of lost beams: their order is left open
            continue
        if new != case["new"]:
            wrong.append(f"{case['options']}: {new} instead of {case['new']}")
        elif not np.allclose(np.nan_to_num(logprobs), case["logprobs"], atol=1e-3):
            wrong.append(f"{case['options']}: other log-probabilities")
        assert not _pages_in_use(model)
    assert cases and not wrong, "\n".join(wrong)
    model.unload()


@shows("gpt2", "beam search", "beams.json")
@only("cpu")
@slow
async def gpt2_searches(place: Place) -> None:
    await _searches(place, "tiny-gpt2", 1)


@shows("llama", "beam search", "beams.json")
@only("cpu")
@slow
async def llama_searches(place: Place) -> None:
    await _searches(place, "tiny-llama", 1)


@shows("bart", "beam search", "beams.json")
@only("cpu")
@slow
async def bart_searches(place: Place) -> None:
    await _searches(place, "tiny-bart", 1)


@shows("t5", "beam search", "beams.json")
@only("cpu")
@slow
async def t5_searches(place: Place) -> None:
    await _searches(place, "tiny-t5", 1)


@shows("llama, t5", "beam search", "beams.json")
@only("webgpu", "webnn")
async def some_searches_on_a_device(place: Place) -> None:
    await _searches(place, "tiny-llama", 14)
    await _searches(place, "tiny-t5", 14)


@only("cpu")
async def a_long_search_equals_one_that_computes_all_again(place: Place) -> None:
    """Over several pages, with a prompt that ends inside a page and one that ends with it."""
    model = await _load(place)
    rng = np.random.default_rng(1)
    for width, rows in ((13, 2), (16, 1), (33, 2)):
        ids = rng.integers(3, 100, (rows, width))
        options: dict[str, Any] = {
            "num_beams": 4,
            "num_return_sequences": 3,
            "max_new_tokens": 40,
            "early_stopping": "never",
        }
        tokens, logprobs = await model.generate(ids, output_logprobs=True, length_penalty=0.0, **options)
        for row, own in zip(tokens, logprobs, strict=True):
            logits = await (await model(input_ids=row[None], outputs=["logits"]))["logits"].read()
            scores = logits[0, width - 1 : -1].astype(np.float64)
            scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
            np.testing.assert_allclose(own, scores[np.arange(40), row[width:]], atol=1e-3)
        assert not _pages_in_use(model)
    model.unload()


async def a_search_goes_on_after_its_pages_were_lost(place: Place) -> None:
    """Before a step of a search, twice: with the texts of its last step, and before their places change."""
    model = await _load(place)
    new = 24 if place.device.kind == "cpu" else 8
    wanted = await model.generate(PROMPT, max_new_tokens=new, **BEAMS)
    steps, step = 0, BeamSession.step

    async def losing(self: BeamSession) -> Any:
        nonlocal steps
        steps += 1
        if steps in (3, 7):
            model.batch().pool.lose()
        return await step(self)

    with patch.object(BeamSession, "step", losing):
        got = await model.generate(PROMPT, max_new_tokens=new, **BEAMS)
    assert np.array_equal(got, wanted) and steps > 7
    assert not _pages_in_use(model)
    model.unload()


@only("webgpu")
async def a_search_goes_on_after_its_device_was_lost(place: Place) -> None:
    model = await _load(place)
    wanted = await model.generate(PROMPT, max_new_tokens=8, **BEAMS)
    copies, copy = 0, DecodePrograms.copy

    async def losing(self: DecodePrograms, *args: Any) -> Any:
        nonlocal copies
        copies += 1
        if copies == 2:
            await _lose(place.device)
        return await copy(self, *args)

    with patch.object(DecodePrograms, "copy", losing):
        got = await model.generate(PROMPT, max_new_tokens=8, **BEAMS)
    assert np.array_equal(got, wanted) and copies > 2
    model.unload()


@only("cpu")
async def a_search_that_fails_or_is_cancelled_gives_its_pages_back(place: Place) -> None:
    model = await _load(place)
    wanted = await model.generate(PROMPT, max_new_tokens=24, **BEAMS)
    steps, extend, copy = 0, DecodePrograms.extend, DecodePrograms.copy

    async def failing(self: DecodePrograms, *args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise TensorCommonsError("on purpose")
        return await (extend if len(args) == 5 else copy)(self, *args)

    for name in ("extend", "copy"):
        steps = 0
        with patch.object(DecodePrograms, name, failing):
            await raises(TensorCommonsError, model.generate(PROMPT, max_new_tokens=24, **BEAMS), "on purpose")
        assert not _pages_in_use(model)
        task = asyncio.ensure_future(model.generate(PROMPT, max_new_tokens=190, **{**BEAMS, "eos_token_id": None}))
        await asyncio.sleep(0.05)
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
        assert not _pages_in_use(model)
    assert np.array_equal(await model.generate(PROMPT, max_new_tokens=24, **BEAMS), wanted)
    model.unload()


@only("cpu")
async def beams_as_a_file_and_a_call_ask_for_them(place: Place) -> None:
    model = await _load(place)
    plain = await model.generate(PROMPT, max_new_tokens=9)
    four = await model.generate(PROMPT, max_new_tokens=9, num_beams=4)
    architecture: Any = model.architecture
    architecture.generation = {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0}
    asked = await model.generate(PROMPT, max_new_tokens=9, length_penalty=1.0, early_stopping=None)
    assert np.array_equal(asked, four) and not np.array_equal(four, plain)
    assert np.array_equal(await model.generate(PROMPT, max_new_tokens=9, num_beams=1), plain)
    assert (await model.generate(PROMPT, max_new_tokens=9, max_time=0.0)).shape == (1, 6)
    for given in ({}, {"num_beams": 2}):
        error = refused(place.device, TensorCommonsError, partial(model.stream, PROMPT, **given))
        assert "num_beams=1" in str(error)
    await raises(TensorCommonsError, model.generate(PROMPT, on_token=lambda _: None), "num_beams")
    await raises(TensorCommonsError, model.generate(PROMPT, num_return_sequences=5), "num_return_sequences", "4")
    await raises(TensorCommonsError, model.generate(PROMPT, num_beam_groups=2), "num_beam_groups", "not supported")
    assert (await model.generate(PROMPT, max_new_tokens=2, num_beams=1, num_beam_groups=2)).shape == (1, 7)
    for wrong in ({"early_stopping": "always"}, {"num_beams": 0}, {"length_penalty": "a"}):
        await raises(TensorCommonsError, model.generate(PROMPT, **wrong), next(iter(wrong)))
    await model.compile_generation([(1, 5)], max_new_tokens=30, num_beams=2)
    compiled = len(model.batch().steps._kept)  # noqa: SLF001 - the programs
    await model.generate(PROMPT, max_new_tokens=30, num_beams=2)
    assert len(model.batch().steps._kept) == compiled, "a search must find its programs compiled"  # noqa: SLF001
    model.unload()


@only("cpu")
async def padding_after_beams_must_be_a_token(place: Place) -> None:
    model = await _load(place)
    options: dict[str, Any] = {
        "max_new_tokens": 12,
        "num_beams": 4,
        "num_return_sequences": 4,
        "eos_token_id": list(range(0, 100, 7)),
    }
    tokens = await model.generate(PROMPT, pad_token_id=0, **options)
    assert (tokens[:, -1] == 0).any(), "0 is an end token, which pads there instead of the padding token 0"
    await raises(TensorCommonsError, model.generate(PROMPT, pad_token_id=1000, **options), "padding", "1000")
    one = await model.generate(PROMPT, pad_token_id=1000, **{**options, "num_return_sequences": 1})
    assert np.array_equal(one[0], tokens[0, : one.shape[1]])
    model.unload()


async def looked_up_tokens_are_those_of_single_steps(place: Place) -> None:
    """With the device's choice and the host's, sampled ones, end tokens and lengths of all kinds."""
    on_cpu = place.device.kind == "cpu"
    for name in ("tiny-llama", "tiny-gpt2", "tiny-t5") if on_cpu else ("tiny-llama",):
        model = await _load(place, name)
        prompt = np.tile(np.arange(3, 12), 3)[None, :20]
        plain = await model.generate(prompt, max_new_tokens=60)
        end = int(plain[0, -9])
        sampled = {"do_sample": True, "temperature": 0.3, "seed": 1}
        cases: tuple[dict[str, Any], ...] = (
            {}, {"eos_token_id": end}, {"repetition_penalty": 1.01}, sampled, {"no_repeat_ngram_size": 9},
            {**sampled, "repetition_penalty": 1.02}, {"output_logprobs": True},
        )  # fmt: skip
        for options in cases if on_cpu else cases[:3]:
            for new, count in ((60, 3), (37, 10), (2, 5)) if on_cpu else ((30, 4),):
                wanted = await model.generate(prompt, max_new_tokens=new, **options)
                with _counting() as widths:
                    got = await model.generate(prompt, max_new_tokens=new, prompt_lookup_num_tokens=count, **options)
                if "output_logprobs" in options:
                    np.testing.assert_allclose(got[1], wanted[1], atol=1e-4)
                    got, wanted = got[0], wanted[0]
                assert np.array_equal(got, wanted), (name, options, new, count)
                if not options and new > 2:
                    assert 8 in widths or 16 in widths, "tokens must be looked up"
                assert not _pages_in_use(model)
        # What a rejected candidate left must not be found by a later prompt.
        written = await model.generate(prompt, max_new_tokens=40, prompt_lookup_num_tokens=6)
        if name != "tiny-t5":
            more = await model.generate(written, max_new_tokens=9)
            model.batch().pool.lose()
            assert np.array_equal(more, await model.generate(written, max_new_tokens=9))
        model.unload()


@only("cpu")
async def looked_up_tokens_take_fewer_steps(place: Place) -> None:
    """A text that repeats itself: `suppress_tokens` leaves two tokens."""
    model = await _load(place)
    options: dict[str, Any] = {"suppress_tokens": list(range(2, 100)), "max_new_tokens": 64}
    counts, texts = [], []
    for count in (None, 8):
        with _counting() as widths:
            texts.append((await model.generate(PROMPT, **options, prompt_lookup_num_tokens=count)).tolist())
        counts.append(len(widths))
    assert texts[0] == texts[1] and 2 * counts[1] < counts[0], counts
    model.unload()
    model = await _load(place)
    await model.compile_generation([PROMPT.shape], **options, prompt_lookup_num_tokens=8)
    compiled = set(model.batch().steps._kept)  # noqa: SLF001 - the programs
    await model.generate(PROMPT, **options, prompt_lookup_num_tokens=8)
    assert set(model.batch().steps._kept) == compiled, "steps with candidates must find their programs compiled"  # noqa: SLF001
    model.unload()
