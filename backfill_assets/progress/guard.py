"""Access to all answers of ``serve``: one decision per request, by Host, Origin, method and token.

The danger is a person's browser: a page of another site may send requests to any address that the browser
reaches, and may read the answers under a name of its own that it points at that address. So every request
needs a Host that names this service, and an Origin that is the Host or another such name. Changes need the
token or, if none is set, a loopback name and no proxy in between. Nothing changes by GET.

The decision is made before a byte of the body is read. No body is read beyond ``MOST_BYTES``, and no query
without a token beyond ``MOST_QUERY_BYTES``.
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

#: Largest body; a request with a thousand names of each kind is smaller.
MOST_BYTES: Final = 1_000_000
#: Largest query without a token; the Dagster UI's largest has about 10,000 bytes without its variables.
MOST_QUERY_BYTES: Final = 100_000
#: Makes a browser ask for a name and a password.
BASIC: Final = {"WWW-Authenticate": 'Basic realm="backfill-assets", charset="UTF-8"'}
_BEARER: Final = {"WWW-Authenticate": "Bearer"}
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS: Final = (80, 443)
_NOBODY: Final = ("", None)
#: Headers in which a proxy names its client.
_OF_PROXIES: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
#: Keys of a request's scope: whether it may make changes, and whether it has the token.
_MAY_CHANGE: Final = "backfill_assets.may_change"
_HAS_TOKEN: Final = "backfill_assets.has_token"


def is_loopback(host: str) -> bool:
    """Whether the name or address belongs to this machine and cannot be reached from another."""
    name = host.strip("[]").lower()
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def may_change(scope: Scope) -> bool:
    """Whether a request that has passed the guard may make changes."""
    return bool(scope.get(_MAY_CHANGE))


def is_anonymous(scope: Scope) -> bool:
    """Whether a request has no token, even if none is set."""
    return not scope.get(_HAS_TOKEN)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused."""

    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one server.

    Parameters
    ----------
    token
        Required for every change; if empty, only loopback names are served, and they may make changes.
    hosts
        Names of this service besides loopback names and addresses, with a port unless it is the default;
        without a token none of them counts.
    readable
        Paths at which a POST only reads: it needs no token, and ``may_change`` is false without one.
    """

    token: str = ""
    hosts: tuple[str, ...] = ()
    readable: Collection[str] = ()

    def refusal(self, request: HTTPConnection) -> Refusal | None:
        """Return why the request is refused; None if it is admitted."""
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
        """Return the limit for the request's body in bytes."""
        is_query = request.scope["path"] in self.readable
        return MOST_QUERY_BYTES if is_query and not self.has_token(request) else MOST_BYTES

    def has_token(self, request: HTTPConnection) -> bool:
        """Whether a token is set and the request has it."""
        return bool(self.token) and self.is_authenticated(request)

    def is_authenticated(self, request: HTTPConnection) -> bool:
        """Whether the request has the token, as a bearer or a password; true if none is set."""
        if not self.token:
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Strip only spaces and tabs: the last byte of a UTF-8 token may look like another blank.
        secret = given.strip(" \t").encode("latin-1", "replace")
        if scheme.lower() == "basic":
            secret = _password(secret)
        # Compare bytes, since text is compared in constant time only if it is ASCII.
        return scheme.lower() in ("bearer", "basic") and hmac.compare_digest(secret, self.token.encode())

    def _foreign(self, request: HTTPConnection) -> Refusal | None:
        if len(request.headers.getlist("host")) != 1:
            return Refusal(400, "send one Host header")
        host, own = request.headers["host"], _authority(request.headers["host"])
        listed = {found for entry in self.hosts if (found := _authority(entry)) != _NOBODY}
        if not self._is_served(own, listed):
            return Refusal(403, f"Host {host[:200]!r} is not a name of this service: {self._names()}")
        origin = request.headers.get("origin")
        if origin is not None and not self._is_own_page(origin, host, listed):
            what = f"Origin {origin[:200]!r} is a different site from Host {host[:200]!r}"
            remedy = "a proxy in front must forward the Host of the request"
            return Refusal(403, f"{what}: {self._names()}; {remedy}")
        if not self.token and any(name in request.headers for name in _OF_PROXIES):
            return Refusal(403, "the request comes through a proxy: set serve.token")
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
            # Behind a proxy the Host may lack the port, and does not give the scheme.
            return _authority(address) in {_authority(host), *listed}
        # Other sites may be at other ports of this machine, also 80 and 443; this server speaks plain HTTP.
        return scheme == "http" and _with_port(address) == _with_port(host) != _NOBODY

    def _names(self) -> str:
        if not self.token:
            return "without serve.token only loopback names are served"
        return f"served are {', '.join(('loopback names', 'addresses', *self.hosts))}; add it to serve.hosts"


class Guard:
    """ASGI middleware around the whole server: refuses a request or passes it on."""

    def __init__(self, app: ASGIApp, access: Access, refuse: Callable[[Request, Refusal], Response]) -> None:
        self._app = app
        self._access = access
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide, then pass the request on; answer 413 if its body grows too large."""
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
    """Return name and port, None for a default port; ``_NOBODY`` if the text has another form."""
    name, port = _with_port(text, None)
    return name, None if port in _DEFAULT_PORTS else port


def _with_port(text: str, default: int | None = 80) -> tuple[str, int | None]:
    """Return name and port; ``_NOBODY`` if the text has another form."""
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
