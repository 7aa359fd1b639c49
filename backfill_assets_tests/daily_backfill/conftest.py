"""The day and the environment of the daily backfill's test, and the results of its run.

    pytest backfill_assets_tests/daily_backfill --test-date 2024-01-02 --test-env local --junitxml junit.xml

The environment is one of ``backfill-assets rehearse --env``, by its name or file: a day of a generated
market. Or it is the path of a settings file: the day is the one that its lake has published, served again
(``rehearsal.replay``); the test writes nothing there.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backfill_assets.days import shift, utc_now
from backfill_assets.feeds import Feed
from backfill_assets.lake.manifests import load_day_record
from backfill_assets.quality.baseline import add_days, series
from backfill_assets.quality.settled import Day, load_day
from backfill_assets.rehearsal.environment import FIRST_DAY, USUAL, Environment, environment_of
from backfill_assets.rehearsal.house import House, Run, rehearsal_market
from backfill_assets.rehearsal.replay import Replay, prepare, take_out
from backfill_assets.rehearsal.scenarios import insist_on_day
from backfill_assets.settings import BigQueryWarehouse, HistorySettings, load_settings
from backfill_assets.standins.bigquery import PROJECT, serve
from backfill_assets.standins.faults import Fault, server_error
from backfill_assets.yaml_files import read_mapping

LOCAL = "local"
#: The run asks again, and these faults are gone.
FAULTS = (
    Fault(cut_connection_at=5_000, cuts=1),
    Fault(refusals=(server_error(),)),
    Fault(cut_body_at=5_000, cuts=1),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("the daily backfill")
    group.addoption("--test-date", metavar="D", help="UTC day that is backfilled; default: yesterday")
    group.addoption(
        "--test-env",
        metavar="E",
        help=f"an environment of rehearse --env (default: {LOCAL}), or settings whose lake has the day",
    )


@dataclass(frozen=True)
class Backfilled:
    """A day that was run once, over faults that disappear."""

    day: str
    house: House
    environment: Environment
    replay: Replay | None
    run: Run
    #: The feeds that had a fault at first.
    faulty: list[Feed]

    @property
    def found(self) -> Day:
        """The settled day."""
        found = load_day(self.house.store, self.day)
        assert found is not None, self.run.text[-2_000:]
        return found


@pytest.fixture(scope="session")
def day(request: pytest.FixtureRequest) -> str:
    """The day that is backfilled."""
    return request.config.getoption("test_date", None) or shift(utc_now().date().isoformat(), -1)


@pytest.fixture(scope="session")
def settings(request: pytest.FixtureRequest) -> Path | None:
    """The settings file whose lake has the day; None for a generated market."""
    given = Path(request.config.getoption("test_env", None) or LOCAL)
    is_settings = given.is_file() and "universe" in read_mapping(given, "an environment or settings")
    return given if is_settings else None


@pytest.fixture(scope="session")
def environment(request: pytest.FixtureRequest, settings: Path | None) -> Environment:
    """The environment of a rehearsal."""
    if settings is not None:
        return USUAL
    given = request.config.getoption("test_env", None) or LOCAL
    found = environment_of(given)
    if found.is_real:
        pytest.fail(f"{given} names sources, into which no fault is injected: give a settings file instead")
    return found


@pytest.fixture(scope="session")
def replay(settings: Path | None, day: str, tmp_path_factory: pytest.TempPathFactory) -> Replay | None:
    """The published day; None for a generated market."""
    if settings is None:
        insist_on_day(day)
        return None
    found = take_out(load_settings(settings), day, tmp_path_factory.mktemp("own") / "replay")
    prepare(found)
    return found


@pytest.fixture(scope="session")
def backfilled(
    day: str, environment: Environment, replay: Replay | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backfilled]:
    """The day after its run; tests only read it."""
    with ExitStack() as stack:
        house = stack.enter_context(
            new_house(replay, environment, tmp_path_factory.mktemp("daily") / "house")
        )
        if replay is None:
            add_days(house.store, {}, history(house, day))
            house.run(shift(day, -1))
        faulty = house.feeds(day)[: len(FAULTS)]
        for feed, fault in zip(faulty, FAULTS, strict=False):
            house.standin.faults.put_dataset(feed, day, fault)
        run = house.run(day)
        yield Backfilled(day, house, environment, replay, run, faulty)


def new_house(replay: Replay | None, environment: Environment, folder: Path) -> House:
    """A new house for the day."""
    if replay is not None:
        return replay.house(folder)
    return House(folder, rehearsal_market(environment=environment), environment=environment)


def history(house: House, day: str) -> dict[str, dict[str, int]]:
    """Rows of the same weekday in the weeks before, by the files of the market, in the form of a baseline."""
    weeks = range(1, HistorySettings().least_days + 1)
    days = [earlier for n in weeks if (earlier := shift(day, -7 * n)) >= FIRST_DAY]
    return {
        earlier: {
            series(feed, [(feed.dataset_symbol, symbol)]): rows_of(house.file(feed, earlier))
            for entry in house.settings.universe
            for exchange in entry.exchanges
            for symbol in entry.symbols
            for feed in [house.feed(exchange, symbol, earlier)]
        }
        for earlier in days
    }


def rows_of(content: bytes) -> int:
    """Rows of a vendor's file."""
    return max(0, gzip.decompress(content).count(b"\n") - 1)


def rows_before(backfilled: Backfilled) -> dict[Feed, int]:
    """Rows of the accepted files of the day before."""
    before = load_day(backfilled.house.store, shift(backfilled.day, -1))
    return {f.feed: f.accepted.rows for f in before.feeds if f.accepted} if before else {}


def exchanges(backfilled: Backfilled) -> tuple[str, ...]:
    """Exchanges that the day asked for."""
    record = load_day_record(backfilled.house.store, backfilled.day)
    assert record is not None
    return record.exchanges


@pytest.fixture
def bigquery(tmp_path: Path) -> Iterator[tuple[BigQueryWarehouse, Any]]:
    """A BigQuery on loopback with a data set, and a client of its own."""
    pytest.importorskip("bqemulator", reason="bqemulator is not installed (a dependency of the tests)")
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery as library

    with serve(tmp_path / "gcs") as running:
        client = library.Client(
            project=PROJECT,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": running.url},
        )
        client.create_dataset("daily", timeout=60)
        settings = BigQueryWarehouse(kind="bigquery", project=PROJECT, dataset="daily", endpoint=running.url)
        yield settings, client
        client.close()
