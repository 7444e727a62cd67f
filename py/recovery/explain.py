"""explain: what happened to a task, or in the last day to all: the cause first, what to run next last.  Only reads.

What can't be read, or vanishes meanwhile, is said and stops nothing.  Logs are read from their ends: the memory it
takes is bounded whatever their size.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial

from recovery import (
    archived,
    cause,
    changelog,
    contention,
    derived,
    durable,
    escalations,
    finish,
    flock,
    gone,
    jsontext,
    layout,
    lost,
    page,
    request,
    rollback,
    segments,
    status,
    tasks,
)
from recovery.errors import DENIED, IO, DataError, NotFound, RecoveryError, UsageError, from_os_error
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Optional

    from recovery.cause import Cause, Facts
    from recovery.changelog import Line
    from recovery.store import FileStore

#: Lines of each kind that a task's time line is made of, and with --full.
MOST, FULL = 40, 10_000
#: How often a task is looked at while others change its outbox, and the lines of the change log that are counted.
_ROUNDS, _LINES = 5, 2000
#: Seconds that an overview looks back, and tasks that it looks at one by one.
DAY, CANDIDATES = 86400, 300


class Screen:
    """How it is told: `full` or on a screen of that size, from `since` on; `place` as `request.place_of` says."""

    __slots__ = ("full", "height", "place", "since", "width")

    def __init__(self, full: bool = False, width: int = 80, height: int = 24, place: str = "", since: str = "") -> None:
        self.full, self.width, self.height = full, width, 0 if full else height
        self.place, self.since = place, since


def explain(store: FileStore, agent: str, task: str, screen: Optional[Screen] = None) -> Result:
    """A page for each task of that id.

    NotFound (66) if nothing at all is known of it; 74 or 77 if something that can't be read may have it.
    """
    screen = screen or Screen()
    look = Look(store, FULL if screen.full else MOST)
    agents = [agent] if agent else look.agents_of(task)
    found = [look.settled(name, task) for name in agents]
    found = [(facts, events) for facts, events in found if events or facts.get("status") is not None or _marked(facts)]
    if not found:
        raise _nowhere(look, agent, task, screen.place)
    told = [(facts, events, cause.cause_of(facts)) for facts, events in found]
    for _, events, why in told:
        why.next = request.in_place(why.next, screen.place)
        events[:] = [one for one in events if not one.time or one.time >= screen.since]
    worst = min(told, key=lambda one: one[2].rank)[2]
    data = {
        "ok": True,
        "code": 0,
        "changed": False,
        "since": screen.since or None,
        "tasks": [
            {**facts, "cause": why.why, "wrong": why.wrong, "next": why.next, "events": [one.data() for one in events]}
            for facts, events, why in told
        ],
        "next": worst.next,
        **look.notes(),
    }
    notes = [f"what happened before {screen.since} is left out"] if screen.since else []
    lines = page.of_tasks(told, worst.next, [*notes, *look.said()], screen.width, screen.height)
    return Result(lines[0], False, data, lines[1:])


def _marked(facts: Facts) -> bool:
    return any(facts.get(key) for key in ("archived", "parked", "damaged", "missing", "escalations", "flag", "done_at"))


def _nowhere(look: Look, agent: str, task: str, place: str) -> RecoveryError:
    everybody = look.agents()
    closed = [one for one in look.skipped.refusals if one.code in (DENIED, IO)]
    if closed:
        what = "; ".join(dict.fromkeys(map(str, closed[:3])))
        name = f"{agent}/{task}" if agent else task
        return RecoveryError(
            f"nothing is known of {name} in what can be read, but not all can: {what}",
            hint=request.in_place(closed[0].hint or "recovery doctor", place),
            code=closed[0].code,
        )
    if look.missing and not agent:
        gone = next(iter(sorted(look.missing)))
        why, following = cause.missing(gone, look.missing[gone])
        return NotFound(f"nothing is known of {task}, but {why}", hint=request.in_place(following, place))
    for name in everybody if not agent else ():
        why = look.damage(name)
        if why:
            text = f"nothing is known of {task}, but the outbox of {name} can't be read, which may have it: {why}"
            return NotFound(text, hint=request.in_place(f"recovery doctor --agent {name}", place))
    others = [one for one in look.agents_of(task) if one] if agent else []
    where = f"{', '.join(others[:3])} has it" if others else "no outbox has it, no log names it"
    here = ", ".join(everybody[:10]) + (" and more" if len(everybody) > 10 else "")
    return NotFound(
        f"nothing is known of {f'{agent}/{task}' if agent else task}: {where}. Agents here: {here or 'none'}.",
        hint=request.in_place(f"recovery explain {others[0]}/{task}" if others else "recovery status", place),
    )


def overview(store: FileStore, screen: Optional[Screen] = None, now: float = 0.0) -> Result:
    """What went wrong in the last 24 hours, or since then, or still stands open, over all agents, the worst first."""
    screen = screen or Screen()
    since = screen.since or _iso((now or time.time()) - DAY)
    look = Look(store, MOST)
    rows = look.everywhere(since)
    rows.sort(key=lambda row: row.when, reverse=True)
    rows.sort(key=lambda row: row.rank)
    data = {
        "ok": True,
        "code": 0,
        "changed": False,
        "since": since,
        "findings": [row.data(screen.place) for row in rows],
        "next": request.in_place(rows[0].next if rows else page.CLEAR, screen.place),
        **look.notes(),
    }
    lines = page.of_rows(rows, since, look.said(), screen.width, screen.height, screen.place)
    return Result(lines[0], False, data, lines[1:])


def _iso(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


#: The facts that come of comparing several files, between whose reading somebody may have made a change.
_BY_COMPARING = ("drift", "gone", "lost", "progress", "unrecorded", "died", "foreign")


class Look:
    """One look at a workspace: what was passed over is counted, and told at the end."""

    def __init__(self, store: FileStore, most: int) -> None:
        self.store, self.most = store, most
        self.skipped = segments.Skipped()
        self._unfinished: Optional[Facts] = None
        self.stopped = ""  # why nobody can finish what the journal holds, known when `unfinished` is
        self._looked = False
        self._agents: Optional[list[str]] = None
        self._late: Optional[gone.Known] = None
        self.unread: list[str] = []  # the agents whose folders can't be listed, known when `agents` are
        self.missing: dict[str, str] = {}  # those whose outbox is gone, with what is left of it: likewise
        self._breakers: Optional[list[dict[str, Any]]] = None

    def notes(self) -> dict[str, Any]:
        return {"torn": self.skipped.torn, "problems": self.skipped.problems}

    def said(self) -> list[str]:
        torn = self.skipped.torn
        said = [f"{torn} torn or foreign line{'s' if torn > 1 else ''} of the logs passed over"] if torn else []
        return [*said, *dict.fromkeys(self.skipped.problems)]

    def _trying(self, what: str, call: Callable[[], Any], default: Any) -> Any:
        """What a look gives; where it can't be had the default, and that is said."""
        try:
            return call()
        except (FileNotFoundError, NotADirectoryError):
            return default
        except (RecoveryError, OSError) as error:
            refusal = error if isinstance(error, RecoveryError) else from_os_error(error, what)
            self.skipped.refuse(refusal)
            return default

    def _list(self, folder: str) -> list[str]:
        return list(self._trying(f"could not list {folder}", lambda: self.store.list(folder), []))

    # --- where a task is

    def _let_go(self, agent: str) -> None:
        """Of thousands of agents only the one that is looked at may hold descriptors."""
        if agent:
            self.store.root.forget(f"postbox/{agent}")

    def agents(self) -> list[str]:
        if self._agents is None:
            found = [name for name in self._list("postbox") if layout.is_id(name)]
            self._agents = []
            for name in found:
                told = len(self.skipped.refusals)
                inside = self._list(f"postbox/{name}")
                if "outbox.json" in inside:
                    self._agents.append(name)
                elif len(self.skipped.refusals) > told:
                    self.unread.append(name)
                else:
                    self._miss(name, inside)
                self._let_go(name)
            for name in self._lately.missed():
                if name not in found:
                    self.missing[name] = self._lately.words(name)
        return self._agents

    def _miss(self, agent: str, inside: list[str]) -> None:
        """Note an agent's folder without an outbox, if there ever was one."""
        kept = [f"its {base}" for base in inside if base.startswith("outbox.json.backup_")][:1]
        for base, word in (("completed", "completion record"), ("inbox", "brief"), ("archive", "archive file")):
            count = len(self._list(f"postbox/{agent}/{base}")) if base in inside else 0
            kept += [f"{count} {word}{'s' if count > 1 else ''}"] if count else []
        if agent in self._lately.logged and self._lately.misses(agent):
            kept.append(f"its changes in {layout.CHANGES}/")
        if kept:
            self.missing[agent] = ", ".join(kept)

    @property
    def _lately(self) -> gone.Known:
        """Who should have an outbox, as far as the last changes know."""
        if self._late is None:
            self._late = gone.Known(self.store, gone.LATE)
        return self._late

    def agents_of(self, task: str) -> list[str]:
        """Who has a task of that id, or had it last; [""] where only logs know it."""
        needle = jsontext.quote(task)
        found = []
        for agent in self.agents():
            name = layout.outbox(agent)
            version = self._trying(f"could not read {name}", partial(self.store.read, name, False), None)
            self._let_go(agent)
            if version is not None and needle in version.text:
                found.append(agent)
        recorded = []
        for agent in self._list("postbox"):
            if layout.is_id(agent) and agent not in found:
                name = layout.archives(agent)
                if self._trying(f"could not read {name}", partial(archived.find, self.store, agent, task), None):
                    found.append(agent)
                elif not found and f"{task}_completion.json" in self._list(f"postbox/{agent}/completed"):
                    recorded.append(agent)
            self._let_go(agent)
        found = sorted(found) or recorded
        if not found:
            for line in derived.newest_first(self.store, jsontext.quote(task), skipped=self.skipped):
                many = line.get("tasks")
                owners = [line["agent"]] if line["task"] == task else list(many) if isinstance(many, dict) else []
                found = [one for one in owners if changelog.is_of(line, one, task)]
                if found:
                    break
        return found or [""]

    def damage(self, agent: str) -> str:
        """Why an agent's outbox can't be read, in words; "" if it can."""
        try:
            version = self.store.read(layout.outbox(agent))
            if version is not None:
                tasks.Outbox(layout.outbox(agent), version)
            return ""
        except (RecoveryError, OSError) as error:
            return str(error)
        finally:
            self._let_go(agent)

    # --- one task

    def settled(self, agent: str, task: str) -> tuple[Facts, list[page.Event]]:
        """`at_task`, looked at again where somebody changed the outbox meanwhile."""
        for _ in range(_ROUNDS):
            before = self._newest()
            found = self.at_task(agent, task)
            if self._newest() == before or not any(key in found[0] for key in _BY_COMPARING):
                return found
            self.skipped.torn, self._looked, self._unfinished = 0, False, None
        self.skipped.problems.append(f"somebody kept committing: what only {layout.CHANGES}/ knows is left out")
        return self.at_task(agent, task, deep=False)

    def _newest(self) -> int:
        """The number of the next commit: while that stays, what is read of several files is of one moment."""
        journal = self._trying(layout.JOURNAL, self.store.journal, None)
        if journal is None:
            return 0
        self._trying(layout.JOURNAL, journal.read, None)
        return int(journal.next_seq)

    def at_task(self, agent: str, task: str, deep: bool = True) -> tuple[Facts, list[page.Event]]:
        """The facts of a task (see `recovery.cause`), and its time line, oldest first.

        Without `deep` the change log is left alone: what it alone knows is left out.
        """
        facts: Facts = {"agent": agent, "task": task, "root": os.path.abspath(self.store.root.path), "status": None}
        events: list[page.Event] = []
        outbox = self._outbox(facts) if agent else None
        if agent not in self.agents() and agent in self.missing:
            facts["missing"] = self.missing[agent]
        self._marks(facts, events)
        self._incidents(facts, events)
        self._checkpoints(facts, events)
        if not agent and self.unread:
            facts["unread"] = self.unread
        if deep and agent:
            self._changes(facts, events, outbox)
            self._receipts(facts, events)
        died = self._died(agent) if agent and "unfinished" not in facts else None
        if died and died["task"] == task:
            facts["died"] = died
            events.append(page.Event(died["time"], "died", f"pid {died['pid']} in {died['op']}, before it was decided"))
        if facts.get("archived_at"):
            events.append(page.Event(facts["archived_at"], "archived", f"{layout.archives(agent)}/"))
        if facts.get("claim"):
            claim = facts["claim"]
            words = f"claimed by {claim['by']}, {claim['state']}" + (f": {claim['why']}" if claim.get("why") else "")
            events.append(page.Event(claim["since"], "claim", words))
        incident = facts.get("incident")
        if incident or facts.get("run"):
            facts["breakers"] = self.breakers()
        if agent and incident and incident["code"] == 75:
            lock = self._lock_of(layout.lock_of(layout.outbox(agent)))
            if lock:
                facts["outbox_lock"] = lock
        events.reverse()  # logs come newest first
        self._let_go(agent)
        return facts, page.in_order(events)

    def _outbox(self, facts: Facts) -> Optional[tasks.Outbox]:
        agent, task = facts["agent"], facts["task"]
        name = layout.outbox(agent)
        try:
            version = self.store.read(name)
            if version is None:
                return None
            facts["since"] = _iso(version.mtime / 1e9)
            facts["hash"] = version.hash
            outbox = tasks.Outbox(name, version)
            entry = outbox.find(task)
            facts["archived"] = outbox.archived(task) is not None
            if entry is None:
                kept = self._trying(name, lambda: archived.find(self.store, agent, task), None)
                if kept is not None:
                    facts.update(archived=True, done_at=str(kept.get("completed_at") or ""))
                    facts["archived_at"] = str(kept["archived_at"])
            else:
                self._entry(facts, jsontext.loads(jsontext.from_latin(version.text[entry[3] : entry[4]])))
            return outbox
        except RecoveryError as error:
            facts["damaged"] = str(error)
        except (ValueError, OSError) as error:
            facts["damaged"] = f"{name}: {error}"
        return None

    def _entry(self, facts: Facts, value: Facts) -> None:
        state = value.get("status")
        facts["status"] = state if isinstance(state, str) and state else "pending"
        for key in ("title", "failed_at", "failure_reason"):
            if isinstance(value.get(key), str):
                facts[key] = value[key]
        if facts["status"].lower() == "completed" and isinstance(value.get("completed_at"), str):
            facts["done_at"] = value["completed_at"]
        if isinstance(value.get("blocked_by"), list):
            facts["blocked_by"] = [str(one) for one in value["blocked_by"]]
        if "claim" in value:
            told = self._trying(
                "could not judge a claim",
                lambda: status.told_of_claim(self.store, facts["agent"], facts["task"], value["claim"]),
                None,
            )
            if told:
                facts["claim"] = {"by": "somebody", "since": "", **told}

    def _marks(self, facts: Facts, events: list[page.Event]) -> None:
        """What stands in files of their own: an unfinished commit, records, flags, escalations, backups."""
        agent, task = facts["agent"], facts["task"]
        one = self.unfinished()
        if self.stopped:
            facts["stopped"] = self.stopped
        if one is not None:
            ours = (one["agent"], one["task"]) == (agent, task) or task in (one["tasks"].get(agent) or ())
            facts["unfinished"] = {**one, "ours": ours}
            if not ours and not one["under_way"]:
                what = f"{one['op']} {one['agent']}/{one['task']}"
                self.skipped.problems.append(f"{what} of {one['time']} is unfinished: `recovery recover` finishes it")
            if ours:
                state = "under way" if one["under_way"] else "and didn't finish it"
                events.append(page.Event(one["time"], "journal", f"pid {one['pid']} began {one['op']}, {state}"))
        if agent:
            facts["parked"] = self._trying("data/conflicts", lambda: finish.is_parked(self.store, agent, task), None)
            done = self._trying("", lambda: self._json(layout.record(agent, task)), None)
            if done is not None:
                at = str(done.get("completed_at") or "")
                facts["done_at"] = at or facts.get("done_at", "")
                said = str(done.get("completion_message") or "")
                said = said if len(said) <= 60 else said[:59] + "…"
                events.append(page.Event(at, "record", f'says completed: "{said}"'))  # the page makes it harmless
            start = f"outbox.json.backup_{task}"
            for base in self._list(f"postbox/{agent}"):
                if base == start or (base.startswith(start + ".") and base[len(start) + 1 :].isdigit()):
                    self._file_event(events, f"postbox/{agent}/{base}", "backup")
        flag = self._trying("", lambda: self._json(layout.flag(task)), None)
        if flag is not None:
            facts["flag"] = str(flag.get("error_message") or "its flag is there")
            facts["flagged_at"] = str(flag.get("timestamp") or "")
            events.append(page.Event(facts["flagged_at"], "parked", facts["flag"]))
        opened = self._trying(layout.LOGS, lambda: self.escalations_of(task) if task else [], [])
        told = []
        for one in opened:
            entry = one.get("entry", {})
            if self._is_anothers(agent, entry.get("agent_id")):
                continue
            kind, message = str(entry.get("error_type", "damaged")), str(entry.get("error_message", one.get("error")))
            told.append({"time": one["time"], "kind": kind, "message": message, "name": one["name"]})
            events.append(page.Event(one["time"], "escalated", f"{kind}: {message}"))
        if told:
            facts["escalations"] = told
        for base in self._list(f"{layout.LOGS}/resolved"):
            if base.startswith(f"{task}_escalation") and base[len(task) + 11 :][:1] == ".":
                self._file_event(events, f"{layout.LOGS}/resolved/{base}", "resolved")

    def escalations_of(self, task: str) -> list[dict[str, Any]]:
        """Those of a task that are open, see `recovery.escalations.open_escalations`."""
        return escalations.open_escalations(self.store, only=task)

    def _file_event(self, events: list[page.Event], name: str, kind: str) -> None:
        st = self._trying(name, lambda: self.store.read_state(name), None)
        if st is not None:
            events.append(page.Event(_iso(st.st_mtime), kind, name))

    def _json(self, name: str) -> Optional[dict[str, Any]]:
        version = self.store.read(name, strict=False)
        if version is None:
            return None
        try:
            value = jsontext.loads(jsontext.from_latin(version.text))
        except ValueError as error:
            self.skipped.problems.append(f"{name} is damaged: {error}")
            return {}
        return value if isinstance(value, dict) else {}

    def _records(self, name: str, needle: str = "") -> list[dict[str, Any]]:
        """The newest records of a log, the newest first, as many as are shown; torn ones are counted."""
        found = []
        word = jsontext.quote(needle).encode() if needle else b""
        for record in segments.newest_first(self.store, name, word, self.skipped):
            found.append(record)
            if len(found) >= self.most:
                break
        return found

    def _is_anothers(self, agent: str, named: Any) -> bool:
        """Whether a line of a log that all tasks of an id share is another agent's; programs write other names."""
        return bool(agent) and named != agent and named in self.agents()

    def _incidents(self, facts: Facts, events: list[page.Event]) -> None:
        """The recovery log.  The last incident is the one whose line is the newest."""
        agent = facts["agent"]
        last: Optional[Facts] = None
        for line in self._records(layout.recovery_log(facts["task"])):
            details = line.get("details")
            details = details if isinstance(details, dict) else {}
            if self._is_anothers(agent, details.get("agent")):
                continue
            when, outcome = str(line.get("timestamp") or ""), str(details.get("outcome") or "")
            kind, message = str(line.get("error_type") or ""), str(line.get("error_message") or "")
            if last is None:
                last = facts["incident"] = {
                    "id": details.get("incident"),
                    "time": when,
                    "kind": kind,
                    "message": message,
                    "code": details.get("code"),
                    "op": str(details.get("op") or ""),
                    "outcome": outcome,
                    "failures": 0,
                }
                given = details.get("given")
                if isinstance(given, list) and all(type(word) is str for word in given):
                    last["given"] = given
                if not outcome:
                    last.update(self._at_it(details.get("by")))
            if details.get("incident") == last["id"]:
                last["failures"] = max(
                    last["failures"], _number(details.get("attempts")), _number(details.get("attempt"))
                )
                if outcome == "recovered" and last["outcome"] == "recovered":
                    last["failures"] -= 1
            event = page.Event(when, "ended" if outcome else "try", of_line(details, kind, message))
            event.op, event.incident = str(details.get("op") or ""), str(details.get("incident"))
            event.attempt = details.get("attempt")
            events.append(event)

    def _at_it(self, by: Any) -> Facts:
        """Whether who left a line without an outcome goes on."""
        from recovery import owners

        if not isinstance(by, dict) or type(by.get("pid")) is not int:
            return {}
        state, why = owners.judge_process(by)
        return {"by": state, "by_why": why, "by_words": f"Pid {by['pid']}"}

    def _checkpoints(self, facts: Facts, events: list[page.Event]) -> None:
        """Those of programs; the suite's own commits leave some too, and tell when the task was last moved."""
        for line in self._records(layout.history(facts["task"])):
            data, about = line.get("data"), line.get("metadata")
            when, state = str(line.get("timestamp") or ""), str(line.get("state") or "")
            ours = isinstance(about, dict) and "op" in about
            if any(
                isinstance(one, dict) and self._is_anothers(facts["agent"], one.get("agent")) for one in (data, about)
            ):
                continue
            if ours:
                facts.setdefault("changed_at", when)
            else:
                facts.setdefault("run", {"time": when, "state": state})
                event = page.Event(when, "checkpoint", f"{state} {_short(data)}".rstrip())
                if isinstance(about, dict) and state in ("retrying", "failed", "completed"):
                    event.attempt = about.get("attempt") if state == "retrying" else 0
                events.append(event)

    def changes_with(self, word: str, skipped: Optional[segments.Skipped] = None) -> Iterable[dict[str, Any]]:
        """The changes in which a task's id or a file's name stands, the newest first."""
        return derived.newest_first(self.store, jsontext.quote(word), skipped=skipped or self.skipped)

    def _changes(self, facts: Facts, events: list[page.Event], outbox: Optional[tasks.Outbox]) -> None:
        agent, task = facts["agent"], facts["task"]
        name = layout.outbox(agent)
        last: Optional[Line] = None
        listed: Optional[Line] = None  # the last one over the progress file
        recorded: Optional[tuple[Line, int]] = None  # what became of the completion record, and by which change
        count, torn = 0, self.skipped.torn
        for line in self.changes_with(task):
            if not changelog.is_of(line, agent, task):
                continue
            if last is None:
                last = line
                facts["last_change"] = {key: line.get(key) for key in ("seq", "txid", "time", "op", "undoes_op")}
                facts["changed_at"] = line["time"]
            for file in line["files"]:
                if listed is None and file["name"] == layout.PROGRESS:
                    listed = line
                if recorded is None and file["name"] == layout.record(agent, task):
                    recorded = file, line["seq"]
            events.append(
                page.Event(line["time"], "change", page.of_change(line, agent, task), line["seq"], line["op"])
            )
            count += 1
            if count >= self.most:
                break
        if last is None or outbox is None:
            if last is not None and agent not in self._list("postbox"):
                facts["gone"] = _leaves(last, name, task) and not facts.get("archived")
                if facts["gone"]:  # which says more
                    facts.pop("missing", None)
            return
        if self.unfinished() is None:
            self._compare(facts, events, outbox, last, self.skipped.torn > torn)
            if listed is not None and "drift" not in facts:
                self._compare_progress(facts, listed)
            if recorded is not None and facts["status"] is not None and recorded[0].get("after") is not None:
                name = layout.record(agent, task)
                if self._trying(name, partial(self.store.read_state, name), True) is None:
                    facts["unrecorded"] = recorded[1]

    def _compare(self, facts: Facts, events: list[page.Event], outbox: tasks.Outbox, last: Line, is_torn: bool) -> None:
        """Whether the task still is as its last change left it, and whose doing it is if it isn't."""
        name, task = layout.outbox(facts["agent"]), facts["task"]
        quietly = segments.Skipped()  # what is torn was counted before
        newest = next(iter(self.changes_with(name, quietly)), None)
        file = next((one for one in (newest or {}).get("files", ()) if one["name"] == name), None)
        if file is None or file.get("after") == facts["hash"]:
            return
        number = self._trying(layout.CHANGES, lambda: self._lost_since(last, name), 0)
        ops: list[Any] = next((one.get("ops", []) for one in last["files"] if one["name"] == name), [])
        try:
            if facts["status"] is None:
                facts["gone"] = _leaves(last, name, task) and not facts.get("archived")
            elif jsontext.standing(outbox.walked(), ops) != "after":
                facts["drift"] = rollback.differences(outbox.walked(), ops)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self.skipped.problems.append(f"change {last['seq']} is in a form that can't be compared: {error}")
        if not number:
            facts["foreign"] = True
            events.append(page.Event(str(facts.get("since")), "foreign", f"{name} was written past the suite"))
            return
        self.skipped.problems.append(f"change {number} is lost: its line is missing in {layout.CHANGES}/")
        facts["lost"] = {"seq": number, "torn": is_torn, "by": self._by_journal(number)}

    def _lost_since(self, last: Line, name: str) -> int:
        numbers = lost.since(self.store, last, _LINES, segments.Skipped())
        return lost.in_doubt(self.store, numbers, last, name)

    def _by_journal(self, number: int) -> str:
        """What a change was whose line is lost, if it was the last one: the journal has that."""
        journal = self.store.journal()
        record = journal.read() if journal is not None else None
        if record is None or record.seq != number:
            return ""
        line = record.body["line"]
        return f"{line['op']} {line['agent']}/{line['task']} of {line['time']}"

    def _compare_progress(self, facts: Facts, line: Line) -> None:
        """Whether the progress file still says of the task what its last change there had left."""
        file = next(one for one in line["files"] if one["name"] == layout.PROGRESS)
        version = self._trying(layout.PROGRESS, partial(self.store.read, layout.PROGRESS), None)
        if version is None or version.hash == file.get("after") or facts["status"] is None:
            return
        try:
            walked = jsontext.Walked(version.text)
            ops = [op for op in file.get("ops", []) if op["path"][:1] == ["tasks"]]
            if jsontext.standing(walked, ops) != "after":
                facts["progress"] = rollback.differences(walked, ops)
                facts["progress_seq"] = line["seq"]
        except jsontext.BadJSON as error:
            self.skipped.problems.append(f"{layout.PROGRESS} is damaged: {error}")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self.skipped.problems.append(f"change {line['seq']} is in a form that can't be compared: {error}")

    def _receipts(self, facts: Facts, events: list[page.Event]) -> None:
        for line in self._records(layout.receipts(facts["agent"]), facts["task"])[:3]:
            receipt = line.get("receipt")
            if not isinstance(receipt, dict) or receipt.get("task") != facts["task"]:
                continue
            checks = receipt.get("checks")
            names = (
                [str(one.get("check")) for one in checks if isinstance(one, dict)] if isinstance(checks, list) else []
            )
            words = f"{receipt.get('kind')}, number {receipt.get('number')}" + (
                f": {', '.join(names)}" if names else ""
            )
            events.append(page.Event(str(receipt.get("time") or ""), "receipt", words))

    # --- the workspace

    def unfinished(self) -> Optional[Facts]:
        """The commit that has not come to its end, and whether somebody is at it."""
        if not self._looked:
            self._looked = True
            refusal = self._trying("data/journal", lambda: finish.refusal_of(self.store), None)
            if refusal is not None:
                self.stopped = str(refusal)
                return None
            commit = self._trying("data/journal", lambda: finish.half_done(self.store), None)
            if commit is not None:
                self._unfinished = {**commit, "ours": True}
        return self._unfinished

    def _lock_of(self, name: str) -> str:
        """Who holds a lock, in words; "" if nobody does."""

        def look() -> str:
            fd, _ = durable.open_regular(self.store.root.place(name))
            try:
                return contention.holder(fd) if contention.is_held(fd) else ""
            finally:
                os.close(fd)

        return str(self._trying(name, look, ""))

    def _died(self, agent: str) -> Optional[Facts]:
        """Who held the lock of an agent's outbox last, and died before the change was decided; None if nobody did."""
        name = layout.lock_of(layout.outbox(agent))

        def look() -> Optional[Facts]:
            fd, st = durable.open_regular(self.store.root.place(name))
            try:
                note = flock.read_note(fd)
                if contention.is_held(fd) or flock.read_note(fd) != note:
                    return None
            finally:
                os.close(fd)
            op, _, rest = str((note or {}).get("command")).partition(" ")
            whose, _, task = rest.partition("/")
            if note is None or note.get("state") != "held" or whose != agent or not layout.is_id(task):
                return None
            nonce = str(note.get("nonce"))
            if any(line["txid"].endswith(nonce) for line in derived.newest_first(self.store, nonce)):
                return None
            return {"pid": note.get("pid"), "op": op, "task": task, "time": _iso(st.st_mtime)}

        found: Optional[Facts] = self._trying(name, look, None)
        return found

    def breakers(self) -> list[dict[str, Any]]:
        """Those that are open."""
        if self._breakers is None:
            self._breakers = []
            if any(base.endswith(".json") for base in self._list(layout.BREAKERS)):
                if sys.hexversion < 0x030B0000:
                    self.skipped.problems.append("breakers are not looked at: that needs Python 3.11")
                    return self._breakers
                from recovery.breaker_state import all_breakers

                found = self._trying(layout.BREAKERS, lambda: all_breakers(self.store), [])
                self._breakers = [one for one in found if one["state"] != "closed" or "problem" in one]
        return self._breakers

    def everywhere(self, start: str) -> list[page.Row]:
        """A row for each thing that is wrong, or went wrong from that time on."""
        rows: list[page.Row] = []
        wanted: dict[tuple[str, str], None] = {}
        one = self.unfinished()
        if self.stopped:
            rows.append(page.Row("", "", "", *cause.stopped(self.stopped)))
        if one is not None:
            self._add(rows, one["agent"], one["task"], start)
        stand: list[tuple[str, str, str]] = []
        for agent in self.agents():
            self._agent(rows, wanted, agent, start, stand)
            self._let_go(agent)
        for agent in sorted(self.missing):
            rows.append(page.Row(agent, "", "", *cause.missing(agent, self.missing[agent]), cause.MISSING))
        self._damage(rows)
        for agent in self.unread:
            why, following = f"postbox/{agent} can't be read", f"recovery doctor --agent {agent}"
            rows.append(page.Row(agent, "", "", why, following, cause.DAMAGED))
        for opened in self._trying(layout.LOGS, lambda: escalations.open_escalations(self.store), []):
            wanted.setdefault((self._known(opened.get("entry", {}).get("agent_id")), opened["task"]))
        for base in self._list(layout.MANUAL):
            if base.endswith(".json") and layout.is_id(base[:-5]):
                wanted.setdefault(("", base[:-5]))
        for agent, task in self._trying(layout.CONFLICTS, lambda: finish.parked(self.store), {}).values():
            if task:
                wanted.setdefault((agent, task))
        end = "_recovery.jsonl"
        for base in self._list(layout.LOGS):
            if base.endswith(end) and layout.is_id(base[: -len(end)]):
                st = self._trying(base, partial(self.store.read_state, f"{layout.LOGS}/{base}"), None)
                if st is not None and _iso(st.st_mtime) >= start:
                    wanted.setdefault((self._logged_by(base[: -len(end)]), base[: -len(end)]))
        for _, agent, task in sorted(stand, reverse=True):
            wanted.setdefault((agent, task))
        done = {(row.agent, row.task) for row in rows}
        by_task = {task for agent, task in wanted if agent}
        left = [pair for pair in wanted if pair not in done and (pair[0] or pair[1] not in by_task)]
        for agent, task in left[:CANDIDATES]:
            self._add(rows, agent, task, start)
        if len(left) > CANDIDATES:
            self.skipped.problems.append(f"{len(left) - CANDIDATES} more tasks were not looked at")
        for one in self._trying(layout.ONCE, self._unknown_calls, []):
            words = f"Its call was started at {one.get('started_at')}, by a process that died: nobody knows its outcome"
            why, when = one.get("error") or words, one.get("started_at", "")
            rows.append(page.Row("", one["key"], when, why, "recovery escalations", cause.UNKNOWN))
        for one in self.breakers():
            state = f"open until {one['until']}" if one["until"] else "half open: the next call decides"
            why = one.get("problem") or f"The breaker is {state} ({one['reason'] or 'failures in a row'})"
            following = f"recovery breaker show {one['name']}"
            rows.append(page.Row("", one["name"], str(one["opened_at"] or ""), why, following, cause.BREAKER))
        return rows

    def _damage(self, rows: list[page.Row]) -> None:
        """What the health check's cheap looks see of progress, the folders of all, the journal, records and logs."""
        from recovery import health_checks, health_records, walks

        shared, closed = self._trying(layout.PROGRESS, lambda: health_checks.shared_damage(self.store), ([], []))
        wrong = [*shared, *(f"{name} can't be read" for name in closed)]
        if not self.stopped and self._trying(layout.JOURNAL, lambda: finish.is_garbled(self.store), False):
            wrong.append(f"{layout.JOURNAL} holds no record that can be read")
        root = os.path.abspath(self.store.root.path)
        walk = walks.find_records(root)
        try:
            records, _ = walk.answer()
            found = health_records.look(self.store, walks.records_of(root, records))
            wrong += [*found.damaged, *(f"torn lines: {one}" for one in found.torn)]  # what is left over is no damage
        except (RecoveryError, OSError) as error:
            self.skipped.problems.append(f"the records could not be looked at: {error}")
        finally:
            walk.stop()
        for words in wrong:
            rows.append(page.Row("", "", "", words, "recovery doctor", cause.DAMAGED))

    def _unknown_calls(self) -> list[dict[str, Any]]:
        if not self._list(layout.ONCE):
            return []
        from recovery.escalations_command import unknown_calls

        return unknown_calls(self.store)

    def _logged_by(self, task: str) -> str:
        """Whose task a recovery log is about; "" where it is no agent's."""
        details = next((line.get("details") for line in self._records(layout.recovery_log(task))), None)
        return self._known(details.get("agent") if isinstance(details, dict) else None)

    def _known(self, named: Any) -> str:
        """An agent that a log names, "" where there is none of that name: programs write other names."""
        return named if type(named) is str and (named in self.agents() or named in self.missing) else ""

    def _agent(
        self,
        rows: list[page.Row],
        wanted: dict[tuple[str, str], None],
        agent: str,
        start: str,
        stand: list[tuple[str, str, str]],
    ) -> None:
        """An outbox: itself, if it is damaged; the tasks in it that failed or are claimed.

        Those that failed before `start`, and stand failed, go to `stand`, with when: the rest is looked at first.
        """
        name = layout.outbox(agent)
        found: list[str] = []

        def look(_: int, value: Any) -> None:
            task = value.get("task_id")
            if type(task) is not str or not layout.is_id(task):
                return
            failed = str(value.get("status")).lower() == "failed"
            claim = value.get("claim")
            if failed and str(value.get("failed_at") or "9") < start:
                stand.append((str(value["failed_at"]), agent, task))
            elif failed or (isinstance(claim, dict) and claim.get("state") == "held"):
                found.append(task)

        try:
            version = self.store.read(name)
            if version is not None:
                outbox = tasks.Outbox(name, version, look, unique=True)
                if outbox.misnamed:
                    raise DataError(f"{name}: {tasks.shown(outbox.misnamed[0])} is no text, as a task's id must be")
        except (RecoveryError, OSError) as error:
            words = str(error).replace(" and was not touched", "")
            rows.append(page.Row(agent, "", "", words, f"recovery doctor --agent {agent}", cause.DAMAGED))
            return
        died = self._died(agent)
        for task in [*found, *([died["task"]] if died else [])]:
            wanted.setdefault((agent, task))

    def _add(self, rows: list[page.Row], agent: str, task: str, start: str) -> None:
        facts, events = self.at_task(agent, task, deep=False)
        facts.pop("stopped", None)  # which has a row of its own
        why: Cause = cause.cause_of(facts)
        if not why.wrong:
            one = facts.get("incident")
            if not one or one["time"] < start or one["failures"] < 2:
                return
            why.rank = cause.RETRIED
            if not cause.is_under_way(facts):
                words = f"was tried {one['failures']} times and failed: {one['kind']}: {one['message']}"
                why.why = f"{one['op'] or 'It'} {words}"
            why.next = f"recovery explain {agent}/{task}" if agent else f"recovery explain {task}"
        when = max((one.time for one in events), default="")
        rows.append(page.Row(agent, task, when, why.why, why.next, why.rank))


