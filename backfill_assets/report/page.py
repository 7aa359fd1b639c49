"""Renders reports as self-contained HTML, so that a page works without a network.

Style, script and the charting library are inside the page, and its content security policy lets it load
nothing else. The heat map is rendered here, so it works without scripts; scripts add the charts, the single
minutes of a feed, and the switch of the theme.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.days import MICROSECONDS_PER_SECOND, day_range, shift
from backfill_assets.quality.bucket_states import MINUTES
from backfill_assets.report.actions import NEARLY_COMPLETE, clock_range
from backfill_assets.report.evidence import FeedReport
from backfill_assets.report.heat_map import LEVELS, heat_map, text
from backfill_assets.report.minutes import (
    STATES,
    summary,
)
from backfill_assets.report.model import DayReport
from backfill_assets.report.month import MonthReport

if TYPE_CHECKING:
    import jinja2

_HERE: Final = Path(__file__).parent
LIBRARY: Final = "lightweight-charts.standalone.production.js"
#: A sum of scores may be off by this much in the last bits; 0.33 must not be shown as 0.3299.
_NOISE: Final = 1e-7

#: For verdicts and days: a sign, so that color is never the only difference, and words.
OUTCOMES: Final = {
    "publish": ("✓", "good enough to publish"),
    "quarantine": ("×", "left out of the tables"),
    "no_evidence": ("?", "waits for evidence or approval"),
    "missing": ("∅", "there is no file"),
}
DAY_STATES: Final = {
    "published": ("✓", "every feed is in the tables, every score above its threshold"),
    "degraded": ("!", "published without the feeds that fall short, or with a low score"),
    "held": ("×", "nothing of it is published"),
    "missing": ("∅", "nothing is recorded of it"),
}


def day_page(report: DayReport, pages: frozenset[str] = frozenset()) -> str:
    """The page of a day; ``pages`` are the days and months whose pages are in the same folder."""
    month = report.day[:7]
    return _template("day.html.j2").render(
        report=report,
        title=f"{report.day} {report.state}",
        date=_long_date(report.day),
        weekday=f"{date.fromisoformat(report.day):%A}",
        links={
            "before": shift(report.day, -1) if shift(report.day, -1) in pages else None,
            "after": shift(report.day, 1) if shift(report.day, 1) in pages else None,
            "month": month if month in pages else None,
        },
        # A missing feed has no content to show.
        opened=next((f for f in report.feeds if f.verdict.content), None),
        maps=[heat_map(feed) for feed in report.feeds],
        answer=_answer(report),
        texts=[text(feed) for feed in report.feeds],
        legend=summary(f.minutes for f in report.feeds if f.minutes is not None),
        uncounted=sorted({f.feed.data_type for f in report.feeds if f.minutes is None}),
        in_two=any(f.waiting for f in report.feeds),
        marked={mark.sign for f in report.feeds for mark in f.marks},
        data=_data(report),
        library=(_HERE / "static" / LIBRARY).read_text(encoding="utf-8"),
    )


def month_page(report: MonthReport) -> str:
    """The page of a month, with links to the pages of its days in the same folder."""
    first = date.fromisoformat(report.days[0])
    counts: dict[str, int] = {}
    for found in report.summaries.values():
        counts[found.state] = counts.get(found.state, 0) + 1
    return _template("month.html.j2").render(
        report=report,
        title=report.month,
        date=f"{first:%B %Y}",
        answer=_month_answer(report, counts),
        counts={state: counts[state] for state in DAY_STATES if state in counts},
        weekends={
            d for d in day_range(report.days[0], report.days[-1]) if date.fromisoformat(d).weekday() > 4
        },
    )


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        score=score,
        clock=clock,
        seconds=seconds,
        moment=moment,
        weekday=_weekday,
        percent=percent,
        when=lambda mark: clock_range(mark.first, mark.after),
    )
    environment.globals.update(
        OUTCOMES=OUTCOMES,
        DAY_STATES=DAY_STATES,
        STATES=STATES,
        MINUTES=MINUTES,
        LEVELS=LEVELS,
        NEARLY_COMPLETE=NEARLY_COMPLETE,
    )
    return environment


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


def score(value: float | None) -> str:
    """Four decimals, never rounded up: only 1 is shown as 1.0000."""
    return "–" if value is None else f"{math.floor(value * 10_000 + _NOISE) / 10_000:.4f}"


def percent(share: float) -> str:
    """One decimal, never rounded up."""
    return f"{math.floor(share * 1000 + _NOISE) / 10:.1f} %"


def clock(time_us: int) -> str:
    """Time of day in UTC, to the second."""
    return f"{datetime.fromtimestamp(time_us / MICROSECONDS_PER_SECOND, UTC):%H:%M:%S}"


def seconds(length_us: float) -> str:
    """A length of time for people to read: 0.4 s, 12.5 s, 3 min 20 s, 2 h 5 min."""
    total = length_us / MICROSECONDS_PER_SECOND
    if total < 59.95:
        return f"{total:.1f} s"
    minutes, rest = divmod(round(total), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def moment(when: datetime | None) -> str:
    """Date and time in UTC, to the second."""
    return "–" if when is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _answer(report: DayReport) -> str:
    """Say in one sentence whether the day is good."""
    total = len(report.feeds)
    if not total:
        waits = f": it waits for {', '.join(report.awaiting_export)}" if report.awaiting_export else ""
        return f"No feed is expected of this day{waits}."
    out = sum(not feed.accepted for feed in report.feeds)
    if report.state == "held":
        return f"Nothing is published: only {total - out} of {total} feeds are good enough."
    if out:
        return f"{out} of {total} feeds {'is' if out == 1 else 'are'} left out, the others are published."
    if report.state == "degraded":
        return f"All {total} feeds are published, but a score of the day is too low."
    return f"The day is good: all {total} feeds are in the tables."


def _month_answer(report: MonthReport, counts: dict[str, int]) -> str:
    """Say in one sentence how much of the month is good."""
    good, total = counts.get("published", 0), len(report.days)
    bad = len(report.summaries) - good
    if good == total:
        return f"The month is good: all {total} days are fully published."
    absent = total - len(report.summaries)
    parts = [f"{good} of {total} days are fully published"]
    parts += [f"{bad} {'has' if bad == 1 else 'have'} a shortfall"] if bad else []
    parts += [f"{absent} {'was' if absent == 1 else 'were'} not run"] if absent else []
    return ", ".join(parts) + "."


def _long_date(day: str) -> str:
    found = date.fromisoformat(day)
    return f"{found.day} {found:%B %Y}"


def _weekday(day: str) -> str:
    return f"{date.fromisoformat(day):%a}"


def _data(report: DayReport) -> dict[str, Any]:
    """The data of the script: states and trades by minute, candles as columns."""
    return {
        "start": int(datetime.fromisoformat(report.day).replace(tzinfo=UTC).timestamp()),
        "levels": LEVELS,
        "states": {s.code: [s.name, s.sign] for s in STATES},
        "feeds": [_feed_data(feed) for feed in report.feeds],
    }


def _feed_data(feed: FeedReport) -> dict[str, Any]:
    minutes = feed.waiting or feed.minutes
    return {
        "name": str(feed.feed),
        # Runs as letter and length, and no zeros: this makes a page of 60 feeds a megabyte smaller.
        "states": "".join(f"{s.code}{b - a}" for a, b, s in minutes.runs()) if minutes else "",
        "trades": ",".join(str(n or "") for n in minutes.trades) if minutes else "",
        "flagged": minutes.flagged if minutes else [],
        "decimals": _decimals(feed),
        "candles": {
            name: [
                [c.time_us // MICROSECONDS_PER_SECOND, c.open, c.high, c.low, c.close, c.volume]
                for c in candles
            ]
            for name, candles in feed.candles.items()
        },
    }


def _decimals(feed: FeedReport) -> int:
    """Number of decimals in the venue's prices."""
    closes = {c.close for c in next(iter(feed.candles.values()), ())}
    return max((len(f"{close:.8f}".rstrip("0").partition(".")[2]) for close in closes), default=2)
