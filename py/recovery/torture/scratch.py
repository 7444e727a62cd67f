"""A scratch workspace with realistic outboxes, the suite's commands run in it, and what its files hold.

A command is a real process in a process group of its own with an environment made from nothing: either the whole
script (`start`, `run`), or this warm interpreter forked (`fork`), which is the same helper without the start-up.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from recovery import jsonl
from recovery.torture.stopping import SIGNALS, Mask, die_with_parent, held_back

SUITE = Path(__file__).resolve().parents[3]
PYTHON = os.path.realpath(sys.executable)
#: Seconds after which a command hangs: twice the deadline it is given.
PATIENCE = 40.0

#: How progress.json may look: `tasks` an object by id, a list with `id`, or no such file at all.
FORMS = ("object", "list", "absent")

_SCRIPTS = {"complete": "complete_task_with_recovery.sh", "assign": "assign_task.sh", "status": "task_status.sh"}
_LONG_AGO = "2025-05-30T00:00:00Z"

#: What a transaction id looks like.
TXID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")
_ARCHIVE = re.compile(r"postbox/[A-Z]+/archive/\d{4}-\d\d\.jsonl")

Command = tuple[str, ...]


class Violation(AssertionError):
    """A promise that was not kept."""


class Unable(Exception):
    """Something that can't be tried on this machine; the text says why."""


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (negative: the signal that ended it), stdout and stderr."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit {self.code}\n  stdout: {self.out.strip()}\n  stderr: {self.err.strip()}"


def _task(task: str, title: str, status: str = "pending") -> dict[str, Any]:
    return {
        "task_id": task,
        "title": title,
        "priority": "HIGH",
        "status": status,
        "created_at": _LONG_AGO,
        "estimated_hours": 2.50,
        "context": {"goal": "größer, 更大", "limit": 12345678901234567890},
        "deliverables": ["report", "tests \u2713"],
    }


def outbox(agent: str, *numbers: int) -> str:
    """An outbox as agents write it: two spaces, non-ASCII as is, a history."""
    body = {
        "agent_id": agent,
        "agent_name": f"Agent {agent}",
        "version": "1.0.0",
        "expertise": ["testing", "integration"],
        "tasks": [_task(f"{agent}-{n}", f"Work {n} of {agent}") for n in numbers],
        "history": [{"task_id": f"{agent}-0", "status": "completed", "timestamp": _LONG_AGO}],
    }
    return json.dumps(body, indent=2, ensure_ascii=False).replace(": 2.5,", ": 2.50,") + "\n"


def progress(form: str, tasks: Mapping[str, str]) -> str:
    """progress.json over `tasks` (id to agent), all pending."""
    entries: Any = {t: {"status": "pending", "agent": a, "title": f"Work of {a}"} for t, a in tasks.items()}
    if form == "list":
        entries = [{"id": task, **entry} for task, entry in entries.items()]
    body = {
        "sprint_id": "PHASE_6.15_SPRINT_3",
        "total_tasks": len(tasks),
        "completed": 0,
        "pending": len(tasks),
        "last_updated": _LONG_AGO,
        "tasks": entries,
    }
    return json.dumps(body, indent=2, ensure_ascii=False)  # and no final newline: it stays that way


