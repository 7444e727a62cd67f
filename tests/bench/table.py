"""The report: one Markdown table a section, what was skipped, what failed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Target:
    """What ours / peer should be. A rate should be at least that, anything else at most.

    `absolute`: what ours itself should be, whoever the peer is.
    """

    limit: float
    at_least: bool = False
    absolute: bool = False

    def __str__(self) -> str:
        return f"{'ours ' if self.absolute else ''}at {'least' if self.at_least else 'most'} {self.limit:g}"

    def met_by(self, ours: float, ratio: float | None) -> bool | None:
        value = ours if self.absolute else ratio
        if value is None:
            return None
        return value >= self.limit if self.at_least else value <= self.limit


def _median(values: Sequence[float] | None) -> float | None:
    return statistics.median(values) if values else None


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


@dataclass
class Report:
    """Prints as it goes. `failures` is what makes the whole run exit non-zero."""

    failures: list[str] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)

    def title(self, text: str) -> None:
        print(f"# {text}")

    def section(self, title: str, unit: str) -> None:
        self.end()
        print(f"\n## {title}\n")
        print(f"| row | ours ({unit}) | peer ({unit}) | ratio | target | met |")
        print("|---|---:|---:|---:|---|---|", flush=True)

    def row(self, name: str, ours: Sequence[float] | None, peer: Sequence[float] | None, target: Target | None) -> None:
        """One line: the medians of both, ours / peer, and the target if there is one."""
        mine, theirs = _median(ours), _median(peer)
        ratio = mine / theirs if mine is not None and theirs else None
        met = target.met_by(mine, ratio) if target is not None and mine is not None else None
        cells = (
            name,
            _number(mine),
            _number(theirs),
            "-" if ratio is None else f"{ratio:.2f}",
            "-" if target is None else str(target),
            "-" if met is None else "yes" if met else "**no**",
        )
        print(f"| {' | '.join(cells)} |", flush=True)

    def rows(
        self,
        values: Mapping[str, Sequence[float]],
        targets: Mapping[str, Target],
        prefix: str = "",
    ) -> None:
        """A line for each peer in `values`, where "ours" is the one they are held against."""
        for name, measured in values.items():
            if name != "ours":
                self.row(prefix + name, values.get("ours"), measured, targets.get(name))

    def skipped(self, what: str, why: str) -> None:
        """Said below the table it belongs to: a line within would end the table."""
        self._notes.append(f"**SKIPPED {what}: {why}**")

    def failed(self, what: str) -> None:
        self.failures.append(what)
        self._notes.append(f"**FAILED {what}**")

    def end(self) -> None:
        """Print what was skipped or failed since the last table began."""
        for note in self._notes:
            print(f"\n{note}", flush=True)
        self._notes.clear()
