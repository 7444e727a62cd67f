"""serve: whom it answers, what it tells, how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery import overview, serve
from recovery.errors import Unavailable, UsageError
from recovery.flock import Limits
from recovery.request import Request
from recovery.store import FileStore
from support import busy
from support.meeting import until
from support.workspace import SUITE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return busy.make(tmp_path / "work space", time.time())


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[serve.Serving]:
    monkeypatch.setattr(serve, "LOOK", 0.02)
    serving = serve.Serving(serve.Pages(str(root), 86400.0), 0)
    serving.start()
    yield serving
    serving.close()


class Answer:
    def __init__(self, found: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = found.status, dict(found.getheaders()), found.read()


def ask(
    server: serve.Serving, path: str, method: str = "GET", host: str | None = None, to: str = "127.0.0.1"
) -> Answer:
    """One request to the server, as a browser makes it, or not."""
    connection = http.client.HTTPConnection(to, server.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"127.0.0.1:{server.port}" if host is None else host)
        connection.endheaders()
        return Answer(connection.getresponse())
    finally:
        connection.close()


def test_who_has_the_whole_address_gets_the_page_which_nobody_may_keep_or_frame(server: serve.Serving) -> None:
    found = ask(server, f"/{server.token}/")
    assert found.status == 200
    assert b"Needs you now" in found.body
    assert found.headers["Content-Type"] == "text/html; charset=utf-8"
    assert found.headers["Cache-Control"] == "no-store"
    assert found.headers["X-Content-Type-Options"] == "nosniff"
    assert found.headers["Referrer-Policy"] == "no-referrer"
    policy = found.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("; frame-ancestors 'none'")
    assert "Access-Control-Allow-Origin" not in found.headers
    assert "Python" not in found.headers["Server"]


def test_without_the_token_nothing_is_answered(server: serve.Serving) -> None:
    short = server.token[:-1]
    dots, whole = f"/%2e/{server.token}/", f"http://127.0.0.1/{server.token}/"
    for path in ("/", "/events", f"/{short}/", f"/{server.token}x/", dots, whole):
        found = ask(server, path)
        assert found.status == 403, path
        assert b"Needs" not in found.body
    assert len(server.token) >= 32
    assert server.token != serve.Serving(serve.Pages("/nowhere", 60), 0).token


def test_under_another_name_nothing_is_answered_so_that_no_web_page_gets_in(server: serve.Serving) -> None:
    path, port = f"/{server.token}/", server.port
    other = f"127.0.0.1.evil.example:{port}"
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", other, ""):
        assert ask(server, path, host=host).status == 421, host
    for host in (f"localhost:{port}", f"[::1]:{port}"):
        assert ask(server, path, host=host).status == 200, host


def test_only_get_and_head_are_answered(server: serve.Serving) -> None:
    path = f"/{server.token}/"
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"):
        assert ask(server, path, method).status == 405, method
    found = ask(server, path, "HEAD")
    assert (found.status, found.body) == (200, b"")
    assert int(found.headers["Content-Length"]) > 10_000
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(f"HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n".encode())
        assert raw.makefile("rb").read().endswith(b"\r\n\r\n"), "nothing behind the headers"
    for other in ("x", "events/x", "../", "page.html"):
        assert ask(server, path + other).status == 404, other


def test_an_address_that_has_lost_its_last_slash_leads_to_the_page(server: serve.Serving) -> None:
    found = ask(server, f"/{server.token}")
    assert (found.status, found.headers["Location"]) == (308, f"/{server.token}/")
    assert ask(server, f"/{server.token[:-1]}").status == 403
    assert "Location" not in ask(server, f"/{server.token[:-1]}").headers


def test_it_listens_on_this_machines_own_addresses_alone(server: serve.Serving) -> None:
    assert [one.server_address[0] for one in server.servers][:1] == ["127.0.0.1"]
    assert {str(one.server_address[0]) for one in server.servers} <= {"127.0.0.1", "::1"}
    if len(server.servers) == 2:
        assert ask(server, f"/{server.token}/", host=f"[::1]:{server.port}", to="::1").status == 200


def connect(server: serve.Serving) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def test_who_connects_and_says_nothing_does_not_keep_out_who_has_the_token(
    server: serve.Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "ASKING", 3600.0)
    idle = [connect(server) for _ in range(serve.MOST + serve.NOT_YET + 8)]
    idle[-1].sendall(f"GET /{server.token}/ HTTP/1.1\r\nHost: ".encode())
    assert ask(server, f"/{server.token}/").status == 200
    assert idle[0].recv(1) == b"", "the oldest was closed for it"
    for one in idle:
        one.close()


def test_who_does_not_come_to_the_end_of_what_he_asks_is_closed(
    server: serve.Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often he sends a little: the time is for all of it."""
    monkeypatch.setattr(serve, "ASKING", 0.3)
    silent, slow = connect(server), connect(server)
    slow.sendall(b"GET / HTTP/1.1\r\n")
    slow.settimeout(0.01)
    began, found = time.monotonic(), b"?"
    while found == b"?" and time.monotonic() - began < 20:
        try:
            slow.sendall(b"x")
            found = slow.recv(1)
        except TimeoutError:
            continue
        except ConnectionError:
            found = b""
    assert found == b""
    assert silent.recv(1) == b""
    silent.close()
    slow.close()


