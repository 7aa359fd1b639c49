"""A published day of a user's lake is served again: its tables end the same, the lake does not change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from backfill_assets.failures import BadInput
from backfill_assets.instruments.rows import instrument_rows
from backfill_assets.lake.listing import read_instruments
from backfill_assets.rehearsal import replay as replay_module
from backfill_assets.rehearsal.encode import encode
from backfill_assets.rehearsal.limits import load_limits
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.replay import take_out
from backfill_assets.rehearsal.replayed import ReplayedExchange, ReplayedSource
from backfill_assets.rehearsal.scenarios import SCENARIOS, rehearse
from backfill_assets.settings import DEFAULT_LIMITS
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.tardis.metadata import ExchangeDetails, Instrument, InstrumentList
from backfill_assets_tests.pipeline.conftest import Pipeline
from backfill_assets_tests.times import takes_minutes

DAY, DAYS = "2024-01-03", ("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04")
UNIVERSE = [
    {
        "exchanges": ["binance", "kraken"],
        "symbols": ["BTC-USDT", "ADA-USDT"],
        "data_types": ["trades", "quotes"],
    },
    {
        "exchanges": ["binance-futures"],
        "symbols": ["BTC-USDT-PERP"],
        "data_types": ["trades", "derivative_ticker"],
    },
]
OUTAGE = {
    "from": "2024-01-03T11:00:00.000Z",
    "to": "2024-01-03T11:20:00.000Z",
    "status": "resolved",
    "details": "d",
}


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Pipeline:
    """An environment of a user who has published four days, with rules of their own and a baseline."""
    folder = tmp_path_factory.mktemp("own")
    file = folder / "own.yaml"
    markets = [(e, s) for e in ("binance", "kraken") for s in ("BTC-USDT", "ADA-USDT")]
    rows = dict.fromkeys([*markets, ("binance-futures", "BTC-USDT")], 2_000)
    with TardisStandin(Market(rows=rows)) as vendor:
        vendor.faults.incidents["kraken"] = [OUTAGE]
        content = {
            "tardis": {
                "datasets_endpoint": f"{vendor.url}/v1/datasets",
                "api_endpoint": f"{vendor.url}/v1",
                "api_key": vendor.api_key,
            },
            "universe": UNIVERSE,
            "lake": {"uri": str(folder / "lake")},
            "warehouse": {"kind": "duckdb", "folder": str(folder / "warehouse")},
            "candles": {"timeframes": ["1m", "1h"]},
        }
        file.write_text(yaml.safe_dump(content))
        pipeline = Pipeline(file, vendor)
        for day in DAYS:
            assert pipeline.run(day).success
    return pipeline


def bytes_and_times(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file): (file.read_bytes() if file.is_file() else b"", file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
    }


@pytest.mark.story
@takes_minutes
@pytest.mark.timeout(1200)
def test_a_published_day_ends_in_its_tables_under_faults_and_the_lake_is_as_it_was(own, tmp_path) -> None:
    before = bytes_and_times(own.folder)
    names = ["normal", "killed", "poisoned", "network", "restated", "disk-full", "service", "database-away"]
    names += ["wrong-answers", "upgrade"]
    command = [sys.executable, "-m", "backfill_assets.cli", "rehearse", "--replay", DAY]
    command += ["--report-dir", str(tmp_path)] + [word for name in names for word in ("--scenario", name)]
    done = subprocess.run(
        command,
        env={**os.environ, "BACKFILL_ENV": str(own.file)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert bytes_and_times(own.folder) == before
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "rehearsal.json").read_text())
    assert (content["day"], content["mode"]) == (DAY, f"quick, replay of {DAY}")
    # The day has five feeds of trades.
    *played, wrong_answers, upgrade = content["results"]
    for result in played:
        if any(o["kept"] is None for o in result["outcomes"] if o["promise"] == "recovered"):
            assert result["scenario"] in ("disk-full", "database-away")
            continue
        [*_, published] = [o for o in result["outcomes"] if "as they were published" in o["expected"]]
        assert (published["kept"], published["seen"]) == (True, "7 tables, all alike")
    assert wrong_answers["promises"]["recovered"] == "not judged"
    assert {o["kept"] for o in wrong_answers["outcomes"] if o["promise"] == "contained"} == {None}
    assert {o["kept"] for o in upgrade["outcomes"]} == {None}


def shorter(source: Path, target: Path, data_type: str, *, generated: bool) -> None:
    """A file that lacks its last row."""
    table = pq.read_table(source)
    kept = target.with_suffix(".parquet")
    pq.write_table(table.slice(0, max(0, table.num_rows - 1)), kept)
    encode(kept, target, data_type, generated=generated)


def other_sides(source: Path, target: Path, data_type: str, *, generated: bool) -> None:
    """A file with the same control totals and other rows."""
    table = pq.read_table(source)
    if data_type == "trades":
        column = table.schema.get_field_index("side")
        turned = pc.if_else(pc.equal(table["side"].cast("string"), "buy"), "sell", "buy")
        table = table.set_column(column, "side", turned)
    kept = target.with_suffix(".parquet")
    pq.write_table(table, kept)
    encode(kept, target, data_type, generated=generated)


@pytest.mark.story
@takes_minutes
@pytest.mark.timeout(600)
@pytest.mark.parametrize("broken", [shorter, other_sides])
def test_rows_that_are_not_those_of_the_lake_break_the_promise(broken, own, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(replay_module, "encode", broken)
    limits = load_limits(DEFAULT_LIMITS, SCENARIOS)
    found = rehearse(
        DAY, [SCENARIOS["normal"]], is_full=False, logs=tmp_path, limits=limits, replayed=own.settings
    )
    unmet = [outcome for outcome in found.broken() if outcome.promise is Promise.RECOVERED]
    assert any("as they were published" in outcome.expected for outcome in unmet)


def test_every_fault_that_one_day_can_have_is_played_on_a_published_day() -> None:
    refused = {scenario.name for scenario in SCENARIOS.values() if scenario.why_no_replay}
    assert refused == {
        *("poisoned-metadata", "warehouse", "clock", "upgrade", "soak", "high-load", "low-memory"),
    }


def test_a_day_that_is_not_published_is_refused_in_one_line(own, tmp_path) -> None:
    with pytest.raises(BadInput, match="2024-01-09 cannot be replayed, since it is not published: choose a"):
        take_out(own.settings, "2024-01-09", tmp_path)


def test_the_command_refuses_such_a_day_with_exit_code_2(own, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backfill_assets.cli", "rehearse", "--replay", "2024-01-09"],
        env={**os.environ, "BACKFILL_ENV": str(own.file)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: 2024-01-09 cannot be replayed")
    assert not list(tmp_path.iterdir())


# --- the vendor's answers ----------------------------------------------------------------------------------

CHANGING = {
    "id": "XBTUSD", "datasetId": "XBTUSD", "exchange": "bitmex",
    "baseCurrency": "XBT", "quoteCurrency": "USD", "type": "perpetual",
    "availableSince": "2019-03-30T00:00:00.000Z", "priceIncrement": 0.1,
    "amountIncrement": 100, "makerFee": -0.0001, "takerFee": 0.0005, "inverse": True, "contractMultiplier": 1,
    "listing": "2016-05-04T12:00:00.000Z", "contractType": "inverse_perpetual",
    "changes": [
        {"until": "2024-01-03T10:00:00.000Z", "priceIncrement": 0.5, "contractMultiplier": 10},
        {"until": "2024-01-03T18:00:00.000Z", "contractMultiplier": 5, "inverse": False},
        {"until": "2023-01-01T00:00:00.000Z", "priceIncrement": 1, "takerFee": 0.00075},
    ],
}  # fmt: skip
ENDED = {
    "id": "XBTF24", "datasetId": "XBTF24", "exchange": "bitmex",
    "baseCurrency": "XBT", "quoteCurrency": "USD", "type": "future",
    "availableSince": "2023-03-30T00:00:00.000Z", "availableTo": "2024-01-03T12:00:00.000Z",
    "expiry": "2024-01-03T12:00:00.000Z", "priceIncrement": 0.5, "strikePrice": None,
}  # fmt: skip


def again(rows: list[dict[str, object]], exchange: str) -> InstrumentList:
    """The instruments that the replayed vendor lists for these rows."""
    source = ReplayedSource({exchange: ReplayedExchange(tuple(rows), True, (), ())}, {}, DAY)
    answers = source.instruments(exchange) or []
    json.dumps(answers)
    return InstrumentList(
        source="instruments", instruments=tuple(Instrument.model_validate(answer) for answer in answers)
    )


def test_instruments_that_change_within_the_day_become_the_same_rows_again() -> None:
    told = InstrumentList(
        source="instruments", instruments=tuple(map(Instrument.model_validate, (CHANGING, ENDED)))
    )
    rows = instrument_rows("bitmex", DAY, told, {"XBTUSD"})
    assert rows["price_increment_end"].to_pylist() == [None, 0.1]
    assert rows["contract_changes"].to_pylist()[1] is not None
    assert instrument_rows("bitmex", DAY, again(rows.to_pylist(), "bitmex"), {"XBTUSD"}) == rows


def test_every_instrument_of_a_lake_becomes_the_same_row_again(own) -> None:
    for exchange in ("binance", "kraken", "binance-futures"):
        rows = read_instruments(own.store, exchange, DAY)
        expected = {row["dataset_symbol"] for row in rows.to_pylist() if row["expected"]}
        assert rows.num_rows > len(expected) > 0
        assert instrument_rows(exchange, DAY, again(rows.to_pylist(), exchange), expected) == rows


def test_outages_and_the_export_are_told_again(own, tmp_path) -> None:
    replay = take_out(own.settings, DAY, tmp_path)
    assert replay.beside == ("2024-01-01", "2024-01-02", "2024-01-04")
    with TardisStandin(replay.source) as standin:
        told = ExchangeDetails.model_validate(standin.exchange_details("binance"))
        assert told.datasets.exported_until == datetime(2024, 1, 5, tzinfo=UTC)
        standin.faults.exported_until["binance"] = DAY
        told = ExchangeDetails.model_validate(standin.exchange_details("binance"))
        assert told.datasets.exported_until == datetime(2024, 1, 3, tzinfo=UTC)
        [outage] = ExchangeDetails.model_validate(standin.exchange_details("kraken")).incident_reports
        assert (outage.start.minute, outage.end.minute, outage.details) == (0, 20, "d")
