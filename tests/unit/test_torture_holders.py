"""The trials of locks and of other people: each holds for the suite as it is, and fails for a suite that is broken."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from recovery import commit, contention, durable, finish, flock, jsontext, locks, processes, store, swap
from recovery.errors import LockTimeout
from recovery.torture import holders, scratch
from recovery.torture.operations import Benches
from recovery.torture.runner import warm_up
from support.meeting import children

warm_up()


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Benches:
    """With the states that trials compare with made beforehand: by the suite as it is, not by a broken one."""
    made = Benches(tmp_path_factory.mktemp("holders"))
    for bench in (made.of(op) for op in made.operations if op.other is not None):
        command, other = bench.operation.command, bench.operation.other
        assert other is not None
        assert bench.steps()
        for commands in ((command,), (command, other)):
            bench.after(*commands)
        if command[0] == "complete":
            for commands in ((other,), (other, command), (holders.CB,), (holders.CB, command)):
                bench.after(*commands)
    return made


@pytest.fixture(autouse=True)
def nothing_left(benches: Benches) -> Iterator[None]:
    """Whatever became of a trial: of its workspaces and of its processes nothing is left."""
    before = children()
    yield
    assert [name for name in os.listdir(benches.folder) if "-template" not in name] == []
    assert children() <= before


#: How a trial says that a holder was robbed.
ROBBED = "expected exit 75, got|ended before it got there|busy changed something|is not named"
#: Trials that wait for a time-out.
SLOW = ("programs and shell", "frozen holder", "unlinked while waiting", "endless holder", "lock folders", "namespaces")


def run(benches: Benches, trial: str, seeds: range) -> None:
    for seed in seeds:
        try:
            holders.TRIALS[trial](benches, Random(seed))
        except scratch.Unable as why:
            pytest.skip(str(why))


def require_violation(
    benches: Benches, monkeypatch: pytest.MonkeyPatch, trial: str, match: str, seeds: int = 12
) -> None:
    """With the suite broken, as it is now, one of some seeds fails for that reason; mended, that seed holds."""
    found = ""
    for seed in range(seeds):
        try:
            run(benches, trial, range(seed, seed + 1))
        except scratch.Violation as error:
            found = str(error)
            break
    assert re.search(match, found), found or f"{trial} holds for a broken suite"
    monkeypatch.undo()
    run(benches, trial, range(seed, seed + 1))


# --- they hold


@pytest.mark.parametrize("trial", holders.TRIALS)
def test_the_suite_stands_the_trial(trial: str, benches: Benches) -> None:
    """Each trial, with a few seeds; it says what it does."""
    benches.doing = ""
    run(benches, trial, range(100, 102 if trial in SLOW else 104))
    assert benches.doing


def test_a_seed_gives_the_same_trial_again(benches: Benches) -> None:
    """What a trial does follows from its seed alone, so that what failed can be looked at."""
    said = []
    for _ in range(2):
        for seed in range(3):
            holders.TRIALS["linked lock"](benches, Random(seed))
            said.append(benches.doing)
    assert said[:3] == said[3:]
    assert len(set(said)) > 1


# --- they can fail


def test_a_suite_that_breaks_old_locks_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock file of years ago is taken for one whose holder is gone."""
    honest = flock.try_lock

    def impatient(held: flock.HeldLock) -> bool:
        return honest(held) or os.fstat(held.fd).st_mtime < time.time() - 3600

    monkeypatch.setattr(flock, "try_lock", impatient)
    require_violation(benches, monkeypatch, "frozen holder", ROBBED)


def test_a_suite_that_does_not_say_who_holds_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of a busy lock names its holder."""
    monkeypatch.setattr(contention, "holder", lambda fd: "somebody")
    require_violation(benches, monkeypatch, "frozen holder", "named")


@pytest.mark.parametrize("name", [holders.OUTBOX_LOCK, holders.PROGRESS_LOCK, holders.COMMIT_LOCK])
def test_a_holder_that_does_not_look_at_a_lock_again_is_found(
    name: str, benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock file is gone, somebody else has walked in, and the holder commits."""
    honest = flock.HeldLock.is_current

    def believes(held: flock.HeldLock) -> bool:
        return honest(held) or held.name == name

    monkeypatch.setattr(flock.HeldLock, "is_current", believes)
    require_violation(benches, monkeypatch, "unlinked lock", "expected exit 75, got|differs", 24)


def _open_whatever_is_there(folder: int | None, base: str, name: str, mode: int, gid: int) -> tuple[int, bool]:
    return os.open(base, os.O_RDWR | os.O_CREAT, 0o600, dir_fd=folder), True


