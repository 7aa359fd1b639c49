"""The complete commands that mend a day, as reports, messages, plans and pages print them.

They are plain text, made without the lake, so that every stage can name a remedy. A command that decides on a
version names its content: the version that a person has examined counts, even if another file has arrived
since. The settings in force say whether a run needs a stand-in for own files.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from backfill_assets.failures import SettingsError
from backfill_assets.feeds import Feed
from backfill_assets.settings import current_settings, own_files_command
from backfill_assets.venues import ASKED_FOR_IDS

#: Digits of a content that are printed; a command accepts any number that identifies one version.
SHOWN_DIGITS: Final = 12
#: The remedy of missing ids, where ``can_heal``.
ASK_THE_EXCHANGE: Final = "Ask the exchange for the trades of the missing ids"
#: The run of a day, without the stand-in that it may need. The job is the job of the schedules: with
#: ``--assets '*'`` Dagster warns about one of its own APIs.
RUN_DAY: Final = "dg launch -m backfill_assets.definitions --job day --partition {day}"


def run_day(day: str, refresh: Sequence[str] = (), *, generated: bool = False) -> str:
    """The command that runs a day and so publishes its changes.

    Parameters
    ----------
    refresh
        Feeds to fetch again although the lake has them.
    generated
        Whether the day's data come from the stand-in, which must then be running.
    """
    served = _own_files() or ("backfill-assets standins -- " if generated else "")
    command = f"{served}{RUN_DAY.format(day=day)}"
    if not refresh:
        return command
    config = {"ops": {"ticks": {"config": {"refresh": True, "feeds": list(refresh)}}}}
    return f"{command} --config-json {shlex.quote(json.dumps(config))}"


def approve_command(day: str, feed: str | None, *contents: str) -> str:
    """The command that approves these pending versions, of one feed or of all feeds of the day."""
    return _decide("approve", day, feed, contents)


def retract_command(day: str, feed: str, content: str) -> str:
    """The command that withdraws this version."""
    return _decide("retract", day, feed, (content,))


def heal_command(day: str, *feeds: str) -> str:
    """The command that asks the exchange for missing ids: of one feed, or of the whole day for several."""
    return f"backfill-assets heal --date {day}" + (
        f" --feed {shlex.quote(feeds[0])}" if len(feeds) == 1 else ""
    )


def can_heal(feed: Feed, evidence_class: str | None, missing_ids: int | None) -> bool:
    """Whether ids of the feed are missing and its exchange can be asked for them.

    Parameters
    ----------
    evidence_class, missing_ids
        Those of the feed's verdict.
    """
    has_ids = feed.data_type == "trades" and not feed.is_grouped and evidence_class in ("A", "B")
    return has_ids and bool(missing_ids) and feed.exchange in ASKED_FOR_IDS


def _own_files() -> str:
    """The words before the command if the settings name own files; empty otherwise."""
    with suppress(SettingsError):
        return own_files_command(current_settings())
    return ""


def _decide(verb: str, day: str, feed: str | None, contents: Sequence[str]) -> str:
    named = f" --feed {shlex.quote(feed)}" if feed else ""
    named += "".join(f" --content {content[:SHOWN_DIGITS]}" for content in contents)
    return f'backfill-assets {verb} --date {day}{named} --reason "…"'
