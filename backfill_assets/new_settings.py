"""Makes a settings file from four answers, and writes it after trying every part, never over another file.

The answers replace values of the base settings; the trials are those of ``doctor``.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from backfill_assets.automation.backfills import checked_days
from backfill_assets.days import shift, utc_now
from backfill_assets.doctor import Finding, examine
from backfill_assets.failures import BadInput, SettingsError, TransientFailure
from backfill_assets.feeds import GROUPED_SYMBOLS
from backfill_assets.files import TEMPORARY_PREFIX
from backfill_assets.local_runs import insist_on_key
from backfill_assets.settings import ProcessEnvironment, SettingsFile, load_settings, settings_file
from backfill_assets.yaml_files import read_mapping, validated, write_new

#: Days after which the vendor has exported a day.
_DAYS_OF_EXPORT: Final = 2
_HEAD: Final = "# Written by 'backfill-assets init'; docs/settings.md lists every key.\n"


@dataclass(frozen=True, slots=True)
class Answers:
    """The data to fetch, and the folder of lake, tables and Dagster's records."""

    exchanges: tuple[str, ...]
    symbols: tuple[str, ...]
    data_types: tuple[str, ...]
    folder: str

    def content(self, begin: str) -> dict[str, Any]:
        """Return the settings, with all other values from the environment or file ``begin``."""
        given = read_mapping(settings_file(begin), "settings")
        given.pop("name", None)
        # The file can be used from any folder.
        folder = Path(self.folder).expanduser().absolute()
        return {
            **given,
            "universe": [
                {
                    "exchanges": [*self.exchanges],
                    "symbols": [*self.symbols],
                    "data_types": [*self.data_types],
                }
            ],
            "lake": {"uri": f"{folder}/lake"},
            "warehouse": {"kind": "duckdb", "folder": f"{folder}/warehouse"},
            "dagster_home": f"{folder}/dagster",
        }


def usual_settings() -> str:
    """Return the environment that gives all other settings: ``local`` with a stand-in, else ``tardis``."""
    return "local" if ProcessEnvironment().backfill_standin_url else "tardis"


def newest_free_day() -> str:
    """Return the first day of the newest month that the vendor has begun to export."""
    return shift(utc_now().date().isoformat(), -_DAYS_OF_EXPORT)[:8] + "01"


def write_tried(answers: Answers, file: Path, begin: str, day: str) -> Iterator[Finding]:
    """Try the settings and yield each finding; then write them.

    Raises
    ------
    BadInput
        A trial failed, or the file already exists: nothing is written.
    TransientFailure
        A trial that may succeed later failed: nothing is written either.
    """
    if "://" in answers.folder:
        msg = (
            f"{answers.folder} is no folder of this machine: give one, and set lake.uri in {file} afterwards"
        )
        raise BadInput(msg)
    try:
        content = answers.content(begin)
        validated(SettingsFile, {"name": file.stem, **content}, file, page="see docs/settings.md")
    except SettingsError as error:
        raise BadInput(str(error)) from error
    text = _HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1_000)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX) as folder:
        tried = Path(folder) / file.name
        tried.write_text(text, encoding="utf-8")
        insist_on_key(load_settings(tried), checked_days(day, day))
        for finding in examine(str(tried), day):
            if not finding.ok:
                msg = f"{file} was not written: {finding.text}"
                raise TransientFailure(msg) if finding.is_transient else BadInput(msg)
            # The settings are in another place only during the trials.
            yield Finding(finding.what, ok=True, text=finding.text.replace(str(tried), str(file)))
    write_new(file, text)


def next_commands(answers: Answers, file: Path, day: str) -> Sequence[str]:
    """Return the lines to type next: they name the settings, run the day, and show its outcome."""
    command = "backfill-assets"
    if ProcessEnvironment().backfill_standin_url:
        command += " standins -- backfill-assets"
    look = f"report --date {day}"
    single = [symbol for symbol in answers.symbols if symbol not in GROUPED_SYMBOLS]
    if single and "trades" in answers.data_types:
        market = f"--exchange {shlex.quote(answers.exchanges[0])} --symbol {shlex.quote(single[0])}"
        look = f"candles --date {day} {market} --timeframe 1h"
    named = f"export BACKFILL_ENV={shlex.quote(str(file.expanduser().absolute()))}"
    return (named, f"{command} run --date {day}", f"{command} {look}")
