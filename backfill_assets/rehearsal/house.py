"""The home of a scenario: a scratch folder with everything that a user of the pipeline has, and a stand-in.

A run is the command that users type, in its own process with its own environment. The results are read as
users read them: the state of the day from the lake, the rows from the published tables, incidents by the
check that the daemon makes.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

import yaml
from prometheus_client import CollectorRegistry, generate_latest

from backfill_assets.alerts.incidents import Incident
from backfill_assets.days import shift, utc_now
from backfill_assets.feeds import Feed
from backfill_assets.lake.store import Store, open_store
from backfill_assets.orchestration import open_instance
from backfill_assets.progress.day_metrics import DayMetrics
from backfill_assets.progress.facts import Records
from backfill_assets.progress.model import StoredDay
from backfill_assets.progress.service import Backfills
from backfill_assets.progress.stored_days import stored_day
from backfill_assets.progress.watch import look
from backfill_assets.rehearsal import tables
from backfill_assets.rehearsal.cloud import Cloud
from backfill_assets.rehearsal.confined import UNCONFINED, Confinement
from backfill_assets.rehearsal.environment import STANDIN, USUAL, Environment
from backfill_assets.rehearsal.inbox import Inbox
from backfill_assets.rehearsal.processes import DayProcess
from backfill_assets.settings import Settings, load_settings
from backfill_assets.standins.market import Market
from backfill_assets.standins.sources import Source
from backfill_assets.standins.tardis import TardisStandin

#: Trades of a market on an average day: enough for every minute of most hours, few enough to take seconds.
ROWS: Final = 4_000
#: Limit of one attempt at a file; a stand-in on loopback answers within milliseconds.
ANSWER_SECONDS: Final = 3.0
#: A run that takes longer is killed; the kill is its result.
RUN_SECONDS: Final = 240.0
#: Days of the rehearsal are past; the check for incidents takes place as if at noon of the day after.
_LOOKED_AT: Final = clock_time(12)
#: The vendor exports a day by this time of the next one.
_EXPORTED_AFTER: Final = timedelta(hours=6)
_DAGSTER: Final = "telemetry: {enabled: false}\nnux: {enabled: false}\n"


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended.

    Attributes
    ----------
    code
        Exit code, minus the signal that ended it; None if it was killed because it took too long.
    retries
        Requests that repeat a path of the same run.
    """

    day: str
    code: int | None
    seconds: float
    requests: int
    retries: int
    log: Path

    @property
    def text(self) -> str:
        """All output of the run."""
        return self.log.read_text(encoding="utf-8", errors="replace")


