"""Dagster's instance as ``dagster.yaml`` sets it up, on SQLite and on a real Postgres server."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg2  # type: ignore[import-untyped]
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution import asset_backfill
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, ScheduleInstigatorData
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_postgres import PostgresRunStorage

from backfill_assets.automation.instance_storage import BACKFILLS_WAIT, InstanceStorage, postgres_url
from backfill_assets.automation.run_order import backfill_places, insist_on_limit
from backfill_assets.failures import BadInput, SettingsError
from backfill_assets.rehearsal.postgres import binaries, postgres_server

REPOSITORY = Path(__file__).parents[2]
DAY, BAD_DAY = "2024-01-01", "2024-01-02"

days = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-02-01")


@dg.asset(partitions_def=days)
def numbers() -> int:
    return 1


@dg.asset_check(asset=numbers, partitions_def=days)
def numbers_are_good(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=context.partition_key != BAD_DAY)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    if binaries() is None:
        pytest.skip("Postgres is not installed (initdb and postgres in PATH or /usr/lib/postgresql)")
    with postgres_server() as url:
        yield url


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh DAGSTER_HOME as ``make`` lays it out."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    return folder


@pytest.fixture(params=["sqlite", "postgres"])
def either(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same home, once on SQLite and once on Postgres."""
    if request.param == "postgres":
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", request.getfixturevalue("postgres"))
    return home


def test_without_an_address_the_records_are_sqlite_files_in_dagster_home(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_storage) is SqliteRunStorage
    assert (home / "history" / "runs.db").is_file()
    assert (home / "schedules" / "schedules.db").is_file()


def test_backfills_wait_while_the_daemon_has_no_code_unless_somebody_has_said_otherwise(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The scenario database-away shows that backfills wait; Dagster must still read the variable of this name.
    assert BACKFILLS_WAIT in Path(asset_backfill.__file__).read_text(encoding="utf-8")
    monkeypatch.delenv(BACKFILLS_WAIT, raising=False)
    with dg.DagsterInstance.get():
        assert os.environ[BACKFILLS_WAIT] == "1"
    monkeypatch.setenv(BACKFILLS_WAIT, "")
    with dg.DagsterInstance.get():
        assert os.environ[BACKFILLS_WAIT] == ""


def test_an_empty_address_means_sqlite_as_well(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "")
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_storage) is SqliteRunStorage


def test_without_dagster_home_the_records_go_to_the_folder_that_the_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    InstanceStorage.from_config_value(None, {"base_dir": ".home"})
    assert (tmp_path / ".home" / "history" / "runs.db").is_file()


def test_with_an_address_the_records_are_in_postgres_and_not_in_the_home(
    home: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres)
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_storage) is PostgresRunStorage
    assert not list(home.rglob("*.db"))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_every_usual_spelling_of_the_address_means_the_installed_driver(scheme: str) -> None:
    given = f"{scheme}://me:p%40ss@db.example:5433/dagster?sslmode=require"
    assert postgres_url(given) == "postgresql+psycopg2://me:p%40ss@db.example:5433/dagster?sslmode=require"


def test_a_unix_socket_in_the_query_is_a_fine_address() -> None:
    url = postgres_url("postgresql://me:pw@/dagster?host=/cloudsql/project:region:db")
    assert url == "postgresql+psycopg2://me:pw@/dagster?host=%2Fcloudsql%2Fproject%3Aregion%3Adb"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("mysql://me:hunter2@db/dagster", "starts with 'mysql://', which is not supported"),
        ("postgresql+psycopg://me:hunter2@db/dagster", "'postgresql+psycopg://', which is not supported"),
        ("me:hunter2@db/dagster", "cannot be read as a database address"),
        ("postgresql://me:hunter2@db:port/dagster", "cannot be read as a database address"),
        ("postgresql://me:hunter2@db:5432", "names no database"),
    ],
)
def test_any_other_address_is_refused_in_one_line_that_keeps_the_password(given: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as refused:
        postgres_url(given)
    message = str(refused.value)
    assert complaint in message
    assert "write postgresql://USER:PASSWORD@HOST:5432/DATABASE" in message
    assert "\n" not in message
    assert "hunter2" not in message


@pytest.mark.usefixtures("either")
def test_a_day_and_its_check_are_remembered_by_the_next_process() -> None:
    for day in (DAY, BAD_DAY):
        with dg.DagsterInstance.get() as instance:
            assert dg.materialize([numbers, numbers_are_good], partition_key=day, instance=instance).success

    with dg.DagsterInstance.get() as instance:
        key, check = dg.AssetKey("numbers"), dg.AssetCheckKey(dg.AssetKey("numbers"), "numbers_are_good")
        assert instance.get_materialized_partitions(key) == {DAY, BAD_DAY}
        runs = instance.get_run_records()
        assert [run.dagster_run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2
        assert all(instance.all_logs(run.dagster_run.run_id) for run in runs)
        states = instance.event_log_storage.get_asset_check_partition_info([check])
        assert {s.partition_key: s.latest_execution_status.value for s in states} == {
            DAY: "SUCCEEDED",
            BAD_DAY: "FAILED",
        }


@pytest.mark.usefixtures("either")
def test_a_schedule_that_was_started_is_still_started_for_the_next_process() -> None:
    location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="anything"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "repository"), "nine_o_clock")
    with dg.DagsterInstance.get() as instance:
        instance.add_instigator_state(
            InstigatorState(
                origin,
                InstigatorType.SCHEDULE,
                InstigatorStatus.RUNNING,
                ScheduleInstigatorData("0 9 * * *", time.time()),
            )
        )
    with dg.DagsterInstance.get() as instance:
        states = instance.all_instigator_state()
        assert [(s.instigator_name, s.status) for s in states] == [("nine_o_clock", InstigatorStatus.RUNNING)]


