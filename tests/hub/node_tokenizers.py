"""Tokenizers under CPython: their JavaScript runs in one Node process."""

from __future__ import annotations

import json
import subprocess
import tempfile
import weakref
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from scripts.paths import PACKAGE, ROOT
from tensorcommons.bridge import tokenizers
from tensorcommons.hub.encoding import unpack
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.tokenizer import Tokenizer


class Host:
    """A Node process that runs tokenizers."""

    def __init__(self) -> None:
        script, module = ROOT / "tests" / "hub" / "tokenizer_host.mjs", PACKAGE / "bridge" / "tokenizer.js"
        command = ["node", str(script), str(module)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.calls = 0
        weakref.finalize(self, _end, self.process)

    def ask(self, file: str, *request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.calls += 1
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "name" in answer:
            raise tokenizers.error_of(answer["name"], answer["message"], file)
        return answer["value"]


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


@cache
def host() -> Host:
    """Return the process of this test run."""
    return Host()


class NodeEngine:
    """``Engine`` in the Node process."""

    def __init__(self, raw: bytes, changes: str, file: str) -> None:
        self.file = file
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tokenizer.json"
            path.write_bytes(raw)
            self.number, self.info = host().ask(file, "create", str(path), changes)
        weakref.finalize(self, host().ask, file, "close", self.number).atexit = False

    def ask(self, name: str, *given: Any) -> Any:
        return host().ask(self.file, name, self.number, *given)

    def add(self, tokens: list[dict[str, Any]], file: str) -> None:
        self.ask("addTokens", json.dumps(tokens), file)

    def encode(self, texts: list[str], pairs: list[str] | None, options: dict[str, Any]) -> Any:
        packed = self.ask("encodeBatch", json.dumps(texts), json.dumps(pairs), json.dumps(options))
        return np.array(packed, np.int32)

    def tokens(self, ids: list[int]) -> list[str | None]:
        found: list[str | None] = json.loads(self.ask("tokensOf", json.dumps(ids)))
        return found

    def ids(self, tokens: list[str]) -> list[int | None]:
        found: list[int | None] = json.loads(self.ask("idsOf", json.dumps(tokens)))
        return found

    def decode(self, rows: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
        texts: list[str] = json.loads(self.ask("decodeBatch", json.dumps(rows), skip_special_tokens))
        return texts

    def join(self, rows: list[list[str]]) -> list[str]:
        texts: list[str] = json.loads(self.ask("joinTokens", json.dumps(rows)))
        return texts


def answers_of(engine: NodeEngine, texts: list[str]) -> tuple[Any, list[list[str]]]:
    """Compute the results that scripts/tokenizer_goldens.py stores for these texts."""
    options = {"limit": None, "left": False, "overlap": None, "special": True}
    inputs = [rows for *_, rows in unpack(engine.encode(texts, None, options))] if texts else []
    answers = [np.concatenate([[rows.shape[1]], rows[[0, 3, 4, 5]].reshape(-1)]) for rows in inputs]
    ids = [rows[0].tolist() for rows in inputs]
    decoded = zip(*(engine.decode(ids, skip_special_tokens=skip) for skip in (True, False)), strict=True)
    return np.concatenate(answers).astype(np.int32), [list(pair) for pair in decoded]


async def create_tokenizer(raw: bytes, changes: str, file: str) -> NodeEngine:
    """Replacement of ``bridge.tokenizers.create_tokenizer``."""
    return NodeEngine(raw, changes, file)


@contextmanager
def in_node():
    """Run tokenizers in Node within the block."""
    real = tokenizers.create_tokenizer
    tokenizers.create_tokenizer = create_tokenizer  # type: ignore[assignment]
    try:
        yield
    finally:
        tokenizers.create_tokenizer = real


async def tokenizer_of(source: Any, shared: Any = None) -> Tokenizer:
    """Load the tokenizer of a folder, or of files by name."""
    with in_node():
        return await Tokenizer.from_source(open_source(source), shared=shared)
