"""Chat templates: prompts equal to those of `transformers`, refusals, and templates that exceed the bounds."""

from __future__ import annotations

import json
import random
import warnings
from datetime import datetime

import jinja2
import pytest
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from scripts.paths import ROOT
from tensorcommons.errors import InvalidWeights, TensorCommonsError
from tensorcommons.hub import template_sandbox
from tensorcommons.hub.chat_template import ChatTemplate
from tests.cases import shows
from tests.cases.templates import ESCAPES, TOO_DEEP, TOO_MUCH, expression, template

GOLDENS = json.loads((ROOT / "tests" / "goldens" / "chats.json").read_text())
HELLO = [{"role": "user", "content": "Hello"}]


def rendered(source, messages=HELLO, **options):
    return ChatTemplate({"default": source}).render(messages, **options)


@shows("any chat template", "prompts of chats, tools, documents; what is refused", "chats.json")
def test_chats_are_rendered_as_in_the_reference():
    wrong = []
    for case in GOLDENS["rendered"]:
        options = {**GOLDENS["special"], **GOLDENS["options"][case["options"]]}
        try:
            text = rendered(GOLDENS["templates"][case["template"]], GOLDENS["chats"][case["chat"]], **options)
        except TensorCommonsError as error:
            text = None if len(str(error)) < 500 else str(error)
        if text != case["text"]:
            wrong.append((case, text))
    assert not wrong


def test_messages_are_not_modified():
    chat = [{"role": "assistant", "content": [{"type": "text", "text": "a"}], "x": None}]
    source = "{% for m in messages %}{{ m.content[0].text }}{% endfor %}"
    assert rendered(source, chat, continue_final_message=True) == "a"
    assert chat == [{"role": "assistant", "content": [{"type": "text", "text": "a"}], "x": None}]


def test_objects_become_placeholders_and_cycles_are_refused():
    chat = [{"role": "user", "content": [{"type": "image", "image": object()}, {"type": "text", "text": "x"}]}]
    assert rendered("{{ messages[0].content[0].image }}", chat) == "<object>"
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(TensorCommonsError, match="cycles"):
        rendered("{{ messages }}", [{"role": "user", "content": cycle}])


def test_dates_are_formatted_as_in_python():
    now = datetime.now()
    for form in ("%d %B %Y", "%A %a %b %j|%d%% %U %w %y %Z %-d", "%e %F %H"):
        assert rendered(f"{{{{ strftime_now({form!r}) }}}}") in (now.strftime(form), datetime.now().strftime(form))


def test_templates_by_name():
    stated = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]
    for templates in (ChatTemplate.of(stated, "f"), ChatTemplate.of({"default": "D", "tool_use": "T"}, "f")):
        assert templates is not None
        assert templates.render(HELLO) == "D"
        assert templates.render(HELLO, tools=[]) == "T"
        assert templates.render(HELLO, chat_template="tool_use") == "T"
        assert templates.render(HELLO, chat_template="{{ messages[0].role }}") == "user"
    rag = ChatTemplate.of({"rag": "R"}, "f")
    assert rag is not None
    with pytest.raises(TensorCommonsError, match=r"several chat templates.*rag"):
        rag.render(HELLO)
    assert ChatTemplate.of(None, "f") is None


@pytest.mark.parametrize("wrong", [5, True, [5], [{"name": 5, "template": "x"}], [{"name": "a"}], {"a": 5}, 1.5])
def test_templates_of_a_wrong_kind_are_refused(wrong):
    with pytest.raises(InvalidWeights, match="chat_template"):
        ChatTemplate.of(wrong, "tokenizer_config.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": 5}, {"tools": ["x"]}, {"tools": {"a": 1}}, {"tools": [print]}, {"documents": "x"}, {"documents": [5]},
        {"chat_template": 5}, {"continue_final_message": "nope"}, {"messages": "x"}, {"messages": [5]},
        {"messages": {}}, {"messages": None}, {"continue_final_message": True, "add_generation_prompt": True},
    ],
)  # fmt: skip
def test_options_of_a_wrong_kind_are_refused(wrong):
    with pytest.raises(TensorCommonsError):
        rendered("{{ messages[0].content }}", wrong.pop("messages", HELLO), **wrong)


@pytest.mark.parametrize("source", [*TOO_MUCH, *TOO_DEEP], ids=lambda source: source[:50])
def test_templates_that_exceed_the_bounds_are_stopped(source, monkeypatch):
    monkeypatch.setattr(template_sandbox, "STEPS", 100_000)  # e2e runs all of them
    with pytest.raises(TensorCommonsError) as caught:
        rendered(source)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("source", ["{{ " + "(" * 39 + "1" + ")" * 39 + " }}", "{{ " + "1+" * 39 + "1 }}"])
def test_templates_up_to_the_bound_are_rendered(source):
    assert rendered(source) in ("1", "40")


