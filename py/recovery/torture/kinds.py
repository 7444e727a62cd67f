"""The kinds of trials, how much of the time each gets, and which places have to be met once.

A trial is known by its kind and number: the same seed tries the same places in the same order, whoever runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from recovery.torture import errors, holders, keeping, kills, managing, meetings, writers
from recovery.torture.cuts import Cut, Cuts, after_reboot
from recovery.torture.kills import FOLLOWUPS
from recovery.torture.operations import Benches
from recovery.torture.scratch import Unable, Violation

#: Seconds of one crowd of writers.
CROWD = 0.6


@dataclass(frozen=True)
class Kind:
    """`trial(benches, number, random)` runs one; `share` is its part of the time; `places` must each be met once.

    `family` is what the report calls it; `kills` says whether each of its trials ends a process by SIGKILL.
    """

    name: str
    share: float
    trial: Callable[[Benches, int, Random], None]
    places: Callable[[Benches], int] = lambda benches: 0
    family: str = ""
    kills: bool = False


def kinds(memory: Path) -> list[Kind]:
    """All kinds; see the README for what each does.  `memory` is a folder for what need not be on the disk."""
    found = [
        Kind("kill", 20, _Kill(), lambda benches: len(kills.places(benches)), kills=True),
        Kind("kill twice", 8, _by_chance(kills.kill_twice), kills=True),
        Kind("kill a script", 8, _by_chance(kills.kill_script), kills=True),
        Kind("terminate", 2, _by_chance(kills.terminate)),
        Kind("power cut", 24, _PowerCut(memory)),
        Kind("writers", 8, _by_chance(_crowd)),
    ]
    families = {
        "locks": holders.TRIALS,
        "meetings": meetings.TRIALS,
        "errors": errors.TRIALS,
        "manager": managing.TRIALS,
        "chores": keeping.TRIALS,
    }
    for family, trials in families.items():
        found += [Kind(name, 1, _by_chance(trial), family=family) for name, trial in trials.items()]
    return found


def _by_chance(trial: Callable[[Benches, Random], None]) -> Callable[[Benches, int, Random], None]:
    return lambda benches, number, random: trial(benches, random)


def _crowd(benches: Benches, random: Random) -> None:
    counts = writers.round(benches, random, CROWD)
    benches.counted = {name: int(value) for name, value in vars(counts).items()}


class _Kill:
    """First every step of every operation, shuffled, then the same with another follow-up."""

    def __init__(self) -> None:
        self._places: list[tuple[str, str]] = []

    def __call__(self, benches: Benches, number: int, random: Random) -> None:
        if not self._places:
            self._places = kills.places(benches)
            Random(f"{benches.seed}:places").shuffle(self._places)
        operation, step = self._places[number % len(self._places)]
        lap = number // len(self._places)
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
            mine = self.memory / benches.folder.name  # other workers come to the same operation
            mine.mkdir(exist_ok=True)
            cuts = Cuts(benches.share(mine).named(name), f"{benches.seed}:{name}")
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
