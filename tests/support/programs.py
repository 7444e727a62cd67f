"""Python programs that use the suite, run as processes of their own, killed at a step where a test asks for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.workspace import SUITE, Done, finish

_BEGIN = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
from recovery import steps
steps.install(os.environ)
"""


def start(root: Path, code: str, *args: object, fault: str = "", **more: str) -> subprocess.Popen[str]:
    """Run `code` with `root` as its current folder; it finds `args` in sys.argv[1:]."""
    environment = {"PATH": os.environ["PATH"], "ORCHESTRATION_ROOT": str(root), **more}
    if fault:
        environment["RECOVERY_FAULT"] = fault
    return subprocess.Popen(
        [sys.executable, "-c", _BEGIN + code, str(SUITE / "py"), *map(str, args)],
        cwd=root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def run(root: Path, code: str, *args: object, fault: str = "", **more: str) -> Done:
    """`start`, and wait for its end."""
    return finish(start(root, code, *args, fault=fault, **more))


def steps_of(root: Path, code: str, *args: object) -> list[str]:
    """The steps that a program meets when nothing happens to it, as STEP:N."""
    listing = root.with_name(root.name + ".steps")
    listing.unlink(missing_ok=True)
    done = run(root, code, *args, fault=f"*=list={listing}")
    assert done.code == 0, done
    return listing.read_text().split()


def killed(done: Done) -> bool:
    return done.code == -signal.SIGKILL


def strays(root: Path, allowed: Sequence[str] = ()) -> list[str]:
    """Files that a crash left and that nobody will ever remove."""
    found = [str(path.relative_to(root)) for path in root.rglob("*") if path.name.endswith((".stage", ".prepared"))]
    return [name for name in found if name not in allowed]
