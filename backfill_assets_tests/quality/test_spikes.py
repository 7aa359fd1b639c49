"""Spikes before witnesses: confirmed, refuted, or without a witness, and the effect of each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import pytest

from backfill_assets.days import MICROSECONDS_PER_MINUTE
from backfill_assets.feeds import Feed
from backfill_assets.lake.evidence import SpikeEvidence
from backfill_assets.lake.manifests import load_manifest
from backfill_assets.quality.profiles import Spike
from backfill_assets.quality.rules import quality
from backfill_assets.quality.settle import settle
from backfill_assets.quality.verdict import Verdict
from backfill_assets_tests.quality import damaged_days as dd
from backfill_assets_tests.quality.damaged_days import AFTER, BEFORE, DAY, SAMPLES, START, Row, Sample
from backfill_assets_tests.quality.filed_days import FiledDays
from backfill_assets_tests.quality.quality_samples import profile, symbol

OURS: Final = SAMPLES["A liquid"]
THEIRS: Final = SAMPLES["B liquid"]
FAR: Final = 1.05


@pytest.fixture
def lake(tmp_path: Path) -> FiledDays:
    return FiledDays(tmp_path)


def spiked(sample: Sample, count: int, factor: float = FAR) -> list[Row]:
    """The good day with so many prices far from the others."""
    return dd.changed(count, price=dd.priced(factor))(sample, dd.good_rows(sample, DAY))


def spiked_at(sample: Sample, times: list[int], factor: float = FAR) -> list[Row]:
    """The good day; the rows nearest to these times have a price far from the others."""
    rows = dd.good_rows(sample, DAY)
    price = dd.priced(factor)
    for time in times:
        at = min(range(len(rows)), key=lambda n: abs(rows[n].time - time))
        rows[at] = rows[at].but(price=price(sample, rows[at]))
    return rows


def times_of(sample: Sample, rows: list[Row]) -> list[int]:
    return [r.time for r, good in zip(rows, dd.good_rows(sample, DAY), strict=True) if r.price != good.price]


def verdict(lake: FiledDays, sample: Sample = OURS) -> Verdict:
    lake.ask_witnesses(DAY)
    return lake.settled(sample.feed, DAY).verdict


def spike_warnings(found: Verdict) -> list[str]:
    return [w for w in found.warnings if "prices far from" in w]


def own_candle(lake: FiledDays, sample: Sample, time: int, low: float, high: float) -> None:
    """The exchange's own candle of the minute, as a file of the reference directory."""
    file = lake.reference / sample.exchange / sample.canonical / f"{DAY}.csv"
    file.parent.mkdir(parents=True)
    opened = time // MICROSECONDS_PER_MINUTE * MICROSECONDS_PER_MINUTE
    file.write_text(f"open_time,open,high,low,close,volume\n{opened},{low},{high},{low},{high},1\n")


@pytest.mark.parametrize("name", ["A liquid", "A thin", "C liquid"])
@pytest.mark.parametrize("count", [1, 13])
def test_spikes_that_nobody_was_there_for_only_warn(name: str, count: int, lake: FiledDays) -> None:
    sample = SAMPLES[name]
    lake.bring_rows(sample, DAY, spiked(sample, count))
    found = verdict(lake, sample)
    assert (found.outcome, found.quality) == ("publish", 1.0)
    (said,) = spike_warnings(found)
    assert said.startswith(f"{count} prices far from those around them, unconfirmed: ")


