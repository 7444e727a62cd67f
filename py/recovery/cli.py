"""The command line of what people look with and manage by; Typer, the work verbs do without it.

Here: the app, the options that all verbs share, how an answer and an error are told.  The verbs: `cli_look` (locks,
changes, stats), `cli_checkpoint`, `cli_breaker`, `cli_escalations` (and once), `cli_torture`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from recovery import contention, helper, jsontext, layout, request, say, steps, workspace
from recovery.errors import BUG, IO, RecoveryError, UsageError, from_os_error
from recovery.session import Session, warn_on_stderr
from recovery.store import FileStore

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

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


def task_id(text: str) -> str:
    """The id in TASK or AGENT/TASK; UsageError (64).  What is kept by task belongs to the id, whoever has it."""
    agent, slash, task = text.rpartition("/")
    if slash:
        layout.require_id("agent", agent)
    return layout.require_id("task", task)


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
        text = jsontext.dumps({"ok": not code, "code": code, "changed": changed, **data})
    elif quiet or not lines:
        return code
    else:
        text = "\n".join(contention.harmless(line) for part in lines for line in part.split("\n"))
    try:
        say.write(1, text + "\n")
    except OSError as error:
        done = "; what was done is done" if changed else ""
        tell(f"stdout can't be written: {error.strerror}{done}")
        return code if changed else code or IO
    return code


tell = say.tell


def main() -> NoReturn:
    """Run; errors as the scripts tell them, with the contract's codes."""
    helper.require_streams()
    from recovery import cli_breaker, cli_checkpoint, cli_escalations, cli_look, cli_torture

    cli_look.add_to(app)
    cli_escalations.add_to(app)
    app.command("torture")(cli_torture.torture)
    app.add_typer(cli_checkpoint.app, name="checkpoint")
    app.add_typer(cli_breaker.app, name="breaker")
    warn_on_stderr()
    sys.argv[0] = "recovery"  # what the notes in locks say
    sys.exit(_run())


def _run() -> int:
    try:
        steps.install(os.environ)
        return app(prog_name="recovery", standalone_mode=False) or 0
    except (RecoveryError, OSError) as error:
        refusal = error if isinstance(error, RecoveryError) else from_os_error(error, "failed")
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        wrong_words = getattr(error, "format_message", None)  # click's usage errors, wherever Typer keeps its click
        if wrong_words is None:
            tell(f"this is a bug in Postbox Recovery: {type(error).__name__}: {error}")
            if os.environ.get("RECOVERY_DEBUG") == "1":
                sys.excepthook(type(error), error, error.__traceback__)
            return BUG
        refusal = UsageError(str(wrong_words()), hint="see --help")
    helper.report_error(refusal, "--json" in sys.argv)
    return refusal.code
