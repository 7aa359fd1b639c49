"""Launch each run as a job of a Ray cluster, with the processors and memory that its day needs.

dagster-ray does the work: it submits runs, stops them, and tells Dagster's run monitoring which are lost.
Two things are done otherwise. The command of a run is quoted for the shell: dagster-ray's own quotes end
early, since Dagster's record of a custom storage has quotes in it. And a run asks for what its day needs.
Ray is no dependency of the package: only a ``dagster.yaml`` that names this launcher imports it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any, Final, Self

import dagster as dg
from dagster._core.launcher import LaunchRunContext
from dagster._core.storage.tags import PARTITION_NAME_TAG
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClassData
from dagster_ray import RayRunLauncher
from dagster_ray.configs import USER_DEFINED_RAY_KEY
from dagster_ray.core.run_launcher import get_job_submission_id_from_run_id

from backfill_assets.automation.run_demand import demand_of_day
from backfill_assets.failures import BackfillError, PermanentFailure
from backfill_assets.lake.store import open_store
from backfill_assets.settings import current_settings

#: Runs of no single day, and days that nothing is known of, get what ``dagster.yaml`` says.
_UNKNOWN: Final[dict[str, Any]] = {}


class RayLauncher(RayRunLauncher):  # type: ignore[misc]  # its types are not looked at
    """dagster-ray's launcher and settings; the tag ``dagster-ray/config`` of a run goes before its demand."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make the launcher that ``dagster.yaml`` names.

        Without an address Ray's client takes its own variable, RAY_API_SERVER_ADDRESS, when it is first used:
        runs, whose nodes need not know it, load the launcher, too.
        """
        return cls(inst_data=inst_data, **{"address": None, **config_value["ray"]})

    @property
    def supports_resume_run(self) -> bool:
        """No: a run that is lost is made again by Dagster's run retries, and finds what it has finished."""
        return False

    def launch_run(self, context: LaunchRunContext) -> None:
        """Submit the run.

        Raises
        ------
        PermanentFailure
            The run does not say which code it runs.
        """
        run = context.dagster_run
        if context.job_code_origin is None:
            msg = f"run {run.run_id} does not say which code it runs: launch it from a code location"
            raise PermanentFailure(msg)
        origin = context.job_code_origin
        words = ExecuteRunArgs(
            origin, run.run_id, self._instance.get_ref(), set_exit_code_on_failure=True
        ).get_command_args()
        # Not by the name `dagster`: a node's PATH need not have the environment's folder.
        python = origin.repository_origin.executable_path
        command = [python, "-m", "dagster", "api", *words[-2:]]
        given = json.loads(run.tags.get(USER_DEFINED_RAY_KEY, "{}"))
        demand = json.dumps({**self._demand(run), **given})
        self._launch_ray_job(
            get_job_submission_id_from_run_id(run.run_id),
            shlex.join(command),
            run.with_tags({**run.tags, USER_DEFINED_RAY_KEY: demand}),
        )

    def _demand(self, run: dg.DagsterRun) -> dict[str, Any]:
        """What the run's job asks Ray for; that of ``dagster.yaml`` where the lake cannot be read."""
        try:
            settings = current_settings()
            demand = demand_of_day(open_store(settings.lake), run.tags.get(PARTITION_NAME_TAG, ""))
        except BackfillError as failure:
            self._instance.report_engine_event(f"The day's size is not known: {failure}", run)
            return _UNKNOWN
        if demand is None:
            return _UNKNOWN
        self._instance.report_engine_event(demand.text, run)
        return {"num_cpus": demand.processors, "memory": demand.memory}
