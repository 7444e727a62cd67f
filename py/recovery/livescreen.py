"""top's live view: the screen, drawn again with every change, by rich, which is imported here alone.

Nothing is left behind on the terminal: it gets its own screen back, its settings and its cursor, however this ends,
also by a signal or for a while (Ctrl-Z).  Only SIGKILL leaves it to `reset`.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import termios
import time

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from recovery import overview, screen, workspace
from recovery.errors import NotFound, RecoveryError
from recovery.store import FileStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Callable, Mapping, Optional

    from recovery.flock import Limits

#: Seconds between two looks at whether anything has changed, between two drawings (times go by), between two looks at
#: all of it: that a process has died changes no file.
TICK, DRAW, LOOK = 0.25, 1.0, 5.0
#: At most this part of the time is spent on looking, however large the workspace.
SHARE = 0.25
#: What the styles of `recovery.screen` are called by rich.
_STYLES = {
    "bad": "bold red",
    "worst": "bold bright_white on red",
    "warn": "yellow",
    "good": "green",
    "head": "bold",
    "dim": "dim",
}
_LEAVING = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGQUIT: 131}
_FOOTER = "q leaves, r looks again"


def show(root: str, limits: Limits, environ: Mapping[str, str]) -> int:
    """Show the workspace until q or a signal ends it: 0, or 128 and the signal's number."""
    gc.enable()  # this process lives on, unlike those of the other verbs
    view = _View(root, limits, not screen.is_utf8(environ))
    console = Console(
        no_color=bool(environ.get("NO_COLOR")) or None, highlight=False, markup=False, emoji=False, soft_wrap=False
    )
    with _Signals() as signals:
        while True:
            with _Keys() as keys, Live(
                console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            ) as live:  # fmt: skip
                code = _run(view, live, console, environ, keys, signals)
            if code >= 0:
                break
            signals.stop()
    if code == _LEAVING[signal.SIGQUIT]:  # Ctrl-\\: whoever waits is to see the signal
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGQUIT)
    return code


def _run(view: _View, live: Live, console: Console, environ: Mapping[str, str], keys: _Keys, signals: _Signals) -> int:
    """Draw and wait until it is to end, and with what; -1: it is to stop for a while."""
    drawn = 0.0
    while True:
        now = time.monotonic()
        changed = view.look(now)
        if changed or signals.resized or now - drawn >= DRAW:
            signals.resized = False
            width, height = screen.size(environ)
            console.size = ConsoleDimensions(width, height)
            live.update(_text(view.frame(width, height), not console.no_color), refresh=True)
            drawn = now
        word = keys.wait(signals.fd, TICK)
        signals.drain()
        if signals.code is not None:
            return signals.code
        if word in (b"q", b"Q", b"\x04"):
            return 0
        if word in (b"r", b"R", b" "):
            view.due = 0.0


def _text(lines: list[screen.Line], styled: bool) -> Group:
    found = []
    for line in lines:
        text = Text(no_wrap=True, overflow="crop", end="")
        for words, style in line:
            text.append(words, style=_STYLES.get(style, "") if styled else "")
        found.append(text)
    return Group(*(Text("\n").join(found),)) if found else Group()


class _View:
    """What is shown: the last overview, or why there is none."""

    def __init__(self, root: str, limits: Limits, ascii_only: bool, clock: Callable[[], float] = time.time) -> None:
        self.root, self.limits, self.ascii_only, self.clock = root, limits, ascii_only, clock
        self.told: Optional[dict[str, Any]] = None
        self.problem: Optional[RecoveryError] = None
        self.marks: object = None
        self.due = self.free = 0.0

    def look(self, now: float) -> bool:
        """Look, if something has changed or it is time; whether that was done.  `now` never goes back."""
        marks = overview.marks(self.root)
        if (marks == self.marks and now < self.due) or (now < self.free and self.due):
            return False
        self.marks = marks
        began = time.monotonic()
        try:
            self._require_there()
            store = FileStore(self.root, self.limits)
            try:
                self.told, self.problem = overview.look(store, now=self.clock()), None
            finally:
                store.close()
        except RecoveryError as error:
            self.problem = error
        took = time.monotonic() - began
        self.due, self.free = now + took + LOOK, now + took / SHARE
        return True

    def _require_there(self) -> None:
        """NotFound (66) if the workspace, which was there, is gone: as it is of a disk that is not mounted any more."""
        if workspace.root_at(self.root) != self.root:
            raise NotFound(
                f"{self.root} is gone, or holds no postbox/ any more: was it removed, or its disk unmounted?",
                hint="once it is back, it is shown here again",
            )

    def frame(self, width: int, height: int) -> list[screen.Line]:
        if self.problem is not None or self.told is None:
            return screen.refusal(str(self.problem), self.problem.hint if self.problem else "", width, self.ascii_only)
        now = FileStore.time(self.clock())
        footer = f"{now[11:]}  {_FOOTER}  {self.told['root']}"
        lines = screen.frame({**self.told, "time": now}, width, height, footer, self.ascii_only, live=True)
        lines[-1:-1] = [[] for _ in range(height - len(lines))]
        return lines


class _Keys:
    """The keys that are pressed, one at a time and unseen; a stdin that is no terminal has none."""

    def __init__(self) -> None:
        self.before: Optional[list[Any]] = None

    def __enter__(self) -> _Keys:
        try:
            self.before = termios.tcgetattr(0)
            mode = termios.tcgetattr(0)
            mode[3] &= ~(termios.ECHO | termios.ICANON)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(0, termios.TCSADRAIN, mode)
        except termios.error:
            self.before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self.before)
            except termios.error:  # the terminal is gone
                pass

    def wait(self, other: int, seconds: float) -> bytes:
        """The next key, b"" if none came in time, or something on `other` did."""
        watched = [other] if self.before is None else [0, other]
        try:
            found = select.select(watched, [], [], seconds)[0]
            if 0 not in found or self.before is None:
                return b""
            return os.read(0, 1) or b"q"  # the terminal has hung up
        except OSError:
            return b"q"


class _Signals:
    """Signals, noted while a frame is drawn, met behind it.  `fd` can be read when one has come."""

    _HEARD = (*_LEAVING, signal.SIGWINCH, signal.SIGTSTP)

    def __init__(self) -> None:
        self.code: Optional[int] = None
        self.resized = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        self.fd, self._end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._woken = signal.set_wakeup_fd(self._end, warn_on_full_buffer=False)
        for number in self._HEARD:
            if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGWINCH:  # as nohup wants it
                self._before[number] = signal.signal(number, self._met)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._woken)
        os.close(self.fd)
        os.close(self._end)

    def _met(self, number: int, frame: Optional[FrameType]) -> None:
        if number == signal.SIGWINCH:
            self.resized = True
        elif number == signal.SIGTSTP:
            self.code = -1
        else:
            self.code = _LEAVING[signal.Signals(number)]

    def drain(self) -> None:
        try:
            os.read(self.fd, 512)
        except BlockingIOError:
            pass

    def stop(self) -> None:
        """Stop, as Ctrl-Z asks; returns when somebody brings it back."""
        self.code = None
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.resized = True
