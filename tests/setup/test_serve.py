"""The local server: types, ranges, headers of every response, busy ports, paths below the root."""

from __future__ import annotations

import http.client
import socket
import sys
import urllib.parse

import pytest

from scripts import serve as serving
from scripts.console import SetupError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "index.html").write_text("<!doctype html><title>page</title>")
    for suffix in serving.MIME_TYPES:
        (tmp_path / f"file{suffix}").write_bytes(b"0123456789")
    return tmp_path


def get(url, path="", **headers):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        connection.request("GET", parts.path + path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_content_types_are_those_that_browsers_require(folder):
    with serving.serve(folder) as url:
        kinds = {suffix: get(url, f"file{suffix}")[1].get_content_type() for suffix in serving.MIME_TYPES}
    assert kinds == serving.MIME_TYPES


def test_a_range_request_returns_that_range(folder):
    with serving.serve(folder) as url:
        status, headers, body = get(url, "file.safetensors", Range="bytes=2-4")
    assert (status, body, headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")


def test_an_unchanged_file_is_not_sent_again(folder):
    with serving.serve(folder) as url:
        etag = get(url, "file.wasm")[1]["ETag"]
        assert get(url, "file.wasm", **{"If-None-Match": etag})[0] == 304


@pytest.mark.parametrize("path", ["", "file.js", "missing.js", "%2e%2e/secret"])
def test_every_response_has_the_policy(folder, path):
    with serving.serve(folder) as url:
        status, headers, _ = get(url, path)
    assert status in (200, 404)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';")
    assert "unsafe-inline" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("127.0.0.1:8000", 200), ("localhost:1", 200), ("evil.example", 400), ("evil.example:80", 400)]
    + [("127.0.0.1.evil.example", 400), ("localhost.evil.example", 400), ("", 400), ("[::1]", 400)],
)
def test_only_requests_for_local_hosts_are_answered(folder, host, status):
    with serving.serve(folder) as url:
        answered, headers, body = get(url, Host=host)
        assert answered == status
        assert b"page" in body or status == 400
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_files_above_the_folder_are_not_served(folder):
    (folder.parent / "secret").write_text("secret")
    with serving.serve(folder) as url:
        for path in ("../secret", "%2e%2e/secret", "..%2fsecret"):
            assert get(url, path)[0] == 404


def test_serves_below_a_path_like_github_pages(folder):
    with serving.serve(folder, prefix="/tensorcommons") as url:
        assert url.endswith("/tensorcommons/")
        assert get(url)[0] == 200
        assert get(url, "../file.js")[0] == 404


def test_an_app_can_wrap_the_server(folder):
    def wrap(app):
        async def faulty(scope, receive, send):
            if scope["path"] == "/file.js":
                await send({"type": "http.response.start", "status": 503, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            else:
                await app(scope, receive, send)

        return faulty

    with serving.serve(folder, wrap=wrap) as url:
        assert get(url, "file.js")[0] == 503
        assert get(url, "file.mjs")[0] == 200


def test_a_busy_port_is_replaced_by_the_next_with_a_message(capsys):
    with socket.socket() as busy:
        busy.bind((serving.HOST, 0))
        busy.listen()
        port = busy.getsockname()[1]
        with serving.listen(port) as listener:
            assert port < listener.getsockname()[1] < port + serving.PORTS_TRIED
    assert f"port {port} is busy, trying the next\n" in capsys.readouterr().out


def test_busy_ports_are_an_error():
    with socket.socket() as busy:
        busy.bind((serving.HOST, 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(SetupError, match=rf"ports {port} to {port} are all busy: choose another with PORT="):
            serving.listen(port, tried=1)


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_an_invalid_port_is_an_error_of_one_sentence(port):
    with pytest.raises(SetupError, match=f"{port} is no port: choose one from 1 to 65535 with PORT="):
        serving.listen(port)


def test_no_browser_opens_without_a_screen(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not serving.has_screen()
    monkeypatch.setenv("DISPLAY", ":0")
    assert serving.has_screen()
    monkeypatch.setenv("CI", "true")
    assert not serving.has_screen()
