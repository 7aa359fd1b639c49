"""The process of a run: it records where it is, ends with its terminal, and outlasts a database outage.

This is an executor, since every run passes one: runs of the daemon, of ``dg launch`` and of ``dagster job
execute``. Dagster's own executor logs the number of its process, without the machine. ``lost_runs`` finds the
processes that are gone.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster._core.definitions.executor_definition import IN_PROC_CONFIG, _core_in_process_executor_creation
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.executor.base import Executor
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.storage.tags import PARTITION_NAME_TAG, RETRY_ON_ASSET_OR_OP_FAILURE_TAG

from backfill_assets import logs
from backfill_assets.days import utc_now

TAG_PROCESS: Final = "backfill_assets/process"
#: Two readings of one start differ by less, and a process number is not reused so soon.
_SAME_START_SECONDS: Final = 0.05
#: An interrupted run is interrupted again after this long.
_SECONDS_TO_END: Final = 2.0
#: Thresholds of Python's cycle collector. A day's documents are hundreds of thousands of objects without
#: cycles; with the default thresholds the collector takes a fifth of the CPU time of a day of 500 feeds.
_COLLECT_AFTER: Final = (100_000, 50, 100)
#: Names of the errors as events give them. An asset's own database raises the package's failures.
_ERRORS_OF_DATABASES: Final = frozenset(
    {"OperationalError", "InterfaceError", "InternalError", "DagsterPostgresException"}
)


@dataclass(frozen=True, slots=True)
class RunProcess:
    """The machine and process in which a run is running.

    Attributes
    ----------
    run
        The run's id, because Dagster copies the tags of a run to the run that repeats it.
    machine
        Host and process-number namespace, because containers of one name count their own processes.
    since
        Start of the process in seconds since the machine's start; setting the clock does not change it.
    """

    run: str
    machine: str
    pid: int
    since: float

    @classmethod
    def this(cls, run: str) -> RunProcess:
        """Return the calling process as the process of the run."""
        return cls.at(run, os.getpid())

    @classmethod
    def at(cls, run: str, pid: int) -> RunProcess:
        """Return a process of this machine; one that has already ended counts as gone."""
        import psutil

        try:
            since = _start_of(pid)
        except psutil.NoSuchProcess:
            since = 0.0
        return cls(run, _machine(), pid, since)

    @classmethod
    def of(cls, run: dg.DagsterRun) -> RunProcess | None:
        """Return the process that the run recorded; None if it has not begun or uses another executor."""
        try:
            found = cls(**json.loads(run.tags.get(TAG_PROCESS, "{}")))
        except (ValueError, TypeError):
            return None
        return found if found.run == run.run_id else None

    def tags(self) -> dict[str, str]:
        """The tag by which ``of`` finds the process."""
        return {TAG_PROCESS: json.dumps(asdict(self))}

    @property
    def is_of_this_machine(self) -> bool:
        """Whether this machine can tell if the process is gone."""
        return self.machine == _machine()

    def end(self) -> bool:
        """Ask the process to end as interrupted; return False if it is not on this machine."""
        if not self.is_of_this_machine or self.is_gone():
            return False
        try:
            os.kill(self.pid, signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def is_gone(self) -> bool:
        """Whether the process no longer exists on this machine."""
        import psutil

        try:
            same = abs(_start_of(self.pid) - self.since) < _SAME_START_SECONDS
            return not same or psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def _machine() -> str:
    namespace = Path("/proc/self/ns/pid")
    number = f"/{namespace.stat().st_ino}" if namespace.exists() else ""
    return f"{socket.gethostname()}{number}"


def _start_of(pid: int) -> float:
    import psutil

    # Read first: psutil counts the start of a process from the machine's start it last read.
    boot = psutil.boot_time()
    return psutil.Process(pid).create_time() - boot


@contextmanager
def ending_with_the_terminal() -> Iterator[None]:
    """Treat a closed terminal like SIGTERM, so that the run ends as interrupted; ``nohup`` still holds."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        yield
        return

    former: list[Any] = []

    def end(*_: Any) -> None:
        # Python drops an exception in a finalizer or an import, so the run is interrupted until it ends.
        replaced = signal.signal(signal.SIGALRM, end)
        former.append(replaced)
        signal.setitimer(signal.ITIMER_REAL, _SECONDS_TO_END)
        # Dagster replaces the SIGTERM handler from phase to phase.
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGHUP, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
        if former:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former[0])


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Collect cycles seldom, and exclude the objects that already exist, which are the libraries'."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class _RunExecutor(InProcessExecutor):
    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        # SQLAlchemy loads slower than the code location, which every Dagster process imports.
        from backfill_assets.automation.instance_storage import wait_for_database
        from backfill_assets.automation.lost_runs import free_slots

        instance, run_id = plan_context.instance, plan_context.run_id
        wait_for_database(instance)
        day = plan_context.dagster_run.tags.get(PARTITION_NAME_TAG, "")
        with logs.bound(run=run_id, day=day), ending_with_the_terminal(), collecting_seldom():
            told, this = RunProcess.of(plan_context.dagster_run), RunProcess.this(run_id)
            if told is None or (told.machine, told.pid) != (this.machine, this.pid):
                instance.add_run_tags(run_id, this.tags())
            free_slots(instance, utc_now())
            for event in super().execute(plan_context, execution_plan):
                if _is_by_database(event):
                    # The step is not at fault: start the run again like one whose process was lost.
                    instance.add_run_tags(run_id, {RETRY_ON_ASSET_OR_OP_FAILURE_TAG: "true"})
                yield event


def _is_by_database(event: dg.DagsterEvent) -> bool:
    """Whether a step failed because Dagster's database refused one of its events."""
    error = event.step_failure_data.error if event.is_step_failure else None
    if error is not None and error.cls_name == "DagsterExecutionStepExecutionError":
        error = error.cause
    return error is not None and error.cls_name in _ERRORS_OF_DATABASES


@dg.executor(name="in_process", config_schema=IN_PROC_CONFIG)
def run_executor(context: dg.InitExecutorContext) -> Executor:
    """Run all steps in the run's process; a process per step costs more than the steps."""
    made = _core_in_process_executor_creation(context.executor_config)
    return _RunExecutor(made.retries, made.step_dependency_config)
