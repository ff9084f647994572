"""The Content-Security-Policy: enforced in the page and in the worker, with a single relaxation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.serve import HEADERS, serve

if TYPE_CHECKING:
    from pathlib import Path

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
    assert [worker.evaluate(FROM_TEXT) for worker in troubled.page.workers] == ["EvalError", "EvalError"]
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


def test_a_policy_without_webassembly_is_named_as_the_reason(troubled: Tab, site_folder: Path) -> None:
    strict = {name: value.replace(" 'wasm-unsafe-eval'", "") for name, value in HEADERS.items()}
    with serve(site_folder, headers=strict) as url:
        troubled.page.goto(url)
        troubled.wait_booted("failed")
    reason = troubled.page.locator("#boot-failed").inner_text()
    assert "This page cannot run WebAssembly" in reason
    assert "add 'wasm-unsafe-eval'" in reason
