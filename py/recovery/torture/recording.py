"""Record what a command asks of the disk, in order: every create, write, sync, rename, link, unlink below the root.

The calls of `os` are wrapped while one forked child runs; nothing of the suite knows of it, so nothing can be left
out by mistake: at the end the recorded events, replayed, must give the very files that are there (see
`powercut.require_complete`).  What a program writes through file objects is seen at the next sync or rename.
"""

from __future__ import annotations

import fcntl
import io
import os
import pickle
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recovery.torture.scratch import Command, Forked, Workspace, require_success

#: (kind, …): see `Recorder`.  Files and folders are numbers, for names come and go.
Event = tuple[Any, ...]
Tree = dict[str, bytes | None]  # path to content; None for a folder

ROOT = 0
_WRAPPED = (
    "open", "write", "pwrite", "ftruncate", "copy_file_range", "fsync", "fdatasync", "rename", "replace", "link",
    "unlink", "remove", "mkdir", "rmdir",
)  # fmt: skip


@dataclass
class Trace:
    """What a command did: the tree it began with, and the events.

    create FOLDER NAME NODE IS_FOLDER · write NODE OFFSET DATA · size NODE BYTES · sync NODE · move FOLDER NAME FOLDER
    NAME · swap (as move) · link FOLDER NAME NODE · unlink FOLDER NAME · said TEXT · step NAME
    """

    names: dict[int, str] = field(default_factory=dict)  # of what was there at the start
    contents: dict[int, bytes] = field(default_factory=dict)  # of the files among them
    events: list[Event] = field(default_factory=list)
    pool: str = ""  # a folder that keeps the files of the start, by node number, whoever renames over them
    start: int = 0  # the first event of the last command

    def syncs(self) -> list[int]:
        """Where the last command's syncs stand among the events."""
        return [n for n, event in enumerate(self.events) if event[0] == "sync" and n >= self.start]

    def without(self, number: int) -> Trace:
        """The trace of the same code with one event left out, such as a sync that somebody forgot."""
        return replace(self, events=self.events[:number] + self.events[number + 1 :])

    def described(self, number: int) -> str:
        """An event in words: `sync postbox/CC (after folder-sync)`."""
        names = dict(self.names)
        step = "begin"
        for event in self.events[: number + 1]:
            kind = event[0]
            if kind == "step":
                step = event[1]
            elif kind == "create":
                names[event[3]] = f"{names.get(event[1], '')}/{event[2]}".lstrip("/")
        kind, *rest = self.events[number]
        what = names.get(rest[0], "?") or "the root" if rest and isinstance(rest[0], int) else str(rest[:1])
        return f"{kind} {what} (at {step})"


def record(space: Workspace, *commands: tuple[Command, str]) -> Trace:
    """Run commands, each with a fault ("": unhurt), in forked children one after the other, recording.

    All but the last may be killed; `Trace.start` is where the last one begins.  What a killed one had not synced is
    not durable for the next one either.
    """
    pool = space.root.with_name(space.root.name + ".pool")
    pool.mkdir()
    trace = Trace(pool=str(pool))
    recorder = Recorder(space.root, trace)
    for command, fault in commands:
        trace.start = len(trace.events)
        out = os.memfd_create("events")
        try:

            def work(command: Command = command, fault: str = fault, out: int = out) -> None:
                recorder.install(out)
                space.become(command, **({"RECOVERY_FAULT": fault, "RECOVERY_MAX_ATTEMPTS": "1"} if fault else {}))

            done = Forked(work, " ".join(command)).finish()
            if not fault:
                require_success(done, command)
            recorder.follow(os.pread(out, os.fstat(out).st_size, 0))
        finally:
            os.close(out)
    return trace


