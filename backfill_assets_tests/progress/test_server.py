"""Before the server listens: who could reach it, and the message when it cannot start."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from backfill_assets.failures import SettingsError
from backfill_assets.progress.server import serve


def never() -> Any:
    pytest.fail("the code location is not to be loaded for a server that cannot start")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("BACKFILL_ENV", "BACKFILL_API_TOKEN", "DAGSTER_HOME", "DAGSTER_POSTGRES_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "backfill.example"])
def test_without_a_token_nothing_but_loopback_is_bound(host: str) -> None:
    with pytest.raises(SettingsError, match=r"serve\.token is empty: set BACKFILL_API_TOKEN"):
        serve(never, host=host, port=0)


def test_with_a_token_other_addresses_are_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_API_TOKEN", "s3cret")
    # The start goes as far as Dagster's home, which is not set here.
    with pytest.raises(SettingsError, match="DAGSTER_HOME is not set"):
        serve(never, host="0.0.0.0", port=0)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_token_of_blanks_alone_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_API_TOKEN", " \n")
    with pytest.raises(SettingsError, match=r"serve\.token has only blanks: set BACKFILL_API_TOKEN"):
        serve(never, host=host, port=0)


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port} cannot be used .* choose another"):
            serve(never, port=port)


def test_dagsters_home_must_be_set_since_jobs_would_be_forgotten() -> None:
    with pytest.raises(SettingsError, match="DAGSTER_HOME is not set: set it to the folder"):
        serve(never, port=0)
