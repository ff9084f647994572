"""Start of the engines that Debian packages: Firefox ESR, headless, and WebKitGTK's MiniBrowser on a virtual screen."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect

from e2e.engines.protocols import BiDi, WebDriver
from scripts import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from e2e.engines.protocols import Session

HOST = "127.0.0.1"
START_SECONDS = 120
LISTENS = "0A"  # the state of a socket in /proc/net/tcp

#: Ends the process group of its argument when its input ends: as this process closes it, or dies.
GUARD = ("sh", "-c", 'cat >/dev/null; kill -s KILL -- "-$1" 2>/dev/null', "guard")
WEBGPU = ("dom.webgpu.enabled", "dom.webgpu.workers.enabled", "gfx.webgpu.ignore-blocklist", "gfx.webgpu.force-enabled")


@contextmanager
def firefox(folder: Path, *, webgpu: bool = False, **more: bool | int) -> Iterator[Session]:
    """Run Firefox with a fresh profile in ``folder``; with ``webgpu`` on SwiftShader, the npm Chromium's adapter.

    ``more`` has other preferences, with two underscores for a point.
    """
    profile = folder / "profile"
    profile.mkdir()
    prefs: dict[str, bool | int] = dict.fromkeys(WEBGPU, True) if webgpu else {"dom.webgpu.enabled": False}
    prefs |= {name.replace("__", "."): value for name, value in more.items()}
    lines = [f'user_pref("{name}", {json.dumps(value)});' for name, value in prefs.items()]
    (profile / "user.js").write_text("\n".join(lines))
    env = {}
    if webgpu:  # the loader of Vulkan may be missing here, too; the other libraries are Firefox's own
        libraries = folder / "lib"
        libraries.mkdir()
        (libraries / "libvulkan.so.1").symlink_to(paths.CHROMIUM / "libvulkan.so.1")
        env = {"VK_DRIVER_FILES": f"{paths.CHROMIUM}/vk_swiftshader_icd.json", "LD_LIBRARY_PATH": str(libraries)}
    command = ["firefox-esr", "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0"]
    with running(command, folder / "firefox.log", env) as process:
        found = wait_for(process, folder / "firefox.log", r"WebDriver BiDi listening on (ws://\S+)")
        with connect(f"{found[1]}/session", max_size=None, close_timeout=1) as socket:
            yield BiDi(socket)


@contextmanager
def webkitgtk(folder: Path, *, optimizing: bool = False) -> Iterator[Session]:
    """Run MiniBrowser in automation mode, which stores nothing beyond the session, on an X server of its own.

    Without ``optimizing`` it lacks its optimizing compiler of WebAssembly, which takes 11 of the 20 seconds of CPU of a
    start of Python. That pays in a tab that runs for minutes.
    """
    with ExitStack() as stack:
        screen, log = folder / "screen", folder / "webkit.log"
        with screen.open("wb") as number:
            command = ["Xvfb", "-displayfd", str(number.fileno()), "-screen", "0", "1440x900x24", "-nolisten", "tcp"]
            server = stack.enter_context(running(command, folder / "xvfb.log", {}, pass_fds=[number.fileno()]))
        found = wait_for(server, screen, r"(\d+)\n")
        env = {"DISPLAY": f":{found[1]}", "HOME": str(folder), "GDK_BACKEND": "x11", "NO_AT_BRIDGE": "1"}
        env |= {} if optimizing else {"JSC_useOMGJIT": "0"}
        driver = stack.enter_context(running(["WebKitWebDriver", "--port=0"], log, env))
        session = WebDriver(HOST, wait_for_port(driver, log))
        stack.callback(session.close)
        yield session


@contextmanager
def running(command: list[Any], log: Path, env: Mapping[str, str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, with its output in ``log``. It ends with all that it started, also if this process is killed."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **env},
            start_new_session=True, **options,
        )  # fmt: skip
    guard = subprocess.Popen([*GUARD, str(process.pid)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield process
    finally:
        guard.communicate()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], log: Path, pattern: str) -> re.Match[str]:
    """Wait until the program has written a line that contains ``pattern``."""
    for _ in _attempts(process, log):
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found
    raise AssertionError


def wait_for_port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until the program listens, and return its port, which the system chose. /proc has the sockets of Linux."""
    own = Path(f"/proc/{process.pid}")
    for _ in _attempts(process, log):
        with suppress(OSError):  # a file is closed meanwhile, or the program has ended
            sockets = {str(link.readlink()) for link in (own / "fd").iterdir()}
            for line in (own / "net" / "tcp").read_text().splitlines()[1:]:
                _, address, _, state, *_, inode = line.split()[:10]
                if state == LISTENS and f"socket:[{inode}]" in sockets:
                    return int(address.rpartition(":")[2], 16)
    raise AssertionError


def _attempts(process: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        yield
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} did not start: {log.read_text(errors='replace')[-2000:]}")


@dataclass(frozen=True)
class Engine:
    """An engine: how it starts, the programs that it needs with their Debian packages, the devices beside the CPU."""

    start: Callable[[Path], AbstractContextManager[Session]]
    programs: Mapping[str, str]
    devices: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """The Debian packages that are not installed, or nothing."""
        return " ".join(package for program, package in self.programs.items() if shutil.which(program) is None)


FIREFOX = {"firefox-esr": "firefox-esr"}
WEBKITGTK = {"WebKitWebDriver": "webkit2gtk-driver", "Xvfb": "xvfb"}
ENGINES = {
    "firefox": Engine(firefox, FIREFOX),
    "firefox-webgpu": Engine(partial(firefox, webgpu=True), FIREFOX, ("webgpu",)),
    "firefox-private": Engine(partial(firefox, browser__privatebrowsing__autostart=True), FIREFOX),
    "firefox-full": Engine(partial(firefox, dom__quotaManager__temporaryStorage__fixedLimit=2048), FIREFOX),  # KiB
    "webkitgtk": Engine(webkitgtk, WEBKITGTK),
    "webkitgtk-optimizing": Engine(partial(webkitgtk, optimizing=True), WEBKITGTK),
}
