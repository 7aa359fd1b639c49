"""Settings for a directory of own files, and the commands that run its days.

``own_files`` finds the feeds.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from backfill_assets.days import day_range, shift
from backfill_assets.failures import printable
from backfill_assets.readable_numbers import plural
from backfill_assets.settings import OWN_FILES_VARIABLE, ServeSettings, load_settings, own_files_endpoint
from backfill_assets.standins.own_files import OwnFiles
from backfill_assets.yaml_files import write_new

#: A server on this machine either answers at once or is not running.
_RETRY_SECONDS: Final = 2
#: The folder that ``make`` creates.
_SET_HOME: Final = 'export DAGSTER_HOME="$PWD/.home" in the clone'


def served_by(folder: Path, file: Path) -> str:
    """The command that runs another command with the files served, under the settings that expect them."""
    environment, datasets = (shlex.quote(str(path.expanduser().absolute())) for path in (file, folder))
    return f"BACKFILL_ENV={environment} backfill-assets standins --datasets {datasets}"


def write_settings(found: OwnFiles, folder: Path, file: Path) -> None:
    """Write a settings file that expects the feeds that were found, with its own lake and warehouse.

    Raises
    ------
    BadInput
        The file exists already, or a path contains a brace.
    """
    served = served_by(folder, file)
    endpoint, place = own_files_endpoint(served), f"${{BACKFILL_DATA:-./data}}/{file.stem}"
    content: dict[str, Any] = {
        "tardis": {
            "datasets_endpoint": f"{endpoint}/v1/datasets",
            "api_endpoint": f"{endpoint}/v1",
            "api_key": "",
            "retry_budget_seconds": _RETRY_SECONDS,
        },
        "universe": found.universe,
        "lake": {"uri": f"{place}/lake"},
        "warehouse": {"kind": "duckdb", "folder": f"{place}/warehouse"},
    }
    longest = max(len(day_range(*stretch)) for stretch in _stretches(found.days))
    if longest > ServeSettings().max_days:
        content["serve"] = {"max_days": longest}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1_000)
    head = (
        f"# Own files, read by '{printable(served)} -- COMMAND'.\n"
        f"# Without that command {OWN_FILES_VARIABLE} is not set, and nothing is read. No vendor is asked.\n"
    )
    write_new(file, head + text)
    load_settings(file)


def lines(found: OwnFiles, folder: Path, file: Path, run: str) -> Iterator[str]:
    """Show feeds, files without a place and how to run the days; ``run`` is the command for the last day."""
    yield from (one.line for one in found.feeds)
    for exchange, hint in found.odd_exchanges.items():
        yield f"{exchange} is not a known exchange; {hint}"
    if found.unplaced:
        count = len(found.unplaced)
        yield f"{plural(count, 'file')} {'has' if count == 1 else 'have'} no place:"
        yield from (f"  {name}: {why}" for name, why in found.unplaced)
    served = f"  {served_by(folder, file)} -- "
    yield f"{file} expects these feeds; run the last day with"
    yield f"{served}{run}"
    if found.days[1:]:
        ranges = " ".join("/".join(stretch) for stretch in _stretches(found.days))
        yield f"and all days, with DAGSTER_HOME set ({_SET_HOME}) and the daemon's log in daemon.log, with"
        yield (
            f"{served}sh -c 'dagster-daemon run -m backfill_assets.definitions >daemon.log 2>&1 & "
            f"for days in {ranges}; "
            "do backfill-assets backfill --start ${days%/*} --end ${days#*/} --wait || code=1; done; "
            "kill $!; wait; exit ${code:-0}'"
        )


def _stretches(days: Sequence[str]) -> list[tuple[str, str]]:
    """First and last day of each run of consecutive days; ``days`` are in order.

    A day in between has no file at all, so a run of it could only fail.
    """
    known = set(days)
    firsts = [day for day in days if shift(day, -1) not in known]
    lasts = [day for day in days if shift(day, 1) not in known]
    return list(zip(firsts, lasts, strict=True))
