"""States of buckets: effects of trades, gaps, ids, outages and a missing file on a minute, and on an hour."""

from __future__ import annotations

from typing import Any

import pytest

from backfill_assets.quality.bucket_states import (
    LETTERS,
    MINUTES,
    STATES,
    Evidence,
    State,
    bucket_codes,
    codes_of,
    decode,
    encode,
    evidence_of,
    letters_of,
    minute_states,
    states_of,
    together,
)
from backfill_assets.quality.completeness import evidence_class, legitimate_gap
from backfill_assets.quality.profiles import Gap
from backfill_assets.quality.seams import seams_of
from backfill_assets_tests.quality.quality_samples import (
    END,
    SECOND,
    START,
    THRESHOLDS,
    WHOLE_DAY,
    gaps,
    law,
    symbol,
    without_ids,
)

MINUTE = 60 * SECOND
WHOLE = (START, END - 1)


def ranges(profile: Any, exchange: str = "binance", previous: int = 0, following: int = 0) -> Any:
    kind = evidence_class(law(exchange), profile)
    edges = (profile.first_trade_us, profile.last_trade_us)
    ids = ([n] if n else [] for n in (previous, following))
    seams = seams_of(profile, WHOLE_DAY, edges, *ids, legitimate_gap(kind, THRESHOLDS, profile), THRESHOLDS)
    return evidence_of(kind, profile, WHOLE, seams, legitimate_gap(kind, THRESHOLDS, profile))


def states(traded: set[int], profile: Any, outages: tuple[Any, ...] = (), **around: Any) -> list[State]:
    lost, proven = ranges(profile, **around)
    return list(states_of(minute_states(traded, Evidence(lost, proven, outages), START)))


def at(minute: int, second: int = 0) -> int:
    return START + minute * MINUTE + second * SECOND


def gap(first: int, last: int, after: int, before: int) -> dict[str, Any]:
    return {
        **gaps((first, last)),
        "gaps": (Gap(first_missing=first, last_missing=last, after_us=after, before_us=before),),
    }


def test_contiguous_ids_prove_every_silent_minute_between_the_first_and_the_last_trade() -> None:
    found = states({10, 700}, symbol(first_trade_us=at(10, 30), last_trade_us=at(700, 10)))
    assert found[10] == found[700] == "traded"
    assert set(found[11:700]) == {"proven_empty"}
    assert set(found[:10]) == set(found[701:]) == {"empty_unproven"}


@pytest.mark.parametrize(
    ("around", "head", "tail"),
    [
        ({"previous": 1000}, "proven_empty", "empty_unproven"),
        ({"following": 10_001}, "empty_unproven", "proven_empty"),
        ({"previous": 1000, "following": 10_001}, "proven_empty", "proven_empty"),
        ({"previous": 999, "following": 10_002}, "empty_unproven", "empty_unproven"),
        ({"previous": 1001}, "empty_unproven", "empty_unproven"),
    ],
)
def test_the_edges_are_proven_by_the_neighbours_ids_alone(
    around: dict[str, int], head: str, tail: str
) -> None:
    found = states({10, 700}, symbol(first_trade_us=at(10, 30), last_trade_us=at(700, 10)), **around)
    assert (set(found[:10]), set(found[701:])) == ({head}, {tail})
    assert found[500] == "proven_empty"
    assert found[10] == "traded"


def test_an_edge_that_is_silent_for_longer_than_usual_is_missing_until_it_joins() -> None:
    busy = symbol(
        1001,
        900_000,
        first_trade_us=at(10, 30),
        last_trade_us=at(1400, 10),
        minute_rows=(0,) * 10 + (650,) * 1391 + (0,) * 39,
    )
    found = states({*range(10, 1401)}, busy, previous=1000)
    assert (set(found[:10]), found[10], found[1400]) == ({"proven_empty"}, "traded", "traded_partial")
    assert set(found[1401:]) == {"missing"}
    assert set(states({*range(10, 1401)}, busy, following=900_001)[1401:]) == {"proven_empty"}


def test_a_gap_touches_the_minutes_of_its_time_range_and_no_other() -> None:
    lossy = symbol(**gap(2000, 2009, at(100, 59), at(103, 0)))
    found = states({100, 103, 104}, lossy)
    assert found[99:105] == [
        "proven_empty", "traded_partial", "missing", "missing", "traded_partial", "traded",
    ]  # fmt: skip


