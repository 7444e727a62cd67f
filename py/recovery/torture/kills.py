"""SIGKILL before and after every step, twice in a row, and whole scripts killed at any moment."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from random import Random

from recovery.torture.invariants import require, require_old_or_new, require_state
from recovery.torture.operations import ELSEWHERE, KILLED, RECOVER, Bench, Benches
from recovery.torture.scratch import Unable, Workspace, demand, finish

#: How the next one meets what the killed one left.
FOLLOWUPS = ("same", "other", "recover", "elsewhere")


def places(benches: Benches) -> list[tuple[str, str]]:
    """(operation, step) of every step of every operation."""
    return [(str(op), step) for op in benches.operations for step in benches.of(op).steps()]


def kill_at(benches: Benches, operation: str, step: str, followup: str) -> None:
    """Killed at a step: each file old or new at once; then the follow-up; then the command again; then a no-op."""
    bench = benches.named(operation)
    benches.doing = f"{bench.operation.name} killed at {step}, then {followup}"
    with bench.fresh() as space:
        require(space.fork(bench.operation.command, fault=f"{step}=kill-group"), KILLED)
        bench.require_whole(space)
        make_whole(bench, space, followup)


def make_whole(bench: Bench, space: Workspace, followup: str) -> None:
    """After a crash: `followup` is who comes first; in the end the command was done, once."""
    op = bench.operation
    before: tuple[str, ...] = ()
    if op.repeats:
        before = op.facts(space)
        demand(before in (bench.old.facts, bench.new.facts), f"{op.name}: neither old nor new: {before}")
    if followup in ("other", "elsewhere") and op.other is not None:
        more = op.other if followup == "other" else ELSEWHERE
        require(space.fork(more), 0)
        require(space.fork(op.command), 0)
        require_state(space, bench.after(op.command, more))
    else:
        if followup == "recover":
            require(space.fork(RECOVER), 0)
            bench.require_old_or_new(space)
            second = require(space.fork(RECOVER), 0)
            demand("nothing to recover" in second.out, f"the second recover did something: {second}")
        require(space.fork(op.command), 0)
        bench.require_again(space, before)
    bench.require_no_op(space)


def terminate(benches: Benches, random: Random) -> None:
    """TERM at any step: a command that has begun to commit goes on to its very end, any other changes nothing."""
    bench = benches.of(random.choice([op for op in benches.operations if op.is_command]))
    op, steps = bench.operation, bench.steps()
    committing = steps[steps.index("journal-synced:1") : steps.index("done-synced:1")]
    step = random.choice(committing if random.random() < 0.7 else steps)
    benches.doing = f"{op.name} terminated at {step}"
    with bench.fresh() as space:
        done = require(space.fork(op.command, fault=f"{step}=term", RECOVERY_MAX_ATTEMPTS="1"), -signal.SIGTERM, 0)
        if step in committing:
            require_state(space, bench.new)
            rest = require(space.fork(RECOVER), 0)
            demand("nothing to recover" in rest.out, f"its commit was not finished: {rest}")
        is_new = require_old_or_new(space, bench.old, bench.new, (".backup_", ".stage"))
        demand(is_new or done.code, f"{op.name} was not done, and said {done}")
        require(space.fork(op.command), 0)
        require_state(space, bench.new)
        bench.require_no_op(space)


def kill_twice(benches: Benches, random: Random) -> None:
    """Killed at one step, and who comes next killed at any step of its own; the third one makes it whole."""
    bench = benches.of(random.choice(benches.operations))
    op = bench.operation
    first = random.choice(bench.steps())
    second = random.choice([op.command, RECOVER, op.other or RECOVER])
    with bench.fresh() as space:
        require(space.fork(op.command, fault=f"{first}=kill-group"), KILLED)
        number = random.randrange(1, 90)
        benches.doing = f"{op.name} killed at {first}, then {second[0]} at step {number}"
        done = space.fork(second, fault=f"*:{number}=kill-group")
        require(done, KILLED, 0)  # 0: it has fewer steps than that
        if not op.repeats:
            both = (op.command, second) if second == op.other else (op.command,)
            new = bench.after(*both)
            bench.require_whole(space, new, bench.after(second))
            for command in both:
                require(space.fork(command), 0)
            require_state(space, new, (), bench.allowed, op.with_checkpoints)
            bench.require_no_op(space)
        else:
            require(space.fork(RECOVER), 0)
            before = op.facts(space)
            require(space.fork(op.command), 0)
            bench.require_again(space, before)


def kill_script(benches: Benches, random: Random) -> None:
    """A whole script, killed at a step or at any moment: with its group, or the script, or the helper it becomes."""
    bench = benches.of(random.choice([op for op in benches.operations if op.is_command]))
    op = bench.operation
    how = random.choice(("group", "script", "helper", "term"))
    with bench.fresh() as space:
        if not os.access(space.words(op.command)[0], os.X_OK):
            raise Unable("the scripts do not stand beside the package: killed in the interpreter only")
        if random.random() < 0.5:
            action = {"group": "kill-group", "script": "kill", "helper": "kill", "term": "term"}[how]
            step = random.choice(bench.steps())
            benches.doing = f"the script of {op.name}, {action} at {step}"
            done = space.run(op.command, fault=f"{step}={action}", RECOVERY_MAX_ATTEMPTS="1")
        else:
            process = space.start(op.command, RECOVERY_MAX_ATTEMPTS="1")
            moment = random.random() * 0.06
            benches.doing = f"the script of {op.name}, {how} killed after {moment * 1000:.1f} ms"
            time.sleep(moment)
            with suppress(ProcessLookupError):
                if how == "group":
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.send_signal(signal.SIGTERM if how == "term" else signal.SIGKILL)
            done = finish(process)
        require(done, KILLED, -signal.SIGTERM, 130, 143, 0)
        bench.require_whole(space)
        if done.code == 0:
            require_state(space, bench.new)
        if done.out.strip() and done.code != 0:
            demand(_is_new_after_all(bench, space), f"said {done.out!r}, and it is not done")
        require(space.run(op.command), 0)
        require_state(space, bench.new)
        bench.require_no_op(space, fork=False)


def _is_new_after_all(bench: Bench, space: Workspace) -> bool:
    """Who was killed after it had said that it was done, had done it."""
    require(space.fork(RECOVER), 0)
    return require_old_or_new(space, bench.old, bench.new, allow=(".backup_",))
