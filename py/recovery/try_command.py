"""try: run a command as a task, with all that `RecoveryManager` does for functions.

A first try that succeeds costs next to nothing: the manager is imported when one fails, or where an option needs it
before.
"""

from __future__ import annotations

import os

from recovery import commands, layout, request, say
from recovery.errors import UNAVAILABLE, Busy, RecoveryError, UsageError
from recovery.foreground import TAIL, Ended, Foreground, Stopped, follow, unwritten
from recovery.request import Request, Verb
from recovery.result import Result
from recovery.signals import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from recovery.breaker import CircuitBreaker
    from recovery.flock import HeldLock
    from recovery.manager import RecoveryManager
    from recovery.run import Run

#: The options of a command that is tried, for every verb that does so.
OPTIONS = {
    "--strategy": "strategy=",
    "--attempts": "attempts=",
    "--delay": "delay=",
    "--timeout": "timeout=",
    "--grace": "grace=",
    "--try-again-on": "try_again_on=",
    "--protect": "protect=*",
    "--breaker": "breaker=",
    "--wait": "wait=",
    "--until-reset": "until_reset=",
    "--lock": "lock=",
    "--clean-output": "clean_output",
}
#: Seconds between SIGTERM and SIGKILL, where nobody says otherwise.
GRACE = 5.0
#: Seconds that a REGEX may search in what a try wrote.
_PATIENCE = 2


class Plan:
    """What the options ask for; UsageError (64)."""

    def __init__(self, asked: Request, name: str) -> None:
        options = asked.options
        self.words = asked.require_command()
        self.quiet, self.as_json = asked.asked("quiet"), asked.asked("json")
        attempts = options.get("attempts") or os.environ.get("RECOVERY_MAX_ATTEMPTS") or "3"
        self.attempts = request.whole_number(
            "--attempts" if "attempts" in options else "RECOVERY_MAX_ATTEMPTS", attempts
        )
        self.delay = _seconds(options, "delay", request.seconds("RECOVERY_RETRY_DELAY", 2.0))
        self.auto = options.get("timeout") == "auto"
        self.timeout = None if self.auto else _seconds(options, "timeout", 0.0) or None
        self.grace = _seconds(options, "grace", GRACE)
        self.wait = _seconds(options, "wait", 0.0)
        self.lock_timeout = request.seconds("RECOVERY_LOCK_TIMEOUT", 30.0)
        self.strategy = options.get("strategy")
        if self.strategy is not None and self.strategy.upper() not in _STRATEGIES:
            raise UsageError(f"--strategy {self.strategy[:40]!a} is none of {' '.join(_STRATEGIES).lower()}")
        self.again_on = codes(options["try_again_on"]) if "try_again_on" in options else None
        self.protect = [os.path.abspath(path) for path in options.get("protect", ())]
        self.until_reset = _pattern(options["until_reset"]) if "until_reset" in options else None
        self.breaker, self.lock = options.get("breaker"), options.get("lock")
        for kind, one in (("breaker", self.breaker), ("lock", self.lock)):
            if one is not None:
                layout.require_id(kind, one)
        self.clean = asked.asked("clean_output")
        self.named(name)

    agent = ""  # whose task it is a run of

    def named(self, name: str) -> None:
        """What the run is called; a breaker that isn't named is called so too."""
        self.name = name
        if self.until_reset is not None and self.breaker is None:
            self.breaker = name or None

    @property
    def is_plain(self) -> bool:
        """Whether nothing is to be done before a first try."""
        return not self.protect and self.breaker is None and not self.auto


_STRATEGIES = ("RETRY", "ROLLBACK", "SKIP", "MANUAL", "ESCALATE")