@pytest.mark.parametrize(
    ("count", "score", "outcome"),
    [(1, 1.0, "publish"), (3, 1.0, "publish"), (4, 0.9, "publish"), (12, 0.1, "publish"),
     (13, 0.0, "quarantine")],
)  # fmt: skip
@pytest.mark.parametrize("day_after", [False, True])
def test_spikes_that_another_venue_did_not_see_cost_quality_beyond_three(
    count: int, score: float, outcome: str, day_after: bool, lake: FiledDays
) -> None:
    lake.bring_rows(OURS, DAY, spiked(OURS, count))
    lake.bring_rows(THEIRS, DAY, dd.good_rows(THEIRS, DAY))
    if day_after:
        for day in (BEFORE, AFTER):
            lake.bring_rows(OURS, day, dd.good_rows(OURS, day))
            settle(lake.store, day, lake.settings.thresholds)
    found = verdict(lake)
    assert found.quality == pytest.approx(score)
    assert found.outcome == outcome
    assert found.completeness_state == ("proven" if day_after else "inner_proven")
    assert spike_warnings(found)[0].startswith(
        f"{count} prices far from those around them, seen by none of binance-futures/trades/BTCUSDT: "
    )
    expected = ("quality is 0: 13 rows break unconfirmed_spikes",) if outcome == "quarantine" else ()
    assert found.reasons == expected


def test_spikes_that_another_venue_saw_are_true(lake: FiledDays) -> None:
    rows = spiked(OURS, 13)
    lake.bring_rows(OURS, DAY, rows)
    lake.bring_rows(THEIRS, DAY, spiked_at(THEIRS, times_of(OURS, rows)))
    found = verdict(lake)
    assert (found.outcome, found.quality, spike_warnings(found)) == ("publish", 1.0, [])
    # Our file also confirms the other venue's spikes: neither verdict depends on the other.
    assert spike_warnings(verdict(lake, THEIRS)) == []


def test_what_another_venue_saw_hours_before_confirms_nothing(lake: FiledDays) -> None:
    rows = spiked(OURS, 13)
    lake.bring_rows(OURS, DAY, rows)
    hours = [time - 3_600_000_000 for time in times_of(OURS, rows)]
    lake.bring_rows(THEIRS, DAY, spiked_at(THEIRS, hours))
    assert verdict(lake).outcome == "quarantine"


@pytest.mark.parametrize(("off", "confirmed"), [(0.0045, True), (0.0055, False)])
def test_another_venue_may_be_off_by_the_basis_and_no_more(
    off: float, confirmed: bool, lake: FiledDays
) -> None:
    rows = spiked(OURS, 4)
    lake.bring_rows(OURS, DAY, rows)
    lake.bring_rows(THEIRS, DAY, spiked_at(THEIRS, times_of(OURS, rows), FAR / (1 + off)))
    assert (verdict(lake).quality == 1.0) == confirmed


@pytest.mark.parametrize("data_type", ["quotes", "book_ticker", "book_snapshot_5"])
def test_the_market_s_own_quotes_are_witnesses(data_type: str, lake: FiledDays) -> None:
    lake.bring_rows(THEIRS, DAY, spiked(THEIRS, 20))
    lake.bring_market(Feed(THEIRS.exchange, data_type, THEIRS.dataset_symbol), DAY, THEIRS)
    found = verdict(lake, THEIRS)
    assert found.quality == 0.0
    assert f"seen by none of {THEIRS.exchange}/{data_type}/BTCUSDT" in spike_warnings(found)[0]


def test_quotes_of_another_venue_or_pair_are_no_witnesses(lake: FiledDays) -> None:
    other = SAMPLES["B thin"]
    lake.bring_rows(OURS, DAY, spiked(OURS, 13))
    lake.bring_market(Feed(THEIRS.exchange, "quotes", THEIRS.dataset_symbol), DAY, THEIRS)
    lake.bring_rows(other, DAY, dd.good_rows(other, DAY))
    assert "unconfirmed" in spike_warnings(verdict(lake))[0]


@pytest.mark.parametrize("saw", [True, False])
def test_the_exchange_s_own_candle_is_a_witness(saw: bool, lake: FiledDays) -> None:
    rows = spiked(OURS, 1)
    lake.bring_rows(OURS, DAY, rows)
    (time,) = times_of(OURS, rows)
    price = max(float(r.price) for r in rows if r.time == time)
    own_candle(lake, OURS, time, price / 1.05, price if saw else price / 1.01)
    found = spike_warnings(verdict(lake))
    assert [w.split(":")[0] for w in found] == (
        [] if saw else ["1 prices far from those around them, seen by none of the exchange's own candles"]
    )


