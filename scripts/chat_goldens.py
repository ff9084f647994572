"""Render chats by templates with ``transformers``: ``tests/goldens/chats.json``.

    python -m scripts.chat_goldens [--check]

The templates have the elements of templates of published models: macros, namespaces,
loop variables, ``tojson`` of tools, tool calls, reasoning, lists of content, white space control, method calls. Every
template is rendered with every chat and set of options below; ``text`` is the prompt, or null if it is refused.

Needs the packages of ``scripts/goldens.py``, and jinja2.
"""

from __future__ import annotations

import importlib
from typing import Any

from scripts.goldens import Goldens

TEMPLATES: dict[str, str] = {
    "plain": """{% for m in messages %}<|{{ m['role'] }}|>
{{ m['content'] }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}""",
    "trimmed": """{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = 'Default. ' ~ (date or '') %}
    {%- set rest = messages %}
{%- endif %}
{{- '[SYS]' + system + '[/SYS]' }}
{%- for message in rest %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) and not tools %}
        {{- raise_exception('roles must alternate, not ' ~ message.role) }}
    {%- endif %}
    {%- if message.content is string %}
        {{- '[' + message.role + ']' + message.content.strip() }}
    {%- else %}
        {%- for part in message.content %}
            {%- if part.type == 'text' %}{{ part.text }}
            {%- elif 'image' in part %}<img>{% else %}<{{ part.type | upper }}>{% endif %}
        {%- endfor %}
    {%- endif %}
    {{- eos_token if loop.last else '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[assistant]' }}{% endif %}""",
    "tools": """{%- macro described(properties, indent=0) %}
{%- for name, schema in properties.items() | sort %}
{{ '  ' * indent }}- {{ name }}: {{ schema.type | default('any') }}
{{- ' = ' ~ schema.default | tojson if schema.default is defined }}
{%- if schema.properties %}{{ described(schema.properties, indent + 1) }}{% endif %}
{%- endfor %}
{%- endmacro %}
{%- if tools %}# Tools
{%- for tool in tools %}
{{ tool | tojson(indent=2) if tool.function is not defined else tool.function | tojson }}
{%- if tool.function %}{{ described(tool.function.parameters.properties) }}{% endif %}
{%- endfor %}
{% endif %}
{%- set ns = namespace(last=-1, tool=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if message.role == 'user' and ns.last < 0 %}{% set ns.last = index %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is defined and message.content is not none else '' %}
    {%- if content is not string %}
        {%- set content = content | map(attribute='text') | select('string') | join(' ') %}
    {%- endif %}
    {%- if message.role == 'assistant' %}
        {%- if message.reasoning_content is defined and loop.index0 > ns.last %}
            {{- '<think>' + message.reasoning_content.strip('\\n') + '</think>' }}
        {%- elif '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {%- set function = call.function if call.function else call %}
            {{- '\\n<call>' }}{"name": "{{ function.name }}", "arguments": {{ function.arguments if function.arguments is string else function.arguments | tojson }}}
            {%- for key, value in (function.arguments.items() if function.arguments is mapping else []) %}
            {{- ' ' ~ key ~ '=' ~ value }}
            {%- endfor %}
            {{- '</call>' }}
        {%- endfor %}
    {%- elif message.role == 'tool' %}
        {{- '<result>' if not ns.tool }}{{ content | e if false else content }}
        {%- set ns.tool = true %}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{ '</result>' }}{% set ns.tool = false %}{% endif %}
    {%- else %}
        {%- if message.role not in ['user', 'system', 'developer'] %}{{ raise_exception('Unknown role: ' + message.role) }}{% endif %}
        {{- message.role | capitalize + ': ' + content }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}Assistant: {% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{% endif %}""",
    "documents": """{% generation %}{% endgeneration %}{% if documents %}
{% for d in documents %}
[{{ loop.index }}/{{ loop.length }}] {{ d.title | title }}: {{ d.text | truncate(20, true, '…') | indent(2) }}
{% endfor %}
{% endif %}
{% for group in messages | groupby('role') %}{{ group.grouper }}={{ group.list | length }};{% endfor %}
{% for m in messages recursive %}{% if loop.index > 3 %}{% break %}{% endif %}{{ '%-10s|%5.2f' % (m.role, loop.index / 3) }} {{ m.content }}{{ ', ' if not loop.last }}{% endfor %}

{{ {'a': 1.0, 'b': 1e-07, 'c': none, 'd': [true, 'é<>&"'], 'e': 1e22} | tojson }} {{ 1.0 }} {{ 1e-07 }} {{ true }} {{ none }}
{{ messages | map(attribute='role') | unique | list }} {{ (messages | first).role.upper()[:3] ~ 7 // 2 ~ 2 ** 3 ~ -7 % 3 }}
{{ 'x'.center(5, '*') }}{{ 'a-b-c'.replace('-', '+', 1) }}{{ '{:>4}|{}'.format(3, 'é') }}{{ [3, 1, 2] | sort(reverse=true) | join('<') }}
{% filter upper %}{% set block %}shout {{ messages | length }}{% endset %}{{ block }}{% endfilter %}""",
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'Says "how" it is <outside> & more',
        "parameters": {
            "type": "object",
            "properties": {
                "where": {"type": "object", "properties": {"city": {"type": "string"}, "zip": {"default": 1.0}}},
                "days": {"type": "integer", "default": 3},
            },
        },
    },
}
USER = {"role": "user", "content": "  How is it in Zürich? {{ 1 + 1 }}\n"}
CALL = {"name": "weather", "arguments": {"where": {"city": "Zürich"}, "x": 1.0, "tiny": 1e-07, "no": None, "yes": True}}
CHATS: dict[str, list[Any]] = {
    "one": [USER],
    "system": [{"role": "system", "content": " Be brief. "}, USER, {"role": "assistant", "content": "Fine.\n"}, USER],
    "ends in an answer": [USER, {"role": "assistant", "content": "It is  "}],
    "calls": [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]},
        {"role": "tool", "content": '{"degrees": 7}', "name": "weather"},
        {"role": "tool", "content": "[]"},
        {"role": "assistant", "tool_calls": [{**CALL, "arguments": '{"a": 1}'}]},
    ],
    "thinks": [USER, {"role": "assistant", "content": "<think>a</think>\n\nb", "reasoning": "\nwhy\n"}, USER,
               {"role": "assistant", "content": "c", "thinking": "because"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "image", "image": "x.png"},
              {"type": "text", "text": "this?"}]}],
    "part answered": [USER, {"role": "assistant", "content": [{"type": "text", "text": "I "}]}],
    "no content": [{"role": "user"}],
    "null content": [{"role": "user", "content": None}],
    "number": [{"role": "user", "content": 5}],
    "odd role": [{"role": "critic", "content": "no"}],
    "two users": [USER, USER],
    "no role": [{"content": "x"}],
    "nothing": [],
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "asks": {"add_generation_prompt": True},
    "bare": {"add_generation_prompt": False},
    "continues": {"add_generation_prompt": False, "continue_final_message": True},
    "with tools": {"add_generation_prompt": True, "tools": [TOOL, {"bare": [1.5, "é"]}], "enable_thinking": False},
    "with documents": {
        "add_generation_prompt": False,
        "documents": [{"title": "on é", "text": "long text\n" * 5}],
        "date": "1 May",
    },
    "continues reasoning": {"add_generation_prompt": False, "continue_final_message": "thinking"},
}


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    library = importlib.import_module("tokenizers")
    fast = importlib.import_module("transformers").PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=library.Tokenizer(library.models.BPE()), bos_token="<s>", eos_token="</s>")
    rendered = []
    for template in TEMPLATES:
        for chat in CHATS:
            for options in OPTIONS:
                text = _text(tokenizer, TEMPLATES[template], CHATS[chat], OPTIONS[options])
                rendered.append({"template": template, "chat": chat, "options": options, "text": text})
    parts = {"templates": TEMPLATES, "chats": CHATS, "options": OPTIONS}
    made.json("chats.json", {**parts, "special": tokenizer.special_tokens_map, "rendered": rendered})
    return made.report()


def _text(tokenizer: Any, template: str, chat: Any, options: dict[str, Any]) -> str | None:
    try:
        text: str = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, **options)
    except Exception as error:  # refusals of any class
        print(f"{type(error).__name__}: {str(error)[:70]!r}")
        return None
    return text


if __name__ == "__main__":
    raise SystemExit(main())
