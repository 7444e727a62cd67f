"""One hook that sees every step of a command: the debug trace and the crash tests hang on it.

`steps.at("replace", name)` is a call of a function that does nothing unless `RECOVERY_DEBUG=1` or a fault
point is asked for, so the ordinary path pays one call a step.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Mapping


def _nothing(step: str, detail: object = "") -> None:
    pass


at: Callable[..., None] = _nothing


def is_installed() -> bool:
    """Whether anybody looks at the steps."""
    return at is not _nothing


def install(environ: Mapping[str, str]) -> None:
    """Set the hook from the environment; call once, before the first step."""
    global at
    hooks = []
    if environ.get("RECOVERY_DEBUG") == "1":
        from recovery import trace

        hooks.append(trace.tracer())
    if environ.get("RECOVERY_FAULT"):
        from recovery import faultpoints

        hooks.append(faultpoints.injector(environ["RECOVERY_FAULT"]))
    if len(hooks) == 1:
        at = hooks[0]
    elif hooks:

        def both(step: str, detail: object = "") -> None:
            for hook in hooks:
                hook(step, detail)

        at = both
