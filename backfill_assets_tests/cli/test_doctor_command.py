"""``backfill-assets doctor`` reports everything that works, and a remedy for everything that does not."""

from __future__ import annotations

import gzip
import shlex
import subprocess

import pytest
from click.testing import CliRunner

from backfill_assets.cli import main
from backfill_assets.lake.store import open_store
from backfill_assets.settings import LakeSettings, own_files_endpoint
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.tardis.leases import SQLITE_FILE
from backfill_assets_tests.emulators.candle_sources import KEY, PAGE, CandleSources
from backfill_assets_tests.emulators.gcs import binary, gcs_server


@pytest.fixture
def doctor(desk, settings_file, standin, dagster_home):
    """Run the doctor on a settings file with these changes; returns (exit code, findings by name)."""

    def ask(url: str = standin.url, **changes):
        variables = {"BACKFILL_ENV": str(settings_file(url, **changes)), "DAGSTER_HOME": str(dagster_home)}
        unset = {"BACKFILL_STANDIN_URL": None, "DAGSTER_POSTGRES_URL": None, "TARDIS_API_KEY": None}
        result = CliRunner(env={**unset, **variables, **desk.environment}).invoke(main, ["doctor"])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        findings = {}
        for line in result.stdout.splitlines():
            what, _, text = line[6:].partition(": ")
            findings[what] = (line[:4], text)
        ill = sum(mark == "FAIL" for mark, _ in findings.values())
        assert result.exit_code == (1 if ill else 0)
        plural = "s" if ill > 1 else ""
        assert result.stderr == (f"Error: {ill} thing{plural} to mend\n" if ill else "")
        return findings

    return ask


def ill(findings) -> dict[str, str]:
    return {what: text for what, (mark, text) in findings.items() if mark == "FAIL"}


def test_behind_stand_ins_everything_is_well(desk, dagster_home):
    desk.set(DAGSTER_HOME=str(dagster_home))
    answer = desk.run("standins", "--", *desk.command("doctor"))
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("ok    settings", "ok    Tardis key", "ok    Tardis binance", "ok    Tardis coinbase"),
        *("ok    Tardis kraken", "ok    lake", "ok    documents", "ok    warehouse", "ok    alerts"),
        "ok    Dagster storage",
    ]
    assert lines[-1] == "ok    Dagster storage: 0 runs in SQLite"


def test_the_lake_is_left_as_it_was(doctor, desk):
    assert ill(doctor()) == {}
    assert list(open_store(LakeSettings(uri=str(desk.folder / "lake"))).list("")) == []


def test_the_ohlcv_table_is_tried_where_one_is_wanted(doctor, desk):
    file = desk.folder / "candles.db"
    findings = doctor(ohlcv={"url": f"sqlite:///{file}"})
    assert findings["OHLCV table"] == ("ok  ", f"ohlcv in {file} can be written")
    mark, text = doctor(ohlcv={"url": "postgresql://u:secret@127.0.0.1:1/x"})["OHLCV table"]
    assert mark == "FAIL"
    assert "secret" not in text
    assert "OHLCV table" not in doctor()


def test_without_a_key_it_says_what_that_means(doctor):
    mark, text = doctor()["Tardis key"]
    assert (mark, text) == (
        "ok  ",
        "none; only the first day of each month is served: set TARDIS_API_KEY for others",
    )


def test_own_files_need_no_key(doctor, desk, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (files / "kraken_trades_2025-11-10_XBT-USDT.csv.gz").write_bytes(gzip.compress(b""))
    with TardisStandin(datasets_dir=files) as served:
        desk.set(BACKFILL_DATASETS_URL=served.url)
        endpoint = own_files_endpoint("backfill-assets standins --datasets FOLDER")
        findings = doctor(endpoint, universe=[{"exchanges": ["kraken"], "symbols": ["BTC-USDT"]}])
    assert ill(findings) == {}
    assert findings["Tardis key"][1] == "not needed: own files are read"
    said = "instruments/kraken.json is not beside the files: price steps and contract sizes are unknown"
    assert findings["Tardis kraken"][1].endswith(said)


def test_a_tardis_that_cannot_be_reached(doctor, closed_port):
    found = ill(doctor(f"http://127.0.0.1:{closed_port}"))
    assert set(found) == {"Tardis binance"}
    assert f"cannot reach http://127.0.0.1:{closed_port}/v1/exchanges/binance" in found["Tardis binance"]
    assert found["Tardis binance"].endswith(
        "check the network and tardis.api_endpoint in the settings, then try again"
    )


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://zoe:s3cr3t-word@127.0.0.1:{port}/v1", "cannot reach http://***@127.0.0.1:{port}/v1/"),
        (
            "http://zoe:s3/cr3t-word@127.0.0.1:{port}/v1",
            "tardis.api_endpoint is not an http:// or https:// URL",
        ),
        (
            "http://zoe:s3 cr3t-word@127.0.0.1:{port}/v1",
            "tardis.api_endpoint is not an http:// or https:// URL",
        ),
        ("zoe:s3cr3t-word@127.0.0.1:{port}/v1", "tardis.api_endpoint is not an http:// or https:// URL"),
        (
            "http://127.0.0.1:{port}/v1?key=s3cr3t-word",
            "tardis.api_endpoint is not an http:// or https:// URL",
        ),
        (
            "http://zoe:s3cr3t-word@127.0.0.1:99999/v1",
            "tardis.api_endpoint is not an http:// or https:// URL",
        ),
    ],
)
def test_what_is_secret_in_an_endpoint_is_not_shown(doctor, closed_port, endpoint, said):
    [text] = ill(doctor(tardis={"api_endpoint": endpoint.format(port=closed_port)})).values()
    assert said.format(port=closed_port) in text
    assert not {word for word in ("zoe", "s3", "cr3t") if word in text}


