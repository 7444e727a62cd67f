"""Names: where things stand under a root, which ids are names, which lock covers which file.

Pure; the table of the contract, in one place.
"""

from __future__ import annotations

from recovery.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable

CONFIG = "data/config.json"
JOURNAL = "data/journal"
COMMIT_LOCK = ".commit.lock"
CONFLICTS = "data/conflicts"
QUARANTINE = "data/quarantine"
CHANGES = "data/changes"
CHECKPOINTS = "data/checkpoints"
LOGS = "logs/recovery"
MANUAL = "data/manual"
BREAKERS = "data/breakers"
TIMINGS = "data/timings"
ONCE = "data/once"
LOCKS = "data/locks"
TX = "data/tx"
CLAIMS = "data/claims"
RESULTS = "data/checks"
RECEIPTS = "data/receipts"
BUDGET = "data/budget.json"
REMINDED = "data/reminded.json"
SETUP = "data/setup.json"
STATISTICS = "data/statistics.json"
FOLDED = "data/folded.json"
INDEXES = "data/archive"
REMOVED = "data/removed"
ALERTS = "data/alerts.json"
ALERT_RULES = "alerts.rules"
CHECKS = "checks.json"
CHECK_LOGS = "logs/checks"
PROGRESS = ".sprint/progress.json"

#: The folders of what is everybody's.
FOLDERS = (
    ".sprint", "data", "logs", LOGS, CHANGES, CHECKPOINTS, CONFLICTS, QUARANTINE, CLAIMS, RECEIPTS, BREAKERS, MANUAL,
    ONCE, LOCKS, TIMINGS, RESULTS,
)  # fmt: skip

FORMAT = 1
#: Checks that a task may name.
MOST_CHECKS = 100

_ID = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def is_id(text: str) -> bool:
    """`[A-Za-z0-9][A-Za-z0-9._-]{0,127}` without `..`: what may become part of a path."""
    return bool(text) and len(text) <= 128 and text[0] not in "._-" and ".." not in text and _ID.issuperset(text)


def require_id(kind: str, text: str) -> str:
    """The id itself, or UsageError (64) that shows it harmlessly."""
    if not is_id(text):
        shown = ascii(text if len(text) < 60 else text[:57] + "...")
        raise UsageError(
            f"{kind} {shown} is not an id: letters, digits, . _ -, at most 128, beginning with a letter or digit. "
            "Nothing changed.",
            hint="see --help",
        )
    return text


def is_check(text: str) -> bool:
    """Whether a check may have this name: an id of at most 64, for its files are named after agent and task too."""
    return is_id(text) and len(text) <= 64


def outbox(agent: str) -> str:
    return f"postbox/{agent}/outbox.json"


def record(agent: str, task: str) -> str:
    return f"postbox/{agent}/completed/{task}_completion.json"


def archives(agent: str) -> str:
    """The folder of an agent's archived tasks."""
    return f"postbox/{agent}/archive"


def archive(agent: str, time: str) -> str:
    """The archive of the tasks completed in the month of `time` (ISO 8601)."""
    return f"{archives(agent)}/{time[:7]}.jsonl"


def is_archive(name: str) -> bool:
    """Whether it is called as one month's archive of an agent is."""
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != "postbox" or parts[2] != "archive" or not is_id(parts[1]):
        return False
    month = parts[3][:7]
    return parts[3] == month + ".jsonl" and month[4:5] == "-" and is_id(month) and month.replace("-", "", 1).isdigit()


def index(agent: str) -> str:
    """Which archived task of an agent is in which month."""
    return f"{INDEXES}/{agent}.index"


def removed(agent: str) -> str:
    """That an agent was removed on purpose."""
    return f"{REMOVED}/{agent}.json"


def receipts(agent: str) -> str:
    """All receipts of an agent, a line each."""
    return f"{RECEIPTS}/{agent}.jsonl"


def receipts_head(agent: str) -> str:
    """The hash of the last of them."""
    return f"{RECEIPTS}/{agent}.json"


def inbox(agent: str, task: str) -> str:
    return f"postbox/{agent}/inbox/{task}.md"


def checkpoint(task: str, folder: str = CHECKPOINTS) -> str:
    return f"{folder}/{task}_checkpoint.json"


def history(task: str, folder: str = CHECKPOINTS) -> str:
    return f"{folder}/{task}_history.jsonl"


def recovery_log(task: str, folder: str = LOGS) -> str:
    return f"{folder}/{task}_recovery.jsonl"


def escalation(task: str, n: int = 0, folder: str = LOGS) -> str:
    """The n-th escalation of a task: a later one never overwrites an earlier."""
    return f"{folder}/{task}_escalation{'.' + str(n) if n else ''}.json"


def flag(task: str) -> str:
    """The file that parks a task until a person removes it."""
    return f"{MANUAL}/{task}.json"


def changes(time: str) -> str:
    """The change log that a commit at `time` (ISO 8601) belongs to."""
    return f"{CHANGES}/{time[:7]}.jsonl"


def set_aside(agent: str, task: str, txid: str, kind: str) -> str:
    """`kind` is "conflict" (an edit that met somebody else's) or "parked" (a record still to be finished)."""
    return f"{CONFLICTS}/{whose(agent, task)}{txid}.{kind}.json"


def whose(agent: str, task: str) -> str:
    """How the names of a task's set-aside records begin; ids that would make them too long are told by their hash."""
    from recovery.durable import digest_of  # which not every verb needs

    key = f"{agent}@{task}"
    return (key if len(key) <= 120 else digest_of(key.encode())) + "@"


#: So many names of one folder are called by one pattern in a lock's note, which has to stay short.
_FEW = 8


def for_note(names: Iterable[str]) -> list[str]:
    """The files a lock's holder may stage, for its note: many of one folder as `FOLDER/*`."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    found = []
    for folder, some in by_folder.items():
        found += some if len(some) <= _FEW else [f"{folder}/*"]
    return found


def briefs(agent: str) -> str:
    """All briefs of an agent, as the name of a file that may be staged."""
    return f"postbox/{agent}/inbox/*"


def lock_of(name: str) -> str:
    """The data lock that covers a file: beside it, and the outbox's for what belongs to the outbox."""
    folder, _, base = name.rpartition("/")
    parts = name.split("/")
    if len(parts) == 4 and parts[0] == "postbox" and parts[2] in ("completed", "inbox"):
        folder, base = f"postbox/{parts[1]}", "outbox.json"
    elif folder == RECEIPTS and base.endswith(".json"):
        folder, base = f"postbox/{base[:-5]}", "outbox.json"
    elif folder == RESULTS:
        base = "results"  # one for all: a lock file each would stay for ever
    return f"{folder}/.{base}.lock" if folder else f".{base}.lock"


def lock_order(locks: Iterable[str]) -> list[str]:
    """By path, progress.json last: the one order in which everybody takes data locks."""
    last = lock_of(PROGRESS)
    return sorted(set(locks), key=lambda name: (name == last, name))
