"""A clock that a rehearsal moves, for all processes of a deployment and the stand-in.

A test cannot wait for days to pass, so the clock is the one thing that is mocked. Processes whose
``PYTHONPATH`` contains the folder of ``MovedClock`` add the seconds in its file to Dagster's clock and to
``days.utc_now``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

_SITE: Final = "from backfill_assets.rehearsal.moved_clock import install\n\ninstall({file!r})\n"


class MovedClock:
    """The clock as the rehearsal sets it; it runs on from there.

    Parameters
    ----------
    folder
        The folder of its file, and of the module through which a process finds it.
    """

    def __init__(self, folder: Path, moment: datetime) -> None:
        folder.mkdir()
        self._file = folder / "seconds"
        (folder / "sitecustomize.py").write_text(_SITE.format(file=str(self._file)), encoding="utf-8")
        #: Environment variables of the processes.
        self.variables = {"PYTHONPATH": str(folder)}
        self.set(moment)

    def set(self, moment: datetime) -> None:
        """Move the clock to this moment, for all processes at once."""
        new = self._file.with_suffix(".new")
        new.write_text(str((moment - datetime.now(UTC)).total_seconds()), encoding="utf-8")
        new.replace(self._file)

    def now(self) -> datetime:
        """The time that the clock shows."""
        return datetime.now(UTC) + _seconds(self._file)


def _seconds(file: Path) -> timedelta:
    return timedelta(seconds=float(file.read_text(encoding="utf-8")))


def install(name: str) -> None:
    """Let this process read the clock of that file, in modules that it imports from now on."""
    file = Path(name)

    def now() -> datetime:
        return datetime.now(UTC) + _seconds(file)

    def of_days(module: ModuleType) -> None:
        vars(module).update(utc_now=now)

    def of_dagster(module: ModuleType) -> None:
        vars(module).update(
            _mockable_get_current_datetime=now, _mockable_get_current_timestamp=lambda: now().timestamp()
        )

    sys.meta_path.insert(0, _Finder({"backfill_assets.days": of_days, "dagster._time": of_dagster}))


class _Finder:
    """Finds modules as usual, and changes the named ones when they are loaded."""

    def __init__(self, changes: dict[str, Callable[[ModuleType], None]]) -> None:
        self._changes = changes

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._changes:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            change, load = self._changes[name], spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                change(module)

            vars(spec.loader).update(exec_module=exec_module)
        return spec
