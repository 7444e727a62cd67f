"""The torture's certificate: what was tried on which disk with which version, and whether it fits this workspace.

`logs/recovery/certificate.json`, one object; a newer run replaces it.
"""

from __future__ import annotations

import os

from recovery import __version__, disk, jsontext, layout
from recovery.commit import Put
from recovery.errors import DataError
from recovery.store import transact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore

NAME = layout.LOGS + "/certificate.json"


def file_system(path: str) -> dict[str, str]:
    """Which file system holds `path`: its type, its mount options, and its id (statvfs(3) f_fsid), as hexadecimal."""
    kind, options = disk.file_system(path)
    return {"type": kind, "options": options, "id": f"{os.statvfs(path).f_fsid:x}"}


def write(store: FileStore, certificate: dict[str, Any]) -> None:
    """Put it into the workspace, in place of the one before.  What Store.commit raises."""
    text = jsontext.pretty(certificate) + "\n"
    transact(store, [NAME], lambda: Put(NAME, store.read(NAME, strict=False), text), create=True)


def read(store: FileStore) -> Optional[dict[str, Any]]:
    """The certificate, None if there is none; DataError (65) if it is damaged."""
    version = store.read(NAME, strict=False)
    if version is None:
        return None
    try:
        found = jsontext.loads(jsontext.from_latin(version.text))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("file_system"), dict):
        raise DataError(f"{NAME} is damaged", hint="run `recovery torture` again: it writes a new one")
    return found


def doubts(store: FileStore) -> list[str]:
    """Why this workspace's disk is not known to be good; [] if it is."""
    try:
        found = read(store)
    except DataError as error:
        return [str(error)]
    if found is None:
        return ["nobody has tried this disk: no torture certificate"]
    here, there = file_system(store.root.path), found["file_system"]
    words = []
    if found.get("violations"):
        words.append(f"the torture found {found['violations']} violation(s) on {found.get('time')}")
    if here["id"] != there.get("id") or here["type"] != there.get("type"):
        words.append(f"the torture certificate is of another file system ({there.get('type')}, here {here['type']})")
    if found.get("version") != __version__:
        words.append(f"the torture certificate is of version {found.get('version')}, this is {__version__}")
    return words
