"""The cost of a day: CPU seconds of the job ``day`` beside those of a graph that does nothing.

    python benchmarks/day.py                            3 feeds x 100 rows, 50 x 1,000, 500 x 100
    python benchmarks/day.py --sizes 50x1000 --steps    this size only, and of each step
    python benchmarks/day.py --sizes 60x333000          a busy day, from files that are written first
    python benchmarks/day.py --sizes "" --days 1,1000   only a new day where the lake holds 1 and 1,000 days

The floor is a graph with the same assets, asset checks, dependencies and partitions, whose bodies return at
once; it is run in the same way and does not import the package. Both run in separate processes, in turn,
with Dagster's records in SQLite as Dagster ships them.
CPU is user and system time of such a process; the stand-in for the vendor runs in another one and does not
count. To compare two checkouts, run this file with ``PYTHONPATH`` set to each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from measured import ENVIRONMENT, Run, markdown, row

#: Feeds, and rows of each.
SIZES = ((3, 100), (50, 1000), (500, 100))
#: From this number of rows of a feed on, files are made before they are requested.
ROWS_IN_FILES = 10_000
#: Days that the lake holds already, of so many feeds and rows.
LAKES = (1, 10, 100, 1000)
LAKE_FEEDS, LAKE_ROWS = 10, 100
#: The 20th, so that the month's overview has the same days in it whether the lake holds 100 days or 1,000.
FIRST = date(2024, 3, 20)
LAKE_CASES = ("A new day, fresh process", "The next day, same process", "A rerun, same process")
CASES = (
    "first day, fresh process",
    "second day, same process",
    "rerun, same process",
    "rerun, fresh process",
)


def day_after(first: date, days: int) -> str:
    return (first + timedelta(days=days)).isoformat()


# ---- The stand-in, in a separate process


def write_files(feeds: int, rows: int) -> Path:
    """The folder with the files of two days, like those of liquid pairs; written once on a machine."""
    from decode_market import DAY, write_trades

    top = Path(tempfile.gettempdir()) / "backfill-assets-benchmarks" / f"{feeds}x{rows}"
    for day in (day_after(FIRST, 0), day_after(FIRST, 1)):
        folder = top / "binance" / "trades" / day.replace("-", "/")
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(feeds):
            symbol, days = f"C{number:03d}USDT", (date.fromisoformat(day) - date.fromisoformat(DAY)).days
            write_trades(folder / f"{symbol}.csv.gz", rows + number, symbol, days)
    return top


def serve(feeds: int, rows: int) -> None:
    """Serve trades of this number of symbols until the process ends; files of many rows are written first."""
    from backfill_assets.standins.listings import Listing, Stream
    from backfill_assets.standins.market import Market
    from backfill_assets.standins.tardis import TardisStandin

    def stream(base: str) -> Stream:
        listing = Listing(
            exchange="binance",
            native_id=f"{base}usdt".lower(),
            dataset_symbol=f"{base}USDT",
            column_symbol=f"{base}USDT",
            base=base,
            quote="USDT",
            type="spot",
            since="2020-01-01",
            price_decimals=4,
            amount_decimals=4,
        )
        return Stream((listing,), rows, id_base=1_000_000, millisecond_times=True)

    market = Market(rows={}, streams=[stream(f"C{number:03d}") for number in range(feeds)])
    files = write_files(feeds, rows) if rows >= ROWS_IN_FILES else None
    with TardisStandin(market, files, clock=lambda: datetime(2024, 6, 1, tzinfo=UTC)) as standin:
        print(standin.url, flush=True)
        threading.Event().wait()


@contextmanager
def serving(feeds: int, rows: int) -> Iterator[str]:
    """The address of a running stand-in."""
    command = [sys.executable, __file__, "--serve", str(feeds), str(rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        url = process.stdout.readline().strip() if process.stdout else ""
        try:
            yield url
        finally:
            process.terminate()


def settings(folder: Path, feeds: int, url: str) -> Path:
    """A settings file with a lake and a warehouse in the folder."""
    content = {
        "tardis": {
            "datasets_endpoint": f"{url}/v1/datasets",
            "api_endpoint": f"{url}/v1",
            "api_key": "standin-key",
            "requests_per_minute": 1_000_000,
        },
        "universe": [
            {
                "exchanges": ["binance"],
                "symbols": [f"C{number:03d}-USDT" for number in range(feeds)],
                "data_types": ["trades"],
            }
        ],
        "lake": {"uri": str(folder / "lake")},
        "warehouse": {"kind": "duckdb", "folder": str(folder / "warehouse")},
    }
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


# ---- The processes that are measured


def cpu() -> float:
    """User and system time of this process and of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def peak_mb() -> float:
    """The largest resident set size; ``getrusage`` would count that of the process before it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) / 1024 for line in status.open() if line.startswith("VmHWM"))


def describe() -> None:
    """Print the graph of the package, from which the floor is built."""
    from backfill_assets.definitions import build_definitions

    defs = build_definitions()
    assets = [
        {
            "key": spec.key.path,
            "deps": [dep.asset_key.path for dep in spec.deps],
            "group": spec.group_name,
            "description": spec.description,
        }
        for each in defs.assets or ()
        for spec in each.specs  # type: ignore[union-attr]
    ]
    checks = [
        [
            {"name": spec.name, "asset": spec.asset_key.path, "blocking": spec.blocking}
            for spec in each.check_specs
        ]
        for each in defs.asset_checks or ()
    ]
    print(json.dumps({"assets": assets, "checks": checks}))


#: The column of a count in the table, and the calls of the lake's store that it sums.
COUNTS = {
    "documents read": ("read",),
    "files opened": ("local_copy", "open_ranges"),
    "written": ("replace", "put_file", "put_bytes"),
}


def count_calls(of: Counter[str]) -> None:
    """Count the requests to the lake on disk."""
    from backfill_assets.lake.local import LocalStore

    lock = threading.Lock()

    def counted(count: str, called: Callable[..., Any]) -> Callable[..., Any]:
        def call(store: Any, path: Any, *rest: Any) -> Any:
            with lock:
                of[count] += 1
            return called(store, path, *rest)

        return call

    for count, names in COUNTS.items():
        for name in names:
            if hasattr(LocalStore, name):
                setattr(LocalStore, name, counted(count, getattr(LocalStore, name)))


def note_steps(instance: Any, spent: dict[str, float]) -> None:
    """Add the CPU seconds of each step to ``spent`` as its events come in."""
    stored, began = instance.handle_new_event, {}

    def handle(entry: Any, **more: Any) -> None:
        event = entry.dagster_event
        if event and event.event_type_value == "STEP_START":
            began[event.step_key] = cpu()
        elif event and event.event_type_value in ("STEP_SUCCESS", "STEP_FAILURE"):
            spent[event.step_key] = cpu() - began[event.step_key]
        stored(entry, **more)

    instance.handle_new_event = handle


def run(what: str, settings: str, days: list[str]) -> None:
    """Run the days one after the other, and print the CPU seconds of each."""
    # pandera imports hypothesis, and so pytest, where they are installed, which deployments do not do.
    sys.modules["hypothesis"] = None  # type: ignore[assignment]
    import dagster as dg

    calls: Counter[str] = Counter()
    as_in_a_run: AbstractContextManager[None] = nullcontext()
    if what == "floor":
        from day_floor import floor

        defs = floor(json.loads(Path(settings).read_text()))
    else:
        from backfill_assets.automation import run_process
        from backfill_assets.definitions import build_definitions

        defs = build_definitions(settings)
        count_calls(calls)
        # ``execute_in_process`` skips the package's executor, which does this. Checkouts before it
        # had it are compared as they are.
        as_in_a_run = getattr(run_process, "collecting_seldom", nullcontext)()
    job = defs.resolve_job_def("day")
    config = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    before, steps = 0.0, dict[str, float]()
    with (
        tempfile.TemporaryDirectory(prefix="backfill-records-") as records,
        dg.DagsterInstance.local_temp(records) as instance,
        as_in_a_run,
    ):
        note_steps(instance, steps)
        for day in days:
            calls.clear()
            steps.clear()
            job.execute_in_process(partition_key=day, run_config=config, instance=instance)
            found = {
                "cpu": cpu() - before,
                "peak": peak_mb(),
                "calls": calls,
                "steps": steps,
            }
            print(json.dumps(found), flush=True)
            before = cpu()


def measured(what: str, settings: Path, *days: str) -> list[dict[str, Any]]:
    """Run the days in a fresh process."""
    command = [sys.executable, __file__, "--run", what, str(settings), *days]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


# ---- The comparisons


def compare(feeds: int, rows: int, repeats: int, graph: Path) -> list[Run]:
    """The lines of one size: a day, the next one and its reruns beside the floor."""
    first, second = day_after(FIRST, 0), day_after(FIRST, 1)
    found: dict[str, list[list[Run]]] = {"day": [], "floor": []}

    def one(what: str, url: str) -> None:
        with tempfile.TemporaryDirectory(prefix="backfill-day-") as folder:
            file = settings(Path(folder), feeds, url) if what == "day" else graph
            runs = measured(what, file, first, second, second) + measured(what, file, second)
            if what == "day" and not (Path(folder) / "warehouse" / "candles" / f"{second}.parquet").exists():
                msg = f"{second} was not published: this is not the cost of a day"
                raise SystemExit(msg)
            found[what].append(runs)

    with serving(feeds, rows) as url:
        for repeat in range(repeats):
            for what in ("day", "floor")[:: 1 if repeat % 2 else -1]:
                one(what, url)
    work = f"A day of {feeds} feeds × {rows:,} rows, × a graph that does nothing"
    of_day, of_floor = ([list(case) for case in zip(*found[what], strict=True)] for what in ("day", "floor"))
    return [
        row(work, name, of_day[case], of_floor[case])
        | {"counts": of_day[case][0]["calls"], "steps": middle_of_steps(of_day[case])}
        for case, name in enumerate(CASES)
    ]


def middle_of_steps(runs: list[Run]) -> dict[str, float]:
    """The median CPU seconds of each step."""
    return {step: statistics.median(run["steps"][step] for run in runs) for step in runs[0]["steps"]}


def compare_lakes(days: list[int], repeats: int, graph: Path) -> list[Run]:
    """A new day in lakes that hold more and more days, beside the floor."""
    new = [day_after(FIRST, 1), day_after(FIRST, 2)]
    found: dict[int, list[tuple[list[Run], list[Run]]]] = {held: [] for held in days}
    with (
        serving(LAKE_FEEDS, LAKE_ROWS) as url,
        tempfile.TemporaryDirectory(prefix="backfill-days-") as folder,
    ):
        model = Path(folder) / "model"
        model.mkdir()
        measured("day", settings(model, LAKE_FEEDS, url), FIRST.isoformat())
        for _ in range(repeats):
            for held in days:
                copy = Path(folder) / str(held)
                shutil.copytree(model, copy)
                for back in range(1, held):
                    add_day(model, copy, FIRST.isoformat(), day_after(FIRST, -1 - back))
                least = measured("floor", graph, *new, new[-1])
                found[held].append((measured("day", settings(copy, LAKE_FEEDS, url), *new, new[-1]), least))
                shutil.rmtree(copy)
    return [
        row(
            f"{name}, {LAKE_FEEDS} feeds × {LAKE_ROWS} rows, × a graph that does nothing",
            f"{held:,} days in the lake",
            [of_day[case] for of_day, _ in found[held]],
            [of_floor[case] for _, of_floor in found[held]],
        )
        | {"counts": found[held][0][0][case]["calls"]}
        for case, name in enumerate(LAKE_CASES)
        for held in days
    ]


def add_day(model: Path, copy: Path, day: str, other: str) -> None:
    """Store every file of a day under another day too, in lake and warehouse alike."""
    for folder in ("lake", "warehouse"):
        for file in (model / folder).rglob("*"):
            name = str(file.relative_to(model))
            if file.is_file() and day in name:
                target = copy / name.replace(day, other)
                target.parent.mkdir(parents=True, exist_ok=True)
                content = file.read_bytes()
                target.write_bytes(
                    content.replace(day.encode(), other.encode()) if file.suffix == ".json" else content
                )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default=",".join(f"{feeds}x{rows}" for feeds, rows in SIZES))
    parser.add_argument("--days", default="", help="days in the lake, with commas between")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", action="store_true", help="the steps of each size too")
    parser.add_argument("--serve", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--describe", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
    elif options.describe:
        describe()
    elif options.run:
        run(options.run[0], options.run[1], options.run[2:])
    else:
        sizes = [
            (int(feeds), int(rows)) for feeds, rows in (s.split("x") for s in options.sizes.split(",") if s)
        ]
        days = [int(number) for number in options.days.split(",") if number]
        lines = compare_all(sizes, days, options.repeats)
        print(markdown(lines))
        if options.steps:
            print(steps_table(lines))


def compare_all(sizes: list[tuple[int, int]], days: list[int], repeats: int) -> list[Run]:
    """The lines of the table for days of these sizes, and in lakes of so many days."""
    with tempfile.TemporaryDirectory(prefix="backfill-floor-") as folder:
        graph = Path(folder) / "graph.json"
        with graph.open("w") as file:
            command = [sys.executable, __file__, "--describe"]
            subprocess.run(command, stdout=file, check=True, env=ENVIRONMENT)
        with serving(1, 100) as url:
            # The first run compiles; it is not measured.
            measured("day", settings(Path(folder), 1, url), FIRST.isoformat())
        lines = [line for feeds, rows in sizes for line in compare(feeds, rows, repeats, graph)]
        return lines + (compare_lakes(days, repeats, graph) if days else [])


def steps_table(lines: list[Run]) -> str:
    """CPU seconds of each step of the job, a table for each size."""
    tables = []
    for work in dict.fromkeys(line["work"] for line in lines if "steps" in line):
        of_work = [line for line in lines if line["work"] == work and "steps" in line]
        tables += [f"\n| {work} | {' | '.join(line['case'] for line in of_work)} |"]
        tables += ["|---|" + "---|" * len(of_work)]
        for step in of_work[0]["steps"]:
            cells = [f"{line['steps'][step]:.2f}" for line in of_work]
            tables.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(tables)


if __name__ == "__main__":
    main()
