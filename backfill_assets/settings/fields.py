"""The fields of a settings file, section by section, with their meanings, defaults and limits.

``SettingsFile`` is a file as it is written; ``Settings`` adds the numbers of the rule set, which is a file of
its own (``rule_set``). The text under a field is for ``docs/settings.md`` and for editors.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from backfill_assets.feeds import DATA_TYPES
from backfill_assets.id_laws import ID_LAWS, IdLaw
from backfill_assets.rule_set import ComparisonRules, FeedRules, Score
from backfill_assets.yaml_files import Described, did_you_mean, quoted

#: Timeframes in seconds.
TIMEFRAMES: Final = {
    "1m": 60,
    "3m": 180,
    "5m": 300,
    "15m": 900,
    "30m": 1_800,
    "1h": 3_600,
    "2h": 7_200,
    "4h": 14_400,
    "6h": 21_600,
    "8h": 28_800,
    "12h": 43_200,
    "1d": 86_400,
}
#: The timeframe of the stored partials; all others are aggregated from it.
BASE_TIMEFRAME: Final = "1m"


def _known(kind: str, known: Collection[str], value: str) -> str:
    if value not in known:
        hint = did_you_mean(value, known) or f"choose from {', '.join(known)}"
        msg = f"{quoted(value)} is not a {kind}; {hint}"
        raise ValueError(msg)
    return value


def _canonical_symbol(value: str) -> str:
    if not re.fullmatch(_SYMBOL, value):
        said, upper = quoted(value), value.upper().replace("/", "-")
        is_shown = said == repr(value) and re.fullmatch(_SYMBOL, upper)
        remedy = (
            f"did you mean {upper}?"
            if is_shown
            else "write BASE-QUOTE such as BTC-USDT, or a group such as SPOT"
        )
        msg = f"{said} is not a canonical symbol; {remedy}"
        raise ValueError(msg)
    return value


#: Marks a field whose value may contain ``${NAME}``.
REPLACED: Final = "replaced"
#: Marks a field whose value is never shown.
SECRET: Final = "secret"
#: Marks a field whose value is shown without user and password.
ADDRESS: Final = "address"

#: Marks a field with the address of a service: its path, which may hold a token, is not shown.
BASE: Final = "base"

#: A name with an optional port.
_HOST: Final = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$"
_SYMBOL: Final = r"[^\sa-z/\\:,*?\"'<>|\[\]#%]+"
Text = Annotated[str, REPLACED]
Secret = Annotated[str, REPLACED, SECRET]
Address = Annotated[str, REPLACED, ADDRESS]
Base = Annotated[str, REPLACED, BASE]
DataType = Annotated[
    str,
    AfterValidator(partial(_known, "data type", DATA_TYPES)),
    Field(json_schema_extra={"enum": list(DATA_TYPES)}),
]
CanonicalSymbol = Annotated[
    str, AfterValidator(_canonical_symbol), Field(json_schema_extra={"pattern": f"^{_SYMBOL}$"})
]
Timeframe = Annotated[
    str,
    AfterValidator(partial(_known, "timeframe", TIMEFRAMES)),
    Field(json_schema_extra={"enum": list(TIMEFRAMES)}),
]


class TardisSettings(Described):
    """The source of ticks, and the limits of requests to it."""

    datasets_endpoint: Base = ""
    """Where the CSV files are; empty: Tardis"""
    api_endpoint: Base = ""
    """Where the metadata is; empty: Tardis"""
    api_key: Secret = "${TARDIS_API_KEY:-}"
    """Key of the vendor; empty: only the first day of each month is served"""
    concurrency: int = Field(default=20, ge=1, le=200)
    """Most files that one run downloads at once or has on the disk before a thread decodes them"""
    requests_per_minute: int = Field(default=1000, ge=1)
    """Requests per minute of all processes that share Dagster's records; of one process if neither
    `DAGSTER_HOME` nor `DAGSTER_POSTGRES_URL` is set"""
    connect_timeout_seconds: float = Field(default=30, gt=0)
    """Limit of one attempt to connect"""
    read_timeout_seconds: float = Field(default=30, gt=0)
    """Longest silence of a connection in the middle of an answer, and before its first byte"""
    timeout_seconds: float = Field(default=600, gt=0)
    """Limit of one attempt at one file; 2 GB over 100 Mbit/s take 160 s"""
    retry_budget_seconds: float = Field(default=900, ge=0)
    """Limit of all attempts at one file and the waits between them; after that, Dagster retries the step
    later; 0: one attempt"""


class UniverseEntry(Described):
    """Every combination of these is an expected feed of each day."""

    exchanges: tuple[str, ...] = Field(min_length=1)
    """Exchange ids of the vendor"""
    symbols: tuple[CanonicalSymbol, ...] = Field(min_length=1)
    """Pairs such as `BTC-USDT`, perpetuals such as `BTC-USDT-PERP`, data set symbols of other contracts such
    as `BTC-28JUN24`, or a group: `SPOT`, `FUTURES`, `PERPETUALS`, `OPTIONS`. Each exchange × symbol × data
    type is an expected feed; a symbol beside its group is in the group's file"""
    data_types: tuple[DataType, ...] = ("trades",)
    """Names of the tick tables"""
    instrument_types: tuple[Literal["spot", "perpetual", "future"], ...] = ("spot", "perpetual")
    """Kinds of instruments that a pair may mean: spot, perpetual and future; if a pair is listed in several,
    the first one in this list that is listed on the day is taken"""


