"""Chat templates through ``@huggingface/jinja``; ``bridge/chat.js`` is the other half."""

from __future__ import annotations

import json
from typing import Any

from ..errors import TensorCommonsError
from .loader import load_js_module


class JsTemplate:
    """A Jinja template that JavaScript interprets over data alone."""

    def __init__(self, helper: Any, jinja: Any, template: str) -> None:
        self._helper = helper
        self._jinja = jinja
        self._template = template

    def render(self, context: dict[str, Any]) -> str:
        """The text. Raises TensorCommonsError for what the template refuses, or where it is none."""
        from pyodide.ffi import JsException

        try:
            text: str = self._helper.render(self._jinja, self._template, json.dumps(context))
        except (TypeError, ValueError) as error:
            raise TensorCommonsError(f"messages are data that JSON holds: {error}") from None
        except JsException as error:
            raise TensorCommonsError(
                f"the model's chat template does not take these messages: {error.message}"
            ) from None
        return text


async def create_template(template: str) -> JsTemplate:
    """Raises ``DeviceUnavailable`` without JavaScript."""
    jinja = await load_js_module("jinja", "vendor/jinja.mjs")
    return JsTemplate(await load_js_module("chat", "chat.js"), jinja, template)
