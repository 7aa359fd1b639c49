"""A launcher that reads from a file whether its runs are alive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._serdes import ConfigurableClass, ConfigurableClassData


class TellingLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    def __init__(self, file: Path, inst_data: ConfigurableClassData | None = None) -> None:
        self._file, self._inst_data = file, inst_data
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {"file": str}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(Path(config_value["file"]), inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        raise NotImplementedError

    def terminate(self, run_id: str) -> bool:
        raise NotImplementedError

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, _run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return the status in the file; without a file the check raises."""
        return CheckRunHealthResult(WorkerStatus(self._file.read_text(encoding="utf-8")), "no python there")
