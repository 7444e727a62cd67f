"""What a file that somebody names for a report or for numbers must not be: one of the workspace's own."""

from __future__ import annotations

import os


def belongs(path: str, root: str, suffix: str) -> bool:
    """Whether `path` is the workspace's own: below it only what is called *`suffix` is not.

    However it is spelled: with `..`, by way of a link, under another name of a folder above it.  A hard link is
    another place: who puts a new file there leaves the workspace's as it is.
    """
    if path.endswith(suffix):
        return False
    try:
        workspace = os.stat(root)
    except OSError:
        return False
    return any(_is_below(one, workspace) for one in {os.path.abspath(path), os.path.realpath(path)})


def _is_below(path: str, workspace: os.stat_result) -> bool:
    above = path
    while above != os.path.dirname(above):
        above = os.path.dirname(above)
        try:
            if os.path.samestat(os.stat(above), workspace):
                return True
        except OSError:
            continue
    return False
