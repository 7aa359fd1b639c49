"""Good days of generated order books, liquid and thin, and every way of damaging one.

A book walks by single steps of the price. It has the habits of real venues: levels deeper than a snapshot
shows, deletes of levels that are not there, sides of one change sent one after the other, and a capture that
connects again three times a day, misses the messages meanwhile and begins with a snapshot. A damage is a
function of the day's messages.
"""

from __future__ import annotations

import gzip
import heapq
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from backfill_assets.days import end_us, start_us
from backfill_assets.feeds import Feed
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.verdict import Context, Verdict, judge_feed
from backfill_assets.settings import ThresholdSettings
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.profile import ProfileParameters

DAY: Final = "2024-01-03"
START: Final = start_us(DAY)
SECOND: Final = 1_000_000
HOUR: Final = 3_600 * SECOND
FEED: Final = Feed("binance", "incremental_book_L2", "BTCUSDT")
STEP: Final = 0.1
DEPTH: Final = 25
_LEVELS: Final = 40
_FIRST_STEP: Final = 400_005


@dataclass(frozen=True, slots=True)
class Level:
    """One row: ``bid`` or ``ask``, the price in steps, the amount in hundredths (0 deletes)."""

    side: str
    price: float
    amount: int


@dataclass(frozen=True, slots=True)
class Message:
    """Rows of one arrival."""

    time: int
    local: int
    levels: tuple[Level, ...]
    snapshot: bool = False


Messages = list[Message]
Damage = Callable[[Messages], Messages]


