"""Many at once: nothing is lost, nothing is done twice, nobody is robbed, nobody waits for ever.

Rows 14, 17-25, 56-58 of the fault table and the conflict rules of section 4.  Processes meet at barriers.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.meeting import Gate, edit, held
from support.promise import Command, Failures, State, require, require_no_op, require_state, require_tidy
from support.workspace import FORMS, FULL, Done, Workspace, finish

DONE = ("complete", "CC", "CC-1", "done")
OTHER = ("complete", "CC", "CC-2", "other")
CB = ("complete", "CB", "CB-1", "of CB")

OUTBOX = "postbox/CC/outbox.json"
PROGRESS = ".sprint/progress.json"

#: From the commit point to the line in the change log: the record is durable and somebody has to finish it.
DECIDED = ("journal-synced:1", "replace:1", "replaced:1", "replaced:2", "replaced:3", "folder-sync:1", "verified:1")
KILLED = -9


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path / "root")


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Workspace]:
    """One workspace after the other, for tests that try many points."""
    made: list[Workspace] = []

    def make() -> Workspace:
        if made:
            made[-1].remove()
        made.append(Workspace.make(tmp_path / f"root-{len(made)}"))
        return made[-1]

    return make


def together(space: Workspace, commands: Sequence[Command]) -> list[Done]:
    """Run commands at the same time: each is started, and waits until all are there."""
    gates = [Gate(space, f"start-{n}") for n in range(len(commands))]
    started = [space.start(c, fault=gate.fault("begin")) for c, gate in zip(commands, gates, strict=True)]
    for gate, process in zip(gates, started, strict=True):
        gate.reached(process)
    for gate in gates:
        gate.open()
    return [finish(process) for process in started]


def crash(space: Workspace, command: Command, step: str) -> None:
    require(space.run(command, fault=f"{step}=kill-group"), KILLED)


def require_completed(space: Workspace, *tasks: str) -> None:
    """Exactly these tasks are completed: in the outbox, in progress, in the counter, each with one record."""
    done = []
    for agent in ("CC", "CA", "CB"):
        for entry in space.json(f"postbox/{agent}/outbox.json")["tasks"]:
            record = space.path(f"postbox/{agent}/completed/{entry['task_id']}_completion.json")
            said = [entry["status"] == "completed", record.exists()]
            if space.path(PROGRESS).exists() and "-" in entry["task_id"]:
                said.append(space.listed(entry["task_id"])["status"] == "completed")
            assert len(set(said)) == 1, f"{entry['task_id']} is half done (outbox, record, progress): {said}"
            done += [entry["task_id"]] if said[0] else []
    assert sorted(done) == sorted(tasks)
    if space.path(PROGRESS).exists():
        assert space.progress()["completed"] == len(tasks), "the counter of completed tasks"


def strays(space: Workspace) -> list[str]:
    return [name for name in space.snapshot() if name.endswith((".stage", ".foreign")) or ".backup_" in name]


# --- many writers


@pytest.mark.parametrize("form", FORMS)
def test_writers_of_one_agent_lose_nothing(form: str, tmp_path: Path) -> None:
    """Row 17: eight commands on one outbox at the same time; all exit 0 and each is there once."""
    space = Workspace.make(tmp_path / "root", form)
    commands: list[Command] = [("complete", "CC", f"CC-{n}", f"m{n}") for n in (1, 2, 3, 4)]
    commands += [("assign", "CC", f"CC-{n}", f"New {n}", "LOW") for n in (5, 6, 7, 8)]
    for done in together(space, commands):
        require(done, 0)
    require_completed(space, "CC-1", "CC-2", "CC-3", "CC-4")
    for n in (5, 6, 7, 8):
        assert space.task("CC", f"CC-{n}")["title"] == f"New {n}"
    assert space.changes() == sorted((c[0], "CC", c[2]) for c in commands)
    assert strays(space) == []
    require_tidy(space)


@pytest.mark.parametrize("form", ["object", "list"])
def test_agents_that_share_progress_lose_no_count(form: str, tmp_path: Path) -> None:
    """Row 17: twelve completions of three agents at the same time; the shared counter says twelve."""
    space = Workspace.make(tmp_path / "root", form)
    tasks = [(agent, f"{agent}-{n}") for agent in ("CC", "CA", "CB") for n in (1, 2, 3, 4)]
    for done in together(space, [("complete", agent, task, "m") for agent, task in tasks]):
        require(done, 0)
    require_completed(space, *(task for _, task in tasks))
    assert space.progress()["pending"] == 0
    assert strays(space) == []
    require_tidy(space)


def test_of_many_who_complete_the_same_task_one_does_it(space: Workspace) -> None:
    """Row 18: ten processes, one task: all exit 0, one says it did it, the counter goes up by one."""
    results = together(space, [("complete", "CC", "CC-1", f"by {n}") for n in range(10)])
    for done in results:
        require(done, 0)
    winners = [n for n, done in enumerate(results) if done.out.startswith("completed ")]
    assert len(winners) == 1, f"{len(winners)} say that they completed it"
    assert space.task("CC", "CC-1")["completion_message"] == f"by {winners[0]}"
    require_completed(space, "CC-1")
    assert space.changes() == [("complete", "CC", "CC-1")]
    require_tidy(space)


def test_of_many_who_assign_the_same_task_one_does_it(space: Workspace) -> None:
    """Row 45: ten processes assign one new task; it is there once, and listed once."""
    for done in together(space, [("assign", "CC", "CC-9", "New", "LOW")] * 10):
        require(done, 0)
    assert space.task("CC", "CC-9")["title"] == "New"
    assert space.progress()["total_tasks"] == 13
    assert space.changes() == [("assign", "CC", "CC-9")]
    require_tidy(space)


def test_a_foreign_writer_with_flock_and_jq_loses_nothing_and_we_neither(space: Workspace) -> None:
    """Row 19: `flock LOCK jq … ; mv`, twenty times on outbox and progress, among our own commands."""
    script = """
        for n in 1 2 3 4 5 6 7 8 9 10; do
          for file in postbox/CC/outbox.json .sprint/progress.json; do
            cd "$1/${file%/*}"
            flock ".${file##*/}.lock" sh -c 'jq ".foreign += 1" "$1" >x.foreign && mv x.foreign "$1"' - "${file##*/}"
          done
        done"""
    foreign = subprocess.Popen(["bash", "-ec", script, "-", str(space.root)])
    commands: list[Command] = [("complete", "CC", f"CC-{n}", "m") for n in (1, 2, 3, 4)]
    for done in together(space, [*commands, CB, ("assign", "CC", "CC-5", "New", "LOW")]):
        require(done, 0)
    assert foreign.wait() == 0
    assert space.json(OUTBOX)["foreign"] == 10, "an update of the foreign writer is lost"
    assert space.progress()["foreign"] == 10, "an update of the foreign writer is lost"
    require_completed(space, "CC-1", "CC-2", "CC-3", "CC-4", "CB-1")
    assert space.task("CC", "CC-5")["title"] == "New"
    assert strays(space) == []
    require_tidy(space)


def test_a_foreign_writer_without_lock_is_met_and_both_changes_stay(fresh: Callable[[], Workspace]) -> None:
    """Section 4: a file that an unlocked writer changed before our replace is planned or applied anew."""
    for step in ("stage:1", "recheck:1", "journal-synced:1"):
        space = fresh()
        gate = Gate(space, "unlocked")
        process = space.start(DONE, fault=gate.fault(step))
        gate.reached(process)
        for name in (OUTBOX, PROGRESS):
            body = space.json(name)
            body["foreign"] = 1
            space.path(name).write_text(json.dumps(body))
        gate.open()
        require(finish(process), 0)
        assert space.json(OUTBOX)["foreign"] == space.progress()["foreign"] == 1, f"overwritten at {step}"
        require_completed(space, "CC-1")
        assert strays(space) == []
        require_tidy(space)


def test_a_file_thrown_back_to_the_old_state_before_it_is_read_back_is_replaced_again(space: Workspace) -> None:
    """A writer who ignores the lock renames the old bytes over ours between replace and verify."""
    old = (space.root / OUTBOX).read_bytes()
    gate = Gate(space, "verify")
    process = space.start(DONE, fault=gate.fault("verify"))
    gate.reached(process)
    aside = space.root / "postbox/CC/old.json"
    aside.write_bytes(old)
    os.rename(aside, space.root / OUTBOX)
    gate.open()
    require(finish(process), 0)
    require_completed(space, "CC-1")
    require_tidy(space)


def test_a_reader_never_sees_a_torn_or_empty_file(space: Workspace) -> None:
    """Row 21: a reader that ignores every lock parses what it reads each time, while ten commands write."""
    stop = threading.Event()
    seen: list[int] = []
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            for name in (OUTBOX, PROGRESS):
                try:
                    seen.append(len(json.loads(space.path(name).read_bytes())["tasks"]))
                except (ValueError, OSError) as error:
                    wrong.append(f"{name}: {error}")

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(5):
        require(space.run(("assign", "CC", f"CC-{n + 10}", "New", "LOW")), 0)
        require(space.run(("complete", "CC", f"CC-{n + 10}", "m")), 0)
    stop.set()
    reader.join()
    assert wrong == []
    assert len(set(seen)) > 1, "the reader saw no change: the test proves nothing"


@pytest.mark.parametrize("seed", range(12 if FULL else 3))
def test_random_kills_among_workers_then_repeats(seed: int, space: Workspace) -> None:
    """Row 20: eight workers at once, half of them killed at a random step; all commands repeated: each once."""
    dice = random.Random(seed)
    steps = Workspace.make(space.root.with_name("learn")).steps(DONE)
    commands: list[Command] = [("complete", a, f"{a}-{n}", "m") for a in ("CC", "CA", "CB") for n in (1, 2)]
    commands += [("assign", a, f"{a}-9", "New", "LOW") for a in ("CC", "CA")]
    for _ in range(2):
        started = []
        for command in commands:
            fault = f"{dice.choice(steps)}={dice.choice(('kill-group', 'kill', 'term'))}"
            started.append(space.start(command, fault=fault if dice.random() < 0.7 else "", RECOVERY_MAX_ATTEMPTS="1"))
        for process in started:
            finish(process)
    for done in together(space, commands):
        require(done, 0)
    for command in commands:
        require_no_op(space, command)
    require_completed(space, *(c[2] for c in commands if c[0] == "complete"))
    assert space.progress()["total_tasks"] == 14
    assert space.changes() == sorted((c[0], c[1], c[2]) for c in commands)
    assert strays(space) == []
    require_tidy(space)


# --- locks


@pytest.mark.parametrize("step", [*DECIDED, "recheck:1", "appended:1", "done-mark:1"])
def test_who_waits_for_progress_when_its_owner_crashes_resolves_and_goes_on(step: str, space: Workspace) -> None:
    """Row 57: CC dies in its commit while CB holds its own outbox and waits for progress.json: both are done."""
    dying, waiting = Gate(space, "cc"), Gate(space, "cb")
    cc = space.start(DONE, fault=f"{dying.fault(step)},{_next(space, step)}=kill-group")
    dying.reached(cc)
    cb = space.start(CB, fault=waiting.fault("wait:1"), ORCHESTRATION_LOCK_DIR=str(space.root) + ".locks2")
    waiting.reached(cb)
    waiting.open()
    dying.open()
    require(finish(cc), KILLED)
    done = require(finish(cb), 0)
    if step in DECIDED:
        assert "finished `complete CC/CC-1`" in done.err, f"who finished it did not say so: {done}"
        require_completed(space, "CC-1", "CB-1")
    require(space.run(DONE), 0)
    require_completed(space, "CC-1", "CB-1")
    assert space.changes() == [("complete", "CB", "CB-1"), ("complete", "CC", "CC-1")]
    assert strays(space) == []
    require_tidy(space)


@pytest.mark.parametrize("step", DECIDED)
@pytest.mark.parametrize("waits", ["begin:1", "stage:1"])
def test_a_commit_over_other_files_finishes_the_dead_one_first(step: str, waits: str, tmp_path: Path) -> None:
    """Section 4: nobody's record is overwritten: CB, which shares no file with dead CC, finishes it before its own."""
    space = Workspace.make(tmp_path / "root", "absent")
    if step == "replaced:3":
        step = "replaced:2"  # without progress.json two files are replaced
    gate = Gate(space, "cb")
    cb = space.start(CB, fault=gate.fault(waits))
    gate.reached(cb)
    crash(space, DONE, step)
    gate.open()
    done = require(finish(cb), 0)
    assert "finished `complete CC/CC-1`" in done.err, str(done)
    require_completed(space, "CC-1", "CB-1")
    require_no_op(space, DONE)
    assert strays(space) == []
    require_tidy(space)


