"""Multi-head attention (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762)."""

from __future__ import annotations

from collections.abc import Sequence

from ..ops import permute_dims, reshape, scaled_dot_product_attention
from ..tensor import Tensor
from .linear import Linear
from .scope import Scope
from .weight import Weights

BERT = ("self.query", "self.key", "self.value", "output.dense")
FAIRSEQ = ("q_proj", "k_proj", "v_proj", "out_proj")


class Attention:
    """Attention over (batch, sequence, size): of a text to itself, or to the keys and values of another one.

    The ``mask`` of a call is additive, or true where a token attends to a key; it broadcasts to (batch, heads,
    sequence, keys). ``names`` are those of the projections to queries, keys, values and the result; ``bias`` applies to
    the first three, ``output_bias`` to the last. A head has ``size`` / ``heads`` features unless ``head_size`` is
    given, and its scores are scaled by ``scale``, by default the root of that number's inverse.
    """

    def __init__(
        self,
        scope: Scope,
        size: int,
        heads: int,
        *,
        bias: bool = True,
        output_bias: bool = True,
        names: Sequence[str] = BERT,
        head_size: int = 0,
        scale: float | None = None,
    ) -> None:
        self.heads, self.scale = heads, scale
        inner = heads * head_size or size
        self.projections = [Linear(scope / name, size, inner, bias=bias) for name in names[:3]]
        self.output = Linear(scope / names[3], inner, size, bias=output_bias)

    def __call__(self, weights: Weights, x: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (split_heads(project(weights, x), self.heads) for project in self.projections)
        return self._attended(weights, query, key, value, mask)

    def memory(self, weights: Weights, source: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the keys and values of a source, each (batch, heads, sequence, head size)."""
        key, value = (split_heads(project(weights, source), self.heads) for project in self.projections[1:])
        return key, value

    def attend(self, weights: Weights, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attend from ``x`` to the keys and values of :meth:`memory`."""
        query = split_heads(self.projections[0](weights, x), self.heads)
        return self._attended(weights, query, key, value, mask)

    def _attended(self, weights: Weights, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        attended = scaled_dot_product_attention(query, key, value, mask, scale=self.scale)
        return self.output(weights, merge_heads(attended))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Split (batch, sequence, heads * head_dim) -> (batch, heads, sequence, head_dim), a view."""
    batch, sequence, size = x.shape
    return permute_dims(reshape(x, (batch, sequence, heads, size // heads)), (0, 2, 1, 3))


def merge_heads(x: Tensor) -> Tensor:
    """Merge (batch, heads, sequence, head_dim) -> (batch, sequence, heads * head_dim), a view."""
    batch, heads, sequence, size = x.shape
    return reshape(permute_dims(x, (0, 2, 1, 3)), (batch, sequence, heads * size))
