"""A page as a reader of the docs makes it: a folder with the wheel, the models and the files of a page of the docs.

The pages name CDNs and a model hub. Both are answered by the same files of this machine.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import pytest

from e2e.page.driver import SLOW
from scripts import hosts, paths
from scripts.models import link_or_copy
from scripts.serve import serve
from tests.models.server import with_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from playwright.sync_api import BrowserContext, Page, Route

    Reader: TypeAlias = Callable[..., AbstractContextManager[Page]]

ANYWHERE = {"Access-Control-Allow-Origin": "*"}


@pytest.fixture(scope="session")
def manifest(site_folder: Path) -> dict[str, str]:
    """The manifest of the built site."""
    found: dict[str, str] = json.loads((site_folder / "manifest.json").read_text())
    return found


@pytest.fixture(scope="session")
def reader(site_folder: Path, manifest: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Open a page whose folder has the wheel and these files; the models are below ./models of the site.

    ``headers`` and ``prefix`` are those of the server.
    """
    places = {
        f"/pyodide/v{manifest['pyodide']}/full/": [site_folder / "vendor" / "pyodide", paths.DIST / "wheels"],
        "/npm/@pyscript/core@0.7.31/": [hosts.NODE_MODULES / "@pyscript" / "core"],
    }

    def to_file(route: Route) -> None:
        path = urlsplit(route.request.url).path
        (prefix,) = [prefix for prefix in places if path.startswith(prefix)]
        found = [folder / path.removeprefix(prefix) for folder in places[prefix]]
        if existing := [file for file in found if file.is_file()]:
            route.fulfill(path=existing[0], headers=ANYWHERE)
        else:
            route.fulfill(status=404, headers=ANYWHERE)

    @contextmanager
    def opened(
        context: BrowserContext,
        files: Mapping[str, str | Path],
        headers: Mapping[str, str] = ANYWHERE,
        prefix: str = "",
    ) -> Iterator[Page]:
        folder = tmp_path_factory.mktemp("page")
        shutil.copy(site_folder / manifest["wheel"], folder)
        for name, content in files.items():
            if isinstance(content, str):
                (folder / name).write_text(content, "utf-8")
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                if content.is_dir():  # by hard links where possible: the site has 140 MB
                    shutil.copytree(content, folder / name, copy_function=lambda a, b: link_or_copy(Path(a), Path(b)))
                else:
                    shutil.copy(content, folder / name)
        with serve(folder, headers=headers, prefix=prefix, wrap=with_models) as url:

            def to_model(route: Route) -> None:
                name, _, file = urlsplit(route.request.url).path.partition("/resolve/main/")
                to = f"{url}models/{name.rpartition('/')[2]}/{file}"
                route.fulfill(status=302, headers={**ANYWHERE, "Location": to})

            context.route("https://cdn.jsdelivr.net/**", to_file)
            context.route("https://huggingface.co/**", to_model)
            page = context.new_page()
            page.set_default_timeout(3 * SLOW)
            page.goto(url)
            yield page
            context.close()

    return opened
