"""A venue restarts its numbering at midnight: the day is judged by its own ids, and the verdict says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backfill_assets.days import MICROSECONDS_PER_DAY, shift
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.store import Store
from backfill_assets.quality.settled import SettledFeed, load_settled
from backfill_assets_tests.candles.candle_lake import bring, made, partials_of
from backfill_assets_tests.candles.candle_samples import DAY, SECOND, START, Trade

BEFORE, AFTER = shift(DAY, -1), shift(DAY, 1)
STEP = 20 * SECOND


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


def numbered_from(first: int, rows: int, start_us: int) -> list[Trade]:
    """A trade every 20 s, beginning a second after the start."""
    return [
        Trade(start_us + SECOND + n * STEP, 100.0 + n % 7, 0.5 + n % 3, id=str(first + n))
        for n in range(rows)
    ]


def bring_days(store: Store, rows: tuple[int, int, int], tail: int) -> list[list[Trade]]:
    """Three days, each numbered from 1; the last trades of a day arrive at the head of the next file."""
    days, carried = [], list[tuple[int, Trade]]()
    for n, day in enumerate((BEFORE, DAY, AFTER)):
        start = START + (n - 1) * MICROSECONDS_PER_DAY
        end = start + MICROSECONDS_PER_DAY
        trades = numbered_from(1, rows[n], start)
        late = [Trade(end - 1000 * (tail - k), 100.0, 0.25, id=str(rows[n] + 1 + k)) for k in range(tail)]
        bring(store, day, [*carried, *((t.us, t) for t in trades)])
        carried = [(end + k, t) for k, t in enumerate(late)]
        days.append([*trades, *late])
    return days


def settled(store: Store, day: str) -> SettledFeed:
    found = load_settled(store, day)
    assert found is not None
    return found.feeds[0]


@pytest.mark.parametrize("tail", [0, 1, 12])
@pytest.mark.parametrize("rows", [(4300, 4300, 4300), (4300, 4000, 4200), (4000, 4300, 4100)])
def test_the_day_is_judged_by_its_own_ids(rows: tuple[int, int, int], tail: int, store: Store) -> None:
    days = bring_days(store, rows, tail)
    for n, day in enumerate((BEFORE, DAY, AFTER)):
        verdict = settled(store, day).verdict
        assert (verdict.outcome, verdict.completeness, verdict.quality) == ("publish", 1.0, 1.0), (
            verdict.reasons
        )
        assert (verdict.missing_ids, verdict.evidence_class) == (0, "A")
        count = len(days[n]) if n < 2 else rows[n]
        assert made(store, day, ["1d"])["trade_count"].to_pylist() == [count]
        assert partials_of(store, day).consistency == 1.0
    (told,) = [w for w in settled(store, DAY).verdict.warnings if "start over" in w and "day before" in w]
    assert told == "ids start over at 1 after the day before: the day is judged by its own ids"


def test_the_tail_of_the_old_numbering_joins_the_day_before(store: Store) -> None:
    bring_days(store, (4000, 4300, 4100), 12)
    assert settled(store, DAY).verdict.completeness_state == "proven"


def test_a_loss_is_found_beside_a_reset(store: Store) -> None:
    trades = numbered_from(1, 4300, START)
    head = [(START + k, Trade(START - 1000 * (5 - k), 100.0, 0.25, id=str(501_435 + k))) for k in range(5)]
    bring(store, DAY, head + [(t.us, t) for t in trades[:2000] + trades[2200:]])
    verdict = settled(store, DAY).verdict
    assert (verdict.outcome, verdict.missing_ids) == ("quarantine", 200)


def test_a_file_of_another_day_is_still_quarantined(store: Store) -> None:
    """The same ids at the same times: these are the day before's trades."""
    trades = numbered_from(1, 4300, START - MICROSECONDS_PER_DAY)
    bring(store, BEFORE, [(t.us, t) for t in trades])
    bring(store, DAY, [(t.us, t) for t in trades])
    verdict = settled(store, DAY).verdict
    assert verdict.outcome == "quarantine"
    assert any("outside the file's day" in reason for reason in verdict.reasons)


def test_a_trade_of_the_new_day_that_shares_its_id_with_a_late_one_stays(store: Store) -> None:
    """Id 4301 comes twice: as the last one of the old numbering, in both files, and as one of the new."""
    late = Trade(START - 1000, 100.0, 0.25, id="4301")
    before = numbered_from(1, 4300, START - MICROSECONDS_PER_DAY)
    bring(store, BEFORE, [*((t.us, t) for t in before), (START - 900, late)])
    ours = [
        replace(t, us=START + SECOND + n * (STEP - SECOND))
        for n, t in enumerate(numbered_from(1, 4400, START))
    ]
    bring(store, DAY, [(START, late), *((t.us, t) for t in ours)])
    assert made(store, BEFORE, ["1d"])["trade_count"].to_pylist() == [4301]
    assert made(store, DAY, ["1d"])["trade_count"].to_pylist() == [4400]
