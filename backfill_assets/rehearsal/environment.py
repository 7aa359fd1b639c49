"""The environment of a rehearsal: one YAML file with limits, sources, test data and monitoring.

``local`` and ``staging`` are files of the package in ``environments/``; ``--env`` also takes a path. A file
that names its own sources (Tardis, BigQuery) is played without faults, because the faults would hit services
of others. Secrets are in variables, which the file names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from backfill_assets.days import day_range, parse_day, utc_now
from backfill_assets.failures import BadInput, SettingsError
from backfill_assets.settings import CanonicalSymbol, Text, resolve
from backfill_assets.standins.catalogue import CATALOGUE
from backfill_assets.yaml_files import Described, did_you_mean, quoted, read_mapping, validated

ENVIRONMENTS: Final = Path(__file__).with_name("environments")
STANDIN: Final = "standin"
VENDOR: Final = "tardis"
PAGE: Final = "see docs/operations.md#the-environment-file"

MB: Final = 2**20
_UNITS: Final = {"MB": MB, "GB": 1024 * MB}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?(MB|GB)")
#: Variables for Google's credentials, which a run needs to reach a BigQuery of your own.
_GOOGLE_VARIABLES: Final = ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG")

#: The markets that the scenarios are written for.
EXCHANGES: Final = ("binance", "coinbase", "kraken")
SYMBOLS: Final = ("BTC-USDT", "ETH-USDT", "ADA-USDT", "SOL-USDT")
#: The first day whose day before has all of the markets listed.
FIRST_DAY: Final = "2021-06-18"
#: The scenarios that work with any markets.
_ANY_MARKETS: Final = frozenset(
    {"normal", "refused", "not-exported-yet", "killed", "hung", "stopped", "two-at-once", "disk-full"}
)
_WITHOUT_FAULTS: Final = frozenset({"normal"})


def _size(value: str) -> str:
    found = _SIZE.fullmatch(value)
    if not found or not float(found[1]):
        msg = f"{quoted(value)} is not a size; write a number with MB or GB, such as 1.5 GB"
        raise ValueError(msg)
    return value


def size_bytes(text: str) -> int:
    """Convert a size of the file to bytes: MB are 2**20, GB 2**30."""
    found = _SIZE.fullmatch(text)
    return int(float(found[1]) * _UNITS[found[2]]) if found else 0


def _range(value: str) -> str:
    first, _, last = value.partition(" to ")
    try:
        days = (parse_day(first.strip()), parse_day((last or first).strip()))
    except BadInput as error:
        msg = f"{quoted(value)} is not a range of days; write 2024-01-01 to 2024-01-31"
        raise ValueError(msg) from error
    if days[0] > days[1]:
        msg = f"{first.strip()} is after {last.strip()}; write the earlier day first"
        raise ValueError(msg)
    return value


def _source(value: str) -> str:
    if value not in (STANDIN, VENDOR) and not re.match(r"(https?://[^/\s]|\$\{)", value):
        hint = did_you_mean(value, (STANDIN, VENDOR)) or f"write {STANDIN}, {VENDOR}, or an address"
        msg = f"{quoted(value)} is not a source; {hint}"
        raise ValueError(msg)
    return value


Size = Annotated[str, AfterValidator(_size)]


class Infrastructure(Described):
    """Resources and limits of the runs."""

    cores: int | None = Field(default=None, ge=1)
    """Processors on which the runs are kept; left out: all of the machine"""
    memory: Size | None = None
    """Memory (PSS) that all processes of a scenario may take together"""
    disk: Size | None = None
    """Size that lake, warehouse, records and logs of a scenario may have together at its end"""


class Sources(Described):
    """Sources of ticks."""

    tardis: Annotated[Text, AfterValidator(_source)] = STANDIN
    """`standin`, `tardis` (the vendor itself), or the address of another server with the same paths below
    `/v1`; with anything but `standin` no fault is injected"""
    tardis_key_variable: str = Field(default="TARDIS_API_KEY", pattern=r"^[A-Z][A-Z0-9_]*$")
    """Name of the variable with the API key: read for `tardis`, and the one that the runs get"""
    rate_limit_per_minute: int = Field(default=1000, ge=1)
    """Requests per minute of all runs together"""
    connect_timeout_seconds: float = Field(default=30, gt=0)
    """Limit of one attempt to connect"""
    read_timeout_seconds: float = Field(default=30, gt=0)
    """Longest silence of a connection"""


class BigQuery(Described):
    """A data set that takes the place of the embedded warehouse; no fault is injected then."""

    project: Text = Field(min_length=1)
    """The project"""
    dataset: Text = Field(min_length=1)
    """The data set, which must exist; the days that are rehearsed are replaced in it"""
    location: Text = "US"
    """Location of the data set"""
    endpoint: Text = ""
    """A stand-in on loopback, reached without credentials; empty: Google's own service"""


