"""Adapters: settings that are refused by name, hostile files, memory, moves, and what calls have in common."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorcommons as tc
from scripts import paths
from tensorcommons import Device, Devices, Model, TensorSharingManager
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.errors import (
    DownloadError,
    InvalidWeights,
    MemoryBudgetError,
    TensorCommonsError,
    TensorReleased,
)
from tensorcommons.models.module_pattern import Patterns
from tests.cases import Place
from tests.cases.adapters import IDS, adapter_files, base_of, files_for, read
from tests.cases.checkpoints import pack, tensors_of
from tests.cases.golden_models import load_goldens
from tests.cases.random_weights import values_of
from tests.cases.support import near

GOLDENS = str(paths.ROOT / "tests/goldens")
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]}
QUERY = "base_model.model.encoder.layer.0.attention.self.query"
TENSORS: dict[str, Any] = {
    f"{QUERY}.lora_A.weight": values_of("a", (4, 24)),
    f"{QUERY}.lora_B.weight": values_of("b", (24, 4)),
}


def place_of(devices: Devices | None = None) -> Place:
    return Place(devices or Devices([Device(CpuBackend())], {}), str(paths.MODELS), "", "", GOLDENS)


async def bert(limit: float = 64, name: str = "bert") -> tuple[TensorSharingManager, Model]:
    place = place_of()
    manager = place.manager(limit)
    return manager, await base_of(place, manager, name)


async def refusal(files: Any) -> str:
    """Return the message with which an adapter is refused; nothing of it stays."""
    manager, model = await bert()
    before = model.specs, len(manager.registry), set(manager.models), manager.report().by_category["weights"]
    with pytest.raises((InvalidWeights, DownloadError)) as caught:
        await model.load_adapter(files, "one")
    assert (model.specs, len(manager.registry), set(manager.models)) == before[:3]
    assert manager.report().by_category["weights"] == before[3]
    manager.close()
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_dora": True}, ["use_dora"]),
        ({"lora_bias": True}, ["lora_bias"]),
        ({"use_qalora": True}, ["use_qalora"]),
        ({"layer_replication": [[0, 1], [0, 1]]}, ["layer_replication"]),
        ({"trainable_token_indices": [1, 2]}, ["trainable_token_indices"]),
        ({"target_parameters": ["weight"]}, ["target_parameters"]),
        ({"megatron_config": {"a": 1}}, ["megatron_config"]),
        ({"alora_invocation_tokens": [3]}, ["alora_invocation_tokens"]),
        ({"ensure_weight_tying": True}, ["ensure_weight_tying"]),
        ({"of_the_future": 2}, ["of_the_future", "2"]),
        ({"init_lora_weights": "pissa_niter_4"}, ["init_lora_weights", "pissa", "save the adapter"]),
        ({"init_lora_weights": "loftq"}, ["init_lora_weights"]),
        ({"peft_type": "IA3"}, ["peft_type", "IA3"]),
        ({"peft_type": None}, ["peft_type"]),
        ({"bias": "some"}, ["bias", "some"]),
        ({"target_modules": None}, ["target_modules"]),
        ({"target_modules": ".*query", "layers_to_transform": [0]}, ["layers_to_transform"]),
        ({"target_modules": "(a+"}, ["not a regular expression"]),
        ({"target_modules": r"(.*)\1"}, ["groupref", "not supported"]),
        ({"target_modules": "(?i).*QUERY"}, ["flags"]),
        ({"target_modules": 7}, ["target_modules", "7", "list"]),
        ({"target_modules": ["key"]}, ["changes no parameter"]),
        ({"r": 0}, ["r 0", "integer from 1"]),
        ({"r": 3}, ["lora_A", "(4, 24)", "rank 3", "(3, 24)"]),
        ({"rank_pattern": {"query": 2}}, ["rank 2"]),
        ({"rank_pattern": {"query": -2}}, ["rank_pattern"]),
        ({"lora_alpha": float("nan")}, ["lora_alpha", "finite"]),
        ({"lora_alpha": "8"}, ["lora_alpha"]),
        ({"use_rslora": 1}, ["use_rslora"]),
        ({"layers_to_transform": ["1"]}, ["layers_to_transform"]),
        ({"alpha_pattern": [1]}, ["alpha_pattern"]),
    ],
)
def test_settings_are_refused_by_name(changes: dict[str, Any], words: list[str]) -> None:
    """A setting that changes the result and is not honoured is named in the message."""
    message = asyncio.run(refusal(adapter_files({**CONFIG, **changes}, TENSORS)))
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({f"{QUERY}.lora_A.weight": values_of("a", (4, 24))}, ["only one of its two matrices", "A"]),
        ({f"{QUERY}.lora_magnitude_vector": values_of("m", (24,)), **TENSORS}, ["lora_magnitude_vector", "kind"]),
        ({f"{QUERY}.lora_B.bias": values_of("m", (24,)), **TENSORS}, ["lora_B.bias"]),
        ({**TENSORS, f"{QUERY}.lora_B.weight": values_of("b", (4, 24))}, ["lora_B", "(4, 24)", "(24, 4)"]),
        ({key.replace("layer.0", "layer.9"): value for key, value in TENSORS.items()}, ["layer.9", "no module"]),
        ({**TENSORS, "base_model.model.other.weight": values_of("o", (3, 3))}, ["other.weight", "no parameter"]),
        ({**TENSORS, f"{QUERY}.base_layer.weight": values_of("o", (3, 3))}, ["base_layer", "(3, 3)", "(24, 24)"]),
        ({f"{QUERY}.lora_embedding_A": values_of("a", (4, 24)), f"{QUERY}.lora_embedding_B": values_of("b", (24, 4))},
         ["query", "not a layer"]),
        ({**TENSORS, **{key.removeprefix("base_model.model."): value for key, value in TENSORS.items()}}, ["twice"]),
        ({f"base_model.model.{'x' * 500}.query.lora_A.weight": values_of("a", (4, 24))}, ["longer"]),
    ],
)  # fmt: skip
def test_tensors_are_checked(tensors: dict[str, Any], words: list[str]) -> None:
    """Tensors that do not fit the model or the settings are named."""
    message = asyncio.run(refusal(adapter_files(CONFIG, tensors)))
    assert all(word in message for word in words), message


def test_files_that_are_not_adapters() -> None:
    """Missing files and pickles are typed errors; integers are not weights."""
    files = adapter_files(CONFIG, TENSORS)
    config, weights = files["adapter_config.json"], files["adapter_model.safetensors"]
    for given_files, words in (
        ({"adapter_config.json": config, "adapter_model.bin": b"pickle"}, ("pickle", "safetensors")),
        ({"adapter_config.json": config}, ("adapter_model.safetensors",)),
        ({"adapter_model.safetensors": weights}, ("adapter_config.json",)),
        ({"adapter_config.json": b"[]", "adapter_model.safetensors": weights}, ("not an object",)),
        ({"adapter_config.json": config, "adapter_model.safetensors": weights[:-1]}, ("adapter_model.safetensors",)),
        (
            {
                "adapter_config.json": config,
                "adapter_model.safetensors": pack(TENSORS, **{f"{QUERY}.lora_A.weight": {"dtype": "I32"}}),
            },
            ("I32", "F32"),
        ),
    ):
        message = asyncio.run(refusal(given_files))
        assert all(word in message for word in words), message


def test_names_of_adapters() -> None:
    """Names are unique texts; unloaded adapters are unknown, also to a generation that is under way."""

    async def check() -> None:
        manager, model = await bert(name="llama")
        files = files_for(place_of(), "llama")
        adapter = await model.load_adapter(files, "one")
        for name, words in (
            ("one", "unload it first"),
            ("", "1 to 80"),
            ("x" * 81, "1 to 80"),
            (3, "1 to 80"),
            ("one: 2", "not contain"),
        ):
            with pytest.raises(TensorCommonsError, match=words):
                await model.load_adapter(files, name)  # type: ignore[arg-type]
        steps = model.stream(IDS[:1], adapter=adapter, max_new_tokens=5, eos_token_id=-1)
        await anext(steps)
        adapter.unload()
        adapter.unload()
        with pytest.raises(TensorReleased, match="adapter one was unloaded"):
            async for _ in steps:
                pass
        with pytest.raises(TensorCommonsError, match="not loaded"):
            await model(input_ids=IDS, adapter=adapter)
        with pytest.raises(TensorReleased, match="unloaded"):
            await adapter.merge()
        assert not [name for name in manager.registry.held_by(model.name) if name.startswith("adapter")]
        again = await model.load_adapter(files, "one")
        model.unload()
        assert again.is_unloaded and model.adapters == []
        with pytest.raises(TensorReleased):
            await model.load_adapter(files)
        assert not len(manager.registry)
        manager.close()

    asyncio.run(check())


def test_16_bit_adapters() -> None:
    """A float16 file stays float16, bfloat16 becomes float32, and the results are those of its numbers."""

    async def check() -> None:
        manager, model = await bert()
        halves = {name: np.asarray(value, np.float16) for name, value in TENSORS.items()}
        wide = adapter_files(CONFIG, {name: np.asarray(value, np.float32) for name, value in halves.items()})
        kinds = {name: {"dtype": "F16"} for name in halves}
        half = {**wide, "adapter_model.safetensors": pack(halves, **kinds)}
        first, second = await model.load_adapter(wide, "wide"), await model.load_adapter(half, "half")
        assert first.weight_bytes - 4 == 2 * (second.weight_bytes - 4)
        found = [await read(model, "last_hidden_state", input_ids=IDS, adapter=name) for name in ("wide", "half")]
        near(found[1], found[0], 1e-6)
        mixed = await read(model, "last_hidden_state", input_ids=IDS, adapter=["wide", "half", None, "half"])
        near(mixed[[0, 1, 3]], found[0][[0, 1, 3]], 1e-5)
        cut = {
            name: (np.asarray(value, np.float32).view(np.uint32) >> 16).astype(np.uint16)
            for name, value in TENSORS.items()
        }
        brief = {**wide, "adapter_model.safetensors": pack(cut, **{name: {"dtype": "BF16"} for name in cut})}
        exact = {name: (value.astype(np.uint32) << 16).view(np.float32) for name, value in cut.items()}
        third = await model.load_adapter(brief, "brief")
        await model.load_adapter(adapter_files(CONFIG, exact), "exact")
        assert third.weight_bytes == first.weight_bytes
        found = [await read(model, "last_hidden_state", input_ids=IDS, adapter=name) for name in ("brief", "exact")]
        np.testing.assert_array_equal(*found)
        manager.close()

    asyncio.run(check())


def test_calls_share_what_adapters_do_not_change() -> None:
    """A merged run computes layers below the first change once; a later run finds them; equal adapters are one."""

    async def check() -> None:
        manager, model = await bert()
        files = files_for(place_of(), "bert layers")  # changes layer 1 of 0 and 1
        await model.load_adapter(files, "one")
        alone = await model(input_ids=IDS)
        nodes = manager.last_run["nodes"]
        calls: list[Any] = [(model, {"input_ids": IDS}), (model, {"input_ids": IDS, "adapter": "one"})]
        _, changed = await manager.run_together(calls, [["last_hidden_state"]] * 2)
        run = manager.last_run
        assert run["reused_in_run"] + run["reused_from_cache"] > nodes // 3, run
        wanted = await changed["last_hidden_state"].read()
        near(await read(model, "last_hidden_state", input_ids=IDS, adapter="one"), wanted, 1e-6)
        other = IDS[:, ::-1].copy()
        await model(input_ids=other, adapter="one")
        await model(input_ids=other)
        assert manager.last_run["reused_from_cache"] > nodes // 4, manager.last_run
        bytes_before = manager.report().unique_weight_bytes
        await model.load_adapter(files, "equal")
        assert manager.report().unique_weight_bytes == bytes_before
        await model(input_ids=other, adapter="equal")
        assert manager.last_run["executed"] == 0, manager.last_run
        assert alone
        manager.close()

    asyncio.run(check())


def test_adapters_of_one_shape_share_programs() -> None:
    """Switching to an adapter of equal shapes compiles nothing, also in rows and in generation."""

    async def check() -> None:
        place = place_of()
        manager = place.manager(activation_cache=False)
        model = await base_of(place, manager, "llama")
        entry = load_goldens(GOLDENS, "adapters")[0]["llama"]
        for number in range(4):
            tensors = {key: values_of(f"{key} {number}", tuple(s)) for key, s in entry["adapter_tensors"].items()}
            await model.load_adapter(
                adapter_files({**entry["adapter"], "lora_alpha": number + 1}, tensors), str(number)
            )
        compiled: list[object] = []
        backend: Any = place.device.backend
        compile_one = backend.compile

        async def counted(plan: Any) -> Any:
            compiled.append(plan)
            return await compile_one(plan)

        backend.compile = counted
        options: dict[str, Any] = {"max_new_tokens": 3, "eos_token_id": -1, "pad_token_id": 0}
        rows = [["0", None, "1", "0"], ["2", None, None, "3"]]
        tokens = []
        for turn, (name, mixed) in enumerate(zip(("0", "3"), rows, strict=True)):
            await model(input_ids=IDS, adapter=name)
            await model(input_ids=IDS, adapter=mixed)
            for adapter in (name, mixed):
                tokens.append((await model.generate(IDS, adapter=adapter, **options)).tobytes())
            if not turn:
                first = len(compiled)
        assert first > 0 and len(compiled) == first
        assert len(set(tokens)) == 4
        manager.close()

    asyncio.run(check())


def test_adapters_move_and_are_evicted() -> None:
    """Adapters move with their model; under a small limit they are evicted and restored like any weight."""

    async def check() -> None:
        first, second = Device(CpuBackend()), Device(CpuBackend())
        place = place_of(Devices([first, second], {}))
        manager = place.manager(64)
        model = await base_of(place, manager, "bert")
        await model.load_adapter(files_for(place, "bert"), "one")
        rows = ["one", None, "one", None]
        wanted = [await read(model, "last_hidden_state", input_ids=IDS, adapter=each) for each in ("one", rows)]
        await model.to(second)
        assert first.memory()["weights"] == 0
        found = [await read(model, "last_hidden_state", input_ids=IDS, adapter=each) for each in ("one", rows)]
        for one, other in zip(wanted, found, strict=True):
            np.testing.assert_array_equal(one, other)
        held = manager.registry.held_by(model.name)
        adapted = [entry.storage for name, entry in held.items() if name.startswith("adapter one")]
        for storage in adapted:
            await storage.evict()
        assert adapted and not any(storage.is_resident for storage in adapted)
        np.testing.assert_array_equal(await read(model, "last_hidden_state", input_ids=IDS, adapter="one"), wanted[0])
        manager.close()

    asyncio.run(check())


def test_an_adapter_that_does_not_fit() -> None:
    """An adapter over the limit is refused before anything of it is read."""

    async def check() -> None:
        manager, model = await bert(limit=1)
        size = 200_000
        tensors = {
            f"{QUERY}.lora_A.weight": np.zeros((size, 24), np.float32),
            f"{QUERY}.lora_B.weight": np.zeros((24, size), np.float32),
        }
        before = len(manager.registry)
        with pytest.raises(MemoryBudgetError):
            await model.load_adapter(adapter_files({**CONFIG, "r": size}, tensors), "large")
        assert len(manager.registry) == before and model.adapters == []
        await model(input_ids=IDS)
        manager.close()

    asyncio.run(check())


def lora_of(folder: str, number: int, rank: int = 16) -> dict[str, bytes]:
    """Make an adapter of every layer's query and value of a real model."""
    header = json.loads(_header(paths.MODELS / folder / "model.safetensors"))
    names = [name for name in header if re.search(r"\.(query|value|q_proj|v_proj)\.weight$", name)]
    tensors = {}
    for name in names:
        outputs, inputs = header[name]["shape"]
        module = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{module}.lora_A.weight"] = values_of(f"A {name} {number}", (rank, inputs))
        tensors[f"{module}.lora_B.weight"] = values_of(f"B {name} {number}", (outputs, rank)) * np.float32(0.1)
    modules = ["query", "value", "q_proj", "v_proj"]
    return adapter_files({**CONFIG, "r": rank, "target_modules": modules}, tensors)


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "dtype"), [("all-MiniLM-L6-v2", None), ("SmolLM2-135M-Instruct", "float16")])
def test_sixteen_adapters_of_a_real_model(folder: str, dtype: str | None) -> None:
    """Sixteen adapters take the bytes of the base and of their files, and the base exists once."""

    async def check() -> None:
        manager = place_of().manager(2048)
        source = str(paths.MODELS / folder)
        model = await tc.from_pretrained(source, manager=manager, dtype=dtype, tokenizer=False)
        base = manager.report().device_bytes
        files = [lora_of(folder, number) for number in range(16)]
        for number, each in enumerate(files):
            await model.load_adapter(each, str(number))
        expected = base + sum(
            array.nbytes
            for each in files
            for array in tensors_of({"model.safetensors": each["adapter_model.safetensors"]}).values()
        )
        assert expected <= manager.report().device_bytes <= 1.02 * expected
        assert sum(model.adapter(str(number)).weight_bytes for number in range(16)) <= expected - base + 16 * 4
        rows = [str(number) for number in range(16)]
        name = "last_hidden_state"
        ids = np.tile(np.array([[101, 1996, 4937, 102]]), (16, 1))
        mixed = await read(model, name, input_ids=ids, adapter=rows)
        for number in (0, 7, 15):
            near(mixed[number], (await read(model, name, input_ids=ids[:1], adapter=str(number)))[0], 1e-4)
        assert len({row.tobytes() for row in mixed}) == 16
        manager.close()

    asyncio.run(check())


