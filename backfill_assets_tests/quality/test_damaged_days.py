"""The visible effects of each damage, and the invisible ones: exact, before and after the day after arrives.

The rows of the table are damages, its columns evidence classes (A contiguous ids, B ids with the venue's own
gaps, C no ids), each for a liquid and a thin feed. If a class cannot see a damage, the table expects the same
as on a good day. The good days beside the damaged one do not change.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest

from backfill_assets.columns import arrow_schema
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS
from backfill_assets.lake.evidence import SpikeEvidence
from backfill_assets.lake.listing import Outage, store_instruments
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.store import Store
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import load_settled
from backfill_assets.quality.verdict import Context, Verdict, judge_feed
from backfill_assets.ticks.profile import Name, ProfileParameters, Profiler
from backfill_assets.ticks.profile import Rows as ParsedRows
from backfill_assets_tests.quality import damaged_days as dd
from backfill_assets_tests.quality.damaged_days import DAY, HOUR, SAMPLES, SECOND, START, THRESHOLDS, Sample
from backfill_assets_tests.quality.settled_lake import fetch

#: The warning of every feed without ids.
UNCALIBRATED: Final = "uncalibrated: judged by silences"
MIDNIGHT: Final = "midnight is not proven"


@dataclass(frozen=True)
class Expected:
    """The expected parts of a verdict; all other parts are as on a good day.

    ``score`` is a number or two bounds; by default it is the score of the lost ids. ``reason`` and
    ``warnings`` are parts of the messages; there may be no other message.
    """

    outcome: str = "publish"
    state: str = ""
    score: float | tuple[float, float] | None = None
    quality: float | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A damage and its effects, by class or by feed; ``after`` has those after the day after arrives."""

    damage: dd.Damage
    expected: dict[str, Expected] = field(default_factory=dict)
    after: dict[str, Expected] = field(default_factory=dict)
    #: Steps of the price in the instruments, as multiples of the feed's.
    grid: tuple[float, ...] = (1.0,)
    #: Hours in which the vendor's capture is known to have failed.
    outages: tuple[tuple[float, float], ...] = ()

    def of(self, sample: Sample, *, after: bool) -> Expected:
        for table in (self.after, self.expected) if after else (self.expected,):
            for key in (sample.name, sample.name[0], "all"):
                if key in table:
                    return table[key]
        return Expected()


def warns(*parts: str) -> Expected:
    return Expected(warnings=parts)


def quarantined(reason: str, **others: Any) -> Expected:
    return Expected(outcome="quarantine", reason=reason, **others)


def lost(reason: str, **others: Any) -> Expected:
    return quarantined(reason, state="degraded", **others)


SILENT: Final = "s of silence beyond 5 s or 40 usual silences"
OUTAGE: Final = "known outage 12:00:00 to 13:00:00"
BY_OUTAGE: Final = "of them by the " + OUTAGE
STALE: Final = "of prices lie between the listed steps, on finer ones: the list is out of date"
TOO_MANY: Final = "ids are missing (at most 10 are excused)"
TOO_LONG: Final = "s lie in gaps of the ids (at most 10)"
CUT_OFF: Final = "s before midnight count as lost until the ids of the neighboring day's file join"
ZERO: Final = "rows break invalid_price_or_amount"

