"""Runs days in this process, without daemon or service, and shows them on the terminal while they run.

It runs the job that the schedule launches, on the instance of ``DAGSTER_HOME`` if there is one, so these runs
are in Dagster's records like all others.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from backfill_assets.days import utc_now
from backfill_assets.failures import BadInput, PermanentFailure, SettingsError, TransientFailure, printable
from backfill_assets.lake import paths
from backfill_assets.lake.store import Store, open_store
from backfill_assets.orchestration import STEP_RETRIES, database_failures, open_instance
from backfill_assets.progress.stored_days import stored_day
from backfill_assets.readable_numbers import plural, seconds_text
from backfill_assets.settings import Settings, current_settings, own_files_command, resolve, variables_in
from backfill_assets.tardis.client import TardisClient

if TYPE_CHECKING:
    import dagster as dg
    from dagster_shared.error import SerializableErrorInfo

#: A run that has not ended this long after an interrupt is interrupted again.
_SECONDS_TO_END: Final = 5.0
_QUIET: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
#: The class before the text of a deliberate failure.
_OWN_CLASS: Final = re.compile(r"^backfill_assets[.\w]*: ")
#: Colors of states; all other states are red.
_STYLES: Final = {"published": "green", "degraded": "yellow"}


@dataclass(frozen=True, slots=True)
class LocalRun:
    """An ended run.

    Attributes
    ----------
    fetched, kept, loads, skipped
        Numbers of feeds and partitions, from the metadata of its materializations.
    failures
        Steps that failed and checks that did not pass, each with its reason.
    """

    succeeded: bool
    fetched: int
    kept: int
    loads: int
    skipped: int
    failures: tuple[str, ...]

    def text(self, seconds: float) -> str:
        """Return the work of the run in one line."""
        if self.fetched == 0 and self.loads == 0 and self.kept:
            return (
                f"Nothing was done twice: {plural(self.kept, 'feed')} {'was' if self.kept == 1 else 'were'} "
                f"already in the lake, {plural(self.skipped, 'partition')} already matched the lake "
                f"({seconds:.1f} s)."
            )
        loaded = f"{plural(self.loads, 'partition')} loaded in {seconds:.1f} s."
        return f"{plural(self.fetched, 'feed')} fetched, {loaded}"


def run_days(days: Sequence[str]) -> int:
    """Run the days one after the other, a line each.

    Returns
    -------
    int
        The exit code: 0 if all days are in the tables, 130 after Ctrl-C, otherwise 1.
    """
    console = Console()
    settings = current_settings()
    store = open_store(settings.lake)
    insist_on_key(settings, days, store)
    began, states = time.monotonic(), Counter[str]()
    _tell_if_unreachable(console, settings)
    for day in days:
        started = time.monotonic()
        try:
            run = run_day(day, console)
        except KeyboardInterrupt:
            kept = "earlier days and fetched files are kept, and the same command goes on from there"
            console.print(f"[bold]{day}[/] [red]interrupted[/]  {kept}", soft_wrap=True)
            return 128 + signal.SIGINT
        found = stored_day(store, settings, day)
        state = found.outcome if run.succeeded or found.outcome not in _STYLES else "failed"
        states[state] += 1
        style = _STYLES.get(state, "red")
        console.print(
            f"[bold]{day}[/] [{style}]{state}[/]  {run.text(time.monotonic() - started)}", soft_wrap=True
        )
        for text in run.failures:
            console.print(f"  {printable(text)}", highlight=False, markup=False, soft_wrap=True)
        if found.command and state not in ("published", "failed"):
            console.print(f"  {found.command}", highlight=False, markup=False, soft_wrap=True)
    if len(days) > 1:
        counts = ", ".join(f"{n} {state}" for state, n in states.most_common())
        took = time.monotonic() - began
        console.print(f"{plural(len(days), 'day')}: {counts} in {took:.0f} s", soft_wrap=True)
    return int(not states.keys() <= _STYLES.keys())


def insist_on_key(settings: Settings, days: Sequence[str], store: Store | None = None) -> None:
    """Refuse days that the vendor would refuse; days in the lake run without the vendor's files.

    Raises
    ------
    BadInput
        There is no key, and a day is not the first of its month.
    """
    if resolve(settings.tardis.api_key) or own_files_command(settings):
        return
    known = set(store.list("settled/")) if store else set()
    paid = [day for day in days if not day.endswith("-01") and paths.settled_day(day) not in known]
    if paid:
        more = f" and {plural(len(paid) - 1, 'more day')}" if paid[1:] else ""
        variables = " or ".join(variables_in(settings.tardis.api_key)) or "tardis.api_key in the settings"
        msg = (
            f"Tardis requires an API key for {paid[0]}{more}: set {variables} "
            f"(only the first day of each month is free)"
        )
        raise BadInput(msg)


def _tell_if_unreachable(console: Console, settings: Settings) -> None:
    """Say at once that the vendor does not answer: the run retries for minutes before it fails."""
    exchange = next((e for entry in settings.universe for e in entry.exchanges), None)
    if exchange is None:
        return
    client = TardisClient(settings.tardis.model_copy(update={"retry_budget_seconds": 0}))
    try:
        client.exchange_details(exchange)
    except TransientFailure as failure:
        each = seconds_text(settings.tardis.retry_budget_seconds)
        text = f"{failure}; the run tries {1 + STEP_RETRIES} times for up to {each} each, and Ctrl-C ends it"
        console.print(printable(text), style="yellow", highlight=False, markup=False, soft_wrap=True)
    except SettingsError:
        raise  # No day can be run.
    except PermanentFailure:
        return  # The run says it, with the day.


def run_day(day: str, console: Console) -> LocalRun:
    """Run the job in this thread, where an interrupt ends it, and show its events."""
    import dagster as dg

    from backfill_assets.automation.lost_runs import free_slots
    from backfill_assets.automation.run_process import RunProcess, ending_with_the_terminal
    from backfill_assets.definitions import defs

    job = defs.resolve_job_def("day")
    run_id = str(uuid.uuid4())
    with database_failures(), open_instance() as instance:
        _leave_output_on_terminal(instance)
        # This way of running bypasses the run's own executor.
        free_slots(instance, utc_now())
        try:
            with (
                ending_with_the_terminal(),
                interrupting_until_ended(),
                _following(instance, run_id, console, len(job.nodes)),
            ):
                result = job.execute_in_process(
                    partition_key=day,
                    instance=instance,
                    run_id=run_id,
                    run_config=_QUIET,
                    tags=RunProcess.this(run_id).tags(),
                    raise_on_error=False,
                )
        except dg.DagsterExecutionInterruptedError as interrupt:
            raise KeyboardInterrupt from interrupt
        if any(_was_interrupted(event) for event in result.all_events):
            raise KeyboardInterrupt
        return _finished(result, _failures(instance, run_id))


@contextmanager
def interrupting_until_ended() -> Iterator[None]:
    """Repeat an interrupt of the main thread until the block ends: Python or a library may drop the first."""
    seen, written = os.pipe()
    os.set_blocking(written, False)
    over, main = threading.Event(), threading.main_thread().ident

    def repeat() -> None:
        while numbers := os.read(seen, 64):
            while signal.SIGINT in numbers and main is not None and not over.wait(_SECONDS_TO_END):
                signal.pthread_kill(main, signal.SIGINT)

    before = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    repeating = threading.Thread(target=repeat, name="interrupts", daemon=True)
    repeating.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        os.close(written)
        repeating.join()
        os.close(seen)


def _leave_output_on_terminal(instance: dg.DagsterInstance) -> None:
    """Keep no copy of the run's output: the processes that write it print tracebacks at Ctrl-C."""
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
    from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager

    if type(instance.compute_log_manager) is LocalComputeLogManager:
        instance._compute_log_manager = NoOpComputeLogManager()
        instance._compute_log_manager.register_instance(instance)