class TestData(Described):
    """Markets and days of the rehearsal."""

    __test__ = False  # not a test class, despite its name

    exchanges: tuple[str, ...] = Field(default=EXCHANGES, min_length=1)
    """Exchange ids; with others than the package's, scenarios that need those are not run"""
    symbols: tuple[CanonicalSymbol, ...] = Field(default=SYMBOLS, min_length=1)
    """Pairs, each at every exchange"""
    date_range: Annotated[str, AfterValidator(_range)] = "2024-01-01 to 2024-01-31"
    """The day that is rehearsed without `--date` is the second of these; with `--full`, `normal` runs each"""

    @property
    def days(self) -> list[str]:
        """Every day of the range."""
        first, _, last = self.date_range.partition(" to ")
        return day_range(first.strip(), (last or first).strip())

    @property
    def day(self) -> str:
        """The day to rehearse: the second of the range, or its only one."""
        return self.days[:2][-1]


class Monitoring(Described):
    """Monitoring of the runs."""

    log_level: Literal["debug", "info", "warning", "error"] = "debug"
    """Lines below it are not in the logs of the runs (`log.level`)"""
    metrics: bool = True
    """Write `metrics.txt`, the metrics of the day from `/metrics`, beside the logs of a scenario"""
    alerts: bool = True
    """Let the runs send messages, to an inbox of the rehearsal; without them `somebody_told` is not run"""


class Environment(Described):
    """The whole file."""

    name: str = Field(default="local", min_length=1)
    """Name for reports; default: that of the file"""
    infrastructure: Infrastructure = Infrastructure()
    sources: Sources = Sources()
    bigquery: BigQuery | None = None
    test_data: TestData = TestData()
    monitoring: Monitoring = Monitoring()

    @property
    def is_real(self) -> bool:
        """Whether the environment uses a service of others, into which no fault may be injected."""
        return self.sources.tardis != STANDIN or self.bigquery is not None

    @property
    def markets(self) -> tuple[tuple[str, str], ...]:
        """Exchange and symbol of each market."""
        return tuple((e, s) for e in self.test_data.exchanges for s in self.test_data.symbols)

    def with_markets(self, exchanges: Sequence[str], symbols: Sequence[str]) -> Environment:
        """Return the same environment with other markets."""
        update = {"exchanges": tuple(exchanges), "symbols": tuple(symbols)}
        return self.model_copy(update={"test_data": self.test_data.model_copy(update=update)})

    @property
    def processors(self) -> frozenset[int] | None:
        """The processors on which runs are kept; None for all."""
        cores = self.infrastructure.cores
        return None if cores is None else frozenset(sorted(os.sched_getaffinity(0))[:cores])

    def why_not(self, scenario: str) -> str:
        """Return why a scenario is not run here; empty if it is run."""
        if self.is_real and scenario not in _WITHOUT_FAULTS:
            return f"{self.name} names sources of its own, into which no fault is injected"
        usual = (set(self.test_data.exchanges), set(self.test_data.symbols)) == (set(EXCHANGES), set(SYMBOLS))
        if not usual and scenario not in _ANY_MARKETS:
            return f"it needs {', '.join(SYMBOLS)} at {', '.join(EXCHANGES)} in test_data"
        return ""

    def settings(self, standin_url: str, folder: Path, inbox_url: str) -> dict[str, dict[str, Any]]:
        """Return the settings of a run by section, as far as the environment defines them.

        Raises
        ------
        SettingsError
            A variable that the file names is not set.
        """
        given = self.sources.tardis
        address = resolve(given)
        url = {STANDIN: f"{standin_url}/v1", VENDOR: ""}.get(address, f"{address.rstrip('/')}/v1")
        return {
            "tardis": {
                "datasets_endpoint": f"{url}/datasets" if url else "",
                "api_endpoint": url,
                "api_key": f"${{{self.sources.tardis_key_variable}}}",
                "requests_per_minute": self.sources.rate_limit_per_minute,
                "connect_timeout_seconds": self.sources.connect_timeout_seconds,
                "read_timeout_seconds": self.sources.read_timeout_seconds,
            },
            "warehouse": self._warehouse(folder),
            # A rehearsal must not send messages to people, even if the environment names recipients.
            "alerts": {"urls": inbox_url if self.monitoring.alerts else "", "heartbeat_url": ""},
            "log": {"level": self.monitoring.log_level},
        }

    def _warehouse(self, folder: Path) -> dict[str, str]:
        if self.bigquery is None:
            return {"kind": "duckdb", "folder": str(folder)}
        values = {name: resolve(value) for name, value in self.bigquery.model_dump().items()}
        return {"kind": "bigquery", **values}

    def variables(self, standin_key: str) -> dict[str, str]:
        """Return the variables of a run: the key of the source, and where to find Google's credentials."""
        found = {self.sources.tardis_key_variable: self.key(standin_key)}
        if self.bigquery is not None:
            google = {name: resolve(f"${{{name}:-}}") for name in _GOOGLE_VARIABLES}
            google["CLOUDSDK_CONFIG"] = google["CLOUDSDK_CONFIG"] or str(Path.home() / ".config" / "gcloud")
            found |= {name: value for name, value in google.items() if value}
        return found

    def key(self, standin_key: str) -> str:
        """The API key: that of the stand-in, or that of the variable that the file names."""
        if self.sources.tardis == STANDIN:
            return standin_key
        return resolve(f"${{{self.sources.tardis_key_variable}:?it is named in sources.tardis_key_variable}}")