CASES: Final = {
    "nothing": Case(dd.nothing()),
    # Losses.
    "1 id where it is busiest": Case(
        dd.gap_where_busiest(1), {"A": Expected(state="degraded")}
    ),
    "10 ids where it is busiest": Case(
        dd.gap_where_busiest(10),
        {"A": Expected(state="degraded"), "B liquid": Expected(state="degraded"),
         "B thin": lost("16 " + TOO_LONG)},
    ),
    "1 id in the middle": Case(
        dd.gap(1), {"A liquid": lost("14 " + TOO_LONG), "A thin": lost("68 " + TOO_LONG)}
    ),
    "10 ids in the middle": Case(
        dd.gap(10), {"A": lost(TOO_LONG), "B": lost(TOO_LONG)}
    ),
    "101 ids in the middle": Case(
        dd.gap(101),
        {"A": lost("101 " + TOO_MANY), "B": lost("101 " + TOO_MANY),
         "C liquid": warns("368 " + SILENT), "C thin": Expected(score=(0.97, 0.98), warnings=(SILENT,))},
    ),
    "1,000 ids in the middle": Case(
        dd.gap(1_000),
        {"A": lost("1000 " + TOO_MANY), "B liquid": lost("1000 " + TOO_MANY),
         "B thin": quarantined(CUT_OFF, score=(0.52, 0.53), warnings=(SILENT,)),
         "C liquid": Expected(score=(0.92, 0.925), warnings=(SILENT,)),
         "C thin": Expected(score=(0.54, 0.55), warnings=(SILENT,))},
        {"B thin": quarantined(CUT_OFF, score=(0.52, 0.53), warnings=(SILENT,))},
    ),
    "59 s": Case(
        dd.silence(12, 59 / 3600),
        {"A liquid": lost("88 " + TOO_LONG), "A thin": lost("164 " + TOO_LONG),
         "B liquid": lost("105 " + TOO_LONG)},
    ),
    "an hour": Case(
        dd.silence(12, 1),
        {"A": lost(TOO_MANY), "B": lost(TOO_MANY),
         "C liquid": Expected(score=(0.959, 0.961), warnings=(SILENT,)),
         "C thin": Expected(score=(0.98, 0.982), warnings=(SILENT,))},
    ),
    "7 of 8 rows": Case(
        dd.thinned(8), {"A": lost(TOO_MANY, score=(0.12, 0.13)), "B": lost(TOO_MANY, score=(0.12, 0.13))}
    ),
    "the last four hours": Case(
        dd.silence(20, 4),
        {**dict.fromkeys("AB", quarantined(CUT_OFF, score=(0.83, 0.88), warnings=(SILENT,))),
         "C": Expected(score=(0.83, 0.88), warnings=(SILENT,))},
        dict.fromkeys("AB", quarantined(CUT_OFF, score=(0.83, 0.88), warnings=(SILENT,))),
    ),
    # Losses that a known outage explains.
    "an incident hour without trades": Case(
        dd.silence(12, 1),
        {"A": lost(BY_OUTAGE), "B": lost(BY_OUTAGE), "C": warns("s of silence in the " + OUTAGE)},
        outages=((12, 13),),
    ),
    "an incident hour with trades": Case(dd.nothing(), outages=((12, 13),)),
    "a silent hour around an incident of half of it": Case(
        dd.silence(12, 1),
        {"A": lost(BY_OUTAGE.replace("13:00", "12:30")), "B": lost(BY_OUTAGE.replace("13:00", "12:30")),
         "C liquid": Expected(score=(0.978, 0.983), warnings=(SILENT, "s of silence in the known outage")),
         "C thin": Expected(warnings=("s of silence in the known outage", ))},
        outages=((12, 12.5),),
    ),
    "a silent hour and an incident in another": Case(
        dd.silence(12, 1),
        {"A": lost(TOO_MANY), "B": lost(TOO_MANY),
         "C liquid": Expected(score=(0.957, 0.961), warnings=(SILENT,)),
         "C thin": Expected(score=(0.978, 0.982), warnings=(SILENT,))},
        outages=((15, 16),),
    ),
    "1 id in the middle, in an incident": Case(
        dd.gap(1),
        {"A": Expected(state="degraded", warnings=("1 ids are missing by the known outage 06:00:00",))},
        outages=((6, 18),),
    ),
    # Repeats.
    "5 rows twice": Case(
        dd.doubled(5), dict.fromkeys("AB", warns("5 rows repeat an id with the same payload"))
    ),
    "1 id with another amount": Case(
        dd.second_payload(1),
        dict.fromkeys("AB", quarantined("quality is 0: 1 rows break same_id_other_payload", quality=0.0)),
    ),
    "9 rows sent again": Case(
        dd.resent(9), dict.fromkeys("AB", warns("9 rows repeat an id with the same payload"))
    ),
    "40 rows sent again": Case(
        dd.resent(40),
        {"A": warns("40 rows repeat an id with the same payload"),
         "B": warns("40 rows repeat an id with the same payload"),
         "C": warns("40 rows in 1 blocks repeat earlier rows in order")},
    ),
    # Order and times.
    "shuffled with their arrival": Case(
        dd.shuffled(with_arrival=True),
        {"A": quarantined("rows that arrived before the row above them"),
         "B": quarantined("rows that arrived before the row above them"),
         "C": quarantined("rows that arrived before the row above them", score=0.0, warnings=(SILENT,))},
    ),
    "shuffled without their arrival": Case(
        dd.shuffled(with_arrival=False),
        {"all": quarantined("capture clock 60.00 s behind the exchange", warnings=("latency drifts",))},
    ),
    "clock 0.4 s behind": Case(dd.moved(time=400_000)),
    "clock 1.2 s behind": Case(
        dd.moved(time=1_200_000), {"all": warns("capture clock 1.20 s behind the exchange")}
    ),
    "clock 6 s behind": Case(
        dd.moved(time=6_000_000), {"all": quarantined("capture clock 6.00 s behind the exchange")}
    ),
    "1 row 400 ms ahead": Case(
        dd.changed(1, time=lambda _, row: row.local + 400_000),
        {"all": warns("1 rows are stamped later than they arrived")},
    ),
    "2 s later from noon": Case(
        dd.delayed_from_noon(2_000_000), {"all": warns("latency drifts: its median is 0.01 s in one hour")}
    ),
    "0.9 s later from noon": Case(dd.delayed_from_noon(900_000)),
    "1 row stamped 299 s before": Case(dd.changed(1, time=START - 299 * SECOND)),
    "1 row stamped 301 s before": Case(
        dd.changed(1, time=START - 301 * SECOND),
        {"all": quarantined("1 rows stamped further outside the day than the seam window")},
    ),
    "milliseconds": Case(
        dd.all_changed(time=lambda _, row: row.time // 1000, local=lambda _, row: row.local // 1000),
        {"all": quarantined("times are not microseconds", score=0.0, warnings=(SILENT,))},
        {"A": quarantined("times are not microseconds"), "B": quarantined("times are not microseconds")},
    ),
    "the day before's file": Case(
        dd.of_the_day_before(),
        {"A": quarantined("arrived outside the file's day", score=(0.0, 0.02), warnings=(SILENT,)),
         "B": quarantined("arrived outside the file's day", score=(0.0, 0.02), warnings=(SILENT,)),
         "C": quarantined("arrived outside the file's day", score=(0.0, 0.02), warnings=(SILENT,))},
    ),
    # Values.
    "1 amount of zero": Case(dd.changed(1, amount="0")),
    "10 prices of zero": Case(
        dd.changed(10, price="0"), {"all": quarantined(ZERO, quality=0.0)}
    ),
    "10 empty amounts": Case(
        dd.changed(10, amount=""), {"all": quarantined(ZERO, quality=0.0)}
    ),
    "a fat finger of 5 %": Case(
        dd.changed(1, price=dd.priced(1.05)), {"all": warns("1 prices far from those around them")}
    ),
    "a real jump of 5 %": Case(dd.jump(1.05)),
    "a real fall of 5 %": Case(dd.jump(1 / 1.05)),
    "10 prices half a step off": Case(
        dd.changed(10, price=dd.finer(0.5)), {"A": Expected(quality=0.9), "C": Expected(quality=0.9)}
    ),
    "100 prices anywhere between steps": Case(
        dd.changed(100, price=dd.finer(0.123456)),
        {"all": quarantined("quality is 0: 100 rows break off_price_grid", quality=0.0)},
    ),
    "a finer grid that is not known, from noon": Case(dd.refined_at_noon(), {"all": warns(STALE)}),
    "a finer grid that is known, from noon": Case(dd.refined_at_noon(), grid=(1.0, 0.1)),
    "prices between steps that nobody knows": Case(dd.changed(100, price=dd.finer(0.123456)), grid=()),
    "one price for four hours": Case(
        dd.frozen(8, 4),
        dict.fromkeys(("A liquid", "B liquid", "C liquid"), warns("price frozen at")),
    ),
    "buys only": Case(dd.all_changed(side="buy"), {"all": warns("one-sided: 100.0% of the rows are buys")}),
    "no sides": Case(dd.all_changed(side="unknown"), {"all": warns("no row says which side took")}),
    # Other files' rows.
    "1 row of another symbol": Case(
        dd.changed(1, symbol="DOGEUSDT"),
        {"A liquid": quarantined("1 rows of a symbol that is not this feed's", state="degraded"),
         "A thin": quarantined("1 rows of a symbol that is not this feed's", state="degraded"),
         "B": quarantined("1 rows of a symbol that is not this feed's"),
         "C": quarantined("1 rows of a symbol that is not this feed's")},
    ),
    "1 row of another exchange": Case(
        dd.changed(1, exchange="bitmex"), {"all": quarantined("1 rows of another exchange")}
    ),
    "another symbol's bytes": Case(
        dd.of_another_symbol(), {"all": quarantined("rows of a symbol that is not this feed's")}
    ),
    "ids from 1 again": Case(
        dd.ids_anew(),
        dict.fromkeys(
            "AB",
            lost(
                "ids are missing (at most",
                score=(0.0, 0.02),
                warnings=("ids fall back 1 times",),
            ),
        ),
    ),
}  # fmt: skip


def lost_ids(rows: Sequence[dd.Row], allowed: int) -> tuple[int, int]:
    """Missing ids in runs longer than the allowed length, and the span, by plain counting."""
    ids = sorted({int(row.id) for row in rows})
    runs = [b - a - 1 for a, b in itertools.pairwise(ids)]
    return sum(run for run in runs if run > allowed), ids[-1] - ids[0] + 1


def has_gaps(rows: Sequence[dd.Row]) -> bool:
    """Whether any id between the first and the last is missing, the venue's own gaps included."""
    return lost_ids(rows, allowed=0)[0] > 0


def expected_score(expected: Expected, sample: Sample, rows: Sequence[dd.Row]) -> Any:
    if isinstance(expected.score, float):
        return pytest.approx(expected.score, abs=1e-9)
    if sample.name.startswith("C"):
        return 0.99
    missing, span = lost_ids(rows, allowed=0 if sample.name.startswith("A") else 5)
    return pytest.approx(1 - missing / span, abs=1e-12)


def expected_quality(expected: Expected, rows: Sequence[dd.Row]) -> Any:
    if expected.quality is not None:
        return pytest.approx(expected.quality, abs=1e-9)
    # A venue of class B leaves two rows a day without price and amount.
    zeros = sum(not row.amount or float(row.amount) <= 0 for row in rows)
    return pytest.approx(max(0.0, 1 - zeros / 10), abs=1e-9)


def said(warnings: Sequence[str]) -> list[str]:
    """Leave out the warnings of every feed without ids, and of every midnight beside a damaged file."""
    return [w for w in warnings if not w.startswith(UNCALIBRATED) and MIDNIGHT not in w]


def assert_is(
    found: Verdict, expected: Expected, sample: Sample, rows: Sequence[dd.Row], *, after: bool
) -> None:
    assert found.outcome == expected.outcome, (found.reasons, found.warnings)
    reasons = "; ".join(found.reasons)
    assert expected.reason in reasons
    assert bool(reasons) == bool(expected.reason)
    unproven = sample.name.startswith("C") or (sample.name.startswith("B") and has_gaps(rows))
    good = "estimated" if unproven else "proven" if after else "head_proven"
    if expected.outcome == "publish" or expected.state:
        assert found.completeness_state == (expected.state or good)
    if isinstance(expected.score, tuple):
        assert expected.score[0] < (found.completeness or 0.0) < expected.score[1]
    else:
        assert found.completeness == expected_score(expected, sample, rows)
    assert found.quality == expected_quality(expected, rows)
    assert len(said(found.warnings)) == len(expected.warnings), found.warnings
    for part in expected.warnings:
        assert any(part in warning for warning in found.warnings), found.warnings


def record_outages(store: Store, sample: Sample, case: Case) -> None:
    if case.outages:
        hours = [(START + round(first * HOUR), START + round(last * HOUR)) for first, last in case.outages]
        list_between(store, sample, None, None, outages=hours)


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("name", CASES)
def test_a_damage_is_seen_as_far_as_it_can_be(name: str, sample: Sample, tmp_path: Path) -> None:
    case = CASES[name]
    rows = case.damage(sample, dd.good_rows(sample, DAY))
    grids = {sample.symbol: tuple(part * sample.step for part in case.grid)}
    profile = dd.profile_of(sample, DAY, rows, grids=grids)
    found = dd.judge_damaged(sample, profile, tmp_path, lambda store: record_outages(store, sample, case))
    own = [row for row in rows if row.symbol == sample.symbol] or rows
    assert_is(found.before, case.of(sample, after=False), sample, own, after=False)
    assert_is(found.after, case.of(sample, after=True), sample, own, after=True)
    for good in found.neighbours:
        assert (good.outcome, good.reasons, said(good.warnings)) == ("publish", (), [])
        assert good.completeness == pytest.approx(0.99 if sample.name.startswith("C") else 1.0)


# --- files that are not there, and days that are not whole -------------------------------------------------

#: A listed day without a single trade at Coinbase (class A) and Kraken (C, before it had ids).
SILENT_DAYS: Final = {
    kind: Sample(f"{kind} silent", exchange, "SOL-USDT", "SOL-USDT", symbol, 0.01, 0)
    for kind, exchange, symbol in (("A", "coinbase", "SOL-USDT"), ("C", "kraken", "SOL/USDT"))
}


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=lambda s: s.name)
def test_a_missing_file_scores_nothing_and_leaves_its_neighbours_alone(
    sample: Sample, tmp_path: Path
) -> None:
    found = dd.judge_damaged(sample, None, tmp_path)
    for verdict in (found.before, found.after):
        assert (verdict.outcome, verdict.completeness, verdict.quality) == ("missing", 0.0, None)
        assert verdict.reasons == ("no such data set",)
    assert [v.outcome for v in found.neighbours] == ["publish", "publish"]


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("header", [True, False])
def test_an_empty_file_of_a_day_that_traded_is_no_evidence(
    sample: Sample, header: bool, tmp_path: Path
) -> None:
    found = dd.judge_damaged(sample, dd.profile_of(sample, DAY, [], empty=not header), tmp_path)
    for verdict in (found.before, found.after):
        assert (verdict.outcome, verdict.completeness) == ("no_evidence", None)
        assert verdict.reasons == ("the file is empty and no ids of the neighbours show that the day was",)


