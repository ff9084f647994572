"""tensorcommons.mjs in other engines than Chromium: two tabs with one runtime, and what a closed tab releases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from e2e.engines.tab import Tab

if TYPE_CHECKING:
    from e2e.engines.conftest import Server
    from e2e.engines.protocols import Session

CONNECT = """async (task, model) => {
  const { connect } = await import("/tensorcommons.mjs");
  globalThis.tc = await connect({ shared: true, devices: ["cpu"] });
  const pipe = await tc.pipeline(task, model);
  globalThis.ask = () => pipe({ text: "It never rains.", text_pair: "It is dry." }, { top_k: null });
  return [tc.shared, tc.reason, await ask()];
}"""
NAMES = "() => tc.report().then((report) => report.models.map((model) => model.name).sort())"


@pytest.mark.parametrize("name", ["firefox", "webkitgtk"], indirect=True)
def test_tabs_share_a_runtime(session: Session, server: Server, tab: Tab) -> None:
    def connected(place: Tab, task: str, model: str) -> list[Any]:
        found: list[Any] = place.open(f"{server.url}empty").evaluate(CONNECT, task, f"/models/{model}")
        assert found[:2] == [True, ""]
        return list(found[2])

    labels = connected(tab, "text-classification", "splade-tiny-nli")
    assert sum(each["score"] for each in labels) == pytest.approx(1, abs=1e-5) and len(labels) == 3
    other = Tab(session)
    assert connected(other, "text-classification", "splade-tiny-nli") == labels
    other.evaluate("() => tc.pipeline('sparse-embedding', '/models/splade-tiny').then(() => null)")
    assert tab.evaluate(NAMES) == ["splade-tiny", "splade-tiny-nli"]
    other.close()
    tab.wait(f"async () => (await ({NAMES})()).length === 1")
    assert tab.evaluate("() => ask()") == labels
