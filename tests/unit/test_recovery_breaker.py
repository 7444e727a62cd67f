"""What the circuit breaker promises, tried with real processes, threads, tasks, forks and kills."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import logging
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recovery import breaker_state as module
from recovery import steps
from recovery.breaker import CircuitBreaker, CircuitOpen
from recovery.breaker_state import all_breakers, parse
from recovery.errors import Unavailable, UsageError
from recovery.session import Session

PY = str(Path(__file__).resolve().parents[2] / "py")


class Down(Exception):
    """The service can't be reached."""


class Clock:
    """A wall clock that may be set, and an uptime that only goes on."""

    def __init__(self) -> None:
        self.wall, self.up = 1_800_000_000.0, 5_000.0

    def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.up += seconds


class Service:
    """What the breaker protects: down or not, and how often it was really called."""

    def __init__(self, down: bool = True) -> None:
        self.down, self.calls = down, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.down:
            raise Down("no route")
        return "fine"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "postbox").mkdir(parents=True)
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(root: Path, clock: Clock, threshold: int = 3, **more: Any) -> CircuitBreaker:
    return CircuitBreaker(
        "svc", threshold, 60.0, base_path=root, clock=lambda: clock.wall, uptime=lambda: clock.up, **more
    )


def fail(breaker: CircuitBreaker, service: Service, times: int = 1) -> None:
    service.down = True
    for _ in range(times):
        with pytest.raises(Down):
            breaker.call(service)


def state_file(root: Path) -> Path:
    return root / "data/breakers/svc.json"


def state(root: Path) -> dict[str, Any]:
    return dict(json.loads(state_file(root).read_text()))


def require_tidy(root: Path, *more: str) -> None:
    """Only the breaker's own files, and none of them locked."""
    folder = root / "data/breakers"
    names = set(os.listdir(folder))
    assert names <= {"svc.json", ".svc.json.lock", ".svc.probe0.turn", ".svc.probe1.turn", *more}, names
    for name in names:
        if name.endswith(".lock"):
            require_free(folder / name)


