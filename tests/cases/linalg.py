"""Linear algebra against NumPy: decompositions on the host, norms and parts of matrices, einsum and distances."""

from __future__ import annotations

from functools import partial
from string import ascii_letters
from typing import Any
from unittest.mock import patch

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, linalg
from tensorcommons.bridge.runtime import can_suspend
from tensorcommons.errors import LinAlgError, ReadRequired, ShapeMismatch, TensorCommonsError, UnsupportedDtype
from tensorcommons.ops import distance
from tensorcommons.tensor import Tensor
from tests.cases import only
from tests.cases.fuzz import LAYOUTS
from tests.cases.support import numbers, on, raises, refused

SQUARE = ((1, 1), (3, 3), (2, 3, 4, 4), (0, 0), (0, 2, 2), (2, 0, 0))
MATRICES = ((1, 1), (4, 3), (2, 3, 5), (0, 3), (3, 0), (0, 2, 2), (2, 1, 4, 6))
ORDERS: tuple[Any, ...] = (2, 1, 0, np.inf, -np.inf, -1, -2, 3, np.float32(0.5))


def _symmetric(*shape: int) -> Any:
    x = numbers(*shape)
    return x + x.swapaxes(-1, -2)


def _positive(*shape: int) -> Any:
    x = numbers(*shape)
    return (x @ x.swapaxes(-1, -2) + 2 * np.eye(shape[-1])).astype(np.float32)


async def _together(got: list[Tensor], wanted: list[Any], tolerance: float = 2e-5) -> None:
    """Compare several results, read at once, with NumPy's: shapes, dtypes, and values by the norm of the error."""
    for value, right in zip(await tc.read_together(got), wanted, strict=True):
        want = np.asarray(right)
        assert (value.shape, value.dtype) == (want.shape, want.dtype), f"{value.shape} {value.dtype} for {want.shape}"
        if want.dtype.kind in "iu":
            np.testing.assert_array_equal(value, want)
            continue
        error, size = (float(np.linalg.norm(each)) for each in (value.astype(float) - want, want.astype(float)))
        assert error <= tolerance * max(size, 1.0), f"{error:.2e} of {size:.2e}, shape {want.shape}"


@only("cpu")
async def decompositions(device: Device) -> None:
    """Every product of factors gives the matrix again; inverses, determinants and eigenvalues are NumPy's."""
    got, wanted = list[Tensor](), list[Any]()
    for shape in MATRICES:
        (x,) = on(device, a := numbers(*shape))
        for mode in ("reduced", "complete"):
            q, r = linalg.qr(x, mode=mode)
            got += [tc.matmul(q, r), tc.matmul(q.mT, q), r]
            wanted += [
                a,
                np.broadcast_to(np.eye(q.shape[-1], dtype="f4"), q.mT.shape[:-1] + q.shape[-1:]),
                np.triu(r.numpy()),
            ]
        u, s, vh = linalg.svd(x, full_matrices=False)
        got += [tc.matmul(u * s[..., None, :], vh), s, linalg.svdvals(x)]
        wanted += [a, *[np.linalg.svd(a, compute_uv=False)] * 2]
        assert [each.shape for each in linalg.svd(x)] == [each.shape for each in np.linalg.svd(a)]
        got += [linalg.pinv(x), linalg.matrix_rank(x), linalg.matrix_rank(x, rtol=0.5)]
        wanted += [np.linalg.pinv(a) if a.size else np.zeros(x.mT.shape, "f4")]
        wanted += [np.asarray(np.linalg.matrix_rank(a) if a.size else np.zeros(shape[:-2]), np.int32)]
        wanted += [np.asarray((s.numpy() > 0.5 * s.numpy().max(-1, keepdims=True, initial=0)).sum(-1), np.int32)]
    for shape in SQUARE:
        (x, p) = on(device, a := _symmetric(*shape), b := _positive(*shape))
        values, vectors = linalg.eigh(x)
        sign, logarithm = linalg.slogdet(p)
        got += [tc.matmul(x, vectors), values, linalg.eigvalsh(x), linalg.det(p), sign, logarithm]
        wanted += [vectors.numpy() * values.numpy()[..., None, :], *[np.linalg.eigvalsh(a)] * 2]
        wanted += [np.linalg.det(b), *np.linalg.slogdet(b)]
        got += [linalg.inv(p), linalg.cholesky(p), linalg.cholesky(p, upper=True)]
        wanted += [np.linalg.inv(b), np.linalg.cholesky(b), np.linalg.cholesky(b).swapaxes(-1, -2)]
        got += [linalg.matrix_power(p, n) for n in (0, 1, 3, -2)]
        wanted += [np.linalg.matrix_power(b, n) for n in (0, 1, 3, -2)]
        for right in (numbers(shape[-1]), numbers(shape[-1], 2), numbers(*shape)):
            got.append(linalg.solve(p, tc.asarray(right, device=device)))
            wanted.append(np.linalg.solve(b, right))
    await _together(got, wanted, 2e-4)
    x64 = numbers(3, 3).astype(np.float64)
    wide = tc.asarray(x64, dtype="float64", device=device)
    got = [linalg.inv(wide), wide @ wide, tc.einsum("ij,jk,kl->il", wide, wide, wide), linalg.vector_norm(wide, ord=3)]
    wanted = [np.linalg.inv(x64), x64 @ x64, x64 @ x64 @ x64, np.linalg.vector_norm(x64, ord=3)]
    await _together(got, wanted, 1e-13)
    half = linalg.inv(tc.asarray(np.eye(2) * 2, dtype="float16", device=device))
    assert str(half.dtype) == "float16" and half.numpy().tolist() == [[0.5, 0], [0, 0.5]]


