"""Tabs of the page: a fresh one a test, one that has everything loaded for the tests that only look and type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.conftest import FAILED
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
    """A tab that is not open anywhere yet; the test fails if its console says an error or a warning."""
    fresh = Tab(context.new_page())
    yield fresh
    assert fresh.errors == []


@pytest.fixture
def troubled(context: BrowserContext) -> Tab:
    """A tab for tests of failures: the browser itself reports a 404 or a refused script as an error."""
    return Tab(context.new_page())


class LoadedTabs:
    """One tab with all models loaded and both panels done, replaced after a failure."""

    def __init__(self, browser: Browser, site: str) -> None:
        self._browser, self._site = browser, site
        self._tab: Tab | None = None

    def current(self) -> Tab:
        if self._tab is None:
            context = self._browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
            self._tab = Tab(context.new_page()).open(self._site, load="all")
            for model_id in ALL:
                self._tab.wait_card(model_id, "loaded")
            for panel in ("sentences", "pair"):
                self._tab.wait_panel(panel)
        return self._tab

    def close(self) -> None:
        if self._tab is not None:
            self._tab.page.context.close()
            self._tab = None


@pytest.fixture(scope="module")
def loaded_tabs(browser: Browser, site: str) -> Iterator[LoadedTabs]:
    tabs = LoadedTabs(browser, site)
    yield tabs
    tabs.close()


@pytest.fixture
def loaded(loaded_tabs: LoadedTabs, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """The tab of the module that has all models loaded."""
    tab = loaded_tabs.current()
    yield tab
    # A long text is cut, which is logged once a tokenizer.
    errors = [error for error in tab.errors if "is longer than the" not in error]
    if errors or FAILED in request.node.stash:
        loaded_tabs.close()
    assert errors == []


@pytest.fixture
def faults() -> Faults:
    """The faults of `faulty_site`."""
    return Faults()


@pytest.fixture
def faulty_site(site_folder: Path, faults: Faults) -> Iterator[str]:
    """The site on a server whose faults the test chooses."""
    with serve(site_folder, wrap=faults.wrap) as url:
        yield url
        faults.mend()


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept for a person to look at."""
    folder = paths.CACHE / "artefacts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
