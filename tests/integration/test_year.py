"""A small year: `tests/long/year.py` with few tasks, so that what it asks for holds with every change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

YEAR = Path(__file__).resolve().parents[1] / "long" / "year.py"


def test_a_small_year_stays_within_its_bounds_and_counts_right(tmp_path: Path) -> None:
    """Six weeks of two agents; whether the last month is as fast as the first is for long runs to say."""
    small = ["--tasks", "60", "--agents", "2", "--days", "40", "--ratio", "0", "--dir", str(tmp_path)]
    done = subprocess.run([sys.executable, str(YEAR), *small], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 tasks of 2 agents in 40 days" in done.stdout
