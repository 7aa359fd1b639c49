"""Every setting has an effect: turned alone, with all others unchanged, it changes something outside.

``TURNS`` has, by key, the turn of the setting and the aspect in which the difference must show. A key without
a turn fails, and so does a turn without a difference. Looks are at files, tables, requests at a server
and messages, never at a setting.
"""

from __future__ import annotations

import copy
import http.server
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import dagster as dg
import polars as pl
import pytest
import sqlalchemy as sa
import yaml
from click.testing import CliRunner
from dagster._core.execution.backfill import BulkActionStatus
from starlette.testclient import TestClient

from backfill_assets.automation.history import MeasuredRun
from backfill_assets.automation.schedules import daily_0900_utc, heal_missing_ids
from backfill_assets.cli import main
from backfill_assets.definitions import defs
from backfill_assets.failures import BackfillError
from backfill_assets.feeds import Feed
from backfill_assets.heal.healing import heal
from backfill_assets.heal.sources import Budget
from backfill_assets.instruments.recording import record_day
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.resource import LakeResource
from backfill_assets.lake.store import open_store
from backfill_assets.progress import watch
from backfill_assets.progress.api import create_app
from backfill_assets.progress.facts import Records, RunFact, RunLog
from backfill_assets.progress.model import BackfillRequest
from backfill_assets.progress.plan import make_plan
from backfill_assets.progress.plan_text import plan_text
from backfill_assets.progress.request import backfill_request
from backfill_assets.progress.server import serve
from backfill_assets.progress.service import Backfills
from backfill_assets.quality.scores import DayScores, judge_day, overall
from backfill_assets.quality.settled import load_settled
from backfill_assets.quality.verdict import judge_feed, missing_verdict
from backfill_assets.rehearsal.limits import judged, limits_of_settings
from backfill_assets.rehearsal.model import Measurement
from backfill_assets.rehearsal.scenarios import SCENARIOS
from backfill_assets.rule_set import RULES_VERSION
from backfill_assets.settings import Settings, SettingsFile, load_settings
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.tardis import client as client_module
from backfill_assets.tardis.client import TardisClient
from backfill_assets.tardis.pacing import Pace
from backfill_assets.warehouse.catalog import CANDLES
from backfill_assets.warehouse.protocol import open_warehouse
from backfill_assets.warehouse.resource import WarehouseResource
from backfill_assets_tests.alerts.listener import listening
from backfill_assets_tests.heal.healed_lake import BINANCE, HealedLake, without_ids
from backfill_assets_tests.heal.healed_lake import DAY as HEALED_DAY
from backfill_assets_tests.pipeline.conftest import Pipeline
from backfill_assets_tests.quality.quality_samples import DAY as SAMPLE_DAY
from backfill_assets_tests.quality.quality_samples import FEED, JOINED, profile
from backfill_assets_tests.setting_keys import fields
from backfill_assets_tests.tardis.test_time_outs import full_backlog

DAY, NOW = "2024-01-02", datetime(2024, 1, 9, 9, tzinfo=UTC)
BTC, BTC_USD = Feed("binance", "trades", "BTCUSDT"), Feed("coinbase", "trades", "BTC-USDT")
#: The bench fills in words in braces.
BASE: Final[dict[str, Any]] = {
    "name": "base",
    "tardis": {
        "datasets_endpoint": "{vendor}/v1/datasets",
        "api_endpoint": "{vendor}/v1",
        "api_key": "standin-key",
        "retry_budget_seconds": 0,
    },
    "universe": [{"exchanges": ["binance", "coinbase"], "symbols": ["BTC-USDT"]}],
    "lake": {"uri": "{folder}/lake"},
    "warehouse": {"kind": "duckdb", "folder": "{folder}/warehouse"},
}
BIGQUERY: Final = {
    "warehouse": {"kind": "bigquery", "project": "p", "dataset": "d", "endpoint": "{bigquery}"}
}