def _leaves(line: dict[str, Any], name: str, task: str) -> bool:
    """Whether a change left a task in the outbox `name`."""
    ops: list[Any] = next((one.get("ops", []) for one in line["files"] if one["name"] == name), [])
    try:
        return bool(ops) and not any(
            op["path"] == ["tasks", ["task_id", task]] and op.get("after") is None for op in ops
        )
    except (LookupError, TypeError, AttributeError):
        return False


def _number(value: Any) -> int:
    return value if type(value) is int else 0


def _short(data: Any) -> str:
    text = jsontext.dumps(data) if isinstance(data, dict) and data else ""
    return text if len(text) <= 200 else text[:199] + "…"


def of_line(details: dict[str, Any], kind: str, message: str) -> str:
    """A line of the recovery log, in words."""
    op = str(details.get("op") or "")
    of = f" of {op}" if op else ""
    code = f" ({details['code']})" if type(details.get("code")) is int else ""
    waited = details.get("lock_wait")
    lock = f", {waited:.1f} s of it for locks" if isinstance(waited, (int, float)) and waited >= 0.05 else ""
    error = _error(kind, message)
    stderr = details.get("stderr")
    last = stderr.strip().splitlines()[-1] if isinstance(stderr, str) and stderr.strip() else ""
    if last and last not in message:
        error += f" | {last}"
    outcome, seconds = details.get("outcome"), details.get("seconds")
    if not outcome:
        return f"number {details.get('attempt', '?')}{of}{code}: {error}"
    if kind == "OwnerDied":  # not a try: somebody finished, or took back, what a dead process had begun
        return f"{outcome}: {message}"
    took = f"{seconds:.1f} s" if isinstance(seconds, (int, float)) else "?"
    tries = "1 try" if details.get("attempts") == 1 else f"{details.get('attempts', '?')} tries"
    end = f"{op} {outcome}, {tries}, {took}{lock}".lstrip()
    return end if outcome == "recovered" else f"{end}{code}: {error}"


