"""Heads on an encoder's hidden states, named after the classes and outputs of `transformers`.

Every text encoder supports each of these; its file names the layers in its checkpoints.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ..errors import InvalidWeights, UnsupportedModel, quoted
from ..nn import LayerNorm, Linear, Param, Scope, Weights, pooling
from ..ops import log1p, max, relu, reshape, tanh
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .config import ACTIVATIONS
from .encoder import EncoderConfig, additive
from .sentence import SentenceLayers

AnyHead = TypeVar("AnyHead")
MOST_LABELS = 2**17
WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Labels:
    """The labels of a classifier, and the function from logits to scores: "softmax", "sigmoid" or "none"."""

    names: tuple[str, ...]
    activation: str = "softmax"

    @classmethod
    def of(cls, folder: Checkpoint, default: int = 2) -> Labels:
        """Read ``id2label`` and ``problem_type`` as the pipelines of `transformers` do.

        ``default`` is the number of labels if the config has none.

        Raises:
            InvalidWeights: the labels are not numbered from 0, or the problem type is unknown.
        """
        config, file = folder.config, folder.file
        table = config.get("id2label")
        if not table:
            count = default if config.get("num_labels") is None else config["num_labels"]
            if type(count) is not int or not 0 < count <= MOST_LABELS:
                raise InvalidWeights(
                    file, f"num_labels must be an integer from 1 to {MOST_LABELS:,}, not {quoted(count)}"
                )
            table = {str(i): f"LABEL_{i}" for i in range(count)}
        if not isinstance(table, dict) or set(map(str, table)) != {str(i) for i in range(len(table))}:
            raise InvalidWeights(file, f"id2label must number the labels from 0, not {quoted(table)}")
        named = {str(key): str(name) for key, name in table.items()}
        names = tuple([named[str(i)] for i in range(len(table))])
        kinds = {
            None: "sigmoid" if len(names) == 1 else "softmax",
            "regression": "none",
            "single_label_classification": "sigmoid" if len(names) == 1 else "softmax",
            "multi_label_classification": "sigmoid",
        }
        kind = config.get("problem_type")
        if not isinstance(kind, (str, type(None))) or kind not in kinds:
            raise InvalidWeights(file, f"problem_type {quoted(kind)} is not one of {', '.join(filter(None, kinds))}")
        return cls(names, kinds[kind])


class Head(ABC):
    """A head on an encoder.

    ``tasks`` are the pipelines that it supports. ``outputs`` names its outputs, ``defaults`` those of a call that names
    none, including the encoder's, ``per_token`` those with a sequence axis. ``folders`` are the folders of modules with
    weights files of their own, and ``pools_apart`` is true if not all tokens of the text are pooled.
    """

    tasks: tuple[str, ...] = ("text-classification",)
    outputs: tuple[str, ...] = ("logits",)
    defaults: tuple[str, ...] = ("logits",)
    per_token: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    pools_apart = False

    @abstractmethod
    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs from ``hidden`` (batch, sequence, hidden) and the model's inputs."""


class Embedder(Head):
    """The bare model, with the [CLS] pooler of the name ``pooler`` if the checkpoint has one.

    ``sentence_embedding`` (batch, features) is pooled as the folder specifies; ``mean_embedding`` and so on are pooled
    by the mode in their name.
    """

    tasks = ("feature-extraction", "sentence-similarity")

    def __init__(self, scope: Scope, folder: Checkpoint, size: int, pooler: str = "") -> None:
        self.pooler = Linear(scope / pooler, size, size) if pooler and folder.has(f"{pooler}.weight") else None
        self.sentence = SentenceLayers(scope, folder.sentence, size, folder.file)
        self.folders = folder.sentence.folders
        self.pools_apart = not folder.sentence.include_prompt
        pooled = ("pooler_output",) if self.pooler else ()
        self.defaults = ("last_hidden_state", *pooled)
        self.outputs = ("sentence_embedding", *(f"{mode}_embedding" for mode in pooling.MODES), *pooled)

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        mask = inputs["attention_mask"]
        result = {f"{mode}_embedding": pool(hidden, mask) for mode, pool in pooling.MODES.items()}
        result["sentence_embedding"] = self.sentence(weights, hidden, mask, inputs.get("pooling_mask"))
        if self.pooler:
            result["pooler_output"] = tanh(self.pooler(weights, pooling.cls(hidden)))
        return result


@dataclass(frozen=True)
class Words:
    """The names of the layers from a hidden state to scores of words, and the ``activation`` after ``dense``.

    Without an ``activation`` it is that of the encoder's layers.

    ``out`` may share the weight of the embeddings. ``bias`` is the name of its bias in `transformers`, where it may be
    stored a second time; without a name there is none.
    """

    dense: str
    norm: str
    out: str
    bias: str
    activation: str = ""
    dense_bias: bool = True
    norm_bias: bool = True


