"""Profiles of one feed's day, sound by default; the tests of scores and verdicts change them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from backfill_assets.days import end_us, start_us
from backfill_assets.feeds import Feed
from backfill_assets.id_laws import ID_LAWS, IdLaw, law_of
from backfill_assets.quality.profiles import FeedProfile, Gap, Silence, SymbolProfile
from backfill_assets.quality.verdict import Context
from backfill_assets.quality.window import Window
from backfill_assets.settings import ThresholdSettings

DAY: Final = "2024-01-02"
START: Final = start_us(DAY)
END: Final = end_us(DAY)
SECOND: Final = 1_000_000
FEED: Final = Feed("binance", "trades", "BTCUSDT")
THRESHOLDS: Final = ThresholdSettings()
WHOLE_DAY: Final = Window(START, END)

#: First and last arrival of a busy feed.
EDGES: Final = (START + SECOND, END - SECOND)


def law(exchange: str, day: str = DAY) -> IdLaw | None:
    """The package's law for the ids of the exchange's trades."""
    return law_of(ID_LAWS, Feed(exchange, "trades", "BTCUSDT"), day)


def gaps(*runs: tuple[int, int], seconds: float = 1) -> dict[str, Any]:
    """The part of a symbol's profile that lists runs of missing ids (first, last), each so long."""
    lengths = [last - first + 1 for first, last in runs]
    after = START + 3600 * SECOND
    listed = [
        Gap(first_missing=a, last_missing=b, after_us=after, before_us=after + round(seconds * SECOND))
        for a, b in runs
    ]
    return {
        "missing_ids": sum(lengths),
        "gaps": tuple(listed),
        "gap_count": len(runs),
        "longest_gap": max(lengths, default=0),
        "missing_in_short_gaps": sum(length for length in lengths if length <= 5),
    }


def silence(seconds: float, usual: float = 0.1, at: int = START + 7200 * SECOND) -> Silence:
    """A silence, with the mean length of the silences around it."""
    return Silence(start_us=at, end_us=at + round(seconds * SECOND), usual_us=usual * SECOND)


def symbol(first_id: int = 1001, last_id: int = 10_000, **changes: Any) -> SymbolProfile:
    """Trades with consecutive ids; ``changes`` may remove some or break them."""
    rows = changes.pop("rows", last_id - first_id + 1 - (changes.get("missing_ids") or 0))
    fields: dict[str, Any] = {
        "dataset_symbol": "BTCUSDT",
        "symbol": "BTC-USDT",
        "rows": rows,
        "valid_rows": rows,
        "first_trade_us": EDGES[0],
        "last_trade_us": EDGES[1],
        "notional": 42_000.0 * rows,
        "buy_rows": rows - rows // 2,
        "sell_rows": rows // 2,
        "unknown_side_rows": 0,
        "numeric_ids": rows,
        "empty_ids": 0,
        "id_first": first_id,
        "id_last": last_id,
        "id_min": first_id,
        "id_max": last_id,
        "unique_ids": rows,
        "duplicate_rows": 0,
        "conflicting_rows": 0,
        "silences": (),
        "silence_count": 0,
        "minute_rows": (rows, *[0] * 1439),
        "seam_rows": 0,
        **gaps(),
    }
    return SymbolProfile(**{**fields, **changes})


def without_ids(rows: int = 9_000, **changes: Any) -> SymbolProfile:
    """Trades of a venue that gives no ids."""
    nothing = dict.fromkeys(
        (
            "id_first",
            "id_last",
            "id_min",
            "id_max",
            "missing_ids",
            "gap_count",
            "longest_gap",
            "missing_in_short_gaps",
        )
    )
    return symbol(rows=rows, numeric_ids=0, empty_ids=rows, unique_ids=0, **{**nothing, **changes})


def profile(*symbols: SymbolProfile, **changes: Any) -> FeedProfile:
    """A file with these symbols; by default with one, whose ids are consecutive."""
    found: Sequence[SymbolProfile] = symbols or (symbol(),)
    fields: dict[str, Any] = {
        "rows": sum(s.rows for s in found),
        "has_header": True,
        "first_timestamp_us": EDGES[0],
        "last_timestamp_us": EDGES[1],
        "first_local_timestamp_us": EDGES[0],
        "last_local_timestamp_us": EDGES[1],
        "local_before_day": 0,
        "local_after_day": 0,
        "local_decreases": 0,
        "implausible_times": 0,
        "wrong_exchange_rows": 0,
        "unknown_symbol_rows": 0,
        "misplaced_rows": 0,
        "ahead_rows": 0,
        "clock_offset_p99_us": -20_000,
        "invalid_price_rows": 0,
        "invalid_amount_rows": 0,
        "crossed_rows": 0,
        "symbols": tuple(found),
    }
    return FeedProfile(**{**fields, **changes})


def empty_profile(**changes: Any) -> FeedProfile:
    """A file with a header and no rows."""
    times = ("first_timestamp_us", "last_timestamp_us", "first_local_timestamp_us", "last_local_timestamp_us")
    nothing = dict.fromkeys((*times, "clock_offset_p99_us"))
    return profile(rows=0, **{**nothing, "symbols": (), **changes})


def quotes(rows: int = 9_000, **changes: Any) -> FeedProfile:
    """A file of quotes: counted, without symbols of its own."""
    return profile(**{"rows": rows, "symbols": (), **changes})


def context(previous: int | None = None, following: int | None = None, **changes: Any) -> Context:
    """The day's whole window, and the neighbors' nearest ids."""
    sides = {"previous": previous, "following": following}
    given = {side: {"BTCUSDT": (nearest,)} for side, nearest in sides.items() if nearest is not None}
    return Context(**{"window_start_us": START, "window_end_us": END, **given, **changes})


JOINED: Final = context(1000, 10_001)
