"""The cache that an argument means: this browser's storage, a folder, none, or one that is open."""

from __future__ import annotations

import asyncio
import os
from typing import TypeAlias

from ..bridge.runtime import IN_BROWSER
from ..errors import DeviceUnavailable, TensorCommonsError, quoted
from .cache import Cache
from .stores import FolderStore

CacheSpec: TypeAlias = "Cache | str | os.PathLike[str] | None"

_of_this_page: Cache | None = None
_opening = asyncio.Lock()


async def open_cache(cache: CacheSpec = "auto") -> Cache:
    """Open a cache: "auto" (this browser's storage), None (no cache), the path of a folder, or a Cache (returned).

    "auto" is one cache for the whole page. Outside a browser it is off: name a folder there.

    >>> cache = await tc.open_cache(None)
    >>> cache.is_on
    False
    """
    global _of_this_page
    if isinstance(cache, Cache):
        return cache
    if cache is None:
        return Cache(None, reason="cache=None")
    if not isinstance(cache, str | os.PathLike):
        raise TensorCommonsError(
            f'cache must be "auto", None, the path of a folder, or an open Cache, not {quoted(cache)}'
        )
    if cache != "auto":
        return Cache(FolderStore(cache))
    if not IN_BROWSER:
        return Cache(None, reason='not in a browser; pass a folder to keep files in: cache="path"')
    async with _opening:  # two at once would not have each other's files in use, nor one status
        if _of_this_page is None or not _of_this_page.is_on:
            _of_this_page = await _open_browser_cache()
        return _of_this_page


def cache_of_this_page() -> Cache | None:
    """Return what ``open_cache("auto")`` opened in this page, None before."""
    return _of_this_page


async def _open_browser_cache() -> Cache:
    from ..bridge.opfs import open_opfs

    try:
        return Cache(await open_opfs())
    except (OSError, DeviceUnavailable) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Cache(None, reason=f"this browser keeps no files for this page ({reason})")
