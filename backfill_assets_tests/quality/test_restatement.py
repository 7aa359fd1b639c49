"""Changes of a refreshed file are counted on real files; beyond a limit it waits for an approval.

The expected counts come from the rows in plain Python, minute by minute. Each limit is tried on a liquid
and on a thin feed, with ids and without, just within it and beyond it.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_assets.days import MICROSECONDS_PER_DAY, MICROSECONDS_PER_MINUTE
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import Largest, Restatement
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import (
    Source,
    Version,
    load_day_record,
    load_manifest,
    load_manifests,
)
from backfill_assets.lake.store import Store
from backfill_assets.quality.selection import NOT_COMPARED
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import HeldVersion, SettledFeed
from backfill_assets.settings import RestatementSettings, ThresholdSettings
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks import partials
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.profile import ProfileParameters
from backfill_assets.ticks.restatements import compare_rows, compare_trades, compare_versions
from backfill_assets_tests.candles.candle_samples import Trade, numbered, write_ticks
from backfill_assets_tests.quality import damaged_days as dd
from backfill_assets_tests.quality import settled_lake
from backfill_assets_tests.quality.damaged_days import DAY, SAMPLES, START, THRESHOLDS, Damage, Sample
from backfill_assets_tests.quality.settled_lake import NOW

LIMITS = RestatementSettings()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


def bring(store: Store, sample: Sample, rows: Sequence[dd.Row], folder: Path) -> Version:
    """Store the results of a fetch of these rows: the file and a version, a minute later than the last."""
    text = "".join(f"{row.line()}\n" for row in rows)
    raw = gzip.compress(f"{csv_header('trades')}\n{text}".encode(), 1, mtime=0)
    source, target = folder / "day.csv.gz", folder / "day.parquet"
    source.write_bytes(raw)
    decoded = decode(
        source,
        target,
        feed=sample.feed,
        day=DAY,
        symbols={sample.symbol: sample.canonical},
        parameters=ProfileParameters.of(THRESHOLDS),
        grids=sample.grids,
    )
    store.put_file(target, paths.ticks_data(sample.feed, DAY, decoded.content))
    earlier = load_manifest(store, sample.feed, DAY).versions
    version = Version(
        content=decoded.content,
        rows=decoded.rows,
        bytes=decoded.bytes,
        source=Source(url="http://127.0.0.1/", raw_bytes=len(raw), raw_sha256=decoded.raw_sha256),
        profile=decoded.profile.model_dump(mode="json"),
        schema_version=1,
        profile_parameters="p",
        fetched_at=NOW + timedelta(minutes=len(earlier)),
    )
    settled_lake.bring(store, DAY, version, sample.feed)
    return version


def compare(store: Store) -> int:
    """Compare the versions of the day's feeds; returns how many pairs were compared."""
    record = load_day_record(store, DAY)
    assert record is not None
    return compare_versions(store, load_manifests(store, record))


def refresh(
    store: Store, sample: Sample, first: Damage, second: Damage, folder: Path
) -> tuple[SettledFeed, list[dd.Row], list[dd.Row]]:
    """Run the day with one file, then again with another."""
    dd.expect(store, sample, DAY)
    old = first(sample, dd.good_rows(sample, DAY))
    bring(store, sample, old, folder)
    compare(store)
    assert settle(store, DAY, THRESHOLDS).feeds[0].accepted is not None
    new = second(sample, dd.good_rows(sample, DAY))
    bring(store, sample, new, folder)
    compare(store)
    return settle(store, DAY, THRESHOLDS).feeds[0], old, new


# --- counted again in plain Python -------------------------------------------------------------------------


@dataclass
class Minute:
    prices: tuple[float, float, float, float]
    volume: float
    count: int


def minutes(rows: Sequence[dd.Row]) -> dict[int, Minute]:
    found: dict[int, list[dd.Row]] = {}
    # A trade that comes twice counts once, if an id identifies it.
    once = {(n if not r.id else -1, r.id, r.time, r.side, r.price, r.amount): r for n, r in enumerate(rows)}
    for row in once.values():
        if float(row.price) > 0 and float(row.amount) > 0:
            found.setdefault(row.time - row.time % MICROSECONDS_PER_MINUTE, []).append(row)
    result = {}
    for minute, trades in found.items():
        ordered = sorted(trades, key=lambda r: (r.time, int(r.id) if r.id.isdigit() else 0))
        prices = [float(r.price) for r in ordered]
        ends = (prices[0], max(prices), min(prices), prices[-1])
        result[minute] = Minute(ends, sum(float(r.amount) for r in ordered), len(prices))
    return result


