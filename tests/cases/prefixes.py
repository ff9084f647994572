"""Keys and values of texts that begin alike, and generations that run together: tokens are those of each text alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

import tensorcommons as tc
from tensorcommons import Model
from tensorcommons.errors import MemoryBudgetError, TensorCommonsError, UnsupportedDtype
from tensorcommons.models import batch
from tensorcommons.models.batch import MOST_STEPS
from tensorcommons.models.decode_programs import LOGITS, DecodePrograms
from tensorcommons.models.decoder import PAGE
from tensorcommons.models.page_pool import PagePool, Text
from tests.cases import Place, long, slow
from tests.cases.checkpoints import WEIGHTS, pack, tensors_of
from tests.cases.decoders import DECODERS, ENCODER_DECODERS, load
from tests.cases.seeded import checkpoint
from tests.cases.support import near, raises

GREEDY: dict[str, Any] = {"eos_token_id": (), "pad_token_id": 0}


def _prompt(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(3, 90, (1, count))


def _counts(model: Model) -> dict[str, Any]:
    counts: dict[str, Any] = model.manager.get_stats()["generation"]
    return counts


async def a_prefix_is_computed_once(place: Place) -> None:
    """Of a text that begins like an earlier one, only what is not in full pages is computed again."""
    model = await load(place, "tiny-llama")
    prompt = _prompt(3 * PAGE + 5)
    first = await model.generate(prompt, max_new_tokens=4, **GREEDY)
    assert _counts(model)["reused_tokens"] == 0
    np.testing.assert_array_equal(await model.generate(prompt, max_new_tokens=4, **GREEDY), first)
    assert _counts(model)["reused_tokens"] == 3 * PAGE
    # The last token of a prompt is always computed, and a text of other tokens has nothing in common.
    await model.generate(prompt[:, : 2 * PAGE], max_new_tokens=1, **GREEDY)
    assert _counts(model)["reused_tokens"] == 4 * PAGE
    other = prompt.copy()
    other[0, 0] += 1
    await model.generate(other, max_new_tokens=1, **GREEDY)
    assert _counts(model)["reused_tokens"] == 4 * PAGE
    model.unload()


async def reused_keys_give_the_logits_of_a_text_alone(place: Place) -> None:
    """Compare log-probabilities with those of the whole text in one forward, for every architecture."""
    names = (*DECODERS, *ENCODER_DECODERS) if place.device.kind == "cpu" else ("tiny-llama",)
    for name in names:
        model = await load(place, name)
        prompt = _prompt(2 * PAGE + 3)
        await model.generate(prompt, max_new_tokens=2, **GREEDY)
        tokens, logprobs = await model.generate(prompt, max_new_tokens=4, output_logprobs=True, **GREEDY)
        if name in DECODERS:
            assert _counts(model)["reused_tokens"] == 2 * PAGE, name
            whole = await (await model(input_ids=tokens[:, :-1]))["logits"].read()
        else:
            whole = await (await model(input_ids=prompt, decoder_input_ids=tokens[:, :-1]))["logits"].read()
        last = whole[0, -4:-1].astype(np.float64)  # the last token of BART is forced
        wanted = last - np.log(np.exp(last).sum(-1, keepdims=True))
        near(logprobs[0, :3], np.take_along_axis(wanted, tokens[0, -4:-1, None], 1)[:, 0].astype(np.float32), 1e-4)
        model.unload()


async def conversations_on_one_prefix_take_little_more_than_one(place: Place) -> None:
    model = await load(place, "tiny-llama")
    prefix = _prompt(8 * PAGE)
    count = 10 if place.device.kind == "cpu" else 4
    prompts = [np.concatenate([prefix, _prompt(7, seed)], axis=1) for seed in range(1, count + 1)]
    alone = [await model.generate(prompt, max_new_tokens=5, **GREEDY) for prompt in prompts]
    pool = model.batch().pool
    most = 0

    def watch(tokens: Any) -> None:
        nonlocal most
        most = max(most, pool.pages_in_use)

    calls = [model.generate(prompt, max_new_tokens=5, on_token=watch, **GREEDY) for prompt in prompts]
    for tokens, wanted in zip(await asyncio.gather(*calls), alone, strict=True):
        np.testing.assert_array_equal(tokens, wanted)
    assert 8 < most <= 8 + count, most  # one page of its own each
    assert pool.pages_in_use == 0
    model.unload()


async def rows_of_a_batch_share_what_they_begin_with(place: Place) -> None:
    model = await load(place, "tiny-llama")
    prompt = _prompt(2 * PAGE + 1)
    options = {"do_sample": True, "seed": 7, "num_return_sequences": 3, "max_new_tokens": 4, **GREEDY}
    written = await model.generate(prompt, **options)
    assert _counts(model)["reused_tokens"] == 2 * 2 * PAGE, "two of three rows find the pages of the first"
    model.manager.devices.opened[0].caches.clear()
    np.testing.assert_array_equal(await model.generate(prompt, **options), written)
    model.unload()


async def a_prompt_can_be_processed_ahead(place: Place) -> None:
    model = await load(place, "tiny-llama")
    prompt = _prompt(2 * PAGE + 9)
    await model.prefill(prompt)
    await model.generate(prompt, max_new_tokens=1, **GREEDY)
    assert _counts(model)["reused_tokens"] == 2 * PAGE
    model.unload()


async def pages_leave_under_pressure_and_are_computed_again(place: Place) -> None:
    model = await load(place, "tiny-llama")
    prompt, device, manager = _prompt(4 * PAGE + 1), place.device, model.manager
    wanted = await model.generate(prompt, max_new_tokens=3, **GREEDY)
    pool = model.batch().pool
    kept = pool.nbytes
    assert kept == pool.idle_bytes > 0
    used = sum(each.total for each in manager.devices.opened)
    await manager.residency.make_room(manager.residency.usable - used + kept)
    assert pool.nbytes == 0
    np.testing.assert_array_equal(await model.generate(prompt, max_new_tokens=3, **GREEDY), wanted)
    assert _counts(model)["reused_tokens"] == 0 and pool.nbytes > 0
    model.unload()
    del model, pool
    assert not [cache for cache in device.caches if isinstance(cache, PagePool) and cache.nbytes]


async def _pages_of(model: Model, prompt: Any) -> Any:
    """Return what the pools have for the full pages of a prompt: (pools, pages, heads, PAGE, size)."""
    pool, text = model.batch().pool, Text()
    pool.begin(text, prompt[0])
    numbers = list(text.pages)
    pools = [await tensor.read() for tensor in pool._tensors.values() if tensor.dtype.kind == "float"]  # noqa: SLF001
    pool.close(text)
    return np.stack([each[numbers] for each in pools])


async def an_evicted_prompt_comes_back_with_the_same_bits(place: Place) -> None:
    """It is computed again in the pieces of before, by the same programs, also where the pools have grown since."""
    model = await load(place, "tiny-llama")
    prompt = _prompt(5 * PAGE + 3)
    await model.prefill(prompt)
    before = await _pages_of(model, prompt)
    assert before.shape[1] == 5 and np.abs(before).max() > 0
    for longer in (False, True):
        assert model.batch().pool.free_idle()
        if longer:
            await model.prefill(_prompt(9 * PAGE, 1))
        await model.prefill(prompt)
        assert _counts(model)["reused_tokens"] == 0
        np.testing.assert_array_equal(await _pages_of(model, prompt), before)
    model.unload()


async def without_an_activation_cache_nothing_is_kept(place: Place) -> None:
    model = await load(place, "tiny-llama", place.manager(activation_cache=False))
    await model.generate(_prompt(PAGE + 1), max_new_tokens=2, **GREEDY)
    assert model.batch().pool.nbytes == 0
    model.unload()


async def a_changed_weight_makes_other_keys(place: Place) -> None:
    model = await load(place, "tiny-llama")
    prompt = _prompt(2 * PAGE + 1)
    await model.prefill(prompt)
    before = model.batch().pool
    weight = next(entry.storage for entry in model.manager.registry if len(entry.names) == 1)
    weight.rename(f"{weight.identity} written")  # as a write does
    assert model.batch().pool is not before
    await model.generate(prompt, max_new_tokens=1, **GREEDY)
    assert _counts(model)["reused_tokens"] == 0
    model.unload()


async def _with_keys_of(place: Place, manager: Any, dtype: str | None) -> Model:
    files = checkpoint(place, "tiny-llama")
    options: dict[str, Any] = {"manager": manager, "device": place.device, "tokenizer": False}
    return await tc.from_pretrained(files, cache_dtype=dtype, **options)


async def keys_of_float16_take_half_the_bytes(place: Place) -> None:
    """Log-probabilities are near those with float32; pages of one dtype are not found for the other."""
    manager = place.manager()
    full, half = [await _with_keys_of(place, manager, each) for each in (None, "float16")]
    prompt = _prompt(3 * PAGE + 2)
    options = {"max_new_tokens": 20, "output_logprobs": True, **GREEDY}
    tokens, logprobs = await full.generate(prompt, **options)
    rounded, near_by = await half.generate(prompt, **options)
    assert _counts(half)["reused_tokens"] == 0
    np.testing.assert_array_equal(rounded, tokens)
    near(near_by, logprobs, 1e-2)
    assert np.abs(near_by - logprobs).max() > 0, "nothing was rounded"
    pools = [model.batch().pool for model in (full, half)]
    specs = [model.batch().steps.pools(pool.capacity) for model, pool in zip((full, half), pools, strict=True)]
    kept = [sum(spec.nbytes for spec in each.values() if spec.dtype.kind == "float") for each in specs]
    assert pools[0] is not pools[1] and kept[0] == 2 * kept[1]
    await half.generate(prompt, **options)
    assert _counts(half)["reused_tokens"] == 3 * PAGE
    beams = await half.generate(prompt, max_new_tokens=6, num_beams=3, **GREEDY)
    np.testing.assert_array_equal(beams, await full.generate(prompt, max_new_tokens=6, num_beams=3, **GREEDY))
    for model in (full, half):
        model.unload()


async def a_key_beyond_float16_ends_the_generation(place: Place) -> None:
    files = dict(checkpoint(place, "tiny-llama"))
    tensors = tensors_of(files)
    name = "model.layers.0.self_attn.k_proj.weight"
    files[WEIGHTS] = pack({**tensors, name: np.asarray(tensors[name]) * np.float32(1e7)})
    manager, prompt = place.manager(), _prompt(5)
    options: dict[str, Any] = {"manager": manager, "device": place.device, "tokenizer": False}
    for dtype in (None, "float16"):
        model = await tc.from_pretrained(files, cache_dtype=dtype, **options)
        if dtype is None:
            assert (await model.generate(prompt, max_new_tokens=3, **GREEDY)).shape == (1, 8)
        else:
            await raises(TensorCommonsError, model.generate(prompt, max_new_tokens=3, **GREEDY), "NaN or infinite")
        model.unload()


async def a_cache_dtype_is_checked(place: Place) -> None:
    manager = place.manager()
    options: dict[str, Any] = {"manager": manager, "device": place.device}
    unknown: tuple[Any, ...] = ("int8", "float64", 16)
    for wrong in unknown:
        loading = tc.from_pretrained(checkpoint(place, "tiny-llama"), cache_dtype=wrong, **options)
        await raises(UnsupportedDtype, loading, "cache_dtype", "float16")
    encoder = tc.from_pretrained(f"{place.goldens}/tiny-bert", cache_dtype="float16", tokenizer=False, **options)
    await raises(TensorCommonsError, encoder, "cache_dtype", "tiny-bert", "generates no text")
    model = await _with_keys_of(place, manager, "fp16")
    assert model.cache_dtype.name == "float16"
    await raises(TensorCommonsError, tc.pipeline("text-generation", model, manager=manager, cache_dtype="float32"), "cache_dtype")  # noqa: E501 # fmt: skip
    model.unload()


async def texts_reorder_as_beams_do(place: Place) -> None:
    """Rows that continue other rows share full pages and copy the last one."""
    model = await load(place, "tiny-llama")
    steps = model.batch().steps
    pool, rows = model.batch().pool, [_prompt(PAGE + 3, seed)[0] for seed in (1, 2, 3)]
    texts = [Text() for _ in rows]
    for text, tokens in zip(texts, rows, strict=True):
        pool.begin(text, tokens)
    ids, counts = np.stack(rows).astype(np.int32), [PAGE + 3] * 3
    (await pool.extend(steps, ids, texts, counts, {}, {}, LOGITS)).release()
    texts = await pool.reorder(steps, texts, [2, 0, 2])
    assert pool.pages_in_use == 2 + 2 + 1  # of the first row, and of the third with a copy of its last page
    new = np.array([[5], [6], [7]], np.int32)
    logits = await (await pool.extend(steps, new, texts, [1, 1, 1], {}, {}, LOGITS)).read()
    for row, parent in enumerate((2, 0, 2)):
        ids = np.append(rows[parent], new[row])[None]
        whole = await (await model(input_ids=ids))["logits"].read()
        near(logits[row], whole[0, -1], 1e-4)
    for text in texts:
        pool.close(text)
    assert pool.pages_in_use == 0
    model.unload()


async def pages_found_while_the_pools_grow_stay(place: Place) -> None:
    """A text that begins while another one waits for larger pools keeps the pages that it found."""
    model = await load(place, "tiny-llama")
    steps, pool, tokens = model.batch().steps, model.batch().pool, _prompt(3 * PAGE + 1)[0]
    await model.prefill(tokens[None])
    found, grow = Text(), DecodePrograms.grow

    async def refused(steps: DecodePrograms, *arguments: Any) -> Any:
        if not found.pages:
            pool.begin(found, tokens)
            raise MemoryBudgetError(1, 0, [], "there is none")
        return await grow(steps, *arguments)

    other = Text()
    ids = _prompt((pool.capacity - 2) * PAGE, 1).astype(np.int32)
    pool.begin(other, ids[0])
    with (
        patch.object(DecodePrograms, "grow", refused),
        patch.object(PagePool, "capacity_for", lambda *_: 2 * len(ids[0])),
    ):
        (await pool.extend(steps, ids, [other], [ids.shape[1]], {}, {}, LOGITS)).release()
    assert len(found.pages) == 3 and not set(found.pages) & set(other.pages)
    assert pool.pages_in_use == len(found.pages) + len(other.pages)
    pool.close(found)
    pool.close(other)
    model.unload()


# ── together ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Mix:
    """A random mix of generations that begin, go on, fork, are cancelled and lose their pages."""

    def __init__(self, model: Model, seed: int) -> None:
        self.model, self.rng = model, np.random.default_rng(seed)
        self.prefix = self.rng.integers(3, 90, (1, int(self.rng.integers(1, 40))))

    def _call(self) -> tuple[Any, dict[str, Any]]:
        own = self.rng.integers(3, 90, (1, int(self.rng.integers(1, 20))))
        prompt = np.concatenate([self.prefix, own], axis=1) if self.rng.random() < 0.6 else own
        options: dict[str, Any] = {"max_new_tokens": int(self.rng.integers(1, 12)), **GREEDY}
        kind = self.rng.integers(0, 4)
        if kind == 1:
            options |= {"do_sample": True, "seed": int(self.rng.integers(0, 99)), "top_k": 20}
        elif kind == 2:
            options |= {"repetition_penalty": 1.3}
        elif kind == 3:
            prompt = np.repeat(prompt, 2, axis=0)
        return prompt, options

    async def run(self) -> None:
        calls = [self._call() for _ in range(int(self.rng.integers(2, 7)))]
        tasks = [asyncio.ensure_future(self._written(*call)) for call in calls]
        pool = self.model.batch().pool
        if self.rng.random() < 0.3:
            await asyncio.sleep(0)
            tasks[0].cancel()
        if self.rng.random() < 0.3:
            for _ in range(int(self.rng.integers(0, 30))):
                await asyncio.sleep(0)
            pool.lose()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert pool.pages_in_use == 0
        for (prompt, options), tokens in zip(calls, found, strict=True):
            if isinstance(tokens, asyncio.CancelledError):
                continue
            if isinstance(tokens, BaseException):
                raise tokens
            alone = await self.model.generate(prompt, **options)
            np.testing.assert_array_equal(tokens, alone, f"{prompt.shape} {options}")
            if self.rng.random() < 0.3:  # a fork: the text goes on twice
                again = {**options, "max_new_tokens": 3}
                both = await asyncio.gather(*[self.model.generate(alone, **again) for _ in range(2)])
                np.testing.assert_array_equal(both[0], both[1])

    async def _written(self, prompt: Any, options: dict[str, Any]) -> Any:
        for _ in range(int(self.rng.integers(0, 9))):
            await asyncio.sleep(0)
        return await self.model.generate(prompt, **options)


async def _mixes(place: Place, seeds: Iterator[int] | range) -> None:
    model = await load(place, "tiny-llama")
    for seed in seeds:
        try:
            await _Mix(model, seed).run()
        except AssertionError as error:
            error.add_note(f"mix {seed}")
            raise
    assert _counts(model)["batched_tokens"] > 0
    model.unload()


@slow
async def generations_together_write_what_they_write_alone(place: Place) -> None:
    await _mixes(place, range(25 if place.device.kind == "cpu" else 3))


@long("webgpu", "webnn", "cpu")
async def two_hundred_mixes_write_what_each_writes_alone(place: Place) -> None:
    await _mixes(place, range(200))


async def models_of_other_angles_have_keys_of_their_own(place: Place) -> None:
    """Equal weights are one, but keys that are rotated by other angles are not."""
    prompt, tokens = _prompt(2 * PAGE + 2), []
    other = {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}}
    alone = await load(place, "tiny-llama", **other)
    wanted = await alone.generate(prompt, max_new_tokens=6, **GREEDY)
    alone.unload()
    manager = place.manager()
    models = [await load(place, "tiny-llama", manager, **changes) for changes in ({}, other, {})]
    for model in models:
        tokens.append(await model.generate(prompt, max_new_tokens=6, **GREEDY))
    np.testing.assert_array_equal(tokens[1], wanted)
    assert not np.array_equal(tokens[0], wanted), "the angles must make a difference"
    np.testing.assert_array_equal(tokens[0], tokens[2])
    pools = [model.batch().pool for model in models]
    assert pools[0] is pools[2] is not pools[1]
    for model in models:
        model.unload()


async def _cancelled(place: Place, number: int) -> None:
    """Cancel one of two generations while a run of both is under way; the other one writes what it writes alone."""
    model = await load(place, "tiny-llama")
    prompts = [_prompt(20, 1), _prompt(20, 2)]
    alone = [await model.generate(prompt, max_new_tokens=9, **GREEDY) for prompt in prompts]
    read, begun, goes_on = batch._read, asyncio.Event(), asyncio.Event()  # noqa: SLF001 - where a device would wait

    async def waiting(results: Any) -> Any:
        values = await read(results)
        if values.shape[-2] == 2 and not goes_on.is_set():
            begun.set()
            await goes_on.wait()
        return values

    with patch.object(batch, "_read", waiting):
        tasks = [asyncio.ensure_future(model.generate(prompt, max_new_tokens=9, **GREEDY)) for prompt in prompts]
        await begun.wait()
        tasks[number].cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        goes_on.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[number], asyncio.CancelledError)
    np.testing.assert_array_equal(found[1 - number], alone[1 - number])
    assert model.batch().pool.pages_in_use == 0
    np.testing.assert_array_equal(
        await model.generate(prompts[1 - number], max_new_tokens=9, **GREEDY), alone[1 - number]
    )
    model.unload()


async def the_first_of_a_batch_is_cancelled(place: Place) -> None:
    await _cancelled(place, 0)


async def the_last_of_a_batch_is_cancelled(place: Place) -> None:
    await _cancelled(place, 1)


async def a_cancelled_prompt_leaves_the_pages_of_other_texts(place: Place) -> None:
    model, prompt = await load(place, "tiny-llama"), _prompt(2 * PAGE + 3)
    await model.generate(_prompt(8 * PAGE, 9), max_new_tokens=1, **GREEDY)  # the pools have room
    wanted = await model.generate(prompt, max_new_tokens=4, **GREEDY)
    pool = model.batch().pool
    runs, reused = pool._running, _counts(model)["reused_tokens"]  # noqa: SLF001 - where a device would wait
    begun = asyncio.Event()

    @contextmanager
    def running() -> Iterator[None]:
        with runs():
            begun.set()
            yield

    with patch.object(pool, "_running", running):
        task = asyncio.ensure_future(model.generate(_prompt(4 * PAGE, 1), max_new_tokens=9, **GREEDY))
        await begun.wait()
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    assert pool.losses == 0 and pool.pages_in_use == 0
    np.testing.assert_array_equal(await model.generate(prompt, max_new_tokens=4, **GREEDY), wanted)
    assert _counts(model)["reused_tokens"] == reused + 2 * PAGE
    model.unload()


async def steps_of_two_models_take_turns(place: Place) -> None:
    """Neither of two models waits for more than a few steps of the other."""
    manager = place.manager()
    models = [await load(place, name, manager) for name in ("tiny-llama", "tiny-gpt2")]
    order: list[int] = []

    async def write(number: int) -> None:
        def note(tokens: Any) -> None:
            order.append(number)

        await models[number].generate(_prompt(5), max_new_tokens=24, on_token=note, **GREEDY)

    await asyncio.gather(write(0), write(1))  # compile
    order.clear()
    await asyncio.gather(write(0), write(1))
    both = order[: len(order) - 1 - order[::-1].index(1 - order[-1]) + 1]  # while both were under way
    longest = max(len(list(group)) for _, group in itertools.groupby(both))
    assert longest <= 2 * MOST_STEPS if place.device.backend.chains_runs else longest <= 3, order
    for model in models:
        model.unload()


async def a_run_that_fails_does_not_end_other_generations(place: Place) -> None:
    """A run that took the pools and failed loses them; generations beside it begin again."""
    model = await load(place, "tiny-llama")
    prompts = [_prompt(20, 1), _prompt(20, 2)]
    alone = [await model.generate(prompt, max_new_tokens=6, **GREEDY) for prompt in prompts]
    with _failing_once(model, 5):
        found = await asyncio.gather(
            *(model.generate(prompt, max_new_tokens=6, **GREEDY) for prompt in prompts), return_exceptions=True
        )
    failed = [isinstance(tokens, TensorCommonsError) for tokens in found]
    assert failed.count(True) == 1, found
    survivor = failed.index(False)
    np.testing.assert_array_equal(found[survivor], alone[survivor])
    model.unload()


@contextmanager
def _failing_once(model: Model, after: int) -> Iterator[None]:
    """Let the run after so many of the model's programs fail when it has ended."""
    extend, count = DecodePrograms.extend, 0

    async def failing(steps: DecodePrograms, *arguments: Any, **more: Any) -> Any:
        nonlocal count
        results = await extend(steps, *arguments, **more)
        count += steps is model.batch().steps
        if count == after:
            raise TensorCommonsError("the run failed")
        return results

    with patch.object(DecodePrograms, "extend", failing):
        yield


async def a_prompt_of_nothing_is_refused_ahead(place: Place) -> None:
    model = await load(place, "tiny-llama")
    await raises(TensorCommonsError, model.prefill(np.array([[1000]])))
    model.unload()
