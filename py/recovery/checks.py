"""Running the checks of a task before it is completed, so that whoever asked may be killed meanwhile.

Each run is a process of its own (the recorder), in its own session and nobody's child: it runs the command, keeps the
end of its output, writes the result durably and goes.  While it lives it holds the run's turn, a kernel lock; whoever
wants the result waits for that.  So a command that was cut off after two minutes is simply repeated: it joins the run
that goes on, or finds its result, as long as the files are what the run began with, or left.

    data/checks/AGENT@TASK@CHECK.json   the run that goes on, or the last one's result, until the task is completed
    logs/checks/AGENT@TASK@CHECK.log    its output: the first and the last 128 KiB

A result is sealed with a key that stands with the person's approval (`recovery.trust`): who may only write into the
workspace can't make one.  Nothing here holds a lock of the data's while a command runs.  A recorder that is killed
leaves a run without a result: the next command ends what is left of it, and begins again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time

from recovery import durable, flock, jsontext, layout, say, steps, treestate, turns, workspace
from recovery.checkfile import canonical
from recovery.commands import CommandFailed, Kept, run_command
from recovery.commit import Put
from recovery.errors import BUG, IO, AncestorHolds, Busy, RecoveryError
from recovery.flock import Limits
from recovery.signals import plain
from recovery.store import FileStore, transact
from recovery.timeouts import TaskTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Optional

    from recovery.treestate import State
    from recovery.trust import Demand

    Result = dict[str, Any]

FORMAT = 1
#: Seconds that a result may be used again: what is outside of the files changes too.
AGE = 86400.0
#: Bytes of a check's output that are kept: so many of its beginning, so many of its end.
KEPT = 1 << 17
#: Seconds between TERM and KILL, and those after its time limit in which a recorder must have come to its end.
GRACE, _SLACK = 5.0, 60.0
#: What is handed on to a check, beside LC_* and what checks.json says.
ENVIRONMENT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "XDG_DATA_HOME",
    "ORCHESTRATION_LOCK_DIR",
    "RECOVERY_PYTHON",
)
#: Marks all processes of one run.
MARK = "RECOVERY_CHECK_RUN"


class CheckFailed(RecoveryError):
    """1: a check did not pass, so the task is not completed; the previous state stands.

    `stderr_tail` is what it wrote last, `took` its seconds, `more` what --json says of it.
    """

    logged = True
    outcome = "refused"

    def __init__(self, message: str, *, hint: str, more: dict[str, Any]) -> None:
        super().__init__(message, hint=hint)
        self.more = more
        self.stderr_tail = str(more.get("output", ""))
        self.took = float(more.get("seconds") or 0.0)


def name_of(agent: str, task: str, check: str, folder: str = layout.RESULTS, end: str = ".json") -> str:
    return f"{folder}/{layout.whose(agent, task)}{check}{end}"


def run_all(store: FileStore, agent: str, task: str, demand: Demand, record: Optional[str]) -> list[Result]:
    """The results of all checks that a task needs, run as far as there are none yet; each has passed.

    `record` is the hash of the completion record that was there (None: none).  If another one is there before a run
    begins, somebody has completed the task meanwhile: [] then.  The caller holds no lock.  CheckFailed (1) at the first
    that doesn't pass; AncestorHolds (75) if one of them asks for itself; Busy (75) if a run doesn't end; what reading
    and writing raise.
    """
    try:
        return [_Run(store, agent, task, demand, name, record).result() for name in demand.names]
    except _Overtaken:
        return []


def forget(store: FileStore, agent: str, task: str, results: list[Result]) -> None:
    """The task is completed: its receipt holds what matters of the results.  The logs stay, see `remove_old`."""
    for result in results:
        try:
            _clear(store, name_of(agent, task, result["check"]))
        except (OSError, RecoveryError) as error:
            store.told.append(f"the result of the check {result['check']} stays: {error}")


class _Overtaken(Exception):
    pass


class _Run:
    """One check of one task."""

    def __init__(
        self, store: FileStore, agent: str, task: str, demand: Demand, name: str, record: Optional[str]
    ) -> None:
        self.store, self.agent, self.task, self.record = store, agent, task, record
        self.check, self.key = demand.checks.checks[name], demand.key
        self.subject = f"{agent}/{task}"
        self.name = name_of(agent, task, name)
        self.log = name_of(agent, task, name, layout.CHECK_LOGS, ".log")
        self.base = self._base()
        self.pid = 0

    def _base(self) -> str:
        """The project's folder, or the git worktree of it that we are called from, where the check asks for that."""
        project = workspace.project_of(self.store.root.path)
        if self.check.worktree:
            try:
                here = os.getcwd()
            except OSError:
                here = ""
            top, of = workspace.repository(here), workspace.main_worktree(here)
            if top is not None and of is not None and of == workspace.main_worktree(project):
                return top
        return project

    def state(self) -> State:
        return treestate.state_of(self.base, self.store.root.path, self.check.inputs)

    def result(self) -> Result:
        """The result of this check for the files as they are now; CheckFailed (1) unless it passed."""
        state = self.state()
        ours = joined = ""
        until = time.monotonic() + 2 * (self.check.timeout + _SLACK)
        while time.monotonic() < until:
            found = self.read()
            if found is not None and self.holds(found, state, (ours, joined)):
                return self._judged(found)
            turn = turns.take(self.store, self.name)
            if turn is not None:
                try:
                    found = self.read()  # once more: now nobody writes it
                    if found is not None and self.holds(found, state, (ours, joined)):
                        return self._judged(found)
                    if found is not None and found["state"] == "running":
                        end_left(found["run"])
                        if found["run"] == ours:
                            raise self._cut_off(found)
                finally:
                    turn.release()
                self.require_open()
                ours = os.urandom(8).hex()
                self._start(ours, state)
            elif found is not None and found["state"] == "running" and found["run"] != ours:
                if state.tree is not None and found["tree"] == state.tree and found["sha256"] == self.check.sha256:
                    joined = found["run"]
                    self._say(f"waits for the check {self.check.name} of {self.subject}, which has been running", found)
                else:
                    self._say(f"waits for an earlier run of {self.check.name} of {self.subject}, of other files", found)
                    if state.tree is None:  # who is cut off before the end each time would never come to one
                        say.tell("  (neither git nor `inputs` tells whether they are others: it will run again)")
            self._wait()
        raise Busy(f"the check {self.check.name} of {self.subject} did not come to an end; nothing was changed")

    def require_open(self) -> None:
        """Whoever completes the task removes its results: a new run would be for nothing."""
        now = self.store.read(layout.record(self.agent, self.task), strict=False)
        if (now.hash if now is not None else None) != self.record:
            raise _Overtaken

    def _say(self, what: str, found: Result) -> None:
        say.tell(f"{what} since {found['began']} (pid {found['by']['pid']}; its output: {self.log})")

    def _wait(self) -> None:
        patience = self.check.timeout + GRACE + _SLACK
        try:
            runs_on = f"the check {self.check.name} of {self.subject} is still running; its output: {self.log}"
            turn = turns.take(self.store, self.name, patience, family="ancestors", tells=runs_on)
        except AncestorHolds:
            raise AncestorHolds(
                f"the check {self.check.name} of {self.subject} asks for itself: it can't be waited for from within. "
                "Nothing changed.",
                hint="a check must not complete the task that it checks",
            ) from None
        except KeyboardInterrupt:
            self._stop()
            raise
        if turn is None:
            who = turns.holder(self.store, self.name) or "a process that can't be seen from here"
            raise Busy(
                f"the check {self.check.name} of {self.subject} runs on, long past its time ({who}). Nothing changed.",
                hint="end that process, then run the same command again",
            )
        turn.release()

    def _stop(self) -> None:
        """Ctrl-C: by whom began the run, it comes to its end.  (Killed otherwise, we leave it to whoever repeats.)"""
        if self.pid:
            try:
                os.kill(self.pid, plain.SIGTERM)
            except OSError:
                pass
        goes = "its check {} was ended" if self.pid else "its check {}, which another command began, runs on"
        say.tell(f"interrupted: {self.subject} is not completed; {goes.format(self.check.name)}. Nothing changed.")

    # --- results

    def read(self) -> Optional[Result]:
        version = self.store.read(self.name, strict=False)
        if version is None:
            return None
        try:
            found = jsontext.loads(jsontext.from_latin(version.text))
            seal = found.pop("seal")
            mine = (found["agent"], found["task"], found["check"]) == (self.agent, self.task, self.check.name)
            if mine and found["format"] == FORMAT and hmac.compare_digest(seal, self._seal(found)):
                return dict(found)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        return None  # not ours: it proves nothing, and the check runs again

    def _seal(self, entry: Result) -> str:
        return hmac.new(self.key, canonical(entry), "sha256").hexdigest()

    def write(self, entry: Result) -> None:
        """Write a run or its result, durably; a result only where no other run's stands."""
        text = jsontext.pretty({**entry, "seal": self._seal(entry)}) + "\n"

        def plan() -> Optional[Put]:
            before = self.store.read(self.name, strict=False)
            there = self.read() if before is not None and entry["state"] != "running" else None
            return Put(self.name, before, text) if there is None or there["run"] == entry["run"] else None

        transact(self.store, [self.name], plan, create=True)

    def holds(self, found: Result, state: State, known: tuple[str, str]) -> bool:
        """Whether a result is one for these files: of the run we waited for, or one that began with, or left, them."""
        if found["state"] == "running" or found["sha256"] != self.check.sha256:
            return False
        if found["run"] in known:
            return True
        if found["state"] == "stopped" or found.get("told") or time.time() - found["at"] >= AGE:
            return False
        return state.tree is not None and state.tree in (found["tree"], found["tree_after"])

    def _judged(self, found: Result) -> Result:
        if found["state"] == "stopped":
            raise self._failed("it was stopped", found)
        if found["code"] == 0:
            return found
        try:  # a failure is told once; the next command checks anew
            self.write({**found, "told": True})
        except (OSError, RecoveryError) as error:
            self.store.told.append(f"the check will not run again before its files change: {error}")
        how = found["how"] or f"exited with {found['code']} after {found['seconds']:g} s"
        raise self._failed(f"`{self.check.line()[:120]}` {how}", found)

    def _cut_off(self, found: Result) -> CheckFailed:
        found.update(code=None, seconds=None, tail="")
        return self._failed("it ended without a result: it was killed, or its result could not be written", found)

    def _failed(self, why: str, found: Result) -> CheckFailed:
        for line in str(found.get("tail", "")).splitlines():
            self.store.told.append(f"  {line}")
        return CheckFailed(
            f"{self.subject} is not completed: its check {self.check.name} did not pass: {why}. Nothing changed.",
            hint=f"its output is in {self.log}; put it right, then run the same command again",
            more={
                "check": self.check.name,
                "check_code": found["code"],
                "seconds": found["seconds"],
                "output": found.get("tail", ""),
                "log": self.log,
            },
        )

    # --- a run

    def _start(self, run: str, state: State) -> None:
        """Begin a run; returns when it is noted durably, or somebody else has begun one.  RecoveryError if it can't."""
        limit = self.check.said.get("timeout", "10m")
        say.tell(f"checks {self.subject}: {self.check.name} (`{self.check.line()[:120]}`, at most {limit}); {self.log}")
        steps.at("check-start", self.check.name)
        ready, tell = os.pipe()
        child = os.fork()
        if not child:
            self._become_recorder(run, state, ready, tell)
        os.close(tell)
        try:
            os.waitpid(child, 0)
            said = b""
            while not said.endswith(b"\n"):
                more = os.read(ready, 4096)
                if not more:
                    break
                said += more
        finally:
            os.close(ready)
        word, _, text = said.decode("utf-8", "replace").strip().partition(" ")
        if word == "pid":
            self.pid = int(text)
        elif not word:
            raise self._failed(
                "the process that was to run it was killed before it began", {"code": None, "seconds": None}
            )
        elif word != "other":
            raise RecoveryError(
                f"{self.check.name} of {self.subject} could not be begun: {text}. Nothing changed.",
                hint="put that right, then run the same command again",
                code=int(word),
            )

    def _become_recorder(self, run: str, state: State, ready: int, tell: int) -> NoReturn:
        """In a forked child: leave the family and the session, hold nothing of theirs, record one run, and go."""
        try:
            os.setsid()
            if os.fork():
                os._exit(0)
            steps.at("check-fork")
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            _close_all_but(tell)
            plain.signal(plain.SIGHUP, plain.SIG_IGN)
            plain.signal(plain.SIGPIPE, plain.SIG_IGN)
            plain.signal(plain.SIGTERM, _stopped)
            plain.signal(plain.SIGINT, _stopped)
            plain.pthread_sigmask(plain.SIG_SETMASK, ())
            self.store = FileStore(
                self.store.root.path, Limits(30.0, 60.0, f"check {self.check.name} of {self.subject}")
            )
            _Recorder(self, run, state, tell).record()
        except BaseException as error:
            code = getattr(error, "code", IO if isinstance(error, OSError) else BUG)
            try:
                os.write(tell, f"{code} {error!s:.900}".replace("\n", " ").encode("utf-8", "replace") + b"\n")
            except OSError:
                pass
        finally:
            os._exit(0)


