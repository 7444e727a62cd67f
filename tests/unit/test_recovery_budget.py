"""What the retry budget promises, tried with real processes, kills and clocks that jump."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import steps
from recovery.budget import DEFAULTS, SLOTS, RetryBudget, spend
from recovery.errors import UsageError
from recovery.flock import Limits
from recovery.session import Session
from recovery.store import FileStore

PY = str(Path(__file__).resolve().parents[2] / "py")
NOW = 1_800_000_000.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return workspace(tmp_path / "root")


def workspace(path: Path) -> Path:
    (path / "postbox").mkdir(parents=True)
    return path


@pytest.fixture
def store(root: Path) -> Iterator[FileStore]:
    opened = FileStore(str(root), Limits())
    yield opened
    opened.close()


def body(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "data/budget.json").read_text()))


def counted(root: Path) -> dict[str, int]:
    """Tries by task, as the file has them; the sum over all is what it says of all."""
    found = body(root)
    by_task = {task: sum(slots.values()) for task, slots in found["tasks"].items()}
    assert sum(by_task.values()) == sum(found["overall"].values())
    return by_task


def require_tidy(root: Path) -> None:
    names = {name for name in os.listdir(root / "data") if name != "config.json"}
    assert names <= {"budget.json", ".budget.json.lock", ".commit.lock", "journal"}, names
    with (root / "data/.budget.json.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def forked(work: Callable[[], object], fault: str = "") -> int:
    """Run `work` in a forked process, which ends by its result."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            if fault:
                steps.install({"RECOVERY_FAULT": fault})
            code = int(bool(work()))
        finally:
            os._exit(code)
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_tries_are_allowed_per_task_until_its_budget_is_used_and_then_refused_in_words(store: FileStore) -> None:
    limits = {"per_task": 2, "overall": 10}
    assert [spend(store, "CC-1", limits, NOW) for _ in range(2)] == [None, None]
    why = "task CC-1 has used 2 of 2 tries in the last 60 minutes; the next is free in 60 minutes"
    assert spend(store, "CC-1", limits, NOW) == why
    assert spend(store, "CC-2", limits, NOW) is None
    assert counted(Path(store.root.path)) == {"CC-1": 2, "CC-2": 1}
    assert store.told == []
    require_tidy(Path(store.root.path))


def test_all_tasks_together_have_a_budget_too(store: FileStore) -> None:
    limits = {"per_task": 2, "overall": 3, "window": 60}
    assert [spend(store, task, limits, NOW) is None for task in ("a", "b", "c", "d")] == [True, True, True, False]
    why = "all tasks together have used 3 of 3 tries in the last 60 seconds; the next is free in 60 seconds"
    assert spend(store, "d", limits, NOW) == why


def test_eight_processes_at_once_never_exceed_the_budget_and_lose_no_try(root: Path) -> None:
    def work() -> int:
        os.read(reader, 1)
        budget = RetryBudget(15, 50, session=Session(root), clock=lambda: NOW)
        won = [budget.spend(f"T-{n % 5}") for n in range(10)]
        os.write(results, bytes([sum(won)]))
        return 0

    reader, writer = os.pipe()
    collected, results = os.pipe()
    pids = []
    for _ in range(8):
        pid = os.fork()
        if not pid:
            try:
                os.close(writer)
                os._exit(work())
            finally:
                os._exit(99)
        pids.append(pid)
    os.close(reader)
    os.close(writer)  # all begin
    assert [ended(pid) for pid in pids] == [0] * 8
    won = os.read(collected, 100)
    for fd in (collected, results):
        os.close(fd)
    assert len(won) == 8
    assert sum(won) == 50, "80 were wanted: the budget, no more and no less"
    by_task = counted(root)
    assert sum(by_task.values()) == 50
    assert max(by_task.values()) <= 15
    require_tidy(root)


def test_the_window_slides_and_what_left_it_leaves_the_file(store: FileStore) -> None:
    root, limits = Path(store.root.path), {"per_task": 2, "overall": 10, "window": 600}
    assert spend(store, "a", limits, NOW) is None
    assert spend(store, "a", limits, NOW + 300) is None
    assert spend(store, "a", limits, NOW + 589) is not None
    assert spend(store, "a", limits, NOW + 600) is None
    assert spend(store, "a", limits, NOW + 601) is not None
    assert counted(root) == {"a": 2}
    assert spend(store, "b", limits, NOW + 5000) is None
    assert counted(root) == {"b": 1}, "a task without a live slot goes"


