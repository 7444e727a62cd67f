"""The checks of health_check.sh: each looks at one thing and answers with numbers and a sentence.  Reads only.

What a number means is not decided here: the thresholds of MEASURES, or the user's, say that (see `recovery.health`).
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread

from recovery import contention, documented, finish, jsontext, layout, tasks, verbs, walks
from recovery.durations import epoch as _epoch
from recovery.durations import words as _long
from recovery.errors import DataError, Denied, RecoveryError
from recovery.thresholds import CRITICAL, OK, UNKNOWN, WARNING, number, worst

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Container, Mapping, Optional, Sequence

    from recovery import bounds
    from recovery.store import FileStore

#: Fewer incidents than this say nothing about a success rate.
FEW = 20
#: Per cent of the budget up to which what find saw is near enough.
_ROUGHLY = 60
#: Recovery logs of the window up to this many bytes are read as they are; more only with what was counted before.
_READ_AT_ONCE = 16 * 1024 * 1024
#: How many things one sentence names.
_NAMED = 3


class Measure:
    """A number that a check finds: its unit ("s", "B", "%" or ""), when it alerts (ranges; "": never), and its name and
    meaning for Prometheus, in whose base units `scale` brings it."""

    __slots__ = ("critical", "help", "metric", "scale", "unit", "warning")

    def __init__(self, unit: str, warning: str, critical: str, metric: str, help: str, scale: float = 1.0) -> None:
        self.unit, self.warning, self.critical = unit, warning, critical
        self.metric, self.help, self.scale = metric, help, scale


MEASURES = {
    "unfinished": Measure("", "0", "", "unfinished_commits", "Commits that a dead process left half done."),
    "parked": Measure("", "", "0", "parked_commits", "Commits that could be neither finished nor undone."),
    "held_locks": Measure("", "", "", "locks_held", "Documented and data locks that somebody holds now."),
    "lock_held": Measure("s", "10m", "1h", "lock_held_seconds", "How long the longest held of these locks is held."),
    "stale_locks": Measure("", "0", "", "stale_locks", "Lock folders whose owner is gone."),
    "old_locks": Measure("", "10000", "", "old_lock_files", "Documented lock files older than an hour."),
    "damaged": Measure("", "", "0", "damaged_files", "Outboxes and progress files that are refused as damaged."),
    "damaged_records": Measure("", "", "0", "damaged_records", "Completion records, receipts that can't be read."),
    "torn_lines": Measure("", "0", "", "torn_lines", "Lines of change log and receipts that are no record."),
    "agents": Measure("", "", "", "agents", "Agents with an outbox."),
    "pending": Measure("", "", "", "pending_tasks", "Tasks that wait for somebody."),
    "pending_age": Measure("s", "7d", "", "oldest_pending_task_seconds", "Age of the oldest pending task."),
    "claimed": Measure("", "", "", "claimed_tasks", "Tasks that somebody holds a claim of."),
    "dead_owners": Measure("", "0", "", "dead_owners", "Claims whose owner is gone, or whose lease is over."),
    "escalations": Measure("", "0", "10", "open_escalations", "Escalations that wait for a person."),
    "parked_tasks": Measure("", "0", "", "parked_tasks", "Tasks that are not run before a person has looked."),
    "unknown_calls": Measure("", "0", "", "unknown_calls", "Calls of which nobody knows whether they took effect."),
    "open_breakers": Measure("", "0", "", "open_breakers", "Circuit breakers that are open."),
    "incidents": Measure("", "", "", "window_incidents", "Recoveries that ended within the window."),
    "success_rate": Measure("", "0.95:", "0.8:", "success_ratio", "Share of these recoveries that succeeded."),
    "lock_wait": Measure("s", "5m", "", "window_lock_wait_seconds", "Time these recoveries spent waiting for locks."),
    "retry_time": Measure("s", "1m", "10m", "retry_time_seconds", "Mean time from first failure to the outcome."),
    "log_size": Measure("B", "96M", "192M", "log_bytes", "Size of logs/ on the disk."),
    "checkpoint_size": Measure("B", "96M", "192M", "checkpoint_bytes", "Size of data/checkpoints/ on the disk."),
    "used": Measure("%", "80", "100", "budget_used_ratio", "Share of the workspace's budget that is used.", 0.01),
    "size": Measure("B", "", "", "used_bytes", "Size of what the suite has written."),
    "files": Measure("", "", "", "files", "Files that the suite has written."),
    "free": Measure("B", "64M:", "8M:", "free_bytes", "Room on the disk of the workspace."),
    "free_files": Measure("", "1000:", "100:", "free_files", "Files that may still be made there."),
    "alerts": Measure("", "", "", "alerts_on", "Rules of alerts.rules that are true."),
    "clock_ahead": Measure("s", "1m", "1h", "clock_ahead_seconds", "How far in the future the newest change lies."),
}  # fmt: skip


class Finding:
    """What a check found: `text`, `values` by the names of MEASURES, and a `level` that no number says.

    `next` is the command to run where it is not all right.  `unjudged` are values that are shown and mean nothing, for
    now.
    """

    __slots__ = ("level", "next", "text", "unjudged", "values")

    def __init__(
        self,
        text: str,
        values: Optional[dict[str, float]] = None,
        level: int = OK,
        unjudged: Sequence[str] = (),
        next: str = "",
    ) -> None:
        self.text, self.level, self.unjudged, self.next = text, level, frozenset(unjudged), next
        self.values = values or {}


class Agents:
    """All outboxes, looked through once: which are damaged; what waits and who has what, as far as can be read.

    `problems` has for each agent why its outbox can't be read, in words.
    """

    def __init__(self) -> None:
        self.count = self.pending = 0
        self.damaged: list[str] = []
        self.unreadable: list[str] = []
        self.problems: dict[str, str] = {}
        self.oldest, self.oldest_task = "", ""
        self.claims: list[tuple[str, str, Any]] = []


class Look:
    """What the checks share: the workspace, the time, and what find and du see meanwhile."""

    def __init__(self, store: FileStore, environ: Mapping[str, str], now: float, window: float) -> None:
        self.store, self.now, self.window = store, now, window
        self.root = os.path.abspath(store.root.path)
        self.documented = documented.folder_of(environ)
        #: what the checks before have found
        self.found: dict[str, Finding] = {}
        self._walks: dict[str, walks.Walk] = {}
        self._answers: dict[str, Any] = {}

    def begin(self, names: Sequence[str]) -> None:
        """Start what these checks will ask."""
        wanted = {walk for name in names for walk in CHECKS[name].walks}
        if "locks" in wanted:
            self._inodes = _Inodes()
            self._walks["locks"] = walks.find_locks(self.root, self.documented)
        if "files" in wanted:
            minutes = max(1, int(-(-self.window // 60)))
            self._walks["files"] = walks.find_files(self.root, minutes, self.now)
        if "records" in wanted:
            self._walks["records"] = walks.find_records(self.root)
        if {"success", "waits"} & set(names) and os.path.isdir(f"{self.root}/{layout.LOGS}"):
            try:
                import recovery.stats_recent  # noqa: F401 - while find looks: what takes longest to read
            except ImportError:  # on an older Python, which is said where it is needed
                pass

    def stop(self) -> None:
        for walk in self._walks.values():
            walk.stop()

    def _once(self, name: str, find: Callable[[], Any]) -> Any:
        """What `find` gives, or raised, the first time."""
        if name not in self._answers:
            try:
                self._answers[name] = find()
            except RecoveryError as error:
                self._answers[name] = error
        found = self._answers[name]
        if isinstance(found, RecoveryError):
            raise found
        return found

    @property
    def files(self) -> walks.Files:
        found: walks.Files = self._once("files", lambda: walks.Files(*self._walks["files"].answer()))
        return found

    @property
    def records(self) -> tuple[list[tuple[float, int, str]], list[str]]:
        """Completion records, receipts and the change log's files; the folders that can't be looked into."""
        records, denied = self._walks["records"].answer()
        return walks.records_of(self.root, records), denied

    @property
    def locks(self) -> walks.Locks:
        def look() -> walks.Locks:
            return walks.Locks(*self._walks["locks"].answer(), self._inodes.answer())

        found: walks.Locks = self._once("locks", look)
        return found

    @property
    def agents(self) -> Agents:
        found: Agents = self._once("agents", lambda: all_agents(self.store))
        return found

    @property
    def incidents(self) -> dict[str, Any]:
        """What `recovery stats --since` would say of the window."""
        found: dict[str, Any] = self._once("incidents", lambda: _incidents(self))
        return found

    @property
    def values(self) -> dict[str, float]:
        """All numbers that are known by now."""
        return {name: value for finding in self.found.values() for name, value in finding.values.items()}

    def require_readable(self, folder: str) -> None:
        """Denied (77) if `folder` of the workspace, or one below it, can't be looked into."""
        whole = f"{self.root}/{folder}"
        for path in self.files.denied:
            if path == whole or path.startswith(whole + "/") or whole.startswith(path + "/"):
                raise Denied(f"{path[len(self.root) + 1 :]}: no permission to look into it")


