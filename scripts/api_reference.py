"""Write docs/api from the docstrings of the package: every public name with its signature and an example.

    .cache/venv/bin/python -m scripts.api_reference

It is a short script over ``inspect``, because generators of documentation read sources, and the elementwise functions
are made at import. tests/contract/test_api_reference.py fails if a page is out of date, or if a name has no docstring
or no example.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from scripts import paths

for _folder in (paths.ROOT, paths.ROOT / "pyodide_pkg"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import tensorcommons as tc  # noqa: E402 - found by the lines above
from tensorcommons import ops  # noqa: E402
from tensorcommons.nn import functional  # noqa: E402

FOLDER = paths.ROOT / "docs" / "api"
SHORT = 100  # characters of a signature on one line

#: Page → its title, introduction and names, a class with its public members; its other members are for the package.
PAGES: dict[str, tuple[str, str, list[str]]] = {
    "models": (
        "Models and tasks",
        "Load and run models, from arrays or from texts and images. [models.md](../models.md) lists what is supported.",
        [
            "pipeline",
            "Pipeline: __call__ close",
            "tasks.text_generation.TextGeneration: __call__ stream conversation",
            "tasks.conversation.Conversation: send fork close",
            "run_pipelines",
            "from_pretrained",
            "estimate_load",
            "LoadEstimate: new_bytes",
            "Model: __call__ compile generate stream prefill compile_generation to explain bytes_to_run weight_bytes"
            " weight_formats load_adapter adapters adapter unload",
            "models.adapter.Adapter: merge weight_bytes unload",
            "hub.tokenizer.Tokenizer: encode_batch encode_windows decode apply_chat_template convert_ids_to_tokens",
            "open_cache",
            "Cache: status is_on usage remove_unused clear",
        ],
    ),
    "sharing": (
        "Sharing and memory",
        "One manager holds what several models share, under one limit. [sharing.md](../sharing.md) introduces it.",
        [
            "TensorSharingManager: close limit_bytes set_memory_limit report subscribe run_together compile_together"
            " register_shared_tensor get_shared_tensor share_tensor_between_models create_tensor_view"
            " release_model_tensors optimize_memory_usage analyze_sharing_opportunities get_stats last_run"
            " get_model_memory_usage get_tensor_memory_usage get_optimization_recommendations",
            "SharedTensor: shape dtype nbytes storage_type read write tensor grant acquire release holders"
            " reference_count can_be_freed pin unpin is_pinned copy_to create_view identity get_memory_usage",
            "SharedTensorView: get_memory_usage",
            "MemoryReport: to_dict",
            "get_compatible_models_for_tensor",
            "create_tensor_sharing_demo",
        ],
    ),
    "devices": (
        "Devices",
        "What computes, and why. [devices.md](../devices.md) explains the choice.",
        [
            "open_devices",
            "Devices: choose explain pin on_build close",
            "Device: memory close",
            "set_default_device",
        ],
    ),
    "arrays": (
        "Arrays",
        "Tensors on a device, and functions that are compiled once. [computing.md](../computing.md) introduces them.",
        [
            "Tensor: shape dtype device ndim size nbytes mT read numpy item tolist realize to to_device release",
            *("read_together", "scope", "compile", "Compiled: __call__", "dtypes.as_dtype", "dtypes.result_type"),
            *("NamespaceInfo: capabilities default_device devices default_dtypes dtypes", "__array_namespace_info__"),
        ],
    ),
    "operations": (
        "Operations",
        """Functions of tensors, with the names of the Python array API. [ops.md](../ops.md) lists devices and dtypes.

Unless an entry says otherwise:

- Operands broadcast as in NumPy, and a number takes the dtype of the tensor beside it. The result of an elementwise
  function has the common shape and the common dtype of its operands; the result of a comparison is bool.
- `axis` counts from the end if it is negative. A reduction removes its axes, or keeps them with size 1 (`keepdims`).
- The result is a new tensor on the device of the operands, and is computed when it is read.
- Every function raises `ShapeMismatch` if shapes or axes do not fit, `UnsupportedDtype` for a dtype that it does not
  take, or for dtypes without a common one, and `DeviceMismatch` for operands on different devices. What depends on the
  device is raised by the read: `UnsupportedOp`, `MemoryBudgetError`, `DeviceError`.""",
        sorted(ops.__all__),
    ),
    "linalg": (
        "tensorcommons.linalg",
        """The `linalg` extension of the Python array API, and `norm` as in NumPy, with the rules of
