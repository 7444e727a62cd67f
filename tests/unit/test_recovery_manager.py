"""What RecoveryManager promises: tries, strategies, the books, and that nobody's result or error is ever lost."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import pickle
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from recovery import flock
from recovery.commands import CommandFailed
from recovery.errors import AncestorHolds, Denied, LockTimeout
from recovery_manager import (
    CircuitBreaker,
    CircuitOpen,
    RecoveryManager,
    RecoveryStrategy,
    RetryBudget,
    RollbackFailed,
    TaskFailedError,
    TaskParkedError,
    TaskState,
    TaskTimeout,
    UsageError,
)
from support import programs
from support.workspace import Workspace

OUTBOX = "postbox/CC/outbox.json"


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path / "ws")


class Sleeper:
    """Stands in for sleeping: remembers for how long, and lets a test act meanwhile."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.meanwhile()


def manager(space: Workspace, **more: Any) -> RecoveryManager:
    more.setdefault("sleep", Sleeper())
    more.setdefault("notifiers", [])
    return RecoveryManager(space.root, **more)


class Failing:
    """Raises the errors given, one a call, then returns "done"."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def log_of(space: Workspace, task: str = "T-1") -> list[dict[str, Any]]:
    path = space.path(f"logs/recovery/{task}_recovery.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def states(mgr: RecoveryManager, task: str = "T-1") -> list[str]:
    return [str(one.state) for one in mgr.checkpoint_history(task)]


# --- tries


def test_a_task_that_succeeds_is_called_once_and_leaves_its_checkpoints(space: Workspace) -> None:
    mgr, work = manager(space), Failing()
    assert mgr.execute_with_recovery("T-1", work) == "done"
    assert work.calls == 1
    assert states(mgr) == ["running", "completed"]
    assert log_of(space) == []
    assert programs.strays(space.root) == []


def test_arguments_and_results_pass_unchanged(space: Workspace) -> None:
    mgr = manager(space)
    result = object()

    @mgr.with_recovery("T-1")
    def work(a: int, *, b: int) -> tuple[int, int, object]:
        """Its own words."""
        return a, b, result

    assert work(1, b=2) == (1, 2, result)
    assert work.__doc__ == "Its own words."
    assert mgr.execute_with_recovery("T-1", work, (1,), {"b": 3}) == (1, 3, result)


def test_methods_can_be_decorated(space: Workspace) -> None:
    mgr = manager(space)

    class Worker:
        n = 5

        @mgr.with_recovery("T-1", checkpoint_enabled=False)
        def plain(self, more: int) -> int:
            return self.n + more

        @mgr.with_recovery("T-2")
        def kept(self, more: int) -> int:
            return self.n + more

    assert (Worker().plain(2), Worker().kept(3)) == (7, 8)


@pytest.mark.parametrize("checkpoint_enabled", [True, False])
def test_a_task_that_makes_it_at_the_third_try_is_one_success(space: Workspace, checkpoint_enabled: bool) -> None:
    sleeper = Sleeper()
    mgr, work = manager(space, sleep=sleeper, random=lambda: 0.5), Failing(ConnectionError("a"), TimeoutError("b"))
    assert mgr.with_recovery("T-1", checkpoint_enabled=checkpoint_enabled)(work)() == "done"
    assert work.calls == 3
    assert sleeper.slept == [1.0, 2.0]  # half of 2 and of 4 seconds
    numbers = mgr.get_recovery_stats()
    assert (numbers["total_recoveries"], numbers["success_rate"]) == (1, 1.0)
    lines = log_of(space)
    assert [(line["error_type"], line["success"]) for line in lines] == [
        ("ConnectionError", False),
        ("TimeoutError", False),
        ("TimeoutError", True),
    ]
    assert lines[-1]["details"]["outcome"] == "recovered"
    assert lines[-1]["details"]["attempts"] == 3
    assert len({line["details"]["incident"] for line in lines}) == 1


def test_three_tries_in_all_then_the_last_error_is_the_cause(space: Workspace) -> None:
    mgr = manager(space)
    work = Failing(*[ConnectionError(f"try {n}") for n in (1, 2, 3, 4)])
    with pytest.raises(TaskFailedError, match=r"^Task TASK-002 failed after 3 retries: try 3$") as failure:
        mgr.execute_with_recovery("TASK-002", work)
    assert work.calls == 3
    assert str(failure.value.__cause__) == "try 3"
    assert (failure.value.attempts, failure.value.outcome) == (3, "failed")
    assert states(mgr, "TASK-002")[-1] == "failed"


@pytest.mark.parametrize(
    ("more", "calls"), [({"max_attempts": 1}, 1), ({"max_retries": 1}, 2), ({"max_retries": 0}, 1)]
)
def test_attempts_count_all_tries_and_retries_those_after_the_first(
    space: Workspace, more: dict[str, Any], calls: int
) -> None:
    for where in ("manager", "task"):
        mgr = manager(space, **(more if where == "manager" else {}))
        work = Failing(*[ConnectionError("?")] * 9)
        with pytest.raises(TaskFailedError):
            mgr.execute_with_recovery("T-1", work, **(more if where == "task" else {}))
        assert work.calls == calls


def test_senseless_options_are_refused(space: Workspace) -> None:
    for more in ({"max_attempts": 0}, {"max_attempts": 2, "max_retries": 2}, {"checkpoint_dir": "/etc"}):
        with pytest.raises(UsageError):
            manager(space, **more)
    mgr = manager(space)
    with pytest.raises(UsageError):
        mgr.with_recovery("../T")
    with pytest.raises(UsageError):
        mgr.with_recovery("T-1", "PRAY")
    with pytest.raises(UsageError):
        mgr.with_recovery("T-1", timeout=-1)
    with pytest.raises(TypeError, match="no option protekt"):
        mgr.with_recovery("T-1", protekt=[])


def test_pauses_are_jittered_double_and_stop_at_the_cap(space: Workspace) -> None:
    mgr = manager(space, initial_retry_delay=4.0, max_retry_delay=10.0, random=lambda: 1.0)
    assert [mgr.pause_before(n) for n in (2, 3, 4, 5)] == [4.0, 8.0, 10.0, 10.0]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize("checkpoint_enabled", [True, False])
def test_cancellation_is_never_retried_or_swallowed(
    space: Workspace, error: BaseException, checkpoint_enabled: bool
) -> None:
    work = Failing(error, error)
    with pytest.raises(type(error)):
        manager(space).execute_with_recovery("T-1", work, checkpoint_enabled=checkpoint_enabled)
    assert work.calls == 1


def test_ctrl_c_between_two_tries_ends_the_incident_as_cancelled(space: Workspace) -> None:
    sleeper = Sleeper()
    mgr = manager(space, sleep=sleeper)

    def stop() -> None:
        raise KeyboardInterrupt

    sleeper.meanwhile = stop
    with pytest.raises(KeyboardInterrupt):
        mgr.execute_with_recovery("T-1", Failing(ConnectionError("?")))
    assert log_of(space)[-1]["details"]["outcome"] == "cancelled"
    numbers = mgr.get_recovery_stats()
    assert (numbers["total_recoveries"], numbers["cancelled_recoveries"]) == (0, 1)


def test_an_ancestors_lock_is_not_waited_for_again(space: Workspace) -> None:
    work = Failing(*[AncestorHolds("mother holds it")] * 3)
    with pytest.raises(TaskFailedError):
        manager(space).execute_with_recovery("T-1", work)
    assert work.calls == 1


# --- strategies


def broken_json() -> Exception:
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "outcome", "calls"),
    [
        (ConnectionResetError("peer"), "failed", 3),
        (BlockingIOError(11, "again"), "failed", 3),
        (InterruptedError(4, "interrupted"), "failed", 3),
        (LockTimeout("busy"), "failed", 3),
        (RuntimeError("who knows"), "failed", 3),
        (broken_json(), "failed", 1),  # ROLLBACK, with nothing to put back
        (KeyError("tasks"), "failed", 1),
        (PermissionError(13, "no"), "escalated", 1),
        (Denied("no"), "escalated", 1),
        (subprocess.CalledProcessError(127, ["x"]), "escalated", 1),
        (CommandFailed("x", 75, ["x"]), "failed", 3),
    ],
)
def test_each_error_gets_its_strategy(space: Workspace, error: Exception, outcome: str, calls: int) -> None:
    work = Failing(error, error, error)
    with pytest.raises(TaskFailedError) as failure:
        manager(space).execute_with_recovery("T-1", work)
    assert (failure.value.outcome, work.calls) == (outcome, calls)
    assert failure.value.__cause__ is error
    assert log_of(space)[-1]["details"]["outcome"] == outcome


def test_the_strategy_is_chosen_at_each_failure_anew(space: Workspace) -> None:
    work = Failing(ConnectionError("a"), PermissionError(13, "b"))
    with pytest.raises(TaskFailedError) as failure:
        manager(space).execute_with_recovery("T-1", work)
    assert (work.calls, failure.value.outcome) == (2, "escalated")
    assert [line["strategy"] for line in log_of(space)] == ["RETRY", "ESCALATE", "ESCALATE"]


class Quota(ConnectionError):
    pass


def test_the_users_rules_come_first(space: Workspace) -> None:
    """By type with inheritance, by predicate, by exit code; those of the task before those of the manager."""
    mgr = manager(space, rules=[(ConnectionError, RecoveryStrategy.SKIP), (lambda e: "odd" in str(e), "MANUAL")])
    assert mgr.execute_with_recovery("T-1", Failing(Quota("?"))) is None
    assert mgr.execute_with_recovery("T-2", Failing(Quota("?")), rules=[(Quota, "RETRY")]) == "done"
    with pytest.raises(TaskParkedError):
        mgr.execute_with_recovery("T-3", Failing(ValueError("odd")))
    for code in (3, range(1, 5), (3, 4), {3}):
        error = subprocess.CalledProcessError(3, ["x"])
        assert mgr.execute_with_recovery("T-4", Failing(error), rules=[(code, "SKIP")]) is None
    with pytest.raises(TaskFailedError):
        mgr.execute_with_recovery("T-4", Failing(*[subprocess.CalledProcessError(9, ["x"])] * 3), rules=[(3, "SKIP")])


def test_a_predicate_that_raises_does_not_match(space: Workspace) -> None:
    mgr = manager(space, rules=[(lambda error: error.no_such_thing, "SKIP")])
    assert mgr.execute_with_recovery("T-1", Failing(ValueError("?"))) == "done"


def test_a_given_strategy_is_taken_for_every_error(space: Workspace) -> None:
    work = Failing(PermissionError(13, "not yet"))
    assert manager(space).execute_with_recovery("T-1", work, strategy=RecoveryStrategy.RETRY) == "done"


def test_skip_returns_none_and_is_recorded(space: Workspace) -> None:
    mgr = manager(space)
    assert mgr.execute_with_recovery("T-1", Failing(ValueError("?")), strategy=RecoveryStrategy.SKIP) is None
    assert states(mgr)[-1] == "skipped"
    assert log_of(space)[-1]["details"]["outcome"] == "skipped"


def test_manual_parks_the_task_until_a_person_removes_the_flag(space: Workspace) -> None:
    mgr = manager(space)
    work = Failing(ValueError("look at me"))
    with pytest.raises(TaskParkedError, match="look at me") as parked:
        mgr.execute_with_recovery("T-1", work, strategy="manual")
    assert parked.value.code == 70
    flag = space.path("data/manual/T-1.json")
    assert json.loads(flag.read_text())["error_message"] == "look at me"
    for checkpoint_enabled in (True, False):
        with pytest.raises(TaskParkedError, match="look at me"):
            mgr.execute_with_recovery("T-1", work, checkpoint_enabled=checkpoint_enabled)
    assert work.calls == 1
    flag.unlink()
    assert mgr.execute_with_recovery("T-1", work) == "done"


def test_parking_tells_the_notifiers_once(space: Workspace) -> None:
    told: list[dict[str, Any]] = []
    mgr = manager(space, notifiers=[told.append])
    for _ in range(2):
        with pytest.raises(TaskParkedError):
            mgr.execute_with_recovery("T-1", Failing(ValueError("look")), strategy="MANUAL")
    assert [(event["task_id"], event["file"]) for event in told] == [("T-1", "data/manual/T-1.json")]


def test_generators_are_refused(space: Workspace) -> None:
    def words() -> Any:
        yield 1

    with pytest.raises(UsageError, match="is a generator"):
        manager(space).with_recovery("T-1")(words)


def test_debug_traces_tries_and_strategies_in_programs_too(space: Workspace) -> None:
    code = INCIDENT.replace("calls = []", "calls = [1]")
    done = programs.run(space.root, code.replace("steps.install", "len"), RECOVERY_DEBUG="1")
    assert done.code == 0, done
    assert "attempt        1 of T-1" in done.err
    assert "RETRY for ConnectionError in T-1" in done.err
    assert done.out == ""


def test_escalation_writes_a_file_and_tells_the_notifiers_once(space: Workspace) -> None:
    told: list[dict[str, Any]] = []
    mgr = manager(space, notifiers=[told.append])
    for word in ("locked out", "locked out", "another reason"):
        with pytest.raises(TaskFailedError, match="escalated"):
            mgr.execute_with_recovery("T-1", Failing(PermissionError(13, word)))
    files = sorted(path.name for path in space.path("logs/recovery").glob("*_escalation*.json"))
    assert files == ["T-1_escalation.1.json", "T-1_escalation.json"]
    assert len(told) == 2
    assert len(mgr.open_escalations()) == 2


def test_a_notifier_that_fails_hides_nothing(space: Workspace) -> None:
    def broken(event: dict[str, Any]) -> None:
        raise OSError("no mail today")

    with pytest.raises(TaskFailedError, match="the real error") as failure:
        manager(space, notifiers=[broken]).execute_with_recovery("T-1", Failing(PermissionError("the real error")))
    assert isinstance(failure.value.__cause__, PermissionError)


# --- rollback


def test_rollback_restores_the_protected_files_and_says_which(space: Workspace) -> None:
    mgr = manager(space)
    before = space.path(OUTBOX).read_bytes()

    def work() -> None:
        space.path(OUTBOX).write_text("half")
        raise broken_json()

    with pytest.raises(TaskFailedError, match=f"rolled back: {OUTBOX}") as failure:
        mgr.execute_with_recovery("T-1", work, protect=[OUTBOX])
    assert failure.value.restored == [OUTBOX]
    assert failure.value.outcome == "rolled_back"
    assert space.path(OUTBOX).read_bytes() == before
    assert space.path(f"{OUTBOX}.backup_T-1").read_bytes() == before  # kept on a failure
    assert states(mgr)[-1] == "rolled_back"
    assert log_of(space)[-1]["details"]["restored"] == [OUTBOX]


def test_a_retry_begins_with_the_protected_files_as_they_were(space: Workspace) -> None:
    mgr = manager(space)
    before = space.path(OUTBOX).read_text()
    seen = []

    def work() -> None:
        seen.append(space.path(OUTBOX).read_text())
        space.path(OUTBOX).write_text("half")
        if len(seen) < 3:
            raise ConnectionError("?")

    mgr.execute_with_recovery("T-1", work, protect=[space.path(OUTBOX)])
    assert seen == [before] * 3
    assert space.path(OUTBOX).read_text() == "half"  # the third try's own work
    assert not space.path(f"{OUTBOX}.backup_T-1").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_ctrl_c_puts_protected_files_back(space: Workspace, error: BaseException) -> None:
    before = space.path(OUTBOX).read_text()

    def work() -> None:
        space.path(OUTBOX).write_text("half")
        raise error

    with pytest.raises(type(error)):
        manager(space).execute_with_recovery("T-1", work, protect=[OUTBOX])
    assert space.path(OUTBOX).read_text() == before


def test_a_rollback_that_fails_has_an_exception_of_its_own_and_is_escalated(space: Workspace) -> None:
    mgr = manager(space)

    def work() -> None:
        space.path(OUTBOX).unlink()
        space.path(OUTBOX).mkdir()
        raise broken_json()

    with pytest.raises(RollbackFailed, match="Rollback failed") as failure:
        mgr.execute_with_recovery("T-1", work, protect=[OUTBOX])
    assert failure.value.code == 70
    assert isinstance(failure.value.__cause__, json.JSONDecodeError)
    assert log_of(space)[-1]["details"]["outcome"] == "rollback_failed"
    assert [one["task"] for one in mgr.open_escalations()] == ["T-1"]
    assert mgr.get_recovery_stats()["failed_recoveries"] == 1


def test_a_protected_file_outside_of_the_workspace_is_refused_before_the_call(space: Workspace) -> None:
    work = Failing()
    with pytest.raises(UsageError, match="not below the workspace"):
        manager(space).execute_with_recovery("T-1", work, protect=["/etc/passwd"])
    assert work.calls == 0


# --- checkpoints, steps


def test_the_programs_data_outlives_the_suites_own_checkpoints(space: Workspace) -> None:
    mgr = manager(space)
    seen: list[Any] = []

    def work() -> None:
        found = mgr.load_checkpoint("T-1")
        seen.append(None if found is None else found.data)
        mgr.create_checkpoint("T-1", TaskState.RUNNING, {"page": len(seen)})
        if len(seen) < 3:
            raise ConnectionError("?")

    mgr.execute_with_recovery("T-1", work)
    assert seen == [{}, {"page": 1}, {"page": 2}]
    mgr.execute_with_recovery("T-1", lambda: seen.append("again"))
    last = mgr.load_checkpoint("T-1")
    assert last is not None
    assert (last.state, last.data) == (TaskState.COMPLETED, {})  # a new run begins anew


def test_steps_that_are_done_are_skipped_by_the_next_run(space: Workspace) -> None:
    calls: list[str] = []

    def program(die: bool) -> Any:
        mgr = manager(space, max_attempts=1)

        @mgr.step("download")
        def download() -> dict[str, int]:
            calls.append("download")
            return {"bytes": 5}

        @mgr.step("convert")
        def convert(what: dict[str, int]) -> int:
            calls.append("convert")
            if die:
                raise ConnectionError("?")
            return what["bytes"] * 2

        return mgr.execute_with_recovery("T-1", lambda: convert(download()))

    with pytest.raises(TaskFailedError):
        program(die=True)
    assert program(die=False) == 10
    assert calls == ["download", "convert", "convert"]
    assert program(die=False) == 10  # completed: everything anew
    assert calls[3:] == ["download", "convert"]


def test_a_step_outside_of_a_run_needs_a_task(space: Workspace) -> None:
    mgr = manager(space)
    with pytest.raises(UsageError, match="give it a task_id"):
        mgr.step("a")(lambda: 1)()
    count = Failing()
    for _ in range(2):
        assert mgr.step("a", task_id="T-1")(count)() == "done"
    assert count.calls == 1


def test_a_step_whose_result_json_cannot_hold_comes_back_and_is_said(
    space: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    mgr = manager(space)
    result = object()
    assert mgr.execute_with_recovery("T-1", lambda: mgr.step("a")(lambda: result)()) is result
    assert "a next run does it again" in caplog.text


def test_resume_yields_what_is_left(space: Workspace) -> None:
    mgr = manager(space)
    names = ["download", "convert", "upload"]
    done = []
    for step in mgr.resume("T-1", names):
        if step == "convert":
            break
        done.append(step)
    for step in manager(space).resume("T-1", names):
        done.append(step)
    assert done == names
    assert states(mgr)[-1] == "completed"
    assert list(mgr.resume("T-1", names)) == names  # the next run begins anew


RESUME = """
from recovery_manager import RecoveryManager
mgr = RecoveryManager(os.getcwd())
for step in mgr.resume("T-1", ["a", "b", "c"]):
    with open("effects", "a") as out:
        out.write(step)
    steps.at("work", step)