class _Walk:
    """The true book."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.bids = {_FIRST_STEP - n: self.amount() for n in range(_LEVELS)}
        self.asks = {_FIRST_STEP + 1 + n: self.amount() for n in range(_LEVELS)}

    def amount(self) -> int:
        return self.rng.randint(1, 5_000)

    def snapshot(self) -> tuple[Level, ...]:
        bids = sorted(self.bids, reverse=True)[:DEPTH]
        asks = sorted(self.asks)[:DEPTH]
        return (
            *(Level("bid", price, self.bids[price]) for price in bids),
            *(Level("ask", price, self.asks[price]) for price in asks),
        )

    def set(self, side: str, price: int, amount: int) -> Level:
        levels = self.bids if side == "bid" else self.asks
        if amount:
            levels[price] = amount
        else:
            del levels[price]
        return Level(side, price, amount)

    def change(self) -> list[Level]:
        """Draw the levels of one message."""
        drawn = self.rng.random()
        if drawn < 0.2:
            return self.move(up=self.rng.random() < 0.5)
        side = self.rng.choice(["bid", "ask"])
        levels = self.bids if side == "bid" else self.asks
        ordered = sorted(levels, reverse=side == "bid")
        near = ordered[min(int(self.rng.expovariate(0.15)), len(ordered) - 1)]
        if drawn < 0.75:
            return [self.set(side, near, self.amount())]
        away = -1 if side == "bid" else 1
        missing = [p for p in range(ordered[0], ordered[0] + 2 * away * _LEVELS, away) if p not in levels]
        if missing and (drawn < 0.87 or len(levels) < _LEVELS):
            return [self.set(side, self.rng.choice(missing), self.amount())]
        inner = self.rng.choice(ordered[2:])
        return [self.set(side, inner, 0)]

    def move(self, *, up: bool) -> list[Level]:
        """Take the best level of one side, and let the other side follow."""
        gone, follows = ("ask", "bid") if up else ("bid", "ask")
        taken = min(self.asks) if up else max(self.bids)
        rows = [self.set(gone, taken, 0), self.set(follows, taken, self.amount())]
        far = max(self.asks) + 1 if up else min(self.bids) - 1
        rows.append(self.set(gone, far, self.amount()))
        last = min(self.bids) if up else max(self.asks)
        rows.append(self.set(follows, last, 0))
        return rows


@lru_cache(maxsize=8)
def good_day(messages: int, seed: int = 1) -> tuple[Message, ...]:
    """Messages of a day: bursts, as in an illiquid market, or spread over the day."""
    rng = random.Random(seed)
    walk = _Walk(rng)
    times = sorted(_burst(rng, messages) if messages < 10_000 else _spread(rng, messages))
    breaks = [(hour + rng.random()) * HOUR for hour in (3, 9, 17)]
    ends = [start + rng.uniform(0.3, 3) * SECOND for start in breaks]
    found = [Message(START + 1_000, START + 4_000, walk.snapshot(), snapshot=True)]
    for at in times:
        while ends and at >= ends[0]:
            again = START + int(ends.pop(0))
            found.append(Message(again, again + 3_000, walk.snapshot(), snapshot=True))
            breaks.pop(0)
        rows = walk.change()
        if breaks and at >= breaks[0]:
            continue  # the capture does not see it
        local = START + at + rng.randint(2_000, 9_000)
        if found[-1].local >= local:
            local = found[-1].local + 1
        if len(rows) == 4 and rng.random() < 0.1:
            # The side that follows comes first, and the book is locked for a moment.
            found.append(Message(START + at, local, (rows[1],)))
            rows, local = [rows[0], *rows[2:]], local + 2_000
        if rng.random() < 0.05:
            near = max(walk.bids) - rng.randint(2, 500)
            if near not in walk.bids:
                rows = [*rows, Level("bid", near, 0)]
        found.append(Message(START + at, local, tuple(rows)))
    return tuple(found)


def _spread(rng: random.Random, messages: int) -> list[int]:
    return [rng.randrange(SECOND, 24 * HOUR - SECOND) for _ in range(messages)]


def _burst(rng: random.Random, messages: int) -> list[int]:
    """Times that cover the day; every third begins a burst of some seconds."""
    found = [30 * SECOND, 24 * HOUR - 30 * SECOND]
    while len(found) < messages:
        at = rng.randrange(SECOND, 24 * HOUR - 20 * SECOND)
        found += [at, *(at + rng.randrange(10 * SECOND) for _ in range(rng.choice([0, 0, 2])))]
    return found


LIQUID: Final = 30_000
THIN: Final = 3_000


def profile_of(messages: Messages, day: str = DAY) -> FeedProfile:
    """Decode the messages as the file of the day."""
    lines = [csv_header("incremental_book_L2")]
    for one in messages:
        flag = "true" if one.snapshot else "false"
        keys = f"binance,BTCUSDT,{one.time},{one.local},{flag}"
        lines += [f"{keys},{row.side},{row.price * STEP:.8g},{row.amount / 100:.8g}" for row in one.levels]
    return _decoded(lines, FEED, day)


def _decoded(lines: list[str], feed: Feed, day: str) -> FeedProfile:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "day.csv.gz"
        source.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), 1, mtime=0))
        return decode(
            source,
            Path(folder) / "day.parquet",
            feed=feed,
            day=day,
            symbols={"BTCUSDT": "BTC-USDT"},
            parameters=ProfileParameters(),
            grids={"BTCUSDT": (STEP,)},
        ).profile


def derived_profile(messages: Messages, data_type: str) -> FeedProfile:
    """Decode the file that the vendor makes of the messages: a row at every change of its best levels."""
    levels = {"quotes": 1, "book_snapshot_5": 5, "book_snapshot_25": 25}[data_type]
    book: dict[str, dict[float, int]] = {"bid": {}, "ask": {}}
    lines, former = [csv_header(data_type)], ""
    for n, one in enumerate(messages):
        if one.snapshot and not (n and messages[n - 1].snapshot):
            book = {"bid": {}, "ask": {}}
        for row in one.levels:
            if row.amount:
                book[row.side][row.price] = row.amount
            else:
                book[row.side].pop(row.price, None)
        shown = _shown(book, levels)
        if shown != former:
            lines.append(f"binance,BTCUSDT,{one.time},{one.local},{shown}")
            former = shown
    return _decoded(lines, Feed("binance", data_type, "BTCUSDT"), DAY)


def _shown(book: dict[str, dict[float, int]], levels: int) -> str:
    """The cells of the best levels, empty if the book is shorter."""
    sides = []
    for side, best_first in (("ask", heapq.nsmallest), ("bid", heapq.nlargest)):
        own = book[side]
        cells = [(f"{price * STEP:.8g}", f"{own[price] / 100:.8g}") for price in best_first(levels, own)]
        sides.append([*cells, *[("", "")] * (levels - len(cells))])
    if levels == 1:
        [ask], [bid] = sides
        return f"{ask[1]},{ask[0]},{bid[0]},{bid[1]}"
    return ",".join(cell for pair in zip(*sides, strict=True) for level in pair for cell in level)


def how_found(verdict: Verdict, clean: Verdict) -> str:
    """The first difference between the verdict on a damaged day and that on the clean one."""
    if verdict.outcome == "quarantine":
        return "quarantine"
    if verdict.quality is None or verdict.quality < 1:
        return "quality"
    if (verdict.completeness or 0.0) < (clean.completeness or 0.0):
        return "completeness"
    return "warning" if {*verdict.warnings} - {*clean.warnings} else "unseen"


def verdict_of(profile: FeedProfile, **told: Any) -> Verdict:
    """The verdict without any history; ``told`` has other fields of its context."""
    context = Context(window_start_us=START, window_end_us=end_us(DAY), **told)
    return judge_feed(FEED, DAY, "sha", profile, context, ThresholdSettings())


# --- damages -----------------------------------------------------------------------------------------------


def middle(messages: Messages) -> int:
    """The first message of the day's second half that takes a best level, and is not split."""
    half = len(messages) // 2
    return next(n for n in range(half, len(messages)) if len(messages[n].levels) >= 4)


