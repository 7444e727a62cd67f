"""One run of a task: calls, failures, what is done about them, the outcome.

`engine` is a generator that decides and keeps the books, and asks its driver to call and to sleep; `drive` does so
for plain functions, `drive_async` for coroutines.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Generator
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recovery import (
    checkpoints,
    escalations,
    incidents,
    layout,
    notify,
    once,
    parking,
    protect,
    rules,
    steps,
    timeouts,
)
from recovery.breaker import MOST_SPREAD, SPREAD, CircuitBreaker, CircuitOpen, Ticket
from recovery.errors import AncestorHolds, LockTimeout, RecoveryError, RollbackFailed, UsageError
from recovery.rules import RecoveryStrategy, Rule, TaskState
from recovery.session import best_effort, log

if TYPE_CHECKING:
    from recovery.manager import RecoveryManager

Strategy = RecoveryStrategy


class TaskFailedError(RecoveryError):
    """1: a task failed for good; its last error is the `__cause__`.

    `task_id`, `attempts` (tries in all), `outcome` (one of `incidents.OUTCOMES`), `restored` (names of the files that
    were put back).
    """

    final = True

    def __init__(self, message: str, task_id: str, attempts: int, outcome: str, restored: list[str]) -> None:
        super().__init__(message)
        self.task_id, self.attempts, self.outcome, self.restored = task_id, attempts, outcome, restored


@dataclass(frozen=True)
class Options:
    """How a task is run; see `RecoveryManager.with_recovery`."""

    strategy: RecoveryStrategy | None
    attempts: int
    rules: tuple[Rule, ...]
    protect: tuple[str, ...]
    checkpoint: bool
    breaker: CircuitBreaker | None
    max_wait: float | None
    timeout: timeouts.AdaptiveTimeout | float | None
    idempotency_key: str | Callable[..., str] | None
    verify: Callable[[], Any] | None

    @property
    def is_plain(self) -> bool:
        """Whether nothing has to be done before and after a call that succeeds."""
        asked = (self.breaker, self.timeout, self.idempotency_key)
        return not self.checkpoint and not self.protect and all(one is None for one in asked)


@dataclass
class Run:
    """What is known of a run while it lasts."""

    manager: RecoveryManager
    task: str
    options: Options
    incident: incidents.Incident | None = None
    protected: protect.Protected | None = None
    is_async: bool = False
    call: once.Call | None = None
    ticket: Ticket | None = None
    failure: Exception | None = None  # the last one
    called: bool = False  # the function has been called, so protected files may have been touched
    worked: bool = False  # and has returned: nothing is undone any more
    closed: bool = False  # the outcome stands in the log
    noted: list[str] = field(default_factory=list)  # steps that this run has done
    steps: dict[str, Any] | None = None
    restored: list[str] = field(default_factory=list)
    waited: float = 0.0  # seconds, for breakers
    agent: str = ""  # whose task it is, in the logs; "": the manager's

    @property
    def whose(self) -> str:
        return self.agent or self.manager.agent


#: The run with checkpoints that the code is in, for `RecoveryManager.step`.
current: ContextVar[Run | None] = ContextVar("recovery_run", default=None)


@dataclass(frozen=True)
class Call:
    """Asks the driver to call the function, for `timeout` seconds; it answers (True, result) or (False, error)."""

    timeout: float | None


@dataclass(frozen=True)
class Sleep:
    """Asks the driver to wait."""

    seconds: float


Engine = Generator[Call | Sleep, Any, Any]


# --- drivers


def drive(engine: Engine, run: Run, call: Callable[..., Any], keeps_time: bool = False) -> Any:
    """Carry an engine out for a plain function.

    One that `keeps_time` gets its limit, in seconds or None, as its argument, and is not interrupted.
    """
    answer: Any = None
    try:
        while True:
            action = engine.send(answer)
            try:
                if isinstance(action, Sleep):
                    answer = run.manager.sleep(action.seconds)
                elif keeps_time:
                    answer = True, call(action.timeout)
                else:
                    answer = True, _call(run, call, action.timeout)
            except Exception as error:
                answer = False, error
            except BaseException as error:
                engine.throw(error)
                raise
    except StopIteration as end:
        return end.value


def _call(run: Run, call: Callable[[], Any], timeout: float | None) -> Any:
    token = current.set(run if run.options.checkpoint else current.get())
    try:
        if timeout is None:
            result = call()
        else:
            result = timeouts.run_with_timeout(call, (), {}, timeout, run.task)
    finally:
        current.reset(token)
    if inspect.iscoroutine(result):
        result.close()
        raise UsageError(
            f"what was called for {run.task} returned a coroutine: only a coroutine function can be awaited"
        )
    return result


async def drive_async(engine: Engine, run: Run, call: Callable[[], Awaitable[Any]]) -> Any:
    """Carry an engine out for a coroutine function; its bookkeeping runs in a thread, the loop goes on meanwhile."""
    answer: Any = None
    while True:
        ended, action = await _in_thread(engine, answer)
        if ended:
            return action
        try:
            if isinstance(action, Sleep):
                answer = await run.manager.async_sleep(action.seconds)
            else:
                answer = True, await _call_async(run, call, action.timeout)
        except Exception as error:
            answer = False, error
        except BaseException as error:
            engine.throw(error)
            raise


async def _call_async(run: Run, call: Callable[[], Awaitable[Any]], timeout: float | None) -> Any:
    token = current.set(run if run.options.checkpoint else current.get())
    try:
        with nullcontext() if run.ticket is None else run.ticket.inside():
            if timeout is None:
                return await call()
            return await timeouts.run_async_with_timeout(call(), timeout, run.task)
    finally:
        current.reset(token)


async def _in_thread(engine: Engine, answer: Any) -> tuple[bool, Any]:
    def step() -> tuple[bool, Any]:
        try:
            return False, engine.send(answer)
        except StopIteration as end:
            return True, end.value

    work = asyncio.ensure_future(asyncio.to_thread(step))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError as error:
        ended, _ = await work  # a generator can't be thrown into while it runs
        if not ended:
            engine.throw(error)
        raise


# --- the engine


def engine(run: Run, failure: Exception | None = None) -> Engine:
    """Run a task to its outcome: returns the function's result, or None where it was skipped.

    With `failure` the first call has been made already, and raised it.  Raises TaskFailedError, RollbackFailed,
    TaskParkedError; CircuitOpen where the wait would be longer than allowed; cancellation as it comes.
    """
    pid = os.getpid()
    options = run.options
    attempt = 0
    try:
        if failure is not None:
            attempt, run.called = 1, True
        elif not (yield from _begin(run)):
            assert run.call is not None
            return run.call.result
        while True:
            if failure is None:
                run.ticket = yield from _enter(run)
                if run.call is not None:
                    run.call.start()
                attempt += 1
                steps.at("attempt", f"{attempt} of {run.task}")
                began, run.called = run.manager.monotonic(), True
                worked, value = yield Call(_seconds(options.timeout))
                if os.getpid() != pid:  # the function forked, and this is the child: the books are the parent's
                    if worked:
                        return value
                    raise value
                run.worked = worked
                _leave(run, None if worked else value)
                if worked:
                    _succeeded(run, value, attempt, run.manager.monotonic() - began)
                    return value
                failure = value
                if isinstance(failure, UsageError):  # the program is wrong, not what it asks for
                    _put_back(run, failure)
                    raise failure
            run.failure = failure
            strategy = options.strategy or rules.asked(failure, options.rules)
            if strategy is None and isinstance(failure, CircuitOpen):  # a breaker further in: wait for it likewise
                _put_back(run, failure)
                spread = run.manager.random() * min(SPREAD * failure.retry_after, MOST_SPREAD)
                yield from _wait(run, failure.name, failure.retry_after + spread, failure)
                if _took_effect(run, failure, attempt):
                    assert run.call is not None
                    return run.call.result
                attempt, failure = attempt - 1, None
                continue
            strategy = strategy or rules.usual(failure)
            is_unknown = run.call is not None and options.verify is None and once.leaves_unknown(failure)
            if strategy is Strategy.RETRY and is_unknown:
                strategy = Strategy.MANUAL  # nobody knows whether it took effect: not tried again
            steps.at("strategy", f"{strategy} for {type(failure).__name__} in {run.task}")
            if strategy is not Strategy.RETRY:
                return _give_up(run, failure, strategy, attempt, "")
            why = _why_last(run, failure, attempt)
            if why is not None:
                return _give_up(run, failure, strategy, attempt, why)
            _failed(run, failure, strategy, attempt)
            yield Sleep(run.manager.pause_before(attempt + 1))
            if _took_effect(run, failure, attempt):
                assert run.call is not None
                return run.call.result
            failure = None
    except GeneratorExit:
        raise
    except Exception as error:
        if os.getpid() == pid and not run.closed and not run.worked:
            _abandoned(run, error)
        raise
    except BaseException as error:
        if os.getpid() == pid:
            _cancelled(run, error, attempt)
        raise
    finally:
        if run.call is not None and os.getpid() == pid:
            run.call.release()


def _begin(run: Run) -> Generator[Sleep, Any, bool]:
    """What comes before the first call; False if the call was made by an earlier run."""
    manager, options = run.manager, run.options
    manager.require_not_parked(run.task)
    if options.idempotency_key is not None:
        assert isinstance(options.idempotency_key, str)
        run.call = once.Call(manager.session, options.idempotency_key, run.task)
        try:
            if not (yield from _claim(run, run.call)):
                return False
        except once.OutcomeUnknown as error:
            raise _parked(run, error, 0) from (error.__cause__ or error)
    if options.protect:
        with manager.session.store() as store:
            run.protected = protect.keep(store, run.task, manager.agent, options.protect)
    _checkpoint(run, TaskState.RUNNING, attempt=1)
    return True


def _claim(run: Run, call: once.Call) -> Generator[Sleep, Any, bool]:
    """`Call.begin`.  A coroutine asks again and again instead of waiting in a thread, of which there are only a few."""
    if not run.is_async:
        return call.begin(run.options.verify)
    pause, until = 0.005, run.manager.monotonic() + run.manager.session.lock_timeout
    while True:
        try:
            return call.begin(run.options.verify, wait=0)
        except LockTimeout:
            if run.manager.monotonic() >= until:
                raise
        yield Sleep(pause)
        pause = min(pause * 2, 0.1)


def _enter(run: Run) -> Generator[Sleep, Any, Ticket | None]:
    """A ticket of the breaker; while that is open the run waits, which uses up no try."""
    breaker = run.options.breaker
    if breaker is None:
        return None
    while True:
        try:
            return breaker.enter()
        except CircuitOpen as refusal:
            yield from _wait(run, breaker.name, breaker.wait_time(run.manager.random), refusal)


def _wait(run: Run, name: str, seconds: float, refusal: CircuitOpen) -> Generator[Sleep, Any, None]:
    """Park the run until a breaker lets it try; `refusal` is raised where that takes longer than it may."""
    most = run.options.max_wait
    if most is not None and run.waited + seconds > most:
        raise refusal
    _checkpoint(run, TaskState.RETRYING, waits_for=f"breaker {name}", seconds=round(seconds, 3))
    run.waited += seconds
    yield Sleep(seconds)


def _leave(run: Run, error: BaseException | None) -> None:
    ticket, run.ticket = run.ticket, None
    if ticket is not None:
        best_effort("the breaker could not count this call", lambda: ticket.leave(error))


def _seconds(timeout: timeouts.AdaptiveTimeout | float | None) -> float | None:
    if isinstance(timeout, timeouts.AdaptiveTimeout):
        return best_effort("the timings could not be read", timeout.seconds) or timeout.fixed
    return timeout


def _why_last(run: Run, failure: Exception, attempt: int) -> str | None:
    """Why there is no further try; None if there is one (it is counted in the budget then)."""
    if attempt >= run.options.attempts or isinstance(failure, AncestorHolds):
        return ""
    budget = run.manager.retry_budget
    if budget is None or budget.spend(run.task):
        return None
    return f"the retry budget: {budget.explain(run.task)}"


def _took_effect(run: Run, failure: Exception, attempt: int) -> bool:
    """Whether `verify` finds that the failed call took effect after all: then the run has ended well."""
    call, verify = run.call, run.options.verify
    if call is None or verify is None:
        return False
    try:
        if not call.took_effect(verify, f"raised {type(failure).__name__}"):
            return False
    except once.OutcomeUnknown as error:
        raise _parked(run, error, attempt) from failure
    run.worked = True
    _succeeded(run, call.result, attempt, None)
    return True


def _succeeded(run: Run, value: Any, attempt: int, seconds: float | None) -> None:
    """The books of a success; whatever can't be written is said, and the result comes back all the same."""
    manager, options = run.manager, run.options
    if run.call is not None:
        call = run.call
        best_effort("the result could not be kept: a repeat will not know it was done", lambda: call.done(value))
    timeout = options.timeout
    if isinstance(timeout, timeouts.AdaptiveTimeout) and seconds is not None:
        best_effort("the duration could not be kept", lambda: timeout.record(seconds))
    if run.incident is not None:
        incident = run.incident
        manager.log(incident.ended("recovered", manager.now(), attempt))
    _checkpoint(run, TaskState.COMPLETED, attempts=attempt)
    if run.protected is not None:
        kept = run.protected
        with manager.session.store() as store:
            best_effort("a backup could not be removed", lambda: protect.discard(store, kept))


