"""The recovery manager: calls at most once, a breaker and a budget that all share, rollbacks that keep others' work.

Each trial runs in a forked child, with the processes that meet in it as children of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import NoReturn

from recovery import escalations, protect, steps
from recovery.breaker import CircuitBreaker, CircuitOpen
from recovery.budget import RetryBudget
from recovery.once import Call, OutcomeUnknown
from recovery.session import Session
from recovery.torture.holders import halted
from recovery.torture.invariants import require, require_tidy
from recovery.torture.operations import KILLED, Benches
from recovery.torture.scratch import Done, Forked, Workspace, demand, in_child

Work = Callable[[], object]

_OUTBOX = "postbox/CC/outbox.json"
#: What the manager keeps beside what every workspace has.
_KEPT = r"data/(breakers/\.?api.*|once/.*|claims/.*|\.statistics.*)"
#: Processes that meet.
_CROWD = 4


def _process(space: Workspace, work: Work, fault: str = "") -> Forked:
    """A program in the workspace, of which a step may be hurt."""

    def run() -> NoReturn:
        os.environ.clear()
        os.environ.update(space.environment(**({"RECOVERY_FAULT": fault} if fault else {})))
        os.chdir(space.root)
        steps.install(os.environ)
        work()
        os._exit(0)

    return Forked(run, "a program that uses the manager")


def _together(space: Workspace, works: Sequence[Work]) -> list[Done]:
    """Programs that begin at once: each waits until all are there."""
    begin, go = os.pipe()

    def waiting(work: Work) -> Work:
        def wait() -> None:
            os.read(begin, 1)
            work()

        return wait

    crowd = [_process(space, waiting(work)) for work in works]
    os.write(go, b"x" * len(crowd))
    found = [one.finish() for one in crowd]
    for fd in (begin, go):
        os.close(fd)
    for done in found:
        require(done, 0)
    return found


def _say(word: str) -> None:
    os.write(1, word.encode())


def _session() -> Session:
    return Session(".", lock_timeout=10)


# --- calls with an idempotency key


def _pay(verify: Callable[[], object] | None = None) -> None:
    call = Call(_session(), "invoice 77", "CC-1")
    try:
        if call.begin(verify):
            call.start()
            with open("paid", "a") as paid:
                paid.write("x")
            steps.at("paid")
            call.done("receipt")
        _say("done")
    except OutcomeUnknown:
        _say("unknown")
    finally:
        call.release()


def once(benches: Benches, random: Random) -> None:
    """A process dies in or beside its call: it is made once in the end, and what nobody can know is not guessed."""
    for step in ("paid", f"*:{random.randrange(1, 40)}"):
        benches.doing = f"a call with an idempotency key, killed at {step}"
        with benches.named("complete-object").fresh() as space:
            _once(space, step)


def _once(space: Workspace, step: str) -> None:
    first = require(_process(space, _pay, f"{step}=kill").finish(), KILLED, 0)
    happened = space.path("paid").exists()
    second = require(_process(space, _pay).finish(), 0)
    if second.out == "unknown":
        demand(first.code == KILLED, "what was done is not known to be")
        require(_process(space, lambda: _pay(lambda: happened)).finish(), 0)
    third = require(_process(space, _pay).finish(), 0)
    paid = space.path("paid").read_text()
    demand(paid == "x", f"called {len(paid)} times; {second.out}, then {third.out}")
    demand(third.out == "done", f"it is settled, and the next one says {third.out!r}")
    require_tidy(space, _KEPT)


# --- what all processes share


def _breaker() -> CircuitBreaker:
    return CircuitBreaker("api", 1, 0.0, session=_session())


def half_open(benches: Benches, random: Random) -> None:
    """Many wait for a service that may be back: one tries it, the others go on waiting; then all pass."""
    benches.doing = f"{_CROWD} processes at a half-open breaker"
    with benches.named("complete-object").fresh() as space:
        here = space.root.with_name(f"{space.root.name}.here")
        here.mkdir()

        def call() -> None:
            def work() -> None:
                _say("ran")
                (here / str(os.getpid())).touch()
                while len(os.listdir(here)) < _CROWD:  # nobody is in any more doubt
                    time.sleep(0.002)

            try:
                _breaker().call(work)
            except CircuitOpen:
                _say("open")
                (here / str(os.getpid())).touch()

        try:
            require(_process(space, lambda: _breaker().trip(0.0)).finish(), 0)
            said = sorted(done.out for done in _together(space, [call] * _CROWD))
            demand(said == ["open"] * (_CROWD - 1) + ["ran"], f"at a half-open breaker: {said}")
            said = [done.out for done in _together(space, [call] * 2)]
            demand(said == ["ran"] * 2, f"after the success: {said}")
        finally:
            shutil.rmtree(here)
        require_tidy(space, _KEPT)


def failures(benches: Benches, random: Random) -> None:
    """Processes that fail at the same time lose none of each other's failures: one waits for the other."""
    command, step = ("break", "api"), random.choice(("stage:1", "stage-synced:1"))
    benches.doing = f"two processes fail, one of them at {step}"
    with benches.named("complete-object").fresh() as space:
        with halted(space, command, step) as first, halted(space, command, "wait:1") as second:
            require(first.finish(), 0)
            require(second.finish(), 0)
        counted = json.loads(space.path("data/breakers/api.json").read_bytes())["failures"]
        demand(counted == 2, f"{counted} failures are counted, two there were")
        require_tidy(space, _KEPT)


