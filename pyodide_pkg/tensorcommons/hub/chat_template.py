"""Chat templates: from messages to the prompt that a model was trained with, as ``transformers`` renders it.

A model comes with one template or several by name. A template gets plain data, rebuilt from the messages;
``template_sandbox.py`` renders it, within bounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import InvalidWeights, TensorCommonsError, quoted, shown

REASONING = ("reasoning_content", "thinking", "reasoning")  # a message's names for it; the first is the standard one
TAG = "CONTINUE_FINAL_MESSAGE_TAG "
OLDEST_JINJA = (3, 1, 6)  # older ones have known ways out of the sandbox


class ChatTemplate:
    """The templates of a model: ``templates`` by name, one of which may be called "default"."""

    def __init__(self, templates: Mapping[str, str]) -> None:
        self.templates = dict(templates)

    @classmethod
    def of(cls, stated: object, file: str) -> ChatTemplate | None:
        """Read a ``chat_template`` field: a string, or a list or object of named templates.

        Raises:
            InvalidWeights: it is something else.
        """
        if stated is None:
            return None
        if isinstance(stated, str):
            return cls({"default": stated})
        named = stated
        if isinstance(stated, list):
            if not all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in stated):
                raise InvalidWeights(file, "chat_template must be a list of objects with a name and a template")
            named = {each["name"]: each.get("template") for each in stated}
        if not isinstance(named, Mapping) or not all(isinstance(each, str) for each in named.values()):
            raise InvalidWeights(file, f"chat_template must be a string or named strings, not {type(stated).__name__}")
        return cls(named)

    def source(self, chosen: object = None, *, with_tools: bool = False) -> str:
        """Return the text of a template: by its name, the one for tools, or the default. ``chosen`` may be a text.

        Raises:
            TensorCommonsError: there are several and no default, or ``chosen`` is not a string.
        """
        if chosen is not None:
            if not isinstance(chosen, str):
                raise TensorCommonsError(f"chat_template must be a template or the name of one, not {quoted(chosen)}")
            return self.templates.get(chosen, chosen)
        name = "tool_use" if with_tools and "tool_use" in self.templates else "default"
        if name not in self.templates:
            known = shown(", ".join(sorted(self.templates)))
            raise TensorCommonsError(f"this model has several chat templates: pass chat_template= one of {known}")
        return self.templates[name]

    def render(
        self,
        messages: object,
        *,
        tools: object = None,
        documents: object = None,
        chat_template: object = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | str = False,
        **values: Any,
    ) -> str:
        """See :meth:`Tokenizer.apply_chat_template`."""
        try:
            chat = _normalized(messages)
            context = _plain({**values, "tools": _tools(tools), "documents": _documents(documents)})
        except RecursionError:
            raise TensorCommonsError("messages, tools and documents must be data without cycles") from None
        source = self.source(chat_template, with_tools=tools is not None)
        if add_generation_prompt is None:
            add_generation_prompt = not continue_final_message
        if continue_final_message and add_generation_prompt:
            raise TensorCommonsError("continue_final_message and add_generation_prompt exclude each other")
        if not continue_final_message:
            return _rendered(source, {**context, "messages": chat, "add_generation_prompt": add_generation_prompt})
        field = continue_final_message if isinstance(continue_final_message, str) else "content"
        last = _tag(chat[-1], field, source)
        text = _rendered(source, {**context, "messages": chat, "add_generation_prompt": False})
        if last.strip() not in text or TAG.strip() not in text:
            raise TensorCommonsError(
                "the model's chat template leaves out part of the last message, so it cannot be continued: "
                "pass continue_final_message=False"
            )
        place = text.rindex(TAG.strip())
        kept = text[:place]
        return kept if text[place : place + len(TAG)] == TAG else kept.rstrip()  # trimmed if the template trims


def _normalized(messages: object) -> list[dict[str, Any]]:
    """Return the messages as plain objects, without fields that are None, and with reasoning under all of its names."""
    given = _plain(getattr(messages, "messages", messages))
    if not isinstance(given, (list, tuple)) or not given or not all(isinstance(each, dict) for each in given):
        raise TensorCommonsError(
            f'messages are a list of objects like {{"role": "user", "content": "Hello"}}, not {quoted(messages)}'
        )
    chat = []
    for each in given:
        message = {name: value for name, value in each.items() if value is not None}
        reasoning = next((message[name] for name in REASONING if name in message), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        chat.append(message)
    return chat


def _tools(tools: object) -> list[Any] | None:
    if tools is None:
        return None
    if not isinstance(tools, (list, tuple)) or not all(isinstance(tool, Mapping) for tool in tools):
        raise TensorCommonsError(f"tools must be a list of JSON schemas, not {quoted(tools)}")
    return list(tools)


def _documents(documents: object) -> list[Any] | None:
    if documents is None:
        return None
    if not isinstance(documents, (list, tuple)) or not all(isinstance(each, Mapping) for each in documents):
        raise TensorCommonsError(f'documents must be a list of {{"title": ..., "text": ...}}, not {quoted(documents)}')
    return list(documents)


def _plain(value: Any) -> Any:
    """Rebuild ``value`` from JSON's types. Anything else (images, arrays) becomes the name of its type."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):  # a subclass may have more methods
            return kind.__str__(value) if kind is str else getattr(kind, f"__{kind.__name__}__")(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(each) for each in value) if type(value) in (list, tuple) else list(map(_plain, value))
    if isinstance(value, np.generic):
        return _plain(value.item())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):  # a message of a client library
        return _plain(dump())
    return f"<{type(value).__name__}>"