def _failed(run: Run, failure: Exception, strategy: RecoveryStrategy, attempt: int) -> None:
    """The books of a failure after which there is another try; protected files are put back for it."""
    _log(run, failure, strategy, attempt)
    _checkpoint(run, TaskState.RETRYING, attempt=attempt, error=incidents.message_of(failure))
    _put_back(run, failure)


def _put_back(run: Run, failure: Exception) -> None:
    """Undo what a failed try did, as far as that is ours to undo, so that there may be another."""
    _settle_key(run, failure)
    try:
        _restore(run)
    except RollbackFailed as error:
        if run.incident is None:
            _log(run, failure, Strategy.ROLLBACK, 1)
        _close(run, "rollback_failed", TaskState.FAILED, failure)
        _escalate(run, error)
        raise error from failure


def _give_up(run: Run, failure: Exception, strategy: RecoveryStrategy, attempt: int, why: str) -> None:
    """Do what `strategy` says; returns (None, the result) only where the task is skipped."""
    _log(run, failure, strategy, attempt)
    if strategy is Strategy.MANUAL:
        _settle_key(run, failure)
        raise _parked(run, failure, attempt) from failure
    text = incidents.message_of(failure)
    times = f" after {attempt} retries" if attempt > 1 else ""
    message = f"Task {run.task} failed{times}: {text}" + (f" ({why})" if why else "")
    if strategy is Strategy.ESCALATE:
        _settle_key(run, failure)
        name = _escalate(run, failure)
        _close(run, "escalated", TaskState.FAILED, failure)
        message += f"; escalated: {name}" if name else "; escalated before, and still open"
        raise TaskFailedError(message, run.task, attempt, "escalated", []) from failure
    _put_back(run, failure)
    if strategy is Strategy.SKIP:
        _close(run, "skipped", TaskState.SKIPPED, failure)
        return
    if run.protected is not None:
        message += f"; rolled back: {', '.join(run.restored) or 'nothing had changed'}"
    done = strategy is Strategy.ROLLBACK and run.protected is not None
    outcome, state = ("rolled_back", TaskState.ROLLED_BACK) if done else ("failed", TaskState.FAILED)
    _close(run, outcome, state, failure)
    raise TaskFailedError(message, run.task, attempt, outcome, run.restored) from failure


