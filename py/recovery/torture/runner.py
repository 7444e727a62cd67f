"""The torture: trials of all kinds, side by side, until the time is over; what was tried and what failed.

One worker for each processor, a fork of this process; worker W of N runs the trials W, W+N, W+2N … of each kind.  A
worker takes the next trial of the kind that has had the least of its share of the time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recovery import helper, init
from recovery.disk import require_local
from recovery.errors import Denied, NotFound, StorageError, Unavailable, UsageError, from_os_error
from recovery.torture import folders
from recovery.torture.cuts import in_memory
from recovery.torture.kinds import Kind, kinds, run
from recovery.torture.operations import Benches, everything
from recovery.torture.scratch import Unable, Violation
from recovery.torture.stopping import Check, Mask, die_with_parent, held_back, raise_at

PREFIX = ".recovery-torture-"
#: Bytes that must be free: about twice what a run uses.
ROOM = 64 << 20
#: Seconds that a worker has to clean up behind its trial.
PATIENCE = 20.0
#: After so many violations it is known.
ENOUGH = 20
#: What commands import when they need it: a forked child must not begin with that.
_WARM = (
    "recovery.resolve recovery.undo recovery.documented recovery.incidents recovery.escalations recovery.budget "
    "recovery.contention recovery.faultpoints recovery.torture.calls recovery.owners recovery.claim_locks "
    "recovery.blocking recovery.dependencies recovery.doctor recovery.treat recovery.cleanup recovery.checkpoints "
    "recovery.once recovery.stats_folded gzip pwd uuid orjson"
)


@dataclass
class Tally:
    """What was done of one kind; `places` is how many places it has, `met` how many of them were tried."""

    family: str
    kills: bool = False
    trials: int = 0
    violations: int = 0
    places: int = 0
    met: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"trials": self.trials, "violations": self.violations}
        if self.places:
            found["places"], found["met"] = self.places, self.met
        return {**found, **self.counted}


@dataclass
class Outcome:
    """All of a run: by kind, the violations in words, what could not be tried and why, seconds."""

    seed: int
    folder: Path
    kinds: dict[str, Tally] = field(default_factory=dict)
    violations: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    prepared: float = 0.0
    seconds: float = 0.0
    workers: int = 1

    @property
    def trials(self) -> int:
        return sum(tally.trials for tally in self.kinds.values())

    @property
    def kill_rate(self) -> float:
        """Kill trials a second, all workers together, over the time that they took."""
        kills = [tally for tally in self.kinds.values() if tally.kills]
        return sum(tally.trials for tally in kills) / max(sum(tally.seconds for tally in kills) / self.workers, 1e-9)


@contextlib.contextmanager
def scratch(where: str) -> Iterator[Path]:
    """A folder of our own in `where`, removed behind the block unless `keep` is in it; after a crash by the next run.

    Denied (77), StorageError (74: too little room), Unavailable (69: no locks, no renames, a network's disk).
    """
    if not os.path.isdir(where):
        raise NotFound(f"{where} is not a folder. Nothing changed.")
    try:
        folders.remove_abandoned(where, PREFIX)
        free = os.statvfs(where)
        if free.f_bavail * free.f_frsize < ROOM:
            raise StorageError(
                f"{where}: {ROOM >> 20} MB must be free for the torture, {free.f_bavail * free.f_frsize >> 20} are",
                hint="make room, or name another folder of that disk with --dir",
            )
        require_local(where, ())
        folder, owner = folders.make(where, PREFIX, init.probe)
    except PermissionError:
        raise Denied(f"{where}: no permission to make a scratch folder there. Nothing changed.") from None
    except OSError as error:
        if isinstance(error, StorageError | Unavailable):
            raise
        raise from_os_error(error, where) from None
    try:
        yield Path(folder)
    finally:
        with held_back():
            if not os.path.exists(os.path.join(folder, "keep")):
                folders.remove(folder)
            os.close(owner)


def torture(
    folder: Path,
    seconds: float,
    seed: int | None = None,
    workers: int | None = None,
    only: str = "",
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Run trials in `folder` (see `scratch`) for about so many seconds, or `only` the one trial KIND:NUMBER.

    Preparing is part of the time, at most half of it; however slow the machine is, each kind is tried once.

    `tell` is called twice a second with what is known so far.  KeyboardInterrupt, in it or at any moment, ends the
    workers and passes.
    UsageError (64) if there is no trial `only`.
    """
    began = time.monotonic()
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    outcome = Outcome(seed, folder, workers=workers or os.cpu_count() or 1)
    warm_up()
    with in_memory(folder) as memory:
        all_kinds = kinds(memory)
        chosen, number = _chosen(all_kinds, only)
        templates = folder / "templates"
        templates.mkdir()
        benches = Benches(templates, str(seed))
        try:
            benches.prepare()
        except Violation as error:  # not even unhurt
            outcome.violations.append({"kind": "unhurt", "number": 0, "doing": "nothing was hurt", "text": str(error)})
            outcome.kinds["unhurt"] = Tally("unhurt", trials=1, violations=1)
            return outcome
        for kind in all_kinds:
            outcome.kinds[kind.name] = Tally(kind.family or kind.name, kind.kills, places=kind.places(benches))
        outcome.prepared = time.monotonic() - began
        gc.freeze()  # forked children must not copy what they never change
        now = time.monotonic()
        began, end = now, max(began + seconds, now + seconds / 2)
        if chosen is not None:
            end, outcome.workers = 0.0, 1
        crew: list[_Worker] = []
        try:
            with held_back() as mask:
                for n in range(outcome.workers):
                    crew.append(_Worker(n, outcome.workers, benches, all_kinds, chosen, number, end, mask))
            _listen(crew, outcome, tell)
        finally:
            with held_back():
                for worker in crew:
                    worker.end()
        outcome.seconds = time.monotonic() - began
    return outcome


def warm_up() -> None:
    """Import what the commands under test do, so that their forked children need not."""
    verbs = {operation.command[0] for operation in everything()} & helper.VERBS.keys()
    for verb in verbs:
        helper.verb_of(verb)
    for name in _WARM.split():
        importlib.import_module(name)


def _chosen(all_kinds: list[Kind], only: str) -> tuple[Kind | None, int]:
    if not only:
        return None, 0
    name, _, number = only.rpartition(":")
    for kind in all_kinds:
        if kind.name == name and number.isdigit():
            return kind, int(number)
    names = ", ".join(kind.name for kind in all_kinds)
    raise UsageError(f"{only[:60]!a} is no trial: KIND:NUMBER, where KIND is one of {names}")


def _listen(crew: list[_Worker], outcome: Outcome, tell: Callable[[Outcome], None]) -> None:
    with selectors.DefaultSelector() as selector:
        for worker in crew:
            selector.register(worker.reports, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _ in selector.select(0.5):
                worker = key.data
                if not worker.read(outcome):
                    selector.unregister(worker.reports)
            tell(outcome)
            if len(outcome.violations) >= ENOUGH:
                return


class _Worker:
    """A forked process that runs its trials and reports each, one JSON object a line.

    Made while signals are held back; `mask` is what it lives with.
    """

    def __init__(
        self,
        number: int,
        count: int,
        benches: Benches,
        all_kinds: list[Kind],
        only: Kind | None,
        at: int,
        end: float,
        mask: Mask,
    ) -> None:
        self._rest = b""
        self.reports, out = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(out)
            return
        code = 1
        try:
            os.close(self.reports)
            for signal_number in (signal.SIGINT, signal.SIGHUP):  # the terminal sends them to all; our parent decides
                signal.signal(signal_number, signal.SIG_IGN)
            check = raise_at([signal.SIGTERM], _Stopped)
            die_with_parent(signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            folder = benches.folder.parent / f"worker-{number}"
            folder.mkdir()
            mine = benches.share(folder)
            for bench in mine.all():
                bench.keep = True
            if only is not None:
                _report(out, only, mine, at)
            else:
                _work(out, mine, all_kinds, number, count, end, check)
            code = 0
        except _Stopped:
            pass
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(code)

    def read(self, outcome: Outcome) -> bool:
        """Take in what it has reported; False when it has ended."""
        data = os.read(self.reports, 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            _count(outcome, json.loads(line))
        if not data:
            _, status = os.waitpid(self.pid, 0)
            self.pid = 0
            if status:
                text = f"a worker of the torture ended with {os.waitstatus_to_exitcode(status)}"
                outcome.violations.append({"kind": "torture", "number": 0, "doing": "", "text": text})
        return bool(data)

    def end(self) -> None:
        """Stop it in the middle of its trial, which cleans up behind itself."""
        if self.pid:
            pidfd = os.pidfd_open(self.pid)
            os.kill(self.pid, signal.SIGTERM)
            if not select.select([pidfd], [], [], PATIENCE)[0]:
                os.kill(self.pid, signal.SIGKILL)
            os.close(pidfd)
            os.waitpid(self.pid, 0)
            self.pid = 0
        os.close(self.reports)


class _Stopped(BaseException):
    """The parent wants no more."""


def _work(out: int, benches: Benches, all_kinds: list[Kind], number: int, count: int, end: float, check: Check) -> None:
    spent = dict.fromkeys((kind.name for kind in all_kinds), 0.0)
    turn = dict.fromkeys(spent, number)
    owed = all_kinds[number::count]
    while owed or time.monotonic() < end:
        check()
        choice = all_kinds if time.monotonic() < end else owed
        kind = min(choice, key=lambda one: spent[one.name] / one.share)
        owed = [one for one in owed if one is not kind]
        began = time.monotonic()
        _report(out, kind, benches, turn[kind.name])
        spent[kind.name] += time.monotonic() - began
        turn[kind.name] += count


def _report(out: int, kind: Kind, benches: Benches, number: int) -> None:
    result, text = "kept", ""
    began = time.monotonic()
    try:
        run(kind, benches, number)
    except Violation as error:
        result, text = "violated", str(error)
    except Unable as error:
        result, text = "skipped", str(error)
    told = {
        "kind": kind.name,
        "number": number,
        "result": result,
        "doing": benches.doing,
        "text": text[:20000],
        "counted": benches.counted,
        "seconds": time.monotonic() - began,
    }
    data = json.dumps(told).encode() + b"\n"
    while data:
        data = data[os.write(out, data) :]


def _count(outcome: Outcome, told: dict[str, Any]) -> None:
    tally = outcome.kinds[told["kind"]]
    if told["result"] == "skipped":
        outcome.skipped[told["kind"]] = told["text"]
        return
    tally.trials += 1
    tally.seconds += told["seconds"]
    tally.met += told["number"] < tally.places
    for name, value in told["counted"].items():
        tally.counted[name] = tally.counted.get(name, 0) + value
    if told["result"] == "violated":
        tally.violations += 1
        outcome.violations.append({key: told[key] for key in ("kind", "number", "doing", "text")})
