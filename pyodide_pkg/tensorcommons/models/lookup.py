"""Prompt lookup: find tokens that may come next, so that one step can process several of them.

Texts repeat parts of their prompt: names, code, quotations. The tokens after an earlier occurrence of the last ones are
candidates, by the rule of ``PromptLookupCandidateGenerator`` in ``transformers`` 5.23. A step over them gives the
choice after each. A candidate is kept if it is the choice before it, so the tokens are those of steps without
candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .logits_process import Ids


def candidates(tokens: Ids, count: int, ends: Sequence[int] = (), size: int = 2) -> Ids:
    """Return at most ``count`` tokens that may follow ``tokens`` (width,), none if nothing matches.

    They follow the first occurrence of the last ``size`` tokens, or of as many fewer as occur before the end of
    ``tokens``. They precede the first end token.
    """
    for length in range(min(size, len(tokens) - 1), 0, -1):
        windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], length)
        matches = np.flatnonzero((windows == tokens[-length:]).all(axis=1))
        if matches.size:
            start = int(matches[0]) + length
            found = tokens[start : start + count]
            is_end = np.isin(found, ends)
            return found[: int(is_end.argmax())] if is_end.any() else found
    return tokens[:0]