def _parked(run: Run, error: Exception, attempt: int) -> parking.TaskParkedError:
    if run.incident is None:
        _log(run, error, Strategy.MANUAL, attempt or 1)
    why = incidents.message_of(error)

    def park() -> None:
        with run.manager.session.store() as store:
            entry = parking.park(store, run.task, error, why, attempts=attempt, agent=run.whose)
        if entry is not None:
            event = {**entry, "file": layout.flag(run.task), "root": run.manager.base_path}
            notify.notify(run.manager.notifiers, event)

    best_effort("the task could not be parked", park)
    _close(run, "parked", TaskState.FAILED, error)
    return parking.TaskParkedError(run.task, why)


def cut_off(run: Run, error: BaseException) -> None:
    """The books of a run whose first call was made without an engine, and was cut off by `error`."""
    run.called = True
    _cancelled(run, error, 1)


def _cancelled(run: Run, error: BaseException, attempt: int) -> None:
    """Ctrl-C, a cancelled task, sys.exit: the run's own work on protected files is undone, and the way out is free.

    Not if the function has returned already.  A command that was stopped is noted even if it is the first failure.  An
    idempotency key whose call had begun stays started: nobody knows how far it had got.
    """
    _leave(run, error)
    if run.worked or run.closed:
        return
    if run.incident is not None:
        run.manager.log(run.incident.ended("cancelled", run.manager.now(), attempt))
    elif run.called and hasattr(error, "stderr_tail"):
        run.incident = _incident(run)
        run.manager.log(run.incident.failed(error, "", attempt, run.manager.now(), "cancelled"))
    if run.called:
        try:
            _restore(run)
        except RollbackFailed as problem:
            log.warning("%s", problem)
            error.add_note(str(problem))
        _checkpoint(run, TaskState.FAILED, outcome="cancelled")


