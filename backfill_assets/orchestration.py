"""The interface to Dagster: our failures as Dagster's, partitioned checks, tables in metadata, settings.

Partitioned asset checks are a preview API, and failures are mapped to retries in only one way; both are here,
so that a Dagster upgrade touches one file. Assets and checks of every stage use it; the logic of the stages
does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import dagster as dg

from backfill_assets.columns import Column
from backfill_assets.failures import NotExportedYet, PermanentFailure, SettingsError, TransientFailure
from backfill_assets.feeds import FeedChoice
from backfill_assets.files import locked
from backfill_assets.partitions import daily
from backfill_assets.settings import (
    ProcessEnvironment,
    Settings,
    current_settings,
    resolve,
    set_dagster_home,
)

OWNERS: Final = ["team:market-data"]
#: A transient failure has already used up the client's own retry budget; Dagster adds a few late tries.
STEP_RETRIES: Final = 2
STEP_RETRY_SECONDS: Final = 30.0
#: A waiting step keeps its run's place in the queue. Longer waits (a used-up daily quota) are left to the
#: next request for the day.
LONGEST_STEP_WAIT_SECONDS: Final = 1_800.0
#: Most rows shown in a metadata table; the counts beside it are over all rows.
TABLE_ROWS: Final = 50
#: The shipped Dagster settings.
DAGSTER_YAML: Final = Path(__file__).parent / "dagster.yaml"
#: The remedy if ``DAGSTER_HOME`` is not set, with the folder that ``make`` creates.
SET_HOME: Final = 'set it to the folder that the Dagster daemon runs with: export DAGSTER_HOME="$PWD/.home"'

#: Tags of a backfill, and so of its runs. The feeds to fetch again are in tags and not in run configuration,
#: since one configuration of a backfill would have to suit all of its assets.
TAG_JOB: Final = "backfill_assets/job"
TAG_ATTEMPT: Final = "backfill_assets/attempt"
TAG_RANGE: Final = "backfill_assets/range"
TAG_REQUEST: Final = "backfill_assets/request_id"
TAG_ALL_DAYS: Final = "backfill_assets/all_days"
#: Tag of a backfill that runs its newest days first.
TAG_NEWEST_FIRST: Final = "backfill_assets/newest_first"
#: Followed by a number: at most that many runs with one value of the tag, the job, run at once.
AT_ONCE_TAGS: Final = "backfill_assets/at_once_"
#: When a backfill was told to end, in ISO format.
TAG_CANCELED: Final = "backfill_assets/canceled"
#: Dagster's own tag: its UI shows this as the person who launched a run.
TAG_USER: Final = "user"
TAG_REFRESH: Final = "backfill_assets/refresh"
_CHOICE_TAGS: Final = {
    "exchanges": "backfill_assets/exchanges",
    "symbols": "backfill_assets/symbols",
    "data_types": "backfill_assets/data_types",
}


class EnvironmentResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A resource that uses the settings; ``environment`` overrides ``BACKFILL_ENV`` if given."""

    environment: str = ""

    def settings(self) -> Settings:
        """Settings of the environment, read on access."""
        return current_settings(self.environment)


def database_errors() -> tuple[type[Exception], ...]:
    """Return the errors of Dagster's database when it is out of reach or busy."""
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError, DagsterPostgresException)


@contextmanager
def database_failures() -> Iterator[None]:
    """Raise the errors of Dagster's database as a ``TransientFailure``."""
    errors = database_errors()
    try:
        yield
    except errors as error:
        msg = f"Dagster's database does not answer: {' '.join(str(error).split())[:200]}"
        raise TransientFailure(msg) from error


def dagster_home(environment: str = "") -> str | None:
    """Return the folder of Dagster's records: ``DAGSTER_HOME``, otherwise the one in the settings.

    The folder in the settings is created if missing, with a link to the shipped ``dagster.yaml``, and becomes
    ``DAGSTER_HOME``: Dagster and the processes of runs know no other name for it.

    Raises
    ------
    SettingsError
        The folder in the settings cannot be created.
    """
    given = ProcessEnvironment().dagster_home
    named = "" if given else resolve(current_settings(environment).dagster_home)
    if not named:
        return given
    home = Path(named).expanduser().absolute()
    file = home / DAGSTER_YAML.name
    try:
        home.mkdir(parents=True, exist_ok=True)
        if file.is_symlink() and not file.exists():
            file.unlink(missing_ok=True)  # The package was installed elsewhere when the link was made.
        with suppress(FileExistsError):
            file.symlink_to(DAGSTER_YAML)
    except OSError as error:
        msg = (
            f"{home}: {error.strerror}; set dagster_home in the settings, or DAGSTER_HOME, to another folder"
        )
        raise SettingsError(msg) from error
    set_dagster_home(home)
    return str(home)


def open_instance(folder: str = "") -> dg.DagsterInstance:
    """Open Dagster's instance in its home; without a home, an instance that ends with the process.

    Parameters
    ----------
    folder
        A folder to use instead of ``dagster_home``.

    Raises
    ------
    PermanentFailure
        The folder, its ``dagster.yaml`` or the database that it names cannot be used.
    """
    home = folder or dagster_home()
    if home is None:
        return dg.DagsterInstance.ephemeral()
    from alembic.util import CommandError
    from yaml import YAMLError

    of_database = (*database_errors(), CommandError)
    refusals: tuple[type[Exception], ...] = (dg.DagsterError, *of_database, YAMLError, OSError)
    try:
        with _alone_in(Path(home)):
            instance = dg.DagsterInstance.from_config(folder) if folder else dg.DagsterInstance.get()
            instance.get_runs_count()
    except refusals as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        remedy = "correct DAGSTER_HOME or DAGSTER_POSTGRES_URL, or unset them"
        msg = f"Dagster's storage cannot be opened (DAGSTER_HOME={home}): {reason}: {remedy}"
        raise PermanentFailure(msg) from error
    return instance


