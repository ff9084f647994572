"""Output for people: progress for terminals and logs, and errors of one sentence."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable


class SetupError(Exception):
    """An error of one sentence: what failed, its source, and what to do."""


def say(message: str) -> None:
    """Print one line without buffering, so that a log keeps the order of events."""
    print(message, flush=True)


def megabytes(count: int) -> str:
    """Format bytes as decimal megabytes, the unit of download sizes."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def run(main: Callable[[], int]) -> NoReturn:
    """Run the main function of a command: a SetupError becomes one sentence, Ctrl-C exit code 130."""
    try:
        code = main()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = 1
    except OSError as error:  # such as a full disk or a read-only folder
        what = f"{error.filename}: {(error.strerror or str(error)).lower()}"
        print(f"error: {what}; mend that and run the same command again.", file=sys.stderr, flush=True)
        code = 1
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to go on.", file=sys.stderr, flush=True)
        code = 130
    sys.exit(code)


class Progress:
    """The progress of one download: a line that redraws itself in a terminal, a line every 5 s in a log.

    Args:
        label: name of the download.
        total: the amount, in the unit of `show`.
        show: formats an amount.
        stream: where to write; default: standard output.
    """

    TERMINAL_INTERVAL_S = 0.1
    LOG_INTERVAL_S = 5.0

    def __init__(
        self, label: str, total: int, *, show: Callable[[int], str] = megabytes, stream: TextIO | None = None
    ) -> None:
        self._label = label
        self._total = total
        self._show = show
        self._stream = sys.stdout if stream is None else stream
        self._live = self._stream.isatty()
        self._next = time.monotonic() + (0.0 if self._live else self.LOG_INTERVAL_S)
        self._done = 0

    def update(self, done: int) -> None:
        """Set the amount that has arrived; draws only as often as a reader can follow."""
        self._done = done
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (self.TERMINAL_INTERVAL_S if self._live else self.LOG_INTERVAL_S)
            self._write(end="")

    def finish(self, note: str = "") -> None:
        """Write the final line."""
        self._done = self._total
        self._write(end="\n", note=note)

    def fail(self) -> None:
        """End a partial line, so that the next message begins on its own."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _write(self, *, end: str, note: str = "") -> None:
        share = 100 * self._done // self._total if self._total else 100
        line = f"  {self._label}: {self._show(self._done)} of {self._show(self._total)} ({share} %)"
        line += f", {note}" if note else ""
        self._stream.write(f"\r\x1b[K{line}{end}" if self._live else f"{line}\n")
        self._stream.flush()