def _abandoned(run: Run, error: Exception) -> None:
    """What had to be done for the next call couldn't be: the run ends as failed, and the cause is the last failure."""
    _leave(run, GeneratorExit())
    if run.failure is not None and error is not run.failure and error.__cause__ is None:
        error.__cause__ = run.failure
    if run.called:
        try:
            _restore(run)
        except RollbackFailed as problem:
            log.warning("%s", problem)
            error.add_note(str(problem))
    if run.incident is not None:
        _close(run, "failed", TaskState.FAILED, error)
    elif run.called or isinstance(error, CircuitOpen):
        _checkpoint(run, TaskState.FAILED, error=incidents.message_of(error))


def _settle_key(run: Run, failure: Exception) -> None:
    """Mark the key as failed, free for another call, unless the error leaves unknown whether this one took effect."""
    if run.call is not None and not once.leaves_unknown(failure):
        best_effort("the key could not be marked as failed", run.call.failed)


def _restore(run: Run) -> None:
    if run.protected is None:
        return
    with run.manager.session.store() as store:
        names = protect.restore(store, run.protected)
    run.restored = sorted({*run.restored, *names})
    if names and run.noted:  # what these steps did to the files is undone with the rest: they are to be done again
        undone, run.noted, run.steps = run.noted, [], None
        _checkpoint(run, TaskState.RETRYING, undone=undone)