def budget(benches: Benches, random: Random) -> None:
    """Processes that retry at the same time get what the budget of all has, no more and no less."""
    most = random.randrange(5, 15)
    benches.doing = f"{_CROWD} processes want {_CROWD * 5} tries of {most}"

    def spend() -> None:
        shared = RetryBudget(100, most, session=_session(), clock=lambda: 1.7e9)
        for _ in range(5):
            _say("x" if shared.spend("CC-1") else "")

    with benches.named("complete-object").fresh() as space:
        won = sum(len(done.out) for done in _together(space, [spend] * _CROWD))
        demand(won == most, f"{won} tries of a budget of {most}")
        require_tidy(space, _KEPT)


def escalated(benches: Benches, random: Random) -> None:
    """What people are told of a task at the same time, for different reasons, is all there to be read."""
    reasons = [f"reason {number}" for number in range(_CROWD)]
    benches.doing = f"{_CROWD} escalations of one task"

    def report(reason: str) -> Work:
        def work() -> None:
            with _session().store() as store:
                escalations.report(store, "CC-1", "BUG", reason)

        return work

    with benches.named("complete-object").fresh() as space:
        _together(space, [report(reason) for reason in reasons])
        files = space.path("logs/recovery").glob("CC-1_escalation*.json")
        told = sorted(json.loads(path.read_bytes())["error_message"] for path in files)
        demand(told == reasons, f"of {len(reasons)} escalations {told} are there")
        require_tidy(space, _KEPT)


# --- protected files


def protected(benches: Benches, random: Random) -> None:
    """A failed run's files are put back, with what others committed meanwhile."""
    others = random.sample([("complete", "CC", "CC-1", "theirs"), ("assign", "CC", "CC-9", "new", "LOW")], 2)
    others = others[: random.randrange(1, 3)]
    benches.doing = f"a failed run's rollback, after {' and '.join(command[0] for command in others)}"
    bench = benches.named("complete-object")
    expected = {name: bench.old.data[name] for name in (_OUTBOX, ".sprint/progress.json")}
    with bench.fresh() as unhurt:
        for command in others:
            require(unhurt.fork(command), 0)
        tasks = unhurt.json(_OUTBOX)["tasks"]
    with bench.fresh() as space, Session(space.root).store() as store:
        kept = protect.keep(store, "CB-1", "CB", expected)
        path = space.path(_OUTBOX)
        path.write_bytes(path.read_bytes().replace(b"Work 3 of CC", b"DAMAGE"))
        for command in others:
            require(space.fork(command), 0)
        demand(protect.restore(store, kept) == [_OUTBOX], "what was damaged is not put back, or more is")
        for found, wanted in zip(space.json(_OUTBOX)["tasks"], tasks, strict=True):
            same = {key: found.get(key) == wanted[key] for key in wanted if not key.endswith("_at")}
            demand(all(same.values()), f"after the rollback {found['task_id']} says {found}, and not {wanted}")


def _inside(trial: Callable[[Benches, Random], None]) -> Callable[[Benches, Random], None]:
    """In a forked child: what it opens goes with it."""

    def run(benches: Benches, random: Random) -> None:
        words, out = os.pipe()

        def work() -> None:
            try:
                trial(benches, random)
            finally:
                os.write(out, benches.doing.encode()[:4000])

        try:
            in_child(work, "a trial of the manager")
        finally:
            os.close(out)
            benches.doing = os.read(words, 4000).decode("utf-8", "replace")
            os.close(words)

    return run


TRIALS: dict[str, Callable[[Benches, Random], None]] = {
    "call at most once": _inside(once),
    "half-open breaker": _inside(half_open),
    "counted failures": _inside(failures),
    "retry budget": _inside(budget),
    "escalations": _inside(escalated),
    "protected files": _inside(protected),
}
