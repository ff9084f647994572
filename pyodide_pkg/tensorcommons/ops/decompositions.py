"""Decompositions, inverses and what is made of them: computed on the host by NumPy, that is by LAPACK.

They are long chains of small dependent steps, which a GPU starts one after another, each in more time than it takes;
WebNN has none of them. So a call reads its operands, computes, and gives a tensor on the operands' device: without
waiting on the CPU device, elsewhere by a blocking read where Python can be suspended. float16 is computed in float32.

NumPy learns of a failure from the processor's floating-point flags, which WebAssembly does not have: there it returns
NaN instead of an error. So the results are checked for NaN everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..backends.current import default_device
from ..bridge.runtime import WouldWaitError, can_suspend, run_now, suspend
from ..dtypes import DType
from ..errors import (
    DeviceMismatch,
    LinAlgError,
    ReadRequired,
    ShapeMismatch,
    TensorCommonsError,
    UnsupportedDtype,
    quoted,
)
from ..graph.graph import Graph
from ..shapes import broadcast_shapes
from ..tensor import Tensor, TensorLike, as_tensor, asarray, read_together
from .registry import check_size

T = TypeVar("T")


class QR(NamedTuple):
    """``Q`` with orthonormal columns, and ``R``, upper triangular."""

    Q: Tensor
    R: Tensor


class SVD(NamedTuple):
    """Left singular vectors as columns, singular values in descending order, right singular vectors as rows."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class Eigh(NamedTuple):
    """Eigenvalues in ascending order, and eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class SlogDet(NamedTuple):
    """The sign of a determinant, and the logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor


class _Host:
    """Operands of ``op`` on the host, and the way back to their device."""

    def __init__(self, op: str, *operands: TensorLike, square: bool = False) -> None:
        self.op = op
        self.tensors = [as_tensor(each, like=operands) for each in operands]
        for each in self.tensors:
            if each.dtype.kind != "float":
                raise UnsupportedDtype(f"{op} takes floats, not {each.dtype}: cast with tc.astype()")
        self.dtype: DType = dtypes.result_type([each.dtype for each in self.tensors])
        first = self.tensors[0].shape
        if len(first) < 2 or (square and first[-1] != first[-2]):
            raise ShapeMismatch(f"{op} takes {'square ' if square else ''}matrices (..., M, {'M' if square else 'N'}), "
                                f"not {first}")  # fmt: skip
        devices = {each.own_device for each in self.tensors if each.own_device is not None}
        if len(devices) > 1:
            raise DeviceMismatch(op, devices)
        self.device = next(iter(devices), None)
        self.shape = first

    def read(self) -> list[np.ndarray[Any, Any]]:
        """Return the values in the dtype of the computation.

        Raises TensorCommonsError within a traced function, and ReadRequired where the device cannot be waited for.
        """
        pending = [each.node for each in self.tensors if each.node.storage is None]
        if pending and any(node.op is None and node.storage is None for node in Graph(pending).nodes):
            raise TensorCommonsError(
                f"linalg.{self.op} is computed on the host, and a traced function has no values yet: call it outside "
                "of tc.compile()"
            )
        wide = np.dtype(np.float32) if self.dtype is dtypes.float16 else self.dtype.numpy
        return [each.astype(wide, copy=False) for each in self._values()]

    def _values(self) -> list[np.ndarray[Any, Any]]:
        device = self.device or default_device()
        if device.facts.is_host:
            try:
                return run_now(read_together(self.tensors), turns=True)
            except WouldWaitError:
                if not can_suspend():
                    raise ReadRequired(
                        f"linalg.{self.op} cannot wait while the device is busy: await what it computes first"
                    ) from None
        if not can_suspend():
            raise ReadRequired(
                f"linalg.{self.op} is computed on the host and cannot wait for the {device.kind} device, since this "
                'Python cannot be suspended: move the operand first, x = await x.to("cpu")'
            )
        values: list[np.ndarray[Any, Any]] = suspend(read_together(self.tensors))
        return values

    def compute(self, function: Callable[..., T], *more: Any, **options: Any) -> T:
        """Call ``function`` with the values. Raises LinAlgError as NumPy does."""
        values = self.read()
        try:
            with np.errstate(all="ignore"):
                return function(*values, *more, **options)
        except np.linalg.LinAlgError as error:
            raise LinAlgError(f"linalg.{self.op} of shape {self.shape}: {error}") from None

    def tensor(self, values: Any, dtype: object = None) -> Tensor:
        """Return ``values`` on the operands' device, in their dtype."""
        with np.errstate(over="ignore"):
            return asarray(np.asarray(values), dtype=dtype or self.dtype, device=self.device)