@only("cpu")
async def decompositions_refuse(device: Device) -> None:
    """NumPy's errors are raised as typed ones; ints, vectors, incompatible shapes and tracing are refused by name."""
    assert issubclass(LinAlgError, np.linalg.LinAlgError)
    singular, nan, rectangle, ints, negative, pair = on(
        device, np.zeros((2, 2), np.float32), np.full((2, 2), np.nan, np.float32), numbers(2, 3), np.eye(2, dtype="i4"),
        -np.eye(2, dtype=np.float32), np.stack([np.eye(2), [[1, 2], [2, 4]]]).astype(np.float32),
    )  # fmt: skip
    stack = tc.broadcast_to(rectangle, (2, 2, 3))
    for wrong in (
        lambda: linalg.inv(singular), lambda: linalg.inv(pair), lambda: linalg.solve(singular, singular),
        lambda: linalg.solve(singular, singular[0]), lambda: linalg.solve(pair, singular),
        lambda: linalg.cholesky(negative), lambda: linalg.cholesky(nan), lambda: linalg.svd(nan),
        lambda: linalg.svdvals(nan), lambda: linalg.pinv(nan),
        lambda: linalg.matrix_rank(nan), lambda: linalg.matrix_norm(nan, ord=2), lambda: linalg.eigh(nan),
        lambda: linalg.eigvalsh(nan), lambda: linalg.matrix_power(singular, -1),
    ):  # fmt: skip
        refused(device, LinAlgError, wrong)
    for call in (linalg.inv, linalg.det, linalg.slogdet, linalg.eigh, linalg.eigvalsh, linalg.cholesky):
        refused(device, ShapeMismatch, partial(call, rectangle))
        refused(device, UnsupportedDtype, partial(call, ints))
        refused(device, ShapeMismatch, partial(call, rectangle[0]))
    for wrong in (lambda: linalg.solve(singular, rectangle[0]), lambda: linalg.matrix_power(rectangle, 2),
                  lambda: linalg.matrix_power(singular, 2.0), lambda: linalg.pinv(stack, rtol=np.ones(3))):  # type: ignore[arg-type] # fmt: skip
        refused(device, ShapeMismatch, wrong)
    refused(device, TensorCommonsError, lambda: linalg.qr(rectangle, mode="raw"))  # type: ignore[arg-type]
    tall = tc.broadcast_to(singular[:1, :1], (2**17, 1))
    refused(device, tc.errors.MemoryBudgetError, lambda: linalg.svd(tall))
    words = "inv is computed on the host, and a traced function"
    await raises(TensorCommonsError, tc.compile(linalg.inv, device=device)(singular), words)
    await raises(TensorCommonsError, tc.compile(linalg.inv, device=device)(np.eye(2, dtype=np.float32)), words)


