"""The picture of the page for the README: docs/page.png, of the site with all models of texts loaded.

.cache/venv/bin/python -m scripts.page_picture
"""

from __future__ import annotations

from playwright.sync_api import sync_playwright

from scripts import paths
from scripts.browser import find_browser
from scripts.console import say
from scripts.models import load_models
from scripts.serve import serve
from scripts.site import build_site

PICTURE = paths.ROOT / "docs" / "page.png"
MODELS = ",".join(model.id for model in load_models() if "MiniLM" in model.title or "SPLADE" in model.title)


def draw() -> None:
    """Replace the picture."""
    found = find_browser()
    with serve(build_site()) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.path, args=list(found.flags), env={**found.environment()}
        )
        page = browser.new_page(viewport={"width": 1280, "height": 860}, reduced_motion="reduce", color_scheme="light")
        page.goto(f"{url}?load={MODELS}#sentences")
        count = MODELS.count(",") + 1
        page.wait_for_function(
            "(count) => document.querySelectorAll('.card[data-state=loaded]').length === count", arg=count
        )
        page.wait_for_selector("#sentences[data-state=done]")
        page.screenshot(path=PICTURE)
        browser.close()
    say(f"{PICTURE.relative_to(paths.ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    draw()