def test_no_stretch_of_a_window_less_a_slot_ever_sees_more_than_the_budget(store: FileStore) -> None:
    limits = {"per_task": 5, "overall": 100, "window": 60}
    allowed = [t for t in range(0, 300) if spend(store, "a", limits, NOW + t * 0.7) is None]
    for begin in allowed:
        assert sum(1 for t in allowed if begin <= t and (t - begin) * 0.7 < 59) <= 5
    assert len(allowed) >= 5 * 3


def test_a_clock_set_back_gives_no_free_tries_and_locks_nobody_out_for_more_than_a_window(store: FileStore) -> None:
    limits = {"per_task": 2, "overall": 10, "window": 600}
    assert [spend(store, "a", limits, NOW) for _ in range(2)] == [None, None]
    back = NOW - 36000
    assert spend(store, "a", limits, back) is not None
    assert spend(store, "a", limits, back + 589) is not None
    assert spend(store, "a", limits, back + 600) is None
    assert counted(Path(store.root.path)) == {"a": 1}


def test_a_clock_set_forward_and_back_again_is_no_lock_out(store: FileStore) -> None:
    limits = {"per_task": 2, "overall": 10, "window": 600}
    assert [spend(store, "a", limits, NOW + 10**9) for _ in range(2)] == [None, None]
    assert spend(store, "a", limits, NOW) is not None
    assert spend(store, "a", limits, NOW + 600) is None


def test_a_kill_at_any_step_counts_once_or_not_at_all_and_gives_no_try_away(tmp_path: Path) -> None:
    limits = {"per_task": 3, "overall": 10}

    def work(root: Path) -> bool:
        store = FileStore(str(root), Limits())
        return spend(store, "a", limits, NOW) is not None or bool(store.told)

    listing = tmp_path / "steps"
    assert ended(forked(lambda: work(workspace(tmp_path / "unhurt")), f"*=list={listing}")) == 0
    met = listing.read_text().split()
    assert {"lock:1", "stage:1", "put:1", "put-renamed:1"} <= set(met)
    for n, step in enumerate(met, 1):
        root = workspace(tmp_path / f"root{n}")
        assert ended(forked(lambda root=root: work(root), f"{step}=kill")) == -signal.SIGKILL, step  # type: ignore[misc]
        was_counted = met.index("put-renamed:1") < n
        assert (root / "data/budget.json").exists() == was_counted, step
        store = FileStore(str(root), Limits())
        more = [spend(store, "a", limits, NOW) is None for _ in range(3)]
        assert more == [True, True, not was_counted], step
        assert counted(root) == {"a": 3}
        assert store.told == []
        store.close()
        require_tidy(root)


def test_limits_come_from_arguments_then_the_config_then_the_defaults(root: Path) -> None:
    (root / "data").mkdir()
    config = {"format": 1, "retry_budget": {"per_task": 4, "overall": 7}}
    (root / "data/config.json").write_text(json.dumps(config))
    budget = RetryBudget(overall=5, session=Session(root), clock=lambda: NOW)
    assert budget.left("a") == {"per_task": 4, "overall": 5, "window": DEFAULTS["window"], "next": 0.0}
    assert [budget.spend("a") for _ in range(5)] == [True] * 4 + [False]
    assert budget.left("a") == {"per_task": 0, "overall": 1, "window": 3600.0, "next": 3600.0}
    assert budget.explain("a").startswith("task a has used 4 of 4 tries")
    said = "task b has used 0 of 4 tries in the last 60 minutes, all tasks together 4 of 5"
    assert budget.explain("b") == said
    assert RetryBudget(per_task=0, session=Session(root)).left("a")["next"] is None
    assert not RetryBudget(per_task=0, session=Session(root)).spend("z")


def test_nonsense_in_the_config_is_told_and_passed_over_and_as_an_argument_refused(root: Path) -> None:
    (root / "data").mkdir()
    config = {"format": 1, "retry_budget": {"per_task": "many", "window": 0, "overal": 3, "overall": True}}
    (root / "data/config.json").write_text(json.dumps(config))
    store = FileStore(str(root), Limits())
    assert spend(store, "a", None, NOW) is None
    assert len(store.told) == 4
    store.close()
    for nonsense in ({"per_task": -1}, {"window": float("nan")}, {"overall": 1.5}):
        with pytest.raises(UsageError):
            RetryBudget(**nonsense, session=Session(root))


