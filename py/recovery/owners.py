"""Owners of claims: who is asking, and whether somebody else is still there.

Alive and dead are never guessed from silence.  A command under `recovery run` is alive while the kernel's lock on its
claim is held, or anybody of its process group lives; a session while its process lives; a lease until its time.
What can't be known (another pid namespace, another host) is "unknown", and such a claim is nobody's to take.
"""

from __future__ import annotations

import os
import time

from recovery import flock, processes, say
from recovery.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping, Optional

    from recovery.processes import Process
    from recovery.store import FileStore

    Claim = dict[str, Any]
    Owner = dict[str, Any]

ALIVE, DEAD, EXPIRED, UNKNOWN = "alive", "dead", "expired", "unknown"
#: Seconds without a sign of life after which a claim is shown as silent.
SILENT = 3600
#: Characters of a RECOVERY_SESSION.
MOST = 200

# fmt: off
_SHELLS = frozenset((
    "sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "busybox", "tcsh", "csh",
))
#: Programs that only start another one and wait for it.
_WRAPPERS = frozenset((
    "env", "timeout", "nice", "nohup", "xargs", "make", "gmake", "sudo", "doas", "su", "flock", "setsid", "stdbuf",
    "time", "npx", "npm", "uv", "uvx", "ionice", "chrt", "taskset", "setpriv", "unshare", "nsenter", "parallel",
    "find", "watch", "just", "recovery",
))
#: Programs that outlive every session: whoever is started by one of them has none.
_SERVICES = frozenset((
    "cron", "crond", "anacron", "atd", "systemd", "init", "sshd", "sshd-session", "login", "tini", "dumb-init",
    "docker-init", "containerd-shim", "conmon", "runc", "crun", "runsv", "s6-supervise", "supervisord", "launchd",
    "catatonit",
))
_INTERPRETERS = frozenset((
    "node", "python", "python3", "ruby", "perl", "deno", "bun",
))
# fmt: on


# --- who is asking


def caller(environ: Mapping[str, str]) -> tuple[Owner, str]:
    """The session that this command belongs to, and words for it; ({}, "") if there is none.

    RECOVERY_SESSION, where it is set: a number is a living process (`export RECOVERY_SESSION=$$`), any other text is a
    name, which never dies by itself.  Else the nearest ancestor that isn't there for this command only: an interactive
    shell or a program, not a shell that runs a script, nor a wrapper such as env or timeout, nor a service such as
    cron.  UsageError (64): no such process.
    """
    text = environ.get("RECOVERY_SESSION", "")
    if not text:
        process = _nearest(processes.ancestors(os.getpid()))
        return (_identity(process), _named(process)) if process is not None else ({}, "")
    if not text.isascii() or not text.isdigit():
        if len(text) > MOST:
            raise UsageError(f"RECOVERY_SESSION is longer than {MOST} characters")
        return {"session": _utf8(text)}, f"session {_utf8(text)}"
    process = processes.look(int(text[:9]))
    if process is None or process.state in "ZX" or str(process.pid) != text:
        raise UsageError(
            f"RECOVERY_SESSION={text[:20]}: there is no such process", hint="export RECOVERY_SESSION=$$, or a name"
        )
    return _identity(process), _named(process)


def _nearest(above: list[Process]) -> Optional[Process]:
    for process in above:
        if process.pid == 1 or is_service(process.name, process.words()):
            return None
        if not is_passing(process.name, process.words()):
            return process
    return None


def is_passing(name: str, words: list[str]) -> bool:
    """Whether a program is there for one command only: a shell with -c or a script, or a wrapper."""
    program = _program(words, name)
    if program in _WRAPPERS:
        return True
    if program in _INTERPRETERS:  # npx is a script of node's
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        return os.path.basename(script).partition("-cli.")[0] in _WRAPPERS
    if program not in _SHELLS:
        return False
    for word in words[1:]:
        if word[:1] not in "-+" or word == "--":
            return True  # a script, or what behind -o looks like one: too far up is better than a shell that ends
        if not word.startswith("--") and "c" in word[1:]:
            return True
    return False


def is_service(name: str, words: list[str]) -> bool:
    """Whether a program outlives every session: cron, systemd, sshd, a container's shim, a terminal multiplexer."""
    program = _program(words, name)
    return bool({program, name} & _SERVICES) or name.startswith(("tmux: server", "containerd-shim", "screen"))


def _program(words: list[str], name: str) -> str:
    first = words[0].split(" ")[0] if words and words[0] else name  # some programs write a title there
    return os.path.basename(first).lstrip("-").rstrip(":") or name


def _identity(process: Process) -> Owner:
    me = flock.identity()
    return {"pid": process.pid, "start": process.start, "boot": me["boot"], "namespace": me["namespace"],
            "host": me["host"]}  # fmt: skip


def _named(process: Process) -> str:
    return f"pid {process.pid}, {_program(process.words(), process.name)}"


