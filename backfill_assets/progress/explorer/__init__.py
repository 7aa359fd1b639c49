"""A page that describes the API and lets people try it, from files of this package, without network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse

#: The released files of swagger-ui; see docs/dependencies.md.
FOLDER: Final = Path(__file__).parent / "static"
FILES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "explorer.js": "text/javascript",
}
#: swagger-ui sets lengths in style attributes, hence 'unsafe-inline'.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>backfill-assets: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<script defer src="/docs/swagger-ui-bundle.js"></script>
<script defer src="/docs/explorer.js"></script>
</head>
<body>
<main id="explorer"><p>Loading <a href="/openapi.json">the description of the API</a> …</p></main>
</body>
</html>
"""


def explorer_router() -> APIRouter:
    """Return the routes of ``/docs`` and the files it loads."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(_PAGE, headers={**_HEADERS, "Content-Security-Policy": POLICY})

    for name, kind in FILES.items():
        router.add_api_route(f"/docs/{name}", _file(name, kind), methods=["GET"], response_model=None)
    return router


def _file(name: str, kind: str) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(FOLDER / name, media_type=kind, headers=_HEADERS)

    return send
