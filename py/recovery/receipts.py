"""receipts: list, show and verify what says that completions were checked."""

from __future__ import annotations

from recovery import archived, chain, jsontext, layout, tasks, verbs
from recovery.errors import FAILED, DataError, NotFound, RecoveryError, UsageError
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore

ACTIONS = ("list", "show", "verify")


def listed(store: FileStore, agent: str) -> Result:
    """All receipts of an agent, or without one of everybody, in order; those that were revoked say so."""
    agents = chain.agents(store)
    if agent and agent not in agents:
        raise NotFound(f"{agent} has no receipts", hint="agents that have: " + (", ".join(agents) or "none"))
    found: list[dict[str, Any]] = []
    shown: list[str] = []
    for one in [agent] if agent else agents:
        lines, _ = chain.lines(store, one)
        holds = {line.get("hash") for line in chain.standing(lines).values()}
        for line in lines:
            receipt = line.get("receipt")
            if not isinstance(receipt, dict):
                continue
            kind = receipt.get("kind")
            holding = {"revoked": "revokes", "restored": "restores"}.get(
                str(kind), "holds" if line.get("hash") in holds else "revoked"
            )
            names = " ".join(sorted(chain.passed(line)))
            found.append({"agent": one, "hash": line.get("hash"), "state": holding, "receipt": receipt})
            shown.append(
                tasks.shown(
                    f"{one} {receipt.get('number')}  {receipt.get('time')}  {str(line.get('hash'))[:12]}  {holding:<8}"
                    f"{receipt.get('task')}  {names}".rstrip(),
                    400,
                )
            )
    said = f"{len(found)} receipt{'' if len(found) == 1 else 's'}"
    return Result(said, False, {"ok": True, "code": 0, "changed": False, "receipts": found}, shown)


def show(store: FileStore, agent: str, task: str) -> Result:
    """The receipt that a task's completion has now.  NotFound (66) if it has none."""
    line = chain.standing(chain.lines(store, agent)[0]).get(task)
    if line is None:
        raise NotFound(f"{agent}/{task} has no receipt", hint=f"recovery receipts list {agent}")
    receipt = line["receipt"]
    data = {"ok": True, "code": 0, "changed": False, "hash": line["hash"], "receipt": receipt}
    text = [tasks.shown(part, 1000) for part in jsontext.pretty(receipt).splitlines()]
    return Result(f"{agent}/{task}: receipt {receipt.get('number')}, {line['hash']}", False, data, text)


def verify(store: FileStore, agent: str = "", anchor: str = "") -> Result:
    """Look whether chains, completion records and outboxes fit together; the code is 1 where they don't.

    `anchor` is the hash of a receipt that somebody wrote down: the code is 1 too where no chain holds it any more.
    Takes no lock: whoever completes meanwhile may be met half-way, so a chain that doesn't fit is looked at again.
    """
    agents = [agent] if agent else sorted(set(chain.agents(store)) | set(_with_records(store)))
    if agent and agent not in verbs.agents(store) and agent not in chain.agents(store):
        raise NotFound(f"there is no agent {agent}", hint="agents that have receipts: " + " ".join(chain.agents(store)))
    found: dict[str, Any] = {}
    details: list[str] = []
    met = False
    count = bad = 0
    for one in verbs.one_by_one(store, agents):
        wrong, lines, last = _verified(store, one)
        if wrong:
            wrong, lines, last = _verified(store, one)
        met = met or any(line.get("hash") == anchor for line in lines)
        count += len(lines)
        bad += len(wrong)
        found[one] = {"receipts": len(lines), "head": last, "findings": wrong}
        details += [tasks.shown(f"{one}: {what}", 500) for what in wrong]
        if last is not None and not wrong:
            details.append(f"{one}: {len(lines)} receipt(s), head {last}")
    data: dict[str, Any] = {"ok": not bad, "code": FAILED if bad else 0, "changed": False, "agents": found}
    line = f"{bad} thing(s) don't fit" if bad else f"{count} receipt(s) of {len(agents)} agent(s) fit together"
    if anchor:
        data["anchor"] = met
        line += f"; the anchor {anchor[:12]} is " + ("there" if met else "in no chain: what was there then is gone")
        if not met:
            data.update(ok=False, code=FAILED)
    return Result(line, False, data, details)


def _with_records(store: FileStore) -> list[str]:
    return [name for name in store.list("postbox") if layout.is_id(name) and store.list(f"postbox/{name}/completed")]


