"""Pipelines of generation with SmolLM2's tokenizer and chat template over a tiny model; they need JavaScript."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorcommons as tc
from tensorcommons.errors import ShapeMismatch, TensorCommonsError, UnsupportedModel
from tensorcommons.hub.sources import open_source
from tests.cases import Place, only, shows
from tests.cases.seeded import checkpoint
from tests.cases.support import raises

SMOLLM2 = "SmolLM2-135M-Instruct"
FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


async def _pipe(place: Place, **options: Any) -> Any:
    source = open_source(f"{place.models}/{SMOLLM2}")
    files = {name: await source.read(name) for name in FILES}
    model = checkpoint(place, "tiny-llama", vocab_size=49152, max_position_embeddings=300)
    return await tc.pipeline("text-generation", {**model, **files}, manager=place.manager(), device="webgpu", **options)


@only("webgpu")
async def text_goes_on_in_pieces_that_add_up(place: Place) -> None:
    pipe = await _pipe(place)
    prompt = "Once upon a time"
    (whole,) = await pipe(prompt, max_new_tokens=12)
    text = whole["generated_text"]
    assert text.startswith(prompt) and len(text) > len(prompt)
    pieces = [piece async for piece in pipe.stream(prompt, max_new_tokens=12)]
    assert prompt + "".join(pieces) == text and len(pieces) > 1
    heard: list[str] = []
    (alone,) = await pipe(prompt, max_new_tokens=12, return_full_text=False, on_text=heard.append)
    assert alone["generated_text"] == text[len(prompt) :] and heard == pieces
    async for _ in pipe.stream(prompt, max_new_tokens=200):
        break
    many = await pipe([prompt, "A", prompt], max_new_tokens=12)
    assert [row[0]["generated_text"] for row in many][::2] == [text, text]
    assert (await pipe("A", max_new_tokens=12)) == many[1]
    stop = pieces[2]
    (stopped,) = await pipe(prompt, max_new_tokens=12, stop_strings=[stop])
    assert stopped["generated_text"].endswith(stop) and text.startswith(stopped["generated_text"])
    assert await pipe([]) == []
    pipe.close()


@shows("SmolLM2-135M-Instruct", "chat template", "smollm2.json")
@only("webgpu")
async def chats_are_written_by_the_template_of_the_model(place: Place) -> None:
    goldens = json.loads((Path(place.goldens) / "smollm2.json").read_text())
    pipe = await _pipe(place)
    for chat in goldens["chats"]:
        assert pipe.model.tokenizer.apply_chat_template(chat["messages"]) == chat["prompt"]
        bare = pipe.model.tokenizer.apply_chat_template(chat["messages"], add_generation_prompt=False)
        assert bare == chat["without"]
    messages = goldens["chats"][0]["messages"]
    (answer,) = await pipe(messages, max_new_tokens=5)
    said = answer["generated_text"]
    assert said[:-1] == messages and said[-1]["role"] == "assistant" and len(messages) == 1
    pieces = [piece async for piece in pipe.stream(messages, max_new_tokens=5)]
    assert "".join(pieces) == said[-1]["content"]
    begun = [*messages, {"role": "assistant", "content": "It is "}]
    for continued in (begun, [*messages, {"role": "critic", "content": "It is "}]):
        more = {} if continued is begun else {"continue_final_message": True}
        (answer,) = await pipe(continued, max_new_tokens=5, **more)
        said = answer["generated_text"]
        assert len(said) == len(continued) and said[:-1] == messages and said[-1]["role"] == continued[-1]["role"]
        pieces = [piece async for piece in pipe.stream(continued, max_new_tokens=5, **more)]
        assert said[-1]["content"] == "It is " + "".join(pieces)
    prompt = pipe.model.tokenizer.apply_chat_template(begun, continue_final_message=True)
    assert prompt.endswith("assistant\nIt is ")
    (answered,) = await pipe(begun, max_new_tokens=5, continue_final_message=False)
    assert answered["generated_text"][:-1] == begun
    seen = "{{ messages[0].content }}|{{ tools | tojson }}|{{ documents[0].text }}|{{ mood }}|"
    options = {"tools": [{"name": "f", "x": 1.0}], "documents": [{"title": "t", "text": "d"}], "max_new_tokens": 3}
    chosen = {"chat_template": seen, "tokenizer_encode_kwargs": {"mood": "good"}}
    (templated,) = await pipe(messages, **options, **chosen, return_full_text=False)
    text = messages[0]["content"] + '|[{"name": "f", "x": 1.0}]|d|good|'
    (plain,) = await pipe(text, max_new_tokens=3, return_full_text=False)
    assert templated == plain
    drawn: dict[str, Any] = {"do_sample": True, "seed": 1, "max_new_tokens": 3, "num_return_sequences": 2}
    three = await pipe([messages, "A"], **drawn)
    assert [len(each) for each in three] == [2, 2] and isinstance(three[0][1]["generated_text"], list)
    await raises(TensorCommonsError, pipe("A", on_text=print, **drawn), "num_return_sequences")
    ((known, _), _) = await pipe([messages, "A"], **drawn, output_logprobs=True)
    assert known.pop("logprobs")[0] < 0 and known == three[0][0]
    await raises(TensorCommonsError, pipe("A", on_text=print, output_logprobs=True), "output_logprobs")
    await raises(TensorCommonsError, pipe(messages, tools=5), "tools")
    await raises(TensorCommonsError, pipe(messages, tokenizer_encode_kwargs=5), "tokenizer_encode_kwargs")
    await raises(TensorCommonsError, pipe(messages, chat_template="{% for %}"), "template")
    await raises(TensorCommonsError, pipe([{"role": "user"}]), "content")
    await raises(TensorCommonsError, pipe([{"content": "no role"}]), "role")
    await raises(TensorCommonsError, pipe([5]), "prompt")
    for wrong in (None, 5, b"a", messages[0]):
        await raises(TensorCommonsError, pipe(wrong, max_new_tokens=1), "list")
    await raises(ShapeMismatch, pipe("a " * 3000), "3001", "300")
    await raises(TensorCommonsError, pipe(""), "prompt")
    await raises(TensorCommonsError, pipe("a", nonsense=1), "nonsense")
    await raises(TensorCommonsError, tc.run_pipelines([(pipe, "a")]), "together")
    await raises(UnsupportedModel, tc.pipeline("text2text-generation", pipe.model, manager=pipe.model.manager))
    pipe.close()


@shows("t5", "from text to text", "tiny-t5-text")
@only("webgpu", "webnn")
async def t5_answers_from_text_to_text(place: Place) -> None:
    golden = json.loads((Path(place.goldens) / "tiny-t5-text" / "answers.json").read_text())
    source = open_source(f"{place.tiny}/tiny-t5-text")
    files = {name: await source.read(name) for name in FILES[:2]}
    model = checkpoint(place, "tiny-t5-text")
    pipe: Any = await tc.pipeline("text2text-generation", {**model, **files}, manager=place.manager())
    texts, answers = [[case[key] for case in golden["answers"]] for key in ("text", "answer")]
    options = {"max_new_tokens": golden["steps"]}
    assert [row[0]["generated_text"] for row in await pipe(texts, **options)] == answers
    assert (await pipe(texts[1], **options))[0]["generated_text"] == answers[1]
    assert "".join([piece async for piece in pipe.stream(texts[1], **options)]) == answers[1]
    summaries: Any = await tc.pipeline("summarization", pipe.model, manager=pipe.model.manager)
    assert await summaries(texts, **options) == [{"summary_text": answer} for answer in answers]
    assert await summaries(texts[1], **options) == [{"summary_text": answers[1]}]
    summaries.close()
    pipe.close()


@shows("bart", "summarization", "tiny-bart-text")
@only("webgpu", "webnn")
async def bart_summarizes_by_the_options_of_its_config(place: Place) -> None:
    golden = json.loads((Path(place.goldens) / "tiny-bart-text" / "summaries.json").read_text())
    source = open_source(f"{place.tiny}/tiny-t5-text")
    files = {name: await source.read(name) for name in FILES[:2]}
    model = checkpoint(place, "tiny-bart-text")
    pipe: Any = await tc.pipeline("summarization", {**model, **files}, manager=place.manager())
    answers = [{"summary_text": case["summary_text"]} for case in golden]
    assert await pipe([case["text"] for case in golden]) == answers
    beams: dict[str, Any] = {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True}
    found = await pipe([case["text"] for case in golden], **beams, num_return_sequences=2)
    assert [[each["summary_text"] for each in row] for row in found] == [case["by_beams"] for case in golden]
    best = await pipe(golden[0]["text"], **beams, stop_strings=["never"])
    assert best == [{"summary_text": golden[0]["by_beams"][0]}]
    await raises(TensorCommonsError, pipe(golden[0]["text"], **beams, on_text=print), "num_beams")
    await raises(TensorCommonsError, anext(pipe.stream(golden[0]["text"], **beams)), "num_beams=1")
    pipe.close()