class LakeSettings(Described):
    """The places of Parquet files and manifests."""

    uri: Text = Field(min_length=1)
    """A directory, relative to where the command runs, or `gs://bucket/prefix`"""
    scratch: Text = ""
    """Downloads, unfinished files, copies of a bucket's files; empty: the system's temporary directory"""


class DuckDBWarehouse(Described):
    """The embedded warehouse: a folder of Parquet partitions under a DuckDB file of views."""

    kind: Literal["duckdb"]
    """`duckdb` (embedded) or `bigquery`"""
    folder: Text = Field(min_length=1)
    """`duckdb`: folder of the tables, relative to where the command runs"""


class BigQueryWarehouse(Described):
    """BigQuery, reached through the official client."""

    kind: Literal["bigquery"]
    """`duckdb` (embedded) or `bigquery`"""
    project: Text = Field(min_length=1)
    """`bigquery`: the project"""
    dataset: Text = Field(min_length=1)
    """`bigquery`: the data set, which must exist"""
    location: Text = "US"
    """`bigquery`: location of the data set"""
    endpoint: Base = ""
    """`bigquery`: a stand-in on loopback, reached without credentials; empty: Google's own service"""
    job_timeout_seconds: float = Field(default=3600, gt=0)
    """`bigquery`: limit of one load job"""
    load_jobs_per_table_and_day: int = Field(default=1400, ge=1)
    """`bigquery`: most load jobs per table and day; Google refuses more than 1,500, including failures, and
    the rest is left for manual work"""


class CandleSettings(Described):
    """The candles that are made."""

    timeframes: tuple[Timeframe, ...] = ("1m", "5m", "15m", "1h", "4h", "1d")
    """Of 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d; `1m` is the base and must be among them"""

    @model_validator(mode="after")
    def _has_base(self) -> CandleSettings:
        if "1m" not in self.timeframes:
            msg = "timeframes must contain the base timeframe 1m"
            raise ValueError(msg)
        return self


class DayThresholds(Described):
    """The effect of a day's scores; docs/scores.md gives the reasons."""

    day_completeness: Score = 0.95
    """A day whose completeness is at or below this is not `published` but `degraded`"""
    day_quality: Score = 0.90
    """The same for the day's quality"""
    day_consistency: Score = 0.95
    """The same for the day's consistency"""
    hold_below: Score = 0.5
    """A day is held if its accepted feeds are a smaller share of its feeds, or of its usual notional"""
    strict: bool = False
    """Hold a day if one of its scores is not above its threshold"""


class ThresholdsOfFile(DayThresholds):
    """The thresholds of days, and the file of rules for everything else."""

    rules: str = ""
    """Path of a file of rules, relative to the settings file; empty: the package's own rules"""
    id_laws: str = ""
    """Path of a file of laws of ids, relative to the settings file; empty: the package's own laws"""


class ThresholdSettings(FeedRules, DayThresholds):
    """The thresholds of days, and the rules and laws by which their feeds are counted and judged."""

    id_laws: tuple[IdLaw, ...] = ID_LAWS


class DirectorySource(Described):
    """Candles in files."""

    kind: Literal["directory"]
    """`directory`: files; `ccxt`: the exchanges' own candles, by the library ccxt; `massive`: those of the
    vendor Massive, formerly Polygon"""
    folder: Text = Field(min_length=1)
    """`directory`: files as in `comparison.reference`"""


class CcxtSource(Described):
    """The exchanges' own candles, which the library ccxt requests from each exchange."""

    kind: Literal["ccxt"]
    """`directory`: files; `ccxt`: the exchanges' own candles, by the library ccxt; `massive`: those of the
    vendor Massive, formerly Polygon"""
    exchanges: tuple[str, ...] = ()
    """`ccxt`, `massive`: exchanges of the universe whose candles are compared with it; empty: all"""
    endpoint: Base = ""
    """`ccxt`, `massive`: address of a stand-in; empty: the exchanges or the vendor themselves"""


