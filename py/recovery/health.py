"""health_check.sh: is this workspace all right?  For cron and monitoring systems; reads only.

Levels and exit codes are those of monitoring plugins: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.  Each check looks at one
thing and answers with a level and a sentence; the worst level is the exit code.
"""

from __future__ import annotations

import os

from recovery import certificate, contention, layout
from recovery.errors import RecoveryError, UsageError, from_os_error
from recovery.request import Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Sequence

    from recovery.store import FileStore

    Finding = tuple[int, str]

OK, WARNING, CRITICAL, UNKNOWN = range(4)
LEVELS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


def _certificate(store: FileStore) -> Finding:
    """Whether the torture was run on this disk, with this version, and found nothing."""
    found = None
    doubts = certificate.doubts(store)
    if not doubts:
        found = certificate.read(store)
        assert found is not None
        return OK, f"{found.get('trials')} trials on {found['file_system']['type']}, no violations"
    level = CRITICAL if any("violation" in doubt for doubt in doubts) else WARNING
    return level, "; ".join(doubts) + ": run `recovery torture`"


def _journal(store: FileStore) -> Finding:
    """Whether a commit was left half done; whoever comes next finishes it."""
    record = store.unfinished()
    if record is None:
        return OK, "nothing half done"
    line = record.body["line"]
    what = f"{line['op']} {line['agent']}/{line['task']} of {line['time']}"
    if _is_locked(store):
        return OK, f"{what} is under way"
    return WARNING, f"{what} was left half done by pid {line['by']['pid']}: run `recovery recover`"


def _is_locked(store: FileStore) -> bool:
    """Whether somebody commits at this moment."""
    try:
        fd = os.open(layout.COMMIT_LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=store.root.folder("data"))
    except FileNotFoundError:
        return False
    try:
        return contention.is_held(fd)
    finally:
        os.close(fd)


def _conflicts(store: FileStore) -> Finding:
    """Whether commits wait that could be neither finished nor undone."""
    parked = [name for name in store.list(layout.CONFLICTS) if name.endswith(".parked.json")]
    if parked:
        return CRITICAL, f"{len(parked)} commit(s) could be neither finished nor undone: run `recovery recover`"
    return OK, "none parked"


CHECKS: dict[str, Callable[[FileStore], Finding]] = {
    "certificate": _certificate,
    "journal": _journal,
    "conflicts": _conflicts,
}


def health(store: FileStore, names: Sequence[str]) -> Result:
    """Run the checks `names`, all without any.  UsageError (64) for a check that there isn't."""
    for name in names:
        if name not in CHECKS:
            raise UsageError(f"there is no check {name[:40]!a}", hint="the checks: " + " ".join(CHECKS))
    findings = {name: _looked(CHECKS[name], store) for name in names or CHECKS}
    worst = max((level for level, _ in findings.values()), key=(OK, WARNING, UNKNOWN, CRITICAL).index)
    bad = [f"{name}: {text}" for name, (level, text) in findings.items() if level]
    line = f"RECOVERY {LEVELS[worst]} - {'; '.join(bad) or f'{len(findings)} checks'}"
    checks = {name: {"level": LEVELS[level], "text": text} for name, (level, text) in findings.items()}
    data = {"ok": not worst, "code": worst, "level": LEVELS[worst], "checks": checks}
    return Result(line, False, data, [f"{LEVELS[level]:<9} {name}: {text}" for name, (level, text) in findings.items()])


def _looked(check: Callable[[FileStore], Finding], store: FileStore) -> Finding:
    try:
        return check(store)
    except (RecoveryError, OSError) as error:
        refusal = error if isinstance(error, RecoveryError) else from_os_error(error, "could not look")
        return UNKNOWN, str(refusal)


VERB = Verb(
    {}, lambda request: [request.words], lambda store, request, call: health(store, *call), tries=False, reads=True
)