class _Inodes:
    """The inodes of locked files: asked for aside, for the kernel waits some ten milliseconds before it answers."""

    def __init__(self) -> None:
        self._found: list[int] = []
        self._done = allocate_lock()
        self._done.acquire()
        start_new_thread(self._ask, ())

    def _ask(self) -> None:
        try:
            self._found = [int(where.rpartition(":")[2]) for _, where in contention.kernel_locks()]
        except (OSError, ValueError):
            pass
        finally:
            self._done.release()

    def answer(self) -> list[int]:
        """Wait for it; none where the kernel doesn't tell."""
        with self._done:
            return self._found


def all_agents(
    store: FileStore,
    only: str = "",
    look: Optional[Callable[[str], Callable[[int, Any], None]]] = None,
    then: Optional[Callable[[str, tasks.Outbox], None]] = None,
) -> Agents:
    """Look through all outboxes, or that of one agent.  No lock is waited for.

    `look` gives for an agent what each task of its is shown to (see `tasks.Outbox`); `then` gets each whole outbox.
    """
    found = Agents()
    for agent in [only] if only else store.list("postbox"):
        if not layout.is_id(agent) or not os.path.isdir(f"{store.root.path}/postbox/{agent}"):
            continue
        name = layout.outbox(agent)
        try:
            version = store.read(name)
            if version is None:
                if _had_one(store, agent):
                    found.problems[agent] = f"{name} is missing, though there are tasks of {agent}"
                    found.damaged.append(found.problems[agent])
                continue
            found.count += 1
            claimed: list[int] = []
            also = look(agent) if look is not None else None
            outbox = tasks.Outbox(
                name,
                version,
                lambda n, value: _look_at(found, agent, claimed, n, value, also),  # noqa: B023
                unique=True,
            )
            if outbox.misnamed:
                some = _some([tasks.shown(one) for one in outbox.misnamed])
                found.damaged.append(f"{name}: {some} is no text, as a task's id must be")
            for number in claimed:
                task, *_, start, end = outbox.tasks[number]
                found.claims.append((agent, task, outbox.entry(start, end).get("claim")))
            if then is not None:
                then(agent, outbox)
        except Denied as error:
            found.unreadable.append(name)
            found.problems[agent] = str(error)
        except RecoveryError as error:
            found.damaged.append(str(error))
            found.problems[agent] = str(error)
        finally:
            for folder in ("/inbox", "/completed", ""):
                store.root.forget(f"postbox/{agent}{folder}")
    return found


