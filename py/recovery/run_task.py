"""run: claim a task, run a command for it, and complete or fail it by how that ends.

The claim's lock is inherited by all that the command starts, so that it is held as long as any of it lives, whatever
becomes of us; which process group it leads stands in the lock's file before it does anything.  If we are killed nobody
records an outcome: `recovery sweep` gives the task back once the lock is free and the group is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from recovery import claim, complete, fail, layout, moves, release, request, say, tasks, verbs
from recovery.documented import Courtesy
from recovery.errors import DataError, Denied, NotYours, RecoveryError, UsageError, of_verb
from recovery.foreground import Stopped
from recovery.request import Request, Verb
from recovery.result import Result
from recovery.retry import next_pause
from recovery.signals import plain
from recovery.store import FileStore
from recovery.try_command import OPTIONS, Outcome, Plan, Trying, report

T = TypeVar("T")

#: Characters of the command's last line that become the completion message.
_LINE = 1000


class Running:
    """One `recovery run`.  A task that is completed already is left at that: nothing is run, and it is a success."""

    def __init__(self, asked: Request, agent: str, task: str) -> None:
        self.agent, self.task = agent, task
        self.plan = Plan(asked, task)
        self.plan.agent = agent
        self.message = request.text(asked.options["message"]) if "message" in asked.options else None
        self.root = request.root_of(asked)
        self.trying = Trying(self.plan, self.root, keep_out=self.message is None)
        self.claim: claim.Claim | None = None
        self.status = ""
        self.stragglers: list[str] = []

    def carry_out(self) -> Result:
        """Claim, try, complete or fail; Taken (75) and whatever `recovery.claim.acquire` raises before anything is run.

        Stopped by a signal, or refused before the first try, the task is pending again.
        """
        with self.trying.place:
            try:
                mine = self.claim = self._insist(lambda store: claim.acquire(store, self.agent, self.task, kind="run"))
            except DataError:
                if self.task and self._insist(self._is_completed):
                    line = f"already completed {self.agent}/{self.task}; nothing was run"
                    data = {
                        "ok": True,
                        "code": 0,
                        "whose": "recovery",
                        "task": self.task,
                        "outcome": "nothing",
                        "attempts": 0,
                    }
                    return Result(line, False, {**data, "agent": self.agent, "status": "completed", "root": self.root})
                raise
            except Denied as error:
                raise Denied(f"{error}. Nothing was run.", hint=error.hint) from None
            self.task = mine.task
            try:
                self._say(mine.result.line)
                self.plan.named(mine.task)
                trying = self.trying
                trying.env = {
                    **os.environ,
                    **mine.environment,
                    "RECOVERY_AGENT": self.agent,
                    "RECOVERY_TASK": mine.task,
                }
                trying.pass_fds = [mine.lock_fd]
                trying.started, trying.require = mine.note_child, self._require_standing
                outcome = trying.carry_out()
            except BaseException as error:
                why = str(error) or type(error).__name__
                try:
                    self._end(lambda store: self._release(store, why))
                except RecoveryError as problem:
                    say.tell(f"the task could not be given back, a sweep will: {problem}")
                raise
            try:
                self._end(lambda store: self._record(store, outcome))
            except RecoveryError as error:
                what = "succeeded" if outcome.code == 0 else f"ended with {outcome.code}"
                say.tell(f"the command {what}, but that could not be recorded for {self.agent}/{self.task}")
                raise error from None
        more = {
            "agent": self.agent,
            "status": self.status,
            "generation": mine.generation,
            "stragglers": self.stragglers,
        }
        return report(self.trying, outcome, **more)

    def _is_completed(self, store: FileStore) -> bool:
        found = moves.read(store, self.agent, self.task)[1]
        done = verbs.done_before(store, self.agent, self.task, found)
        return tasks.status_of(found, self.task).lower() == "completed" if found.find(self.task) else done is not None

    def _say(self, line: str) -> None:
        if not self.plan.quiet:
            say.tell(line)

    def _require_standing(self) -> None:
        assert self.claim is not None
        mine = self.claim
        status, is_held = self._insist(mine.standing)
        if not is_held:
            raise NotYours(f"{self.agent}/{self.task} is {tasks.shown(status)}, and the claim is over: not tried again")

    def _end(self, work: Callable[[FileStore], None]) -> None:
        """Record the outcome, then let go of the lock: in this order, so that nobody finds the claim of a dead one."""
        assert self.claim is not None
        mine = self.claim
        try:
            self._insist(work)
        finally:
            try:
                self.stragglers = self._insist(mine.close)
                for one in self.stragglers:
                    say.tell(f"left behind by the command, with generation {mine.generation} of {self.task}: {one}")
            except RecoveryError as error:
                say.tell(f"the claim's lock file stays: {error}")

    def _record(self, store: FileStore, outcome: Outcome) -> None:
        assert self.claim is not None
        agent, task = self.agent, self.task
        self.status, is_held = self.claim.standing(store)
        if not is_held and self.status.lower() in ("completed", "failed", "ready_for_review", "pending"):
            self._say(f"{agent}/{task} is {tasks.shown(self.status)} by the command's own hand: that stands")
            return
        if outcome.word == "cancelled":
            self._release(store, str(outcome.error))
            return
        result = self._completed(store, outcome) if outcome.code == 0 else self._failed(store, self._why())
        if result is not None:
            self.status = str(result.data["status"])
            self._say(result.line)

    def _completed(self, store: FileStore, outcome: Outcome) -> Result | None:
        """Complete the task, once its checks have passed; if one doesn't the work is not done, so it is failed.

        None where a signal came meanwhile: it is pending again.
        """
        assert self.claim is not None
        generation = self.claim.generation

        def complete_it(brought: Any) -> Result:
            with _courtesy(store, self.agent, self.task):
                return complete.complete(
                    store, self.agent, self.task, self._message(), generation=generation, brought=brought
                )

        place = self.trying.place
        try:
            place.interrupts = True
            result: Result = request.first_things_first(store, complete_it)
            return result
        except RecoveryError as error:
            if error.outcome != "refused":
                raise
            error.args = (str(error).replace(" Nothing changed.", ""),)  # it is failed, which is a change
            outcome.code, outcome.whose, outcome.word, outcome.error = error.code, "recovery", error.outcome, error
            return self._failed(store, str(error))
        except KeyboardInterrupt:
            place.interrupts = False
            stopped = Stopped(place.told or plain.SIGINT)
            outcome.code, outcome.whose, outcome.word, outcome.error = stopped.code, "recovery", "cancelled", stopped
            self._release(store, "stopped while its checks ran")
            return None
        finally:
            place.interrupts = False

    def _failed(self, store: FileStore, why: str) -> Result:
        assert self.claim is not None
        with _courtesy(store, self.agent, self.task):
            return fail.fail(store, self.agent, self.task, why, generation=self.claim.generation)

    def _release(self, store: FileStore, why: str) -> None:
        assert self.claim is not None
        self.status, is_held = self.claim.standing(store)
        if is_held:
            with _courtesy(store, self.agent, self.task):
                generation = self.claim.generation  # its lock is still ours: `_end` removes the file
                result = release.release(store, self.agent, self.task, why=why, generation=generation, tidies=False)
            self.status = str(result.data["status"])
            self._say(result.line)

    def _message(self) -> str:
        if self.message is not None:
            return self.message
        ended = self.trying.ended
        said = ended.out.tail() if ended is not None and self.trying.place.keep_out else ""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return lines[-1][:_LINE] if lines else tasks.DEFAULT_MESSAGE

    def _why(self) -> str:
        tries = f" ({self.trying.attempts} tries)" if self.trying.attempts > 1 else ""
        return f"{self.trying.failure}{tries}"

    def _insist(self, work: Callable[[FileStore], T]) -> T:
        """Do some work on the workspace, and again where that may help; what is said is said."""
        limits = request.limits_from_environment(f"run {self.agent}/{self.task}".rstrip("/"))
        attempts = request.whole_number("RECOVERY_MAX_ATTEMPTS", os.environ.get("RECOVERY_MAX_ATTEMPTS") or "3")
        delay, attempt = request.seconds("RECOVERY_RETRY_DELAY", 2.0), 1
        while True:
            store = FileStore(self.root, limits)
            try:
                return work(store)
            except (RecoveryError, OSError) as error:
                refusal = error if isinstance(error, RecoveryError) else of_verb(error, "run")
                pause = next_pause(refusal, attempt, attempts, delay, limits.deadline)
                if pause is None:
                    raise refusal from None
                say.tell(f"{refusal}")
                say.tell(f"  again in {pause:.1f} s")
            finally:
                for line in store.told:
                    say.tell(line)
                store.close()
            time.sleep(pause)
            attempt += 1


class _courtesy:
    """The documented locks, for as long as the task's files are changed."""

    def __init__(self, store: FileStore, agent: str, task: str) -> None:
        self.locks = Courtesy(os.environ, agent, task, store.limits)
        if self.locks.warning:
            store.told.append(self.locks.warning)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.locks.release()


def _parse(asked: Request) -> list[Any]:
    asked.require_command()
    if not asked.asked("next"):
        agent, task, _ = asked.agent_and_task(0)
        return [Running(asked, agent, task)]
    words = asked.words or ([os.environ["RECOVERY_AGENT"]] if os.environ.get("RECOVERY_AGENT") else [])
    if len(words) != 1:
        raise UsageError("AGENT TASK, or AGENT --next", hint="see --help")
    return [Running(asked, layout.require_id("agent", words[0]), "")]


def _call(store: None, asked: Request, call: list[Any]) -> Result:
    running: Running = call[0]
    try:
        return running.carry_out()
    except Stopped as stopped:  # before the first try
        running._say(f"{stopped}")
        return Result("", True, {"ok": False, "code": stopped.code, "whose": "recovery", "status": running.status})


VERB = Verb(
    {**OPTIONS, "--next": "next", "-m": "message=?"},
    _parse,
    _call,
    tries=False,
    in_root=False,
    wraps=True,
)
