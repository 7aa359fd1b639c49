"""``dg launch`` as CI calls it, from any folder: the exit code tells the day's result, without a warning.

``dagster asset materialize``, which it supersedes, is called for a good day.
"""

from __future__ import annotations

import shlex

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.quality.remedies import RUN_DAY
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault

SUPERSEDED = "dagster asset materialize -m backfill_assets.definitions --select '*' --partition {day}"
REMEDY = (
    "environment variable BACKFILL_STANDIN_URL is not set: the local environment reads the Tardis stand-in; "
    "run your command as 'backfill-assets standins -- COMMAND'"
)
LOST = (
    *(f"binance/trades/{symbol}" for symbol in ("ADAUSDT", "BTCUSDT", "ETHUSDT")),
    *(f"coinbase/trades/{symbol}" for symbol in ("ADA-USDT", "BTC-USDT")),
)


@pytest.fixture
def materialize(desk, dagster_home):
    """Runs the day of the local environment, whose data is in the desk's folder."""
    desk.set(DAGSTER_HOME=str(dagster_home), BACKFILL_DATA=str(desk.folder / "data"))

    def run(day: str = "2024-01-01", words: str = RUN_DAY, **variables: str):
        desk.set(**variables)
        program, *arguments = shlex.split(words.format(day=day))
        return desk.run(*arguments, program=program)

    return run


def published(desk) -> list[str]:
    folder = desk.folder / "data" / "warehouse"
    return sorted(file.parent.name for file in folder.glob("*/2024-01-01.parquet"))


def test_a_good_day_exits_0_and_is_published_without_a_warning(materialize, desk, standin):
    answer = materialize(BACKFILL_STANDIN_URL=standin.url)
    assert answer.code == 0, answer.err[-3000:]
    assert "RUN_SUCCESS" in answer.out + answer.err
    assert "Warning" not in answer.out + answer.err
    assert published(desk) == ["candles", "coverage", "instruments", "quality", "trades"]
    superseded = materialize(words=SUPERSEDED)
    assert superseded.code == 0, superseded.err[-3000:]
    assert "RUN_SUCCESS" in superseded.out + superseded.err
    # Dagster's own warning is the reason why we do not recommend it.
    assert "SupersessionWarning" in superseded.err


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
    assert "BACKFILL_ENV=nonsense: unknown environment; choose from local, production, staging, tardis" in (
        answer.out + answer.err
    )
    assert desk.left == []