def test_an_exchange_that_tardis_does_not_have(doctor):
    universe = [{"exchanges": ["binance", "binanse"], "symbols": ["BTC-USDT"]}]
    found = ill(doctor(universe=universe))
    assert set(found) == {"Tardis binanse"}
    assert "correct universe.exchanges in the settings" in found["Tardis binanse"]


@pytest.mark.parametrize(
    ("symbol", "hint"),
    [("BTCUSDT", "did you mean BTC-USDT?"), ("BTC-USDX", "did you mean BTC-USD"), ("QQQ-XXX", "for example")],
)
def test_a_symbol_that_the_exchange_never_had_is_refused_with_the_nearest(doctor, symbol, hint):
    found = ill(doctor(universe=[{"exchanges": ["binance"], "symbols": ["ETH-USDT", symbol]}]))
    assert set(found) == {"Tardis binance"}
    assert found["Tardis binance"].startswith(f"unknown symbol '{symbol}' on binance: ")
    assert hint in found["Tardis binance"]


def test_a_folder_of_reference_candles_without_any_is_told(doctor, tmp_path):
    found = ill(doctor(comparison={"reference": str(tmp_path / "nowhere")}))
    assert found == {
        "reference candles": f"comparison.reference: there is no folder {tmp_path / 'nowhere'}: "
        "correct the path, or remove the key"
    }
    folder = tmp_path / "BTC-USDT"
    folder.mkdir()
    (folder / "2024-01-01.csv").write_text("open_time,open,high,low,close,volume\n")
    assert (
        "holds no EXCHANGE/SYMBOL/DAY.csv"
        in ill(doctor(comparison={"reference": str(tmp_path)}))["reference candles"]
    )
    (tmp_path / "all" / "binance").mkdir(parents=True)
    folder.rename(tmp_path / "all" / "binance" / "BTC-USDT")
    assert ill(doctor(comparison={"reference": str(tmp_path / "all")})) == {}


def test_sources_of_candles_are_asked_for_the_markets_of_the_universe(doctor):
    universe = [{"exchanges": ["binance", "coinbase"], "symbols": ["BTC-USDT", "ETH-USDT"]}]
    truth = {"binance": {"BTC-USDT": []}, "coinbaseexchange": {"BTC-USDT": [], "ETH-USDT": []}}
    with CandleSources(truth={**truth, "massive": {}}) as sources:
        ccxt = {"kind": "ccxt", "endpoint": sources.url}
        found = doctor(universe=universe, comparison={"sources": [ccxt]})
        assert found["reference candles of ccxt"] == (
            "ok  ",
            "3 of 4 markets; not compared: binance lists no spot market ETH/USDT any more, or never did",
        )
        sources.truth["kraken"] = {"BTC-USDT": []}
        wide = [{"exchanges": ["kraken"], "symbols": ["BTC-USDT"]}]
        assert doctor(universe=wide, comparison={"sources": [ccxt]})["reference candles of ccxt"] == (
            "ok  ",
            "1 of 1 market; compared in part: kraken has the newest 720 minutes only, and a day has 1,440: "
            "check agreement warns each day, unless the exchanges of ccxt in comparison.sources leave it out",
        )
        massive = {"kind": "massive", "endpoint": sources.url, "api_key": "a-mistyped-key"}
        found = ill(doctor(universe=universe, comparison={"sources": [massive]}))
        assert set(found) == {"reference candles of massive"}
        assert "refuses the key" in found["reference candles of massive"]
        found = ill(doctor(universe=universe, comparison={"sources": [{**massive, "api_key": KEY}]}))
        assert "massive has none of 4 markets of the universe" in found["reference candles of massive"]
        sources.faults["."] = PAGE
        found = ill(doctor(universe=universe, comparison={"sources": [ccxt]}))
        assert "binance was asked for its list of markets" in found["reference candles of ccxt"]
        assert "not JSON" in found["reference candles of ccxt"]