def _verified(store: FileStore, agent: str) -> tuple[list[str], list[dict[str, Any]], Optional[str]]:
    wrong: list[str] = []
    lines: list[dict[str, Any]] = []
    torn, number, last = 0, 0, None
    try:
        lines, torn = chain.lines(store, agent)
    except RecoveryError as error:  # a folder in its place, or no permission
        return [str(error)], [], None
    try:
        head = chain.head(store, agent)
        number, last = head.number, head.hash
    except DataError as error:
        wrong.append(str(error))
        number, last = len(lines), str(lines[-1].get("hash")) if lines else None
    archive = {line["task_id"]: line for line in archived.every(store, agent)} if lines else {}
    entries: Optional[dict[str, dict[str, Any]]] = None
    try:
        entries = _entries(store, agent, archive)
        if entries is None and lines:
            wrong.append(f"{layout.outbox(agent)}, which its receipts speak of, is gone")
    except RecoveryError as error:
        wrong.append(str(error))
    end = "_completion.json"
    records = {
        base[: -len(end)]: _record(store, f"postbox/{agent}/completed/{base}")
        for base in store.list(f"postbox/{agent}/completed")
        if base.endswith(end) and not base.startswith(".")
    }
    for task, line in archive.items():
        if "record" in line:
            records.setdefault(task, line["record"])
    return wrong + chain.findings(agent, last, number, lines, torn, records, entries), lines, last


def _entries(store: FileStore, agent: str, archive: dict[str, dict[str, Any]]) -> Optional[dict[str, dict[str, Any]]]:
    """What an agent's outbox says of each task, or its history or archive; None without an outbox.  DataError (65).

    What stands in the outbox is taken out of the `archive`: it is not archived.
    """
    version = store.read(layout.outbox(agent))
    if version is None:
        return None
    outbox = tasks.Outbox(layout.outbox(agent), version)
    found: dict[str, dict[str, Any]] = {}
    for old in outbox.history:
        if found.get(old["task_id"]) != {"status": "completed"}:
            found[old["task_id"]] = {"status": str(old["status"]).lower() or "completed"}
    for task, status, _, start, end in outbox.tasks:
        archive.pop(task, None)
        found[task] = {"status": status or "pending"}
        if status.lower() == "completed":
            entry = outbox.entry(start, end)
            found[task].update({key: entry.get(key) for key in ("completed_at", "completion_message")})
    found.update((task, {"status": "completed"}) for task in archive)
    return found


def _record(store: FileStore, name: str) -> Any:
    """A completion record, or the BadJSON that says why it is none."""
    try:
        version = store.read(name)
        found = jsontext.loads(jsontext.from_latin(version.text), unique=True) if version is not None else None
        return found if isinstance(found, dict) else jsontext.BadJSON("it is not an object")
    except jsontext.BadJSON as error:
        return error
    except RecoveryError as error:
        return jsontext.BadJSON(str(error))


def _parse(request: Request) -> list[Any]:
    words = list(request.words)
    action = words.pop(0) if words else "list"
    if action not in ACTIONS:
        raise UsageError(f"receipts knows no {action[:40]!a}", hint="list [AGENT], show AGENT TASK, verify")
    if action != "verify" and request.options.keys() & {"agent", "anchor"}:
        raise UsageError("--agent and --anchor are for verify", hint="see --help")
    agent, task, anchor = request.options.get("agent", ""), "", request.options.get("anchor", "").lower()
    if action == "show":
        request.words = words
        agent, task, _ = request.agent_and_task(0)
    elif len(words) > (1 if action == "list" else 0):
        raise UsageError(f"too many words: {words[-1][:40]!a}", hint="see --help")
    elif words:
        agent = words[0]
    if agent:
        layout.require_id("agent", agent)
    if anchor and not (len(anchor) == 64 and set(anchor) <= set("0123456789abcdef")):
        raise UsageError(f"--anchor: {anchor[:70]!a} is not the hash of a receipt, 64 digits", hint="see --help")
    return [action, agent, task, anchor]


def _call(store: FileStore, request: Request, call: list[Any]) -> Result:
    action, agent, task, anchor = call
    if action == "show":
        return show(store, agent, task)
    return verify(store, agent, anchor) if action == "verify" else listed(store, agent)


VERB = Verb({"--agent": "agent=", "--anchor": "anchor="}, _parse, _call, reads=True, indent="  ")
