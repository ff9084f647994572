"""``einsum``: sums of products by named axes, planned as products of two operands at a time.

Axes of one operand alone are summed first, axes named twice become diagonals. Two operands with common axes are one
batched ``matmul``: axes of both that are kept are its batch, those that are not its depth, so that their outer product
never exists. The next pair is always the one that leaves the fewest elements, as the greedy order of opt_einsum
(Smith and Gray, 2018).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_letters

from .. import dtypes
from ..errors import ShapeMismatch, UnsupportedDtype, quoted
from ..shapes import size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .elementwise import astype, multiply
from .layout import permute_dims, reshape
from .linalg import diagonal
from .matmul import matmul
from .reduction import sum as sum_of

MOST = 64  # operands: choosing a pair looks at all of them


@dataclass(frozen=True)
class _Term:
    """A tensor whose axes have different labels: letters, or ``.0``, ``.1``, ... from the end of an ellipsis."""

    tensor: Tensor
    labels: tuple[str, ...]

    def summed(self, kept: Collection[str]) -> _Term:
        """Sum over the axes whose labels are not ``kept``."""
        axes = [axis for axis, label in enumerate(self.labels) if label not in kept]
        if not axes:
            return self
        left = tuple(label for label in self.labels if label in kept)
        return _Term(sum_of(self.tensor, axis=axes, dtype=self.tensor.dtype), left)

    def ordered(self, labels: Sequence[str]) -> Tensor:
        """Return the tensor with its axes in the order of ``labels``; those that it does not have get size 1."""
        order = [self.labels.index(label) for label in labels if label in self.labels]
        turned = self.tensor if order == sorted(order) else permute_dims(self.tensor, order)
        sizes = dict(zip(self.labels, self.tensor.shape, strict=True))
        return _shaped(turned, [sizes.get(label, 1) for label in labels])


def _shaped(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    return tensor if tensor.shape == tuple(shape) else reshape(tensor, shape)


def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """Sum products over named axes, as ``numpy.einsum`` does.

    ``subscripts`` names the axes of each operand by letters, with ``...`` for axes that broadcast:
    ``"bik,bkj->bij"``. A letter that the result does not have is summed over, one that an operand has twice takes the
    diagonal. Without ``->`` the result has the axes of ``...``, then the letters that occur once, in alphabetical
    order. Axes of size 1 broadcast. Ints wrap around, in their common dtype; bools are refused.

    Common forms are one ``matmul``; several operands are multiplied two at a time, so that the smallest results come
    first.

    Raises:
        ShapeMismatch: the subscripts are malformed, or do not match the shapes.

    >>> a, b = tc.asarray([[1.0, 2.0], [3.0, 4.0]]), tc.asarray([[1.0, 0.0], [0.0, 2.0]])
    >>> print(tc.einsum("ik,kj->ij", a, b).numpy())
    [[1. 4.]
     [3. 8.]]
    >>> print(tc.einsum("ii", a).numpy())
    5.0
    """
    if not 0 < len(operands) <= MOST:
        raise ShapeMismatch(f"einsum takes 1 to {MOST} operands, not {len(operands)}")
    tensors = [as_tensor(each, like=operands) for each in operands]
    dtype = dtypes.result_type([each.dtype for each in tensors])
    if dtype.kind == "bool":
        raise UnsupportedDtype("einsum takes floats or ints, not bool: cast with tc.astype()")
    named, result = _parsed(subscripts, tensors)
    sizes = _sizes(subscripts, tensors, named)
    wide = dtypes.float32 if dtype is dtypes.float16 and len(tensors) > 2 else dtype
    terms = [_term(astype(x, wide), labels, sizes) for x, labels in zip(tensors, named, strict=True)]
    while len(terms) > 1:
        pairs = combinations(range(len(terms)), 2)
        chosen = min(pairs, key=lambda pair: _cost(terms, pair, result, sizes)) if len(terms) > 2 else (0, 1)
        a, b = (terms[n] for n in chosen)
        kept = _kept(terms, chosen, result)
        terms = [term for n, term in enumerate(terms) if n not in chosen]
        terms.append(_multiplied(a.summed({*kept, *b.labels}), b.summed({*kept, *a.labels}), kept))
    return astype(terms[0].summed(result).ordered(result), dtype)


def _parsed(subscripts: str, tensors: Sequence[Tensor]) -> tuple[list[list[str]], list[str]]:
    """Return the labels of each operand, and those of the result."""
    if not isinstance(subscripts, str):
        raise ShapeMismatch(f'einsum: subscripts must be text such as "ij,jk->ik", not {quoted(subscripts)}')
    left, arrow, right = "".join(subscripts.split()).partition("->")
    texts = left.split(",")
    if len(texts) != len(tensors):
        raise ShapeMismatch(f"einsum: {quoted(subscripts)} has {len(texts)} terms for {len(tensors)} operands")
    named = [_labels(text, x.ndim, subscripts) for text, x in zip(texts, tensors, strict=True)]
    counts = Counter(label for labels in named for label in labels)
    broadcast = sorted((label for label in counts if label[0] == "."), key=lambda label: -int(label[1:]))
    if not arrow:
        return named, [*broadcast, *sorted(label for label, n in counts.items() if n == 1 and label[0] != ".")]
    if broadcast and "..." not in right:
        raise ShapeMismatch(f"einsum: the result of {quoted(subscripts)} must have the axes of '...'")
    result = _labels(right, len(right.replace("...", "")) + len(broadcast), subscripts)
    if any(label not in counts for label in result) or len(set(result)) < len(result):
        raise ShapeMismatch(f"einsum: the result of {quoted(subscripts)} must name axes of the operands, each once")
    return named, result


def _labels(text: str, ndim: int, subscripts: str) -> list[str]:
    """Return a label for each of the ``ndim`` axes that ``text`` names."""
    head, dots, tail = text.partition("...")
    rest = ndim - len(head) - len(tail)
    if set(head + tail) - set(ascii_letters):
        raise ShapeMismatch(f"einsum: {quoted(text)} in {quoted(subscripts)} must be letters, with '...' at most once")
    if rest < 0 or (rest and not dots):
        raise ShapeMismatch(
            f"einsum: {quoted(text)} in {quoted(subscripts)} names other axes than the {ndim} there are"
        )
    return [*head, *(f".{place}" for place in range(rest - 1, -1, -1)), *tail]


def _sizes(subscripts: str, tensors: Sequence[Tensor], named: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return the size of each label."""
    sizes: dict[str, int] = {}
    for tensor, labels in zip(tensors, named, strict=True):
        own: dict[str, int] = {}
        for label, size in zip(labels, tensor.shape, strict=True):
            known = sizes.get(label, 1)
            if own.setdefault(label, size) != size or (size != known and 1 not in (size, known)):
                shapes = ", ".join(str(each.shape) for each in tensors[:8])
                raise ShapeMismatch(f"einsum: sizes of {label[0]!r} in {quoted(subscripts)} differ: shapes {shapes}")
            sizes[label] = known if size == 1 else size
    return sizes


