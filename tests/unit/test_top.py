"""`recovery top`: the screen for any overview, what a terminal gets of it, and that nothing stays behind on it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery import durations, livescreen, overview, screen, top
from recovery.flock import Limits
from recovery.store import FileStore
from recovery.torture.scratch import PYTHON, SUITE

NOW = "2026-11-25T08:00:00Z"
ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp\r\n"


def need(
    kind: str, agent: str = "CC", task: str = "T-1", what: str = "what it is", following: str = "recovery x"
) -> Any:
    return {"kind": kind, "agent": agent, "task": task, "what": what, "since": "", "next": following}


def told(**more: Any) -> dict[str, Any]:
    store: dict[str, Any] = {"damage": [], "journal": "", "last_crash": None, "certificate": ""}
    store["use"] = {"bytes": 3 << 20, "files": 12, "limits": {"bytes": 256 << 20, "files": 20000}}
    found: dict[str, Any] = {"time": NOW, "root": "/w", "since": 86400.0, "needs_you": [], "agents": [], "failures": []}
    found["queue"] = {"ready": 0, "blocked": 0, "next": [], "waiting": []}
    return {
        **found,
        "success": {"rate": None, "incidents": 0},
        "breakers": [],
        "store": store,
        "notes": [],
        "unread": [],
        "unknown": [],
        **more,
    }


def busy(text: str = "Title") -> dict[str, Any]:
    """An overview with everything in it, and somebody's `text` wherever somebody's text may stand."""
    claim = {
        "task": "T-1",
        "title": text,
        "by": text,
        "since": "2026-11-25T06:00:00Z",
        "silent_since": "",
        "state": "alive",
    }
    claims = [{**claim, "task": f"T-{n}", "state": state} for n, state in enumerate(("alive", "dead", "unknown"))]
    claims.append({**claim, "task": "T-9", "silent_since": "2026-11-25T06:30:00Z"})
    row = {"open": 9, "ready": 2, "blocked": 1, "problem": "", "claims": [], "in_progress": [], "review": []}
    agents = [
        {"agent": "AA", **row, "open": 0},
        {"agent": "CC", **row, "claims": claims},
        {"agent": "XX", **row, "problem": text},
    ]
    following = [{"agent": "CC", "task": f"T-{n}", "title": text, "priority": "HIGH", "since": NOW} for n in range(50)]
    waiting = [{"agent": "CC", "task": f"T-{n}", "by": [text]} for n in range(50)]
    queue = {"ready": 50, "blocked": 50, "next": following, "waiting": waiting}
    failures = [{"cause": text, "count": 4, "last": "2026-11-25T07:30:00Z", "tasks": ["CC/T-1"]}]
    breakers = [{"name": "quota", "state": "open", "until": "2026-11-25T08:10:00Z", "why": text}]
    crash = {
        "time": "2026-11-25T07:00:00Z",
        "what": "complete CC/T-1",
        "by": "pid 9",
        "repaired_by": "pid 10, claim",
        "how": text,
    }
    found = told(agents=agents, queue=queue, failures=failures, breakers=breakers, notes=[text])
    found["needs_you"] = [need("damage", what=text), *(need("failed", task=f"T-{n}", what=text) for n in range(40))]
    found["success"] = {"rate": 0.5, "incidents": 8}
    found["store"] = {**found["store"], "damage": [text], "journal": text, "last_crash": crash, "certificate": text}
    return found


def texts(found: dict[str, Any], width: int = 80, height: int = 23, ascii_only: bool = False) -> list[str]:
    return [screen.plain(line) for line in screen.frame(found, width, height, "the footer", ascii_only)]


# --- the screen


def test_the_first_line_names_the_worst_with_its_command() -> None:
    """In colour and in words; how many more there are stands there, too."""
    found = told(needs_you=[need("escalation", what="A person is needed: Denied: no permission"), need("failed")])
    first = screen.frame(found, 80, 23)[0]
    assert screen.plain(first) == " 2 NEED YOU  escalation CC/T-1: Denied: no permission  -> recovery x"
    assert first[0] == (" 2 NEED YOU ", "worst")
    assert screen.coloured(first).startswith("\x1b[1;97;41m 2 NEED YOU \x1b[0m")
    assert screen.frame(told(needs_you=[need("failed")]), 80, 23)[0][0] == ("1 NEEDS YOU", "warn")
    assert screen.frame(told(), 80, 23)[0] == [("nobody needs you", "good")]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [4, 10, 23, 60])
@pytest.mark.parametrize("text", ["short", "word " * 60, "x" * 300, "\u66f4\u5927" * 100, "e\u0301" * 200])
def test_a_screen_has_at_most_so_many_lines_and_columns(width: int, height: int, text: str) -> None:
    """Wide characters take two columns, combining ones none."""
    frame = screen.frame(busy(text), width, height, "the footer", live=True)
    lines = [screen.plain(line) for line in frame]
    assert len(lines) <= height
    assert max(map(screen.columns, lines)) <= width
    assert lines[-1] == "the footer"


def test_columns_are_counted_as_a_terminal_does() -> None:
    assert [screen.columns(text) for text in ("ab", "\u66f4\u5927", "e\u0301", "\u200bx", "\xe9")] == [2, 4, 1, 1, 1]


def test_a_command_is_never_cut_nor_broken() -> None:
    """It may be longer than the screen is wide; a live screen, which has no such line, says what names it."""
    command = "recovery release --force CC 'TASK  WITH A LONG NAME 1' and more words behind it"
    found = told(needs_you=[need("owner", what="w" * 200, following=command)])
    for width in (30, 40, 80):
        assert f"  -> {command}" in texts(found, width)
        live = [screen.plain(line) for line in screen.frame(found, width, 23, live=True)]
        assert max(map(len, live)) <= width
        assert "  -> run `recovery explain`" in live


@pytest.mark.parametrize(("width", "height"), [(40, 10), (40, 9), (80, 10), (20, 12)])
def test_how_many_more_there_are_is_told_on_the_smallest_screen(width: int, height: int) -> None:
    found = told(needs_you=[need("failed", what="it failed " * 9) for _ in range(707)])
    lines = texts(found, width, height)
    assert any(re.match(r"70[56] more: 70[56] failed|70[456] more: ", line) for line in lines), lines
    assert len(lines) <= height


def test_a_screen_of_80_by_24_has_all_six_things() -> None:
    text = "\n".join(texts(busy()))
    for words in (
        "41 NEED YOU",
        "WORKING",
        "QUEUE    50 ready, 50 blocked",
        " next CC/T-0 HIGH",
        " wait CC/T-0 for Title",
    ):
        assert words in text
    assert "FAILED   4 of 8 recoveries within 24 h; 50.0% ended well" in text
    assert " 4 x Title, last 30 min ago  CC/T-1" in text
    assert " quota open, back in 10 min (08:10 UTC): Title" in text
    assert "STORE    3.0 of 256 MB, 12 of 20000 files; 1 damaged" in text
    assert " journal open: Title" in text
    assert " last crash, 60 min ago: complete CC/T-1 by pid 9, repaired by pid 10, claim" in text
    assert re.search(r"^\d+ more: \d+ failed$", text, re.MULTILINE)


def test_with_all_of_it_nothing_is_left_out() -> None:
    text = "\n".join(texts(busy(), height=0))
    assert "more:" not in text
    assert (text.count(" next "), text.count(" wait "), text.count("failed CC/")) == (50, 50, 40)


def test_who_is_gone_comes_before_who_is_silent_and_a_damaged_outbox_before_both() -> None:
    lines = texts(busy(), height=0)
    start = lines.index("WORKING  4 tasks held, 1 silent, 2 without owner; idle: AA")
    assert lines[start + 1] == " XX: Title"
    assert [" ".join(line.split()[:5]) for line in lines[start + 2 : start + 6]] == [
        "CC/T-1 2 h gone Title",
        "CC/T-2 2 h can't be",
        "CC/T-9 2 h silent 90",
        "CC/T-0 2 h ok Title",
    ]


def test_what_is_in_progress_is_nobodys_idle_time_though_nobody_claimed_it() -> None:
    row = {"open": 1, "ready": 0, "blocked": 0, "problem": "", "claims": [], "in_progress": [], "review": []}
    work = {"task": "T-1", "title": "Title", "since": "2026-11-25T07:00:00Z"}
    agents = [{"agent": "CA", **row, "in_progress": [work]}, {"agent": "CB", **row}, {"agent": "CC", **row, "open": 0}]
    lines = texts(told(agents=agents))
    at = lines.index("WORKING  0 tasks held; 1 in progress, unclaimed; idle: CC")
    assert lines[at + 1].split() == ["CA/T-1", "60", "min", "in", "progress", "Title"]


def test_what_could_not_be_read_makes_no_good_news() -> None:
    """Neither that nobody is needed, nor a 0 that nobody has measured."""
    unread = ["logs/recovery: no permission", "data/breakers: no permission"]
    found = told(unread=unread, notes=unread, unknown=["breakers", "journal", "success", "use"])
    first = screen.frame(found, 80, 23)[0]
    assert first == [("nobody needs you, as far as can be read: 2 things could not be read", "warn")]
    text = "\n".join(texts(found))
    for words in (
        "BREAKERS unknown",
        "FAILED   unknown",
        "STORE    use unknown, of 256 MB; nothing damaged as far as can be read; journal",
    ):
        assert words in text
    assert texts(found, 40)[0] == "nobody needs you? 2 things could not be…"
    assert screen.one_line([], 0, 0, 1, 0, 2) == "? 2 unread | 0 working | 1 ready"
    assert screen.one_line([need("failed")], 0, 0, 1, 0, 2).startswith("1 needs you: failed CC/T-1 ? 2 unread |")


@pytest.mark.parametrize("ascii_only", [True, False])
def test_nobodys_words_reach_the_terminal_as_codes(ascii_only: bool) -> None:
    lines = texts(busy(ESCAPES), 200, 0, ascii_only)
    assert all(line.isprintable() for line in lines)
    assert sum("\\x1b[2J" in line for line in lines) > 100
    assert not ascii_only or all(map(str.isascii, lines))


def test_a_terminal_without_utf_8_gets_ascii_alone() -> None:
    """What is cut ends with a mark that such a terminal has."""
    lines = texts(busy("größer \u66f4 " * 30), 60, 23, ascii_only=True)
    assert all(map(str.isascii, lines))
    assert any("gr\\xf6\\xdfer" in line and line.endswith("~") for line in lines)


def test_the_line_has_ids_and_numbers_and_nobodys_text() -> None:
    """tmux would obey `#[…]` and `#(…)` in it."""
    needs = [need("damage", task="", what="#(reboot)", following="#(reboot)"), need("failed")]
    assert screen.one_line(needs, 3, 1, 12, 4) == "2 need you: damage CC | 3 working 1 silent | 12 ready 4 blocked"
    assert screen.one_line([need("call", "", "")], 0, 0, 0, 0) == "1 needs you: call | 0 working | 0 ready"
    assert screen.one_line([], 1, 0, 2, 0) == "nobody needed | 1 working | 2 ready"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"LANG": "C"}, False),
        ({"LANG": "de_DE.UTF-8"}, True),
        ({"LANG": "de_DE.utf8@euro"}, True),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "POSIX"}, False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LANG": "de_DE.ISO-8859-1"}, False),
    ],
)
def test_the_locale_says_whether_there_is_utf_8(environ: dict[str, str], expected: bool) -> None:
    assert screen.is_utf8(environ) is expected


# --- spans of time


@given(st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1)))
def test_a_time_of_ours_is_read_as_datetime_reads_it(when: datetime) -> None:
    when = when.replace(microsecond=0, tzinfo=UTC)
    assert durations.epoch(when.strftime("%Y-%m-%dT%H:%M:%SZ")) == when.timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-02-30T00:00:00Z",
        "2026-11-25T24:00:00Z",
        "2026-13-01T00:00:00Z",
        "\uff12\uff1026-11-25T08:00:00Z",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert durations.epoch(text) is None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0 s"), (0.25, "0.2 s"), (9, "9 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_a_span_is_told_in_the_largest_unit_of_which_there_are_two(seconds: float, expected: str) -> None:
    assert durations.words(seconds) == expected


# --- the command


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    for agent, entries in (
        ("CC", [{"task_id": "T-1", "status": "pending", "title": "größer"}, {"task_id": "T-2", "status": "failed"}]),
        ("CA", []),
    ):
        path = folder / f"postbox/{agent}/outbox.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"tasks": entries, "history": []}))
    return folder


@pytest.fixture
def store(root: Path) -> Iterator[FileStore]:
    opened = FileStore(str(root), Limits(1.0, 5.0, "top"))
    yield opened
    opened.close()


def test_looking_again_and_again_leaves_no_descriptor_open(store: FileStore, root: Path) -> None:
    overview.look(store)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        overview.look(store)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_change_is_seen_by_the_marks_and_looking_is_none(store: FileStore, root: Path) -> None:
    before = overview.marks(str(root))
    overview.look(store)
    assert overview.marks(str(root)) == before
    (root / "postbox/CC/outbox.json").write_text('{"tasks": []}')
    assert overview.marks(str(root)) != before


def test_the_line_looks_at_no_log_and_reads_few_modules(root: Path) -> None:
    """It is asked for every few seconds, by everybody's status bar."""
    code = (
        f"import sys; sys.path.insert(0, {str(SUITE / 'py')!r})\n"
        "from recovery import flock, store, top\n"
        f"print(top.line(store.FileStore({str(root)!r}, flock.Limits(1.0, 1.0, 'top'))).line)\n"
        "for name in ('stats_recent', 'health', 'breaker_state', 'bounds', 'certificate'):\n"
        "    assert 'recovery.' + name not in sys.modules, name\n"
        "for name in ('json', 're', 'datetime', 'typing', 'subprocess'):\n"
        "    assert name not in sys.modules, name\n"
    )
    out, status = run_in(None, [PYTHON, "-I", "-S", "-c", code])
    assert (out.strip(), status) == ("1 needs you: failed CC/T-2 | 0 working | 1 ready", 0)


