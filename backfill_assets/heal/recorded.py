"""HTTP sessions for the exchanges' client: one records every answer within bounds, one replays it.

The client reads a whole answer into memory, and its time-out limits only the wait for the next bytes. These
sessions limit the size of an answer and its total time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from backfill_assets.failures import redacted
from backfill_assets.heal.sources import Body, Budget

#: The lists of markets of the largest exchanges have a quarter of this size.
MOST_BYTES: Final = 64 * 2**20
_BLOCK: Final = 1 << 16


class RecordingSession(requests.Session):
    """Records the bodies of all answers in ``bodies``, which the caller may clear.

    Secrets of ``base``, the configured address, are not recorded. The rest of a request is recorded as it is,
    because the replay looks for it.
    """

    def __init__(self, budget: Budget, timeout_seconds: float, base: str) -> None:
        super().__init__()
        self.trust_env = False
        self.bodies: list[Body] = []
        self.retry_after: float | None = None
        self._budget = budget
        self._timeout_seconds = timeout_seconds
        self._base = base.rstrip("/")

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send the request without following redirects, and read the answer within its size and time."""
        self._budget.take()
        latest = time.monotonic() + self._timeout_seconds
        response = super().request(method, url, **{**options, "stream": True, "allow_redirects": False})
        with response:
            data = bytearray()
            for block in response.iter_content(_BLOCK):
                data += block
                if len(data) > MOST_BYTES:
                    msg = f"the answer is larger than {MOST_BYTES >> 20} MiB"
                    raise requests.exceptions.RequestException(msg)
                if time.monotonic() > latest:
                    msg = f"the answer takes longer than {self._timeout_seconds:g} s"
                    raise requests.exceptions.Timeout(msg)
        response._content = bytes(data)
        self.retry_after = _seconds(response.headers.get("Retry-After"))
        rest = url.removeprefix(self._base)
        begin = url.removesuffix(rest)
        self.bodies.append(Body(f"{redacted(begin, base=begin)}{redacted(rest)}", bytes(data)))
        return response


class ReplayedSession(requests.Session):
    """Replays stored answers in the same order to the same requests."""

    def __init__(self, bodies: Sequence[Body]) -> None:
        super().__init__()
        self.bodies: list[Body] = []
        self.retry_after: float | None = None
        self._left = list(bodies)

    def request(self, method: str, url: str, **_: Any) -> requests.Response:  # type: ignore[override]
        """Return the next stored answer."""
        address = urlsplit(url)
        asked = f"{address.path}?{address.query}" if address.query else address.path
        if not self._left or not self._left[0].request.endswith(asked):
            msg = f"no stored answer to {method} {asked}"
            raise requests.exceptions.RequestException(msg)
        body = self._left.pop(0)
        response = requests.Response()
        response.status_code, response.url = 200, url
        response._content = body.data
        response.headers["Content-Type"] = "application/json"
        self.bodies.append(body)
        return response


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