class _Stopped(BaseException):
    pass


def _stopped(number: int, frame: object) -> None:
    raise _Stopped


def _close_all_but(kept: int) -> None:
    """A recorder outlives its caller, so it must not keep open, and locked, what that was handed down."""
    try:
        fds = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        fds = list(range(3, 4096))
    for fd in fds:
        if fd > 2 and fd != kept:
            try:
                os.close(fd)
            except OSError:
                pass


class _Recorder:
    """Runs one check and writes down what came of it."""

    def __init__(self, job: _Run, run: str, state: State, tell: int) -> None:
        self.job, self.run, self.state, self.tell = job, run, state, tell

    def record(self) -> None:
        job, store = self.job, self.job.store
        turn = turns.take(store, job.name)
        if turn is None or self._is_done():  # somebody else was quicker
            os.write(self.tell, b"other\n")
            return
        steps.at("check-turn", job.check.name)
        began = time.time()
        entry: Result = {
            "format": FORMAT,
            "agent": job.agent,
            "task": job.task,
            "check": job.check.name,
            "state": "running",
            "run": self.run,
            "sha256": job.check.sha256,
            "tree": self.state.tree,
            "revision": self.state.revision,
            "dirty": self.state.dirty,
            "began": store.now(),
            "by": {key: flock.identity()[key] for key in ("pid", "host")},
        }
        job.write(entry)
        os.write(self.tell, b"pid %d\n" % os.getpid())
        os.close(self.tell)
        steps.at("check-run", job.check.name)
        output = _Output(store, job.log)
        code, how = self._run(output)
        seconds = round(time.time() - began, 3)
        output.close()
        steps.at("check-ended", job.check.name)
        entry.update(
            state="stopped" if code is None else "ended",
            code=code,
            how=how,
            at=time.time(),
            ended=store.now(),
            seconds=max(seconds, 0.0),
            output_sha256=output.digest.hexdigest(),
            output_bytes=output.size,
            tail=output.tail(),
            tree_after=job.state().tree,
        )
        store.limits = Limits(30.0, 60.0, store.limits.command)
        job.write(entry)
        steps.at("check-recorded", job.check.name)
        turn.release()

    def _is_done(self) -> bool:
        """Whether another run has begun and ended since we were asked for."""
        found = self.job.read()
        if found is not None and self.job.holds(found, self.state, ("", "")):
            return True
        try:
            self.job.require_open()
            return False
        except _Overtaken:
            return True

    def _run(self, output: _Output) -> tuple[Optional[int], str]:
        """The exit code, the shell's (None: a signal to us ended it), and words where it isn't the command's own."""
        check = self.job.check
        folder = os.path.join(self.job.base, check.cwd)
        real, base = os.path.realpath(folder), os.path.realpath(self.job.base)
        if not (real + "/").startswith(base.rstrip("/") + "/"):
            return 126, f'has a "cwd" that leads out of the project: {check.cwd}'
        try:
            run_command(check.words, check.timeout, GRACE, real, self._environment(), b"", into=output)
            return 0, ""
        except TaskTimeout:
            return 124, f"did not end within {check.timeout:g} s"
        except CommandFailed as error:
            if error.returncode < 0:
                return error.code, f"was killed by signal {-error.returncode}"
            return error.code, f"can't be run: {error}" if error.code in (126, 127) and not output.size else ""
        except RecoveryError as error:
            return 125, f"could not be run: {error}"
        except _Stopped:
            return None, "was stopped"

    def _environment(self) -> dict[str, str]:
        job = self.job
        found = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        found.update({name: value for name, value in os.environ.items() if name.startswith("LC_")})
        found.setdefault("PATH", os.defpath)
        found.update(job.check.env)
        found.update(
            ORCHESTRATION_ROOT=job.store.root.path,
            RECOVERY_AGENT=job.agent,
            RECOVERY_TASK=job.task,
            RECOVERY_CHECK=job.check.name,
        )
        found[MARK] = self.run
        return found


