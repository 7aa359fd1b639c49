"""Settings: one YAML file per environment, and the only module that reads process environment variables.

``BACKFILL_ENV`` names a file in ``environments/`` or gives a path. Values may hold ``${NAME}``,
``${NAME:-default}`` and ``${NAME:?what to do}``; they are replaced when a value is *used* (``resolve``), so
importing the code location needs no secret, and a missing one fails the run by its name. Unknown keys and
bad values are refused when the file is loaded, with file, key and remedy.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backfill_assets.failures import SettingsError
from backfill_assets.feeds import DATA_TYPES

ENVIRONMENTS: Final = Path(__file__).parent / "environments"

#: Timeframes in seconds; the base timeframe of the stored partials is one minute.
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

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


class ProcessEnvironment(BaseSettings):
    """The variables that are read by the package itself; all others are named in settings files."""

    model_config = SettingsConfigDict(extra="ignore")

    backfill_env: str = "local"
    backfill_standin_url: str | None = None
    dagster_home: str | None = None
    dagster_postgres_url: str | None = None


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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_data_type(value: str) -> str:
    if value not in DATA_TYPES:
        msg = f"'{value}' is no data type; choose from {', '.join(DATA_TYPES)}"
        raise ValueError(msg)
    return value


def _canonical_symbol(value: str) -> str:
    if not re.fullmatch(r"[A-Z0-9]+(-[A-Z0-9]+)?", value):
        msg = f"'{value}' is no canonical symbol; write BASE-QUOTE such as BTC-USDT, or a group such as SPOT"
        raise ValueError(msg)
    return value


def _known_timeframe(value: str) -> str:
    if value not in TIMEFRAMES:
        msg = f"'{value}' is no timeframe; choose from {', '.join(TIMEFRAMES)}"
        raise ValueError(msg)
    return value


DataType = Annotated[str, AfterValidator(_known_data_type)]
CanonicalSymbol = Annotated[str, AfterValidator(_canonical_symbol)]
Timeframe = Annotated[str, AfterValidator(_known_timeframe)]
Score = Annotated[float, Field(ge=0, le=1)]


class TardisSettings(_Strict):
    """Where ticks come from, and how hard the source may be asked."""

    #: The official clients' defaults are used where these are empty.
    datasets_endpoint: str = ""
    api_endpoint: str = ""
    #: Empty: only the first day of each month is served.
    api_key: str = "${TARDIS_API_KEY:-}"
    concurrency: int = Field(default=20, ge=1, le=200)
    requests_per_minute: int = Field(default=1000, ge=1)
    #: One attempt at one file; a 2 GB file over 100 Mbit/s takes 160 s.
    timeout_seconds: float = Field(default=600, gt=0)
    #: All attempts and waits for one file; then the step asks Dagster for a later retry.
    retry_budget_seconds: float = Field(default=900, ge=0)


class UniverseEntry(_Strict):
    """Every combination of these is an expected feed of each day."""

    exchanges: tuple[str, ...] = Field(min_length=1)
    symbols: tuple[CanonicalSymbol, ...] = Field(min_length=1)
    data_types: tuple[DataType, ...] = ("trades",)
    #: Where a pair is listed in several kinds, the first of these that is listed on the day is taken.
    instrument_types: tuple[Literal["spot", "perpetual", "future"], ...] = ("spot", "perpetual")


class LakeSettings(_Strict):
    """Where Parquet files and manifests live."""

    #: A directory, or ``gs://bucket/prefix``.
    uri: str = Field(min_length=1)
    #: Downloads, unfinished files, copies of a bucket's data files; empty: the system's temporary directory.
    scratch: str = ""


class DuckDBWarehouse(_Strict):
    """The embedded warehouse: a folder of Parquet partitions under a DuckDB file of views."""

    kind: Literal["duckdb"]
    folder: str = Field(min_length=1)


class BigQueryWarehouse(_Strict):
    """BigQuery, reached through the official client."""

    kind: Literal["bigquery"]
    project: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    location: str = "US"
    #: Empty: Google's own; otherwise a stand-in on loopback, reached without credentials.
    endpoint: str = ""
    job_timeout_seconds: float = Field(default=3600, gt=0)
    #: Google's limit is 1,500 per table and day, failures included; the rest is left for manual work.
    load_jobs_per_table_and_day: int = Field(default=1400, ge=1)


class CandleSettings(_Strict):
    """What candles are made."""

    timeframes: tuple[Timeframe, ...] = ("1m", "5m", "15m", "1h", "4h", "1d")

    @model_validator(mode="after")
    def _has_base(self) -> CandleSettings:
        if "1m" not in self.timeframes:
            msg = "timeframes must contain the base timeframe 1m"
            raise ValueError(msg)
        return self


class CountingSettings(_Strict):
    """What the decoding pass counts as odd. After a change reruns fetch anew: rows are counted only once."""

    #: A price is a spike when it is further from its neighbours than this many times their usual scatter.
    spike_multiple: float = Field(default=10, gt=0)
    #: Trades in each of the three medians that stand for the neighbours.
    spike_neighbours: int = Field(default=50, ge=10, le=200)
    #: Fewer trades than this before or after give no median on that side.
    spike_least_neighbours: int = Field(default=10, ge=5, le=200)
    #: Trades over which the usual scatter is taken.
    spike_scatter_trades: int = Field(default=2_000, ge=200, le=20_000)
    #: The scatter counts as at least this much, in 1/10,000: a pair that stands still has none.
    spike_least_scatter_bp: float = Field(default=0.5, gt=0)
    #: Rows further ahead of their arrival than the file's clock offset and this are residuals.
    clock_residual_ms: int = Field(default=250, ge=1)
    #: An id lower than the one before by more than this is a reset; late rows are off by less.
    id_reset: int = Field(default=100_000, ge=1)
    #: So many different rows of one arrival that repeat earlier rows in order are a block sent twice.
    resent_rows: int = Field(default=10, ge=2)


class RowSettings(_Strict):
    """From which counts on rows cost quality or are worth a warning."""

    #: Rates are of at least so many rows: in a small file one row means little.
    minimum_rows: int = Field(default=100_000, ge=1)
    #: Rates of broken rows at which a rule's score is 0.
    invalid_limit: float = Field(default=1e-4, gt=0)
    conflicting_limit: float = Field(default=1e-5, gt=0)
    off_grid_limit: float = Field(default=1e-3, gt=0)
    crossed_limit: float = Field(default=1e-3, gt=0)
    #: Crossed quotes that are excused: busy venues have some for moments.
    crossed_excused: int = Field(default=3, ge=0)
    #: Spikes that witnesses were there for and none saw: a rate at which the score is 0, and how many are
    #: excused; one order may sweep a thin book for a moment that nobody else recorded.
    spike_limit: float = Field(default=1e-4, gt=0)
    spike_excused: int = Field(default=3, ge=0)
    #: A witness is asked for what it saw up to this long before and after the spike: prices reach other
    #: venues within seconds, and clocks are off by some.
    spike_window_seconds: float = Field(default=60, gt=0, le=3_600)
    #: How far beyond what the market's own quotes and candles show a price is still theirs: rounding.
    spike_market_tolerance: float = Field(default=5e-4, ge=0)
    #: The same for other venues, from which the basis and the quote currency part a market.
    spike_venue_tolerance: float = Field(default=5e-3, ge=0)
    #: Rows without a single value, where the data type has values that may be null.
    valueless_limit: float = Field(default=1e-2, gt=0)
    valueless_excused: int = Field(default=3, ge=0)
    #: Quotes, books and tickers: no update for longer than both is stale.
    stale_seconds: float = Field(default=60, gt=0)
    stale_factor: float = Field(default=100, gt=0)
    #: So many of a venue's feeds of trades with at least so many rows (one in 10 s), silent together for
    #: longer, mean that the capture and not the markets stood still.
    joint_silence_seconds: float = Field(default=60, ge=5)
    joint_silence_feeds: int = Field(default=3, ge=2)
    joint_silence_rows: int = Field(default=8_640, ge=1)
    #: So large a share off the listed grid, but all on a finer one, means that the listing is out of date.
    stale_grid_share: Score = 0.05
    #: Offsets of the capture clock: 1.27 s was seen in real captures and is usable.
    clock_warning_seconds: float = Field(default=0.5, ge=0)
    clock_failure_seconds: float = Field(default=5, ge=0, lt=60)
    #: Hours of at least ``latency_rows`` rows whose median latencies differ by more: a clock drifts.
    latency_drift_seconds: float = Field(default=1, gt=0)
    latency_rows: int = Field(default=100, ge=1)
    #: One price over both so many rows in a row and so long: a stale source, or a pegged pair.
    frozen_rows: int = Field(default=1_000, ge=2)
    frozen_seconds: float = Field(default=3_600, gt=0)
    #: A taker's side with at least this share of the known ones, in files of at least so many rows.
    one_sided_share: float = Field(default=0.99, gt=0.5, le=1)
    one_sided_rows: int = Field(default=1_000, ge=1)


class HistorySettings(_Strict):
    """What the published days of the same weekday say of a day's rows."""

    #: How far back: two months, as markets grow and shrink.
    weeks: int = Field(default=8, ge=1, le=520)
    #: With fewer such days nothing is said: the median of two days is one of them or their mean.
    least_days: int = Field(default=4, ge=1)
    #: Nor where fewer rows are usual: the counts of such markets vary tenfold from day to day.
    least_rows: int = Field(default=100, ge=1)
    #: Less than this share of the median is thinned out: it is a rate that quiet days still have.
    share: float = Field(default=0.3, gt=0, le=1)


