"""`recovery prime` and the hooks, which an agent's program runs, beside a completion; whole processes, taking turns."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from contenders import OURS, Contender
from scratch import Workspace, tasks_for
from table import Report, Target
from timing import CommandFailed, run

RECOVERY = str(OURS.with_name("recovery"))
_SIZES = ((9_000, "9 KB"), (10_000_000, "10,000 tasks"))


class Priming:
    """The section about what an agent's program runs."""

    def __init__(self, report: Report, scratch: Path, ours: Contender, quick: bool) -> None:
        self.report, self.scratch, self.ours, self.quick = report, scratch, ours, quick
        self.errors = scratch / "stderr"

    def prime(self) -> None:
        """In an outbox of the usual size, with a claim and a failure before it, and in a large one."""
        for size, name in _SIZES[:1] if self.quick else _SIZES:
            rounds = 7 if self.quick else 40 if size < 1_000_000 else 15
            self.report.section(f"Beside a completion there, {name} ({rounds} rounds)", "ms")
            workspace = Workspace(self.scratch / f"prime-{size}" / "root")
            env = {**self.ours.env(workspace.root), "RECOVERY_SESSION": "bench"}
            inputs: dict[str, dict[str, object]] = {
                "PreToolUse": {"tool_name": "Write", "tool_input": {"file_path": str(workspace.root / "src/a.py")}},
                "Stop": {"session_id": "s", "stop_hook_active": False},
            }
            times: dict[str, list[float]] = {name: [] for name in ("completion", "prime", *inputs)}
            try:
                for number in range(rounds + 1):  # the first warms up
                    agent, task = workspace.fill(10_000 if size > 1_000_000 else tasks_for(size))[0]
                    self._prepare(workspace, env)
                    took = {"prime": run([RECOVERY, "prime", agent], env, self.errors)}
                    for event, given in inputs.items():
                        took[event] = self._hook(event, {"cwd": str(workspace.root), **given}, env)
                    took["completion"] = run(self.ours.argv(workspace.root, agent, task), env, self.errors)
                    for what, milliseconds in took.items():
                        times[what] += [milliseconds] if number else []
            except CommandFailed as error:
                self.report.failed(f"prime: {error}")
            finally:
                shutil.rmtree(workspace.root.parent, ignore_errors=True)
            self.report.row("prime / completion", times["prime"], times["completion"], Target(1.5))
            for event in inputs:
                self.report.row(f"hook claude {event} / completion", times[event], times["completion"], Target(1.5))

    def _prepare(self, workspace: Workspace, env: dict[str, str]) -> None:
        """A claim of this session, which was reminded of it; a task that has failed before."""
        subprocess.run([RECOVERY, "claim", "A1", "--next", "-q"], env=env, check=True)
        self._hook("Stop", {"session_id": "s", "cwd": str(workspace.root)}, env)
        (task, *_) = [one for one in json.loads(workspace.outbox("A1").read_bytes())["tasks"] if "claim" in one]
        log = workspace.root / "logs" / "recovery" / f"{task['task_id']}_recovery.jsonl"
        line = {"txid": "x", "task_id": task["task_id"], "timestamp": "2026-11-25T00:00:00Z", "success": False}
        line |= {"error_type": "ExitCode", "error_message": "make exited with 2", "details": {"agent": "A1"}}
        log.write_text((json.dumps(line) + "\n") * 100)

    def _hook(self, event: str, given: dict[str, object], env: dict[str, str]) -> float:
        """One hook as a program runs it, its input from a file."""
        text = self.scratch / "hook.json"
        text.write_text(json.dumps(given))
        return run(["sh", "-c", f'"$1" hook claude {event} <"$2" || :', "sh", RECOVERY, str(text)], env, self.errors)