def _next(space: Workspace, step: str) -> str:
    """The step that follows, so that a command can wait at one and die at the next."""
    learn = Workspace.make(space.root.with_name("learn"))
    steps = learn.steps(DONE)
    learn.remove()
    return steps[steps.index(step) + 1]


@pytest.mark.parametrize("step", ["stage:1", "recheck:1", "replaced:1"])
def test_a_stopped_holder_is_waited_for_and_never_robbed(step: str, space: Workspace) -> None:
    """Row 23: SIGSTOP a holder, date its lock files years back: others time out with 75 and change nothing."""
    gate = Gate(space, "stopped")
    holder = space.start(DONE, fault=gate.fault(step))
    gate.reached(holder)
    os.killpg(holder.pid, signal.SIGSTOP)
    for path in [*space.root.rglob(".*.lock"), *space.locks.rglob("*.lock")]:
        os.utime(path, (1e9, 1e9))
    before = space.data()
    own_locks = str(space.root) + ".locks2"
    limits = {"RECOVERY_LOCK_TIMEOUT": "0.3", "RECOVERY_MAX_ATTEMPTS": "1"}
    for folder in (str(space.locks), own_locks):
        began = time.monotonic()
        done = require(space.run(OTHER, ORCHESTRATION_LOCK_DIR=folder, **limits), 75)
        took = time.monotonic() - began
        assert "Failed to acquire lock on" in done.err, str(done)
        assert "after 0.3 seconds" in done.err, str(done)
        assert "(stopped)" in done.err, f"the holder is not named as stopped: {done}"
        assert 0.3 <= took < 3, f"a wait of 0.3 s took {took:.2f} s"
    assert space.data() == before
    os.killpg(holder.pid, signal.SIGCONT)
    gate.open()
    require(finish(holder), 0)
    require(space.run(OTHER), 0)
    require_completed(space, "CC-1", "CC-2")
    require_tidy(space)


