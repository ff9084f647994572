"""Heads on an encoder's hidden states, named as `transformers` calls its classes and outputs.

Every text encoder may carry each of these; its file says under which names its checkpoints keep the layers.
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
MOST_LABELS = 2**17  # checked before a name is made for each
WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Labels:
    """The classes of a classifier, and what makes scores of its logits: "softmax", "sigmoid" or "none"."""

    names: tuple[str, ...]
    activation: str = "softmax"

    @classmethod
    def of(cls, folder: Checkpoint) -> Labels:
        """Read ``id2label`` and ``problem_type`` as the pipelines of `transformers` do.

        Raises:
            InvalidWeights: the labels are not numbered from 0, or the problem is of an unknown kind.
        """
        config, file = folder.config, folder.file
        table = config.get("id2label")
        if not table:
            count = 2 if config.get("num_labels") is None else config["num_labels"]
            if type(count) is not int or not 0 < count <= MOST_LABELS:
                raise InvalidWeights(
                    file, f"num_labels is a whole number from 1 to {MOST_LABELS:,}, not {quoted(count)}"
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


class Head(Protocol):
    """Parameters and outputs beside the encoder's; ``per_token`` are the outputs with a sequence axis."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The pipelines that it serves."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs of :meth:`forward`."""
        ...

    @property
    def defaults(self) -> tuple[str, ...]:
        """The outputs of a call that names none, the hidden states included."""
        ...

    @property
    def per_token(self) -> tuple[str, ...]:
        """See above."""
        ...

    def parameters(self) -> dict[str, Shape]:
        """Names and shapes of its weights."""
        ...

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its outputs of ``hidden`` (batch, sequence, hidden) and the model's ``inputs``, (batch, sequence)."""
        ...


@dataclass(frozen=True)
class Embedder:
    """No head, or the [CLS] pooler under the name ``pooler``.

    ``sentence_embedding`` (batch, hidden) is pooled as the folder says, ``mean_embedding`` and so on by their name.
    """

    size: int
    sentence: Sentence
    pooler: str = ""
    tasks: ClassVar[tuple[str, ...]] = ("feature-extraction", "sentence-similarity")
    per_token: ClassVar[tuple[str, ...]] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """See above; and ``pooler_output`` (batch, hidden) where there is a pooler."""
        return ("sentence_embedding", *(f"{mode}_embedding" for mode in pooling.MODES), *self.defaults[1:])

    @property
    def defaults(self) -> tuple[str, ...]:
        """The outputs of the bare model of `transformers`."""
        return ("last_hidden_state", "pooler_output") if self.pooler else ("last_hidden_state",)

    def parameters(self) -> dict[str, Shape]:
        """The pooler's, and those of the modules behind the encoder."""
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
    """The layers from a hidden state to scores of words: ``out`` has a weight of its own, or that of the embeddings.

    ``bias`` is the name under which `transformers` keeps the bias of ``out``, a second time if it differs.
    """

    dense: str
    norm: str
    out: str
    bias: str

    def output(self, folder: Checkpoint, *, tied: bool) -> tuple[str, str]:
        """The parameters (weight, bias) of ``out``."""
        bias = f"{self.out}.bias"
        return folder.output(f"{self.out}.weight", WORDS, tied=tied), bias if folder.has(bias) else self.bias


@dataclass(frozen=True)
class MaskedLM:
    """A score for every word of the vocabulary at every token: ``logits`` (batch, sequence, vocabulary).

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
        """A linear layer, a layer norm, a bias for each word, and the weight of the output where it is not tied."""
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
    """The layers from the first token's hidden state to scores of labels, and the activation between."""

    dense: str
    activation: str
    out: str


class TextClassification:
    """The declarations of a head with one score a label: ``logits`` (batch, labels)."""

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
        """Two linear layers."""
        dense = linear.parameters(self.layers.dense, self.size, self.size)
        return dense | linear.parameters(self.layers.out, self.size, len(self.labels.names))

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        dense = linear.forward(weights, self.layers.dense, pooling.cls(hidden))
        return {"logits": linear.forward(weights, self.layers.out, ACTIVATIONS[self.layers.activation](dense))}


@dataclass(frozen=True)
class TokenClassification:
    """One score a label and token: ``logits`` (batch, sequence, labels)."""

    size: int
    labels: Labels
    out: str = "classifier"
    tasks: ClassVar[tuple[str, ...]] = ("token-classification",)
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    defaults: ClassVar[tuple[str, ...]] = ("logits",)
    per_token: ClassVar[tuple[str, ...]] = ("logits",)

    def parameters(self) -> dict[str, Shape]:
        """One linear layer."""
        return linear.parameters(self.out, self.size, len(self.labels.names))

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        return {"logits": linear.forward(weights, self.out, hidden)}


@dataclass(frozen=True)
class QuestionAnswering:
    """Where an answer begins and ends: ``start_logits`` and ``end_logits`` (batch, sequence)."""

    size: int
    out: str = "qa_outputs"
    tasks: ClassVar[tuple[str, ...]] = ("question-answering",)
    outputs: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")
    defaults: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")
    per_token: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")

    def parameters(self) -> dict[str, Shape]:
        """One linear layer to two numbers."""
        return linear.parameters(self.out, self.size, 2)

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        logits = linear.forward(weights, self.out, hidden)
        return {"start_logits": logits[:, :, 0], "end_logits": logits[:, :, 1]}


def embedder(folder: Checkpoint, size: int, pooler: str = "") -> Embedder:
    """The bare model with what the folder puts behind it. Raises InvalidWeights where that does not fit."""
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
    """The head of a text model. Raises as by_class.

    ``activation`` is the one before scores of words; ``pooler`` is the layer that the family's bare model may bring.
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
    """The head of the class that ``architectures`` names, by what follows ``family`` in the name; by default the first.

    Raises:
        UnsupportedModel: it is none of ``heads``.
    """
    named = folder.architectures
    kind = named[0] if named else family + next(iter(heads))
    if not kind.startswith(family) or kind.removeprefix(family) not in heads:
        raise UnsupportedModel(kind, [family + suffix for suffix in heads])
    return heads[kind.removeprefix(family)]()
