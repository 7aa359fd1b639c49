"""ASGI middleware for all answers of the process: headers for browsers, HEAD, redirects."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from anyio import CancelScope
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Headers of every answer that does not set them itself: no sniffing of its type, no framing by other sites,
#: no embedding in pages of other sites, and no referrer to other sites.
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class Answers:
    """Completes the answers of the inner app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; pass HEAD on as GET."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        with CancelScope() as rest:

            async def completed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _complete(message, Headers(scope=scope).get("host", ""))
                elif is_head:
                    await send({"type": "http.response.body"})
                    # Otherwise a stream would never end.
                    rest.cancel()
                    return
                await send(message)

            await self._app({**scope, "method": "GET"} if is_head else scope, receive, completed)


def _complete(message: Message, host: str) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    # The Host may name a proxy's upstream, which a browser does not know.
    to = urlsplit(headers.get("location", ""))
    if to.netloc and to.netloc == host:
        headers["location"] = to._replace(scheme="", netloc="").geturl() or "/"
