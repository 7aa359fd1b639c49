"""The command as a user starts it: a process of its own, in an empty folder and a clean environment.

``Desk.run`` forks it from a process that has imported the libraries; ``Desk.start`` starts a new interpreter.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.command_forks import CommandForks, command_forks, starts_otherwise

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
#: Variables with these prefixes would change the behavior of a command.
OURS = ("BACKFILL_", "DAGSTER_", "TARDIS_", "GOOGLE_", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST")
EXCHANGES = ("binance", "coinbase", "kraken")
SYMBOLS = ("BTC-USDT", "ETH-USDT", "ADA-USDT")


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    # Paths are real and messages long, so nothing may break lines.
    return {**kept, "COLUMNS": "200", "NO_COLOR": "1"}


@dataclass
class Answer:
    """The result of a command: its exit code and its output."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a refusal; any other text on standard error is a mistake."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("Error: ")
        return lines[0].removeprefix("Error: ")


@dataclass
class Desk:
    """An empty folder in which commands run."""

    folder: Path
    forks: CommandForks
    environment: dict[str, str] = field(default_factory=clean_environment)

    def set(self, **variables: str) -> Desk:
        self.environment.update(variables)
        return self

    def command(self, *arguments: str) -> list[str]:
        return [str(SCRIPTS / "backfill-assets"), *arguments]

    def run(self, *arguments: str, cwd: Path | None = None, program: str = "backfill-assets") -> Answer:
        words, folder = [str(SCRIPTS / program), *arguments], cwd or self.folder
        if Path(program).is_absolute() or starts_otherwise(self.environment):
            done = subprocess.run(
                words, cwd=folder, env=self.environment, capture_output=True, timeout=240, check=False
            )
        else:
            done = self.forks.run(words, folder, self.environment)
        answer = Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode())
        if program == "backfill-assets":
            assert "Traceback" not in answer.out + answer.err
        return answer

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in its own session, so that a signal to it reaches no other process."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def left(self) -> list[str]:
        """Names in the folder; a refused command must leave it empty."""
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def dagster_home(tmp_path: Path) -> Path:
    """A fresh DAGSTER_HOME as ``make`` lays it out."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    return home


@pytest.fixture(scope="session")
def forks() -> Iterator[CommandForks]:
    with command_forks() as running:
        yield running


@pytest.fixture
def desk(tmp_path: Path, forks: CommandForks) -> Desk:
    folder = tmp_path / "desk"
    folder.mkdir()
    return Desk(folder, forks)


@pytest.fixture(scope="session")
def market() -> Market:
    """A market of small days."""
    return Market(rows={(exchange, symbol): 2_000 for exchange in EXCHANGES for symbol in SYMBOLS})


@pytest.fixture
def standin(market: Market) -> Iterator[TardisStandin]:
    """Answers as on 2024-02-10 at noon."""
    with TardisStandin(market, clock=lambda: datetime(2024, 2, 10, 12, tzinfo=UTC)) as running:
        yield running


@pytest.fixture(scope="session")
def closed_port() -> int:
    """A port on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def settings_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a settings file for a stand-in; keyword arguments replace its sections."""

    def write(url: str, **changes: Any) -> Path:
        content = {
            "tardis": {
                "datasets_endpoint": f"{url}/v1/datasets",
                "api_endpoint": f"{url}/v1",
                "api_key": "${TARDIS_API_KEY:-}",
                "retry_budget_seconds": 0,
            },
            "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT"]}],
            "lake": {"uri": str(tmp_path / "desk" / "lake")},
            "warehouse": {"kind": "duckdb", "folder": str(tmp_path / "desk" / "warehouse")},
            **changes,
        }
        file = tmp_path / "settings.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return write


@pytest.fixture
def python() -> str:
    return sys.executable
