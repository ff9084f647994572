"""Decoders against `transformers`: logits and generated tokens, with weights made from their names."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np

import tensorcommons as tc
from tensorcommons import Model
from tensorcommons.errors import MemoryBudgetError, ShapeMismatch, TensorCommonsError, TensorReleased
from tensorcommons.models.decode_programs import LOGITS, Choice
from tensorcommons.models.generation_options import Options
from tensorcommons.models.logits_process import Prompt, repetition_penalty
from tensorcommons.models.sampling import Sampler
from tensorcommons.ops.choosing import keep_top_k, keep_top_p
from tests.cases import Place, harness, long, only, shows, slow
from tests.cases.pressure import _lose
from tests.cases.seeded import checkpoint
from tests.cases.support import NO_SHAPES, near, raises

STEPS = 64
DECODERS = ("tiny-gpt2", "tiny-llama", "tiny-llama-scaled", "tiny-qwen2", "tiny-qwen3", "tiny-mistral", "tiny-gemma3")
ENCODER_DECODERS = ("tiny-t5", "tiny-t5-gated", "tiny-bart")
TO_THE_END: dict[str, Any] = {"max_new_tokens": STEPS, "pad_token_id": 0}


def goldens(place: Place, name: str) -> dict[str, Any]:
    with np.load(Path(place.goldens) / "decoders.npz") as arrays:
        return {key.removeprefix(f"{name}."): arrays[key] for key in arrays.files if key.startswith(f"{name}.")}


async def load(place: Place, name: str, manager: Any = None, **changes: Any) -> Model:
    files = checkpoint(place, name, **changes)
    manager = manager or place.manager()
    return await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)


async def _writes_as_the_reference(place: Place, name: str) -> None:
    """Generate from one prompt, a batch of three that begin at different slots, one ending early, and a penalty."""
    model, golden = await load(place, name), goldens(place, name)
    alone = await model.generate(golden["prompt"], **TO_THE_END)
    assert np.array_equal(alone[:, -STEPS:], golden["greedy"]), name
    if place.device.kind != "cpu" and name != "tiny-llama":  # a software adapter needs a minute for the others
        model.unload()
        return
    prompts, mask = golden["prompts"], golden["prompts_mask"]
    batch = await model.generate(prompts, mask, **TO_THE_END)
    assert np.array_equal(batch[:, -STEPS:], golden["batch"])
    stopped = await model.generate(prompts, mask, eos_token_id=int(golden["eos"]), **TO_THE_END)
    assert np.array_equal(stopped[:, -golden["stopped"].shape[1] :], golden["stopped"])
    penalized = await model.generate(golden["prompt"], repetition_penalty=1.7, **TO_THE_END)
    assert np.array_equal(penalized[:, -STEPS:], golden["penalized"])
    model.unload()


async def _logits(place: Place, name: str) -> None:
    model, golden = await load(place, name), goldens(place, name)
    inputs = {key: golden[key] for key in ("input_ids", "attention_mask", "decoder_input_ids") if key in golden}
    logits = await (await model(**inputs, outputs=["logits"]))["logits"].read()
    mask = inputs["attention_mask"] if "decoder_input_ids" not in inputs else np.ones(logits.shape[:2])
    near(logits[mask == 1], golden["logits"][mask == 1], 1e-4)
    model.unload()


@shows("gpt2", "logits", "decoders.npz")
async def logits_of_gpt2(place: Place) -> None:
    await _logits(place, "tiny-gpt2")


@shows("llama", "logits", "decoders.npz")
@shows("llama, biases and llama3 positions", "logits", "decoders.npz")
@shows("qwen2, qwen3, mistral", "logits", "decoders.npz")
async def logits_of_llama(place: Place) -> None:
    for name in ("tiny-llama", "tiny-llama-scaled", "tiny-qwen2", "tiny-qwen3", "tiny-mistral"):
        await _logits(place, name)


@shows("gemma3_text", "logits", "decoders.npz")
async def logits_of_gemma3(place: Place) -> None:
    await _logits(place, "tiny-gemma3")


@shows("t5, bart", "logits", "decoders.npz")
@shows("t5, gated layers", "logits", "decoders.npz")
async def logits_of_t5(place: Place) -> None:
    for name in ENCODER_DECODERS:
        await _logits(place, name)


class _Recorder(Sampler):
    """Sampler that records the logits of each step and takes the most likely token."""

    seen: ClassVar[list[Any]]

    def choose(self, scores: Any, tokens: Any) -> Any:
        self.seen.append(scores)
        return scores.argmax(-1)

    def choice(self, *, samples: bool) -> Choice:
        return LOGITS


@slow
@shows("bart, gemma3_text, gpt2, llama, qwen2, qwen3, mistral, t5", "logits of each greedy step", "decoders.npz")
async def logits_of_each_step(place: Place) -> None:
    """Compare the logits with a key/value cache: 64 steps on NumPy, 16 of two models elsewhere."""
    on_numpy = place.device.kind == "cpu"
    for name in (*ENCODER_DECODERS, *DECODERS) if on_numpy else ("tiny-llama", "tiny-t5"):
        model, golden = await load(place, name), goldens(place, name)
        count, _Recorder.seen = STEPS if on_numpy else 16, []
        with patch("tensorcommons.models.generation.Sampler", _Recorder):
            await model.generate(golden["prompt"], max_new_tokens=count, pad_token_id=0)
        near(np.stack(_Recorder.seen, 1), golden["greedy_logits"][:, :count], 1e-4)
        model.unload()


@shows("gpt2", "64 greedy tokens", "decoders.npz")
async def gpt2_writes(place: Place) -> None:
    await _writes_as_the_reference(place, "tiny-gpt2")


@shows("llama", "64 greedy tokens", "decoders.npz")
@shows("llama", "a batch of prompts, end tokens, repetition penalty", "decoders.npz")
async def llama_writes(place: Place) -> None:
    await _writes_as_the_reference(place, "tiny-llama")


@shows("llama, biases and llama3 positions", "64 greedy tokens", "decoders.npz")
@slow
async def llama_with_biases_and_scaled_positions_writes(place: Place) -> None:
    await _writes_as_the_reference(place, "tiny-llama-scaled")


@shows("qwen2", "64 greedy tokens", "decoders.npz")
@slow
async def qwen2_writes(place: Place) -> None:
    await _writes_as_the_reference(place, "tiny-qwen2")


@shows("qwen3", "64 greedy tokens, windows of 6 in a layer", "decoders.npz")
async def qwen3_writes(place: Place) -> None:
    await _writes_as_the_reference(place, "tiny-qwen3")


@shows("mistral", "64 greedy tokens, windows of 5", "decoders.npz")
@shows("mistral", "a batch of prompts, end tokens, repetition penalty", "decoders.npz")
async def mistral_writes(place: Place) -> None:
    await _writes_as_the_reference(place, "tiny-mistral")


@shows("gemma3_text", "64 greedy tokens, windows of 5 in a layer", "decoders.npz")
async def gemma3_writes(place: Place) -> None:
    await _writes_as_the_reference(place, "tiny-gemma3")


@shows("bart", "64 greedy tokens", "decoders.npz")
async def bart_answers(place: Place) -> None:
    await _writes_as_the_reference(place, "tiny-bart")


@shows("t5", "64 greedy tokens", "decoders.npz")
async def t5_answers(place: Place) -> None:
    await _writes_as_the_reference(place, "tiny-t5")


@shows("t5, gated layers", "64 greedy tokens", "decoders.npz")
@slow
async def t5_with_gated_layers_answers(place: Place) -> None:
    await _writes_as_the_reference(place, "tiny-t5-gated")


async def _smollm2_writes(place: Place, number: int, count: int) -> None:
    golden = json.loads((Path(place.goldens) / "smollm2.json").read_text())["written"][number]
    model = await tc.from_pretrained(
        f"{place.models}/SmolLM2-135M-Instruct", manager=place.manager(), device=place.device, tokenizer=False
    )
    written = await model.generate([golden["ids"]], max_new_tokens=count, eos_token_id=())
    assert written[0, len(golden["ids"]) :].tolist() == golden["new"][:count]
    run = model.manager.last_run
    assert (run["device"], run["models"]) == (place.device.kind, ["SmolLM2-135M-Instruct"])
    assert place.device.kind == "cpu" or run["js_calls"] <= 2
    model.unload()


@shows("SmolLM2-135M-Instruct", "the first 16 of its greedy tokens", "smollm2.json")
@slow
async def smollm2_begins_as_the_reference(place: Place) -> None:
    await _smollm2_writes(place, 1, 16)


@shows("SmolLM2-135M-Instruct", "64 greedy tokens", "smollm2.json")
@long("cpu", "webgpu", "webnn")
async def smollm2_writes_as_the_reference(place: Place) -> None:
    await _smollm2_writes(place, 0, 64)


async def a_step_compiles_nothing(place: Place) -> None:
    model, prompt = await load(place, "tiny-llama"), np.arange(3, 8)[None]
    steps, seen = model.stream(prompt, max_new_tokens=STEPS), []
    async for _ in steps:
        seen.append(len(place.device.programs))
    # 5 prompt tokens and 59 new ones fill 4 pages. Two more programs follow: growing, and a step over more pages.
    # Where several steps begin at once, these programs come up to so many tokens earlier.
    counts = [seen[1], seen[1] + 2]
    assert sorted(set(seen[1:])) == counts and seen[1:] == sorted(seen[1:]), f"programs after each step: {seen}"
    assert len(set(seen[1:40])) == 1, f"programs after each step: {seen}"
    for _ in range(
        2
    ):  # tables may be narrow again, over pools that have grown, and grow for the pages of earlier texts
        await model.generate(prompt, max_new_tokens=STEPS)
    before = len(place.device.programs)
    await model.generate(prompt, max_new_tokens=STEPS)
    assert len(place.device.programs) == before, "the third text compiled a program"
    model.unload()


@slow
async def writing_takes_what_was_compiled_ahead(place: Place) -> None:
    """With a prompt in two pieces and a cache that grows, only the zeros of an empty cache are compiled later."""
    for name in ("tiny-llama", "tiny-t5"):
        model = await load(place, name, place.manager(activation_cache=False), max_position_embeddings=700)
        course = (((1, 270), 2), ((1, 20), 70))
        for (shape, new), greedy in itertools.product(course, (True, False)):
            options: dict[str, Any] = {"max_new_tokens": new, "pad_token_id": 0, "do_sample": not greedy}
            seen: list[tuple[int, int]] = []
            await model.compile_generation([shape], lambda *counts: seen.append(counts), **options)  # noqa: B023
            total = seen[-1][1]
            assert seen == [(done, total) for done in range(total + 1)] and total >= 2
        before = len(place.device.programs)
        for (shape, new), greedy in itertools.product(course, (True, False)):
            ids = np.arange(shape[1])[None] % 90 + 3
            await model.generate(ids, max_new_tokens=new, pad_token_id=0, do_sample=not greedy)
        assert len(place.device.programs) <= before + 2, "more than empty caches of two sizes were compiled"
        await raises(ShapeMismatch, model.compile_generation([(1, 0)]))
        model.unload()
    await raises(TensorReleased, model.compile_generation([(1, 5)]))


async def a_long_prompt_is_read_in_pieces(place: Place) -> None:
    model = await load(place, "tiny-llama", max_position_embeddings=700)
    ids = np.random.default_rng(1).integers(3, 100, (2, 300))
    mask = np.ones_like(ids)
    mask[0, :290] = 0
    written = await model.generate(ids, mask, max_new_tokens=2)
    whole = await (await model(input_ids=ids[1:]))["logits"].read()
    assert written[1, 300] == whole[0, -1].argmax()
    short = await model.generate(ids[:1, 290:], max_new_tokens=2)
    assert np.array_equal(written[0, 290:], short[0])
    model.unload()


async def writing_ends_where_the_model_ends(place: Place) -> None:
    model = await load(place, "tiny-gpt2")
    ids = np.arange(195)[None] % 100
    assert (await model.generate(ids, max_new_tokens=50)).shape == (1, 200)
    await raises(ShapeMismatch, model.generate(np.zeros((1, 200), int)), "200")
    model.unload()
    for name, field in (("tiny-gpt2", "n_positions"), ("tiny-bart", "max_position_embeddings")):
        model = await load(place, name, **{field: 5})
        assert (await model.generate(ids[:, :3], max_new_tokens=2, eos_token_id=None)).shape[1] in (3, 5)
        model.unload()


async def cancelled_writing_leaves_nothing(place: Place) -> None:
    model, prompt = await load(place, "tiny-llama"), np.arange(3, 8)[None]
    await model.generate(prompt, max_new_tokens=2)
    await harness.let_go()
    before = place.device.memory()["activations"]
    started = asyncio.Event()
    work = asyncio.ensure_future(model.generate(prompt, max_new_tokens=150, on_token=lambda tokens: started.set()))
    await started.wait()
    assert model.batch().pool.pages_in_use, "keys and values must be on the device"
    work.cancel()
    assert isinstance((await asyncio.gather(work, return_exceptions=True))[0], asyncio.CancelledError)
    stream: Any = model.stream(prompt, max_new_tokens=150)
    async for _ in stream:
        break
    await stream.aclose()
    del stream, work

    def complain(tokens: Any) -> None:
        raise KeyError("the listener's own")

    try:
        await model.generate(prompt, max_new_tokens=150, on_token=complain)
        raise AssertionError("an error of the callback must be raised")
    except KeyError as error:
        error.with_traceback(None)
    await harness.let_go()
    assert place.device.memory()["activations"] == before
    model.unload()


@only("webgpu")
async def writing_goes_on_after_a_move_and_a_loss(place: Place) -> None:
    golden = goldens(place, "tiny-llama")
    model = await load(place, "tiny-llama")
    tokens: list[int] = []
    async for chosen in model.stream(golden["prompt"], max_new_tokens=16):
        tokens.append(int(chosen[0]))
        if len(tokens) == 4:
            await _lose(place.device)
        if len(tokens) in (8, 12):
            await model.to("cpu" if len(tokens) == 8 else "webgpu")
    assert tokens == golden["greedy"][0, :16].tolist()
    model.unload()


async def seeds_repeat_what_they_drew(place: Place) -> None:
    model, prompt = await load(place, "tiny-llama"), np.arange(3, 8)[None]
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": True, "temperature": 1.5, "top_k": 0}
    first, again, other = [await model.generate(prompt, seed=seed, **options) for seed in (1, 1, 2)]
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    both = await model.generate(np.repeat(prompt, 2, 0), seed=1, **options)
    assert np.array_equal(both[:1], first), "a row must draw the tokens that it draws alone"
    assert not np.array_equal(both[1], first[0])
    model.unload()


async def what_cannot_be_written(place: Place) -> None:
    model, prompt = await load(place, "tiny-llama"), np.arange(3, 8)[None]
    before = place.device.total
    await raises(TensorCommonsError, model.generate(prompt, nonsense=1), "nonsense", "top_k")
    for wrong in (
        *({"temperature": 0, "do_sample": True}, {"temperature": float("nan")}, {"top_p": -1, "do_sample": True}),
        *({"top_k": -1, "do_sample": True}, {"top_k": True}, {"seed": 0.5}, {"do_sample": 1}, {"min_new_tokens": -1}),
        *({"max_new_tokens": 0}, {"typical_p": 0, "do_sample": True}, {"min_p": 2, "do_sample": True}),
        *({"pad_token_id": -1}, {"pad_token_id": 0.5}, {"eos_token_id": True}, {"stop_strings": ""}),
        *({"repetition_penalty": float("inf")}, {"repetition_penalty": 10**400}, {"temperature": 10**400}),
    ):
        await raises(TensorCommonsError, model.generate(prompt, **wrong), next(iter(wrong)))
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        await raises(TensorCommonsError, model.generate(prompt, **dict[str, Any]({name: 10**5000})), name, "vocabulary")
    for number in (1 << 40, -(1 << 40)):  # outside the vocabulary, although its last 32 bits are inside
        await raises(TensorCommonsError, model.generate(prompt.astype(np.int64) + number), "vocabulary")
    two = np.repeat(prompt, 2, 0)
    for padding in (100, 1 << 40):
        await raises(TensorCommonsError, model.generate(two, pad_token_id=padding), "pad_token_id", str(padding))
    for shape in NO_SHAPES:
        await raises(ShapeMismatch, model.compile_generation([shape]))
    await raises(TensorCommonsError, model.generate(prompt, stop_strings=["."]), "tokenizer")
    await raises(ShapeMismatch, model.generate(prompt[0]))
    await raises(ShapeMismatch, model.generate(prompt, [[1, 1, 1, 1, 0]]), "left")
    await raises(ShapeMismatch, model.generate(prompt, [[0, 0, 0, 0, 0]]))
    await raises(ShapeMismatch, model.generate(prompt, [[1, 1]]))
    await raises(TensorCommonsError, model.generate(prompt + 100), "107")
    assert place.device.total == before
    written = await model.generate(prompt, pad_token_id=1 << 40, max_new_tokens=1)
    assert written.shape == (1, 6), "a single row does not need padding"
    model.unload()
    await raises(TensorReleased, model.generate(prompt))
    encoder = await tc.from_pretrained(f"{place.tiny}/tiny-bert", manager=place.manager(), device=place.device)
    await raises(TensorCommonsError, encoder.generate(prompt), "bert")
    encoder.unload()


async def equal_decoders_share_their_weights(place: Place) -> None:
    manager = place.manager()
    first = await load(place, "tiny-llama", manager)
    alone = manager.report().unique_weight_bytes
    second = await load(place, "tiny-llama", manager)
    report = manager.report()
    assert report.unique_weight_bytes == alone and report.saved_bytes == alone
    prompt = np.arange(3, 8)[None]
    one, two = await asyncio.gather(*(each.generate(prompt, max_new_tokens=9) for each in (first, second)))
    assert np.array_equal(one, two)
    first.unload()
    second.unload()


async def writing_beside_an_encoder_under_a_small_budget(place: Place) -> None:
    """Weights are evicted for the other model and restored between any two steps, with the same tokens."""
    golden, ids = goldens(place, "tiny-llama"), np.arange(8)[None]
    new = 15  # too few for WebNN to make constants, which would leave instead of weights

    async def play(manager: Any) -> tuple[list[int], Any, Any]:
        writer = await load(place, "tiny-llama", manager)
        encoder = await tc.from_pretrained(f"{place.tiny}/tiny-bert", manager=manager, device=place.device)
        tokens: list[int] = []
        async for chosen in writer.stream(golden["prompt"], max_new_tokens=new):
            tokens.append(int(chosen[0]))
            if len(tokens) % 5 == 0:
                hidden = await (await encoder(input_ids=ids))["last_hidden_state"].read()
        stats, report = manager.get_stats(), manager.report()
        encoder.unload()
        if stats["evictions"]:
            await raises(MemoryBudgetError, writer.generate(np.repeat(golden["prompt"], 100, 0), max_new_tokens=100))
        writer.unload()
        await harness.let_go()
        return tokens, hidden, (stats, report)

    tokens, wanted, (stats, report) = await play(place.manager(activation_cache=False))
    assert tokens == golden["greedy"][0, :new].tolist() and not stats["evictions"]
    tight = stats["peak_memory_bytes"] - report.unique_weight_bytes // 4
    limit = (
        tight if place.device.kind == "cpu" else tight * 16 // 12
    )  # a quarter of such a small limit is reserved for reads
    tokens, hidden, (stats, report) = await play(place.manager(limit / 2**20, activation_cache=False))
    assert tokens == golden["greedy"][0, :new].tolist() and np.array_equal(hidden, wanted)
    evictions, restores = stats["evictions"], stats["restores"]
    print(f"{report.unique_weight_bytes} bytes of weights under {limit}: {evictions} evictions, {restores} restores")
    assert evictions and restores and stats["peak_memory_bytes"] <= limit


def _sampler(options: Any, ids: Any, vocab_size: int, rows: int = 1) -> Sampler:
    return Sampler(Options.of({}, options), rows, Prompt(ids.shape[1], 99, ids), vocab_size)


@shows("any decoder", "scores after penalty, temperature, top-k, top-p", "decoders.npz")
async def scores_as_the_reference_has_them(place: Place) -> None:
    golden = goldens(place, "sampling")
    ids, scores = golden["ids"], golden["scores"]
    every = {"do_sample": True, "repetition_penalty": 1.3, "temperature": 0.7, "top_k": 10, "top_p": 0.8}
    for name, result in (
        ("repetition_penalty", repetition_penalty(1.3, None, ids, scores)),
        ("temperature", scores / np.float32(0.7)),
        ("top_k", keep_top_k(scores, 10)),
        ("top_p", keep_top_p(scores, 0.8)),
        (
            "all",
            _sampler(every, ids, 50, 2).scores(scores, ids),
        ),
    ):
        assert np.array_equal(np.isinf(result), np.isinf(golden[name])), name
        near(result, golden[name], 1e-6)


async def the_ends_of_the_options(place: Place) -> None:
    """Values that are barely allowed: as cold or hot as numbers go, more candidates than tokens, ends that may not come
    yet.
    """
    logits, ids = np.array([[1, 3, 2, -np.inf, 3 - 1e-6]], np.float32), np.zeros((1, 1), int)

    def drawn(scores: Any = logits, new: int = 0, **options: Any) -> set[int]:
        rows = [np.tile(each, (200, 1)) for each in (scores, np.pad(ids, ((0, 0), (0, new))))]
        sampler = _sampler({"do_sample": True, "seed": 1, **options}, ids, scores.shape[1], 200)
        return set(sampler.choose(*rows).tolist())

    for cold in (1e-3, 1e-30, 1e-300, np.float32(1e-9)):
        assert drawn(logits[:, :4], temperature=cold) == {1}
    for options in ({"temperature": 1e30}, {"top_k": 10**9, "temperature": 5.0}, {"top_k": np.int64(0), "top_p": 1}):
        assert drawn(**options) == {0, 1, 2, 4}, "a score of minus infinity may not be drawn"
    assert drawn(top_k=1) == {1} and drawn(top_p=1e-9) == {1}
    assert drawn(min_new_tokens=2, eos_token_id=[1, 4, 99], new=1) == {0, 2}
    assert drawn(min_new_tokens=2, eos_token_id=[1, 4, 99], new=2) == {0, 1, 2, 4}
    for wrong in (np.nan, np.inf):
        await raises(TensorCommonsError, _called(drawn, np.array([[1, wrong]], np.float32)), "NaN")
    assert Options.of({"pad_token_id": -1, "eos_token_id": [7, 8]}, {}).padding == 7, "-1 means none in older files"


async def the_same_seed_samples_the_same_tokens_of_a_row(place: Place) -> None:
    """A row's random numbers depend on neither the other rows nor the steps before."""
    options, ids = Options(do_sample=True, seed=7), np.zeros((3, 2), int)
    three, one = (Sampler(options, rows, Prompt(2, 999, ids), 9) for rows in (3, 1))
    numbers = np.array([three.numbers(width) for width in range(2, 202)])
    assert np.array_equal(numbers[:, 0], [one.numbers(width)[0] for width in range(2, 202)])
    assert np.array_equal(numbers[5], three.numbers(7)) and len(np.unique(numbers)) == numbers.size
    assert numbers.dtype == np.float32 and (numbers >= 0).all() and (numbers < 1).all()
    assert abs(float(numbers.mean()) - 0.5) < 0.05


