"""A request from words: what a form or a command line gives, as a ``BackfillRequest`` or as what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from backfill_assets.progress.model import BackfillRequest, InvalidField
from backfill_assets.progress.service import InvalidRequest


def backfill_request(values: Mapping[str, Any]) -> BackfillRequest:
    """The request with these fields; those that are empty are left out.

    Raises
    ------
    InvalidRequest
        A field has not its form; every one that is wrong is named.
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


def _name(location: tuple[int | str, ...]) -> str:
    return str(location[0]).replace("_", " ") if location else "request"