async def decompositions_read_their_operand(device: Device) -> None:
    """The result is on the operand's device; where Python cannot be suspended, the error has the remedy."""
    (x,) = on(device, np.eye(2, dtype=np.float32) * 4)
    if device.facts.is_host or can_suspend():
        result = linalg.inv(x * 2)
        assert result.device is device
        solved = linalg.solve(x, tc.ones(2))  # numbers alone are on any device
        assert solved.device is device and (await solved.read()).tolist() == [0.25, 0.25]
        np.testing.assert_array_equal(await result.read(), np.eye(2) / 8)
    else:
        refused(device, ReadRequired, lambda: linalg.inv(x * 2))
        moved = linalg.inv(await (x * 2).to("cpu"))
        np.testing.assert_array_equal(await (await moved.to(device)).read(), np.eye(2) / 8)


async def norms(device: Device) -> None:
    """Every order over one axis, two, all and none, with and without the axes kept; matrix norms without the host."""
    got, wanted = list[Tensor](), list[Any]()
    a = numbers(2, 3, 5)
    a[0, 1, 2] = 0
    (x,) = on(device, a)
    for order in ORDERS:
        got += [linalg.vector_norm(x, axis=-1, ord=order), linalg.vector_norm(x, axis=(0, 2), ord=order, keepdims=True)]
        got += [linalg.vector_norm(x, ord=order), linalg.norm(x, order, 1)]
        with np.errstate(divide="ignore"):
            rows, both = (np.linalg.vector_norm(a, axis=each, ord=order) for each in (-1, (0, 2)))
            wanted += [rows, both[None, :, None], np.linalg.vector_norm(a, ord=order), np.linalg.norm(a, order, 1)]
    for kind in ("fro", 1, -1, np.inf, -np.inf):
        got += [linalg.matrix_norm(x, ord=kind), linalg.matrix_norm(x, ord=kind, keepdims=True)]
        got.append(linalg.norm(x, kind, (2, 0)))
        wanted += [np.linalg.matrix_norm(a, ord=kind, keepdims=keep) for keep in (False, True)]
        wanted.append(np.linalg.norm(a, kind, (2, 0)))
    got += [linalg.norm(x), tc.norm(x, axis=(0, 1), keepdims=True), linalg.vector_norm(x[:0])]
    wanted += [np.linalg.norm(a), np.linalg.norm(a, axis=(0, 1), keepdims=True), np.float32(0)]
    large = tc.asarray(np.full(4, 6e4), dtype="float16", device=device)  # its squares are too large for float16
    got += [linalg.vector_norm(large / 4), tc.vecdot(large / 1024, large / 1024)]
    wanted += [np.float16(3e4), np.float16(4 * 58.59375**2)]
    await _together(got, wanted)
    for wrong in (lambda: linalg.matrix_norm(x, ord=3), lambda: linalg.matrix_norm(x[0, 0]),
                  lambda: linalg.vector_norm(x, ord="fro"), lambda: linalg.norm(x, 2)):  # type: ignore[arg-type] # fmt: skip
        refused(device, ShapeMismatch, wrong)
    refused(device, UnsupportedDtype, lambda: linalg.vector_norm(tc.astype(x, "int32")))


@only("cpu")
async def norms_by_singular_values(device: Device) -> None:
    (x,) = on(device, a := numbers(2, 3, 4))
    kinds: tuple[Any, ...] = ("nuc", 2, -2)
    await _together(
        [linalg.matrix_norm(x, ord=kind) for kind in kinds], [np.linalg.matrix_norm(a, ord=kind) for kind in kinds]
    )