class Recorder:
    """Knows the files below `root`; in a forked child `install` wraps the calls of `os`."""

    def __init__(self, root: Path, trace: Trace) -> None:
        self.root = str(root)
        self.trace = trace
        self._nodes: dict[tuple[int, int], int] = {}
        self._contents: dict[int, bytearray] = {}
        self._count = 0
        self._out = -1
        top = len(self.root) + 1
        for folder, _, names in os.walk(self.root):
            trace.names[self._know(os.stat(folder))] = folder[top:]
            for name in names:
                path = os.path.join(folder, name)
                node = self._know(os.lstat(path))
                trace.names[node] = path[top:]
                with open(path, "rb") as file:
                    self._contents[node] = bytearray(file.read())
                trace.contents[node] = bytes(self._contents[node])
                if is_linked(path[top:]):
                    os.link(path, os.path.join(trace.pool, str(node)))

    def follow(self, told: bytes) -> None:
        """In the parent: what the child has told, whole however it ended."""
        with io.BytesIO(told) as stream:
            while stream.tell() < len(told):
                event = pickle.load(stream)  # noqa: S301 - our own child wrote it
                if event[0] == "know":
                    self._nodes[event[1]] = event[2]
                    self._count = event[2] + 1
                    continue
                self.trace.events.append(event)
                if event[0] == "create" and not event[4]:
                    self._contents[event[3]] = bytearray()
                elif event[0] in ("write", "size"):
                    apply_to(self._contents[event[1]], event)

    def _know(self, st: os.stat_result) -> int:
        node = self._count
        self._count += 1
        self._nodes[st.st_dev, st.st_ino] = node
        self._tell(("know", (st.st_dev, st.st_ino), node))
        return node

    def _add(self, *event: Any) -> None:
        self._tell(event)

    def _tell(self, event: Event) -> None:
        if self._out >= 0:
            self._real["write"](self._out, pickle.dumps(event))

    # --- who is who

    def _of_fd(self, fd: int) -> int | None:
        try:
            st = os.fstat(fd)
        except OSError:
            return None
        return self._nodes.get((st.st_dev, st.st_ino))

    def _of_path(self, path: Any, dir_fd: int | None) -> int | None:
        try:
            st = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        except OSError:
            return None
        return self._nodes.get((st.st_dev, st.st_ino))

    def _folder(self, path: Any, dir_fd: int | None) -> tuple[int | None, str]:
        head, base = os.path.split(os.fsdecode(path))
        try:
            st = os.stat(head or ".", dir_fd=dir_fd) if head or dir_fd is None else os.fstat(dir_fd)
        except OSError:
            return None, base
        return self._nodes.get((st.st_dev, st.st_ino)), base

    def _catch_up(self, node: int | None, fd: int = -1, path: Any = None, dir_fd: int | None = None) -> None:
        """See what was written to a file past the wrapped calls."""
        if node is None or node not in self._contents:
            return
        try:
            if fd < 0:
                mine = self._real["open"](path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            else:
                mine = self._real["open"](f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            data = os.pread(mine, os.fstat(mine).st_size, 0)
        finally:
            os.close(mine)
        if data != self._contents[node]:
            self._size(node, 0)
            self._write(node, 0, data)

    def _write(self, node: int, offset: int, data: bytes) -> None:
        self._change("write", node, offset, bytes(data))

    def _size(self, node: int, size: int) -> None:
        self._change("size", node, size)

    def _change(self, *event: Any) -> None:
        apply_to(self._contents[event[1]], event)
        self._add(*event)

    # --- the wrapped calls

    def install(self, out: int) -> None:
        """From now on every call is recorded and told to `out` at once: it may be the last."""
        self._real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in _WRAPPED}
        for name in self._real:
            setattr(os, name, getattr(self, f"_do_{name}"))
        self._out = out
        from recovery import renames, steps

        before = steps.install

        def install(environ: Any) -> None:
            before(environ)
            inner = steps.at

            def at(step: str, detail: object = "") -> None:
                self._add("step", f"{step} {detail}".strip())
                inner(step, detail)

            steps.at = at

        steps.install = install
        exchange = renames._renameat2
        if exchange is None:
            return

        def renameat2(source_fd: int, source: bytes, target_fd: int, target: bytes, flags: int) -> int:
            first, second = self._folder(source, source_fd), self._folder(target, target_fd)
            done: int = exchange(source_fd, source, target_fd, target, flags)
            if done == 0 and first[0] is not None and second[0] is not None:
                self._add("swap" if flags == 2 else "move", *first, *second)
            return done

        renames._renameat2 = renameat2

    def _do_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        before = self._of_path(path, dir_fd) if flags & os.O_CREAT else None
        fd: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT and before is None:
            folder, base = self._folder(path, dir_fd)
            if folder is not None and stat.S_ISREG(os.fstat(fd).st_mode):
                node = self._know(os.fstat(fd))
                self._contents[node] = bytearray()
                self._add("create", folder, base, node, False)
        elif flags & os.O_TRUNC:
            known = self._of_fd(fd)
            if known in self._contents:
                assert known is not None
                self._size(known, 0)
        return fd

    def _do_write(self, fd: int, data: Any) -> int:
        node = self._of_fd(fd)
        at = 0
        if node in self._contents:
            appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
            at = os.fstat(fd).st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
        done: int = self._real["write"](fd, data)
        if node in self._contents:
            assert node is not None
            self._write(node, at, bytes(memoryview(data)[:done]))
        elif fd == 1:
            self._add("said", bytes(data).decode("utf-8", "replace"))
        return done

    def _do_pwrite(self, fd: int, data: Any, offset: int) -> int:
        done: int = self._real["pwrite"](fd, data, offset)
        node = self._of_fd(fd)
        if node in self._contents:
            assert node is not None
            self._write(node, offset, bytes(memoryview(data)[:done]))
        return done

    def _do_ftruncate(self, fd: int, size: int) -> None:
        self._real["ftruncate"](fd, size)
        node = self._of_fd(fd)
        if node in self._contents:
            assert node is not None
            self._size(node, size)

    def _do_copy_file_range(
        self, src: int, dst: int, count: int, offset_src: int | None = None, offset_dst: int | None = None
    ) -> int:
        done: int = self._real["copy_file_range"](src, dst, count, offset_src, offset_dst)
        self._catch_up(self._of_fd(dst), fd=dst)
        return done

    def _do_fsync(self, fd: int) -> None:
        self._sync(fd, "fsync")

    def _do_fdatasync(self, fd: int) -> None:
        self._sync(fd, "fdatasync")

    def _sync(self, fd: int, call: str) -> None:
        node = self._of_fd(fd)
        self._catch_up(node, fd=fd)
        self._real[call](fd)
        if node is not None:
            self._add("sync", node)

    def _do_rename(self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        self._catch_up(self._of_path(src, src_dir_fd), path=src, dir_fd=src_dir_fd)
        source, target = self._folder(src, src_dir_fd), self._folder(dst, dst_dir_fd)
        self._real["rename"](src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        if source[0] is not None and target[0] is not None:
            self._add("move", *source, *target)

    _do_replace = _do_rename

    def _do_link(
        self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None, **more: Any
    ) -> None:
        node = self._of_path(src, src_dir_fd)
        self._catch_up(node, path=src, dir_fd=src_dir_fd)
        self._real["link"](src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **more)
        folder, base = self._folder(dst, dst_dir_fd)
        if node is not None and folder is not None:
            self._add("link", folder, base, node)

    def _do_unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        folder, base = self._folder(path, dir_fd)
        self._real["unlink"](path, dir_fd=dir_fd)
        if folder is not None:
            self._add("unlink", folder, base)

    _do_remove = _do_unlink

    def _do_rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        folder, base = self._folder(path, dir_fd)
        self._real["rmdir"](path, dir_fd=dir_fd)
        if folder is not None:
            self._add("unlink", folder, base)

    def _do_mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        folder, base = self._folder(path, dir_fd)
        if folder is not None:
            self._add("create", folder, base, self._know(os.stat(path, dir_fd=dir_fd)), True)


def is_linked(name: str) -> bool:
    """Whether a file is replaced and never written to in place: then a link keeps it, with its inode."""
    return not name.startswith(("data/", "logs/")) and not name.endswith((".lock", ".jsonl"))


def apply_to(content: bytearray, event: Event) -> None:
    """Carry out a write or a change of size."""
    if event[0] == "size":
        del content[event[2] :]
        content.extend(b"\0" * (event[2] - len(content)))
    else:
        _, _, offset, data = event
        content.extend(b"\0" * (offset - len(content)))
        content[offset : offset + len(data)] = data
