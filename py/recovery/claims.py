"""Claims: whose a task is.  What one looks like, who may act on the task, how it ends.

A claim is the member `claim` of the task's entry in its outbox, so it changes in the same commit as everything else:

    generation   counts up with each claim of the task and never down: the fencing token
    state        "held", or how it ended: done failed released swept expired rolled_back
    kind         "run" (a command under `recovery run`), "session" (until its process ends) or "lease" (until a time)
    owner        {"session": TEXT}, or a process: {"pid", "start", "boot", "namespace", "host"}; {}: nobody's lease
    by           words for people
    since        UTC
    lease, lease_until, lease_clock    seconds, UTC, {"boot", "until"}: see `recovery.owners.is_expired`
    ended, why   UTC, words

An ended claim stays in the entry, and keeps its generation.  Whoever was told an older one is fenced off: 76.
"""

from __future__ import annotations

import os

from recovery import jsontext, owners, say
from recovery.errors import NotYours, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.jsontext import Op
    from recovery.store import FileStore

    Claim = dict[str, Any]

HELD = "held"
#: The variable that `recovery run` gives to its command: AGENT/TASK:GENERATION.
VARIABLE = "RECOVERY_CLAIM"


def of(value: Any) -> Optional[Claim]:
    """A claim as it stands in an entry, if it is one that this suite could have written."""
    if not isinstance(value, dict) or not isinstance(value.get("generation"), int):
        return None
    if not isinstance(value.get("owner"), dict) or type(value.get("state")) is not str:
        return None
    return value


def is_held(claim: Optional[Claim]) -> bool:
    return claim is not None and claim["state"] == HELD


def token(agent: str, task: str, generation: int) -> str:
    """What stands in RECOVERY_CLAIM for a claim."""
    return f"{agent}/{task}:{generation}"


def named_generation(agent: str, task: str) -> int:
    """The generation that RECOVERY_CLAIM names for this task, 0 if it doesn't; UsageError (64)."""
    text = os.environ.get(VARIABLE, "")
    name, _, number = text.rpartition(":")
    if not text:
        return 0
    if not number.isascii() or not number.isdigit() or name.count("/") != 1:
        raise UsageError(f"{VARIABLE}={text[:80]!a} is not AGENT/TASK:GENERATION", hint=f"unset {VARIABLE}")
    return int(number) if name == f"{agent}/{task}" else 0


def require(store: FileStore, agent: str, task: str, value: Any, generation: int = 0) -> bool:
    """Whether the caller holds the claim (`value`, the entry's `claim`) now; False: nobody does, and anybody may act.

    NotYours (76) if somebody else does, and to whom knows the generation (`generation`, or RECOVERY_CLAIM) of a claim
    that is over, or whose claim was swept or has expired: others may have it by now, or have had it meanwhile.
    """
    claim = of(value)
    known = generation or named_generation(agent, task)
    again = f"recovery claim {agent} {task}"
    if known and (claim is None or claim["generation"] != known or not is_held(claim)):
        now = "nobody has claimed it" if claim is None else words(claim)
        raise NotYours(
            f"{agent}/{task}: your claim, generation {known}, is over ({now}). Nothing changed.",
            hint=f"claim it again, if it is still to be done: {again}",
        )
    if claim is None:
        return False
    if not is_held(claim):
        if claim["state"] in ("swept", "expired") and owners.is_caller(claim):
            raise NotYours(
                f"{agent}/{task}: your claim is over ({words(claim)}). Nothing changed.", hint=f"run {again}"
            )
        return False
    mine = bool(known) or owners.is_caller(claim)
    state, why = owners.judge(store, agent, task, claim)
    if mine and state != owners.EXPIRED:
        return True
    if mine:
        raise NotYours(f"{agent}/{task}: your claim is over: {why}. Nothing changed.", hint=f"run {again}")
    if state in (owners.DEAD, owners.EXPIRED):
        raise NotYours(
            f"{agent}/{task} is {words(claim)}, and {why}. Nothing changed.",
            hint=f"`recovery sweep` gives it back, or take it: {again}",
        )
    raise NotYours(
        f"{agent}/{task} is {words(claim)}. Nothing changed.",
        hint=f"leave it to them; a person who knows better runs: recovery release --force {agent} {task}",
    )


def has_ended(agent: str, task: str, value: Any, state: str, generation: int = 0) -> bool:
    """Whether the caller's own claim ended so, by its own hand: the command that did it, again, is a no-op."""
    claim = of(value)
    known = generation or named_generation(agent, task)
    return claim is not None and (claim["generation"], claim["state"]) == (known, state) and "forced_by" not in claim


def ended_by_owner(
    store: FileStore, agent: str, task: str, value: Any, state: str, generation: int = 0
) -> Optional[Claim]:
    """`require`, then the claim as it is once its owner has ended it; None if there is none to end."""
    return ended(store, value, state) if require(store, agent, task, value, generation) else None


def ended(store: FileStore, claim: Claim, state: str, why: str = "") -> Claim:
    """A held claim, ended now."""
    left = {key: value for key, value in claim.items() if key not in ("lease", "lease_until", "lease_clock")}
    return {**left, "state": state, "ended": store.now(), **({"why": why} if why else {})}


def kept_generations(store: FileStore, ops: list[Op]) -> list[Op]:
    """The edit that undoes a claim: the claim stays, ended, where its generation would go down."""
    kept = []
    for op in ops:
        if op["path"][-1:] == ["claim"] and op["op"] == "set":
            now, then = (of(jsontext.loads(op[side])) if op[side] else None for side in ("before", "after"))
            if now is not None and (then is None or then["generation"] < now["generation"]):
                op = {**op, "after": jsontext.dumps(ended(store, now, "rolled_back"))}
        kept.append(op)
    return kept


def loss(store: FileStore, task: str, claim: Claim, state: str, why: str) -> dict[str, Any]:
    """The line of the recovery log that says how an owner lost a task: a recovery, for the task can be taken again."""
    from recovery.incidents import Incident

    name = {owners.EXPIRED: "LeaseExpired"}.get(state, "OwnerDied")
    incident = Incident(task, store.now(), generation=claim["generation"], by=claim.get("by"), since=claim.get("since"))
    incident.strategy, incident.error_type, incident.error_message = "RETRY", name, why
    line = incident.ended("returned", store.now(), 1)
    del line["txid"]  # it has that of the change
    return line


def touched(mine: bool, claim: Optional[Claim]) -> tuple[dict[str, Any], str]:
    """What a command of the owner's does to a lease: it begins anew.  Members for the entry, and words."""
    if not mine or claim is None or not claim.get("lease"):
        return {}, ""
    new = {**claim, **owners.lease(claim["lease"])}
    return {"claim": new}, f", yours until {new['lease_until']}"


def words(claim: Claim) -> str:
    """A claim in one of our lines."""
    who = say.shown(claim.get("by") or "somebody", 120)
    if is_held(claim):
        until = f", until {claim['lease_until']}" if claim.get("lease_until") else ""
        return f"claimed by {who} since {claim.get('since')}{until} (generation {claim['generation']})"
    why = f": {say.shown(claim['why'], 120)}" if claim.get("why") else ""
    return f"{claim['state']} at {claim.get('ended')}{why} (generation {claim['generation']}, {who})"