def require_free(path: Path) -> None:
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def in_child(work: Callable[[], object], fault: str = "") -> int:
    """Run `work` in a forked process, with a fault point; how it ended: 0, 1 if it raised, or -SIGNAL."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            if fault:
                steps.install({"RECOVERY_FAULT": fault})
            work()
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


CHILD = """
import sys, os
sys.path.insert(0, sys.argv[1])
from recovery.breaker import *
breaker = CircuitBreaker("svc", 1, 0.0, base_path=sys.argv[2])
def say(word): print(word, flush=True)
def hear(): return sys.stdin.readline()
"""


@contextlib.contextmanager
def child(root: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `code` and speaks by lines on stdout and stdin."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD + code, PY, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 30)
    assert ready, "the child says nothing"
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


# --- closed, open, half-open


def test_the_threshold_opens_it_and_an_open_one_refuses_without_a_call(root: Path, clock: Clock) -> None:
    breaker, service = made(root, clock), Service()
    assert (breaker.state, breaker.failures, breaker.retry_after()) == ("closed", 0, 0.0)
    fail(breaker, service, 2)
    assert (breaker.state, breaker.failures) == ("closed", 2)
    fail(breaker, service)
    assert breaker.state == "open"
    with pytest.raises(CircuitOpen, match=r"svc is open until 2027-01-15T08:01:00Z.*Down: no route") as refused:
        breaker.call(service)
    assert service.calls == 3
    assert isinstance(refused.value, Unavailable)
    assert (refused.value.code, refused.value.name) == (69, "svc")
    assert (refused.value.until, refused.value.retry_after) == (clock.wall + 60, 60.0)
    refused.value.add_note("asked for by a test")
    copy = pickle.loads(pickle.dumps(refused.value))
    assert (copy.code, copy.hint, copy.__notes__) == (69, refused.value.hint, ["asked for by a test"])
    assert (copy.name, copy.until, copy.retry_after, str(copy)) == (
        "svc",
        refused.value.until,
        60.0,
        str(refused.value),
    )
    require_tidy(root)


def test_failures_count_in_a_row_over_processes_and_a_success_resets_them(root: Path, clock: Clock) -> None:
    assert in_child(lambda: fail(made(root, clock), Service(), 2)) == 0
    breaker = made(root, clock)
    assert breaker.failures == 2
    assert breaker.call(Service(down=False)) == "fine"
    assert breaker.failures == 0
    fail(breaker, Service(), 2)
    assert breaker.state == "closed"
    assert in_child(lambda: fail(made(root, clock), Service())) == 0
    assert breaker.state == "open"


def test_a_success_writes_only_if_there_was_something_to_reset(root: Path, clock: Clock) -> None:
    breaker, service = made(root, clock), Service(down=False)
    breaker.call(service)
    before = state_file(root).stat()
    for _ in range(3):
        breaker.call(service)
    after = state_file(root).stat()
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)


def test_what_another_process_opened_is_seen_by_the_very_next_call(root: Path, clock: Clock) -> None:
    breaker, service = made(root, clock), Service(down=False)
    guarded = breaker(service.__call__)
    for _ in range(3):
        assert (guarded(), breaker.call(service)) == ("fine", "fine")
    assert in_child(lambda: made(root, clock).trip()) == 0
    with pytest.raises(CircuitOpen):
        breaker.call(service)
    with pytest.raises(CircuitOpen):
        guarded()
    assert in_child(lambda: made(root, clock).reset()) == 0
    assert (guarded(), breaker.call(service)) == ("fine", "fine")


def test_an_edit_in_place_is_seen_and_so_with_more_breakers_than_are_kept_open(
    root: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most in (64, 0):
        monkeypatch.setattr(module, "MOST_OPEN", most)
        breaker, service = made(root, clock), Service(down=False)
        breaker.call(service)
        breaker.call(service)
        assert breaker._calm[0]()
        made(root, clock).trip(0.0)
        assert not breaker._calm[0]()
        made(root, clock).reset()
        breaker.call(service)
        assert breaker._calm[0]()
        text = state_file(root).read_text().replace('"failures": 0', '"failures": 2')
        state_file(root).write_text(text)
        assert breaker.failures == 2
        breaker.reset()


def test_after_its_time_one_success_closes_it_and_one_failure_opens_it_again(root: Path, clock: Clock) -> None:
    breaker, service = made(root, clock), Service()
    fail(breaker, service, 3)
    clock.sleep(59.9)
    with pytest.raises(CircuitOpen):
        breaker.call(service)
    clock.sleep(0.2)
    assert breaker.state == "half_open"
    fail(breaker, service)
    assert (breaker.state, breaker.retry_after()) == ("open", 60.0)
    clock.sleep(60)
    service.down = False
    assert breaker.call(service) == "fine"
    assert (breaker.state, breaker.failures) == ("closed", 0)
    assert breaker.describe()["generation"] == 4
    require_tidy(root)


def test_exactly_one_of_16_processes_tries_a_half_open_breaker(root: Path) -> None:
    code = (
        "def work(): say('ran'); hear(); return 1\n"
        "say('ready')\n"
        "while hear():\n"
        "    try:\n"
        "        breaker.call(work); say('fine')\n"
        "    except CircuitOpen: say('open')\n"
    )
    CircuitBreaker("svc", 1, 0.0, base_path=root).trip()
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(child(root, code)) for _ in range(16)]
        assert {line_of(one) for one in children} == {"ready"}
        for one in children:
            tell(one)
        said = [line_of(one) for one in children]
        assert sorted(said) == ["open"] * 15 + ["ran"]
        described = CircuitBreaker("svc", base_path=root).describe()
        runner = children[said.index("ran")]
        assert described["state"] == "half_open"
        assert [f"pid {runner.pid}" in words for words in described["probes"]] == [True]
        tell(runner)
        assert line_of(runner) == "fine"
        for one in children:
            tell(one)
        assert {line_of(one) for one in children} == {"ran"}, "after the success all pass"
        for one in children:
            tell(one)
        assert {line_of(one) for one in children} == {"fine"}
    require_tidy(root)


def test_half_open_max_tickets_are_given_and_the_first_outcome_decides(root: Path, clock: Clock) -> None:
    breaker = made(root, clock, half_open_max=2)
    breaker.trip(0.0)
    first, second = breaker.enter(), made(root, clock, half_open_max=2)
    of_thread = threading_call(second.enter)
    with pytest.raises(CircuitOpen) as refused:
        threading_call(second.enter)
    assert refused.value.retry_after > 0
    first.succeeded()
    of_thread.failed(Down())
    assert (breaker.state, breaker.failures) == ("closed", 0)
    require_tidy(root)


def test_a_killed_try_frees_its_ticket_and_the_next_caller_tries(root: Path) -> None:
    breaker = CircuitBreaker("svc", 1, 0.0, base_path=root)
    breaker.trip()
    with child(root, "with breaker: say('in'); hear()\n") as process:
        assert line_of(process) == "in"
        with pytest.raises(CircuitOpen):
            breaker.call(int)
        process.kill()
        process.wait()
        assert breaker.call(int) == 0
    assert breaker.state == "closed"
    require_tidy(root)


def test_threads_share_one_ticket_and_what_a_try_calls_belongs_to_it(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)
    breaker.trip(0.0)
    in_try, done = threading.Barrier(8), threading.Barrier(8)
    ran: list[str] = []

    def nested() -> None:
        with breaker:
            breaker.call(lambda: ran.append("nested"))

    def work() -> None:
        try:
            with breaker:
                in_try.wait(20)
                ran.append("ran")
                nested()
                done.wait(20)
        except CircuitOpen:
            ran.append("open")
            in_try.wait(20)
            done.wait(20)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ran) == ["nested"] + ["open"] * 7 + ["ran"]
    assert breaker.state == "closed"
    require_tidy(root)


def test_a_nested_failure_that_the_try_copes_with_is_no_outcome(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)
    breaker.trip(0.0)
    before = state_file(root).read_bytes()
    with breaker:
        fail(breaker, Service())
        assert state_file(root).read_bytes() == before
    assert (breaker.state, breaker.failures) == ("closed", 0)


def test_a_child_forked_within_a_try_neither_keeps_its_ticket_nor_speaks_for_it(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)
    breaker.trip(0.0)
    reader, writer = os.pipe()
    looked, say_looked = os.pipe()
    ticket = breaker.enter()
    pid = os.fork()
    if not pid:
        try:
            os.close(writer)
            ticket.leave(None)
            refused = 0
            try:
                made(root, clock).enter()
            except CircuitOpen:
                refused = 1
            os.write(say_looked, b"!")
            os.read(reader, 1)  # lives on until the parent has looked too
            os._exit(0 if refused else 1)
        finally:
            os._exit(2)
    os.close(reader)
    try:
        assert os.read(looked, 1) == b"!"
        with pytest.raises(CircuitOpen):
            threading_call(made(root, clock).enter)
        ticket.cancelled()
        assert breaker.state == "half_open", "neither the child's word nor a cancelled try is an outcome"
        require_free(root / "data/breakers/.svc.probe0.turn")
    finally:
        for fd in (writer, looked, say_looked):
            os.close(fd)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert state(root)["state"] == "open"


def test_a_call_that_forks_is_counted_once(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)
    ticket = breaker.enter()
    assert in_child(lambda: ticket.failed(Down())) == 0
    assert breaker.failures == 0
    ticket.failed(Down())
    ticket.failed(Down())
    assert breaker.failures == 1


def threading_call(work: Callable[[], Any]) -> Any:
    """In a thread, which is in nobody's block."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def test_a_ticket_survives_its_holders_forked_child_when_the_holder_is_killed(root: Path) -> None:
    breaker = CircuitBreaker("svc", 1, 0.0, base_path=root)
    breaker.trip()
    code = "with breaker:\n    pid = os.fork()\n    if not pid: say('in')\n    hear()\n    os._exit(0)\n"
    with child(root, code) as process:
        assert line_of(process) == "in"
        process.kill()
        process.wait()
        assert breaker.call(int) == 0, "a child that lives on keeps no ticket"


