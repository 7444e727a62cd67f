"""What cutting off and learning a time limit promise; real signals, real processes."""

from __future__ import annotations

import asyncio
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from file_lock import FileLock
from recovery import timeouts
from recovery.errors import UsageError
from recovery.rules import RecoveryStrategy, exit_code, usual
from recovery.session import Session
from recovery.timeouts import AdaptiveTimeout, TaskTimeout, run_async_with_timeout, run_with_timeout

PY = str(Path(__file__).resolve().parents[2] / "py")


@pytest.fixture(autouse=True)
def alarm_put_back() -> Iterator[None]:
    """After each test SIGALRM is as it was and no timer runs."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.SIGALRM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def for_ever() -> None:
    """Waits in the kernel, as a hung read would; 20 s so that a broken limit is seen."""
    read, write = os.pipe()
    try:
        selectors_wait(read, 20)
    finally:
        os.close(read)
        os.close(write)


def selectors_wait(fd: int, seconds: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        selector.select(seconds)


# --- plain functions


def test_a_function_is_cut_off_on_time_and_its_finally_runs() -> None:
    seen = []

    def work() -> None:
        try:
            for_ever()
        finally:
            seen.append("tidied")

    began = time.monotonic()
    with pytest.raises(TaskTimeout, match=r"^Task T-1 timed out after 0\.1 s$") as caught:
        run_with_timeout(work, (), {}, 0.1, "T-1")
    assert 0.1 <= time.monotonic() - began < 2
    assert seen == ["tidied"]
    assert exit_code(caught.value) == 124
    assert usual(caught.value) is RecoveryStrategy.RETRY
    assert isinstance(caught.value, TimeoutError)


def test_a_function_that_is_in_time_gives_its_result_and_its_errors() -> None:
    assert run_with_timeout(lambda a, b: a + b, (1,), {"b": 2}, 5) == 3
    with pytest.raises(KeyError):
        run_with_timeout({}.__getitem__, ("gone",), {}, 5)
    with pytest.raises(TimeoutError) as caught:
        run_with_timeout(_raise, (TimeoutError("its own"),), {}, 5)
    assert not isinstance(caught.value, TaskTimeout)


def _raise(error: BaseException) -> None:
    raise error


def test_except_exception_inside_does_not_swallow_the_end() -> None:
    def stubborn() -> str:
        try:
            for_ever()
        except Exception:
            return "swallowed"
        return "over"

    with pytest.raises(TaskTimeout):
        run_with_timeout(stubborn, (), {}, 0.05)


@pytest.mark.parametrize("inner", [0.05, 10.0])
@pytest.mark.parametrize("outer", [0.1, 0.02])
def test_nested_limits_each_ring_on_time(inner: float, outer: float) -> None:
    def work() -> str:
        with pytest.raises(TaskTimeout, match="inner"):
            run_with_timeout(for_ever, (), {}, inner, "inner")
        for_ever()
        return "over"

    began = time.monotonic()
    with pytest.raises(TaskTimeout, match="outer"):
        run_with_timeout(work, (), {}, outer, "outer")
    assert outer <= time.monotonic() - began < outer + 1


def test_three_limits_deep_the_outermost_still_rings() -> None:
    """The middle one rings inside of the innermost; the outermost was waiting behind it all the time."""

    def middle() -> None:
        with pytest.raises(TaskTimeout, match="middle"):
            run_with_timeout(run_with_timeout, (for_ever, (), {}, 10.0, "inner"), {}, 0.05, "middle")
        for_ever()

    began = time.monotonic()
    with pytest.raises(TaskTimeout, match="outer"):
        run_with_timeout(middle, (), {}, 0.2, "outer")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("interval", [0.0, 0.02])
def test_the_callers_own_alarm_rings_on_time_inside_and_its_handler_and_timer_are_put_back(interval: float) -> None:
    rang: list[float] = []
    mine: Callable[..., None] = lambda *_: rang.append(time.monotonic())  # noqa: E731
    before = signal.signal(signal.SIGALRM, mine)
    try:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.05, interval)
        with pytest.raises(TaskTimeout):
            run_with_timeout(for_ever, (), {}, 0.3)
        assert rang, "their alarm did not ring inside"
        assert rang[0] - began < 0.2
        assert len(rang) >= (5 if interval else 1)
        assert signal.getsignal(signal.SIGALRM) is mine
        assert signal.getitimer(signal.ITIMER_REAL)[1] == pytest.approx(interval, abs=0.001)
        signal.setitimer(signal.ITIMER_REAL, 30)
        run_with_timeout(int, (), {}, 5)
        assert 25 < signal.getitimer(signal.ITIMER_REAL)[0] <= 30
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_alarm_that_the_callers_handler_sets_itself_is_kept() -> None:
    rang: list[int] = []

    def again(*_: object) -> None:
        rang.append(1)
        if len(rang) < 3:
            signal.setitimer(signal.ITIMER_REAL, 0.02)

    before = signal.signal(signal.SIGALRM, again)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(TaskTimeout):
            run_with_timeout(for_ever, (), {}, 0.4)
        assert len(rang) == 3
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_wait_for_a_lock_inside_is_cut_off_and_the_lock_is_not_kept(tmp_path: Path) -> None:
    """Both use the one timer; neither may lose the other's alarm, and the limit is no LockTimeout."""
    path = tmp_path / "data.json"
    path.write_text("{}")
    with subprocess.Popen(
        ["flock", str(tmp_path / ".data.json.lock"), "sh", "-c", "echo held; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for seconds in (0.03, 0.4):  # in the first slice of the wait, and in a later one
            began = time.monotonic()
            with pytest.raises(TaskTimeout):
                run_with_timeout(FileLock(path, timeout=20).acquire, (), {}, seconds)
            assert seconds <= time.monotonic() - began < seconds + 1
        with pytest.raises(TimeoutError, match="Failed to acquire lock"):
            run_with_timeout(FileLock(path, timeout=0.1).acquire, (), {}, 20)
        holder.communicate(b"\n")
    assert FileLock(path).try_acquire()


def test_an_alarm_that_interrupts_nothing_rings_again() -> None:
    """A signal between a bytecode and its system call is seen only behind the call; here the first one is lost."""

    def work() -> None:
        handler = signal.signal(signal.SIGALRM, lambda *_: lost.set())
        while not lost.is_set():
            pass
        signal.signal(signal.SIGALRM, handler)
        for_ever()

    lost = threading.Event()
    began = time.monotonic()
    with pytest.raises(TaskTimeout):
        run_with_timeout(work, (), {}, 0.05)
    assert time.monotonic() - began < 2


def test_outside_of_the_main_thread_it_is_refused_before_the_call() -> None:
    seen: list[Any] = []

    def work() -> None:
        try:
            run_with_timeout(seen.append, ("called",), {}, 5)
        except UsageError as error:
            seen.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(seen) == 1
    assert "can only be timed out in the main thread" in seen[0]


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, "5", True, None, 10**400])
def test_a_limit_that_is_none_is_refused_before_the_call(bad: Any) -> None:
    called: list[int] = []
    with pytest.raises(UsageError):
        run_with_timeout(called.append, (1,), {}, bad)
    assert not called


