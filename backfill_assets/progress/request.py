"""Requests from the values of a form or a command line, and their checks: form, days and feeds.

The module is separate from ``service``, so that the API, the page and the command line refuse the same
request with the same words before anything is read or started.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from backfill_assets.automation.backfills import checked_days
from backfill_assets.failures import BadInput, PermanentFailure
from backfill_assets.progress.model import BackfillRequest, InvalidField
from backfill_assets.progress.request_tags import choice_of
from backfill_assets.progress.selection import checked_choice, unknown_names
from backfill_assets.settings import Settings


class InvalidRequest(BadInput):
    """Raised for an invalid request; ``errors`` lists the invalid parts with reasons."""

    def __init__(self, errors: list[InvalidField]) -> None:
        super().__init__("; ".join(error.detail for error in errors))
        self.errors = tuple(errors)


def backfill_request(values: Mapping[str, Any]) -> BackfillRequest:
    """Return the request with the values of a form or a command line; empty values are left out.

    Raises
    ------
    InvalidRequest
        Fields are malformed; lists every malformed field.
    """
    given = {name: value for name, value in values.items() if value not in ("", None, (), [])}
    try:
        return BackfillRequest.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(
            [
                InvalidField(
                    pointer="".join(f"/{part}" for part in found["loc"]),
                    detail=f"{_name(found['loc'])}: {found['msg'].removeprefix('Value error, ')}",
                )
                for found in error.errors()
            ]
        ) from error


def requested_days(request: BackfillRequest, settings: Settings) -> list[str]:
    """Return the days of the request.

    Raises
    ------
    InvalidRequest
        Days, exchanges, symbols or data types cannot be run; lists all of them.
    """
    errors, days = [], []
    most = settings.serve.max_days
    try:
        days = checked_days(request.start.isoformat(), request.end.isoformat())
    except PermanentFailure as failure:
        errors.append(InvalidField(pointer="/start", detail=str(failure)))
    if len(days) > most:
        detail = f"{len(days)} days are more than serve.max_days ({most}): request fewer at a time"
        errors.append(InvalidField(pointer="/end", detail=detail))
    errors += _wrong_choice(request, settings)
    if errors:
        raise InvalidRequest(errors)
    return days


def _wrong_choice(request: BackfillRequest, settings: Settings) -> list[InvalidField]:
    choice = choice_of(request)
    if unknown := unknown_names(settings.universe, choice):
        return [InvalidField(pointer=f"/{name.part}/{name.index}", detail=name.detail) for name in unknown]
    try:
        checked_choice(settings.universe, choice)
    except PermanentFailure as failure:
        return [InvalidField(pointer="", detail=str(failure))]
    return []


def _name(location: tuple[int | str, ...]) -> str:
    return str(location[0]).replace("_", " ") if location else "request"
