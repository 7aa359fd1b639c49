"""Launch each run as a job of a Ray cluster, with the processors and memory that its day needs.

dagster-ray does the work: it submits and stops runs, and tells Dagster's run monitoring which are lost. This
launcher differs in two ways. It quotes a run's command for the shell: dagster-ray's own quotes end early,
since Dagster's record of a custom storage contains quotes. And it requests the resources that the day needs.
Ray is not a dependency of the package: only a ``dagster.yaml`` that names this launcher imports it.
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

#: Runs without a single day, and days of unknown size, use the resources in ``dagster.yaml``.
_UNKNOWN: Final[dict[str, Any]] = {}


class RayLauncher(RayRunLauncher):  # type: ignore[misc]  # its types are not checked
    """dagster-ray's launcher and settings; a run's tag ``dagster-ray/config`` overrides its demand."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make the launcher that ``dagster.yaml`` names.

        Without an address Ray's client reads its own variable, RAY_API_SERVER_ADDRESS, when it is first used:
        runs load the launcher too, and their nodes need not know the address.
        """
        return cls(inst_data=inst_data, **{"address": None, **config_value["ray"]})

    @property
    def supports_resume_run(self) -> bool:
        """No: Dagster's run retries make a lost run again, which finds the work already finished."""
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
        # The name `dagster` would not do: a node's PATH need not have the environment's folder.
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
        """Return the run's demand on Ray; that of ``dagster.yaml`` if the lake cannot be read."""
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
