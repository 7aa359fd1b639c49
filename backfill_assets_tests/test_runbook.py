"""The runbook has a section for every alert, and its commands work as written; those that repair a state
repair it here.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import pytest
import yaml
from dagster_dg_cli.cli.launch import launch_command

from backfill_assets.alerts.incidents import Rule
from backfill_assets.cli import main
from backfill_assets.lake import paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.progress.stored_days import stored_day
from backfill_assets.progress.watch import day_problems
from backfill_assets.settings import ENVIRONMENTS, load_settings
from backfill_assets_tests.times import takes_minutes

REPOSITORY: Final = Path(__file__).parents[1]
DAY: Final = "2024-01-01"
#: The version's content in the examples; the version of the stand-in has another.
CONTENT: Final = "18a200144829"


def sections() -> dict[str, list[str]]:
    """The commands of each section, by the alert of the section."""
    page = (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8")
    parts = re.split(r"^##+ ", page, flags=re.MULTILINE)[1:]
    found = {}
    for part in parts:
        blocks = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
        if name := re.match(r"`(\w+)`\n", part):
            found[name[1]] = [line for block in blocks for line in block.splitlines()]
    return found


def test_every_rule_of_incidents_and_every_alert_of_prometheus_has_its_section_with_a_command() -> None:
    groups = yaml.safe_load((REPOSITORY / "monitoring" / "alert_rules.yaml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]
    assert set(sections()) == {*get_args(Rule), *alerts}
    assert all(sections().values())


@pytest.mark.parametrize("command", sorted({line for lines in sections().values() for line in lines}))
def test_a_command_of_the_runbook_is_one_that_its_program_takes(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "backfill-assets":
        name, *rest = words
        main.commands[name].make_context(name, rest)
    elif program == "dg":
        launch_command.make_context("launch", words[1:])
    elif program == "systemctl":
        assert (REPOSITORY / "deploy" / "systemd" / f"{words[-1]}.service").is_file()
    elif program == "docker":
        services = yaml.safe_load((REPOSITORY / words[2]).read_text(encoding="utf-8"))["services"]
        assert words[-1] in services
    else:
        assert program in ("curl", "dagster-daemon", "kubectl")


class Desk:
    """A folder with the local environment, where a person types commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".home").mkdir()
        (folder / ".home" / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
        self.settings = load_settings(ENVIRONMENTS / "local.yaml")
        self.store = LocalStore(folder / "data" / "lake")

    def types(self, section: str) -> None:
        """Run every command of the section as written, with the stand-in running; the last must succeed.

        Earlier commands look, and report a failure by their exit code.
        """
        ours = ("BACKFILL_", "DAGSTER_", "TARDIS_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        script = "\n".join(sections()[section]).replace(CONTENT, self.content())
        done = subprocess.run(
            ["backfill-assets", "standins", "--", "bash", "-c", script],
            cwd=self.folder,
            env={**kept, "PATH": path, "DAGSTER_HOME": str(self.folder / ".home")},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"

    def content(self) -> str:
        """The content of the examples' feed, as a person copies it from a message."""
        files = self.folder.glob(f"data/lake/ticks/binance/trades/ADAUSDT/{DAY}/*.parquet")
        return next((file.stem[:12] for file in files), CONTENT)

    def problems(self) -> list[str]:
        """Rules of the incidents that a look would find for the day."""
        found = stored_day(self.store, self.settings, DAY)
        return [problem.rule for problem in day_problems(DAY, found, late="late")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Desk(folder)


@pytest.mark.story
@takes_minutes
@pytest.mark.timeout(900)
def test_what_the_runbook_says_mends_a_day(desk: Desk) -> None:
    assert desk.problems() == ["day_late"]
    desk.types("day_late")
    assert desk.problems() == []
    (desk.folder / "data" / "lake" / paths.settled_day(DAY)).write_bytes(b"{")
    assert desk.problems() == ["day_unreadable"]
    desk.types("day_unreadable")
    assert desk.problems() == []
    desk.types("feed_restated")
    assert desk.problems() == ["feed_left_out"]
    desk.types("version_pending")
    assert desk.problems() == []
    for looks in (
        "run_failed",
        "load_failed",
        "disk_low",
        "BackfillDayNotPublished",
        "BackfillCompletenessLow",
    ):
        desk.types(looks)
    assert desk.problems() == []