[operations](operations.md).

What needs a decomposition is computed on the host, as each entry says: a call reads its operands, and the result is on
their device. On the CPU device it does not wait. Elsewhere it waits where Python can be suspended, and raises
`ReadRequired` where it cannot: move the operand first, `x = await x.to("cpu")`. A function that is traced by
`tc.compile()` has no values yet, so such a call is refused there. float16 is computed in float32. General eigenvalues
(`eigvals`, which can be complex) and `lu` do not exist.""",
        [f"linalg.{name}" for name in tc.linalg.__all__],
    ),
    "random": (
        "Random numbers",
        """The same numbers on every device, which a seed determines: those of NumPy's Philox, drawn on the host.
Functions of the module draw from a shared generator, which `tc.random.seed` begins again. `shape` is a tuple or an int,
`device` a Device or a kind; the default is that of `set_default_device`. Within a function that `tc.compile` traces,
numbers are drawn once, with the trace: pass them as arguments.""",
        [
            *(f"random.{name}" for name in ("seed", "uniform", "normal", "randint", "permutation", "choice")),
            "random.Generator: uniform normal randint permutation choice",
        ],
    ),
    "functional": (
        "tensorcommons.nn.functional",
        """Functions of neural networks with the names and parameters of PyTorch's `torch.nn.functional`.

Shapes and dtypes are those of PyTorch, and of [operations](operations.md), whose errors they raise. Class indices are
int32. The result of a loss has no axes with `reduction="mean"` or `"sum"`, and the shape of the input (without classes)
with `"none"`. Parameters that serve training (`inplace`, dropout, gradients) are not supported.""",
        [f"nn.functional.{name}" for name in functional.__all__],
    ),
    "inspection": (
        "Looking inside",
        "Profiles, plans, shaders and facts for a bug report. [performance.md](../performance.md) introduces them.",
        ["profile", "Profile: rows table", "ProfileRow", "explain_plan", "shader_source", "diagnostics"],
    ),
    "errors": (
        "Errors",
        """Every error that the package raises on purpose, with its base classes. A message has the fault, the value and
the remedy. Names in code style in a first line are attributes of the error.""",
        [
            f"errors.{name}"
            for name, error in vars(tc.errors).items()
            if inspect.isclass(error) and issubclass(error, tc.errors.TensorCommonsError)
        ],
    ),
}

#: Classes that a user makes; objects of the others are returned by functions.
MADE = ("TensorSharingManager", "random.Generator")

HEAD = """# API reference

Generated from the docstrings by `python -m scripts.api_reference`, which a test checks. Every name has an example. The
examples run as tests, those with `./models/` in a browser and the others on CPython's CPU device, after these lines:

```pycon
>>> import asyncio
>>> import numpy as np
>>> import tensorcommons as tc
>>> from tensorcommons.nn import functional as F
```

