"""The Content-Security-Policy: enforced in the page and in the worker, with a single relaxation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2e.page.driver import Tab

INLINE = """() => { const script = document.createElement("script"); script.textContent = "window.ran = true";
  document.head.append(script); return Boolean(window.ran); }"""


# In a separate task, because evaluations by a debugger, such as this one, are exempt from the policy.
FROM_TEXT = """() => new Promise((resolve) => setTimeout(() => {
  try { resolve(new Function("return 'ran'")()); } catch (error) { resolve(error.name); } }))"""


def test_the_policy_is_strict_in_page_and_worker_and_all_requests_stay_on_the_site(troubled: Tab, site: str) -> None:
    asked: list[str] = []
    troubled.page.context.on("request", lambda request: asked.append(request.url))
    with troubled.page.expect_response("**/worker.js") as answer:
        troubled.open(site, load="splade-tiny")
    assert "'unsafe-eval'" not in answer.value.headers["content-security-policy"]
    troubled.wait_card("splade-tiny", "loaded")
    (worker,) = troubled.page.workers
    assert worker.evaluate(FROM_TEXT) == "EvalError"
    assert asked
    assert [url for url in asked if not url.startswith(site)] == []

    policy = troubled.page.locator('meta[http-equiv="Content-Security-Policy"]').get_attribute("content")
    assert policy
    directives = {name: values for name, *values in (part.split() for part in policy.split(";"))}
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == ["'self'", "'wasm-unsafe-eval'"]
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy
    assert [error for error in troubled.errors if "Content Security Policy" not in error] == []
    assert troubled.evaluate(INLINE) is False
    assert troubled.evaluate(FROM_TEXT) == "EvalError"
    assert any("Content Security Policy" in error for error in troubled.errors), "the browser must report the refusal"
