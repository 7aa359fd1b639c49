"""Generated days of any size, as the page sees them."""

from __future__ import annotations

import random
from typing import Final

from backfill_assets.days import MICROSECONDS_PER_MINUTE, start_us
from backfill_assets.feeds import Feed
from backfill_assets.quality.bucket_states import MINUTES
from backfill_assets.quality.scores import Overall
from backfill_assets.quality.verdict import Context, Verdict
from backfill_assets.report.evidence import Candle, FeedReport
from backfill_assets.report.minutes import Minutes
from backfill_assets.report.model import DayReport, ScoreLine
from backfill_assets.settings import OverallSettings

DAY: Final = "2024-01-02"


def verdict(feed: Feed, outcome: str = "publish", **changes: object) -> Verdict:
    """A verdict without any complaint, by default."""
    fields: dict[str, object] = {
        "feed": str(feed),
        "day": DAY,
        "content": "c" * 64,
        "rules": "r" * 12,
        "outcome": outcome,
        "completeness": 1.0,
        "completeness_state": "proven",
        "evidence_class": "A",
        "quality": 1.0,
        "rows": 1000,
        "valid_rows": 1000,
        "missing_ids": 0,
        "longest_gap": 0,
        "reasons": (),
        "warnings": (),
        "context": Context(window_start_us=0, window_end_us=1),
    }
    return Verdict.model_validate({**fields, **changes})


def candles(seed: int, step: int) -> tuple[Candle, ...]:
    """A walk of prices with two digits, a candle for every ``step`` minutes."""
    rng, price, made = random.Random(seed), 42_000.0, []
    for minute in range(0, MINUTES, step):
        close = round(price + rng.gauss(0, 20), 2)
        high = round(max(price, close) + rng.random() * 9, 2)
        low = round(min(price, close) - rng.random() * 9, 2)
        time = start_us(DAY) + minute * MICROSECONDS_PER_MINUTE
        made.append(Candle(time, price, high, low, close, round(rng.random() * 30, 5), rng.randrange(1, 900)))
        price = close
    return tuple(made)


def feed_report(index: int, *, frames: dict[str, int] | None = None, **changes: object) -> FeedReport:
    """A feed with trades in every minute; ``frames`` are the timeframes of its candles with their minutes."""
    feed = Feed("binance", "trades", f"COIN{index:02d}USDT")
    rng = random.Random(index)
    fields: dict[str, object] = {
        "feed": feed,
        "symbol": f"COIN{index:02d}-USDT",
        "verdict": verdict(feed),
        "accepted": True,
        "published": "yes",
        "pending": "",
        "id_range": (1, 9),
        "raw_sha256": "a" * 64,
        "approval": None,
        "restatement": None,
        "minutes": Minutes("t" * MINUTES, tuple(rng.randrange(1, 900) for _ in range(MINUTES))),
        "waiting": None,
        "marks": (),
        "books": {},
        "silences": (),
        "silence_count": 0,
        "gaps": (),
        "gap_count": 0,
        "healed": (),
        "healed_count": 0,
        "rules": (),
        "candles": {name: candles(index, step) for name, step in (frames or {}).items()},
    }
    return FeedReport(**{**fields, **changes})  # type: ignore[arg-type]


def day_of(feeds: tuple[FeedReport, ...], **changes: object) -> DayReport:
    """A published day of these feeds."""
    ones = dict.fromkeys(("ticks", "candles", "instruments", "warehouse", "product", "weighted_sum"), 1.0)
    fields: dict[str, object] = {
        "day": DAY,
        "state": "published",
        "sealed": True,
        "reasons": (),
        "scores": (ScoreLine("Completeness", 1.0, 0.95, True, "how much of it is present"),),
        "overall": Overall.model_validate(ones),
        "weights": OverallSettings(),
        "actions": (),
        "feeds": feeds,
        "agreements": (),
        "differences": (),
        "reference_failures": (),
        "partly_compared": (),
        "not_compared": (),
        "ways": (),
        "publications": (),
        "pending": (),
        "not_listed": (),
        "dropped": (),
        "awaiting_export": (),
        "generated": False,
        "rules": "r" * 12,
    }
    return DayReport(**{**fields, **changes})  # type: ignore[arg-type]
