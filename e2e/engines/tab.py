"""One tab of an engine: functions in the page, waits for its state, and the keyboard."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from e2e.engines.protocols import Session

WAIT_SECONDS = 240  # WebKitGTK starts Python in 10 s, and in 90 on a busy machine
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "End": "\ue010", "ArrowDown": "\ue015"}
CALL = """async (text) => {{
  const [given, deadline] = JSON.parse(text);
  const call = {function};
  return JSON.stringify((await {call}) ?? null);
}}"""
UNTIL = """(async () => {
  const end = performance.now() + deadline;
  let value;
  while (!(value = await call(...given))) {
    if (performance.now() > end) throw new Error(`not within ${deadline} ms: ${document.body.innerText}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return value;
})()"""


class Tab:
    """A new tab of ``session``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._handle = session.new_tab()

    def open(self, url: str) -> Tab:
        """Load a page."""
        self._session.go(self._handle, url)
        return self

    def evaluate(self, function: str, *arguments: Any) -> Any:
        """Return the result of a JavaScript function in the page, which may be a promise. Values travel as JSON."""
        return self._call(function, "call(...given)", arguments)

    def wait(self, function: str, *arguments: Any) -> Any:
        """Wait until a JavaScript function returns a true value, and return this."""
        return self._call(function, UNTIL, arguments)

    def press(self, *keys: str) -> None:
        """Press and release keys: characters, or names of :data:`KEYS`."""
        values = [KEYS.get(key, key) for key in keys]
        strokes = [{"type": kind, "value": value} for value in values for kind in ("keyDown", "keyUp")]
        self._session.act(self._handle, [{"type": "key", "id": "keyboard", "actions": strokes}])

    def close(self) -> None:
        """Close the tab, which ends its Python."""
        self._session.close_tab(self._handle)

    def _call(self, function: str, call: str, arguments: tuple[Any, ...]) -> Any:
        text = json.dumps([arguments, WAIT_SECONDS * 1000])
        return json.loads(self._session.call(self._handle, CALL.format(function=function, call=call), text))