pieces = st.sampled_from(
    [
        *("a", "b", ".", r"\.", r"\d", r"\w", "[ab]", "[^a]", "(a|b)", "(?:a|bc)", "a*", "b+", ".*?", "a?", "(ab)*"),
        *("a{1,2}", "^", "$", r"\b", "0"),
    ]
)


@given(st.lists(pieces, max_size=6).map("".join), st.text(alphabet="ab.c0_", max_size=8))
@settings(max_examples=100, deadline=None)
def test_patterns_equal_those_of_python(pattern: str, text: str) -> None:
    """The positions that are followed at once are those that Python's matches reach."""
    try:
        expected = bool(re.fullmatch(pattern, text))
    except re.error:
        with pytest.raises(ValueError, match="not a regular expression"):
            Patterns().matches(pattern, text)
        return
    assert Patterns().matches(pattern, text) == expected
    assert Patterns().ends_name(pattern, text) == bool(re.match(rf"(.*\.)?({pattern})$", text))


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "(.*)*(.*)*(.*)*b", "(((((a*)*)*)*)*)*b", "(a{0,100000}){0,100000}b"]
)
def test_patterns_take_bounded_time(pattern: str) -> None:
    """Expressions on which Python's matcher would not end are answered or refused."""
    patterns = Patterns()
    for _ in range(20):
        try:
            found = patterns.matches(pattern, "a" * 400)
        except ValueError as error:
            found = "takes too long" not in str(error)
        assert not found


