"""What a check's result is a result of: the state of the files it ran on, as one hash.

Two commands that find the same state may share a result.  Where git keeps the folder, the state is what a commit of
everything would hold: every tracked and every untracked file that isn't ignored, by path, mode and content, whether it
was committed meanwhile or not.  The workspace's own files don't count.  Nothing is written, no lock of git's is taken.
"""

from __future__ import annotations

import hashlib
import os
from stat import S_ISDIR, S_ISLNK, S_ISREG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, Optional, Sequence

    Entry = tuple[bytes, bytes]

#: Seconds that git may take for one question.
_PATIENCE = 60.0
_PIECE = 1 << 20


class State:
    """`tree`: the hash, None if nobody can tell; git's `revision`; whether its work tree is `dirty`; None likewise."""

    __slots__ = ("dirty", "revision", "tree")

    def __init__(self, tree: Optional[str], revision: Optional[str] = None, dirty: Optional[bool] = None) -> None:
        self.tree, self.revision, self.dirty = tree, revision, dirty


def state_of(folder: str, root: str, inputs: Sequence[str] = ()) -> State:
    """The state of the project in `folder`: of its `inputs`, where they are named, else of git's whole tree.

    `root` is the workspace.  What can't be read makes the tree None: then no result is used twice.
    """
    from subprocess import SubprocessError

    try:
        state = _of_git(os.path.realpath(folder), os.path.realpath(root))
    except (OSError, SubprocessError, ValueError):
        state = State(None)
    if inputs:
        try:
            state.tree = "inputs:" + _of_inputs(os.fsencode(folder), os.fsencode(os.path.realpath(root)), inputs)
        except (OSError, ValueError):
            state.tree = None
    return state


def _git(folder: bytes, *words: str) -> Optional[bytes]:
    """What git says; None if it says no, or isn't there."""
    import subprocess

    environ = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_CONFIG_HOME") if name in os.environ}
    environ.update(LC_ALL="C", GIT_OPTIONAL_LOCKS="0", GIT_TERMINAL_PROMPT="0")
    # fsmonitor would leave a daemon behind
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *words]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout if not done.returncode else None


def _of_git(folder: str, root: str) -> State:
    top = (_git(os.fsencode(folder), "rev-parse", "--show-toplevel") or b"").rstrip(b"\n")
    if not top:
        return State(None)
    revision = (_git(top, "rev-parse", "--verify", "-q", "HEAD") or b"").decode("ascii").strip() or None
    listed = _git(top, "ls-files", "-s", "-v", "-z")
    status = _git(
        top, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=none"
    )
    if listed is None or status is None:
        return State(None, revision)
    own = _OwnFiles(top, os.fsencode(root))
    changed = [entry[3:] for entry in status.split(b"\0") if entry and not own.has(entry[3:])]
    state = State(None, revision, bool(changed))
    found: dict[bytes, bytes] = {}
    width = 40
    for line in listed.split(b"\0"):
        if not line:
            continue
        about, _, path = line.partition(b"\t")
        tag, mode, name, stage = about.split(b" ")
        if own.has(path):
            continue
        width = len(name)
        found[path] = mode + b" " + name + b" " + stage
        if tag.islower() or tag == b"S":  # git was told not to look at it
            changed.append(path)
    for path in changed:
        if path.endswith(b"/") or found.pop(path, b"").startswith(b"160000"):
            return state  # a repository within: what is in there, git doesn't say
        entry = _blob(os.path.join(top, path), width)
        if entry is not None:
            if entry == b"?":
                return state
            found[path] = entry
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(found[path] + b"\t" + path + b"\0")
    state.tree = "git:" + digest.hexdigest()
    return state


class _OwnFiles:
    """Which paths below `top` are the workspace's own: they change with every command."""

    def __init__(self, top: bytes, root: bytes) -> None:
        inside = (root + b"/").startswith(top.rstrip(b"/") + b"/")
        self.prefix = root[len(top.rstrip(b"/")) + 1 :] if inside else None

    def has(self, path: bytes) -> bool:
        if self.prefix is None:
            return False
        if self.prefix:
            if not path.startswith(self.prefix + b"/"):
                return False
            path = path[len(self.prefix) + 1 :]
        first, _, rest = path.partition(b"/")
        return first in (b"postbox", b"data", b"logs", b".sprint") or (
            not rest and first.startswith(b".") and first.endswith((b".lock", b".stage"))
        )


def _blob(path: bytes, width: int) -> Optional[bytes]:
    """Mode and name of a file as git would call it in a commit; None if there is none, b"?" if it is no file."""
    try:
        st = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if S_ISLNK(st.st_mode):
        target = os.readlink(path)
        digest = _git_digest(width, len(target))
        digest.update(target)
        return b"120000 " + digest.hexdigest().encode() + b" 0"
    if not S_ISREG(st.st_mode):
        return b"?"
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = _git_digest(width, size)
        for data in _pieces(file.fileno()):
            digest.update(data)
    return (b"100755 " if st.st_mode & 0o100 else b"100644 ") + digest.hexdigest().encode() + b" 0"


def _git_digest(width: int, size: int) -> hashlib._Hash:
    digest = hashlib.sha256() if width == 64 else hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % size)
    return digest


def _pieces(fd: int) -> Iterator[bytes]:
    while True:
        data = os.read(fd, _PIECE)
        if not data:
            return
        yield data


def _of_inputs(folder: bytes, root: bytes, inputs: Sequence[str]) -> str:
    """Over paths, modes and bytes; a pattern that meets nothing counts as just that."""
    from glob import glob, has_magic

    digest = hashlib.sha256()
    real = os.path.realpath(folder)
    own = _OwnFiles(real, root)
    for said in inputs:
        name = os.fsencode(said)
        paths = [os.path.join(folder, name)]
        if has_magic(said):
            paths = sorted(glob(os.path.join(_escaped(folder), name), recursive=True))
        digest.update(b"for %s\0" % name)
        for path in paths:
            for one in _below(path):
                short = one[len(folder.rstrip(b"/")) + 1 :]
                if own.has(os.path.normpath(short)):
                    continue
                entry = _blob(one, 64)
                if entry == b"?":
                    raise ValueError(f"{one!r} is no file")
                digest.update(b"%s\t%s\0" % (entry or b"absent", short))
    return digest.hexdigest()


def _escaped(folder: bytes) -> bytes:
    from glob import escape

    return escape(folder)


def _below(path: bytes) -> Iterator[bytes]:
    """The files below a folder, in order, links as links and without .git; or the path itself."""
    try:
        folder = S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        folder = False
    if not folder:
        yield path
        return
    for name in sorted(os.listdir(path)):
        if name != b".git":
            yield from _below(os.path.join(path, name))