def assert_counts(found: Restatement, old: Sequence[dd.Row], new: Sequence[dd.Row]) -> None:
    before, after = minutes(old), minutes(new)
    mean = sum(m.volume for m in before.values()) / len(before)
    price: dict[int, float] = {}
    volume: dict[int, float] = {}
    differing = set()
    none = Minute((0, 0, 0, 0), 0.0, 0)
    for minute in before.keys() | after.keys():
        one, other = before.get(minute, none), after.get(minute, none)
        moved = abs(one.volume - other.volume)
        if moved > 1e-9 * max(one.volume, other.volume):
            volume[minute] = moved / max(one.volume, mean)
        if minute in before and minute in after and one.prices != other.prices:
            price[minute] = max(abs(b - a) / a for a, b in zip(one.prices, other.prices, strict=True))
        if minute in volume or one.prices != other.prices or one.count != other.count:
            differing.add(minute)
    assert (found.rows_before, found.rows_after) == (len(old), len(new))
    assert (found.minutes, found.minutes_differing) == (len(before.keys() | after.keys()), len(differing))
    for largest, differences in ((found.price, price), (found.volume, volume)):
        assert (largest is None) == (not differences)
        if largest is not None:
            assert largest.difference == pytest.approx(max(differences.values()), rel=1e-9)
            assert differences[largest.minute_us] == pytest.approx(largest.difference, rel=1e-9)
    if old[0].id.isdigit():
        ids, others = {r.id for r in old}, {r.id for r in new}
        assert (found.ids_added, found.ids_removed) == (len(others - ids), len(ids - others))
    else:
        assert (found.ids_added, found.ids_removed) == (None, None)


# --- within and beyond -------------------------------------------------------------------------------------


def louder(factor: float) -> Damage:
    """Multiply the amount of the row in the middle by a factor."""
    return dd.changed(1, amount=lambda _, row: f"{float(row.amount) * factor:.8f}")


def steps(count: int) -> Damage:
    """Raise the price of so many rows, spread over the day, by one step."""
    return dd.changed(count, price=lambda sample, row: f"{float(row.price) + sample.step:.8f}")


