"""Escalations are told: by real commands and a real HTTP server, through kill -9, once."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recovery import escalations, layout
from recovery.errors import LockTimeout, NotFound, UsageError
from recovery.flock import Limits
from recovery.notify import (
    NOTIFICATIONS,
    CommandNotifier,
    LogNotifier,
    WebhookNotifier,
    from_environment,
    notify,
)
from recovery.session import Session
from recovery.store import FileStore
from support.meeting import locked, until

PY = str(Path(__file__).resolve().parents[2] / "py")
EVENT = {"task_id": "T-1", "error_message": "Grüße\n\"'$(id)", "file": "logs/recovery/T-1_escalation.json"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "space/postbox").mkdir(parents=True)
    return tmp_path / "space"


@pytest.fixture
def store(root: Path) -> Iterator[FileStore]:
    store = FileStore(str(root), Limits(10, 20, "test"))
    yield store
    store.close()
    assert not list(root.rglob("*.stage"))
    for path in filter(Path.is_file, [*root.glob("logs/recovery/*.json"), *root.glob("data/.commit.lock")]):
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def script(folder: Path, text: str) -> str:
    path = folder / "notifier"
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(0o755)
    return str(path)


class Ears:
    """A notifier that remembers; as long as `deaf`, it fails."""

    def __init__(self, deaf: bool = False) -> None:
        self.heard: list[dict[str, Any]] = []
        self.deaf = deaf

    def __call__(self, event: Any) -> None:
        if self.deaf:
            raise RuntimeError("nobody there")
        self.heard.append(dict(event))

    def reasons(self) -> list[str]:
        return [event["error_message"] for event in self.heard]


def entry(root: Path, name: str) -> Any:
    return json.loads((root / name).read_text())


# --- notifiers


def test_a_command_gets_the_event_as_one_json_object_on_stdin(tmp_path: Path) -> None:
    command = script(tmp_path, f'cat >"{tmp_path}/$1"; echo "$RECOVERY_NOTIFYING" >"{tmp_path}/nested"\n')
    assert notify([CommandNotifier(f"'{command}' 'a b'"), CommandNotifier([command, "c"])], EVENT) == []
    assert json.loads((tmp_path / "a b").read_text()) == EVENT
    assert json.loads((tmp_path / "c").read_text()) == EVENT
    assert (tmp_path / "nested").read_text() == "1\n"


def test_a_command_is_never_a_shell(tmp_path: Path) -> None:
    command = script(tmp_path, f'printf "%s|" "$@" >"{tmp_path}/words"\n')
    notify([CommandNotifier(f"{command} $(id) ; touch {tmp_path}/bad > x")], EVENT)
    assert (tmp_path / "words").read_text() == f"$(id)|;|touch|{tmp_path}/bad|>|x|"
    assert not (tmp_path / "bad").exists()


def test_a_command_that_fails_is_shown_with_what_it_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = script(tmp_path, "echo to out; echo to err >&2; head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 3\n")
    (problem,) = notify([CommandNotifier([command, "secret"])], EVENT)
    assert problem.startswith("the command notifier was not told of logs/recovery/T-1_escalation.json: failed with 3: ")
    assert "to out" in problem
    assert len(problem) < 1000
    assert "secret" not in problem
    assert problem in caplog.text


@pytest.mark.parametrize("command", ["/no/such/notifier", "/"])
def test_a_command_that_cannot_be_run_is_a_failure_in_words(command: str) -> None:
    (problem,) = notify([CommandNotifier([command])], EVENT)
    assert "can't be run" in problem


def test_a_command_that_hangs_and_ignores_term_is_killed_with_its_group(tmp_path: Path) -> None:
    command = script(tmp_path, f'trap "" TERM; sleep 60 & echo $! $$ >"{tmp_path}/pids"; wait; sleep 60\n')
    began = time.monotonic()
    (problem,) = notify([CommandNotifier([command], timeout=0.5)], EVENT)
    assert 1.5 <= time.monotonic() - began < 5
    assert "took too long" in problem
    for word in (tmp_path / "pids").read_text().split():
        stat = Path(f"/proc/{word}/stat")
        until(lambda stat=stat: not stat.exists() or stat.read_text().split()[2] == "Z", "gone")  # type: ignore[misc]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_command_that_closes_stdin_at_once_is_no_sigpipe_for_us(tmp_path: Path) -> None:
    big = {**EVENT, "details": "x" * 1_000_000}
    assert notify([CommandNotifier([script(tmp_path, "exec <&-\n")])], big) == []


def test_a_command_inherits_none_of_our_locks(tmp_path: Path, store: FileStore, root: Path) -> None:
    command = script(tmp_path, f'ls -l /proc/$$/fd >"{tmp_path}/fds"\n')
    assert escalations.report(store, "T-1", "BUG", "why", notifiers=[CommandNotifier([command])])
    assert str(root) not in (tmp_path / "fds").read_text()


@pytest.mark.parametrize("command", ["", "   ", "'open", []])
def test_a_command_without_words_is_refused(command: Any) -> None:
    with pytest.raises(UsageError):
        CommandNotifier(command)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    answer = "200"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[str, str, dict[str, str], bytes]] = []
        self.end = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/hook/secret-token"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.got.append((self.command, self.path, dict(self.headers), body))
        answer = self.server.answer
        if answer == "hang":
            self.server.end.wait(20)
        elif answer == "drip":  # each byte begins a socket's timeout anew
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not self.server.end.wait(0.02):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
        elif answer.isdigit():
            self.send_response(int(answer))
            self.end_headers()
        else:
            self.send_response(302)
            self.send_header("Location", answer)
            self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.end.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("code", ["200", "204", "299"])
def test_a_webhook_posts_the_event_as_json(server: Server, code: str) -> None:
    server.answer = code
    assert notify([WebhookNotifier(server.url, headers=[("X-Token", "t")])], EVENT) == []
    ((method, path, headers, body),) = server.got
    assert (method, path, headers["Content-Type"], headers["X-Token"]) == (
        "POST",
        "/hook/secret-token",
        "application/json",
        "t",
    )
    assert json.loads(body) == EVENT


@pytest.mark.parametrize("code", ["500", "404", "304"])
def test_any_other_answer_is_a_failure_that_names_the_host_only(server: Server, code: str) -> None:
    server.answer = code
    (problem,) = notify([WebhookNotifier(server.url)], EVENT)
    assert f"the webhook at 127.0.0.1 was not told of {EVENT['file']}: answered {code}" in problem
    assert "secret" not in problem


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/elsewhere", "http://127.0.0.1:1/"])
def test_no_redirect_is_followed(server: Server, where: str) -> None:
    server.answer = where
    (problem,) = notify([WebhookNotifier(server.url)], EVENT)
    assert "answered 302; redirects are not followed" in problem
    assert len(server.got) == 1


@pytest.mark.parametrize("answer", ["hang", "drip"])
def test_a_webhook_that_hangs_or_drips_is_given_up_in_time(server: Server, answer: str) -> None:
    server.answer = answer
    began = time.monotonic()
    (problem,) = notify([WebhookNotifier(server.url, timeout=0.3)], EVENT)
    assert 0.3 <= time.monotonic() - began < 3
    assert "within 0.3 s" in problem or "timed out" in problem


def test_a_webhook_that_is_not_there_or_gets_a_bad_header_is_a_failure_without_secrets(server: Server) -> None:
    (problem,) = notify([WebhookNotifier("http://127.0.0.1:1/secret")], EVENT)
    assert "Connection refused" in problem
    assert "secret" not in problem
    (problem,) = notify([WebhookNotifier(server.url, headers=[("X-Token", "secret\n")])], EVENT)
    assert problem.endswith("ValueError")
    assert server.got == []


@pytest.mark.parametrize(
    "url",
    ["", "file:///etc/passwd", "ftp://h/x", "https://", "h/x", "http://h/a b", "http://h/\n", "http://h:x/", None],
)
def test_only_http_and_https_are_taken(url: Any) -> None:
    with pytest.raises(UsageError):
        WebhookNotifier(url)


def test_the_log_gets_a_durable_line_each_from_a_store_or_a_session(store: FileStore, root: Path) -> None:
    assert notify([LogNotifier(store), LogNotifier(Session(root))], EVENT) == []
    lines = [json.loads(line) for line in (root / NOTIFICATIONS).read_text().splitlines()]
    assert [line["error_message"] for line in lines] == [EVENT["error_message"]] * 2
    assert len({line["txid"] for line in lines}) == 2


def test_a_failure_stops_nobody_behind_it_and_none_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise ValueError

    def nasty(event: Any) -> None:
        raise Nasty

    ears = Ears()
    problems = notify([Ears(deaf=True), nasty, ears], EVENT)
    assert len(ears.heard) == 1
    assert ["RuntimeError nobody there" in problems[0], problems[1].endswith(": Nasty")] == [True, True]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_keyboard_interrupt_passes() -> None:
    def interrupt(event: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notify([interrupt], EVENT)


def test_one_limit_is_for_all_together() -> None:
    now = [0.0]

    def slow(event: Any) -> None:
        now[0] += 6

    ears = Ears()
    problems = notify([slow, slow, ears], EVENT, within=10, monotonic=lambda: now[0])
    assert len(problems) == 1
    assert "the 10 s for telling people were used up" in problems[0]
    assert ears.heard == []


def test_the_environment_names_notifiers_and_a_bad_value_is_said_only_when_needed(tmp_path: Path) -> None:
    assert from_environment({}) == []
    found = from_environment({"RECOVERY_NOTIFY_CMD": "mail -s 'a b' me", "RECOVERY_NOTIFY_URL": "https://h/x"})
    assert isinstance(found[0], CommandNotifier)
    assert found[0].words == ["mail", "-s", "a b", "me"]
    assert isinstance(found[1], WebhookNotifier)
    bad = from_environment({"RECOVERY_NOTIFY_CMD": "'open", "RECOVERY_NOTIFY_URL": "ftp://h"})
    problems = notify(bad, EVENT)
    assert "RECOVERY_NOTIFY_CMD" in problems[0]
    assert "http and https" in problems[1] or "https://" in problems[1]
    assert from_environment({"RECOVERY_NOTIFY_CMD": "x", "RECOVERY_NOTIFYING": "1"}) == []


# --- escalations


def test_an_escalation_is_written_then_told_then_noted(store: FileStore, root: Path) -> None:
    seen: list[Any] = []

    def look(event: Any) -> None:
        with (root / "data/.commit.lock").open() as lock:  # nobody is told under the commit lock
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(entry(root, event["file"]))

    ears = Ears()
    name = escalations.report(store, "T-1", "BUG", "why", "CC", notifiers=[look, ears], pid=7)
    assert name == "logs/recovery/T-1_escalation.json"
    (event,) = ears.heard
    assert (event["file"], event["root"], event["task_id"], event["details"]) == (name, str(root), "T-1", {"pid": 7})
    assert "notified_at" not in seen[0]
    now = entry(root, name)
    assert now.pop("notified_at").endswith("Z")
    assert now == seen[0]
    assert store.told == []


def test_the_same_reason_is_told_once_until_a_person_resolves_it(store: FileStore, root: Path) -> None:
    ears = Ears()
    for _ in range(3):
        escalations.report(store, "T-1", "BUG", "why", notifiers=[ears])
    assert escalations.report(store, "T-1", "BUG", "other", notifiers=[ears]) == "logs/recovery/T-1_escalation.1.json"
    escalations.report(store, "T-2", "BUG", "why", notifiers=[ears])
    assert ears.reasons() == ["why", "other", "why"]
    assert escalations.resolve(store, "T-1", 0) == ["logs/recovery/resolved/T-1_escalation.json"]
    escalations.report(store, "T-1", "BUG", "other", notifiers=[ears])  # still open, behind a gap
    assert ears.reasons() == ["why", "other", "why"]
    assert escalations.report(store, "T-1", "BUG", "why", notifiers=[ears]) == "logs/recovery/T-1_escalation.json"
    assert ears.reasons() == ["why", "other", "why", "why"]
    assert escalations.resolve(store, "T-1") == [
        "logs/recovery/resolved/T-1_escalation.1.json",
        "logs/recovery/resolved/T-1_escalation.2.json",
    ]
    assert [one["task"] for one in escalations.open_escalations(store)] == ["T-2"]
    assert entry(root, "logs/recovery/resolved/T-1_escalation.json")["error_message"] == "why"


def test_resolving_what_is_not_there_is_refused(store: FileStore) -> None:
    escalations.report(store, "T-1", "BUG", "why")
    with pytest.raises(NotFound):
        escalations.resolve(store, "T-2")
    with pytest.raises(NotFound):
        escalations.resolve(store, "T-1", 3)
    with pytest.raises(UsageError):
        escalations.resolve(store, "../T")
    assert len(escalations.open_escalations(store)) == 1


def test_one_that_nobody_heard_is_told_at_the_next_chance(store: FileStore, root: Path) -> None:
    ears = Ears(deaf=True)
    name = escalations.report(store, "T-1", "BUG", "why", notifiers=[ears])
    assert name is not None
    assert "notified_at" not in entry(root, name)
    assert len(store.told) == 1
    ears.deaf = False
    assert escalations.report(store, "T-1", "BUG", "why", notifiers=[Ears(deaf=True), ears]) is None
    assert ears.reasons() == ["why"]
    assert escalations.deliver(store, [ears]) == []
    assert ears.reasons() == ["why"]


def test_what_was_written_under_the_commit_lock_is_delivered_later(store: FileStore, root: Path) -> None:
    lock = store.commit_lock()
    for n in range(5):
        escalations.write(store, f"T-{n}", "conflict", f"why {n}")
    lock.release()
    ears = Ears()
    assert escalations.deliver(store, []) == []
    assert escalations.deliver(store, [ears], most=3) == []
    assert len(ears.heard) == 3
    escalations.deliver(store, [ears], most=3)
    escalations.deliver(store, [ears], most=3)
    assert sorted(ears.reasons()) == [f"why {n}" for n in range(5)]
    assert all("notified_at" in one["entry"] for one in escalations.open_escalations(store))


def test_delivering_ends_when_its_time_is_used_up(store: FileStore) -> None:
    for n in range(5):
        escalations.report(store, f"T-{n}", "BUG", "why")
    now = [0.0]
    ears = Ears()

    def slow(event: Any) -> None:
        now[0] += 6
        ears(event)

    escalations.deliver(store, [slow], within=10, monotonic=lambda: now[0])
    assert len(ears.heard) == 2


def test_damaged_escalations_are_listed_and_stop_nobody(store: FileStore, root: Path) -> None:
    folder = root / layout.LOGS
    folder.mkdir(parents=True)
    (folder / "T-1_escalation.json").write_bytes(b'{"task_id": "T-1", "err')
    (folder / "T-1_escalation.1.json").write_bytes(b"\xff\xfe")
    (folder / "T-1_escalation.2.json").mkdir()
    (folder / "T-1_escalation.3.json").write_text("[1]")
    (folder / "T-1_escalation.4.json").symlink_to("/nowhere")
    (folder / "T-1_escalation.5.json").write_text('{"timestamp": 5}')
    for foreign in ("T-1_escalation.01.json", "T-1_escalation..json", "_escalation.json", "T-1_escalation.json.x"):
        (folder / foreign).write_text("{}")
    ears = Ears()
    name = escalations.report(store, "T-1", "BUG", "why", notifiers=[ears])
    assert name == "logs/recovery/T-1_escalation.6.json"
    found = {one["n"]: one for one in escalations.open_escalations(store)}
    assert sorted(found) == list(range(7))
    assert ["error" in found[n] for n in range(7)] == [True, True, True, True, True, False, False]
    escalations.deliver(store, [ears])
    assert [event["file"] for event in ears.heard] == [name, "logs/recovery/T-1_escalation.5.json"]
    assert len(escalations.resolve(store, "T-1", 0)) == 1
    assert (root / "logs/recovery/resolved/T-1_escalation.json").read_bytes() == b'{"task_id": "T-1", "err'


def test_open_escalations_are_sorted_by_time_and_a_task_may_be_called_like_one(store: FileStore, root: Path) -> None:
    for task, stamp in (("B", "2026-01-02"), ("A_escalation.1", "2026-01-01"), ("A", "2026-01-03")):
        name = escalations.report(store, task, "BUG", "why")
        assert name is not None
        (root / name).write_text(json.dumps({**entry(root, name), "timestamp": stamp}))
    assert [(one["task"], one["n"]) for one in escalations.open_escalations(store)] == [
        ("A_escalation.1", 0),
        ("B", 0),
        ("A", 0),
    ]


def test_a_hundred_open_ones_are_enough_and_people_are_told_all_the_same(store: FileStore, root: Path) -> None:
    for n in range(escalations.MOST):
        path = root / layout.escalation("T-1", n)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"error_type": "BUG", "error_message": str(n), "notified_at": "then"}))
    ears = Ears()
    assert escalations.report(store, "T-1", "BUG", "new", notifiers=[ears]) is None
    assert [(event["error_message"], event["file"]) for event in ears.heard] == [("new", "")]
    assert "100 escalations are open" in store.told[0]
    assert escalations.report(store, "T-1", "BUG", "57", notifiers=[ears]) is None
    assert len(ears.heard) == 1


def test_a_busy_commit_lock_is_raised_after_telling(store: FileStore, root: Path) -> None:
    ears = Ears()
    store.limits = Limits(0.05, 0.05, "test")
    with locked(root / "data/.commit.lock"), pytest.raises(LockTimeout):
        escalations.report(store, "T-1", "BUG", "why", notifiers=[ears])
    assert [event["file"] for event in ears.heard] == [""]


def test_a_long_telling_does_not_use_up_the_notes_own_patience(store: FileStore, root: Path) -> None:
    """The command's deadline is over when the notifiers are done: the note waits on its own account."""
    name = escalations.report(store, "T-1", "BUG", "why")
    assert name is not None
    held = threading.Event()
    free = threading.Event()

    def hold() -> None:
        with locked(root / "data/.commit.lock"):
            held.set()
            free.wait(10)

    thread = threading.Thread(target=hold)

    def slow(event: Any) -> None:
        thread.start()
        held.wait(10)
        threading.Timer(0.2, free.set).start()

    store.limits = Limits(0, 0, "test")
    assert escalations.deliver(store, [slow]) == []
    thread.join()
    assert "notified_at" in entry(root, name)


