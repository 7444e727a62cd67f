"""Where processes meet: barriers made of files, foreign writers, locks held from outside."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from support.workspace import Workspace

#: Seconds after which what should come is taken to be broken; a loaded disk takes its time.
PATIENCE = 90.0


def until(true: Callable[[], bool], what: str) -> None:
    """Look until it is so; an AssertionError after PATIENCE, so that a broken suite can't hang the tests."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"{what}: still not so after {PATIENCE:g} s"
        time.sleep(0.001)


class Gate:
    """A barrier at a step of a command: `fault` makes it wait there, `reached` waits for it, `open` lets it go."""

    def __init__(self, space: Workspace, name: str) -> None:
        self.path = space.root.with_name(f"{space.root.name}.gate-{name}")

    def fault(self, step: str) -> str:
        return f"{step}=wait={self.path}"

    def reached(self, process: subprocess.Popen[str]) -> None:
        arrived = Path(f"{self.path}.reached")
        until(lambda: arrived.exists() or process.poll() is not None, f"{self.path.name} reached")
        assert arrived.exists(), f"the command ended before its gate: {process.communicate()}"

    def open(self) -> None:
        self.path.touch()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process holds a lock file by flock(1): somebody who is no ancestor of the commands that wait for it."""
    script = "echo held; read -r _"
    holder = subprocess.Popen(
        ["flock", str(path), "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.communicate("let go\n")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file in this very process, as flock(1) would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def write_whole(path: Path, body: Any) -> None:
    """Another program's correct write: its own layout, a private file, one rename."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.foreign")
    temporary.write_text(json.dumps(body))
    temporary.replace(path)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """A correct foreign edit: under the data lock, renamed into place, laid out in its own way."""
    with locked(path.with_name(f".{path.name}.lock")):
        body = json.loads(path.read_bytes())
        change(body)
        write_whole(path, body)


def children() -> set[str]:
    """This process's children, those that have ended and were not waited for among them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(stat.parent.name)
    return found
