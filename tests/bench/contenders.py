"""Who is measured: ours, and the scripts of `peers/` with every jq there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
OURS = REPOSITORY / "bin" / "complete_task_with_recovery.sh"
MESSAGE = 'Done: it\'s all "green", see the notes ✓ nothing is left to do'


@dataclass(frozen=True)
class Contender:
    """One way to complete a task, as a whole process."""

    name: str
    script: Path
    jq: str = ""
    version: tuple[int, ...] = ()

    @property
    def ours(self) -> bool:
        return self.script == OURS

    @property
    def old(self) -> bool:
        """A jq from before 1.7: slow to start, and it rounds large numbers."""
        return bool(self.jq) and self.version < (1, 7)

    @property
    def database(self) -> bool:
        return self.script.name == "complete_sqlite.sh"

    def argv(self, root: Path, agent: str, task: str) -> list[str]:
        where = [] if self.ours else [str(root)]
        return [str(self.script), *where, agent, task, MESSAGE]

    def env(self, root: Path) -> Mapping[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RECOVERY_")}
        if self.jq:
            kept["BENCH_JQ"] = self.jq
        return kept | {
            "ORCHESTRATION_ROOT": str(root),
            "ORCHESTRATION_LOCK_DIR": str(root.parent / "locks"),
        }

    def prepare(self, root: Path, agents: Sequence[str]) -> None:
        """What the peer needs besides the files, outside of the time measured."""
        if self.database:
            subprocess.run([HERE / "peers" / "import_sqlite.sh", root, *agents], check=True)
            os.sync()


def jq_contenders(asked_for: str | None) -> list[Contender]:
    """A contender for each different jq, the newest first: the one asked for, and the one on PATH."""
    found: dict[Path, Contender] = {}
    for name in (asked_for, "jq"):
        path = shutil.which(name) if name else None
        if path is None or Path(path).resolve() in found:
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        version = tuple(int(part) for part in re.findall(r"\d+", said.stdout)[:3])
        script = HERE / "peers" / "complete_jq.sh"
        found[Path(path).resolve()] = Contender(f"{said.stdout.strip()} script", script, path, version)
    return sorted(found.values(), key=lambda contender: contender.version, reverse=True)


def contenders(asked_for: str | None) -> list[Contender]:
    """Everybody who can take part here: ours first, then jq from the newest, then sqlite."""
    everybody = [Contender("ours", OURS)] if OURS.exists() else []
    everybody += jq_contenders(asked_for)
    if shutil.which("sqlite3"):
        everybody.append(Contender("sqlite + export", HERE / "peers" / "complete_sqlite.sh"))
    return everybody
