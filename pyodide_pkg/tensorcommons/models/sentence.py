"""Folders of sentence-transformers: the modules after the encoder (``modules.json``), prompts and truncation.

The supported modules are Transformer, Pooling, Dense and Normalize; Dropout has no effect. Any other is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InvalidWeights, quoted, shown
from ..hub.config import read_json, read_optional_json, read_optional_list
from ..hub.source import Source
from ..nn import Linear, Scope, Weights, pooling
from ..ops import concat, leaky_relu
from ..tensor import Tensor
from .config import ACTIVATIONS, read_config
from .prefetch import beside

logger = logging.getLogger("tensorcommons")
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
#: The classes of PyTorch that ``activation_function`` may name, by the last part of their name.
TORCH = {
    "GELU": ACTIVATIONS["gelu"],
    "Hardswish": ACTIVATIONS["hardswish"],
    "Identity": ACTIVATIONS["linear"],
    "LeakyReLU": leaky_relu,
    "ReLU": ACTIVATIONS["relu"],
    "SiLU": ACTIVATIONS["silu"],
    "Sigmoid": ACTIVATIONS["sigmoid"],
    "Tanh": ACTIVATIONS["tanh"],
}
#: Settings of ``sentence_bert_config.json`` that the library passes to ``transformers``.
PASSED_ON = (
    *("model_args", "model_kwargs", "config_args", "config_kwargs", "processing_kwargs"),
    *("tokenizer_args", "processor_args", "processor_kwargs"),
)
#: Options among them that do not change the result.
INERT = frozenset(
    (
        *("trust_remote_code", "attn_implementation", "torch_dtype", "dtype", "revision", "cache_dir", "token"),
        *("use_safetensors", "low_cpu_mem_usage", "device_map", "use_fast", "add_pooling_layer", "local_files_only"),
    )
)
OLD_MODES = {  # flags of earlier versions
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Dense:
    """A linear layer with an activation; its weights are in a file of the folder ``path``."""

    path: str
    in_features: int
    out_features: int
    bias: bool = True
    use_residual: bool = False
    activation_function: str = "torch.nn.modules.activation.Tanh"
    module_input_name: str = "sentence_embedding"
    module_output_name: str = "sentence_embedding"

    @property
    def activation(self) -> str:
        """The last part of the activation's name, a key of ``TORCH`` if it is supported."""
        return self.activation_function.rpartition(".")[2]


@dataclass(frozen=True)
class Sentence:
    """The modules from hidden states to one vector for each text: concatenated poolings ``modes``, then ``steps``.

    A step is a Dense, or None to normalize vectors to length 1. Without ``include_prompt`` the tokens of a prompt are
    not pooled. The defaults are those of a folder without ``modules.json``.
    """

    modes: tuple[str, ...] = ("mean",)
    steps: tuple[Dense | None, ...] = (None,)
    include_prompt: bool = True

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the modules with weights."""
        return tuple(dict.fromkeys(step.path for step in self.steps if step is not None))


class DenseLayer:
    """The layer of a :class:`Dense`: (batch, in_features) -> (batch, out_features)."""

    def __init__(self, scope: Scope, dense: Dense) -> None:
        inputs, outputs = dense.in_features, dense.out_features
        projects = dense.use_residual and inputs != outputs
        self.linear = Linear(scope / "linear", inputs, outputs, bias=dense.bias)
        self.activation = TORCH[dense.activation]
        self.use_residual = dense.use_residual
        self.residual = Linear(scope / "residual", inputs, outputs, bias=False) if projects else None

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """Apply the layer."""
        result = self.activation(self.linear(weights, x))
        if self.use_residual:
            result = result + (self.residual(weights, x) if self.residual else x)
        return result


class SentenceLayers:
    """The layers of a :class:`Sentence` on hidden states of ``size``. ``file`` is named in errors.

    The parameters of a module have its folder as their prefix. Raises InvalidWeights if the sizes of the modules do not
    follow from each other.
    """

    def __init__(self, scope: Scope, sentence: Sentence, size: int, file: str) -> None:
        self.modes = sentence.modes
        self.steps: list[DenseLayer | None] = []
        size *= len(sentence.modes)
        for step in sentence.steps:
            if step is None:
                self.steps.append(None)
                continue
            if step.in_features != size:
                raise InvalidWeights(file, f"in_features of {shown(step.path)} must be {size}, not {step.in_features}")
            size = step.out_features
            own = (scope / step.path)._replace(checkpoint=1 + sentence.folders.index(step.path))
            self.steps.append(DenseLayer(own, step))

    def __call__(self, weights: Weights, hidden: Tensor, mask: Tensor, pooled_mask: Tensor | None = None) -> Tensor:
        """Pool (batch, sequence, hidden) -> (batch, features). ``pooled_mask`` has the tokens to pool, if not all."""
        pooled = [
            pooling.weighted_mean(hidden, pooled_mask, mask)
            if mode == "weightedmean" and pooled_mask is not None
            else pooling.MODES[mode](hidden, mask if pooled_mask is None else pooled_mask)
            for mode in self.modes
        ]
        x = pooled[0] if len(pooled) == 1 else concat(pooled, axis=1)
        for step in self.steps:
            x = pooling.normalize(x) if step is None else step(weights, x)
        return x


@dataclass(frozen=True)
class SentenceUse:
    """The settings of ``config_sentence_transformers.json``: prompts, truncation and similarity."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    truncate_dim: int | None = None
    similarity: str = "cosine"
    do_lower_case: bool = False
    include_prompt: bool = True


