"""Reading of whole tensors, for comparisons."""

from __future__ import annotations

from tensorcommons.bridge.digest import joined
from tensorcommons.hub.safetensors import TensorEntry
from tensorcommons.hub.weights import WeightsFile, label_of


async def read_tensor(weights: WeightsFile, entry: TensorEntry) -> bytes:
    """Read the bytes of a tensor, chunk by chunk."""
    data, digests = b"", b""
    for run in weights.runs(weights.chunks(entry)):
        for block, some in await weights.read(run):
            data, digests = data + bytes(block), digests + some
    weights.finish(entry, joined(digests, label_of(entry)))
    return data
