"""The work of the group ``generate``: models, sizes, and the rows of the table of generation.

Models have random weights (scripts/random_checkpoint.py). Every sample has another prompt, because equal ones may be
read from what an earlier one left. The floor of a row is the time in which the device copies the bytes that it has to
read, or does the multiply-adds, whichever is longer, at the rates that probes reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from bench import onnx_models, stored
from bench.workloads import Work
from tensorcommons.formats import BLOCKS

Array: TypeAlias = np.ndarray[Any, Any]
GREEDY, COLD = "greedy", "cold"  # our variants: greedy beside sampled tokens, the first of the conversations
SAMPLED = {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95}
PROMPTS = 24  # that a peer uses in turn
LLAMA = "rope_theta=100000.0,max_position_embeddings=8192"
SMALL_LLAMA = "hidden_size=64,layers=2,num_attention_heads=4,num_key_value_heads=2,intermediate_size=96,vocab_size=500"
SMALL_GPT2 = "n_embd=64,layers=2,n_head=4,vocab_size=500"


@dataclass(frozen=True)
class Model:
    """A decoder and the recipe of its weights, whose deviation is large enough that tokens differ.

    A large one is for a GPU only, and its weights are outside a peer's ONNX file, also if they are those of tests.
    ``quantized`` is the dtype that ours quantises them to while it loads; the peers do not take part then.
    """

    name: str
    recipe: str
    is_large: bool = False
    quantized: str = ""

    @property
    def is_half(self) -> bool:
        """True if the weights are float16, for which it is loaded as float16."""
        return "dtype=F16" in self.recipe


def models(size: str) -> dict[str, Model]:
    """Return the decoders by name; with ``size`` "tiny" they are small ones of the same architectures."""
    tiny = size == "tiny"
    llama = f"smollm2-135m,{LLAMA}" + (f",{SMALL_LLAMA},deviation=0.3" if tiny else ",deviation=0.08")
    gpt2 = "gpt2" + (f",{SMALL_GPT2},deviation=0.3" if tiny else ",deviation=0.08")
    large = f"llama-1b,{LLAMA}" + (f",{SMALL_LLAMA},deviation=0.3,seed=1" if tiny else ",deviation=0.05")
    made = (
        Model("SmolLM2-135M", f"{llama},dtype=F32"),
        Model("GPT-2", f"{gpt2},dtype=F32"),
        Model("SmolLM2-135M float16", f"{llama},dtype=F16"),
        Model("Llama-1B float16", f"{large},dtype=F16", is_large=True),
        Model("Llama-1B int4", f"{large},dtype=F16", is_large=True, quantized="int4"),
    )
    return {model.name: model for model in made}


@dataclass(frozen=True)
class Sizes:
    """Numbers of tokens of each row."""

    prompt: int
    new: int  # after it
    long: int  # prompt
    caches: Sequence[int]  # tokens of the cache before the new ones
    after: int  # new tokens there
    rows: int  # prompts of a batch
    each: int  # tokens of one, and new ones
    prefix: int  # that conversations share
    own: int  # tokens of a conversation
    conversations: int


SIZES = {
    "gpu": Sizes(128, 128, 1500, (256, 1024, 2048, 4096), 32, 8, 64, 1024, 32, 10),
    "software": Sizes(64, 16, 256, (64, 256), 8, 4, 16, 256, 32, 3),
    "tiny": Sizes(24, 6, 40, (32, 64), 4, 3, 8, 32, 8, 3),
}


def generations(size: str) -> Iterator[Work]:
    """Build all rows, those of a model one after another. ``size`` is one of SIZES."""
    all_models, sizes = models(size), SIZES[size]
    for model in all_models.values():
        table = Rows(model, size)
        if model.is_large and size == "software":
            yield table.missing(f"{table.nbytes / 1e9:.1f} GB of weights, for a GPU only")
            continue
        yield table.first(sizes.prompt)
        yield table.after(sizes.prompt, sizes.new)
        if model.quantized or not model.is_half:
            continue
        yield table.first(sizes.long)
        if model.is_large:
            continue
        yield table.sampled(sizes.prompt, sizes.new)
        yield table.batch(sizes.rows, sizes.each)
        for filled in sizes.caches:
            yield table.after(filled, sizes.after, against=sizes.caches[0])
        yield table.shared(sizes.prefix, sizes.own, sizes.conversations)


class Rows:
    """The rows of one model."""

    def __init__(self, model: Model, size: str) -> None:
        self.model = model
        self.config = stored.checkpoint(model.recipe).recipe.config
        self.cache = onnx_models.Cache.of(self.config)
        shapes = stored.checkpoint(model.recipe).shapes
        tables = ("embed_tokens.weight", "wte.weight", "wpe.weight")
        self.nbytes = self._stored(shapes)
        self.matrices = sum(
            math.prod(shape) for name, shape in shapes.items() if len(shape) == 2 and name not in tables
        )
        self.logits = math.prod(next(shapes[name] for name in tables if name in shapes))
        self.width = self.cache.heads * self.cache.size
        self.heads = int(self.config.get("num_attention_heads") or self.config["n_head"])

    def _stored(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Return the bytes of the weights on the device; vectors, of which there are few, count as in the file."""
        if not self.model.quantized:
            return stored.checkpoint(self.model.recipe).nbytes
        matrix, table = (BLOCKS[name] for name in ("q4_0", "q8_0"))  # as "int4" stores them
        forms = {name: table if "embed_tokens" in name else matrix for name, shape in shapes.items() if len(shape) == 2}
        return sum(
            forms[name].spec(shape).nbytes if name in forms else 2 * math.prod(shape) for name, shape in shapes.items()
        )

    def missing(self, reason: str) -> Work:
        """Build a row that nobody does."""
        return Work("generate", f"{self.model.name}, all rows", "generate", {}, {}, None, (), missing=reason)

    def first(self, prompt: int) -> Work:
        """Build a prompt to its first token."""
        return self._work(f"prompt of {prompt:,}", prompt, 1, prompt, *self._prompt(prompt))

    def after(self, prompt: int, new: int, against: int | None = None) -> Work:
        """Build greedy tokens after a prompt: with ``against``, beside those after a cache of so many tokens."""
        name = f"{new} tokens after {prompt:,}"
        beside = f"{self.model.name}, {new} tokens after {against:,}" if against not in (None, prompt) else ""
        return self._work(name, prompt, 1 + new, new, *self._steps(prompt, new), against=beside)

    def sampled(self, prompt: int, new: int) -> Work:
        """Build sampled tokens after a prompt, beside greedy ones."""
        settings = ", ".join(f"{name} {value}" for name, value in SAMPLED.items() if name != "do_sample")
        name = f"{new} sampled tokens after {prompt:,} ({settings})"
        floor = self._steps(prompt, new)
        return self._work(name, prompt, 1 + new, new, *floor, options=SAMPLED, variants=(GREEDY,), has_peers=False)

    def batch(self, rows: int, each: int) -> Work:
        """Build prompts of one batch with as many new tokens, from the call to its end."""
        flops = rows * self._prompt(each)[1]
        nbytes = (each - 1) * self.nbytes + rows * sum(self._cached(each + i) for i in range(each))
        return self._work(
            f"{rows} prompts of {each} tokens and {each} new ones, in all", each, each, rows * each, nbytes, flops,
            rows=rows, timed="all",
        )  # fmt: skip

    def shared(self, prefix: int, own: int, conversations: int) -> Work:
        """Build the first token of a conversation, after others with the same prefix; beside that of the first."""
        return self._work(
            f"first token of a conversation, {own} tokens after a shared prefix of {prefix:,}",
            *(prefix + own, 1, own, self.nbytes + self._cached(prefix), self._prompt(own, prefix)[1]),
            prefix=prefix,
            conversations=conversations,
            variants=(COLD,),
        )

    def _work(
        self,
        name: str,
        prompt: int,
        new: int,
        amount: int,
        nbytes: float,
        flops: float,
        *,
        rows: int = 1,
        timed: str = "",
        variants: tuple[str, ...] = (),
        against: str = "",
        has_peers: bool = True,
        **params: Any,
    ) -> Work:
        model = self.model
        prompts = Prompts(rows, prompt, int(self.config["vocab_size"]))
        return Work(
            *("generate", f"{model.name}, {name}", "generate"),
            {"new": new, "timed": timed or ("first" if new == 1 else "after"), "half": model.is_half}
            | {"dtype": model.quantized or ("float16" if model.is_half else "float32")}
            | {"config": self.config, "layers": self.cache.layers, "heads": self.cache.heads, "size": self.cache.size}
            | {"conversation": self._cached(prompt), **params},
            {"prompts": np.stack([prompts.of(turn) for turn in range(PROMPTS)])},
            *(lambda: _onnx(model), ("prompts",)),
            amount=float(amount),
            unit="token",
            folder=model.recipe,
            scale=float(rows * (prompt + new)) * (self.matrices + self.logits),
            takes_arrays=False,
            equal=True,
            leading=1 if model.is_half else 0,
            has_peers=has_peers and not model.quantized,
            variants=variants,
            against=against,
            nbytes=nbytes,
            flops=flops,
            prompts=prompts.of,
        )

    def _cached(self, tokens: int) -> float:
        """Return the bytes of the keys and values of ``tokens``, in float32."""
        return float(tokens * self.cache.layers * 2 * self.width * 4)

    def _steps(self, filled: int, new: int) -> tuple[float, float]:
        """Return the bytes and FLOPs of ``new`` steps: all weights and the cache are read in each."""
        nbytes = new * self.nbytes + sum(self._cached(filled + i) for i in range(new))
        return nbytes, 2.0 * new * (self.matrices + self.logits)

    def _prompt(self, tokens: int, before: int = 0) -> tuple[float, float]:
        """Return the bytes and FLOPs of a prompt of ``tokens`` after others, attention over the earlier ones only."""
        pairs = tokens * before + tokens * (tokens + 1) / 2
        attention = 4.0 * pairs * self.heads * self.cache.size * self.cache.layers
        return float(self.nbytes), 2.0 * (self.matrices * tokens + self.logits) + attention


@dataclass(frozen=True)
class Prompts:
    """Random prompts of one shape by number, tokens below ``words``."""

    rows: int
    length: int
    words: int

    def of(self, turn: int) -> Array:
        """Return prompt ``turn``, (rows, length) int32."""
        return np.random.default_rng((self.length, turn)).integers(3, self.words, (self.rows, self.length), np.int32)


def floors(work: Work, speeds: Mapping[str, Any]) -> dict[str, float]:
    """Return the floor of ``work`` in ms by kind of device, given the ``Speed`` of each."""
    if not work.nbytes:
        return {}
    return {
        kind: max(work.nbytes / speed.bytes_per_second, work.flops / speed.flops_per_second) * 1e3
        for kind, speed in speeds.items()
    }


def _onnx(model: Model) -> Any:
    config = stored.checkpoint(model.recipe).recipe.config
    return onnx_models.decoder(config, stored.arrays(model.recipe), external=model.is_large)
