"""What a verb has done, as it is to be said."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional, Sequence


class Result:
    """What a verb did: `line` for people ("" says nothing), `data` for programs, `details` for `-v`.

    `then` is called when all of it has been said.
    """

    __slots__ = ("changed", "data", "details", "line", "then")

    def __init__(self, line: str, changed: bool, data: dict[str, Any], details: Sequence[str] = ()) -> None:
        self.line, self.changed, self.data, self.details = line, changed, data, list(details)
        self.then: Optional[Callable[[], None]] = None