def test_bad_settings_are_the_only_finding(doctor):
    findings = doctor(lake={"uri": "x", "bucket": "y"})
    assert list(findings) == ["settings"]
    assert "lake.bucket: unknown key; remove it or correct its spelling" in ill(findings)["settings"]


def test_a_lake_and_a_warehouse_that_cannot_be_written(doctor, tmp_path):
    (tmp_path / "file").write_text("in the way")
    found = ill(
        doctor(
            lake={"uri": str(tmp_path / "file" / "lake")},
            warehouse={"kind": "duckdb", "folder": str(tmp_path / "file" / "warehouse")},
        )
    )
    assert set(found) == {"lake", "warehouse"}
    assert found["lake"].endswith(
        "a file is where a folder should be; remove it or set lake.uri to another folder"
    )
    assert found["warehouse"].endswith("free space there or correct its permissions")


def test_a_variable_that_is_not_set_is_named(doctor, monkeypatch):
    monkeypatch.delenv("BACKFILL_BUCKET", raising=False)
    found = ill(doctor(lake={"uri": "gs://${BACKFILL_BUCKET}/lake"}))
    assert found == {
        "lake": "environment variable BACKFILL_BUCKET is not set: set BACKFILL_BUCKET in the environment"
    }


def test_a_bigquery_that_cannot_be_reached(doctor, closed_port):
    warehouse = {
        "kind": "bigquery",
        "project": "p",
        "dataset": "d",
        "endpoint": f"http://127.0.0.1:{closed_port}",
        "job_timeout_seconds": 5,
    }
    found = ill(doctor(warehouse=warehouse))
    assert set(found) == {"warehouse"}
    assert "BigQuery does not answer" in found["warehouse"]
    assert "run again when it can be reached" in found["warehouse"]


@pytest.mark.skipif(binary() is None, reason="fake-gcs-server has no binary for this machine")
def test_a_bucket_that_is_not_there_and_one_that_is(doctor, desk):
    with gcs_server("there") as url:
        desk.set(STORAGE_EMULATOR_HOST=url)
        found = ill(doctor(lake={"uri": "gs://not-there/lake"}))
        assert found == {"lake": "gs://not-there: there is no such bucket: create it or correct lake.uri"}
        assert ill(doctor(lake={"uri": "gs://there/lake"})) == {}


def test_a_dagster_home_that_cannot_be_used(doctor, dagster_home):
    (dagster_home / "dagster.yaml").unlink()
    (dagster_home / "dagster.yaml").write_text("storage: [")
    found = ill(doctor())
    assert set(found) == {"Dagster storage"}
    assert "correct DAGSTER_HOME or DAGSTER_POSTGRES_URL" in found["Dagster storage"]


@pytest.mark.parametrize("content", [None, "", "telemetry: {enabled: false}\n"], ids=["none", "empty", "own"])
def test_a_dagster_home_without_the_projects_settings_is_mended_by_the_command_shown(
    doctor, dagster_home, content
):
    file = dagster_home / "dagster.yaml"
    file.unlink()
    if content is not None:
        file.write_text(content)
    [text] = ill(doctor()).values()
    said, _, command = text.rpartition(": link dagster.yaml into it: ")
    assert said.startswith(f"{dagster_home} has no dagster.yaml" if content is None else f"{file} has no ")
    # The doctor's request to the vendor counts in the limit of requests, like any other.
    left = [path.name for path in dagster_home.iterdir() if path.name != SQLITE_FILE]
    assert left == ([] if content is None else ["dagster.yaml"])
    subprocess.run(shlex.split(command), check=True)
    assert ill(doctor()) == {}


def test_a_copy_of_the_projects_settings_with_changes_is_well(doctor, dagster_home):
    file = dagster_home / "dagster.yaml"
    own = file.read_text().replace("max_concurrent_runs: 5", "max_concurrent_runs: 8")
    file.unlink()
    file.write_text(own)
    assert ill(doctor()) == {}


def test_without_a_dagster_home_it_names_the_commands_that_need_one(doctor, desk):
    desk.set(DAGSTER_HOME="")
    [text] = ill(doctor()).values()
    assert "serve, backfill, status, recent, cancel and retry refuse to work" in text
    assert text.endswith('export DAGSTER_HOME="$PWD/.home"')


def test_a_dagster_database_that_cannot_be_reached_is_told_without_its_password(doctor, desk, closed_port):
    desk.set(DAGSTER_POSTGRES_URL=f"postgresql://me:hunter2@127.0.0.1:{closed_port}/dagster")
    found = ill(doctor())
    assert set(found) == {"Dagster storage"}
    assert "hunter2" not in found["Dagster storage"]
    assert str(closed_port) in found["Dagster storage"]
