"""What a power cut may leave of the recorded calls, state by state, and the same checks on each state.

The model is the weak one of the ALICE paper (Pillai and others, "All File Systems Are Not Created Equal", OSDI 2014,
section 3): nothing is kept that was not synced, and nothing is kept in order.

    a file's bytes      durable with an fsync or fdatasync of the file; before it any write may be missing, be cut at
                        any block of 512 bytes or in the middle of one (a sector is written in a line, not at
                        once), or have left its length without its bytes (zeros)
    a folder's entries  durable with an fsync of the folder; before it any create, rename, link or unlink may be
                        missing, each for itself, also where an older one of the same folder is not

An fsync of a new file doesn't make its name durable.  A rename in one folder is one entry: it is there or it isn't;
over two folders its halves are two.  What the model leaves out: metadata other than names and sizes, and disks that
lie about a flush.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

from recovery.torture.recording import ROOT, Event, Trace, Tree, apply_to, is_linked
from recovery.torture.scratch import Workspace, demand

#: What a disk writes as a whole.
BLOCK = 512
#: States that are made of one moment at most; beyond it each loss alone, each survivor alone, and a random sample.
MOST = 64
_CUTS = 4

Entry = tuple[tuple[str, int | None], ...]  # names that change together, and the nodes they get


class Disk:
    """The durable state and what is on its way, after some events."""

    def __init__(self, trace: Trace) -> None:
        self._first = trace.contents
        self.folders: dict[int, dict[str, int]] = {}
        self.files: dict[int, bytes] = dict(trace.contents)
        self.entries: dict[int, list[Entry]] = {}  # of a folder, not durable
        self.writes: dict[int, list[Event]] = {}  # of a file, not durable
        self.touched: set[int] = set()  # files whose bytes changed in place
        self.said = ""
        self._locks = {node for node, name in trace.names.items() if name.endswith(".lock")}
        by_path = {name: node for node, name in trace.names.items()}
        for node in trace.names:
            if node not in trace.contents:
                self.folders[node] = {}
        for node, name in trace.names.items():
            if node != ROOT:
                above, _, base = name.rpartition("/")
                self.folders[by_path[above]][base] = node

    def apply(self, event: Event) -> None:
        """Go on by one event."""
        kind, *rest = event
        if kind == "create":
            folder, name, node, is_folder = rest
            if is_folder:
                self.folders[node] = {}
            else:
                self.files[node] = b""
                if name.endswith(".lock"):
                    self._locks.add(node)
            self._enter(folder, ((name, node),))
        elif kind in ("write", "size"):
            self.writes.setdefault(rest[0], []).append(event)
            self.touched.add(rest[0])
        elif kind == "sync":
            self._sync(rest[0])
        elif kind == "move":
            folder, name, other, target = rest
            node = self._at(folder)[name]
            if folder == other:
                self._enter(folder, ((name, None), (target, node)))
            else:
                self._enter(folder, ((name, None),))
                self._enter(other, ((target, node),))
        elif kind == "swap":
            folder, name, other, target = rest
            first, second = self._at(folder)[name], self._at(other)[target]
            if folder == other:
                self._enter(folder, ((name, second), (target, first)))
            else:
                self._enter(folder, ((name, second),))
                self._enter(other, ((target, first),))
        elif kind == "link":
            self._enter(rest[0], ((rest[1], rest[2]),))
        elif kind == "unlink":
            self._enter(rest[0], ((rest[1], None),))
        elif kind == "said":
            self.said += rest[0]

    def _enter(self, folder: int, entry: Entry) -> None:
        self.entries.setdefault(folder, []).append(entry)

    def _at(self, folder: int) -> dict[str, int]:
        return _entered(self.folders[folder], self.entries.get(folder, ()))

    def _sync(self, node: int) -> None:
        if node in self.folders:
            self.folders[node] = self._at(node)
            self.entries.pop(node, None)
        else:
            self.files[node] = _written(self.files[node], self.writes.pop(node, ()))

    # --- states

    def now(self) -> Tree:
        """The tree as programs see it, nothing lost."""
        folders = {node: self._at(node) for node in self.folders}
        files = {node: _written(data, self.writes.get(node, ())) for node, data in self.files.items()}
        return _tree(folders, files)

    def states(self, random: Random) -> Iterator[tuple[Tree, dict[str, int]]]:
        """The trees that a power cut may leave now; with each the files that are still those of the start, by path.

        Equal ones may come more than once.
        """
        changed = sorted(self.entries)
        notes = [node for node in self.writes if node in self._locks]
        written = [node for node in sorted(self.writes) if node not in notes]
        choices: list[Sequence[Any]] = [_subsets(self.entries[folder], random) for folder in changed]
        choices += [_contents(self.files[node], _merged(self.writes[node])) for node in written]
        choices.append([False, True] if notes else [True])  # a lock's note says as little as another's: all or none
        for chosen in _combined(choices, random):
            folders, files = dict(self.folders), dict(self.files)
            for folder, entries in zip(changed, chosen, strict=False):
                folders[folder] = _entered(self.folders[folder], entries)
            for node, data in zip(written, chosen[len(changed) :], strict=False):
                files[node] = data
            if chosen[-1]:
                files.update({node: _written(self.files[node], self.writes[node]) for node in notes})
            where = _paths(folders)
            kept = {path: node for node, path in where.items() if node in self._first and node not in self.touched}
            yield _tree(folders, files), kept


def _entered(folder: dict[str, int], entries: Iterable[Entry]) -> dict[str, int]:
    now = dict(folder)
    for entry in entries:
        for name, node in entry:
            if node is None:
                now.pop(name, None)
            else:
                now[name] = node
    return now


def _written(data: bytes, writes: Iterable[Event]) -> bytes:
    content = bytearray(data)
    for event in writes:
        apply_to(content, event)
    return bytes(content)


def _merged(writes: Sequence[Event]) -> list[Event]:
    """Writes that go on where the one before ended are one: the kernel keeps pages, not calls."""
    found: list[Event] = []
    for event in writes:
        if found and event[0] == found[-1][0] == "write" and event[2] == found[-1][2] + len(found[-1][3]):
            found[-1] = ("write", event[1], found[-1][2], found[-1][3] + event[3])
        else:
            found.append(event)
    return found


def _contents(data: bytes, writes: Sequence[Event]) -> list[bytes]:
    """What may stand in a file whose `writes` were not synced: none of them first, parts in no order, all last."""
    found = {data: None}
    for n, event in enumerate(writes):
        found[_written(data, writes[:n])] = None
        found[_written(data, [event])] = None
        found[_written(data, [*writes[:n], *writes[n + 1 :]])] = None
        if event[0] == "write":
            _, node, offset, piece = event
            for cut in _cuts(offset, len(piece)):
                found[_written(data, [*writes[:n], ("write", node, offset, piece[:cut])])] = None
                found[_written(data, [*writes[:n], ("write", node, offset + cut, piece[cut:])])] = None
            size = max(len(_written(data, writes[:n])), offset + len(piece))
            found[_written(data, [*writes[:n], ("size", node, size)])] = None
    everything = _written(data, writes)
    found.pop(everything, None)
    return [*found, everything]


def _cuts(offset: int, length: int) -> list[int]:
    """Where a write may be cut: at blocks of the file, a few of them, the first and the last among them; and inside of
    the first one, as "Atomic Commit In SQLite", section 2, takes disks to do."""
    first = BLOCK - offset % BLOCK
    every = list(range(first, length, BLOCK))
    if len(every) > _CUTS:
        every = sorted({every[round(n * (len(every) - 1) / (_CUTS - 1))] for n in range(_CUTS)})
    inside = min(first, length) // 2
    return [inside, *every] if inside else every


def _subsets(entries: Sequence[Entry], random: Random) -> list[list[Entry]]:
    """Which of a folder's changes arrived: any."""
    chosen = _chosen(len(entries), random)
    return [[entry for entry, kept in zip(entries, one, strict=True) if kept] for one in chosen]


