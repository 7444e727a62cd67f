"""The command line of what people look with and manage by; Typer, the work verbs do without it.

Here: the options that all of its verbs share, and how an answer is told.  The verbs stand in `cli_look`
(changes, stats), `cli_checkpoint`, `cli_breaker`, `cli_torture`; `cli_main` runs them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from recovery import jsontext, request, say, workspace
from recovery.session import Session
from recovery.store import FileStore

Root = Annotated[str | None, typer.Option("-C", metavar="DIR", help="The workspace.")]
Json = Annotated[bool, typer.Option("--json", help="One object on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
Task = Annotated[str, typer.Argument(metavar="TASK", help="The task; AGENT/TASK is accepted.")]


class Actions(TyperGroup):
    """A verb with actions: `breaker -C DIR show NAME` is `breaker show -C DIR NAME`; `breaker` is `breaker list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options, words = [], list(args)
        while words and words[0].startswith("-"):
            options.append(words.pop(0))
            if options[-1] == "-C" and words:
                options.append(words.pop(0))
        action = words.pop(0) if words else "list"
        return super().parse_args(ctx, [action, *options, *words])


def actions() -> typer.Typer:
    """The app of a verb with actions, one of them `list`."""
    return typer.Typer(cls=Actions, add_completion=False)


# --- the workspace


def find_root(root: str | None) -> str:
    """The workspace that is meant: by -C, or found as the scripts do."""
    return workspace.find(root, os.environ, str(Path(__file__).resolve().parent.parent.parent))


@contextmanager
def opened(root: str | None, verb: str) -> Iterator[FileStore]:
    """The workspace's store; what it has to say to people goes to stderr."""
    store = FileStore(find_root(root), request.limits_from_environment(verb))
    try:
        yield store
    finally:
        for line in store.told:
            tell(line)
        store.close()


def session(root: str | None) -> Session:
    """The workspace for what needs a Session; the same limits."""
    return Session(os.path.abspath(find_root(root)), request.seconds("RECOVERY_LOCK_TIMEOUT", 30.0))


# --- what is said


def answer(
    data: dict[str, Any],
    lines: Sequence[str],
    as_json: bool,
    quiet: bool = False,
    *,
    code: int = 0,
    changed: bool = False,
) -> int:
    """Tell the result, `data` to programs or `lines` to people; returns the exit code."""
    if as_json:
        text = say.harmless_json(jsontext.dumps({"ok": not code, "code": code, "changed": changed, **data}))
    elif quiet or not lines:
        return code
    else:
        text = "\n".join(say.harmless(line) for part in lines for line in part.split("\n"))
    return say.answer(text, code, lines[0] if changed and lines else "")


tell = say.tell