# --- clocks


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wall_clock_that_is_set_neither_shortens_nor_prolongs_it(root: Path, clock: Clock, hours: int) -> None:
    breaker = made(root, clock)
    fail(breaker, Service(), 3)
    clock.wall += hours * 3600
    assert breaker.retry_after() == 60.0
    clock.sleep(59)
    assert made(root, clock).state == "open"
    clock.sleep(1)
    assert made(root, clock).state == "half_open"


@pytest.mark.parametrize(("passed", "left"), [(20, 40.0), (-3600, 60.0), (61, 0.0)])
def test_after_a_reboot_the_wall_clock_tells_what_is_left_and_never_more_than_the_whole(
    root: Path, clock: Clock, passed: float, left: float
) -> None:
    breaker = made(root, clock)
    fail(breaker, Service(), 3)
    state_file(root).write_text(state_file(root).read_text().replace(module.boot_id(), "of-another-boot"))
    clock.wall += passed
    clock.up = 7.0
    assert breaker.retry_after() == left
    if left:
        clock.sleep(left - 1)
        assert made(root, clock).state == "open"
        clock.sleep(1)
    assert made(root, clock).state == "half_open"
    require_tidy(root)


def test_open_until_lasts_until_that_very_time_and_is_only_shortened_by_force(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)
    until = datetime.fromtimestamp(clock.wall, UTC) + timedelta(hours=5, microseconds=250000)
    breaker.open_until(until.replace(tzinfo=None), "quota")
    assert state(root)["open_until"] == until.isoformat().replace("+00:00", "Z")
    breaker.open_until(clock.wall + 60)
    breaker.open_until(clock.wall - 60)
    breaker.trip(5)
    assert (breaker.retry_after(), state(root)["reason"]) == (5 * 3600 + 0.25, "quota")
    clock.wall += 5 * 3600  # the wall clock it is that counts
    assert breaker.state == "open"
    clock.wall += 0.25
    assert breaker.state == "half_open"
    assert breaker.call(int) == 0
    breaker.open_until(until + timedelta(hours=1))
    breaker.open_until(clock.wall + 30, force=True)
    assert breaker.retry_after() == 30.0
    for nonsense in (float("nan"), 1e300, "tomorrow", True, datetime.max):
        with pytest.raises(UsageError):
            breaker.open_until(nonsense)  # type: ignore[arg-type]