def _had_one(store: FileStore, agent: str) -> bool:
    """Whether a folder without an outbox is an agent's: it has briefs, completions, or an outbox's backup."""
    if any(store.list(f"postbox/{agent}/{folder}") for folder in ("inbox", "completed")):
        return True
    return any(base.startswith("outbox.json.backup_") for base in store.list(f"postbox/{agent}"))


def _look_at(
    found: Agents, agent: str, claimed: list[int], n: int, value: Any, also: Optional[Callable[[int, Any], None]]
) -> None:
    status = value.get("status")
    if status in (None, "", "pending") or (type(status) is str and status.lower() == "pending"):
        found.pending += 1
        created = value.get("created_at")
        if type(created) is str and (not found.oldest or created < found.oldest) and _epoch(created) is not None:
            found.oldest, found.oldest_task = created, f"{agent}/{value.get('task_id')}"
    claim = value.get("claim")
    if isinstance(claim, dict) and claim.get("state") == "held" and layout.is_id(str(value.get("task_id"))):
        claimed.append(n)
    if also is not None:
        also(n, value)


def _incidents(look: Look) -> dict[str, Any]:
    from recovery.request import require_python_311

    look.require_readable(layout.LOGS)
    recent = look.files.recent
    if not recent:
        none = {"total_recoveries": 0, "success_rate": 1.0, "lock_wait_time": 0.0, "avg_retry_time": 0.0}
        return {**none, "causes": {}, "crashes": {}}
    require_python_311("counting incidents")
    from recovery.stats_recent import recent_stats

    return recent_stats(look.store, recent, look.now - look.window, sum(recent.values()) > _READ_AT_ONCE)


