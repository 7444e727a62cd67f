"""The kinds of trials, how much of the time each gets, and which places have to be met once.

A trial is known by its kind and number: the same seed tries the same places in the same order, whoever runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from recovery.torture import errors, holders, kills, writers
from recovery.torture.cuts import Cut, Cuts, after_reboot
from recovery.torture.kills import FOLLOWUPS
from recovery.torture.operations import Benches
from recovery.torture.scratch import Unable, Violation

#: Seconds of one crowd of writers.
CROWD = 0.6


@dataclass(frozen=True)
class Kind:
    """`trial(benches, number, random)` runs one; `share` is its part of the time; `places` must each be met once."""

    name: str
    share: float
    trial: Callable[[Benches, int, Random], None]
    places: Callable[[Benches], int]
    kills: bool = False  # whether each of its trials ends a process by SIGKILL


def kinds(memory: Path) -> list[Kind]:
    """All kinds; see the README for what each does.  `memory` is a folder for what need not be on the disk."""
    trials = {**holders.TRIALS}
    return [
        Kind("kill", 20, _Kill(), lambda b: len(kills.places(b)), kills=True),
        Kind("kill twice", 10, lambda b, n, random: kills.kill_twice(b, random), _none, kills=True),
        Kind("kill a script", 14, lambda b, n, random: kills.kill_script(b, random), _none, kills=True),
        Kind("power cut", 26, _PowerCut(memory), _none),
        Kind("writers", 8, lambda b, n, random: _crowd(b, random), _none),
        Kind("locks", 12, _each(trials), lambda b: len(trials)),
        Kind("errors", 10, _each(errors.TRIALS), lambda b: len(errors.TRIALS)),
    ]


def _none(benches: Benches) -> int:
    return 0


def _each(trials: dict[str, Callable[[Benches, Random], None]]) -> Callable[[Benches, int, Random], None]:
    names = list(trials)

    def trial(benches: Benches, number: int, random: Random) -> None:
        name = names[number % len(names)]
        benches.doing = name
        trials[name](benches, random)

    return trial


def _crowd(benches: Benches, random: Random) -> None:
    counts = writers.round(benches, random, CROWD)
    benches.counted = {name: int(value) for name, value in vars(counts).items()}


class _Kill:
    """First every step of every operation, shuffled, then the same with another follow-up."""

    def __call__(self, benches: Benches, number: int, random: Random) -> None:
        places = kills.places(benches)
        Random(f"{benches.seed}:places").shuffle(places)
        operation, step = places[number % len(places)]
        lap = number // len(places)
        kills.kill_at(benches, operation, step, FOLLOWUPS[(number + lap) % len(FOLLOWUPS)])


class _PowerCut:
    """The states of one operation after the other, each list in an order of the seed's."""

    def __init__(self, memory: Path) -> None:
        self.memory = memory
        self._cuts: dict[str, tuple[Cuts, list[Cut]]] = {}

    def __call__(self, benches: Benches, number: int, random: Random) -> None:
        operation = benches.operations[number % len(benches.operations)]
        turn = number // len(benches.operations)
        with after_reboot():
            cuts, states = self._of(benches, str(operation))
            cut = states[turn % len(states)]
            benches.doing = f"{operation.name}, the power cut {cuts.described(cut)}"
            benches.counted = {"states": int(turn < len(states))}
            cuts.check(cut, recover_first=bool(turn % 2))

    def _of(self, benches: Benches, name: str) -> tuple[Cuts, list[Cut]]:
        if name not in self._cuts:
            cuts = Cuts(benches.share(self.memory).named(name), f"{benches.seed}:{name}")
            self._cuts[name] = cuts, cuts.states()
        return self._cuts[name]


def run(kind: Kind, benches: Benches, number: int) -> None:
    """One trial.  Violation, or Unable; whatever else goes wrong is a violation too, of the check by the checked."""
    random = Random(f"{benches.seed}:{kind.name}:{number}")
    benches.doing, benches.counted = kind.name, {}
    try:
        kind.trial(benches, number, random)
    except (Violation, Unable):
        raise
    except Exception as error:
        raise Violation(f"the check could not be made: {type(error).__name__}: {error}") from error
