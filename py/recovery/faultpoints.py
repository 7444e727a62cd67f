"""Crash at a named step: how the crash tests stop a command exactly where they want to.

`RECOVERY_FAULT=STEP[:N]=ACTION` acts when STEP is met for the N-th time (default 1).  Several, separated by
commas, may be given.  Actions:

    kill          SIGKILL to this process only
    kill-group    SIGKILL to the whole process group
    term          SIGTERM to this process
    EIO, ENOSPC … raise OSError with that errno, as if the call at this step had failed
    wait=PATH     create PATH.reached and wait until PATH exists (a barrier for tests of races)
    list=PATH     append the step's name to PATH (how the tests learn which steps there are)

STEP `*` meets every step.  Without the variable this module is never imported.
"""

from __future__ import annotations

import errno
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable


def injector(text: str) -> Callable[..., None]:
    """A hook for `steps.at` that carries out what `text` asks for; ValueError on a text it can't read."""
    plan = []
    for part in text.split(","):
        step, _, action = part.partition("=")
        name, _, count = step.partition(":")
        if not action:
            raise ValueError(f"RECOVERY_FAULT: {part!r} is not STEP[:N]=ACTION")
        plan.append((name, int(count or 1), action))
    seen: dict[str, int] = {}

    def inject(step: str, detail: object = "") -> None:
        seen[step] = seen.get(step, 0) + 1
        seen["*"] = seen.get("*", 0) + 1
        for name, count, action in plan:
            if action.startswith("list="):
                if name in ("*", step):
                    with open(action[5:], "a") as out:
                        out.write(f"{step}:{seen[step]}\n")
            elif name in ("*", step) and count == seen[name]:
                _act(action, step)

    return inject


def _act(action: str, step: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "kill-group":
        os.killpg(os.getpgid(0), signal.SIGKILL)
    elif action == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif action.startswith("wait="):
        gate = action[5:]
        with open(gate + ".reached", "w"):
            pass
        while not os.path.exists(gate):
            time.sleep(0.001)
    else:
        number = getattr(errno, action, None)
        if not isinstance(number, int):
            raise ValueError(f"RECOVERY_FAULT: unknown action {action!r}")
        raise OSError(number, os.strerror(number) + f" (fault point {step})")
