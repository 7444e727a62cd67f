"""Where the workspace is, and how one is made."""

from __future__ import annotations

import errno
import os
from stat import S_ISDIR

from recovery import layout
from recovery.durable import digest_of
from recovery.errors import Denied, NotFound, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping, Optional, Union

    Path = Union[str, os.PathLike[str]]

NESTED = ".orchestration"


def find(asked: Optional[str], environ: Mapping[str, str], suite: str) -> str:
    """The root, by `-C`, ORCHESTRATION_ROOT, upwards from here, the git repository's main worktree, the suite's folder.

    NotFound (66) if there is none, or if the one named isn't one.
    """
    for named, how in ((asked, "-C"), (environ.get("ORCHESTRATION_ROOT"), "ORCHESTRATION_ROOT")):
        if named:
            root = root_at(named)
            if root is None:
                _require_access(named)
                raise NotFound(
                    f"{how} names {named}, which holds no postbox/",
                    hint=f"check the path, or make a workspace there: recovery init {named}",
                )
            return root
    here = _here()
    for folder in _upwards(here):
        root = root_at(folder)
        if root is not None:
            return root
    for candidate in (main_worktree(here), suite):
        root = root_at(candidate) if candidate else None
        if root is not None:
            return root
    raise NotFound("there is no workspace here (no postbox/ upwards from this folder)", hint="run `recovery init`")


def _require_access(folder: str) -> None:
    try:
        os.stat(os.path.join(folder, "postbox"))
    except PermissionError:
        raise Denied(f"{folder}: no permission to look into it") from None
    except OSError:
        pass


def root_at(folder: str) -> Optional[str]:
    """The folder itself if it holds `postbox/`, else its `.orchestration/` if that does, else None."""
    for root in (folder, os.path.join(folder, NESTED)):
        if _is_folder(os.path.join(root, "postbox")):
            return root
    return None


def _is_folder(path: str) -> bool:
    """Whether a folder is there, as far as may be seen; a disk that can't tell is StorageError (74), and no "no"."""
    try:
        return S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        return False
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            return False
        raise from_os_error(error, path) from None


def where(path: Path, is_lock: Optional[bool] = None) -> tuple[str, Optional[str], str]:
    """The file meant, the workspace it belongs to (None: no workspace), and the lock file that covers it.

    Links are resolved, so that two names of one file share one lock; inside a workspace that is the store's to do.
    A path `is_lock` if it is the lock file itself; by default that is one that ends in `.lock`.
    """
    folder, base = os.path.split(os.path.abspath(os.fspath(path)))
    folder = os.path.realpath(folder)
    shown = os.path.join(folder, base)
    if base.endswith(".lock") if is_lock is None else is_lock:
        return shown, None, shown
    root = root_above(folder)
    if root is None:
        shown = os.path.realpath(shown)
        folder, base = os.path.split(shown)
        return shown, None, os.path.join(folder, f".{base}.lock")
    inside = os.path.realpath(shown)
    name = os.path.relpath(inside if inside.startswith(root + "/") else shown, root)
    return shown, root, os.path.join(root, layout.lock_of(name))


def root_above(folder: str) -> Optional[str]:
    """The workspace whose data stands in `folder`: the nearest folder above with postbox/ and ours beside it."""
    for above in _upwards(folder):
        if _is_folder(os.path.join(above, "postbox")):
            return above
    return None


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


def _upwards(folder: str) -> list[str]:
    found = []
    while folder:
        found.append(folder)
        above = os.path.dirname(folder)
        if above == folder:
            break
        folder = above
    return found


def project_of(root: str) -> str:
    """The folder that the workspace is for: its own, or the one above for a nested `.orchestration`."""
    home = os.path.realpath(root)
    return os.path.dirname(home) if os.path.basename(home) == NESTED else home


def approvals(environ: Mapping[str, str]) -> str:
    """Where a person's approvals are kept (see `recovery.trust`), outside of every workspace; "" if he has no home."""
    base = environ.get("XDG_DATA_HOME", "")
    if not base.startswith("/"):
        home = environ.get("HOME") or os.path.expanduser("~")  # which asks the user database where HOME is unset
        base = home + "/.local/share" if home.startswith("/") else ""
    return base and base + "/postbox-recovery/trusted"


def approval(root: str, environ: Mapping[str, str]) -> str:
    """The file of the person's approval for a workspace, by its real path; "" if there is no place for one."""
    folder = approvals(environ)
    return folder and f"{folder}/{digest_of(os.fsencode(os.path.realpath(root)))}.json"


def repository(folder: str) -> Optional[str]:
    """The top of the git work tree that holds `folder`, None outside of one."""
    for above in _upwards(folder):
        if os.path.exists(os.path.join(above, ".git")):
            return above
    return None


def main_worktree(folder: str) -> Optional[str]:
    """The main worktree of a linked one (what git calls --git-common-dir, read from .git and commondir)."""
    top = repository(folder)
    if top is None:
        return None
    try:
        with open(os.path.join(top, ".git"), encoding="utf-8", errors="surrogateescape") as link:
            word, _, target = link.read().strip().partition(": ")
        if word != "gitdir":
            return top
        git = os.path.join(top, target)
        with open(os.path.join(git, "commondir"), encoding="utf-8", errors="surrogateescape") as common:
            shared = os.path.realpath(os.path.join(git, common.read().strip()))
    except IsADirectoryError:
        return top
    except OSError:
        return None
    return os.path.dirname(shared) if os.path.basename(shared) == ".git" else None