"""


def test_killed_while_resuming_no_step_is_left_out_and_at_most_the_running_one_is_repeated(tmp_path: Path) -> None:
    empty = Workspace.make(tmp_path / "ws")
    for number, step in enumerate(programs.steps_of(empty.copy(tmp_path / "listing").root, RESUME)):
        space = empty.copy(tmp_path / f"run-{number}")
        assert programs.killed(programs.run(space.root, RESUME, fault=f"{step}=kill")), step
        first = space.path("effects").read_text() if space.path("effects").exists() else ""
        assert programs.run(space.root, RESUME).code == 0
        second = space.path("effects").read_text()[len(first) :]
        whole = first == "abc" and second in ("", "c", "abc")  # completed just before: a new run
        assert whole or first + second in ("abc", first + first[-1:] + "abc"[len(first) :]), (step, first, second)
        space.remove()


# --- at most once, breaker, budget, timeout


def test_an_idempotency_key_is_used_once_over_retries_and_repeats(space: Workspace) -> None:
    mgr, work = manager(space), Failing(ConnectionError("before the effect"))
    for _ in range(2):
        assert mgr.execute_with_recovery("T-1", work, idempotency_key="pay-1") == "done"
    assert work.calls == 2


def test_verify_is_asked_before_a_failed_call_is_made_again(space: Workspace) -> None:
    mgr, work = manager(space), Failing(ConnectionError("after the effect"))
    options: dict[str, Any] = {"idempotency_key": "pay-1", "verify": lambda: "found at the bank"}
    assert mgr.execute_with_recovery("T-1", work, **options) == "found at the bank"
    assert mgr.execute_with_recovery("T-1", work, **options) == "found at the bank"
    assert work.calls == 1
    assert mgr.get_recovery_stats()["successful_recoveries"] == 1


PAY = """
from recovery_manager import RecoveryManager
mgr = RecoveryManager(os.getcwd(), notifiers=[])
def pay():
    with open("effects", "a") as out:
        out.write("x")
    steps.at("paid")
    return "receipt"