class RestatementSettings(_Strict):
    """How much a refreshed file may change before somebody must approve it."""

    #: So many rows, and as many minutes, may always change: in a thin market a few are a large share.
    excused: int = Field(default=10, ge=0)
    #: Share of the rows that may be others: vendors add what a lost connection cost, drop what came twice.
    rows: Score = 0.01
    #: Share of the one-minute candles that may differ.
    candles: Score = 0.05
    #: How far a price of a minute may move, relatively: less than this is within many a minute's range.
    price: float = Field(default=0.01, ge=0)
    #: How far a minute's volume may move, as a multiple of the larger of the minute's and the mean minute's:
    #: what a lost connection cost is often a burst, a misplaced decimal point is more than this.
    volume: float = Field(default=5.0, ge=0)


class ThresholdSettings(_Strict):
    """What makes a feed or a day good enough; reasons are in docs/scores.md."""

    day_completeness: Score = 0.95
    day_quality: Score = 0.90
    day_consistency: Score = 0.95
    #: A day is held when the accepted share of its feeds or of its notional is below this.
    hold_below: Score = 0.5
    #: Hold the day when any day score is under its threshold.
    strict: bool = False
    #: Trades stamped up to this long outside their file's day still count for the neighbour's candles.
    seam_window_seconds: int = Field(default=300, ge=0, le=3600)
    #: Class A and B: a feed is quarantined above max(this, missing_ids_rate × span) missing ids.
    missing_ids: int = Field(default=10, ge=0)
    missing_ids_rate: float = Field(default=1e-4, ge=0, le=1)
    #: Class A and B: a feed is quarantined when one run of missing ids is longer than this.
    longest_hole: int = Field(default=100, ge=0)
    #: Class A and B: a feed is quarantined when holes of the ids take longer than this, outages apart.
    lossy_seconds: float = Field(default=10, ge=0)
    #: Class B: runs of missing ids up to this length are the venue's own.
    legitimate_hole: int = Field(default=5, ge=0, le=5)
    #: Class C: silences are excused up to max(this, silence_factor × the usual gap there).
    silence_seconds: float = Field(default=5, ge=5)
    silence_factor: float = Field(default=40, gt=0)
    #: Highest score by silences alone, without the history that would show thinned-out data.
    uncalibrated_cap: Score = 0.99
    #: Ids that an accepted neighbour has too; more quarantine the feed, fewer count once.
    repeated_ids: int = Field(default=100, ge=0)
    #: The part of a day score that weighs feeds by their median daily notional; the rest weighs all alike.
    notional_weight: Score = 0.5
    #: How many published days before the day give that median: four weeks, every weekday alike.
    notional_days: int = Field(default=28, ge=1)
    history: HistorySettings = HistorySettings()
    restatement: RestatementSettings = RestatementSettings()
    #: What is counted while decoding, and what the counts of rows come to.
    counting: CountingSettings = CountingSettings()
    rows: RowSettings = RowSettings()


