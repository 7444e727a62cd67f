"""The verbs that need typer, put together and run: `recovery stats`, `breaker` …

What they share is in `recovery.cli`.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from recovery import cli_breaker, cli_checkpoint, cli_look, cli_torture, helper, request, say, steps
from recovery.errors import BUG, RecoveryError, UsageError, from_os_error
from recovery.session import warn_on_stderr

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def main() -> NoReturn:
    """Run; errors as the scripts tell them, with the contract's codes."""
    helper.require_streams()
    cli_look.add_to(app)
    app.command("torture")(cli_torture.torture)
    app.add_typer(cli_checkpoint.app, name="checkpoint")
    app.add_typer(cli_breaker.app, name="breaker")
    warn_on_stderr()
    sys.argv[0] = "recovery"  # what the notes in locks say
    sys.exit(_run())


def _run() -> int:
    try:
        steps.install(os.environ)
        for name, value in zip(sys.argv, sys.argv[1:], strict=False):
            option, equals, own = value.partition("=")
            if not value or (equals and option.startswith("--")):
                request.require_value(option or (name if name.startswith("-") else "a word"), own)
        return app(prog_name="recovery", standalone_mode=False) or 0
    except (RecoveryError, OSError) as error:
        refusal = error if isinstance(error, RecoveryError) else from_os_error(error, "failed")
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        wrong_words = getattr(error, "format_message", None)  # click's usage errors, wherever Typer keeps its click
        if wrong_words is None:
            say.tell(f"this is a bug in Postbox Recovery: {type(error).__name__}: {error}")
            if os.environ.get("RECOVERY_DEBUG") == "1":
                sys.excepthook(type(error), error, error.__traceback__)
            return BUG
        refusal = UsageError(str(wrong_words()), hint="see --help")
    helper.report_error(refusal, "--json" in sys.argv)
    return refusal.code