@pytest.mark.parametrize("kind", SILENT_DAYS)
def test_an_empty_file_is_proven_by_ids_that_join_over_it(kind: str, tmp_path: Path) -> None:
    sample = SILENT_DAYS[kind]
    store = LocalStore(tmp_path / "lake")
    days = ("2024-01-04", "2024-01-05", "2024-01-06")
    outcomes = []
    for day in days:
        dd.expect(store, sample, day)
        rows = [] if day == days[1] else dd.good_rows(sample, day)
        fetch(store, day, dd.profile_of(sample, day, rows, empty=not rows), sample.feed)
        settle(store, day, THRESHOLDS)
        silent = load_settled(store, days[1])
        if silent is not None:
            verdict = silent.feeds[0].verdict
            outcomes.append((verdict.outcome, verdict.completeness, verdict.completeness_state))
    unknown = ("no_evidence", None, "no_evidence")
    assert outcomes == [unknown, ("publish", 1.0, "proven") if kind == "A" else unknown]


def list_between(
    store: Store,
    sample: Sample,
    since: int | None,
    to: int | None,
    outages: Sequence[tuple[int, int]] = (),
) -> None:
    """Store the instruments of the day, listed between these times."""
    schema = pa.schema([column.with_nullable(True) for column in arrow_schema(INSTRUMENT_COLUMNS)])
    times = {
        name: datetime.fromtimestamp(time / SECOND, UTC)
        for name, time in (("available_since", since), ("available_to", to))
        if time is not None
    }
    listed = {"instrument_id": sample.dataset_symbol, "dataset_symbol": sample.dataset_symbol, "type": "spot"}
    table = pa.Table.from_pylist([{**listed, **times}], schema=schema)
    known = tuple(Outage(start_us=first, end_us=last) for first, last in outages)
    store_instruments(store, sample.exchange, DAY, table, "instruments", known)


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_half_a_day_is_whole_on_the_first_and_the_last_day_of_a_listing_alone(
    first: bool, listed: bool, sample: Sample, tmp_path: Path
) -> None:
    noon = START + 12 * HOUR
    store = LocalStore(tmp_path / "lake")
    if listed:
        list_between(store, sample, noon if first else None, None if first else noon)
    neighbour = dd.AFTER if first else dd.BEFORE
    half = [row for row in dd.good_rows(sample, DAY) if (row.local >= noon) == first]
    profiles = {neighbour: dd.good_profile(sample, neighbour), DAY: dd.profile_of(sample, DAY, half)}
    for day, profile in profiles.items():
        dd.expect(store, sample, day)
        fetch(store, day, profile, sample.feed)
    settle(store, neighbour, THRESHOLDS)
    verdict = settle(store, DAY, THRESHOLDS).feeds[0].verdict
    by_ids = "inner_proven" if first else "head_proven"
    side = "after" if first else "before"
    cut_off = not listed and not sample.name.startswith("C")
    assert verdict.outcome == ("quarantine" if cut_off else "publish")
    assert [f"s {side} midnight count as lost" in reason for reason in verdict.reasons] == [True] * cut_off
    unproven = sample.name.startswith("C") or (sample.name.startswith("B") and has_gaps(half))
    assert verdict.completeness_state == ("estimated" if unproven else by_ids)
    if not listed:
        assert verdict.completeness is not None
        assert 0.5 < verdict.completeness < 0.53
    else:
        assert verdict.completeness == pytest.approx(0.99 if sample.name.startswith("C") else 1.0)


