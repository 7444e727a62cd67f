"""Running somebody's command in our place: with his terminal, his streams, and the signals that reach us.

The command leads a process group of its own, in our session.  Where our group has the terminal, it gets it, as a shell
would give it: Ctrl-C and Ctrl-Z are for the command, and we stop and go on with it.  INT, TERM, HUP and QUIT that are
sent to us reach its whole group; a second one kills the group.  What is typed we are not sent, so a process of ours
stands in the group and listens: Ctrl-C three times within a second kills it (once is an editor's or a REPL's own
business, as often as somebody likes).

Only for a process with one thread that belongs to the command (`recovery try` and the like): it forks, and owns the
signals.  A program that goes on with its own work starts commands with `commands.run_command`.
"""

from __future__ import annotations

import errno
import os
import select
import time
from stat import S_ISREG

from recovery import steps
from recovery.commands import Kept, not_started, signal_group
from recovery.errors import RecoveryError
from recovery.request import WRAPPER_FAILED
from recovery.signals import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, NoReturn, Optional, Sequence

#: Bytes of what a command says last that are looked at.
TAIL = 1 << 16
#: Signals that mean: come to an end.
ENDING = (plain.SIGINT, plain.SIGTERM, plain.SIGHUP, plain.SIGQUIT)
_PASSED = (plain.SIGUSR1, plain.SIGUSR2)
_STOPS = (plain.SIGTSTP, plain.SIGTTIN, plain.SIGTTOU)
_PIECE = 1 << 16
#: A pipe that is ready takes so much at once (PIPE_BUF).
_SURE = 4096
#: How often to look whether a group is gone.
_TICK = 0.02
#: Seconds that a command may take to die of SIGKILL: one that hangs in the kernel (state D) is left behind.
_KILLED = 5.0
#: So many Ctrl-C within so many seconds, typed at the terminal, mean that the command is to be killed.
_TYPED, _WITHIN = 3, 1.0
#: What the listener writes to our wake-up pipe for each; the kernel's own bytes there are numbers of signals.
_CTRL_C = b"\0"


class Stopped(BaseException):
    """A signal told us, or the terminal told the command, to come to an end; nothing is tried again.

    `code` is 128 + the signal.  With `terminal` it is the whole job's matter: see `follow`.  No Exception: nobody's
    `except Exception` may take it for a failure.
    """

    def __init__(self, number: int, terminal: bool = False) -> None:
        super().__init__(f"stopped by {name_of(number)}")
        self.number, self.terminal, self.code = number, terminal, 128 + number
        self.stderr_tail, self.took = "", 0.0


class Ended:
    """How a command ended.

    `returncode` is Python's: a signal is negative.  `told` is the signal that we were told, 0 if none; `terminal`
    whether the command had the terminal; `typed` that it was killed from there; `in_time` False if it was ended for its
    time; `seconds` that it took.  `out` and `err` hold what was kept of its output, `unwritten` why its stdout could
    not be passed on, None if it was.
    """

    __slots__ = ("err", "in_time", "out", "returncode", "seconds", "terminal", "told", "typed", "unwritten")

    def __init__(self, out: Kept, err: Kept) -> None:
        self.out, self.err = out, err
        self.returncode, self.told, self.seconds = 0, 0, 0.0
        self.in_time, self.terminal, self.typed = True, False, False
        self.unwritten: Optional[OSError] = None

    @property
    def code(self) -> int:
        """The shell's: 128 + a signal."""
        return 128 - self.returncode if self.returncode < 0 else self.returncode

    @property
    def stopped(self) -> Optional[Stopped]:
        """What there is to raise if it did not succeed because somebody wanted it to end."""
        if not self.returncode:
            return None
        number = self.told or (plain.SIGINT if self.typed else 0)
        if not number and self.terminal and self.code in (128 + plain.SIGINT, 128 + plain.SIGQUIT):
            number = self.code - 128
        if not number and self.terminal and self.returncode == -plain.SIGHUP:  # the terminal is gone: we were not told
            number = plain.SIGHUP
        if not number:
            return None
        stopped = Stopped(number, terminal=not self.told)
        stopped.stderr_tail, stopped.took = self.err.tail(), self.seconds
        return stopped