class MassiveSource(Described):
    """Candles of the vendor Massive, over several exchanges."""

    kind: Literal["massive"]
    """`directory`: files; `ccxt`: the exchanges' own candles, by the library ccxt; `massive`: those of the
    vendor Massive, formerly Polygon"""
    exchanges: tuple[str, ...] = ()
    """`ccxt`, `massive`: exchanges of the universe whose candles are compared with it; empty: all"""
    endpoint: Base = ""
    """`ccxt`, `massive`: address of a stand-in; empty: the exchanges or the vendor themselves"""
    api_key: Secret = "${MASSIVE_API_KEY:-}"
    """`massive`: key of the vendor"""


CandleSource = Annotated[DirectorySource | CcxtSource | MassiveSource, Field(discriminator="kind")]


class ReferenceSettings(Described):
    """Candles of other sources to compare with: differences warn and never gate."""

    reference: Text = ""
    """Directory of the exchanges' own candles, `{exchange}/{symbol}/{day}.csv` or `.parquet`; empty: none"""
    sources: tuple[CandleSource, ...] = ()

    @model_validator(mode="after")
    def _asks_each_once(self) -> ReferenceSettings:
        kinds = [source.kind for source in self.sources if source.kind != "directory"]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            msg = f"sources: {twice[0]} appears twice: name it once, with the exchanges of both"
            raise ValueError(msg)
        return self


class ComparisonSettings(ComparisonRules, ReferenceSettings):
    """The candles of other sources, and the rules by which candles agree with them."""


class OverallSettings(Described):
    """Weights of the parts in a day's overall score, by their importance to the users."""

    ticks: Score = 0.4
    """Weight of the ticks in the overall score; the four weights add up to 1"""
    candles: Score = 0.3
    """Weight of the candles"""
    instruments: Score = 0.2
    """Weight of the instruments"""
    warehouse: Score = 0.1
    """Weight of the warehouse"""

    @model_validator(mode="after")
    def _is_whole(self) -> OverallSettings:
        total = self.ticks + self.candles + self.instruments + self.warehouse
        if abs(total - 1) > 1e-9:
            msg = f"the four weights must add up to 1, not to {total:g}"
            raise ValueError(msg)
        return self


class OhlcvSettings(Described):
    """Candles also in a relational database, for services that read them by key."""

    url: Address = ""
    """Candles also in a table of Postgres or SQLite: its SQLAlchemy address, or `dagster` for the database
    of Dagster's records (on SQLite the file `ohlcv.db` in `DAGSTER_HOME`); empty: off"""
    # Short enough for the name of its index on Postgres.
    table: str = Field(default="ohlcv", pattern=r"^[a-z_][a-z0-9_]{0,50}$")
    """Name of the table, which is created if it does not exist, together with one named `…_days`"""
    batch_rows: int = Field(default=5_000, ge=1, le=100_000)
    """Rows of one INSERT: larger ones are hardly faster, and each is kept in memory"""
    timeframes: tuple[Timeframe, ...] = ()
    """Timeframes of the table, among `candles.timeframes`; empty: all"""


class ScheduleSettings(Described):
    """The days that schedules request."""

    look_back_days: int = Field(default=7, ge=1, le=31)
    """Number of days before today that the schedules cover"""


class HealSettings(Described):
    """``backfill-assets heal``: the sources of trades that a file lacks."""

    exchange_endpoint: Base = ""
    """Address of a stand-in or a gateway for the exchanges' public trades, each below the name of its client;
    empty: the exchanges themselves"""
    archive_endpoint: Base = ""
    """Address of the public files of days; empty: the exchanges' own archives"""
    daily: bool = False
    """Whether a schedule heals each day of the look-back once, after it is settled; otherwise only the
    command heals"""
    requests: int = Field(default=200, ge=1, le=100_000)
    """Most requests of one `heal`, or of a day's scheduled one; ids that are not asked for stay missing"""
    timeout_seconds: float = Field(default=30, gt=0)
    """Limit of one answer of an exchange, and longest silence of an archive"""


class PriceSettings(Described):
    """Prices of bytes and hours, for the costs in a plan."""

    date: str = Field(default="", pattern=r"^(\d{4}-\d\d-\d\d)?$")
    """Date of the price list, in quotes; required with prices, and shown in plans"""
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    """Currency of the prices"""
    download_per_gb: float = Field(default=0, ge=0)
    """Price of a downloaded GB; 0: none. Without any price, plans show no costs"""
    load_per_tb: float = Field(default=0, ge=0)
    """Price of a TB of the lake's ticks that the warehouse loads; 0: none"""
    storage_per_gb_month: float = Field(default=0, ge=0)
    """Price of a GB of lake and embedded warehouse per month; 0: none"""
    machine_per_hour: float = Field(default=0, ge=0)
    """Price of an hour of the processors and memory of one run; 0: none"""

    @model_validator(mode="after")
    def _has_a_date(self) -> PriceSettings:
        has_price = any(
            (self.download_per_gb, self.load_per_tb, self.storage_per_gb_month, self.machine_per_hour)
        )
        if has_price and not self.date:
            msg = 'prices need the date of their list: write date: "YYYY-MM-DD"'
            raise ValueError(msg)
        return self


