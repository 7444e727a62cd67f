"""Why a task stands where it stands: from facts to one sentence and the one command to run next.  Pure.

The facts of a task, as `recovery.explain` gathers them; whatever isn't known is left out:

    agent, task     agent "" where no outbox has it: a program's own task, or `recovery try NAME`
    root            the workspace's folder, absolute
    damaged         why its outbox can't be read, in words
    missing         what is left of an outbox that is gone, in words
    status, title   as in its outbox; status None: it isn't there
    unread          the agents whose folders can't be read: they may have it
    since           when its outbox was written
    done_at         what the completion record says; archived: whether the outbox's history has it
    failed_at, failure_reason, blocked_by    as in its entry
    claim           {by, since, state (alive dead expired unknown), why, silent_since}, while it is held
    unfinished      {op, agent, task, time, pid, under_way, ours}: a commit that has not come to its end
    stopped         why nobody can finish what the journal holds, in words
    parked          the name of a record that could be neither finished nor undone
    escalations     [{time, kind, message}], open, oldest first
    flag, flagged_at    why a person has to let it run again
    incident        the last recovery: {time, kind, message, code, op, given (its words), outcome ("": none), failures,
                    by, by_why}: who is at it, where it has not ended (alive dead unknown), and why that is known
    changed_at, last_change    when a commit last moved it; {seq, time, op, undoes_op}
    run             the last checkpoint of a program: {time, state}
    foreign         whether its outbox was written past the suite since its last change
    drift           the fields that are not as its last change left them, in words
    lost            {seq, torn, by}: a change that may have done that, for its line is lost; whether torn lines were met
                    now, and what it was, if that is known
    unrecorded      the change whose completion record is gone
    progress, progress_seq    the same fields of the progress file, and the change that left them
    gone            whether its last change left it in the outbox, where it is no more
    outbox_lock     who holds the lock of its outbox now, in words
    died            {pid, op, time}: who held its outbox's lock last, and died before a change was decided
    breakers        [{name, until, reason}], open
"""

from __future__ import annotations

from recovery import layout, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    Facts = dict[str, Any]
    Found = Optional[tuple[str, str]]


class Cause:
    """A cause: `why` in a sentence, `next` the command, `rank` 0 for the worst; `wrong`: something is.

    `kind` is the cause's own name: stopped parked damaged missing unfinished escalated flagged lost_line gone drifted
    old_outbox failed lost breaker gave_up run_failed unknown_owner blocked progress_drifted unrecorded silent died
    left_open, and what is not wrong.
    """

    __slots__ = ("kind", "next", "rank", "why", "wrong")

    def __init__(self, why: str, following: str, rank: int, wrong: bool, kind: str = "") -> None:
        self.why, self.next, self.rank, self.wrong, self.kind = why, following, rank, wrong, kind


def cause_of(facts: Facts) -> Cause:
    """The first of the known causes, worst first, that the facts show."""
    for rank, look in enumerate(_WRONG + _RIGHT):
        found = look(facts)
        if found is not None:
            return Cause(found[0], found[1], rank, look in _WRONG, look.__name__[1:])
    raise AssertionError("the last of them is always true")


def _names(facts: Facts) -> str:
    return f"{facts['agent']} {facts['task']}".strip()


# --- something is wrong


def _stopped(facts: Facts) -> Found:
    refused = facts.get("stopped")
    return stopped(refused) if refused else None


def stopped(refused: str) -> tuple[str, str]:
    """The cause, and the command, where every command is refused until the journal is repaired."""
    return f"No command can go on, whatever its task: {refused}.", "recovery doctor --repair"


def _parked(facts: Facts) -> Found:
    name = facts.get("parked")
    if not name:
        return None
    return (
        f"An earlier change could be neither finished nor undone; every command for it is refused (70) until it is. "
        f"Its record is {name}.",
        "recovery recover",
    )


def _damaged(facts: Facts) -> Found:
    text = facts.get("damaged")
    if not text:
        return None
    return f"Its outbox can't be read, so no command touches it: {text}.", f"recovery doctor --agent {facts['agent']}"


def _missing(facts: Facts) -> Found:
    left = facts.get("missing")
    return missing(facts["agent"], left) if left else None


def missing(agent: str, left: str) -> tuple[str, str]:
    """The cause, and the command, where an agent's outbox is gone."""
    return (
        f"{layout.outbox(agent)} is gone. Left of it: {left}. A repair puts together again what is held elsewhere.",
        f"recovery doctor --agent {agent}",
    )