#: Stand-ins, no limits, and the markets that the scenarios are written for.
USUAL: Final = Environment()


def environment_of(given: str) -> Environment:
    """Return the environment of this name, or of the file at this path.

    Raises
    ------
    BadInput
        The environment does not exist, the file has unknown keys or bad values, or it asks for a variable, a
        market or processors that do not exist; the message is one line.
    """
    path = Path(given).expanduser()
    if not (given.endswith((".yaml", ".yml")) or "/" in given):
        path = ENVIRONMENTS / f"{given}.yaml"
        if not path.is_file():
            known = sorted(file.stem for file in ENVIRONMENTS.glob("*.yaml"))
            hint = did_you_mean(given, known)
            choice = f"{hint} or" if hint else f"choose {', '.join(known)}, or"
            msg = f"{given!r} is not an environment of a rehearsal; {choice} give a path to a .yaml file"
            raise BadInput(msg)
    try:
        content = read_mapping(path, f"an environment; see {ENVIRONMENTS / 'local.yaml'} for an example")
        found = validated(Environment, {"name": path.stem, **content}, path, page=PAGE)
        # A missing variable is reported before any process is started.
        found.settings("", Path(), "")
        found.key("")
    except SettingsError as error:
        text = str(error)
        raise BadInput(text if str(path) in text else f"{path}: {text}") from None
    if why := _lacking(found):
        msg = f"{path}: {why}"
        raise BadInput(msg)
    return found


def _lacking(environment: Environment) -> str:
    """Return the first thing that the environment asks for and that is missing; empty if nothing is."""
    cores, days = environment.infrastructure.cores, environment.test_data.days
    if cores is not None:
        if not hasattr(os, "sched_setaffinity"):
            return "infrastructure.cores: this system cannot keep processes on some processors; remove it"
        if cores > (present := len(os.sched_getaffinity(0))):
            return f"infrastructure.cores: {cores} are more than the {present} of this machine; lower it"
    if days[0] < FIRST_DAY:
        return f"test_data.date_range: {days[0]} is too early; choose days from {FIRST_DAY} on"
    if days[-1] >= (today := utc_now().date().isoformat()):
        return f"test_data.date_range: {days[-1]} is not over; choose days before {today}"
    if environment.sources.tardis != STANDIN:
        return ""
    known = {(stream.exchange, stream.canonical) for stream in CATALOGUE}
    for exchange, symbol in environment.markets:
        if (exchange, symbol) not in known:
            is_known = exchange in dict(known)
            name, key = (symbol, "symbols") if is_known else (exchange, "exchanges")
            offered = {s for e, s in known if e == exchange} if is_known else dict(known)
            hint = did_you_mean(name, offered) or f"choose from {', '.join(sorted(offered))}"
            about = f"{symbol} at {exchange}" if is_known else exchange
            return f"test_data.{key}: the stand-in has no {about}; {hint}"
    return ""
