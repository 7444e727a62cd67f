"""`signal` without the enum wrappers that the module puts around it: `plain` has the same names.

The wrappers cost more to import than a commit's disk writes, and stand between a lock's hand-over and its caller.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as plain
else:
    try:
        import _signal as plain
    except ImportError:
        import signal as plain

__all__ = ["plain"]
