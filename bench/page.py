"""Time to the first embedding: cold, reloaded and offline, beside a bare start of Pyodide with NumPy."""

from __future__ import annotations

from bench.report import PART, Figure, Row

ROUNDS = 3  # profiles; each is opened once cold, and then reloaded
RELOADS = 2  # of each kind
NAMES = {"usable": "usable", "first-embedding": "first embedding"}
BARE = "Pyodide and NumPy alone"
# A visit after the service worker has taken over: it is installed after the first models are loaded.
KEPT = """async () => {
  const { active } = await navigator.serviceWorker.ready;
  while (active.state !== "activated") {
    await new Promise((go) => active.addEventListener("statechange", go, { once: true }));
  }
}"""


def finished(page) -> dict[str, float]:
    """Wait for the first embedding; gives the ms of each name."""
    page.wait_for_function("performance.getEntriesByName('first-embedding').length", timeout=120_000)
    page.wait_for_selector("#devices [data-chosen]", state="attached")
    durations = page.evaluate("names => names.map((n) => performance.getEntriesByName(n)[0].duration)", list(NAMES))
    return dict(zip(NAMES, durations, strict=True))


def bare(page) -> dict[str, float]:
    """Wait for the bare page; gives its ms."""
    page.wait_for_function("performance.getEntriesByName('usable').length", timeout=120_000)
    return {"usable": page.evaluate("performance.getEntriesByName('usable')[0].duration")}


def measure_page(browser, url: str, version: str) -> list[Figure]:
    """Measure loads of the page from an empty profile, from the service worker, and without a network."""
    times: dict[str, dict[str, list[float]]] = {}
    device = ""

    def add(kind: str, found: dict[str, float], name: str = "tensorcommons") -> None:
        for key, duration in found.items():
            times.setdefault(f"page, {kind}: {NAMES[key]}", {}).setdefault(name, []).append(duration)

    for _ in range(ROUNDS):
        context = browser.new_context(bypass_csp=True)  # for the waits
        page = context.new_page()
        page.goto(f"{url}bench/bare.html")
        add("cold", bare(page), BARE)
        page.reload()
        add("reloaded", bare(page), BARE)
        context.close()
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto(f"{url}?load=all-MiniLM-L6-v2#sentences")
        add("cold", finished(page))
        page.evaluate(KEPT)
        for kind in ("reloaded", "offline"):
            context.set_offline(kind == "offline")
            for _ in range(RELOADS):
                page.reload()
                add(kind, finished(page))
        device = page.locator("#devices [data-chosen]").get_attribute("data-kind")
        context.close()
    return [
        Figure(
            "page",
            name,
            1,
            "ms",
            [
                Row(who, version, device if who == "tensorcommons" else PART, samples_ms=samples)
                for who, samples in rows.items()
            ],
        )
        for name, rows in times.items()
    ]
