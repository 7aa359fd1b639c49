"""Settings: one YAML file per environment, and the only module that reads process environment variables.

``BACKFILL_ENV`` names a file in ``environments/`` or gives a path. Values may contain ``${NAME}``,
``${NAME:-default}`` and ``${NAME:?remedy}``; they are replaced when a value is *used* (``resolve``), so
importing the code location needs no secret, and a run that lacks a secret fails and names it. Unknown keys
and bad values are refused when the file is loaded, with file, key and remedy.

``SettingsFile`` is a file as it is written; ``Settings`` adds the numbers of the rule set, which is a file of
its own (``rule_set``). The text under a field is for ``docs/settings.md`` and for editors.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from backfill_assets.failures import BadInput, SettingsError, path_secrets
from backfill_assets.feeds import DATA_TYPES
from backfill_assets.id_laws import DEFAULT_ID_LAWS, ID_LAWS, IdLaw, load_id_laws
from backfill_assets.rule_set import DEFAULT_RULES, ComparisonRules, FeedRules, Score, load_rules

# Also importable from here, since they are parts of ``Settings.thresholds``.
from backfill_assets.rule_set import CountingSettings as CountingSettings
from backfill_assets.rule_set import HistorySettings as HistorySettings
from backfill_assets.rule_set import RestatementSettings as RestatementSettings
from backfill_assets.rule_set import RowSettings as RowSettings
from backfill_assets.yaml_files import Described, did_you_mean, quoted, read_mapping, validated

#: The limits of a rehearsal.
DEFAULT_LIMITS: Final = Path(__file__).parent / "rules" / "rehearsal_limits.yaml"
ENVIRONMENTS: Final = Path(__file__).parent / "environments"

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

#: The variable with the address of a stand-in that serves own files. Settings of own files name it instead of
#: the variable of every stand-in, so that generated prices never reach their lake.
OWN_FILES_VARIABLE: Final = "BACKFILL_DATASETS_URL"
_RUN_AS: Final = re.compile(r"run your command as '(.*) -- COMMAND'", re.DOTALL)

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


def _variable(name: str) -> Any:
    return field(default_factory=lambda: os.environ.get(name))


@dataclass(frozen=True, slots=True)
class ProcessEnvironment:
    """The present values of the variables that the package itself reads; settings files name all others.

    A status reads them several times, so this is a plain class without validation: the values are texts.
    """

    backfill_env: str = field(default_factory=lambda: os.environ.get("BACKFILL_ENV", "local"))
    backfill_standin_url: str | None = _variable("BACKFILL_STANDIN_URL")
    dagster_home: str | None = _variable("DAGSTER_HOME")
    dagster_postgres_url: str | None = _variable("DAGSTER_POSTGRES_URL")

    @staticmethod
    def is_set(name: str) -> bool:
        """Whether the variable of the field ``name`` is set, even to its default."""
        return name.upper() in os.environ


def set_dagster_home(folder: Path) -> None:
    """Set the folder of Dagster's records for this process and the processes that it starts."""
    os.environ["DAGSTER_HOME"] = str(folder)


def set_where_unset(name: str, value: str) -> None:
    """Set a variable of another library, unless the user has set it."""
    os.environ.setdefault(name, value)


def resolve(value: str) -> str:
    """Replace ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` by the process environment.

    Raises
    ------
    SettingsError
        A variable without default is not set or empty; the message names it.
    """

    def replacement(match: re.Match[str]) -> str:
        name, kind, rest = match["name"], match["kind"], match["rest"]
        found = os.environ.get(name, "")
        if found:
            return found
        if kind == "-":
            return rest
        remedy = rest if kind == "?" else f"set {name} in the environment"
        msg = f"environment variable {name} is not set: {remedy}"
        raise SettingsError(msg)

    return _REFERENCE.sub(replacement, value)


def variables_in(value: str) -> dict[str, bool]:
    """The environment variables that the value refers to, and whether each is set."""
    return {match["name"]: bool(os.environ.get(match["name"])) for match in _REFERENCE.finditer(value)}


def own_files_endpoint(command: str) -> str:
    """The address of a stand-in for own files, as settings write it; ``command`` serves the files.

    Raises
    ------
    BadInput
        The command contains a brace, which would end the reference.
    """
    if "}" in command:
        msg = f"settings cannot have a }} in a path ({command}): rename the folder or the file"
        raise BadInput(msg)
    advice = f"these settings read own files; run your command as '{command} -- COMMAND'"
    return f"${{{OWN_FILES_VARIABLE}:?{advice}}}"


def own_files_command(settings: SettingsFile) -> str:
    """The words that stand before a command under settings of own files; empty under all others."""
    endpoint = settings.tardis.datasets_endpoint
    if OWN_FILES_VARIABLE not in variables_in(endpoint):
        return ""
    found = _RUN_AS.search(endpoint)
    return f"{found[1] if found else 'backfill-assets standins --datasets FOLDER'} -- "


def _known_data_type(value: str) -> str:
    if value not in DATA_TYPES:
        hint = did_you_mean(value, DATA_TYPES) or f"choose from {', '.join(DATA_TYPES)}"
        msg = f"{quoted(value)} is not a data type; {hint}"
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


