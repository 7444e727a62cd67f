"""The lines of the change log as people read them; `recovery.derived.newest_first` reads them."""

from __future__ import annotations

from recovery import derived, segments
from recovery.say import harmless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

    from recovery.store import FileStore

    Line = dict[str, Any]


def is_of(line: Line, agent: str, task: str = "") -> bool:
    """Whether a change was one of this agent, or of this task of the agent's ("": of any); "" for any agent."""
    if agent and task:
        return derived.is_about(line, agent, task)
    many = line.get("tasks")
    return agent in ("", line["agent"]) or (isinstance(many, dict) and agent in many)


def by_number(store: FileStore, about: str = "", skipped: Optional[segments.Skipped] = None) -> Iterator[Line]:
    """`derived.newest_first`, the highest number first also where the clock was set back over the end of a month."""
    months = derived.months(store, skipped)
    heads: list[tuple[Line, Iterator[Line]]] = []
    while months or heads:
        heads.sort(key=lambda head: int(head[0]["seq"]))
        if months and (not heads or _last_of(store, months[-1]) > heads[-1][0]["seq"]):
            lines = derived.of_month(store, months.pop(), about, skipped=skipped)
        else:
            line, lines = heads.pop()
            yield line
        following = next(lines, None)
        if following is not None:
            heads.append((following, lines))


def _last_of(store: FileStore, month: str) -> int:
    """The number of a month's last line; 0 for one that can't be read: who reads it says so."""
    return next((int(line["seq"]) for line in derived.of_month(store, month, skipped=segments.Skipped())), 0)


#: Characters of a field's value that are shown.
WIDTH = 60


def shown(line: Line, width: int = WIDTH) -> list[str]:
    """A change on a few lines: number, time, verb, task and who; below it each field, before and after."""
    words = f"{line['seq']:>5}  {line['time']}  {line['op']:<9} {line['agent']}/{line['task']}  {who(line)}"
    return [harmless(words), *(f"       {words}" for file in line["files"] for words in fields(file, width))]


def who(line: Line) -> str:
    """Who made a change, as far as it is recorded."""
    by = line.get("by")
    by = by if isinstance(by, dict) else {}
    return " ".join(f"{word} {by[key]}" for word, key in (("pid", "pid"), ("uid", "uid"), ("on", "host")) if key in by)


def fields(file: Line, width: int = WIDTH) -> list[str]:
    """What a change did to one file, a line a field."""
    name = file["name"]
    words = []
    try:
        if "write" in file:
            old, new = file["write"]
            return [harmless(f"{name}: {'written' if old is None else 'removed' if new is None else 'replaced'}")]
        for op in file["ops"]:
            where = ".".join(str(step if isinstance(step, str) else step[1]) for step in op["path"])
            if op["op"] == "add":
                words.append(f"{name}: {where} {op['by']:+d}")
            else:
                words.append(f"{name}: {where} {short(op.get('before'), width)} -> {short(op.get('after'), width)}")
    except (LookupError, TypeError, ValueError, AttributeError):
        words.append(f"{name}: in a form that this version doesn't know")
    return [harmless(line) for line in words]


def short(value: Optional[str], width: int = WIDTH) -> str:
    """A field's value, which is JSON text, in few characters; None is absent."""
    if value is None:
        return "absent"
    return value if len(value) <= width else value[: width - 1] + "…"