class _Output(Kept):
    """A check's output: hashed as a whole, its end kept, beginning and end in its log."""

    def __init__(self, store: FileStore, log: str) -> None:
        super().__init__(KEPT)
        self.digest, self.size = hashlib.sha256(), 0
        self.fd = -1
        try:
            place = store.root.place(log, create=True)
            durable.remove(place.folder, place.base)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.fd = os.open(place.base, flags, 0o600, dir_fd=place.folder)
            mode, gid = store.shared()
            durable.own(self.fd, mode, -1, gid)
        except (OSError, RecoveryError):
            pass  # it is for people to read; the result doesn't need it

    def add(self, data: bytes) -> None:
        super().add(data)
        self.digest.update(data)
        room = KEPT - self.size
        if room > 0:
            self._log(data[:room])
        self.size += len(data)

    def close(self) -> None:
        if self.size > KEPT:
            end = self.octets()[-min(KEPT, self.size - KEPT) :]
            left_out = self.size - KEPT - len(end)
            self._log((b"\n[... %d bytes are left out here ...]\n" % left_out if left_out else b"") + end)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _log(self, data: bytes) -> None:
        if self.fd >= 0:
            try:
                durable.write_all(self.fd, data)
            except OSError:
                os.close(self.fd)
                self.fd = -1