def test_a_limit_of_years_is_no_error() -> None:
    assert run_with_timeout(lambda: 7, (), {}, 1e300) == 7


def test_a_hundred_alarms_around_the_end_of_the_function_never_leak() -> None:
    """Wherever the alarm falls: the result or TaskTimeout, never anything else, never later."""
    for n in range(100):
        end = time.monotonic() + 0.002 + n * 1e-6

        def work(end: float = end) -> str:
            while time.monotonic() < end:
                pass
            return "done"

        try:
            assert run_with_timeout(work, (), {}, 0.002) == "done"
        except TaskTimeout:
            pass


# --- coroutines


def test_a_coroutine_is_cut_off_on_time() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TaskTimeout, match=r"^Task T-1 timed out after 0\.05 s$"):
        asyncio.run(run_async_with_timeout(work(), 0.05, "T-1"))


def test_somebody_elses_cancellation_passes() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(run_async_with_timeout(work(), 30))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_coroutines_own_timeout_error_stays_its_own() -> None:
    async def at_once() -> None:
        raise TimeoutError("mine")

    async def when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TimeoutError("mine") from None

    for work in (at_once, when_cancelled):
        with pytest.raises(TimeoutError, match="mine") as caught:
            asyncio.run(run_async_with_timeout(work(), 0.02))
        assert not isinstance(caught.value, TaskTimeout)


@pytest.mark.filterwarnings("error")
def test_a_coroutine_with_a_bad_limit_is_never_begun() -> None:
    async def work() -> None:
        raise AssertionError("begun")

    with pytest.raises(UsageError):
        asyncio.run(run_async_with_timeout(work(), 0))