def _error(kind: str, message: str) -> str:
    """An error in words; of a lock that was not to be had who held it comes first, as a line is soon full."""
    start, middle, rest = message.partition(" after ")
    seconds, held, holder = rest.partition(" seconds (held by ")
    if kind == "LockTimeout" and middle and held:
        return f"held by {holder.rstrip(')')}; waited {seconds} s for {start.rpartition(' ')[2]}"
    return f"{kind}: {message}"


# --- the command line


def _parse(asked: Request) -> list[Any]:
    words = list(asked.words)
    if len(words) == 1 and "/" in words[0]:
        words = words[0].split("/", 1)
    if len(words) > 2:
        raise UsageError(f"too many words: {words[2][:40]!a}", hint="see --help")
    agent = layout.require_id("agent", words[0]) if len(words) == 2 else ""
    since = asked.options.get("since")
    since = "" if since is None else request.time_of(since, "--since", time.time())
    return [agent, layout.require_id("task", words[-1]) if words else "", since]


def _call(store: FileStore, asked: Request, call: list[str]) -> Result:
    agent, task, since = call
    screen = Screen(asked.asked("full"), *page.size(), place=request.place_of(store.root.path), since=since)
    return explain(store, agent, task, screen) if task else overview(store, screen)


VERB = Verb({"--full": "full", "--since": "since="}, _parse, _call, tries=False, reads=True, indent="")