def _known_timeframe(value: str) -> str:
    if value not in TIMEFRAMES:
        hint = did_you_mean(value, TIMEFRAMES) or f"choose from {', '.join(TIMEFRAMES)}"
        msg = f"{quoted(value)} is not a timeframe; {hint}"
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
    str, AfterValidator(_known_data_type), Field(json_schema_extra={"enum": list(DATA_TYPES)})
]
CanonicalSymbol = Annotated[
    str, AfterValidator(_canonical_symbol), Field(json_schema_extra={"pattern": f"^{_SYMBOL}$"})
]
Timeframe = Annotated[
    str, AfterValidator(_known_timeframe), Field(json_schema_extra={"enum": list(TIMEFRAMES)})
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


def secrets_of(settings: SettingsFile) -> tuple[str, ...]:
    """The values of the settings that are never shown: keys, each of their words, and tokens in addresses."""
    found: list[str] = []
    for section in (value for _, value in settings if isinstance(value, Described)):
        for part in (section, *_parts_of(section)):
            for name, value in part:
                marks = type(part).model_fields[name].metadata
                with suppress(SettingsError):
                    if SECRET in marks:
                        given = resolve(value)
                        found += [given, *given.split()]
                    elif BASE in marks:
                        found += path_secrets(resolve(value))
    return tuple(dict.fromkeys(filter(None, found)))


def _parts_of(section: Described) -> list[Described]:
    """The sections in the lists of a section."""
    lists = (value for _, value in section if isinstance(value, tuple))
    return [part for parts in lists for part in parts if isinstance(part, Described)]


def settings_file(environment: str) -> Path:
    """The file of ``BACKFILL_ENV``, which is a path if it has a separator or ends in .yaml, else a name."""
    if environment.endswith((".yaml", ".yml")) or "/" in environment:
        path = Path(environment).expanduser()
        if not path.is_file():
            msg = f"BACKFILL_ENV={environment}: there is no such file"
            raise SettingsError(msg)
        return path
    path = ENVIRONMENTS / f"{environment}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in ENVIRONMENTS.glob("*.yaml")))
        choice = f"choose from {known}, or give a path to a .yaml file"
        msg = f"BACKFILL_ENV={environment}: unknown environment; {choice}"
        raise SettingsError(msg)
    return path


def load_settings(path: Path) -> Settings:
    """Read and validate one settings file, and the rules and laws of ids that it names.

    Raises
    ------
    SettingsError
        A missing file, unreadable YAML, an unknown key or a bad value: one line with file, key and remedy.
    """
    file = load_file(path)
    rules = load_rules(rules_file(path, file.thresholds.rules))
    sections = dict(file)
    judging = {name: getattr(rules, name) for name in FeedRules.model_fields}
    of_days = {name: getattr(file.thresholds, name) for name in DayThresholds.model_fields}
    laws = load_id_laws(id_laws_file(path, file.thresholds.id_laws))
    sections["thresholds"] = ThresholdSettings(**judging, **of_days, id_laws=laws)
    sections["comparison"] = ComparisonSettings(**dict(rules.comparison), **dict(file.comparison))
    return Settings(**sections)


def load_file(path: Path) -> SettingsFile:
    """Read and validate one settings file as it is written, without its rules."""
    content = read_mapping(path, "settings; see environments/local.yaml for an example")
    for section, rules in (("thresholds", FeedRules), ("comparison", ComparisonRules)):
        given = content.get(section)
        for key in given if isinstance(given, dict) else ():
            if key in rules.model_fields:
                msg = (
                    f"{path}: {section}.{key}: is a rule, not a setting; write it into a file of rules and "
                    f"name that in thresholds.rules (see {DEFAULT_RULES})"
                )
                raise SettingsError(msg)
    return validated(SettingsFile, {"name": path.stem, **content}, path, page="see docs/settings.md")


def rules_file(path: Path, named: str) -> Path:
    """The file that ``thresholds.rules`` of the settings file at ``path`` names."""
    return _named_file(path, "thresholds.rules", named, DEFAULT_RULES)


def id_laws_file(path: Path, named: str) -> Path:
    """The file that ``thresholds.id_laws`` of the settings file at ``path`` names."""
    return _named_file(path, "thresholds.id_laws", named, DEFAULT_ID_LAWS)


def limits_file(path: Path, named: str) -> Path:
    """The file that ``rehearsal.limits`` of the settings file at ``path`` names."""
    return _named_file(path, "rehearsal.limits", named, DEFAULT_LIMITS)


def _named_file(path: Path, key: str, named: str, of_the_package: Path) -> Path:
    found = path.parent / Path(named).expanduser() if named else of_the_package
    if not found.is_file():
        what = key.rpartition(".")[2].replace("id_laws", "laws")
        msg = (
            f"{path}: {key}: there is no file {found}; correct the path, which is relative to the "
            f"settings file, or remove the key for the package's own {what}"
        )
        raise SettingsError(msg)
    return found


@lru_cache(maxsize=8)
def _file_cached(path: Path, changed_ns: int) -> SettingsFile:
    del changed_ns
    return load_file(path)


@lru_cache(maxsize=8)
def _load_cached(path: Path, changed_ns: int, rules_changed_ns: int, laws_changed_ns: int) -> Settings:
    del changed_ns, rules_changed_ns, laws_changed_ns
    return load_settings(path)


def current_settings(environment: str = "") -> Settings:
    """The settings of ``environment`` (a name or a file), or of ``BACKFILL_ENV``; read again when changed."""
    path = settings_file(environment or ProcessEnvironment().backfill_env)
    changed_ns = path.stat().st_mtime_ns
    named = _file_cached(path, changed_ns).thresholds
    rules, laws = rules_file(path, named.rules), id_laws_file(path, named.id_laws)
    return _load_cached(path, changed_ns, rules.stat().st_mtime_ns, laws.stat().st_mtime_ns)
