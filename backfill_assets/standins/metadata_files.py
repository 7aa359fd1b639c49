"""The vendor's metadata beside own files: ``instruments/{exchange}.json`` and ``exchanges/{exchange}.json``.

Each file is the vendor's unchanged answer. A file that is not such an answer is refused here by its name.
Otherwise the client, which does not know of the files, would ask for a newer version of the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import BaseModel, ValidationError

from backfill_assets.failures import PermanentFailure
from backfill_assets.standins.sources import Json
from backfill_assets.tardis.metadata import ExchangeDetails, Instrument

INSTRUMENTS: Final = "instruments"
EXCHANGES: Final = "exchanges"


def instruments_beside(top: Path, exchange: str) -> list[Json] | None:
    """Return the vendor's list of instruments; None if there is no file.

    Raises
    ------
    PermanentFailure
        The file is not such a list, has instruments of another exchange, or no readable entry.
    """
    file = top / INSTRUMENTS / f"{exchange}.json"
    answer = _read(file)
    if answer is None:
        return None
    if not isinstance(answer, list):
        _refuse(file, "does not hold a list of instruments")
    faults = [_fault(Instrument, one) for one in answer]
    if all(faults):
        _refuse(file, faults[0] if faults else "lists no instruments")
    entries = [one for one in answer if isinstance(one, dict)]
    if others := {str(one["exchange"]) for one in entries if one.get("exchange")} - {exchange}:
        _refuse(file, f"is of {min(others)}")
    return entries


def details_beside(top: Path, exchange: str) -> Json | None:
    """Return the vendor's description of an exchange; None if there is no file.

    Raises
    ------
    PermanentFailure
        The file is not such a description, is of another exchange, or lists no data sets.
    """
    file = top / EXCHANGES / f"{exchange}.json"
    answer: Json | None = _read(file)
    if answer is None:
        return None
    if not isinstance(answer, dict):
        _refuse(file, "does not hold a description of an exchange")
    if fault := _fault(ExchangeDetails, answer):
        _refuse(file, fault)
    if answer["id"] != exchange:
        _refuse(file, f"is of {answer['id']}")
    if not (answer.get("datasets") or {}).get("symbols"):
        _refuse(file, "lists no data sets")
    return answer


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        _refuse(file, f"cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        _refuse(file, f"is not JSON ({error})")


def _refuse(file: Path, fault: str) -> NoReturn:
    msg = f"{file} {fault}: save the vendor's answer there, or remove the file"
    raise PermanentFailure(msg)


def _fault(model: type[BaseModel], answer: Any) -> str:
    """Name a fault of the answer itself; the client leaves out faulty entries of its lists."""
    try:
        model.model_validate(answer)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            if not any(isinstance(part, int) for part in problem["loc"]):
                place = "".join(f"{part}: " for part in problem["loc"][-1:])
                return f"cannot be read: {place}{problem['msg']}"
    return ""
