"""Processes that are measured, in turn, and tables of their measures.

A case is a command. It is a fresh process that does its work once on a small input, then measures the work
and prints a line of JSON; so imports and compilation are left out. The memory of the process and its children
is sampled from outside.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

#: Processes write bytecode, so that only the first one, which is not measured, compiles.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
LIBRARIES = ("dagster", "polars", "duckdb", "pandas", "pyarrow", "numba", "numpy", "isal", "tardis-dev")
#: Seconds between two looks at the memory of a case.
SAMPLED_EVERY = 0.02

Run = dict[str, Any]


def timed(work: Callable[[], Any]) -> Run:
    """CPU and wall seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def run_case(work: Callable[..., Any], warm_up: Sequence[str] | None, given: Sequence[str]) -> None:
    """Do the work once without a measurement, then measure it and print the measures.

    Parameters
    ----------
    work
        Called with an empty folder and arguments.
    warm_up, given
        The arguments; without the first it is measured at once.
    """
    with tempfile.TemporaryDirectory(prefix="backfill-case-") as folder:
        for number, arguments in enumerate((warm_up, given)):
            if arguments is not None:
                place = Path(folder) / str(number)
                place.mkdir()
                found = timed(lambda place=place, arguments=arguments: work(place, *arguments))  # type: ignore[misc]
        print(json.dumps(found))


def measure(*command: object) -> Run:
    """Run a Python file of this folder: the JSON of its last line, and ``peak``, its memory in megabytes."""
    process = psutil.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, env=ENVIRONMENT, text=True
    )
    peak = 0.0
    while process.poll() is None:
        try:
            tree = [process, *process.children(recursive=True)]
            peak = max(peak, sum(p.memory_full_info().pss for p in tree) / 2**20)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
        time.sleep(SAMPLED_EVERY)
    output = process.stdout.read() if process.stdout else ""
    if process.returncode != 0:
        msg = f"{' '.join(map(str, command))} failed with exit code {process.returncode}"
        raise SystemExit(msg)
    return {**json.loads(output.splitlines()[-1]), "peak": peak}


def in_turn(cases: Mapping[str, Sequence[object]], repeats: int) -> dict[str, list[Run]]:
    """Each case ``repeats`` times, the order reversed each time."""
    found: dict[str, list[Run]] = {case: [] for case in cases}
    for repeat in range(repeats):
        for case in list(cases)[:: 1 if repeat % 2 else -1]:
            found[case].append(measure(*cases[case]))
    return found


def row(work: str, case: str, runs: Sequence[Run], unit: Sequence[Run], *, key: str = "cpu") -> Run:
    """One line of the table: medians, spread, and the ratio to the unit of the same repeat."""
    values = [run[key] for run in runs]
    ratios = [run[key] / least[key] for run, least in zip(runs, unit, strict=True)]
    return {
        "work": work,
        "case": case,
        "measured": key,
        "seconds": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "ratio": statistics.median(ratios),
        "peak_mb": max((run["peak"] for run in runs if "peak" in run), default=None),
        "repeats": len(runs),
    }


def rows_of(work: str, found: Mapping[str, Sequence[Run]], unit: str, *, key: str = "cpu") -> list[Run]:
    """The lines of cases that were run in turn."""
    return [row(work, case, runs, found[unit], key=key) for case, runs in found.items()]


def machine() -> dict[str, Any]:
    """The machine and the versions of the compared libraries."""
    models = (
        [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def markdown(rows: Sequence[Run]) -> str:
    """A table for each piece of work."""
    lines = []
    for work in dict.fromkeys(line["work"] for line in rows):
        of_work = [line for line in rows if line["work"] == work]
        seconds = "CPU s" if of_work[0]["measured"] == "cpu" else "seconds"
        lines += [
            f"\n### {work}\n",
            f"| | {seconds} | lowest to highest | ratio | peak MB |",
            "|---|---|---|---|---|",
        ]
        for line in of_work:
            middle, low, high, ratio = (
                _digits(line[name]) for name in ("seconds", "lowest", "highest", "ratio")
            )
            spread = f"{low} to {high}" if line["repeats"] > 1 else ""
            peak = "" if line["peak_mb"] is None else f"{line['peak_mb']:,.0f}"
            lines.append(f"| {line['case']} | {middle} | {spread} | {ratio} | {peak} |")
    return "\n".join(lines) + "\n"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
