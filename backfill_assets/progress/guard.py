"""Access to everything that ``serve`` answers: one decision per request, by Host, Origin, method and token.

A person's browser is the danger: a page of another site may send requests to any address that the browser
reaches, and may read the answers under a name of its own that it points at that address. So the Host must be
a name of this service, and an Origin must be the Host or another such name, whatever is asked for. Changes
need the token or, where none is set, a loopback name and no proxy in between. Nothing changes by GET.

The decision falls before a byte of the body is read, and no body is read beyond ``MOST_BYTES``, or beyond
``MOST_QUERY_BYTES`` of a query from a request without a token.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A request with a thousand names of each kind is smaller.
MOST_BYTES: Final = 1_000_000
#: The largest query of Dagster's UI has about 10,000 bytes, besides its variables.
MOST_QUERY_BYTES: Final = 100_000
#: Makes a browser ask a person for a name and a password.
BASIC: Final = {"WWW-Authenticate": 'Basic realm="backfill-assets", charset="UTF-8"'}
_BEARER: Final = {"WWW-Authenticate": "Bearer"}
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS: Final = (80, 443)
_NOBODY: Final = ("", None)
#: Headers by which a proxy tells for whom it asks.
_OF_PROXIES: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
#: Keys of a request's scope: whether the request may change anything, and whether it has the token.
_MAY_CHANGE: Final = "backfill_assets.may_change"
_HAS_TOKEN: Final = "backfill_assets.has_token"


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own, and reached from nowhere else."""
    name = host.strip("[]").lower()
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def may_change(scope: Scope) -> bool:
    """Whether a request that has passed the guard may change something."""
    return bool(scope.get(_MAY_CHANGE))


def is_anonymous(scope: Scope) -> bool:
    """Whether a request has no token, also where none is set."""
    return not scope.get(_HAS_TOKEN)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason for which a request is not answered."""

    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one server.

    Parameters
    ----------
    token
        Asked for with every change; empty: loopback names alone are served, and may change something.
    hosts
        Names of this service besides loopback names and addresses, with a port where that is no default one;
        without a token none of them counts.
    readable
        Paths of which a POST asks a question: it needs no token, and ``may_change`` is false without one.
    """

    token: str = ""
    hosts: tuple[str, ...] = ()
    readable: Collection[str] = ()

    def refusal(self, request: HTTPConnection) -> Refusal | None:
        """The reason for which the request is not let in; None: it is."""
        found = self._foreign(request)
        if found is not None:
            return found
        is_question = _is_safe(request) or request.scope["path"] in self.readable
        if not is_question and not self.is_authenticated(request):
            detail = "send Authorization: Bearer with serve.token"
            return Refusal(401, detail, _BEARER)
        length = request.headers.get("content-length", "0")
        most = self.most_bytes(request)
        if not length.isdecimal() or len(length) > 18 or int(length) > most:
            return Refusal(413, _too_large(most))
        return None

    def most_bytes(self, request: HTTPConnection) -> int:
        """The most that is read of the request's body."""
        is_query = request.scope["path"] in self.readable
        return MOST_QUERY_BYTES if is_query and not self.has_token(request) else MOST_BYTES

    def has_token(self, request: HTTPConnection) -> bool:
        """Whether a token is set and the request has it."""
        return bool(self.token) and self.is_authenticated(request)

    def is_authenticated(self, request: HTTPConnection) -> bool:
        """Whether the request has the token, as a bearer or as a password; true where none is set."""
        if not self.token:
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Not every blank: the last byte of a token in UTF-8 may look like one.
        secret = given.strip(" \t").encode("latin-1", "replace")
        if scheme.lower() == "basic":
            secret = _password(secret)
        # Bytes, since text is compared in constant time only where it is ASCII.
        return scheme.lower() in ("bearer", "basic") and hmac.compare_digest(secret, self.token.encode())

    def _foreign(self, request: HTTPConnection) -> Refusal | None:
        if len(request.headers.getlist("host")) != 1:
            return Refusal(400, "send one Host header")
        host, own = request.headers["host"], _authority(request.headers["host"])
        listed = {found for entry in self.hosts if (found := _authority(entry)) != _NOBODY}
        if not self._is_served(own, listed):
            return Refusal(403, f"Host {host[:200]!r} is none of this service's names: {self._names()}")
        origin = request.headers.get("origin")
        if origin is not None and not self._is_own_page(origin, host, listed):
            what = f"Origin {origin[:200]!r} is another site than Host {host[:200]!r}"
            remedy = "a proxy in front must forward the Host that it was asked for"
            return Refusal(403, f"{what}: {self._names()}; {remedy}")
        if not self.token and any(name in request.headers for name in _OF_PROXIES):
            return Refusal(403, "a proxy asks for somebody else: set serve.token")
        return None

    def _is_served(self, host: tuple[str, int | None], listed: set[tuple[str, int | None]]) -> bool:
        name = host[0]
        if is_loopback(name):
            return True
        # No page of another site has an address as its name.
        return bool(self.token) and (_is_address(name) or not listed.isdisjoint({host, (name, None)}))

    def _is_own_page(self, origin: str, host: str, listed: set[tuple[str, int | None]]) -> bool:
        scheme, _, address = origin.partition("://")
        if self.token:
            # Behind a proxy the Host may lack the port and does not tell the scheme.
            return _authority(address) in {_authority(host), *listed}
        # Other sites may be at other ports of this machine, 80 and 443 too; plain HTTP is spoken here.
        return scheme == "http" and _with_port(address) == _with_port(host) != _NOBODY

    def _names(self) -> str:
        if not self.token:
            return "without serve.token only loopback names are served"
        return f"served are {', '.join(('loopback names', 'addresses', *self.hosts))}; add it to serve.hosts"


class Guard:
    """ASGI middleware around everything that the process serves: refuses, or passes the request on."""

    def __init__(self, app: ASGIApp, access: Access, refuse: Callable[[Request, Refusal], Response]) -> None:
        self._app = app
        self._access = access
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide, then hand on with a body that ends in 413 when it grows too large."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        refusal = self._access.refusal(request)
        if refusal is None:
            is_change = scope["type"] == "websocket" or not _is_safe(request)
            scope[_MAY_CHANGE] = is_change and self._access.is_authenticated(request)
            scope[_HAS_TOKEN] = self._access.has_token(request)
            await self._app(scope, _limited(receive, self._access.most_bytes(request)), send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.detail[:120]})
        else:
            answer = self._refuse(Request(scope), refusal)
            # The body is not read, so nothing else can be read from this connection.
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)


def _limited(receive: Receive, most: int) -> Receive:
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > most:
            raise HTTPException(413, _too_large(most), {"Connection": "close"})
        return message

    return limited


def _too_large(most: int) -> str:
    return f"at most {most} bytes"


def _is_safe(request: HTTPConnection) -> bool:
    return request.scope["type"] == "websocket" or request.scope["method"] in _SAFE_METHODS


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _authority(text: str) -> tuple[str, int | None]:
    """Name and port, None for a default one; ``_NOBODY`` where the text is of another form."""
    name, port = _with_port(text, None)
    return name, None if port in _DEFAULT_PORTS else port


def _with_port(text: str, default: int | None = 80) -> tuple[str, int | None]:
    """Name and port; ``_NOBODY`` where the text is of another form."""
    try:
        parts = urlsplit(f"//{text}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return _NOBODY
    if not name or parts.netloc != text or "@" in text:
        return _NOBODY
    return name, default if port is None else port


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
