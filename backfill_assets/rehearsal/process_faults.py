"""Scenarios that disturb the run itself: killed, stopped, doubled, or without room on the disk."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from mmap import PAGESIZE
from pathlib import Path
from typing import Final

from backfill_assets.lake import paths
from backfill_assets.rehearsal.house import RUN_SECONDS, House
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.stage import Stage

#: A run that is asked to end does so within this time.
END_SECONDS: Final = 10.0
_QUICK_HANG_SECONDS: Final = 4.0
_FULL_HANG_SECONDS: Final = 60.0
_RANDOM_KILLS: Final = 6
#: Range of random kills: from the imports to the end of a run that has most of its work done.
_RANDOM_SECONDS: Final = (2.0, 5.0)
#: The disk has room for this share of an undisturbed lake.
_DISK_SHARE: Final = 0.4
#: A tmpfs takes memory; a larger lake is not mounted.
_MOST_DISK_BYTES: Final = 2**30


def _moments(house: House, stage: Stage) -> dict[str, Callable[[], bool]]:
    """Boundaries of the stages that are visible from outside, the earliest first."""
    day, half = stage.day, stage.undisturbed.requests // 2
    asked = len(house.standin.requests)
    settled = house.lake / paths.settled_day(day)
    return {
        "while it fetches": lambda: len(house.standin.requests) >= asked + half,
        "when the day is settled": settled.exists,
        "while it publishes": lambda: any(house.warehouse.glob(f"[!.]*/{day}.parquet")),
    }


def killed(stage: Stage) -> None:
    """SIGKILL at the boundaries of the stages, in --full also at random moments."""
    day = stage.day
    with stage.house() as house:
        for about, condition in _moments(house, stage).items():
            code = _kill(stage, house, about, condition)
            stage.check(
                Promise.DETECTED,
                f"killed {about}: the exit code is -9",
                f"exit code {code}",
                kept=code == -signal.SIGKILL,
            )
        stage.is_told(house, day, "killed", bad=True)
        dice = random.Random(day)
        for _ in range(_RANDOM_KILLS if stage.is_full else 0):
            # The run may end before the kill: each run has less left to do.
            seconds = dice.uniform(*_RANDOM_SECONDS)
            _kill(stage, house, f"{seconds:.1f} s after its start", _After(seconds))
        stage.succeeded(Promise.RECOVERED, house.run(day), "the run after the kills")
        stage.ends_undisturbed(house, "after the kills")
        stage.is_told(house, day, "after the kills", bad=False)


def _kill(stage: Stage, house: House, about: str, condition: Callable[[], bool]) -> int | None:
    """Kill a run at that moment, check the state that it leaves, and return its exit code."""
    process = house.start(stage.day)
    process.when(condition)
    process.kill()
    code = process.wait(RUN_SECONDS)
    stage.is_harmless(house, f"killed {about}")
    left = process.left_behind()
    stage.check(Promise.CONTAINED, f"killed {about}: no process is left", f"{len(left)} left", kept=not left)
    return code


class _After:
    """True once this many seconds have passed since the first call."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._first = 0.0

    def __call__(self) -> bool:
        self._first = self._first or time.monotonic()
        return time.monotonic() - self._first >= self._seconds


def hung(stage: Stage) -> None:
    """The process stands still for some seconds, then goes on."""
    seconds = _FULL_HANG_SECONDS if stage.is_full else _QUICK_HANG_SECONDS
    with stage.house() as house:
        process = house.start(stage.day)
        came = process.when(_moments(house, stage)["while it fetches"])
        process.send(signal.SIGSTOP)
        time.sleep(seconds)
        state = house.state(stage.day)
        stage.check(
            Promise.DETECTED,
            f"stopped for {seconds:g} s while it fetches: the day does not count as published",
            state.outcome if came else "the run ended before it could be stopped",
            kept=came and state.outcome == "missing",
        )
        stage.is_harmless(house, "while it stands still")
        process.send(signal.SIGCONT)
        code = process.wait(RUN_SECONDS)
        stage.check(
            Promise.CONTAINED,
            "the run goes on and ends with exit code 0",
            f"exit code {code}",
            kept=code == 0,
        )
        stage.ends_undisturbed(house, "after the stop")
        stage.is_told(house, stage.day, "after the stop", bad=False)