def _unfinished(facts: Facts) -> Found:
    one = facts.get("unfinished")
    if not one or not one["ours"]:
        return None
    what = f"{one['op']} {one['agent']}/{one['task']}"
    if one["under_way"]:
        return f"Pid {one['pid']} is committing it at this moment ({what} of {one['time']}).", "recovery locks"
    return (
        f"Pid {one['pid']} stopped in the middle of {what} at {one['time']}. Nothing is lost: the journal has all of "
        "it, and the next command finishes it or takes it back.",
        "recovery recover",
    )


def _is_done_since(facts: Facts, when: str) -> bool:
    """Whether the task was completed since: whatever a person was needed for then, nobody waits for it.

    Of one second the completion counts as the later: behind it hardly anything can need a person.
    """
    status = str(facts.get("status") or "").lower()
    if not facts["agent"]:
        last = facts.get("run") or {}
        return last.get("state") == "completed" and last["time"] >= when
    done = facts.get("done_at") or ""
    return bool(done) and done >= when and (status == "completed" or (not status and not facts.get("gone")))


def _escalated(facts: Facts) -> Found:
    found = facts.get("escalations")
    if not found or _is_done_since(facts, found[-1]["time"]):
        return None
    last = found[-1]
    more = f" ({len(found)} escalations)" if len(found) > 1 else ""
    return (
        f"A person is needed{more}: {last['kind']}: {last['message']} (since {last['time']})",
        f"recovery escalations show {facts['task']}",
    )


def _flagged(facts: Facts) -> Found:
    if not facts.get("flag") or _is_done_since(facts, facts.get("flagged_at", "")):
        return None
    return f"It is parked until a person lets it run: {facts['flag']}.", f"recovery escalations clear {facts['task']}"


def _lost_line(facts: Facts) -> Found:
    one = facts.get("lost")
    if not one or not one["torn"] or not (facts.get("drift") or facts.get("gone")):
        return None
    last = facts["last_change"]
    how = facts.get("drift") or "it is not in the outbox"
    was = f"({one['by']}, says the journal) " if one["by"] else ""
    return (
        f"Change {one['seq']} {was}is lost, its line in {layout.CHANGES}/ is torn or gone. It may be why the task is "
        f"not as change {last['seq']} ({last['op']} of {last['time']}) left it: {how}.",
        "recovery doctor",
    )


def _gone(facts: Facts) -> Found:
    if not facts.get("gone") or facts.get("lost"):
        return None
    last = facts["last_change"]
    if not facts.get("since"):
        return (
            f"The folder postbox/{facts['agent']} is gone, and the task with it: change {last['seq']} ({last['op']} of "
            f"{last['time']}) had left it there.",
            "recovery doctor",
        )
    return (
        f"Somebody removed it from the outbox past the suite: change {last['seq']} ({last['op']} of {last['time']}) "
        f"had left it there. The file was written at {facts.get('since')}.",
        f"recovery history {_names(facts)} --at {last['seq']}",
    )


def _drifted(facts: Facts) -> Found:
    if not facts.get("drift") or facts.get("lost"):
        return None
    last = facts["last_change"]
    return (
        f"Somebody changed it past the suite, after change {last['seq']} ({last['op']} of {last['time']}): "
        f"{facts['drift']}. The file was written at {facts.get('since')}.",
        f"recovery history {_names(facts)} --at {last['seq']}",
    )


def _progress_drifted(facts: Facts) -> Found:
    if not facts.get("progress"):
        return None
    return (
        f"{layout.PROGRESS} was changed past the suite, and is not what change {facts['progress_seq']} left: "
        f"{facts['progress']}. Its outbox says {facts['status']}.",
        "recovery progress rebuild",
    )


def _unrecorded(facts: Facts) -> Found:
    if not facts.get("unrecorded"):
        return None
    return (
        f"Somebody removed {layout.record(facts['agent'], facts['task'])}, which change {facts['unrecorded']} had "
        f"written. Nothing else is wrong: its outbox says {facts['status']}.",
        f"recovery history {_names(facts)}",
    )


def _old_outbox(facts: Facts) -> Found:
    status = facts.get("status")
    if not facts.get("done_at") or status is None or status.lower() == "completed" or facts.get("last_change"):
        return None
    return (
        f"Its completion record says that it was completed at {facts['done_at']}, its outbox says {status}, and no "
        "change says why.",
        f"recovery doctor --agent {facts['agent']}",
    )


def _failed(facts: Facts) -> Found:
    if str(facts.get("status")).lower() != "failed":
        return None
    at = f" (at {facts['failed_at']})" if facts.get("failed_at") else ""
    why = facts.get("failure_reason") or "nobody said why"
    return f"It failed: {why}{at}", f"recovery reopen {_names(facts)}"


def _lost(facts: Facts) -> Found:
    claim = facts.get("claim")
    if not claim or claim["state"] not in ("dead", "expired"):
        return None
    return (
        f"Its owner is gone ({claim.get('why') or claim['state']}): {claim['by']}, since {claim['since']}. Until it is "
        "given back, nobody works on it.",
        "recovery sweep",
    )


