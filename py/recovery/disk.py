"""What kind of file system holds a folder, and whether its locks and renames are this kernel's own promise."""

from __future__ import annotations

import os

from recovery.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable

_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "afs", "lustre", "gpfs", "glusterfs")


def file_system(path: str) -> tuple[str, str]:
    """Type and mount options of the file system that holds `path`, from /proc/self/mountinfo; ("", "") unknown."""
    try:
        st = os.stat(path)
        want = f"{os.major(st.st_dev)}:{os.minor(st.st_dev)}"
        real = os.path.realpath(path)
        best: tuple[int, str, str] = (-1, "", "")
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            for line in table:
                left, _, right = line.partition(" - ")
                fields, kind = left.split(), right.split()[0]
                where = fields[4].encode().decode("unicode_escape")
                inside = real == where or real.startswith(where.rstrip("/") + "/")
                if inside and fields[2] == want and len(where) >= best[0]:
                    best = (len(where), kind, fields[5])
        return best[1], best[2]
    except (OSError, IndexError, UnicodeError):
        return "", ""


def is_remote(kind: str) -> bool:
    """Whether locks and renames on such a file system are another machine's or a user program's promise."""
    return kind in _REMOTE or kind.startswith("fuse")


def require_local(path: str, accepted: Iterable[Any]) -> None:
    """69 if `path` is on a network or FUSE mount that the workspace's config doesn't accept by name."""
    kind = file_system(path)[0]
    if is_remote(kind) and kind not in accepted:
        raise Unavailable(
            f"{path} is on {kind}: locks and renames there are not this kernel's, so nothing can be promised",
            hint=f'to use it all the same, put "accept_file_systems": ["{kind}"] into data/config.json',
        )
