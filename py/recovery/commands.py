"""Running a command so that nothing of it is left: its own process group, TERM, then KILL.

The command leads a session of its own.  Its number stays taken until its whole group has been dealt with, because it
is only then waited for: no signal of ours can reach a stranger who got the number since.
"""

from __future__ import annotations

import errno
import os
import sys
import time

from recovery.errors import NotFound, RecoveryError, UsageError, from_os_error
from recovery.signals import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from types import TracebackType
    from typing import IO, Any, Mapping, Optional, Sequence, Union

    Word = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

#: Bytes that are kept of each of a command's outputs: its memory isn't ours to lose.
MOST = 1 << 24
#: Lines that an error keeps of what a command said last, characters of each, and the bytes that are looked at for that.
TAIL_LINES, _TAIL_WIDTH, _TAIL_BYTES = 20, 500, 1 << 16
#: Seconds that output is waited for behind the command's own end, where a child of it still holds the pipe.
DRAIN = 1.0
#: Seconds that a command may take to die of SIGKILL: one that hangs in the kernel (state D) is left behind.
_KILLED = 5.0
#: How often to look where the kernel can't tell us.
_TICK = 0.02
#: No wait is longer: a Ctrl-C that comes right before the system call doesn't interrupt it.
_SLICE = 0.25
_PIECE = 1 << 16


class CommandFailed(RecoveryError):
    """A command that ended with anything but 0, or that could not be run: 127 it isn't there, 126 not executable.

    `returncode` is Python's (a signal is negative), `code` the shell's (128 + signal); `args_run` are its words,
    `stderr_tail` and `stdout_tail` the last 20 lines that were captured, `took` the seconds that it ran.  What it had
    done by then stays done.  The message names the program only: arguments may be secrets.
    """

    took = 0.0

    def __init__(
        self, message: str, returncode: int, args_run: Sequence[str], stderr_tail: str = "", stdout_tail: str = ""
    ) -> None:
        super().__init__(message, code=128 - returncode if returncode < 0 else returncode)
        self.returncode, self.args_run = returncode, tuple(args_run)
        self.stderr_tail, self.stdout_tail = stderr_tail, stdout_tail


class Completed:
    """A command that ended with 0: its words, and what it wrote (UTF-8; other bytes as \\xNN).

    `cut` says that it wrote more to stdout or stderr than was to be kept: the beginning is missing.
    """

    __slots__ = ("args", "cut", "returncode", "stderr", "stdout")

    def __init__(self, args: Sequence[str], stdout: str, stderr: str, cut: bool = False) -> None:
        self.args, self.returncode, self.stdout, self.stderr, self.cut = tuple(args), 0, stdout, stderr, cut