def _chosen(count: int, random: Random) -> list[tuple[bool, ...]]:
    if count <= 4:
        return list(itertools.product((False, True), repeat=count))
    found = {(False,) * count, (True,) * count}
    for n in range(count):
        found.add(tuple(k < n for k in range(count)))
        found.add(tuple(k == n for k in range(count)))
        found.add(tuple(k != n for k in range(count)))
    for _ in range(8):
        found.add(tuple(random.random() < 0.5 for _ in range(count)))
    return sorted(found)


def _combined(options: Sequence[Sequence[Any]], random: Random) -> Iterator[tuple[Any, ...]]:
    """All combinations; of too many: each option beside the first ones (all else is lost) and beside the last ones
    (all else is there), and a random sample."""
    total = 1
    for one in options:
        total *= len(one)
    if total <= MOST:
        yield from itertools.product(*options)
        return
    for rest in (0, -1):
        base = [one[rest] for one in options]
        for n, one in enumerate(options):
            for choice in one:
                yield (*base[:n], choice, *base[n + 1 :])
    for _ in range(MOST):
        yield tuple(random.choice(one) for one in options)


def _paths(folders: dict[int, dict[str, int]]) -> dict[int, str]:
    """Where each node that can be reached stands (one of its places)."""
    found: dict[int, str] = {}
    waiting = [(ROOT, "")]
    while waiting:
        folder, path = waiting.pop()
        for name, node in folders[folder].items():
            found[node] = f"{path}/{name}".lstrip("/")
            if node in folders:
                waiting.append((node, found[node]))
    return found


