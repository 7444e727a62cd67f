"""The trials of failing calls: each holds for the suite as it is, and fails for a suite that is broken."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from recovery import durable, errors, finish, helper, journal, jsonl, say
from recovery.torture import errors as trials
from recovery.torture import scratch, smalldisk, syscalls
from recovery.torture.invariants import State, require, require_tidy
from recovery.torture.operations import RECOVER, Benches
from recovery.torture.runner import warm_up
from recovery.torture.scratch import Done, Forked, Unable, Violation
from support.meeting import children

warm_up()


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Benches:
    return Benches(tmp_path_factory.mktemp("errors"))


@pytest.fixture(autouse=True)
def nothing_left(benches: Benches) -> Iterator[None]:
    """Whatever became of a trial: of its workspaces, mounts and processes nothing is left."""
    mounts, before = _mounts(), children()
    yield
    assert [name for name in os.listdir(benches.folder) if "-template" not in name] == []
    assert _mounts() == mounts
    assert children() <= before


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


class Picks(Random):
    """Chooses the first of `wanted` that can be had, by itself or by its name; numbers are `number`."""

    def __init__(self, *wanted: object, number: int = 1, share: float = 0.9) -> None:
        super().__init__(1)
        self.wanted, self.number, self.share = wanted, number, share

    def choice(self, seq: Any) -> Any:
        for want in self.wanted:
            for item in seq:
                if want == item or want == getattr(item, "name", None):
                    return item
        return super().choice(seq)

    def random(self) -> float:
        return self.share

    def randint(self, a: int, b: int) -> int:
        return self.number

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return self.number


def run(benches: Benches, trial: str, random: Random) -> None:
    try:
        trials.TRIALS[trial](benches, random)
    except Unable as why:
        pytest.skip(str(why))


def require_violation(benches: Benches, trial: str, random: Picks, break_it: Callable[[], object], match: str) -> None:
    """Unhurt, the trial holds; then `break_it`, and it doesn't, for that reason."""
    run(benches, trial, random)
    break_it()
    with pytest.raises(Violation, match=match):
        run(benches, trial, random)


# --- they hold


@pytest.mark.parametrize("trial", trials.TRIALS)
def test_the_suite_keeps_its_promise_in_each_trial(benches: Benches, trial: str) -> None:
    """A few seeds each; the trial says what it did."""
    for seed in range(3):
        benches.doing = ""
        run(benches, trial, Random(f"{trial} {seed}"))
        assert benches.doing


@pytest.mark.parametrize("operation", ["create_checkpoint", "log_append"])
def test_a_log_line_that_may_be_lost_is_unconfirmed_and_not_refused(benches: Benches, operation: str) -> None:
    """The line is written, its sync fails: 71, for "the previous state stands" would be untrue."""
    for error in trials.ERRORS:
        run(benches, "step error", Picks(operation, "appended:1", error))
    run(benches, "call error", Picks(operation, "fdatasync", "EIO"))


def test_a_log_line_that_a_sweep_had_no_room_for_is_said_and_written_later(benches: Benches) -> None:
    """The sweep stands; the line that follows from it is said to be left out, and `recovery recover` writes it."""
    for error in trials.ERRORS:
        run(benches, "step error", Picks("sweep", "appended:2", error))
    with benches.named("sweep-object").fresh() as space:
        done = space.fork(("sweep",), fault="appended:2=ENOSPC")
        assert "`recovery recover` writes it later" in require(done, 0).err
        require(space.fork(RECOVER), 0)
        require_tidy(space)


def test_an_undo_that_is_not_confirmed_is_not_undone_by_its_repeat(benches: Benches) -> None:
    """71: whether it was done isn't known here; named by its number it may be repeated, however often."""
    for step in ("folder-sync:1", "done-sync:1", "append-synced:1"):
        run(benches, "step error", Picks("undo", step, "EIO"))