class Workspace:
    """A root with the agents CC, CA, CB (tasks CC-1 … CC-4 and so on) and the documented locks beside it."""

    #: Where the scripts are taken from.
    suite = SUITE

    def __init__(self, root: Path) -> None:
        self.root = root
        self.power_was_cut = False
        self.locks = root.with_name(root.name + ".locks")

    @classmethod
    def make(cls, root: Path, form: str = "object") -> Self:
        listed = {}
        for agent in ("CC", "CA", "CB"):
            folder = root / "postbox" / agent
            folder.mkdir(parents=True)
            (folder / "outbox.json").write_text(outbox(agent, 1, 2, 3, 4), encoding="utf-8")
            listed.update({f"{agent}-{n}": agent for n in (1, 2, 3, 4)})
        if form != "absent":
            (root / ".sprint").mkdir()
            (root / ".sprint/progress.json").write_text(progress(form, listed), encoding="utf-8")
        return cls(root)

    def copy(self, root: Path) -> Self:
        shutil.copytree(self.root, root, copy_function=shutil.copy)
        return type(self)(root)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.locks, ignore_errors=True)

    # --- commands

    def environment(self, **more: str) -> dict[str, str]:
        """Made from nothing, so that no HOME and nothing of the caller's gets in."""
        return {
            "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
            "LC_ALL": "C.UTF-8",
            "ORCHESTRATION_ROOT": str(self.root),
            "ORCHESTRATION_LOCK_DIR": str(self.locks),
            "RECOVERY_PYTHON": PYTHON,
            "RECOVERY_SESSION": "torture",
            "RECOVERY_RETRY_DELAY": "0",
            "RECOVERY_LOCK_TIMEOUT": "10",  # so that a deadlock is a failure soon
            "RECOVERY_DEADLINE": "20",
            **more,
        }

    def words(self, command: Sequence[str]) -> list[str]:
        """The command line of `("complete", "CC", …)`: its documented script, or the front door."""
        script = _SCRIPTS.get(command[0])
        if script:
            return [str(self.suite / "bin" / script), *command[1:]]
        return [str(self.suite / "bin/recovery"), *command]

    def start(
        self, command: Sequence[str], fault: str = "", before: Sequence[str] = (), **more: str
    ) -> subprocess.Popen[str]:
        """Start a command in a process group of its own; `before` is put in front of it (strace …)."""
        if fault:
            more["RECOVERY_FAULT"] = fault
        return subprocess.Popen(
            [*before, *self.words(command)],
            env=self.environment(**more),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,
        )

    def run(self, command: Sequence[str], fault: str = "", before: Sequence[str] = (), **more: str) -> Done:
        """Run a command until it and every child of it has ended (a child that runs on keeps the pipe open)."""
        return finish(self.start(command, fault, before, **more))

    def fork(self, command: Sequence[str], fault: str = "", **more: str) -> Done:
        """Run a command in a forked child of this interpreter; see `Forked`."""
        return self.begin(command, fault, **more).finish()

    def begin(self, command: Sequence[str], fault: str = "", **more: str) -> Forked:
        """Start what `fork` runs."""
        if fault:
            more["RECOVERY_FAULT"] = fault
        return Forked(lambda: self.become(command, **more), f"{' '.join(command)} {fault}")

    def become(self, command: Sequence[str], **more: str) -> NoReturn:
        """Run a command in this very process, which ends with it: for a forked child."""
        from recovery import helper
        from recovery.torture import calls

        os.environ.clear()
        os.environ.update(self.environment(**more))
        os.chdir(self.root)
        if command[0] in calls.CALLS:
            calls.run(tuple(command))
        helper.main(list(command))

    def steps(self, command: Sequence[str], **more: str) -> list[str]:
        """Run a command unhurt; the steps it met, as STEP:N."""
        with self._listing() as listing:
            done = self.run(command, fault=f"*=list={listing}", **more)
            return _listed(listing, command, done)

    def forked_steps(self, command: Sequence[str], **more: str) -> list[str]:
        """As `steps`, in a forked child."""
        with self._listing() as listing:
            done = self.fork(command, fault=f"*=list={listing}", **more)
            return _listed(listing, command, done)

    @contextmanager
    def _listing(self) -> Iterator[Path]:
        listing = self.root.with_name(self.root.name + ".steps")
        listing.unlink(missing_ok=True)
        yield listing
        listing.unlink(missing_ok=True)

    # --- files

    def path(self, name: str) -> Path:
        return self.root / name

    def snapshot(self) -> dict[str, bytes]:
        """Every file below the root, by its relative name."""
        found = {}
        top = len(str(self.root)) + 1
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found[path[top:]] = file.read()
        return found

    def data(self) -> dict[str, bytes]:
        """The files that belong to people and agents; locks and logs are no data, anything unexpected is."""
        return {
            name: data
            for name, data in self.snapshot().items()
            if not name.startswith(("data/", "logs/")) and not _is_lock(name) and not _ARCHIVE.fullmatch(name)
        }

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_bytes())

    def task(self, agent: str, task: str) -> dict[str, Any]:
        """The one entry of a task in its outbox; a Violation unless there is exactly one."""
        found = [t for t in self.json(f"postbox/{agent}/outbox.json")["tasks"] if t["task_id"] == task]
        demand(len(found) == 1, f"{agent}/{task} stands {len(found)} times in the outbox")
        return dict(found[0])

    def progress(self) -> dict[str, Any]:
        return dict(self.json(".sprint/progress.json"))

    def listed(self, task: str) -> dict[str, Any]:
        entries = self.progress()["tasks"]
        if isinstance(entries, dict):
            return dict(entries[task])
        found = [entry for entry in entries if entry["id"] == task]
        demand(len(found) == 1, f"{task} is listed {len(found)} times in progress.json")
        return dict(found[0])

    def lines(self, folder: str) -> list[dict[str, Any]]:
        """All lines of all .jsonl files in a folder; each must be whole."""
        return [line for path in sorted(self.path(folder).glob("*.jsonl")) for line in self.lines_of(path)]

    def lines_of(self, path: Path) -> list[dict[str, Any]]:
        """The lines of one log, none if it isn't there; each must be whole, unless the power was cut."""
        if not path.exists():
            return []
        found, torn = jsonl.records(path.read_bytes())
        demand(not torn or self.power_was_cut, f"{path.name} holds {torn} torn line(s)")
        return found

    def changes(self) -> list[tuple[str, str, str]]:
        """What the change log says was done: (op, agent, task), sorted; transaction ids don't count."""
        lines = self.lines("data/changes")
        return sorted((line["op"], line["agent"], TXID.sub("TXID", line["task"])) for line in lines)

    def require_locks_free(self) -> None:
        documented = [str(path) for path in self.locks.rglob("*.lock")] if self.locks.exists() else []
        ours = [name for name in self.snapshot() if name.endswith(".lock")]
        for name in [*ours, *documented]:
            fd = os.open(self.root / name, os.O_RDONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Violation(f"{name} is still locked") from None
            finally:
                os.close(fd)


def demand(true: object, text: str) -> None:
    """Violation unless it is so."""
    if not true:
        raise Violation(text)


def finish(process: subprocess.Popen[str], timeout: float = 60) -> Done:
    """Wait for a started command; one that hangs is ended, with its group, and is a violation."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise Violation(f"{process.args!r} hangs: {Done(process.returncode, out, err)}") from None
    except BaseException:  # we are stopped: nothing of it is left
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return Done(process.returncode, out, err)


def require_success(done: Done, command: Sequence[str]) -> None:
    """The command, which nobody hurt, ended with 0."""
    demand(done.code == 0, f"{' '.join(command)}: {done}")


def _listed(listing: Path, command: Sequence[str], done: Done) -> list[str]:
    require_success(done, command)
    return listing.read_text(encoding="utf-8").split()


def _is_lock(name: str) -> bool:
    """The lock files beside people's data that the contract lists; others are strays."""
    base = os.path.basename(name)
    return base in (".outbox.json.lock", ".progress.json.lock", ".shared.json.lock")


# --- this interpreter, forked


class Forked:
    """A child of this interpreter in a process group of its own, its output kept in memory; `work` never returns.

    The caller must `finish` it.
    """

    def __init__(self, work: Callable[[], object], what: str) -> None:
        self.what = what
        self._out, self._err = os.memfd_create("out"), os.memfd_create("err")
        with held_back() as mask:  # our handlers are not the child's
            self.pid = os.fork()
            if self.pid == 0:
                _leave(work, self._out, self._err, mask)
            with suppress(OSError):  # the child does the same: whoever is first
                os.setpgid(self.pid, self.pid)
            self._pidfd = os.pidfd_open(self.pid)

    def is_over(self) -> bool:
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def kill(self, number: int = signal.SIGKILL) -> None:
        signal.pidfd_send_signal(self._pidfd, number)

    def finish(self, timeout: float = PATIENCE) -> Done:
        """Wait for it; Violation if it hangs (then it is killed)."""
        hangs = not select.select([self._pidfd], [], [], timeout)[0]
        if hangs:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        done = Done(os.waitstatus_to_exitcode(status), _text(self._out), _text(self._err))
        demand(not hangs, f"{self.what} hangs: {done}")
        return done


_VIOLATED, _UNABLE = 3, 4


def in_child(work: Callable[[], None], what: str) -> None:
    """Do part of a trial in a forked child, in which it may do what can't be undone in this process.

    Its Violation or Unable is raised here.
    """

    def report() -> None:
        try:
            work()
        except (Violation, Unable) as error:
            os.write(2, str(error).encode("utf-8", "backslashreplace"))
            raise SystemExit(_VIOLATED if isinstance(error, Violation) else _UNABLE) from None

    done = Forked(report, what).finish(2 * PATIENCE)  # its own commands may hang first
    if done.code == _UNABLE:
        raise Unable(done.err)
    demand(done.code != _VIOLATED, done.err)
    if done.code:
        raise RuntimeError(f"{what}: {done}")


def _text(fd: int) -> str:
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0).decode("utf-8", "replace")
    finally:
        os.close(fd)


def _leave(work: Callable[[], object], out: int, err: int, mask: Mask) -> NoReturn:
    code = 70
    try:
        die_with_parent(signal.SIGKILL)  # then nobody is left to wait for it, not even frozen
        os.setpgid(0, 0)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        null = os.open(os.devnull, os.O_RDONLY)
        for fd, target in ((null, 0), (out, 1), (err, 2)):
            os.dup2(fd, target)
        work()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException as error:
        with suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(code)