def test_a_persons_note_in_the_file_is_kept_and_not_told_again(store: FileStore, root: Path) -> None:
    def edit(event: Any) -> None:
        path = root / event["file"]
        temporary = path.with_name("edited")
        temporary.write_text(json.dumps({**entry(root, event["file"]), "comment": "mine"}))
        temporary.replace(path)

    name = escalations.report(store, "T-1", "BUG", "why", notifiers=[edit])
    assert name is not None
    assert entry(root, name)["comment"] == "mine"
    assert "notified_at" in entry(root, name)


def test_one_that_is_resolved_while_people_are_told_is_not_written_again(store: FileStore, root: Path) -> None:
    def settle(event: Any) -> None:
        other = FileStore(str(root), Limits(10, 20, "person"))
        escalations.resolve(other, "T-1")
        escalations.report(other, "T-1", "BUG", "another")
        other.close()

    escalations.report(store, "T-1", "BUG", "why", notifiers=[settle])
    (one,) = escalations.open_escalations(store)
    assert one["entry"]["error_message"] == "another"
    assert "notified_at" not in one["entry"]


CHILD = (
    "import os, sys; sys.path.insert(0, sys.argv[1])\n"
    "from recovery import escalations, steps; from recovery.store import FileStore\n"
    "from recovery.flock import Limits; from recovery.notify import CommandNotifier\n"
    "store = FileStore(sys.argv[2], Limits(10, 20, 'child')); steps.install(os.environ)\n"
    "def report(why): escalations.report(store, 'T-1', 'BUG', why, notifiers=[CommandNotifier([sys.argv[3]])])\n"
)