# --- the checks


def _certificate(look: Look) -> Finding:
    """`recovery torture` was run on this disk, with this version, and found nothing."""
    from recovery import certificate

    doubts = certificate.doubts(look.store)
    if not doubts:
        found = certificate.read(look.store)
        assert found is not None
        return Finding(f"{found.get('trials')} trials on {found['file_system']['type']}, no violations")
    level = CRITICAL if any("violation" in doubt for doubt in doubts) else WARNING
    return Finding("; ".join(doubts), level=level)


def _journal(look: Look) -> Finding:
    """Whether a commit was left half done: whoever comes next finishes it, or, the worst, nobody can."""
    refusal = finish.refusal_of(look.store)
    if refusal is not None:
        text = f"no command can go on: {refusal}"
        return Finding(text, {"unfinished": 1}, CRITICAL, next="recovery doctor --repair")
    commit = finish.half_done(look.store)
    if commit is None:
        if finish.is_garbled(look.store):
            text = f"{layout.JOURNAL} holds no record that can be read: torn before its commit point, or damaged since"
            return Finding(text, {"unfinished": 0}, WARNING, next="recovery doctor")
        return Finding("nothing half done", {"unfinished": 0})
    what = f"{commit['op']} {commit['agent']}/{commit['task']} of {commit['time']}"
    if commit["under_way"]:
        return Finding(f"{what} is under way", {"unfinished": 0})
    return Finding(f"{what} was left half done by pid {commit['pid']}", {"unfinished": 1})


def _conflicts(look: Look) -> Finding:
    """Whether commits wait that could be neither finished nor undone."""
    parked = [name for name in look.store.list(layout.CONFLICTS) if name.endswith(".parked.json")]
    if parked:
        text = f"{_count(len(parked), 'commit')} could be neither finished nor undone"
        return Finding(text, {"parked": len(parked)})
    return Finding("none parked", {"parked": 0})


def _locks(look: Look) -> Finding:
    """Who holds documented and data locks, which all are held for a moment only, and what dead holders left."""
    seen = look.locks
    unseen = [_inside(look, path) for path in seen.denied]
    held = [one for one in map(_held, _locked_files(look)) if one is not None]
    longest = max(((look.now - since, path, who) for path, since, who in held), default=(0.0, "", ""))
    stale = [words for words in (_stale(look, path, since) for path, since in seen.folders) if words]
    values: dict[str, float] = {"held_locks": len(held), "lock_held": max(0.0, round(longest[0], 3))}
    values.update(stale_locks=len(stale), old_locks=seen.old)
    parts = []
    if held:
        parts.append(
            f"{len(held)} held, the longest for {_long(longest[0])}: {_inside(look, longest[1])} by {longest[2]}"
        )
    if stale:
        parts.append(f"stale: {_some(stale)}")
    text = "; ".join(parts) or "none held"
    if seen.old:
        text += f"; {_count(seen.old, 'lock file')} older than an hour that nobody needs"
    if unseen:
        return Finding(f"no permission to look into {_some(unseen)}; {text}", values, UNKNOWN)
    if not contention.sees_everybody():
        text += " (holders in other containers can't be seen from here)"
    return Finding(text, values)


