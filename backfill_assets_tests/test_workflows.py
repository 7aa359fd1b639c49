"""Workflows are valid for GitHub, and their scripts do the same here as there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

REPOSITORY: Final = Path(__file__).parents[1]
WORKFLOWS: Final = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


def steps(name: str, job: str) -> list[dict[str, Any]]:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / f"{name}.yml").read_text())
    found: list[dict[str, Any]] = workflow["jobs"][job]["steps"]
    return found


def ended(script: str, folder: Path, **variables: str) -> str:
    """The script's output, run as GitHub runs it, without the caller's settings."""
    ours = ("BACKFILL_", "DAGSTER_", "TARDIS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_what_its_schema_says(workflow: Path) -> None:
    tool = Path(sys.executable).parent / "check-jsonschema"
    words = [tool, "--builtin-schema", "vendor.github-workflows", workflow]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_where_a_job_does_not_ask_for_more(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}


def test_a_release_has_the_changelogs_notes_of_its_version_and_no_other(tmp_path: Path) -> None:
    [script] = [step["run"] for step in steps("release", "build") if "notes" in step.get("name", "")]
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0\n\nnew\n\n## 0.1.0\n\nold\n")
    ended(script, tmp_path, GITHUB_REF_NAME="v0.2.0")
    assert (tmp_path / "notes.md").read_text().split() == ["new"]
    with pytest.raises(AssertionError):
        ended(script, tmp_path, GITHUB_REF_NAME="v0.3.0")


def test_a_release_is_tagged_with_the_version_that_is_installed(tmp_path: Path) -> None:
    [script] = [step["run"] for step in steps("release", "build") if "version" in step.get("name", "")]
    script = script.replace(".venv/bin/", "")
    version = ended("backfill-assets --version", tmp_path).split()[-1]
    ended(script, tmp_path, GITHUB_REF_NAME=f"v{version}")
    with pytest.raises(AssertionError):
        ended(script, tmp_path, GITHUB_REF_NAME="v9.9.9")


def test_only_what_has_passed_the_tests_is_released() -> None:
    jobs = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("test", "build")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


@pytest.mark.story
def test_the_example_of_a_materialized_partition_runs_as_it_is_written(tmp_path: Path) -> None:
    *_, step = steps("materialize", "materialize")
    home = tmp_path / ".home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    script = step["run"].replace(". .venv/bin/activate", "true")
    said = ended(script, tmp_path, DAGSTER_HOME=str(home), DAY="2024-01-01")
    assert said.count("available") == 9