def child(root: Path, command: str, code: str, fault: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code, PY, str(root), command],
        env={**os.environ, "RECOVERY_FAULT": fault},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_kill_at_any_step_loses_no_escalation_and_tells_twice_only_between_telling_and_noting(tmp_path: Path) -> None:
    command = script(tmp_path, f'cat >>"{tmp_path}/told"\n')
    told, listed = tmp_path / "told", tmp_path / "steps"

    def run(name: str, fault: str) -> tuple[Path, int]:
        root = tmp_path / name
        (root / "postbox").mkdir(parents=True)
        told.unlink(missing_ok=True)
        with child(root, command, "report('why')", fault) as process:
            return root, process.wait()

    assert run("unhurt", f"*=list={listed}")[1] == 0
    steps = listed.read_text().split()
    first, last = steps.index("notified:1"), steps.index("notified-noted:1")
    twice = []
    for n, step in enumerate(steps):
        root, code = run(f"killed-{n}", f"{step}=kill")
        assert code == -signal.SIGKILL, step
        store = FileStore(str(root), Limits(10, 20, "test"))
        escalations.report(store, "T-1", "BUG", "why", notifiers=[CommandNotifier([command])])
        assert escalations.deliver(store, [CommandNotifier([command])]) == []
        count = len(told.read_text().splitlines())
        assert count in (1, 2), step
        if count == 2:
            twice.append(step)
            assert first <= n < last, step
        (one,) = escalations.open_escalations(store)
        assert "notified_at" in one["entry"], step
        assert not list(root.rglob("*.stage")), step
        store.close()
    assert "notified:1" in twice