# --- a busy day --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_fat_finger_is_found_among_five_million_trades(wrong: int) -> None:
    rng = np.random.default_rng(1)
    profiler = Profiler("binance", DAY, ProfileParameters(), trades=True, grids={"BTCUSDT": (0.01,)})
    profiler.register(Name("binance", "BTCUSDT", "BTC-USDT"))
    count, batch, price = 5_000_000, 500_000, 42_000.0
    time_of_wrong = 0
    for first in range(0, count, batch):
        times = START + (first + np.arange(batch)) * 17_279
        path = price * np.exp(np.cumsum(rng.normal(0, 3e-6, batch)))
        price = float(path[-1])
        prices = np.round(path, 2)
        if wrong and first == 6 * batch:
            prices[123_456] = round(prices[123_456] * 1.05, 2)
            time_of_wrong = int(times[123_456])
        rows = ParsedRows(
            times=times,
            locals=times + 5_000,
            codes=np.zeros(batch, np.int32),
            price=prices,
            amount=np.ones(batch),
            side=(np.arange(batch) % 2).astype(np.uint8),
            ids=1 + first + np.arange(batch),
        )
        profiler.add(rows, 0, batch)
    profile = profiler.finish(has_header=True)
    context = Context(window_start_us=START, window_end_us=START + 24 * HOUR)
    verdict = judge_feed(SAMPLES["A liquid"].feed, DAY, "sha", profile, context, THRESHOLDS)
    assert (verdict.outcome, verdict.rows, verdict.quality) == ("publish", count, 1.0)
    (symbol,) = profile.symbols
    assert [spike.time_us for spike in symbol.spikes] == [time_of_wrong] * wrong
    assert symbol.spike_count == wrong
    spiked = [w for w in verdict.warnings if w.startswith("1 prices far from those around them")]
    assert len(spiked) == wrong
    told = {
        "": context,
        "confirmed": context_with(context, confirmed={"BTCUSDT": (0,)}),
        "seen by none of kraken/trades/XBT-USDT": context_with(context, refuted={"BTCUSDT": (0,)}),
    }
    for sentence, around in told.items() if wrong else ():
        again = judge_feed(SAMPLES["A liquid"].feed, DAY, "sha", profile, around, THRESHOLDS)
        assert (again.outcome, again.quality) == ("publish", 1.0)
        spiked = [w for w in again.warnings if "prices far from those around them" in w]
        assert len(spiked) == (sentence != "confirmed")
        assert all(sentence in warning for warning in spiked)


def context_with(context: Context, **told: dict[str, tuple[int, ...]]) -> Context:
    """The context with a witness's answer on the spikes of the content ``sha``."""
    evidence = SpikeEvidence(inputs="", witnesses=("kraken/trades/XBT-USDT",), **told)
    return context.model_copy(update={"spikes": {"sha": evidence}})
