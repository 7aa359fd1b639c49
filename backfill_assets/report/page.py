"""How reports look: HTML from the models, self-contained, so that a page works without a network.

Style, script and the charting library stand inside the page, and its content security policy lets it load
nothing else. The heat map is drawn here, so it is there without scripts as well; scripts add the charts, the
minutes of a feed one by one, and the switch of the theme.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.days import MICROSECONDS_PER_SECOND, day_range, shift
from backfill_assets.report.evidence import FeedReport
from backfill_assets.report.minutes import MINUTES, NOTABLE, STATES, TRADED, Minutes, MinuteState, summary
from backfill_assets.report.model import DayReport
from backfill_assets.report.month import MonthReport

if TYPE_CHECKING:
    import jinja2

_HERE: Final = Path(__file__).parent
LIBRARY: Final = "lightweight-charts.standalone.production.js"
#: Shades of traded minutes.
LEVELS: Final = 4
#: Signs on a strip that are closer than this would cover each other.
SIGN_MINUTES: Final = 24
#: What a sum of scores may be off by in the last bits; 0.33 is not to be shown as 0.3299.
_NOISE: Final = 1e-7

#: Of verdicts and of days: sign, so that colour is never the only difference, and words.
OUTCOMES: Final = {
    "publish": ("✓", "good enough to publish"),
    "quarantine": ("×", "left out of the tables"),
    "no_evidence": ("?", "waits for evidence or approval"),
    "missing": ("∅", "there is no file"),
}
DAY_STATES: Final = {
    "published": ("✓", "Every expected feed is accepted, and every score is above its threshold."),
    "degraded": ("!", "What is good goes into the tables; what falls short is named here and left out."),
    "held": ("×", "Nothing of this day goes into the tables but its rows in quality."),
    "missing": ("∅", "Nothing is recorded of this day."),
}


def day_page(report: DayReport, pages: frozenset[str] = frozenset()) -> str:
    """The page of a day; ``pages`` are the days and months whose pages lie in the same folder."""
    month = report.day[:7]
    return _template("day.html.j2").render(
        report=report,
        title=f"{report.day} {report.state}",
        date=_long_date(report.day),
        links={
            "before": shift(report.day, -1) if shift(report.day, -1) in pages else None,
            "after": shift(report.day, 1) if shift(report.day, 1) in pages else None,
            "month": month if month in pages else None,
        },
        # What is missing has nothing to look at.
        opened=next((f for f in report.feeds if f.verdict.content), None),
        strips=[_strip(feed) for feed in report.feeds],
        legend=summary(f.minutes for f in report.feeds if f.minutes is not None),
        data=_data(report),
        library=(_HERE / "static" / LIBRARY).read_text(encoding="utf-8"),
    )


def month_page(report: MonthReport) -> str:
    """The page of a month, with links to the pages of its days beside it."""
    first = date.fromisoformat(report.days[0])
    counts: dict[str, int] = {}
    for found in report.summaries.values():
        counts[found.state] = counts.get(found.state, 0) + 1
    return _template("month.html.j2").render(
        report=report,
        title=report.month,
        date=f"{first:%B %Y}",
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
        score=score, clock=clock, seconds=seconds, moment=moment, range=minute_range, weekday=_weekday
    )
    environment.globals.update(
        OUTCOMES=OUTCOMES, DAY_STATES=DAY_STATES, STATES=STATES, MINUTES=MINUTES, LEVELS=LEVELS
    )
    return environment


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


def score(value: float | None) -> str:
    """Four digits, never rounded up: 1.0000 is said of 1 alone."""
    return "–" if value is None else f"{math.floor(value * 10_000 + _NOISE) / 10_000:.4f}"


def clock(time_us: int) -> str:
    """Time of day in UTC, to the second."""
    return f"{datetime.fromtimestamp(time_us / MICROSECONDS_PER_SECOND, UTC):%H:%M:%S}"


def seconds(length_us: float) -> str:
    """A length of time as people say it: 0.4 s, 12.5 s, 3 min 20 s, 2 h 5 min."""
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


def minute_range(run: tuple[int, int, MinuteState]) -> str:
    """``10:02`` or ``10:02–10:05``, both included."""
    first, last = run[0], run[1] - 1
    begins = f"{first // 60:02d}:{first % 60:02d}"
    return begins if first == last else f"{begins}–{last // 60:02d}:{last % 60:02d}"


def _long_date(day: str) -> str:
    found = date.fromisoformat(day)
    return f"{found:%A}, {found.day} {found:%B %Y}"


def _weekday(day: str) -> str:
    return f"{date.fromisoformat(day):%a}"


def _levels(minutes: Minutes) -> list[int]:
    """Shade of each minute, 1 to ``LEVELS``, by the logarithm of its trades; 0 where there are none."""
    most = math.log1p(max(minutes.trades, default=0)) or 1.0
    return [min(LEVELS, 1 + int(LEVELS * math.log1p(n) / most)) if n else 0 for n in minutes.trades]


def _strip(feed: FeedReport) -> dict[str, Any] | None:
    """Paths, signs and words of one row of the heat map; None where the feed has no minutes."""
    minutes = feed.minutes
    if minutes is None:
        return None
    levels = _levels(minutes)
    shapes: dict[str, list[tuple[int, int]]] = {}
    start = 0
    kinds = [f"t{levels[i]}" if code == TRADED.code else code for i, code in enumerate(minutes.states)]
    for i in range(1, len(kinds) + 1):
        if i == len(kinds) or kinds[i] != kinds[start]:
            shapes.setdefault(kinds[start], []).append((start, i - start))
            start = i
    counted = {state: minutes.count(state) for state in STATES if minutes.count(state)}
    return {
        "paths": {
            kind: "".join(f"M{first} 0h{length}v1h-{length}z" for first, length in runs)
            for kind, runs in sorted(shapes.items())
        },
        "signs": _signs(minutes),
        "counts": counted,
        "words": ", ".join(f"{count:,} {state.name}" for state, count in counted.items()),
        "notable": [run for run in minutes.runs(*NOTABLE) if run[2] in NOTABLE],
    }


def _signs(minutes: Minutes) -> list[tuple[float, str, str]]:
    """Which signs stand where on the strip (in percent); of those too close the worst stays."""
    placed: list[tuple[float, MinuteState, str]] = []
    for state in NOTABLE:
        for run in minutes.runs(state):
            middle = (run[0] + run[1]) / 2
            if all(abs(middle - other) >= SIGN_MINUTES for other, *_ in placed):
                placed.append((middle, state, f"{minute_range(run)} {state.name}"))
    return [
        (100 * middle / MINUTES, state.sign, words)
        for middle, state, words in sorted(placed, key=lambda p: p[0])
    ]


def _data(report: DayReport) -> dict[str, Any]:
    """What the script draws: states and trades by minute, candles as columns."""
    return {
        "start": int(datetime.fromisoformat(report.day).replace(tzinfo=UTC).timestamp()),
        "states": {s.code: [s.name, s.sign] for s in STATES},
        "feeds": [
            {
                "name": str(feed.feed),
                "states": feed.minutes.states if feed.minutes else "",
                "levels": "".join(map(str, _levels(feed.minutes))) if feed.minutes else "",
                "trades": feed.minutes.trades if feed.minutes else [],
                "decimals": _decimals(feed),
                "candles": {
                    name: [
                        [c.time_us // MICROSECONDS_PER_SECOND, c.open, c.high, c.low, c.close, c.volume]
                        for c in candles
                    ]
                    for name, candles in feed.candles.items()
                },
            }
            for feed in report.feeds
        ],
    }


def _decimals(feed: FeedReport) -> int:
    """Digits behind the point that the venue's prices have."""
    closes = {c.close for c in next(iter(feed.candles.values()), ())}
    return max((len(f"{close:.8f}".rstrip("0").partition(".")[2]) for close in closes), default=2)