@pytest.mark.parametrize("fault", ["stage=ENOSPC", "stage-synced=EIO", "notified=EIO"])
def test_a_disk_that_fails_costs_only_the_note(tmp_path: Path, root: Path, fault: str) -> None:
    command = script(tmp_path, f'cat >>"{tmp_path}/told"\n')
    with child(root, command, "report('why'); print(len(store.told))", fault) as process:
        assert process.communicate()[0] == "1\n"
    assert len((tmp_path / "told").read_text().splitlines()) == 1


def test_processes_that_report_and_deliver_at_once_tell_of_each_file_once(tmp_path: Path, root: Path) -> None:
    command = script(
        tmp_path, f'line=$(cat); flock "{tmp_path}/told" sh -c \'echo "$0" >>"$1"\' "$line" "{tmp_path}/told"\n'
    )
    code = (
        "store.root.folder('data', create=True)\n"
        f"open({str(tmp_path)!r} + '/ready-' + str(os.getpid()), 'w').close()\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): pass\n"
        "for n in range(6): report('why %d' % n)\n"
        "escalations.deliver(store, [CommandNotifier([sys.argv[3]])])\n"
        "print(store.told)\n"
    )
    running = [child(root, command, code) for _ in range(4)]
    until(lambda: len(list(tmp_path.glob("ready-*"))) == 4, "four are ready")
    (tmp_path / "go").touch()
    for process in running:
        assert process.communicate()[0] == "[]\n"
        assert process.returncode == 0
    reasons = [json.loads(line)["error_message"] for line in (tmp_path / "told").read_text().splitlines()]
    assert sorted(reasons) == [f"why {n}" for n in range(6)]


