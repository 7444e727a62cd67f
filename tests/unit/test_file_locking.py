"""What `file_lock` promises, tried with real processes, threads, tasks and signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from file_lock import (
    Busy,
    DataError,
    DirectoryLock,
    FileLock,
    LockTimeout,
    NotFound,
    Unavailable,
    file_transaction,
    get_agent_lock,
    get_task_lock,
    with_file_lock,
)
from recovery.errors import UsageError

PY = str(Path(__file__).resolve().parents[2] / "py")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "data.json"
    path.write_text('{"n": 0}\n')
    return path


@pytest.fixture(autouse=True)
def scratch_lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATION_LOCK_DIR", str(tmp_path / "locks"))


def lock_file(path: Path) -> Path:
    return path.parent / f".{path.name}.lock"


def strays(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith((".stage", ".prepared"))]


@contextlib.contextmanager
def child(code: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `code`; it speaks by lines on stdout and is told to end by closing stdin."""
    program = "import sys, os; sys.path.insert(0, sys.argv[1]); from file_lock import *\n" + code
    with subprocess.Popen(
        [sys.executable, "-c", program, PY, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def says(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word


HOLD = "with FileLock(sys.argv[2]):\n    print('held', flush=True); sys.stdin.read()\n"


def crash_in_a_transaction(target: Path) -> None:
    """A process dies by SIGKILL inside of file_transaction, its private copy half written."""
    code = (
        "with file_transaction(sys.argv[2]) as copy:\n"
        "    copy.write_text('half'); print('in', flush=True); sys.stdin.read()\n"
    )
    with child(code, target) as process:
        says(process, "in")
        process.kill()
        process.wait()


def test_flock_of_the_shell_and_filelock_exclude_each_other(target: Path) -> None:
    with FileLock(target):
        assert subprocess.run(["flock", "-n", lock_file(target), "true"], check=False).returncode == 1
    assert subprocess.run(["flock", "-n", lock_file(target), "true"], check=False).returncode == 0
    with subprocess.Popen(
        ["flock", str(lock_file(target)), "sh", "-c", "echo held; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"held\n"
        assert not FileLock(target).try_acquire()
        shell.communicate(b"\n")
    assert FileLock(target).try_acquire()


def test_a_killed_holder_frees_the_lock(target: Path) -> None:
    with child(HOLD, target) as process:
        says(process, "held")
        assert not FileLock(target).try_acquire()
        process.kill()
        process.wait()
        assert FileLock(target).try_acquire()


def test_the_timeout_is_kept_within_milliseconds_and_names_the_holder(target: Path) -> None:
    with child(HOLD, target) as process:
        says(process, "held")
        began = time.monotonic()
        with pytest.raises(
            LockTimeout, match=rf"Failed to acquire lock on .* after 0.2 seconds \(held by pid {process.pid}"
        ):
            FileLock(target, timeout=0.2).acquire()
        assert 0.2 <= time.monotonic() - began < 1.0


def test_a_waiter_gets_the_lock_when_it_is_released(target: Path) -> None:
    with child(HOLD, target) as process:
        says(process, "held")
        waiting = threading.Thread(target=lambda: process.communicate(""))
        assert not FileLock(target).try_acquire()
        waiting.start()
        with FileLock(target, timeout=20) as lock:
            assert lock.is_mine
        waiting.join()


def test_it_is_reentrant_per_object_and_refuses_to_wait_for_itself(target: Path) -> None:
    lock = FileLock(target)
    with lock, lock:
        assert lock.is_mine
        with pytest.raises(Busy, match="held by this very thread"):
            FileLock(target, timeout=5).acquire()
    assert not lock.is_mine
    with pytest.raises(RuntimeError):
        lock.release()


def test_threads_exclude_each_other_even_through_one_object(target: Path) -> None:
    lock = FileLock(target)
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with lock:
                inside += 1
                most = max(most, inside)
                os.sched_yield()
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_thread_that_gave_up_leaves_no_lock_behind(target: Path) -> None:
    with child(HOLD, target) as process:
        says(process, "held")
        failed: list[BaseException] = []

        def give_up() -> None:
            try:
                FileLock(target, timeout=0.05).acquire()
            except LockTimeout as error:
                failed.append(error)

        thread = threading.Thread(target=give_up)
        thread.start()
        thread.join()
        assert failed
        process.communicate("")
    with FileLock(target, timeout=20):  # the thread that still waited in the kernel has let go at once
        pass


def test_tasks_exclude_each_other_and_the_loop_goes_on(target: Path) -> None:
    lock = FileLock(target)
    order: list[str] = []

    async def work(name: str) -> None:
        async with lock:
            order.append(name + "+")
            await asyncio.sleep(0)
            order.append(name + "-")

    async def main() -> None:
        await asyncio.gather(*(work(name) for name in "abcdefghij"))

    asyncio.run(main())
    assert [step[1] for step in order] == ["+", "-"] * 10
    assert all(order[n][0] == order[n + 1][0] for n in range(0, 20, 2))


def test_a_cancelled_wait_leaves_no_lock_behind(target: Path) -> None:
    async def main() -> None:
        with FileLock(target):
            waiter = asyncio.create_task(FileLock(target, timeout=20).acquire_async())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
        async with FileLock(target, timeout=20):
            pass

    asyncio.run(main())
    with FileLock(target, timeout=20):
        pass


def test_a_forked_child_closes_and_never_unlocks(target: Path) -> None:
    lock = FileLock(target)
    with lock:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                lock.__exit__(None, None, None)
                code = 0 if not lock.is_mine and not lock.try_acquire() else 2
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert subprocess.run(["flock", "-n", lock_file(target), "true"], check=False).returncode == 1


def test_a_started_program_does_not_keep_the_lock(target: Path) -> None:
    with FileLock(target):
        started = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    try:
        assert FileLock(target).try_acquire()
    finally:
        started.communicate()


def test_a_child_waits_for_its_parents_plain_lock(target: Path) -> None:
    code = "with FileLock(sys.argv[2], timeout=60):\n    print('got it', flush=True)\n"
    with contextlib.ExitStack() as stack:
        with FileLock(target):
            process = stack.enter_context(child("print('here', flush=True)\n" + code, target))
            says(process, "here")
        says(process, "got it")


def test_a_child_that_meets_its_parents_lock_on_data_of_a_workspace_is_told_at_once(tmp_path: Path) -> None:
    outbox = tmp_path / "postbox" / "CC" / "outbox.json"
    outbox.parent.mkdir(parents=True)
    outbox.write_text("{}")
    code = (
        "try:\n    FileLock(sys.argv[2], timeout=60).acquire()\n"
        "except Busy as error:\n    print('ancestor' if 'waits for this very command' in str(error) else error)\n"
    )
    with FileLock(outbox), child(code, outbox) as process:
        says(process, "ancestor")


def test_a_lock_file_removed_while_waited_for_is_followed_to_the_new_one(target: Path) -> None:
    with child(HOLD, target) as process:
        says(process, "held")
        os.unlink(lock_file(target))
        with FileLock(target, timeout=20) as lock:
            assert lock.is_mine
            assert lock_file(target).exists()


def test_the_callers_own_handler_and_timer_are_put_back(target: Path) -> None:
    rang: list[int] = []

    def ring(number: int, frame: FrameType | None) -> None:
        rang.append(number)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with child(HOLD, target) as process:
            says(process, "held")
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(LockTimeout):
                FileLock(target, timeout=0.3).acquire()
            assert rang == [signal.SIGALRM]
            assert signal.getsignal(signal.SIGALRM) is ring
            signal.setitimer(signal.ITIMER_REAL, 100)
            with pytest.raises(LockTimeout):
                FileLock(target, timeout=0.1).acquire()
            assert 99 < signal.setitimer(signal.ITIMER_REAL, 0)[0] < 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_is_locked_changes_nothing(target: Path) -> None:
    assert not FileLock(target).is_locked()
    assert not lock_file(target).exists()
    with FileLock(target) as lock:
        content = lock_file(target).read_bytes()
        assert lock.is_locked()
        assert FileLock(target).is_locked()
        assert lock_file(target).read_bytes() == content
    assert not FileLock(target).is_locked()


def test_a_symlink_as_lock_file_is_refused_and_its_victim_untouched(target: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock_file(target).symlink_to(victim)
    with pytest.raises(Unavailable, match="not a regular file"):
        FileLock(target).acquire()
    assert victim.read_text() == "precious"
    victim.unlink()
    with pytest.raises(Unavailable):
        FileLock(target).acquire()
    assert not victim.exists()


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: os.mkfifo(p)], ids=["folder", "fifo"])
def test_a_folder_or_fifo_as_lock_file_is_refused_without_a_hang(target: Path, make: Callable[[Path], Any]) -> None:
    make(lock_file(target))
    with pytest.raises(Unavailable, match="not a regular file"):
        FileLock(target, timeout=1).acquire()


def test_a_lock_beside_a_file_in_no_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        FileLock(tmp_path / "nowhere" / "file").acquire()


def test_a_stale_note_is_ignored_at_once(target: Path) -> None:
    for note in (b"12345\n", b'{"state": "held", "pid": 1}', b"\0" * 100, b'{"state": "held"', os.urandom(600)):
        lock_file(target).write_bytes(note)
        assert FileLock(target).try_acquire()


def test_the_decorator_locks_functions_and_coroutines(target: Path) -> None:
    @with_file_lock(target)
    def plain(word: str) -> str:
        return word if FileLock(target).is_locked() else "free"

    @with_file_lock(target)
    async def coroutine(word: str) -> str:
        return word if FileLock(target).is_locked() else "free"

    assert plain("held") == "held"
    assert asyncio.run(coroutine("held")) == "held"
    assert not FileLock(target).is_locked()


def test_documented_locks_stand_where_they_are_documented(tmp_path: Path) -> None:
    with get_task_lock("TASK-1"), get_agent_lock("CC"):
        for name in ("tasks/TASK-1.lock", "agents/CC.lock"):
            assert subprocess.run(["flock", "-n", tmp_path / "locks" / name, "true"], check=False).returncode == 1
    for bad in ("../x", "", "-x", "a" * 129, "a/b", "a\nb"):
        with pytest.raises(UsageError):
            get_task_lock(bad)


# --- file_transaction


def test_a_transaction_commits_in_one_rename_and_keeps_the_mode(target: Path) -> None:
    target.chmod(0o640)
    old = target.stat().st_ino
    with file_transaction(target) as copy:
        assert copy.parent == target.parent
        assert copy.read_text() == '{"n": 0}\n'
        copy.write_text('{"n": 1}\n')
        assert target.read_text() == '{"n": 0}\n'
    assert target.read_text() == '{"n": 1}\n'
    assert target.stat().st_ino != old
    assert target.stat().st_mode & 0o777 == 0o640
    assert strays(target.parent) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_file_as_it_was(target: Path, error: type[BaseException]) -> None:
    before = (target.read_bytes(), target.stat().st_ino)
    with pytest.raises(error), file_transaction(target) as copy:
        copy.write_text("half")
        raise error
    assert (target.read_bytes(), target.stat().st_ino) == before
    assert strays(target.parent) == []
    assert FileLock(target).try_acquire()


def test_an_absent_file_is_made_or_stays_absent(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    with pytest.raises(ValueError, match="no"), file_transaction(path) as copy:
        copy.write_text("x")
        raise ValueError("no")
    assert not path.exists()
    with file_transaction(path):
        pass
    assert not path.exists()
    with file_transaction(path) as copy:
        assert not copy.exists()
        copy.write_text("x")
    assert path.read_text() == "x"
    assert strays(tmp_path) == []


def test_a_writer_who_ignores_the_lock_is_noticed_and_keeps_his_change(target: Path) -> None:
    with pytest.raises(DataError, match="ignores the lock"), file_transaction(target) as copy:
        copy.write_text("ours")
        target.write_text("theirs")
    assert target.read_text() == "theirs"
    assert strays(target.parent) == []


def test_a_lock_file_removed_while_held_is_noticed(target: Path) -> None:
    with pytest.raises(Busy, match="removed"), file_transaction(target) as copy:
        copy.write_text("ours")
        os.unlink(lock_file(target))
    assert target.read_text() == '{"n": 0}\n'


def test_a_link_stays_a_link(target: Path) -> None:
    link = target.parent / "link.json"
    link.symlink_to(target.name)
    with file_transaction(link) as copy:
        copy.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_crash_in_the_block_leaves_the_file_and_the_next_one_removes_the_copy(target: Path) -> None:
    crash_in_a_transaction(target)
    assert target.read_text() == '{"n": 0}\n'
    assert len(strays(target.parent)) == 1
    with file_transaction(target) as copy:
        copy.write_text("done")
    assert target.read_text() == "done"
    assert strays(target.parent) == []


def test_no_update_is_lost_among_processes(target: Path) -> None:
    code = (
        "import json\n"
        "for _ in range(25):\n"
        "    with file_transaction(sys.argv[2]) as copy:\n"
        "        copy.write_text(json.dumps({'n': json.loads(copy.read_text())['n'] + 1}))\n"
    )
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(child(code, target)) for _ in range(6)]
        for worker in workers:
            assert worker.wait(120) == 0
    assert json.loads(target.read_text()) == {"n": 150}


def test_a_transaction_in_a_workspace_sees_no_half_done_commit(tmp_path: Path) -> None:
    root = tmp_path / "work space"
    outbox = root / "postbox" / "CC" / "outbox.json"
    outbox.parent.mkdir(parents=True)
    outbox.write_text('{"tasks": [{"task_id": "T-1", "status": "pending"}], "history": []}\n')
    script = Path(PY).parent / "bin" / "complete_task_with_recovery.sh"
    crashed = subprocess.run(
        [script, "CC", "T-1", "done"],
        env={**os.environ, "ORCHESTRATION_ROOT": str(root), "RECOVERY_FAULT": "journal-synced=kill-group"},
        check=False,
        start_new_session=True,
        capture_output=True,
    )
    assert crashed.returncode != 0
    assert '"pending"' in outbox.read_text()
    with file_transaction(outbox) as copy:
        document = json.loads(copy.read_text())
        assert document["tasks"][0]["status"] == "completed"
        document["history"].append({"task_id": "T-0"})
        copy.write_text(json.dumps(document))
    assert json.loads(outbox.read_text())["history"] == [{"task_id": "T-0"}]
    assert (root / "postbox/CC/completed/T-1_completion.json").exists()


# --- DirectoryLock


def test_a_directory_lock_excludes_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "busy"
    with DirectoryLock(path) as lock:
        assert path.is_dir()
        assert lock.is_locked()
        with pytest.raises(LockTimeout, match="Failed to acquire lock"):
            DirectoryLock(path, timeout=0.05).acquire()
    assert os.listdir(tmp_path) == []


def test_a_directory_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "busy"
    code = "DirectoryLock(sys.argv[2]).acquire(); print('held', flush=True); sys.stdin.read()\n"
    with child(code, path) as process:
        says(process, "held")
        with pytest.raises(LockTimeout):
            DirectoryLock(path, timeout=0).acquire()
        process.kill()
        process.wait()
    with DirectoryLock(path, timeout=0) as lock:
        assert lock.is_mine
    assert not path.exists()


@pytest.mark.parametrize("field", ["host", "namespace", "boot"])
def test_a_directory_lock_of_another_host_namespace_or_boot_is_never_taken_as_dead(tmp_path: Path, field: str) -> None:
    path = tmp_path / "busy"
    with DirectoryLock(path):
        note = json.loads((path / "owner.json").read_text())
    path.mkdir()
    (path / "owner.json").write_text(json.dumps({**note, "pid": 2**22 + 1, "start": "1", field: "elsewhere"}))
    with pytest.raises(LockTimeout) as caught:
        DirectoryLock(path, timeout=0).acquire()
    assert "rm -r" in caught.value.hint
    assert path.is_dir()


def test_a_prepared_folder_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "busy"
    with DirectoryLock(path):
        note = json.loads((path / "owner.json").read_text())
    stray = tmp_path / ".busy.0123456789ab.prepared"
    stray.mkdir()
    (stray / "owner.json").write_text(json.dumps({**note, "pid": 2**22 + 1, "start": "1"}))
    with DirectoryLock(path):
        assert not stray.exists()
    assert strays(tmp_path) == []


def test_two_names_of_one_file_share_one_lock(target: Path) -> None:
    link = target.parent / "link.json"
    link.symlink_to(target.name)
    with child(HOLD, link) as process:
        says(process, "held")
        assert not FileLock(target).try_acquire()


def test_a_linked_folder_of_a_workspace_is_the_workspace(tmp_path: Path) -> None:
    outbox = tmp_path / "root" / "postbox" / "CC" / "outbox.json"
    outbox.parent.mkdir(parents=True)
    outbox.write_text("{}")
    (tmp_path / "link").symlink_to(outbox.parent)
    with file_transaction(tmp_path / "link" / "outbox.json") as copy:
        copy.write_text('{"a": 1}')
    assert outbox.read_text() == '{"a": 1}'


def test_a_wait_ends_in_time_though_the_alarm_signal_is_blocked(target: Path) -> None:
    with child(HOLD, target) as process:
        says(process, "held")
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        try:
            with pytest.raises(LockTimeout):
                FileLock(target, timeout=0.1).acquire()
            assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {*mask, signal.SIGALRM}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_a_cancelling_that_comes_with_the_lock_gives_it_back(target: Path) -> None:
    async def main() -> None:
        lock, first = FileLock(target, 20), FileLock(target, 20)
        await first.acquire_async()
        waiter = asyncio.create_task(lock.acquire_async())
        await asyncio.sleep(0)
        first._release(asyncio.current_task())
        while not FileLock(target).is_locked():  # until the waiting thread has it and has told the loop
            os.sched_yield()
        asyncio.get_running_loop().call_soon(waiter.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await waiter
        if not waiter.cancelled():
            lock._release(waiter)

    asyncio.run(main())
    with FileLock(target, timeout=20):
        pass


@pytest.mark.parametrize("inside", [False, True], ids=["plain", "in a workspace"])
def test_a_forked_child_that_leaves_the_block_changes_nothing(tmp_path: Path, inside: bool) -> None:
    path = tmp_path / ("postbox/CC/x.json" if inside else "x.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("old")
    parent = os.getpid()
    with file_transaction(path) as copy:
        copy.write_text("new")
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
            assert path.read_text() == "old"
            assert copy.read_text() == "new"
    if os.getpid() != parent:
        os._exit(0)
    assert path.read_text() == "new"
    assert FileLock(path).try_acquire()


def test_a_transaction_within_the_lock_of_its_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "postbox" / "CC" / "outbox.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with FileLock(path), pytest.raises(Busy, match="this very thread"), file_transaction(path, timeout=20):
        pass
    with file_transaction(path), pytest.raises(Busy, match="this very thread"):
        FileLock(path, timeout=20).acquire()


def test_a_lock_taken_after_a_crash_does_not_hide_what_is_to_be_tidied(target: Path) -> None:
    crash_in_a_transaction(target)
    with FileLock(target):
        pass
    with file_transaction(target):
        pass
    assert strays(target.parent) == []


def test_an_empty_folder_that_somebody_made_is_a_lock_that_is_held(tmp_path: Path) -> None:
    path = tmp_path / "busy"
    path.mkdir()
    with pytest.raises(LockTimeout):
        DirectoryLock(path, timeout=0).acquire()
    path.rmdir()
    with DirectoryLock(path, timeout=0):
        pass


def test_a_lock_that_is_held_outside_of_the_container_is_seen_as_held(tmp_path: Path) -> None:
    """In a pid namespace /proc/locks leaves out holders outside: that it names nobody proves nothing there."""
    inside = ["unshare", *(["--user", "--map-root-user"] if os.geteuid() else []), "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("no pid namespaces here: in CI this must run")
        pytest.skip("NOT TESTED: no pid namespaces here")
    code = "import sys; from file_lock import FileLock; print(FileLock(sys.argv[1]).is_locked())"
    command = [*inside, sys.executable, "-c", code, str(tmp_path / "a.lock")]
    environment = {**os.environ, "PYTHONPATH": PY}
    with FileLock(tmp_path / "a.lock"):
        held = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    free = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (held.stdout, free.stdout) == ("True\n", "False\n")