def test_a_lock_held_for_a_while_is_waited_for(space: Workspace) -> None:
    """Row 25: the lock is let go while the command waits: it goes on and succeeds."""
    gate = Gate(space, "waits")
    with held(space.path("postbox/CC/.outbox.json.lock")):
        process = space.start(DONE, fault=gate.fault("wait:1"))
        gate.reached(process)
        gate.open()
    require(finish(process), 0)
    require_completed(space, "CC-1")
    require_tidy(space)


def test_a_lock_held_for_ever_ends_in_75_within_the_limit(space: Workspace) -> None:
    """Row 24: one deadline over all tries; the message names the lock; nothing changed."""
    before = space.data()
    with held(space.path(".sprint/.progress.json.lock")):
        began = time.monotonic()
        done = require(space.run(DONE, RECOVERY_LOCK_TIMEOUT="0.2", RECOVERY_DEADLINE="0.5"), 75)
        took = time.monotonic() - began
    assert "Failed to acquire lock on .sprint/.progress.json.lock" in done.err, str(done)
    assert took < 3, f"a deadline of 0.5 s took {took:.2f} s"
    assert space.data() == before
    require(space.run(DONE), 0)
    require_completed(space, "CC-1")


@pytest.mark.parametrize("name", ["postbox/CC/.outbox.json.lock", ".sprint/.progress.json.lock", "data/.commit.lock"])
def test_a_holder_notices_that_its_lock_file_is_gone(name: str, space: Workspace) -> None:
    """Row 22: the lock file is unlinked while held, another walks in and commits: 75, nothing changed by the first."""
    gate = Gate(space, "held")
    holder = space.start(DONE, fault=gate.fault("recheck:1"), RECOVERY_MAX_ATTEMPTS="1")
    gate.reached(holder)
    space.path(name).unlink()
    if name.startswith("postbox"):
        edit(space.path(OUTBOX), lambda body: body.update(foreign=1))
    before = space.data()
    gate.open()
    done = require(finish(holder), 75)
    assert "removed while it was held" in done.err, str(done)
    after = {k: v for k, v in space.data().items() if ".backup_" not in k}
    assert after == {k: v for k, v in before.items() if ".backup_" not in k and not k.endswith(".stage")}
    require(space.run(DONE), 0)
    require_completed(space, "CC-1")
    assert name.startswith("postbox") == ("foreign" in space.json(OUTBOX))


