"""The content security policy: in force in the page and in the worker, with one relaxation only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2e.page.driver import Tab

INLINE = """() => { const script = document.createElement("script"); script.textContent = "window.ran = true";
  document.head.append(script); return Boolean(window.ran); }"""


# In a task of its own: a debugger's evaluation, as this is, may evaluate whatever the policy says.
FROM_TEXT = """() => new Promise((resolve) => setTimeout(() => {
  try { resolve(new Function("return 'ran'")()); } catch (error) { resolve(error.name); } }))"""


def test_the_policy_of_the_page_is_strict(troubled: Tab, site: str) -> None:
    policy = troubled.open(site).page.locator('meta[http-equiv="Content-Security-Policy"]').get_attribute("content")
    assert policy
    directives = {name: values for name, *values in (part.split() for part in policy.split(";"))}
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == ["'self'", "'wasm-unsafe-eval'"]
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy
    assert troubled.evaluate(INLINE) is False
    assert troubled.evaluate(FROM_TEXT) == "EvalError"
    assert any("Content Security Policy" in error for error in troubled.errors), "the browser says that it refused"


def test_the_worker_runs_under_the_header(tab: Tab, site: str) -> None:
    with tab.page.expect_response("**/worker.js") as answer:
        tab.open(site)
    policy = answer.value.headers["content-security-policy"]
    assert "'unsafe-eval'" not in policy
    (worker,) = tab.page.workers
    assert worker.evaluate(FROM_TEXT) == "EvalError"


def test_nothing_leaves_the_site(tab: Tab, site: str) -> None:
    asked: list[str] = []
    tab.page.context.on("request", lambda request: asked.append(request.url))
    tab.open(site, load="splade-tiny")
    tab.wait_card("splade-tiny", "loaded")
    assert asked
    assert [url for url in asked if not url.startswith(site)] == []
