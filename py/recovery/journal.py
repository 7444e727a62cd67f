"""The journal: one record, overwritten in place, whose fdatasync is the commit point.

Layout of `data/journal` (blocks of 4096 bytes, so that a mark and the record never share a sector):

    block 0   done mark     `DONE  checksum seq txid`
    block 1   abort mark    `ABORT checksum seq txid kind reason`
    block 2…  the record    `RECORD seq length checksum`, newline, JSON

A record is unfinished unless the done mark carries its sequence number, or a later one: who began a later commit had
found this one finished, and its own record never reached the disk.  A torn record never happened; a torn mark leaves
the record as it was.
"""

from __future__ import annotations

import os

from recovery import durable, jsontext, steps
from recovery.errors import DataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

BLOCK = 4096
SIZE = 16 * BLOCK
#: Bytes of a block that a mark may take: a sector.
MARK = 512
_DONE, _ABORT, _RECORD = 0, BLOCK, 2 * BLOCK


class Record:
    """A record as it was read: `direction` is "REDO" or "ABORT", `finished` whether the done mark is there."""

    __slots__ = ("_body", "_line", "direction", "finished", "kind", "reason", "seq", "text")

    def __init__(self, seq: int, text: str, direction: str = "REDO", finished: bool = False) -> None:
        self.seq, self.text, self.direction, self.finished = seq, text, direction, finished
        self.kind = self.reason = ""  # of an ABORT: what made it one
        self._body: Optional[dict[str, Any]] = None
        self._line = ""

    @classmethod
    def new(cls, seq: int, body: dict[str, Any], line: dict[str, Any]) -> Record:
        """The record of a commit that begins: the journal's own part, and the line for the change log."""
        line_text = jsontext.dumps({"seq": seq, **line})
        record = cls(seq, jsontext.dumps(body)[:-1] + ', "line": ' + line_text + "}")
        record._line, record._body = line_text, {**body, "line": {"seq": seq, **line}}
        return record

    @property
    def line(self) -> str:
        """The line that the change log gets, as text."""
        return self._line or jsontext.dumps(self.body["line"])

    @property
    def body(self) -> dict[str, Any]:
        """The record's content; parsed when it is first asked for, as a finished record seldom is."""
        if self._body is None:
            try:
                self._body = dict(jsontext.loads(self.text))
            except (ValueError, TypeError):
                raise DataError("data/journal holds a record that is no JSON object", hint="move it away") from None
        return self._body

    @property
    def txid(self) -> str:
        return str(self.body.get("txid", ""))


class Journal:
    """The journal file, open.  Only who holds the commit lock may write."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.next_seq = 1

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close

    def read(self) -> Optional[Record]:
        """The last whole record, or None; `next_seq` is set to one more than any number seen.

        May be called without the commit lock: what is being written meanwhile looks torn, which is no record.
        """
        data = os.pread(self.fd, 4 * BLOCK, 0)
        done, _ = _mark(data, _DONE, "DONE")
        abort, why = _mark(data, _ABORT, "ABORT")
        self.next_seq = max(done, abort) + 1
        line, newline, body = data[_RECORD:].partition(b"\n")
        words = line.split()
        if (
            not newline
            or len(words) != 4
            or words[0] != b"RECORD"
            or not (words[1] + words[2])[:40].isdigit()
            or len(words[1] + words[2]) > 40
        ):
            return None
        seq, length = int(words[1]), int(words[2])
        if length > os.fstat(self.fd).st_size:
            return None
        if len(body) < length:
            body += os.pread(self.fd, length - len(body), _RECORD + len(line) + 1 + len(body))
        body = body[:length]
        if durable.digest_of(b"%d " % seq + body) != words[3].decode("ascii", "replace"):
            return None
        self.next_seq = max(self.next_seq, seq + 1)
        record = Record(seq, body.decode("utf-8", "replace"), "ABORT" if abort == seq else "REDO", done >= seq)
        if abort == seq:
            record.kind, _, record.reason = why.partition(" ")
        return record

    def is_garbled(self) -> bool:
        """Whether it holds something and yet no whole record: a first or torn one that never happened, or damage.

        Without the commit lock what is being written at the moment looks so, too.
        """
        return self.read() is None and bool(os.pread(self.fd, 4 * BLOCK, 0).strip(b"\0"))

    def write(self, seq: int, body: str) -> None:
        """Write a new record (not yet durable).  Only when the one before is finished."""
        data = body.encode("utf-8")
        head = b"RECORD %d %d %s\n" % (seq, len(data), durable.digest_of(b"%d " % seq + data).encode())
        steps.at("journal-write", seq)
        _pwrite(self.fd, head + data, _RECORD)

    def sync(self, step: str = "journal-sync") -> None:
        """fdatasync; OSError means that nobody knows what is on the disk."""
        steps.at(step)
        os.fdatasync(self.fd)
        steps.at(step + "ed")

    def mark_abort(self, record: Record, kind: str, reason: str) -> None:
        """Turn the record's direction to ABORT, durably, before the first restore.

        `kind` is one word; it and `reason` are there for whoever has to finish the abort.
        """
        steps.at("abort-mark", record.seq)
        _pwrite(self.fd, _mark_text("ABORT", record.seq, record.txid, f"{kind} {reason}"), _ABORT)
        self.sync("abort-sync")
        record.direction, record.kind, record.reason = "ABORT", kind, reason

    def mark_done(self, seq: int, txid: str) -> None:
        """Forget the record, durably."""
        steps.at("done-mark", seq)
        _pwrite(self.fd, _mark_text("DONE", seq, txid), _DONE)
        self.sync("done-sync")


def allocate(fd: int) -> None:
    """Bring a journal to its full size with real blocks, so that a commit only overwrites; synced."""
    size = os.fstat(fd).st_size
    if size < SIZE:
        while size < SIZE:
            size += os.pwrite(fd, b"\0" * (SIZE - size), size)
        os.fsync(fd)


def _mark_text(word: str, seq: int, txid: str, more: str = "") -> bytes:
    text = f"{seq} {txid} {more}".rstrip().encode("ascii", "backslashreplace").replace(b"\n", b" ")[: MARK - 80]
    return b"%s %s %s\n" % (word.encode(), durable.digest_of(word.encode() + text).encode(), text)


def _mark(data: bytes, at: int, word: str) -> tuple[int, str]:
    """Sequence number of the mark that stands there, and what it says further; (0, "") for none or a torn one."""
    head, _, text = data[at : at + MARK].partition(b"\n")[0].partition(b" ")
    digest, _, text = text.partition(b" ")
    if head != word.encode() or digest.decode("ascii", "replace") != durable.digest_of(head + text):
        return 0, ""
    words = text.decode("ascii").split(" ", 2)
    return int(words[0]), words[2] if len(words) > 2 else ""


def _pwrite(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, at)
        if not done:
            raise OSError(28, os.strerror(28))
        view, at = view[done:], at + done