def _tag(message: dict[str, Any], field: str, source: str) -> str:
    """Put a tag behind the text of ``field`` that is to be continued, and return the text.

    Raises:
        TensorCommonsError: the chat has no such text, or the template does not read the field.
    """
    value = message.get(field)
    same = [name for name in REASONING if message.get(name) == value] if field in REASONING else [field]
    if value is None or not any(name in source for name in same):
        reader = "last message" if value is None else "chat template"
        raise TensorCommonsError(f"the {reader} has no {shown(field)} to continue: pass continue_final_message=False")
    if isinstance(value, (list, tuple)):
        for block in reversed(value):
            if isinstance(block, dict) and isinstance(block.get("text"), str):
                text: str = block["text"]
                block["text"] += TAG
                return text
        raise TensorCommonsError("the last message has no text to continue: pass continue_final_message=False")
    if not isinstance(value, str):
        raise TensorCommonsError(
            f"the last message's {shown(field)} must be a string to be continued, not {quoted(value)}"
        )
    for name in same:
        message[name] = value + TAG
    return value


def _rendered(source: str, values: dict[str, Any]) -> str:
    render, too_much = _sandbox()
    try:
        return render(source, values)
    except too_much as error:
        raise TensorCommonsError(f"the model's chat template {error}: it was stopped") from None
    except RecursionError:
        raise TensorCommonsError("the model's chat template nests too deeply: it was stopped") from None
    except Exception as error:  # an untrusted template may raise anything
        reason = shown(" ".join(str(error).split()))
        raise TensorCommonsError(
            f"the model's chat template does not take these messages: {type(error).__name__}: {reason}"
        ) from None


def _sandbox() -> tuple[Callable[[str, Mapping[str, Any]], str], type[Exception]]:
    """Import the renderer, at its first use."""
    try:
        import jinja2
    except ImportError:
        raise TensorCommonsError(
            'chat templates need jinja2 3.1.6 or newer: await pyodide_js.loadPackage("jinja2"), or pip install jinja2'
        ) from None
    version = tuple(int(part) for part in jinja2.__version__.split(".")[:3] if part.isdigit())
    if version < OLDEST_JINJA:
        raise TensorCommonsError(
            f"jinja2 {jinja2.__version__} has known ways out of its sandbox: install 3.1.6 or newer"
        )
    from .template_sandbox import TooMuch, render

    return render, TooMuch


def texts_of(files: Mapping[str, bytes], file: str) -> dict[str, str]:
    """Return the templates of files, given as name: contents, by name.

    Raises:
        InvalidWeights: one is not UTF-8.
    """
    found = {}
    for name, raw in files.items():
        try:
            found[name] = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidWeights(file, f"the chat_template {shown(name)} is not UTF-8 (byte {error.start:,})") from None
    return found