def test_on_no_terminal_it_is_plain_text_of_the_size_that_watch_says(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert screen.size({"COLUMNS": "40", "LINES": "12"}) in (
        (40, 12),
        os.get_terminal_size(1) if os.isatty(1) else (40, 12),
    )
    out, status = run_in(None, [str(SUITE / "bin/recovery"), "top"], ORCHESTRATION_ROOT=root, COLUMNS=40, LINES=12)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("1 NEEDS YOU failed CC/T-2")
    assert len(lines) <= 11
    assert max(len(line) for line in lines if not line.startswith("  -> ")) <= 40
    assert f"  -> recovery -C {root} reopen CC T-2" in lines
    assert "\x1b" not in out


def test_on_a_terminal_there_is_colour_unless_it_is_not_wanted(root: Path) -> None:
    command = [str(SUITE / "bin/recovery"), "-C", str(root), "top", "--once"]
    for environ, coloured in ({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False):
        out, status = run_in((24, 80), command, **environ)
        assert status == 0
        assert ("\x1b[" in out) is coloured
        assert "1 NEEDS YOU" in out
        assert out.count("\n") <= 23


def test_a_dumb_terminal_and_one_without_rich_are_shown_it_once(root: Path) -> None:
    """And it is said what to install; nothing waits for a key."""
    helper = [PYTHON, "-I", "-S", str(SUITE / "py/recovery/__main__.py"), "top", "-C", str(root)]
    out, status = run_in((24, 80), helper)
    assert status == 0
    assert "1 NEEDS YOU" in out
    assert "needs the package rich" in out
    assert "-m pip install rich" in out
    out, status = run_in((24, 80), helper, TERM="dumb")
    assert (status, "rich" in out) == (0, False)


def test_an_overview_that_cannot_be_had_is_told_on_the_screen_with_what_to_run() -> None:
    lines = [
        screen.plain(line) for line in screen.refusal("data/config.json is damaged", "recovery doctor --repair", 80)
    ]
    assert lines == ["data/config.json is damaged", "  -> recovery doctor --repair"]


# --- the live view


def test_the_live_view_looks_when_something_has_changed_or_it_is_time_and_never_all_the_time(root: Path) -> None:
    """What one look took is waited for three times over, and what no file shows is looked for every few seconds."""
    view = livescreen._View(str(root), Limits(1.0, 5.0, "top"), False)
    assert view.look(1.0)
    first = view.free
    assert first > 1.0
    assert not view.look(first)
    (root / "postbox/CC/outbox.json").write_text('{"tasks": [], "history": []}')
    assert not view.look(first - 1e-6)
    assert view.look(first)
    assert not view.look(view.due - 1e-6)
    assert view.look(view.due)


def test_a_window_that_changes_is_noted_and_wakes_who_waits() -> None:
    with livescreen._Signals() as signals:
        os.kill(os.getpid(), signal.SIGWINCH)
        assert signals.resized
        assert select.select([signals.fd], [], [], 10)[0]
        signals.drain()
        assert not select.select([signals.fd], [], [], 0)[0]
    assert signal.getsignal(signal.SIGWINCH) == signal.SIG_DFL


# --- the same, on a terminal of its own


class Terminal:
    """A pseudo-terminal with a process on it; what it has written since `seen` was last emptied."""

    def __init__(self, argv: list[str], size: tuple[int, int], environ: dict[str, object]) -> None:
        kept = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        env = {**kept, **{key: str(value) for key, value in environ.items()}}
        self.pid, self.fd = pty.fork()
        if not self.pid:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
                os.execve(argv[0], argv, env)
            finally:
                os._exit(127)
        self.seen = ""
        self.over = False

    def until(self, done: Callable[[str], object], seconds: float = 30.0) -> str:
        """Read until `done` with what was read, or the end; AssertionError if neither comes."""
        end = time.monotonic() + seconds
        while not done(self.seen):
            assert time.monotonic() < end, f"it did not come: {self.seen[-2000:]!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:  # everybody has closed the other side
                    data = b""
                if not data:
                    self.over = True
                    break
                self.seen += data.decode("utf-8", "replace")
        return self.seen

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.fd)

    def end(self) -> int:
        """The exit code, once all is read."""
        self.until(lambda _: False)
        return self.wait()

    def wait(self) -> int:
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def run_in(size: tuple[int, int] | None, argv: list[str], **environ: object) -> tuple[str, int]:
    """What a command writes, on a terminal of that size or into a pipe, and its exit code."""
    if size is not None:
        terminal = Terminal(argv, size, environ)
        code = terminal.end()
        return terminal.seen.replace("\r\n", "\n"), code
    import subprocess

    env = {"PATH": os.environ["PATH"], **{key: str(value) for key, value in environ.items()}}
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode


ENTER, LEAVE, HIDE, SHOW = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def live(root: Path) -> Iterator[Terminal]:
    terminal = Terminal(
        [sys.executable, "-I", str(SUITE / "py/recovery/__main__.py"), "top", "-C", str(root)], (24, 80), {}
    )
    before = terminal.mode()
    terminal.before = before  # type: ignore[attr-defined]
    terminal.until(lambda seen: "q leaves" in seen)
    yield terminal
    try:
        os.kill(terminal.pid, signal.SIGKILL)
        os.waitpid(terminal.pid, 0)
        os.close(terminal.fd)
    except (ProcessLookupError, ChildProcessError, OSError):
        pass


def left_clean(terminal: Terminal) -> None:
    """The terminal has its own screen, cursor and settings back."""
    assert terminal.seen.rstrip().endswith(LEAVE)
    assert SHOW in terminal.seen


def test_the_live_view_draws_again_when_something_changes_and_when_the_window_does(live: Terminal, root: Path) -> None:
    """On a screen of its own, without a cursor; the failed task is first there, then nobody needs you."""
    assert live.seen.startswith(ENTER)
    assert HIDE in live.seen
    assert "1 NEEDS YOU" in live.seen
    live.seen = ""
    (root / "postbox/CC/outbox.json").write_text('{"tasks": [], "history": []}')
    live.until(lambda seen: "nobody needs you" in seen)
    live.seen = ""
    live.resize(10, 40)

    def last(seen: str) -> list[str]:
        """The lines of the last frame that another has followed."""
        frame = seen.split("\x1b[H")[-2:][0]
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in frame.split("\r\n")]

    live.until(lambda seen: len(last(seen)) == 10)
    drawn = last(live.seen)
    assert max(map(len, drawn)) <= 40
    assert "q leaves" in drawn[-1]
    live.type(b"q")
    assert live.end() == 0
    left_clean(live)


