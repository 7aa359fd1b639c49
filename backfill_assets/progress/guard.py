"""Access to changing calls: by a bearer token where one is set, else from this machine alone.

Without a token the browser of that machine is the danger: a page from elsewhere may send requests to
loopback. So a changing call whose ``Origin`` is another site is refused, and without a token one that is
addressed to another name than a loopback one as well (a name that was pointed at 127.0.0.1).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request
from starlette.exceptions import HTTPException

#: A request with a thousand names of each kind is smaller.
MOST_BYTES: Final = 1_000_000


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own, and reached from nowhere else."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def may_change(token: str) -> Callable[[Request], None]:
    """A dependency of every changing route; an empty token leaves the door to this machine open."""
    expected = token.encode()

    def check(request: Request) -> None:
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            raise HTTPException(413, f"at most {MOST_BYTES} bytes")
        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise HTTPException(403, "sent by a page of another site")
        if not expected:
            if not is_loopback(_name(host)):
                raise HTTPException(403, "without serve.token only loopback names are served")
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Bytes, since text is compared in constant time only where it is ASCII.
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), expected)
        if scheme.lower() != "bearer" or not same:
            raise HTTPException(
                401, "send Authorization: Bearer with serve.token", {"WWW-Authenticate": "Bearer"}
            )

    return check


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
