"""Completing a task that has checks: what it needs, whether it has that, and the receipt of it."""

from __future__ import annotations

import os

from recovery import chain, checkfile, checks, jsontext, layout, trust
from recovery.errors import RecoveryError
from recovery.request import FirstThis

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Sequence

    from recovery.commit import Change
    from recovery.durable import Version
    from recovery.store import FileStore
    from recovery.trust import Demand

    Results = list[dict[str, Any]]


def demand(store: FileStore, agent: str, task: str, text: str, span: Optional[tuple[int, int]]) -> Optional[Demand]:
    """What the task needs by its own `checks`, the `span` of `text`, and by its agent; see `trust.demanded`."""
    return trust.demanded(store, os.environ, agent, _named(agent, task, text, span))


def _named(agent: str, task: str, text: str, span: Optional[tuple[int, int]]) -> list[str]:
    entry = None if span is None else jsontext.loads(jsontext.from_latin(text[span[0] : span[1]]))
    return checkfile.named_in(entry, f"{layout.outbox(agent)}, {task}")


def results_of(agent: str, task: str, needs: Demand, brought: Optional[Results], record: Optional[Version]) -> Results:
    """The results that were brought, if they are those of the checks as they are approved now; else FirstThis.

    `record` is the completion record that is there now.
    """
    known = {one["check"]: one for one in brought or ()}
    if all(name in known and known[name]["sha256"] == needs.checks.checks[name].sha256 for name in needs.names):
        return [known[name] for name in needs.names]
    seen = record.hash if record is not None else None
    raise FirstThis(lambda store: checks.run_all(store, agent, task, needs, seen))


def receipt(
    store: FileStore, change: Change, record: dict[str, Any], needs: Demand, results: Results, like: Optional[Version]
) -> dict[str, Any]:
    """The receipt of a completion, put into its change; the record is still without it."""
    content = chain.content(record, results, needs.checks.sha256)
    return chain.add(store, change, "completed", like, **content)


def missing(store: FileStore, agent: str, task: str, text: str, span: Optional[tuple[int, int]]) -> list[str]:
    """The checks of a completed task that no receipt says were passed: with any, it is only claimed to be done."""
    try:
        return Claims(store, agent).missing(task, _named(agent, task, text, span))
    except RecoveryError:
        return []


class Claims:
    """Which of an agent's completed tasks are only claimed to be done, as far as their checks are known."""

    def __init__(self, store: FileStore, agent: str) -> None:
        approved = trust.needed(store, os.environ)
        self.required = approved.required_of(agent) if approved is not None else []
        self.standing = chain.standing(chain.lines(store, agent)[0])

    def missing(self, task: str, named: Sequence[str]) -> list[str]:
        """The checks that a task needs by its own `checks` (`named`) and by its agent, without those it has passed."""
        passed = chain.passed(self.standing.get(task))
        return [name for name in checkfile.together(named, self.required) if name not in passed]