class ComparisonSettings(_Strict):
    """Candles against somebody else's: warnings that never gate; reasons are in docs/scores.md."""

    #: A directory of the exchanges' own candles, ``{exchange}/{symbol}/{day}.csv`` or ``.parquet``.
    reference: str = ""
    #: Relative difference of volumes that is still equal: exchanges round to the amounts' last digit.
    reference_volume: float = Field(default=1e-6, ge=0)
    #: How far a minute's vwap may be from the median of the venues, relatively: spreads, fees and quote
    #: currencies (USD against USDT) part venues by less.
    venue_vwap: float = Field(default=0.01, gt=0)
    #: Share of minutes that must agree, in both comparisons.
    agreement: Score = 0.95


class OverallSettings(_Strict):
    """Weights of the parts in a day's overall score; the customer's document defines them."""

    ticks: Score = 0.4
    candles: Score = 0.3
    instruments: Score = 0.2
    warehouse: Score = 0.1

    @model_validator(mode="after")
    def _is_whole(self) -> OverallSettings:
        total = self.ticks + self.candles + self.instruments + self.warehouse
        if abs(total - 1) > 1e-9:
            msg = f"the four weights must add up to 1, not to {total:g}"
            raise ValueError(msg)
        return self


class OhlcvSettings(_Strict):
    """Candles in a relational database as well, for services that read them by key."""

    #: A SQLAlchemy address of Postgres or SQLite; ``dagster``: where Dagster keeps its records; empty: off.
    url: str = ""
    #: Made if there is none; short enough for the name of its index on Postgres.
    table: str = Field(default="ohlcv", pattern=r"^[a-z_][a-z0-9_]{0,50}$")
    #: Rows of one INSERT: larger ones are hardly faster, and each is held in memory.
    batch_rows: int = Field(default=5_000, ge=1, le=100_000)
    #: Empty: all of ``candles.timeframes``.
    timeframes: tuple[Timeframe, ...] = ()


