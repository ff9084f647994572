"""Tabs of the page: a fresh one per test, or one with everything loaded for tests that only look and type."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from e2e.conftest import FAILED, NO_SERVICE_WORKER
from e2e.page.driver import ALL, Tab
from e2e.page.faults import Faults
from scripts import paths
from scripts.serve import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext


@pytest.fixture
def tab(context: BrowserContext) -> Iterator[Tab]:
    """A new tab; the test fails if its console has an error or a warning."""
    fresh = Tab(context.new_page())
    yield fresh
    assert fresh.errors == []


@pytest.fixture
def troubled(context: BrowserContext) -> Tab:
    """A tab for tests of failures, where the browser reports a 404 or a refused script as an error."""
    return Tab(context.new_page())


class SharedTab:
    """One tab for several tests, with everything loaded or nothing, replaced after a failure."""

    def __init__(self, browser: Browser, site: str, load: str) -> None:
        self._browser, self._site, self._load = browser, site, load
        self._tab: Tab | None = None

    @contextmanager
    def lent(self, test: pytest.Item) -> Iterator[Tab]:
        """Provide the tab for one test, which fails if the console has an error or a warning."""
        tab = self._tab = self._tab or self._open()
        yield tab
        # The truncation of a long text is logged once per tokenizer.
        errors = [error for error in tab.errors if "is longer than the" not in error]
        if errors or FAILED in test.stash:
            self.close()
        assert errors == []

    def close(self) -> None:
        if self._tab is not None:
            self._tab.page.context.close()
            self._tab = None

    def _open(self) -> Tab:
        context = self._browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        context.add_init_script(NO_SERVICE_WORKER)
        tab = Tab(context.new_page()).open(self._site, load=self._load)
        if self._load == "all":
            for model_id in ALL:
                tab.wait_card(model_id, "loaded")
            for panel in ("sentences", "pair"):
                tab.wait_panel(panel)
        return tab


@pytest.fixture(scope="session")
def loaded_tab(browser: Browser, site: str) -> Iterator[SharedTab]:
    shared = SharedTab(browser, site, "all")
    yield shared
    shared.close()


@pytest.fixture
def loaded(loaded_tab: SharedTab, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A tab with all models loaded and both panels done, for tests that look and type."""
    with loaded_tab.lent(request.node) as tab:
        yield tab


@pytest.fixture(scope="session")
def empty_tab(browser: Browser, site: str) -> Iterator[SharedTab]:
    shared = SharedTab(browser, site, "none")
    yield shared
    shared.close()


@pytest.fixture
def empty(empty_tab: SharedTab, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A tab without models; those loaded by a test are unloaded after it."""
    with empty_tab.lent(request.node) as tab:
        yield tab
        if FAILED not in request.node.stash:
            tab.unload_all()


@pytest.fixture
def faults() -> Faults:
    """The faults of `faulty_site`."""
    return Faults()


@pytest.fixture
def faulty_site(site_folder: Path, faults: Faults) -> Iterator[str]:
    """The site on a server with faults chosen by the test."""
    with serve(site_folder, wrap=faults.wrap) as url:
        yield url
        faults.mend()


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """The folder of screenshots for people."""
    folder = paths.CACHE / "artefacts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
