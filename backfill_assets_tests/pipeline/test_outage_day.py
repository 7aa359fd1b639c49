"""A day on which the vendor reports an incident of its capture: told, and subtracted from the owed time."""

from __future__ import annotations

from backfill_assets.days import MICROSECONDS_PER_MINUTE, start_us

DAY = "2024-01-02"
KRAKEN = "kraken/trades/XBT-USDT"
NOON = start_us(DAY) + 720 * MICROSECONDS_PER_MINUTE


def without_four_hours_from_noon(lines):
    end = NOON + 240 * MICROSECONDS_PER_MINUTE
    return [line for line in lines if not NOON <= int(line.split(",")[3]) < end]


def incident(first, last):
    times = {"from": f"{DAY}T{first}:00.000Z", "to": f"{DAY}T{last}:00.000Z"}
    return {**times, "status": "resolved", "details": "no data"}


def test_hours_of_a_known_incident_are_owed_by_nobody_and_named(pipeline):
    pipeline.serve_changed(KRAKEN, DAY, without_four_hours_from_noon)
    assert pipeline.run(DAY, select=["instruments", "ticks"]).success
    before = {str(f.feed): f.verdict for f in pipeline.settled(DAY).feeds}
    assert before[KRAKEN].completeness < 0.9

    pipeline.standin.faults.incidents["kraken"] = [incident("12:00", "16:00")]
    assert pipeline.run(DAY, select=["instruments", "ticks"]).success
    after = {str(f.feed): f.verdict for f in pipeline.settled(DAY).feeds}
    assert after[KRAKEN].completeness == 0.99
    assert after[KRAKEN].context.outages == ((NOON, NOON + 240 * MICROSECONDS_PER_MINUTE),)
    told = [w for w in after[KRAKEN].warnings if "known outage 12:00:00 to 16:00:00 do not count" in w]
    assert len(told) == 1
    others = [name for name in after if name != KRAKEN]
    assert {name: after[name].outcome for name in others} == dict.fromkeys(others, "publish")
    assert all("outage" not in w for name in others for w in after[name].warnings)
    assert after["binance/trades/BTCUSDT"].context.outages == ()
