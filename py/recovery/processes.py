"""Looking at other processes, in /proc: whose children they are, whether a group still lives, what they are called.

See proc(5).  Whatever can't be seen (`hidepid`, no /proc at all) is never taken for gone.
"""

from __future__ import annotations

import os

from recovery import say
from recovery.flock import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


class Process:
    """One process, at one moment: `state` is proc(5)'s letter, `start` clock ticks since boot."""

    __slots__ = ("group", "name", "parent", "pid", "start", "state")

    def __init__(self, pid: int, name: str, fields: list[str]) -> None:
        self.pid, self.name = pid, name
        self.state, self.parent, self.group, self.start = fields[0], int(fields[1]), int(fields[2]), fields[19]

    def words(self) -> list[str]:
        return text_of(f"/proc/{self.pid}/cmdline").rstrip("\0").split("\0")


def look(pid: int) -> Optional[Process]:
    """The process with this number; None if there is none, or it can't be seen."""
    head, _, tail = text_of(f"/proc/{pid}/stat").rpartition(")")
    fields = tail.split()
    return Process(pid, head.partition("(")[2], fields) if len(fields) > 19 else None


def ancestors(pid: int) -> list[Process]:
    """The parents of a process, the nearest first, as far up as can be seen."""
    found: list[Process] = []
    process = look(pid)
    while process is not None and process.parent > 0 and len(found) < 1000:
        process = look(process.parent)
        if process is not None:
            found.append(process)
    return found


def is_gone(pid: int, start: str) -> bool:
    """Whether the process that had this number, and began at `start`, has ended; EPERM means that it lives."""
    process = look(pid)
    if process is not None:
        return process.state in "ZX" or bool(start and process.start != start)
    try:
        os.kill(pid, 0)
        return False
    except ProcessLookupError:
        return True
    except OSError:
        return False


def group_is_gone(group: int, start: str) -> bool:
    """Whether nobody of a process group lives any more, whose leader began at `start`.

    The kernel gives no number away again as long as a group has it: a leader with another beginning is a stranger.
    """
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    leader = look(group)
    if leader is not None and start and leader.start != start:
        return True
    members = group_members(group)
    return bool(members) and all(member.state in "ZX" for member in members)


def group_members(group: int) -> list[Process]:
    """Everybody in a process group who can be seen, zombies too."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    found = (look(pid) for pid in pids)
    return [process for process in found if process is not None and process.group == group]


def others_in(group: int) -> bool:
    """Whether a process group has living members beside its leader (True where /proc doesn't say)."""
    if any(member.pid != group and member.state not in "ZX" for member in group_members(group)):
        return True
    return not os.path.exists("/proc/self/stat")


def has_open(pid: int, want: os.stat_result, locked: bool = False) -> bool:
    """Whether a process has that file open, and with `locked` whether its descriptor shows a flock(2) lock."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in names:
        try:
            found = os.stat(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if (found.st_ino, found.st_dev) == (want.st_ino, want.st_dev):
            if not locked or "FLOCK" in text_of(f"/proc/{pid}/fdinfo/{name}"):
                return True
    return False


def with_open(want: os.stat_result) -> list[tuple[int, str]]:
    """The processes that have a file open, as far as they can be seen: their numbers, and words for each."""
    try:
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    except OSError:
        return []
    return [(pid, words_for(pid)) for pid in pids if has_open(pid, want)]


def words_for(pid: int) -> str:
    """A process in one of our lines: its number and what it runs."""
    process = look(pid)
    words = " ".join(process.words()).strip()[:80] if process is not None else ""
    shown = say.harmless(words or (process.name if process else ""))
    return f"pid {pid}" + (f", {shown}" if shown else "")