def _gave_up(facts: Facts) -> Found:
    one = facts.get("incident")
    if not one or one["outcome"] not in ("failed", "rollback_failed", "escalated", "parked", "refused", ""):
        return None
    if (facts.get("changed_at") and one["time"] <= facts["changed_at"]) or is_under_way(facts):
        return None
    what, at = one["op"] or "It", f"(at {one['time']})"
    tries = f"after {one['failures']} tries" if one["failures"] != 1 else "after one try"
    error = f"{one['kind']}: {one['message']}"
    if not one["outcome"]:
        was = (
            f"{one['by_why']}, so it was killed" if one.get("by") == "dead" else "it may be tried again, or was killed"
        )
        return f"{what} failed {tries}, and no end of it is recorded: {was}. {error} {at}", _after(facts, one)
    held = facts.get("outbox_lock")
    if one["code"] == 75 and held:
        still = f"the lock is held now too, by {held.partition(',')[0]}"
        return f"{what} gave up {tries}, and {still}. {error} {at}", "recovery locks"
    return f"{what} gave up {tries}: {error} {at}", _after(facts, one)


def _after(facts: Facts, one: Facts) -> str:
    code, op = one["code"], one["op"]
    if code in (70, 71):
        return "recovery recover"
    if code == 74:
        return f"df -h {say.quoted(facts['root'])}"
    if code == 77 and facts["agent"]:
        return f"recovery doctor --agent {facts['agent']}"
    if facts["agent"] and one.get("given"):
        return f"recovery {op} {' '.join(map(say.quoted, one['given']))}"
    if facts["agent"] and op in _AGAIN:
        return f"recovery {op} {_names(facts)}"
    return "recovery locks" if code == 75 else _log(facts)


def _log(facts: Facts) -> str:
    return f"tail -n 5 {say.quoted(facts['root'] + '/' + layout.recovery_log(facts['task']))}"


#: The verbs that can be named where nobody logged what they were given.
_AGAIN = ("complete", "claim", "release", "start", "review", "reopen", "rollback")


def _subject(facts: Facts) -> str:
    return f"{facts['agent']}/{facts['task']}".lstrip("/")


def _unknown_owner(facts: Facts) -> Found:
    claim = facts.get("claim")
    if not claim or claim["state"] != "unknown":
        return None
    return (
        f"Nobody can tell from here whether its owner lives ({claim.get('why')}): {claim['by']}, since "
        f"{claim['since']}.",
        f"recovery release --force {_names(facts)}",
    )


def _blocked(facts: Facts) -> Found:
    found = facts.get("blocked_by")
    if not found or str(facts.get("status")).lower() in ("completed", "failed"):
        return None
    return f"It waits for what failed before it: {' '.join(found)}.", f"recovery explain {found[0]}"


def _breaker(facts: Facts) -> Found:
    one = facts.get("incident")
    found = facts.get("breakers")
    if not one or not found or one["kind"] not in ("CircuitOpen", "Unavailable"):
        return None
    last = next((b for b in found if b["name"] in one["message"]), None)
    if last is None:
        return None
    why = f" ({last['reason']})" if last.get("reason") else ""
    return f"The breaker {last['name']} is open until {last['until']}{why}.", f"recovery breaker show {last['name']}"


def _run_failed(facts: Facts) -> Found:
    """A program's run that failed and left no line in the log: it was refused before its first try."""
    last = facts.get("run")
    if not last or last["state"] != "failed" or facts.get("incident"):
        return None
    said = f"Its last run failed before anything was tried (at {last['time']})"
    found = facts.get("breakers")
    if not found:
        return f"{said}.", f"tail -n 5 {say.quoted(facts['root'] + '/' + layout.history(facts['task']))}"
    why = f" ({found[0]['reason']})" if found[0].get("reason") else ""
    name = found[0]["name"]
    return f"{said}, and the breaker {name} is open until {found[0]['until']}{why}.", f"recovery breaker show {name}"


def _silent(facts: Facts) -> Found:
    claim = facts.get("claim")
    if not claim or not claim.get("silent_since"):
        return None
    return (
        f"{claim['by']} has it and lives, but gave no sign since {claim['silent_since']}.",
        f"recovery status -t {facts['task']}",
    )


def _died(facts: Facts) -> Found:
    one = facts.get("died")
    if not one:
        return None
    return (
        f"Pid {one['pid']} died in {one['op']} {_subject(facts)} (at {one['time']}), before its change was decided: no "
        "file of it has changed. What it left behind is tidied up by the next command; then do it again.",
        "recovery recover",
    )


