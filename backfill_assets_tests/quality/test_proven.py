"""``proven`` is never wrong: no row with an id of its own can be removed from a proven day unnoticed."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_assets.quality.verdict import Context, Verdict, judge_feed
from backfill_assets_tests.quality import damaged_days as dd
from backfill_assets_tests.quality.damaged_days import DAY, END, SAMPLES, SECOND, START, THRESHOLDS

FIRST: Final = 5_000_001
A, B = SAMPLES["A thin"], SAMPLES["B thin"]


@st.composite
def days(draw: st.DrawFn) -> dict[str, Any]:
    """A day of a few trades with consecutive ids, in any order, some twice, and its two neighbors."""
    count = draw(st.integers(1, 40))
    order = draw(st.permutations(range(FIRST, FIRST + count)))
    twice = draw(st.sets(st.sampled_from(order), max_size=3)) if count > 1 else set()
    ids = [one for number in order for one in ([number] * (2 if number in twice else 1))]
    moments = sorted(draw(st.lists(st.integers(START, END - 1), min_size=len(ids), max_size=len(ids))))
    rows = [
        dd.Row(A.exchange, A.symbol, at, at, str(number), "buy", "100.00", "1")
        for number, at in zip(ids, moments, strict=True)
    ]
    # The neighbors may also have up to three of our ids, but never all of them.
    shared = draw(st.integers(0, min(3, (count - 1) // 2)))
    own = range(FIRST + shared, FIRST + count - shared)
    alone = [number for number in own if number not in twice]
    return {
        "rows": rows,
        "previous": (FIRST - 1 + shared,),
        "following": (FIRST + count - shared,),
        "taken": draw(st.sampled_from(alone)) if alone else None,
    }


def judged(day: dict[str, Any], rows: dd.Rows, sample: dd.Sample = A, **changes: Any) -> Verdict:
    around = Context(
        window_start_us=START,
        window_end_us=END,
        previous={A.dataset_symbol: day["previous"], B.dataset_symbol: day["previous"]},
        following={A.dataset_symbol: day["following"], B.dataset_symbol: day["following"]},
        **changes,
    )
    owned = [row.but(exchange=sample.exchange, symbol=sample.symbol) for row in rows]
    return judge_feed(sample.feed, DAY, "sha", dd.profile_of(sample, DAY, owned), around, THRESHOLDS)


@settings(max_examples=50, deadline=None)
@given(day=days())
def test_one_row_less_is_never_proven(day: dict[str, Any]) -> None:
    whole = judged(day, day["rows"])
    assert (whole.completeness, whole.completeness_state) == (1.0, "proven")
    if day["taken"] is not None:
        left = [row for row in day["rows"] if row.id != str(day["taken"])]
        assert len(left) == len(day["rows"]) - 1
        assert judged(day, left).completeness_state != "proven"
        assert judged(day, left, B).completeness_state != "proven"
        out = ((START, END),)
        assert judged(day, left, outages=out).completeness_state != "proven"
        assert judged(day, left, is_listed=False).completeness_state != "proven"


@settings(max_examples=25, deadline=None)
@given(day=days(), side=st.sampled_from(["previous", "following"]))
def test_nor_is_a_day_with_one_neighbour(day: dict[str, Any], side: str) -> None:
    profile = dd.profile_of(A, DAY, day["rows"])
    known = {side: {A.dataset_symbol: day[side]}}
    around = Context(window_start_us=START, window_end_us=END, **known)
    verdict = judge_feed(A.feed, DAY, "sha", profile, around, THRESHOLDS)
    assert verdict.completeness_state == ("head_proven" if side == "previous" else "inner_proven")


@pytest.mark.parametrize("lacking", [1, 5])
def test_a_run_as_short_as_the_venues_own_is_not_missed_and_not_proven(lacking: int) -> None:
    times = [START + n * 600 * SECOND for n in range(1, 140)]
    rows = [
        dd.Row(B.exchange, B.symbol, at, at, str(FIRST + n), "buy", "100.00", "1")
        for n, at in enumerate(times)
    ]
    day = {"previous": (FIRST - 1,), "following": (FIRST + len(rows),)}
    assert judged(day, rows, B).completeness_state == "proven"
    less = judged(day, rows[:70] + rows[70 + lacking :], B)
    assert (less.completeness, less.completeness_state, less.missing_ids) == (1.0, "estimated", 0)