async def parts_of_matrices(device: Device) -> None:
    """Diagonals at every offset, traces and cross products; of ints, too, of views, and of dtypes that only move."""
    got, wanted = list[Tensor](), list[Any]()
    for shape in ((3, 5), (5, 3), (2, 4, 4), (1, 1), (0, 3), (3, 0)):
        a = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
        (x,) = on(device, a)
        for offset in (0, 1, -1, 2, -3, 4, -7):
            got += [linalg.diagonal(x, offset=offset), linalg.trace(x, offset=offset)]
            wanted += [np.diagonal(a, offset, -2, -1), np.trace(a, offset, -2, -1, dtype=np.int32)]
        got.append(linalg.diagonal(x.mT, offset=1))
        wanted.append(np.diagonal(a.swapaxes(-1, -2), 1, -2, -1))
    wide = np.arange(9, dtype=np.int64).reshape(3, 3) << 40
    got.append(linalg.diagonal(tc.asarray(wide, device=device)))
    wanted.append(np.diagonal(wide))
    a, b = numbers(2, 1, 3), numbers(4, 3, seed=1)
    n = np.arange(6, dtype=np.int32).reshape(3, 2)
    x, y, m = on(device, a, b, n)
    got += [linalg.cross(x, y), linalg.cross(m, m[:, ::-1], axis=0), linalg.cross(x.mT, y[:2, :, None], axis=-2)]
    wanted += [np.cross(a, b), np.cross(n, n[:, ::-1], axis=0), np.cross(a.swapaxes(-1, -2), b[:2, :, None], axis=-2)]
    await _together(got, wanted)
    for wrong in (lambda: linalg.cross(x, y, axis=0), lambda: linalg.cross(y, y, axis=-2),
                  lambda: linalg.cross(x, y, axis=1), lambda: linalg.diagonal(y[0])):  # fmt: skip
        refused(device, ShapeMismatch, wrong)


async def products_of_ints(device: Device) -> None:
    """Ints multiply and wrap as in NumPy, in the dtypes that the device computes; WebNN leaves them to the next one."""
    kinds = ("int32", "uint32", *(("int8", "uint8", "int64") if device.kind == "cpu" else ()))
    got, wanted = list[Tensor](), list[Any]()
    for kind in kinds:
        limits = np.iinfo(kind)
        rng = np.random.default_rng(1)
        a, b = (rng.integers(limits.min, limits.max, shape, kind, True) for shape in ((2, 5, 19), (19, 3)))
        x, y = on(device, a, b)
        got += [tc.matmul(x, y), tc.tensordot(x, y, 1), tc.einsum("...k,kn->n...", x, y), tc.vecdot(x, y[:, 0])]
        wanted += [a @ b, a @ b, (a @ b).transpose(2, 0, 1), a @ b[:, 0]]
    if device.kind == "cpu":
        x, y = on(
            device, a := np.arange(6, dtype=np.int8).reshape(2, 3), b := np.arange(6, dtype=np.int32).reshape(3, 2)
        )
        got.append(x @ y)
        wanted.append(a @ b)
    await _together(got, wanted)
    refused(device, UnsupportedDtype, lambda: tc.matmul(got[0], tc.astype(got[0], "float32").mT))
    refused(device, UnsupportedDtype, lambda: tc.matmul(got[0] > 0, got[0] > 0))
    assert tc.conj(got[0]) is got[0]
    refused(device, UnsupportedDtype, lambda: tc.conj(got[0] > 0))


FORMS = ("ij,jk->ik", "bij,bjk->bik", "ij->ji", "ii->i", "ii", "i,i", "i,j", "ij,ij->i", "bhqd,bhkd->bhqk", "...i,...i",
         "ij,jk,kl", "a,ab,abc->c", "iij,jk->ik", "b...,b...->...", "i...->...", "->", "ab,cd,bd->ca",
         "ijj,j->i")  # fmt: skip


