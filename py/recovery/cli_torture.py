"""`recovery torture`: prove on the very disk that nothing is lost.

The command that reproduces a violation runs that one trial with the same seed.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recovery import __version__, certificate
from recovery.cli import DryRun, Json, Quiet, Root, answer, find_root, opened, tell
from recovery.errors import FAILED, NotFound, RecoveryError, UsageError
from recovery.status import plain

if TYPE_CHECKING:
    from recovery.torture.runner import Outcome, Tally
    from recovery.torture.stopping import Check

QUICK = 20.0
INTERRUPTED = 130


def torture(
    minutes: Annotated[float, typer.Option("--minutes", metavar="N", help="How long (2).")] = 2.0,
    folder: Annotated[str | None, typer.Option("--dir", metavar="PATH", help="Where; else the workspace.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Try the same places again.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="20 seconds.")] = False,
    trial: Annotated[str, typer.Option("--trial", metavar="KIND:N", help="This one trial.")] = "",
    root: Root = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> int:
    """Try, on the disk that holds the data, whether anything can be lost."""
    if not 0 < minutes <= 24 * 60:
        raise UsageError(f"--minutes={minutes:g} is not from 0 to {24 * 60}", hint="see --help")
    workspace = _workspace(root, needed=folder is None)
    where = os.path.abspath(folder if folder is not None else _beside(str(workspace)))
    seconds = QUICK if quick else minutes * 60
    disk = certificate.file_system(where) if os.path.isdir(where) else {"type": "", "options": "", "id": ""}
    if dry_run:
        line = f"would try {where} ({disk['type']}) for {seconds:g} s; nothing changed"
        return answer({"dry_run": True, "dir": where, "file_system": disk}, [line], as_json, quiet)
    from recovery.torture import runner
    from recovery.torture.stopping import stopped_by_signals

    began = time.time()
    try:
        with stopped_by_signals() as check, runner.scratch(where) as scratch:
            with _progress(seconds, as_json or quiet or bool(trial), check) as show:
                outcome = runner.torture(scratch, seconds, seed, only=trial, tell=show)
            if outcome.violations:
                (scratch / "keep").touch()
    except KeyboardInterrupt:
        tell(f"stopped; the scratch folder in {where} is removed, nothing was touched, and there is no new certificate")
        return INTERRUPTED
    found = _certificate(outcome, disk, began, quick, where)
    if workspace is not None and not trial:
        _keep(workspace, found)
    for name, why in sorted(outcome.skipped.items()):
        tell(f"NOT TRIED: {name}: {why}")
    for violation in outcome.violations:
        _tell_violation(violation, outcome, where)
    return answer(found, _lines(found, outcome), as_json, quiet, code=FAILED if outcome.violations else 0)


def _workspace(root: str | None, needed: bool) -> str | None:
    try:
        return os.path.abspath(find_root(root))
    except NotFound:
        if needed or root is not None:
            raise
        return None


def _beside(workspace: str) -> str:
    """The folder of the workspace that is the suite's own; the workspace itself while there is none."""
    data = os.path.join(workspace, "data")
    return data if os.path.isdir(data) else workspace


@contextmanager
def _progress(seconds: float, silent: bool, check: Check) -> Iterator[Callable[[Outcome], None]]:
    """A bar on a terminal's stderr; yields the function that moves it, after `check`."""
    if silent or not sys.stderr.isatty():
        yield lambda outcome: check()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("torture"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("preparing", total=seconds)

        def show(outcome: Outcome) -> None:
            check()
            text = f"{outcome.trials} trials, {len(outcome.violations)} violations"
            bar.update(task, completed=time.monotonic() - began, description=text)

        yield show


def _certificate(outcome: Outcome, disk: dict[str, str], began: float, quick: bool, where: str) -> dict[str, Any]:
    system = os.uname()
    return {
        "version": __version__,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(outcome.prepared + outcome.seconds, 1),
        "seed": outcome.seed,
        "quick": quick,
        "dir": where,
        "file_system": disk,
        "kernel": f"{system.sysname} {system.release} {system.machine}",
        "python": sys.version.split()[0],
        "uid": os.geteuid(),
        "workers": outcome.workers,
        "trials": outcome.trials,
        "violations": len(outcome.violations),
        "kill_trials_a_second": round(outcome.kill_rate, 1),
        "kinds": {name: tally.as_dict() for name, tally in outcome.kinds.items()},
        "skipped": dict(sorted(outcome.skipped.items())),
        "violated": [{key: one[key] for key in ("kind", "number", "doing")} for one in outcome.violations],
    }


def _keep(workspace: str, found: dict[str, Any]) -> None:
    """Write the certificate, unless it is of another disk than the workspace's: one that fits is not overwritten."""
    if found["file_system"]["id"] != certificate.file_system(workspace)["id"]:
        tell(f"{found['dir']} is not on the disk of the workspace, whose certificate is left as it is")
        return
    try:
        with opened(workspace, "torture") as store:
            certificate.write(store, found)
    except (RecoveryError, OSError) as error:
        tell(f"the certificate could not be written: {error}")


def _tell_violation(violation: dict[str, Any], outcome: Outcome, where: str) -> None:
    tell(f"VIOLATION: {violation['doing']}: {plain(violation['text'][:1000])}")
    name = f"{violation['kind']}:{violation['number']}"
    words = ["recovery", "torture", "--dir", where, "--seed", str(outcome.seed), "--trial", name]
    tell(f"  again: {shlex.join(words)}")
    tell(f"  its workspace is kept below {outcome.folder}")


def _lines(found: dict[str, Any], outcome: Outcome) -> list[str]:
    families: dict[str, list[Tally]] = {}
    for tally in outcome.kinds.values():
        families.setdefault(tally.family, []).append(tally)
    lines = []
    for family, tallies in families.items():
        more = [f"{one.met} of {one.places} places" for one in tallies if one.places]
        more += [f"{value} {word}" for one in tallies for word, value in one.counted.items()]
        more += [f"of {len(tallies)} kinds"] if len(tallies) > 1 else []
        trials, violations = (sum(getattr(one, what) for one in tallies) for what in ("trials", "violations"))
        lines.append(f"{family:<14}{trials:>7} trials  {violations} violations  {', '.join(more)}".rstrip())
    disk = found["file_system"]
    lines.append(
        f"{found['trials']} trials on {disk['type']} ({disk['options']}) in {found['seconds']:g} s, "
        f"seed {found['seed']}, {found['kill_trials_a_second']:g} kills a second, {len(outcome.skipped)} kinds not "
        f"tried: {found['violations']} violations"
    )
    return lines
