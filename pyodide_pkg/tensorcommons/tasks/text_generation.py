"""The pipelines of text generation: from a text or a chat to text, at once or streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np

from ..errors import TensorCommonsError, check_listener, quoted
from ..hub.text_stream import TextStream
from ..hub.tokenizer import Tokenizer
from .base import several, tokenizer_of
from .conversation import Conversation
from .pipeline import Pipeline

#: The key of a result, by task.
TASKS = {
    "text-generation": "generated_text",
    "text2text-generation": "generated_text",
    "summarization": "summary_text",
}


#: Options for the template that converts a chat to a prompt; all others are options of generation.
TEMPLATE_OPTIONS = ("continue_final_message", "tools", "documents", "chat_template", "tokenizer_encode_kwargs")


class TextGeneration(Pipeline):
    """A pipeline of text generation: ``await pipe(prompt)``, or ``async for piece in pipe.stream(prompt)``.

    A prompt is a text, or a chat: a list of ``{"role": "user", "content": "Hello"}``. If the last message of a chat is
    the assistant's, it is continued; otherwise a new message answers it. ``continue_final_message`` overrides this.
    ``tools``, ``documents`` and ``chat_template`` are passed to the chat template, as are all entries of the object
    ``tokenizer_encode_kwargs`` (``{"enable_thinking": False}``).

    >>> manager = tc.TensorSharingManager(max_memory_mb=512)
    >>> model = "./models/SmolLM2-135M-Instruct"
    >>> chat = await tc.pipeline("text-generation", model, manager=manager, dtype="float16")
    >>> await chat("The capital of France is", max_new_tokens=2)
    [{'generated_text': 'The capital of France is Paris.'}]
    >>> messages = [{"role": "user", "content": "What is the capital of France?"}]
    >>> "".join([piece async for piece in chat.stream(messages, max_new_tokens=7)])
    'The capital of France is Paris.'
    >>> manager.close()
    """

    async def __call__(
        self,
        texts: Any,
        *,
        return_full_text: bool = True,
        on_text: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Any:
        """Return ``[{"generated_text": ...}]`` as `transformers` does; for a list of prompts, a list of these.

        The key of a summary is "summary_text". A list of texts to summarize returns one list of all summaries, unless
        ``num_return_sequences`` is above 1.

        The text begins with the prompt unless ``return_full_text`` is False or the model is an encoder-decoder. For a
        chat it is the messages with the answer appended, or with the last message continued. ``options`` are those of
        ``model.generate`` and of the chat template (see the class). With ``num_return_sequences`` n each prompt has n
        results. ``on_text`` gets the answer to a single prompt piece by piece. With ``output_logprobs`` a result has
        "logprobs": the logarithm of the probability of each new token, up to the end of the text.

        Raises:
            TensorCommonsError: a prompt is neither a text nor a chat, or an option is unknown.
        """
        check_listener("on_text", on_text)
        single = isinstance(texts, str) or is_chat(texts)
        prompts = [texts] if single else several(texts)
        if not prompts:
            return []
        if on_text is not None:
            if not single:
                raise TensorCommonsError(f"on_text needs a single prompt, not a list of {len(prompts)}")
            pieces = []
            async with aclosing(self.stream(texts, **options)) as arriving:
                async for piece in arriving:
                    pieces.append(piece)
                    on_text(piece)
            chat, _ = _split(options)
            return [self._shown(texts, "".join(pieces), full=return_full_text, chat=chat)]
        chat, options = _split(options)
        rows = [self._ids(prompt, chat) for prompt in prompts]
        ids, mask = self._batch(rows)
        written = await self.model.generate(ids, mask, **options)
        logprobs = None
        if options.get("output_logprobs"):
            written, logprobs = written
        each, shown = len(written) // len(rows), []
        for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
            results = []
            for place in range(number * each, (number + 1) * each):
                tokens = written[place].tolist()
                text = self._new_text(row, tokens[1:] if self._answers else tokens[ids.shape[1] :])
                result = self._shown(prompt, text, full=return_full_text, chat=chat)
                if logprobs is not None:
                    result["logprobs"] = logprobs[place][~np.isnan(logprobs[place])].tolist()
                results.append(result)
            shown.append(results)
        if self.task == "summarization" and not single and each == 1:
            return [results[0] for results in shown]
        return shown[0] if single else shown

    async def stream(self, prompt: Any, **options: Any) -> AsyncGenerator[str, None]:
        """Yield the answer to one prompt in pieces of whole characters. Closing the iterator ends the generation."""
        chat, options = _split(options)
        if (sequences := options.get("num_return_sequences")) not in (None, 1):
            raise TensorCommonsError(
                f"num_return_sequences must be 1 for stream() and on_text, not {quoted(sequences)}"
            )
        if options.get("output_logprobs"):
            raise TensorCommonsError(
                "stream() and on_text give text only: call the pipeline without on_text for output_logprobs, "
                "or use model.stream()"
            )
        row = self._ids(prompt, chat)
        text = TextStream(self._tokenizer, [] if self._answers else row)
        steps: Any = self.model.stream([row], **options)
        try:
            async for tokens in steps:
                piece = text.push(int(tokens[0]))
                if piece:
                    yield piece
            if rest := text.end():
                yield rest
        finally:
            await steps.aclose()

    async def conversation(
        self, messages: Sequence[Mapping[str, Any]] = (), *, adapter: Any = None, **template: Any
    ) -> Conversation:
        """Begin a chat after ``messages``, whose keys and values are computed now; see :class:`Conversation`.

        ``adapter`` is the name of the adapter that answers; None is the base. ``template`` are options of the chat
        template for every message (``tools``, ``documents`` and so on).

        Raises:
            TensorCommonsError: a message has no role or content, the model has no chat template, the task is not
                text-generation, or an option is unknown.
            ShapeMismatch: the messages leave no room for an answer.
            MemoryBudgetError: keys and values do not fit beside the model.

        >>> manager = tc.TensorSharingManager(max_memory_mb=512)
        >>> model = "./models/SmolLM2-135M-Instruct"
        >>> chat = await tc.pipeline("text-generation", model, manager=manager, dtype="float16")
        >>> conversation = await chat.conversation()
        >>> "".join([piece async for piece in conversation.send("What is the capital of France?", max_new_tokens=7)])
        'The capital of France is Paris.'
        >>> manager.close()
        """
        if unknown := template.keys() - set(TEMPLATE_OPTIONS):
            raise TensorCommonsError(f"{quoted(min(unknown))} is not an option of a chat template")
        if self._answers:
            raise TensorCommonsError(f"{self.task} answers single texts: a conversation needs text-generation")
        begun = [dict(message) for message in messages]
        if begun:
            chat = {**template, "continue_final_message": False}
            text = self._rendered(begun, chat, prompts=False)
            await self.model.prefill([self._encoded(text)], adapter=adapter)
        return Conversation(self.stream, begun, template, adapter)

    @property
    def _answers(self) -> bool:
        """True if the model answers the prompt instead of continuing it."""
        return self.task != "text-generation"

    @property
    def _tokenizer(self) -> Tokenizer:
        return tokenizer_of(self.model)

    def _ids(self, prompt: Any, chat: Mapping[str, Any]) -> list[int]:
        if not (isinstance(prompt, str) or is_chat(prompt)):
            raise TensorCommonsError(f"a prompt must be a text or a list of messages, not {quoted(prompt)}")
        is_text = isinstance(prompt, str)
        ids = self._encoded(prompt if is_text else self._rendered(prompt, chat), is_text=is_text)
        if not ids:
            raise TensorCommonsError(f"the prompt {quoted(prompt)} has no tokens: pass a text of at least one token")
        return ids

    def _encoded(self, text: str, *, is_text: bool = False) -> list[int]:
        encoding = self._tokenizer.encode_batch([text], truncation=False, add_special_tokens=is_text)
        ids: list[int] = encoding.input_ids[0].tolist()
        return ids

    def _rendered(self, messages: Sequence[Mapping[str, Any]], chat: Mapping[str, Any], *, prompts: bool = True) -> str:
        """Convert a chat to a prompt, which asks for an answer if it ``prompts`` and the last message is not continued.

        Raises TensorCommonsError for a message without a role or content.
        """
        for message in messages:
            if not ("role" in message and "content" in message):
                raise TensorCommonsError(f"a message must have a role and a content (or None), not {quoted(message)}")
        more = chat.get("tokenizer_encode_kwargs") or {}
        if not isinstance(more, Mapping) or not all(isinstance(name, str) for name in more):
            raise TensorCommonsError(f"tokenizer_encode_kwargs must map names to values, not {quoted(more)}")
        given = {name: value for name, value in chat.items() if name != "tokenizer_encode_kwargs"}
        given["continue_final_message"] = _continues(messages, chat)
        given["add_generation_prompt"] = prompts and not given["continue_final_message"]
        if twice := given.keys() & more.keys():
            raise TensorCommonsError(
                f"pass {', '.join(sorted(twice))} as an option of the call, not in tokenizer_encode_kwargs"
            )
        return self._tokenizer.apply_chat_template(messages, **given, **more)

    def _batch(self, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """Return the rows as one array, and its mask: padded on the left, or on the right for an encoder."""
        width = max(len(row) for row in rows)
        ids, mask = (np.zeros((len(rows), width), np.int32) for _ in range(2))
        ids[:] = self._tokenizer.pad_id
        for number, row in enumerate(rows):
            place = slice(len(row)) if self._answers else slice(width - len(row), None)
            ids[number, place], mask[number, place] = row, 1
        return ids, mask

    def _new_text(self, row: Sequence[int], new: Sequence[int]) -> str:
        """Decode ``new`` after ``row``, since a leading space may depend on the tokens before it."""
        before = [] if self._answers else list(row)
        start = len(self._tokenizer.decode(before)) if before else 0
        return self._tokenizer.decode([*before, *new])[start:]

    def _shown(self, prompt: Any, text: str, *, full: bool, chat: Mapping[str, Any]) -> dict[str, Any]:
        if self._answers or not full:
            return {TASKS[self.task]: text}
        if isinstance(prompt, str):
            return {"generated_text": prompt + text}
        if _continues(prompt, chat):
            last = prompt[-1]
            if not isinstance(last["content"], str):
                raise TensorCommonsError(
                    "the content of the last message is not a text: pass return_full_text=False to continue it"
                )
            return {"generated_text": [*prompt[:-1], {"role": last["role"], "content": last["content"] + text}]}
        return {"generated_text": [*prompt, {"role": "assistant", "content": text}]}


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split options into those of the chat template that are not None, and those of generation."""
    chat = {name: options[name] for name in TEMPLATE_OPTIONS if options.get(name) is not None}
    return chat, {name: value for name, value in options.items() if name not in TEMPLATE_OPTIONS}


def _continues(messages: Sequence[Mapping[str, Any]], chat: Mapping[str, Any]) -> Any:
    """Return True (or the name of a field) if the last message is continued, not answered."""
    return chat.get("continue_final_message", messages[-1]["role"] == "assistant")


def is_chat(value: Any) -> bool:
    """Return whether ``value`` is a list of messages."""
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(each, Mapping) for each in value)