def test_a_claim_whose_brief_can_not_be_looked_for_is_a_claim(benches: Benches) -> None:
    """What is only told besides must not make a refusal of what was committed."""
    with benches.named("claim-object").fresh() as space:
        looks = syscalls.count_calls(space, ("claim", "CC", "CC-1"))["open"]
    for look in range(looks, looks - 6, -1):
        run(benches, "call error", Picks("claim", "open", "EIO", number=look))


def test_a_disk_that_can_not_tell_whether_there_is_a_workspace_has_not_said_no(benches: Benches) -> None:
    """The very first look fails: 74, not 66, and whoever locks files there doesn't take them for nobody's."""
    run(benches, "call error", Picks("resolve-abort-sync", "stat", "EIO", number=1))


def test_a_sweep_that_can_not_look_on_says_what_it_has_done(benches: Benches) -> None:
    """Its last look, for lock files of claims that are over, fails: the task was given back all the same."""
    with benches.named("sweep-object").fresh() as space:
        space.path("data/claims/CC").mkdir(parents=True)
        looks = syscalls.count_calls(space, ("sweep",))["listdir"]
    with benches.named("sweep-object").fresh() as space:
        space.path("data/claims/CC").mkdir(parents=True)

        def work() -> None:
            syscalls.break_call("listdir", looks, "EIO", False)
            space.become(("sweep",), **trials.ONCE)

        done = require(Forked(work, "sweep").finish(), 74)
        assert done.out.startswith("swept 1 task: CC/CC-1 ")
        assert space.task("CC", "CC-1")["status"] == "pending"


@pytest.mark.parametrize("operation", ["breaker", "roll-up"])
def test_a_file_that_can_not_be_synced_leaves_no_stage(benches: Benches, operation: str) -> None:
    """A single file's new bytes that don't get to the disk are taken away again at once."""
    run(benches, "step error", Picks(operation, "stage-synced:1", "EIO"))
    run(benches, "call error", Picks(operation, "fsync", "ENOSPC"))


def test_who_can_not_remove_a_dead_owners_backup_leaves_it_to_people(benches: Benches) -> None:
    """Nothing else may be left then."""
    again = ("rollback", "CC", "CC-1")
    run(benches, "step error in recovery", Picks("rollback", "done-synced:1", again, "backup-remove:1", "ENOSPC"))
    assert benches.doing == "rollback killed at done-synced:1, then ENOSPC at backup-remove:1 of rollback"


# --- they can fail


