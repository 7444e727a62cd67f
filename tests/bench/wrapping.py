"""`recovery try` and `recovery tx` against what people would put before their command instead."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from contenders import REPOSITORY
from table import Report, Target
from timing import interleaved

OURS = REPOSITORY / "bin" / "recovery"
#: Command lines of PyPI that run a command again where it fails; the two that start fastest of six that were tried.
PEERS = ("retryflake", "shell-retry")
#: What a careful person writes: lock, copy, change, sync, rename, sync.
HAND_MADE = """
set -eu
exec 9>>".$1.lock"
flock 9
cp -p "$1" ".$1.new"
"$2" '.version = "2"' "$1" >".$1.new"
sync ".$1.new"
mv ".$1.new" "$1"
sync .
"""


class Wrapping:
    """The sections about the verbs that run somebody's command; whole processes, taking turns."""

    def __init__(self, report: Report, scratch: Path, jqs: Sequence[str], quick: bool) -> None:
        self.report, self.scratch, self.jqs, self.quick = report, scratch, jqs, quick
        self.errors = scratch / "stderr"

    def tries(self) -> None:
        """A command that succeeds at once, behind each."""
        rounds = 10 if self.quick else 100
        env = self._env("try")
        contenders = {"ours": [str(OURS), "try", "bench", "--", "true"], "the bare command": ["true"]}
        folder = Path(sys.executable).parent
        for peer in PEERS:
            program = shutil.which(peer, path=str(folder)) or shutil.which(peer)
            if program is None:
                self.report.skipped(peer, "not installed (the `bench` extra installs it)")
            else:
                contenders[peer] = [program, *(["--"] if peer == "retryflake" else []), "true"]
        times = interleaved(contenders, env, rounds, self.errors, self.report.failed)
        self.report.section(f"recovery try of true, whole process ({rounds} rounds)", "ms")
        self.report.rows(times, dict.fromkeys(PEERS, Target(1.0)))
        over = [a - b for a, b in zip(sorted(times["ours"]), sorted(times["the bare command"]), strict=True)]
        self.report.row("over the bare command", over, None, Target(20, absolute=True))

    def transactions(self) -> None:
        """One member of a 9 KB JSON file changed by jq, durably, in a plain folder and in a workspace."""
        rounds = 10 if self.quick else 100
        for jq in self.jqs:
            for where in ("plain", "workspace"):
                env = self._env(f"tx-{where}")
                root = Path(env["ORCHESTRATION_ROOT"])
                folder = root / "shared" if where == "workspace" else self.scratch / "plain tx"
                folder.mkdir(exist_ok=True)
                for name in ("ours.json", "theirs.json"):
                    tasks = [{"id": n, "title": f"Task {n}", "status": "pending"} for n in range(160)]
                    (folder / name).write_text(json.dumps({"version": "1", "tasks": tasks}))
                ours = [str(OURS), "tx", str(folder / "ours.json"), "--stdout", "--", jq, '.version = "2"', "{}"]
                hand_made = ["sh", "-c", f'cd "$3"{HAND_MADE}', "sh", "theirs.json", jq, str(folder)]
                size = (folder / "ours.json").stat().st_size
                name = f"hand-made flock + cp + {jq} + sync + mv"

                def unchanged(folder: Path = folder) -> None:
                    for file in folder.glob("*.json"):
                        file.write_text(file.read_text().replace('"version": "2"', '"version": "1"'))

                both = {"ours": ours, name: hand_made}
                times = interleaved(both, env, rounds, self.errors, self.report.failed, unchanged)
                self.report.section(f"recovery tx, {size / 1000:.1f} KB JSON, {where} ({rounds} rounds)", "ms")
                self.report.rows(times, {name: Target(1.3)})
                for file in ("ours.json", "theirs.json"):
                    if json.loads((folder / file).read_text())["version"] != "2":
                        self.report.failed(f"recovery tx: {file} was not changed")

    def _env(self, name: str) -> dict[str, str]:
        root = self.scratch / name
        (root / "postbox").mkdir(parents=True, exist_ok=True)
        return {**os.environ, "ORCHESTRATION_ROOT": str(root), "ORCHESTRATION_LOCK_DIR": str(root / "locks")}
