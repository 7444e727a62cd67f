"""`recovery init`: make a workspace, and try on its own disk what everything else relies on."""

from __future__ import annotations

import errno
import os
import tempfile
from fcntl import LOCK_EX, LOCK_NB, flock

from recovery import disk, jsontext, layout, workspace
from recovery.errors import Unavailable, UsageError, from_os_error
from recovery.request import Request, Verb, require_value
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What git need not keep: run-time state, locks, staged files, backups.
IGNORED = ("/data/", "/logs/", ".*.lock", ".*.stage", "*.backup_*")


def init(folder: str, here: bool = False, dry_run: bool = False) -> Result:
    """Make a workspace in `folder`: its `.orchestration/` inside a git repository, the folder itself with `here`.

    What exists is kept.  Unavailable (69) if two processes can both hold one lock there, or a rename isn't seen.
    A crash leaves a workspace that lacks some of its parts; init again adds them.
    """
    folder = os.path.abspath(folder or ".")
    top = workspace.main_worktree(folder) or workspace.repository(folder)  # linked worktrees share the main one's
    nested = top is not None and not here and not os.path.isdir(os.path.join(folder, "postbox"))
    root = os.path.join(top, workspace.NESTED) if nested and top is not None else folder
    if dry_run:
        there = os.path.isdir(os.path.join(root, "postbox"))
        line = f"already a workspace: {root}" if there else f"would make a workspace in {root}; nothing changed"
        return Result(line, False, {"ok": True, "code": 0, "changed": False, "dry_run": True, "root": root})
    try:
        for name in ("postbox", ".sprint", layout.CHANGES, layout.CHECKPOINTS, layout.LOGS):
            os.makedirs(os.path.join(root, name), exist_ok=True)
        probe(os.path.join(root, "data"))
        kind, options = disk.file_system(root)
        config = os.path.join(root, layout.CONFIG)
        made = not os.path.exists(config)
        if made:
            body = settings(root)
            with open(config, "x", encoding="utf-8") as out:
                out.write(jsontext.pretty(body) + "\n")
                out.flush()
                os.fsync(out.fileno())
        ignored = _ignore(root) if workspace.repository(root) else 0
    except OSError as error:
        raise from_os_error(error, f"could not make a workspace in {root}") from None
    notes = [f"file system {kind or 'unknown'} ({options})", "two processes exclude each other, renames are seen"]
    if ignored:
        notes.append(f"added {ignored} line(s) to {os.path.join(root, '.gitignore')}")
    if disk.is_remote(kind):
        notes.append(
            f"WARNING: {kind} is a network or user-space mount: commands will refuse (69) unless data/config.json "
            f'has "accept_file_systems": ["{kind}"]'
        )
    word = "made a workspace in" if made else "already a workspace:"
    data = {"ok": True, "code": 0, "changed": made, "root": root, "file_system": kind, "mount_options": options}
    return Result(f"{word} {root} ({kind or 'unknown file system'})", made, data, notes)


def settings(root: str) -> dict[str, Any]:
    """What data/config.json of a new workspace says."""
    return {"format": layout.FORMAT, "backend": "files", "file_system": disk.file_system(root)[0]}


def _ignore(root: str) -> int:
    path = os.path.join(root, ".gitignore")
    try:
        with open(path, encoding="utf-8") as old:
            text = old.read()
    except FileNotFoundError:
        text = ""
    there = text.splitlines()
    missing = [line for line in IGNORED if line not in there and line + "*" not in there]
    if missing:
        with open(path, "a", encoding="utf-8") as out:
            out.write(("" if not text or text.endswith("\n") else "\n") + "\n".join(missing) + "\n")
    return len(missing)


#: What a file system answers that doesn't do what it is asked for.
_UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def probe(folder: str) -> None:
    """Two processes, one lock, one rename: Unavailable (69) if the folder's disk doesn't keep them apart.

    OSError where it is full, or can't be written to.
    """
    with tempfile.TemporaryDirectory(prefix=".probe.", dir=folder) as scratch:
        lock, target = os.path.join(scratch, "lock"), os.path.join(scratch, "file")
        with open(target, "w") as out:
            out.write("old")
        ready_r, ready_w = os.pipe()
        go_r, go_w = os.pipe()
        child = os.fork()
        if not child:
            os._exit(_probe_child(lock, target, ready_w, go_r))
        os.close(ready_w)
        os.close(go_r)
        locked = os.read(ready_r, 1) == b"1"
        with open(lock, "w") as mine:
            try:
                flock(mine, LOCK_EX | LOCK_NB)
                both = locked
            except OSError:
                both = False
        try:
            os.write(go_w, b"1")
        except BrokenPipeError:
            pass  # it could not do the first thing, and says why
        failed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(ready_r)
        os.close(go_w)
        with open(target) as back:
            seen = back.read() == "new"
    if both:
        raise Unavailable(f"{folder}: two processes can hold one lock here, so nothing can be promised on this disk")
    if failed in _UNKNOWN:
        what = "renamed into place" if locked else "locked"
        raise Unavailable(f"{folder}: files can't be {what} on this disk: {os.strerror(failed)}")
    if failed:
        raise OSError(failed, os.strerror(failed), folder)
    if not seen:
        raise Unavailable(f"{folder}: a file renamed into place is not seen by another process on this disk")


def _probe_child(lock: str, target: str, ready: int, go: int) -> int:
    try:
        with open(lock, "w") as mine:
            flock(mine, LOCK_EX | LOCK_NB)
            os.write(ready, b"1")
            os.read(go, 1)
            with open(target + ".new", "w") as out:
                out.write("new")
            os.rename(target + ".new", target)
        return 0
    except OSError as error:
        os.close(ready)
        return error.errno or 1


def _parse(request: Request) -> list[Any]:
    if len(request.words) > 1:
        raise UsageError(f"init takes one folder, not {request.words[1][:40]!a} too", hint="see --help")
    if request.words:
        require_value("DIR", request.words[0])
    folder = request.words[0] if request.words else request.options.get("root", "")
    return [folder, request.asked("here"), request.asked("dry_run")]


VERB = Verb(
    {"--here": "here", "--dry-run": "dry_run"},
    _parse,
    lambda store, request, call: init(*call),
    tries=False,
    in_root=False,
)