def test_a_waiter_moves_to_the_new_lock_file(space: Workspace) -> None:
    """Row 22: the lock file is unlinked while somebody holds it and another waits: the waiter goes on."""
    gate = Gate(space, "waits")
    lock = space.path("postbox/CC/.outbox.json.lock")
    with held(lock):
        process = space.start(DONE, fault=gate.fault("wait:1"), RECOVERY_LOCK_TIMEOUT="20")
        gate.reached(process)
        lock.unlink()
        gate.open()
        require(finish(process), 0)
    require_completed(space, "CC-1")


# --- a crash, and then people and other programs


@pytest.mark.parametrize(
    "following", [OTHER, CB, ("recover",), DONE], ids=["same-agent", "other-agent", "recover", "same"]
)
@pytest.mark.parametrize("step", ["journal-synced:1", "replaced:1", "replaced:2", "replaced:3", "verified:1"])
def test_a_completion_that_a_person_took_back_is_not_silently_redone(
    step: str, following: Command, space: Workspace
) -> None:
    """Row 58: crash, `cp` of the backup over the outbox, next command: CC-1 is open everywhere."""
    crash(space, DONE, step)
    shutil.copyfile(space.path(OUTBOX + ".backup_CC-1"), space.path(OUTBOX))
    if following == DONE:
        done = require(space.run(following), 65)
        assert "put back by somebody" in done.err, f"not asked: {done}"
    else:
        require(space.run(following), 0)
    others = [following[2]] if following in (OTHER, CB) else []
    require_completed(space, *others)
    require(space.run(DONE), 0)
    require_completed(space, "CC-1", *others)