OPEN_WHEN_TOLD = """
import sys
import dagster as dg
import backfill_assets.automation.instance_storage
print("ready", flush=True)
sys.stdin.readline()
with dg.DagsterInstance.get() as instance:
    assert instance.get_runs_count() == 0
"""


def schema_heads(home: Path, postgres: str | None) -> list[list[str]]:
    """The alembic revisions per database; two revisions in one database make the next start fail."""
    query = "SELECT version_num FROM alembic_version"
    if postgres:
        connection = psycopg2.connect(postgres)
        with connection, connection.cursor() as cursor:
            cursor.execute(query)
            found = [[row[0] for row in cursor.fetchall()]]
        connection.close()
        return found
    heads = []
    for file in sorted(home.rglob("*.db")):
        database = sqlite3.connect(file)
        heads.append([row[0] for row in database.execute(query)])
        database.close()
    return heads


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_services_that_open_a_fresh_home_together_leave_one_schema_head(
    backend: str, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if backend == "postgres":
        if binaries() is None:
            pytest.skip("Postgres is not installed (initdb and postgres in PATH or /usr/lib/postgresql)")
        with postgres_server() as url:
            monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
            _open_together()
            assert [len(heads) for heads in schema_heads(home, url)] == [1]
    else:
        _open_together()
        assert [len(heads) for heads in schema_heads(home, None)] == [1, 1, 1]


def _open_together() -> None:
    services = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_WHEN_TOLD],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for service in services:
        assert service.stdout is not None
        assert service.stdout.readline() == "ready\n"
    for service in services:
        assert service.stdin is not None
        service.stdin.write("\n")
        service.stdin.flush()
    for service in services:
        _, errors = service.communicate(timeout=120)
        assert service.returncode == 0, errors
        # Dagster's own answer to the race is a few attempts within a second, too few on a loaded machine.
        assert "Retrying failed database creation" not in errors


def test_dagster_yaml_means_what_it_says(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        assert instance.telemetry_enabled is False
        assert instance.nux_enabled is False
        assert instance.run_retries_enabled is True
        assert instance.run_retries_max_retries == 2
        assert instance.run_retries_retry_on_asset_or_op_failure is False
        assert instance.run_monitoring_enabled is True
        assert instance.run_monitoring_max_runtime_seconds == 43_200
        concurrency = instance.get_concurrency_config()
        assert concurrency.run_queue_config is not None
        assert concurrency.run_queue_config.max_concurrent_runs == 5
        assert backfill_places(instance) == 4
        for number in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32):
            insist_on_limit(instance, number)
        with pytest.raises(BadInput, match=r"at once: 9: .* for 1, 2, 3, .* 16, 32: add .*/at_once_9"):
            insist_on_limit(instance, 9)
        assert concurrency.pool_config.default_pool_limit == 12
        assert concurrency.pool_config.pool_granularity is not None
        assert concurrency.pool_config.pool_granularity.value == "op"
        coordinator = instance.run_coordinator
        assert isinstance(coordinator, QueuedRunCoordinator)
        assert coordinator.dequeue_interval_seconds == 1
        assert coordinator.dequeue_use_threads is True