@contextmanager
def _following(instance: dg.DagsterInstance, run_id: str, console: Console, steps: int) -> Iterator[None]:
    """Show each event of the run as this process stores it, until the block ends."""
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=30),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=steps)

        def show(entry: dg.EventLogEntry) -> None:
            event = entry.dagster_event
            if event is not None:
                progress.advance(task, int(event.is_step_success))
            elif entry.user_message:
                progress.update(task, description=entry.user_message.strip()[:70])

        instance.add_event_listener(run_id, show)
        yield


def _failures(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    found = []
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is not None and event.is_step_failure:
            data = event.step_failure_data
            reason = data.user_failure_data.description if data.user_failure_data else None
            found.append(f"{event.step_key}: {reason or _cause(data.error)}")
        check = event.asset_check_evaluation_data if event is not None and _is_check(event) else None
        if check is not None and not check.passed:
            found.append(f"check {check.asset_key.to_user_string()} {check.check_name}: {check.description}")
    return found


def _cause(error: SerializableErrorInfo | None) -> str:
    """The first error of a chain: Dagster's own around it only says that the step failed."""
    while error is not None and error.cause is not None:
        error = error.cause
    return _OWN_CLASS.sub("", error.message.strip()) if error else "failed"


def _is_check(event: dg.DagsterEvent) -> bool:
    return event.event_type_value == "ASSET_CHECK_EVALUATION"


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    """Whether the step's failure is an interrupt, which Dagster records like any other."""
    error = event.step_failure_data.error if event.is_step_failure else None
    return error is not None and error.cls_name == "DagsterExecutionInterruptedError"


def _finished(result: dg.ExecuteInProcessResult, failures: Sequence[str]) -> LocalRun:
    counts: Counter[str] = Counter()
    for event in result.get_asset_materialization_events():
        for name, value in event.materialization.metadata.items():
            if name in ("feeds_fetched", "feeds_kept", "loads", "skipped"):
                counts[name] += int(str(value.value))
    return LocalRun(
        succeeded=result.success,
        fetched=counts["feeds_fetched"],
        kept=counts["feeds_kept"],
        loads=counts["loads"],
        skipped=counts["skipped"],
        failures=tuple(failures),
    )