@pytest.mark.parametrize("step", ["appended:1", "append-synced:1", "done-mark:1"])
def test_a_restore_after_the_record_stands_in_the_log_is_left_alone(step: str, space: Workspace) -> None:
    """Row 58: what is in the change log is done; a person's later restore of the outbox stays as it is."""
    crash(space, DONE, step)
    shutil.copyfile(space.path(OUTBOX + ".backup_CC-1"), space.path(OUTBOX))
    require(space.run(CB), 0)
    assert space.task("CC", "CC-1")["status"] == "pending", "the completion was silently redone"
    assert space.changes() == [("complete", "CB", "CB-1"), ("complete", "CC", "CC-1")]


def _fail_it(body: Any) -> None:
    body["tasks"][0]["status"] = "failed"


def _retitle_another(body: Any) -> None:
    body["tasks"][1]["title"] = "somebody's"


def _count_five(body: Any) -> None:
    body["completed"] += 5


@pytest.mark.parametrize("step", DECIDED)
@pytest.mark.parametrize("following", [OTHER, CB, ("recover",)], ids=["same-agent", "other-agent", "recover"])
def test_a_correct_writer_between_crash_and_recovery_keeps_its_change(
    step: str, following: Command, space: Workspace
) -> None:
    """Row 56: own fields at their before- or after-values: the edit is applied (counter + 1), the other's stays."""
    crash(space, DONE, step)
    edit(space.path(OUTBOX), _retitle_another)
    edit(space.path(PROGRESS), _count_five)
    require(space.run(following), 0)
    assert space.task("CC", "CC-2")["title"] == "somebody's"
    assert space.task("CC", "CC-1")["status"] == "completed"
    assert space.listed("CC-1")["status"] == "completed"
    assert space.progress()["completed"] == 5 + (1 if following == ("recover",) else 2)
    require(space.run(DONE), 0)
    assert not list(space.root.glob("data/conflicts/*")), "no conflict, but something was set aside"
    assert strays(space) == []
    require_tidy(space)