# --- the adaptive timeout


@pytest.fixture
def session(tmp_path: Path) -> Session:
    (tmp_path / "postbox").mkdir()
    return Session(tmp_path)


def lines(session: Session, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(session.root) / name).read_text().splitlines()]


def put(session: Session, limit: AdaptiveTimeout, *values: object, tail: str = "") -> None:
    path = Path(session.root) / limit.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as out:
        for value in values:
            out.write(json.dumps({"txid": "x", "seconds": value, "timestamp": "t"}) + "\n")
        out.write(tail)


def test_the_fixed_timeout_stands_until_there_are_twenty_samples(session: Session) -> None:
    limit = AdaptiveTimeout("build", session=session)
    assert limit.seconds() == 120
    put(session, limit, *[2.0] * 19)
    assert limit.seconds() == 120
    limit.record(2.0)
    assert limit.seconds() == 3.0
    told = limit.explain()
    assert (told["key"], told["timeout"], told["samples"], told["p99"]) == ("build", 3.0, 20, 2.0)
    assert (told["factor"], told["floor"], told["ceiling"], told["fixed"]) == (1.5, 1.0, 3600.0, 120.0)
    assert told["rule"] == "1.5 x p99 of the newest 20 successes, at least 1 s, at most 3600 s"


def test_p99_is_by_nearest_rank() -> None:
    assert timeouts.percentile_99([5.0]) == 5
    assert timeouts.percentile_99([float(n) for n in range(1, 101)]) == 99
    assert timeouts.percentile_99([float(n) for n in range(200, 0, -1)]) == 198
    assert timeouts.percentile_99([float(n) for n in range(1, 21)]) == 20


def test_floor_and_ceiling_bound_it_and_only_the_newest_200_count(session: Session) -> None:
    limit = AdaptiveTimeout("k", floor=1, ceiling=50, session=session)
    put(session, limit, *[0.001] * 200)
    assert limit.seconds() == 1
    put(session, limit, *[1000.0] * 10)
    assert limit.seconds() == 50
    put(session, limit, *[4.0] * 200)
    assert limit.seconds() == 6


def test_torn_and_foreign_lines_are_passed_over(session: Session) -> None:
    limit = AdaptiveTimeout("k", session=session)
    put(session, limit, *[2.0] * 10, "2.0", None, True, -1, {"a": 1}, tail='[]\nnonsense\n\xff\n{"seconds": 1e999}\n')
    put(session, limit, *[2.0] * 9, tail='{"txid": "torn", "seco')
    assert limit.explain()["samples"] == 19
    limit.record(2.0)
    assert limit.explain()["samples"] == 20
    assert limit.seconds() == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.1, "1", None, False])
def test_a_duration_that_is_none_is_refused(session: Session, bad: Any) -> None:
    limit = AdaptiveTimeout("k", session=session)
    with pytest.raises(UsageError):
        limit.record(bad)
    assert not (Path(session.root) / limit.name).exists()


def test_any_key_has_a_file_of_its_own_inside_of_the_folder(session: Session) -> None:
    keys = ["build", "Build", "a/b", "../../etc", "", "ä", "a b", "x" * 129, "\ud800"]
    names = []
    for key in keys:
        if not key:
            with pytest.raises(UsageError):
                AdaptiveTimeout(key, session=session)
            continue
        limit = AdaptiveTimeout(key, session=session)
        limit.record(1)
        names.append(limit.name)
        assert len(lines(session, limit.name)) == 1
    assert len(set(names)) == len(names)
    assert "data/timings/build.jsonl" in names
    assert all(name.count("/") == 2 for name in names)


def test_asking_again_does_not_read_the_file_again(session: Session) -> None:
    limit = AdaptiveTimeout("k", session=session)
    put(session, limit, *[2.0] * 20)
    limit.seconds()
    known = limit._known
    limit.seconds()
    assert limit._known is known
    put(session, limit, 8.0)
    assert limit.seconds() == 12.0