A function that takes a tensor (`TensorLike`) also takes a NumPy array, a list or a number. Results are computed when
they are read: `.numpy()` in the examples reads on the CPU device, `await tensor.read()` everywhere.
"""


@dataclass(frozen=True)
class Name:
    """A public name: its path below the package, the object, and the class that it is a member of."""

    path: str
    value: Any
    owner: Any = None

    @property
    def doc(self) -> str:
        """The docstring, without indentation."""
        return inspect.getdoc(self.value) or ""

    @property
    def examples(self) -> str:
        """The session of the docstring, or those of the class and its other members that use the member."""
        if ">>> " in self.doc or not inspect.isclass(self.owner):
            return self.doc
        name = self.path.rpartition(".")[2]
        used = r"await" if name == "__call__" else rf"\.{name}\b"
        member = re.compile(rf"^(>>>|\.\.\.) .*{used}", re.MULTILINE)
        docs = [inspect.getdoc(self.owner) or "", *(inspect.getdoc(each) or "" for each in vars(self.owner).values())]
        return "\n".join(doc for doc in docs if member.search(doc))


def names(key: str) -> list[Name]:
    """Return the names of a page."""
    found = []
    for line in PAGES[key][2]:
        path, _, members = line.partition(":")
        found += [find(path), *(find(f"{path}.{member}") for member in members.split())]
    return found


def find(path: str) -> Name:
    """Return the public name at ``path``."""
    owner: Any = tc
    *parents, last = path.split(".")
    for part in parents:
        owner = getattr(owner, part)
    value = inspect.getattr_static(owner, last) if inspect.isclass(owner) else getattr(owner, last)
    return Name(re.sub(r"^(tasks|hub)\.\w+\.", "", path), value, owner)  # classes of objects without a public name


class _Bare(str):
    """An annotation in a signature, without quotes."""

    __repr__ = str.__str__


def signature(name: Name) -> str:
    """Return how the name is used: a call with its parameters, or an attribute; empty for a class that is not made."""
    value = inspect.unwrap(name.value) if callable(name.value) else name.value
    shown = name.path if inspect.isclass(name.owner) else f"tc.{name.path}"
    if isinstance(value, property):
        kind = value.fget.__annotations__.get("return", "") if value.fget else ""
        return f"{shown}: {kind}"
    if inspect.isclass(value) and issubclass(value, Exception):
        return f"class {name.path}({', '.join(base.__name__ for base in value.__bases__)})"
    if inspect.isclass(value) and name.path not in MADE:
        return ""
    found = inspect.signature(value)
    parameters = [
        each.replace(annotation=_Bare(each.annotation)) if isinstance(each.annotation, str) else each
        for each in found.parameters.values()
        if each.name != "self"
    ]
    result = found.return_annotation
    if inspect.isclass(value):
        result = inspect.Signature.empty
    elif isinstance(result, str):
        result = _Bare(result)
    listed = str(found.replace(parameters=parameters, return_annotation=result))
    prefix = "await " if inspect.iscoroutinefunction(value) else ""
    if len(shown + listed) > SHORT and parameters:
        lines = [f"    {part}," for part in _parts(parameters)]
        end = f" -> {result}" if result is not inspect.Signature.empty else ""
        return "\n".join([f"{prefix}{shown}(", *lines, f"){end}"])
    return prefix + shown + listed


def _parts(parameters: list[inspect.Parameter]) -> list[str]:
    parts, starred = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        starred = starred or each.kind is each.VAR_POSITIONAL
        parts.append(str(each))
    return parts


def markdown(doc: str) -> str:
    """Return a docstring as Markdown: sections become lists, sessions fenced blocks."""
    lines, session, section = list[str](), False, False
    for line in doc.splitlines():
        if line.startswith(">>> ") and not session:
            lines.append("```pycon")
            session = True
        elif session and not line.strip():
            lines.append("```")
            session = False
        if not session:
            if found := re.fullmatch(r"(Args|Raises|Returns|Yields|Attributes):", line):
                line, section = f"**{found[1]}**\n", True
            elif section and (found := re.match(r"    (\S.*?): (.*)", line)):
                line = f"- `{found[1]}`: {found[2]}"
            elif section and line.startswith("    "):
                line = f"  {line.strip()}"
            elif line:
                section = False
            line = re.sub(r":\w+:`~?([^`]*)`", lambda found: f"`{found[1].removeprefix('tensorcommons.')}`", line)
            line = line.replace("``", "`")
        lines.append(line)
    return "\n".join([*lines, *(["```"] if session else [])])


def entry(name: Name) -> str:
    """Return the section of a name."""
    level = "###" if inspect.isclass(name.owner) else "##"
    usage = "".join(f"    {line}\n" for line in signature(name).splitlines())
    text = f"{level} {name.path}\n\n{usage}\n{markdown(name.doc)}\n".replace("\n\n\n", "\n\n")
    if is_dataclass(name.value):
        text += "\nFields: " + ", ".join(f"`{field.name}: {field.type}`" for field in fields(name.value)) + ".\n"
    return text


def page(key: str) -> str:
    """Return the text of a page."""
    title, introduction, _ = PAGES[key]
    return "\n".join([f"# {title}", "", introduction, "", *(entry(name) for name in names(key))])


def index() -> str:
    """Return the text of the first page: all names by page."""
    lines = [HEAD]
    for key, (title, _, _) in PAGES.items():
        paths = [name.path for name in names(key) if not inspect.isclass(name.owner)]
        listed = ", ".join(f"[`{path}`]({key}.md#{path.lower().replace('.', '')})" for path in paths)
        lines += [f"## [{title}]({key}.md)", "", listed, ""]
    return "\n".join(lines)


def reference() -> dict[str, str]:
    """Return the text of every file of docs/api."""
    return {"README.md": index(), **{f"{key}.md": page(key) for key in PAGES}}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in reference().items():
        (FOLDER / file).write_text(text, "utf-8")
