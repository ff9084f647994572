"""tensorcommons: run several models in one browser tab; shared weights and computations exist once."""

from __future__ import annotations

from . import dtypes, errors, linalg, nn, random
from .backends.current import set_default_device
from .backends.device import Device
from .backends.select import Devices
from .compiled import Compiled, compile
from .constants import e, inf, nan, newaxis, pi
from .diagnostics import diagnostics
from .dtypes import bool, float16, float32, float64, int8, int32, int64, uint8, uint32
from .graph.profile import Profile, profile
from .graph.profile_table import ProfileRow
from .hub.cache import Cache
from .hub.open_cache import open_cache
from .inspection import NamespaceInfo, __array_namespace_info__
from .models.estimate import LoadEstimate, estimate_load
from .models.loading import from_pretrained
from .models.model import Model
from .opening import open_devices
from .ops import *  # noqa: F403 - ops/__init__.py lists them
from .ops import __all__ as _ops
from .pipelines import pipeline
from .sharing.compatibility import get_compatible_models_for_tensor
from .sharing.demo import create_tensor_sharing_demo
from .sharing.explain import explain_plan, shader_source
from .sharing.manager import TensorSharingManager
from .sharing.report import MemoryReport
from .sharing.shared_tensor import SharedTensor, SharedTensorView
from .tasks.pipeline import Pipeline, run_pipelines
from .tensor import Tensor, read_together, scope

__version__ = "0.1.0"
__array_api_version__ = "2024.12"

__all__ = [
    "Cache",
    "Compiled",
    "Device",
    "Devices",
    "LoadEstimate",
    "MemoryReport",
    "Model",
    "NamespaceInfo",
    "Pipeline",
    "Profile",
    "ProfileRow",
    "SharedTensor",
    "SharedTensorView",
    "Tensor",
    "TensorSharingManager",
    "__array_api_version__",
    "__array_namespace_info__",
    "bool",
    "compile",
    "create_tensor_sharing_demo",
    "diagnostics",
    "dtypes",
    "e",
    "errors",
    "estimate_load",
    "explain_plan",
    "float16",
    "float32",
    "float64",
    "from_pretrained",
    "get_compatible_models_for_tensor",
    "linalg",
    "inf",
    "int8",
    "int32",
    "int64",
    "nan",
    "newaxis",
    "nn",
    "open_cache",
    "open_devices",
    "pi",
    "pipeline",
    "profile",
    "random",
    "read_together",
    "run_pipelines",
    "scope",
    "set_default_device",
    "shader_source",
    "uint8",
    "uint32",
    *_ops,
]