def test_a_waiter_that_takes_a_nameless_lock_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited for a lock file that is gone by now holds nothing."""
    monkeypatch.setattr(flock.HeldLock, "is_current", lambda self: True)
    require_violation(benches, monkeypatch, "unlinked while waiting", "expected exit 75, got")


def test_a_program_whose_lock_the_shell_does_not_see_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "kernel_flock", fcntl.lockf)
    require_violation(benches, monkeypatch, "programs and shell", "two hold|expected exit 75, got")


def test_a_program_that_has_lost_its_lock_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would have, were the lock its child's to give back (see tests/mutations for that)."""
    monkeypatch.setattr(holders, "_PROGRAM", "import sys; print('held', flush=True); sys.stdin.read()")
    require_violation(benches, monkeypatch, "programs and shell", "two hold")


def test_a_suite_that_follows_a_lock_that_is_a_link_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens whatever the link names, and writes its note there."""

    def break_it() -> None:
        monkeypatch.setattr(flock, "_open", _open_whatever_is_there)
        monkeypatch.setattr(flock.HeldLock, "is_current", lambda self: True)

    break_it()
    require_violation(benches, monkeypatch, "linked lock", "expected exit 69, got|why it was refused is not said")


def test_a_victim_that_was_touched_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, but only after the file behind the link was touched."""

    def touch_and_refuse(folder: int | None, base: str, name: str, mode: int, gid: int) -> tuple[int, bool]:
        os.utime(base, dir_fd=folder)
        return honest(folder, base, name, mode, gid)

    honest = flock._open

    def tolerant(*args: Any) -> tuple[int, bool]:
        try:
            return touch_and_refuse(*args)
        except FileNotFoundError:
            return honest(*args)

    monkeypatch.setattr(flock, "_open", tolerant)
    require_violation(benches, monkeypatch, "linked lock", "names was touched")


def test_a_suite_that_goes_on_without_the_lock_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody holds it for ever, and the command does its work nevertheless."""

    def robs(held: flock.HeldLock) -> bool:
        honest(held)
        return True

    honest = flock.try_lock
    monkeypatch.setattr(flock, "try_lock", robs)
    require_violation(benches, monkeypatch, "endless holder", ROBBED)


def test_a_timeout_that_names_no_lock_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """75, but which lock it was can't be told from the message."""

    def mute(held: flock.HeldLock, began: float, patience: float, limits: flock.Limits) -> None:
        raise LockTimeout("busy")

    monkeypatch.setattr(contention, "wait", mute)
    require_violation(benches, monkeypatch, "endless holder", "is not named")


def test_a_suite_that_waits_for_itself_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "has_open", lambda *_, **__: False)
    require_violation(benches, monkeypatch, "held by the parent", "waited for its own parent")


def test_a_suite_that_trusts_the_documented_locks_alone_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock beside the data: two who don't share the lock folder don't exclude each other."""

    def none(self: store.FileStore, *_: object, **__: object) -> None:
        pass

    def break_it() -> None:
        monkeypatch.setattr(store.FileStore, "take_locks", none)

    break_it()
    require_violation(benches, monkeypatch, "lock folders", ROBBED)


def test_a_suite_that_robs_a_holder_in_a_container_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pid in the note is nobody here, so its lock is taken for free."""

    def break_it() -> None:
        honest = flock.try_lock

        def doubts(held: flock.HeldLock) -> bool:
            if honest(held):
                return True
            note = flock.read_note(held.fd) or {}
            return bool(note.get("namespace") != flock.identity()["namespace"])

        monkeypatch.setattr(flock, "try_lock", doubts)

    break_it()
    require_violation(benches, monkeypatch, "namespaces", ROBBED)


def test_a_suite_that_replaces_what_it_has_not_read_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer's change, made before the replace, is overwritten."""

    def blindly(target: store.FileStore, file: dict[str, Any], own: bool) -> None:
        place = target.root.place(file["name"], create=file["state"] is None)
        os.rename(file["stage"], place.base, src_dir_fd=place.folder, dst_dir_fd=place.folder)

    def break_it() -> None:
        monkeypatch.setattr(commit, "_is_unchanged", lambda place, before: True)
        monkeypatch.setattr(finish, "_replace", blindly)

    break_it()
    require_violation(benches, monkeypatch, "unlocked writer", "the other writer's change of .* is lost|ended before")


