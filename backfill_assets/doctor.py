"""Tries the requirements of a deployment one by one: settings, Tardis, lake, warehouse, databases.

Each trial uses the same clients as the pipeline. It writes to the lake and cleans up. In the warehouse it
creates the quality table if it is missing, and also the OHLCV tables if they are wanted, because nothing less
proves the permission.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel

from backfill_assets.alerts.channel import services
from backfill_assets.days import FIRST_DAY, is_day, shift, utc_now
from backfill_assets.failures import (
    BackfillError,
    BadInput,
    PermanentFailure,
    SettingsError,
    TransientFailure,
    system_message,
)
from backfill_assets.feeds import DATA_TYPES, GROUPED_SYMBOLS, PERPETUAL
from backfill_assets.lake import documents, paths
from backfill_assets.lake.listing import InstrumentsManifest
from backfill_assets.lake.manifests import DayRecord, FeedManifest
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store, open_store
from backfill_assets.quality.baseline import Baseline
from backfill_assets.quality.measures import DayMeasures
from backfill_assets.quality.reference import directories_of
from backfill_assets.quality.settled import SettledDay, load_settled
from backfill_assets.readable_numbers import plural
from backfill_assets.references.answers import CandleApi
from backfill_assets.references.conventions import MINUTES_PER_DAY
from backfill_assets.references.sources import apis_of
from backfill_assets.report.month import DaySummary
from backfill_assets.settings import (
    BigQueryWarehouse,
    DuckDBWarehouse,
    ProcessEnvironment,
    Settings,
    current_settings,
    own_files_command,
    resolve,
)
from backfill_assets.tardis.client import TardisClient
from backfill_assets.tardis.metadata import exported_until
from backfill_assets.tardis.symbols import of_exchanges
from backfill_assets.tardis.symbols import resolve as resolve_universe
from backfill_assets.warehouse.catalog import OHLCV, QUALITY, TABLES
from backfill_assets.warehouse.ledger import Entry
from backfill_assets.warehouse.ohlcv.warehouse import open_ohlcv
from backfill_assets.warehouse.protocol import Warehouse, open_warehouse

#: A person waits for the answer; the pipeline itself retries for minutes.
PATIENCE_SECONDS: Final = 10.0
#: How many of the newest days' documents are read: about twenty small reads a day.
_DAYS_READ: Final = 100
#: Sections that a copy of the shipped ``dagster.yaml`` must also have.
_SECTIONS: Final = ("storage", "run_coordinator", "concurrency", "run_retries", "run_monitoring")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one trial: its subject, whether it works or may later, and its finding or remedy."""

    what: str
    ok: bool
    text: str
    is_transient: bool = False


def examine(environment: str = "", day: str = "") -> Iterator[Finding]:
    """Try all that the environment names; without readable settings nothing else is tried.

    Parameters
    ----------
    environment
        A name or a file; if empty, that of ``BACKFILL_ENV``.
    day
        The day on which every symbol must be listed. If empty, the last fully exported day is used, on which
        an unlisted symbol is not a failure.
    """
    try:
        settings = current_settings(environment)
    except BackfillError as failure:
        yield Finding("settings", ok=False, text=str(failure))
        return
    environment = environment or ProcessEnvironment().backfill_env
    entries = len(settings.universe)
    yield Finding("settings", ok=True, text=f"BACKFILL_ENV={environment}, {entries} universe entries")
    yield _tried("Tardis key", lambda: _key(settings))
    for exchange in sorted({e for entry in settings.universe for e in entry.exchanges}):
        yield _tried(f"Tardis {exchange}", lambda e=exchange: _exchange(settings, e, day))  # type: ignore[misc]
    if settings.comparison.reference or any(one.kind == "directory" for one in settings.comparison.sources):
        yield _tried("reference candles", lambda: _directories(settings))
    for api in apis_of(settings.comparison):
        what = f"reference candles of {api.name}"
        yield _tried(what, lambda a=api: _candles_of(a, settings))  # type: ignore[misc]
    lake = _tried("lake", lambda: _lake(settings))
    yield lake
    if lake.ok:
        yield _tried("documents", lambda: _documents(settings))
    yield _tried("warehouse", lambda: _warehouse(settings))
    if settings.ohlcv.url:
        yield _tried("OHLCV table", lambda: _ohlcv(settings))
    yield _tried("alerts", lambda: _alerts(settings))
    yield _tried("Dagster storage", lambda: _dagster(environment))