class ScheduleSettings(_Strict):
    """When days are asked for."""

    look_back_days: int = Field(default=7, ge=1, le=31)


class ServeSettings(_Strict):
    """``backfill-assets serve``, and the backfills that are started through it or the command line."""

    #: Without a token only loopback is served, since whoever reaches the server may start backfills.
    host: str = "127.0.0.1"
    #: Beside the Dagster UI's 3000.
    port: int = Field(default=3080, ge=0, le=65_535)
    #: Whoever changes something shows this bearer token; empty: nobody is asked.
    token: str = "${BACKFILL_API_TOKEN:-}"
    #: Days of one backfill: about two years, beyond which a slip of the keyboard is likelier.
    max_days: int = Field(default=800, ge=1, le=10_000)
    #: How often unfinished jobs are looked at.
    refresh_seconds: float = Field(default=1, gt=0, le=60)
    #: Where the Dagster UI is, for links; empty: no links, or /dagster with --with-ui.
    dagster_url: str = ""


class Settings(_Strict):
    """Everything an environment says."""

    name: str = Field(min_length=1)
    tardis: TardisSettings = TardisSettings()
    universe: tuple[UniverseEntry, ...] = Field(min_length=1)
    lake: LakeSettings
    warehouse: DuckDBWarehouse | BigQueryWarehouse = Field(discriminator="kind")
    candles: CandleSettings = CandleSettings()
    thresholds: ThresholdSettings = ThresholdSettings()
    comparison: ComparisonSettings = ComparisonSettings()
    overall: OverallSettings = OverallSettings()
    ohlcv: OhlcvSettings = OhlcvSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    serve: ServeSettings = ServeSettings()
    #: How many feeds are decoded at once; 0 means one per processor.
    decode_threads: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _ohlcv_is_of_the_candles(self) -> Settings:
        others = [t for t in self.ohlcv.timeframes if t not in self.candles.timeframes]
        if others:
            msg = f"ohlcv.timeframes: {', '.join(others)} must be among candles.timeframes"
            raise ValueError(msg)
        return self


def settings_file(environment: str) -> Path:
    """The file that ``BACKFILL_ENV`` means: a path if it has a separator or ends in .yaml, else a name."""
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
    """Read and validate one settings file.

    Raises
    ------
    SettingsError
        Unreadable YAML, an unknown key or a bad value: one line with file, key and remedy.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        msg = f"{path}: cannot be read as YAML: {reason}"
        raise SettingsError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: must hold a mapping of settings; see environments/local.yaml for an example"
        raise SettingsError(msg)
    try:
        return Settings.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        raise SettingsError(_first_error(path, error)) from error


def _first_error(path: Path, error: ValidationError) -> str:
    first, *others = error.errors()
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        what = "unknown key; remove it or correct its spelling (README, table of settings)"
    elif first["type"] == "missing":
        what = "is missing; add it (README, table of settings)"
    else:
        shown = "a secret" if key.endswith(("api_key", "token")) else repr(first["input"])
        what = f"{first['msg'].removeprefix('Value error, ')} (got {shown})"
    more = f"; and {len(others)} more" if others else ""
    return f"{path}: {key}: {what}{more}"


@lru_cache(maxsize=8)
def _load_cached(path: Path, changed_ns: int) -> Settings:
    del changed_ns
    return load_settings(path)


def current_settings(environment: str = "") -> Settings:
    """The settings of ``environment`` (a name or a file), or of ``BACKFILL_ENV``; read again when changed."""
    path = settings_file(environment or ProcessEnvironment().backfill_env)
    return _load_cached(path, path.stat().st_mtime_ns)
