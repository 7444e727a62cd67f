"""Receipts: what says that a completion was checked, each bound to the agent's one before by its hash.

    completed   which checks passed, with what, on what state of the files; and the hash of the completion record
    revoked     that such a completion was undone; restored, that its undo was

`data/receipts/AGENT.jsonl` has them all, in order; `data/receipts/AGENT.json` the hash of the last, which changes in
the commit of the completion or of the undo itself.  The completion record holds its own receipt too.  A receipt's hash
is the SHA-256 of its canonical form (`recovery.checkfile`): `jq -cjS .receipt FILE | sha256sum` makes it again.

Pure, apart from what reads through the store.
"""

from __future__ import annotations

from recovery import jsonl, jsontext, layout
from recovery.checkfile import sha256_of
from recovery.commit import Change, Edit
from recovery.errors import DataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping, Optional, Sequence

    from recovery.durable import Version
    from recovery.store import FileStore

    Receipt = dict[str, Any]

FORMAT = 1


class Head:
    """Where an agent's chain ends: the `hash` of its last receipt (None: there is none) and its `number`, from 1."""

    def __init__(self, version: Optional[Version], number: int, last: Optional[str]) -> None:
        self.version, self.number, self.hash = version, number, last


def head(store: FileStore, agent: str) -> Head:
    """DataError (65) if the head is damaged: nobody knows what comes next."""
    name = layout.receipts_head(agent)
    version = store.read(name)
    if version is None:
        return Head(None, 0, None)
    try:
        found = jsontext.loads(jsontext.from_latin(version.text), unique=True)
        if found["format"] == FORMAT and type(found["number"]) is int and type(found["head"]) is str:
            return Head(version, found["number"], found["head"])
        raise ValueError("it is not what this version writes")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{name} is damaged: {error}. Nothing changed.",
            hint=f"`recovery receipts verify --agent {agent}` tells what its last receipt is",
        ) from None


def add(store: FileStore, change: Change, kind: str, like: Optional[Version], **content: Any) -> Receipt:
    """Put one more receipt into a change: the head's edit, and the line that follows from it.  Returns the receipt.

    The files of the change must cover `layout.receipts_head(agent)`.
    """
    before = head(store, change.agent)
    receipt = {
        "format": FORMAT,
        "kind": kind,
        "number": before.number + 1,
        "agent": change.agent,
        "task": change.task,
        "txid": change.txid,
        "time": change.time,
        **content,
        "previous": before.hash,
    }
    name = sha256_of(receipt)
    now = {"format": FORMAT, "agent": change.agent, "number": receipt["number"], "head": name}
    edit = Edit(layout.receipts_head(change.agent), before.version, after=jsontext.pretty(now) + "\n", like=like)
    change.edits = [*change.edits, edit]
    change.derived.append({"name": layout.receipts(change.agent), "append": {"hash": name, "receipt": receipt}})
    change.durable_log = True  # the chain is written before the commit is forgotten
    return receipt


def revoke(store: FileStore, change: Change) -> Optional[Receipt]:
    """Put the revocation of the task's receipt into a change that opens it again; None if it has none."""
    line = standing(lines(store, change.agent)[0]).get(change.task)
    return add(store, change, "revoked", None, revokes=line["hash"]) if line is not None else None


def take_back(store: FileStore, change: Change, undone: Mapping[str, Any]) -> None:
    """Put into a rollback what it does to the receipt that the `undone` change, a line of the change log, had added.

    What brought a receipt has it revoked; what revoked one has it restored.
    """
    for item in undone["derived"]:
        receipt = item.get("append", {}).get("receipt")
        if item["name"] == layout.receipts(change.agent) and isinstance(receipt, dict):
            if receipt.get("kind") == "revoked":
                add(store, change, "restored", None, restores=receipt["revokes"])
            else:
                revoke(store, change)


def content(record: Mapping[str, Any], results: Sequence[Mapping[str, Any]], checks_sha256: str) -> dict[str, Any]:
    """What a completed receipt says: of the record (without its receipt), and of each check's result."""
    last = results[-1]
    return {
        "record_sha256": sha256_of(record),
        "checks_sha256": checks_sha256,
        "checks": [
            {
                "check": one["check"],
                "check_sha256": one["sha256"],
                "code": one["code"],
                "began": one["began"],
                "seconds": one["seconds"],
                "output_bytes": one["output_bytes"],
                "output_sha256": one["output_sha256"],
                "tree": one["tree"],
                **({"tree_after": one["tree_after"]} if one["tree_after"] != one["tree"] else {}),
            }
            for one in results
        ],
        "git": {"revision": last["revision"], "dirty": last["dirty"]} if last["revision"] else None,
    }


# --- reading it again


def lines(store: FileStore, agent: str) -> tuple[list[dict[str, Any]], int]:
    """The chain's lines as they stand, and how many are torn, no JSON, or say a thing twice."""
    version = store.read(layout.receipts(agent), strict=False)
    return jsonl.records(version.text.encode("latin-1"), unique=True) if version is not None else ([], 0)


