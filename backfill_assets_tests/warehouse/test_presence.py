"""Knowledge of a bucket's objects from listings that are kept for a while."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from backfill_assets.days import utc_now
from backfill_assets.lake.local import LocalStore
from backfill_assets.warehouse import presence

FOLDER = "ticks/binance/trades/BTCUSDT"


class Listed(LocalStore):
    """Files on disk that are read in the way of a bucket's objects."""

    listings = 0

    @property
    def parallel_reads(self) -> int:
        return 2

    def sizes(self, prefix: str) -> dict[str, int]:
        self.listings += 1
        return super().sizes(prefix)


def put(store: Listed, day: str) -> dict[str, int]:
    """Store a file of the day; returns it in the form of ``data_files``."""
    path = f"{FOLDER}/{day}/data.parquet"
    store.replace(path, b"seven b", None)
    return {path: 7}


def test_a_file_that_is_newer_than_the_listing_is_there_and_a_lost_one_is_lost(tmp_path: Path) -> None:
    store = Listed(tmp_path)
    first = put(store, "2024-01-01")
    assert presence.lost_files(store, "2024-01-01", first) == []
    second = put(store, "2024-01-02")
    assert presence.lost_files(store, "2024-01-02", second) == []
    assert store.listings == 1
    lost = {f"{FOLDER}/2024-01-03/data.parquet": 7}
    assert presence.lost_files(store, "2024-01-03", lost) == [*lost]


def test_answers_leave_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(key: str) -> str:
        asked.append(key)
        return key.upper()

    answers, now = presence._Answers(ask), utc_now()
    monkeypatch.setattr(presence, "utc_now", lambda: now)
    assert answers.get("a", timedelta(minutes=1)) == (now, "A")
    assert answers.get("a", timedelta(minutes=1)) == (now, "A")
    later = now + timedelta(minutes=6)
    monkeypatch.setattr(presence, "utc_now", lambda: later)
    assert answers.get("b", timedelta(minutes=1)) == (later, "B")
    assert asked == ["a", "b"]
    assert answers._seen.keys() == answers._asking.keys() == {"b"}