def lie(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A suite that says 0 whatever the disk said."""
    return lambda: monkeypatch.setattr(errors.StorageError, "code", 0)


def test_a_failed_step_that_is_called_a_success_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    picks = Picks("complete", "stage:2", "EIO")
    require_violation(benches, "step error", picks, lie(monkeypatch), "old, and the command says exit 0")


def test_a_failed_call_of_a_program_that_is_called_a_success_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    picks = Picks("file_transaction", "lock:2", "EIO")
    require_violation(benches, "step error", picks, lie(monkeypatch), "old, and the call says exit 0")


def test_a_refusal_without_a_word_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    def silence() -> None:
        monkeypatch.setattr(helper, "report_error", lambda error, as_json, whose="": None)
        monkeypatch.setattr(say, "tell", lambda text: None)

    require_violation(benches, "step error", Picks("assign", "stage:1", "EIO"), silence, "without a message")


def test_a_refusal_that_is_done_later_all_the_same_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that can't reach its commit point and leaves the record for the next one to carry out."""
    real = journal.Journal.mark_done

    def mark_done(self: journal.Journal, seq: int, txid: str) -> None:
        if sys._getframe(1).f_code.co_name != "write_journal":
            real(self, seq, txid)

    picks = Picks("complete", "journal-synced:1", "EIO")
    break_it = lambda: monkeypatch.setattr(journal.Journal, "mark_done", mark_done)  # noqa: E731
    require_violation(benches, "step error", picks, break_it, "done later all the same")


def test_a_resolver_that_forgets_what_it_could_not_do_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(store: Any, record: Any, files: Any, why: Any) -> Any:
        store.journal().mark_done(record.seq, record.txid)
        return why

    picks = Picks("complete", "journal-synced:1", "replace:2", RECOVER, "EIO")
    break_it = lambda: monkeypatch.setattr(finish, "_undo", forget)  # noqa: E731
    require_violation(benches, "step error in recovery", picks, break_it, "neither old as a whole")


def test_an_fsync_whose_error_is_passed_over_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    real = durable.Stage.sync

    def sync(self: durable.Stage) -> durable.Stage:
        try:
            return real(self)
        except OSError:
            return self

    break_it = lambda: monkeypatch.setattr(durable.Stage, "sync", sync)  # noqa: E731
    require_violation(benches, "call error", Picks("complete", "fsync", "EIO"), break_it, "got exit 0")


def test_a_write_cut_short_and_not_noticed_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log line of which a size limit lets a part through."""

    def append(fd: int, line: str) -> None:
        os.write(fd, line.encode() + b"\n")

    with benches.of(next(op for op in benches.operations if op.name == "log_append")).fresh() as space:
        size = space.path("logs/recovery/CB-1_recovery.jsonl").stat().st_size
    picks = Picks("log_append", 400, number=size + 20 - 400)
    break_it = lambda: monkeypatch.setattr(jsonl, "append", append)  # noqa: E731
    require_violation(benches, "size limit", picks, break_it, "old, and the call says exit 0")


@pytest.mark.parametrize("kind", ["blocks", "files"])
def test_a_full_disk_that_is_called_a_success_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    picks = Picks("complete", kind, number=2)
    require_violation(benches, "full disk", picks, lie(monkeypatch), "old, and the command says exit 0")


@pytest.mark.parametrize(("trial", "number"), [("system call", 1), ("size limit", 0)])
def test_a_script_that_calls_an_error_a_success_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trial: str, number: int
) -> None:
    """The scripts are processes of their own: here they are a copy's, whose code for an I/O error is 0."""
    for folder in ("bin", "lib", "py"):
        shutil.copytree(scratch.SUITE / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    table = tmp_path / "py/recovery/errors.py"
    table.write_text(table.read_text().replace("\nIO = 74\n", "\nIO = 0\n"))
    picks = Picks("complete", "renameat", "EIO", 0, number=number, share=0.2 if trial == "size limit" else 0.9)
    break_it = lambda: monkeypatch.setattr(scratch.Workspace, "suite", tmp_path)  # noqa: E731
    require_violation(benches, trial, picks, break_it, "old, and the command says exit 0")


def test_a_parked_record_that_nobody_kept_is_found(benches: Benches) -> None:
    bench = benches.of(benches.operations[0])
    with bench.fresh() as space, pytest.raises(Violation, match="no record is kept"):
        trials.require_honest(space, Done(70, "", "said"), bench.old, bench.new)


@pytest.mark.parametrize(("code", "is_new"), [(0, False), (74, True)])
def test_each_code_is_held_to_what_is_on_the_disk(benches: Benches, code: int, is_new: bool) -> None:
    bench = benches.of(benches.operations[0])
    with bench.fresh() as space:
        if is_new:
            assert space.fork(bench.operation.command).code == 0
        trials.require_honest(space, Done(71, "", "said"), bench.old, bench.new)
        with pytest.raises(Violation, match=f"the command says exit {code}"):
            trials.require_honest(space, Done(code, "", "said"), bench.old, bench.new)


def test_a_torn_file_is_found_whatever_the_code(benches: Benches) -> None:
    bench = benches.of(benches.operations[0])
    with bench.fresh() as space:
        path = space.path("postbox/CC/outbox.json")
        path.write_bytes(path.read_bytes()[:-40])
        for code in (0, 71, 74):
            with pytest.raises(Violation, match="neither old nor new"):
                trials.require_honest(space, Done(code, "", "said"), bench.old, bench.new)


def test_a_retry_with_two_effects_is_found(benches: Benches) -> None:
    """The change log says each change once, and the repeated command adds none."""
    bench = benches.of(benches.operations[0])
    twice = State(bench.new.data, bench.new.changes * 2)
    with bench.fresh() as space, pytest.raises(Violation, match="the change log says"):
        trials.require_retry(space, Done(74, "", "said"), bench.operation.command, twice, fork=True)


# --- what they stand on


def test_only_the_child_that_mounted_the_small_disk_sees_it(tmp_path: Path) -> None:
    """While it is mounted the folder is empty for everybody else, and no table of mounts but the child's names it."""
    down, up = os.pipe(), os.pipe()

    def work() -> None:
        smalldisk.mount(tmp_path)
        (tmp_path / "inside").touch()
        assert str(tmp_path) in Path("/proc/self/mountinfo").read_text()
        os.write(up[1], b".")
        os.read(down[0], 1)

    child = Forked(work, "mount")
    try:
        os.close(up[1])
        mounted = os.read(up[0], 1)
        seen = (os.listdir(tmp_path), [line for line in _mounts() if str(tmp_path) in line])
    finally:
        os.write(down[1], b".")
        done = child.finish()
        for fd in (*down, up[0]):
            os.close(fd)
    if not mounted and "no private mounts here" in done.err:
        pytest.skip(done.err)
    assert done.code == 0, done
    assert seen == ([], [])


def test_the_small_disk_has_as_much_room_as_was_asked_for(tmp_path: Path) -> None:
    """Blocks and files are counted to the last one, and room is made again."""

    def work() -> None:
        smalldisk.mount(tmp_path)
        before = os.statvfs(tmp_path)
        with smalldisk.filled(tmp_path, "blocks", 3):
            assert os.statvfs(tmp_path).f_bavail == 3
            with pytest.raises(OSError, match="No space left"):
                (tmp_path / "large").write_bytes(b"x" * 4 * 4096)
            (tmp_path / "large").unlink()
        with smalldisk.filled(tmp_path, "files", 1):
            (tmp_path / "last").touch()
            with pytest.raises(OSError, match="No space left"):
                (tmp_path / "too much").touch()
            (tmp_path / "last").unlink()
        assert os.statvfs(tmp_path) == before

    done = Forked(work, "fill").finish()
    if "no private mounts here" in done.err:
        pytest.skip(done.err)
    assert done.code == 0, done


def test_where_mounts_are_not_permitted_the_trial_says_so(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smalldisk, "_CLONE_NEWNS", 1)  # no flag of unshare(2): refused, whoever asks
    with pytest.raises(Unable, match="no private mounts here: unshare: Invalid argument; run it as root"):
        trials.full_disk(benches, Picks("complete"))


def test_where_strace_is_missing_the_trial_says_what_to_install(
    benches: Benches, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    syscalls.why_not.cache_clear()
    with pytest.raises(Unable, match="apt install strace"):
        trials.syscall(benches, Picks("complete"))
    fake = tmp_path / "strace"
    fake.write_text("#!/bin/sh\necho not permitted >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    syscalls.why_not.cache_clear()
    with pytest.raises(Unable, match=r"can't trace here: not permitted .*SYS_PTRACE"):
        trials.syscall(benches, Picks("complete"))
    syscalls.why_not.cache_clear()


def test_scripts_that_are_not_there_can_not_be_tried(
    benches: Benches, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scratch.Workspace, "suite", tmp_path)
    with pytest.raises(Unable, match="scripts"):
        trials.size_limit(benches, Picks("complete", share=0.2))


def test_the_nth_call_fails_once_or_for_ever() -> None:
    """`break_call` counts the calls of this process alone."""

    def work() -> None:
        fd = os.open(os.devnull, os.O_WRONLY)
        syscalls.break_call("write", 2, "EIO")
        syscalls.break_call("fsync", 1, "ENOSPC", forever=True)
        assert os.write(fd, b"1") == 1
        with pytest.raises(OSError, match="Input/output error"):
            os.write(fd, b"2")
        assert os.write(fd, b"3") == 1
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                os.fsync(fd)

    done = Forked(work, "count").finish()
    assert done.code == 0, done