def _locked_files(look: Look) -> list[str]:
    """The lock files whose inodes the kernel names; it may mean files of other disks, too."""
    if not look.locks.inodes:
        return []
    walk = walks.find_held(look.root, look.documented, look.locks.inodes)
    try:
        return [os.fsdecode(path) for path in walk.answer()[0]]
    finally:
        walk.stop()


def _held(path: str) -> Optional[tuple[str, float, str]]:
    """A lock file that somebody holds: since when at most, and who; None if nobody does any more."""
    try:
        since = os.stat(path, follow_symlinks=False).st_mtime
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return path, since, "somebody whose note can't be read"
    except OSError:
        return None
    try:
        if not contention.is_held(fd):
            return None
        return path, max(since, contention.holder_began(fd)), contention.holder(fd)
    finally:
        os.close(fd)


def _stale(look: Look, path: str, since: float) -> str:
    """Words for a lock folder that nobody will ever give back; "" for any other."""
    from recovery import owners

    try:
        with open(os.path.join(path, "owner.json"), encoding="utf-8", errors="replace") as marker:
            owner = jsontext.loads(marker.read(65536))
    except (OSError, ValueError):
        owner = None
    if isinstance(owner, dict) and type(owner.get("pid")) is int:
        state, why = owners.judge_process(owner)
        return f"{_inside(look, path)} ({why})" if state == owners.DEAD else ""
    age = look.now - since
    return f"{_inside(look, path)} (a folder, {_long(age)} old)" if age > walks.OLD_MINUTES * 60 else ""


def _outboxes(look: Look) -> Finding:
    """Every outbox, and progress.json, can be read and is what the commands take for one."""
    agents = look.agents
    shared, unread = shared_damage(look.store)
    damaged = [*agents.damaged, *shared, *lost_agents(look.store, agents.problems)]
    unreadable = [*agents.unreadable, *unread]
    values: dict[str, float] = {"damaged": len(damaged), "agents": agents.count}
    text = f"{_count(agents.count, 'agent')}, none damaged"
    if damaged:
        text = f"{len(damaged)} damaged: {_some(damaged)}"
    if unreadable:
        text = f"no permission to read {_some(unreadable)}; {text}"
    return Finding(text, values, UNKNOWN if unreadable else OK)


def shared_damage(store: FileStore) -> tuple[list[str], list[str]]:
    """What is damaged of what is everybody's, in words, and what may not be read, by name: folders, progress.json."""
    blocked = verbs.blocked_folders(store)
    damaged, unreadable = [f"{name} is no folder" for name in blocked], []
    try:
        version = store.read(layout.PROGRESS) if ".sprint" not in blocked else None
        if version is not None:
            tasks.Progress(layout.PROGRESS, version)
        elif verbs.misses_progress(store):
            damaged.append(f"{layout.PROGRESS} is gone, and was there")
    except Denied:
        unreadable.append(layout.PROGRESS)
    except RecoveryError as error:
        damaged.append(str(error))
    return damaged, unreadable


def lost_agents(store: FileStore, told: Container[str] = ()) -> list[str]:
    """Whose outbox is gone, in words, as far as that costs little to know; without those whose trouble is `told`."""
    from recovery import gone

    known = gone.Known(store, gone.LATE)
    lost = [agent for agent in known.missed() if agent not in told]
    return [f"{layout.outbox(agent)} is gone: {known.words(agent)}" for agent in lost]


