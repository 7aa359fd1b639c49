"""``dagster asset materialize`` as CI calls it, from the repository: the exit code says how the day went."""

from __future__ import annotations

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault

REMEDY = (
    "environment variable BACKFILL_STANDIN_URL is not set: the local environment reads the Tardis stand-in; "
    "run your command as 'backfill-assets standins -- COMMAND'"
)
LOST = (
    *(f"binance/trades/{symbol}" for symbol in ("ADAUSDT", "BTCUSDT", "ETHUSDT")),
    *(f"coinbase/trades/{symbol}" for symbol in ("ADA-USDT", "BTC-USDT")),
)


@pytest.fixture
def materialize(desk, dagster_home, request):
    """Runs the day of the local environment, whose data lies on the desk."""
    repository = request.config.rootpath
    desk.set(DAGSTER_HOME=str(dagster_home), BACKFILL_DATA=str(desk.folder / "data"))

    def run(day: str = "2024-01-01", **variables: str):
        words = (
            "asset",
            "materialize",
            "-m",
            "backfill_assets.definitions",
            "--select",
            "*",
            "--partition",
            day,
        )
        desk.set(**variables)
        return desk.run(*words, cwd=repository, program="dagster")

    return run


def published(desk) -> list[str]:
    folder = desk.folder / "data" / "warehouse"
    return sorted(file.parent.name for file in folder.glob("*/2024-01-01.parquet"))


def test_a_good_day_exits_0_and_is_published(materialize, desk, standin):
    answer = materialize(BACKFILL_STANDIN_URL=standin.url)
    assert answer.code == 0, answer.err[-3000:]
    assert "RUN_SUCCESS" in answer.out + answer.err
    assert published(desk) == ["candles", "coverage", "instruments", "quality", "trades"]


def test_a_held_day_exits_1_and_only_its_quality_is_published(materialize, desk, standin):
    for feed in LOST:
        standin.faults.put_dataset(Feed.parse(feed), "2024-01-01", Fault(always=faults.not_found()))
    answer = materialize(BACKFILL_STANDIN_URL=standin.url)
    assert answer.code == 1
    assert "2024-01-01 is held, nothing is published" in answer.out + answer.err
    assert published(desk) == ["quality"]


def test_without_a_stand_in_it_exits_1_and_says_how_to_have_one(materialize, desk):
    answer = materialize()
    assert answer.code == 1
    assert f"SettingsError: {REMEDY}\n" in answer.out + answer.err
    assert desk.left == []


def test_a_paid_day_without_a_key_exits_1_and_says_what_to_set(materialize, standin, settings_file):
    answer = materialize("2024-01-02", BACKFILL_ENV=str(settings_file(standin.url)))
    assert answer.code == 1
    reason = (
        "Tardis refuses 2024-01-02 without an API key: set TARDIS_API_KEY "
        "(only the first day of each month is free)"
    )
    assert any(line.endswith(reason) for line in (answer.out + answer.err).splitlines())
    assert sum("/datasets/" in request.path for request in standin.requests) == 1


def test_an_unknown_environment_exits_1_and_names_the_known_ones(materialize, desk):
    answer = materialize(BACKFILL_ENV="nonsense")
    assert answer.code == 1
    assert "BACKFILL_ENV=nonsense: unknown environment; choose from local, production, staging" in (
        answer.out + answer.err
    )
    assert desk.left == []