def _converged(values: T) -> T:
    """Return ``values``, eigenvalues or singular values. Raises NumPy's LinAlgError for NaN."""
    if np.isnan(values).any():  # type: ignore[call-overload]
        raise np.linalg.LinAlgError("the iteration did not converge")
    return values


def _svd(a: Any, full_matrices: bool = False) -> Any:
    u, s, vh = np.linalg.svd(a, full_matrices=full_matrices)
    return u, _converged(s), vh


def _svdvals(a: Any) -> Any:
    return _converged(np.linalg.svd(a, compute_uv=False))


def _eigh(a: Any) -> Any:
    values, vectors = np.linalg.eigh(a)
    return _converged(values), vectors


def _cholesky(a: Any) -> Any:
    lower = np.linalg.cholesky(a)
    if np.isnan(lower).any():
        raise np.linalg.LinAlgError("a matrix is not positive definite")
    return lower


def _solve(a: Any, b: Any) -> Any:
    """Solve as NumPy does. Raises its LinAlgError where finite operands have no finite solution."""
    x = np.linalg.solve(a, b)
    axes = (-1,) if b.ndim == 1 else (-2, -1)
    finite = np.isfinite(a).all((-2, -1)) & np.isfinite(b).all(axes)
    if (finite & np.isnan(x).any(axes)).any():
        raise np.linalg.LinAlgError("Singular matrix")
    return x


def _inv(a: Any) -> Any:
    inverse = np.linalg.inv(a)
    if (np.isfinite(a).all((-2, -1)) & np.isnan(inverse).any((-2, -1))).any():
        raise np.linalg.LinAlgError("Singular matrix")
    return inverse


def cholesky(x: TensorLike, *, upper: bool = False) -> Tensor:
    """Lower triangular ``L`` with ``L @ L.mT == x``, or with ``upper`` the upper triangular ``L.mT``.

    ``x`` is ``(..., M, M)``, symmetric and positive definite; its lower triangle is read. Computed on the host.

    Raises:
        LinAlgError: a matrix is not positive definite.

    >>> print(tc.linalg.cholesky([[4.0, 2.0], [2.0, 5.0]]).numpy())
    [[2. 0.]
     [1. 2.]]
    """
    host = _Host("cholesky", x, square=True)
    lower = host.compute(_cholesky)
    return host.tensor(np.swapaxes(lower, -1, -2) if upper else lower)


def det(x: TensorLike) -> Tensor:
    """Determinants of the square matrices ``(..., M, M)``. Computed on the host.

    >>> print(tc.linalg.det([[2.0, 0.0], [1.0, 3.0]]).numpy())
    6.0
    """
    host = _Host("det", x, square=True)
    return host.tensor(host.compute(np.linalg.det))


def slogdet(x: TensorLike) -> SlogDet:
    """Sign and logarithm of the absolute value of the determinants of ``(..., M, M)``; 0 and ``-inf`` if singular.

    Computed on the host.

    >>> sign, logabsdet = tc.linalg.slogdet([[2.0, 0.0], [0.0, -0.5]])
    >>> float(sign), float(logabsdet)
    (-1.0, 0.0)
    """
    host = _Host("slogdet", x, square=True)
    sign, logarithm = host.compute(np.linalg.slogdet)
    return SlogDet(host.tensor(sign), host.tensor(logarithm))