def test_who_finds_another_telling_leaves_it_to_him_and_takes_over_after_his_death(tmp_path: Path, root: Path) -> None:
    gate = tmp_path / "gate"
    ears = Ears()
    store = FileStore(str(root), Limits(10, 20, "test"))
    with child(root, "/bin/true", "report('why')", f"notify=wait={gate}") as process:
        until(Path(f"{gate}.reached").exists, "the other is about to tell")
        escalations.report(store, "T-1", "BUG", "why", notifiers=[ears])
        assert escalations.deliver(store, [ears]) == []
        assert ears.heard == []
        process.kill()
        process.wait()
        escalations.deliver(store, [ears])
    assert ears.reasons() == ["why"]
    store.close()


def test_a_lock_on_a_file_that_was_replaced_meanwhile_does_not_count(tmp_path: Path, root: Path) -> None:
    """Opened, replaced by an editor, whose new file another is telling of: it is left to him."""
    gate = tmp_path / "gate"
    store = FileStore(str(root), Limits(10, 20, "test"))
    name = escalations.report(store, "T-1", "BUG", "why")
    assert name is not None
    command = script(tmp_path, f'cat >>"{tmp_path}/told"\n')
    code = "escalations.deliver(store, [CommandNotifier([sys.argv[3]])])"
    with child(root, command, code, f"lock=wait={gate}") as process:
        until(Path(f"{gate}.reached").exists, "the file is open and not yet locked")
        (root / "edited").write_text((root / name).read_text())
        (root / "edited").replace(root / name)
        with (root / name).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            gate.touch()
            assert process.wait() == 0
    assert not (tmp_path / "told").exists()
    store.close()