def _tried(what: str, trial: Callable[[], str]) -> Finding:
    try:
        return Finding(what, ok=True, text=trial())
    except BackfillError as failure:
        is_transient = isinstance(failure, TransientFailure)
        return Finding(what, ok=False, text=str(failure), is_transient=is_transient)
    except OSError as error:
        message = system_message(error)
        if message is None:
            raise
        return Finding(what, ok=False, text=message)


def _alerts(settings: Settings) -> str:
    """Check the addresses without sending: 'backfill-assets alerts test' sends."""
    named = [name for name, _ in services(settings.alerts)]
    return ", ".join(named) or "no alerts are sent: set SLACK_WEBHOOK_URL or alerts.urls"


def _key(settings: Settings) -> str:
    if own_files_command(settings):
        return "not needed: own files are read"
    key = resolve(settings.tardis.api_key)
    return "set" if key else "none; only the first day of each month is served: set TARDIS_API_KEY for others"


def _exchange(settings: Settings, exchange: str, wanted: str) -> str:
    client = TardisClient(settings.tardis.model_copy(update={"retry_budget_seconds": 0}))
    try:
        details, instruments = client.exchange_details(exchange), client.instruments(exchange)
        exported, source = exported_until(details), instruments.source
    except TransientFailure as failure:
        msg = f"{failure}: check the network and tardis.api_endpoint in the settings, then try again"
        raise TransientFailure(msg) from failure
    # The last fully exported day; a symbol that the exchange never had is refused by name.
    day = wanted or shift(max(exported.date().isoformat(), FIRST_DAY), -1)
    own = of_exchanges(settings.universe, (exchange,))
    found = resolve_universe(own, day, {exchange: details}, {exchange: instruments})
    unlisted = "".join(
        f"; {n.symbol} {n.data_type} is not listed on {day} ({n.reason})" for n in found.not_listed
    )
    if wanted and unlisted:
        raise BadInput(unlisted.removeprefix("; "))
    until = f"exported until {exported:%Y-%m-%d %H:%M} UTC"
    if own_files_command(settings):
        beside = f"instruments/{exchange}.json is"
        unknown = "not beside the files: price steps and contract sizes are unknown"
        return f"{until}{unlisted}; {beside} {'read' if source == 'instruments' else unknown}"
    plan = (
        "covered by the key" if source == "instruments" else "not covered by the key, taken from the details"
    )
    return f"{until}; instruments {plan}{unlisted}"


def _directories(settings: Settings) -> str:
    directories = directories_of(settings.comparison)
    if not directories:
        return "off: comparison.reference is empty here"
    if troubles := [trouble for one in directories if (trouble := one.trouble())]:
        raise SettingsError("; ".join(troubles))
    return f"{', '.join(str(one.folder) for one in directories)}: there are files of candles"


def _candles_of(api: CandleApi, settings: Settings) -> str:
    """Request every market of the universe with trades; a pair may mean its perpetual."""
    wanted = sorted(
        {
            (exchange, symbol)
            for entry in settings.universe
            if any(DATA_TYPES[name].makes_candles for name in entry.data_types)
            for exchange in entry.exchanges
            for symbol in entry.symbols
            if api.asked_for(exchange) and symbol not in GROUPED_SYMBOLS
        }
    )
    reasons = [reason for market in wanted if (reason := _missing(api, *market))]
    there = len(wanted) - len(reasons)
    lacking = "".join(f"; not compared: {reason}" for reason in reasons)
    if not there:
        msg = (
            f"{api.name} has none of {plural(len(wanted), 'market')} of the universe: correct or remove it "
            f"in comparison.sources{lacking}"
        )
        raise SettingsError(msg)
    return f"{there} of {plural(len(wanted), 'market')}{''.join(_reaches(api, wanted))}{lacking}"