def end_left(run: str) -> None:
    """Kill what is left of a run whose recorder is dead: every process that carries its mark, unless it is our parent.

    Busy (75) if we run in it ourselves.
    """
    mark = f"{MARK}={run}".encode("ascii")
    if os.environ.get(MARK) == run:
        raise Busy("this command runs in a check whose recorder was killed; nothing was changed")
    for pid in sorted(name for name in os.listdir("/proc") if name.isdigit()):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if mark in environ.read().split(b"\0"):
                    os.kill(int(pid), plain.SIGKILL)
        except OSError:
            continue


def old(store: FileStore, before: float) -> list[str]:
    """The results and logs last written before a moment (seconds since the epoch), those of runs that go on apart."""
    found = []
    for folder, end in ((layout.RESULTS, ".json"), (layout.CHECK_LOGS, ".log")):
        for base in store.list(folder):
            name = f"{folder}/{base}"
            state = store.read_state(name)
            if base.endswith(end) and not base.startswith(".") and state is not None and state.st_mtime < before:
                if turns.holder(store, _result_of(name)) is None:
                    found.append(name)
    return found


def remove(store: FileStore, name: str, before: float) -> bool:
    """Remove a file that `old` found; False if it was written to since, or its check runs."""
    state = store.read_state(name)
    return state is not None and state.st_mtime < before and _clear(store, _result_of(name), name)


def _result_of(name: str) -> str:
    return f"{layout.RESULTS}/{name.rpartition('/')[2].rpartition('.')[0]}.json"


def _clear(store: FileStore, result: str, name: str = "") -> bool:
    """Remove a result, or that of its files which is named, and the turn with it; False if the run goes on."""
    turn = turns.take(store, result)
    if turn is None:
        return False
    try:
        if name in ("", result):

            def plan() -> Optional[Put]:
                before = store.read(result, strict=False)
                return Put(result, before, None) if before is not None else None

            transact(store, [result], plan, create=True)
        else:
            store.remove(name)
        if turn.folder is not None and turn.is_current():
            os.unlink(turn.base, dir_fd=turn.folder)
    finally:
        turn.release()
    return True
