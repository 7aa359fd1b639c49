"""All comparisons as one table: docs/performance.md, with the figures as JSON and a plot of how cost grows.

python benchmarks/bench.py                  5 and 20 million trades, days of all sizes; about half an hour
python benchmarks/bench.py --rows 1000000   other files of trades
python benchmarks/bench.py --quick          small sizes, once each, to check that it runs
python benchmarks/bench.py --out DIR        into another folder than docs/
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import day
import pieces
import scale
import trades
from growth import plot
from measured import Run, in_turn, machine, markdown, row

BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"
PAPER, END_OF_PAPER = "<!-- on paper: written by make bench -->", "<!-- end of paper -->"
#: Trades of the file that is published.
PUBLISHED = 5_000_000
#: A busy day: feeds, and trades of each.
BUSY = (60, 333_000)


def busy_day(feeds: int, rows: int, repeats: int) -> list[Run]:
    """The real job beside recipes that convert the same files one after the other."""
    work = f"A day of {feeds} feeds × {rows:,} trades, × inflate"
    (of_day, *_) = day.compare_all([(feeds, rows)], [], repeats)
    folder = (
        day.write_files(feeds, rows) / "binance" / "trades" / day.day_after(day.FIRST, 0).replace("-", "/")
    )
    with tempfile.TemporaryDirectory(prefix="backfill-busy-") as scratch:
        trades.trades_file(1000)
        cases = {
            case: (trades.__file__, "--one", case, folder, Path(scratch) / f"{case}.parquet")
            for case in ("inflate", "polars", "duckdb")
        }
        found = in_turn(cases, repeats)
    lines = [row(work, case, runs, found["inflate"]) for case, runs in found.items()]
    named = {"work": work, "case": "the job, fresh process"}
    return [*lines, of_day | named | {"ratio": of_day["seconds"] / lines[0]["seconds"]}]


def all_of_them(rows: list[int], repeats: int, *, quick: bool) -> list[Run]:
    """Every line of the table."""
    sizes, lakes = [*day.SIZES], [*day.LAKES]
    feeds, each = BUSY
    if quick:
        sizes, lakes, feeds, each = sizes[:1], lakes[:1], 2, 20_000
        pieces.STREAMS = dict.fromkeys(pieces.STREAMS, 20_000)
        pieces.DAYS_IN_WAREHOUSE = (3, 10)
        pieces.DAYS_READ, pieces.MARKETS_READ = 3, (1, 5)
        pieces.OVERLAP_ROWS, pieces.OVERLAP_LATENCY = 20_000, 0.1
    lines: list[Run] = []
    for count in rows:
        lines += trades.compare(count, repeats, trades.CASES)
    lines += trades.stages(PUBLISHED if not quick else rows[0], repeats)
    lines += busy_day(feeds, each, 1)
    lines += pieces.compare(PUBLISHED if not quick else rows[0], repeats)
    return lines + day.compare_all(sizes, lakes, repeats)


def write(out: Path, lines: list[Run]) -> None:
    """Write the figures and the computation on paper into the page, the figures as JSON, and the plot."""
    host = machine()
    content = {"measured": datetime.now(UTC).date().isoformat(), "machine": host, "lines": lines}
    (out / "performance.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    (out / "performance.svg").write_text(plot(lines))
    libraries = ", ".join(f"{name} {version}" for name, version in host["libraries"].items())
    facts = (
        f"{content['measured']}: {host['processor']}, {host['cores']} cores, {host['memory_gb']} GB,"
        f" Python {host['python']}; {libraries}."
    )
    figures = f"{BEGIN}\n\n{facts}\n{markdown(lines)}{day.steps_table(lines)}\n\n{END}"
    page = out / "performance.md"
    text = page.read_text() if page.exists() else f"{BEGIN}{END}\n"
    before, _, rest = text.partition(BEGIN)
    before, marker, after = (before + figures + rest.partition(END)[2]).partition(PAPER)
    if marker:
        command = [sys.executable, scale.__file__, "--measured", str(out / "performance.json")]
        paper = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = f"{PAPER}\n\n{paper}\n{END_OF_PAPER}{after.partition(END_OF_PAPER)[2]}"
    page.write_text(before + after)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--rows", default="1000000,5000000,20000000", help="trades of a file, with commas between"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs")
    options = parser.parse_args()
    rows = [100_000] if options.quick else [int(count) for count in options.rows.split(",")]
    lines = all_of_them(rows, 1 if options.quick else options.repeats, quick=options.quick)
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out, lines)
    print(markdown(lines))


if __name__ == "__main__":
    main()
