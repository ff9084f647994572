"""tensorcommons: run several models in one browser tab; shared weights and computations exist once."""

from __future__ import annotations

from . import dtypes, errors, linalg, nn, random
from .backends.current import set_default_device
from .backends.device import Device
from .backends.select import Devices
from .compiled import Compiled, compile
from .diagnostics import diagnostics
from .graph.profile import Profile, profile
from .graph.profile_table import ProfileRow
from .hub.cache import Cache
from .hub.open_cache import open_cache
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
from .tensor import Tensor, asarray, read_together, scope

__version__ = "0.1.0"

__all__ = [
    "Cache",
    "Compiled",
    "Device",
    "Devices",
    "LoadEstimate",
    "MemoryReport",
    "Model",
    "Pipeline",
    "Profile",
    "ProfileRow",
    "SharedTensor",
    "SharedTensorView",
    "Tensor",
    "TensorSharingManager",
    "asarray",
    "compile",
    "create_tensor_sharing_demo",
    "diagnostics",
    "dtypes",
    "errors",
    "estimate_load",
    "explain_plan",
    "from_pretrained",
    "get_compatible_models_for_tensor",
    "linalg",
    "nn",
    "open_cache",
    "open_devices",
    "pipeline",
    "profile",
    "random",
    "read_together",
    "run_pipelines",
    "scope",
    "set_default_device",
    "shader_source",
    *_ops,
]
