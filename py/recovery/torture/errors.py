"""Calls that fail: at a step, in the system, for want of room.  The code tells the truth, a healthy retry does it once.

After "How SQLite Is Tested" (sqlite.org/testing.html), sections 3.1-3.4: any call may fail, once or for ever; nothing
is lost, and nobody is told a thing that isn't so.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import NoReturn
from weakref import WeakKeyDictionary

from recovery.torture import smalldisk, syscalls
from recovery.torture.invariants import (
    NO_OP,
    State,
    require,
    require_no_op,
    require_old_or_new,
    require_state,
    require_whole,
)
from recovery.torture.operations import KILLED, RECOVER, Bench, Benches, Operation
from recovery.torture.scratch import Command, Done, Forked, Unable, Workspace, demand, in_child

#: Steps that stand for no call that could fail: something has been, or is about to be, looked at.
MARKERS = {"begin", "locked", "recheck", "verified", "unlock", "committed", "exit"}
#: … and where one file alone is changed: the call is over, and nothing of it is left to fail.
_OVER = {"replaced", "put-renamed", "folder-synced", "append-synced"}
ERRORS = ("EIO", "ENOSPC", "EACCES")

#: Refused, or failed: the previous state stands.
FAILED = (1, 69, 74, 77)
NOT_FOUND, PARKED, UNCONFIRMED = 66, 70, 71
#: In the environment of a command that is hurt: the first error is the last word.
ONCE = {"RECOVERY_MAX_ATTEMPTS": "1"}

_BACKUP = (".backup_",)
_LATER = "`recovery recover` writes it later"


# --- what must hold


def require_honest(
    space: Workspace, done: Done, old: State, new: State, mute: bool = False, goes_on: bool = False
) -> None:
    """The code tells the truth: 0 means NEW; 70 a parked record; 71 whole files; any other refusal OLD, with a message.

    `mute`: stderr couldn't be written either.  `goes_on` as for `Operation`: done, it says so, whatever the code.
    """
    _require_answer(done, mute)
    if _is_parked(space, done):
        return
    require_whole(space, old, new)
    if done.code != UNCONFIRMED:
        is_new = require_old_or_new(space, old, new, allow=_BACKUP)  # who can't look at it can't remove it
        told = done.code == 0 or (goes_on and is_new and bool(done.out.strip()))
        demand(is_new == told, f"{'new' if is_new else 'old'}, and the command says {done}")


def require_retry(
    space: Workspace,
    done: Done,
    command: Command,
    new: State,
    mute: bool = False,
    fork: bool = False,
    allow: tuple[str, ...] = (),
    no_op: str = NO_OP,
) -> None:
    """When all is well again, the same command: exit 0, one effect, no stray file.

    After a parked record, and after a log line that was said to be left out, `recovery recover` comes first; also
    where stderr could not be written to say so (`mute`).  `fork`: in forked children.  For `allow` see
    `require_state`, for `no_op` `require_no_op`.
    """
    run = space.fork if fork else space.run
    if mute or done.code == PARKED or _LATER in done.err:
        require(run(RECOVER), 0)
        _forget_undone(space)
    require(run(command), 0)
    require_state(space, new, allow)
    require_no_op(space, command, no_op, fork)


def require_refusal_to_last(space: Workspace, done: Done, old: State, fork: bool = False) -> None:
    """What was refused (not 71) isn't finished behind everybody's back by the next who comes along."""
    if done.code in FAILED:
        require(space.fork(RECOVER) if fork else space.run(RECOVER), 0)
        data = {name: text for name, text in space.data().items() if ".backup_" not in name}
        demand(data == old.data, f"refused with {done}, and done later all the same")


def require_truth(
    bench: Bench, space: Workspace, done: Done, mute: bool = False, torn: bool = False, untidy: bool = False
) -> None:
    """The whole of it for any operation that met an error: `done` was honest, it stays so, and a retry does it once.

    `torn`: lines of logs may have been cut short, which readers pass over.  `untidy`: what was staged, or the backup
    of a dead owner, could not be removed.
    """
    space.power_was_cut = torn
    op = bench.operation
    if op.crashes is not None:
        _require_truth_of_recover(bench, space, done, mute, untidy)
    elif not op.is_command:
        _require_truth_of_call(bench, space, done, mute, untidy)
    else:
        require_honest(space, done, bench.old, bench.new, mute, op.goes_on)
        if not (op.goes_on and done.out.strip()):
            require_refusal_to_last(space, done, bench.old, fork=True)
        require_retry(space, done, op.command, bench.new, mute, fork=True, no_op=op.no_op)


def _require_truth_of_recover(bench: Bench, space: Workspace, done: Done, mute: bool, untidy: bool) -> None:
    """What a dead owner left is finished or undone as a whole, now or by the next `recover`; its command works."""
    assert bench.operation.crashes is not None
    command = bench.operation.crashes[0]
    new = bench.after(command, crashed=False)
    _require_answer(done, mute)
    if not _is_parked(space, done):
        bench.require_whole(space)
        if done.code == 0:
            require_old_or_new(space, bench.old, new, allow=_BACKUP)
    require(space.fork(RECOVER), 0)
    require_old_or_new(space, bench.old, new, allow=_BACKUP)
    _forget_undone(space)
    second = require(space.fork(RECOVER), 0)
    demand("nothing to recover" in second.out or space.power_was_cut, f"the second recover did something: {second}")
    require_retry(space, Done(0, "", ""), command, new, fork=True, allow=_BACKUP if untidy else ())


def _require_truth_of_call(bench: Bench, space: Workspace, done: Done, mute: bool, untidy: bool) -> None:
    """What a program called: 0 means NEW, 71 whole, else OLD; then once more, one more effect."""
    op = bench.operation
    _require_answer(done, mute, NOT_FOUND)
    before = op.facts(space)
    demand(before in (bench.old.facts, bench.new.facts), f"{op.name}: neither old nor new: {before}")
    if done.code == UNCONFIRMED or untidy:
        bench.require_whole(space)
    else:
        is_new = bench.require_old_or_new(space)
        same = (bench.old.data, bench.old.facts) == (bench.new.data, bench.new.facts)
        demand(same or is_new == (done.code == 0), f"{'new' if is_new else 'old'}, and the call says {done}")
    require(space.fork(RECOVER), 0)
    now = op.facts(space)
    demand(now == before, f"{op.name}: {before}, and after `recovery recover` {now}")
    require(space.fork(op.command), 0)
    bench.require_again(space, before)
    bench.require_no_op(space)


def _require_answer(done: Done, mute: bool, *more: int) -> None:
    require(done, 0, PARKED, UNCONFIRMED, *FAILED, *more)
    demand(mute or done.code == 0 or done.err.strip(), f"refused without a message: {done}")


def _is_parked(space: Workspace, done: Done) -> bool:
    if done.code == PARKED:
        demand(list(space.root.glob("data/conflicts/*.parked.json")), f"70, but no record is kept: {done}")
    return done.code == PARKED


def _forget_undone(space: Workspace) -> None:
    """What was parked and then undone is kept for people, who have looked at it by now."""
    for undone in space.root.glob("data/conflicts/*.undone.json"):
        undone.unlink()


# --- trials


def fallible(steps: Iterable[str], operation: Operation | None = None) -> list[str]:
    """The steps, as STEP:N, at which a call may fail."""
    over = _OVER if operation is not None and _is_call(operation) else set()
    return [step for step in steps if step.partition(":")[0] not in MARKERS | over]


def _is_call(operation: Operation) -> bool:
    return operation.crashes is None and not operation.is_command


def step_error(benches: Benches, random: Random) -> None:
    """An OSError at one step of any operation."""
    bench = benches.of(random.choice(benches.operations))
    op = bench.operation
    step, error = random.choice(fallible(bench.steps(), op)), random.choice(ERRORS)
    benches.doing = f"{error} at {step} of {op.name}"
    with bench.fresh() as space:
        done = space.fork(op.command, fault=f"{step}={error}", **ONCE)
        require_truth(bench, space, done, untidy=_is_removal(step))


def step_error_in_recovery(benches: Benches, random: Random) -> None:
    """Killed at a step; then an OSError at one step of whoever comes next; then a healthy retry."""
    bench = benches.of(random.choice(_commands(benches)))
    op = bench.operation
    crash, second = random.choice(bench.steps()), random.choice((op.command, RECOVER))
    benches.doing = f"{op.name} killed at {crash}"
    with bench.fresh() as space:
        require(space.fork(op.command, fault=f"{crash}=kill-group"), KILLED)
        later = fallible(space.forked_steps(second))
    if not later:
        return  # killed at its very end: whoever comes next has nothing to do
    step, error = random.choice(later), random.choice(ERRORS)
    benches.doing += f", then {error} at {step} of {second[0]}"
    with bench.fresh() as space:
        require(space.fork(op.command, fault=f"{crash}=kill-group"), KILLED)
        done = space.fork(second, fault=f"{step}={error}", **ONCE)
        _require_answer(done, mute=False)
        if not _is_parked(space, done):
            bench.require_whole(space)
            if done.code == 0:
                is_new = require_old_or_new(space, bench.old, bench.new, allow=_BACKUP)
                demand(is_new or second == RECOVER, f"old, and the command says {done}")
        allow = _BACKUP if _is_removal(step) else ()
        require_retry(space, done, op.command, bench.new, fork=True, allow=allow, no_op=op.no_op)


def _is_removal(step: str) -> bool:
    """Who can't remove a dead owner's backup leaves it to people."""
    return step.startswith("backup-remove")


def call_error(benches: Benches, random: Random) -> None:
    """A call of the operating system fails in a forked child, once or from then on; for any operation."""
    bench = benches.of(random.choice(benches.operations))
    op = bench.operation
    counts = _counted(benches).setdefault(str(op), {})
    if not counts:
        with bench.fresh() as space:
            counts.update(syscalls.count_calls(space, op.command))
    name = random.choice(sorted(counts))
    number, error = random.randint(1, counts[name]), random.choice(("EIO", "ENOSPC"))
    forever = random.random() < 0.3
    mute = forever and name == "write"
    benches.doing = f"{error} {'from' if forever else 'at'} {name} {number} of {op.name}{' on' if forever else ''}"
    with bench.fresh() as space:

        def work() -> NoReturn:
            syscalls.break_call(name, number, error, forever)
            space.become(op.command, **ONCE)

        done = Forked(work, benches.doing).finish()
        _require_no_success(op, name, done)
        require_truth(bench, space, done, mute, untidy=name == "unlink")


def _require_no_success(operation: Operation, call: str, done: Done) -> None:
    """What could not be synced was not done (fsync may forget the error: Rebello et al., USENIX ATC 2020)."""
    if call in ("fsync", "fdatasync") and operation.is_command:
        require(done, UNCONFIRMED, *FAILED)


def size_limit(benches: Benches, random: Random) -> None:
    """RLIMIT_FSIZE cuts writes short: of whole scripts, and of any operation in a forked child."""
    whole = random.random() < 0.25
    bench = benches.of(random.choice(_commands(benches) if whole else benches.operations))
    op = bench.operation
    sizes = sorted({len(data) for data in {**bench.old.data, **bench.new.data}.values()})
    around = random.choice((0, 400, 1000, 4096, 8192, 12288, 65536, *sizes))
    size = max(0, around + random.randint(-100, 100))
    benches.doing = f"no file longer than {size} bytes: {'the script of ' if whole else ''}{op.name}"
    with bench.fresh() as space:
        if whole:
            _require_scripts(space, op)
            with syscalls.limited(space, size) as environment:
                done = space.run(op.command, **ONCE, **environment)
            require_truth(bench, space, done, torn=True)
        else:

            def work() -> NoReturn:
                sys.dont_write_bytecode = True  # a cache that is cut short would outlive the trial
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
                space.become(op.command, **ONCE)

            done = Forked(work, benches.doing).finish()
            require_truth(bench, space, done, mute=size < 8192, torn=True)  # what it says is a file here


def full_disk(benches: Benches, random: Random) -> None:
    """A disk with room for a few blocks, or a few files, more; then room is made.  Unable without a private mount."""
    bench = benches.of(random.choice(benches.operations))
    op = bench.operation
    kind = random.choice(("blocks", "files"))
    left = random.randrange(40 if kind == "blocks" else 16)
    benches.doing = f"{op.name} with {left} free {kind}"
    states = [bench.old, bench.new]  # worked out before, where there is room
    if op.crashes is not None:
        states.append(bench.after(op.crashes[0], crashed=False))
    with smalldisk.folder(benches.folder) as folder:

        def work() -> None:
            smalldisk.mount(folder)
            small = replace(bench, folder=folder)
            with small.fresh() as space:
                with smalldisk.filled(folder, kind, left):
                    done = space.fork(op.command, **ONCE)
                require_truth(small, space, done, torn=True)

        in_child(work, benches.doing)


def syscall(benches: Benches, random: Random) -> None:
    """A real system call of a whole script's helper fails, injected by strace."""
    why = syscalls.why_not()
    if why:
        raise Unable(why)
    bench = benches.of(random.choice(_commands(benches)))
    op = bench.operation
    met = _traced(benches).setdefault(str(op), [])
    with bench.fresh() as space:
        _require_scripts(space, op)
        if not met:
            met += syscalls.calls(space, op.command)
    call, error, forever = random.choice(met), random.choice(("EIO", "ENOSPC")), random.random() < 0.3
    benches.doing = f"{error} {'from' if forever else 'at'} {call} of the script of {op.name}"
    with bench.fresh() as space, syscalls.injected(space, call, f"error={error}", forever) as environment:
        done = space.run(op.command, **ONCE, **environment)
        _require_no_success(op, call.name, done)
        require_truth(bench, space, done, mute=forever and call.name == "write")


TRIALS: dict[str, Callable[[Benches, Random], None]] = {
    "step error": step_error,
    "step error in recovery": step_error_in_recovery,
    "call error": call_error,
    "size limit": size_limit,
    "full disk": full_disk,
    "system call": syscall,
}

_CALLS: WeakKeyDictionary[Benches, dict[str, list[syscalls.Call]]] = WeakKeyDictionary()
_COUNTS: WeakKeyDictionary[Benches, dict[str, dict[str, int]]] = WeakKeyDictionary()


def _traced(benches: Benches) -> dict[str, list[syscalls.Call]]:
    """The system calls of each operation's script, learned when one is first hurt."""
    return _CALLS.setdefault(benches, {})


def _counted(benches: Benches) -> dict[str, dict[str, int]]:
    """How often each operation makes each call, learned when one is first hurt."""
    return _COUNTS.setdefault(benches, {})


def _commands(benches: Benches) -> list[Operation]:
    """The operations that are whole commands of the suite."""
    return [op for op in benches.operations if op.is_command]


def _require_scripts(space: Workspace, operation: Operation) -> None:
    if not os.access(space.words(operation.command)[0], os.X_OK):
        raise Unable("the scripts do not stand beside the package")