def name_of(number: int) -> str:
    """`SIGTERM`, or the number where it has no common name."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        if getattr(plain, name) == number:
            return name
    return f"signal {number}"


class Foreground:
    """Runs commands, one at a time, in the place of this process; a context in which the signals are ours.

    `out` and `err` are the descriptors that the command's stdout and stderr go to.  With `keep_out` and `keep_err`
    bytes the last of each are kept on the way; with 0 the command has the descriptor itself.  Where both are the same
    file they go through one pipe, so that their order stays, unless `apart`.  With `spool`, the path of a folder, both
    are kept in nameless files there instead, each try in new ones, and `emit` writes the last try's out.

    `drain` is how many seconds output is waited for behind the command's end where something it left in the background
    still holds a pipe that is kept; what comes later is passed on by a process of its own.  With `deaf` a reader who
    goes away, or a full disk, is not the command's matter: what it writes is kept all the same.
    """

    def __init__(
        self,
        out: int = 1,
        err: int = 2,
        keep_out: int = 0,
        keep_err: int = 0,
        apart: bool = False,
        spool: Optional[Sequence[str]] = None,
        drain: float = 0.05,
        deaf: bool = False,
    ) -> None:
        self.out, self.err, self.keep_out, self.keep_err = out, err, keep_out, keep_err
        self.spool, self.drain, self.deaf = spool, drain, deaf
        self.joined = bool(keep_out or keep_err) and not apart and _same(out, err)
        self.told = 0
        #: Whether the next signal to end raises KeyboardInterrupt: while we wait for what isn't a command of ours.
        self.interrupts = False
        self._depth = 0
        self._heard: list[int] = []
        self._before: dict[int, Any] = {}
        self._pid = 0
        self._wake = (-1, -1)
        self._terminal = -1
        self._gave = False
        #: A group that is over and has the terminal still: ours has no number in our pid namespace, to give it back to.
        self._lent = 0
        self._listener = (0, -1)
        self._typed: list[float] = []
        self._hammered = -_WITHIN
        self._stdin_at = -1
        self._spooled: list[tuple[int, int]] = []

    # --- the signals

    def __enter__(self) -> Foreground:
        self._depth += 1
        if self._depth > 1:
            return self
        self._wake = os.pipe()
        for fd in self._wake:
            os.set_blocking(fd, False)
        plain.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in (*ENDING, *_PASSED, plain.SIGCHLD, plain.SIGCONT):
            before = plain.getsignal(number)
            if before == plain.SIG_IGN and number != plain.SIGCHLD:
                continue  # nohup, a background job: the command is not to be told either
            self._before[number] = before
            plain.signal(number, self._hear)
        try:
            self._stdin_at = os.lseek(0, 0, os.SEEK_CUR) if S_ISREG(os.fstat(0).st_mode) else -1
        except OSError:
            pass
        try:
            self._terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            pass
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        plain.set_wakeup_fd(-1)
        for number, before in self._before.items():
            plain.signal(number, before if before is not None else plain.SIG_DFL)
        self._before.clear()
        _close(*self._wake, self._terminal, *(fd for fd, _ in self._spooled))
        self._wake, self._terminal, self._spooled = (-1, -1), -1, []

    def _hear(self, number: int, frame: object) -> None:
        if number == plain.SIGINT and time.monotonic() < self._hammered + _WITHIN:
            return  # the fingers are on the keys still, and the terminal is ours again
        if number in ENDING and self.interrupts:
            self.told, self.interrupts = self.told or number, False
            raise KeyboardInterrupt
        if number in ENDING:
            if self.told and not self._pid:  # the second, and we are busy with our own books: a crash harms them not
                plain.signal(number, plain.SIG_DFL)
                plain.raise_signal(number)
            self.told = self.told or number
        self._heard.append(number)

    def require_untold(self) -> None:
        """Raise Stopped if we have been told to end."""
        if self.told:
            raise Stopped(self.told)

    def sleep(self, seconds: float) -> None:
        """Wait; Stopped as soon as a signal says so."""
        until = time.monotonic() + seconds
        while True:
            self.require_untold()
            self._heard.clear()
            left = until - time.monotonic()
            if left <= 0:
                return
            self._wait([], left)

    def wait_for(self, fd: int) -> None:
        """Until something can be read from it; Stopped as soon as a signal says so."""
        poll = select.poll()
        poll.register(self._wake[0], select.POLLIN)
        poll.register(fd, select.POLLIN)
        while True:
            self.require_untold()
            self._heard.clear()
            ready = [found for found, _ in poll.poll()]
            if self._wake[0] in ready:
                os.read(self._wake[0], 4096)
            if fd in ready:
                return

    @property
    def can_repeat_stdin(self) -> bool:
        """Whether a further run reads what the first one did: stdin is a file, a terminal or /dev/null."""
        try:
            return self._stdin_at >= 0 or os.isatty(0) or os.path.samestat(os.fstat(0), os.stat(os.devnull))
        except OSError:
            return False

    # --- a run

    def run(
        self,
        words: Sequence[str],
        timeout: Optional[float] = None,
        grace: float = 5.0,
        env: Optional[Mapping[str, str]] = None,
        pass_fds: Sequence[int] = (),
        started: Optional[Callable[[int], None]] = None,
    ) -> Ended:
        """Run a command (words, never a shell) to its end.

        timeout  seconds, None for no limit; then its group gets SIGTERM, and SIGKILL if any of it is left after
                 `grace` seconds.
        pass_fds are descriptors that it inherits beside the usual ones.
        started  is told the number of its process, and of its group, before it does anything; if that raises, or we
                 are killed meanwhile, the command is not run.

        CommandFailed if it can't be found (127) or executed (126), StorageError (74) if there is no room for another
        process.  Stopped if we had been told to end before.  A background child that it leaves behind is not ended; its
        output still comes out.  If this process is killed, the command runs on.
        """
        self.require_untold()
        if self._stdin_at >= 0:
            os.lseek(0, self._stdin_at, os.SEEK_SET)
        self._typed.clear()
        ended = Ended(Kept(self.keep_out or TAIL), Kept(self.keep_err or TAIL))
        streams, fds = self._plumb(ended)
        copies = [os.dup(fd) for fd in pass_fds]  # a fork closes the locks themselves, see `recovery.forks`
        began = time.monotonic()
        try:
            try:
                self._pid = self._start(words, fds, env, copies, started)
            finally:
                for fd in (*copies, *(stream.theirs for stream in streams)):
                    os.close(fd)
            steps.at("command-started", self._pid)
            if self._gave:  # it may be gone again by now, and the command with it
                self._listen(ended)
            self._see_through(ended, streams, None if timeout is None else began + timeout, grace)
            ended.seconds = time.monotonic() - began
            self._drain(streams)
        finally:
            pid, self._pid = self._pid, 0
            self._stop_listening()
            self._take_terminal_back(pid)
            if pid:
                self._reap(pid, ended)
            _relay([stream for stream in streams if stream.is_open])
            for stream in streams:
                stream.close()
        ended.unwritten = streams[0].problem if streams and streams[0].kept is ended.out else None
        for fd, kept in zip([fd for fd, _ in self._spooled], (ended.out, ended.err)):
            kept.add(os.pread(fd, TAIL, max(os.fstat(fd).st_size - TAIL, 0)))
        ended.told = self.told
        return ended

    def emit(self) -> Optional[OSError]:
        """Write out what the last run's command had written to its spools; why its stdout can't be, if so."""
        problem = None
        for fd, target in self._spooled:
            os.lseek(fd, 0, os.SEEK_SET)
            try:
                while True:
                    data = memoryview(os.read(fd, _PIECE))
                    if not data:
                        break
                    while data:
                        data = data[os.write(target, data) :]
            except OSError as error:  # whoever reads has gone, or his disk is full
                problem = error if target == self.out else problem
        return problem

    def _plumb(self, ended: Ended) -> tuple[list[_Stream], tuple[int, int]]:
        if self.spool is not None:
            for fd, _ in self._spooled:
                os.close(fd)
            self._spooled = []
            for target in (self.out, self.err):
                self._spooled.append((_nameless(self.spool), target))
            return [], (self._spooled[0][0], self._spooled[1][0])
        streams: list[_Stream] = []
        if self.joined:
            streams.append(_Stream(self.err, ended.err, self.deaf))
            ended.out = ended.err
            return streams, (streams[0].theirs, streams[0].theirs)
        fds = []
        for target, keep, kept in ((self.out, self.keep_out, ended.out), (self.err, self.keep_err, ended.err)):
            if keep:
                streams.append(_Stream(target, kept, self.deaf))
                fds.append(streams[-1].theirs)
            else:
                fds.append(target)
        return streams, (fds[0], fds[1])

    def _start(
        self,
        words: Sequence[str],
        fds: tuple[int, int],
        env: Optional[Mapping[str, str]],
        pass_fds: Sequence[int],
        started: Optional[Callable[[int], None]],
    ) -> int:
        news, told = os.pipe()
        gate = os.pipe() if started is not None else (-1, -1)
        mine = os.getpgrp()
        try:
            has_terminal = self._terminal >= 0 and os.tcgetpgrp(self._terminal) in (mine, self._lent or mine)
        except OSError:
            has_terminal = False
        self._gave = has_terminal
        mask = plain.pthread_sigmask(plain.SIG_BLOCK, plain.valid_signals())  # no handler of ours runs in the child
        try:
            pid = os.fork()
            if not pid:
                self._become(words, fds, env, pass_fds, self._terminal if has_terminal else -1, told, gate, mask)
        except OSError as error:
            _close(news, *gate)
            raise not_started(words, error) from None
        finally:
            plain.pthread_sigmask(plain.SIG_SETMASK, mask)
            os.close(told)
        try:
            if started is not None:
                try:
                    os.setpgid(pid, pid)
                    started(pid)
                    os.write(gate[1], b"!")
                except BaseException:
                    _close(gate[1])
                    gate = (gate[0], -1)
                    os.waitpid(pid, 0)
                    self._take_terminal_back(pid)
                    raise
            said = os.read(news, 64)
        finally:
            _close(news, *gate)
        if said:
            os.waitpid(pid, 0)
            self._take_terminal_back(pid)
            raise not_started(words, OSError(int(said), os.strerror(int(said)))) from None
        return pid

    def _become(
        self,
        words: Sequence[str],
        fds: tuple[int, int],
        env: Optional[Mapping[str, str]],
        pass_fds: Sequence[int],
        terminal: int,
        told: int,
        gate: tuple[int, int],
        mask: Any,
    ) -> None:
        """In the child: turn into the command, or tell why not."""
        try:
            os.setpgid(0, 0)
            _close(gate[1])
            if gate[0] >= 0 and not os.read(gate[0], 1):
                os._exit(127)
            if terminal >= 0:
                os.tcsetpgrp(terminal, os.getpid())  # SIGTTOU is blocked with the rest
            for number, before in (*self._before.items(), (plain.SIGPIPE, None), (plain.SIGXFSZ, None)):
                plain.signal(number, plain.SIG_IGN if before == plain.SIG_IGN else plain.SIG_DFL)
            # above 2 first: the one may stand where the other is to go
            for place, fd in enumerate([os.dup(fd) if fd < 3 else fd for fd in fds], 1):
                os.dup2(fd, place)
            for fd in pass_fds:
                os.set_inheritable(fd, True)
            plain.pthread_sigmask(plain.SIG_SETMASK, mask)
            _execute(list(words), os.environ if env is None else env)
        except OSError as error:
            os.write(told, b"%d" % (error.errno or errno.ENOENT))
        except ValueError:  # an empty word
            os.write(told, b"%d" % errno.ENOENT)
        finally:
            os._exit(127)

    def _see_through(self, ended: Ended, streams: list[_Stream], deadline: Optional[float], grace: float) -> None:
        """Until the command has ended, and its group too if its time was up."""
        pid, kill_at, exited, endings = self._pid, 0.0, False, 0
        while True:
            while self._heard:
                number = self._heard.pop(0)
                if number in ENDING:
                    endings += 1
                    signal_group(pid, number if endings == 1 else plain.SIGKILL)
                    signal_group(pid, plain.SIGCONT)
                elif number in _PASSED:
                    signal_group(pid, number)
                elif number == plain.SIGCONT:
                    self._go_on(ended)
                elif number == plain.SIGCHLD:
                    self._stop_likewise(ended)
            now = time.monotonic()
            if len(self._typed) >= _TYPED and now - self._typed[-_TYPED] <= _WITHIN:
                self._typed.clear()
                ended.typed, self._hammered = True, now
                signal_group(pid, plain.SIGKILL)
            if not exited and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                exited = True
                self._stop_listening()  # else it would count as one of the group
            if deadline is not None and now >= deadline and not exited and not kill_at:
                ended.in_time = False
                signal_group(pid, plain.SIGTERM)
                signal_group(pid, plain.SIGCONT)
                kill_at = now + grace
            if exited and (not kill_at or not _others_in(pid)):
                return
            if kill_at and now >= kill_at:
                signal_group(pid, plain.SIGKILL)
                if exited or now >= kill_at + _KILLED:
                    return
            limit = kill_at + _KILLED if kill_at and now >= kill_at else kill_at or deadline
            left = None if limit is None else max(limit - now, 0.0)
            self._wait(streams, _TICK if kill_at else left)

    def _wait(self, streams: list[_Stream], seconds: Optional[float]) -> None:
        """Until something is to be heard, read or written, at most so long."""
        poll = select.poll()
        poll.register(self._wake[0], select.POLLIN)
        by_fd = _registered(poll, streams)
        for fd, _ in poll.poll(None if seconds is None else int(min(seconds, 86400.0) * 1000) + 1):
            if fd == self._wake[0]:
                self._typed += [time.monotonic()] * os.read(fd, 4096).count(_CTRL_C)
            for stream in by_fd.get(fd, ()):
                stream.move()

    def _drain(self, streams: list[_Stream]) -> None:
        """Pass on what the command itself has written; what others hold open is waited for a moment only."""
        until = time.monotonic() + self.drain
        while any(stream.is_open for stream in streams):
            left = until - time.monotonic()
            if left <= 0 and not any(stream.is_open and stream.has_more() for stream in streams):
                return
            self._heard.clear()
            self._wait(streams, max(left, 0.0))

    def _reap(self, pid: int, ended: Ended) -> None:
        try:
            flags = 0 if ended.in_time else os.WNOHANG  # one that SIGKILL doesn't end is left to init
            done, status = os.waitpid(pid, flags)
        except ChildProcessError:
            return
        if not done:
            ended.returncode = -plain.SIGKILL
        else:
            ended.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    # --- the terminal

    def _has_terminal(self, group: int) -> bool:
        try:
            return self._terminal >= 0 and os.tcgetpgrp(self._terminal) == group
        except OSError:
            return False

    def _give_terminal(self, group: int) -> None:
        mask = plain.pthread_sigmask(plain.SIG_BLOCK, (plain.SIGTTOU,))
        try:
            os.tcsetpgrp(self._terminal, group)
        except OSError:
            pass
        finally:
            plain.pthread_sigmask(plain.SIG_SETMASK, mask)

    def _take_terminal_back(self, group: int) -> None:
        if group and self._has_terminal(group):
            self._give_terminal(os.getpgrp())
            self._lent = group if self._has_terminal(group) else 0

    def _stop_likewise(self, ended: Ended) -> None:
        """The command was stopped from the terminal: so is the whole job that we are."""
        try:
            news = os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:
            return
        if news is None or news.si_status not in _STOPS or self._terminal < 0:
            return
        self._take_terminal_back(self._pid)
        number = news.si_status
        os.killpg(os.getpgrp(), number)  # here we stand still until the shell continues us
        if number == plain.SIGTSTP and plain.SIGCONT not in self._heard:
            self._go_on(ended)  # nobody could continue us, so the kernel did not stop us

    def _go_on(self, ended: Ended) -> None:
        if self._has_terminal(os.getpgrp()):
            self._give_terminal(self._pid)
            self._listen(ended)
        signal_group(self._pid, plain.SIGCONT)

    def _listen(self, ended: Ended) -> None:
        """The command has the terminal: let a child of ours into its group, which hears what is typed there.

        It holds nothing else of ours, ends with us, and is killed with the group.  Without it, for want of room, there
        are only the signals that we are sent.
        """
        ended.terminal = True
        if self._listener[0] or plain.SIGINT not in self._before:  # where it is ignored for us, it is for the command
            return
        life, ours = os.pipe()
        mask = plain.pthread_sigmask(plain.SIG_BLOCK, plain.valid_signals())
        try:
            child = os.fork()
            if not child:
                _hear_what_is_typed(self._pid, life, self._wake[1])
            self._listener = (child, ours)
        except OSError:
            os.close(ours)
        finally:
            plain.pthread_sigmask(plain.SIG_SETMASK, mask)
            os.close(life)

    def _stop_listening(self) -> None:
        (child, ours), self._listener = self._listener, (0, -1)
        if child:
            os.close(ours)
            os.kill(child, plain.SIGKILL)  # ours, and not waited for: the number is its own
            os.waitpid(child, 0)


def _hear_what_is_typed(group: int, life: int, wake: int) -> NoReturn:
    """In a child: one byte for each SIGINT of the terminal, until our parent ends, and `life` with it."""
    try:
        os.setpgid(0, group)
        plain.set_wakeup_fd(-1)
        for number in (*ENDING, *_PASSED, *_STOPS, plain.SIGPIPE, plain.SIGCHLD):
            plain.signal(number, plain.SIG_IGN)
        plain.signal(plain.SIGINT, lambda *_: os.write(wake, _CTRL_C) and None)
        _close_all_but(life, wake)
        plain.pthread_sigmask(plain.SIG_SETMASK, ())
        os.read(life, 1)
    finally:
        os._exit(0)


def _close_all_but(*needed: int) -> None:
    for low, high in zip([-1, *sorted(needed)], [*sorted(needed), os.sysconf("SC_OPEN_MAX")]):
        os.closerange(low + 1, min(high, 1 << 16))


def unwritten(problem: OSError, what: str, hint: str = "") -> RecoveryError:
    """The refusal (125) of a wrapper whose command went well and whose stdout could not be passed on."""
    return RecoveryError(f"stdout can't be written ({problem.strerror}): {what}", hint=hint, code=WRAPPER_FAILED)


def follow(stopped: Optional[Stopped]) -> Optional[Callable[[], None]]:
    """Ctrl-C came from the terminal and reached the command alone: what passes it on to the rest of the job.

    So a loop in a shell ends, as it would have without us.  None if it wasn't the terminal.
    """
    if stopped is None or not stopped.terminal:
        return None
    number = stopped.number

    def kill() -> None:
        plain.signal(number, plain.SIG_DFL)
        os.killpg(os.getpgrp(), number)

    return kill


class _Stream:
    """One of a command's outputs: a pipe that we read, keep the last of, and pass on.

    Never blocks on a reader of ours that is slow: the command's time and our signals are looked at meanwhile.
    `problem` is why it could not be passed on; the command hears of that at its next write, unless `deaf`.
    """

    __slots__ = ("_left", "_piece", "deaf", "kept", "ours", "problem", "target", "theirs")

    def __init__(self, target: int, kept: Kept, deaf: bool = False) -> None:
        self.target, self.kept, self.deaf = target, kept, deaf
        self.problem: Optional[OSError] = None
        self._piece = _PIECE if _is_file(target) else _SURE
        self.ours, self.theirs = os.pipe()
        os.set_blocking(self.ours, False)
        self._left = memoryview(b"")

    @property
    def is_open(self) -> bool:
        return self.ours >= 0

    def wants(self) -> tuple[int, int]:
        return (self.target, select.POLLOUT) if self._left else (self.ours, select.POLLIN)

    def has_more(self) -> bool:
        if self._left:
            return True
        poll = select.poll()
        poll.register(self.ours, select.POLLIN)
        return bool(poll.poll(0))

    def move(self) -> None:
        try:
            if not self._left:
                data = os.read(self.ours, _PIECE)
                if not data:
                    self.close()
                    return
                self.kept.add(data)
                self._left = memoryview(b"" if self.problem else data)
            else:
                self._left = self._left[os.write(self.target, self._left[: self._piece]) :]
        except BlockingIOError:
            return
        except OSError as error:
            self.problem, self._left = error, memoryview(b"")
            if not self.deaf:
                self.close()

    def close(self) -> None:
        if self.ours >= 0:
            os.close(self.ours)
            self.ours = -1


def _relay(streams: list[_Stream]) -> None:
    """What a background child of the command still writes goes on to where it belongs, by a process that is left.

    Without it the child would die of SIGPIPE, or we would wait for it.  It holds nothing else that we had open.
    """
    if not streams:
        return
    try:
        if os.fork():
            return
    except OSError:
        return
    try:
        os.setsid()
        plain.set_wakeup_fd(-1)
        for number in (*ENDING, *_PASSED, plain.SIGCHLD, plain.SIGCONT):
            plain.signal(number, plain.SIG_DFL)
        _close_all_but(*{fd for stream in streams for fd in (stream.ours, stream.target)})
        while any(stream.is_open for stream in streams):
            poll = select.poll()
            by_fd = _registered(poll, streams)
            for fd, _ in poll.poll():
                for stream in by_fd[fd]:
                    stream.move()
    finally:
        os._exit(0)


def _registered(poll: Any, streams: Sequence[_Stream]) -> dict[int, list[_Stream]]:
    """The open streams, by the descriptor that each waits for."""
    by_fd: dict[int, list[_Stream]] = {}
    for stream in streams:
        if stream.is_open:
            fd, event = stream.wants()
            by_fd.setdefault(fd, []).append(stream)
            poll.register(fd, event)
    return by_fd


def _execute(words: list[str], env: Mapping[str, str]) -> None:
    """execvpe(3); the one in `os` imports more than all of us for its search of the PATH.  OSError."""
    if "/" in words[0]:
        os.execve(words[0], words, env)
    problem = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for folder in (env.get("PATH") or os.defpath).split(":") if words[0] else ():
        try:
            os.execve(os.path.join(folder, words[0]), words, env)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                problem = error
    raise problem


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _is_file(fd: int) -> bool:
    try:
        return S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


def _same(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False


def _nameless(folders: Sequence[str]) -> int:
    """A new file that nobody else can open, in the first of the folders that lets it; OSError of the last."""
    flags = os.O_RDWR | os.O_CLOEXEC
    problem = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for folder in folders:
        try:
            return os.open(folder, flags | os.O_TMPFILE, 0o600)
        except OSError:
            pass
        try:
            path = os.path.join(folder, f".recovery-{os.urandom(6).hex()}")
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            os.unlink(path)
            return fd
        except OSError as error:
            problem = error
    raise problem


def _others_in(group: int) -> bool:
    from recovery.processes import others_in  # a command that ends in time doesn't pay for it

    return others_in(group)
