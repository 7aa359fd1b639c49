"""Launch each run as a fork of one process that has imported the modules of a run.

A fresh process spends more on its imports than on a small day. The daemon starts ``run_server`` with its
first run; the server ends with the daemon, and its forks continue. Runs of another Python, and all runs where
forks are not safe (macOS), start as a fresh process by the same command.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import dagster as dg
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from backfill_assets.automation.run_process import RunProcess
from backfill_assets.failures import PermanentFailure, TransientFailure

#: Time for the server's imports and a fork; shorter than ``lost_runs.LAUNCH_SECONDS``.
ANSWER_SECONDS: Final = 40.0
END_SECONDS: Final = 5.0
FORKS_ARE_SAFE: Final = sys.platform == "linux"
#: Keeps libraries from starting threads at import: a fork has one thread, and others' locks stay locked.
SERVER: Final = (
    *("env", "OPENBLAS_NUM_THREADS=1", "JE_ARROW_MALLOC_CONF=background_thread:false"),
    *(sys.executable, "-m", "backfill_assets.automation.run_server"),
)


class ForkingRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Executes runs as processes on the machine that launches them, with its environment.

    Any process on that machine can terminate a run, since the run's tags say where it is running.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._lock = threading.Lock()
        self._server: _RunServer | None = None
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """The data from which Dagster makes the launcher in another process."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """No settings."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003
        """Make the launcher that ``dagster.yaml`` names."""
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's process and record where it is.

        Raises
        ------
        PermanentFailure
            The run does not say which code it runs.
        TransientFailure
            The machine has no process or memory left for the run.
        """
        run, instance = context.dagster_run, self._instance
        if context.job_code_origin is None:
            msg = f"run {run.run_id} does not say which code it runs: launch it from a code location"
            raise PermanentFailure(msg)
        origin = context.job_code_origin
        words = ExecuteRunArgs(origin, run.run_id, instance.get_ref()).get_command_args()[-2:]
        python = origin.repository_origin.executable_path
        is_forked = FORKS_ARE_SAFE and python == sys.executable
        pid = self._forked(words) if is_forked else _started([python, "-m", "dagster", "api", *words])
        process = RunProcess.at(run.run_id, pid)
        try:
            instance.add_run_tags(run.run_id, process.tags())
        except Exception:
            # Dagster ends the run as failed, and may start it again.
            process.end()
            raise

    def terminate(self, run_id: str) -> bool:
        """Ask the run's process to end; return False if there is none on this machine."""
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        process = RunProcess.of(run)
        if process is not None and process.end():
            return True
        where = "is not known yet" if process is None else f"was {process.pid} on {process.machine}"
        self._instance.report_engine_event(f"cannot be terminated here: its process {where}", run)
        return False

    def dispose(self) -> None:
        """Let the run server end; runs continue."""
        with self._lock:
            if self._server is not None:
                self._server.close()
                self._server = None

    def _forked(self, words: Sequence[str]) -> int:
        with self._lock:
            answer = self._server.fork(words) if self._server is not None else ""
            if not answer:
                if self._server is not None:
                    self._server.close()
                self._server = _RunServer()
                answer = self._server.fork(words)
        if answer.isdecimal():
            return int(answer)
        msg = f"no process for the run: {answer or 'the run server cannot start; its log says why'}"
        raise TransientFailure(msg)


class _RunServer:
    """The parent's handle on the run server."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        # A stopped server would keep all launches waiting.
        self._socket.settimeout(ANSWER_SECONDS)
        self._answers = self._socket.makefile()

    def fork(self, words: Sequence[str]) -> str:
        """Run ``dagster api`` with these words in a fork.

        Returns
        -------
        str
            The fork's process id, or the reason for a failure; empty if the run server is gone.
        """
        try:
            self._socket.sendall(f"{json.dumps(words)}\n".encode())
            return self._answers.readline().strip()
        except OSError:
            return ""

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _started(command: Sequence[str]) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=process.wait, daemon=True, name=f"end of {process.pid}").start()
    return process.pid
