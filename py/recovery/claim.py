"""claim: take a task, or the next one; one winner."""

from __future__ import annotations

import os

from recovery import (
    claim_locks,
    claims,
    dependencies,
    layout,
    moves,
    owners,
    processes,
    ready,
    request,
    say,
    tasks,
    verbs,
)
from recovery.errors import NotFound, RecoveryError, Taken, Unconfirmed, UsageError
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.commit import Change
    from recovery.flock import HeldLock
    from recovery.store import FileStore

#: How many tasks a refusal names.
_FEW = 5


class Claim:
    """A task that is ours now: `agent`, `task`, `generation` (the fencing token), `result` for people and programs.

    `lock` is the kernel's lock on it, for kind "run" only: give `lock_fd` to the command (`pass_fds=(claim.lock_fd,)`)
    so that the claim lives as long as anything that it starts, and `environment` so that the command's own `recovery
    complete` and the like are known as yours.  Nothing is given back by itself: end the claim with `complete`, `fail`
    or `release` (each takes `generation`), then `close`.  If this process dies first, a sweep finds the lock free.
    """

    __slots__ = ("agent", "generation", "lock", "result", "task")

    def __init__(self, agent: str, task: str, generation: int, lock: Optional[HeldLock], result: Result) -> None:
        self.agent, self.task, self.generation, self.lock, self.result = agent, task, generation, lock, result

    @property
    def lock_fd(self) -> int:
        """The descriptor that holds the lock; -1 without one."""
        return -1 if self.lock is None else self.lock.fd

    @property
    def environment(self) -> dict[str, str]:
        """What the command finds in its environment."""
        return {claims.VARIABLE: claims.token(self.agent, self.task, self.generation)}

    def note_child(self, group: int) -> None:
        """Write into the lock file which process group the command leads: dead is a free lock *and* a group that is
        gone.  Call it before the command can do anything (it may close the descriptor).  StorageError (74)."""
        if self.lock is not None:
            leader = processes.look(group)
            start = leader.start if leader is not None else ""
            claim_locks.write_note(self.lock, {"group": group, "group_start": start})

    def standing(self, store: FileStore) -> tuple[str, bool]:
        """The task's status now, and whether this claim is still held: the command may have ended it itself.

        NotFound (66) if the task is gone, DataError (65) if its outbox is damaged.
        """
        found = moves.read(store, self.agent, self.task)[1]
        if found.find(self.task) is None:
            raise verbs.unknown(store, self.agent, self.task, found)
        claim = claims.of(tasks.value(found, self.task, "claim"))
        mine = claims.is_held(claim) and claim is not None and claim["generation"] == self.generation
        return tasks.status_of(found, self.task), mine

    def close(self, store: FileStore) -> list[str]:
        """Let go of the lock once the claim is over, and remove its file: words for who holds it still, a daemon that
        the command left behind.  Their generation is over: whatever they run is refused (76)."""
        lock, self.lock = self.lock, None
        if lock is None:
            return []
        lock.close()  # not an unlock: that would take it from those who inherited it
        return claim_locks.tidy(store, self.agent, self.task, self.generation)


def acquire(
    store: FileStore, agent: str, task: str = "", kind: str = "session", lease: float = 0.0, dry_run: bool = False
) -> Claim:
    """Take a task, or with task "" the next that is ready: it becomes in_progress and ours, in one commit.

    kind     "session": it belongs to `owners.caller`, until its process ends; "run": to this process, its kernel lock
             and all who inherit it
    lease    seconds after which it is over, instead; 0: none

    The task of an owner who is dead, or whose lease is over, is taken over, and it is logged.  What is ours already is
    left as it is, a lease begins anew (for kind "run" the lock is taken again: a command of ours that got 71; what the
    session claimed that runs it becomes the run's, with a generation of its own).  A
    task taken by name need not be ready.  Taken (75): somebody else has it, or nothing is free; NotFound (66): no such
    task, or nothing is open; UsageError (64): no session can be told; DataError (65).  A crash leaves all files old or
    new, and at most a lock file that `recovery sweep` removes.
    """
    owner, by = _owner(kind, lease)
    locked = verbs.names(store, layout.outbox(agent))
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        _drop(found)
        one = moves.find(store, agent, task) if task else _next(store, agent)
        found["task"] = one
        try:
            step = _step(store, one, owner, by, kind, lease, found, dry_run)
        except moves.Stay as stay:
            found["stay"] = stay
            return None
        change = moves.change_of(store, "claim", one, step, locked)
        change.make_backup = bool(task)  # else the lock's note couldn't say whose it is
        found.update(step=step, files=[edit.name for edit in change.edits], txid=change.txid, time=change.time)
        return change

    try:
        verbs.carry_out(store, locked, plan, dry_run)
    except BaseException as error:
        if "task" not in found and isinstance(error, NotFound) and store.read_state(layout.outbox(agent)) is None:
            raise verbs.unknown(store, agent, task) from None
        if isinstance(error, Unconfirmed) and "lock" in found:
            found["lock"].close()  # it may be in the outbox by now
        else:
            _drop(found)
        raise
    one = found["task"]
    result = moves.result(agent, one.task, "would claim" if dry_run else found.get("done", "claimed"), found, dry_run)
    claim = found["claim"]
    result.data.update(claim=claims.token(agent, one.task, claim["generation"]), generation=claim["generation"])
    result.data.update(title=one.title, priority=one.value("priority"))
    for key in ("lease_until", "by", "since"):
        if key in claim:
            result.data[key] = claim[key]
    try:
        if store.read_state(layout.inbox(agent, one.task)) is not None:
            result.data["brief"] = layout.inbox(agent, one.task)
    except (OSError, RecoveryError) as error:  # it is claimed all the same
        store.told.append(f"whether there is a brief can't be told: {error}")
    return Claim(agent, one.task, claim["generation"], found.get("lock"), result)


