"""BART (Lewis et al., 2019, https://arxiv.org/abs/1910.13461): an encoder-decoder trained to restore damaged texts.

Both stacks are post-norm transformers with learned positions, which are stored from row 2 of their tables. The decoder
of a text reads the text itself, shifted by one token, if a call has no ``decoder_input_ids``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..nn import Embedding, FeedForward, LayerNorm, Linear, Scope, Weights
from ..nn.attention import FAIRSEQ, Attention
from ..ops import embedding, expand_dims, minimum, multiply, reshape
from ..tensor import Tensor
from .answer_inputs import AnswerInputs
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, Activation, check_heads, read_config
from .decoder import KVState
from .encoder_decoder import AnswerGenerator, EncoderDecoder, Layer, Memory, Stack
from .heads import Classes, Head, Labels, QuestionAnswering, SequenceClassification, by_class
from .weight_mapping import WeightMapping

ALIASES = {"d_model": "hidden_size", "encoder_layers": "num_hidden_layers"}
ALIASES |= {"encoder_attention_heads": "num_attention_heads"}
ATTENTIONS = {"encoder": ["self_attn"], "decoder": ["self_attn", "encoder_attn"]}  # of a layer
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
    activation_function: Activation = "gelu"
    scale_embedding: bool = False  # multiply the embeddings of tokens by the root of their size
    tie_word_embeddings: bool = True  # the stored tensors decide which weights are tied
    decoder_start_token_id: int = 2

    @classmethod
    def of(cls, folder: Checkpoint) -> BartConfig:
        """Read the configuration. Raises InvalidWeights for a field that is missing, wrong or not supported."""
        config = read_config(
            cls, folder.config, folder.file, aliases=ALIASES, is_decoder=False, is_encoder_decoder=True
        )
        for heads in (config.encoder_attention_heads, config.decoder_attention_heads):
            check_heads(config.d_model, heads, folder.file)
        return config


@dataclass(frozen=True)
class EndToken:
    """The field that a classifier of texts reads. As an option of generation, it may be several tokens."""

    eos_token_id: int = 2


def _layer(scope: Scope, c: BartConfig, heads: int, inner: int, attentions: Sequence[str]) -> Layer:
    size, act = c.d_model, ACTIVATIONS[c.activation_function]
    return Layer(
        [Attention(scope / name, size, heads, names=FAIRSEQ) for name in attentions],
        [LayerNorm(scope / f"{name}_layer_norm", size, EPS) for name in (*attentions, "final")],
        FeedForward(Linear(scope / "fc1", size, inner), act, Linear(scope / "fc2", inner, size)),
        norm_first=False,
    )


class BartStack(Stack):
    """The layers after the embeddings ``words``, whose positions are learned."""

    def __init__(self, scope: Scope, c: BartConfig, name: str, words: Embedding) -> None:
        layers, heads, inner = (getattr(c, f"{name}_{part}") for part in ("layers", "attention_heads", "ffn_dim"))
        scope, shape = scope / name, (c.max_position_embeddings + FIRST_POSITION, c.d_model)
        self.words = words
        self.scale = float(c.d_model**0.5) if c.scale_embedding else 1.0
        self.positions = scope.param("embed_positions.weight", shape, "positions")
        self.norm = LayerNorm(scope / "layernorm_embedding", c.d_model, EPS)
        self.layers = {
            f"{name}.layers.{i}": _layer(scope / "layers" / i, c, heads, inner, ATTENTIONS[name]) for i in range(layers)
        }

    def __call__(self, weights: Weights, ids: Tensor, past: KVState, memory: Memory) -> Tensor:
        """See :class:`Stack`. Padding may exceed the last position."""
        places = minimum(past.positions + FIRST_POSITION, self.positions.shape[0] - 1)
        words = self.words(weights, ids)
        words = words if self.scale == 1 else multiply(words, self.scale)
        x = self.norm(weights, words + weights[self.positions].rows(places))
        return self.run(weights, x, past.mask, past, memory)


class Bart(EncoderDecoder):
    """The encoder-decoder with a ``head``; without one, the decoder's hidden states are the output."""

    model_type = "bart"
    tasks: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("last_hidden_state", "encoder_last_hidden_state")
    defaults = outputs

    def __init__(self, folder: Checkpoint, head: Callable[[Scope, int], Head] | None = None) -> None:
        self.config = c = BartConfig.of(folder)
        super().__init__(folder, c.vocab_size, c.d_model, WeightMapping(prefixes=("model.",)))
        stacks = zip(ATTENTIONS, self.tables, strict=True)
        self.encoder, self.decoder = (BartStack(self.scope, c, name, words) for name, words in stacks)
        self.inputs = AnswerInputs(c.vocab_size, c.max_position_embeddings, c.decoder_start_token_id)
        self.head = head(self.scope, c.d_model) if head else None
        if self.head:
            self.outputs = self.defaults = (*self.head.outputs, "encoder_last_hidden_state")

    def results(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`EncoderDecoder`."""
        return self.head(weights, hidden, inputs) if self.head else {"last_hidden_state": hidden}


class BartClassifier(Bart):
    """With a classifier of the hidden state of each text's last end token."""

    tasks = Head.tasks

    def __init__(self, folder: Checkpoint) -> None:
        super().__init__(folder, lambda scope, size: SequenceClassification(scope, size, Labels.of(folder, 3), CLASSES))
        self.inputs = replace(self.inputs, end_token=read_config(EndToken, folder.config, folder.file).eos_token_id)

    def results(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`EncoderDecoder`."""
        last = embedding(reshape(hidden, (-1, hidden.shape[2])), inputs["last_tokens"])  # (batch, size)
        return super().results(weights, expand_dims(last, axis=1), inputs)


class BartGenerator(AnswerGenerator, Bart):
    """With the vocabulary head."""

    def __init__(self, folder: Checkpoint) -> None:
        super().__init__(folder)
        c = self.config
        self.generation = {**GENERATION, **folder.config} if folder.generation is None else folder.generation
        self.vocab_size, self.max_length = c.vocab_size, c.max_position_embeddings
        self.start_token = c.decoder_start_token_id
        heads = c.decoder_attention_heads
        self.cached, self.keys = tuple(self.decoder.layers), (heads, c.d_model // heads)
        self.out = Linear(self.scope / "lm_head", c.d_model, c.vocab_size, bias=False, weight=self.tied)
        bias = "final_logits_bias"
        self.bias = self.scope.param(bias, (1, c.vocab_size), "vector") if folder.has(bias) else None

    def logits(self, weights: Weights, hidden: Tensor) -> Tensor:
        """See :class:`AnswerGenerator`."""
        logits = self.out(weights, hidden)
        return logits + reshape(weights[self.bias].tensor, (-1,)) if self.bias else logits


def build(folder: Checkpoint) -> Bart:
    """Build the model that ``architectures`` names."""
    heads: dict[str, Callable[[], Bart]] = {
        "ForConditionalGeneration": lambda: BartGenerator(folder),
        "Model": lambda: Bart(folder),
        "ForSequenceClassification": lambda: BartClassifier(folder),
        "ForQuestionAnswering": lambda: Bart(folder, lambda scope, size: QuestionAnswering(scope / "qa_outputs", size)),
    }
    return by_class(folder, "Bart", heads)
