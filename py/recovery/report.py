"""report: a workspace in one look, for a person: a page of HTML in one file, or the same as text.  Only reads."""

from __future__ import annotations

import os
import time
from typing import cast

from recovery import belonging, cause, durable, escalations, explain, layout, overview, page, report_text, say, timeline
from recovery.errors import DataError, UsageError, from_os_error
from recovery.report_text import agent_and_task, subject
from recovery.request import Request, Verb, duration, in_place, place_of
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Optional

    from recovery import segments
    from recovery.store import FileStore

    Data = dict[str, Any]

#: Tasks that are explained on the page, lines of each, and characters of all of them: what bounds its size.
EXPLAINED, LINES, ROOM = 120, 30, 400_000
#: Columns that an explanation is laid out for.
WIDTH = 88
#: Seconds that a report looks back, and may.
DAY, LEAST, MOST = 86400.0, 60.0, 366 * 86400.0


def look(store: FileStore, since: float = DAY, now: float = 0.0, anywhere: bool = False) -> Data:
    """All that the page tells, for JSON: the last `since` seconds before `now` (0: now).

    Commands name the workspace where the current folder doesn't lead there; always, if they are read `anywhere`.

    overview      see `recovery.overview`
    timeline      see `recovery.timeline`
    explanations  [{"agent", "task", "cause", "wrong", "next", "lines"}]: what `recovery explain` says of the tasks that
                  matter, the most urgent first; `changes_since` is as far back as their changes go

    What can't be read is said in it.  RecoveryError, OSError where nothing can be.
    """
    now = now or time.time()
    store = cast("FileStore", _Listed(store))
    place = f"-C {say.quoted(os.path.abspath(store.root.path))}" if anywhere else place_of(store.root.path)
    told = overview.look(store, since=since, now=now, place=place)
    events = timeline.Timeline(store, now - since, now, told["agents"])
    drawn = events.collect()
    agents = {agent["agent"] for agent in told["agents"]}
    for need in told["needs_you"]:
        if need["task"] and need["agent"] not in agents:  # a program's own name
            need["agent"] = ""
    for failure in told["failures"]:
        named = map(agent_and_task, failure["tasks"])
        failure["tasks"] = [subject(events.owner(task, agent), task) for agent, task in named]
    return {
        "overview": told,
        "timeline": drawn,
        "explanations": list(_explanations(store, _that_matter(told, drawn), events.changes, place)),
        "changes_since": drawn["since"],
    }


def _that_matter(told: Data, drawn: Data) -> list[tuple[str, str]]:
    """The tasks that somebody may ask about, the most urgent first."""
    found: list[tuple[str, str]] = [(one["agent"], one["task"]) for one in told["needs_you"]]
    held = [(agent["agent"], claim) for agent in told["agents"] for claim in agent["claims"]]
    held.sort(key=lambda one: (one[1]["state"] == "alive", not one[1]["silent_since"]))
    found += [(agent, claim["task"]) for agent, claim in held]
    found += [(agent["agent"], one["task"]) for agent in told["agents"] for one in agent.get("in_progress", ())]
    found += [(agent["agent"], task) for agent in told["agents"] for task in agent.get("review", ())]
    for failure in told["failures"]:
        found += [agent_and_task(name) for name in failure["tasks"]]
    marks = [(mark["time"], lane["agent"], mark) for lane in drawn["lanes"] for mark in lane["marks"]]
    marks.sort(key=lambda one: (_URGENCY.get(one[2]["kind"], 1), _descending(one[0])))
    found += [(agent, mark["task"]) for _, agent, mark in marks]
    found += [(one["agent"], one["task"]) for one in (*told["queue"]["waiting"], *told["queue"]["next"])]
    found += [(lane["agent"], claim["task"]) for lane in drawn["lanes"] for claim in reversed(lane["claims"])]
    ids = [(agent, task) for agent, task in found if layout.is_id(task) and (not agent or layout.is_id(agent))]
    return list(dict.fromkeys(ids))


#: Marks: which tasks are asked about first, which last.
_URGENCY = {"crash": 0, "repair": 0, "failed": 0, "change": 2}


def _descending(text: str) -> list[int]:
    return [-ord(c) for c in text]


