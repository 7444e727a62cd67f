"""RecoveryManager: run tasks that fail, die and are cut off, and know afterwards what happened."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, cast

from recovery import checkpoints, commands, escalations, incidents, layout, notify, once, parking, retry, run, stats
from recovery.breaker import CircuitBreaker
from recovery.budget import RetryBudget
from recovery.checkpoints import Checkpoint
from recovery.errors import UsageError
from recovery.rules import RecoveryStrategy, Rule, TaskState, strategy_of
from recovery.rules import checked as rules_checked
from recovery.session import Session, best_effort
from recovery.timeouts import AdaptiveTimeout, require_seconds

P = ParamSpec("P")
R = TypeVar("R")
Path = str | os.PathLike[str]

#: Seconds for which a plain call trusts that its task is still not parked; looking costs more than the rest of it.
_LOOK_AGAIN = 0.05


class RecoveryManager:
    """Runs functions with retry, rollback, checkpoints, and keeps the books in the workspace.

    `base_path` is the workspace; None finds it as the scripts do: ORCHESTRATION_ROOT, upwards from the current
    folder, the git repository's main worktree.  NotFound (66) if there is none.

    `max_attempts` tries in all (3), or `max_retries` after the first, with pauses in seconds drawn evenly from 0 to
    `initial_retry_delay` (2.0), doubling, at most `max_retry_delay` (60.0).  `checkpoint_dir` and `recovery_log_dir`
    are folders in the workspace, by default `data/checkpoints` and `logs/recovery`.

    `rules` are pairs of what to look for (error types, a predicate, an exit code or a container of them) and a
    strategy; they come before the tables of `recovery.rules`.  `notifiers` are told of escalations; by default those
    of the environment (RECOVERY_NOTIFY_CMD, RECOVERY_NOTIFY_URL).  `breaker` guards every call, `retry_budget` limits
    the tries of all processes together (by default the workspace's; None: no limit).  `agent` stands in the log
    (default RECOVERY_AGENT).  `lock_timeout` is in seconds.  `clock` (seconds since 1970), `monotonic`, `sleep`,
    `async_sleep` and `random` (0 to 1) may be replaced.

    Safe to use from several threads, processes and asyncio tasks at once.
    """

    def __init__(
        self,
        base_path: Path | None = None,
        max_attempts: int | None = None,
        initial_retry_delay: float = 2.0,
        max_retry_delay: float = 60.0,
        checkpoint_dir: Path | None = None,
        recovery_log_dir: Path | None = None,
        *,
        max_retries: int | None = None,
        rules: Iterable[Rule] = (),
        notifiers: Sequence[notify.Notifier] | None = None,
        breaker: CircuitBreaker | None = None,
        retry_budget: RetryBudget | bool | None = True,
        agent: str | None = None,
        lock_timeout: float = 30.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = time.sleep,
        async_sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        random: Callable[[], float] = retry.draw_evenly,
    ) -> None:
        self.session = Session(base_path, lock_timeout)
        self.base_path = self.session.root
        self.max_attempts = _attempts(max_attempts, max_retries, 3)
        if not (initial_retry_delay >= 0 and max_retry_delay >= 0):
            raise UsageError("a delay is a number of seconds from 0")
        self.initial_retry_delay, self.max_retry_delay = initial_retry_delay, max_retry_delay
        self.checkpoint_folder = self._folder(checkpoint_dir, layout.CHECKPOINTS)
        self.log_folder = self._folder(recovery_log_dir, layout.LOGS)
        self.rules = rules_checked(rules)
        self.notifiers = list(notify.from_environment(os.environ) if notifiers is None else notifiers)
        self.breaker = breaker
        if isinstance(retry_budget, bool):
            retry_budget = RetryBudget(session=self.session, clock=clock) if retry_budget else None
        self.retry_budget = retry_budget
        self.agent = layout.require_id("agent", agent or os.environ.get("RECOVERY_AGENT") or "recovery")
        self.clock, self.monotonic, self.random = clock, monotonic, random
        self.sleep, self.async_sleep = sleep, async_sleep

    def _folder(self, path: Path | None, default: str) -> str:
        return default if path is None else self.session.inside(path)

    # --- running

    def with_recovery(
        self, task_id: str, strategy: RecoveryStrategy | str | None = None, **options: Any
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorator for functions, methods and coroutine functions: each call is a run of the task.

        `strategy` is what is done about every error; by default each failure gets what `rules` and the tables say:
        RETRY for what may pass, ROLLBACK for corrupt data, ESCALATE for permissions.

        RETRY tries again; when the tries, or the budget, are used up: TaskFailedError, with the last error as cause.
        ROLLBACK puts the protected files back, then TaskFailedError; RollbackFailed where that can't be done.
        SKIP returns None.  MANUAL parks the task: TaskParkedError, at every call until a person removes its flag.
        ESCALATE writes an escalation and tells the notifiers, then TaskFailedError.
        KeyboardInterrupt, CancelledError, SystemExit pass, never retried.

        Options:
            max_attempts, max_retries   for this task
            checkpoint_enabled (True)   a durable checkpoint when the run begins, is tried again, ends
            protect                     files (below the workspace) that are put back before each further try, and
                                        when the run fails or is cancelled; MANUAL and ESCALATE leave them for a
                                        person, with NAME.backup_TASK beside them
            rules                       before those of the manager
            breaker                     a CircuitBreaker; while it is open the run waits, using up no try
            max_wait                    seconds that it may wait there; then CircuitOpen (None: as long as it takes)
            timeout                     seconds for each try, "auto" or an AdaptiveTimeout; then TaskTimeout, which is
                                        retried.  A plain function can be stopped in the main thread only
            idempotency_key, verify     at most once: see `recovery.once`; the key may be a function of the call's
                                        arguments.  An error says that the call did not happen, but for timeouts,
                                        connections cut off and commands killed by a signal: those, and calls whose
                                        process died, are verified, else parked.  Give `verify` where yours may raise
                                        anything else after its effect: it is asked before each further try

        The content of protected files goes through data/journal and data/changes, which whoever may read postbox/ may
        read.  Nothing keeps one task from being run twice at once; a key does.

        A crash at any point leaves whole files, checkpoints that say how far the run was, and an incident without an
        outcome.  Where only a checkpoint or log line can't be written (a full disk), the function's own result or
        error still comes back, and the logger "recovery" says what was lost.
        """
        if callable(task_id):
            raise UsageError('with_recovery needs a task: @manager.with_recovery("TASK-001")')
        layout.require_id("task", task_id)
        chosen = self.options(task_id, strategy, options)

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise UsageError(
                    f"{function!r} is a generator: it does its work after the call, where nothing retries it"
                )
            if _is_async(function):
                awaited = cast("Callable[P, Awaitable[Any]]", function)
                return cast("Callable[P, R]", self._wrap_async(task_id, awaited, chosen))
            return self._wrap(task_id, function, chosen)

        return decorate

    def execute_with_recovery(
        self,
        task_id: str,
        func: Callable[..., R],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        strategy: RecoveryStrategy | str | None = None,
        **options: Any,
    ) -> R:
        """Run `func(*args, **kwargs)` once as `with_recovery` would; for a coroutine function, returns a coroutine."""
        return self.with_recovery(task_id, strategy, **options)(func)(*args, **(kwargs or {}))

    def run_command(
        self,
        task_id: str,
        args: Sequence[str],
        *,
        timeout: float | None = None,
        strategy: RecoveryStrategy | str | None = None,
        command: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> commands.Completed:
        """Run a command as a task; `timeout` seconds end its whole process group.

        `command` has the other arguments of `commands.run_command`: cwd, env, input, grace, capture, most.  A code
        other than 0 is a CommandFailed, which `rules` may look for by its number.
        """
        call = functools.partial(commands.run_command, timeout=timeout, **(command or {}))
        return self.execute_with_recovery(task_id, call, (args,), None, strategy, **options)

    def _wrap(self, task_id: str, function: Callable[P, R], options: run.Options) -> Callable[P, R]:
        if not options.is_plain:

            @functools.wraps(function)
            def recovering(*args: P.args, **kwargs: P.kwargs) -> R:
                if options.timeout is not None and threading.current_thread() is not threading.main_thread():
                    raise UsageError(
                        "a plain function can only be timed out in the main thread; use a coroutine or run_command"
                    )
                this = run.Run(self, task_id, _of_this_call(options, args, kwargs))
                return cast("R", run.drive(run.engine(this), this, lambda: function(*args, **kwargs)))

            return recovering

        monotonic = time.monotonic
        look_again = 0.0

        @functools.wraps(function)
        def recovering_plain(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal look_again
            if monotonic() >= look_again:
                self.require_not_parked(task_id)
                look_again = monotonic() + _LOOK_AGAIN
            try:
                return function(*args, **kwargs)
            except Exception as error:
                failure = error
            look_again = 0.0
            this = run.Run(self, task_id, options)
            return cast("R", run.drive(run.engine(this, failure), this, lambda: function(*args, **kwargs)))

        return recovering_plain

    def _wrap_async(self, task_id: str, function: Callable[..., Awaitable[Any]], options: run.Options) -> Any:
        @functools.wraps(function)
        async def recovering(*args: Any, **kwargs: Any) -> Any:
            this = run.Run(self, task_id, _of_this_call(options, args, kwargs), is_async=True)
            return await run.drive_async(run.engine(this), this, lambda: function(*args, **kwargs))

        return recovering

    def options(self, task: str, strategy: RecoveryStrategy | str | None, given: Mapping[str, Any]) -> run.Options:
        """How `with_recovery` would run a task with these options; UsageError (64)."""
        given = dict(given)
        attempts = _attempts(given.pop("max_attempts", None), given.pop("max_retries", None), self.max_attempts)
        timeout = given.pop("timeout", None)
        if timeout == "auto":
            timeout = AdaptiveTimeout(task, session=self.session)
        elif timeout is not None and not isinstance(timeout, AdaptiveTimeout):
            require_seconds(timeout)
        chosen = run.Options(
            strategy=None if strategy is None else strategy_of(strategy),
            attempts=attempts,
            rules=(*rules_checked(given.pop("rules", ())), *self.rules),
            protect=tuple(self.session.inside(path) for path in _paths(given.pop("protect", ()))),
            checkpoint=bool(given.pop("checkpoint_enabled", True)),
            breaker=given.pop("breaker", self.breaker),
            max_wait=given.pop("max_wait", None),
            timeout=timeout,
            idempotency_key=given.pop("idempotency_key", None),
            verify=given.pop("verify", None),
        )
        if given:
            raise TypeError(f"with_recovery() has no option {', '.join(given)}")
        if chosen.breaker is not None and not isinstance(chosen.breaker, CircuitBreaker):
            raise UsageError(f"breaker is {chosen.breaker!r:.60}: a CircuitBreaker is needed")
        if chosen.verify is not None and chosen.idempotency_key is None:
            raise UsageError("verify= is asked about an idempotency_key, and there is none")
        return chosen

    # --- checkpoints

    def create_checkpoint(
        self,
        task_id: str,
        state: TaskState | str,
        data: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Add a checkpoint; durable when this returns.  See `checkpoints.create`."""
        with self.session.store() as store:
            return checkpoints.create(store, task_id, state, data, metadata, self.checkpoint_folder)

    def load_checkpoint(self, task_id: str) -> Checkpoint | None:
        """The task's last checkpoint; None if it has none.  See `checkpoints.load`."""
        with self.session.store() as store:
            return checkpoints.load(store, task_id, self.checkpoint_folder)

    def checkpoint_history(self, task_id: str) -> list[Checkpoint]:
        """The task's checkpoints, oldest first.  See `checkpoints.history`."""
        with self.session.store() as store:
            return checkpoints.history(store, task_id, self.checkpoint_folder)

    def cleanup_checkpoints(self, task_id: str | None = None, older_than_days: float = 7) -> int:
        """Remove the checkpoints of tasks that ended longer ago; how many tasks that were.

        Never an open task's.  See `checkpoints.cleanup`.
        """
        with self.session.store() as store:
            folders = (self.checkpoint_folder, self.log_folder)
            return len(checkpoints.cleanup(store, task_id, older_than_days, *folders))

    def step(self, name: str, task_id: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorator for a part of a task that is not to be done twice: a run after a crash skips it.

        Its result is kept in a checkpoint (so it must be JSON, else the step is done again, which is said) and comes
        back instead of a call, whatever its arguments are now.  The task is the one that is being run (with
        checkpoints), or `task_id`; when it is completed or rolled back, its next run begins anew.  Where protected
        files are put back, the steps that the run has done are undone with them.  Plain and coroutine functions.  A
        crash in the step, or before its checkpoint is written: it is done again.  UsageError (64) without a task.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if _is_async(function):
                awaited = cast("Callable[P, Awaitable[Any]]", function)

                @functools.wraps(function)
                async def stepping_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                    task, done = await asyncio.to_thread(self._steps, name, task_id)
                    if name in done:
                        return done[name]
                    result = await awaited(*args, **kwargs)
                    await asyncio.to_thread(self._step_done, task, name, result, done)
                    return result

                return cast("Callable[P, R]", stepping_async)

            @functools.wraps(function)
            def stepping(*args: P.args, **kwargs: P.kwargs) -> R:
                task, done = self._steps(name, task_id)
                if name in done:
                    return cast("R", done[name])
                result = function(*args, **kwargs)
                self._step_done(task, name, result, done)
                return result

            return stepping

        return decorate

    def resume(self, task_id: str, steps: Iterable[str]) -> Iterator[str]:
        """Yield the steps that are still to be done, in order; one counts as done when the next is asked for.

            for step in manager.resume("TASK-001", ["download", "convert", "upload"]):
                work(step)

        Killed in "convert", the next run begins with "convert".  After the last one the task is marked completed,
        and the next run begins anew; inside of `with_recovery` that is left to the end of the run.
        """
        layout.require_id("task", task_id)
        this = run.current.get()
        _, done = self._steps("", task_id)
        for name in steps:
            if name not in done:
                yield name
                self._step_done(task_id, name, None, done)
        if this is None or this.task != task_id:
            self.create_checkpoint(task_id, TaskState.COMPLETED, self._carried(task_id))

    def _steps(self, name: str, task_id: str | None) -> tuple[str, dict[str, Any]]:
        this = run.current.get()
        if task_id is None:
            if this is None:
                raise UsageError(f"step {name!r} is called outside of a run: give it a task_id")
            task_id = this.task
        if this is not None and this.task == task_id and this.steps is not None:
            return task_id, this.steps
        with self.session.store() as store:
            done = checkpoints.steps_done(store, task_id, self.checkpoint_folder)
        if this is not None and this.task == task_id:
            this.steps = done
        return task_id, done

    def _step_done(self, task: str, name: str, result: Any, done: dict[str, Any]) -> None:
        def create() -> None:
            self.create_checkpoint(task, TaskState.RUNNING, self._carried(task), {"step": name, "result": result})
            done[name] = result
            this = run.current.get()
            if this is not None and this.task == task:
                this.noted.append(name)

        best_effort(f"step {name!r} of {task} could not be noted: a next run does it again", create)

    def _carried(self, task: str) -> dict[str, Any]:
        with self.session.store() as store:
            return checkpoints.carried(store, task, self.checkpoint_folder)

    # --- people

    def require_not_parked(self, task_id: str) -> None:
        """TaskParkedError (70) while a person's decision about the task is waited for."""
        with self.session.store() as store:
            why = parking.reason(store, task_id)
        if why is not None:
            raise parking.TaskParkedError(task_id, why)

    def clear_manual(self, task_id: str) -> bool:
        """A person has looked: the task may be run again.  Whether it was parked."""
        with self.session.store() as store:
            return parking.clear(store, task_id)

    def settle(self, idempotency_key: str, done: bool) -> bool:
        """A person has found out whether a call took effect; False if its outcome wasn't unknown."""
        with self.session.store() as store:
            return once.settle(store, self.session, idempotency_key, done)

    def open_escalations(self) -> list[dict[str, Any]]:
        """The escalations that nobody has resolved yet.  See `escalations.open_escalations`."""
        with self.session.store() as store:
            return escalations.open_escalations(store, self.log_folder)

    def get_recovery_stats(
        self, task_id: str | None = None, since: datetime | float | str | None = None
    ) -> dict[str, Any]:
        """The numbers of the recovery log.  A *recovery* is an incident, from a run's first failure to its outcome: a
        task that makes it at the third try is one recovery, and a successful one.  See `stats.recovery_stats`, which
        defines each number."""
        with self.session.store() as store:
            return stats.recovery_stats(store, task_id, since, self.log_folder, self.checkpoint_folder)

    # --- for the runs

    def now(self) -> str:
        """The time, UTC, ISO 8601, whole seconds, `Z`."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock()))

    def pause_before(self, attempt: int) -> float:
        """Seconds to wait before try number `attempt`."""
        return retry.pause_before(attempt, self.initial_retry_delay, self.random, self.max_retry_delay)

    def log(self, entry: dict[str, Any]) -> None:
        """Add a line to the recovery log; where that can't be done it is said."""

        def write() -> None:
            with self.session.store() as store:
                incidents.write(store, entry, self.log_folder)

        best_effort(f"a line of the recovery log of {entry['task_id']} is lost", write)


def _paths(given: Any) -> Iterable[Path]:
    return (given,) if isinstance(given, (str, os.PathLike)) else given


def _of_this_call(options: run.Options, args: Any, kwargs: Any) -> run.Options:
    key = options.idempotency_key
    return dataclasses.replace(options, idempotency_key=key(*args, **kwargs)) if callable(key) else options


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _attempts(attempts: int | None, retries: int | None, default: int) -> int:
    if attempts is not None and retries is not None:
        raise UsageError("max_attempts counts all tries, max_retries those after the first: give one of them")
    number = attempts if attempts is not None else default if retries is None else retries + 1
    if not isinstance(number, int) or number < 1:
        raise UsageError(f"{number!r} tries: at least 1 is needed")
    return number
