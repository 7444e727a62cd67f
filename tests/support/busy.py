"""A workspace in which everything has happened that a report can show, written by hand, as of now."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

#: Words that would do harm where they were taken for more than words.
HOSTILE = (
    '<img src=x onerror=alert(1)> </script><script>document.title="owned"</script> "><a href=javascript:alert(2)> '
    "&lt; \x1b[31mred\x1b]0;owned\x07 \u202etfel\u202c \x00 %s {} ${x} ]]> --> '"
)


def iso(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2), encoding="utf-8")
    return path


def claim(by: str, since: float, generation: int = 1, **more: Any) -> dict[str, Any]:
    """A claim of a named session, which nobody can prove dead."""
    owner = {"session": "somebody"}
    one = {"generation": generation, "state": "held", "kind": "session", "owner": owner, "by": by, "since": iso(since)}
    return {**one, **more}


def change(seq: int, when: float, op: str, agent: str, task: str, after: dict[str, Any], **more: Any) -> str:
    """A line of the change log that leaves a claim in a task's entry."""
    path = ["tasks", ["task_id", task], "claim"]
    ops = [{"op": "set", "path": path, "before": None, "after": json.dumps(after)}]
    file = {"name": f"postbox/{agent}/outbox.json", "before": "a" * 40, "after": "b" * 40, "ops": ops}
    made = {"seq": seq, "txid": f"20261125T000000Z-{seq:012x}", "time": iso(when), "op": op, "agent": agent}
    by = {"pid": 4242, "uid": 0, "host": "here"}
    return json.dumps({**made, "task": task, "by": by, "files": [file], "derived": [], **more}) + "\n"


def tried(when: float, task: str, number: int = 1, incident: str = "i1", **details: Any) -> str:
    """A line of a recovery log: a try that failed."""
    return _line(when, task, f"{incident}-{number}", {"incident": incident, "attempt": number, **details})


def ended(when: float, task: str, outcome: str, incident: str = "i1", **details: Any) -> str:
    """The line that ends an incident."""
    numbers = {"outcome": outcome, "attempts": 2, "seconds": 2.5, "lock_wait": 0.0}
    return _line(when, task, f"{incident}-end", {"incident": incident, **numbers, **details})


def _line(when: float, task: str, txid: str, details: dict[str, Any]) -> str:
    kind, message = details.pop("kind", "ConnectionError"), details.pop("message", "no network")
    entry = {"txid": txid, "task_id": task, "timestamp": iso(when), "error_type": kind, "error_message": message}
    return json.dumps({**entry, "strategy": "RETRY", "success": False, "details": details}) + "\n"


def make(root: Path, now: float, words: str = HOSTILE) -> Path:
    """Agents CC (works, with `words` wherever somebody's words may stand), CA (idle), CB (its outbox is damaged)."""
    tasks: list[dict[str, Any]] = [
        {"task_id": "T-1", "title": words, "priority": "HIGH", "status": "in_progress", "created_at": iso(now - 9000)},
        {
            "task_id": "T-2",
            "title": "Dark mode",
            "status": "failed",
            "failure_reason": words,
            "failed_at": iso(now - 600),
        },
        {"task_id": "T-3", "title": words, "priority": "CRITICAL", "status": "pending", "created_at": iso(now - 9000)},
        {"task_id": "T-4", "title": "Waits", "status": "pending", "dependencies": ["T-3"]},
        {"task_id": "T-5", "title": "Done", "status": "completed", "completed_at": iso(now - 3000)},
    ]
    tasks[0]["claim"] = claim(words, now - 7200)
    write(root / "postbox/CC/outbox.json", {"agent_id": "CC", "tasks": tasks, "history": []})
    write(root / "postbox/CA/outbox.json", {"agent_id": "CA", "tasks": [], "history": []})
    write(root / "postbox/CB/outbox.json", '{"agent_id": "CB", "tasks": [{"task_id": "T-9", "ti')
    began, done = now - 5000, now - 3000
    waited = [{"lock": "postbox/CC/outbox.json", "seconds": 40.0, "held_by": words}]
    after = claim("codex", began, 1, state="done", ended=iso(done))
    swept = claim("gone", now - 8000, 1, state="swept", ended=iso(now - 7500), why=words)
    lines = [
        change(1, now - 8000, "claim", "CC", "T-3", claim("gone", now - 8000)),
        change(2, now - 7500, "sweep", "CC", "T-3", swept),
        change(3, began, "claim", "CC", "T-5", claim("codex", began)),
        change(4, done, "complete", "CC", "T-5", after, waited=waited),
    ]
    write(root / f"data/changes/{iso(now)[:7]}.jsonl", "".join(lines))
    crashed = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now - 2000)) + "-0123456789ab"
    about = {"agent": "CC", "op": "complete", "pid": 77}
    died = ended(
        now - 1900, "T-1", "recovered", crashed, kind="OwnerDied", message="finished `complete CC/T-1`", **about
    )
    failing = [
        tried(now - 900, "T-2", 1, message=words, agent="CC", op="complete"),
        ended(now - 800, "T-2", "failed", message=words, agent="CC", op="complete", code=1, stderr=words),
    ]
    write(root / "logs/recovery/T-1_recovery.jsonl", died)
    write(root / "logs/recovery/T-2_recovery.jsonl", "".join(failing))
    write(root / "logs/recovery/nightly_recovery.jsonl", ended(now - 400, "nightly", "recovered", agent="cron"))
    person = {"task_id": "T-3", "timestamp": iso(now - 300), "error_type": "Denied", "error_message": words}
    write(
        root / "logs/recovery/T-3_escalation.json", {**person, "agent_id": "CC", "strategy": "ESCALATE", "details": {}}
    )
    return root
