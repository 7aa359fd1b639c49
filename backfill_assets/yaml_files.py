"""YAML files that people write: read into a frozen model, or refused in one line with the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from backfill_assets.failures import SettingsError

ModelT = TypeVar("ModelT", bound=BaseModel)

#: The compiled loader takes a tenth of the time; not every build of PyYAML has it.
_LOADER: Final[type[Any]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Strict(BaseModel):
    """A section of such a file: no unknown keys, no changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_mapping(path: Path, example: str) -> dict[str, Any]:
    """Read the keys of a file.

    Raises
    ------
    SettingsError
        The file cannot be read, is no YAML, or holds no mapping. The message quotes no line of the file,
        because it may hold a secret.
    """
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        msg = f"{path}: cannot be read as YAML: {place}{error.problem or error.context}"
        raise SettingsError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
        msg = f"{path}: cannot be read as YAML: {reason}"
        raise SettingsError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: must hold a mapping of {example}"
        raise SettingsError(msg)
    return content


def validated(model: type[ModelT], content: dict[str, Any], path: Path, *, page: str) -> ModelT:
    """Make the model of a file's content; ``page`` is the document that lists its keys.

    Raises
    ------
    SettingsError
        An unknown or missing key, or a bad value: the first is named, the others are counted.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        msg = f"{path}: {_first_error(error, page)}"
        raise SettingsError(msg) from error


def _first_error(error: ValidationError, page: str) -> str:
    first, *others = error.errors()
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        what = f"unknown key; remove it or correct its spelling ({page})"
    elif first["type"] == "missing":
        what = f"is missing; add it ({page})"
    else:
        what = f"{first['msg'].removeprefix('Value error, ')}{_given(key, first)}"
    more = f"; and {len(others)} more" if others else ""
    return f"{key}: {what}{more}" if key else f"{what}{more}"


def _given(key: str, error: ErrorDetails) -> str:
    """Quote the value, unless it is or may hold a secret: a key, a database address, a section."""
    if key.endswith(("api_key", "token", "ohlcv.url")):
        return " (got a secret)"
    value, is_section = error["input"], error["type"] == "model_type"
    return f" (got {value!r})" if isinstance(value, str | int | float | None) and not is_section else ""