def codes(text: str) -> frozenset[int]:
    """Exit codes, from `1,75,100-110`; UsageError (64)."""
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not all(word.isascii() and word.isdigit() and int(word[:9]) < 256 for word in (low, high if dash else low)):
            raise UsageError(f"--try-again-on {text[:60]!a} is not a list of exit codes like 1,75,100-110")
        found.update(range(int(low), int(high if dash else low) + 1))
    if not found - {0}:
        raise UsageError(f"--try-again-on {text[:60]!a} names no code of a failure")
    return frozenset(found)


def _seconds(options: dict[str, Any], name: str, default: float) -> float:
    return request.duration(options[name], f"--{name}") if name in options else default


def _pattern(text: str) -> Any:
    import re

    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--until-reset {text[:60]!a} is no regular expression: {error}") from None


def _apart(look: Callable[..., object], *given: object) -> str | None:
    """What `look` answers, as repr(), from a process of its own; None if that took longer than _PATIENCE.

    An expression such as `(x+x+)+y` may search for ever, and no signal handler of Python's runs meanwhile.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            plain.signal(plain.SIGALRM, plain.SIG_DFL)
            plain.pthread_sigmask(plain.SIG_UNBLOCK, (plain.SIGALRM,))
            plain.alarm(_PATIENCE)
            os.write(writing, repr(look(*given)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        with open(reading, "rb") as answer:
            return answer.read().decode() or None
    finally:
        os.kill(pid, plain.SIGKILL)
        os.waitpid(pid, 0)


class Outcome:
    """How it ended: the exit code, whose it is ("command" or "recovery"), a word for it, and the last error."""

    def __init__(self, code: int, whose: str, word: str, error: BaseException | None = None) -> None:
        self.code, self.whose, self.word, self.error = code, whose, word, error


class Trying:
    """A command under way, as often as it takes.

    `env` and `pass_fds` are for the command, `started` is told its process group at each try, `require` is asked before
    each further try and raises what ends them.  With `keep_out` the last of what it writes to stdout is kept, unless
    that is a terminal.  `ended` is the last try, `failure` the last error, `unwritten` why a successful one's stdout
    could not be passed on.
    """

    def __init__(self, plan: Plan, root: str, keep_out: bool = False) -> None:
        self.plan, self.root = plan, root
        self.env: dict[str, str] | None = None
        self.pass_fds: list[int] = []
        self.started: Callable[[int], None] | None = None
        self.require: Callable[[], None] | None = None
        keep_out = keep_out and not os.isatty(1)
        look = plan.until_reset is not None
        self.place = Foreground(
            out=2 if plan.as_json else 1,
            keep_out=TAIL if look or keep_out or plan.as_json else 0,
            # a terminal stays one: what is typed for people is not for a log
            keep_err=TAIL if look or not os.isatty(2) else 0,
            apart=plan.as_json,
            spool=[os.environ.get("TMPDIR") or "/tmp", "/tmp", "/var/tmp", root] if plan.clean else None,  # noqa: S108
        )
        self.attempts = 0
        self.ended: Ended | None = None
        self.failure: RecoveryError | None = None
        self.unwritten: OSError | None = None
        self._lock: HeldLock | None = None

    def carry_out(self) -> Outcome:
        """All tries.  A refusal before the first is raised: CircuitOpen (69), TaskParkedError (70), Busy (75) …"""
        with self.place:
            try:
                self._take_lock()
                return self._tries()
            finally:
                if self._lock is not None:
                    self._lock.close()  # not released: what the command left behind holds it on

    def _tries(self) -> Outcome:
        first: RecoveryError | None = None
        if self.plan.is_plain and not os.path.lexists(os.path.join(self.root, layout.flag(self.plan.name))):
            try:
                self.attempt(self.plan.timeout)
                return Outcome(0, "command", "succeeded")
            except RecoveryError as error:
                first = error
            except Stopped as stopped:
                from recovery import run

                run.cut_off(self._run(), stopped)
                return Outcome(stopped.code, "command" if stopped.terminal else "recovery", "cancelled", stopped)
        return self._recover(first)

    def attempt(self, timeout: float | None) -> Ended:
        """One try; CommandFailed, TaskTimeout, Stopped."""
        if self.attempts and self.require is not None:
            self.require()
        self.attempts += 1
        try:
            ended = self.ended = self.place.run(
                self.plan.words, timeout, self.plan.grace, self.env, self.pass_fds, self.started
            )
            if not ended.in_time:
                from recovery.timeouts import timed_out

                late = timed_out(f"Command {os.path.basename(self.plan.words[0])}", timeout or 0.0)
                late.stderr_tail, late.stdout_tail, late.took = ended.err.tail(), ended.out.tail(), ended.seconds
                raise late
            if ended.stopped is not None:
                raise ended.stopped
            if ended.returncode:
                raise commands.failed(self.plan.words, ended.returncode, ended.err, ended.out, ended.seconds)
        except RecoveryError as error:
            self.failure = error
            raise
        self.unwritten = self.place.emit() if self.plan.clean else ended.unwritten
        return ended

    def _recover(self, first: RecoveryError | None) -> Outcome:
        from recovery import run
        from recovery.breaker import CircuitOpen
        from recovery.errors import RollbackFailed
        from recovery.parking import TaskParkedError
        from recovery.timeouts import TaskTimeout

        this = self._run()
        try:
            ended = run.drive(run.engine(this, first), this, self.attempt, keeps_time=True)
            if ended is None:  # skipped: on request it is a success, by the command's own code it is that
                assert self.failure is not None
                return Outcome(0 if self.plan.strategy else self.failure.code, "command", "skipped", self.failure)
            return Outcome(0, "command", "recovered" if self.attempts > 1 else "succeeded")
        except Stopped as stopped:
            return Outcome(stopped.code, "command" if stopped.terminal else "recovery", "cancelled", stopped)
        except RollbackFailed:
            raise
        except RecoveryError as error:
            if self.failure is None:
                raise
            word = "parked" if isinstance(error, TaskParkedError) else getattr(error, "outcome", "failed")
            if isinstance(error, CircuitOpen):
                word = "failed"
            if not isinstance(self.failure, (commands.CommandFailed, TaskTimeout)):
                raise self.failure from error  # no room for a process: ours, not the command's
            ran = isinstance(self.failure, commands.CommandFailed) and self.failure.took > 0
            return Outcome(self.failure.code, "command" if ran else "recovery", word, error)

    def _run(self) -> Run:
        from recovery import run

        manager = self._manager()
        plan = self.plan
        options: dict[str, Any] = {"protect": plan.protect, "breaker": self._breaker(manager), "max_wait": plan.wait}
        if plan.again_on is not None:
            options["rules"] = [(plan.again_on, "RETRY"), (RecoveryError, "ROLLBACK")]
        if plan.auto or plan.timeout:
            options["timeout"] = "auto" if plan.auto else plan.timeout
        return run.Run(manager, plan.name, manager.options(plan.name, plan.strategy, options), agent=plan.agent)

    def _manager(self) -> RecoveryManager:
        import sys

        from recovery import session
        from recovery.manager import RecoveryManager

        sys.argv[0] = "recovery"  # what the notes in locks say
        session.warn_on_stderr()
        plan = self.plan
        return RecoveryManager(
            self.root,
            max_attempts=plan.attempts,
            initial_retry_delay=plan.delay,
            lock_timeout=plan.lock_timeout,
            sleep=self._pause,
        )

    def _breaker(self, manager: RecoveryManager) -> CircuitBreaker | None:
        plan = self.plan
        if plan.breaker is None:
            return None
        from recovery.breaker import CircuitBreaker

        return CircuitBreaker(plan.breaker, session=manager.session, quota_reset=self._reset_of)

    def _reset_of(self, error: BaseException) -> float | None:
        if self.plan.until_reset is None or self.ended is None:
            return None
        import time

        from recovery.reset_times import reset_in

        now, pattern = time.time(), self.plan.until_reset
        for kept in (self.ended.err, self.ended.out):
            found = _apart(reset_in, kept.text(), pattern, now)
            if found is None:
                say.tell(f"--until-reset: no answer from the expression within {_PATIENCE} s; it was passed over")
            elif found != "None":
                return float(found)
        return None

    def _pause(self, seconds: float) -> None:
        if not self.plan.quiet:
            if self.failure is not None and self.told != self.attempts:
                self.told = self.attempts
                say.tell(f"try {self.attempts} of {self.plan.attempts} of {self.plan.name}: {self.failure}")
            say.tell(f"  again in {seconds:.1f} s")
        self.place.sleep(seconds)

    told = 0

    def _take_lock(self) -> None:
        name = self.plan.lock
        if name is None:
            return
        from recovery import turns
        from recovery.flock import Limits
        from recovery.store import FileStore

        store = FileStore(
            self.root, Limits(self.plan.lock_timeout, self.plan.lock_timeout + 1, f"try {self.plan.name}")
        )
        try:
            self._lock = turns.take(store, f"{layout.LOCKS}/{name}", self.plan.lock_timeout)
            if self._lock is None:
                who = turns.holder(store, f"{layout.LOCKS}/{name}") or "another process"
                raise Busy(
                    f"the lock {name} is held by {who}; nothing was run",
                    hint="run the same command again when it has ended",
                )
            self.pass_fds.append(self._lock.fd)
        finally:
            store.close()


def report(trying: Trying, outcome: Outcome, **more: Any) -> Result:
    """The result of a verb that tried a command: nothing on stdout but with --json, why it failed on stderr."""
    plan = trying.plan
    error = outcome.error
    if trying.unwritten is not None and not outcome.code:
        program = os.path.basename(plan.words[0])
        error = unwritten(trying.unwritten, f"{program} succeeded, but its output is lost")
        outcome = Outcome(error.code, "recovery", outcome.word, error)
    if error is not None and not plan.quiet and not isinstance(error, Stopped):
        say.tell(str(error))
        hint = getattr(error, "hint", "")
        if hint:
            say.tell(f"  next: {hint}")
    elif isinstance(error, Stopped) and not plan.quiet:
        say.tell(f"{plan.name}: {error}")
    data: dict[str, Any] = {
        "ok": outcome.code == 0,
        "code": outcome.code,
        "whose": outcome.whose,
        "task": plan.name,
        "outcome": outcome.word,
        "attempts": trying.attempts,
        "seconds": round(trying.ended.seconds, 3) if trying.ended is not None else None,
        "stdout_tail": trying.ended.out.tail() if trying.ended is not None else "",
        "stderr_tail": trying.ended.err.tail() if trying.ended is not None else "",
        "root": trying.root,
        **more,
    }
    if error is not None:
        data["error"] = str(error)
        data["next"] = getattr(error, "hint", "") or "recovery stats " + plan.name
    if outcome.code == UNAVAILABLE and outcome.whose == "recovery":
        data["hint"] = getattr(error, "hint", "")
    result = Result("", True, data)
    result.then = follow(error) if isinstance(error, Stopped) else None
    return result


def _parse(asked: Request) -> list[Any]:
    if len(asked.words) != 1:
        what = "NAME is needed" if not asked.words else f"one NAME is enough: {asked.words[1][:40]!a} is too much"
        raise UsageError(f"{what}; the command stands behind --", hint="recovery try NAME -- command [argument…]")
    return [Plan(asked, layout.require_id("task", asked.words[0]))]


def _call(store: None, asked: Request, call: list[Any]) -> Result:
    trying = Trying(call[0], request.root_of(asked))
    return report(trying, trying.carry_out())


VERB = Verb(OPTIONS, _parse, _call, tries=False, in_root=False, wraps=True)