async def _called(function: Any, *args: Any) -> Any:
    return function(*args)


@shows("any decoder", "log-probabilities of tokens", "decoders.npz")
async def log_probabilities_of_tokens(place: Place) -> None:
    model, golden = await load(place, "tiny-llama"), goldens(place, "tiny-llama")
    logits, greedy = golden["greedy_logits"][0, :8].astype(np.float64), golden["greedy"][0, :8]
    wanted = logits[np.arange(8), greedy] - np.log(np.exp(logits).sum(-1))
    tokens, logprobs = await model.generate(golden["prompt"], max_new_tokens=8, output_logprobs=True)
    assert tokens[0, -8:].tolist() == greedy.tolist() and logprobs.dtype == np.float32
    near(logprobs[0], wanted, 1e-4)
    first, _ = await model.generate(golden["prompt"], max_new_tokens=1, output_logprobs=True, do_sample=True, top_k=1)
    assert np.array_equal(first, tokens[:, :6])
    both: dict[str, Any] = {"max_new_tokens": 3, "eos_token_id": int(greedy[0]), "pad_token_id": 0}
    steps = [step async for step in model.stream(golden["prompt"], output_logprobs=True, **both)]
    assert len(steps) == 1 and steps[0][0] == greedy[:1] and steps[0][1] == logprobs[0, :1]
    prompts = np.concatenate([golden["prompt"], golden["prompt"][:, ::-1]])
    free = (await model.generate(prompts, max_new_tokens=4))[:, 5:]
    both["eos_token_id"] = next(int(token) for token in free[0] if token not in free[1])
    tokens, logprobs = await model.generate(prompts, output_logprobs=True, **{**both, "max_new_tokens": 4})
    ends = tokens[:, 5:] == both["eos_token_id"]
    assert np.array_equal(np.isnan(logprobs), np.cumsum(ends, axis=1) > ends) and not np.isnan(logprobs[1]).any()
    model.unload()