def test_a_gap_within_one_minute_makes_it_partial() -> None:
    found = states({100}, symbol(**gap(2000, 2000, at(100, 10), at(100, 20))))
    assert [m for m, s in enumerate(found) if s == "traded_partial"] == [100]


def test_gaps_that_the_profile_no_longer_lists_leave_nothing_proven() -> None:
    whole = states({100}, symbol())
    assert "proven_empty" in whole
    assert "proven_empty" not in states({100}, symbol(gap_count=1001))


@pytest.mark.parametrize(("last", "state"), [(2004, "empty_unproven"), (2005, "missing")])
def test_ids_with_legitimate_gaps_show_losses_but_prove_nothing(last: int, state: str) -> None:
    found = states(set(), symbol(**gap(2000, last, at(100), at(110))), exchange="binance-futures")
    assert (found[105], found[50]) == (state, "empty_unproven")


def test_without_ids_an_empty_minute_stays_unproven() -> None:
    assert set(states({5}, without_ids())) == {"traded", "empty_unproven"}


def test_an_outage_explains_silence_but_not_where_the_ids_prove_that_nothing_was_lost() -> None:
    outage = ((at(200), at(260) - 1),)
    found = states({210}, without_ids(), outage)
    assert found[199:212] == ["empty_unproven", *["outage"] * 10, "traded", "outage"]
    assert (found[259], found[260]) == ("outage", "empty_unproven")
    assert set(states({210}, symbol(), outage)[200:260]) == {"proven_empty", "traded"}
    lossy = symbol(**gap(2000, 2100, at(200), at(300)))
    assert (states(set(), lossy, outage)[230], states(set(), lossy, outage)[270]) == ("outage", "missing")


def test_a_day_without_a_file_is_missing_but_for_what_the_neighbours_files_bring() -> None:
    found = states_of(minute_states({0}, Evidence(lost=(WHOLE,)), START))
    assert list(found) == ["traded_partial", *["missing"] * (MINUTES - 1)]


@pytest.mark.parametrize(
    ("minutes", "bucket"),
    [
        (["traded"] * 5, "traded"),
        (["traded", *["proven_empty"] * 4], "traded"),
        (["traded", *["empty_unproven"] * 4], "traded"),
        (["traded", "outage", *["empty_unproven"] * 3], "traded"),
        (["traded", "missing", *["proven_empty"] * 3], "traded_partial"),
        (["traded", "traded_partial", *["proven_empty"] * 3], "traded_partial"),
        (["proven_empty"] * 5, "proven_empty"),
        ([*["proven_empty"] * 4, "empty_unproven"], "empty_unproven"),
        ([*["proven_empty"] * 4, "outage"], "outage"),
        (["missing", "outage", *["proven_empty"] * 3], "outage"),
        (["missing", *["empty_unproven"] * 4], "missing"),
    ],
)
def test_a_larger_bucket_is_as_sure_as_its_minutes_allow(minutes: list[State], bucket: str) -> None:
    assert states_of(bucket_codes(codes_of(minutes), "5m")) == (bucket,)
    assert states_of(bucket_codes(codes_of(minutes), "1m")) == tuple(minutes)


def test_states_survive_being_kept_as_runs() -> None:
    found = codes_of(states({10, 11, 700}, symbol(**gap(2000, 2100, at(200), at(300)))))
    text = encode(found)
    assert decode(text).tolist() == found.tolist()
    assert len(text) < 50


def test_every_state_survives_being_kept_as_text() -> None:
    assert encode(codes_of(["missing"] * 600 + ["traded"] * 840)) == "m600t840"
    assert states_of(decode(encode(codes_of(STATES)))) == STATES
    assert [LETTERS[code] for code in codes_of(STATES)] == list(letters_of(codes_of(STATES)))
    assert (encode(codes_of([])), decode("").tolist()) == ("", [])


def test_a_market_of_several_files_is_as_sure_as_they_allow_together() -> None:
    one: list[State] = ["traded", "proven_empty", "proven_empty", "proven_empty", "traded"]
    other: list[State] = ["traded", "proven_empty", "empty_unproven", "missing", "traded_partial"]
    found = ["traded", "proven_empty", "empty_unproven", "missing", "traded_partial"]
    ours, theirs = codes_of(one), codes_of(other)
    for order in ([ours, theirs], [theirs, ours]):
        assert list(states_of(together(order))) == found
    assert list(states_of(together([ours]))) == one
