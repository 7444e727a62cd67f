"""`recovery torture` finds what is broken, keeps what shows it, touches nothing else, and cleans up behind itself."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from recovery import __version__, certificate, flock, helper, workspace
from recovery.errors import StorageError, UsageError
from recovery.health import VERB, health
from recovery.request import Request
from recovery.store import FileStore
from recovery.torture import calls, cuts, runner
from recovery.torture.operations import Bench, Operation, everything
from recovery.torture.scratch import Workspace
from recovery.torture.stopping import held_back, stopped_by_signals
from support import tracing
from support.meeting import children, until

SUITE = Path(__file__).resolve().parents[2]


def command(*words: str) -> list[str]:
    return [str(SUITE / "bin" / "recovery"), "torture", *words]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "ORCHESTRATION_LOCK_DIR": str(tmp_path / "locks"), **more}


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=False
    )


def entries(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything below a folder: inode, mode, time of change, content."""
    found = {}
    for path in root.rglob("*"):
        st = path.lstat()
        found[str(path.relative_to(root))] = (
            st.st_ino,
            st.st_mode,
            st.st_mtime_ns if path.is_file() else 0,
            path.read_bytes() if path.is_file() else b"",
        )
    return found


def imported(operation: Operation, folder: Path) -> list[str]:
    """The modules that a forked child which runs this operation imports beside those that are there."""
    found = folder / "imported"
    found.unlink(missing_ok=True)
    pid, bench = os.getpid(), Bench(folder, operation)
    leave, before = os._exit, set(sys.modules)

    def look(code: int) -> NoReturn:
        if os.getpid() != pid:
            found.write_text(" ".join(set(sys.modules) - before))
        leave(code)

    with pytest.MonkeyPatch.context() as patch, bench.fresh() as space:
        patch.setattr(os, "_exit", look)
        space.fork(operation.command)
    return found.read_text().split()


def abandoned_in_memory() -> list[Path]:
    """The folders there that no living run holds the lock of."""
    found = []
    for lock in Path("/dev/shm").glob("recovery-torture-*/owner.lock"):
        with suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(lock.parent)
    return found


def scratches(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(runner.PREFIX + "*")]


def test_the_quick_run_finds_nothing_tries_every_kind_and_says_so(tmp_path: Path) -> None:
    """Twenty seconds on this very disk; a tenth of the kills go through whole scripts; the health check is content."""
    root = Workspace.make(tmp_path / "a workspace").root
    done = run(tmp_path, "-C", str(root), "--quick", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["ok"], told["violations"], told["version"], told["quick"]) == (True, 0, __version__, True)
    kinds = told["kinds"]
    assert {name for name, kind in kinds.items() if not kind["trials"]} == set(told["skipped"]), kinds
    assert {"frozen holder", "late resolver", "full disk", "power cut", "writers"} <= kinds.keys()
    kills = [kinds[name]["trials"] for name in ("kill", "kill twice", "kill a script")]
    assert kills[2] * 10 >= sum(kills)
    assert told["file_system"] == certificate.file_system(str(root))
    kept = json.loads((root / certificate.NAME).read_text())
    assert kept == {key: value for key, value in told.items() if key not in ("ok", "code", "changed")}
    assert health(Request("health", VERB, ["-C", str(root), "certificate"]), {}).data["code"] == 0
    assert scratches(root) == []


def test_real_data_is_never_touched_by_any_kind_however_little_time_there_is(tmp_path: Path) -> None:
    """Inode, time and bytes of every file of the workspace are as before; only the certificate and lock files came.

    No certificate says of a run without trials, on a slow machine, that nothing was lost.
    """
    real = SUITE.parent / "shared" / "real-postbox"
    root = tmp_path / "ws"
    shutil.copytree(real if real.is_dir() else SUITE / "tests" / "demo" / "workspace", root)
    (root / "postbox").mkdir(exist_ok=True)
    before = entries(root)
    done = run(tmp_path, "-C", str(root), "--minutes", "0.0001", "--json")
    assert done.returncode == 0, done
    told = json.loads(done.stdout)
    assert {name for name, kind in told["kinds"].items() if not kind["trials"]} == set(told["skipped"])
    after = entries(root)
    assert {name: after.get(name) for name in before} == before
    new = {name for name in after.keys() - before.keys() if (root / name).is_file()}
    assert {name for name in new if not name.endswith(".lock")} == {certificate.NAME}


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite that doesn't look for what a dead owner left."""
    monkeypatch.setattr(FileStore, "unfinished", lambda self: None)


