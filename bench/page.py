"""Time from navigation to the first embedding, cold and reloaded."""

from __future__ import annotations

from bench.report import Figure, Row

ROUNDS = 3  # page loads of each kind
NAMES = {"usable": "usable", "first-embedding": "first embedding"}


def open_and_embed(page, url: str | None) -> dict[str, float]:
    """Navigate to ``url``, or reload; load MiniLM as soon as possible, and wait for its first embedding; gives ms."""
    page.goto(url + "?load=all-MiniLM-L6-v2#sentences") if url else page.reload()
    page.wait_for_function("performance.getEntriesByName('first-embedding').length", timeout=120_000)
    page.wait_for_selector("#devices [data-chosen]")
    durations = page.evaluate("names => names.map((n) => performance.getEntriesByName(n)[0].duration)", list(NAMES))
    return dict(zip(NAMES, durations, strict=True))


def measure_page(browser, url: str, version: str) -> list[Figure]:
    """Measure cold (an empty profile) and warm (the same tab reloaded) page loads."""
    times: dict[str, list[float]] = {}
    device = ""
    for _ in range(ROUNDS):
        context = browser.new_context(bypass_csp=True)  # for the wait below
        page = context.new_page()
        for kind in ("cold", "reloaded"):
            for name, duration in open_and_embed(page, url if kind == "cold" else None).items():
                times.setdefault(f"page, {kind}: {NAMES[name]}", []).append(duration)
        device = page.locator("#devices [data-chosen]").get_attribute("data-kind")
        context.close()
    return [
        Figure("page", name, 1, "ms", [Row("tensorcommons", version, device, samples_ms=samples)])
        for name, samples in times.items()
    ]
