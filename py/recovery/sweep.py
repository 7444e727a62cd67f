"""sweep: give back the tasks of owners who are gone."""

from __future__ import annotations

from recovery import claim_locks, claims, layout, moves, owners, recover, tasks, verbs
from recovery.errors import RecoveryError
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.store import FileStore

    Found = dict[str, Any]

#: How many tasks the one line names.
_FEW = 5


def sweep(store: FileStore, dry_run: bool = False, trust_locks: bool = False) -> Result:
    """Make the tasks pending whose owner is dead or whose lease is over, each in its own commit, and log it.

    Who is alive, though silent, and who can't be judged from here, is said and left alone; `trust_locks` as for
    `recovery.owners.judge`.  Lock files of claims that are over are removed; who holds one of them still is said.
    A damaged outbox is named and stops nobody; the exit code is the first refusal's then.  Safe at any time, twice and
    at once with others: the second finds nothing.
    """
    swept: list[Found] = []
    unknown: list[Found] = []
    silent: list[Found] = []
    code = 0
    for agent in verbs.one_by_one(store, verbs.agents(store)):
        try:
            if store.unfinished() is not None or recover.is_left_untidy(store, layout.outbox(agent)):
                with store.lock([layout.outbox(agent)]):
                    pass  # what a dead process left is finished or undone by whoever locks its files
            found = held(store, agent)
        except RecoveryError as error:
            code = code or error.code
            store.told.append(str(error))
            continue
        for task, claim in found.items():
            try:
                state, why = owners.judge(store, agent, task, claim, trust_locks)
                one = {"agent": agent, "task": task, "by": claim.get("by"), "since": claim.get("since"), "why": why}
                if state in (owners.DEAD, owners.EXPIRED):
                    if _give_back(store, agent, task, claim["generation"], trust_locks, dry_run):
                        swept.append(one)
                elif state == owners.UNKNOWN:
                    unknown.append({**one, "next": _what_to_run(agent, task, claim)})
                else:
                    since = owners.silent_since(store, agent, task, claim)
                    if since:
                        silent.append({**one, "silent_since": since})
            except RecoveryError as error:
                code = code or error.code
                store.told.append(f"{agent}/{task}: {error}")
    stragglers: list[str] = []
    try:
        stragglers = [] if dry_run else _tidy(store)
    except RecoveryError as error:  # what was swept is swept
        code = code or error.code
        store.told.append(str(error))
    changed = bool(swept) and not dry_run
    data = {"ok": not code, "code": code, "changed": changed, "swept": swept, "unknown": unknown, "silent": silent}
    data["stragglers"] = stragglers
    details = [_words(one) + (f": {one['next']}" if "next" in one else "") for one in [*swept, *unknown, *silent]]
    return Result(_line(swept, unknown, silent, stragglers, dry_run), changed, data, [*details, *stragglers])


def held(store: FileStore, agent: str) -> dict[str, dict[str, Any]]:
    """The tasks of an agent that somebody holds a claim of, and that claim.  DataError (65): a damaged outbox."""
    version = store.read(layout.outbox(agent))
    if version is None:
        return {}
    found: dict[str, dict[str, Any]] = {}
    claimed: list[str] = []

    def look(_: int, value: Any) -> None:
        claim = value.get("claim")
        if isinstance(claim, dict) and claim.get("state") == claims.HELD and layout.is_id(str(value.get("task_id"))):
            claimed.append(value["task_id"])

    outbox = tasks.Outbox(layout.outbox(agent), version, look)
    for task in claimed:
        claim = claims.of(tasks.value(outbox, task, "claim"))
        if claim is not None:
            found[task] = claim
    return found


def _give_back(store: FileStore, agent: str, task: str, generation: int, trust_locks: bool, dry_run: bool) -> bool:
    def decide(one: moves.Task) -> moves.Step:
        claim = one.claim
        if claim is None or not claims.is_held(claim) or claim["generation"] != generation:
            raise moves.Stay("somebody was faster", one.status)
        state, why = owners.judge(store, agent, task, claim, trust_locks)
        if state not in (owners.DEAD, owners.EXPIRED):
            raise moves.Stay("it lives", one.status)
        step = moves.given_back(one, claims.ended(store, claim, "swept" if state == owners.DEAD else "expired", why))
        step.log = claims.loss(store, task, claim, state, why)
        step.data = {"why": why, "by": claim.get("by")}
        return step

    store.limits.command = f"sweep {agent}/{task}"  # for the locks' notes
    result = moves.move(store, agent, task, "sweep", "swept", decide, dry_run)
    return result.changed or bool(result.data.get("dry_run"))


def _tidy(store: FileStore) -> list[str]:
    """Remove the lock files of claims that are over; words for those that somebody holds still."""
    left = []
    for agent in store.list(layout.CLAIMS):
        files = [claim_locks.parse(base) for base in store.list(claim_locks.folder_of(agent))]
        if not layout.is_id(agent) or not files:
            continue
        try:
            version = store.read(layout.outbox(agent))  # behind the list: what is held by then isn't touched
            outbox = None if version is None else tasks.Outbox(layout.outbox(agent), version)
        except RecoveryError:
            continue  # it has been said
        for task, generation in filter(None, files):
            claim = claims.of(tasks.value(outbox, task, "claim")) if outbox is not None else None
            last = claim["generation"] if claim is not None else 0
            if last == generation and claims.is_held(claim):
                continue
            who = claim_locks.tidy(store, agent, task, generation)
            if who and generation <= last:  # a newer one is somebody who is about to commit it
                left.append(
                    f"the lock of {agent}/{task}, claim {generation}, which is over, is held by {'; '.join(who)}"
                )
    return left


def _line(swept: list[Found], unknown: list[Found], silent: list[Found], stragglers: list[str], dry_run: bool) -> str:
    parts = []
    if swept:
        count = f"{len(swept)} task" + ("s" if len(swept) > 1 else "")
        parts.append(f"{'would sweep' if dry_run else 'swept'} {count}: {_few(swept)}")
    if unknown:
        parts.append(f"can't be judged from here (-v says what to run): {_few(unknown)}")
    if silent:
        parts.append("alive, but silent: " + _few(silent))
    parts += stragglers[:1]
    if len(stragglers) > 1:
        parts.append(f"and {len(stragglers) - 1} more such")
    return "; ".join(parts) if parts else "nothing to sweep"


def _few(found: list[Found]) -> str:
    more = f" and {len(found) - _FEW} more" if len(found) > _FEW else ""
    return ", ".join(_words(one) for one in found[:_FEW]) + more


def _words(one: Found) -> str:
    why = f"silent since {one['silent_since']}" if "silent_since" in one else one["why"]
    return f"{one['agent']}/{one['task']} ({why})"


def _what_to_run(agent: str, task: str, claim: dict[str, Any]) -> str:
    run = f"if it is surely over: recovery release --force {agent} {task}"
    return run + (", or recovery sweep --trust-locks where no other one runs" if claim.get("kind") == "run" else "")


def _parse(request: Request) -> list[Any]:
    request.no_words()
    return [request.asked("dry_run"), request.asked("trust_locks")]


VERB = Verb(
    {"--dry-run": "dry_run", "--trust-locks": "trust_locks"},
    _parse,
    lambda store, request, call: sweep(store, *call),
)