def lost_deletes(messages: Messages) -> Messages:
    kept = [replace(m, levels=tuple(row for row in m.levels if row.amount or m.snapshot)) for m in messages]
    return [m for m in kept if m.levels]


def lost_message(messages: Messages) -> Messages:
    at = middle(messages)
    return messages[:at] + messages[at + 1 :]


def lost_span(seconds: float) -> Damage:
    """Lose so many seconds where the book changes most."""

    def damage(messages: Messages) -> Messages:
        span = int(seconds * SECOND)
        from_noon = [m.local for m in messages if START + 11 * HOUR <= m.local < START + 16 * HOUR]
        most, first = max(
            (sum(at <= other < at + span for other in from_noon[n : n + 200]), at)
            for n, at in enumerate(from_noon)
        )
        assert most
        return [m for m in messages if not first <= m.local < first + span]

    return damage


def lost_first_snapshot(messages: Messages) -> Messages:
    return messages[1:]


def lost_later_snapshot(messages: Messages) -> Messages:
    at = next(n for n, m in enumerate(messages) if n and m.snapshot)
    return messages[:at] + messages[at + 1 :]


def _sided(messages: Messages, is_swapped: Callable[[], bool]) -> Messages:
    other = {"bid": "ask", "ask": "bid"}
    return [
        replace(
            m,
            levels=tuple(replace(row, side=other[row.side]) if is_swapped() else row for row in m.levels),
        )
        for m in messages
    ]


def swapped_sides(messages: Messages) -> Messages:
    return _sided(messages, lambda: True)


def mixed_sides(messages: Messages) -> Messages:
    rng = random.Random(3)
    return _sided(messages, lambda: rng.random() < 0.01)


def doubled_block(messages: Messages) -> Messages:
    at = len(messages) // 2
    block = messages[at : at + 200]
    last = block[-1].local
    room = (messages[at + 200].local - last) // 201
    again = [replace(m, local=last + (n + 1) * min(room, 100)) for n, m in enumerate(block)]
    return messages[: at + 200] + again + messages[at + 200 :]


def misplaced_decimal(side: str, factor: float) -> Damage:
    """Put the price of one set level off by a decimal."""

    def is_hit(row: Level) -> bool:
        return row.side == side and row.amount > 0 and row.price % 10 != 0

    def damage(messages: Messages) -> Messages:
        first = middle(messages)
        at, hit = next((n, m) for n, m in enumerate(messages) if n >= first and any(map(is_hit, m.levels)))
        k = next(k for k, row in enumerate(hit.levels) if is_hit(row))
        wrong = replace(hit.levels[k], price=hit.levels[k].price * factor)
        messages[at] = replace(hit, levels=(*hit.levels[:k], wrong, *hit.levels[k + 1 :]))
        return messages

    return damage


