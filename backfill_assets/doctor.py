"""What a deployment needs, tried out one by one: settings, Tardis, lake, warehouse, databases.

Each trial uses the same clients as the pipeline. The lake is written to and cleaned up; in the warehouse the
quality table is made if it is not there, and so are the OHLCV tables where they are wanted, because nothing
less proves the permission.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from backfill_assets.days import shift, utc_now
from backfill_assets.failures import BackfillError, TransientFailure
from backfill_assets.lake.store import open_store
from backfill_assets.settings import (
    BigQueryWarehouse,
    DuckDBWarehouse,
    ProcessEnvironment,
    Settings,
    current_settings,
    resolve,
)
from backfill_assets.tardis.client import TardisClient
from backfill_assets.tardis.metadata import exported_until
from backfill_assets.warehouse.catalog import OHLCV, QUALITY
from backfill_assets.warehouse.ohlcv.warehouse import open_ohlcv
from backfill_assets.warehouse.protocol import Warehouse, open_warehouse

#: Somebody is waiting for the answer; the pipeline itself asks for minutes.
PATIENCE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried: what, whether it works, and how it was found or is to be mended."""

    what: str
    ok: bool
    text: str


def examine() -> Iterator[Finding]:
    """Try everything the environment names; without readable settings nothing else is tried."""
    environment = ProcessEnvironment().backfill_env
    try:
        settings = current_settings()
    except BackfillError as failure:
        yield Finding("settings", ok=False, text=str(failure))
        return
    entries = len(settings.universe)
    yield Finding("settings", ok=True, text=f"BACKFILL_ENV={environment}, {entries} universe entries")
    yield _tried("Tardis key", lambda: _key(settings))
    for exchange in sorted({e for entry in settings.universe for e in entry.exchanges}):
        yield _tried(f"Tardis {exchange}", lambda e=exchange: _exchange(settings, e))  # type: ignore[misc]
    yield _tried("lake", lambda: _lake(settings))
    yield _tried("warehouse", lambda: _warehouse(settings))
    if settings.ohlcv.url:
        yield _tried("OHLCV table", lambda: _ohlcv(settings))
    yield _tried("Dagster storage", _dagster)


def _tried(what: str, trial: Callable[[], str]) -> Finding:
    try:
        return Finding(what, ok=True, text=trial())
    except BackfillError as failure:
        return Finding(what, ok=False, text=str(failure))


def _key(settings: Settings) -> str:
    key = resolve(settings.tardis.api_key)
    return "set" if key else "none; only the first day of each month is served: set TARDIS_API_KEY for others"


def _exchange(settings: Settings, exchange: str) -> str:
    client = TardisClient(settings.tardis.model_copy(update={"retry_budget_seconds": 0}))
    try:
        exported = exported_until(client.exchange_details(exchange))
        source = client.instruments(exchange).source
    except TransientFailure as failure:
        msg = f"{failure}: check the network and tardis.api_endpoint in the settings, then try again"
        raise TransientFailure(msg) from failure
    plan = (
        "covered by the key" if source == "instruments" else "not covered by the key, taken from the details"
    )
    return f"exported until {exported:%Y-%m-%d %H:%M} UTC; instruments {plan}"


def _lake(settings: Settings) -> str:
    store = open_store(settings.lake)
    probe = f"doctor/{uuid.uuid4().hex}.json"
    store.replace(probe, b"{}\n", None)
    try:
        found = store.read(probe)
    finally:
        store.delete(probe)
    return (
        f"{store.uri} can be written, read and deleted from"
        if found
        else f"{store.uri} lost what was written"
    )


def _opened(settings: DuckDBWarehouse | BigQueryWarehouse) -> Warehouse:
    """The warehouse as publishing opens it, but with little patience."""
    if isinstance(settings, DuckDBWarehouse):
        return open_warehouse(settings)
    from backfill_assets.warehouse import bigquery

    project, dataset, location, endpoint = (
        resolve(value) for value in (settings.project, settings.dataset, settings.location, settings.endpoint)
    )
    return bigquery.BigQueryWarehouse(
        bigquery.open_client(project, location, endpoint),
        f"{project}.{dataset}",
        location=location,
        job_timeout_seconds=PATIENCE_SECONDS,
        retry_seconds=PATIENCE_SECONDS,
    )


def _warehouse(settings: Settings) -> str:
    warehouse = _opened(settings.warehouse)
    try:
        warehouse.ensure_table(QUALITY)
        yesterday = shift(utc_now().date().isoformat(), -1)
        rows = sum(t.rows for t in warehouse.totals(QUALITY, yesterday))
    finally:
        warehouse.close()
    return f"{settings.warehouse.kind} can be written and queried; quality has {rows} rows of {yesterday}"


def _ohlcv(settings: Settings) -> str:
    opened = open_ohlcv(settings.ohlcv)
    if opened is None:
        return "off: ohlcv.url is empty here"
    opened.ensure_table(OHLCV)
    return f"{opened} can be written"


def _dagster() -> str:
    if ProcessEnvironment().dagster_home is None:
        return "DAGSTER_HOME is not set: runs are forgotten when the process ends"
    from backfill_assets.orchestration import open_instance

    with open_instance() as instance:
        runs = instance.get_runs_count()
    return f"{runs} runs in {'Postgres' if ProcessEnvironment().dagster_postgres_url else 'SQLite'}"
