"""`task_status`: what every agent has, read without a lock and without changing anything."""

from __future__ import annotations

from recovery import archived, jsontext, layout, say, tasks, verbs
from recovery.errors import DataError, NotFound, RecoveryError, UsageError, from_os_error
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore


def status(
    store: FileStore,
    agent: Optional[str] = None,
    wanted: Optional[str] = None,
    task: Optional[str] = None,
    progress: bool = False,
) -> Result:
    """The tasks of all agents, or of one; by status (any case) or by id.  Archived ones by status `archived`, or by id.

    A damaged outbox, or task in one, is named and doesn't hide the others, nor does one that can't be read; the exit
    code is 65 then, or 77.  NotFound (66) if
    the agent or task asked for isn't there.  An unfinished commit is said.
    """
    agents = verbs.agents(store, closed=True)
    if agent is not None:
        if agent not in agents:
            raise NotFound(f"there is no agent {agent}", hint="agents here: " + (", ".join(agents) or "none"))
        agents = [agent]
    found: list[dict[str, Any]] = []
    code = 0
    for name in verbs.one_by_one(store, agents):
        entry: dict[str, Any] = {"agent": name}
        try:
            version = store.read(layout.outbox(name))
            if version is None:
                continue
            outbox = tasks.Outbox(layout.outbox(name), version)
            entry["tasks"] = []
            for *_, start, end in outbox.tasks:
                try:
                    entry["tasks"].append(_task(store, name, outbox.entry(start, end)))
                except DataError as error:  # nobody can complete that one; the others are not its fault
                    code = code or error.code
                    entry.setdefault("error", str(error))
            _mark_claimed(store, name, entry["tasks"])
            entry["archived"] = len(outbox.history)
            if archived.is_there(store, name):
                entry["in_archive"] = archived.count(store, name, [one for one, *_ in outbox.tasks if one])
                entry["tasks"] += _archived(store, name, outbox, wanted, task)
        except (RecoveryError, OSError) as error:
            refusal = error if isinstance(error, RecoveryError) else from_os_error(error, f"could not read {name}")
            code = code or refusal.code
            entry["error"] = str(refusal)
        found.append(entry)
    for entry in found:
        entry["tasks"] = [
            one
            for one in entry.get("tasks", [])
            if (task is None or one["task_id"] == task)
            and (wanted is None or wanted.lower() in (str(one["status"]).lower(), _shown_status(one)))
        ]
    if task is not None and not code and not any(entry["tasks"] for entry in found):
        who = f"{agent} has no" if agent else "no agent has a"
        which = f" that is {say.shown(wanted)}" if wanted else ""
        raise NotFound(f"{who} {task}{which} in its outbox", hint="task_status.sh without -t shows what there is")
    data: dict[str, Any] = {"ok": not code, "code": code, "changed": False, "agents": found}
    record = store.unfinished()
    if record is not None:
        line = record.body["line"]
        data["unfinished"] = {key: line[key] for key in ("txid", "op", "agent", "task", "time")}
    if progress:
        data["progress"] = _progress(store)
    lines = _lines(data, narrowed=wanted is not None or task is not None)
    return Result(lines[0], False, data, lines[1:])


def _archived(
    store: FileStore, agent: str, outbox: tasks.Outbox, wanted: Optional[str], task: Optional[str]
) -> list[dict[str, Any]]:
    """The archived tasks that are asked for: all, or one."""
    if task is not None:
        line = archived.find(store, agent, task) if outbox.find(task) is None else None
        lines = [] if line is None else [line]
    elif wanted is not None and wanted.lower() == "archived":
        there = {one for one, *_ in outbox.tasks}
        lines = [line for line in archived.every(store, agent) if line["task_id"] not in there]
    else:
        return []
    found = []
    for line in lines:
        entry = line["entry"] if isinstance(line.get("entry"), dict) else {}
        kept = {key: entry[key] for key in ("created_at", "completed_at", "completion_message") if key in entry}
        words = {"priority": entry.get("priority"), "title": entry.get("title")}
        found.append({"task_id": line["task_id"], "status": "archived", **words, **kept})
        found[-1]["archived_at"] = line["archived_at"]
    return found


def _task(store: FileStore, agent: str, value: dict[str, Any]) -> dict[str, Any]:
    if "claim" in value:
        value["claim"] = told_of_claim(store, agent, str(value.get("task_id")), value["claim"])
    kept = (
        "created_at",
        "completed_at",
        "completion_message",
        "checks",
        "failed_at",
        "failure_reason",
        "blocked_by",
        "claim",
    )
    return {
        "task_id": value.get("task_id"),
        "status": value.get("status") or "pending",
        "priority": value.get("priority"),
        "title": value.get("title"),
        **{key: value[key] for key in kept if value.get(key) is not None},
    }


def told_of_claim(store: FileStore, agent: str, task: str, value: Any) -> Optional[dict[str, Any]]:
    """What is told of a held claim: who, since when, and whether they are there still."""
    from recovery import claims, owners

    claim = claims.of(value)
    if claim is None or not claims.is_held(claim):
        return None
    told: dict[str, Any] = {
        key: claim[key] for key in ("generation", "kind", "by", "since", "lease_until") if key in claim
    }
    try:
        told["state"], why = owners.judge(store, agent, task, claim)
        silent = owners.silent_since(store, agent, task, claim) if told["state"] == owners.ALIVE else ""
    except RecoveryError as error:
        told["state"], why, silent = owners.UNKNOWN, str(error), ""
    told.update({key: text for key, text in (("why", why), ("silent_since", silent)) if text})
    return told


