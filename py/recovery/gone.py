"""Agents of whom an outbox is missed: change log, progress or an archive's index knows them, and nothing is there.

One who was removed on purpose is noted in `data/removed/AGENT.json` (`recovery doctor --removed AGENT`), and is missed
no more until a later change gives that agent an outbox again.
"""

from __future__ import annotations

import os
from functools import partial

from recovery import derived, jsontext, layout, segments, tasks
from recovery.errors import DataError, NotFound, RecoveryError, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, TypeVar

    from recovery.store import FileStore

    _T = TypeVar("_T")

_BEFORE, _BEHIND = b'"name": "postbox/', b'/outbox.json"'
_INDEX = ".index"
#: Bytes at the end of the change log in which a cheap look finds agents.
LATE = 1 << 20


class Known:
    """Who has, or had, an outbox: `logged` by the change log, `listed` in progress (entries, open ones), `indexed`.

    With `last` only so many bytes at the end of the change log are read.  What can't be read is passed over: who looks
    it through tells of it.
    """

    def __init__(self, store: FileStore, last: int = 0) -> None:
        self.store = store
        self.logged: set[str] = set()
        left = last
        for name in reversed(self._trying(self._parts) or []):
            data = self._trying(partial(segments.read, store, name, left)) or b""
            self.logged.update(_named(data))
            left -= len(data)
            if last and (left <= 0 or name.endswith(".gz")):  # one is unpacked, no more
                break
        self.listed = self._trying(self._progress) or {}
        self.indexed = {
            base[: -len(_INDEX)] for base in self._trying(partial(store.list, layout.INDEXES)) or () if _is_index(base)
        }

    def _parts(self) -> list[str]:
        logs = segments.logs(self.store, layout.CHANGES)
        return [part for log in logs for part in (*segments.of(self.store, log), log)]

    def _trying(self, look: Callable[[], Optional[_T]]) -> Optional[_T]:
        try:
            return look()
        except (RecoveryError, OSError):
            return None

    def _progress(self) -> dict[str, tuple[int, int]]:
        version = self.store.read(layout.PROGRESS)
        owners = tasks.Progress(layout.PROGRESS, version).owners() if version is not None else {}
        return {agent: counts for agent, counts in owners.items() if layout.is_id(agent)}

    @property
    def agents(self) -> set[str]:
        return self.logged.union(self.listed, self.indexed)

    def missed(self, only: str = "") -> list[str]:
        """The agents without an outbox who should have one, by name; or that one, if it is."""
        those = [only] if only else sorted(self.agents)
        return [agent for agent in those if self.misses(agent)]

    def _is_there(self, agent: str) -> bool:
        return os.path.lexists(os.path.join(self.store.root.path, layout.outbox(agent)))

    def misses(self, agent: str) -> bool:
        """Whether an agent without an outbox should have one: it was not taken out, and nobody said it was removed.

        One that is being taken out at this moment is not missed.
        """
        return self._misses(agent) and not self._is_in_hand(agent) and self._misses(agent)

    def _is_in_hand(self, agent: str) -> bool:
        """Whether a commit over the agent's outbox has not come to its end."""
        record = self._trying(self.store.unfinished)
        try:
            return record is not None and any(
                file["name"] == layout.outbox(agent) for file in record.body["line"]["files"]
            )
        except (LookupError, TypeError):  # nobody can go on: that is told
            return False

    def _misses(self, agent: str) -> bool:
        if agent not in self.agents or self._is_there(agent):
            return False
        seq = 0
        if agent in self.logged:
            seq, is_out = self._newest(agent)
            if is_out:
                return False
        removed = self._trying(partial(_removed_after, self.store, agent))
        return removed is None or seq > removed

    def _newest(self, agent: str) -> tuple[int, bool]:
        """The number of the last change of an agent's outbox, and whether it took the file out."""
        name = layout.outbox(agent)
        skipped = segments.Skipped()
        for line in derived.newest_first(self.store, jsontext.quote(name), skipped=skipped):
            for file in line["files"]:
                if file["name"] == name:
                    return line["seq"], file.get("after") is None
        return 0, False

    def words(self, agent: str) -> str:
        """What knows the agent."""
        found = [f"its changes in {layout.CHANGES}/"] if agent in self.logged else []
        if agent in self.listed:
            entries, waiting = self.listed[agent]
            found.append(f"{_count(waiting, 'open task') if waiting else _count(entries, 'task')} in {layout.PROGRESS}")
        return ", ".join(found) or f"its archive's index in {layout.INDEXES}/"


def _named(data: bytes) -> set[str]:
    """The agents whose outboxes some lines of the change log name."""
    ends = {piece[: 128 + len(_BEHIND)].partition(_BEHIND) for piece in data.split(_BEFORE)[1:]}
    found = {name.decode("latin-1") for name, behind, _ in ends if behind}
    return {name for name in found if layout.is_id(name)}


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _is_index(base: str) -> bool:
    return base.endswith(_INDEX) and layout.is_id(base[: -len(_INDEX)])


def _removed_after(store: FileStore, agent: str) -> Optional[int]:
    """The number of the last change there was when a person said that an agent is removed; None if nobody did."""
    version = store.read(layout.removed(agent))
    try:
        note = jsontext.loads(jsontext.from_latin(version.text)) if version is not None else None
    except ValueError:
        return None
    seq = note.get("seq") if isinstance(note, dict) else None
    return seq if type(seq) is int else None


def note_removed(store: FileStore, agent: str, dry_run: bool = False) -> bool:
    """Note, durably, that an agent was removed on purpose; False if nobody misses that one (any more).

    With `dry_run` nothing is written.

    DataError (65): the agent's folder is there.  NotFound (66): nothing knows such an agent.  A crash leaves the note
    whole or absent.
    """
    lock = store.commit_lock()
    try:
        if agent in store.list("postbox"):
            raise DataError(f"postbox/{agent} is there. Nothing changed.", hint=f"move postbox/{agent} away first")
        known = Known(store)
        if agent not in known.agents:
            raise NotFound(f"nothing here knows an agent {agent}. Nothing changed.", hint="recovery doctor")
        if not known.misses(agent):
            return False
        if dry_run:
            return True
        note = {"agent_id": agent, "removed_at": store.now(), "seq": derived.last_seq(store)}
        derived.create(store, layout.removed(agent), jsontext.pretty(note) + "\n")
    except OSError as error:
        raise from_os_error(error, f"{layout.removed(agent)} could not be written") from None
    finally:
        lock.release()
    return True
