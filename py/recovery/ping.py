"""Pings for a service that misses them, in the manner of healthchecks.io: that a check has begun, and how it ended.

`URL/start` at the beginning, `URL` if all is well, else `URL/CODE` with the exit code; what the check said is the body.
Whether anybody listens never changes what the check says.
"""

from __future__ import annotations

from recovery import say
from recovery.posting import Posting, host_of, post

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

#: Seconds for each ping.
WITHIN = 5.0
#: Characters of what the check said that are sent.
_MOST = 10_000


class Ping:
    """Pings to one URL; UsageError (64) if it is none."""

    def __init__(self, url: str) -> None:
        self.host, self.url = host_of(url, "a ping"), url
        self._started: Optional[Posting] = None

    def start(self) -> None:
        """Say that the check has begun, without waiting for an answer."""
        self._started = self._send("/start", "")

    def end(self, code: int, text: str) -> None:
        """Say how it ended, once the first ping has been answered: they must not overtake each other.

        Also where that one failed: what matters is the end, and there are services that know no beginning.
        """
        first = self._started.result() if self._started is not None else ""
        problem = self._send(f"/{code}" if code else "", text[:_MOST]).result()
        if first or problem:
            say.tell(f"{self.host} could not be pinged: {problem or 'of the beginning, ' + first}")

    def _send(self, what: str, text: str) -> Posting:
        address, mark, query = self.url.partition("?")
        data = text.encode("utf-8", "backslashreplace")
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        return post(address.rstrip("/") + what + mark + query, data, headers, WITHIN)