#: The accepted file, the refreshed one, and the reason for its refusal; an empty reason: it is accepted.
CASES: dict[str, tuple[Damage, Damage, str]] = {
    "a row that was lost": (dd.gap_where_busiest(1), dd.nothing(), ""),
    "ten rows that came twice": (dd.doubled(10), dd.nothing(), ""),
    "ten rows too many": (dd.doubled(10), dd.nothing(), ""),
    "one row in a hundred comes twice": (dd.nothing(), lambda s, r: dd.doubled(len(r) // 100)(s, r), ""),
    "three in a hundred come twice": (
        dd.nothing(),
        lambda s, r: dd.doubled(len(r) * 3 // 100)(s, r),
        ", at most 1.00%)",
    ),
    "a step in ten rows": (dd.nothing(), steps(10), ""),
    "a step in a quarter of the rows": (
        dd.nothing(),
        lambda s, r: steps(len(r) // 4)(s, r),
        "minutes differ",
    ),
    "a price off by 0.9 %": (dd.nothing(), dd.changed(1, price=dd.priced(1.009)), ""),
    "a price off by 1.2 %": (
        dd.nothing(),
        dd.changed(1, price=dd.priced(1.012)),
        "at 2024-01-03",
    ),
    "a volume a little larger": (dd.nothing(), louder(1.05), ""),
    "a volume a thousandfold": (dd.nothing(), louder(1000), "(at most 500.00%)"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["A liquid", "A thin", "C liquid", "C thin"])
def test_a_restated_file_is_taken_within_the_limits_and_waits_beyond(
    kind: str, name: str, store: Store, tmp_path: Path
) -> None:
    first, second, said = CASES[name]
    sample = SAMPLES[kind]
    settled, old, new = refresh(store, sample, first, second, tmp_path)
    assert settled.restatement is not None
    assert_counts(settled.restatement, old, new)
    taken, pending = settled.accepted, settled.candidate
    assert taken is not None
    if not said:
        assert (taken.content, pending) == (settled.restatement.after, None)
        assert (settled.excess, settled.candidate_verdict) == ("", None)
        return
    assert pending is not None
    assert (taken.content, pending.content) == (settled.restatement.before, settled.restatement.after)
    assert said in settled.excess
    assert settled.verdict.outcome == "publish"
    on_pending = settled.candidate_verdict
    assert on_pending is not None
    assert (on_pending.outcome, on_pending.reasons) == ("quarantine", (settled.excess,))
    assert settled.excess.startswith("it restates more than the limits allow: ")
    command = f"backfill-assets approve --date {DAY} --feed {settled.feed} --content {pending.content[:12]}"
    assert settled.excess.endswith(
        f'; look at what it changes; or, if it shall count: {command} --reason "…"'
    )


def test_without_a_comparison_a_version_waits(store: Store, tmp_path: Path) -> None:
    sample = SAMPLES["A thin"]
    dd.expect(store, sample, DAY)
    bring(store, sample, dd.doubled(1)(sample, dd.good_rows(sample, DAY)), tmp_path)
    old = settle(store, DAY, THRESHOLDS).feeds[0].accepted
    new = bring(store, sample, dd.good_rows(sample, DAY), tmp_path)
    waiting = settle(store, DAY, THRESHOLDS).feeds[0]
    assert (waiting.accepted, waiting.restatement) == (old, None)
    assert waiting.excess.startswith(f"{NOT_COMPARED}; or, if it shall count: backfill-assets approve ")
    assert waiting.restatement_summary == f"pending: {waiting.excess}"
    assert compare(store) == 1
    assert settle(store, DAY, THRESHOLDS).feeds[0].accepted == HeldVersion.of(new)
    assert compare(store) == 0


def test_other_limits_need_no_other_comparison(store: Store, tmp_path: Path) -> None:
    narrow, _, _ = refresh(
        store, SAMPLES["A thin"], dd.nothing(), dd.changed(1, price=dd.priced(1.012)), tmp_path
    )
    assert narrow.candidate is not None
    wide = ThresholdSettings(restatement=RestatementSettings(price=0.02))
    assert settle(store, DAY, wide).feeds[0].accepted == narrow.candidate
    # The versions and the limits decide which version counts, also on the way back; its history does not.
    assert settle(store, DAY, THRESHOLDS).feeds[0].accepted == narrow.accepted


def test_a_file_of_several_groups_of_rows_is_compared_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes that straddle two groups, or two batches, are put together."""
    settled, old, new = refresh(store, SAMPLES["A liquid"], dd.nothing(), steps(300), tmp_path)
    assert settled.restatement is not None
    names = (settled.restatement.before, settled.restatement.after)
    files = []
    for content in names:
        with store.local_copy(paths.ticks_data(SAMPLES["A liquid"].feed, DAY, content)) as path:
            files.append(tmp_path / f"{content}.parquet")
            pq.write_table(pq.read_table(path), files[-1], row_group_size=997)
    monkeypatch.setattr(partials, "BATCH_ROWS", 503)
    assert compare_trades(files[0], files[1], names, numeric_ids=True) == settled.restatement
    assert_counts(settled.restatement, old, new)


MINUTE, END = MICROSECONDS_PER_MINUTE, START + MICROSECONDS_PER_DAY
OF_THE_DAY = [Trade(START + n * MINUTE, 100.0, 2.0) for n in range(10)]


@pytest.mark.parametrize(
    ("lost", "symbol"),
    [
        (Trade(START - MINUTE, 100.0), "BTCUSDT"),
        (Trade(START - 40 * 24 * 60 * MINUTE, 100.0), "BTCUSDT"),
        (Trade(0, 100.0), "BTCUSDT"),
        (Trade(-1, 100.0), "BTCUSDT"),
        (Trade(END + 10 * MINUTE, 100.0), "BTCUSDT"),
        (Trade(START, 100.0, symbol=None), "OTHER"),
    ],
)
def test_rows_that_are_in_no_candle_of_the_day_are_compared_too(
    lost: Trade, symbol: str, tmp_path: Path
) -> None:
    before = write_ticks(tmp_path / "before.parquet", numbered([*OF_THE_DAY, lost]))
    after = write_ticks(tmp_path / "after.parquet", numbered(OF_THE_DAY))
    found = compare_trades(before, after, ("a", "b"), numeric_ids=True)
    assert (found.rows_before, found.rows_after, found.ids_added, found.ids_removed) == (11, 10, 0, 1)
    assert (found.minutes, found.minutes_differing, found.price) == (11, 1, None)
    mean = (10 * 2.0 + 1.0) / 11
    assert found.volume == Largest(difference=1.0 / mean, symbol=symbol, minute_us=lost.us // MINUTE * MINUTE)
    assert compare_trades(before, before, ("a", "b"), numeric_ids=True).minutes_differing == 0


def test_rows_that_are_no_trades_are_counted_and_are_in_no_minute(tmp_path: Path) -> None:
    before = write_ticks(tmp_path / "before.parquet", numbered([*OF_THE_DAY, Trade(END, None)]))
    after = write_ticks(tmp_path / "after.parquet", numbered([*OF_THE_DAY, Trade(END, 1.0, 0.0)], 2))
    found = compare_trades(before, after, ("a", "b"), numeric_ids=True)
    assert (found.rows_before, found.rows_after, found.ids_added, found.ids_removed) == (11, 11, 1, 1)
    assert (found.minutes, found.minutes_differing, found.price, found.volume) == (10, 0, None, None)


def test_ids_belong_to_their_market(tmp_path: Path) -> None:
    two = [Trade(START, 100.0, id="7", symbol=s) for s in ("BTC-USDT", "ETH-USDT")]
    before, after = (
        write_ticks(tmp_path / name, [two[n]]) for n, name in enumerate(("before.parquet", "after.parquet"))
    )
    found = compare_trades(before, after, ("a", "b"), numeric_ids=True)
    assert (found.ids_added, found.ids_removed, found.minutes_differing) == (1, 1, 2)
    empty = write_ticks(tmp_path / "empty.parquet", [])
    found = compare_trades(empty, after, ("a", "b"), numeric_ids=True)
    assert (found.ids_added, found.ids_removed, found.minutes, found.minutes_differing) == (1, 0, 1, 1)
    found = compare_trades(empty, empty, ("a", "b"), numeric_ids=False)
    assert (found.ids_added, found.ids_removed, found.minutes) == (None, None, 0)


def test_quotes_are_compared_by_the_rows_of_each_minute(tmp_path: Path) -> None:
    def written(name: str, table: pa.Table, row_group_size: int = 4) -> Path:
        pq.write_table(table, tmp_path / name, row_group_size=row_group_size)
        return tmp_path / name

    def table(seconds: list[int], prices: list[float]) -> pa.Table:
        times = pa.array([START + s * 1_000_000 for s in seconds], pa.timestamp("us", tz="UTC"))
        return pa.table(
            {
                "symbol": pa.array(["BTC-USDT"] * len(seconds)).dictionary_encode(),
                "dataset_symbol": ["BTCUSDT"] * len(seconds),
                "local_timestamp": times,
                "bid_price": prices,
            }
        )

    rows = table([0, 1, 61, 121], [1.0, 2.0, 3.0, 4.0])
    old = written("old", rows)
    same = compare_rows(old, written("groups", rows, 1), ("a", "b"))
    assert (same.minutes, same.minutes_differing, same.price, same.ids_added) == (3, 0, None, None)
    turned = compare_rows(old, written("turned", table([1, 0, 61, 121], [2.0, 1.0, 3.0, 4.0])), ("a", "b"))
    assert turned.minutes_differing == 0
    other = compare_rows(old, written("other", table([0, 1, 61, 121], [1.0, 2.0, 3.5, 4.0])), ("a", "b"))
    assert (other.rows_before, other.rows_after, other.minutes_differing) == (4, 4, 1)
    empty = written("empty", rows.slice(0, 0))
    assert compare_rows(old, empty, ("a", "b")).minutes_differing == 3
    assert compare_rows(empty, empty, ("a", "b")).minutes == 0


def test_a_quote_that_is_lost_changes_its_own_minute_and_no_other(tmp_path: Path) -> None:
    header = csv_header("quotes")
    times = [START + n * MINUTE for n in range(10)]
    files = []
    for name, kept in (("before", times), ("after", [*times[:3], *times[4:]])):
        lines = [header, *(f"binance,BTCUSDT,{us},{us},1.0,101.0,100.0,2.0" for us in kept)]
        source, target = tmp_path / f"{name}.csv.gz", tmp_path / f"{name}.parquet"
        source.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
        decode(
            source,
            target,
            feed=Feed("binance", "quotes", "BTCUSDT"),
            day=DAY,
            symbols={"BTCUSDT": "BTC-USDT"},
            parameters=ProfileParameters.of(THRESHOLDS),
        )
        files.append(target)
    found = compare_rows(files[0], files[1], ("a", "b"))
    assert (found.rows_before, found.rows_after) == (10, 9)
    assert (found.minutes, found.minutes_differing) == (10, 1)


@pytest.mark.parametrize(("rows", "beyond"), [(110, False), (111, True), (89, True), (90, False)])
def test_so_many_rows_are_always_excused(rows: int, beyond: bool) -> None:
    found = Restatement(before="a", after="b", rows_before=100, rows_after=rows)
    assert bool(found.beyond(LIMITS)) is beyond


def test_rows_that_were_exchanged_one_for_one_count_too() -> None:
    found = Restatement(before="a", after="b", rows_before=100, rows_after=100, ids_added=11, ids_removed=11)
    assert found.beyond(LIMITS) == ("11 rows differ (11.00%, at most 1.00%)",)


def test_a_file_that_was_empty_may_not_fill_by_itself() -> None:
    found = Restatement(before="a", after="b", rows_before=0, rows_after=11, minutes=3, minutes_differing=3)
    assert found.beyond(LIMITS) == ("11 rows differ (100.00%, at most 1.00%)",)


def test_a_day_without_versions_is_not_compared(store: Store) -> None:
    dd.expect(store, SAMPLES["A thin"], DAY)
    assert compare(store) == 0
    assert load_manifest(store, SAMPLES["A thin"].feed, DAY).compared == ()
