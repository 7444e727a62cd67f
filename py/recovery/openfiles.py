"""How many files may be open at once: whoever goes through thousands of agents needs more than the usual 1,024."""

from __future__ import annotations

import resource

from recovery.errors import Unavailable


def allow(count: int) -> bool:
    """Raise this process's soft limit to `count`, or as far as it may be; whether so many may be open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or count <= soft:
        return True
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted == count


def require(agents: int) -> None:
    """For a change over all agents: a lock and a few folders of each are open at once.  Unavailable (69)."""
    count = 5 * agents + 64
    if not allow(count):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        raise Unavailable(
            f"about {count} files would have to be open at once, and {hard} may be. Nothing changed.",
            hint="raise the limit of open files (ulimit -Hn)",
        )