async def read_sentence(source: Source) -> tuple[Sentence, SentenceUse]:
    """Read ``modules.json`` and the files that it names, if the folder has it.

    Raises:
        InvalidWeights: a module or a setting is wrong or not supported.
    """
    modules = await read_optional_list(source, "modules.json")
    if modules is None:
        return Sentence(), SentenceUse()
    async with (
        beside(_modules(source, modules)) as reading,
        beside(read_optional_json(source, "sentence_bert_config.json")) as reading_bert,
    ):
        config = await read_optional_json(source, "config_sentence_transformers.json")
    sentence = reading.result()
    use = _use(source.name, config or {}, reading_bert.result() or {}, include_prompt=sentence.include_prompt)
    return sentence, use


async def _modules(source: Source, modules: list[Any]) -> Sentence:
    """Read the files that ``modules``, the contents of ``modules.json``, name."""
    file = f"{source.name}/modules.json"
    modes: tuple[str, ...] = ()
    steps: list[Dense | None] = []
    include_prompt = True
    for module in modules:
        kind = str(module.get("type") if isinstance(module, dict) else module).rpartition(".")[2]
        path = module.get("path", "") if isinstance(module, dict) else None
        if kind == "Transformer":
            if path:
                raise InvalidWeights(file, f"the path of the Transformer must be '', not {quoted(path)}")
            continue
        if kind not in ("Pooling", "Dense", "Normalize", "Dropout"):
            raise InvalidWeights(
                file, f"module {quoted(kind)} is not one of Transformer, Pooling, Dense, Normalize, Dropout"
            )
        if kind in ("Pooling", "Dense") and not (isinstance(path, str) and path):
            raise InvalidWeights(file, f"the {kind} module {quoted(module)} must have a folder as its path")
        if kind == "Pooling":
            if modes or steps:
                raise InvalidWeights(file, "Pooling must come once, before Dense and Normalize")
            modes, include_prompt = await _pooling(source, f"{path}/config.json")
        elif kind == "Dense":
            steps.append(await _dense(source, str(path)))
        elif kind == "Normalize":
            steps.append(None)
    if steps and not modes and any(step is not None for step in steps):
        raise InvalidWeights(file, "Dense without Pooling is not supported: add a Pooling module before it")
    return Sentence(modes or ("mean",), tuple(steps), include_prompt)


async def _pooling(source: Source, file: str) -> tuple[tuple[str, ...], bool]:
    settings = await read_json(source, file)
    asked = settings.get("pooling_mode")
    if asked is None:
        flags = [name for name, value in settings.items() if name.startswith("pooling_mode_") and value]
        unknown = [name for name in flags if name not in OLD_MODES]
        asked = unknown or [mode for name, mode in OLD_MODES.items() if name in flags] or ["mean"]
    modes = asked if isinstance(asked, list) else [asked]
    if not modes or any(not isinstance(mode, str) or mode not in pooling.MODES for mode in modes):
        raise InvalidWeights(
            f"{source.name}/{file}", f"pooling_mode {quoted(modes)} must be one or more of {', '.join(pooling.MODES)}"
        )
    include = settings.get("include_prompt", True)
    if type(include) is not bool:
        raise InvalidWeights(f"{source.name}/{file}", f"include_prompt must be true or false, not {quoted(include)}")
    return tuple(modes), include


async def _dense(source: Source, path: str) -> Dense:
    file = f"{source.name}/{path}/config.json"
    config = read_config(Dense, {**await read_json(source, f"{path}/config.json"), "path": path}, file)
    if {config.module_input_name, config.module_output_name} != {"sentence_embedding"}:
        raise InvalidWeights(
            file,
            f"module_input_name {quoted(config.module_input_name)} and module_output_name "
            f"{quoted(config.module_output_name)} must be sentence_embedding",
        )
    if not config.activation_function.startswith("torch."):
        logger.warning(
            "%s: activation_function %s is not a class of PyTorch; using Tanh", file, quoted(config.activation_function)
        )
        return replace(config, activation_function="Tanh")
    if config.activation not in TORCH:
        raise InvalidWeights(file, f"activation_function {quoted(config.activation)} is not one of {', '.join(TORCH)}")
    return config


def _use(source: str, config: Mapping[str, Any], bert: Mapping[str, Any], *, include_prompt: bool) -> SentenceUse:
    """Read ``config_sentence_transformers.json`` and ``sentence_bert_config.json`` of the folder ``source``."""
    file = f"{source}/config_sentence_transformers.json"
    prompts, name = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise InvalidWeights(file, f"prompts must be an object of names and texts, not {quoted(prompts)}")
    prompts = {key: text for key, text in prompts.items() if text is not None}
    if name is not None and (not isinstance(name, str) or name not in prompts):
        known = shown(", ".join(prompts)) or "none"
        raise InvalidWeights(file, f"default_prompt_name {quoted(name)} is not one of the prompts: {known}")
    size, similarity = config.get("truncate_dim"), config.get("similarity_fn_name")
    if size is not None and (type(size) is not int or size < 1):
        raise InvalidWeights(file, f"truncate_dim must be an integer from 1, not {quoted(size)}")
    if similarity is not None and similarity not in SIMILARITIES:
        known = ", ".join(SIMILARITIES)
        raise InvalidWeights(file, f"similarity_fn_name {quoted(similarity)} is not one of {known}")
    file = f"{source}/sentence_bert_config.json"
    lowers: Any = bert.get("do_lower_case") or False
    if type(lowers) is not bool:
        raise InvalidWeights(file, f"do_lower_case must be true or false, not {quoted(lowers)}")
    for key in PASSED_ON:
        options = bert.get(key) or {}
        if not isinstance(options, dict) or options.keys() - INERT:
            raise InvalidWeights(
                file, f"{key} {quoted(options)} is not supported: set these options in the file that they configure"
            )
    return SentenceUse(prompts, name, size, similarity or "cosine", lowers, include_prompt)