def _records(look: Look) -> Finding:
    """Records, receipts, checkpoints, backups, the change log, archives and checks.json: the newest can be read."""
    from recovery import health_records

    seen, denied = look.records
    found = health_records.look(look.store, seen)
    values: dict[str, float] = {"damaged_records": len(found.damaged), "torn_lines": found.lines}
    parts = []
    if found.damaged:
        parts.append(f"{len(found.damaged)} damaged: {_some(found.damaged)}")
    if found.torn:
        parts.append(f"torn lines: {_some(found.torn)}")
    if found.spoiled:
        parts.append(f"of no use: {_some(found.spoiled)}")
    text = "; ".join(parts) or f"{_count(found.files, 'file')}, none damaged"
    if found.read < found.files:
        text += f" (the newest {found.read} of {found.files} were read)"
    unseen = found.unreadable + [_inside(look, path) for path in denied]
    if unseen:
        text = f"no permission to read {_some(unseen)}; {text}"
    return Finding(text, values, UNKNOWN if unseen else WARNING if found.spoiled else OK)


def _pending(look: Look) -> Finding:
    """How long the oldest pending task has waited."""
    agents = look.agents
    began = _epoch(agents.oldest)
    age = max(0.0, look.now - began) if began is not None else 0.0
    text = _count(agents.pending, "pending task")
    if began is not None:
        text += f", the oldest {agents.oldest_task} for {_long(age)}"
    values: dict[str, float] = {"pending": agents.pending, "pending_age": round(age)}
    return Finding(text, values)


def _owners(look: Look) -> Finding:
    """Claims whose owner is gone."""
    if not look.agents.claims:
        return Finding("no claims", {"claimed": 0, "dead_owners": 0})
    from recovery import claims, owners

    dead, unknown, held = [], 0, 0
    for agent, task, value in look.agents.claims:
        claim = claims.of(value)
        if claim is None:
            continue
        held += 1
        state, why = owners.judge(look.store, agent, task, claim)
        if state in (owners.DEAD, owners.EXPIRED):
            dead.append(f"{agent}/{task} ({why})")
        unknown += state == owners.UNKNOWN
    text = f"{_count(held, 'claim')}, every owner is there"
    if unknown:
        text = f"{_count(held, 'claim')}, {unknown} can't be judged from here"
    if dead:
        text = f"{len(dead)} of {_count(held, 'claim')} without an owner: {_some(dead)}"
    return Finding(text, {"claimed": held, "dead_owners": len(dead)})


def _escalations(look: Look) -> Finding:
    """Whatever waits for a person: escalations, parked tasks, calls of which nobody knows whether they took effect."""
    look.require_readable(layout.LOGS)
    found: list[dict[str, Any]] = []
    if look.files.escalations:  # ten thousand logs are listed once, by find
        from recovery import escalations

        found = escalations.open_escalations(look.store)
    parked = [base[:-5] for base in look.store.list(layout.MANUAL) if base.endswith(".json")]
    unknown = unknown_calls(look.store)
    values = {"escalations": float(len(found)), "parked_tasks": len(parked), "unknown_calls": len(unknown)}
    words = []
    if found:
        tasks_ = list(dict.fromkeys(one["task"] for one in found))
        words.append(f"{len(found)} open, the oldest of {found[0]['time']}: {_some(tasks_)}")
    if parked:
        words.append(f"{len(parked)} parked: {_some(parked)}")
    if unknown:
        words.append(f"{len(unknown)} calls of unknown outcome: {_some(unknown)}")
    return Finding("; ".join(words) or "none open", values)


def unknown_calls(store: FileStore) -> list[str]:
    """The idempotency keys that were started, that nobody is at, and those whose record can't be read."""
    names = [base for base in store.list(layout.ONCE) if base.endswith(".json") and not base.startswith(".")]
    if not names:
        return []
    from recovery import turns

    found = []
    for base in names:
        name = f"{layout.ONCE}/{base}"
        try:
            version = store.read(name)
            record = jsontext.loads(jsontext.from_latin(version.text)) if version is not None else {"state": "gone"}
            if record["state"] == "started" and turns.holder(store, name) is None and store.read(name) is not None:
                found.append(str(record.get("key")))
        except (RecoveryError, ValueError, TypeError, LookupError):
            found.append(base[: -len(".json")])
    return found