def test_a_workspace_that_cannot_be_read_for_a_while_is_told_and_comes_back(live: Terminal, root: Path) -> None:
    (root / "data").mkdir(exist_ok=True)
    (root / "data/config.json").write_text("{")
    live.until(lambda seen: "config.json is damaged" in seen)
    live.seen = ""
    (root / "data/config.json").unlink()
    live.until(lambda seen: "1 NEEDS YOU" in seen)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_however_it_ends_the_terminal_is_as_it_was(live: Terminal, number: signal.Signals, code: int) -> None:
    """Ctrl-C comes from the terminal, as a person's does."""
    assert live.mode() != live.before  # type: ignore[attr-defined]
    if number == signal.SIGINT:
        live.type(b"\x03")
    else:
        os.kill(live.pid, number)
    live.until(lambda seen: LEAVE in seen)
    left_clean(live)
    assert os.waitid(os.P_PID, live.pid, os.WEXITED | os.WNOWAIT) is not None
    assert live.mode() == live.before  # type: ignore[attr-defined]
    assert live.wait() == code


def test_ctrl_backslash_gives_the_terminal_back_and_kills(live: Terminal) -> None:
    live.type(b"\x1c")
    live.until(lambda seen: LEAVE in seen)
    left_clean(live)
    assert os.waitid(os.P_PID, live.pid, os.WEXITED | os.WNOWAIT) is not None
    assert live.mode() == live.before  # type: ignore[attr-defined]
    assert live.wait() == -signal.SIGQUIT