@dataclass
class Bench:
    """One settings file in its own folder, and the servers that it may name."""

    file: Path
    vendor: TardisStandin
    requests: list[tuple[str, str, str]]
    prepared: Path
    patch: pytest.MonkeyPatch

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def settings(self) -> Settings:
        return load_settings(self.file)

    def run(self, select: list[str] | None = None, *, anew: bool = False) -> dg.ExecuteInProcessResult:
        """Run the day, or these assets, over a lake that has it already, or from an empty one."""
        if not anew:
            shutil.copytree(self.prepared / "lake", self.folder / "lake")
        return Pipeline(self.file, self.vendor).run(DAY, select)


#: The findings of a look, each aspect under its own name.
Look = Callable[[Bench], Mapping[str, object]]


@dataclass(frozen=True)
class Turn:
    """The turn of a setting, its look, and the aspect in which the difference must be."""

    to: Mapping[str, object]
    base: Mapping[str, object]
    look: Look
    aspect: str


TURNS: dict[str, Turn] = {}


def turns(
    key: str,
    to: object,
    aspect: str,
    *,
    beside: Mapping[str, object] | None = None,
    base: Mapping[str, object] | None = None,
) -> Callable[[Look], Look]:
    """Register a look for a key.

    The settings are ``BASE`` with ``base``; ``beside`` has other keys that are turned together with the key,
    because it needs them.
    """

    def register(look: Look) -> Look:
        assert key not in TURNS
        TURNS[key] = Turn({key: to, **(beside or {})}, base or {}, look, aspect)
        return look

    return register


# --- the source --------------------------------------------------------------------------------------------


@turns("name", "another", "message")
def look_at_the_demo(bench: Bench) -> dict[str, object]:
    variables = {"BACKFILL_ENV": str(bench.file), "BACKFILL_STANDIN_URL": "http://127.0.0.1:9"}
    return {"message": CliRunner().invoke(main, ["demo"], env=variables).stderr}


@turns("tardis.datasets_endpoint", "{vendor}/v1/other", "paths")
@turns("tardis.api_key", "nobodys-key", "results")
@turns("tardis.concurrency", 1, "at once")
@turns("tardis.requests_per_minute", 1, "has waited")
@turns("tardis.timeout_seconds", 0.1, "results")
def look_at_a_fetch(bench: Bench) -> dict[str, object]:
    waits: list[float] = []

    class Impatient(Pace):
        def reserve(self) -> float:
            waits.append(super().reserve())
            return 0

    paces: dict[int, Pace] = {}
    bench.patch.setattr(client_module, "shared_pace", lambda n, _: paces.setdefault(n, Impatient(n)))
    feeds = [BTC, BTC_USD]
    for feed in feeds:
        bench.vendor.faults.put_dataset(feed, DAY, Fault(delay_seconds=0.5))
    try:
        found = list(TardisClient(bench.settings.tardis).fetch(feeds, DAY, bench.folder / "downloads"))
        results = sorted(type(result).__name__ for _, result in found)
    except BackfillError as failure:
        results = [type(failure).__name__]
    return {
        "paths": sorted(request.path for request in bench.vendor.requests),
        "results": results,
        "at once": bench.vendor.most_at_once,
        "has waited": any(wait > 30 for wait in waits),
    }


@turns("tardis.connect_timeout_seconds", 0.3, "reason", base={"tardis.timeout_seconds": 2})
def look_at_a_server_that_accepts_nobody(bench: Bench) -> dict[str, object]:
    with full_backlog() as url:
        settings = bench.settings.tardis.model_copy(update={"datasets_endpoint": url})
        [(_, result)] = TardisClient(settings).fetch([BTC], DAY, bench.folder / "downloads")
    return {"reason": re.sub(r"http\S+", "", str(result))}


@turns("tardis.read_timeout_seconds", 0.2, "result")
def look_at_a_silent_fetch(bench: Bench) -> dict[str, object]:
    bench.vendor.faults.put_dataset(BTC, DAY, Fault(delay_seconds=1))
    [(_, result)] = TardisClient(bench.settings.tardis).fetch([BTC], DAY, bench.folder / "downloads")
    return {"result": type(result).__name__}


