"""Everything at one look: who needs a person, who has what, what waits, what failed, what the disk holds.

The one source of `top`, `report` and `serve`.  It only reads, and waits for no lock.  Whatever stands in it comes from
the module that knows it: causes and commands from `recovery.cause`, the rest from the checks of the health check.
Texts are as they stand in the files: who shows them makes them harmless.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial

from recovery import cause, dependencies, finish, jsontext, layout, ready, request, tasks
from recovery.errors import NotFound, RecoveryError, from_os_error
from recovery.thresholds import CRITICAL, OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

    from recovery.health_checks import Agents, Finding, Look
    from recovery.store import FileStore

    Facts = dict[str, Any]

DAY = 86400.0
#: How many of the ready tasks, of the blocked ones and of the causes of failures are told, and of each cause's tasks.
NEXT, WAITING, CAUSES, OF_CAUSE = 50, 50, 12, 6
#: How many of the tasks that failed before the period, and stand failed, are told one by one; and circles.
STANDING, CIRCLES = 50, 12
#: The causes that are shown elsewhere, and are nobody's to mend: what failed before is, and an owner may work long.
_NOT_ASKED = ("blocked", "silent")
#: What the kinds of `recovery.cause` are called here, where that differs.
_KINDS = {
    "stopped": "damage",
    "damaged": "damage",
    "escalated": "escalation",
    "flagged": "manual",
    "lost": "dead",
    "unknown_owner": "owner",
}
#: The statuses in which a task waits for a person, and those of which more is read than these.
_FOR_A_PERSON = ("ready_for_review", "blocked")
_LOOKED_AT = ("failed", "in_progress", *_FOR_A_PERSON)
#: The checks of the health check that may ask for a person beside the causes.
_CHECKS = ("certificate", "space", "budget", "clock", "success")


def look(
    store: FileStore, *, since: float = DAY, only: str = "", now: Optional[float] = None, place: Optional[str] = None
) -> dict[str, Any]:
    """All of it, as JSON has it; of the agent `only`, or of all.  Times are UTC, ISO 8601, `Z`, or "" for unknown.

    `place` is what commands say of the workspace; None: what has to be said here, see `request.place_of`.

        time, root, since    when this was, where, and how many seconds it looks back
        needs_you   what a person has to do now, the worst first: {what, kind, agent, task, since, next}; `agent` and
                    `task` may be "", `next` is the command.  Kinds: damage parked unfinished escalation manual failed
                    dead breaker owner call check stuck blocked review
        agents      {agent, open, ready, blocked, problem ("": its outbox can be read), claims: [{task, title, by,
                    since, silent_since ("": not silent), state (alive expired dead unknown)}], in_progress: [{task,
                    title, since}] that nobody has claimed, review: [TASK] that are handed over}
        queue       ready and blocked, numbers; next, the first of the ready ones: {agent, task, title, priority,
                    since}; waiting, some of the blocked ones: {agent, task, by: [TASK or AGENT/TASK]}
        failures    what failed for good within `since`, by cause: {cause, count, last, tasks}, the most frequent first
        success     {rate (None: nothing to rate), incidents}, within `since`
        breakers    those that are not closed, or can't be read: {name, state, until, why}
        store       {damage: [words], journal (words for an open commit, or ""), use: {bytes, files, limits: {bytes,
                    files}}, last_crash (None, or {time, what, by, repaired_by, how}, within `since`), certificate (""
                    or why the disk is not known to be good)}
        notes       what could not be looked at, and what else is to be said, in words
        unread      those of them that could not be looked at: somebody may be needed there
        unknown     what was not measured, and is 0, None or empty for that: success use breakers journal

    NotFound (66) if there is no agent `only`.  Nothing else is raised for what can't be read: it is told here.
    """
    from recovery import health_checks

    now = time.time() if now is None else now
    seen = health_checks.Look(store, os.environ, now, since)
    sight = Sight(store, only, now, since, place)
    try:
        seen.begin([*_CHECKS, "waits"])
        sight.work()
        findings = {name: sight.find(lambda: health_checks.CHECKS[name].look(seen)) for name in _CHECKS}  # noqa: B023
        failures, rate, crash = _incidents(sight, seen)
    finally:
        seen.stop()
    sight.ask_for_checks(findings)
    budget = findings["budget"].values
    if "size" not in budget:
        sight.unknown.add("use")
    limits = _limits(sight)
    return {
        "time": store.time(now),
        "root": os.path.abspath(store.root.path),
        "since": since,
        "needs_you": [{**one, "next": request.in_place(one["next"], sight.place)} for one in sight.needs()],
        "agents": sight.rows,
        "queue": sight.queue(),
        "failures": failures,
        "success": rate,
        "breakers": sight.breakers,
        "store": {
            "damage": sight.damage(),
            "journal": sight.journal,
            "use": {"bytes": budget.get("size", 0), "files": budget.get("files", 0), "limits": limits},
            "last_crash": crash,
            "certificate": "" if findings["certificate"].level == OK else findings["certificate"].text,
        },
        "notes": sight.notes,
        "unread": sight.unread,
        "unknown": sorted(sight.unknown),
    }


#: What a change of anything is seen by: every append and commit takes the commit lock, whose note is written then;
#: the outboxes and the rest are for writers who don't.
_FILES = (f"data/{layout.COMMIT_LOCK}", layout.CONFIG, layout.JOURNAL, layout.BUDGET, layout.CHECKS, layout.PROGRESS)
_FOLDERS = (
    layout.LOGS,
    f"{layout.LOGS}/resolved",
    layout.MANUAL,
    layout.BREAKERS,
    layout.CONFLICTS,
    layout.ONCE,
    layout.CLAIMS,
    layout.QUARANTINE,
)


def marks(root: str) -> list[object]:
    """Times of what changes with a workspace: two that differ are reason for another look.

    Cheap, and nothing is opened but the list of agents.  That a process has died, or a time has come, shows in no file.
    """
    found: list[object] = []

    def look(name: str) -> None:
        try:
            st = os.stat(f"{root}/{name}", follow_symlinks=False)
            found.append((st.st_mtime_ns, st.st_ino, st.st_size))
        except OSError as error:
            found.append(error.errno)

    for name in (*_FILES, *_FOLDERS):
        look(name)
    try:
        agents = sorted(os.listdir(f"{root}/postbox"))
    except OSError:
        agents = []
    for agent in agents:
        found.append(agent)
        look(f"postbox/{agent}")
        look(f"postbox/{agent}/outbox.json")
    try:  # open breakers close by a file that is written in place
        for base in sorted(os.listdir(f"{root}/{layout.BREAKERS}")):
            look(f"{layout.BREAKERS}/{base}")
    except OSError:
        pass
    return found


class Sight:
    """One look.  `work` goes through the outboxes and what stands beside them; it is all that one line needs."""

    def __init__(
        self,
        store: FileStore,
        only: str = "",
        now: Optional[float] = None,
        since: float = DAY,
        place: Optional[str] = None,
    ) -> None:
        self.store, self.only = store, only
        self.place = request.place_of(store.root.path) if place is None else place
        self.now = time.time() if now is None else now
        self.start = store.time(self.now - since)
        self.notes: list[str] = []
        self.unread: list[str] = []
        self.unknown: set[str] = set()
        self.rows: list[dict[str, Any]] = []
        self.ready = self.blocked = 0
        self.agents: Optional[Agents] = None
        self.breakers: list[dict[str, str]] = []
        self.journal = ""
        self._stopped = ""
        self._spoiled: list[str] = []
        self._free: list[tuple[Any, str, dependencies.Candidate, Callable[[], dict[str, Any]]]] = []
        self._waiting: list[dict[str, Any]] = []
        self._stuck: dict[str, tuple[str, dependencies.Candidate, list[tuple[str, str]]]] = {}
        self._needs: list[tuple[float, str, dict[str, str]]] = []
        self._standing: list[dict[str, str]] = []

    def work(self) -> None:
        """Look at the outboxes, the journal, escalations, flags, breakers and calls.  NotFound (66)."""
        if self.only and self.store.read_state(f"postbox/{self.only}") is None:
            raise NotFound(f"there is no agent {self.only}", hint="recovery status shows who is there")
        self._commit()
        parked = self.trying("data/conflicts", lambda: finish.parked(self.store), {})
        for name, (agent, task) in parked.items():
            self._ask({"agent": agent, "task": task, "parked": name})
        self._outboxes({pair: name for name, pair in parked.items()})
        self._shared()
        self._escalations()
        self._flags()
        self._calls()
        self._breakers()

    def needs(self) -> list[dict[str, str]]:
        """What a person has to do, the worst first; of the same kind the oldest first."""
        found = [one for *_, one in sorted(self._needs, key=lambda one: (one[0], one[1]))]
        late = sorted(self._standing, key=lambda one: one["since"], reverse=True)
        if len(late) > STANDING:
            what = f"{len(late) - STANDING} more tasks stand failed, all since before {late[STANDING - 1]['since']}"
            following = request.plain("status", "-s", "failed")
            rest = {"what": what, "kind": "failed", "agent": self.only, "task": "", "since": late[-1]["since"]}
            late[STANDING:] = [{**rest, "next": following}]
        return found + late

    def queue(self) -> dict[str, Any]:
        """See `look`."""
        first = sorted(self._free, key=lambda one: one[0])[:NEXT]
        following = []
        for _, agent, one, read in first:
            entry = self.trying(layout.outbox(agent), read, {})
            following.append(
                {
                    "agent": agent,
                    "task": one.task,
                    "title": _word(entry.get("title")),
                    "priority": tasks.PRIORITIES[-one.order[0]],
                    "since": _word(entry.get("created_at")),
                }
            )
        return {"ready": self.ready, "blocked": self.blocked, "next": following, "waiting": self._waiting}

    def damage(self) -> list[str]:
        """What is damaged, or can't be read, in words."""
        found = [self._stopped] if self._stopped else []
        found += self._spoiled
        return found + [row["problem"] for row in self.rows if row["problem"]]

    def trying(self, what: str, call: Callable[[], Any], default: Any, unknown: str = "") -> Any:
        """What a look gives; where it can't be had the default, and that is noted, and that this is `unknown` now."""
        try:
            return call()
        except (RecoveryError, OSError) as error:
            refusal = error if isinstance(error, RecoveryError) else from_os_error(error, f"could not look at {what}")
            self._not_read(str(refusal), unknown)
            return default

    def _not_read(self, text: str, unknown: str = "") -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.unread.append(text)
        if unknown:
            self.unknown.add(unknown)

    def find(self, check: Callable[[], Finding]) -> Finding:
        """What a check finds; nothing, where it can't look, and that is noted."""
        from recovery.health_checks import Finding

        found: Finding = self.trying("the workspace", check, None) or Finding("")
        return found

    # --- what a person has to do

    def _ask(self, facts: Facts) -> None:
        """Ask for a person where the facts' cause is one for that; see `recovery.cause`."""
        found = cause.cause_of({"root": self.store.root.path, "status": None, **facts})
        if found.wrong and found.kind not in _NOT_ASKED:
            kind = _KINDS.get(found.kind, found.kind)
            self._need(found.rank, kind, found.why, found.next, facts["agent"], facts["task"], _began(facts))
            if found.kind == "failed" and str(facts.get("failed_at", "9")) < self.start:  # behind what is new
                self._standing.append(self._needs.pop()[-1])

    def _need(
        self, rank: float, kind: str, what: str, following: str, agent: str = "", task: str = "", since: str = ""
    ) -> None:
        if self.only and agent not in ("", self.only):
            return
        one = {"what": what, "kind": kind, "agent": agent, "task": task, "since": since, "next": following}
        self._needs.append((rank, since or "~", one))

    def ask_for_checks(self, findings: dict[str, Finding]) -> None:
        """Ask for what the health check would warn of, by its own thresholds."""
        from recovery import health

        ranges = health.thresholds((), ())
        for name, finding in findings.items():
            level = health.level_of(finding, ranges)
            if level == OK or (name == "certificate" and level != CRITICAL):  # who never ran the torture need not now
                continue
            rank = -1 if level == CRITICAL else cause.BREAKER + 0.5
            following = finding.next or f"health_check.sh {self.place or '-v'} {name}"
            self._need(rank, "check", f"{name}: {finding.text}", following)

    # --- the workspace

    def _commit(self) -> None:
        refusal = self.trying(layout.JOURNAL, lambda: finish.refusal_of(self.store), None, "journal")
        if refusal is not None:
            self._stopped = str(refusal)
            self._ask({"agent": "", "task": "", "stopped": self._stopped})
            return
        commit = self.trying(layout.JOURNAL, lambda: finish.half_done(self.store), None, "journal")
        if commit is None:
            return
        what = f"{commit['op']} {commit['agent']}/{commit['task']} of {commit['time']}"
        state = "under way" if commit["under_way"] else "left half done"
        self.journal = f"{what}, {state} by pid {commit['pid']}"
        if not commit["under_way"]:
            self._ask({"agent": commit["agent"], "task": commit["task"], "unfinished": {**commit, "ours": True}})

    def _outboxes(self, parked: dict[tuple[str, str], str]) -> None:
        from recovery import health_checks

        boxes = ready.Boxes(self.store)
        found: dict[str, tuple[dependencies.Waiting, tasks.Outbox]] = {}
        waiting: dict[str, dependencies.Waiting] = {}

        def looking(agent: str) -> dependencies.Waiting:
            waiting[agent] = dependencies.Waiting()
            return waiting[agent]

        def then(agent: str, outbox: tasks.Outbox) -> None:
            boxes.add(agent, waiting[agent], outbox)
            found[agent] = (waiting[agent], outbox)

        self.agents = health_checks.all_agents(self.store, self.only, looking, then)
        for agent in sorted({*found, *self.agents.problems}):
            problem = self.agents.problems.get(agent, "")
            row = {"agent": agent, "open": 0, "ready": 0, "blocked": 0, "problem": problem}
            row.update(claims=[], in_progress=[], review=[])
            self.rows.append(row)
            if problem:
                self._ask({"agent": agent, "task": "", "damaged": problem})
            if agent in found:
                known = boxes.seen_by(agent)
                self._agent(row, *found[agent], known, parked)
        if self._stuck:
            self._for_ever({agent: waiting.status for agent, (waiting, _) in found.items()})

    def _for_ever(self, statuses: dict[str, dict[str, str]]) -> None:
        """Ask for a person where tasks wait for each other in a circle, or for one that nobody has."""
        whose: dict[str, list[str]] = {}
        for agent, status in statuses.items():
            for task in status:
                whose.setdefault(task, []).append(agent)
        graph: dict[str, list[str]] = {}
        for key, (agent, one, by) in self._stuck.items():
            graph[key] = []
            for after in dependencies.dependencies(one.after):
                named = after.agent or (agent if after.task in statuses[agent] else "")
                graph[key] += [f"{other}/{after.task}" for other in ([named] if named else whose.get(after.task, []))]
            nobody = [name for name, status in by if status == dependencies.NOBODY]
            if nobody:
                who = "no outbox that can be read has" if self.agents and self.agents.problems else "nobody has"
                self._ask_to_edit(agent, one.task, f"It waits for {', '.join(nobody[:3])}, which {who}")
        for _ in range(CIRCLES):
            circle = dependencies.cycle(graph)
            if not circle:
                break
            agent, one, _ = self._stuck[circle[0]]
            shown = [*circle[:6], *(["…"] if len(circle) > 6 else []), circle[0]]
            self._ask_to_edit(agent, one.task, f"It waits for itself: {' -> '.join(shown)}")
            for key in circle:
                del graph[key]

    def _ask_to_edit(self, agent: str, task: str, what: str) -> None:
        """Ask for a dependency to be taken out: nothing else ends this."""
        following = request.plain("edit", agent)
        self._need(cause.STUCK, "stuck", f"{what}. That never ends by itself.", following, agent, task)

    def _agent(
        self,
        row: dict[str, Any],
        waiting: dependencies.Waiting,
        outbox: tasks.Outbox,
        known: ready.Known,
        parked: dict[tuple[str, str], str],
    ) -> None:
        agent = row["agent"]
        row["open"] = len(waiting.candidates)
        for one in waiting.candidates:
            if one.status in _LOOKED_AT or one.is_held:
                free = self._entry(row, outbox, one)
            else:
                free = one.status in dependencies.WAITING
            if not free or (agent, one.task) in parked:
                continue
            by = dependencies.blockers(one, known)
            if by:
                row["blocked"] += 1
                self._stuck[f"{agent}/{one.task}"] = (agent, one, by)
                if len(self._waiting) < WAITING:
                    self._waiting.append({"agent": agent, "task": one.task, "by": [name for name, _ in by]})
            else:
                row["ready"] += 1
                self._free.append(
                    ((*one.order, agent), agent, one, partial(outbox.entry, *outbox.tasks[one.number][3:]))
                )
        self.ready += row["ready"]
        self.blocked += row["blocked"]

    def _entry(self, row: dict[str, Any], outbox: tasks.Outbox, one: dependencies.Candidate) -> bool:
        """A task that failed, or that somebody has; whether it may be taken all the same."""
        from recovery import status

        agent, (*_, start, end) = row["agent"], outbox.tasks[one.number]
        value = self.trying(outbox.name, lambda: outbox.entry(start, end), {})
        facts: Facts = {"agent": agent, "task": one.task, "status": one.status}
        for key in ("failed_at", "failure_reason"):
            if isinstance(value.get(key), str):
                facts[key] = value[key]
        claim = self.trying(
            outbox.name, lambda: status.told_of_claim(self.store, agent, one.task, value.get("claim")), None
        )
        if claim is not None:
            facts["claim"] = {"by": "somebody", "since": "", **claim}
            told = {key: str(facts["claim"].get(key) or "") for key in ("by", "since", "silent_since", "state")}
            row["claims"].append({"task": one.task, "title": str(value.get("title") or ""), **told})
        elif one.status == "in_progress":
            since = _word(value.get("started_at"))
            row["in_progress"].append({"task": one.task, "title": _word(value.get("title")), "since": since})
        self._ask(facts)
        if one.status in _FOR_A_PERSON:
            self._set_aside(row, one)
        return claim is not None and claim["state"] in ("dead", "expired")

    def _shared(self) -> None:
        """What is everybody's and refused as damaged, so that every completion is (65)."""
        from recovery import health_checks

        told = self.agents.problems if self.agents is not None else ()
        found, unread = self.trying(layout.PROGRESS, lambda: health_checks.shared_damage(self.store), ([], []))
        self._spoiled += found
        self._spoiled += self.trying("postbox", lambda: health_checks.lost_agents(self.store, told), [])
        for name in unread:
            self._not_read(f"no permission to read {name}")
        if self.trying(layout.CHECKS, lambda: self.store.read_state(layout.CHECKS), None) is not None:
            from recovery import health_records

            checks = self.trying(layout.CHECKS, lambda: health_records.checks_damage(self.store), "")
            self._spoiled += [checks] if checks else []
        for text in self._spoiled:
            self._need(cause.DAMAGED, "damage", text, "recovery doctor")

    def _set_aside(self, row: dict[str, Any], one: dependencies.Candidate) -> None:
        """Ask for a person where somebody has handed a task to one, or has said that it is blocked."""
        agent = row["agent"]
        if one.status == "blocked":
            row["blocked"] += 1
            what = "Somebody has set it to blocked: nobody takes it"
            following = request.plain("explain", f"{agent}/{one.task}")
            self._need(cause.RETRIED + 1, "blocked", f"{what}.", following, agent, one.task)
        else:
            row["review"].append(one.task)
            what = "It is ready for review: complete it, or reopen it"
            following = request.plain("complete", agent, one.task) + "  # or reopen"
            self._need(cause.RETRIED + 2, "review", f"{what}.", following, agent, one.task)

    def _escalations(self) -> None:
        from recovery import escalations

        by_task: dict[tuple[str, str], Facts] = {}
        for one in self.trying(layout.LOGS, lambda: escalations.open_escalations(self.store), []):
            entry = one.get("entry", {})
            agent = str(entry.get("agent_id") or "")
            kind, message = str(entry.get("error_type", "damaged")), str(entry.get("error_message", one.get("error")))
            facts = by_task.setdefault(
                (agent, one["task"]), {"agent": agent, "task": one["task"], "escalations": [], "status": None}
            )
            facts["escalations"].append({"time": one["time"], "kind": kind, "message": message, "name": one["name"]})
        for facts in by_task.values():
            self._ask(facts)

    def _flags(self) -> None:
        for base in self.trying(layout.MANUAL, lambda: self.store.list(layout.MANUAL), []):
            task = base[: -len(".json")]
            if not base.endswith(".json") or not layout.is_id(task):
                continue
            version = self.trying(base, lambda: self.store.read(layout.flag(task), strict=False), None)  # noqa: B023
            try:
                flag = jsontext.loads(jsontext.from_latin(version.text)) if version is not None else {}
            except ValueError:
                flag = {}
            flag = flag if isinstance(flag, dict) else {}
            why = str(flag.get("error_message") or "its flag is there")
            self._ask({"agent": "", "task": task, "flag": why, "flagged_at": str(flag.get("timestamp") or "")})

    def _calls(self) -> None:
        from recovery.health_checks import unknown_calls

        for key in self.trying(layout.ONCE, lambda: unknown_calls(self.store), []):
            what = f"Nobody knows whether the call {key} took effect: it was started, and nobody is at it."
            self._need(cause.UNKNOWN, "call", what, request.settle(key))

    def _breakers(self) -> None:
        names = self.trying(layout.BREAKERS, lambda: self.store.list(layout.BREAKERS), [], "breakers")
        if not any(base.endswith(".json") for base in names):
            return
        if sys.hexversion < 0x030B0000:
            self._not_read("breakers are not looked at: that needs Python 3.11", "breakers")
            return
        from recovery import breaker_state

        def look() -> list[dict[str, Any]]:
            return breaker_state.all_breakers(self.store, lambda: self.now)

        found = self.trying(layout.BREAKERS, look, [], "breakers")
        for one in found:
            problem = one.get("problem")
            if one["state"] == "closed" and not problem:
                continue
            why = str(problem or one["reason"] or "failures in a row")
            until = str(one["until"] or "")
            self.breakers.append({"name": one["name"], "state": one["state"], "until": until, "why": why})
            what = problem or f"The breaker {one['name']} is {one['state'].replace('_', '-')}" + (
                f" until {until}: {why}" if until else f": {why}"
            )
            self._need(
                cause.BREAKER,
                "breaker",
                what,
                request.plain("breaker", "show", one["name"]),
                since=str(one["opened_at"] or ""),
            )


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _began(facts: Facts) -> str:
    """Since when a thing waits for a person, as far as that is known."""
    claim, commit = facts.get("claim") or {}, facts.get("unfinished") or {}
    first = (facts.get("escalations") or [{}])[0]
    times = (first.get("time"), facts.get("flagged_at"), commit.get("time"), facts.get("failed_at"), claim.get("since"))
    return next((str(one) for one in times if one), "")


def _incidents(sight: Sight, seen: Look) -> tuple[list[dict[str, Any]], dict[str, Any], Optional[dict[str, str]]]:
    """What failed, how much ended well, and the last crash; of all agents, for one log may speak of several."""
    numbers = sight.trying(layout.LOGS, lambda: seen.incidents, None, "success")
    if numbers is None:
        return [], {"rate": None, "incidents": 0}, None
    total = numbers["total_recoveries"]
    rate = {"rate": numbers["success_rate"] if total else None, "incidents": total}
    if not numbers["causes"] and not numbers["crashes"]:
        return [], rate, None
    from recovery import stats_recent

    failures = sight.trying(
        layout.LOGS, lambda: stats_recent.failures(sight.store, numbers["causes"], CAUSES, OF_CAUSE), []
    )
    crash = sight.trying(layout.LOGS, lambda: stats_recent.last_crash(sight.store, numbers["crashes"]), None)
    return failures, rate, crash


def _limits(sight: Sight) -> dict[str, int]:
    from recovery import bounds

    told = len(sight.store.told)
    found = bounds.limits_of(sight.store)
    sight.notes += [line for line in sight.store.told[told:] if line not in sight.notes]
    del sight.store.told[told:]
    return {"bytes": found.size, "files": found.files}
