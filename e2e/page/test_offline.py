"""Visits without a network: the service worker has one whole version of the site, and the next at a later visit."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from e2e.page.driver import Tab
from scripts.serve import HOST, serve
from scripts.site import WORKER, service_worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

INSTALLED = "() => navigator.serviceWorker.ready.then(() => true)"
# Look for the next version, and wait until it is installed or the attempt has ended. The browser looks, too, some time
# after a visit; a call of `update` joins a look that is under way, perhaps at earlier files, so the second call counts.
UPDATE = """async () => {
  const registration = await navigator.serviceWorker.ready;
  const look = async () => {
    await registration.update();
    const next = registration.installing ?? registration.waiting;
    while (next?.state === "installing") {
      await new Promise((go) => next.addEventListener("statechange", go, { once: true }));
    }
    return next?.state ?? "none";
  };
  await look().catch(() => {});
  return look();
}"""


@contextmanager
def kept(port: int) -> Iterator[None]:
    """Keep a port, at which nothing answers, from other processes; a server of this one can use it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, port))
        yield


def publish(site: Path, word: str) -> None:
    """Replace two files of the site by another version."""
    for name in ("index.html", "format.js"):
        text = (site / name).read_text("utf-8")
        (site / name).unlink()  # it may be a link to the original
        (site / name).write_text(text.replace("</title>", f" {word}</title>") + f"\n<!-- {word} -->" * (name[0] == "i"))
    kept = {path.relative_to(site).as_posix(): path for path in site.rglob("*") if path.is_file()}
    kept.pop(WORKER)
    (site / WORKER).unlink()
    (site / WORKER).write_bytes(service_worker(kept))


def test_a_second_visit_needs_no_network_and_versions_never_mix(
    browser: Browser, site_folder: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    ignored = shutil.ignore_patterns("models")
    shutil.copytree(site_folder, site, copy_function=os.link, ignore=ignored)
    context = browser.new_context()
    tab = Tab(context.new_page())
    with serve(site) as url:
        tab.open(url)
        assert tab.evaluate(INSTALLED)
        title = tab.page.title()
    port = urlsplit(url).port or 0
    with kept(port):
        tab.page.reload()  # nothing serves it now
        tab.wait_booted()
        assert tab.page.title() == title
        with serve(site, port) as again:
            assert again == url
            publish(site, "next")
            (site / "format.js").write_text((site / "format.js").read_text("utf-8") + "\n// not uploaded yet")
            assert tab.evaluate(UPDATE) == "redundant", "a version of which a file differs was installed"
            tab.page.reload()
            assert tab.page.title() == title
            publish(site, "again")
            assert tab.evaluate(UPDATE) == "installed"
            tab.page.reload()
            tab.wait_booted()
            assert tab.page.title() == f"{title} next again"
            assert (
                tab.evaluate("async () => (await caches.keys()).filter((name) => name.includes(' site ')).length") == 1
            )
        tab.page.reload()
        assert tab.page.title() == f"{title} next again"
    context.close()
