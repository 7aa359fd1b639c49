"""The web UI and the daemon as real processes: a backfill launched by the UI's request publishes its days."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from selenium.common.exceptions import ElementClickInterceptedException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from backfill_assets.definitions import defs
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.emulators.browser import Browser, chromium, installed

pytestmark = [pytest.mark.story, pytest.mark.timeout(400)]

REPOSITORY = Path(__file__).parents[2]
ARTEFACTS = REPOSITORY / "test-artefacts" / "dagster"
DG = Path(sysconfig.get_path("scripts")) / "dg"
START_SECONDS = 120
#: It takes 90 with two processors to itself, half of that waiting for the daemon, which looks twice a minute.
BACKFILL_SECONDS = 300
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]
RANGE_DAYS = ["2024-01-06", "2024-01-07"]
TABLES = ("candles", "coverage", "instruments", "quality", "trades")
OURS = ("BACKFILL_", "DAGSTER_", "TARDIS_", "GOOGLE_", "STORAGE_EMULATOR_HOST")

#: The request that the UI sends when a range is picked in the dialog "Materialize".
LAUNCH_BACKFILL = """
mutation LaunchPartitionBackfill($backfillParams: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfillParams) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
LAUNCH_RUN = """
mutation LaunchRun($executionParams: ExecutionParams!) {
  launchPipelineExecution(executionParams: $executionParams) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
SCHEDULES = """
query Schedules($selector: RepositorySelector!) {
  schedulesOrError(repositorySelector: $selector) {
    __typename
    ... on Schedules { results { name scheduleState { status } } }
    ... on PythonError { message }
  }
}
"""
LOCATIONS = """
{
  workspaceOrError {
    ... on Workspace {
      locationEntries { name loadStatus locationOrLoadError { __typename ... on PythonError { message } } }
    }
  }
}
"""
BACKFILLS = """
{ partitionBackfillsOrError { ... on PartitionBackfills { results { id title status numPartitions } } } }
"""


@dataclass
class Services:
    """A running ``dg dev``: where it listens, where its records are, and where its days are stored."""

    url: str
    home: Path
    data: Path
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                content = json.load(answer)
        except urllib.error.HTTPError as error:
            pytest.fail(f"{error}: {error.read().decode()[:500]}; {self.log.read_text()[-3000:]}")
        assert "errors" not in content, content
        return content["data"]

    def location(self) -> dict[str, Any]:
        [location] = self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"] or [{"loadStatus": "LOADING"}]
        return dict(location)

    @property
    def selector(self) -> dict[str, str]:
        return {"repositoryName": "__repository__", "repositoryLocationName": self.location()["name"]}

    def location_is_loaded(self) -> bool:
        location = self.location()
        if location["loadStatus"] != "LOADED":
            return False
        assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation", location
        return True

    def backfills(self) -> dict[str, dict[str, Any]]:
        results = self.ask(BACKFILLS)["partitionBackfillsOrError"]["results"]
        return {found["id"]: found for found in results}

    def wait_for_backfill(self, backfill_id: str) -> dict[str, Any]:
        return self.wait(
            lambda: (
                found
                if (found := self.backfills()[backfill_id])["status"].startswith(
                    ("COMPLETED", "FAIL", "CANC")
                )
                else None
            ),
            BACKFILL_SECONDS,
        )

    def wait(self, look: Callable[[], Any], seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            if found := look():
                return found
            time.sleep(0.5)
        pytest.fail(f"not within {seconds} s: {self.log.read_text()[-5000:]}")

    def records(self, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
        """Dagster's own records, opened by this process as well."""
        monkeypatch.setenv("DAGSTER_HOME", str(self.home))
        monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
        return dg.DagsterInstance.get()

    def published(self) -> set[tuple[str, str]]:
        files = (self.data / "warehouse").glob("*/20*.parquet")
        return {(file.parent.name, file.stem) for file in files}

    def processes(self) -> list[psutil.Process]:
        """Every process in the session in which the services were started."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """``dg dev`` in the repository, as ``make ui`` starts it, on its own home and data."""
    folder = tmp_path_factory.mktemp("services")
    home, data, log = folder / "home", folder / "data", folder / "log"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    symbols = ("BTC-USDT", "ETH-USDT", "ADA-USDT")
    rows = {(exchange, symbol): 3_000 for exchange in ("binance", "coinbase", "kraken") for symbol in symbols}
    port = free_port()
    with (
        TardisStandin(Market(rows=rows), clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as standin,
        log.open("wb") as output,
    ):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        environment |= {
            "DAGSTER_HOME": str(home),
            "BACKFILL_DATA": str(data),
            "BACKFILL_STANDIN_URL": standin.url,
        }
        process = subprocess.Popen(
            [str(DG), "dev", "-m", "backfill_assets.definitions", "-h", "127.0.0.1", "-p", str(port)],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        running = Services(f"http://127.0.0.1:{port}", home, data, process, log)
        try:
            running.wait(lambda: _answers(running.url), START_SECONDS)
            running.wait(running.location_is_loaded, START_SECONDS)
            yield running
        finally:
            for left in running.processes():
                left.kill()
            process.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(scope="module")
def launched(services: Services) -> tuple[str, str]:
    """Both backfills at once, of the UI and of the job, because the daemon looks only twice a minute."""
    answer = services.ask(
        LAUNCH_BACKFILL,
        backfillParams={
            "partitionNames": DAYS,
            "assetSelection": [
                {"path": list(key.path)}
                for key in sorted(defs.resolve_asset_graph().materializable_asset_keys)
            ],
            "tags": [],
        },
    )["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    of_ui = answer["backfillId"]
    answer = services.ask(
        LAUNCH_RUN,
        executionParams={
            "selector": {**services.selector, "pipelineName": "range"},
            "runConfigData": {
                "ops": {"request_days": {"config": {"start": RANGE_DAYS[0], "end": RANGE_DAYS[-1]}}}
            },
            "mode": "default",
        },
    )["launchPipelineExecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    [of_job] = services.wait(lambda: set(services.backfills()) - {of_ui}, START_SECONDS)
    return of_ui, of_job


def test_the_page_is_there_and_listens_on_loopback_only(services: Services) -> None:
    with urllib.request.urlopen(services.url, timeout=60) as page:
        assert page.status == 200
        assert "text/html" in page.headers["Content-Type"]
    listening = {
        connection.laddr.ip
        for process in services.processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::1"}


def test_the_code_location_is_loaded_with_both_schedules_on(services: Services) -> None:
    found = services.ask(SCHEDULES, selector=services.selector)["schedulesOrError"]
    assert found["__typename"] == "Schedules", found
    assert {schedule["name"]: schedule["scheduleState"]["status"] for schedule in found["results"]} == {
        "daily_0900_utc": "RUNNING",
        "ask_again_for_exports": "RUNNING",
        "heal_missing_ids": "RUNNING",
    }


def test_a_backfill_launched_as_the_ui_does_it_publishes_every_day(
    services: Services, launched: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backfill_id, _ = launched
    graph = defs.resolve_asset_graph()
    assert services.wait_for_backfill(backfill_id)["status"] == "COMPLETED_SUCCESS"
    assert services.published() >= {(table, day) for table in TABLES for day in DAYS}

    with services.records(monkeypatch) as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
        assert sorted(run.tags["dagster/partition"] for run in runs) == DAYS, "one run per day"
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        keys = sorted(graph.asset_check_keys)
        results = instance.event_log_storage.get_asset_check_partition_info(keys, partition_keys=DAYS)
    assert len(keys) == 24
    assert {(result.check_key, result.partition_key) for result in results} == {
        (key, day) for key in keys for day in DAYS
    }
    assert {result.latest_execution_status.value for result in results} == {"SUCCEEDED"}


def test_the_range_job_ends_in_one_backfill_with_a_run_per_day(
    services: Services, launched: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, backfill_id = launched
    found = services.wait_for_backfill(backfill_id)
    assert (found["status"], found["title"]) == ("COMPLETED_SUCCESS", "2024-01-06 to 2024-01-07")
    assert services.published() >= {(table, day) for table in TABLES for day in RANGE_DAYS}
    with services.records(monkeypatch) as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
    assert sorted(run.tags["dagster/partition"] for run in runs) == RANGE_DAYS


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def with_text(services: Services, browser: Browser, text: str, within: str = "") -> Any:
    """The element with this text, once the page shows it."""
    path = f"{within}//*[normalize-space(text())='{text}']"
    return services.wait(lambda: browser.driver.find_elements(By.XPATH, path), START_SECONDS)[0]


def choose_days(services: Services, browser: Browser, days: str) -> None:
    """Type the days into the dialog's field, and leave the field."""
    [field] = services.wait(
        lambda: browser.driver.find_elements(By.CSS_SELECTOR, "[role=dialog] input[type=text]"), START_SECONDS
    )
    field.click()
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(days, Keys.TAB)


