"""A scenario that shows what sharing is, on real bytes: two text models, two vision models, one tab, one manager."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..bridge.runtime import run_now
from .compatibility import get_compatible_models_for_tensor
from .manager import TensorSharingManager

TOKENS, HIDDEN, PATCHES = 16, 768, 197


def create_tensor_sharing_demo() -> dict[str, Any]:
    """Register, share, view, write, release and free tensors on the CPU device; return a report of the steps.

    The dict has "steps" (their descriptions, in order), "results" (values that were checked), the reports before and
    after the clean-up, and the analysis in between; all of it can be written as JSON.

    >>> demo = tc.create_tensor_sharing_demo()
    >>> "steps" in demo and "results" in demo
    True
    """
    rng = np.random.default_rng(0)
    text = rng.standard_normal((TOKENS, HIDDEN)).astype(np.float32)
    image = rng.standard_normal((PATCHES, HIDDEN)).astype(np.float32)
    manager = TensorSharingManager(max_memory_mb=16)
    steps: list[str] = []

    embedding = manager.register_shared_tensor(
        "bert_embedding", text.shape, "cpu", "bert-base-uncased", ["t5-small", "distilbert-base"], data=text
    )
    steps.append(f"bert-base-uncased registered {embedding.name}, {embedding.nbytes:,} bytes, and holds it")
    patches = manager.register_shared_tensor(
        "vit_embedding", image.shape, "cpu", "vit-base", ["clip-vit-base"], data=image
    )
    steps.append(f"vit-base registered {patches.name}, {patches.nbytes:,} bytes, and holds it")

    shared = manager.get_shared_tensor("bert_embedding", "t5-small")
    assert shared is embedding
    steps.append(f"t5-small acquired bert_embedding: {embedding.reference_count} holders of one buffer")
    manager.share_tensor_between_models("bert_embedding", "bert-base-uncased", ["gpt2"])
    manager.get_shared_tensor("bert_embedding", "gpt2")
    steps.append("bert-base-uncased granted it to gpt2, which acquired it")

    half = manager.create_tensor_view(
        "bert_embedding", "bert_embedding_half", (0, 0), (TOKENS, HIDDEN // 2), "distilbert-base"
    )
    view_is_exact = bool((run_now(half.read()) == text[:, : HIDDEN // 2]).all())
    steps.append(f"distilbert-base holds a view of half of it, with {half.get_memory_usage()} bytes of its own")

    twin = manager.register_shared_tensor("cls_copy", text.shape, "cpu", "roberta-base", data=text)
    same_bytes = twin.entry is embedding.entry
    steps.append("roberta-base registered the same content under another name: the same buffer")
    run_now(twin.write(text * 2))
    write_stayed_apart = bool((run_now(embedding.read()) == text).all())
    steps.append("roberta-base wrote its own: it has a buffer of its own from then on")

    analysis = manager.analyze_sharing_opportunities()
    before = manager.report().to_dict()
    released = {name: manager.release_model_tensors(name) for name in ("t5-small", "gpt2", "roberta-base", "vit-base")}
    steps.append(f"t5-small, gpt2, roberta-base and vit-base released {sum(released.values())} holds")
    waits = not patches.can_be_freed()
    steps.append("nobody holds vit_embedding, and it stays: clip-vit-base is listed and has not had its turn")
    manager.get_shared_tensor("vit_embedding", "clip-vit-base")
    released["clip-vit-base"] = manager.release_model_tensors("clip-vit-base")
    steps.append("clip-vit-base acquired vit_embedding and released it")
    freed = manager.optimize_memory_usage()
    steps.append(f"the clean-up freed {', '.join(freed['freed_tensors'])}: {freed['freed_memory_bytes']:,} bytes")
    return {
        "steps": steps,
        "results": {
            "view_is_exact": view_is_exact,
            "same_content_is_one_buffer": same_bytes,
            "a_write_stays_apart": write_stayed_apart,
            "a_tensor_waits_for_its_consumers": waits,
            "compatible_with_text_embedding": get_compatible_models_for_tensor("text_embedding"),
        },
        "analysis": analysis,
        "report_before": before,
        "released": released,
        "optimization": freed,
        "report_after": manager.report().to_dict(),
    }