def test_a_witness_with_no_row_around_the_time_says_nothing(lake: FiledDays) -> None:
    rows = spiked(OURS, 1)
    (time,) = times_of(OURS, rows)
    quiet = [r for r in dd.good_rows(THEIRS, DAY) if abs(r.time - time) > 61_000_000]
    lake.bring_rows(OURS, DAY, rows)
    lake.bring_rows(THEIRS, DAY, quiet)
    assert "unconfirmed" in spike_warnings(verdict(lake))[0]


@pytest.mark.parametrize("factor", [1.05, 1 / 1.05])
def test_a_real_jump_needs_no_witness(factor: float, lake: FiledDays) -> None:
    lake.bring_rows(OURS, DAY, dd.jump(factor)(OURS, dd.good_rows(OURS, DAY)))
    lake.bring_rows(THEIRS, DAY, dd.good_rows(THEIRS, DAY))
    found = verdict(lake)
    assert (found.quality, spike_warnings(found), found.context.spikes) == (1.0, [], {})


def test_witnesses_are_asked_once_per_set_of_files(lake: FiledDays) -> None:
    lake.bring_rows(OURS, DAY, spiked(OURS, 4))
    asked = [lake.ask_witnesses(DAY) for _ in range(2)]
    lake.bring_rows(THEIRS, DAY, dd.good_rows(THEIRS, DAY))
    asked += [lake.ask_witnesses(DAY) for _ in range(2)]
    thresholds = lake.settings.thresholds
    rows = thresholds.rows.model_copy(update={"spike_window_seconds": 30.0})
    changed = lake.settings.model_copy(update={"thresholds": thresholds.model_copy(update={"rows": rows})})
    asked.append(lake.ask_witnesses(DAY, changed))
    assert asked == [1, 0, 1, 0, 1]


def test_settling_does_not_depend_on_the_order_in_which_files_came(tmp_path: Path) -> None:
    found = []
    for n, order in enumerate([(OURS, THEIRS), (THEIRS, OURS)]):
        lake = FiledDays(tmp_path / str(n))
        for sample in order:
            lake.bring_rows(sample, DAY, spiked(sample, 4) if sample == OURS else dd.good_rows(sample, DAY))
            lake.ask_witnesses(DAY)
            lake.settled(sample.feed, DAY)
        found.append(lake.settled(OURS.feed, DAY).verdict)
    assert found[0] == found[1]


def test_of_a_witness_only_row_groups_around_the_spikes_are_read(
    lake: FiledDays, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, group: int, **options: object) -> object:
        read.append(group)
        return original(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    lake.bring_rows(OURS, DAY, spiked(OURS, 1))
    lake.bring_rows(THEIRS, DAY, dd.good_rows(THEIRS, DAY), row_group_rows=1_000)
    lake.ask_witnesses(DAY)
    # The spike is at noon, in the middle of about twelve groups.
    assert 1 <= len(read) <= 2


def test_spikes_that_are_not_listed_are_taken_to_be_like_the_listed() -> None:
    listed = tuple(Spike(time_us=START + n, price=5.0) for n in range(100))
    found = profile(symbol(1, 100_000, spike_count=150, spikes=listed))
    for refuted in (0, 4, 100):
        evidence = SpikeEvidence(inputs="", witnesses=("w",), refuted={"BTCUSDT": tuple(range(refuted))})
        expected = math.ceil(1.5 * refuted)
        assert quality(found, spikes=evidence).counts["unconfirmed_spikes"] == expected


def test_a_verdict_is_computed_again_from_what_is_stored_with_it(lake: FiledDays) -> None:
    lake.bring_rows(OURS, DAY, spiked(OURS, 4))
    lake.bring_rows(THEIRS, DAY, dd.good_rows(THEIRS, DAY))
    found = verdict(lake)
    kept = load_manifest(lake.store, OURS.feed, DAY).spikes
    assert found.context.spikes == {found.content: next(iter(kept.values()))}