class House:
    """A folder, a stand-in, and runs; a context manager that ends every process that it has started.

    Parameters
    ----------
    data_types
        The data types fetched of each market besides trades.
    answer_seconds
        Limit of one attempt at a file.
    started
        Called with the id of each process that is started.
    cloud
        The cloud that holds its tables; without one, they are in the embedded warehouse.
    source
        The source that the stand-in serves; the generated market by default.
    environment
        Limits, sources and markets.
    more
        Sections of its settings besides the required ones.
    """

    #: The command of Dagster that users type.
    dagster: tuple[str, ...] = (sys.executable, "-m", "dagster")

    def __init__(
        self,
        folder: Path,
        market: Market,
        data_types: Sequence[str] = ("trades",),
        answer_seconds: float = ANSWER_SECONDS,
        started: Callable[[int], None] = lambda _: None,
        cloud: Cloud | None = None,
        source: Source | None = None,
        environment: Environment = USUAL,
        more: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = folder
        self.lake, self.warehouse = folder / "lake", folder / "warehouse"
        self.data_types = tuple(data_types)
        self.environment = environment
        self.key = environment.key(f"sk-rehearsal-{secrets.token_hex(16)}")
        #: Secrets that no file and no message may contain.
        self.secrets = [self.key]
        self.standin = TardisStandin(
            source or market, api_key=self.key, port=_free_port(), clock=_after_the_export
        )
        self.market = market
        self.inbox = Inbox()
        self.runs: list[Run] = []
        self._cloud = cloud
        self._more = dict(more or {})
        self.answer_seconds = answer_seconds
        self._say_started = started
        self._started: list[DayProcess] = []

    def __enter__(self) -> Self:
        for name in ("logs", "scratch", "dagster"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "dagster" / "dagster.yaml").write_text(_DAGSTER, encoding="utf-8")
        # Dagster's own command creates the records of a fresh folder without a lock, so they are made here
        # first.
        open_instance(str(self.folder / "dagster")).dispose()
        self.standin.__enter__()
        self.inbox.__enter__()
        self._settings_file.write_text(yaml.safe_dump(self._content()), encoding="utf-8")
        self._made = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._started:
            process.kill()
            process.wait(RUN_SECONDS)
        self.standin.__exit__(kind, error, trace)
        self.inbox.__exit__(kind, error, trace)

    @property
    def _settings_file(self) -> Path:
        return self.folder / "rehearsal.yaml"

    def _content(self) -> dict[str, object]:
        given = self.environment.settings(self.standin.url, self.warehouse, self.inbox.url)
        markets = self.environment.test_data
        if self.answer_seconds > ANSWER_SECONDS and not self.environment.is_real:
            # The stand-in is silent while it makes a large file.
            given["tardis"]["read_timeout_seconds"] = max(
                given["tardis"]["read_timeout_seconds"], self.answer_seconds
            )
        return {
            **given,
            "tardis": {
                **given["tardis"],
                "timeout_seconds": self.answer_seconds,
                "retry_budget_seconds": 4 * self.answer_seconds,
            },
            "universe": [
                {
                    "exchanges": list(markets.exchanges),
                    "symbols": list(markets.symbols),
                    "data_types": list(self.data_types),
                }
            ],
            "lake": {"uri": str(self.lake), "scratch": str(self.folder / "scratch")},
            **({"warehouse": self._cloud.settings} if self._cloud else {}),
            **self._more,
        }

    def configure(self, section: str, **changes: object) -> None:
        """Change settings of later runs."""
        content = yaml.safe_load(self._settings_file.read_text(encoding="utf-8"))
        content[section] |= changes
        self._settings_file.write_text(yaml.safe_dump(content), encoding="utf-8")

    @property
    def settings(self) -> Settings:
        """The settings that its runs read."""
        return load_settings(self._settings_file)

    @property
    def store(self) -> Store:
        """The lake."""
        return open_store(self.settings.lake)

    # Runs

    def start(self, day: str, refresh: Sequence[Feed] = (), confined: Confinement = UNCONFINED) -> DayProcess:
        """Start a run of the day; ``refresh`` lists feeds to fetch again."""
        command = [*confined.words, *self.dagster, "asset", "materialize"]
        command += ["-m", "backfill_assets.definitions", "--select", "*", "--partition", day]
        if refresh:
            config = {"refresh": True, "feeds": [str(feed) for feed in refresh]}
            command += ["--config-json", json.dumps({"ops": {"ticks": {"config": config}}})]
        return self.launch(f"{len(self._started) + 1:02d}-{day}", command, confined.variables)

    def launch(
        self, name: str, command: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> DayProcess:
        """Start a process of the house.

        Parameters
        ----------
        name
            Name of its log, to which its output is appended.
        variables
            Its environment variables besides those of every process of the house.
        """
        environment = {
            "PATH": os.defpath,
            "HOME": str(self.folder),
            "DAGSTER_HOME": str(self.folder / "dagster"),
            "BACKFILL_ENV": str(self._settings_file),
            **self.environment.variables(self.key),
            **(variables or {}),
        }
        log = self.folder / "logs" / f"{name}.log"
        process = DayProcess(command, environment, self.folder, log, self.environment.processors)
        self._started.append(process)
        self._say_started(process.pid)
        return process

    def run(self, day: str, refresh: Sequence[Feed] = ()) -> Run:
        """Run the day to its end."""
        began, before = time.monotonic(), len(self.standin.requests)
        process = self.start(day, refresh)
        code = process.wait(RUN_SECONDS)
        asked = Counter(request.path for request in self.standin.requests[before:])
        retries = asked.total() - len(asked)
        run = Run(day, code, time.monotonic() - began, asked.total(), retries, process.log)
        self.runs.append(run)
        return run

    # Results

    def state(self, day: str) -> StoredDay:
        """The day as stored in the lake and the ledger."""
        return stored_day(self.store, self.settings, day)

    def tables_folder(self) -> Path:
        """A folder with one folder per published table, which has one Parquet file per day."""
        if self._cloud is not None:
            self._cloud.export(self.warehouse)
        return self.warehouse

    def published(self, *days: str) -> tables.Contents:
        """The published tables of the days."""
        return tables.published(self.tables_folder(), days)

    def trades(self, day: str) -> dict[tables.MarketName, tables.Content]:
        """The published trades of the day."""
        return tables.published_trades(self.tables_folder(), day)

    def incidents(self, day: str) -> tuple[Incident, ...]:
        """Open incidents after a check at noon of the day after, made as the daemon makes it.

        The check sends its messages to ``inbox``.
        """
        now = datetime.combine(date.fromisoformat(shift(day, 1)), _LOOKED_AT, UTC)
        with open_instance(str(self.folder / "dagster")) as instance:
            backfills = Backfills(instance, _no_graph, lambda: self.settings)

            def records() -> Records:
                return replace(backfills.records(), daemon=None)

            return look(self.store, self.settings, lambda: now + self._age(), records).open

    def metrics(self, day: str) -> str:
        """The metrics of the day that ``/metrics`` reports at noon of the day after."""
        now = datetime.combine(date.fromisoformat(shift(day, 1)), _LOOKED_AT, UTC)
        with open_instance(str(self.folder / "dagster")) as instance:
            registry = CollectorRegistry()
            registry.register(DayMetrics(Backfills(instance, _no_graph, lambda: self.settings), lambda: now))
            return generate_latest(registry).decode()

    def size(self) -> int:
        """Size of all files in the folder."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def _age(self) -> timedelta:
        """Time since the house was made, so that a later check has a later time."""
        return timedelta(seconds=time.monotonic() - self._made)

    def files_with_secrets(self) -> list[str]:
        """Files below the folder, and messages, that contain one of its secrets."""
        keys = [secret.encode() for secret in self.secrets]
        messages = [message.encode() for message in self.inbox.messages]
        found = [f"message {n}" for n, text in enumerate(messages, 1) if any(key in text for key in keys)]
        for file in sorted(self.folder.rglob("*")):
            # Files of the lake may be replaced during the search.
            with suppress(FileNotFoundError):
                if file.is_file():
                    content = file.read_bytes()
                    found += [str(file.relative_to(self.folder))] * any(key in content for key in keys)
        return found

    # Data of the vendor

    def feed(self, exchange: str, symbol: str, day: str, data_type: str = "trades") -> Feed:
        """The feed of a canonical symbol."""
        listing = self.market.stream(exchange, symbol).listing_on(day)
        if listing is None:
            msg = f"{exchange} does not list {symbol} on {day}"
            raise KeyError(msg)
        return Feed(exchange, data_type, listing.dataset_symbol)

    def feeds(self, day: str) -> list[Feed]:
        """Every feed of trades of the universe."""
        return [self.feed(exchange, symbol, day) for exchange, symbol in self.environment.markets]

    def file(self, feed: Feed, day: str) -> bytes:
        """The feed's file as the vendor has it, regardless of the stand-in's faults."""
        return self.market.dataset(feed, day)

    def served(
        self, day: str, others: Mapping[Feed, bytes] | None = None
    ) -> dict[tables.MarketName, tables.Content]:
        """The trades that the market has on the day, regardless of the stand-in's faults.

        Parameters
        ----------
        others
            Files that replace the market's.
        """
        given = others or {}
        return tables.served_trades(given.get(feed) or self.file(feed, day) for feed in self.feeds(day))


def rehearsal_market(
    larger: Mapping[tuple[str, str], int] | None = None, environment: Environment = USUAL
) -> Market:
    """The market of a rehearsal; ``larger`` sets other numbers of trades a day by exchange and symbol."""
    # Another source may have markets that the generated one does not have.
    rows = dict.fromkeys(environment.markets if environment.sources.tardis == STANDIN else (), ROWS)
    return Market(rows=rows | dict(larger or {}))


def _after_the_export() -> datetime:
    """The time of the stand-in: it has every file of yesterday at any hour; the vendor has it from 06:00."""
    return utc_now() + _EXPORTED_AFTER


def _free_port() -> int:
    """A port that is free now: a stand-in that stops must come back at the same port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _no_graph() -> NoReturn:
    msg = "a check for incidents launches no backfill"
    raise RuntimeError(msg)