def eigh(x: TensorLike) -> Eigh:
    """Eigenvalues, ascending, and eigenvectors, as columns, of the symmetric matrices ``(..., M, M)``.

    The lower triangle is read. Computed on the host.

    Raises:
        LinAlgError: the iteration does not converge.

    >>> print(tc.linalg.eigh([[2.0, 0.0], [0.0, 1.0]]).eigenvalues.numpy())
    [1. 2.]
    """
    host = _Host("eigh", x, square=True)
    values, vectors = host.compute(_eigh)
    return Eigh(host.tensor(values), host.tensor(vectors))


def eigvalsh(x: TensorLike) -> Tensor:
    """Eigenvalues, ascending, of the symmetric matrices ``(..., M, M)``: see :func:`eigh`.

    >>> print(tc.linalg.eigvalsh([[2.0, 0.0], [0.0, 1.0]]).numpy())
    [1. 2.]
    """
    host = _Host("eigvalsh", x, square=True)
    return host.tensor(host.compute(lambda a: _converged(np.linalg.eigvalsh(a))))


def inv(x: TensorLike) -> Tensor:
    """Inverses of the square matrices ``(..., M, M)``. Computed on the host.

    Raises:
        LinAlgError: a matrix is singular.

    >>> print(tc.linalg.inv([[2.0, 0.0], [0.0, 4.0]]).numpy())
    [[0.5  0.  ]
     [0.   0.25]]
    """
    host = _Host("inv", x, square=True)
    return host.tensor(host.compute(_inv))


def solve(x1: TensorLike, x2: TensorLike) -> Tensor:
    """``x`` with ``x1 @ x == x2``: ``x1`` is ``(..., M, M)``, ``x2`` a vector ``(M,)`` or matrices ``(..., M, K)``.

    Leading axes broadcast. Computed on the host.

    Raises:
        LinAlgError: a matrix of ``x1`` is singular.

    >>> print(tc.linalg.solve([[2.0, 0.0], [0.0, 4.0]], [1.0, 1.0]).numpy())
    [0.5  0.25]
    """
    host = _Host("solve", x1, x2, square=True)
    right = host.tensors[1].shape
    if not right or right[max(len(right) - 2, 0)] != host.shape[-1]:
        raise ShapeMismatch(f"solve: x1 {host.shape} and x2 {right} must be (..., M, M) and (M,) or (..., M, K)")
    if len(right) > 1:
        broadcast_shapes(host.shape[:-2], right[:-2])
    return host.tensor(host.compute(_solve))


def qr(x: TensorLike, *, mode: Literal["reduced", "complete"] = "reduced") -> QR:
    """``Q`` with orthonormal columns and upper triangular ``R`` with ``Q @ R == x``, for ``x`` of ``(..., M, N)``.

    ``mode`` is "reduced" for ``Q`` of ``(..., M, min(M, N))``, or "complete" for ``(..., M, M)``. Computed on the host.

    >>> q, r = tc.linalg.qr([[3.0, 0.0], [0.0, 2.0]])
    >>> q.shape, r.shape
    ((2, 2), (2, 2))
    """
    if mode not in ("reduced", "complete"):
        raise TensorCommonsError(f'mode of qr must be "reduced" or "complete", not {quoted(mode)}')
    host = _Host("qr", x)
    if mode == "complete":
        check_size("qr", Spec((*host.shape[:-1], host.shape[-2]), host.dtype))
    q, r = host.compute(np.linalg.qr, mode=mode)
    return QR(host.tensor(q), host.tensor(r))