async def no_text_ends_before_its_least_length(place: Place) -> None:
    model, golden = await load(place, "tiny-llama"), goldens(place, "tiny-llama")
    options: dict[str, Any] = {"max_new_tokens": 12, "pad_token_id": 0}
    greedy = golden["greedy"][0].tolist()
    first, end = greedy[0], int(greedy[0])
    stopped = await model.generate(golden["prompt"], eos_token_id=end, **options)
    assert stopped[0, 5:].tolist() == [first]
    longer = (await model.generate(golden["prompt"], eos_token_id=[end], min_new_tokens=6, **options))[0, 5:].tolist()
    assert len(longer) >= 6 and end not in longer[:6]
    whole = (await model.generate(golden["prompt"], eos_token_id=[98, 99], min_new_tokens=500, **options))[0, 5:]
    assert len(whole) == 12 and not set(whole.tolist()) & {98, 99}
    model.unload()


async def tokens_are_drawn_as_often_as_they_are_likely(place: Place) -> None:
    logits = np.log(np.tile(np.array([0.5, 0.3, 0.15, 0.05], np.float32), (40, 1)))
    ids = np.zeros((40, 1), int)
    sampler = _sampler({"do_sample": True, "seed": 3}, ids, 4, 40)
    drawn = [sampler.choose(logits, np.zeros((40, step), int)) for step in range(1, 101)]
    share = np.bincount(np.ravel(drawn), minlength=4) / 4000
    assert np.abs(share - [0.5, 0.3, 0.15, 0.05]).max() < 0.03, share
