"""A workspace that the health check looks at."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recovery.health import VERB, health
from recovery.request import Request
from recovery.result import Result
from support.workspace import Workspace


class Space:
    """A workspace with documented locks beside it, looked at in this very process."""

    def __init__(self, root: Path) -> None:
        self.root = Workspace.make(root).root
        self.locks = root.with_name("documented locks")
        (self.locks / "tasks").mkdir(parents=True)
        self.environ = {"ORCHESTRATION_LOCK_DIR": str(self.locks)}

    def look(self, *words: str, clock: Callable[[], float] = time.time, **environ: str) -> Result:
        asked = Request("health", VERB, ["-C", str(self.root), *words])
        return health(asked, {**self.environ, **environ}, clock)

    def level(self, *words: str, **environ: str) -> str:
        return str(self.look(*words, clock=time.time, **environ).data["level"])

    def found(self, check: str, *words: str, **environ: str) -> tuple[str, str, dict[str, Any]]:
        """A check's level, its words and its numbers."""
        one = self.look(check, *words, clock=time.time, **environ).data["checks"][check]
        return one["level"], one["text"], one["values"]

    def write(self, name: str, content: object) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def tree(self) -> str:
        """Everything in the workspace and among the locks: names, modes, times of change, bytes."""
        sums = hashlib.sha256()
        for above in (self.root, self.locks):
            for path in sorted(above.rglob("*")):
                st = path.lstat()
                sums.update(f"{path} {st.st_mode} {st.st_uid} {st.st_mtime_ns} {st.st_ctime_ns} {st.st_ino}".encode())
                sums.update(path.read_bytes() if path.is_file() else b"")
        return sums.hexdigest()
