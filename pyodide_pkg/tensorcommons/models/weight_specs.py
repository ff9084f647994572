"""The format of each weight of a model: that of its file, or the one that ``dtype`` asks for.

The result does not depend on a device: one that does not store a block format widens such weights to float32
(``Device.stored_as``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import dtypes
from ..backends.base import Spec
from ..dtypes import DType
from ..errors import UnsupportedDtype, quoted
from ..formats import BLOCKS, BY_OPTION
from ..nn import Manifest
from .weight_loader import Shard

DTYPES = (None, "float32", "float16", "int8", "int4")  # the options of dtype, without their short names


def check_dtype(dtype: object) -> None:
    """Raise UnsupportedDtype unless ``dtype`` is an option of ``from_pretrained``."""
    if dtype not in (None, *BY_OPTION):
        raise UnsupportedDtype(f"dtype must be {', '.join(BY_OPTION)} or None, not {quoted(dtype)}")


def checked_cache_dtype(dtype: object) -> DType:
    """Return the dtype of keys and values for an option of ``from_pretrained``; UnsupportedDtype if it has no such."""
    if dtype is None:
        return dtypes.float32
    kinds = {name: form for name, form in BY_OPTION.items() if form in ("float32", "float16")}
    if not isinstance(dtype, str) or dtype not in kinds:
        raise UnsupportedDtype(f"cache_dtype must be {', '.join(kinds)} or None, not {quoted(dtype)}")
    return dtypes.ALL[kinds[dtype]]


def formats_of(shards: Sequence[Shard]) -> dict[str, str]:
    """Return the type in the files of each parameter, in lower case: "f16", or a block format such as "q4_k"."""
    return {shard.wanted[entry.name]: entry.dtype.lower() for shard in shards for entry in shard.entries}


def specs_of(manifest: Manifest, formats: Mapping[str, str], dtype: str | None) -> dict[str, Spec]:
    """Return the spec of each parameter, of ``formats`` in the files, for the option ``dtype``.

    None keeps the blocks of matrices and tables, and makes everything else float32. "int4" is Q4_0, and Q8_0 for tables
    of tokens and the output head, a matrix of such a table's shape: llama.cpp keeps the head at a higher precision,
    too, because errors in it reach the scores at once.
    """
    tables = {param.shape for param in manifest.values() if param.role == "table"}

    def format_of(name: str) -> str:
        if dtype is None:
            return formats[name] if formats[name] in BLOCKS else "float32"
        form = BY_OPTION[dtype]
        return "q8_0" if form == "q4_0" and manifest[name].shape in tables else form

    return {name: param.spec(format_of(name)) for name, param in manifest.items()}