def _space(look: Look) -> Finding:
    """Room on the disk for who isn't root: without it every command is refused, and can't even note that."""
    disk = os.statvfs(look.root)
    free = disk.f_bavail * disk.f_frsize
    values: dict[str, float] = {"free": free}
    text = f"{number(free / 1e6)} MB free"
    if disk.f_files:  # some file systems don't count them
        values["free_files"] = disk.f_favail
        text += f", {disk.f_favail} files"
    return Finding(text, values)


def _breakers(look: Look) -> Finding:
    """Circuit breakers that refuse calls now, and those whose file can't be believed."""
    names = [base for base in look.store.list(layout.BREAKERS) if base.endswith(".json")]
    if not names:
        return Finding("none there", {"open_breakers": 0})
    from recovery.request import require_python_311

    require_python_311("looking at breakers")
    from recovery import breaker_state

    found = breaker_state.all_breakers(look.store)
    open_ = [f"{one['name']} until {one['until']}" for one in found if one["state"] == "open"]
    problems = [one["problem"] for one in found if one.get("problem")]
    text = f"{len(open_)} open: {_some(open_)}" if open_ else f"{len(found)}, none open"
    if problems:
        text = f"{_some(problems)}; {text}"
    values: dict[str, float] = {"open_breakers": len(open_)}
    return Finding(text, values, WARNING, next="recovery doctor") if problems else Finding(text, values)


def _success(look: Look) -> Finding:
    """How many of the recoveries within the window succeeded."""
    numbers = look.incidents
    total, rate = numbers["total_recoveries"], numbers["success_rate"]
    values = {"incidents": total, "success_rate": round(rate, 4)}
    within = f"within {_long(look.window)}"
    if not total:
        return Finding(f"no incidents {within}", {"incidents": 0})
    text = f"{rate:.1%} of {_count(total, 'incident')} {within} ended well"
    if total < FEW:
        return Finding(f"{text}, too few to judge ({FEW})", values, unjudged=["success_rate"])
    return Finding(text, values)


def _waits(look: Look) -> Finding:
    """What locks and tries cost within the window."""
    numbers = look.incidents
    wait, retry = round(numbers["lock_wait_time"], 3), round(numbers["avg_retry_time"], 3)
    text = (
        f"waited {_long(wait)} for locks within {_long(look.window)}, {_long(retry)} from failure to outcome on average"
    )
    return Finding(text, {"lock_wait": wait, "retry_time": retry})


def _logs(look: Look) -> Finding:
    """How much the logs take."""
    look.require_readable("logs")
    size = look.files.logs
    return Finding(f"logs/ takes {_bytes(size)}", {"log_size": size})


def _checkpoints(look: Look) -> Finding:
    """How much the checkpoints take."""
    look.require_readable(layout.CHECKPOINTS)
    size = look.files.checkpoints
    return Finding(f"{layout.CHECKPOINTS}/ takes {_bytes(size)}", {"checkpoint_size": size})


def _budget(look: Look) -> Finding:
    """How much of what the suite may use in all is used: by what find saw, and exactly once that comes to much.

    On the disk files take whole blocks, so that find's answer is more than the budget counts, not less.
    """
    from recovery import bounds

    for folder in ("data", "logs"):
        look.require_readable(folder)
    seen = look.files
    found = bounds.Use(bounds.limits_of(look.store))
    found.size, found.files = seen.logs + seen.checkpoints + seen.elsewhere, seen.count
    if _share(found) > _ROUGHLY:
        found = bounds.use(look.store)
    used = _share(found)
    values: dict[str, float] = {"used": used, "size": found.size, "files": found.files}
    return Finding(f"{used:g}% used: {found.words()}", values)


def _share(use: bounds.Use) -> float:
    return round(100 * max(use.size / use.limits.size, use.files / use.limits.files), 1)


