"""Agents that take tasks and are shot, in the short form; the long one is `make agents`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

LONG = Path(__file__).resolve().parents[1] / "long" / "agents.py"


def _agents() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agents", LONG)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["agents"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_agents_that_are_shot_complete_every_task_once_and_never_two_at_a_time(tmp_path: Path) -> None:
    found = _agents().Crowd(tmp_path, agents=6, tasks=60, seed=7).run()
    assert found.wrong(60) == []
    assert sum(found.completions.values()) == 60
    assert sum(found.kills.values()) > 0, "nobody was shot"