def stopped(stage: Stage) -> None:
    """SIGTERM ends the run cleanly."""
    with stage.house() as house:
        process = house.start(stage.day)
        came = process.when(_moments(house, stage)["while it fetches"])
        began = time.monotonic()
        process.send(signal.SIGTERM)
        code = process.wait(END_SECONDS)
        took = time.monotonic() - began
        stage.check(
            Promise.CONTAINED,
            f"SIGTERM while it fetches: ends by itself within {END_SECONDS:g} s",
            f"exit code {code} after {took:.1f} s" if came else "ended before it was asked to",
            kept=came and code is not None,
        )
        stage.check(
            Promise.DETECTED, "the exit code is not 0", f"exit code {code}", kept=code not in (0, None)
        )
        left = process.left_behind()
        stage.check(Promise.CONTAINED, "no process is left", f"{len(left)} left", kept=not left)
        stage.is_harmless(house, "after SIGTERM")
        stage.succeeded(Promise.RECOVERED, house.run(stage.day), "the run after SIGTERM")
        stage.ends_undisturbed(house, "after SIGTERM")
        stage.is_told(house, stage.day, "after the second run", bad=False)


def two_at_once(stage: Stage) -> None:
    """Two processes run the same day at the same time."""
    with stage.house() as house:
        both = [house.start(stage.day), house.start(stage.day)]
        codes = [process.wait(RUN_SECONDS) for process in both]
        stage.check(
            Promise.CONTAINED,
            "both runs end, at least one with exit code 0",
            f"exit codes {codes}",
            kept=0 in codes and None not in codes,
        )
        stage.ends_undisturbed(house, "after both")
        stage.succeeded(Promise.RECOVERED, house.run(stage.day), "a third run")
        stage.is_told(house, stage.day, "after the third", bad=False)


def disk_full(stage: Stage) -> None:
    """The disk of the lake is too small for the day, then larger."""
    promises = (Promise.DETECTED, Promise.CONTAINED, Promise.RECOVERED, Promise.NOTHING_LOST)
    with stage.house() as house:
        size = _too_small(house, stage.undisturbed.lake_bytes)
        if why := _mount_lake(house, size):
            stage.not_run(
                (*promises, Promise.NOTHING_WRONG_PUBLISHED, Promise.SOMEBODY_TOLD),
                f"a run on a disk of {size:,} bytes",
                why,
            )
            return
        try:
            run = house.run(stage.day)
            stage.check(
                Promise.DETECTED,
                f"a disk of {size:,} bytes: the run fails",
                f"exit code {run.code}",
                kept=run.code not in (0, None),
            )
            state = house.state(stage.day)
            stage.check(
                Promise.CONTAINED, "the day does not count", state.outcome, kept=state.outcome != "published"
            )
            stage.is_harmless(house, "on the full disk")
            stage.is_told(house, stage.day, "on the full disk", bad=True)
            more = _mount(house.lake, f"remount,size={size * 10}")
            stage.check(Promise.RECOVERED, "the disk is made larger", more or "it is larger", kept=not more)
            stage.succeeded(Promise.RECOVERED, house.run(stage.day), "the run on the larger disk")
            stage.ends_undisturbed(house, "on the larger disk")
            stage.is_told(house, stage.day, "on the larger disk", bad=False)
        finally:
            _unmount(house.lake)


def _too_small(house: House, needed: int) -> int:
    """Size of a disk that has room for the other days of the lake, and for a part of the day's data."""
    files = [file.stat().st_size for file in house.lake.rglob("*") if file.is_file()]
    # A tmpfs keeps whole pages.
    there = sum(-(-size // PAGESIZE) * PAGESIZE for size in files)
    return there + int((needed - sum(files)) * _DISK_SHARE)


def _mount_lake(house: House, size: int) -> str:
    """Move the lake with its content to a disk of this size; return the reason if that is not possible."""
    if size > _MOST_DISK_BYTES:
        return f"the lake of the day is too large for the memory of a tmpfs ({size:,} bytes)"
    other_days = house.folder / "other-days"
    house.lake.mkdir(exist_ok=True)
    house.lake.rename(other_days)
    house.lake.mkdir()
    why = _mount(house.lake, f"size={size}")
    if not why:
        try:
            shutil.copytree(other_days, house.lake, dirs_exist_ok=True)
        except OSError:
            _unmount(house.lake)
            raise
    shutil.rmtree(other_days)
    return why


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(folder: Path, options: str) -> str:
    """Mount a tmpfs; return the reason if that is not possible."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no command mount"
    return "" if done.returncode == 0 else f"no tmpfs may be mounted: {done.stderr.strip()}"
