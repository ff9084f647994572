"""The page's Python side: which models are loaded, what they cost, and a function for each panel.

A package of the page's runtime (tensorcommons.mjs, importPython). The page calls the functions below by name. Those of
panels take a request, a dict, and pass parts of their result to ``send`` before its end.
"""

from __future__ import annotations

from .chat import chat
from .images import alike, image
from .own import own
from .pair import pair
from .search import search
from .sentences import sentences
from .session import cost, limits, load, move, pin, start, unload

__all__ = [
    "alike",
    "chat",
    "cost",
    "image",
    "limits",
    "load",
    "move",
    "own",
    "pair",
    "pin",
    "search",
    "sentences",
    "start",
    "unload",
]