@turns("tardis.retry_budget_seconds", 30, "result")
def look_at_a_failing_fetch(bench: Bench) -> dict[str, object]:
    bench.vendor.faults.put_dataset(BTC, DAY, Fault(refusals=(faults.server_error(),)))
    [(_, result)] = TardisClient(bench.settings.tardis).fetch([BTC], DAY, bench.folder / "downloads")
    return {"result": type(result).__name__}


@turns("tardis.api_endpoint", "{vendor}/v1/other", "paths")
@turns("universe[].exchanges", ["coinbase"], "feeds")
@turns("universe[].symbols", ["ADA-USDT"], "feeds")
@turns("universe[].data_types", ["trades", "quotes"], "feeds")
@turns("universe[].instrument_types", ["perpetual"], "feeds")
@turns("lake.uri", "{folder}/elsewhere", "files")
def look_at_a_recorded_day(bench: Bench) -> dict[str, object]:
    settings = bench.settings
    client = TardisClient(settings.tardis)
    try:
        found = record_day(open_store(settings.lake), client, DAY, settings.universe)
        feeds: object = [expected.feed for expected in found.record.expected]
    except BackfillError as failure:
        feeds = str(failure).replace(bench.vendor.url, "")
    return {
        "paths": sorted({request.path for request in bench.vendor.requests}),
        "feeds": feeds,
        "files": sorted({path.relative_to(bench.folder).parts[0] for path in bench.folder.rglob("*.json")}),
    }


@contextmanager
def schedule_context(bench: Bench) -> Iterator[dg.ScheduleEvaluationContext]:
    quiet: Any = {"telemetry": {"enabled": False}}
    with (
        dg.DagsterInstance.local_temp(str(bench.prepared / "home"), overrides=quiet) as instance,
        dg.build_schedule_context(
            instance=instance,
            repository_def=defs.get_repository_def(),
            scheduled_execution_time=NOW,
            resources={"lake": LakeResource(environment=str(bench.file))},
        ) as context,
    ):
        yield context


HEALED: Final = {"heal.exchange_endpoint": "{vendor}/one", "heal.archive_endpoint": "{vendor}/two"}


@turns("heal.exchange_endpoint", "{vendor}/other", "exchange", base=HEALED)
@turns("heal.archive_endpoint", "{vendor}/other", "archive", base=HEALED)
@turns("heal.requests", 1, "requests", base=HEALED)
@turns("heal.timeout_seconds", 0.2, "in time", base=HEALED)
def look_at_a_heal(bench: Bench) -> dict[str, object]:
    lake = HealedLake.of(bench.folder / "healed", without_ids(700), feed=BINANCE)
    bench.vendor.faults.put("/one/binance/api/v3/exchangeInfo", Fault(delay_seconds=1))
    settings = lake.days.settings.model_copy(update={"heal": bench.settings.heal})
    budget = Budget(settings.heal.requests)
    [problem] = heal(lake.store, settings, HEALED_DAY, str(BINANCE), budget).problems
    paths = [request.path for request in bench.vendor.requests]
    return {
        "exchange": [path.split("/")[1] for path in paths if path.endswith("exchangeInfo")],
        "archive": [path.split("/")[1] for path in paths if path.endswith("CHECKSUM")],
        "requests": budget.used,
        "in time": "timed out" not in problem,
    }


@turns("heal.daily", True, "said")
def look_at_a_tick_that_heals(bench: Bench) -> dict[str, object]:
    with schedule_context(bench) as context:
        return {"said": heal_missing_ids.evaluate_tick(context).skip_message}


# --- the warehouse -----------------------------------------------------------------------------------------


@turns("warehouse.kind", "bigquery", "link", beside=BIGQUERY)
def look_at_a_link(bench: Bench) -> dict[str, object]:
    link = WarehouseResource(environment=str(bench.file)).link("trades")
    return {"link": str(link.value).replace(str(bench.folder), "")}