def run_command(
    args: Sequence[Word],
    timeout: Optional[float] = None,
    grace: float = 5.0,
    cwd: Optional[Union[str, os.PathLike[str]]] = None,
    env: Optional[Mapping[str, str]] = None,
    input: Optional[Union[str, bytes]] = None,
    capture: bool = True,
    most: int = MOST,
    into: Optional[Kept] = None,
) -> Completed:
    """Run a command (words, never a shell) to its end.

    timeout  seconds, None for no limit.  Then its process group gets SIGTERM, and SIGKILL if any of it is left after
             `grace` seconds (0: at once): TaskTimeout (124).
    input    what it reads from stdin; None: the caller's stdin.
    capture  keep stdout and stderr; else they are the caller's.
    most     bytes of each that are kept, the last ones, 16 MiB if nothing is said; 0: all.  Where the beginning was
             dropped for it, `cut` of the answer is True.  (Up to a quarter more is in memory while it runs.)
    into     takes stdout and stderr together, in the order in which they came, instead.

    CommandFailed if it ends with anything but 0, can't be found (127) or executed (126), or if its exit code is lost
    because this process ignores SIGCHLD (125).  NotFound (66): no such `cwd`.  UsageError (64).  Whatever is raised
    while waiting, Ctrl-C or a timer's alarm, ends the group in the same way and passes; a second one during the grace
    brings the SIGKILL at once.

    The command's own end counts: background children that it leaves are not ended.  Where they still hold its stdout
    or stderr, what they write is waited for one second, then the pipe is closed (a later write is their SIGPIPE).  A
    child that made itself a session of its own escapes all of this, and if this process is killed by SIGKILL, or a
    signal without a handler, the command runs on.
    """
    from recovery.timeouts import require_seconds, timed_out

    if isinstance(args, (str, bytes)) or not args:
        raise UsageError("a command is a list of words, not one string", hint="shlex.split makes one")
    words = [os.fsdecode(word) for word in args]
    if timeout is not None:
        require_seconds(timeout)
    require_seconds(grace, "a grace", zero=True)
    data = input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input
    command = _Command(words, data, capture, most, into)
    in_time = True
    began = time.monotonic()
    try:
        command.start(cwd, env)
        in_time = command.wait(timeout)
        if not in_time:
            command.end(grace)
    except BaseException:
        command.end(grace)
        raise
    finally:
        command.close()
    program = os.path.basename(words[0]) or words[0]
    out, err = command.out, command.err
    if not in_time:
        assert timeout is not None
        late = timed_out(f"Command {program}", timeout)
        late.stderr_tail, late.stdout_tail, late.took = err.tail(), out.tail(), time.monotonic() - began
        raise late
    if command.lost:
        raise CommandFailed(f"{program} ended, but this process ignores SIGCHLD: its exit code is lost", 125, words)
    code = command.returncode
    if code:
        raise failed(words, code, err, out, time.monotonic() - began)
    return Completed(words, out.text(), err.text(), out.cut or err.cut)


def tail(text: str, cut: bool = False) -> str:
    """The last lines of what a command wrote, long ones cut; with `cut` the first line's beginning is missing."""
    lines = text.rstrip().splitlines()
    found = [line if len(line) <= _TAIL_WIDTH else line[:_TAIL_WIDTH] + "…" for line in lines[-TAIL_LINES:]]
    if cut and lines and len(lines) <= TAIL_LINES:
        found[0] = "…" + lines[0][-_TAIL_WIDTH:]
    return "\n".join(found)


def not_started(words: Sequence[str], error: OSError) -> RecoveryError:
    """What it means that a command could not be started: 127 it isn't there, 126 it can't be executed, 74 no room."""
    if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return from_os_error(error, f"{words[0]} could not be started")
    code = 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126
    return CommandFailed(f"{words[0]}: {error.strerror}", code, words)


def failed(words: Sequence[str], code: int, err: Kept, out: Kept, took: float) -> CommandFailed:
    """The error of a command that ended with `code`, Python's: a signal is negative."""
    program = os.path.basename(words[0]) or words[0]
    how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
    last = err.tail()
    said = last.rpartition("\n")[2]
    error = CommandFailed(f"{program} {how}" + (f": {said}" if said else ""), code, words, last, out.tail())
    error.took = took
    return error


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, if there is one left that hears it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