def this_process() -> Owner:
    """The owner that is this very process."""
    return dict(flock.identity())


def is_same(one: Owner, other: Owner) -> bool:
    """Whether two owners are one."""
    if "session" in one or "session" in other:
        return one.get("session") == other.get("session")
    keys = ("pid", "start", "boot", "namespace", "host")
    return bool(one) and all(one.get(key) == other.get(key) for key in keys)


def is_caller(claim: Claim) -> bool:
    """Whether this command acts for the claim's owner: it is of that session, or a descendant of that process.

    Where RECOVERY_SESSION says who one is, only that counts.
    """
    owner = claim["owner"]
    if claim.get("kind") != "run" and os.environ.get("RECOVERY_SESSION"):
        return is_same(owner, caller(os.environ)[0])
    if "pid" not in owner:
        return False
    me = {"pid": os.getpid(), "start": flock.start_time(os.getpid())}
    above = [me, *({"pid": process.pid, "start": process.start} for process in processes.ancestors(os.getpid()))]
    return where(owner) == "here" and any((one["pid"], one["start"]) == (owner["pid"], owner["start"]) for one in above)


# --- is it still there


def judge(store: FileStore, agent: str, task: str, claim: Claim, trust_locks: bool = False) -> tuple[str, str]:
    """How it stands with a held claim's owner: ALIVE, DEAD, EXPIRED or UNKNOWN, and words that say why.

    `trust_locks`: a free kernel lock is proof enough of the death of a command in another container or on another
    host, for callers who know that none runs.  Changes nothing.
    """
    if claim.get("kind") == "run":
        from recovery import claim_locks

        return claim_locks.judge(store, agent, task, claim, trust_locks)
    if claim.get("lease"):
        return (EXPIRED, f"its lease ended at {claim.get('lease_until')}") if is_expired(claim) else (ALIVE, "")
    return judge_process(claim["owner"])


def judge_process(owner: Owner) -> tuple[str, str]:
    """The same for a session: a name never dies, a process is dead when it is gone."""
    if "pid" not in owner:
        return ALIVE, ""
    place = where(owner)
    if place == "rebooted":
        return DEAD, "the machine was started anew since"
    if place != "here":
        return UNKNOWN, place
    if processes.is_gone(int(owner["pid"]), str(owner.get("start", ""))):
        return DEAD, f"pid {owner['pid']} is gone"
    return ALIVE, ""


def where(owner: Owner) -> str:
    """Whether a process can be looked for: "here", "rebooted" (this host, an earlier boot), or why it can't."""
    me = flock.identity()
    if owner.get("boot") != me["boot"]:
        same = owner.get("host") == me["host"]
        return "rebooted" if same else f"host {say.shown(owner.get('host'), 120)} can't be looked into from here"
    if owner.get("namespace") != me["namespace"]:  # the kernel is this one, whatever the host is called by now
        return "another container can't be looked into from here"
    return "here"


def silent_since(store: FileStore, agent: str, task: str, claim: Claim, now: Optional[float] = None) -> str:
    """The time of a living owner's last sign of life, where that was more than SILENT seconds ago; else "".

    The claim, a lease's renewal, and each checkpoint of the task is one.
    """
    from recovery import jsontext, layout

    last = str(claim.get("since", ""))
    version = store.read(layout.checkpoint(task), strict=False)
    try:
        found = jsontext.loads(jsontext.from_latin(version.text)) if version is not None else {}
    except ValueError:
        found = {}
    data = found.get("data") if isinstance(found, dict) else None
    if isinstance(data, dict) and data.get("agent", agent) == agent:
        last = max(last, str(found.get("timestamp", "")))
    limit = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((time.time() if now is None else now) - SILENT))
    return last if last < limit else ""


# --- leases


def lease(seconds: float, boot: str = "", clock: Optional[float] = None, now: Optional[float] = None) -> Claim:
    """A lease of so many seconds from now on, as members of a claim."""
    until = (time.time() if now is None else now) + seconds
    return {
        "lease": int(seconds) if seconds == int(seconds) else seconds,
        "lease_until": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until)),
        "lease_clock": {
            "boot": boot or flock.identity()["boot"],
            "until": round((_uptime() if clock is None else clock) + seconds, 3),
        },
    }


def is_expired(claim: Claim, boot: str = "", clock: Optional[float] = None, now: Optional[float] = None) -> bool:
    """Whether a lease is over.

    Within one boot the kernel's own clock tells, which nobody sets.  After a reboot it is the time of day; one that
    stands before the claim's beginning can't measure it, and the lease is over: it can't become longer than it was.
    """
    marks = claim.get("lease_clock")
    if isinstance(marks, dict) and marks.get("boot") == (boot or flock.identity()["boot"]):
        return bool((_uptime() if clock is None else clock) >= marks.get("until", 0))
    day = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    return not str(claim.get("since", "")) <= day < str(claim.get("lease_until", ""))


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _utf8(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "replace")