print(mgr.execute_with_recovery("T-1", pay, idempotency_key="pay-1"))
"""


def test_a_dead_owners_key_parks_the_task_until_a_person_has_settled_it(space: Workspace) -> None:
    assert programs.killed(programs.run(space.root, PAY, fault="paid=kill"))
    mgr = manager(space)
    work = Failing()
    with pytest.raises(TaskParkedError, match="may have taken effect"):
        mgr.execute_with_recovery("T-1", work, idempotency_key="pay-1")
    assert mgr.settle("pay-1", done=True)
    assert mgr.clear_manual("T-1")
    assert mgr.execute_with_recovery("T-1", work, idempotency_key="pay-1") is None
    assert work.calls == 0


@pytest.mark.parametrize("error", [TimeoutError("no answer"), ConnectionResetError("cut off"), BrokenPipeError()])
def test_an_error_that_tells_nothing_is_not_followed_by_another_call(space: Workspace, error: Exception) -> None:
    mgr, work = manager(space), Failing(error)
    with pytest.raises(TaskParkedError, match="T-1 waits for a person"):
        mgr.execute_with_recovery("T-1", work, idempotency_key="pay-1")
    mgr.clear_manual("T-1")
    with pytest.raises(TaskParkedError, match="may have taken effect"):
        mgr.execute_with_recovery("T-1", work, idempotency_key="pay-1")
    assert work.calls == 1


def test_a_key_whose_call_was_never_made_is_free(space: Workspace) -> None:
    """A run that gives up waiting for a breaker, or is cancelled there, leaves nothing unknown."""
    breaker = CircuitBreaker("api", base_path=space.root)
    breaker.trip(100)
    mgr, work = manager(space), Failing()
    with pytest.raises(CircuitOpen):
        mgr.execute_with_recovery("T-1", work, breaker=breaker, max_wait=0, idempotency_key="pay-1")
    breaker.reset()
    assert mgr.execute_with_recovery("T-1", work, breaker=breaker, idempotency_key="pay-1") == "done"


def test_a_key_may_be_a_function_of_the_arguments(space: Workspace) -> None:
    paid: list[int] = []
    mgr = manager(space)

    @mgr.with_recovery("T-1", idempotency_key=lambda invoice: f"invoice-{invoice}")
    def pay(invoice: int) -> str:
        paid.append(invoice)
        return f"receipt {invoice}"

    assert [pay(1), pay(2), pay(1)] == ["receipt 1", "receipt 2", "receipt 1"]
    assert paid == [1, 2]


def test_many_coroutines_with_one_key_call_once(space: Workspace) -> None:
    mgr = manager(space, lock_timeout=10)
    calls: list[int] = []

    @mgr.with_recovery("T-1", idempotency_key="k")
    async def work() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        return 7

    async def main() -> list[int]:
        return await asyncio.gather(*(work() for _ in range(30)))

    assert asyncio.run(main()) == [7] * 30
    assert len(calls) == 1


def test_a_coroutine_that_uses_its_own_breaker_is_part_of_the_try(space: Workspace) -> None:
    now = [1_800_000_000.0]
    breaker = CircuitBreaker("api", 1, 10, base_path=space.root, clock=lambda: now[0], uptime=lambda: now[0])
    breaker.trip()
    now[0] += 11

    @manager(space).with_recovery("T-1", breaker=breaker, max_wait=0)
    async def work() -> str:
        async with breaker:
            return "done"

    assert asyncio.run(work()) == "done"
    assert breaker.state == "closed"


def test_errors_survive_the_way_to_another_process(space: Workspace) -> None:
    error = TaskFailedError("Task T-1 failed", "T-1", 3, "failed", ["a"])
    for one in (error, TaskParkedError("T-1", "why"), CommandFailed("x", -9, ["x"]), RollbackFailed("no", hint="h")):
        copy = pickle.loads(pickle.dumps(one))
        assert (type(copy), str(copy), copy.code, copy.hint) == (type(one), str(one), one.code, one.hint)
    assert (pickle.loads(pickle.dumps(error)).restored, error.restored) == (["a"], ["a"])


def test_an_inner_runs_last_word_is_not_tried_again(space: Workspace) -> None:
    mgr, work = manager(space), Failing(*[ConnectionError("?")] * 9)
    with pytest.raises(TaskFailedError):
        mgr.execute_with_recovery("T-1", lambda: mgr.execute_with_recovery("T-2", work))
    assert work.calls == 3


def test_a_rule_that_is_none_is_refused_at_once(space: Workspace) -> None:
    for rules in ([(ValueError, "PRAY")], [ValueError], [("ValueError", "SKIP", 1)]):
        with pytest.raises(UsageError):
            manager(space, rules=rules)
    assert manager(space, rules=[(ValueError, "skip")]).execute_with_recovery("T-1", Failing(ValueError())) is None


def test_a_breaker_that_opens_between_two_tries_ends_the_incident(space: Workspace) -> None:
    mgr = manager(space)
    breaker = CircuitBreaker("api", 1, 100, base_path=space.root)
    with pytest.raises(CircuitOpen) as refusal:
        mgr.execute_with_recovery("T-1", Failing(ConnectionError("mine")), breaker=breaker, max_wait=0)
    assert str(refusal.value.__cause__) == "mine"
    numbers = mgr.get_recovery_stats()
    assert (numbers["failed_recoveries"], numbers["unfinished_recoveries"]) == (1, 0)
    assert states(mgr)[-1] == "failed"


def test_a_hidden_coroutine_is_refused_and_not_called_completed(space: Workspace) -> None:
    async def fetch() -> int:
        return 1

    mgr = manager(space)
    with pytest.raises(UsageError, match="returned a coroutine"):
        mgr.execute_with_recovery("T-1", cast("Any", lambda: fetch()))
    assert states(mgr)[-1] == "failed"


def test_steps_whose_files_were_put_back_are_done_again(space: Workspace) -> None:
    mgr = manager(space)
    book = space.path("book.txt")
    book.write_text("start\n")
    tries: list[int] = []

    @mgr.step("one")
    def one() -> None:
        book.write_text(book.read_text() + "line one\n")

    @mgr.with_recovery("T-1", protect=["book.txt"], max_attempts=2)
    def job() -> None:
        tries.append(1)
        one()
        if len(tries) in (1, 2, 3):
            raise ConnectionError("?")
        book.write_text(book.read_text() + "line two\n")

    with pytest.raises(TaskFailedError):
        job()
    job()
    assert book.read_text() == "start\nline one\nline two\n"


def test_ctrl_c_after_the_function_has_returned_undoes_nothing(space: Workspace) -> None:
    mgr = manager(space)
    path = space.path("b.txt")
    path.write_text("old")
    real = mgr.session.store
    uses: list[int] = []

    def interrupted() -> Any:
        uses.append(1)
        if path.read_text() == "new":
            mgr.session.store = real  # type: ignore[method-assign]
            raise KeyboardInterrupt
        return real()

    mgr.session.store = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        mgr.execute_with_recovery("T-1", lambda: path.write_text("new"), protect=["b.txt"])
    assert path.read_text() == "new"


def test_ctrl_c_while_a_lock_is_being_taken_leaves_it_free(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt comes between the taking and the `try` that would give the lock back."""
    mgr = manager(space, lock_timeout=1)
    path = space.path("b.txt")
    path.write_text("old")
    real = flock.note_text

    def ctrl_c(*args: Any, **kwargs: Any) -> bytes:
        if path.read_text() == "half" and len(args) == 1 and not kwargs:
            monkeypatch.setattr(flock, "note_text", real)
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    def work() -> None:
        path.write_text("half")
        raise ConnectionError("?")

    monkeypatch.setattr(flock, "note_text", ctrl_c)
    with pytest.raises(KeyboardInterrupt) as kept:
        mgr.execute_with_recovery("T-1", work, protect=["b.txt"])
    assert path.read_text() == "old"
    space.require_locks_free()
    assert kept.value is not None


