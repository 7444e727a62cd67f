"""Exit codes and the errors that carry them.

One table for the whole suite; `lib/exit_codes.sh` is the shell's copy and a test holds the two equal.
Numbers follow BSD sysexits(3) where one fits.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

OK = 0
FAILED = 1
USAGE = 64
DATA = 65
NOT_FOUND = 66
UNAVAILABLE = 69
BUG = 70
UNCONFIRMED = 71
IO = 74
BUSY = 75
NOT_YOURS = 76
DENIED = 77

#: The strategy for each code, where no rule of the user's says otherwise; RETRY for codes that aren't here.
BY_CODE = {
    USAGE: "ESCALATE",
    DATA: "ROLLBACK",
    NOT_FOUND: "ESCALATE",
    UNAVAILABLE: "ESCALATE",
    BUG: "ESCALATE",
    UNCONFIRMED: "RETRY",
    IO: "RETRY",
    BUSY: "RETRY",
    NOT_YOURS: "SKIP",
    DENIED: "ESCALATE",
}

#: Codes after which the same command may simply be run again; the scripts do so themselves.
TRY_AGAIN = tuple(code for code, strategy in BY_CODE.items() if strategy == "RETRY")


class RecoveryError(Exception):
    """A refusal with an exit code: what happened (`str(e)`), and what to run next (`hint`).

    `code` is one of the numbers above.  Unless the code is 71, nothing was changed.
    """

    code = FAILED
    final = False  # whether all that could be done about it has been done already
    logged = False  # whether it goes to the recovery log whatever its code is
    outcome = "failed"  # what that log calls it, where nothing came after it
    more: Mapping[str, Any] = {}  # what --json says besides

    def __init__(self, message: str, *, hint: str = "", code: int = 0) -> None:
        super().__init__(message)
        self.hint = hint
        if code:
            self.code = code

    def __reduce__(self) -> Any:  # subclasses take other arguments than their message
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[RecoveryError], args: tuple[Any, ...], state: dict[str, Any]) -> RecoveryError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(RecoveryError):
    """64: a bad option or id; no file was touched."""

    code = USAGE


class DataError(RecoveryError):
    """65: a file is damaged, or somebody else's change is in the way; its bytes are untouched."""

    code = DATA


class NotFound(RecoveryError):
    """66: no such workspace, agent or task."""

    code = NOT_FOUND


class Unavailable(RecoveryError):
    """69: the file system or a missing tool cannot do what is needed."""

    code = UNAVAILABLE


class RollbackFailed(RecoveryError):
    """70: a change could be neither finished nor undone; the record is kept in data/conflicts."""

    code = BUG


class Unconfirmed(RecoveryError):
    """71: the outcome is not known here; the same command again finishes it or finds it done."""

    code = UNCONFIRMED


class StorageError(RecoveryError):
    """74: an I/O error or a full disk; the previous state stands."""

    code = IO


class Busy(RecoveryError):
    """75: somebody else holds a lock or won a race; nothing was changed."""

    code = BUSY


class AncestorHolds(Busy):
    """75: the lock is held by a process that waits for this one; trying again can't help."""


class Taken(Busy):
    """75: somebody else has the task, or nothing is free: another is to be taken.  Not tried again, not logged."""


class LockTimeout(Busy, TimeoutError):
    """75: a lock was not free within its timeout; `waited` is how many seconds that took."""

    waited = 0.0


class NotYours(RecoveryError):
    """76: somebody else's claim, or one of one's own that is over; never tried again."""

    code = NOT_YOURS


class Denied(RecoveryError):
    """77: no permission."""

    code = DENIED


def of_verb(error: OSError, verb: str) -> RecoveryError:
    """The same as `from_os_error` for one that nobody has put into words: the file it is about stands in it."""
    name = error.filename
    return from_os_error(error, f"{verb}: {name}" if isinstance(name, str) and name else verb)


def from_os_error(error: OSError, what: str) -> RecoveryError:
    """The refusal for an OSError met before the commit point: 77 for permissions, 74 for the rest."""
    message = f"{what}: {error.strerror or error}"
    if isinstance(error, PermissionError):
        return Denied(message, hint="check the owner and mode of the file and its folder")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return StorageError(message, hint="make room on the disk, then run the same command again" if full else "")
