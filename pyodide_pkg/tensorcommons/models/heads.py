"""Heads on an encoder's hidden states, named after the classes and outputs of `transformers`.

Every text encoder supports each of these; its file names the layers in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from ..errors import InvalidWeights, UnsupportedModel, quoted
from ..nn import layer_norm, linear, pooling
from ..ops import linear as linear_op
from ..ops import log1p, max, relu, reshape, tanh
from ..shapes import Shape
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .config import ACTIVATIONS
from .encoder import EncoderConfig, additive
from .sentence import Sentence

AnyHead = TypeVar("AnyHead")
MOST_LABELS = 2**17
WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Labels:
    """The labels of a classifier, and the function from logits to scores: "softmax", "sigmoid" or "none"."""

    names: tuple[str, ...]
    activation: str = "softmax"

    @classmethod
    def of(cls, folder: Checkpoint) -> Labels:
        """Read ``id2label`` and ``problem_type`` as the pipelines of `transformers` do.

        Raises:
            InvalidWeights: the labels are not numbered from 0, or the problem type is unknown.
        """
        config, file = folder.config, folder.file
        table = config.get("id2label")
        if not table:
            count = 2 if config.get("num_labels") is None else config["num_labels"]
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


class HeadOutputs(Protocol):
    """The declarations of a head, whatever the encoder reads."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The pipelines that the head supports."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of ``forward``."""

    @property
    def defaults(self) -> tuple[str, ...]:
        """The outputs of a call that names none, including the encoder's."""

    def parameters(self) -> dict[str, Shape]:
        """Return the names and shapes of the weights."""


class Head(HeadOutputs, Protocol):
    """A head on an encoder of text."""

    @property
    def per_token(self) -> tuple[str, ...]:
        """The outputs with a sequence axis."""

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs from ``hidden`` (batch, sequence, hidden) and the ``inputs`` (batch, sequence)."""


@dataclass(frozen=True)
class Embedder:
    """The bare model, with the [CLS] pooler of the name ``pooler`` if it has one.

    ``sentence_embedding`` (batch, hidden) is pooled as the folder specifies; ``mean_embedding`` and so on are pooled by
    the mode in their name.
    """

    size: int
    sentence: Sentence
    pooler: str = ""
    tasks: ClassVar[tuple[str, ...]] = ("feature-extraction", "sentence-similarity")
    per_token: ClassVar[tuple[str, ...]] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The embeddings, and ``pooler_output`` (batch, hidden) if there is a pooler."""
        return ("sentence_embedding", *(f"{mode}_embedding" for mode in pooling.MODES), *self.defaults[1:])

    @property
    def defaults(self) -> tuple[str, ...]:
        """The outputs of the bare model of `transformers`."""
        return ("last_hidden_state", "pooler_output") if self.pooler else ("last_hidden_state",)

    def parameters(self) -> dict[str, Shape]:
        """Return the parameters of the pooler and of the modules after the encoder."""
        pooler = linear.parameters(self.pooler, self.size, self.size) if self.pooler else {}
        return pooler | self.sentence.parameters()

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        mask = inputs["attention_mask"]
        result = {f"{mode}_embedding": pool(hidden, mask) for mode, pool in pooling.MODES.items()}
        result["sentence_embedding"] = self.sentence.forward(weights, hidden, mask, inputs.get("pooling_mask"))
        if self.pooler:
            result["pooler_output"] = tanh(linear.forward(weights, self.pooler, pooling.cls(hidden)))
        return result


@dataclass(frozen=True)
class Words:
    """The names of the layers from a hidden state to scores of words. ``out`` may share the weight of the embeddings.

    ``bias`` is the name of the bias of ``out`` in `transformers`, where it may be stored a second time.
    """

    dense: str
    norm: str
    out: str
    bias: str

    def output(self, folder: Checkpoint, *, tied: bool) -> tuple[str, str]:
        """Return the names (weight, bias) of the parameters of ``out``."""
        bias = f"{self.out}.bias"
        return folder.output(f"{self.out}.weight", WORDS, tied=tied), bias if folder.has(bias) else self.bias


