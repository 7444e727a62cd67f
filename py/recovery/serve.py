"""serve: the report, live, for this machine's own browser.  Only reads.

Who may ask: whoever has the address, which holds a random token; it is compared in constant time, and the name that the
browser asked for must be this machine's own, so that no web page can reach the server under a name that it has turned
to 127.0.0.1 (DNS rebinding).  GET and HEAD only.

Who has not shown that yet has a few seconds for it, and must not keep out who can: of too many such connections the
oldest is closed, and they take no place of those that are answered.

What is new: a thread looks at the times of the files that every writer of the suite touches, a few times a second, and
only while somebody is connected; the browser is told of a change (server-sent events) and fetches the page.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import io
import os
import secrets
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from recovery import overview, report, report_page, request, say
from recovery.errors import RecoveryError, Unavailable, UsageError, from_os_error
from recovery.request import Request, Verb, whole_number
from recovery.result import Result
from recovery.signals import plain as signal
from recovery.store import FileStore

#: Seconds between two looks for a change, and what a change is given to be complete.
LOOK, SETTLE = 0.4, 0.05
#: Seconds after which the page is made again though no file has changed, while tasks are claimed: owners die silently.
OWNERS = 30.0
#: How many times as long as the last look took passes before the next: who works all the time must not be slowed down.
REST = 3.0
#: Seconds between two signs of life to a browser: one that is gone is noticed then.
ALIVE = 15.0
#: Seconds in which a connection has to send all that it asks, and be let in.
ASKING = 5.0
#: Connections that are being answered at once, and that have not asked yet.
MOST, NOT_YET = 32, 32

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Pages:
    """The page as it is now, made at most once for each change, and who waits for the next one."""

    def __init__(self, root: str, since: float) -> None:
        self.root, self.since = root, since
        self.changed = threading.Condition()
        self.version = 0
        self.watching = 0  # browsers that are connected
        self.over = False
        self._making = threading.Lock()
        self._made: tuple[int, bytes] = (-1, b"")
        self._cost = 0.0
        self._claims = False

    def page(self) -> bytes:
        """The page, of this moment or of the last change."""
        with self._making:
            version = self.version
            if self._made[0] != version or not self.watching:
                began = time.monotonic()
                self._made = (version, self._look().encode("utf-8", "backslashreplace"))
                self._cost = time.monotonic() - began
            return self._made[1]

    def _look(self) -> str:
        store = FileStore(self.root, request.limits_from_environment("serve"))
        try:
            data = report.look(store, self.since, anywhere=True)
        finally:
            store.close()
        self._claims = any(one["claims"] for one in data["overview"]["agents"])
        return report_page.page_of(data, live=True)

    # --- what is new

    def wait(self, seen: int, seconds: float) -> int:
        """The number of the newest change, once it is another than `seen`, or after so many seconds."""
        with self.changed:
            self.changed.wait_for(lambda: self.version != seen or self.over, seconds)
            return self.version

    def watch(self) -> None:
        """Look for changes until it is `over`; for a thread."""
        state: Any = None
        made = time.monotonic()
        while True:
            with self.changed:
                if not self.watching and not self.over:
                    self.changed.wait_for(lambda: self.watching or self.over)
                    state = None
                if self.over:
                    return
            now = overview.marks(self.root)
            waited = time.monotonic() - made
            owners = self._claims and waited > max(OWNERS, self._cost * 1000)
            if state is not None and (now != state or owners) and waited > self._cost * REST:
                time.sleep(SETTLE)  # what is written in this tick of the clock has the same time
                made = time.monotonic()
                state = now
                self._tell()
            elif state is None:  # the page was made before there was anything to compare with
                state = now
                self._tell()
            with self.changed:
                self.changed.wait_for(lambda: self.over, LOOK)

    def _tell(self) -> None:
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    def connected(self, more: int) -> None:
        with self.changed:
            self.watching += more
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.over = True
            self.changed.notify_all()


#: What stands behind the token, with the slash that ends each address here; "": its own slash was lost.
_KNOWN = {"": "slash", "/": "page", "events/": "events"}
_EVENT = b"event: changed\ndata: %d\n\n"


class _Until(io.RawIOBase):
    """What comes from a connection until a moment; TimeoutError from then on, however much came before."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._end = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """Answers one GET or HEAD of /TOKEN/ or /TOKEN/events, and nothing else."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "recovery", ""
    timeout = 60  # seconds for each part of the answer
    server: Server

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Until(self.connection, ASKING))

    def do_GET(self) -> None:
        what = self._asked()
        if not what:
            return
        if what == "slash":
            self._answer(308, b"", Location=f"/{self.server.token}/")
            return
        if not self.server.admit(self.connection):
            self._refuse(503, f"{MOST} connections are open already: close a tab that shows this page, or wait.")
            return
        try:
            self._give(what)
        finally:
            self.server.let_go()

    def _give(self, what: str) -> None:
        pages = self.server.pages
        self.connection.settimeout(self.timeout)
        if what == "page":
            try:
                self._answer(200, pages.page(), "text/html; charset=utf-8")
            except (RecoveryError, OSError) as error:
                self._answer(503, f"{error}\n".encode("utf-8", "backslashreplace"))
        elif what == "events":
            self._events(pages)

    do_HEAD = do_GET

    def _asked(self) -> str:
        """What is asked for; "" where that was refused already."""
        if self.headers.get_all("Host", []) not in self.server.hosts:
            return self._refuse(421, "This server answers under its own address only.")
        above, token, *rest = (self.path.partition("?")[0] + "/").split("/", 2)
        if above or not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self.server.token.encode()):
            return self._refuse(403, "The address lacks its token; `recovery serve` printed all of it.")
        return _KNOWN.get(rest[0]) or self._refuse(404, "There is nothing.")

    def _refuse(self, code: int, text: str) -> str:
        self._answer(code, text.encode() + b"\n")
        return ""

    def _head(self, code: int, kind: str, **more: str) -> None:
        self.close_connection = True  # a connection that is kept without asking would keep others out
        self.send_response(code)
        for name, value in {
            **_HEADERS,
            "Content-Security-Policy": f"{report_page.policy(live=True)}; frame-ancestors 'none'",
            "Content-Type": kind,
            "Connection": "close",
            **more,
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def _answer(self, code: int, body: bytes, kind: str = "text/plain; charset=utf-8", **more: str) -> None:
        self._head(code, kind, **{"Content-Length": str(len(body)), **more})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _events(self, pages: Pages) -> None:
        """Tell of each change until the browser is gone."""
        self._head(200, "text/event-stream")
        if self.command == "HEAD":
            return
        seen = pages.version  # before it counts as connected: from then on each change is told
        pages.connected(1)
        try:
            self.wfile.write(b"retry: 1000\n" + _EVENT % seen)  # its page may be older than that
            while not pages.over:
                now = pages.wait(seen, ALIVE)
                self.wfile.write(b": alive\n\n" if now == seen else _EVENT % now)
                seen = now
        finally:
            pages.connected(-1)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """As ours: no page of the library's."""
        code = 405 if code == 501 else code  # which is what it is: we know the method, and don't allow it
        self._answer(code, f"{message or 'refused'}\n".encode("utf-8", "backslashreplace"))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the address of a request holds the token."""


class Server(ThreadingHTTPServer):
    """Listens on the loopback address of one family.  OSError where it can't."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, family: socket.AddressFamily, port: int, token: str, pages: Pages) -> None:
        self.address_family = family
        self.token, self.pages = token, pages
        self._places = threading.BoundedSemaphore(MOST)
        self._asking: dict[socket.socket, None] = {}  # who has not been let in yet, the oldest first
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1" if family == socket.AF_INET else "::1", port), Handler)
        names = [f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")]
        #: What the Host header may be, the port of http left out or not.
        self.hosts = [[name] for name in names + [one[:-3] for one in names if one.endswith(":80")]]

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.socket.bind(self.server_address)  # the library's asks a name server who we are
        self.server_address = self.socket.getsockname()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def answer_all(self) -> None:
        """Until the end; the library's own loop would wake up again and again."""
        while not self.pages.over:
            self.handle_request()
        self.server_close()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # which wakes who waits for it

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin with a connection; the oldest of too many that have not asked yet is closed for it."""
        with self._lock:
            if len(self._asking) >= NOT_YET:
                oldest = next(iter(self._asking))
                del self._asking[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread wakes, and closes it
            self._asking[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._forget(request)  # before its descriptor may be another's
        super().shutdown_request(request)

    def _forget(self, request: Any) -> None:
        with self._lock:
            self._asking.pop(request, None)

    def admit(self, request: socket.socket) -> bool:
        """Count a connection as one that is answered; whether there is a place.  `let_go` ends it."""
        self._forget(request)
        return self._places.acquire(blocking=False)

    def let_go(self) -> None:
        self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is none of our troubles; anything else is said."""
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            say.tell(f"a request failed: {type(error).__name__}: {error}")


class Serving:
    """Servers on both loopback addresses, where there are two, over one `Pages`."""

    def __init__(self, pages: Pages, port: int) -> None:
        """Unavailable (69): the port is taken."""
        self.pages, self.token = pages, secrets.token_urlsafe(24)
        self.servers: list[Server] = []
        try:
            self.servers.append(Server(socket.AF_INET, port, self.token, pages))
        except OSError as error:
            raise _taken(error, port) from None
        try:
            self.servers.append(Server(socket.AF_INET6, self.port, self.token, pages))
        except OSError as error:
            if port and error.errno == errno.EADDRINUSE:  # somebody else would answer under [::1]
                self.servers[0].server_close()
                raise _taken(error, port) from None

    @property
    def port(self) -> int:
        return self.servers[0].port

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.token}/"

    def start(self) -> None:
        for target in (*(server.answer_all for server in self.servers), self.pages.watch):
            threading.Thread(target=target, daemon=True).start()

    def close(self) -> None:
        self.pages.end()
        for server in self.servers:
            server.end()


def _taken(error: OSError, port: int) -> RecoveryError:
    if error.errno == errno.EADDRINUSE:
        hint = "another --port, or none: a free one is found"
        return Unavailable(f"port {port} is taken by another program", hint=hint)
    return from_os_error(error, f"could not listen on port {port}")


def serve(store: FileStore, port: int, since: float) -> Result:
    """Serve the page until TERM, INT or HUP.  Unavailable (69): the port is taken."""
    serving = Serving(Pages(os.path.abspath(store.root.path), since), port)
    stop = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # threads have it too: the signal waits until it is waited for
    serving.start()
    try:
        say.write(1, f"{serving.address}\n")
        say.tell("only this machine's own browser reaches it, and who has the whole address; Ctrl-C ends it")
        signal.sigwait(stop)
    finally:
        serving.close()
    return Result("", False, {"ok": True, "code": 0, "changed": False, "address": serving.address})


def _parse(asked: Request) -> list[Any]:
    asked.no_words()
    if asked.asked("json"):
        raise UsageError("serve answers browsers; `recovery report --json` is the same for programs", hint="see --help")
    port = asked.options.get("port")
    return [whole_number("--port", port, 65535) if port and port != "0" else 0, report.since_of(asked)]


VERB = Verb(
    {"--port": "port=", "--since": "since="},
    _parse,
    lambda store, asked, call: serve(store, *call),
    tries=False,
    reads=True,
)
