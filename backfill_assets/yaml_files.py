"""YAML files that people write: read into a frozen model, or refused in one line with the remedy.

A slip of the pen puts a secret where none belongs: ``api_key:SECRET`` without the space is a key, a value in
the wrong line is that of its neighbor. So a refusal, which a running service shows to others, quotes nothing
that may be a secret: of keys the first letters, of values the short ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from backfill_assets.failures import SettingsError

ModelT = TypeVar("ModelT", bound=BaseModel)

#: The compiled loader takes a tenth of the time; not every build of PyYAML has it.
_LOADER: Final[type[Any]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


#: Names, symbols and numbers are shorter, keys and tokens are longer.
_QUOTED: Final = 20


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
        problem = re.sub(r"(tag|alias) '.*", r"\1", str(error.problem or error.context))
        msg = f"{path}: cannot be read as YAML: {place}{problem}"
        raise SettingsError(msg) from None
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
        msg = f"{path}: cannot be read as YAML: {reason}"
        raise SettingsError(msg) from None
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
        # Without the cause: Dagster keeps the texts of a chain, and pydantic's quotes every value.
        raise SettingsError(msg) from None


def quoted(value: str) -> str:
    """The value as a message may quote it."""
    is_short = len(value) <= _QUOTED and "@" not in value
    return repr(value) if is_short else f"a text of {len(value)} characters"


def _first_error(error: ValidationError, page: str) -> str:
    first, *others = error.errors()
    key = ".".join(_name(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        what = f"unknown key; remove it or correct its spelling ({page})"
    elif first["type"] == "missing":
        what = f"is missing; add it ({page})"
    else:
        what = f"{first['msg'].removeprefix('Value error, ')}{_given(key, first)}"
    more = f"; and {len(others)} more" if others else ""
    return f"{key}: {what}{more}" if key else f"{what}{more}"


def _name(part: str | int) -> str:
    """A key up to where it cannot be one of ours any more."""
    text = str(part)
    begin = text if isinstance(part, int) else re.split(r"[^A-Za-z_-]", text, maxsplit=1)[0][:40]
    return begin if begin == text else f"{begin}…"


def _given(key: str, error: ErrorDetails) -> str:
    """Quote the value, unless it is or may hold a secret: a key, a database address, a section."""
    if key.endswith(("api_key", "token", "ohlcv.url")):
        return " (got a secret)"
    value, expected = error["input"], error["type"]
    if expected.endswith(("model_type", "attributes_type", "tuple_type", "list_type", "dict_type")):
        return ""
    if isinstance(value, str):
        return f" (got {quoted(value)})"
    return f" (got {value!r})" if isinstance(value, int | float | None) else ""