def test_a_violation_is_told_kept_and_found_again_by_its_seed_and_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    monkeypatch.setattr(runner, "ENOUGH", 6)
    with runner.scratch(str(tmp_path)) as folder:
        first = runner.torture(folder, 90, seed=7)
        (folder / "keep").touch()
    assert len(first.violations) >= runner.ENOUGH, "it goes on though it is known"
    one = next(one for one in first.violations if one["kind"] not in ("kill a script", "writers"))  # they meet by time
    assert list(folder.glob("worker-*/*/postbox")), "no workspace was kept"
    with runner.scratch(str(tmp_path)) as again:
        second = runner.torture(again, 20, seed=7, only=f"{one['kind']}:{one['number']}")
    assert [found["doing"] for found in second.violations] == [one["doing"]]
    assert second.trials == 1


def test_a_violation_that_needs_no_fault_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "find", lambda *_: (_ for _ in ()).throw(UsageError("no")))
    with runner.scratch(str(tmp_path)) as folder:
        found = runner.torture(folder, 5, seed=1)
    assert [one["kind"] for one in found.violations] == ["unhurt"]


def test_a_trial_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    for name in ("nonsense:1", "kill", "kill:x", "kill:-1"):
        done = run(tmp_path, "--dir", str(tmp_path), "--trial", name)
        assert (done.returncode, "KIND:NUMBER" in done.stderr) == (64, True), done
    assert scratches(tmp_path) == []


def test_where_there_is_too_little_room_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "ROOM", 1 << 60)
    with pytest.raises(StorageError, match="must be free"), runner.scratch(str(tmp_path)):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("calls", "error", "told"),
    [
        ("flock", "ENOLCK", "can't be locked"),
        ("flock", "EOPNOTSUPP", "can't be locked"),
        ("rename,renameat,renameat2", "ENOSYS", "can't be renamed into place"),
    ],
)
def test_a_disk_without_locks_or_renames_is_refused_before_anything_is_begun(
    tmp_path: Path, calls: str, error: str, told: str
) -> None:
    tracing.require_strace()
    inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    done = subprocess.run(
        [*inject, *command("--dir", str(tmp_path))],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, told in done.stderr) == (69, True), done
    assert scratches(tmp_path) == []


@contextmanager
def under_way(tmp_path: Path, root: Path) -> Iterator[subprocess.Popen[str]]:
    """A run whose trials have begun; whatever becomes of the test, nothing of it is left behind the block."""
    process = subprocess.Popen(
        command("-C", str(root), "--minutes", "5"),
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: bool(list(root.glob(runner.PREFIX + "*/worker-*/*"))), "trials are under way")
        yield process
        until(lambda: not living(str(root)), "no process of it is left")
    finally:
        if process.poll() is None:
            process.kill()  # its workers notice
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_in_the_middle_leaves_nothing_and_says_so(tmp_path: Path, number: int) -> None:
    root = Workspace.make(tmp_path / "ws").root
    with under_way(tmp_path, root) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, ""), err
    assert "stopped" in err
    assert "no new certificate" in err
    assert scratches(root) == []
    assert not (root / certificate.NAME).exists()


def test_the_workers_of_a_killed_run_end_too_and_the_next_run_removes_what_it_left(tmp_path: Path) -> None:
    root = Workspace.make(tmp_path / "ws").root
    with under_way(tmp_path, root) as process:
        process.kill()
        process.communicate(timeout=60)
    assert len(scratches(root)) == 1
    assert abandoned_in_memory()
    with runner.scratch(str(root)), cuts.in_memory(tmp_path):
        assert len(scratches(root)) == 1
        assert abandoned_in_memory() == []
    assert scratches(root) == []