def test_a_disk_that_refuses_costs_the_sample_and_is_said(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    limit = AdaptiveTimeout("k", session=session)
    (Path(session.root) / limit.name).mkdir(parents=True)
    limit.record(1.0)
    assert limit.seconds() == 120
    assert "the duration of k was not kept" in caplog.text
    assert "its timeout is the fixed one" in caplog.text


def test_the_file_is_cut_back_to_its_newest_200_lines(session: Session) -> None:
    limit = AdaptiveTimeout("k", session=session)
    put(session, limit, *range(400), tail="foreign\n")
    limit.record(7)
    found = lines(session, limit.name)
    assert [entry["seconds"] for entry in found] == [*range(201, 400), 7]
    assert sorted(os.listdir(Path(session.root) / "data/timings")) == [".k.jsonl.lock", "k.jsonl"]


def test_an_append_that_comes_during_the_cut_is_not_lost(session: Session, tmp_path: Path) -> None:
    """The cut waits behind its reading, somebody appends, the cut goes on: it must see that and leave the file."""
    limit = AdaptiveTimeout("k", session=session)
    put(session, limit, *range(500))
    gate = tmp_path / "gate"
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from recovery import steps, timeouts; from recovery.session import Session\n"
        "steps.install(os.environ)\n"
        "with Session(sys.argv[2]).store() as store: print(timeouts.compact(store, sys.argv[3]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, PY, session.root, limit.name],
        env={**os.environ, "RECOVERY_FAULT": f"stage-synced=wait={gate}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        reached = Path(f"{gate}.reached")
        while not reached.exists():
            assert process.poll() is None
        limit._recorded = 1  # it doesn't look at the length itself
        limit.record(777)
        gate.touch()
        assert process.communicate()[0] == "False\n"
    assert lines(session, limit.name)[-1]["seconds"] == 777
    assert len(lines(session, limit.name)) == 501
    with session.store() as store:
        assert timeouts.compact(store, limit.name)
    assert [entry["seconds"] for entry in lines(session, limit.name)][-2:] == [499, 777]
    assert not [name for name in os.listdir(Path(session.root) / "data/timings") if name.endswith(".stage")]


def test_processes_that_append_and_cut_at_once_lose_nothing(session: Session) -> None:
    """Four append, two of them cut after each: of what was appended last, all is there."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from recovery import timeouts; from recovery.session import Session\n"
        "me = int(sys.argv[3]); timeouts._LOOK_EVERY = 1 if me % 2 else 10**9; timeouts.NEWEST = 100\n"
        "limit = timeouts.AdaptiveTimeout('k', session=Session(sys.argv[2]))\n"
        "limit._recorded = 1\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for n in range(60): limit.record(me * 1000 + n)\n"
    )
    limit = AdaptiveTimeout("k", session=session)
    put(session, limit, *[0.5] * 150)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, PY, session.root, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for n in range(4)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in running:
        process.communicate()
        assert process.returncode == 0
    values = [entry["seconds"] for entry in lines(session, limit.name)]
    newest = [value for value in values if value != 0.5]
    assert len(newest) == len(set(newest))
    for me in range(4):  # of each writer a whole run up to its last
        mine = [value - me * 1000 for value in newest if value // 1000 == me and value != 0.5]
        assert mine == list(range(60 - len(mine), 60))
    assert len(values) >= 100


def test_a_kill_at_any_step_of_the_cut_leaves_the_file_old_or_new(session: Session, tmp_path: Path) -> None:
    limit = AdaptiveTimeout("k", session=session)
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from recovery import steps, timeouts; from recovery.session import Session\n"
        "session = Session(sys.argv[2]); steps.install(os.environ)\n"
        "with session.store() as store: timeouts.compact(store, sys.argv[3])\n"
    )
    path = Path(session.root) / limit.name

    def run(fault: str) -> int:
        path.unlink(missing_ok=True)
        put(session, limit, *range(450))
        arguments = [sys.executable, "-c", code, PY, session.root, limit.name]
        return subprocess.run(arguments, env={**os.environ, "RECOVERY_FAULT": fault}, check=False).returncode

    steps = tmp_path / "steps"
    assert run(f"*=list={steps}") == 0
    for step in steps.read_text().split():
        assert run(f"{step}=kill") == -signal.SIGKILL
        values = [entry["seconds"] for entry in lines(session, limit.name)]
        assert values in (list(range(450)), list(range(250, 450))), step
        with session.store() as store:
            timeouts.compact(store, limit.name)
            store.lock([limit.name]).release()
        assert len(lines(session, limit.name)) == 200
        assert sorted(os.listdir(path.parent)) == [".k.jsonl.lock", "k.jsonl"], step
