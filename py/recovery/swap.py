"""A new version of one file takes its place: compared, renamed, synced.  What `file_transaction` and `recovery tx` do.

One rename is atomic by itself, so this needs no journal; a change over several files is `recovery.commit`'s.
"""

from __future__ import annotations

import os

from recovery import durable, steps
from recovery.errors import Busy, DataError, Unconfirmed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

    from recovery.durable import Place


class Changed(DataError):
    """65: somebody who ignores the lock has changed the file meanwhile."""


def into_place(place: Place, stage: str, before: Optional[str], is_ours: Callable[[], bool], shown: str) -> None:
    """Rename `stage`, a synced file in the folder of `place`, to it, if the file there still has the hash `before`
    (None: there is none) and `is_ours` says that the locks are; messages call it `shown`.

    Busy (75), Changed (65): nothing was changed.  Unconfirmed (71): it was, and may not survive a power cut.  OSError.
    A crash leaves the file old or new, and the stage where it was.
    """
    if not is_ours():
        raise Busy(f"the lock file of {shown} was removed while it was held; nothing was changed")
    if durable.current_hash(place)[0] != before:
        raise Changed(
            f"{shown} was changed by somebody who ignores the lock; nothing was changed",
            hint="run it again on the new content",
        )
    steps.at("replace", place.name)
    os.rename(stage, place.base, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    steps.at("replaced", place.name)
    try:
        os.fsync(place.folder)
        steps.at("folder-synced", place.name)
    except OSError as error:
        raise Unconfirmed(f"{shown} was replaced, but may not survive a power cut: {error}") from None
