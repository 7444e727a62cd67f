"""Which strategy an error gets: pure decisions.

By the user's rules first, then by the type of the error (its nearest base class decides), then by its exit code.
"""

from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Callable, Container, Iterable
from enum import StrEnum

from recovery.errors import BY_CODE, RecoveryError, UsageError
from recovery.session import log


class RecoveryStrategy(StrEnum):
    """What is done about a failure."""

    #: Try again, after a pause, as often as allowed.
    RETRY = "RETRY"
    #: Bring the protected files back to what they were before the run, and give up.
    ROLLBACK = "ROLLBACK"
    #: Leave it out: the result is None.
    SKIP = "SKIP"
    #: Park the task until a person removes its flag.
    MANUAL = "MANUAL"
    #: Tell a person, and give up.
    ESCALATE = "ESCALATE"


class TaskState(StrEnum):
    """What a checkpoint says of its task."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    RETRYING = "retrying"
    ROLLED_BACK = "rolled_back"
    SKIPPED = "skipped"


#: What a rule looks for: error types, a predicate, an exit code or some of them.
Match = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] | int | Container[int]
Rule = tuple[Match, RecoveryStrategy | str]

_RETRY, _ROLLBACK, _ESCALATE = RecoveryStrategy.RETRY, RecoveryStrategy.ROLLBACK, RecoveryStrategy.ESCALATE

#: The table for errors that carry no exit code; a type that isn't here gets what its nearest base class has.
BY_TYPE: dict[type[BaseException], RecoveryStrategy] = {
    Exception: _RETRY,
    # transient
    ConnectionError: _RETRY,
    TimeoutError: _RETRY,
    BlockingIOError: _RETRY,
    InterruptedError: _RETRY,
    # corrupt data: the next try would read the same
    json.JSONDecodeError: _ROLLBACK,
    UnicodeDecodeError: _ROLLBACK,
    KeyError: _ROLLBACK,
    # a person's matter
    PermissionError: _ESCALATE,
}

#: What a shell says of a program that it can't run or find.
_NO_PROGRAM = (126, 127)


def exit_code(error: BaseException) -> int | None:
    """The exit code that an error stands for: a refusal's, or that of a command that failed; None if it has none."""
    if isinstance(error, RecoveryError):
        return error.code
    if isinstance(error, subprocess.CalledProcessError):
        return error.returncode
    return None


def asked(error: BaseException, rules: Iterable[Rule]) -> RecoveryStrategy | None:
    """The strategy of the first of the user's rules that matches; a predicate that raises is said and doesn't."""
    for match, strategy in rules:
        if _matches(match, error):
            return RecoveryStrategy(strategy)
    return None


def usual(error: BaseException) -> RecoveryStrategy:
    """The strategy that the tables have for `error`; one that is another run's last word is not tried again."""
    if isinstance(error, RecoveryError) and error.final:
        return _ROLLBACK
    code = exit_code(error)
    if code in BY_CODE:
        return RecoveryStrategy(BY_CODE[code])
    if code in _NO_PROGRAM:
        return _ESCALATE
    if isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.EINTR):
        return _RETRY
    for kind in type(error).__mro__:
        if kind in BY_TYPE:
            return BY_TYPE[kind]
    return _RETRY


def checked(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules, with strategies for their names in any case; UsageError (64) for what is no rule."""
    found: list[Rule] = []
    for rule in rules:
        if not isinstance(rule, (tuple, list)) or len(rule) != 2:
            raise UsageError(f"{rule!r:.60} is no rule: a pair of what to look for and a strategy is")
        match, strategy = rule
        if not isinstance(match, (type, tuple, int, Container)) and not callable(match):
            raise UsageError(f"{match!r:.60} is nothing to look for: give error types, a predicate or exit codes")
        found.append((match, strategy_of(strategy)))
    return tuple(found)


def strategy_of(strategy: RecoveryStrategy | str) -> RecoveryStrategy:
    """A strategy by its name, in any case; UsageError (64)."""
    try:
        return RecoveryStrategy(strategy.upper())
    except (ValueError, AttributeError):
        raise UsageError(f"strategy {strategy!r:.40} is none of {' '.join(RecoveryStrategy)}") from None


def _matches(match: Match, error: BaseException) -> bool:
    if isinstance(match, (type, tuple)) and not _is_codes(match):
        return isinstance(error, match)
    code = exit_code(error)
    if isinstance(match, int):
        return code == match
    if isinstance(match, Container):
        return code is not None and code in match
    try:
        return bool(match(error))
    except Exception as problem:
        log.warning("a rule's predicate raised %r; it is passed over", problem)
        return False


def _is_codes(match: object) -> bool:
    return isinstance(match, tuple) and bool(match) and all(isinstance(one, int) for one in match)