class ServeSettings(Described):
    """``backfill-assets serve``, and the backfills started through it or the command line."""

    host: str = "127.0.0.1"
    """Address at which `serve` listens; an address that other machines can reach needs a token"""
    port: int = Field(default=3080, ge=0, le=65_535)
    """Port at which `serve` listens; 0: a free one"""
    token: Secret = "${BACKFILL_API_TOKEN:-}"
    """Bearer token of every changing call, and password of Dagster's UI; empty: only this machine is
    served"""
    hosts: tuple[Annotated[str, Field(pattern=_HOST)], ...] = ()
    """With a token: names by which clients reach `serve`, besides loopback names and addresses, such as the
    name of a proxy; with the port unless that is 80 or 443"""
    max_days: int = Field(default=800, ge=1, le=10_000)
    """Most days of one backfill: about two years; a longer range is more likely a typing error"""
    refresh_seconds: float = Field(default=1, gt=0, le=60)
    """Seconds for which the last known state of a backfill is reported"""
    dagster_url: str = ""
    """Address of Dagster's UI, for links to runs; empty: no links, or `/dagster` with `--with-ui`"""


class AlertSettings(Described):
    """The recipients of messages about incidents that need a person."""

    urls: Secret = "${SLACK_WEBHOOK_URL:-}"
    """Addresses of [Apprise](https://github.com/caronc/apprise/wiki), separated by blanks: an unchanged Slack
    webhook, Teams, mail, PagerDuty and a hundred others; empty: no messages"""
    heartbeat_url: Secret = "${BACKFILL_HEARTBEAT_URL:-}"
    """Address requested once a day when yesterday is in the tables, at a service that notices when this
    machine is gone; empty: none"""
    page_url: str = ""
    """Address at which people reach `serve`, for links in messages; empty: links into the lake"""
    remind_hours: float = Field(default=24, ge=1, le=8_760)
    """Hours after which a lasting incident is reported again"""
    disk_free_percent: float = Field(default=5, ge=0, lt=100)
    """A disk of lake, warehouse or scratch with less free space is an incident"""


class LogSettings(Described):
    """The lines that processes write to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "debug"
    """Lowest level of written lines; with `debug` each event of a run is a line. Dagster's UI always shows
    all events"""
    format: Literal["console", "json"] = "console"
    """`console`, or `json`: each line is an object with `timestamp`, `level`, `logger`, `event`, and `run`,
    `day`, `step` and `feed` if it has them"""


class RehearsalSettings(Described):
    """``backfill-assets rehearse``."""

    limits: str = ""
    """Path of a file of limits for `rehearse`, relative to the settings file; empty: the package's own"""


class SettingsFile(Described):
    """A settings file as it is written."""

    name: str = Field(min_length=1)
    """Name of the environment, for pages and messages"""
    tardis: TardisSettings = TardisSettings()
    universe: tuple[UniverseEntry, ...] = Field(min_length=1)
    lake: LakeSettings
    warehouse: DuckDBWarehouse | BigQueryWarehouse = Field(discriminator="kind")
    candles: CandleSettings = CandleSettings()
    thresholds: ThresholdsOfFile = ThresholdsOfFile()
    comparison: ReferenceSettings = ReferenceSettings()
    overall: OverallSettings = OverallSettings()
    ohlcv: OhlcvSettings = OhlcvSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    heal: HealSettings = HealSettings()
    prices: PriceSettings = PriceSettings()
    serve: ServeSettings = ServeSettings()
    alerts: AlertSettings = AlertSettings()
    log: LogSettings = LogSettings()
    rehearsal: RehearsalSettings = RehearsalSettings()
    decode_threads: int = Field(default=0, ge=0)
    """Feeds decoded at once; 0: one per processor, or as many as the limits of a container permit"""
    dagster_home: Text = ""
    """Folder of Dagster's records for commands of `backfill-assets` if `DAGSTER_HOME` is not set, relative to
    where the command runs; the first command creates it. Empty: none"""

    @model_validator(mode="after")
    def _ohlcv_is_of_the_candles(self) -> SettingsFile:
        others = [t for t in self.ohlcv.timeframes if t not in self.candles.timeframes]
        if others:
            msg = f"ohlcv.timeframes: {', '.join(others)} must be among candles.timeframes"
            raise ValueError(msg)
        return self


class Settings(SettingsFile):
    """All settings of an environment, with the numbers of its rule set."""

    # This differs from the file's section, since it has the content of the rules instead of their file.
    thresholds: ThresholdSettings = ThresholdSettings()  # type: ignore[assignment]
    comparison: ComparisonSettings = ComparisonSettings()