def test_two_runs_of_one_task_put_back_what_was_good(space: Workspace) -> None:
    mgr = manager(space, max_attempts=1)
    path = space.path("s.txt")
    path.write_text("good")
    half, second_began, first_ended = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        path.write_text("HALF")
        half.set()
        second_began.wait(10)
        raise ConnectionError("a")

    def second() -> None:
        second_began.set()
        first_ended.wait(10)
        raise ConnectionError("b")

    def run(work: Callable[[], None]) -> None:
        with pytest.raises(TaskFailedError):
            mgr.execute_with_recovery("T-1", work, protect=["s.txt"])
        first_ended.set()

    threads = [threading.Thread(target=run, args=(work,)) for work in (first, second)]
    threads[0].start()
    half.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert path.read_text() == "good"


def test_a_workspace_that_was_made_anew_is_used_anew(space: Workspace) -> None:
    mgr = manager(space)
    mgr.create_checkpoint("T-1", "running", {"n": 1})
    shutil.move(space.root, f"{space.root}.old")
    space.path("postbox").mkdir(parents=True)
    mgr.create_checkpoint("T-1", "running", {"n": 2})
    found = RecoveryManager(space.root).load_checkpoint("T-1")
    assert found is not None
    assert found.data == {"n": 2}
    shutil.rmtree(space.path("data/checkpoints"))
    mgr.create_checkpoint("T-1", "running", {"n": 3})
    assert len(mgr.checkpoint_history("T-1")) == 1


