"""top: who needs a person, who has what, what waits, what failed, on one screen, in one line, or live.  Only reads."""

from __future__ import annotations

import os
import sys

from recovery import overview, say, screen
from recovery.errors import UsageError
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

    from recovery.store import FileStore


def line(store: FileStore) -> Result:
    """The line for a status bar: it looks at the outboxes and at what waits for a person, and at no log."""
    sight = overview.Sight(store)
    sight.work()
    claims = [claim for row in sight.rows for claim in row["claims"]]
    needs = sight.needs()
    silent = sum(bool(claim["silent_since"]) for claim in claims)
    working = len(claims) + sum(len(row["in_progress"]) for row in sight.rows)
    text = screen.one_line(needs, working, silent, sight.ready, sight.blocked, len(sight.unread))
    return Result(text, False, {"ok": True, "code": 0})


def once(store: FileStore, environ: Mapping[str, str], full: bool = False) -> Result:
    """One screen; on a terminal in colour, unless NO_COLOR asks for none or the terminal is a dumb one.

    Of `screen.size`, the prompt's line left free; with `full` as long as it takes.
    """
    width, height = screen.size(environ)
    found = overview.look(store)
    footer = f"{found['root']}  {found['time']}"
    lines = screen.frame(found, width, 0 if full else height - 1, footer, not screen.is_utf8(environ))
    if not is_colourful(environ):
        texts = [screen.plain(one) for one in lines]
        return Result(texts[0], False, {"ok": True, "code": 0}, texts[1:])
    text = "\n".join(map(screen.coloured, lines))
    code = say.answer(text, 0)  # here: what goes through the report has its codes shown, not sent
    return Result("", False, {"ok": not code, "code": code})


def is_colourful(environ: Mapping[str, str]) -> bool:
    """Whether stdout is a terminal that colours are wanted on."""
    return os.isatty(1) and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb"


def live(store: FileStore, environ: Mapping[str, str]) -> Result:
    """The screen, again with every change, until somebody leaves it.

    Where the package rich isn't there, or the terminal can't do it, it is shown once.
    """
    if not os.isatty(1) or environ.get("TERM", "dumb") == "dumb":
        return once(store, environ)
    try:
        from recovery import livescreen
    except ImportError:
        result = once(store, environ)
        say.tell("this was one look: the live view needs the package rich, which this Python lacks")
        say.tell(f"  next: {sys.executable} -m pip install rich; or `watch -n 2 recovery top`")
        return result
    code = livescreen.show(store.root.path, store.limits, environ)
    return Result("", False, {"ok": True, "code": code})


def _parse(request: Request) -> list[Any]:
    request.no_words()
    asked = [name for name in ("line", "once") if request.asked(name)]
    if len(asked) == 2:
        raise UsageError("--line and --once are two things", hint="see --help")
    return [asked[0] if asked else "once" if request.asked("full") else ""]


def _call(store: FileStore, request: Request, call: list[str]) -> Result:
    if request.asked("json"):
        return Result("", False, {"ok": True, "code": 0, "changed": False, **overview.look(store)})
    if call[0] == "line":
        return line(store)
    if call[0] == "once" or request.asked("quiet"):
        return once(store, os.environ, request.asked("full"))
    return live(store, os.environ)


VERB = Verb({"--line": "line", "--once": "once", "--full": "full"}, _parse, _call, tries=False, reads=True, indent="")
