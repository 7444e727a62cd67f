"""Who puts a dead commit right, and what others did before he came: nothing of theirs is lost or done twice."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from random import Random
from typing import Any

from recovery.torture.holders import halted, write_whole
from recovery.torture.invariants import require, require_state
from recovery.torture.operations import ELSEWHERE, KILLED, RECOVER, Bench, Benches
from recovery.torture.scratch import Command, Workspace, demand

_OUTBOX = "postbox/CC/outbox.json"
_PROGRESS = ".sprint/progress.json"
#: Places at which an owner may die with its record in the journal.
_DEAD = ("journal-synced:1", "replaced:1", "replaced:2", "verified:1", "appended:1")


def _completion(benches: Benches, random: Random, *forms: str) -> Bench:
    found = [op for op in benches.operations if op.command[0] == "complete" and op.crashes is None and not op.prepare]
    return benches.of(random.choice([op for op in found if not forms or op.form in forms]))


def late_resolver(benches: Benches, random: Random) -> None:
    """One has seen a dead commit's record and is late; another finishes it and goes on: the late one redoes nothing.

    The other's own commit may be dead as well by then.
    """
    bench = _completion(benches, random)
    op, crash = bench.operation, random.choice(_DEAD[:1] + _DEAD[2:])
    assert op.other is not None
    late: Command = random.choice((RECOVER, ELSEWHERE))
    dies = random.random() < 0.5
    benches.doing = f"{op.name} killed at {crash}; {late[0]} comes late, after a {'dead' if dies else 'whole'} commit"
    with bench.fresh() as space:
        require(space.fork(op.command, fault=f"{crash}=kill-group"), KILLED)
        with halted(space, late, "resolve:1") as one:
            require(space.fork(RECOVER), 0)
            done = space.fork(op.other, fault="replaced:1=kill-group" if dies else "")
            require(done, KILLED if dies else 0)
            said = require(one.finish(), 0)
            demand("CC/CC-1" not in said.out + said.err, f"what was finished already was finished once more: {said}")
        for command in (op.command, op.other, *((late,) if late == ELSEWHERE else ())):
            require(space.fork(command), 0)
        commands = (op.command, op.other, ELSEWHERE) if late == ELSEWHERE else (op.command, op.other)
        require_state(space, bench.after(*commands))
        bench.require_no_op(space)


def newer_work(benches: Benches, random: Random) -> None:
    """Somebody with the lock changes another task between a crash and the recovery: forwards or back, it stays."""
    bench = _completion(benches, random)
    back = random.random() < 0.6
    crash = "replace:2=EIO,abort-synced:1=kill-group" if back else f"{random.choice(_DEAD)}=kill-group"
    benches.doing = f"{bench.operation.name} dead at {crash}, another's edit, then recover"
    with bench.fresh() as space:
        require(space.fork(bench.operation.command, fault=crash, RECOVERY_MAX_ATTEMPTS="1"), KILLED)
        edit(space, _edited)
        require(space.fork(RECOVER), 0)
        _require_kept(space)
        status = space.task("CC", "CC-1")["status"]
        demand(status == ("pending" if back else "completed"), f"CC-1 is {status}")
        require(space.fork(bench.operation.command), 0)
        _require_kept(space)
        demand(space.task("CC", "CC-1")["status"] == "completed", "the repeated command did not do it")


def rollback_under_newer_work(benches: Benches, random: Random) -> None:
    """A rollback takes its own fields back and leaves what others changed in the same files."""
    bench = _completion(benches, random)
    benches.doing = f"{bench.operation.name}, another's edit, rollback"
    with bench.fresh() as space:
        require(space.fork(bench.operation.command), 0)
        edit(space, _edited)
        require(space.fork(("rollback", "CC", "CC-1")), 0)
        _require_kept(space)
        demand(space.task("CC", "CC-1")["status"] == "pending", "the rollback did not take its change back")


def rollback_over_anothers_value(benches: Benches, random: Random) -> None:
    """Where somebody has changed the very field since, the rollback is refused and his value stays."""
    bench = _completion(benches, random)
    benches.doing = f"{bench.operation.name}, another's value in the same field, rollback"
    with bench.fresh() as space:
        require(space.fork(bench.operation.command), 0)
        edit(space, lambda body: body["tasks"][0].update(status="failed"))
        before = space.data()
        require(space.fork(("rollback", "CC", "CC-1")), 65)
        demand(space.data() == before, "a refused rollback changed something")


def older_backup(benches: Benches, random: Random) -> None:
    """A backup that is there already may be the only good copy somebody has: it is put away, never overwritten."""
    bench = _completion(benches, random)
    benches.doing = f"{bench.operation.name} beside an older backup"
    with bench.fresh() as space:
        backup = space.path(f"{_OUTBOX}.backup_CC-1")
        backup.write_bytes(b"the only good copy")
        command = (*bench.operation.command, "--keep-backup") if random.random() < 0.5 else bench.operation.command
        require(space.fork(command), 0)
        kept = [path.read_bytes() for path in backup.parent.glob(f"{backup.name}*")]
        demand(b"the only good copy" in kept, "an older backup is gone")
        demand(len(kept) == 1 + (command != bench.operation.command), f"{len(kept)} backups")


def listed_as_done(benches: Benches, random: Random) -> None:
    """Where progress.json has the task as completed already, since then, it is left as it is, and not counted twice."""
    bench = _completion(benches, random, "object", "list")
    benches.doing = f"{bench.operation.name} of what progress.json has as completed"
    with bench.fresh() as space:
        path = space.path(_PROGRESS)
        body = json.loads(path.read_bytes())
        tasks = body["tasks"]
        mine = tasks["CC-1"] if isinstance(tasks, dict) else next(task for task in tasks if task["id"] == "CC-1")
        mine.update(status="completed", completed_at="2025-06-01T00:00:00Z")
        body.update(completed=1, pending=body["pending"] - 1)
        write_whole(path, json.dumps(body).encode())
        before = path.read_bytes()
        require(space.fork(bench.operation.command), 0)
        demand(path.read_bytes() == before, f"progress.json says {path.read_bytes()!r}, and said {before!r}")
        demand(space.task("CC", "CC-1")["status"] == "completed", "the outbox does not say so")
        bench.require_no_op(space)


def _edited(body: dict[str, Any]) -> None:
    body["note"] = "ours"
    next(task for task in body["tasks"] if task["task_id"] == "CC-3")["title"] = "Edited meanwhile"


def _require_kept(space: Workspace) -> None:
    body = space.json(_OUTBOX)
    demand(body.get("note") == "ours", "an edit of another part of the outbox is lost")
    demand(space.task("CC", "CC-3")["title"] == "Edited meanwhile", "an edit of another task is lost")


def edit(space: Workspace, change: Callable[[dict[str, Any]], None]) -> None:
    """A correct foreign edit: under the data lock, renamed into place, laid out in its own way."""
    path = space.path(_OUTBOX)
    fd = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        body = json.loads(path.read_bytes())
        change(body)
        write_whole(path, json.dumps(body).encode())
    finally:
        os.close(fd)


TRIALS: dict[str, Callable[[Benches, Random], None]] = {
    "late resolver": late_resolver,
    "newer work": newer_work,
    "rollback under newer work": rollback_under_newer_work,
    "rollback over another's value": rollback_over_anothers_value,
    "older backup": older_backup,
    "listed as done": listed_as_done,
}