class _Listed:
    """A store that lists each folder once: a look at many tasks is one of one moment."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._names: dict[str, list[str]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, folder: str) -> list[str]:
        if folder not in self._names:
            self._names[folder] = list(self._store.list(folder))
        return self._names[folder]


class _Look(explain.Look):
    """A look that knows the changes of the period already: to search the whole log for each task takes too long."""

    def __init__(self, store: FileStore, changes: Iterable[Data]) -> None:
        super().__init__(store, explain.MOST)
        self._escalations: list[Data] | None = None
        self._by_word: dict[str, list[Data]] = {}
        for line in changes:
            many = line.get("tasks")
            tasks = [task for some in many.values() for task in some] if isinstance(many, dict) else []
            for word in {line["task"], *map(str, tasks), *(file["name"] for file in line["files"])}:
                self._by_word.setdefault(word, []).append(line)

    def changes_with(self, word: str, skipped: Optional[segments.Skipped] = None) -> Iterable[Data]:
        if skipped is not None:  # whether a file is as its newest change left it: one may have come since
            return super().changes_with(word, skipped)
        return self._by_word.get(word, [])

    def escalations_of(self, task: str) -> list[Data]:
        if self._escalations is None:
            self._escalations = escalations.open_escalations(self.store)
        return [one for one in self._escalations if one["task"] == task]


def _explanations(
    store: FileStore, wanted: list[tuple[str, str]], changes: Iterable[Data], place: str
) -> Iterator[Data]:
    look = _Look(store, changes)
    room = ROOM
    for agent, task in wanted[:EXPLAINED]:
        facts, events = look.settled(agent, task)
        why = cause.cause_of(facts)
        why.next = in_place(why.next, place)
        lines = page.of_tasks([(facts, events, why)], why.next, [], WIDTH, LINES)
        room -= sum(map(len, lines))
        if room < 0:
            return
        yield {
            "agent": agent,
            "task": task,
            "cause": why.why,
            "wrong": why.wrong,
            "next": why.next,
            "lines": lines,
        }


def write(path: str, text: str, head: str = "") -> None:
    """Put a text in the place of a file, durably and in one rename, or leave what is there; OSError.

    A file that is there keeps its mode; a new one has that which the umask leaves.  DataError (65) for what is no
    regular file, UsageError (64) for one that holds something and does not begin with `head`.  A crash leaves the old
    file or the new one, and perhaps a stage beside it.
    """
    above, base = os.path.split(os.path.abspath(path))
    folder = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = durable.Place(folder, base, path)
        mode = 0o666 & ~_umask()
        try:
            fd, st = durable.open_regular(place)
            try:
                begins = os.read(fd, len(head.encode()))
            finally:
                os.close(fd)
            if begins and begins != head.encode():
                hint = "another name, or --force if it may be replaced"
                raise UsageError(f"{path} is there and is no report, and was not written over", hint=hint)
            mode = st.st_mode & 0o7777
        except FileNotFoundError:
            pass
        stage = durable.stage_name(base, os.urandom(6).hex())
        durable.stage(place, stage, (text.encode("utf-8", "backslashreplace"),), mode, -1, -1).sync()
        durable.into_place(place, stage, base)
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def report(store: FileStore, since: float = DAY, html: str = "", force: bool = False) -> Result:
    """The report as text, or as a page: in the file `html`, or on stdout where that is `-`; see `look`, `write`.

    UsageError (64) for a file of the workspace, and without `force` for any that is no report.
    """
    if html not in ("", "-") and belonging.belongs(html, store.root.path, ".html"):
        hint = "a name like today.html, or another folder"
        raise UsageError(f"{html} is the workspace's own, and was not written", hint=hint)
    data = look(store, since, anywhere=bool(html))
    data = {"ok": True, "code": 0, "changed": False, **data}
    if not html:
        lines = report_text.lines_of(data, page.size()[0])
        return Result(lines[0], False, data, lines[1:])
    from recovery import report_page

    if html == "-":
        data["code"] = say.answer(report_page.page_of(data).rstrip("\n"), 0)
        return Result("", False, data)
    try:
        write(html, report_page.page_of(data), "" if force else report_page.HEAD)
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise from_os_error(error, f"could not write {html}") from None
    return Result(f"{html}: {report_text.headline(data['overview'])}", False, {**data, "html": html})


def since_of(request: Request) -> float:
    """How far back is asked for, in seconds; UsageError (64)."""
    value = request.options.get("since")
    since = duration(value, "--since") if value else DAY
    if not LEAST <= since <= MOST:
        raise UsageError(f"--since {value} is none from 1m to 366d", hint="see --help")
    return since


def _parse(request: Request) -> list[Any]:
    request.no_words()
    html, force = request.options.get("html", ""), request.asked("force")
    if force and not html:
        raise UsageError("--force is for the file of --html", hint="see --help")
    if html == "-" and request.asked("json"):
        raise UsageError("--html - and --json both want stdout", hint="name a file, or ask for one of them")
    return [since_of(request), html, force]


VERB = Verb(
    {"--html": "html=", "--since": "since=", "--force": "force"},
    _parse,
    lambda store, request, call: report(store, *call),
    tries=False,
    reads=True,
    indent="",
)
