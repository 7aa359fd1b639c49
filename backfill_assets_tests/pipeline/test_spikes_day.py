"""Wrong prices through the pipeline: witnesses are asked after the fetch, before the day is settled."""

from __future__ import annotations

import gzip

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.lake.manifests import load_manifest
from backfill_assets.quality.measures import load_measures

DAY = "2024-01-02"
BTC = "binance/trades/BTCUSDT"
WITNESS = "coinbase/trades/BTC-USDT"


def wrong_prices(count):
    """Raise the price of so many lines, spread over the day, by a tenth."""

    def change(lines):
        for n in range(count):
            at = (2 * n + 1) * len(lines) // (2 * count)
            cells = lines[at].split(",")
            cells[6] = f"{float(cells[6]) * 1.1:.2f}"
            lines[at] = ",".join(cells)
        return lines

    return change


def btc(pipeline):
    return next(f for f in pipeline.settled(DAY).feeds if str(f.feed) == BTC)


def test_prices_that_no_other_venue_saw_quarantine_the_feed_until_it_is_healed(pipeline):
    pipeline.serve_changed(BTC, DAY, wrong_prices(20))
    pipeline.run(DAY)
    verdict = btc(pipeline).verdict
    assert (verdict.outcome, verdict.reasons) == (
        "quarantine", ("quality is 0: 20 rows break unconfirmed_spikes",),
    )  # fmt: skip
    witnesses = verdict.context.spikes[verdict.content].witnesses
    assert [w.split("/")[0] for w in witnesses] == ["coinbase", "kraken"]
    assert "BTCUSDT" not in set(pipeline.table("trades", DAY)["dataset_symbol"])
    pipeline.heal()
    pipeline.run(DAY, refresh=True, feeds=[BTC])
    assert btc(pipeline).verdict.outcome == "publish"
    assert "BTCUSDT" in set(pipeline.table("trades", DAY)["dataset_symbol"])


def test_one_wrong_price_is_published_named_and_its_minute_flagged(pipeline):
    pipeline.serve_changed(BTC, DAY, wrong_prices(1))
    pipeline.run(DAY)
    found = btc(pipeline)
    assert (found.verdict.outcome, found.verdict.quality) == ("publish", 1.0)
    (said,) = [w for w in found.verdict.warnings if "prices far from" in w]
    assert "seen by none of coinbase/trades/BTC-USDT, kraken/trades/" in said
    flagged = load_measures(pipeline.store, DAY).minutes[BTC].flagged
    assert [len(minutes) for minutes in flagged.values()] == [1]


def test_a_good_day_asks_nobody(pipeline):
    pipeline.begin_after(DAY)
    assert [load_manifest(pipeline.store, f.feed, DAY).spikes for f in pipeline.settled(DAY).feeds] == [
        {}
    ] * 9


@pytest.fixture
def two_venues(make_pipeline, standin):
    """Binance shows twenty prices far from its others, and Coinbase the same ones."""
    entry = {"exchanges": ["binance", "coinbase"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}
    pipeline = make_pipeline(standin, universe=[entry])
    plain = gzip.decompress(standin.source.dataset(Feed.parse(BTC), DAY)).decode().splitlines()[1:]
    spiked = wrong_prices(20)([*plain])
    far = [new.split(",") for old, new in zip(plain, spiked, strict=True) if old != new]

    def confirming(lines):
        times = [int(line.split(",")[2]) for line in lines]
        for cells in far:
            nearest = min(range(len(times)), key=lambda n: abs(times[n] - int(cells[2])))
            own = lines[nearest].split(",")
            lines[nearest] = ",".join([*own[:6], cells[6], *own[7:]])
        return lines

    pipeline.serve_changed(BTC, DAY, lambda _: spiked)
    pipeline.serve_changed(WITNESS, DAY, confirming)
    assert pipeline.run(DAY).success
    assert btc(pipeline).accepted is not None
    return pipeline


def test_a_worse_file_of_a_witness_takes_nothing_back(two_venues):
    before = len(two_venues.table("trades", DAY).filter(exchange="binance"))
    two_venues.serve_changed(WITNESS, DAY, lambda lines: lines[::2])
    assert two_venues.run(DAY, refresh=True, feeds=[WITNESS]).success
    found = two_venues.settled(DAY).settled.feed(Feed.parse(WITNESS))
    assert found.candidate is not None, "the worse file waits"
    assert btc(two_venues).verdict.outcome == "publish"
    assert len(two_venues.table("trades", DAY).filter(exchange="binance")) == before


def test_a_damaged_file_of_a_witness_does_not_stop_the_feed_that_it_witnesses_for(two_venues):
    [file] = (two_venues.folder / "lake" / "ticks" / "coinbase").rglob("*.parquet")
    file.write_bytes(bytes(file.stat().st_size))
    two_venues.serve_changed(BTC, DAY, wrong_prices(21))
    result = two_venues.run(DAY, refresh=True, feeds=[BTC])
    assert "ticks" not in {event.step_key for event in result.all_events if event.is_step_failure}
    assert btc(two_venues).candidate is not None
