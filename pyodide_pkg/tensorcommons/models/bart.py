"""BART (Lewis et al., 2019, https://arxiv.org/abs/1910.13461): an encoder-decoder trained to restore damaged texts.

Both stacks are post-norm transformers with learned positions, which are stored from row 2 of their tables. The decoder
of a text reads the text itself, shifted by one token, if a call has no ``decoder_input_ids``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..nn import Embedding, FeedForward, LayerNorm, Linear, Scope, Weights
from ..nn.attention import FAIRSEQ, Attention
from ..ops import arange, embedding, equal, expand_dims, minimum, multiply, reshape
from ..tensor import Tensor
from .answer_inputs import AnswerInputs
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, activation, check_fixed, check_heads, read_config
from .decoder import KVState
from .encoder_decoder import AnswerGenerator, EncoderDecoder, Extend, tables_of
from .heads import Classes, Head, Labels, QuestionAnswering, SequenceClassification, by_class

ALIASES = {"d_model": "hidden_size", "encoder_layers": "num_hidden_layers"}
ALIASES |= {"encoder_attention_heads": "num_attention_heads"}
STACKS = ("encoder", "decoder")
FIRST_POSITION = 2  # the row of the first token
EPS = 1e-5
CLASSES = Classes("classification_head.dense", "tanh", "classification_head.out_proj")
GENERATION = {"bos_token_id": 0, "pad_token_id": 1}
GENERATION |= dict.fromkeys(("decoder_start_token_id", "eos_token_id", "forced_eos_token_id"), 2)


@dataclass(frozen=True)
class BartConfig:
    """The fields of ``config.json`` that determine the computation; sizes in elements."""

    vocab_size: int = 50265
    d_model: int = 1024
    encoder_layers: int = 12
    encoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    decoder_layers: int = 12
    decoder_attention_heads: int = 16
    decoder_ffn_dim: int = 4096
    max_position_embeddings: int = 1024
    activation_function: str = "gelu"
    scale_embedding: bool = False  # multiply the embeddings of tokens by the root of their size
    tie_word_embeddings: bool = True  # the stored tensors decide which weights are tied
    decoder_start_token_id: int = 2

    @classmethod
    def of(cls, folder: Checkpoint) -> BartConfig:
        """Read the configuration. Raises InvalidWeights for a field that is missing, wrong or not supported."""
        check_fixed(folder.config, folder.file, is_decoder=False, is_encoder_decoder=True)
        config = read_config(cls, folder.config, folder.file, aliases=ALIASES)
        for heads in (config.encoder_attention_heads, config.decoder_attention_heads):
            check_heads(config.d_model, heads, folder.file)
        activation(config.activation_function, folder.file, "activation_function")
        return config


@dataclass(frozen=True)
class EndToken:
    """The field that a classifier of texts reads. As an option of generation, it may be several tokens."""

    eos_token_id: int = 2


class Layer:
    """Attention and a feed-forward part, each added to its input and normalized; with ``attends`` also attention to
    the encoder between them.
    """

    def __init__(self, scope: Scope, c: BartConfig, heads: int, inner: int, *, attends: bool) -> None:
        size, act = c.d_model, ACTIVATIONS[c.activation_function]
        self.attention = Attention(scope / "self_attn", size, heads, names=FAIRSEQ)
        self.attention_norm = LayerNorm(scope / "self_attn_layer_norm", size, EPS)
        if attends:
            self.memory = Attention(scope / "encoder_attn", size, heads, names=FAIRSEQ)
            self.memory_norm = LayerNorm(scope / "encoder_attn_layer_norm", size, EPS)
        self.feed_forward = FeedForward(Linear(scope / "fc1", size, inner), act, Linear(scope / "fc2", inner, size))
        self.norm = LayerNorm(scope / "final_layer_norm", size, EPS)

    def __call__(
        self, weights: Weights, x: Tensor, mask: Tensor, extend: Extend | None = None, memory: Sequence[Tensor] = ()
    ) -> Tensor:
        """Apply the layer to (batch, sequence, size).

        ``extend`` appends keys and values to a cache; ``memory`` are the keys, values and mask of the encoder's output.
        """
        key, value = self.attention.memory(weights, x)
        keys = extend(key, value) if extend else (key, value)
        x = self.attention_norm(weights, x + self.attention.attend(weights, x, *keys, mask))
        if memory:
            x = self.memory_norm(weights, x + self.memory.attend(weights, x, *memory))
        return self.norm(weights, x + self.feed_forward(weights, x))


class Stack:
    """The embeddings and the layers of the encoder or the decoder."""

    def __init__(self, scope: Scope, c: BartConfig, name: str, words: Embedding) -> None:
        layers, heads, inner = (getattr(c, f"{name}_{part}") for part in ("layers", "attention_heads", "ffn_dim"))
        scope, shape = scope / name, (c.max_position_embeddings + FIRST_POSITION, c.d_model)
        self.words = words
        self.scale = float(c.d_model**0.5) if c.scale_embedding else 1.0
        self.positions = scope.param("embed_positions.weight", shape, "positions")
        self.norm = LayerNorm(scope / "layernorm_embedding", c.d_model, EPS)
        self.layers = {
            f"{name}.layers.{i}": Layer(scope / "layers" / i, c, heads, inner, attends=name == "decoder")
            for i in range(layers)
        }

    def embed(self, weights: Weights, ids: Tensor, positions: Tensor) -> Tensor:
        """Embed tokens: int32 (batch, sequence) -> (batch, sequence, size). Padding may exceed the last position."""
        places = minimum(positions + FIRST_POSITION, self.positions.shape[0] - 1)
        words = self.words(weights, ids)
        words = words if self.scale == 1 else multiply(words, self.scale)
        return self.norm(weights, words + weights[self.positions].rows(places))


class Bart(EncoderDecoder):
    """The encoder-decoder without a head: the decoder's hidden states are the output."""

    model_type = "bart"
    tasks: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("last_hidden_state", "encoder_last_hidden_state")
    defaults = outputs

    def __init__(self, folder: Checkpoint) -> None:
        self.config = c = BartConfig.of(folder)
        self.scope = scope = Scope({})
        self.manifest = scope.manifest
        (_, *words), self.tied, names = tables_of(folder, scope, c.vocab_size, c.d_model)
        self.encoder, self.decoder = (Stack(scope, c, *each) for each in zip(STACKS, words, strict=True))
        self.crossed = {name: layer.memory for name, layer in self.decoder.layers.items()}
        self.names = (replace(names, prefixes=("model.",)),)
        self.inputs = AnswerInputs(c.vocab_size, c.max_position_embeddings, c.decoder_start_token_id)

    def encode(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """See :class:`EncoderDecoder`."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        counts = reshape(equal(mask, 1), (mask.shape[0], 1, 1, -1))
        x = self.encoder.embed(weights, ids, expand_dims(arange(ids.shape[1], device=ids.device), axis=0))
        for layer in self.encoder.layers.values():
            x = layer(weights, x, counts)
        return x

    def decode(self, weights: Weights, ids: Tensor, fixed: Mapping[str, Tensor], past: KVState) -> Tensor:
        """See :class:`EncoderDecoder`."""
        x = self.decoder.embed(weights, ids, past.positions)
        for name, layer in self.decoder.layers.items():
            x = layer(weights, x, past.mask, partial(past.extend, name), self.memory_of(fixed, name))
        return x

    def results(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`EncoderDecoder`."""
        return {"last_hidden_state": hidden}


class BartAnswers(Bart):
    """With the first and last token of an answer."""

    def __init__(self, folder: Checkpoint) -> None:
        super().__init__(folder)
        self.head: Head = QuestionAnswering(self.scope / "qa_outputs", self.config.d_model)
        self.outputs = self.defaults = (*self.head.outputs, "encoder_last_hidden_state")

    def results(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`EncoderDecoder`."""
        return self.head(weights, hidden, inputs)


class BartClassifier(Bart):
    """With a classifier of the hidden state of each text's last end token."""

    def __init__(self, folder: Checkpoint) -> None:
        super().__init__(folder)
        if not folder.config.get("id2label") and folder.config.get("num_labels") is None:
            folder = replace(folder, config={**folder.config, "num_labels": 3})
        self.head = SequenceClassification(self.scope, self.config.d_model, Labels.of(folder), CLASSES)
        self.tasks, self.outputs = self.head.tasks, (*self.head.outputs, "encoder_last_hidden_state")
        self.defaults = self.outputs
        self.inputs = replace(self.inputs, end_token=read_config(EndToken, folder.config, folder.file).eos_token_id)

    def results(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`EncoderDecoder`."""
        last = embedding(reshape(hidden, (-1, hidden.shape[2])), inputs["last_tokens"])  # (batch, size)
        return self.head(weights, expand_dims(last, axis=1), inputs)


class BartGenerator(AnswerGenerator, Bart):
    """With the vocabulary head. ``generation`` are the default options of generation."""

    def __init__(self, folder: Checkpoint) -> None:
        super().__init__(folder)
        c = self.config
        self.generation = {**GENERATION, **folder.config} if folder.generation is None else folder.generation
        self.vocab_size, self.max_length = c.vocab_size, c.max_position_embeddings
        self.start_token: int | None = c.decoder_start_token_id
        self.keys = c.decoder_attention_heads, c.d_model // c.decoder_attention_heads
        self.out = Linear(self.scope / "lm_head", c.d_model, c.vocab_size, bias=False, weight=self.tied)
        bias = "final_logits_bias"
        self.bias = self.scope.param(bias, (1, c.vocab_size), "vector") if folder.has(bias) else None

    def logits(self, weights: Weights, hidden: Tensor) -> Tensor:
        """See :class:`AnswerGenerator`."""
        logits = self.out(weights, hidden)
        return logits + reshape(weights[self.bias].tensor, (-1,)) if self.bias else logits


def build(folder: Checkpoint) -> Bart:
    """Build the model that ``architectures`` names."""
    kinds: dict[str, type[Bart]] = {
        "ForConditionalGeneration": BartGenerator,
        "Model": Bart,
        "ForSequenceClassification": BartClassifier,
        "ForQuestionAnswering": BartAnswers,
    }
    return by_class(folder, "Bart", {name: partial(kind, folder) for name, kind in kinds.items()})