def _owner(kind: str, lease: float) -> tuple[dict[str, Any], str]:
    if kind == "run":
        return owners.this_process(), f"recovery run, pid {os.getpid()}"
    owner, by = owners.caller(os.environ)
    if owner:
        return owner, by
    if not lease:
        raise UsageError(
            "whose claim would it be? No shell or program that stays is above this command. Nothing changed.",
            hint="set RECOVERY_SESSION to a name or a pid, or give --lease 2h",
        )
    return {}, f"whoever has its number (pid {os.getpid()} took it)"


def _drop(found: dict[str, Any]) -> None:
    """Nothing came of a plan: its new lock file goes, as nobody else can know it."""
    lock = found.get("lock")
    if lock is not None:
        claim_locks.remove(lock)
    found.clear()


def _step(
    store: FileStore,
    one: moves.Task,
    owner: dict[str, Any],
    by: str,
    kind: str,
    lease: float,
    found: dict[str, Any],
    dry_run: bool,
) -> moves.Step:
    agent, task, old = one.agent, one.task, one.claim
    words, log = "", None
    if old is not None and claims.is_held(old):
        found["claim"] = old
        state, why = owners.judge(store, agent, task, old)
        if state == owners.ALIVE and kind != "run" and _is_ours(agent, task, old, owner):  # a run needs its own lock
            return _again(one, old, lease, found)
        if kind == "run" and old.get("kind") == "run" and owners.is_same(old["owner"], owner) and state == owners.DEAD:
            found["lock"] = None if dry_run else claim_locks.create(store, agent, task, old["generation"])
            raise moves.Stay(f"already claimed {agent}/{task} (generation {old['generation']})", one.status)
        if kind == "run" and state == owners.ALIVE and old.get("kind") != "run" and _is_own(agent, task, old):
            words = f", in place of your own claim (generation {old['generation']})"
        elif state in (owners.ALIVE, owners.UNKNOWN):
            more = f"; {why}" if state == owners.UNKNOWN else ""
            raise Taken(
                f"{agent}/{task} is {claims.words(old)}{more}. Nothing changed.",
                hint=f"take another: recovery claim {agent} --next",
            )
        else:
            words = f", from {say.shown(old.get('by'), 120)}: {why}"
            log = claims.loss(store, task, old, state, why)
    if not words or one.status.lower() != "in_progress":  # a dead owner leaves it so
        one.require_may_become("in_progress", f"recovery reopen {agent} {task}")
    last = old["generation"] if old is not None else 0
    generation = 1 + max([last, *claim_locks.generations(store, agent, task)])
    now = store.now()
    claim: dict[str, Any] = {"generation": generation, "state": claims.HELD, "kind": "lease" if lease else kind}
    claim.update(owner=owner, by=by, since=now)
    if lease:
        claim.update(owners.lease(lease))
    if kind == "run" and not dry_run:
        found["lock"] = claim_locks.create(store, agent, task, generation)
    found["claim"] = claim
    until = f", until {claim['lease_until']}" if lease else ""
    step = moves.Step(
        "in_progress", {"started_at": now, "claim": claim}, f", generation {generation}{until}{words}", {"by": by}
    )
    step.log = log
    return step


def _is_ours(agent: str, task: str, claim: dict[str, Any], owner: dict[str, Any]) -> bool:
    """Whether the very session that asks has it; a child of its process is somebody else, who may not have it too."""
    known = claims.named_generation(agent, task) == claim["generation"]
    return known or (claim.get("kind") != "run" and bool(owner) and owners.is_same(claim["owner"], owner))