@pytest.fixture
def ignoring() -> Iterator[None]:
    """As a background job of a script, under nohup."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) == signal.SIG_IGN, "what the caller had set is not restored"
        signal.signal(number, handler)


@pytest.mark.usefixtures("ignoring")
def test_ctrl_c_stops_a_background_job_too_and_the_end_of_its_terminal_does_not_under_nohup() -> None:
    with stopped_by_signals() as check:
        signal.raise_signal(signal.SIGHUP)
        check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # while it cleans up: it goes on with that


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_is_dropped_stops_the_run_all_the_same() -> None:
    """Python drops what is raised in a finalizer, or in the hooks of a fork."""

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with stopped_by_signals() as check:
        Finalized()
        with pytest.raises(KeyboardInterrupt):
            check()


def test_a_signal_that_is_held_back_comes_behind_the_block() -> None:
    done = []
    with stopped_by_signals(), pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGTERM)
        done.append("cleaned up")
    assert done


def living(root: str) -> list[str]:
    """Command lines of processes that stand in a workspace or name it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if root in words or os.readlink(folder / "cwd").startswith(root):
                found.append(words)
        except OSError:
            continue
    return found


def test_what_a_killed_run_left_is_removed_by_the_next_one_but_not_a_living_ones(tmp_path: Path) -> None:
    dead = tmp_path / (runner.PREFIX + "dead")
    dead.mkdir()
    (dead / "owner.lock").touch()
    kept = tmp_path / (runner.PREFIX + "kept")
    kept.mkdir()
    (kept / "keep").touch()
    with runner.scratch(str(tmp_path)) as living_one:
        assert not dead.exists()
        with runner.scratch(str(tmp_path)):
            assert living_one.exists()
    assert scratches(tmp_path) == [kept.name]


def test_a_long_run_grows_neither_memory_nor_disk(tmp_path: Path) -> None:
    """What lies in the scratch folder at any moment is what one trial for each worker needs, beside the templates."""
    most: list[int] = []
    memory: dict[str, list[int]] = {}

    def look(outcome: runner.Outcome) -> None:
        most.append(len(list(outcome.folder.glob("worker-*/*"))))
        for pid in children():
            with suppress(OSError, IndexError):
                found = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]
                memory.setdefault(pid, []).append(int(found))

    with runner.scratch(str(tmp_path)) as folder:
        found = runner.torture(folder, 8, seed=3, tell=look)
        assert found.violations == []
        assert found.trials > len(found.kinds)
    assert max(most) <= 12 * found.workers, most
    grown = [sizes[-1] - sizes[0] for sizes in memory.values()]
    assert max(grown) < 48 << 10, f"kB that each worker has grown by in {found.trials} trials: {grown}"


def test_without_a_fitting_certificate_the_health_check_warns(tmp_path: Path) -> None:
    root = Workspace.make(tmp_path / "ws").root
    store = FileStore(str(root), flock.Limits(1, 1))

    def level() -> tuple[int, str]:
        found = health(Request("health", VERB, ["-C", str(root), "certificate"]), {})
        return found.data["code"], found.line

    assert level()[0] == 1
    assert "no torture certificate" in level()[1]
    good = {"version": __version__, "violations": 0, "trials": 5, "file_system": certificate.file_system(str(root))}
    certificate.write(store, good)
    assert level()[0] == 0
    certificate.write(store, {**good, "version": "0.0.1"})
    assert (level()[0], "of version 0.0.1" in level()[1]) == (1, True)
    certificate.write(store, {**good, "file_system": {"type": "ext4", "id": "other"}})
    assert (level()[0], "another file system" in level()[1]) == (1, True)
    certificate.write(store, {**good, "violations": 2})
    assert (level()[0], "2 violation" in level()[1]) == (2, True)
    (root / certificate.NAME).write_text("[")
    assert (level()[0], "damaged" in level()[1]) == (1, True)


def test_no_call_of_the_torture_has_the_name_of_a_verb() -> None:
    """A command is looked up among the calls first: the verb would never be tried."""
    assert not calls.CALLS.keys() & helper.VERBS.keys()


@pytest.mark.parametrize("operation", everything(), ids=str)
def test_a_forked_command_finds_all_that_it_imports(tmp_path: Path, operation: Operation) -> None:
    """Kill trials would pay for an import each time; whoever adds an operation sees to it in `warm_up`."""
    runner.warm_up()
    assert imported(operation, tmp_path) == []