@pytest.mark.parametrize("module", [commit, swap])
def test_a_single_file_that_is_replaced_without_another_look_is_found(
    module: Any, benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module is commit:
        monkeypatch.setattr(commit, "_is_unchanged", lambda place, before: True)
    else:
        monkeypatch.setattr(swap, "durable", Blind())
    require_violation(benches, monkeypatch, "unlocked writer of one file", "is not|expected exit 65, got")


class Blind:
    """A `durable` that sees what was there at first."""

    def __getattr__(self, name: str) -> Any:
        if name != "current_hash":
            return getattr(durable, name)
        return lambda place: (durable.digest_of(b'{\n  "value": "old"\n}\n'), None)


def test_a_suite_that_does_not_read_back_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old state was put back over ours, and the command says that all is well."""

    def without(target: store.FileStore, files: object) -> bool:
        honest(target, [])
        return False

    honest = finish._verify_fails
    seeds = range(8)
    run(benches, "unlocked writer", seeds)
    monkeypatch.setattr(finish, "_verify_fails", without)
    found = []
    for seed in seeds:
        try:
            holders.TRIALS["unlocked writer"](benches, Random(seed))
        except scratch.Violation as error:
            found.append(str(error))
    assert any("differs" in text or "missing file" in text for text in found), found


def test_a_suite_that_does_again_what_a_person_took_back_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not look whether the old state it finds is the one it knew."""

    def break_it() -> None:
        honest = finish._replace
        monkeypatch.setattr(finish, "_replace", lambda target, file, own: honest(target, file, True))

    break_it()
    require_violation(benches, monkeypatch, "restored by a person", "differs|stray file|expected exit 65, got")


# --- the scripts: a broken one in front of the real one


def put_in_front(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "bin").mkdir()
    for name in scratch._SCRIPTS.values():
        path = folder / "bin" / name
        path.write_text(script.replace("REAL", str(scratch.SUITE / "bin" / name)))
        path.chmod(0o755)
    front = folder / "bin/recovery"
    front.write_text(f'#!/bin/bash\nexec "{scratch.SUITE}/bin/recovery" "$@"\n')
    front.chmod(0o755)
    monkeypatch.setattr(scratch.Workspace, "suite", folder)


@pytest.mark.parametrize(
    ("script", "match"),
    [
        (
            '#!/bin/bash\neval "x=\\"$3\\"" 2>/dev/null\nexec "REAL" "$@"\n',
            "stray file PWNED|was run|changed something",
        ),
        ('#!/bin/bash\nset -- "${@//$\'\\n\'/ }"\nexec "REAL" "$@"\n', "became|expected exit 64"),
        ('#!/bin/bash\nset -- "${@//\\"/\\\'}"\nexec "REAL" "$@"\n', "became"),
        ("#!/bin/bash\nexit 0\n", "expected exit 64, got"),
        ('#!/bin/bash\n"REAL" "$@" && exit\necho >>"$ORCHESTRATION_ROOT/shared.json"; exit 64\n', "changed something"),
    ],
    ids=["evaluates", "joins-lines", "changes-quotes", "takes-any-id", "writes-and-refuses"],
)
def test_scripts_that_do_not_keep_text_as_it_is_are_found(
    script: str, match: str, benches: Benches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that is evaluated or rewritten, an id that is not refused, a refusal that leaves something behind."""
    put_in_front(tmp_path, monkeypatch, script)
    with pytest.raises(scratch.Violation, match=match):
        run(benches, "hostile input", range(40))


# --- what differs


def _again_as_json(work: commit._Work, edit: commit.Edit) -> list[bytes]:
    data = b"".join(honest_bytes(work, edit))
    return [json.dumps(json.loads(data), indent=2, ensure_ascii=False).encode()] if edit.ops is not None else [data]


honest_bytes = commit._Work._bytes


def test_a_suite_that_believes_every_name_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_require_inside", lambda name, base: None)
    require_violation(benches, monkeypatch, "forged note", "outside of the workspace")


def test_a_suite_that_takes_the_first_of_two_documents_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = jsontext.document

    def first(text: str) -> Any:
        return honest(text[: text.find("\n}") + 2] if text.count("\n}") == 2 else text)

    monkeypatch.setattr(jsontext, "document", first)
    require_violation(benches, monkeypatch, "damaged outbox", "expected exit 65, got")


def test_a_suite_that_lays_files_out_anew_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of it leaves the same bytes, so only the text that it was given tells."""
    monkeypatch.setattr(commit._Work, "_bytes", _again_as_json)
    require_violation(benches, monkeypatch, "nothing else", "lines taken out|took lines out|did not bring back")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"title": "Work 2 of CC"', b'"title": "Work 2"'),
        (b'"version": "1.0.0"', b'"version": "1.0.1"'),
        (b"12345678901234567890,   0.1", b"12345678901234567000,   0.1"),
        (b'"completed": 1', b'"completed": 2'),
    ],
    ids=["another-task", "a-field-of-the-outbox", "a-big-number", "the-counter"],
)
def test_a_suite_that_changes_more_than_its_task_is_found(
    old: bytes, new: bytes, benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so each time: an unhurt run of the same code would not show it."""

    def break_it() -> None:
        def more(work: commit._Work, edit: commit.Edit) -> list[bytes]:
            return [b"".join(honest_bytes(work, edit)).replace(old, new)]

        monkeypatch.setattr(commit._Work, "_bytes", more)

    break_it()
    require_violation(benches, monkeypatch, "nothing else", "lines taken out|took lines out|did not bring back")