def _aside(one: dict[str, Any]) -> str:
    """Who has a task, and what keeps it, behind its title."""
    words = []
    claim = one.get("claim")
    if claim:
        words.append(f"claimed by {claim.get('by')} since {claim.get('since')}")
        words += [f"until {claim['lease_until']}"] if "lease_until" in claim else []
        words += [f"{claim['state']}: {claim['why']}"] if claim["state"] != "alive" and "why" in claim else []
        words += [f"silent since {claim['silent_since']}"] if "silent_since" in claim else []
    if isinstance(one.get("blocked_by"), list) and one["blocked_by"]:
        words.append("blocked by " + " ".join(map(str, one["blocked_by"])))
    if str(one["status"]).lower() == "failed" and one.get("failure_reason"):
        words.append(f"failed: {one['failure_reason']}")
    return f"  [{', '.join(plain(word) for word in words)}]" if words else ""


def _mark_claimed(store: FileStore, agent: str, entries: list[dict[str, Any]]) -> None:
    """Say of completed tasks that they are only claimed to be done: which of the checks they need never passed."""
    done = [one for one in entries if str(one["status"]).lower() == "completed"]
    if not done or not (any("checks" in one for one in done) or verbs.may_have_checks(store)):
        return
    from recovery import checked

    claims = checked.Claims(store, agent)
    for one in done:
        named = one.get("checks")
        missing = claims.missing(str(one["task_id"]), [str(name) for name in named] if isinstance(named, list) else [])
        if missing:
            one.update(claimed_done=True, not_passed=missing)


def _shown_status(one: dict[str, Any]) -> str:
    return "claimed done" if one.get("claimed_done") else str(one["status"])


def _progress(store: FileStore) -> dict[str, Any]:
    try:
        version = store.read(layout.PROGRESS)
        if version is None:
            return {"error": f"there is no {layout.PROGRESS}"}
        top = tasks.Progress(layout.PROGRESS, version).top
        numbers = {}
        for key, _, start, end in top.items:
            if jsontext.is_integer(version.text[start:end]):
                numbers[key] = int(version.text[start:end])
        return numbers
    except RecoveryError as error:
        return {"error": str(error)}


def _lines(data: dict[str, Any], narrowed: bool) -> list[str]:
    lines = []
    if "unfinished" in data:
        one = data["unfinished"]
        lines.append(
            f"unfinished commit: {one['op']} {one['agent']}/{one['task']} of {one['time']}; "
            "it is under way, or the next command finishes it (`recovery recover` does it now)"
        )
    for entry in data["agents"]:
        if "error" in entry:
            lines.append(f"{entry['agent']}: {say.shown(entry['error'], 400)}")
            if not entry["tasks"]:
                continue
        elif narrowed and not entry["tasks"]:
            continue
        nameless = sum(not is_named(one) for one in entry["tasks"])
        done = sum(is_named(one) and str(one["status"]).lower() == "completed" for one in entry["tasks"])
        open_count = len(entry["tasks"]) - nameless - done
        if narrowed:
            lines.append(f"{entry['agent']}:")
        else:
            claimed = sum(bool(one.get("claimed_done")) for one in entry["tasks"])
            lines.append(
                f"{entry['agent']}: {open_count} open, {done} completed"
                + (f" ({claimed} claimed done)" if claimed else "")
                + f", {entry['archived']} in history"
                + (f", {entry['in_archive']} archived" if entry.get("in_archive") else "")
                + (f", {nameless} without an id that is a text: recovery doctor" if nameless else "")
            )
        for one in entry["tasks"]:
            lines.append(
                f"  {plain(one['task_id']):<16} {plain(_shown_status(one)):<16} {plain(one['priority'] or '-'):<8}  "
                f"{plain(one['title'] or '')}{_aside(one)}".rstrip()
            )
    if "progress" in data:
        words = [f"{key} {value}" for key, value in data["progress"].items()]
        lines.append("progress: " + plain(", ".join(words) or "no counters"))
    return lines or ["no agents here" if not narrowed else "no task like that"]


def is_named(one: dict[str, Any]) -> bool:
    """Whether a command can name a task: its id is a text.  Others count as neither open nor completed."""
    return type(one["task_id"]) is str and bool(one["task_id"])


def plain(value: Any) -> str:
    """Somebody's text in a column."""
    return say.shown(value, 120)


def _parse(request: Request) -> list[Any]:
    request.no_words()
    for kind in ("agent", "task"):
        if kind in request.options:
            layout.require_id(kind, request.options[kind])
    if request.asked("archived"):
        if "status" in request.options:
            raise UsageError("--archived is a status: -s is one too many", hint="see --help")
        request.options["status"] = "archived"
    wanted = (request.options.get(name) for name in ("agent", "status", "task"))
    return [*wanted, request.asked("progress")]


VERB = Verb(
    {"-a": "agent=", "-s": "status=", "-t": "task=", "-p": "progress", "--archived": "archived"},
    _parse,
    lambda store, request, call: status(store, *call),
    reads=True,
    indent="",
)