def _operands(subscripts: str, rng: np.random.Generator, kind: str = "float32") -> list[Any]:
    """Draw operands; a letter has the size that its place in the alphabet decides, an ellipsis two axes, some of 1."""
    found = []
    for term in subscripts.split("->")[0].split(","):
        shape: list[int] = []
        for character in term.replace("...", "."):
            if character == ".":
                shape += [int(rng.choice([1, 3])), 2][int(rng.integers(2)) :]
            else:
                shape.append(1 + ascii_letters.index(character) % 4)
        found.append((rng.integers(-4, 5, shape) if kind == "int32" else rng.standard_normal(shape)).astype(kind))
    return found


def drawn_subscripts(rng: np.random.Generator) -> str:
    """Draw subscripts: one to four operands, repeated labels, ellipses, with or without a result."""
    letters = "abcdef"[: int(rng.integers(2, 7))]
    terms = ["".join(rng.choice(list(letters), int(rng.integers(0, 4)))) for _ in range(int(rng.integers(1, 5)))]
    dotted = [bool(rng.integers(3) == 0) for _ in terms]
    terms = [term[:1] + "..." + term[1:] if dots else term for term, dots in zip(terms, dotted, strict=True)]
    if rng.integers(2):
        return ",".join(terms)
    used = sorted(set("".join(terms)) - {"."})
    result = list(rng.permutation([letter for letter in used if rng.integers(2)]))
    if any(dotted):
        result.insert(int(rng.integers(len(result) + 1)), "...")
    return ",".join(terms) + "->" + "".join(result)


async def einsum_forms(device: Device) -> None:
    rng = np.random.default_rng(0)
    got, wanted = list[Tensor](), list[Any]()
    for kind in ("float32", "int32"):
        for subscripts in FORMS:
            arrays = _operands(subscripts, rng, kind)
            got.append(tc.einsum(subscripts, *on(device, *arrays)))
            wanted.append(np.einsum(subscripts, *arrays))
    for subscripts, shapes in (
        ("ij,ij->i", ((2, 3), (2, 1))), ("i,i", ((1,), (4,))), ("ij,jk->ik", ((1, 3), (1, 2))),
        ("...i,i", ((2, 1), (3,))),
        ("ij,jk->ik", ((2, 0), (0, 3))), ("ij,ij->", ((0, 3), (0, 3))), ("ij,jk->ik", ((0, 2), (2, 3))),
    ):  # fmt: skip
        arrays = [numbers(*shape, seed=seed) for seed, shape in enumerate(shapes)]
        got.append(tc.einsum(subscripts, *on(device, *arrays)))
        wanted.append(np.einsum(subscripts, *arrays))
    await _together(got, wanted)
    (x,) = on(device, np.full((2, 3), 200, np.float16))
    total = await tc.einsum("ij,ij,->", x, x, 0.01).read()  # 40,000 and its sum are computed in float32
    assert total.dtype == np.float16 and abs(float(total) - 2400) < 3


async def einsum_at_random(device: Device) -> None:
    rng = np.random.default_rng(7)
    got, wanted = list[Tensor](), list[Any]()
    for _ in range(300 if device.kind == "cpu" else 15):
        subscripts = drawn_subscripts(rng)
        arrays = _operands(subscripts, rng)
        layouts = [LAYOUTS[int(rng.integers(len(LAYOUTS)))] for _ in arrays]
        tensors = [layout(partial(tc.asarray, device=device), a) for layout, a in zip(layouts, arrays, strict=True)]
        got.append(tc.einsum(subscripts, *tensors))
        wanted.append(np.einsum(subscripts, *(a.astype(np.float64) for a in arrays)).astype(np.float32))
    await _together(got, wanted, 1e-4)


