"""The commands ``candles``, ``coverage`` and ``quality``: rows and states of the days of a range."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from backfill_assets.days import shift
from backfill_assets.frames.data import Data
from backfill_assets.frames.output import Format, format_of, table_text, write_rows
from backfill_assets.frames.states import DataGapWarning, OnGap
from backfill_assets.quality.book_states import BOOK_LETTERS
from backfill_assets.quality.bucket_states import letters_in
from backfill_assets.readable_numbers import plural
from backfill_assets.tardis.generated import GENERATED_PRICES

if TYPE_CHECKING:
    from backfill_assets.frames.conditions import FeedDay, MarketCoverage, MarketDay, QualityAnswer
    from backfill_assets.settings import Settings


def give_candles(
    settings: Settings,
    days: tuple[str, str],
    symbol: str | None,
    output: Path | None,
    out: BinaryIO,
    *,
    exchange: str,
    timeframe: str,
    form: Format | Literal["table"] | None,
    fill: bool,
    on_gap: OnGap,
) -> list[str]:
    """Write the candles, and return lines about generated prices, days that fall short, and the file.

    Parameters
    ----------
    days
        The first and the last day.
    form
        ``table`` or a file format, for ``out``; only without ``output``. None means a table.

    Raises
    ------
    DataGap
        Days fall short, and ``on_gap`` is ``raise``.
    """
    if output is not None:
        format_of(output)
    with warnings.catch_warnings():
        # The returned lines say the same.
        warnings.simplefilter("ignore", DataGapWarning)
        frame = Data(settings, "lake").candles(
            exchange, symbol, timeframe, days[0], shift(days[1], 1), fill=fill, on_gap=on_gap
        )
    told = [GENERATED_PRICES] if frame.is_generated else []
    told += [f"Warning: {frame.gaps}"] if frame.gaps and on_gap == "warn" else []
    if output is not None:
        rows = frame.write(output)
        told.append(f"{output}: {plural(rows, 'row')} of {frame!r}")
    elif form is not None and form != "table":
        rows = write_rows(frame.by_day(), form, out)
    else:
        found = frame.to_polars()
        rows = found.height
        out.write(table_text(found, first=() if symbol else ("symbol",)).encode())
    if not rows and not frame.gaps:
        told.append(f"no candles of {exchange} {symbol or 'any market'}: nothing was traded")
    return told


def coverage_lines(found: MarketCoverage) -> Iterator[str]:
    """Yield a line per day: its condition, its time of publication, and the count of buckets by state."""
    for day in found.days:
        buckets = ", ".join(f"{count:,} {state}" for state, count in day.buckets.items())
        changed, origin = _moment(day.last_modified), _origin(day)
        yield _line(day.day, day.condition, changed, buckets, origin, day.reasons)


def quality_lines(found: QualityAnswer) -> Iterator[str]:
    """Yield a line per feed and day: its condition, its time of publication, and facts about its file."""
    if not found.feeds:
        yield "no day of the range was run"
    for feed in found.feeds:
        name = f"{feed.exchange}/{feed.data_type}/{feed.dataset_symbol}"
        for day in feed.days:
            rows = "" if day.rows is None else f"{day.rows:,} rows"
            ids = "" if day.first_id is None else f"ids {day.first_id} to {day.last_id}"
            raw = f"raw {day.raw_sha256[:12]}" if day.raw_sha256 else ""
            changed, reasons = _moment(day.last_modified), day.reasons or ""
            yield _line(
                name, day.day, day.condition, changed, rows, ids, _book(day), raw, _origin(day), reasons
            )


def _book(day: FeedDay) -> str:
    """The minutes of a book by state, and how long it did not change."""
    if not day.book_minutes:
        return ""
    letters = letters_in(day.book_minutes)
    counted = {state: letters.count(letter) for state, letter in BOOK_LETTERS.items()}
    parts = [f"{count:,} min {state}" for state, count in counted.items() if count]
    if day.valid_book_share is not None:
        parts.append(f"valid {100 * day.valid_book_share:.2f} % of the day")
    for words, seconds in (
        ("unchanged for at most", day.longest_unchanged_seconds),
        ("at the end for", day.unchanged_at_end_seconds),
    ):
        parts += [f"{words} {seconds:,.1f} s"] if seconds is not None else []
    return ", ".join(parts)


def _origin(day: MarketDay | FeedDay) -> str:
    return "generated" if day.generated else ""


def _moment(value: datetime | None) -> str:
    return "" if value is None else f"published {value:%Y-%m-%dT%H:%M:%SZ}"


def _line(*parts: str) -> str:
    return "  ".join(part for part in parts if part)