def test_an_indent_counts_four_characters_a_line_unless_stated(monkeypatch):
    monkeypatch.setattr(template_sandbox, "LARGEST_TEXT", 400)
    lines = "{{ ('\n' * %d) | indent%s }}"
    assert rendered(lines % (99, "")) == rendered(lines % (99, "(4)"))
    for wide in (lines % (100, ""), lines % (99, "(5)")):
        with pytest.raises(TensorCommonsError, match="400 characters"):
            rendered(wide)


@pytest.mark.parametrize("centered", ["{{ 'x' | center }}", "{{ 'x' | center(80) }}"])
def test_a_centered_text_counts_eighty_characters_unless_stated(centered, monkeypatch):
    monkeypatch.setattr(template_sandbox, "LARGEST_TEXT", 80)
    assert rendered(centered) == "x".center(80)
    monkeypatch.setattr(template_sandbox, "LARGEST_TEXT", 79)
    with pytest.raises(TensorCommonsError, match="79 characters"):
        rendered(centered)


def test_lists_are_nested_up_to_the_bound():
    nested = "{%% set ns = namespace(x=[]) %%}{%% for i in range(%d) %%}{%% set ns.x = [ns.x] %%}{%% endfor %%}ok"
    assert rendered(nested % (template_sandbox.DEEPEST - 2)) == "ok"  # the namespace is a level, too
    with pytest.raises(TensorCommonsError, match="levels deep"):
        rendered(nested % (template_sandbox.DEEPEST - 1))


@pytest.mark.parametrize("source", ESCAPES)
def test_templates_stay_in_the_sandbox(source):
    try:
        text = rendered(source)
    except TensorCommonsError:
        return
    assert not any(word in text for word in ("<class", "<function", "<built-in", "module", "object at")), text


def plain_environment():
    """Make Jinja's sandbox without the limits on steps."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = template_sandbox._tojson  # noqa: SLF001 - without the meter, else the same
    return environment


def written(compiled, data):
    """Render a template up to the point where it is refused."""
    pieces = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            pieces += compiled().generate(data)
    except template_sandbox.TooMuch:
        pieces.append("stopped")
    except Exception:  # random templates raise any error; both renderings must fail at the same place
        pieces.append("!")
    return pieces


def check_random_templates(count, seed):
    """Compare the texts of random templates with and without the limits: equal, and refused at the same place.

    A template that the limits stop is not rendered without them: it may take gigabytes. Few are so large.
    """
    environment, data = plain_environment(), {"messages": HELLO * 2, "n": 3, "text": "a b\nc", "none": None}
    lengths, stopped = [], 0
    for number in range(count):
        source = template(random.Random(f"{seed}.{number}"))
        template_sandbox._active[:] = [template_sandbox.Meter()]  # noqa: SLF001 - what a template writes up to a refusal
        got = written(lambda: template_sandbox._compiled(source)[1], data)  # noqa: B023, SLF001
        if got[-1:] == ["stopped"]:
            stopped += 1
            continue
        wanted = written(lambda: environment.from_string(source), data)  # noqa: B023
        assert "".join(got) == "".join(wanted), source
        lengths.append(len("".join(wanted)))
    assert sum(length > 3 for length in lengths) > count / 10
    assert stopped <= count / 100
    template_sandbox._active.clear()  # noqa: SLF001


def check_greedy_templates(count, seed):
    """Render random templates with large numbers and long loops: each ends with a text or an error of the package."""
    stopped = 0
    for number in range(count):
        try:
            text = rendered(template(random.Random(f"{seed}.{number}"), greedy=True))
        except TensorCommonsError as error:
            stopped += "stopped" in str(error)
        else:
            assert len(text) <= template_sandbox.LARGEST_TEXT
    assert stopped > count // 50


def test_limits_do_not_change_texts():
    check_random_templates(100, 1)


def test_greedy_templates_end(monkeypatch):
    monkeypatch.setattr(template_sandbox, "STEPS", 100_000)
    check_greedy_templates(40, 1)


@pytest.mark.long
def test_limits_do_not_change_many_texts():
    check_random_templates(5_000, 2)


@pytest.mark.long
def test_many_greedy_templates_end():
    check_greedy_templates(500, 2)


def test_a_long_chat_is_far_below_the_bound():
    chat = [{"role": role, "content": "some words " * 100} for _ in range(500) for role in ("user", "assistant")]
    for source in GOLDENS["templates"].values():
        tools = GOLDENS["options"]["with tools"]["tools"][:1] * 20
        assert len(rendered(source, chat, tools=tools, bos_token="<s>", eos_token="</s>")) > 1000
    environment, _ = template_sandbox._compiled(GOLDENS["templates"]["tools"])  # noqa: SLF001 - its meter
    assert environment.meter.left > template_sandbox.STEPS / 2


def test_expressions_of_the_generator_are_mostly_valid():
    valid = 0
    for seed in range(200):
        try:
            jinja2.Environment().parse("{{ " + expression(random.Random(seed), 3, greedy=False) + " }}")
            valid += 1
        except jinja2.TemplateSyntaxError:
            pass
    assert valid > 190