def test_a_workspace_that_is_gone_is_said_to_be_gone(root: Path) -> None:
    """As behind a disk that was unmounted, whose empty folder stays: nobody is told to make a new one there."""
    view = livescreen._View(str(root), Limits(1.0, 5.0, "top"), False)
    assert view.look(1.0)
    (root / "postbox").rename(root / "away")
    assert view.look(1e6)
    text = "\n".join(screen.plain(line) for line in view.frame(200, 10))
    assert f"{root} is gone" in text
    assert "init" not in text
    (root / "away").rename(root / "postbox")
    assert view.look(2e6)
    assert view.problem is None


def test_ctrl_z_gives_the_terminal_back_until_it_is_brought_back(live: Terminal) -> None:
    live.type(b"\x1a")
    assert os.WIFSTOPPED(os.waitpid(live.pid, os.WUNTRACED)[1])
    live.until(lambda seen: LEAVE in seen)
    assert live.mode() == live.before  # type: ignore[attr-defined]
    live.seen = ""
    os.kill(live.pid, signal.SIGCONT)
    live.until(lambda seen: "q leaves" in seen)
    assert ENTER in live.seen
    live.type(b"q")
    assert live.end() == 0


def test_asked_for_no_colour_the_live_view_has_none(root: Path) -> None:
    argv = [sys.executable, "-I", str(SUITE / "py/recovery/__main__.py"), "top", "-C", str(root)]
    terminal = Terminal(argv, (24, 80), {"NO_COLOR": "1"})
    terminal.until(lambda seen: "q leaves" in seen)
    terminal.type(b"q")
    assert terminal.end() == 0
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.seen)


def test_two_ways_at_once_are_refused_and_the_verb_is_read_only(store: FileStore) -> None:
    assert top.VERB.reads
    out, status = run_in(None, [str(SUITE / "bin/recovery"), "top", "--line", "--once", "-C", store.root.path])
    assert status == 64
    assert "two things" in out