def negative_amounts(messages: Messages) -> Messages:
    for n in range(100, 1_600, 300):
        first = messages[n].levels[0]
        messages[n] = replace(
            messages[n], levels=(replace(first, amount=-max(1, first.amount)), *messages[n].levels[1:])
        )
    return messages


def zero_price(messages: Messages) -> Messages:
    first = messages[500].levels[0]
    messages[500] = replace(messages[500], levels=(replace(first, price=0), *messages[500].levels[1:]))
    return messages


def late_clock(messages: Messages) -> Messages:
    """Put the exchange's times two seconds ahead of the arrivals from noon on."""
    return [replace(m, time=m.time + 2 * SECOND) if m.time > START + 12 * HOUR else m for m in messages]


def late_arrivals(messages: Messages) -> Messages:
    """Shift an hour's arrivals by two minutes, but not those of the next hour."""
    first, last = START + 12 * HOUR, START + 13 * HOUR
    return [replace(m, local=m.local + 120 * SECOND) if first <= m.local < last else m for m in messages]


def frozen(messages: Messages) -> Messages:
    """Repeat the same level with the same amount for four hours."""
    first, last = START + 10 * HOUR, START + 14 * HOUR
    inside = next(m for m in messages if m.local >= first and not m.snapshot and m.levels[0].amount)
    return [
        replace(m, levels=(inside.levels[0],)) if first <= m.local < last and not m.snapshot else m
        for m in messages
    ]


def silent(messages: Messages) -> Messages:
    """Send no message for four hours."""
    return [m for m in messages if not START + 10 * HOUR <= m.local < START + 14 * HOUR]


def cut_off(messages: Messages) -> Messages:
    return [m for m in messages if m.local < START + 19 * HOUR]


def lost_side(messages: Messages) -> Messages:
    """Send no bid from noon on."""
    noon = START + 12 * HOUR
    kept = [
        m if m.local < noon else replace(m, levels=tuple(row for row in m.levels if row.side == "ask"))
        for m in messages
    ]
    return [m for m in kept if m.levels]


def shuffled(messages: Messages) -> Messages:
    """Send the messages of an hour in random order at the old arrivals."""
    first, last = START + 12 * HOUR, START + 13 * HOUR
    inside = [n for n, m in enumerate(messages) if first <= m.local < last and not m.snapshot]
    order = list(inside)
    random.Random(2).shuffle(order)
    old = list(messages)
    for n, other in zip(inside, order, strict=True):
        messages[n] = replace(old[other], local=old[n].local)
    return messages


def scaled_hour(messages: Messages) -> Messages:
    """Make an hour's prices ten times too high."""
    first, last = START + 12 * HOUR, START + 13 * HOUR
    return [
        replace(m, levels=tuple(replace(row, price=row.price * 10) for row in m.levels))
        if first <= m.local < last
        else m
        for m in messages
    ]


def wrong_snapshot(messages: Messages) -> Messages:
    """Replace a snapshot with the one of six hours before."""
    at = [n for n, m in enumerate(messages) if m.snapshot]
    messages[at[2]] = replace(messages[at[2]], levels=messages[at[1]].levels)
    return messages


DAMAGES: Final[dict[str, Damage]] = {
    "lost deletes": lost_deletes,
    "one lost message": lost_message,
    "a lost minute": lost_span(60),
    "a lost hour": lost_span(3_600),
    "the first snapshot lost": lost_first_snapshot,
    "a later snapshot lost": lost_later_snapshot,
    "swapped sides": swapped_sides,
    "mixed sides": mixed_sides,
    "a doubled block": doubled_block,
    "a bid a decimal too high": misplaced_decimal("bid", 10),
    "an ask a decimal too low": misplaced_decimal("ask", 0.1),
    "an ask a decimal too high": misplaced_decimal("ask", 10),
    "a bid a decimal too low": misplaced_decimal("bid", 0.1),
    "negative amounts": negative_amounts,
    "a price of zero": zero_price,
    "the exchange's clock ahead": late_clock,
    "shifted arrivals": late_arrivals,
    "a frozen book": frozen,
    "a silent capture": silent,
    "a cut end": cut_off,
    "a lost side": lost_side,
    "a shuffled hour": shuffled,
    "an hour of prices ten times too high": scaled_hour,
    "an old snapshot": wrong_snapshot,
}
