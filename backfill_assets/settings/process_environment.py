"""The environment of the process, and the values of settings that name its variables.

No other module reads the environment. Values may contain ``${NAME}``, ``${NAME:-default}`` and
``${NAME:?remedy}``; they are replaced when a value is *used* (``resolve``), so importing the code location
needs no secret, and a run that lacks a secret fails and names it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from backfill_assets.failures import BadInput, SettingsError, path_secrets
from backfill_assets.settings.fields import BASE, SECRET, SettingsFile
from backfill_assets.yaml_files import Described

#: The variable with the address of a stand-in that serves own files. Settings of own files name it instead of
#: the variable of every stand-in, so that generated prices never reach their lake.
OWN_FILES_VARIABLE: Final = "BACKFILL_DATASETS_URL"
_RUN_AS: Final = re.compile(r"run your command as '(.*) -- COMMAND'", re.DOTALL)

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


def _variable(name: str) -> Any:
    return field(default_factory=lambda: os.environ.get(name))


@dataclass(frozen=True, slots=True)
class ProcessEnvironment:
    """The present values of the variables that the package itself reads; settings files name all others.

    A status reads them several times, so this is a plain class without validation: the values are texts.
    """

    backfill_env: str = field(default_factory=lambda: os.environ.get("BACKFILL_ENV", "local"))
    backfill_standin_url: str | None = _variable("BACKFILL_STANDIN_URL")
    dagster_home: str | None = _variable("DAGSTER_HOME")
    dagster_postgres_url: str | None = _variable("DAGSTER_POSTGRES_URL")

    @staticmethod
    def is_set(name: str) -> bool:
        """Whether the variable of the field ``name`` is set, even to its default."""
        return name.upper() in os.environ


def set_dagster_home(folder: Path) -> None:
    """Set the folder of Dagster's records for this process and the processes that it starts."""
    os.environ["DAGSTER_HOME"] = str(folder)


def set_where_unset(name: str, value: str) -> None:
    """Set a variable of another library, unless the user has set it."""
    os.environ.setdefault(name, value)


def resolve(value: str) -> str:
    """Replace ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` by the process environment.

    Raises
    ------
    SettingsError
        A variable without default is not set or empty; the message names it.
    """

    def replacement(match: re.Match[str]) -> str:
        name, kind, rest = match["name"], match["kind"], match["rest"]
        found = os.environ.get(name, "")
        if found:
            return found
        if kind == "-":
            return rest
        remedy = rest if kind == "?" else f"set {name} in the environment"
        msg = f"environment variable {name} is not set: {remedy}"
        raise SettingsError(msg)

    return _REFERENCE.sub(replacement, value)


def variables_in(value: str) -> dict[str, bool]:
    """The environment variables that the value refers to, and whether each is set."""
    return {match["name"]: bool(os.environ.get(match["name"])) for match in _REFERENCE.finditer(value)}


def own_files_endpoint(command: str) -> str:
    """The address of a stand-in for own files, as settings write it; ``command`` serves the files.

    Raises
    ------
    BadInput
        The command contains a brace, which would end the reference.
    """
    if "}" in command:
        msg = f"settings cannot have a }} in a path ({command}): rename the folder or the file"
        raise BadInput(msg)
    advice = f"these settings read own files; run your command as '{command} -- COMMAND'"
    return f"${{{OWN_FILES_VARIABLE}:?{advice}}}"


def own_files_command(settings: SettingsFile) -> str:
    """The words that stand before a command under settings of own files; empty under all others."""
    endpoint = settings.tardis.datasets_endpoint
    if OWN_FILES_VARIABLE not in variables_in(endpoint):
        return ""
    found = _RUN_AS.search(endpoint)
    return f"{found[1] if found else 'backfill-assets standins --datasets FOLDER'} -- "


def standin_command(settings: SettingsFile) -> str:
    """The words that stand before a command under settings of a stand-in; empty under all others."""
    generated = "BACKFILL_STANDIN_URL" in variables_in(settings.tardis.datasets_endpoint)
    return own_files_command(settings) or ("backfill-assets standins -- " if generated else "")


def secrets_of(settings: SettingsFile) -> tuple[str, ...]:
    """The values of the settings that are never shown: keys, each of their words, and tokens in addresses."""
    found: list[str] = []
    for section in (value for _, value in settings if isinstance(value, Described)):
        for part in (section, *_parts_of(section)):
            for name, value in part:
                marks = type(part).model_fields[name].metadata
                with suppress(SettingsError):
                    if SECRET in marks:
                        given = resolve(value)
                        found += [given, *given.split()]
                    elif BASE in marks:
                        found += path_secrets(resolve(value))
    return tuple(dict.fromkeys(filter(None, found)))


def _parts_of(section: Described) -> list[Described]:
    """The sections in the lists of a section."""
    lists = (value for _, value in section if isinstance(value, tuple))
    return [part for parts in lists for part in parts if isinstance(part, Described)]
