"""Logs with fields: lines of the package and its libraries on stderr, each with run, day and feed.

Modules log with ``logging`` as any library does. Here structlog makes the lines, by the settings
``log.format`` and ``log.level`` at the time of writing. It is imported with the first line, because its
import takes longer than most commands. Fields are bound where a run, a day or a feed begins, and every line
from within has them. The daemon and other processes of Dagster make their own lines.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from backfill_assets.failures import SettingsError, printable, redacted

if TYPE_CHECKING:
    from structlog.stdlib import ProcessorFormatter

    from backfill_assets.settings import LogSettings

P = ParamSpec("P")
R = TypeVar("R")

PACKAGE: Final = "backfill_assets"
#: The name of Dagster's loggers.
_DAGSTER: Final = "dagster"
_FIELDS: ContextVar[dict[str, str]] = ContextVar("log_fields", default={})  # noqa: B039 - never changed
#: Attributes under which Dagster keeps the fields of a run's record, and the fields that it adds.
_OF_DAGSTER: Final = "dagster_meta"
_PARTITION: Final = "dagster/partition"


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add these fields to every line that is logged inside; empty fields are left out."""
    token = _FIELDS.set({**_FIELDS.get(), **{name: value for name, value in fields.items() if value}})
    try:
        yield
    finally:
        _FIELDS.reset(token)


def with_fields(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with the fields bound now, for any thread: threads begin without fields."""
    context = copy_context()

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # A context cannot be entered twice at once.
        return context.copy().run(function, *args, **kwargs)

    return call


class _Lines(logging.Handler):
    """Writes each record as a line to the stderr of that moment."""

    def __init__(self, environment: str) -> None:
        super().__init__()
        self.environment = environment

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; like other handlers of ``logging``, ignore a record that cannot be written."""
        if record.name.partition(".")[0] == _DAGSTER:
            return  # It has its own lines.
        try:
            settings, secrets = _in_force(self.environment)
            if record.levelno >= _number(settings):
                sys.stderr.write(_line(record, settings, secrets) + "\n")
        except Exception:  # noqa: BLE001 - the contract of logging handlers
            self.handleError(record)


class _Logger(logging.Logger):
    """The class of loggers that are made from now on; it finds the loggers of runs.

    Dagster makes several for each run, for the console lines of its events and of ``context.log``. Instances
    and run configuration can choose others, but a code location cannot.
    """

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - the name of ``logging``
        """Add a handler; a run's handler follows the settings."""
        if self.name == _DAGSTER:
            _follow(hdlr)
        super().addHandler(hdlr)


class _Formatter(logging.Formatter):
    """Formatter for the handlers of a run, which Dagster makes."""

    def format(self, record: logging.LogRecord) -> str:
        return _line(record, *_in_force(_environment()))


def install(environment: str = "", least: int | None = None) -> None:
    """Let this process write its lines; a second call only changes the settings in force.

    Parameters
    ----------
    least
        Lines below this level are not written, regardless of the settings: a command answers a person, who
        sees only problems. None leaves the level as it is.
    """
    logging.getLogger(PACKAGE).setLevel(logging.DEBUG)
    logging.setLoggerClass(_Logger)
    if (known := _installed()) is None:
        logging.getLogger().addHandler(known := _Lines(environment))
    known.environment = environment
    if least is not None:
        known.setLevel(least)


def _installed() -> _Lines | None:
    return next((found for found in logging.getLogger().handlers if isinstance(found, _Lines)), None)


def _environment() -> str:
    known = _installed()
    return known.environment if known is not None else ""


def _follow(handler: logging.Handler) -> None:
    """Let a handler of Dagster follow the settings; the console format is its own."""
    settings, _ = _in_force(_environment())
    handler.setLevel(max(handler.level, _number(settings)))
    if settings.format == "json":
        handler.setFormatter(_Formatter())


def _in_force(environment: str) -> tuple[LogSettings, tuple[str, ...]]:
    """Return the current settings, and the secrets of all sections; faults in them are reported elsewhere."""
    from backfill_assets.settings import LogSettings, current_settings, secrets_of

    try:
        settings = current_settings(environment)
    except SettingsError:
        return LogSettings(), ()
    return settings.log, secrets_of(settings)


def _number(settings: LogSettings) -> int:
    return logging.getLevelNamesMapping()[settings.level.upper()]


def _line(record: logging.LogRecord, settings: LogSettings, secrets: tuple[str, ...]) -> str:
    return redacted(_formatter(settings.format, sys.stderr.isatty()).format(record), *secrets)


@lru_cache(maxsize=4)
def _formatter(form: str, is_terminal: bool) -> ProcessorFormatter:
    import structlog

    steps: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_fields,
    ]
    last: Any
    if form == "json":
        steps.append(structlog.processors.format_exc_info)
        last = structlog.processors.JSONRenderer()
    else:
        steps.append(_printable)
        last = structlog.dev.ConsoleRenderer(
            colors=is_terminal, exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=steps, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last]
    )


def _add_fields(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the bound fields, and Dagster's fields of a run's record."""
    record: logging.LogRecord = event["_record"]
    known = getattr(record, _OF_DAGSTER, None) or {}
    day = (known.get("job_tags") or {}).get(_PARTITION)
    of_run = {"run": known.get("run_id"), "day": day, "step": known.get("step_key")}
    event.update({name: value for name, value in of_run.items() if value})
    event.update(_FIELDS.get())
    # Dagster puts run, process and step before a message of ``context.log``; they are fields here.
    if known and known.get("dagster_event") is None:
        event["event"] = known.get("orig_message", event["event"])
    return event


def _printable(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape foreign text, so that it cannot forge a line or control the terminal; JSON escapes by itself."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}