@pytest.mark.parametrize("step", ["resolve-escalation", "escalation-resolved"])
def test_a_kill_while_resolving_leaves_it_open_or_resolved(root: Path, store: FileStore, step: str) -> None:
    escalations.report(store, "T-1", "BUG", "why")
    escalations.report(store, "T-1", "BUG", "other")
    with child(root, "", "escalations.resolve(store, 'T-1')", f"{step}:2=kill") as process:
        assert process.wait() == -signal.SIGKILL
    waiting = escalations.open_escalations(store)
    assert len(waiting) == (1 if step == "resolve-escalation" else 0)
    for one in waiting:
        assert escalations.resolve(store, one["task"], one["n"]) == ["logs/recovery/resolved/T-1_escalation.1.json"]
    kept = sorted(path.name for path in (root / "logs/recovery/resolved").iterdir())
    assert kept == ["T-1_escalation.1.json", "T-1_escalation.json"]


def test_resolving_overwrites_nothing_that_is_kept(root: Path, store: FileStore) -> None:
    kept = root / "logs/recovery/resolved"
    kept.mkdir(parents=True)
    (kept / "T-1_escalation.json").write_text("theirs")
    (kept / "T-1_escalation.7.json").write_text("theirs too")
    escalations.report(store, "T-1", "BUG", "why")
    assert escalations.resolve(store, "T-1") == ["logs/recovery/resolved/T-1_escalation.8.json"]
    assert (kept / "T-1_escalation.json").read_text() == "theirs"


def test_without_notifiers_all_is_as_before(root: Path, store: FileStore) -> None:
    name = escalations.report(store, "T-1", "BUG", "why", "CC", layout.LOGS, code=70)
    assert name is not None
    assert set(entry(root, name)) == {
        "task_id", "agent_id", "timestamp", "error_type", "error_message", "strategy", "success", "details"
    }  # fmt: skip
    calls: list[Callable[[], object]] = [lambda: escalations.report(store, "T-1", "BUG", "why")]
    assert [call() for call in calls] == [None]
