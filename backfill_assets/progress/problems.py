"""All errors of the API as RFC 9457 problem details, including those of the framework.

Our own failures carry their message; for an unexpected error the client learns only that it is in the log.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from backfill_assets.failures import BackfillError, TransientFailure, printable
from backfill_assets.progress.answers import HEADERS
from backfill_assets.progress.model import InvalidField, Problem
from backfill_assets.progress.request import InvalidRequest
from backfill_assets.progress.service import Conflict
from backfill_assets.progress.statuses import UnknownJob

LOGGER: Final = logging.getLogger(__name__)
MEDIA_TYPE: Final = "application/problem+json"
#: Seconds after which to retry a resource that is out of reach.
RETRY_AFTER_SECONDS: Final = "30"
#: Most errors shown for one request, so that an answer stays readable.
_ERRORS_SHOWN: Final = 20

_MEANINGS: Final = {
    400: "The request cannot be read.",
    401: "The bearer token is missing or wrong.",
    403: "The Host is not a name of this service, or the request comes from another site.",
    404: "The job does not exist.",
    409: "The state of the job does not allow it.",
    413: "The request is too large.",
    422: "The request is invalid; the answer names every invalid part.",
    500: "An error in the server; its log has the details.",
    503: "The lake or the database is out of reach.",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors for a route's entry in the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {MEDIA_TYPE: {"schema": schema}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in statuses}


def problem(
    request: Request,
    status: int,
    detail: str = "",
    errors: tuple[InvalidField, ...] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """Return the answer."""
    content = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        errors=errors,
    )
    more = {"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else {}
    return Response(content.model_dump_json(), status, {**more, **(headers or {})}, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(BackfillError, _failure)
    app.add_exception_handler(Exception, _unexpected)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = tuple(
        InvalidField(pointer=_pointer(e["loc"]), detail=e["msg"].removeprefix("Value error, "))
        for e in error.errors()[:_ERRORS_SHOWN]
    )
    return problem(request, 422, "; ".join(f"{e.pointer}: {e.detail}" for e in found), found)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase:
        words = {404: "this address does not exist", 405: f"this address does not accept {request.method}"}
        detail = f"{words.get(error.status_code, detail)}: /docs lists the API's addresses"
    return problem(request, error.status_code, detail, headers=dict(error.headers or {}))


def status_of(failure: BackfillError) -> int:
    """Return the HTTP status of a failure; 500 for a failure that the client cannot repair."""
    kinds = {InvalidRequest: 422, UnknownJob: 404, Conflict: 409, TransientFailure: 503}
    return next((status for kind, status in kinds.items() if isinstance(failure, kind)), 500)


async def _failure(request: Request, error: Exception) -> Response:
    assert isinstance(error, BackfillError)
    status = status_of(error)
    if status == 500:
        LOGGER.error(printable(f"{request.method} {request.url.path}: {error}"))
    errors = error.errors if isinstance(error, InvalidRequest) else ()
    remedy = ": /api/v1/backfill/recent lists them" if isinstance(error, UnknownJob) else ""
    return problem(request, status, f"{error}{remedy}", errors)


async def _unexpected(request: Request, error: Exception) -> Response:  # noqa: ARG001
    # Starlette raises the error again after the answer, so that the server's log has it with its traceback.
    # This answer is made outside of all middleware.
    return problem(request, 500, "an unexpected error; the server's log has the details", headers=HEADERS)


def _pointer(location: tuple[int | str, ...]) -> str:
    where, *parts = location
    if where != "body":
        return str(parts[0]) if parts else str(where)
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)