class MaskedLM(Head):
    """The masked language model: ``logits`` (batch, sequence, vocabulary).

    It is also SPLADE (Formal et al., 2021, https://arxiv.org/abs/2107.05720): ``sparse_embedding`` (batch, vocabulary)
    is ``max over tokens of log(1 + relu(logit))``. ``words`` is the table of the embeddings.
    """

    tasks = ("fill-mask", "sparse-embedding")
    outputs = ("logits", "sparse_embedding")
    per_token = ("logits",)

    def __init__(self, scope: Scope, folder: Checkpoint, c: EncoderConfig, layers: Words, words: Param) -> None:
        self.dense = Linear(scope / layers.dense, c.hidden_size, c.width, bias=layers.dense_bias)
        self.activation = ACTIVATIONS[layers.activation or c.hidden_act]
        self.norm = LayerNorm(scope / layers.norm, c.width, c.layer_norm_eps, bias=layers.norm_bias)
        own = f"{layers.out}.bias"
        name = own if layers.bias and folder.has(own) else layers.bias
        bias = scope.param(name, (c.vocab_size,), "vector") if name else False
        tied = folder.ties(f"{layers.out}.weight", words, tied=c.tie_word_embeddings)
        self.out = Linear(scope / layers.out, c.width, c.vocab_size, weight=tied, bias=bias)

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        mask = inputs["attention_mask"]
        logits = self.out(weights, self.norm(weights, self.activation(self.dense(weights, hidden))))
        masked = logits + reshape(additive(mask), (*mask.shape, 1))
        return {"logits": logits, "sparse_embedding": log1p(relu(max(masked, axis=1)))}


@dataclass(frozen=True)
class Classes:
    """The names of the layers from the first token's hidden state to scores of labels, and the activation between."""

    dense: str
    activation: str
    out: str


class SequenceClassification(Head):
    """Two linear layers on the first token's hidden state: ``logits`` (batch, labels)."""

    def __init__(self, scope: Scope, size: int, labels: Labels, layers: Classes) -> None:
        self.labels = labels
        self.dense = Linear(scope / layers.dense, size, size)
        self.activation = ACTIVATIONS[layers.activation]
        self.out = Linear(scope / layers.out, size, len(labels.names))

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        return {"logits": self.out(weights, self.activation(self.dense(weights, pooling.cls(hidden))))}


class TokenClassification(Head):
    """A classifier of tokens: ``logits`` (batch, sequence, labels)."""

    tasks = ("token-classification",)
    per_token = ("logits",)

    def __init__(self, scope: Scope, size: int, labels: Labels) -> None:
        self.labels = labels
        self.out = Linear(scope, size, len(labels.names))

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        return {"logits": self.out(weights, hidden)}


class QuestionAnswering(Head):
    """Scores of the first and last token of an answer: ``start_logits`` and ``end_logits`` (batch, sequence)."""

    tasks = ("question-answering",)
    outputs = defaults = per_token = ("start_logits", "end_logits")

    def __init__(self, scope: Scope, size: int) -> None:
        self.out = Linear(scope, size, 2)

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        logits = self.out(weights, hidden)
        return {"start_logits": logits[:, :, 0], "end_logits": logits[:, :, 1]}


class Prediction(Head):
    """The layers of a masked language model before another ``head``; with ``pools`` on one vector of each text.

    That is the vector of the first token ("cls") or the mean of all tokens ("mean").
    """

    def __init__(self, scope: Scope, c: EncoderConfig, layers: Words, head: Head, pools: str = "") -> None:
        self.head, self.pools, self.labels = head, pools, getattr(head, "labels", None)
        self.outputs, self.defaults = head.outputs, head.defaults
        self.tasks, self.per_token = (Head.tasks, ()) if pools else (head.tasks, head.per_token)
        self.dense = Linear(scope / "dense", c.hidden_size, c.hidden_size, bias=layers.dense_bias)
        self.activation = ACTIVATIONS[layers.activation]
        self.norm = LayerNorm(scope / "norm", c.hidden_size, c.layer_norm_eps, bias=layers.norm_bias)

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        if self.pools:
            mask = inputs["attention_mask"]
            hidden = pooling.cls(hidden) if self.pools == "cls" else pooling.mean(hidden, mask)
        return self.head(weights, self.norm(weights, self.activation(self.dense(weights, hidden))), inputs)


def by_class(folder: Checkpoint, family: str, heads: Mapping[str, Callable[[], AnyHead]]) -> AnyHead:
    """Build the head for the class in ``architectures``: ``family`` and a key of ``heads``, by default the first.

    Raises:
        UnsupportedModel: ``heads`` has no such key.
    """
    named = folder.architectures
    kind = named[0] if named else family + next(iter(heads))
    if not kind.startswith(family) or kind.removeprefix(family) not in heads:
        raise UnsupportedModel(kind, [family + suffix for suffix in heads])
    return heads[kind.removeprefix(family)]()