class Kept:
    """What came out of a pipe: all of it, or the last `most` bytes; `cut` where the beginning was dropped."""

    def __init__(self, most: int) -> None:
        self.most, self.data, self.cut = most, bytearray(), False
        #: Dropping what is too much copies what stays, hence not with each piece.
        self.room = most + max(most // 4, _PIECE) if most else sys.maxsize

    def add(self, data: bytes) -> None:
        self.data += data
        self.cut = self.cut or 0 < self.most < len(self.data)
        if len(self.data) > self.room:
            del self.data[: -self.most]

    def octets(self) -> bytes:
        """What is kept, byte for byte."""
        return bytes(self.data[-self.most :])

    def text(self) -> str:
        return self.octets().decode("utf-8", "backslashreplace")

    def tail(self) -> str:
        size = min(self.most or _TAIL_BYTES, _TAIL_BYTES)
        return tail(self.data[-size:].decode("utf-8", "backslashreplace"), self.cut or len(self.data) > size)


class _Command:
    def __init__(
        self, words: Sequence[str], data: Optional[bytes], capture: bool, most: int, into: Optional[Kept]
    ) -> None:
        self.words, self.capture, self.together = words, capture, into is not None
        self.data = memoryview(data) if data is not None else None
        self.out, self.err = into or Kept(most), Kept(most)
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.pidfd = -1
        self.exited = self.lost = False
        self.returncode = 0
        self.selector: Any = None

    def start(self, cwd: Any, env: Optional[Mapping[str, str]]) -> None:
        import selectors  # with subprocess and threading dearer than a whole commit, and many a command starts none
        import subprocess

        pipe = subprocess.PIPE
        try:
            with _HeldBack():
                self.selector = selectors.DefaultSelector()
                self.process = subprocess.Popen(
                    self.words,
                    bufsize=0,
                    stdin=pipe if self.data is not None else None,
                    stdout=pipe if self.capture else None,
                    stderr=subprocess.STDOUT if self.together else pipe if self.capture else None,
                    cwd=cwd,
                    env=env,
                    start_new_session=True,
                )
                self._watch()
        except ValueError as error:
            if self.process is not None:  # not Popen's: a signal handler's that had to wait
                raise
            raise UsageError(f"this command can't be run: {error}") from None
        except OSError as error:
            if self.process is not None:
                raise
            raise self._refusal(error, cwd) from None

    def _watch(self) -> None:
        import selectors

        assert self.process is not None
        for stream, what in ((self.process.stdin, "in"), (self.process.stdout, "out"), (self.process.stderr, "err")):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self.selector.register(stream, selectors.EVENT_WRITE if what == "in" else selectors.EVENT_READ, what)
        try:
            self.pidfd = os.pidfd_open(self.process.pid)
            self.selector.register(self.pidfd, selectors.EVENT_READ, "exit")
        except (OSError, AttributeError):  # an older kernel, or a sandbox that hides the call
            if self.pidfd >= 0:
                os.close(self.pidfd)
            self.pidfd = -1

    def _refusal(self, error: OSError, cwd: Any) -> RecoveryError:
        if cwd is not None and error.filename is not None and os.fsdecode(error.filename) == os.fsdecode(cwd):
            return NotFound(f"{os.fsdecode(cwd)!a}: {error.strerror}", hint="give a folder that is there")
        return not_started(self.words, error)

    def wait(self, timeout: Optional[float]) -> bool:
        """Until it has ended and its output is read; False if that took longer than `timeout`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.exited:
            left = 3600.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            self.pump(left)
        self.drain(DRAIN)
        return True

    def drain(self, seconds: float) -> None:
        """Read what is still to come, until the pipes are closed or `seconds` have passed."""
        assert self.process is not None
        if self.process.stdin is not None:
            self._done(self.process.stdin)
        until = time.monotonic() + seconds
        while any(key.data in ("out", "err") for key in self.selector.get_map().values()):
            left = until - time.monotonic()
            if left <= 0:
                return
            self.pump(left)

    def pump(self, seconds: float) -> None:
        """Read, write, and see whether it has ended; returns when something happened, or after `seconds`."""
        assert self.process is not None
        seconds = min(seconds, _TICK if self.pidfd < 0 and not self.exited else _SLICE)
        ended = False
        for key, _ in self.selector.select(seconds):
            if key.data == "exit":
                ended = True
                self.selector.unregister(self.pidfd)
            elif key.data == "in":
                self._feed(key.fileobj)
            else:
                self._take(key.fileobj, self.out if key.data == "out" else self.err)
        if (ended or self.pidfd < 0) and not self.exited:
            try:
                flags = os.WEXITED | os.WNOWAIT | (0 if ended else os.WNOHANG)
                self.exited = os.waitid(os.P_PID, self.process.pid, flags) is not None
            except ChildProcessError:
                self.exited = self.lost = True

    def _take(self, stream: Any, kept: Kept) -> None:
        try:
            data = os.read(stream.fileno(), _PIECE)
        except BlockingIOError:
            return
        if data:
            kept.add(data)
        else:
            self._done(stream)

    def _feed(self, stream: Any) -> None:
        assert self.data is not None
        try:
            self.data = self.data[_write(stream.fileno(), self.data[:_PIECE]) :]
        except BlockingIOError:
            return
        except OSError:  # it doesn't want to know
            self.data = self.data[:0]
        if not self.data:
            self._done(stream)

    def _done(self, stream: IO[bytes]) -> None:
        if not stream.closed:
            try:
                self.selector.unregister(stream)
            except KeyError:
                pass
            stream.close()

    def end(self, grace: float) -> None:
        """TERM to the group, and KILL after `grace` seconds, or at an exception, to what is left of it."""
        if self.process is None:
            return
        from recovery.processes import others_in

        try:
            self._signal(plain.SIGTERM)
            self._signal(plain.SIGCONT)  # a stopped process would not hear it
            until = time.monotonic() + grace
            while not (self.exited and not others_in(self.process.pid)):
                left = until - time.monotonic()
                if left <= 0:
                    break
                self.pump(min(left, _TICK))
        finally:
            self._signal(plain.SIGKILL)
            until = time.monotonic() + _KILLED
            while not self.exited and time.monotonic() < until:
                self.pump(_TICK)
            self.drain(_TICK)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        if not self.lost:
            signal_group(self.process.pid, number)

    def close(self) -> None:
        """Give the descriptors back, and wait for what has ended."""
        if self.process is not None:
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                if stream is not None:
                    self._done(stream)
            if self.exited:
                self.returncode = self.process.wait()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self.selector is not None:
            self.selector.close()


def _write(fd: int, data: memoryview) -> int:
    """write(2) without the SIGPIPE, even where the program has put that signal's default back."""
    mask = plain.pthread_sigmask(plain.SIG_BLOCK, (plain.SIGPIPE,))
    try:
        return os.write(fd, data)
    except BrokenPipeError:
        if plain.SIGPIPE not in mask:
            plain.sigtimedwait((plain.SIGPIPE,), 0)
        raise
    finally:
        plain.pthread_sigmask(plain.SIG_SETMASK, mask)


class _HeldBack:
    """While a process is being made, signal handlers wait: one that raised there would lose its pid or a descriptor.

    Only in the main thread; elsewhere Python runs none.
    """

    def __init__(self) -> None:
        self.came: list[int] = []
        self.before: dict[int, Any] = {}

    def _note(self, signum: int, frame: object) -> None:
        self.came.append(signum)

    def __enter__(self) -> None:
        import threading

        if threading.current_thread() is not threading.main_thread():
            return
        try:
            for number in (plain.SIGINT, plain.SIGTERM, plain.SIGHUP, plain.SIGALRM, plain.SIGUSR1, plain.SIGUSR2):
                handler = plain.getsignal(number)
                if callable(handler):
                    self.before[number] = handler
                    plain.signal(number, self._note)
        except BaseException:
            self._put_back()
            raise

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        problem = self._put_back()
        if problem is not None:
            raise problem

    def _put_back(self) -> Optional[BaseException]:
        problem: Optional[BaseException] = None
        while self.before or self.came:
            try:
                while self.before:
                    number = next(iter(self.before))
                    plain.signal(number, self.before[number])
                    del self.before[number]
                while self.came:
                    plain.raise_signal(self.came.pop())
            except BaseException as raised:  # by a handler that is in its place again
                problem = raised
        return problem