@turns("warehouse.project", "other", "path", base=BIGQUERY)
@turns("warehouse.dataset", "other", "table", base=BIGQUERY)
@turns("warehouse.location", "EU", "location", base=BIGQUERY)
@turns("warehouse.endpoint", "{bigquery2}", "servers", base=BIGQUERY)
@turns("warehouse.job_timeout_seconds", 60, "timeout", base=BIGQUERY)
def look_at_the_requests_of_a_load(bench: Bench) -> dict[str, object]:
    warehouse = open_warehouse(bench.settings.warehouse)
    with suppress(BackfillError):
        warehouse.replace_partition(CANDLES, DAY, [], 1)
    warehouse.close()
    servers, paths, bodies = zip(*bench.requests, strict=True)
    [load] = [body for body in bodies if '"load"' in body]
    return {
        "servers": servers,
        "path": re.sub(r"\?.*", "", paths[0]),
        "table": re.findall(r'"datasetId": ?"(\w+)"', load),
        "location": re.findall(r'"location": ?"(\w+)"', load),
        "timeout": re.findall(r'"jobTimeoutMs": ?"?(\d+)', load),
    }


@turns("warehouse.load_jobs_per_table_and_day", 7, "plan", base=BIGQUERY)
def look_at_a_plan(bench: Bench) -> dict[str, object]:
    arguments = ["plan", "--start", DAY, "--end", DAY]
    return {"plan": CliRunner().invoke(main, arguments, env={"BACKFILL_ENV": str(bench.file)}).stdout}


PRICED: Final = {"prices": {"date": "2026-11-30", "download_per_gb": 1000}}


@turns("prices.date", "2026-12-31", "money", base=PRICED)
@turns("prices.currency", "EUR", "money", base=PRICED)
@turns("prices.download_per_gb", 2000, "money", base=PRICED)
@turns("prices.load_per_tb", 1_000_000, "money", base=PRICED)
@turns("prices.storage_per_gb_month", 1000, "money", base=PRICED)
@turns("prices.machine_per_hour", 1000, "money", base=PRICED)
def look_at_the_money_of_a_plan(bench: Bench) -> dict[str, object]:
    shutil.copytree(bench.prepared / "lake", bench.folder / "lake")
    found = load_settled(open_store(bench.settings.lake), DAY)
    assert found is not None
    fetched = next(feed.accepted.fetched_at for feed in found.feeds if feed.accepted)
    hour = timedelta(hours=1)
    plan = make_plan(
        open_store(bench.settings.lake),
        bench.settings,
        BackfillRequest.model_validate({"start": DAY, "end": DAY, "refresh": True}),
        runs=[MeasuredRun(DAY, fetched - hour, fetched + hour)],
    )
    return {"money": plan_text(plan).split("money")[1].splitlines()[0]}


@turns("rehearsal.limits", "{folder}/limits.yaml", "said")
def look_at_what_a_rehearsal_says_of_its_limits(bench: Bench) -> dict[str, object]:
    (bench.folder / "limits.yaml").write_text("quick: {every: {seconds: 5}}")
    limits = limits_of_settings(SCENARIOS, str(bench.file)).of("normal", "quick")
    outcomes = judged("normal", Measurement(seconds=6, requests=1, rows=1), limits)
    return {"said": [outcome.line for outcome in outcomes if outcome.kept is False]}


# --- runs --------------------------------------------------------------------------------------------------