def svd(x: TensorLike, *, full_matrices: bool = True) -> SVD:
    """``U``, ``S`` and ``Vh`` with ``(U * S) @ Vh == x``, for ``x`` of ``(..., M, N)``; ``S`` is descending.

    ``U`` is ``(..., M, M)`` and ``Vh`` ``(..., N, N)``, or without ``full_matrices`` ``(..., M, K)`` and
    ``(..., K, N)`` with ``K = min(M, N)``. Computed on the host.

    Raises:
        LinAlgError: the iteration does not converge, as for NaN.

    >>> print(tc.linalg.svd([[3.0, 0.0], [0.0, -2.0]]).S.numpy())
    [3. 2.]
    """
    host = _Host("svd", x)
    for size in host.shape[-2:] if full_matrices else ():
        check_size("svd", Spec((*host.shape[:-2], size, size), host.dtype))
    u, s, vh = host.compute(_svd, full_matrices=full_matrices)
    return SVD(host.tensor(u), host.tensor(s), host.tensor(vh))


def svdvals(x: TensorLike) -> Tensor:
    """Singular values, descending, of the matrices ``(..., M, N)``: see :func:`svd`.

    >>> print(tc.linalg.svdvals([[3.0, 0.0], [0.0, -2.0]]).numpy())
    [3. 2.]
    """
    host = _Host("svdvals", x)
    return host.tensor(host.compute(_svdvals))


def pinv(x: TensorLike, *, rtol: TensorLike | None = None) -> Tensor:
    """Moore-Penrose pseudo-inverses ``(..., N, M)`` of the matrices ``(..., M, N)``.

    Singular values up to ``rtol`` times the largest count as 0. ``rtol`` is a number or has the leading axes of ``x``;
    the default is ``max(M, N)`` times the dtype's epsilon. Computed on the host.

    >>> print(tc.linalg.pinv([[2.0, 0.0], [0.0, 0.0]]).numpy())
    [[0.5 0. ]
     [0.  0. ]]
    """
    host = _Host("pinv", x)
    tolerance = _tolerance(host, rtol)
    broadcast_shapes(host.shape[:-2], tolerance.shape)

    def pseudo_inverse(a: Any) -> Any:
        u, s, vh = _svd(a)
        small = s <= tolerance[..., None] * s.max(-1, keepdims=True, initial=0)
        inverse = np.where(small, 0, 1 / np.where(small, 1, s)).astype(a.dtype)
        return np.swapaxes(vh, -1, -2) @ (inverse[..., None] * np.swapaxes(u, -1, -2))

    return host.tensor(host.compute(pseudo_inverse))


def matrix_rank(x: TensorLike, *, rtol: TensorLike | None = None) -> Tensor:
    """Number (int32) of singular values above ``rtol`` times the largest, for the matrices ``(..., M, N)``.

    ``rtol`` is as for :func:`pinv`. Computed on the host.

    >>> print(tc.linalg.matrix_rank([[1.0, 2.0], [2.0, 4.0]]).numpy())
    1
    """
    host = _Host("matrix_rank", x)
    tolerance = _tolerance(host, rtol)
    broadcast_shapes(host.shape[:-2], tolerance.shape)

    def rank(a: Any) -> Any:
        s = _svdvals(a)
        return np.count_nonzero(s > tolerance[..., None] * s.max(-1, keepdims=True, initial=0), axis=-1)

    return host.tensor(host.compute(rank), dtypes.int32)


def _tolerance(host: _Host, rtol: TensorLike | None) -> np.ndarray[Any, Any]:
    """Return the relative tolerance of ``host``'s matrices: ``rtol``, or its default."""
    if rtol is None:
        return np.asarray(max(host.shape[-2:]) * np.finfo(host.dtype.numpy).eps, np.float64)
    if isinstance(rtol, Tensor):
        given = _Host(host.op, rtol[..., None, None])
        return given.read()[0][..., 0, 0].astype(np.float64)
    return dtypes.host_array(rtol).astype(np.float64)
