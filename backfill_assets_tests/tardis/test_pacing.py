"""The rate limit, with a clock of its own."""

from __future__ import annotations

import time

from backfill_assets.feeds import Feed
from backfill_assets.tardis import client as client_module
from backfill_assets.tardis.client import TardisClient
from backfill_assets.tardis.pacing import Pace, shared_pace


def test_no_window_of_a_minute_holds_more_starts_than_allowed():
    now = [0.0]
    pace = Pace(3, clock=lambda: now[0])
    starts = []
    for step in [0, 10, 10, 10, 0, 0, 45, 0, 100, 0, 0, 0]:
        now[0] += step
        starts.append(now[0] + pace.reserve())
    assert all(later - earlier >= 60 for earlier, later in zip(starts, starts[3:], strict=False))


def test_starts_below_the_limit_do_not_wait():
    pace = Pace(3, clock=lambda: 5.0)
    assert [pace.reserve() for _ in range(3)] == [0, 0, 0]
    assert pace.reserve() == 60


def test_clients_with_the_same_limit_share_it():
    assert shared_pace(17, "tardis.dev") is shared_pace(17, "tardis.dev")
    assert shared_pace(17, "tardis.dev") is not shared_pace(18, "tardis.dev")


def test_every_request_of_a_fetch_takes_a_start(vendor, tardis_settings, tmp_path, monkeypatch):
    pace = Pace(2)
    moments = iter([0.0, 0.0, -59.5, -59.5])  # The third start finds the window nearly over.
    pace = Pace(2, clock=lambda: next(moments) * -1)
    monkeypatch.setattr(client_module, "shared_pace", lambda *_: pace)
    feeds = [Feed("binance", "trades", f"S{i}") for i in range(4)]
    began = time.monotonic()
    assert len(list(TardisClient(tardis_settings()).fetch(feeds, "2024-01-02", tmp_path))) == 4
    assert 0.5 <= time.monotonic() - began < 10