numbers = st.one_of(st.integers(-3, 60), st.sampled_from([2**31, 2**63, 10**30]))
names = st.sampled_from(["query", "value", QUERY, ".*", "(a", "x" * 5000, "", "layer"])
values = st.one_of(
    numbers, st.none(), st.booleans(), st.floats(), names, st.lists(st.one_of(numbers, names), max_size=3),
    st.dictionaries(names, st.one_of(numbers, st.floats(), names), max_size=3),
)  # fmt: skip
FIELDS = (
    *CONFIG, "rank_pattern", "alpha_pattern", "use_rslora", "modules_to_save", "layers_to_transform", "layers_pattern",
    "exclude_modules", "bias", "init_lora_weights", "use_dora", "fan_in_fan_out", "target_parameters", "task_type",
)  # fmt: skip
mutations = st.dictionaries(st.sampled_from(FIELDS), values, min_size=1, max_size=3)
tensor_names = st.sampled_from(
    [
        *TENSORS,
        *(f"{QUERY}.{end}" for end in ("lora_A.default.weight", "base_layer.weight", "lora_C.weight")),
        *("lora_A.weight", ".lora_A.weight", "base_model.model."),
        *(f"base_model.model.embeddings.word_embeddings.lora_embedding_{part}" for part in "AB"),
        "base_model.model.encoder.layer.0.output.dense.bias",
    ]
)
shapes = st.lists(st.sampled_from([0, 1, 4, 24, 50, 1000]), max_size=3).map(tuple)


@pytest.mark.slow
@given(mutations, st.dictionaries(tensor_names, shapes, max_size=3), st.booleans())
@settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
def test_hostile_adapters(changes: dict[str, Any], more: dict[str, Any], keeps: bool) -> None:
    """A mutated adapter loads and runs, or is refused with a typed error; nothing stays of it then."""

    async def check() -> None:
        manager, model = await bert()
        tensors = {**(TENSORS if keeps else {}), **{name: np.zeros(shape, np.float32) for name, shape in more.items()}}
        before = len(manager.registry), set(manager.models)
        try:
            adapter = await model.load_adapter(adapter_files({**CONFIG, **changes}, tensors), "one")
        except TensorCommonsError as error:
            message = str(error)
        else:
            message = ""
            with np.errstate(all="ignore"):
                try:
                    await model(input_ids=IDS, adapter=["one", None, "one", None])
                except TensorCommonsError as error:
                    message = "" if "all rows" in str(error) else f"not expected: {error}"
                await model(input_ids=IDS, adapter="one")
            adapter.unload()
            assert not message
        assert len(message) < 2000
        assert (len(manager.registry), set(manager.models)) == before
        manager.close()

    asyncio.run(check())