@contextmanager
def _alone_in(home: Path) -> Iterator[None]:
    """Let one process at a time open the folder.

    Without ``InstanceStorage`` in ``dagster.yaml`` Dagster creates its SQLite tables without a lock: if
    several processes open a fresh folder together, some fail, and the tables may stay unusable.
    """
    with ExitStack() as stack:
        # A read-only folder has no such tables; Dagster reports a missing one.
        if home.is_dir():
            with suppress(OSError):
                stack.enter_context(locked(home / ".opening-records"))
        yield


@contextmanager
def failures_as_dagster() -> Iterator[None]:
    """Allow a rerun only if it can change the result.

    Transient failures ask Dagster to run the step again soon. Permanent failures, a day that the vendor has
    not exported and a used-up quota (the schedule requests the day again) forbid it. All other exceptions are
    bugs and pass through.
    """
    try:
        yield
    except NotExportedYet as failure:
        raise dg.Failure(description=str(failure), allow_retries=False) from failure
    except TransientFailure as failure:
        wait = failure.retry_after_seconds or STEP_RETRY_SECONDS
        if wait > LONGEST_STEP_WAIT_SECONDS:
            raise dg.Failure(description=str(failure), allow_retries=False) from failure
        raise dg.RetryRequested(max_retries=STEP_RETRIES, seconds_to_wait=wait) from failure
    except PermanentFailure as failure:
        raise dg.Failure(description=str(failure), allow_retries=False) from failure


def refresh_tags(choice: FeedChoice) -> dict[str, str]:
    """Return the tags that make a run fetch these feeds again; ``refresh_of`` reads them."""
    parts = {tag: ",".join(getattr(choice, part)) for part, tag in _CHOICE_TAGS.items()}
    return {TAG_REFRESH: "true", **{tag: value for tag, value in parts.items() if value}}


def refresh_of(tags: Mapping[str, str]) -> FeedChoice | None:
    """Return the feeds that a run with these tags fetches again; None if it fetches none again."""
    if tags.get(TAG_REFRESH) != "true":
        return None
    parts = {part: tuple(filter(None, tags.get(tag, "").split(","))) for part, tag in _CHOICE_TAGS.items()}
    return FeedChoice(**parts)


def live_key(run_id: str, attempt: int = 0) -> str:
    """Return the key of a run's live progress in the key-value store; each retry of the step has its own."""
    return f"backfill_assets/live/{run_id}/{attempt}" if attempt else f"backfill_assets/live/{run_id}"


def live_progress_writer(context: dg.AssetExecutionContext) -> Callable[[str], None]:
    """Return a function that stores the run's live progress where ``progress.reader`` finds it.

    The key-value store costs half as much as a tag or an observation. A run must not fail over progress, so
    storage errors are logged.
    """
    storage, refusals = context.instance.daemon_cursor_storage, database_errors()
    key = live_key(context.run.run_id, context.retry_number)

    def write(text: str) -> None:
        try:
            storage.set_cursor_values({key: text})
        except refusals as error:
            context.log.warning("live progress was not stored: %s", " ".join(str(error).split())[:200])

    return write


def daily_checks(
    asset: str | Sequence[str],
    checks: Mapping[str, str],
    *,
    blocking: Iterable[str] = (),
) -> Callable[[Callable[..., Iterator[dg.AssetCheckResult]]], dg.AssetChecksDefinition]:
    """Decorate a generator that yields one result per check of one asset, each stored with its day.

    Parameters
    ----------
    asset
        Key of the asset.
    checks
        Name and promise of each check.
    blocking
        Names of the checks that stop the run when they fail with ERROR.
    """
    key = dg.AssetKey([asset] if isinstance(asset, str) else list(asset))
    stopping = set(blocking)
    with warnings.catch_warnings():
        # Otherwise every command would print the preview warning at its start.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(
                name=name, asset=key, description=promise, blocking=name in stopping, partitions_def=daily
            )
            for name, promise in checks.items()
        ]

    def decorate(function: Callable[..., Iterator[dg.AssetCheckResult]]) -> dg.AssetChecksDefinition:
        return dg.multi_asset_check(specs=specs, name=f"{'_'.join(key.path)}_checks")(function)

    return decorate


def table_metadata(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return the first rows as a metadata table; every row has the keys of the first."""
    columns = list(rows[0]) if rows else ["(no rows)"]
    records = [dg.TableRecord({name: _cell(row.get(name)) for name in columns}) for row in rows[:TABLE_ROWS]]
    return dg.MetadataValue.table(
        records, schema=dg.TableSchema(columns=[dg.TableColumn(name=name) for name in columns])
    )


def column_schema(columns: Sequence[Column]) -> dg.TableSchema:
    """Return the columns of a table in Dagster's form."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type,
                description=column.description,
                constraints=dg.TableColumnConstraints(nullable=not column.required),
            )
            for column in columns
        ]
    )


def _cell(value: object) -> str | int | float | bool | None:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
