"""Fixtures of all browser tests: the built site on a local server, one real browser, a fresh context per test.

`TENSORCOMMONS_SITE=folder` tests a site that was built elsewhere; `TENSORCOMMONS_BROWSER` selects the browser.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from e2e.lab import lab
from e2e.page.driver import SLOW
from scripts import paths
from scripts.browser import find_browser
from scripts.serve import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from playwright.sync_api import Browser, BrowserContext, Playwright


__all__ = ["lab"]

FAILED = pytest.StashKey[bool]()
#: For browsers whose pages serve one or two tests: V8's optimizing compiler takes 2 of the 6 seconds of CPU of a
#: start, which pays only in the browser of the lab, which runs for minutes.
NO_OPTIMIZING = "--js-flags=--no-wasm-tier-up --no-wasm-dynamic-tiering"  # the first alone has no effect
#: In tests of failures the server is to answer, not the service worker of an earlier visit.
NO_SERVICE_WORKER = "delete globalThis.Navigator?.prototype.serviceWorker"
#: SwiftShader compiles a shader with workgroup memory in a tenth of the time if Chromium's shader compiler adds
#: statements that zero it, instead of a declaration. The memory is zero either way.
ZERO_BY_STATEMENTS = "--disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension"
# Files that take minutes, the longest first: a worker takes the next file, and none should begin a long one last.
LONGEST_FIRST = (
    "models/test_models.py",
    "ops/test_ops.py",
    "engines/test_page.py",
    "engines/test_cases.py",
    "sharing/test_sharing.py",
    "hosts/test_runtimes.py",
    "hosts/test_deno.py",
    "ops/test_webnn.py",
    "models/test_webnn.py",
    "page/test_dashboard.py",  # and those that share its tab
    "page/test_panels.py",
    "docs/test_programs.py",
    "docs/test_pages.py",
    "page/test_devices.py",
    "cache/test_reload.py",
    "page/test_boot.py",
    "hosts/test_notebooks.py",
)


# Files of tests that look at one tab with everything loaded: one worker opens it.
OF_THE_LOADED_TAB = ("e2e/page/test_dashboard.py", "e2e/page/test_look.py", "e2e/page/test_results.py")


class ByTab(LoadFileScheduling):
    """Give each file to one worker, and the files that share a tab to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return OF_THE_LOADED_TAB[0] if file in OF_THE_LOADED_TAB else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run one worker more than there are cores: each of them waits for its browser, for servers and for time limits."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByTab:
    """Schedule as `--dist=loadfile` does, but by tab."""
    return ByTab(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest files to the front, after those of tests/, which keep their order."""
    folder = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        if not item.path.is_relative_to(folder):
            return -1
        name = item.path.relative_to(folder).as_posix()
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record on the test that it failed, so that fixtures replace the objects that it shared."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def site_folder() -> Path:
    """The folder that `make site` built."""
    folder = Path(os.environ.get("TENSORCOMMONS_SITE", paths.SITE))
    if not (folder / "manifest.json").is_file():
        pytest.fail(f"{folder} has no built site: run 'make site' first")
    return folder


@pytest.fixture(scope="session")
def site(site_folder: Path) -> Iterator[str]:
    """The URL of the site, served under the strict policy, with a trailing slash."""
    with serve(site_folder) as url:
        yield url


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """Playwright, for tests that launch their own browser."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def launch(playwright: Playwright) -> Callable[..., Browser]:
    """Launch a browser with WebGPU and WebNN enabled, and more flags."""

    def launched(*flags: str) -> Browser:
        found = find_browser()
        return playwright.chromium.launch(
            executable_path=found.path,
            args=[*found.flags, ZERO_BY_STATEMENTS, *flags],
            env={**found.environment()},
            timeout=SLOW,
        )

    return launched


@pytest.fixture(scope="session")
def browser(launch: Callable[..., Browser]) -> Iterator[Browser]:
    """The browser for tests of the page, one per worker."""
    launched = launch(NO_OPTIMIZING)
    yield launched
    launched.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A context with empty caches and storage."""
    fresh = browser.new_context(viewport={"width": 1440, "height": 900})
    fresh.set_default_timeout(SLOW)
    fresh.add_init_script(NO_SERVICE_WORKER)
    yield fresh
    fresh.close()