@dataclass(frozen=True)
class MaskedLM:
    """The masked language model: ``logits`` (batch, sequence, vocabulary).

    It is also SPLADE (Formal et al., 2021, https://arxiv.org/abs/2107.05720): ``sparse_embedding`` (batch, vocabulary)
    is ``max over tokens of log(1 + relu(logit))``.
    """

    config: EncoderConfig
    layers: Words
    activation: str
    output: tuple[str, str] = (WORDS, "")
    tasks: ClassVar[tuple[str, ...]] = ("fill-mask", "sparse-embedding")
    outputs: ClassVar[tuple[str, ...]] = ("logits", "sparse_embedding")
    defaults: ClassVar[tuple[str, ...]] = ("logits",)
    per_token: ClassVar[tuple[str, ...]] = ("logits",)

    def parameters(self) -> dict[str, Shape]:
        """Declare a linear layer, a layer norm, a bias for each word, and the weight of the output."""
        c, (weight, bias) = self.config, self.output
        shapes = linear.parameters(self.layers.dense, c.hidden_size, c.width)
        shapes |= layer_norm.parameters(self.layers.norm, c.width)
        return {**shapes, weight: (c.vocab_size, c.width), bias: (c.vocab_size,)}

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        layers, mask = self.layers, inputs["attention_mask"]
        x = ACTIVATIONS[self.activation](linear.forward(weights, layers.dense, hidden))
        x = layer_norm.forward(weights, layers.norm, x, self.config.layer_norm_eps)
        logits = linear_op(x, *(weights[name] for name in self.output))
        masked = logits + reshape(additive(mask), (*mask.shape, 1))
        return {"logits": logits, "sparse_embedding": log1p(relu(max(masked, axis=1)))}


@dataclass(frozen=True)
class Classes:
    """The names of the layers from the first token's hidden state to scores of labels, and the activation between."""

    dense: str
    activation: str
    out: str


class TextClassification:
    """The declarations of a classifier of texts: ``logits`` (batch, labels)."""

    tasks: ClassVar[tuple[str, ...]] = ("text-classification",)
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    defaults: ClassVar[tuple[str, ...]] = ("logits",)
    per_token: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class SequenceClassification(TextClassification):
    """Two linear layers on the first token's hidden state."""

    size: int
    labels: Labels
    layers: Classes

    def parameters(self) -> dict[str, Shape]:
        """Declare the two linear layers."""
        dense = linear.parameters(self.layers.dense, self.size, self.size)
        return dense | linear.parameters(self.layers.out, self.size, len(self.labels.names))

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        dense = linear.forward(weights, self.layers.dense, pooling.cls(hidden))
        return {"logits": linear.forward(weights, self.layers.out, ACTIVATIONS[self.layers.activation](dense))}


@dataclass(frozen=True)
class TokenClassification:
    """A classifier of tokens: ``logits`` (batch, sequence, labels)."""

    size: int
    labels: Labels
    out: str = "classifier"
    tasks: ClassVar[tuple[str, ...]] = ("token-classification",)
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    defaults: ClassVar[tuple[str, ...]] = ("logits",)
    per_token: ClassVar[tuple[str, ...]] = ("logits",)

    def parameters(self) -> dict[str, Shape]:
        """Declare the linear layer."""
        return linear.parameters(self.out, self.size, len(self.labels.names))

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        return {"logits": linear.forward(weights, self.out, hidden)}


@dataclass(frozen=True)
class QuestionAnswering:
    """Scores of the first and last token of an answer: ``start_logits`` and ``end_logits`` (batch, sequence)."""

    size: int
    out: str = "qa_outputs"
    tasks: ClassVar[tuple[str, ...]] = ("question-answering",)
    outputs: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")
    defaults: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")
    per_token: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")

    def parameters(self) -> dict[str, Shape]:
        """Declare a linear layer with two outputs."""
        return linear.parameters(self.out, self.size, 2)

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        logits = linear.forward(weights, self.out, hidden)
        return {"start_logits": logits[:, :, 0], "end_logits": logits[:, :, 1]}


def embedder(folder: Checkpoint, size: int, pooler: str = "") -> Embedder:
    """Build the head of the bare model with the folder's sentence modules. Raises InvalidWeights if they do not fit."""
    folder.sentence.check(size, folder.file)
    return Embedder(size, folder.sentence, pooler)


def text_head(
    folder: Checkpoint,
    family: str,
    config: EncoderConfig,
    words: Words,
    classes: Classes,
    activation: str,
    *,
    pooler: str = "",
) -> Head:
    """Build the head of a text model. Raises the errors of :func:`by_class`.

    ``activation`` precedes the scores of words; ``pooler`` is the name of the optional pooler of the bare model.
    """
    size = config.hidden_size
    pooled = pooler if pooler and folder.has(f"{pooler}.weight") else ""
    heads: dict[str, Callable[[], Head]] = {
        "Model": lambda: embedder(folder, size, pooled),
        "ForMaskedLM": lambda: MaskedLM(
            config, words, activation, words.output(folder, tied=config.tie_word_embeddings)
        ),
        "ForSequenceClassification": lambda: SequenceClassification(size, Labels.of(folder), classes),
        "ForTokenClassification": lambda: TokenClassification(size, Labels.of(folder)),
        "ForQuestionAnswering": lambda: QuestionAnswering(size),
    }
    return by_class(folder, family, heads)


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