def test_a_quota_reset_opens_at_the_first_failure_until_then(
    root: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    answer: list[Any] = [None]
    asked: list[BaseException] = []

    def quota(error: BaseException) -> Any:
        asked.append(error)
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    breaker, service = made(root, clock, threshold=10, quota_reset=quota), Service()
    for answer[0] in (None, ValueError("no header"), "soon", clock.wall - 1):
        fail(breaker, service)
    assert (breaker.state, breaker.failures, len(asked)) == ("closed", 4, 4)
    assert caplog.text.count("quota_reset raised") == 2
    answer[0] = clock.wall + 7200
    fail(breaker, service)
    assert (breaker.state, breaker.retry_after()) == ("open", 7200.0)
    assert isinstance(asked[-1], Down)
    clock.wall += 7200
    answer[0] = None
    fail(breaker, service)
    assert breaker.retry_after() == 60.0


def test_waiting_tasks_start_again_spread_out(root: Path, clock: Clock) -> None:
    breaker = made(root, clock, draw=lambda: 0.5)
    assert breaker.wait_time() == 0.0
    breaker.trip(20)
    assert [breaker.wait_time(), breaker.wait_time(lambda: 0.0), breaker.wait_time(lambda: 1.0)] == [23.0, 20.0, 26.0]
    slow = CircuitBreaker("slow", reset_timeout=1e6, base_path=root, draw=lambda: 1.0, uptime=lambda: clock.up)
    slow.trip(0.0)
    assert slow.wait_time() == 30.0


# --- what counts


def test_only_what_is_on_and_not_ignored_is_a_failure_and_errors_pass_unchanged(root: Path, clock: Clock) -> None:
    breaker = made(root, clock, on=(OSError, ValueError), ignore=UnicodeError)

    def call(error: BaseException) -> int:
        @breaker
        def work() -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            work()
        assert caught.value is error
        assert error.__context__ is None
        assert error.__cause__ is None
        with pytest.raises(type(error)) as caught:
            breaker.call(work.__wrapped__)  # type: ignore[attr-defined]
        assert caught.value is error
        assert work.__name__ == "work"
        return breaker.failures

    assert call(OSError("down")) == 2
    for neither in (KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError(), GeneratorExit()):
        assert call(neither) == 2
        everything = made(root, clock, on=BaseException)
        with pytest.raises(type(neither)):
            everything.call(raiser(neither))
        assert breaker.failures == 2
    assert call(UnicodeError("an answer")) == 0
    assert call(KeyError("an answer")) == 0


def raiser(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_a_refusal_of_a_breaker_further_in_is_no_outcome_of_the_outer_one(root: Path, clock: Clock) -> None:
    inner = CircuitBreaker("inner", 1, 1.0, base_path=root, clock=lambda: clock.wall, uptime=lambda: clock.up)
    outer = made(root, clock, threshold=2)
    inner.trip()

    async def work() -> None:
        inner.call(int)

    refused: list[Callable[[], object]] = [
        lambda: outer.call(inner.call, int),
        lambda: outer(inner(int))(),
        lambda: asyncio.run(outer(work)()),
        lambda: made(root, clock, on=CircuitOpen).call(inner.call, int),
    ]
    fail(outer, Service())
    for call in refused:
        with pytest.raises(CircuitOpen, match="circuit inner"):
            call()
        assert (outer.state, outer.failures) == ("closed", 1), "neither a failure nor a success"
    outer.trip(0.0)
    for call in refused:
        with pytest.raises(CircuitOpen, match="circuit inner"):
            call()
        assert outer.state == "half_open"
        require_free(root / "data/breakers/.svc.probe0.turn")


def test_a_ticket_drawn_in_a_worker_thread_covers_what_the_task_calls_with_it(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)
    guarded = breaker(asyncio.sleep)

    async def scenario() -> None:
        breaker.trip(0.0)
        ticket = await asyncio.to_thread(breaker.enter)
        with pytest.raises(CircuitOpen, match="being tried"):
            await guarded(0)
        with ticket.inside(), ticket.inside():
            await guarded(0)
            await asyncio.create_task(guarded(0))
            async with breaker:
                breaker.call(int)
        with pytest.raises(CircuitOpen, match="being tried"):
            await guarded(0)
        await asyncio.to_thread(ticket.leave)
        assert breaker.state == "closed"
        with (await asyncio.to_thread(breaker.enter)).inside():
            await guarded(0)

    asyncio.run(scenario())
    breaker.trip(0.0)
    ticket = breaker.enter()  # by the same thread: it is inside already, and stays so
    with ticket.inside():
        breaker.call(int)
    breaker.call(int)
    ticket.leave()
    assert breaker.state == "closed"
    require_tidy(root)


def test_generator_functions_are_refused_and_callable_objects_awaited(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)

    def lines() -> Iterator[int]:
        yield 1

    async def pages() -> Any:
        yield 1

    class Lines:
        def __call__(self) -> Iterator[int]:
            yield 1

    for bad in (lines, pages, functools.partial(pages), Lines()):
        with pytest.raises(UsageError, match="generator"):
            breaker(bad)

    class Fetch:
        async def __call__(self) -> None:
            raise Down

    goods: list[Callable[[], Any]] = [Fetch(), functools.partial(Fetch())]
    for number, good in enumerate(goods, 1):
        with pytest.raises(Down):
            asyncio.run(breaker(good)())
        assert breaker.failures == number


def test_the_time_shown_is_never_earlier_than_the_one_it_is_open_until(root: Path, clock: Clock) -> None:
    midnight = datetime(2027, 1, 16, tzinfo=UTC)
    breaker = made(root, clock)
    breaker.open_until(midnight)
    for part in (0.0, 0.1, 0.123457, 0.3, 0.7, 0.999999):
        clock.wall = 1_800_000_000.0 + part
        assert breaker.describe()["until"] == "2027-01-16T00:00:00Z", part
        with pytest.raises(CircuitOpen, match=r"until 2027-01-16T00:00:00Z"):
            breaker.call(int)
    clock.wall = 1_800_000_000.0
    breaker.open_until(midnight + timedelta(milliseconds=250))
    assert breaker.describe()["until"] == "2027-01-16T00:00:01Z"
    breaker.open_until(datetime(9999, 12, 31, 23, 59, 59, 500_000))
    assert breaker.describe()["until"] == "9999-12-31T23:59:59Z"


def test_a_try_that_is_given_up_is_neither_success_nor_failure(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)
    breaker.trip(0.0)
    before = state_file(root).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        breaker.call(raiser(KeyboardInterrupt()))
    assert state_file(root).read_bytes() == before
    assert breaker.call(int) == 0
    assert breaker.state == "closed"


def test_a_slow_call_of_an_older_generation_changes_nothing(root: Path, clock: Clock) -> None:
    breaker = made(root, clock, threshold=1)
    failing, also, succeeding = breaker.enter(), breaker.enter(), made(root, clock, threshold=1).enter()
    fail(breaker, Service())
    opened = state_file(root).read_bytes()
    succeeding.succeeded()
    failing.failed(Down())
    assert state_file(root).read_bytes() == opened, "a slow success closes nothing, a slow failure prolongs nothing"
    clock.sleep(60)
    breaker.call(int)
    closed = state_file(root).read_bytes()
    also.failed(Down())
    assert state_file(root).read_bytes() == closed, "a slow failure opens nothing that was closed since"


def test_a_slow_failing_call_through_a_calm_breaker_does_not_open_what_was_closed_since(
    root: Path, clock: Clock
) -> None:
    breaker, other = made(root, clock, threshold=1), made(root, clock, threshold=1)
    breaker.call(int)

    def slow() -> None:
        other.trip()
        other.reset()
        raise Down

    with pytest.raises(Down):
        breaker.call(slow)
    assert (breaker.state, breaker.failures) == ("closed", 0)


def test_a_try_ends_without_effect_when_somebody_closed_or_opened_it_meanwhile(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)
    breaker.trip(0.0)
    ticket = breaker.enter()
    breaker.open_until(clock.wall + 500)
    ticket.succeeded()
    ticket.failed(Down())
    assert (breaker.state, breaker.retry_after()) == ("open", 500.0)


def test_tasks_and_coroutine_functions_are_guarded_and_a_cancelled_one_frees_its_ticket(
    root: Path, clock: Clock
) -> None:
    breaker, service = made(root, clock), Service()

    @breaker
    async def fetch(wait: asyncio.Event | None = None, entered: asyncio.Event | None = None) -> str:
        if entered is not None:
            entered.set()
        if wait is not None:
            await wait.wait()
        return service()

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(Down):
                await fetch()
        with pytest.raises(CircuitOpen):
            await fetch()
        assert service.calls == 3
        clock.sleep(60)
        gate, entered = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(fetch(gate, entered))
        await entered.wait()
        with pytest.raises(CircuitOpen):
            await fetch()
        with pytest.raises(CircuitOpen):
            async with breaker:
                pass
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert breaker.state == "half_open"
        service.down = False
        assert await fetch() == "fine"
        assert breaker.state == "closed"
        many = await asyncio.gather(*(fetch() for _ in range(20)))
        assert many == ["fine"] * 20
        assert await breaker.call_async(fetch) == "fine"
        with pytest.raises(Down):
            async with breaker, breaker:
                raise Down
        assert breaker.failures == 2, "a block within a block is another call"

    asyncio.run(scenario())
    assert fetch.__name__ == "fetch"
    require_tidy(root)


def test_a_block_is_left_where_it_was_entered(root: Path, clock: Clock) -> None:
    with pytest.raises(RuntimeError, match="did not enter"):
        made(root, clock).__exit__(None, None, None)


# --- a kill at each step of each change


def _count(root: Path, clock: Clock) -> None:
    fail(made(root, clock), Service())


def _open(root: Path, clock: Clock) -> None:
    fail(made(root, clock, threshold=2), Service())


def _reset(root: Path, clock: Clock) -> None:
    made(root, clock).call(int)


def _reopen(root: Path, clock: Clock) -> None:
    clock.sleep(60)
    fail(made(root, clock), Service())


def _close(root: Path, clock: Clock) -> None:
    clock.sleep(60)
    made(root, clock).call(int)


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("change", [_count, _open, _reset, _reopen, _close])
def test_a_kill_at_any_step_leaves_the_state_old_or_new_and_the_next_caller_works(
    tmp_path: Path, clock: Clock, change: Callable[[Path, Clock], None], damaged: bool
) -> None:
    opened = change in (_reopen, _close)
    if damaged and change is not _count:
        return

    def fresh(n: int) -> tuple[Path, Clock]:
        root, now = tmp_path / f"root{n}", Clock()
        (root / "postbox").mkdir(parents=True)
        if opened:
            made(root, now).trip()
        else:
            fail(made(root, now), Service())
        if damaged:
            state_file(root).write_text("half a fi")
        return root, now

    listing = tmp_path / "steps"
    root, now = fresh(0)
    assert in_child(lambda: change(root, now), f"*=list={listing}") == 0
    new = parse(state_file(root).read_text())
    met = listing.read_text().split()
    assert {"lock:1", "stage:1", "put:1", "put-renamed:1"} <= set(met)
    assert ("probe:1" in met) == opened
    assert ("put-away:1" in met) == damaged
    for n, step in enumerate(met, 1):
        root, now = fresh(n)
        old = None if damaged else parse(state_file(root).read_text())
        assert in_child(lambda root=root, now=now: change(root, now), f"{step}=kill") == -signal.SIGKILL, step  # type: ignore[misc]
        renamed = met.index("put-renamed:1") < n
        if damaged and not renamed:
            text = state_file(root).read_text() if state_file(root).exists() else "half a fi"
            assert text == "half a fi", step
        else:
            found = parse(state_file(root).read_text())
            expected = new if renamed else old
            assert expected is not None
            assert (found.state, found.failures) == (expected.state, expected.failures), step
            assert found.generation == expected.generation
        breaker = made(root, now, threshold=9)
        if breaker.state == "open":
            now.sleep(120)  # the 60 that the child slept, and as long again
        before = breaker.failures
        fail(breaker, Service())
        assert breaker.failures == before + 1, f"{step}: counted once, and once only"
        require_tidy(root, *(["svc.json.damaged"] if damaged else []))


def test_eight_processes_lose_no_failure(root: Path, clock: Clock) -> None:
    def work() -> None:
        for _ in range(5):
            fail(made(root, clock, threshold=1000), Service())

    pids = []
    reader, writer = os.pipe()
    for _ in range(8):
        pid = os.fork()
        if not pid:
            try:
                os.close(writer)
                os.read(reader, 1)
                work()
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    os.close(reader)
    os.close(writer)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 8
    assert made(root, clock).failures == 40
    require_tidy(root)


# --- files that are not what they should be, disks that don't do what they should


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1}', b'{"format": 1, "state": "open", "failures": -1}', b"[" * 100000],
)
def test_a_damaged_state_file_counts_as_closed_and_is_put_away_when_next_written(
    root: Path, clock: Clock, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    breaker, service = made(root, clock), Service(down=False)
    breaker.trip()
    state_file(root).write_bytes(text)
    state_file(root).with_name("svc.json.damaged").write_text("an older one")
    for _ in range(3):
        assert breaker.call(service) == "fine"
    assert state_file(root).read_bytes() == text, "a success writes nothing"
    assert caplog.text.count("counts as closed") == 1
    fail(breaker, service)
    assert (breaker.state, breaker.failures) == ("closed", 1)
    assert state_file(root).with_name("svc.json.damaged").read_text() == "an older one"
    assert state_file(root).with_name("svc.json.damaged.1").read_bytes() == text
    require_tidy(root, "svc.json.damaged", "svc.json.damaged.1")


def test_a_state_file_of_a_newer_version_counts_as_closed_and_is_left_alone(
    root: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    breaker, service = made(root, clock, threshold=1), Service()
    breaker.trip()
    text = state_file(root).read_text().replace('"format": 1', '"format": 2')
    state_file(root).write_text(text)
    fail(breaker, service, 3)
    assert state_file(root).read_text() == text
    assert caplog.text.count("counts as closed") == 1
    with pytest.raises(Unavailable, match="format 2"):
        breaker.reset()
    require_tidy(root)


def test_a_folder_in_the_place_of_the_state_file_is_said_once_and_put_away(
    root: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    state_file(root).mkdir(parents=True)
    breaker = made(root, clock)
    assert [breaker.call(int) for _ in range(3)] == [0, 0, 0]
    assert caplog.text.count("counts as closed") == 1
    fail(breaker, Service())
    assert breaker.failures == 1
    assert state_file(root).with_name("svc.json.damaged").is_dir()


def test_a_link_in_the_place_of_a_tickets_lock_is_refused(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)
    breaker.trip(0.0)
    victim = root / "victim"
    victim.write_text("precious")
    (root / "data/breakers/.svc.probe0.turn").symlink_to(victim)
    with pytest.raises(Unavailable, match="not a regular file"):
        breaker.call(int)
    assert victim.read_text() == "precious"


def test_a_tickets_lock_file_that_is_removed_meanwhile_is_no_lock(root: Path, clock: Clock) -> None:
    breaker = made(root, clock)
    breaker.trip(0.0)
    breaker.enter().cancelled()
    lock = root / "data/breakers/.svc.probe0.turn"
    lock.unlink()
    ticket = breaker.enter()
    assert lock.exists()
    with pytest.raises(CircuitOpen):
        threading_call(breaker.enter)
    ticket.succeeded()
    assert breaker.state == "closed"


@pytest.mark.parametrize("fault", ["stage=ENOSPC", "stage-written=EIO", "lock=EIO", "put=EROFS", "put-renamed=EIO"])
def test_a_disk_that_cannot_be_written_costs_the_count_not_the_call(root: Path, clock: Clock, fault: str) -> None:
    breaker = made(root, clock, threshold=1)
    breaker.call(int)

    def failing() -> None:
        with pytest.raises(Down, match="no route"):
            breaker.call(Service())

    assert in_child(failing, fault) == 0
    if not fault.startswith("put-renamed"):
        assert breaker.state == "closed"
    breaker.reset()
    breaker.trip(0.0)

    def trying() -> None:
        assert made(root, clock).call(Service(down=False)) == "fine"

    assert in_child(trying, fault) == 0
    assert breaker.state in ("half_open", "closed")
    assert breaker.call(int) == 0
    assert breaker.state == "closed"
    require_tidy(root)


def test_a_workspace_that_is_gone_or_cannot_be_read_fails_no_call(
    root: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = made(root, clock)
    (root / "data").write_text("no folder")
    assert [breaker.call(int) for _ in range(3)] == [0, 0, 0]
    with pytest.raises(Down):
        breaker.call(Service())
    assert "can't be kept" in caplog.text or "can't be read" in caplog.text
    (root / "data").unlink()
    clock.sleep(60)
    fail(breaker, Service())
    assert breaker.failures == 1


def test_a_state_file_that_cannot_be_made_is_not_tried_with_each_call(
    root: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "data").mkdir()
    (root / "data/.commit.lock").symlink_to("elsewhere")
    breaker = made(root, clock)
    assert [breaker.call(int) for _ in range(3)] == [0, 0, 0]
    assert caplog.text.count("can't be kept") == 1
    clock.sleep(60)
    (root / "data/.commit.lock").unlink()
    assert breaker.call(int) == 0
    assert state_file(root).exists()
    require_tidy(root)


def test_a_busy_state_file_costs_the_count_after_a_short_wait(root: Path, clock: Clock) -> None:
    breaker = CircuitBreaker("svc", 1, session=Session(root, 0.05), clock=lambda: clock.wall, uptime=lambda: clock.up)
    breaker.call(int)
    with (root / "data/breakers/.svc.json.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fail(breaker, Service())
    assert breaker.failures == 0


# --- people's side


def test_all_breakers_are_listed_and_damaged_ones_named(root: Path, clock: Clock) -> None:
    with Session(root).store() as store:
        assert all_breakers(store) == []
        made(root, clock).trip(30, "by hand")
        CircuitBreaker("other", base_path=root).call(int)
        (root / "data/breakers/torn.json").write_text("{")
        found = {one["name"]: one for one in all_breakers(store, lambda: clock.wall, lambda: clock.up)}
    assert list(found) == ["other", "svc", "torn"]
    assert (found["svc"]["state"], found["svc"]["retry_after"], found["svc"]["reason"]) == ("open", 30.0, "by hand")
    assert found["svc"]["until"] == "2027-01-15T08:00:30Z"
    assert (found["other"]["state"], found["other"]["until"], found["other"]["probes"]) == ("closed", None, [])
    assert "damaged" in found["torn"]["problem"]
    assert made(root, clock).describe()["failure_threshold"] == 3


def test_an_opening_is_said_once_with_its_reason(root: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    breaker = made(root, clock, threshold=2)
    with caplog.at_level(logging.WARNING, "recovery"):
        fail(breaker, Service(), 2)
    assert caplog.messages == ["circuit svc is open until 2027-01-15T08:01:00Z: Down: no route"]


def test_bad_names_and_numbers_are_refused_before_a_file_is_touched(root: Path) -> None:
    for name in ("", "../x", "a/b", ".x"):
        with pytest.raises(UsageError):
            CircuitBreaker(name, base_path=root)
    with pytest.raises(UsageError):
        CircuitBreaker("svc", 0, base_path=root)
    with pytest.raises(UsageError):
        CircuitBreaker("svc", base_path=root).trip(-1)
    assert not (root / "data").exists()


def test_watched_files_are_closed_with_their_breaker(root: Path, clock: Clock) -> None:
    before = len(os.listdir("/proc/self/fd"))
    session = Session(root)
    for n in range(100):
        breaker = CircuitBreaker(f"b{n}", session=session)
        breaker.call(int)
        breaker.call(int)
    assert len(os.listdir("/proc/self/fd")) - before < 10
    descriptor = next(iter(module._OpenFile.all))
    os.close(descriptor)
    assert breaker.call(int) == 0, "a daemon that closed all descriptors goes on"


@pytest.mark.parametrize("to", ["closed", "open"])
def test_who_wins_a_ticket_looks_again_at_what_was_decided_meanwhile(
    root: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    breaker, other = made(root, clock), made(root, clock)
    breaker.trip(0.0)
    met: list[str] = []

    def at(step: str, detail: object = "") -> None:
        if step == "locked" and "probe0" in str(detail) and not met:
            met.append(step)
            if to == "closed":
                other.reset()
            else:
                other.open_until(clock.wall + 500)

    monkeypatch.setattr(steps, "at", at)
    if to == "closed":
        ticket = breaker.enter()
        assert not ticket.is_probe
        require_free(root / "data/breakers/.svc.probe0.turn")
        ticket.succeeded()
    else:
        with pytest.raises(CircuitOpen) as refused:
            breaker.enter()
        assert refused.value.retry_after == 500.0
        require_free(root / "data/breakers/.svc.probe0.turn")
    assert met
    assert breaker.state == to