def test_the_folder_of_a_protected_file_is_made_again(space: Workspace) -> None:
    folder = space.path("fr")
    folder.mkdir()
    (folder / "f").write_text("precious")
    (folder / "f").chmod(0o600)

    def work() -> None:
        shutil.rmtree(folder)
        raise KeyError("x")

    with pytest.raises(TaskFailedError, match="rolled back: fr/f"):
        manager(space).execute_with_recovery("T-1", work, protect=["fr/f"])
    assert (folder / "f").read_text() == "precious"
    assert (folder / "f").stat().st_mode & 0o777 == 0o600


def test_modes_are_put_back(space: Workspace) -> None:
    path = space.path("secret")
    path.write_text("key")
    path.chmod(0o600)

    def work() -> None:
        space.path("t").write_text("NEW")
        os.replace(space.path("t"), path)
        raise KeyError("x")

    def loosen() -> None:
        path.chmod(0o644)
        raise KeyError("x")

    works: list[Callable[[], None]] = [work, loosen]
    for again in works:
        with pytest.raises(TaskFailedError):
            manager(space).execute_with_recovery("T-1", again, protect="secret")
        assert (path.read_text(), path.stat().st_mode & 0o777) == ("key", 0o600)


FORK = """
import threading, time
from recovery_manager import RecoveryManager
mgr = RecoveryManager(os.getcwd())
inside = threading.Event()
def wait_there(step, detail=""):
    if step == "append":
        inside.set()
        time.sleep(600)
steps.at = wait_there
threading.Thread(target=mgr.create_checkpoint, args=("T-1", "running"), daemon=True).start()
inside.wait()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def test_a_forked_child_does_not_keep_its_dead_parents_locks(space: Workspace) -> None:
    process = programs.start(space.root, FORK)
    try:
        assert process.stdout is not None
        int(process.stdout.readline())
        manager(space, lock_timeout=1).create_checkpoint("T-1", "running")
    finally:
        process.communicate()


def test_a_timed_out_call_with_a_key_is_not_made_again_without_verify(space: Workspace) -> None:
    mgr = manager(space)
    calls = []

    def work() -> None:
        calls.append(1)
        while True:
            time.sleep(0.01)

    with pytest.raises(TaskParkedError):
        mgr.execute_with_recovery("T-1", work, idempotency_key="k", timeout=0.05)
    assert len(calls) == 1
    mgr.clear_manual("T-1")
    with pytest.raises(TaskParkedError):
        mgr.execute_with_recovery("T-1", work, idempotency_key="k", timeout=0.05)
    assert len(calls) == 1


def test_a_timeout_is_retried(space: Workspace) -> None:
    slow = [True, False]

    def work() -> str:
        while slow.pop(0):
            time.sleep(30)
        return "done"

    def waits() -> str:
        if slow.pop(0):
            time.sleep(30)
        return "done"

    assert manager(space).execute_with_recovery("T-1", waits, timeout=0.05) == "done"
    assert log_of(space)[0]["error_type"] == TaskTimeout.__name__


def test_a_plain_function_in_another_thread_cannot_be_timed_out_and_is_not_called(space: Workspace) -> None:
    mgr, work = manager(space), Failing()
    errors: list[BaseException] = []

    def other() -> None:
        try:
            mgr.execute_with_recovery("T-1", work, timeout=1)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert work.calls == 0
    assert "main thread" in str(errors[0])


def test_while_the_breaker_is_open_the_run_waits_and_uses_up_no_try(space: Workspace) -> None:
    now = [1_800_000_000.0]
    sleeper = Sleeper()
    breaker = CircuitBreaker("api", 1, 100.0, base_path=space.root, clock=lambda: now[0], uptime=lambda: now[0])
    mgr = manager(space, sleep=sleeper, clock=lambda: now[0], random=lambda: 0.5, retry_budget=None)

    def later() -> None:
        now[0] += sleeper.slept[-1]

    sleeper.meanwhile = later
    work = Failing(ConnectionError("a"), ConnectionError("b"))
    assert mgr.execute_with_recovery("T-1", work, breaker=breaker, max_attempts=3) == "done"
    assert work.calls == 3
    assert sum(seconds >= 100 for seconds in sleeper.slept) == 2  # parked twice, besides the two pauses
    assert breaker.state == "closed"


def test_a_breaker_further_in_is_waited_for_likewise(space: Workspace) -> None:
    sleeper = Sleeper()
    breaker = CircuitBreaker("api", base_path=space.root)
    mgr, work = manager(space, sleep=sleeper, random=lambda: 1.0), Failing()
    breaker.trip(1000)
    sleeper.meanwhile = breaker.reset
    assert mgr.execute_with_recovery("T-1", breaker(work), max_attempts=1) == "done"
    assert len(sleeper.slept) == 1
    assert 1020 < sleeper.slept[0] <= 1030  # and spread out
    assert log_of(space) == []


def test_a_wait_for_the_breaker_that_is_too_long_is_refused(space: Workspace) -> None:
    breaker = CircuitBreaker("api", base_path=space.root)
    breaker.trip(1000)
    work = Failing()
    with pytest.raises(CircuitOpen):
        manager(space).execute_with_recovery("T-1", work, breaker=breaker, max_wait=10)
    assert work.calls == 0


def test_a_used_up_budget_ends_the_tries_and_says_so(space: Workspace) -> None:
    mgr = manager(space)
    mgr.retry_budget = RetryBudget(per_task=1, overall=10, session=mgr.session)
    work = Failing(*[ConnectionError("?")] * 9)
    with pytest.raises(TaskFailedError, match="budget"):
        mgr.execute_with_recovery("T-1", work, max_attempts=9)
    assert work.calls == 2


def test_auto_timeouts_learn_from_successes(space: Workspace) -> None:
    mgr = manager(space)
    for _ in range(3):
        mgr.execute_with_recovery("T-1", lambda: 1, timeout="auto", checkpoint_enabled=False)
    assert len(space.path("data/timings/T-1.jsonl").read_text().splitlines()) == 3


def test_commands_fail_by_exit_code(space: Workspace) -> None:
    mgr = manager(space)
    assert mgr.run_command("T-1", ["sh", "-c", "echo hello"]).stdout == "hello\n"
    with pytest.raises(TaskFailedError, match="exit") as failure:
        mgr.run_command("T-1", ["sh", "-c", "exit 3"], rules=[(3, "ESCALATE")])
    assert failure.value.outcome == "escalated"


# --- coroutines


def test_coroutines_are_run_retried_and_checkpointed(space: Workspace) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    mgr = manager(space, async_sleep=sleep, random=lambda: 1.0)
    work = Failing(ConnectionError("?"))

    @mgr.with_recovery("T-1")
    async def task(more: str) -> str:
        await asyncio.sleep(0)
        return work() + more

    assert asyncio.run(task("!")) == "done!"
    assert slept == [2.0]
    assert states(mgr) == ["running", "retrying", "completed"]
    coroutine: Any = mgr.execute_with_recovery("T-2", task, ("?",))
    assert asyncio.run(coroutine) == "done?"
    coroutine = mgr.execute_with_recovery("T-3", functools.partial(functools.partial(task), "."))
    assert asyncio.run(coroutine) == "done."


def test_a_cancelled_coroutine_passes_and_puts_files_back(space: Workspace) -> None:
    mgr = manager(space)
    before = space.path(OUTBOX).read_text()

    @mgr.with_recovery("T-1", protect=[OUTBOX])
    async def task(inside: asyncio.Event) -> None:
        space.path(OUTBOX).write_text("half")
        inside.set()
        await asyncio.Event().wait()

    async def main() -> None:
        inside = asyncio.Event()
        running = asyncio.create_task(task(inside))
        await inside.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert space.path(OUTBOX).read_text() == before


def test_a_coroutines_timeout_is_retried_and_steps_work_in_it(space: Workspace) -> None:
    async def sleep(seconds: float) -> None:
        pass

    mgr = manager(space, async_sleep=sleep)
    calls: list[str] = []

    @mgr.step("a")
    async def first() -> str:
        calls.append("a")
        return "A"

    @mgr.with_recovery("T-1", timeout=0.2)
    async def task() -> str:
        result = await first()
        calls.append("b")
        if calls.count("b") == 1:
            await asyncio.Event().wait()
        return result

    assert asyncio.run(task()) == "A"
    assert calls == ["a", "b", "b"]


# --- what must not happen


def test_a_full_disk_never_hides_the_functions_result_or_error(tmp_path: Path) -> None:
    """Every write of the books fails: the result and the error come back all the same, and the loss is said."""
    code = """