def _is_own(agent: str, task: str, claim: dict[str, Any]) -> bool:
    """`_is_ours`, asked by a `recovery run` in that session, whose own owner is its process."""
    return _is_ours(agent, task, claim, owners.caller(os.environ)[0])


def _again(one: moves.Task, old: dict[str, Any], lease: float, found: dict[str, Any]) -> moves.Step:
    seconds = lease or old.get("lease")
    if not seconds:
        raise moves.Stay(f"already {claims.words(old)}: {one.agent}/{one.task}", one.status)
    found["claim"] = claim = {**old, "kind": "lease", **owners.lease(seconds)}
    found["done"] = "renewed"
    return moves.Step("", {"claim": claim}, f", until {claim['lease_until']}")


# --- how it stands with an open task, and the next one


def _next(store: FileStore, agent: str) -> moves.Task:
    """The first that is ready, by priority, then age; Taken (75) or NotFound (66) if there is none."""
    waiting = dependencies.Waiting()
    before, outbox = moves.read(store, agent, "", waiting)
    boxes = ready.Boxes(store)
    boxes.add(agent, waiting, outbox)
    known = boxes.seen_by(agent)
    taken: list[str] = []
    blocked: dict[str, list[str]] = {}
    aside: list[str] = []
    for one in waiting.in_order():
        kind, what = ready.standing(store, agent, one, outbox, known)
        if kind == ready.TAKEN:
            taken.append(f"{one.task} is {claims.words(what)}")
        elif kind == ready.ASIDE:
            (taken if one.status == "in_progress" else aside).append(f"{one.task} is {tasks.shown(one.status)}")
        elif kind == ready.BLOCKED:
            blocked[one.task] = what
        if kind != ready.READY:
            continue
        try:
            verbs.require_settled(store, agent, one.task)
        except RecoveryError as error:
            aside.append(str(error))
            continue
        return moves.Task(agent, one.task, before, outbox)
    if not taken and not blocked:
        more = f" ({_few(aside)})" if aside else ""
        raise NotFound(f"{agent} has no open task{more}. Nothing changed.", hint="recovery status shows what there is")
    stuck = _stuck(waiting, blocked)
    never = not taken and all(" waits for itself (" in words or "which nobody has" in words for words in stuck)
    raise Taken(
        f"{agent} has nothing that is free: {_few(stuck + taken + aside)}. Nothing changed.",
        hint=f"that never ends by itself: recovery edit {agent} takes a dependency out"
        if never
        else "come back when one of them is done; recovery status shows all",
    )


def _few(words: list[str]) -> str:
    more = f"; and {len(words) - _FEW} more" if len(words) > _FEW else ""
    return "; ".join(words[:_FEW]) + more


def _stuck(waiting: dependencies.Waiting, blocked: dict[str, list[str]]) -> list[str]:
    """What keeps the first few of the blocked, a circle of dependencies said as such."""
    after: dict[str, list[str]] = {}
    if blocked:
        for one in waiting.candidates:
            after[one.task] = [name.task for name in dependencies.dependencies(one.after)]
    found = []
    for number, (task, waits) in enumerate(blocked.items()):
        circle = dependencies.cycle(after, [task]) if number < _FEW else []
        found.append(
            f"{task} waits for itself ({' -> '.join([*circle, task])})"
            if circle[:1] == [task]
            else f"{task} waits for " + ", ".join(say.shown(one, 120) for one in waits[:3])
        )
    return found


# --- the verb


def _parse(request_: Request) -> list[Any]:
    if not request_.asked("next"):
        agent, task, _ = request_.agent_and_task(0)
    else:
        words = request_.words or ([os.environ["RECOVERY_AGENT"]] if os.environ.get("RECOVERY_AGENT") else [])
        if len(words) != 1:
            raise UsageError("AGENT TASK, or AGENT --next", hint="see --help")
        agent, task = layout.require_id("agent", words[0]), ""
    lease = request_.options.get("lease")
    seconds = request.duration(lease, "--lease") if lease is not None else 0.0
    if lease is not None and not 0 < seconds <= 366 * 86400:
        raise UsageError("a lease is longer than 0 and at most a year")
    return [agent, task, seconds]


def _call(store: FileStore, request_: Request, call: list[Any]) -> Result:
    agent, task, lease = call
    return acquire(store, agent, task, lease=lease, dry_run=request_.asked("dry_run")).result


VERB = Verb(
    {"--dry-run": "dry_run", "--next": "next", "--lease": "lease="},
    _parse,
    _call,
    of_task=True,
)
