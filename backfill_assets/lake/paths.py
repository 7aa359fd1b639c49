"""Every path of the lake, in one place; nothing else joins path components.

Paths are relative to the lake's root, with ``/``. Components come from outside (exchanges, symbols), so each
is checked: none may climb, hide, or be a wildcard to a program that takes URIs.
"""

from __future__ import annotations

from typing import Final

from backfill_assets.days import parse_day
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed

#: Separators, wildcards of ``gs://`` URIs and of globs, and characters at which shells and browsers cut
#: paths.
_FORBIDDEN: Final = frozenset(" /\\*?[]#%:\"'<>|")
#: File systems allow 255 bytes; a temporary name needs some of them.
_LONGEST_BYTES: Final = 200

MANIFEST: Final = "manifest.json"


def ticks_prefix(feed: Feed, day: str) -> str:
    """Return the prefix of all files of a feed's ticks of a day, with a slash at the end."""
    return f"ticks/{_feed(feed)}/{_day(day)}/"


def ticks_data(feed: Feed, day: str, content: str) -> str:
    """Return a Parquet file of ticks; ``content`` is its sha256."""
    return f"{ticks_prefix(feed, day)}{_component(content)}.parquet"


def ticks_manifest(feed: Feed, day: str) -> str:
    """Return the ``FeedManifest``."""
    return f"{ticks_prefix(feed, day)}{MANIFEST}"


def partials_data(feed: Feed, day: str, content: str) -> str:
    """Return a Parquet file of a feed's day by minute: partial candles, or numbers that are compared.

    ``content`` is its sha256.
    """
    return f"partials/{_feed(feed)}/{_day(day)}/{_component(content)}.parquet"


def is_partials(path: str) -> bool:
    """Whether the path is one of ``partials_data``."""
    return path.startswith("partials/")


def made_prefix(table: str, day: str) -> str:
    """Return the prefix of a day's ``candles`` or ``coverage``, a partition's folder to readers."""
    return f"{_component(table)}/date={_day(day)}/"


def made_data(table: str, day: str, content: str) -> str:
    """Return the day's Parquet file of ``candles`` or ``coverage``; ``content`` is its sha256."""
    return f"{made_prefix(table, day)}{_component(content)}.parquet"


def instruments_prefix(exchange: str, day: str) -> str:
    """Return the prefix of all files of an exchange's instruments of a day, with a slash at the end."""
    return f"instruments/{_component(exchange)}/{_day(day)}/"


def instruments_data(exchange: str, day: str, content: str) -> str:
    """Return a Parquet file of instruments; ``content`` is its sha256."""
    return f"{instruments_prefix(exchange, day)}{_component(content)}.parquet"


def instruments_manifest(exchange: str, day: str) -> str:
    """Return the document that names the instruments of the day."""
    return f"{instruments_prefix(exchange, day)}{MANIFEST}"


def incidents() -> str:
    """Return the ``Incidents``: problems that wait for a person, and the recipients that were told."""
    return "incidents.json"


def day_record(day: str) -> str:
    """Return the ``DayRecord``: the day's expected feeds."""
    return f"days/{_day(day)}.json"


def settled_day(day: str) -> str:
    """Return the ``SettledDay``: which versions of the day's feeds count, and why."""
    return f"settled/{_day(day)}.json"


def measures(day: str) -> str:
    """Return the ``DayMeasures``: the files of the day's candles, and how well they agree."""
    return f"measures/{_day(day)}.json"


def comparison(day: str) -> str:
    """Return the ``DayComparison``: how far the day's candles agree with those of other sources."""
    return f"references/{_day(day)}.json"


def reference_data(source: str, day: str, content: str) -> str:
    """Return a Parquet file of a source's candles of the day; ``content`` is its sha256."""
    return f"references/{_component(source)}/{_day(day)}/{_component(content)}.parquet"


def reference_manifest(source: str, day: str) -> str:
    """Return the ``FetchedDay``: the candles of the day that a source gave, and why others are missing."""
    return f"references/{_component(source)}/{_day(day)}/{MANIFEST}"


def accepted_versions(day: str) -> str:
    """Return the record of a judged day in an earlier layout; only its existence is checked."""
    return f"accepted/{_day(day)}.json"


def decisions(feed: Feed, day: str) -> str:
    """Return the decisions on the feed's day, as an earlier layout kept them."""
    return f"decisions/{_feed(feed)}/{_day(day)}.json"


def baseline() -> str:
    """Return the baseline: measures of published days, by which other days are weighed."""
    return "baseline.json"


def publication(table: str, day: str) -> str:
    """Return the ledger entry of a table's partition."""
    return f"publications/{_component(table)}/{_day(day)}.json"


def day_report(day: str) -> str:
    """Return the page of a day."""
    return f"reports/{_day(day)}.html"


def day_summary(day: str) -> str:
    """Return the summary of a day that the page of its month is made from."""
    return f"reports/{_day(day)}.json"


def month_report(month: str) -> str:
    """Return the page of a month; ``month`` is ``YYYY-MM``."""
    return f"reports/{_day(f'{month}-01')[:-3]}.html"


def rejected(feed: Feed, day: str, raw_sha256: str) -> str:
    """Return a raw file that could not be decoded, kept for inspection."""
    return f"rejected/{_feed(feed)}/{_day(day)}/{_component(raw_sha256)}.csv.gz"


def receipt_data(feed: Feed, day: str, content: str, kind: str) -> str:
    """Return an answer of a second source, or the trades that were taken from answers.

    ``content`` is its sha256, ``kind`` the ending of its name.
    """
    return f"receipts/{_feed(feed)}/{_day(day)}/{_component(content)}.{_component(kind)}"


def damaged(path: str) -> str:
    """Return the place for a damaged file, kept for inspection."""
    return f"damaged/{path}"


def _feed(feed: Feed) -> str:
    return "/".join(_component(part) for part in (feed.exchange, feed.data_type, feed.dataset_symbol))


def _day(day: str) -> str:
    return parse_day(day).isoformat()


def _component(text: str) -> str:
    bad = (
        text in ("", ".", "..")
        or len(text.encode()) > _LONGEST_BYTES
        # The space is the only separator that Python calls printable.
        or not (text.isprintable() and _FORBIDDEN.isdisjoint(text))
    )
    if bad:
        msg = (
            f"{text!r} cannot be a name in the lake: correct the exchange, symbol or table that it comes from"
        )
        raise PermanentFailure(msg)
    return text