from recovery_manager import RecoveryManager
mgr = RecoveryManager(os.getcwd(), sleep=lambda seconds: None, notifiers=[])
calls = []
def work():
    calls.append(1)
    if len(calls) < 3:
        raise ConnectionError("the real error")
    return "result"
def broken():
    raise PermissionError("the real error")
import recovery.steps
inject = recovery.steps.at
print(mgr.execute_with_recovery("T-1", work))
try:
    mgr.execute_with_recovery("T-2", broken)
except Exception as error:
    print(type(error.__cause__).__name__, error.__cause__)
"""
    for step in ("append", "stage", "put", "mkdir", "snapshot"):
        space = Workspace.make(tmp_path / step)
        faults = ",".join(f"{step}:{n}=ENOSPC" for n in range(1, 60))
        done = programs.run(space.root, code, fault=faults)
        assert done.out.splitlines() == ["result", "PermissionError the real error"], (step, done)
        if step in ("append", "mkdir"):
            assert "No space left" in done.err, step


def test_the_child_of_a_function_that_forks_keeps_no_books(space: Workspace) -> None:
    mgr = manager(space)
    parent = os.getpid()

    def work() -> str:
        child = os.fork()
        if child == 0:
            return "child"
        os.waitpid(child, 0)
        return "parent"

    result = mgr.execute_with_recovery("T-1", work)
    if os.getpid() != parent:
        os._exit(0 if result == "child" else 1)
    assert result == "parent"
    assert states(mgr) == ["running", "completed"]


def test_an_exception_whose_text_cannot_be_made_is_logged_all_the_same(space: Workspace) -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    with pytest.raises(TaskFailedError) as failure:
        manager(space).execute_with_recovery("T-1", Failing(*[Rude()] * 3))
    assert isinstance(failure.value.__cause__, Rude)
    assert log_of(space)[-1]["error_type"] == "Rude"


def test_threads_share_one_manager(space: Workspace) -> None:
    mgr = manager(space)
    barrier = threading.Barrier(8)
    results: list[Any] = []

    def one(n: int) -> None:
        work = Failing(ConnectionError("?"))
        barrier.wait()
        results.append(mgr.execute_with_recovery(f"T-{n}", work))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["done"] * 8
    assert mgr.get_recovery_stats()["successful_recoveries"] == 8


def test_a_clock_that_is_set_back_an_hour_makes_no_negative_times(space: Workspace) -> None:
    now = [1_800_000_000.0]
    sleeper = Sleeper()

    def back() -> None:
        now[0] -= 3600

    sleeper.meanwhile = back
    mgr = manager(space, sleep=sleeper, clock=lambda: now[0])
    mgr.execute_with_recovery("T-1", Failing(ConnectionError("?")))
    assert mgr.get_recovery_stats()["avg_retry_time"] >= 0


def test_a_workspace_is_found_as_the_scripts_find_it(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATION_ROOT", str(space.root))
    assert RecoveryManager().base_path == str(space.root)
    monkeypatch.delenv("ORCHESTRATION_ROOT")
    monkeypatch.chdir(space.path("postbox/CC"))
    assert os.path.samefile(RecoveryManager().base_path, space.root)


def test_the_folders_may_be_chosen_below_the_workspace(space: Workspace) -> None:
    mgr = manager(space, checkpoint_dir=space.path("cp"), recovery_log_dir="log")
    mgr.execute_with_recovery("T-1", Failing(ConnectionError("?")))
    assert space.path("cp/T-1_history.jsonl").exists()
    assert space.path("log/T-1_recovery.jsonl").exists()
    assert mgr.get_recovery_stats()["total_recoveries"] == 1
    assert not space.path("data/checkpoints").exists()


INCIDENT = """
from recovery_manager import RecoveryManager
mgr = RecoveryManager(os.getcwd(), sleep=lambda seconds: None, notifiers=[])
calls = []
def work():
    calls.append(1)
    if len(calls) < 3:
        raise ConnectionError("?")
mgr.execute_with_recovery("T-1", work)
"""


def test_killed_at_any_step_of_a_run_no_recovery_is_counted_twice(tmp_path: Path) -> None:
    """After the kill the incident is there once: unfinished, or finished and a success; the next run adds its own."""
    empty = Workspace.make(tmp_path / "ws")
    for number, step in enumerate(programs.steps_of(empty.copy(tmp_path / "listing").root, INCIDENT)):
        space = empty.copy(tmp_path / f"run-{number}")
        assert programs.killed(programs.run(space.root, INCIDENT, fault=f"{step}=kill")), step
        numbers = RecoveryManager(space.root).get_recovery_stats()
        finished, open_ = numbers["total_recoveries"], numbers["unfinished_recoveries"]
        assert (finished, open_) in ((0, 0), (0, 1), (1, 0)), (step, numbers)
        assert numbers["failed_recoveries"] == 0, step
        assert programs.run(space.root, INCIDENT).code == 0, step
        again = RecoveryManager(space.root).get_recovery_stats()
        assert again["successful_recoveries"] == finished + 1, step
        assert again["unfinished_recoveries"] == open_, step
        assert programs.strays(space.root) == [], step
        space.remove()