def test_a_budget_finds_its_workspace_by_path(root: Path) -> None:
    assert RetryBudget(per_task=1, base_path=str(root)).spend("a")
    assert not RetryBudget(per_task=1, session=Session(root)).spend("a")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"format": 1}',
        b"[" * 100000,
        b'{"format": 1, "slot": 60.0, "overall": {"x": 1}, "tasks": {}}',
        b'{"format": 1, "slot": 60.0, "overall": {"1": -9}, "tasks": {}}',
        b'{"format": 1, "slot": 60.0, "overall": {}, "tasks": []}',
    ],
)
def test_a_damaged_file_begins_anew_and_is_told(store: FileStore, root: Path, text: bytes) -> None:
    (root / "data").mkdir()
    (root / "data/budget.json").write_bytes(text)
    limits = {"per_task": 1}
    assert spend(store, "a", limits, NOW) is None
    assert len(store.told) == 1
    assert "begins anew" in store.told[0]
    assert spend(store, "a", limits, NOW) is not None
    assert counted(root) == {"a": 1}


def test_a_newer_file_is_left_alone_and_tries_are_allowed(store: FileStore, root: Path) -> None:
    (root / "data").mkdir()
    (root / "data/budget.json").write_text('{"format": 2}')
    assert spend(store, "a", {"per_task": 0}, NOW) is None
    assert "format 2" in store.told[0]
    assert (root / "data/budget.json").read_text() == '{"format": 2}'


@pytest.mark.parametrize("fault", ["stage=ENOSPC", "stage-written=EIO", "lock=EIO", "put=EROFS"])
def test_a_disk_that_cannot_be_written_allows_the_try_and_says_so(root: Path, fault: str) -> None:
    def work() -> bool:
        store = FileStore(str(root), Limits())
        allowed = spend(store, "a", {"per_task": 1}, NOW) is None
        return allowed and len(store.told) == 1 and "is allowed" in store.told[0]

    assert ended(forked(work, fault)) == 1
    assert not (root / "data/budget.json").exists()


def test_a_busy_lock_allows_the_try_after_a_short_wait(root: Path) -> None:
    session = Session(root, 0.05)
    budget = RetryBudget(per_task=1, session=session)
    assert budget.spend("a")
    with (root / "data/.budget.json.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert budget.spend("a")
    assert not budget.spend("a")


def test_the_file_never_holds_more_tasks_than_tries_nor_more_slots_than_a_window(store: FileStore) -> None:
    limits = {"per_task": 5, "overall": 40, "window": 600}
    for n in range(400):
        spend(store, f"T-{n}", limits, NOW + n * 7)
        found = body(Path(store.root.path))
        assert len(found["tasks"]) <= 40
        assert len(found["overall"]) <= SLOTS
    long = "x" * 5000
    assert spend(store, long, limits, NOW + 10**6) is None
    assert (Path(store.root.path) / "data/budget.json").stat().st_size < 1000


def test_another_window_recounts_the_file_without_giving_tries_away(store: FileStore) -> None:
    small, large = {"per_task": 3, "window": 600}, {"per_task": 3, "window": 3600}
    assert [spend(store, "a", small, NOW) for _ in range(3)] == [None] * 3
    for n in range(1, 9):
        assert spend(store, "a", large if n % 2 else small, NOW + n) is not None
    assert counted(Path(store.root.path)) == {"a": 3}
    assert [spend(store, "b", large, NOW + 50) for _ in range(3)] == [None] * 3
    assert spend(store, "b", small, NOW + 640) is not None
    assert spend(store, "b", small, NOW + 660) is None


def test_it_runs_with_the_standard_library_alone(root: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from recovery.store import FileStore\nfrom recovery.flock import Limits\nfrom recovery import budget\n"
        "print(budget.spend(FileStore(sys.argv[2], Limits()), 'a'))\n"
        "print([name for name in ('typing', 'logging', 'asyncio', 'datetime') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, PY, str(root)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("None\n[]\n", "")