def _tree(folders: dict[int, dict[str, int]], files: dict[int, bytes]) -> Tree:
    found: Tree = {}
    waiting = [(ROOT, "")]
    while waiting:
        folder, path = waiting.pop()
        for name, node in folders[folder].items():
            where = f"{path}/{name}".lstrip("/")
            found[where] = files.get(node) if node in files else None
            if node in folders:
                waiting.append((node, where))
    return found


def digest_of(tree: Tree, said: bool) -> bytes:
    """The same for equal states."""
    digest = blake2b(b"said" if said else b"", digest_size=16)
    for path in sorted(tree):
        data = tree[path]
        digest.update(f"\0{path}\0{-1 if data is None else len(data)}\0".encode())
        digest.update(data or b"")
    return digest.digest()


def moments(trace: Trace) -> Iterator[tuple[int, Disk]]:
    """The moments at which the most may be lost: before each sync and before the success is said, and at the end.

    Every other moment's states are among those of the next of these.
    """
    disk = Disk(trace)
    for number, event in enumerate(trace.events):
        if event[0] in ("sync", "said") and number >= trace.start:
            yield number, disk
        disk.apply(event)
    yield len(trace.events), disk


def require_complete(trace: Trace, space: Workspace) -> None:
    """Violation unless the events lead to what is there: a call that is not recorded would be a hole in the proof."""
    disk = Disk(trace)
    for event in trace.events:
        disk.apply(event)
    told = {path: data for path, data in disk.now().items() if data is not None}
    found = space.snapshot()
    wrong = sorted(path for path in told.keys() | found.keys() if told.get(path) != found.get(path))
    demand(not wrong, f"the recording is not complete: it does not lead to what is in {', '.join(wrong)}")


def make(tree: Tree, kept: dict[str, int], pool: str, root: Path) -> None:
    """Materialise a state at `root`.  Files nobody wrote to are links to those of the start: the same inodes."""
    os.mkdir(root)
    for path in sorted(tree):
        data, target = tree[path], os.path.join(root, path)
        if data is None:
            os.mkdir(target)
        elif path in kept and is_linked(path):
            os.link(os.path.join(pool, str(kept[path])), target)
        else:
            with open(target, "wb") as file:
                file.write(data)
