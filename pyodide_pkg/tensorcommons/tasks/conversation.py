"""A chat that goes on: its messages, and the answers to new ones as streams of text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from copy import deepcopy
from typing import Any, TypeAlias

from ..errors import TensorCommonsError

#: Answer a list of messages as :meth:`TextGeneration.stream` does.
Answer: TypeAlias = "Callable[..., AsyncGenerator[str, None]]"


class Conversation:
    """A chat, from ``await pipe.conversation(messages)``. ``messages`` are those so far, with the answers.

    An answer begins sooner than one to the same messages in a new chat: the keys and values of the messages before it
    are kept, and conversations with an equal prefix share them. They count under the memory limit, may be evicted
    before any weight while the model generates nothing, and are then computed again.

    >>> manager = tc.TensorSharingManager(max_memory_mb=512)
    >>> model = "./models/SmolLM2-135M-Instruct"
    >>> chat = await tc.pipeline("text-generation", model, manager=manager, dtype="float16")
    >>> conversation = await chat.conversation([{"role": "system", "content": "You answer in one sentence."}])
    >>> other = conversation.fork()
    >>> "".join([piece async for piece in conversation.send("What is the capital of France?", max_new_tokens=7)])
    'The capital of France is Paris.'
    >>> [message["role"] for message in conversation.messages], len(other.messages)
    (['system', 'user', 'assistant'], 1)
    >>> manager.close()
    """

    def __init__(
        self,
        answer: Answer,
        messages: Sequence[Mapping[str, Any]],
        template: Mapping[str, Any],
        adapter: Any = None,
    ) -> None:
        self.messages: list[dict[str, Any]] = deepcopy([dict(message) for message in messages])
        self._answer = answer
        self._template = dict(template)
        self._adapter = adapter
        self._is_answering = self._is_closed = False

    def __repr__(self) -> str:
        return f"<Conversation of {len(self.messages)} messages>"

    async def send(self, message: str | Mapping[str, Any], **options: Any) -> AsyncGenerator[str, None]:
        """Append ``message``, a text of the user or a message with a role, and yield the answer in pieces.

        ``options`` are those of ``model.generate``, except ``num_beams`` and ``num_return_sequences`` above 1 and
        ``output_logprobs``; ``adapter`` is by default that of the conversation. Closing the iterator ends the answer:
        ``messages`` then has the message and the part of the answer that was generated. If there is none yet, closing
        or an error leaves ``messages`` unchanged.

        Raises:
            TensorCommonsError: the conversation was closed, or an answer is under way.
            The errors of :meth:`~tensorcommons.Model.generate`.
        """
        if self._is_closed:
            raise TensorCommonsError(
                "the conversation was closed: begin a new one with await pipe.conversation(messages)"
            )
        if self._is_answering:
            raise TensorCommonsError("an answer is under way: read it to its end, or close its iterator, and send then")
        asked = {"role": "user", "content": message} if isinstance(message, str) else dict(message)
        self._is_answering, pieces, is_done = True, list[str](), False
        try:
            options = {"adapter": self._adapter, **options}
            async with aclosing(self._answer([*self.messages, asked], **self._template, **options)) as arriving:
                async for piece in arriving:
                    pieces.append(piece)
                    yield piece
            is_done = True
        finally:
            self._is_answering = False
            if is_done or pieces:
                self.messages += [asked, {"role": "assistant", "content": "".join(pieces)}]

    def fork(self) -> Conversation:
        """Return a conversation that goes on from the same messages on its own.

        Raises:
            TensorCommonsError: the conversation was closed, or an answer is under way.
        """
        if self._is_closed or self._is_answering:
            state = "was closed" if self._is_closed else "is being answered"
            raise TensorCommonsError(f"the conversation {state}, so it cannot be forked")
        return Conversation(self._answer, self.messages, self._template, self._adapter)

    def close(self) -> None:
        """End the conversation: :meth:`send` and :meth:`fork` raise from now on. Safe to call twice.

        It frees no memory by itself.
        """
        self._is_closed = True
