"""Numbers for Prometheus: its text format, in a file for node_exporter's textfile collector.

The names follow https://prometheus.io/docs/practices/naming/: a prefix, base units (seconds, bytes, ratios), no
`_total` for what may go down.  Every sample names its workspace, so that the files of several can lie in one folder.
"""

from __future__ import annotations

import errno
import os
from fcntl import LOCK_EX, flock
from stat import S_ISREG

from recovery import durable, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Mapping

PREFIX = "postbox_recovery_"


class Gauge:
    """A metric and its samples: labels (beside the workspace) and value."""

    __slots__ = ("help", "name", "samples")

    def __init__(self, name: str, help: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> None:
        self.name, self.help, self.samples = PREFIX + name, help, list(samples)


def text_of(gauges: Iterable[Gauge], workspace: str) -> str:
    """The text format, version 0.0.4."""
    lines = []
    for gauge in gauges:
        lines += [f"# HELP {gauge.name} {gauge.help}", f"# TYPE {gauge.name} gauge"]
        for labels, value in gauge.samples:
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"workspace": workspace, **labels}.items())
            lines.append(f"{gauge.name}{{{inside}}} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    text = os.fsencode(text).decode("utf-8", "replace")
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def write(path: str, text: str) -> None:
    """Put it in the place of the file `path`, readable for everybody, in one rename; OSError.

    What is there and is no ordinary file (a device, a link) is not replaced.  The collector reads *.prom only, so that
    it never sees the file beside it, which a crash may leave and the next run writes over.  Not synced: a number of
    before a power cut is of no use to anybody.
    """
    folder, base = os.path.split(os.path.abspath(path))
    try:
        if not S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file, and stays as it is")
    except FileNotFoundError:
        pass
    beside = os.path.join(folder, f".{base}.new")
    while True:  # two may run at once: whoever has the lock of the file that stands there writes it
        fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            flock(fd, LOCK_EX)
            if not _is(fd, beside):
                continue
            os.ftruncate(fd, 0)
            durable.write_all(fd, text.encode("utf-8"))
            os.fchmod(fd, 0o644)
            steps.at("prometheus", path)
            os.rename(beside, path)
            return
        finally:
            os.close(fd)


def _is(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
