"""The console: Python with the live objects of the page, by keyboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from e2e.page.driver import HEADS

if TYPE_CHECKING:
    from e2e.page.driver import Tab


def test_python_runs_by_keyboard_with_the_objects_of_the_page(empty: Tab) -> None:
    empty.load(HEADS[0])
    empty.show("console")
    field = empty.page.get_by_role("textbox", name="Python")
    log = empty.page.get_by_role("log")
    field.fill("x = list(models)")
    field.press("Enter")
    expect(log.locator("pre")).to_have_text(["x = list(models)"])
    expect(field).to_have_value("")
    field.press_sequentially("for name in x:")
    field.press("Shift+Enter")
    field.press_sequentially("    print(name, models[name].device.kind)")
    field.press("Enter")
    result = log.locator("pre[data-kind=result]")
    expect(result.last).to_contain_text(HEADS[0])
    field.fill("await asyncio.sleep(0)")
    field.press("Enter")
    failed = log.locator("pre[data-kind=failed]")
    expect(failed).to_contain_text("NameError: name 'asyncio' is not defined")
    field.press("ArrowUp")
    expect(field).to_have_value("await asyncio.sleep(0)")
    field.fill("import asyncio; await asyncio.sleep(60)")
    field.press("Enter")
    empty.page.get_by_role("button", name="Stop").click()
    expect(failed.last).to_have_text("Stopped.")
    expect(field).to_be_focused()
    field.fill("manager.report().unique_weight_bytes")
    field.press("Enter")
    expect(result.last).to_have_text(
        str(empty.evaluate("() => tc.report().then((report) => report.unique_weight_bytes)"))
    )
    assert empty.audit() == []