@pytest.mark.parametrize("step", DECIDED)
@pytest.mark.parametrize("following", [OTHER, CB, ("recover",)], ids=["same-agent", "other-agent", "recover"])
def test_a_conflict_undoes_the_whole_record_and_blocks_nobody(step: str, following: Command, space: Workspace) -> None:
    """Section 4: somebody set an own field to a third value: nothing of the record stays, the other's value does."""
    crash(space, DONE, step)
    edit(space.path(OUTBOX), _fail_it)
    require(space.run(following), 0)
    assert space.task("CC", "CC-1")["status"] == "failed", "somebody's change was overwritten"
    assert space.listed("CC-1")["status"] == "pending"
    assert not space.path("postbox/CC/completed/CC-1_completion.json").exists()
    assert space.progress()["completed"] == (0 if following == ("recover",) else 1)
    assert len(list(space.root.glob("data/conflicts/CC@CC-1@*.conflict.json"))) == 1
    assert space.json("logs/recovery/CC-1_escalation.json")["task_id"] == "CC-1"
    require(space.run(CB), 0)
    require(space.run(DONE), 0)
    assert space.task("CC", "CC-1")["status"] == "completed"
    assert [name for name in space.snapshot() if name.endswith(".stage")] == []


def _remove_agent(space: Workspace) -> None:
    shutil.rmtree(space.path("postbox/CC"))


def _remove_outbox(space: Workspace) -> None:
    space.path(OUTBOX).unlink()


def _remove_progress(space: Workspace) -> None:
    space.path(PROGRESS).unlink()


def _remove_sprint(space: Workspace) -> None:
    shutil.rmtree(space.path(".sprint"))


def _garbage(space: Workspace) -> None:
    space.path(OUTBOX).write_text('{"tasks": [')


def _a_folder(space: Workspace) -> None:
    space.path(OUTBOX).unlink()
    space.path(OUTBOX).mkdir()


@pytest.mark.parametrize("step", ["journal-synced:1", "replaced:1", "replaced:3"])
@pytest.mark.parametrize("harm", [_remove_agent, _remove_outbox, _remove_progress, _remove_sprint, _garbage, _a_folder])
def test_whatever_somebody_does_to_the_files_the_workspace_is_never_wedged(
    step: str, harm: Callable[[Workspace], None], space: Workspace
) -> None:
    """Row 14, section 4: crash, then somebody removes or damages what the record names: other agents go on."""
    crash(space, DONE, step)
    harm(space)
    require(space.run(CB), 0)
    assert space.task("CB", "CB-1")["status"] == "completed"
    require(space.run(("recover",)), 0)
    require(space.run(("complete", "CA", "CA-1", "m")), 0)


# --- ABORT


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_replace_that_fails_for_good_undoes_the_change(number: int, space: Workspace) -> None:
    """Row 14: 74 and all files old to the byte, the backup kept for people; a healthy retry does it once."""
    old = space.data()
    done = require(space.run(DONE, fault=f"replace:{number}=EIO", RECOVERY_MAX_ATTEMPTS="1"), 74)
    assert "the previous state stands" in done.err, str(done)
    assert {name: data for name, data in space.data().items() if ".backup_" not in name} == old
    assert space.changes() == []
    require(space.run(DONE), 0)
    require_completed(space, "CC-1")
    require_no_op(space, DONE)
    assert strays(space) == []
    require_tidy(space)


@pytest.mark.parametrize("fault", ["replace:2=EIO", "replace:3=ENOSPC"])
@pytest.mark.parametrize("following", [DONE, OTHER, ("recover",)], ids=["same", "other", "recover"])
def test_killed_at_any_step_of_an_abort_nothing_is_half_done(
    fault: str, following: Command, fresh: Callable[[], Workspace], failures: Failures
) -> None:
    """Rows 6, 14: a replace fails, the command is killed somewhere on its way back, the next one makes it whole."""
    space = fresh()
    listing = space.root.with_name("abort.steps")
    space.run(DONE, fault=f"*=list={listing},{fault}", RECOVERY_MAX_ATTEMPTS="1")
    steps = listing.read_text().split()
    steps = steps[steps.index("abort-sync:1") :]  # before this the direction may still be REDO: then it is finished
    assert "restore:1" in steps
    for step in steps if FULL else steps[::2]:
        with failures.at(f"{fault}, killed at {step}"):
            space = fresh()
            require(space.run(DONE, fault=f"{fault},{step}=kill-group", RECOVERY_MAX_ATTEMPTS="1"), KILLED)
            require(space.run(following), 0)
            others = ["CC-2"] if following == OTHER else []
            require_completed(space, *(["CC-1"] if following == DONE else []), *others)
            require(space.run(DONE), 0)
            require_completed(space, "CC-1", *others)
            kept = "backup_CC-1.1" if others else "no other"  # the undone try's backup, which OTHER made differ
            assert [name for name in strays(space) if not name.endswith(kept)] == []
            require_tidy(space)