async def einsum_plans(device: Device) -> None:
    """Common forms are one product; a chain is multiplied from its small end; nothing is as large as all axes."""

    def nodes(tensor: Tensor) -> list[Any]:
        found, waiting = dict[int, Any](), [tensor.node]
        while waiting:
            node = waiting.pop()
            found[id(node)] = node
            waiting.extend(node.inputs)
        return list(found.values())

    big, small = (tc.zeros(shape, device=device) for shape in ((64, 64), (64,)))
    stack = tc.zeros((4, 2, 32, 16), device=device)
    forms: list[tuple[str, tuple[Tensor, ...], int]] = [
        ("ij,jk->ik", (big, big), 1), ("ij,kj->ki", (big, big), 1), ("bhqd,bhkd->bhqk", (stack, stack), 1),
        ("ij,jk,kl,l->i", (big, big, big, small), 3),
    ]  # fmt: skip
    for subscripts, tensors, products in forms:
        made = nodes(tc.einsum(subscripts, *tensors))
        assert [node.op.name for node in made if node.op].count("matmul") == products, subscripts
        largest = max(x.size for x in tensors) if products == 3 else 4 * 2 * 32 * 32
        assert all(np.prod(node.spec.shape) <= largest for node in made if node.op and not node.is_view), subscripts
    vectors = [node.spec.shape for node in nodes(tc.einsum("ij,jk,kl,l->i", big, big, big, small)) if node.op and node.op.name == "matmul"]  # fmt: skip # noqa: E501
    assert all(np.prod(shape) == 64 for shape in vectors), vectors  # a vector at each step


async def einsum_refuses(device: Device) -> None:
    (x,) = on(device, numbers(2, 3))
    wrong: tuple[tuple[Any, ...], ...] = (
        ("ij",), ("ij,jk", x), ("ijk", x), ("i", x), ("i1", x), ("ij->ik", x), ("ij->ii", x), ("ii", x),
        ("ij,ij->>", x, x),
        ("ij,jk", x, x), ("i.j", x), ("......", x), ("...j->j", x), (3, x), ("ij->i->j", x), ("ijk...", x), ("", x),
    )  # fmt: skip
    for given in wrong:
        refused(device, ShapeMismatch, partial(tc.einsum, *given))
    refused(device, ShapeMismatch, lambda: tc.einsum(",".join(["ij"] * 65), *[x] * 65))
    refused(device, UnsupportedDtype, lambda: tc.einsum("ij->i", x > 0))


async def distances(device: Device) -> None:
    """Each order against differences in float64; the product of many rows, far from the origin."""
    got, wanted = list[Tensor](), list[Any]()

    def right(a: Any, b: Any, p: float) -> Any:
        differences = a[..., :, None, :].astype(np.float64) - b[..., None, :, :]
        return np.linalg.vector_norm(differences, ord=p, axis=-1).astype(np.float32)

    for shapes in (((5, 3), (4, 3)), ((2, 1, 1, 7), (3, 2, 7)), ((0, 3), (2, 3)), ((1, 1), (1, 1))):
        a, b = numbers(*shapes[0]), numbers(*shapes[1], seed=1)
        x, y = on(device, a, b)
        for p in (2, 1, 0, np.inf, 3.0):
            got.append(tc.cdist(x, y, p))
            wanted.append(right(a, b, p))
    a, b = numbers(5, 7), numbers(4, 7, seed=1)
    x, y = on(device, a, b)
    with patch.object(distance, "PIECE", 60):  # three elements of the rows at a time
        for p in (2, 1, 0, np.inf, 3.0):
            got.append(tc.cdist(x, y, p))
            wanted.append(right(a, b, p))
    a, b = numbers(40, 64) + 100, numbers(30, 64, seed=1) + 100
    got.append(tc.cdist(*on(device, a, b)))
    wanted.append(right(a, b, 2))
    await _together(got, wanted, 1e-5)
    (x,) = on(device, a)
    same = await tc.cdist(x, x).read()
    assert np.abs(np.diagonal(same)).max() < 1e-3 * float(np.linalg.norm(a - a.mean(0), axis=1).max())
    for wrong in (lambda: tc.cdist(x, x[:, :3]), lambda: tc.cdist(x[0], x), lambda: tc.cdist(x, x, -1)):
        refused(device, ShapeMismatch, wrong)
    refused(device, UnsupportedDtype, lambda: tc.cdist(tc.astype(x, "int32"), tc.astype(x, "int32")))