def agents(store: FileStore) -> list[str]:
    """Who has a chain, or what is left of one."""
    ends = (".jsonl", ".json")
    found = {base[: -len(end)] for base in store.list(layout.RECEIPTS) for end in ends if base.endswith(end)}
    return sorted(name for name in found if layout.is_id(name))


def standing(chain: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By task, the line of the receipt that holds: the last of the task, unless it was revoked since."""
    found: dict[str, dict[str, Any]] = {}
    completed: dict[tuple[str, str], dict[str, Any]] = {}
    for line in chain:
        receipt = line.get("receipt")
        if not isinstance(receipt, dict):
            continue
        task, kind = str(receipt.get("task")), receipt.get("kind")
        if kind == "completed":
            found[task] = completed[task, str(line.get("hash"))] = dict(line)
        elif kind == "revoked" and task in found and found[task].get("hash") == receipt.get("revokes"):
            del found[task]
        elif kind == "restored" and (task, str(receipt.get("restores"))) in completed:
            found[task] = completed[task, str(receipt["restores"])]
    return found


def passed(line: Optional[Mapping[str, Any]]) -> set[str]:
    """The names of the checks that a receipt says were passed."""
    try:
        return {one["check"] for one in line["receipt"]["checks"] if one["code"] == 0} if line is not None else set()
    except (KeyError, TypeError):
        return set()


def findings(
    agent: str,
    last: Optional[str],
    number: int,
    chain: Sequence[Mapping[str, Any]],
    torn: int,
    records: Mapping[str, Any],
    entries: Optional[Mapping[str, Mapping[str, Any]]],
) -> list[str]:
    """What doesn't fit in an agent's chain, a sentence each; [] if all does.

    last, number  what the head says (None and 0 without one)
    chain, torn   as `lines` gives them
    records       every completion record by task: its object, or a BadJSON that says why it can't be read
    entries       what the outbox, its history or archive says of each task: its `status`, and what else it has in
                  common with the record; None where that can't be read
    """
    found = [f"{torn} torn or foreign line(s) in {layout.receipts(agent)}"] if torn else []
    previous: Optional[str] = None
    ordered = True
    for place, line in enumerate(chain, 1):
        receipt, name = line.get("receipt"), line.get("hash")
        if not isinstance(receipt, dict):
            found.append(f"line {place} of {layout.receipts(agent)} holds no receipt")
            continue
        what = f"receipt {receipt.get('number')} ({receipt.get('kind')} {receipt.get('task')})"
        if receipt.get("agent") != agent:
            found.append(f"{what} is of another agent, {str(receipt.get('agent'))[:128]!a}")
        if _hash_of(receipt) != name:
            found.append(f"{what} was changed: it is not what its hash stands for")
        if line.get("txid") != receipt.get("txid"):
            found.append(f"{what} stands in the line of another change")
        if ordered and (receipt.get("previous") != previous or receipt.get("number") != place):
            ordered = False
            found.append(f"the chain is broken before {what}: one is missing, or they were put in another order")
        previous = str(name)
    if last is None and chain:
        found.append(f"{layout.receipts_head(agent)}, the chain's head, is gone")
    elif last is not None and (last != previous or number != len(chain)):
        found.append(
            f"the head says {number} receipts, the last {last[:12]}: the chain has {len(chain)}; its end is missing"
        )
    return found + _unfitting(standing(chain), records, entries)


def _hash_of(value: Any) -> str:
    """As `sha256_of`; "" for what no receipt of ours can hold: an infinite number, a thousand levels."""
    try:
        return sha256_of(value)
    except (ValueError, RecursionError):
        return ""


def _unfitting(
    holds: Mapping[str, Mapping[str, Any]],
    records: Mapping[str, Any],
    entries: Optional[Mapping[str, Mapping[str, Any]]],
) -> list[str]:
    found = []
    for task, line in sorted(holds.items()):
        if task not in records:
            found.append(f"{task}: there is a receipt, but no completion record")
            continue
        record = records[task]
        if not isinstance(record, dict):
            continue
        bare = {key: value for key, value in record.items() if key != "receipt"}
        if _hash_of(bare) != line["receipt"].get("record_sha256"):
            found.append(f"{task}: its completion record was changed since")
        if record.get("receipt") != line["receipt"]:
            found.append(f"{task}: the receipt in its completion record is not the one in the chain")
        if entries is None:
            continue
        if task not in entries:
            found.append(f"{task}: there is a receipt, but neither the outbox nor its history has the task")
            continue
        entry = entries[task]
        differ = [key for key in entry if key != "status" and entry[key] != record.get(key)]
        if str(entry["status"]).lower() != "completed":
            found.append(
                f"{task}: it is completed by its receipt, {entry['status']} in the outbox, and was never undone"
            )
        elif differ:
            found.append(f"{task}: the outbox and the completion record differ: {', '.join(differ)}")
    for task, record in sorted(records.items()):
        if not isinstance(record, dict):
            found.append(f"{task}: its completion record can't be read: {record}")
        elif "receipt" in record and task not in holds:
            found.append(f"{task}: its completion record holds a receipt that the chain doesn't, or that was revoked")
    return found