def _clock(look: Look) -> Finding:
    """Whether anything was written in the future: then the clock was set back, or is wrong now."""
    for folder in ("data", "logs"):
        look.require_readable(folder)
    newest, what = look.files.newest, _inside(look, look.files.newest_path)
    journal = look.store.journal()
    record = journal.read() if journal is not None else None
    written = _epoch(str(record.body["line"].get("time", ""))) if record is not None else None
    if written is not None and written > newest:
        newest, what = written, f"the last commit in {layout.JOURNAL}"
    ahead = max(0.0, round(newest - look.now, 3))
    if not ahead:
        return Finding("nothing lies in the future", {"clock_ahead": 0})
    text = f"{what} lies {_long(ahead)} in the future: the clock was set back, or is wrong now"
    return Finding(text, {"clock_ahead": ahead})


def _alerts(look: Look) -> Finding:
    """The rules of alerts.rules: that they can be read, and which are true of what the other checks found."""
    if look.store.read_state(layout.ALERT_RULES) is None:
        return Finding("no rules")
    from recovery import alert_rules

    try:
        rules, bad = alert_rules.read(look.store) or ([], [])
    except DataError as error:
        return Finding(str(error), level=WARNING)
    judged = alert_rules.judge(rules, look.values)
    on = [key for key, (holds, _) in judged.items() if holds]
    unknown = sum(holds is None for holds, _ in judged.values())
    unseen = [rule.key for rule in rules if judged[rule.key] == (None, None)]
    text = f"{_count(len(rules), 'rule')}, " + (f"true: {_some(on)}" if on else "none is true")
    if unknown:
        text += f", {unknown} can't be told from what was looked at"
    if bad:
        text = f"{_some([str(one) for one in bad])}; {text}"
    level = worst([WARNING if bad else OK, UNKNOWN if unseen else OK])
    if unseen:  # whoever asks for some checks only must not take it for all is well
        text = f"not looked at: what is asked for by {_some(unseen)}; {text}"
    return Finding(text, {"alerts": len(on)}, level, next="health_check.sh --alert" if unseen else "")


# --- words


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" + ("" if n == 1 else "s")


def _some(found: Sequence[str]) -> str:
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more


def _bytes(size: float) -> str:
    for unit, factor in (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}" if size < 1000 * factor else f"{size / factor:.0f} {unit}"
    return f"{size:.0f} B"


def _inside(look: Look, path: str) -> str:
    return path[len(look.root) + 1 :] if path.startswith(look.root + "/") else path


class Check:
    """A check, the command to run where it finds something, and the programs whose answers it needs."""

    __slots__ = ("look", "next", "walks")

    def __init__(self, find: Callable[[Look], Finding], next: str, *walks: str) -> None:
        self.next, self.walks = next, walks

        def look(at: Look) -> Finding:
            found = find(at)
            found.next = found.next or next
            return found

        self.look = look


CHECKS = {
    "certificate": Check(_certificate, "recovery torture"),
    "journal": Check(_journal, "recovery recover"),
    "conflicts": Check(_conflicts, "recovery recover"),
    "outboxes": Check(_outboxes, "recovery doctor"),
    "records": Check(_records, "recovery doctor", "records"),
    "pending": Check(_pending, "task_status.sh -s pending"),
    "owners": Check(_owners, "recovery sweep"),
    "breakers": Check(_breakers, "recovery breaker list"),
    "locks": Check(_locks, "recovery locks", "locks"),
    "escalations": Check(_escalations, "recovery escalations", "files"),
    "logs": Check(_logs, "recovery cleanup", "files"),
    "checkpoints": Check(_checkpoints, "recovery cleanup", "files"),
    "budget": Check(_budget, "recovery cleanup", "files"),
    "space": Check(_space, "recovery cleanup"),
    "clock": Check(_clock, "date -u", "files"),
    # last, for they alone may have much to read
    "success": Check(_success, "recovery stats", "files"),
    "waits": Check(_waits, "recovery stats", "files"),
    # and behind them what goes by all their numbers
    "alerts": Check(_alerts, "health_check.sh --help"),
}
