"""note: add a few words to a task, with time and who."""

from __future__ import annotations

import os

from recovery import claims, moves, owners, request, tasks
from recovery.errors import DataError, UsageError
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.store import FileStore

#: Notes that a task may have: an outbox is read as a whole each time.
MOST = 1000


def note(store: FileStore, agent: str, task: str, text: str, dry_run: bool = False, generation: int = 0) -> Result:
    """Append `{"time", "by", "text"}` to the task's list `notes`; a text that stands there becomes its first element.

    Anybody may, whoever has the task; a lease of the caller's begins anew.  The words of the last note, said again by
    the same, are not added twice.  `generation` as for `recovery.complete.complete`: NotYours (76) for a claim that is
    over.  DataError (65): `notes` is something else, or 1,000 long; what `recovery.moves.move` raises.
    """

    def decide(one: moves.Task) -> moves.Step:
        known = generation or claims.named_generation(agent, task)
        held = one.claim is not None and claims.is_held(one.claim)
        mine = known or (held and one.claim is not None and owners.is_caller(one.claim))
        fields, words = claims.touched(bool(mine) and claims.require(store, agent, task, one.claim, known), one.claim)
        notes = one.value("notes")
        notes = [notes] if isinstance(notes, str) and notes else notes or []
        if not isinstance(notes, list):
            raise DataError(f"{agent}/{task}: its `notes` is not a list. Nothing changed.")
        by = owners.caller(os.environ)[1] or f"uid {os.getuid()}"
        last = notes[-1] if notes else None
        if isinstance(last, dict) and (last.get("by"), last.get("text")) == (by, text) and not fields:
            raise moves.Stay(f"already noted on {agent}/{task} at {last.get('time')}", one.status)
        if len(notes) >= MOST:
            raise DataError(f"{agent}/{task} has {len(notes)} notes: there is no room for more. Nothing changed.")
        new = {"time": store.now(), "by": by, "text": text}
        return moves.Step("", {"notes": [*notes, new], **fields}, f": {tasks.quoted(text)}{words}")

    return moves.move(store, agent, task, "note", "noted on", decide, dry_run)


def _parse(asked: Request) -> list[Any]:
    agent, task, rest = asked.agent_and_task(1)
    if not rest or not rest[0].strip():
        raise UsageError('AGENT TASK "words" are needed', hint="see --help")
    return [agent, task, request.text(rest[0])]


VERB = Verb(
    {"--dry-run": "dry_run"},
    _parse,
    lambda store, asked, call: note(store, call[0], call[1], call[2], asked.asked("dry_run")),
    of_task=True,
    text=True,
)
