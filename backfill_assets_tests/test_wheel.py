"""Contents of a release: wheel and sdist have all files that run, and run without the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[1]
#: Inputs of a build; a build leaves files beside the sources, so it gets copies.
SOURCES: Final = ("backfill_assets", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
OURS: Final = ("BACKFILL_", "DAGSTER_", "TARDIS_")


def ended(*words: str | Path, cwd: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*OURS, "PYTHONPATH"))}
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**kept, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def packaged() -> set[str]:
    """The package's files in the clone."""
    package = REPOSITORY / "backfill_assets"
    files = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(REPOSITORY).as_posix() for path in files}


@pytest.mark.story
@pytest.mark.timeout(600)
def test_a_wheel_that_is_made_of_the_sdist_runs_the_demo_in_an_empty_environment(tmp_path: Path) -> None:
    sources, dist = tmp_path / "sources", tmp_path / "dist"
    sources.mkdir()
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, sources / name)
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(dist)!r})"
    ended(sys.executable, "-c", build, cwd=sources)
    [sdist] = dist.glob("backfill_assets-*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert packaged() <= {name.partition("/")[2] for name in archive.getnames()}
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    ended(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", dist, sdist, cwd=tmp_path)
    [wheel] = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert packaged() <= set(archive.namelist())

    # The libraries are those of the tests; the package is the wheel's: no .pth file beside them is read.
    empty = tmp_path / "empty"
    ended(sys.executable, "-m", "venv", "--without-pip", empty, cwd=tmp_path)
    python = empty / "bin" / "python"
    ended(*pip, "--python", python, "install", "-q", "--no-deps", wheel, cwd=tmp_path)
    [packages] = empty.glob("lib/*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command, desk = empty / "bin" / "backfill-assets", tmp_path / "desk"
    desk.mkdir()
    where = ended(python, "-c", "import backfill_assets; print(backfill_assets.__file__)", cwd=desk)
    assert Path(where.strip()).is_relative_to(packages)
    assert ended(command, "--version", cwd=desk) == f"backfill-assets, version {wheel.name.split('-')[1]}\n"
    said = ended(command, "demo", cwd=desk)
    assert "9 feeds fetched, 5 partitions loaded" in said
    assert "make ui" not in said
    assert [path.name for path in desk.iterdir()] == ["data"]