def _reaches(api: CandleApi, markets: list[tuple[str, str]]) -> Iterator[str]:
    """Exchanges of which days can be compared in part only."""
    for exchange in sorted({exchange for exchange, _ in markets}):
        way = api.convention(exchange)
        if way is not None and way.reach_minutes:
            yield (
                f"; compared in part: {exchange} has the newest {way.reach_minutes:,} minutes only, and "
                f"a day has {MINUTES_PER_DAY:,}: check agreement warns each day, unless the exchanges of "
                f"{api.name} in comparison.sources leave it out"
            )


def _missing(api: CandleApi, exchange: str, symbol: str) -> str:
    if api.convention(exchange) is None:
        return f"how {exchange} makes its candles is not known"
    reason = api.missing_market(exchange, symbol)
    if reason and not symbol.endswith(PERPETUAL) and not api.missing_market(exchange, symbol + PERPETUAL):
        return ""
    return reason


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
        else f"{store.uri} lost the written file"
    )


def _documents(settings: Settings) -> str:
    """Read all documents of the newest days."""
    store = open_store(settings.lake)
    names = (path.removeprefix("days/").removesuffix(".json") for path in store.list("days/"))
    days = sorted(name for name in names if is_day(name))[-_DAYS_READ:]
    found = parallel_map(lambda day: _damages(store, day), days, store.parallel_reads)
    damaged = [documents.damage(store, paths.baseline(), Baseline), *(why for some in found for why in some)]
    told = [why for why in damaged if why]
    if told:
        more = f"; and {len(told) - 1} more" if told[1:] else ""
        msg = f"{told[0]}{more}"
        raise PermanentFailure(msg)
    return f"every document of the newest {plural(len(days), 'day')} can be read"


def _damages(store: Store, day: str) -> list[str]:
    """Return why documents of the day cannot be read."""
    looked_at: list[tuple[str, type[BaseModel]]] = [
        (paths.day_record(day), DayRecord),
        (paths.settled_day(day), SettledDay),
        (paths.measures(day), DayMeasures),
        (paths.day_summary(day), DaySummary),
        *((paths.publication(table.name, day), Entry) for table in (*TABLES, OHLCV)),
    ]
    settled = load_settled(store, day)
    if settled is not None:
        looked_at += [(paths.instruments_manifest(e, day), InstrumentsManifest) for e in settled.exchanges]
        looked_at += [(paths.ticks_manifest(f.feed, day), FeedManifest) for f in settled.feeds]
    return [why for path, model in looked_at if (why := documents.damage(store, path, model))]


def _opened(settings: DuckDBWarehouse | BigQueryWarehouse) -> Warehouse:
    """Open the warehouse as publishing does, but with little patience."""
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


def _dagster(environment: str) -> str:
    from backfill_assets.orchestration import SET_HOME, dagster_home, open_instance

    home = dagster_home(environment)
    if not home:
        msg = (
            "DAGSTER_HOME is not set: runs are forgotten when the process ends, and serve, backfill, status, "
            f"recent, cancel and retry refuse to work: {SET_HOME}"
        )
        raise SettingsError(msg)
    _insist_on_dagster_yaml(Path(home).expanduser())
    with open_instance() as instance:
        runs = instance.get_runs_count()
    return f"{runs} runs in {'Postgres' if ProcessEnvironment().dagster_postgres_url else 'SQLite'}"


def _insist_on_dagster_yaml(home: Path) -> None:
    """Refuse a folder in which Dagster would silently run with its defaults."""
    from backfill_assets.orchestration import DAGSTER_YAML

    file = home / "dagster.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, yaml.YAMLError):
        return  # Dagster's own message says more.
    if not home.is_dir() or not isinstance(content, dict | None):
        return
    missing = [section for section in _SECTIONS if section not in (content or {})]
    if missing:
        found = f"{file} has no {', '.join(missing)}" if file.is_file() else f"{home} has no dagster.yaml"
        link = f"ln -sf {shlex.quote(str(DAGSTER_YAML))} {shlex.quote(str(file))}"
        msg = (
            f"{found}, so queue, retries and run monitoring do not suit the days: "
            f"link dagster.yaml into it: {link}"
        )
        raise SettingsError(msg)
