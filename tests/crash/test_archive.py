"""Killed at any step of archiving or restoring, every task is in one place, and the next command makes it whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recovery import archived
from recovery.session import Session
from support import programs
from support.promise import Failures, require
from support.workspace import FULL, Command, Workspace

OLD = "2025-06-01T00:00:00Z"
ARCHIVE: Command = ("archive", "CC", "--older-than", "30d")
RESTORE: Command = ("archive", "--restore", "CC", "CC-1")
GONE = ("CC-1", "CC-3")
KILLED = -9


def prepared(root: Path) -> Workspace:
    """CC-1 and CC-3 were completed long ago, CC-2 a moment ago."""
    space = Workspace.make(root)
    path = space.path("postbox/CC/outbox.json")
    for n in (1, 2, 3):
        require(space.fork(("complete", "CC", f"CC-{n}", "done")), 0)
    body = json.loads(path.read_text())
    for task in body["tasks"]:
        if task["task_id"] in GONE:
            task["completed_at"] = OLD
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
    space.path("postbox/CC/inbox").mkdir()
    space.path("postbox/CC/inbox/CC-1.md").write_text("# CC-1\n")
    return space


def tasks(space: Workspace) -> list[str]:
    return [task["task_id"] for task in json.loads(space.path("postbox/CC/outbox.json").read_text())["tasks"]]


def lines(space: Workspace) -> list[dict[str, Any]]:
    path = space.path("postbox/CC/archive/2025-06.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def places(space: Workspace) -> dict[str, tuple[bool, bool]]:
    """Of each task whether it is in the outbox, and whether in the archive."""
    there = tasks(space)
    with Session(space.root).store() as store:
        return {task: (task in there, archived.find(store, "CC", task) is not None) for task in (*GONE, "CC-2", "CC-4")}


def counters(space: Workspace) -> tuple[int, int]:
    body = json.loads(space.path(".sprint/progress.json").read_text())
    return body["total_tasks"], body["completed"]


def require_archived(space: Workspace) -> None:
    assert tasks(space) == ["CC-2", "CC-4"]
    assert sorted(line["task_id"] for line in lines(space)) == sorted(GONE), "each once"
    assert not space.path("postbox/CC/completed/CC-1_completion.json").exists()
    assert not space.path("postbox/CC/inbox/CC-1.md").exists()
    assert space.path("postbox/CC/completed/CC-2_completion.json").exists()
    listed = json.loads(space.path(".sprint/progress.json").read_text())["tasks"]
    assert not set(GONE) & set(listed)
    assert counters(space) == (12, 3)
    assert programs.strays(space.root) == []


def require_restored(space: Workspace) -> None:
    assert sorted(tasks(space)) == ["CC-1", "CC-2", "CC-4"]
    assert [line["task_id"] for line in lines(space) if "restored_at" in line] == ["CC-1"]
    assert space.path("postbox/CC/inbox/CC-1.md").read_text() == "# CC-1\n"
    assert space.path("postbox/CC/completed/CC-1_completion.json").exists()
    assert counters(space) == (12, 3)
    assert programs.strays(space.root) == []


Check = Callable[[Workspace], None]
CASES = [(ARCHIVE, (), require_archived), (RESTORE, (ARCHIVE,), require_restored)]


@pytest.mark.parametrize(("command", "before", "check"), CASES, ids=["archive", "restore"])
def test_killed_at_any_step_the_same_command_finishes_it_with_one_effect(
    command: Command, before: tuple[Command, ...], check: Check, tmp_path: Path, failures: Failures
) -> None:
    template = prepared(tmp_path / "template")
    for one in before:
        require(template.fork(one), 0)
    counting = template.copy(tmp_path / "counting")
    listing = tmp_path / "steps"
    require(counting.fork(command, fault=f"*=list={listing}"), 0)
    check(counting)
    skipped = ("lock:", "locked:", "unlock:", "begin:")
    steps = [step for step in listing.read_text().split() if not step.startswith(skipped)]
    assert any(step.startswith("appended") for step in steps)
    for n, step in enumerate(steps if FULL else steps[::3]):
        space = template.copy(tmp_path / f"ws-{n}")
        with failures.at(step):
            require(space.fork(command, fault=f"{step}=kill"), KILLED)
            if n % 2:
                require(space.fork(("recover",)), 0)
                found = places(space)
                assert all(sum(where) >= 1 for where in found.values()), f"a task is nowhere: {found}"
                assert found["CC-2"] == found["CC-4"] == (True, False)
            require(space.fork(command), 0)
            check(space)
            again = require(space.fork(command), 0)
            assert "nothing" in again.out, f"twice: {again}"
            check(space)
        space.remove()


def test_what_was_archived_or_restored_is_rolled_back_as_a_whole(tmp_path: Path) -> None:
    space = prepared(tmp_path / "ws")
    before = space.path("postbox/CC/outbox.json").read_bytes(), space.path(".sprint/progress.json").read_text()
    require(space.fork(ARCHIVE), 0)
    name = str(lines(space)[0]["txid"]).rpartition("-")[0]
    require(space.fork(("rollback", "CC", f"archive-{name}")), 0)
    assert space.path("postbox/CC/outbox.json").read_bytes() == before[0]
    assert json.loads(space.path(".sprint/progress.json").read_text())["tasks"] == json.loads(before[1])["tasks"]
    assert places(space) == dict.fromkeys((*GONE, "CC-2", "CC-4"), (True, False))
    require(space.fork(ARCHIVE), 0)
    assert places(space)["CC-1"] == (False, True)
    require(space.fork(RESTORE), 0)
    require(space.fork(("rollback", "CC", "CC-1")), 0)
    assert places(space)["CC-1"] == (False, True)
    assert "(archived)" in require(space.fork(("complete", "CC", "CC-1", "again")), 0).out