def test_the_owner_of_too_many_pages_is_told_so(server: serve.Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    listeners = [Listener(server) for _ in range(serve.MOST)]
    for one in listeners:
        one.changed(-1)
    found = ask(server, f"/{server.token}/")
    assert found.status == 503
    assert b"close a tab" in found.body
    assert ask(server, "/").status == 403
    listeners.pop().close()

    def again() -> bool:
        server.pages._tell()  # which is how a server notices that somebody is gone
        return ask(server, f"/{server.token}/").status == 200

    until(again, "there is a place again")
    for one in listeners:
        one.close()


class Listener:
    """A browser that is connected for news."""

    def __init__(self, server: serve.Serving) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        request = f"GET /{server.token}/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
        self.socket.sendall(request.encode())
        self.stream = self.socket.makefile("rb")

    def changed(self, after: int) -> None:
        """Wait until a change with a higher number is told."""
        while True:
            word, _, number = self.stream.readline().partition(b": ")
            if word == b"data" and int(number) > after:
                return

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


def test_a_change_by_whomever_is_told_to_everybody_who_is_connected(server: serve.Serving, root: Path) -> None:
    ask(server, f"/{server.token}/")
    listeners = [Listener(server), Listener(server)]
    for one in listeners:
        one.changed(-1)  # its page may be older than the connection
    until(lambda: server.pages.version > 0, "there is something to compare with")
    before = server.pages.version
    outbox = root / "postbox" / "CA" / "outbox.json"
    outbox.write_text(outbox.read_text().replace('"tasks": []', '"tasks": [{"task_id": "NEW-1"}]'))
    for one in listeners:
        one.changed(before)
    assert b"NEW-1" in ask(server, f"/{server.token}/").body
    before = server.pages.version
    FileStore(str(root), Limits()).append("logs/recovery/T-2_recovery.jsonl", {"txid": "x", "task_id": "T-2"})
    for one in listeners:
        one.changed(before)
        one.close()


def test_while_nobody_is_connected_nothing_is_looked_at(
    server: serve.Serving, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    marks = overview.marks

    def looking(path: str) -> object:
        looks.append(path)
        return marks(path)

    monkeypatch.setattr(serve, "LOOK", 0.0)
    monkeypatch.setattr(overview, "marks", looking)
    first = ask(server, f"/{server.token}/").body
    assert looks == []
    (root / "postbox" / "CA" / "outbox.json").write_text('{"tasks": [{"task_id": "NEW-2"}]}')
    assert b"NEW-2" not in first
    for _ in range(10):  # whoever looked would have, by then
        assert b"NEW-2" in ask(server, f"/{server.token}/").body, "made anew, as nothing tells that it is still true"
    assert looks == []


def test_a_workspace_that_is_gone_is_said_and_the_server_lives(server: serve.Serving, root: Path) -> None:
    away = root.with_name("away")
    root.rename(away)
    found = ask(server, f"/{server.token}/")
    assert found.status == 503
    assert b"is not a folder" in found.body
    away.rename(root)
    assert ask(server, f"/{server.token}/").status == 200


def test_a_port_that_is_taken_is_a_clear_refusal(server: serve.Serving, root: Path) -> None:
    with pytest.raises(Unavailable, match=f"port {server.port} is taken"):
        serve.Serving(serve.Pages(str(root), 60.0), server.port)


def test_port_0_is_one_that_is_free_as_everywhere() -> None:
    assert serve.VERB.parse(Request("serve", serve.VERB, ["--port", "0"]))[0] == 0
    assert serve.VERB.parse(Request("serve", serve.VERB, []))[0] == 0


@pytest.mark.parametrize("words", [["--port", "-1"], ["--port", "65536"], ["--port", "x"], ["--json"], ["here"]])
def test_what_makes_no_sense_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        serve.VERB.parse(Request("serve", serve.VERB, words))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_when_it_is_told_to_and_had_changed_nothing(root: Path, number: int) -> None:
    before = sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))
    process = subprocess.Popen(
        [str(SUITE / "bin" / "recovery"), "-C", str(root), "serve"],
        env={**os.environ, "RECOVERY_PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    port = int(address.split(":")[2].split("/")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", address.split(str(port), 1)[1])
    assert connection.getresponse().status == 200
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert out == ""
    assert "Traceback" not in err
    assert sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*")) == before
