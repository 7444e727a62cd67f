"""One POST to a web address, within a time limit that holds: for webhooks and pings.

No redirect is followed: a POST that comes back as a GET would have told nobody.  The environment's proxies are used.
A name and a password in the URL are sent as its Authorization (RFC 7617), as curl does.  Messages never hold more of
the URL than its host, for the rest of it is often the secret.
"""

from __future__ import annotations

from recovery.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable


def host_of(url: str, what: str) -> str:
    """The host of an http or https URL; UsageError (64), which calls it `what`, for anything else."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, scheme = parts.hostname, parts.scheme
        parts.port  # noqa: B018 - raises if it is none
    except (ValueError, AttributeError, TypeError):
        host, scheme = None, ""
    if scheme not in ("http", "https") or not host or any(c <= " " or c == "\x7f" for c in url):
        raise UsageError(f"{what} needs a URL like https://host/path", hint="http and https only")
    return host


class Posting:
    """A POST under way; see `post`."""

    def __init__(self, url: str, data: bytes, headers: Iterable[tuple[str, str]], seconds: float) -> None:
        import threading

        self.seconds = seconds
        self._answer: list[str] = []
        # Not here: a socket's timeout begins anew with each byte, and a name look-up knows none.
        self._work = threading.Thread(
            target=lambda: self._answer.append(_post(url, data, list(headers), seconds)),
            name="recovery-posting",
            daemon=True,
        )
        self._work.start()

    def result(self) -> str:
        """Wait for the answer; what went wrong, in words without secrets, "" if nothing did (any answer but 2xx is)."""
        self._work.join(self.seconds)
        return self._answer[0] if self._answer else f"did not answer within {self.seconds:.3g} s"


def post(url: str, data: bytes, headers: Iterable[tuple[str, str]], seconds: float) -> Posting:
    """Begin to send `data`.  After `seconds`, name look-up included, it counts as failed, though it may still come."""
    return Posting(url, data, headers, seconds)


def _apart(url: str) -> tuple[str, list[tuple[str, str]]]:
    """The URL without the name and password in it, and the header that carries them."""
    scheme, _, rest = url.partition("://")
    end = next((at for at, c in enumerate(rest) if c in "/?#"), len(rest))
    who, at, host = rest[:end].rpartition("@")
    if not at:
        return url, []
    from base64 import b64encode
    from urllib.parse import unquote_to_bytes

    name, _, password = who.partition(":")
    token = b64encode(unquote_to_bytes(name) + b":" + unquote_to_bytes(password)).decode("ascii")
    return f"{scheme}://{host}{rest[end:]}", [("Authorization", f"Basic {token}")]


def _post(url: str, data: bytes, headers: list[tuple[str, str]], seconds: float) -> str:
    from urllib import error, request

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
    ):  # and no redirects, no other schemes
        opener.add_handler(handler)
    try:
        url, credentials = _apart(url)
        asked = request.Request(url, data, method="POST")  # noqa: S310
        for key, value in [*credentials, *headers]:
            asked.add_header(key, value)
        with opener.open(asked, timeout=seconds):
            return ""
    except error.HTTPError as problem:
        problem.close()
        moved = "; redirects are not followed" if 300 <= problem.code < 400 else ""
        return f"answered {problem.code}{moved}"
    except error.URLError as problem:
        reason = problem.reason
        return str(reason.strerror or reason) if isinstance(reason, OSError) else "can't be reached"
    except OSError as problem:
        return problem.strerror or str(problem) or type(problem).__name__
    except Exception as problem:  # its text may hold a header
        return type(problem).__name__
