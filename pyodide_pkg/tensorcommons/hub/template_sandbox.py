"""Untrusted Jinja templates: Jinja's own sandbox, with a bound on the steps and the memory of a rendering.

The environment is that of ``transformers`` (its ``tojson``, ``strftime_now``, ``raise_exception``, its namespaces,
``{% generation %}``, loop controls), so the result is equal by construction. On top of it, a rendering spends
from a budget of steps (:class:`Meter`): each iteration, call, filter and test is one, and so is each element, or 100
characters, that they visit. Operations with large results (``'a' * n``, ``center``, ``format`` with a width, powers)
are charged before they run. An exhausted budget raises :class:`TooMuch`, whatever the template.

This module imports jinja2, which takes a while in a browser: it is imported when the first chat is rendered.
"""

from __future__ import annotations

import functools
import json
import re
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from ..errors import quoted

STEPS = 1_000_000  # of one rendering; a chat of a thousand messages takes some 50,000
CHARACTERS = 100  # that are one step
LARGEST_TEXT = 4_000_000  # characters of one string, and of a prompt
LONGEST_TEMPLATE = 200_000  # characters; the longest ones in use have about 20,000
LARGEST_INTEGER = 4096  # bits
WIDEST = 10_000  # characters of a formatted value
WIDEST_JSON = 32  # of an indent or a separator
DEEPEST = 100  # nested lists
DEEPEST_CALLS = 24  # calls of macros within each other
_TEMPLATES = 8  # compiled ones that are kept

