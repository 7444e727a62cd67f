"""The checks that every trial ends with: OLD or NEW, exactly one effect, no stray file, locks free.

NEW is what an unhurt run of the same commands leaves, byte for byte, times and transaction ids apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from recovery.torture.scratch import TXID, Command, Done, Violation, Workspace, demand

_TXID = re.compile(TXID.pattern.encode())
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_OURS = re.compile(
    r"data/(journal|\.commit\.lock|changes/\d{4}-\d\d\.jsonl|checkpoints/[A-Z]+-\d+_(checkpoint\.json|history\.jsonl))"
    r"|data/budget\.json|data/\.budget\.json\.lock|data/archive/([A-Z]+\.index|\.[A-Z]+\.lock)"
    r"|logs/recovery/([A-Z]+-\d+|backlog-[0-9a-f]{8}|archive-[0-9TZ]+-[0-9a-f]{12})_(recovery\.jsonl|escalation(\.\d)?\.json)"
)

#: Operations that are no step of a task's work, and leave no checkpoint.
_NO_STATE = ("assign", "restore")
#: What a command says that was done already.
NO_OP = "nothing changed"


def plain(data: bytes) -> bytes:
    """A file's bytes with times and transaction ids taken out."""
    return _TIME.sub(b"TIME", _TXID.sub(b"TXID", data))


@dataclass(frozen=True)
class State:
    """What a workspace holds: people's files byte for byte, what the change log says was done, further facts."""

    data: dict[str, bytes]
    changes: list[tuple[str, str, str]]
    facts: tuple[str, ...] = ()

    @classmethod
    def of(cls, space: Workspace) -> State:
        return cls(space.data(), space.changes())


def require(done: Done, *codes: int) -> Done:
    """The command ended with one of these exit codes."""
    if done.code not in codes:
        raise Violation(f"expected exit {' or '.join(map(str, codes))}, got {done}")
    return done


def differences(data: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """What differs, in words; times and transaction ids don't count."""
    words = [f"stray file {name}" for name in sorted(data.keys() - expected.keys())]
    words += [f"missing file {name}" for name in sorted(expected.keys() - data.keys())]
    for name in sorted(data.keys() & expected.keys()):
        if plain(data[name]) != plain(expected[name]):
            words.append(f"{name} differs:\n{data[name].decode(errors='replace')[:3000]}")
    return words


def require_state(
    space: Workspace,
    expected: State,
    allow: Sequence[str] = (),
    ours: str = r"(?!)",
    with_checkpoints: Sequence[str] = (),
) -> None:
    """The workspace is in this very state, each change recorded once, nothing stray, no lock held.

    `allow` are parts of names of people's files that may be there; for the others see `require_tidy`.
    """
    words = differences(_without(space.data(), allow), expected.data)
    demand(not words, "; ".join(words))
    changes = space.changes()
    demand(changes == expected.changes, f"the change log says {changes}")
    require_tidy(space, ours, with_checkpoints)


def require_tidy(space: Workspace, allow: str = r"(?!)", with_checkpoints: Sequence[str] = ()) -> None:
    """What is ours is what the contract lists, every line of it whole and said once; no lock is held.

    The tasks `with_checkpoints` have checkpoints beside those that follow from changes.
    """
    for name in space.snapshot():
        if name.startswith(("data/", "logs/")):
            demand(_OURS.fullmatch(name) or re.fullmatch(allow, name), f"stray file {name}")
    lines = space.lines("data/changes")
    numbers = [line["seq"] for line in lines]
    demand(numbers == sorted(set(numbers)), f"sequence numbers of the change log: {numbers}")
    demand(len({line["txid"] for line in lines}) == len(lines), "a change is recorded twice")
    for path in sorted(space.path("data/checkpoints").glob("*_history.jsonl")):
        ids = [line["txid"] for line in space.lines_of(path)]
        task = path.name.removesuffix("_history.jsonl")
        expected = [line["txid"] for line in lines if line["task"] == task and line["op"] not in _NO_STATE]
        demand(len(set(ids)) == len(ids), f"{path.name} says a thing twice: {ids}")
        if task in with_checkpoints:
            ids = [txid for txid in ids if txid in expected]
        demand(ids == expected, f"{path.name}: {ids}, the change log: {expected}")
    space.require_locks_free()


def require_whole(space: Workspace, old: State, *new: State) -> None:
    """Each file is OLD to the byte or one of NEW, whatever happened; beside them only our stages and the backup."""
    found = space.data()
    for name, data in found.items():
        if name.endswith(".stage") or ".backup_" in name:
            continue
        demand(any(name in state.data for state in (old, *new)), f"stray file {name}")
        fits = data == old.data.get(name) or any(plain(data) == plain(state.data.get(name, b"")) for state in new)
        demand(fits, f"{name} is neither old nor new:\n{data.decode(errors='replace')[:3000]}")
    for name in old.data.keys() - found.keys():
        demand(any(name not in state.data for state in new), f"{name} is gone")


def require_old_or_new(space: Workspace, old: State, new: State, allow: Sequence[str] = ()) -> bool:
    """All files OLD to the byte, or all NEW; returns whether it is NEW.  For `allow` see `require_state`."""
    words = _against(space, new, allow)
    if not words:
        return True
    data, before = (_without(found, allow) for found in (space.data(), old.data))
    demand(data == before, "neither old as a whole nor new as a whole: " + "; ".join(words))
    return False


def is_in(space: Workspace, state: State, allow: Sequence[str] = ()) -> bool:
    """Whether people's files are in this state; times and transaction ids don't count."""
    return not _against(space, state, allow)


def _against(space: Workspace, state: State, allow: Sequence[str]) -> list[str]:
    return differences(_without(space.data(), allow), _without(state.data, allow))


def _without(data: dict[str, bytes], allow: Sequence[str]) -> dict[str, bytes]:
    return {name: text for name, text in data.items() if not any(part in name for part in allow)}


def require_no_op(space: Workspace, command: Command, says: str = NO_OP, fork: bool = False) -> None:
    """The same command again: exit 0, says that nothing changed, and nothing did."""
    before = State.of(space)
    done = require(space.fork(command) if fork else space.run(command), 0)
    demand(says in done.out, f"the repeated command did not say that it was a no-op: {done}")
    after = State.of(space)
    words = differences(after.data, before.data)
    demand(before == after, "the repeated command changed something: " + "; ".join(words))
