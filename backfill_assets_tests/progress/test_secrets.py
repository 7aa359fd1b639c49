"""No answer and no log of a service contains a secret, during any failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.progress.rig import OURS, REPOSITORY, Rig, running_rig
from backfill_assets_tests.progress.test_guard import PATHS, ask

#: A part of every secret.
PLANTED = "planted"
KEY = f"TD.{PLANTED}-key-0123456789abcdefghij"
URL = f"postgresql://somebody:{PLANTED}-password@127.0.0.1:9/candles"
BODY = {"start": "2024-01-01", "end": "2024-01-01"}
ASKED = [
    *(("GET", path) for path in PATHS),
    ("GET", "/api/v1/days?from=2024-01-01&to=2024-01-02"),
    ("GET", "/api/v1/plan?start=2024-01-01&end=2024-01-02"),
    ("GET", "/page/plan?start=2024-01-01&end=2024-01-02"),
    ("GET", "/page/calendar"),
    ("GET", "/days/2024-01-01/report"),
    ("POST", "/api/v1/backfill"),
    ("POST", "/page/start"),
]


def settings(home: Path, *lines: str, lake: str = "") -> str:
    """A working settings file with secrets; ``lines`` are added to its section ``tardis``."""
    return "\n".join(
        [
            "universe: [{exchanges: [kraken], symbols: [BTC-USDT]}]",
            f"lake: {{uri: {lake or home / 'lake'}}}",
            f"warehouse: {{kind: duckdb, folder: {home / 'warehouse'}}}",
            f"ohlcv: {{url: '{URL}'}}",
            "tardis:",
            "  datasets_endpoint: http://127.0.0.1:9/v1",
            "  api_endpoint: http://127.0.0.1:9/v1",
            *(lines or (f"  api_key: {KEY}",)),
            "",
        ]
    )


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("secrets")
    file = home / "settings.yaml"
    file.write_text(settings(home))
    with (
        TardisStandin(Market(rows={})) as standin,
        running_rig(home, standin, options=("--with-ui",), daemon=(), BACKFILL_ENV=str(file)) as found,
    ):
        yield found


def told(rig: Rig) -> str:
    """All current answers, and the whole log."""
    answers = [
        ask(rig, method, path, {"HX-Request": "true"}, BODY if method == "POST" else None)
        for method, path in ASKED
    ]
    log = (rig.home / "service.log").read_text()
    return "\n".join([*(f"{answer.headers}{answer.text}" for answer in answers), log])


@pytest.mark.parametrize(
    "line",
    [
        f"  api_key {KEY}",
        f"  api_key:{KEY}",
        f"  api_key = {KEY}",
        f"  - api_key: {KEY}",
        f"   api_key: {KEY}",
        f"  api_key: [{KEY}",
        f"  api_key: *{KEY}",
        f"  api_key: !{KEY}",
        f"  api_key: @{KEY}",
        f"  api_key: {KEY}: x",
        f"  api_key: [{KEY}]",
        f"  apikey: {KEY}",
        f"  {KEY}: 1",
        f"  concurrency: {KEY}",
        f"  api_key: {KEY}\n  concurrency: 2024-13-45",
        f"  api_key: {KEY}\ncandles: {{timeframes: {URL}}}",
        f"  api_key: {KEY}\nserve: {{token:{KEY}}}",
        f"  api_key: {KEY}\nserve: token {KEY}",
        f"  api_key: {KEY}\nohlcv: {URL}",
        f"  api_key: {KEY}\n{KEY}",
    ],
)
def test_a_slip_in_the_settings_of_a_running_service_shows_no_secret(line: str, rig: Rig) -> None:
    file = rig.home / "settings.yaml"
    working = settings(rig.home)
    file.write_text(settings(rig.home, line))
    # The service would miss a change within one step of the clock.
    os.utime(file, ns=(0, hash(line) & 2**60 - 1))
    try:
        text = told(rig)
    finally:
        file.write_text(working)
    assert "settings.yaml" in text, "the slip was told"
    assert PLANTED not in text


def test_a_lake_that_fails_shows_no_secret(rig: Rig) -> None:
    file = rig.home / "settings.yaml"
    file.write_text(settings(rig.home, lake="/dev/null/lake"))
    try:
        text = told(rig)
    finally:
        file.write_text(settings(rig.home))
    assert PLANTED not in text


@pytest.mark.parametrize(
    "address",
    [
        URL,
        URL.replace(":9/", ":port/"),
        URL.replace("127.0.0.1", "no such host"),
        URL.replace("postgresql", "mysql"),
        URL.replace("://", ":"),
        f"somebody:{PLANTED}@127.0.0.1/x",
        f"host=127.0.0.1 port=9 user=somebody password={PLANTED}",
    ],
)
def test_a_wrong_database_is_told_without_its_password(address: str, tmp_path: Path) -> None:
    """The database of Dagster's records, which keeps the service from starting, and that of the candles."""
    (tmp_path / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    file = tmp_path / "settings.yaml"
    file.write_text(settings(tmp_path).replace(URL, address))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment |= {
        "DAGSTER_HOME": str(tmp_path),
        "DAGSTER_POSTGRES_URL": address,
        "BACKFILL_ENV": str(file),
    }
    done = subprocess.run(
        [sys.executable, "-m", "backfill_assets.cli", "doctor"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert "FAIL  OHLCV table: " in told
    assert "FAIL  Dagster storage: " in told
    assert PLANTED not in told