def _term(tensor: Tensor, labels: list[str], sizes: Mapping[str, int]) -> _Term:
    """Take diagonals for repeated labels, and drop axes of size 1 that are larger elsewhere."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            rest = [axis for axis in range(tensor.ndim) if axis not in (i, j)]
            tensor = diagonal(permute_dims(tensor, (*rest, i, j)))
            labels = [*(labels[axis] for axis in rest), label]
    kept = [axis for axis, label in enumerate(labels) if tensor.shape[axis] == sizes[label]]
    return _Term(_shaped(tensor, [tensor.shape[axis] for axis in kept]), tuple(labels[axis] for axis in kept))


def _kept(terms: Sequence[_Term], pair: tuple[int, int], result: Sequence[str]) -> set[str]:
    """Return the labels that are needed after the terms of ``pair`` are multiplied."""
    return {*result, *(label for n, term in enumerate(terms) if n not in pair for label in term.labels)}


def _cost(
    terms: Sequence[_Term], pair: tuple[int, int], result: Sequence[str], sizes: Mapping[str, int]
) -> tuple[int, int]:
    """Return how many elements a pair leaves beyond those that it had, and its multiplications."""
    both = {label for n in pair for label in terms[n].labels}
    left = size_of([sizes[label] for label in both & _kept(terms, pair, result)])
    return left - sum(terms[n].tensor.size for n in pair), size_of([sizes[label] for label in both])


def _multiplied(a: _Term, b: _Term, kept: Collection[str]) -> _Term:
    """Multiply two terms, and sum over their common axes that are not ``kept``."""
    common = [label for label in a.labels if label in b.labels]
    batch = [label for label in common if label in kept]
    depth = [label for label in common if label not in kept]
    rows = [label for label in a.labels if label not in common]
    columns = [label for label in b.labels if label not in common]
    labels = (*batch, *rows, *columns)
    if not depth:
        return _Term(multiply(a.ordered(labels), b.ordered(labels)), labels)
    sizes = {**dict(zip(a.labels, a.tensor.shape, strict=True)), **dict(zip(b.labels, b.tensor.shape, strict=True))}
    m, n, k, count = (size_of([sizes[label] for label in each]) for each in (rows, columns, depth, batch))
    lead = (count,) if batch else ()
    left, right = a.ordered([*batch, *rows, *depth]), b.ordered([*batch, *depth, *columns])
    if m == n == 1 and a.tensor.dtype is not dtypes.float16:
        elements = multiply(_shaped(left, (*lead, k)), _shaped(right, (*lead, k)))
        product = sum_of(elements, axis=-1, dtype=elements.dtype)
    else:
        product = matmul(_shaped(left, (*lead, m, k)), _shaped(right, (*lead, k, n)))
    return _Term(_shaped(product, [sizes[label] for label in labels]), labels)