def _left_open(facts: Facts) -> Found:
    """A paper that nobody has put away: the task was completed since, else `_escalated` would have found it."""
    found = facts.get("escalations")
    if not found and not facts.get("flag"):
        return None
    said = f"{found[-1]['kind']}: {found[-1]['message']}" if found else f"it was parked: {facts['flag']}"
    when = found[-1]["time"] if found else facts["flagged_at"]
    done = facts["done_at"] if facts["agent"] else facts["run"]["time"]
    what = "An escalation" if found else "A flag"
    return (
        f"{what} is still open, though it was completed since, at {done}: {said} (of {when})",
        f"recovery escalations {'resolve' if found else 'clear'} {facts['task']}",
    )


# --- nothing is


def _trying(facts: Facts) -> Found:
    if not is_under_way(facts):
        return None
    one = facts["incident"]
    times = "once" if one["failures"] == 1 else f"{one['failures']} times"
    who = one.get("by_words") or facts["claim"]["by"]
    return (
        f"{who} is at it still: {one['op'] or 'it'} failed {times}, and is to be tried again. {one['kind']}: "
        f"{one['message']} (at {one['time']})",
        f"recovery explain {_subject(facts)}",
    )


def is_under_way(facts: Facts) -> bool:
    """Whether who failed last lives, and goes on."""
    one = facts.get("incident")
    if not one or one["outcome"]:
        return False
    claim = facts.get("claim") or {}
    return one.get("by") == "alive" or (claim.get("kind") == "run" and claim["state"] == "alive")


def _taken_back(facts: Facts) -> Found:
    last = facts.get("last_change")
    if not last or last["op"] not in ("rollback", "undo"):
        return None
    return (
        f"Nothing is broken. The last thing that happened: its {last.get('undoes_op') or 'last change'} was taken back "
        f"({last['op']} of {last['time']}).",
        f"recovery history {_names(facts)}",
    )


def _completed(facts: Facts) -> Found:
    status = str(facts.get("status") or "").lower()
    if status != "completed" and not (facts.get("status") is None and (facts.get("archived") or facts.get("done_at"))):
        return None
    at = f" at {facts['done_at']}" if facts.get("done_at") else ""
    one = facts.get("incident")
    failed = one["failures"] if one and one["outcome"] == "recovered" else 0
    tries = f", after {failed} failed {'try' if failed == 1 else 'tries'}" if failed else ""
    return f"Nothing is wrong: it was completed{at}{tries}.", f"recovery history {_names(facts)}"


def _working(facts: Facts) -> Found:
    claim = facts.get("claim")
    if not claim:
        return None
    return (
        f"Nothing is wrong: {claim['by']} has it since {claim['since']}, and lives.",
        f"recovery status -t {facts['task']}",
    )


def _waiting(facts: Facts) -> Found:
    status = facts.get("status")
    if status is None:
        return None
    if status.lower() in ("pending", "assigned"):
        return "Nothing is wrong: it waits, and nobody has claimed it.", f"recovery claim {_names(facts)}"
    return f"Nothing is wrong that is recorded: it is {status}, and nobody has claimed it.", (
        f"recovery history {_names(facts)}"
    )


def _ended(facts: Facts) -> Found:
    one = facts.get("incident")
    if not one:
        return None
    said = f"{one['kind']}: {one['message']}"
    return f"Its last recovery {one['outcome'] or 'failed'} ({one['time']}). {said}", _log(facts)


def _traces(facts: Facts) -> Found:
    if facts.get("unread"):
        where = ", ".join(f"postbox/{agent}" for agent in facts["unread"][:3])
        return (
            f"No outbox that can be read has it, and {where} can't be; what else is left of it is shown below.",
            f"recovery doctor --agent {facts['unread'][0]}",
        )
    return "No outbox has it; what is left of it is shown below.", f"recovery explain {_subject(facts)} --full"


_WRONG = (
    _stopped,
    _parked,
    _damaged,
    _missing,
    _unfinished,
    _escalated,
    _flagged,
    _lost_line,
    _gone,
    _drifted,
    _old_outbox,
    _failed,
    _lost,
    _breaker,
    _gave_up,
    _run_failed,
    _unknown_owner,
    _blocked,
    _progress_drifted,
    _unrecorded,
    _silent,
    _died,
    _left_open,
)
_RIGHT = (_trying, _taken_back, _completed, _working, _waiting, _ended, _traces)
#: Where a commit, an outbox, a breaker, a call or a circle that is nobody's single task stands among them.
UNFINISHED, DAMAGED, MISSING, BREAKER, UNKNOWN, STUCK = map(
    _WRONG.index, (_unfinished, _damaged, _missing, _breaker, _flagged, _blocked)
)
#: Behind all of those: tries that were repeated, and made it.
RETRIED = len(_WRONG)
