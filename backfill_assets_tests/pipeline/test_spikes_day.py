"""Wrong prices through the pipeline: witnesses are asked after the fetch, before the day is settled."""

from __future__ import annotations

from backfill_assets.lake.manifests import load_manifest
from backfill_assets.quality.measures import load_measures

DAY = "2024-01-02"
BTC = "binance/trades/BTCUSDT"


def wrong_prices(count):
    """So many lines, spread over the day, have a price a tenth too high."""

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
    pipeline.run(DAY)
    assert [load_manifest(pipeline.store, f.feed, DAY).spikes for f in pipeline.settled(DAY).feeds] == [
        {}
    ] * 9