def park(space: Workspace) -> None:
    """A replace fails, and so does the restore of what was replaced before it."""
    done = space.run(DONE, fault="replace:2=EIO,restore:1=EIO", RECOVERY_MAX_ATTEMPTS="1")
    require(done, 70)
    assert "data/conflicts" in done.err, str(done)


def test_what_can_be_neither_finished_nor_undone_is_parked_and_undone_later(space: Workspace) -> None:
    """Section 4: 70; the task answers 70, all others go on, until `recovery recover` has undone it."""
    old = space.data()
    park(space)
    assert len(list(space.root.glob("data/conflicts/CC@CC-1@*.parked.json"))) == 1
    require(space.run(DONE), 70)
    require(space.run(("rollback", "CC", "CC-1")), 70)
    require(space.run(CB), 0)
    require(space.run(OTHER), 0)
    require(space.run(("recover",)), 0)
    assert "nothing to recover" in require(space.run(("recover",)), 0).out
    require_completed(space, "CB-1", "CC-2")
    require(space.run(DONE), 0)
    require_completed(space, "CC-1", "CC-2", "CB-1")
    assert old.keys() <= space.data().keys()
    assert [name for name in space.snapshot() if name.endswith(".stage")] == []


def test_killed_while_parking_or_unparking_nothing_is_forgotten(
    fresh: Callable[[], Workspace], failures: Failures
) -> None:
    """Section 4: the record is kept before the journal forgets it; `recover`, killed anywhere, may be repeated."""
    space = fresh()
    listing = space.root.with_name("park.steps")
    space.run(DONE, fault=f"*=list={listing},replace:2=EIO,restore:1=EIO", RECOVERY_MAX_ATTEMPTS="1")
    steps = listing.read_text().split()
    for step in steps[steps.index("restore:1") + 1 :: 1 if FULL else 2]:
        with failures.at(f"killed at {step} while parking"):
            space = fresh()
            space.run(DONE, fault=f"replace:2=EIO,restore:1=EIO,{step}=kill-group", RECOVERY_MAX_ATTEMPTS="1")
            require(space.run(("recover",)), 0)
            require_completed(space)
            require(space.run(DONE), 0)
            require_completed(space, "CC-1")
            assert [name for name in space.snapshot() if name.endswith(".stage")] == []
    space = fresh()
    park(space)
    for step in space.steps(("recover",))[:: 1 if FULL else 2]:
        with failures.at(f"killed at {step} while unparking"):
            space = fresh()
            park(space)
            require(space.run(("recover",), fault=f"{step}=kill-group"), KILLED)
            require(space.run(("recover",)), 0)
            require_completed(space)
            require(space.run(DONE), 0)
            require_completed(space, "CC-1")
            assert [name for name in space.snapshot() if name.endswith(".stage")] == []


def test_a_resolver_killed_at_any_step_of_a_conflict_keeps_one_conflict(
    fresh: Callable[[], Workspace], failures: Failures
) -> None:
    """Row 6, section 4: crash, conflict, the resolver killed: one edit set aside, one escalation, the value stays."""

    def conflict() -> Workspace:
        space = fresh()
        crash(space, DONE, "replaced:2")
        edit(space.path(OUTBOX), _fail_it)
        return space

    steps = conflict().steps(OTHER)
    for step in steps if FULL else steps[::3]:
        with failures.at(f"resolver killed at {step}"):
            space = conflict()
            require(space.run(OTHER, fault=f"{step}=kill-group"), KILLED)
            require(space.run(OTHER), 0)
            assert space.task("CC", "CC-1")["status"] == "failed"
            assert space.listed("CC-1")["status"] == "pending"
            assert space.progress()["completed"] == 1
            assert len(list(space.root.glob("data/conflicts/*"))) == 1, "more than one edit was set aside"
            assert len(list(space.root.glob("logs/recovery/CC-1_escalation*"))) == 1
            assert [name for name in space.snapshot() if name.endswith(".stage")] == []


def test_states_are_compared_whole(space: Workspace) -> None:
    """The check itself can fail: a workspace isn't in the state of another one with one more task done."""
    before = State.of(space)
    require(space.run(DONE), 0)
    with pytest.raises(AssertionError, match="stray file"):
        require_state(space, before)