@pytest.mark.skipif(installed() is None, reason="needs Chromium and its driver")
def test_a_range_is_launched_with_the_mouse_as_the_page_walks_through_it(
    services: Services, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dialog begins with the last 90 days; until a click it offers no day of January 2024."""
    before, dialog = set(services.backfills()), "//*[@role='dialog']"
    page = (REPOSITORY / "docs" / "start.md").read_text(encoding="utf-8")
    for words in ("Lineage", "Materialize all…", "Show all partitions", "[2024-01-01...2024-01-31]"):
        assert words in page
    browser.open(services.url)
    with_text(services, browser, "Lineage").click()
    with_text(services, browser, "Materialize all…").click()
    choose_days(services, browser, "[2024-01-01...2024-01-31]")
    with_text(services, browser, "Could not find partitions for provided range: 2024-01-01...2024-01-31")
    with_text(services, browser, "OK").click()
    show_all = with_text(services, browser, "Show all partitions", dialog)
    services.wait(lambda: _clicked(show_all), START_SECONDS)
    choose_days(services, browser, "[2024-01-01...2024-01-31]")
    with_text(services, browser, "31 partitions", dialog)
    shown = browser.driver.find_element(By.CSS_SELECTOR, "[role=dialog]")
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    shown.screenshot(str(ARTEFACTS / "dagster-dialog.png"))
    choose_days(services, browser, f"[{RANGE_DAYS[0]}...{RANGE_DAYS[-1]}]")
    with_text(services, browser, "2 partitions", dialog)
    with_text(services, browser, "Launch backfill", dialog).click()
    [launched] = services.wait(lambda: set(services.backfills()) - before, START_SECONDS)
    assert services.backfills()[launched]["numPartitions"] == len(RANGE_DAYS)
    assert services.wait_for_backfill(launched)["status"] == "COMPLETED_SUCCESS"
    # The test before may have finished them: then a run of such a day has little to do.
    assert services.published() >= {(table, day) for table in TABLES for day in RANGE_DAYS}
    with services.records(monkeypatch) as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": launched}))
    assert sorted(run.tags["dagster/partition"] for run in runs) == RANGE_DAYS
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}


def _clicked(element: Any) -> bool:
    """Whether nothing covered the element any more; a box that fades away covers it for a moment."""
    try:
        element.click()
    except ElementClickInterceptedException:
        return False
    return True


def test_terminating_the_process_group_leaves_no_process(services: Services) -> None:
    assert len(services.processes()) >= 3, "the web server, the daemon and the code server"
    os.killpg(services.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while services.processes() and time.monotonic() < deadline:
        services.process.poll()
        time.sleep(0.2)
    assert services.processes() == []