def _incident(run: Run) -> incidents.Incident:
    manager = run.manager
    return incidents.Incident(run.task, manager.now(), manager.monotonic, agent=run.whose)


def _log(run: Run, failure: BaseException, strategy: RecoveryStrategy, attempt: int) -> None:
    manager = run.manager
    now = manager.now()
    if run.incident is None:
        run.incident = _incident(run)
    manager.log(run.incident.failed(failure, strategy.value, attempt, now))


def _close(run: Run, outcome: str, state: TaskState, failure: BaseException) -> None:
    assert run.incident is not None
    more: dict[str, Any] = {"restored": run.restored} if run.restored else {}
    run.manager.log(run.incident.ended(outcome, run.manager.now(), **more))
    run.closed = True
    _checkpoint(run, state, outcome=outcome, error=incidents.message_of(failure))


def _escalate(run: Run, error: BaseException) -> str | None:
    manager = run.manager

    def report() -> str | None:
        with manager.session.store() as store:
            return escalations.report(
                store,
                run.task,
                type(error).__name__,
                incidents.message_of(error),
                run.whose,
                manager.log_folder,
                notifiers=manager.notifiers,
            )

    return best_effort("no escalation could be written", report)


def _checkpoint(run: Run, state: TaskState, **metadata: Any) -> None:
    """The suite's own checkpoint: it takes the program's data over, and says what it knows in `metadata`."""
    if not run.options.checkpoint:
        return
    manager = run.manager
    if run.agent:
        metadata["agent"] = run.agent

    def create() -> None:
        with manager.session.store() as store:
            data = checkpoints.carried(store, run.task, manager.checkpoint_folder)
            checkpoints.create(store, run.task, state, data, metadata, manager.checkpoint_folder)

    best_effort(f"no checkpoint of {run.task} could be written", create)