@turns("lake.scratch", "{folder}/scratch", "folders")
@turns("warehouse.folder", "{folder}/tables", "folders")
@turns("candles.timeframes", ["1m", "2h"], "timeframes")
@turns("thresholds.rules", "{folder}/rules.yaml", "warnings")
@turns("thresholds.id_laws", "{folder}/laws.yaml", "laws of ids")
@turns("comparison.reference", "{folder}/reference", "reference")
def look_at_a_run(bench: Bench) -> dict[str, object]:
    rules = {"version": RULES_VERSION, "rows": {"one_sided_share": 0.51, "one_sided_rows": 1}}
    (bench.folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    law = {"exchange": "binance", "data_type": "trades", "law": "monotone", "support": "a", "source": "b"}
    (bench.folder / "laws.yaml").write_text(yaml.safe_dump({"version": 1, "laws": [law]}))
    reference = bench.folder / "reference" / "binance" / "BTC-USDT" / f"{DAY}.csv"
    reference.parent.mkdir(parents=True)
    reference.write_text(f"open_time,open,high,low,close,volume\n{DAY} 00:00:00,1,1,1,1,1\n")
    result = bench.run()
    [quality] = bench.folder.rglob(f"quality/{DAY}.parquet")
    [candles] = bench.folder.rglob(f"candles/{DAY}.parquet")
    [compared] = [c for c in result.get_asset_check_evaluations() if c.check_name == "agreement"]
    return {
        "folders": sorted(path.name for path in bench.folder.iterdir() if path.is_dir()),
        "timeframes": sorted(pl.read_parquet(candles)["timeframe"].unique()),
        "warnings": pl.read_parquet(quality)["warnings"].to_list(),
        "laws of ids": pl.read_parquet(quality)["id_law"].to_list(),
        "reference": compared.passed,
    }


SOURCES: Final = {
    "comparison": {"sources": [{"kind": "ccxt", "endpoint": "{candles}", "exchanges": ["binance"]}]},
}
MASSIVE: Final = {
    "comparison": {
        "sources": [
            {
                "kind": "massive",
                "endpoint": "{candles}",
                "exchanges": ["coinbase"],
                "api_key": "its-key-of-tests",
            }
        ]
    },
}
OWN_FILES: Final = {"comparison": {"sources": [{"kind": "directory", "folder": "{folder}/own"}]}}


@turns("comparison.sources[].kind", "massive", "requests", base=SOURCES)
@turns("comparison.sources[].exchanges", ["coinbase"], "requests", base=SOURCES)
@turns("comparison.sources[].endpoint", "{candles}/below", "requests", base=SOURCES)
@turns("comparison.sources[].api_key", "another-key-of-tests", "keys", base=MASSIVE)
@turns("comparison.sources[].folder", "{folder}/elsewhere", "said", base=OWN_FILES)
def look_at_sources_of_candles(bench: Bench) -> dict[str, object]:
    (bench.folder / "elsewhere").mkdir()
    [check] = bench.run(["reference"]).get_asset_check_evaluations()
    return {
        "requests": sorted({path.split("?")[0] for _, path, _ in bench.requests}),
        "keys": sorted({key for _, _, key in bench.requests}),
        "said": (check.description or "").replace(str(bench.folder), ""),
    }


OHLCV: Final = {"ohlcv.url": "sqlite:///{folder}/ohlcv.db"}


@turns("ohlcv.url", "sqlite:///{folder}/other.db", "files", base=OHLCV)
@turns("ohlcv.table", "prices", "tables", base=OHLCV)
@turns("ohlcv.batch_rows", 100, "batches", base=OHLCV)
@turns("ohlcv.timeframes", ["1h"], "timeframes", base=OHLCV)
def look_at_a_run_of_the_ohlcv_table(bench: Bench) -> dict[str, object]:
    batches = []

    def count(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement.startswith("INSERT INTO") and many:
            batches.append(len(parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        bench.run(["ohlcv"])
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)
    [database] = bench.folder.glob("*.db")
    engine = sa.create_engine(f"sqlite:///{database}")
    tables = sorted(sa.inspect(engine).get_table_names())
    [candles] = [name for name in tables if not name.endswith("_days")]
    with engine.connect() as connection:
        found = connection.execute(sa.text(f"SELECT DISTINCT timeframe FROM {candles}")).scalars().all()
    engine.dispose()
    return {
        "files": database.name,
        "tables": tables,
        "batches": max(batches) <= 100,
        "timeframes": sorted(found),
    }


@turns("decode_threads", 1, "several at once", base={"decode_threads": 4})
def look_at_a_run_that_decodes(bench: Bench) -> dict[str, object]:
    put, at_work, most = LocalStore.put_file, [0], [0]
    lock = threading.Lock()

    def slowly(store: LocalStore, source: Path, path: str) -> None:
        is_tick_file = path.startswith("ticks/")
        if is_tick_file:
            with lock:
                at_work[0] += 1
                most[0] = max(most[0], at_work[0])
            time.sleep(0.5)
        put(store, source, path)
        if is_tick_file:
            with lock:
                at_work[0] -= 1

    bench.patch.setattr(LocalStore, "put_file", slowly)
    bench.run(["instruments", "ticks"], anew=True)
    return {"several at once": most[0] > 1}


# --- scores ------------------------------------------------------------------------------------------------


@turns("thresholds.day_completeness", 1, "whole")
@turns("thresholds.day_quality", 1, "whole")
@turns("thresholds.day_consistency", 1, "whole")
@turns("thresholds.hold_below", 0.6, "half")
@turns("thresholds.strict", True, "half")
def look_at_judged_days(bench: Bench) -> dict[str, object]:
    thresholds = bench.settings.thresholds
    good = judge_feed(FEED, SAMPLE_DAY, "sha", profile(), JOINED, thresholds)
    lost = missing_verdict(FEED, SAMPLE_DAY, "no such file", JOINED, good.rules)
    return {
        "whole": judge_day([good], [True], thresholds, consistencies=[1.0]).state,
        "half": judge_day([good, lost], [True, False], thresholds, consistencies=[1.0, None]).state,
    }


def of_parts(**parts: float) -> DayScores:
    values = {"completeness": 1.0, "quality": 1.0, "consistency": 1.0, **parts}
    return DayScores(state="published", accepted_share=1.0, reasons=(), **values)


@turns("overall.ticks", 0.3, "of ticks", beside={"overall.candles": 0.4})
@turns("overall.candles", 0.2, "of candles", beside={"overall.ticks": 0.5})
@turns("overall.instruments", 0.1, "of instruments", beside={"overall.ticks": 0.5})
@turns("overall.warehouse", 0.2, "of the warehouse", beside={"overall.ticks": 0.3})
def look_at_days_with_one_bad_part(bench: Bench) -> dict[str, object]:
    weights = bench.settings.overall
    return {
        "of ticks": overall(of_parts(quality=0.5), 1, 1, weights).product,
        "of candles": overall(of_parts(consistency=0.5), 1, 1, weights).product,
        "of instruments": overall(of_parts(), 0.5, 1, weights).product,
        "of the warehouse": overall(of_parts(), 1, 0.5, weights).product,
    }


# --- schedules and the service -----------------------------------------------------------------------------


@turns("schedule.look_back_days", 2, "days")
def look_at_a_tick_of_the_schedule(bench: Bench) -> dict[str, object]:
    with schedule_context(bench) as context:
        requests = daily_0900_utc.evaluate_tick(context).run_requests or ()
    return {"days": [request.partition_key for request in requests]}


@turns("alerts.urls", "${{OTHER_URL}}", "told")
@turns("alerts.heartbeat_url", "${{OTHER_HEARTBEAT}}", "asked")
@turns("alerts.page_url", "https://pages.example", "link")
@turns("alerts.remind_hours", 48, "messages")
@turns("alerts.disk_free_percent", 99.9999, "rules")
def look_at_a_run_and_two_looks_for_incidents(bench: Bench) -> dict[str, object]:
    bench.run()
    moments = dict.fromkeys(("created", "updated", "started", "ended"), NOW)
    failed = RunFact(run_id="r", day=DAY, state="failed", will_retry=False, **moments)  # type: ignore[arg-type]
    with listening() as first, listening() as second:
        for variable, listener in (("SLACK_WEBHOOK_URL", first), ("OTHER_URL", second)):
            bench.patch.setenv(variable, listener.url)
        for variable, listener in (("BACKFILL_HEARTBEAT_URL", first), ("OTHER_HEARTBEAT", second)):
            bench.patch.setenv(variable, f"http://{listener.address}/beat")
        settings = bench.settings
        store = open_store(settings.lake)
        for hours in (10, 34):
            moment = datetime(2024, 1, 3, tzinfo=UTC) + timedelta(hours=hours)
            found = watch.look(
                store, settings, lambda now=moment: now, lambda: Records([(failed, RunLog())], [])
            )
        texts = "\n".join([*first.texts, *second.texts])
        return {
            "told": bool(first.texts),
            "asked": ("/beat", None) in first.got,
            "link": "https://" in texts,
            "messages": texts.count("run failed: "),
            "rules": sorted(incident.rule for incident in found.open),
        }


@turns("log.level", "error", "lines")
@turns("log.format", "json", "begins")
def look_at_what_a_warning_leaves(bench: Bench) -> dict[str, object]:
    bench.patch.setenv("BACKFILL_ENV", str(bench.file))
    (bench.folder / "lake").mkdir()
    (bench.folder / "lake" / "incidents.json").write_text("{")
    done = CliRunner().invoke(main, ["incidents"])
    return {"lines": len(done.stderr.splitlines()), "begins": done.stderr[:1]}


@turns("dagster_home", "{folder}/records", "code")
def look_at_records(bench: Bench) -> dict[str, object]:
    bench.patch.setenv("DAGSTER_HOME", "")
    done = CliRunner().invoke(main, ["recent"], env={"BACKFILL_ENV": str(bench.file)})
    return {"code": done.exit_code}


@turns("serve.host", "0.0.0.0", "message")
@turns("serve.port", "{taken}", "message", base={"serve.port": 0})
@turns("serve.token", "a-token", "message", base={"serve.host": "0.0.0.0"})
def look_at_the_start_of_the_server(bench: Bench) -> dict[str, object]:
    """It never starts without ``DAGSTER_HOME``, but reads the token and the port first."""
    bench.patch.setenv("BACKFILL_ENV", str(bench.file))
    with pytest.raises(BackfillError) as refused:
        serve(lambda: pytest.fail("it must not come so far"))
    return {"message": str(refused.value)}


@turns("serve.hosts", ["backfill.example"], "status", base={"serve.token": "a-token"})
def look_at_the_names_that_are_answered(bench: Bench) -> dict[str, object]:
    settings = bench.settings.serve
    app = create_app(cast("Any", None), token=settings.token, hosts=settings.hosts)
    client = TestClient(app, base_url="http://backfill.example")
    return {"status": client.get("/healthz").status_code}


@turns("serve.max_days", 1, "message")
@turns("serve.dagster_url", "http://dagster.example", "link")
@turns("serve.refresh_seconds", 0.01, "is seen", base={"serve.refresh_seconds": 60})
def look_at_the_service(bench: Bench) -> dict[str, object]:
    settings = bench.settings
    request = backfill_request({"start": "2024-01-02", "end": "2024-01-03"})
    message, link, is_seen = "", None, False
    with dg.DagsterInstance.ephemeral() as instance:
        service = Backfills(instance, defs.resolve_asset_graph, lambda: settings)
        try:
            job, _ = service.create(request, "somebody")
            link = (job.links.dagster or "").replace(job.job_id, "JOB")
            backfill = instance.get_backfills()[0]
            instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))
            time.sleep(0.05)
            is_seen = service.job(job.job_id).state != job.state
        except BackfillError as failure:
            message = str(failure)
        service.close()
    return {"message": message, "link": link, "is seen": is_seen}


# --- turning -----------------------------------------------------------------------------------------------


def put(content: dict[str, Any], key: str, value: object) -> None:
    """Set ``a.b`` or ``a[].b`` in the content of a settings file."""
    *sections, name = key.split(".")
    for section in sections:
        if section.endswith("[]"):
            [content] = content[section[:-2]]
        else:
            content = content.setdefault(section, {})
    content[name] = value


def filled(value: Any, words: Mapping[str, object]) -> Any:
    """The value with the words in braces filled in."""
    if isinstance(value, dict):
        return {name: filled(part, words) for name, part in value.items()}
    if isinstance(value, list):
        return [filled(part, words) for part in value]
    whole = re.fullmatch(r"\{(\w+)\}", value) if isinstance(value, str) else None
    if whole:
        return words[whole[1]]
    return value.format_map(words) if isinstance(value, str) else value


@dataclass
class Servers:
    """Servers that a settings file may name, which refuse every request, and a port that is taken."""

    requests: list[tuple[str, str, str]]
    words: dict[str, object]


def refusing(name: str, requests: list[tuple[str, str, str]]) -> type[http.server.BaseHTTPRequestHandler]:
    """Refuses every request permanently, and keeps it with its body, or with its key if it has no body."""

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.refuse(body.decode(errors="replace"))

        def do_GET(self) -> None:
            self.refuse(self.headers.get("Authorization") or "")

        def refuse(self, said: str) -> None:
            requests.append((name, self.path, said))
            answer = json.dumps({"error": {"code": 400, "message": "no", "errors": []}}).encode()
            self.send_response(400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    return Refuses


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    requests: list[tuple[str, str, str]] = []
    words: dict[str, object] = {}
    running = []
    for name in ("bigquery", "bigquery2", "candles"):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), refusing(name, requests))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        words[name] = f"http://127.0.0.1:{server.server_address[1]}"
        running.append(server)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words["taken"] = taken.getsockname()[1]
        yield Servers(requests, words)
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def market() -> Market:
    """A market of tiny days."""
    return Market(rows={(exchange, "BTC-USDT"): 200 for exchange in ("binance", "coinbase")})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """A folder with a lake that has the day, and a home for Dagster."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "home").mkdir()
    file = folder / "settings.yaml"
    with TardisStandin(market, clock=lambda: NOW) as vendor:
        file.write_text(yaml.safe_dump(filled(BASE, {"vendor": vendor.url, "folder": folder})))
        assert Pipeline(file, vendor).run(DAY).success
    return folder


@pytest.fixture(scope="module")
def seen() -> dict[str, Mapping[str, object]]:
    """Findings of looks before any turn."""
    return {}


@dataclass
class Observer:
    """Makes benches and runs looks on them."""

    folder: Path
    market: Market
    servers: Servers
    prepared: Path
    seen: dict[str, Mapping[str, object]]

    def content(self, *changes: Mapping[str, object]) -> dict[str, Any]:
        content = copy.deepcopy(BASE)
        for key, value in (item for change in changes for item in copy.deepcopy(change).items()):
            put(content, key, value)
        return content

    def observe(self, look: Look, content: dict[str, Any], name: str) -> Mapping[str, object]:
        """The findings of the look on a new bench with this settings file."""
        folder = self.folder / name
        folder.mkdir()
        self.servers.requests.clear()
        with TardisStandin(self.market, clock=lambda: NOW) as vendor, pytest.MonkeyPatch.context() as patch:
            for variable in ("BACKFILL_ENV", "BACKFILL_API_TOKEN", "DAGSTER_HOME", "DAGSTER_POSTGRES_URL"):
                patch.delenv(variable, raising=False)
            words = {**self.servers.words, "folder": folder, "vendor": vendor.url}
            file = folder / "settings.yaml"
            file.write_text(yaml.safe_dump(filled(content, words)))
            return look(Bench(file, vendor, self.servers.requests, self.prepared, patch))

    def before(self, turn: Turn) -> Mapping[str, object]:
        """The findings of the look without a turn: two equal results, or it sees noise; runs occur once."""
        content = self.content(turn.base)
        name = f"{turn.look.__name__}{json.dumps(content)}"
        if name not in self.seen:
            self.seen[name] = self.observe(turn.look, content, "base")
            if not name.startswith("look_at_a_run"):
                assert self.observe(turn.look, content, "again") == self.seen[name]
        return self.seen[name]


@pytest.fixture
def observer(
    tmp_path: Path, market: Market, servers: Servers, prepared: Path, seen: dict[str, Mapping[str, object]]
) -> Observer:
    return Observer(tmp_path, market, servers, prepared, seen)


def test_every_setting_is_turned_and_nothing_else_is() -> None:
    assert set(TURNS) == {key for key, _ in fields(SettingsFile)}


@pytest.mark.parametrize("key", TURNS)
def test_a_setting_that_is_turned_shows(key: str, observer: Observer) -> None:
    turn = TURNS[key]
    before = observer.before(turn)
    after = observer.observe(turn.look, observer.content(turn.base, turn.to), "turned")
    assert after[turn.aspect] != before[turn.aspect]


def test_a_turn_that_changes_nothing_is_found(observer: Observer) -> None:
    """Check the method: the same look sees no difference when another setting is turned."""
    turn = TURNS["overall.ticks"]
    other = observer.observe(turn.look, observer.content({"decode_threads": 3}), "turned")
    assert other[turn.aspect] == observer.before(turn)[turn.aspect]