# Filters that look at one element, or at none.
INSTANT = frozenset(("attr", "count", "d", "default", "first", "last", "length", "random"))
# Filters that look at the elements of a list, but not into them.
SHALLOW = frozenset(
    ("batch", "items", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice")
)
# Filters that go through a string character by character.
LETTERS = SHALLOW | {"sort", "unique", "join", "min", "max", "sum", "groupby"}
# Tests that look at the value's kind alone.
KINDS = frozenset(
    ("boolean", "callable", "defined", "false", "float", "integer", "iterable", "mapping", "none", "number", "sameas")
    + ("sequence", "string", "true", "undefined", "filter", "test")
)
WIDTH = re.compile(r"\d{4,}")
TEXTS = (str, bytes)
LISTS = (list, tuple, Mapping, AbstractSet, KeysView, ValuesView)
CONTAINERS = (*LISTS, Namespace)
LONGEST_CHAIN = 40  # operators and brackets within each other in one expression; those in use have under 20
LONGEST_CONSTANT = 1000  # characters of an expression that is written as it is
_active: list[Meter] = []  # that of the rendering under way is the last


class TooMuch(Exception):
    """The rendering was stopped by the bound in the message."""


class Meter:
    """The budget of one rendering."""

    def __init__(self) -> None:
        self.left = STEPS
        self.depth = 0  # of calls
        self._nested: dict[int, tuple[object, int]] = {}  # by id: a container, and the levels in it

    def spend(self, steps: int) -> None:
        """Take ``steps``. Raises TooMuch if fewer are left."""
        self.left -= steps
        if self.left < 0:
            raise TooMuch(f"takes more than {STEPS:,} steps")

    def text(self, characters: int) -> None:
        """Take the steps of a string."""
        if characters > LARGEST_TEXT:
            raise TooMuch(f"makes a text of more than {LARGEST_TEXT:,} characters")
        self.spend(1 + characters // CHARACTERS)

    def shallow(self, value: Any) -> None:
        """Take the steps of going over a value once."""
        if isinstance(value, TEXTS):
            self.text(len(value))
        elif isinstance(value, (*LISTS, range)):
            self.spend(1 + len(value))
        else:
            self._scalar(value)

    def deep(self, value: Any) -> None:
        """Take the steps of going over a value and all that is in it."""
        waiting = [(value, 0)]
        while waiting:
            part, depth = waiting.pop()
            if depth > DEEPEST:
                raise TooMuch(f"nests lists more than {DEEPEST} levels deep")
            if isinstance(part, TEXTS):
                self.text(len(part))
            elif isinstance(part, Mapping):
                self.spend(1)
                for pair in part.items():
                    waiting += ((each, depth + 1) for each in pair)
                    self.spend(1)
            elif isinstance(part, LISTS):
                self.spend(1 + len(part))
                waiting += ((each, depth + 1) for each in part)
            elif isinstance(part, Namespace):
                waiting.append((part._Namespace__attrs, depth + 1))
            else:
                self._scalar(part)

    def walk(self, value: Any) -> Any:
        """Return ``value``, charged as by ``deep``; an iterator is wrapped, and each value charged when it comes."""
        if isinstance(value, Iterator) and not isinstance(value, LoopContext):
            return self._iterate_deep(value)
        self.deep(value)
        return value

    def _iterate_deep(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.deep(value)
            yield value

    def _scalar(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > LARGEST_INTEGER:
            raise TooMuch(f"computes with numbers of more than {LARGEST_INTEGER:,} bits")
        self.spend(1)

    def made(self, value: Any) -> None:
        """Take the steps of making a value, and bound its levels of nesting.

        Python frees nested containers recursively, which ends the interpreter in a browser.
        """
        self.shallow(value)
        if isinstance(value, CONTAINERS):
            self._levels(value, 0)

    def _levels(self, value: Any, depth: int) -> int:
        """Return the levels of containers in a value. Each container is visited once."""
        if not isinstance(value, CONTAINERS):
            return 0
        held, levels = self._nested.get(id(value), (None, 0))
        if held is not value:
            if depth > DEEPEST:
                raise TooMuch(f"nests lists more than {DEEPEST} levels deep")
            parts = _parts(value)
            self.spend(1 + len(parts))
            levels = 1 + max((self._levels(each, depth + 1) for each in parts), default=0)
            self._set_levels(value, levels)
        return levels

    def _set_levels(self, value: Any, levels: int) -> None:
        if levels > DEEPEST:
            raise TooMuch(f"nests lists more than {DEEPEST} levels deep")
        self._nested[id(value)] = value, levels

    def put(self, into: Any, value: Any) -> None:
        """Count a value that is put into a container."""
        self._set_levels(into, max(self._levels(into, 0), 1 + self._levels(value, 0)))

    def iterate(self, values: Iterable[Any], steps: int = 1) -> Iterator[Any]:
        """The values, each for so many steps."""
        for value in values:
            self.spend(steps)
            yield value


def _parts(value: Any) -> list[Any]:
    """List the values in a container."""
    if isinstance(value, Namespace):
        value = value._Namespace__attrs
    return list(value.values() if isinstance(value, Mapping) else value)


class _Meters(NodeTransformer):
    """Insertion of the meter's calls into a template that iterates, writes, compares, concatenates and slices."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self._context = nodes.EvalContext(environment)

    def _is_constant(self, node: nodes.Expr) -> bool:
        """Return whether Jinja evaluates it at compile time, which may differ from Python later (``2.5[:1]``)."""
        try:
            return len(str(node.as_const(self._context))) < LONGEST_CONSTANT
        except TooMuch:
            raise
        except Exception:  # Jinja leaves a failure here to the rendering, which raises it
            return False

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - the visitor's protocol
        self.generic_visit(node)
        letters = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        steps = 1 + letters // CHARACTERS + sum(1 for _ in node.find_all(nodes.Expr)) // 8
        node.iter = _metered("iterate", node.iter, nodes.Const(steps))
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        node.nodes = [
            each
            if isinstance(each, nodes.TemplateData) or self._is_constant(each)
            else _metered("deep", self.visit(each))
            for each in node.nodes
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_metered("deep", each) for each in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _metered("deep", node.expr)
        for operand in node.ops:
            operand.expr = _metered("walk" if operand.op in ("in", "notin") else "deep", operand.expr)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _metered("made", node)  # type: ignore[no-any-return]

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        for pair in node.items:
            pair.key = _metered("deep", pair.key)  # it will be hashed
        return _metered("made", node)  # type: ignore[no-any-return]

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return node if node.ctx != "load" else _metered("made", node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _metered("shallow", node.node)
        elif not isinstance(node.arg, nodes.Const):
            node.arg = _metered("deep", node.arg)
        return node


def _metered(how: str, *values: Any) -> Any:
    if how != "iterate" and isinstance(values[0], nodes.Const):  # Jinja computes with constants while it compiles
        return values[0]
    if how == "made" and all(isinstance(each, nodes.Const) for each in values[0].find_all(nodes.Expr)):
        return values[0]
    call = nodes.EnvironmentAttribute(f"metered_{how}")
    return nodes.Call(call, list(values), [], None, None).set_lineno(values[0].lineno)


class _CodeGenerator(CodeGenerator):
    def visit_Call(self, node: nodes.Call, frame: Any, forward_caller: bool = False) -> None:  # noqa: N802
        """The meter's own calls are made as they are, others go through ``Environment.call``."""
        if not isinstance(node.node, nodes.EnvironmentAttribute):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self.write(f"environment.{node.node.name}(")
        for number, argument in enumerate(node.args):
            self.write(", " if number else "")
            self.visit(argument, frame)
        self.write(")")


class _Generation(Extension):
    """``{% generation %}`` marks a model's own text, for training: its content is rendered unchanged."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """``dict(...)`` and ``dict.fromkeys`` without the attributes of a class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """As ``dict.fromkeys``."""
        return dict.fromkeys(*args, **kwargs)


class _Namespace(Namespace):
    """``namespace(...)`` without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # the names of the arguments are the template's
        self, args = args[0], args[1:]
        names = dict(*args, **kwargs)
        for name in names:
            _check_name(name)
        Namespace.__init__(self, names)
        _active[-1].made(self)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        _active[-1].put(self, value)
        Namespace.__setitem__(self, name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace's name must not begin with an underscore: {quoted(name)}")


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.meter = Meter()
        self.filters["tojson"] = _tojson
        self.filters = {name: self._filter(name, function) for name, function in self.filters.items()}
        tests: dict[str, Any] = self.tests
        self.tests = {name: self._test(name, function) for name, function in tests.items()}
        lipsum: Any = self.globals["lipsum"]
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "dict": _Dict(),
            "namespace": _Namespace,
            "lipsum": self._lipsum(lipsum),
        }

    def metered_iterate(self, values: Iterable[Any], steps: int) -> Iterator[Any]:
        """See :class:`_Meters`."""
        return self.meter.iterate(values, steps)

    def metered_deep(self, value: Any) -> Any:
        """See :class:`_Meters`."""
        self.meter.deep(value)
        return value

    def metered_walk(self, value: Any) -> Any:
        """See :class:`_Meters`."""
        return self.meter.walk(value)

    def metered_made(self, value: Any) -> Any:
        """See :class:`_Meters`."""
        self.meter.made(value)
        return value

    def metered_shallow(self, value: Any) -> Any:
        """See :class:`_Meters`."""
        self.meter.shallow(value)
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > LONGEST_TEMPLATE:
            raise TooMuch(f"has {len(source):,} characters, over the {LONGEST_TEMPLATE:,} that a template may have")
        self._check_chains(source)
        parsed: nodes.Template = _Meters(self).visit(super()._parse(source, name, filename))
        return parsed

    def _check_chains(self, source: str) -> None:
        """Raise TooMuch for an expression that nests too deeply for a compiler with the stack of a browser."""
        levels: list[tuple[int, int]] = []  # of the brackets that are open: the chain before each, the longest in it
        chain = longest = 0
        for _, kind, text in self.lex(source):
            if kind in ("block_begin", "variable_begin"):
                levels, chain, longest = [], 0, 0
            elif text in ("(", "[", "{") and kind == "operator":
                levels.append((chain, longest))
                chain = longest = 0
            elif text in (")", "]", "}") and kind == "operator" and levels:
                inner = max(chain, longest)
                chain, longest = levels.pop()
                chain = max(chain, inner) + 1
            elif text in (",", ":"):
                chain, longest = 0, max(chain, longest)
            elif (kind == "operator" and text != "~") or text in ("and", "or", "not", "if", "is", "in"):
                chain += 1
            if max(chain, len(levels)) > LONGEST_CHAIN:
                raise TooMuch(f"has an expression of more than {LONGEST_CHAIN} operators within each other")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Charge for an arithmetic operation, and run it."""
        meter = self.meter
        if operator == "%" and isinstance(left, TEXTS):
            self._check_percent(left, right)
        elif operator == "*" and isinstance(left, int) != isinstance(right, int):
            values, count = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(values, TEXTS):
                meter.text(len(values) * max(count, 0))
            elif isinstance(values, (list, tuple)):
                meter.spend(len(values) * max(count, 0))
        elif isinstance(left, int) and isinstance(right, int):
            meter.spend(1)
            bits = left.bit_length(), right.bit_length()
            size = bits[0] * abs(right) if operator == "**" and bits[1] < 64 else sum(bits)
            if size > LARGEST_INTEGER or max(bits) > LARGEST_INTEGER:
                raise TooMuch(f"computes with numbers of more than {LARGEST_INTEGER:,} bits")
        else:
            meter.shallow(left)
            meter.shallow(right)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, CONTAINERS):
            meter.made(result)
        return result

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Charge for a call by the size of its arguments, bound its depth, and make it."""
        meter = self.meter
        meter.spend(1)
        if isinstance(function, LoopContext) and args:
            args = (meter.iterate(args[0]), *args[1:])
        elif isinstance(function, types.BuiltinMethodType) or isinstance(getattr(function, "__self__", None), TEXTS):
            args = self._check_method(function, args, kwargs)  # those of Markup are written in Python
        elif not isinstance(function, (LoopContext, Macro)):  # a macro's arguments are charged where it uses them
            args = tuple(map(meter.walk, args))
            kwargs = {name: meter.walk(each) for name, each in kwargs.items()}
        meter.depth += 1
        try:
            if meter.depth > DEEPEST_CALLS:
                raise TooMuch(f"nests calls more than {DEEPEST_CALLS} levels deep")
            result = super().call(context, function, *args, **kwargs)
        finally:
            meter.depth -= 1
        meter.made(result)
        return result

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format`` in the sandbox, charged for its arguments, with bounded widths."""
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None
        text = value.__self__.replace("{{", "").replace("}}", "")

        def checked(*args: Any, **kwargs: Any) -> str:
            self.meter.text(len(text))
            for each in (*args, *kwargs.values()):
                self.meter.deep(each)
            for field in re.findall(r"\{[^{}]*(\{)?", text):
                if field:
                    raise TooMuch("formats with a width that is computed")
            if any(WIDTH.search(field) for field in re.findall(r"\{[^{}]*\}", text)):
                raise TooMuch(f"formats with a width over {WIDEST:,}")
            return formatted(*args, **kwargs)

        return checked

    def _check_percent(self, text: Any, values: Any) -> None:
        """Charge for ``text % values``."""
        self.meter.shallow(text)
        self.meter.deep(values)
        shown = text.decode("latin-1") if isinstance(text, bytes) else text
        given = values if isinstance(values, tuple) else (values,)
        computed = "*" in shown and any(isinstance(each, int) and abs(each) >= WIDEST for each in given)
        if computed or any(WIDTH.search(width) for width in re.findall(r"%[^a-zA-Z%]*", shown)):
            raise TooMuch(f"formats with a width over {WIDEST:,}")
        if isinstance(values, Mapping):  # each of its values may be shown many times
            self.meter.text((1 + shown.count("%")) * max((len(str(value)) for value in values.values()), default=0))

    def _check_method(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Charge for a method of a built-in type before it runs, and return its arguments."""
        meter, name, value = self.meter, function.__name__, function.__self__
        if name == "join" and len(args) == 1 and isinstance(value, TEXTS):
            parts = list(meter.iterate(args[0]))
            meter.text(sum(len(part) for part in parts if isinstance(part, TEXTS)) + len(value) * len(parts))
            return (parts,)
        if not isinstance(value, type) and name not in ("get", "items", "keys", "values"):
            meter.shallow(value)
        for each in (*args, *kwargs.values()):
            meter.deep(each)
        if isinstance(value, (*TEXTS, int)):
            tabs = value.count("\t" if isinstance(value, str) else b"\t") if name == "expandtabs" else 0  # type: ignore[union-attr,arg-type]
            sizes = [abs(each) for each in (*args, *kwargs.values()) if isinstance(each, int)]
            meter.text(max(sizes, default=0) * (1 + tabs))
        if name == "replace" and isinstance(value, TEXTS):
            self._check_replace(value, *args)
        if name == "translate" and args and isinstance(args[0], Mapping):
            longest = max((len(each) for each in args[0].values() if isinstance(each, TEXTS)), default=1)
            meter.text(len(value) * longest)
        return args

    def _check_replace(self, text: Any, old: Any = "", new: Any = "", *_: Any) -> None:
        if type(text) is type(old) is type(new):
            self.meter.text(len(text) + text.count(old) * len(new))

    def _filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passed = hasattr(function, "jinja_pass_arg")
        check = getattr(self, f"_check_{name}_filter", None)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            meter = self.meter
            meter.spend(1)
            given = list(args[passed:])
            if given and isinstance(given[0], TEXTS) and name in LETTERS:
                meter.spend(len(given[0]))
            if name in INSTANT or name in SHALLOW:
                for each in () if name in INSTANT else (*given, *kwargs.values()):
                    meter.shallow(each)
                given = [meter.iterate(each) if isinstance(each, Iterator) else each for each in given]
            else:
                given = [meter.walk(each) for each in given]
                kwargs = {key: meter.walk(each) for key, each in kwargs.items()}
            if name in ("sort", "unique", "groupby", "dictsort"):
                meter.spend(8 * (len(given[0]) if isinstance(given[0], (*LISTS, *TEXTS)) else 0))
            if check is not None:
                check(*given, **kwargs)
            result = function(*args[:passed], *given, **kwargs)
            meter.made(result)
            return result

        return checked

    def _test(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passed = hasattr(function, "jinja_pass_arg")

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            self.meter.spend(1)
            if name not in KINDS:
                args = (*args[:passed], *map(self.meter.walk, args[passed:]))
            return function(*args, **kwargs)

        return checked

    def _lipsum(self, function: Callable[..., str]) -> Callable[..., str]:
        def checked(n: int = 5, html: bool = True, min: int = 20, max: int = 100) -> str:  # noqa: A002 - Jinja's names
            self.meter.spend(10 * (abs(n) + 1) * (abs(min) + abs(max)))
            return function(n, html, min, max)

        return checked

    # --- filters with results much larger than their operands: charged by the result before they run ---

    def _check_attr_filter(self, value: Any, name: Any) -> None:
        self.meter.deep(name)

    def _check_center_filter(self, value: Any, width: int = 80) -> None:
        self.meter.text(width)

    def _check_indent_filter(self, s: Any, width: Any = 4, *_: Any, **__: Any) -> None:
        lines = str(s).count("\n") + 1
        self.meter.text(lines * (len(width) if isinstance(width, str) else int(width)))

    def _check_replace_filter(self, s: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
        self._check_replace(str(s), str(old), str(new))

    def _check_join_filter(self, value: Any, d: Any = "", *_: Any, **__: Any) -> None:
        if isinstance(value, (*LISTS, *TEXTS)):
            self.meter.text(len(value) * len(str(d)))
        elif len(str(d)) > WIDEST_JSON:
            raise TooMuch("joins what is computed by a long text")

    def _check_format_filter(self, value: Any, *args: Any, **kwargs: Any) -> None:
        self._check_percent(str(value), kwargs or args)

    def _check_batch_filter(self, value: Any, linecount: int, *_: Any, **__: Any) -> None:
        self.meter.spend(abs(int(linecount)))

    def _check_slice_filter(self, value: Any, slices: int, *_: Any, **__: Any) -> None:
        self.meter.spend(abs(int(slices)))

    def _check_round_filter(self, value: Any, precision: int = 0, *_: Any, **__: Any) -> None:
        if abs(precision) > LARGEST_INTEGER:
            raise TooMuch(f"rounds to more than {LARGEST_INTEGER:,} digits")

    def _check_tojson_filter(self, value: Any, *_: Any, **given: Any) -> None:
        for name in ("indent", "separators"):
            each = given.get(name) or ()
            size = abs(each) if isinstance(each, int) else sum(map(len, each))
            if size > WIDEST_JSON:
                raise TooMuch(f"writes JSON with {name} of {size:,} characters")

    def _check_wordwrap_filter(self, s: Any, *args: Any, **kwargs: Any) -> None:
        between = kwargs.get("wrapstring") or (args[2] if len(args) > 2 else None) or ""
        self.meter.text(len(str(s)) * (1 + len(str(between))))
        width = kwargs.get("width", args[0] if args else 79)
        if isinstance(width, (int, float)):  # a word is copied for each line that is cut from it
            self.meter.spend(int(len(str(s)) ** 2 // (1000 * max(width, 1))))

    def _check_urlize_filter(self, value: Any, *_: Any, **given: Any) -> None:
        more = sum(len(str(each)) for each in given.values())
        self.meter.text(len(str(value)) * (1 + more))
        self.meter.spend(len(str(value)) ** 2 // 1000)

    def _check_striptags_filter(self, value: Any) -> None:
        self.meter.spend(len(str(value)) ** 2 // 1000)


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> None:
    raise jinja2.exceptions.TemplateError(str(message)[:LARGEST_TEXT])


def _strftime_now(format: str) -> str:  # noqa: A002 - the name that templates may give
    if len(format) > 1000 or re.search(r"%[^a-zA-Z%]*\d{3}", format):
        raise TooMuch("formats the date with a wide field")
    return datetime.now().strftime(format)  # the user's own time


@functools.lru_cache(_TEMPLATES)
def _compiled(source: str) -> tuple[_Environment, jinja2.Template]:
    environment = _Environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of the Python that a template becomes, as for `1[0]`
        return environment, environment.from_string(source)


def render(source: str, values: Mapping[str, Any]) -> str:
    """Render the template ``source`` with ``values``, plain data.

    Raises:
        TooMuch: a bound was reached.
        Exception: anything that the template raises, and Jinja's own errors of syntax.
    """
    environment, template = _compiled(source)
    environment.meter = meter = Meter()
    meter.made(values)
    _active.append(meter)
    try:
        written, size = [], 0
        for piece in template.generate(values):
            size += len(piece)
            if size > LARGEST_TEXT:
                raise TooMuch(f"writes more than {LARGEST_TEXT:,} characters")
            meter.spend(1)
            written.append(piece)
        return "".join(written)
    finally:
        _active.pop()
