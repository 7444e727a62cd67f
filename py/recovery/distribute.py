"""distribute: share a backlog out over the agents, all of it or nothing (see `recovery.place`)."""

from __future__ import annotations

from recovery import backlog, place, sources
from recovery.backlog import Backlog
from recovery.errors import UsageError
from recovery.request import Request, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read(path: str) -> Backlog:
    """The backlog in a file; DataError (65) and what `recovery.sources` raises."""
    source = sources.read(path)
    items = backlog.read(source)
    backlog.check(source, items)
    return Backlog(source, items, backlog.prefix_of("stdin" if path == "-" else path) or "backlog")


def _parse(request: Request) -> list[Any]:
    if len(request.words) != 1:
        raise UsageError("one BACKLOG.json is needed, or - for stdin", hint="see --help")
    return [place.Terms.asked(request), read(request.words[0])]


VERB = Verb(place.OPTIONS, _parse, lambda store, request, call: place.place(store, call[1], call[0]))
