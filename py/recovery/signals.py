"""What is used of `signal`, without the enum wrappers that the module puts around it.

They cost more to import than a commit's disk writes, and stand between a lock's hand-over and its caller.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import (
        ITIMER_REAL,
        SIG_BLOCK,
        SIG_DFL,
        SIG_SETMASK,
        SIG_UNBLOCK,
        SIGALRM,
        SIGHUP,
        SIGINT,
        SIGTERM,
        getitimer,
        pthread_sigmask,
        setitimer,
        signal,
    )
else:
    try:
        from _signal import (
            ITIMER_REAL,
            SIG_BLOCK,
            SIG_DFL,
            SIG_SETMASK,
            SIG_UNBLOCK,
            SIGALRM,
            SIGHUP,
            SIGINT,
            SIGTERM,
            getitimer,
            pthread_sigmask,
            setitimer,
            signal,
        )
    except ImportError:
        from signal import (
            ITIMER_REAL,
            SIG_BLOCK,
            SIG_DFL,
            SIG_SETMASK,
            SIG_UNBLOCK,
            SIGALRM,
            SIGHUP,
            SIGINT,
            SIGTERM,
            getitimer,
            pthread_sigmask,
            setitimer,
            signal,
        )

__all__ = [
    "ITIMER_REAL",
    "SIGALRM",
    "SIGHUP",
    "SIGINT",
    "SIGTERM",
    "SIG_BLOCK",
    "SIG_DFL",
    "SIG_SETMASK",
    "SIG_UNBLOCK",
    "getitimer",
    "pthread_sigmask",
    "setitimer",
    "signal",
]
