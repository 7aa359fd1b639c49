"""Pieces of a day beside their alternatives: other data types, publishing, views, downloads, imports.

    python benchmarks/pieces.py
    python benchmarks/pieces.py --only downloads --repeats 5

- Other data types: csv.gz to Parquet; the package also counts and hashes, polars only converts.
- Publishing: a Parquet file of trades becomes a partition of the embedded warehouse, whose totals are then
  read back; DuckDB copies the same file without totals.
- Views: one day of ``candles_with_state`` where the warehouse holds 30 days and 330.
- Reading: a year of minutes of one market with the states of its days, where each day has one market and 50.
- Downloads: 60 files of 2 MB, each answered after 50 ms; wall seconds, since they differ in waiting.
- Overlap: 60 files that arrive in about the time of decoding, apart and as a run does both; wall seconds.
- Imports: the code location beside Dagster alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from statistics import median

from decode_market import SYMBOL
from measured import ENVIRONMENT, Run, in_turn, markdown, rows_of, run_case
from trades import FOLDER, Product, trades_file

# The days that are read are made by the tests.
sys.path.insert(0, str(Path(__file__).parents[1]))

#: Rows of the files of other data types.
STREAMS = {"quotes": 2_000_000, "book_snapshot_25": 100_000, "incremental_book_L2": 2_000_000}
DAY, FILES, LATENCY, FILE_BYTES = "2024-01-01", 60, 0.05, 2_200_000
DAYS_IN_WAREHOUSE = (30, 330)
#: Days that are read, and how many markets each of them has.
DAYS_READ, MARKETS_READ = 365, (1, 50)
#: Trades of each file whose download and decoding overlap, and how long the vendor takes to answer.
OVERLAP_ROWS, OVERLAP_LATENCY = 200_000, 0.8


# ---- Other data types


def stream_file(data_type: str) -> Path:
    """A file of the generated market, written once on a machine."""
    from backfill_assets.standins import books
    from backfill_assets.standins.catalogue import CATALOGUE
    from backfill_assets.standins.csvtext import gzip_csv

    source = FOLDER / f"{data_type}-{STREAMS[data_type]}.csv.gz"
    if not source.exists():
        books.ROWS[data_type] = STREAMS[data_type]
        frame = books.book_frame(1, CATALOGUE[0].listings[-1], data_type, DAY)
        source.write_bytes(gzip_csv(data_type, [frame]))
    return source


def small_part(source: Path) -> Path:
    """A file of its first lines."""
    import gzip
    from itertools import islice

    small = source.with_name(f"small-{source.name}")
    with gzip.open(source, "rb") as file, gzip.open(small, "wb") as target:
        target.writelines(islice(file, 1000))
    return small


def decode_stream(folder: Path, source: str, data_type: str) -> None:
    from backfill_assets.feeds import Feed
    from backfill_assets.standins.catalogue import CATALOGUE
    from backfill_assets.ticks.decode import decode
    from backfill_assets.ticks.profile import ProfileParameters

    listing = CATALOGUE[0].listings[-1]
    decode(
        Path(source),
        folder / "decoded.parquet",
        feed=Feed(listing.exchange, data_type, listing.dataset_symbol),
        day=DAY,
        symbols={listing.column_symbol: listing.canonical},
        parameters=ProfileParameters(),
    )


def polars_stream(folder: Path, source: str, data_type: str) -> None:  # noqa: ARG001
    import polars as pl

    types = {"is_snapshot": pl.Boolean} | dict.fromkeys(("timestamp", "local_timestamp"), pl.Int64)
    names = pl.read_csv(source, n_rows=0).columns
    text = ("exchange", "symbol", "side")
    schema = {name: types.get(name, pl.String if name in text else pl.Float64) for name in names}
    pl.scan_csv(source, schema=schema).sink_parquet(
        folder / "converted.parquet", compression="zstd", compression_level=1
    )


def streams(repeats: int) -> list[Run]:
    lines: list[Run] = []
    for data_type, rows in STREAMS.items():
        source = stream_file(data_type)
        cases = {"polars": polars_stream, "backfill_assets": decode_stream}
        given = [source, data_type]
        found = compared(cases, given, repeats, warm_up=[small_part(source), data_type])
        lines += rows_of(f"{rows:,} rows of {data_type} to Parquet, × polars", found, "polars")
    return lines


# ---- Publishing


def publish(folder: Path, ticks: str, rows: str) -> None:
    from backfill_assets.warehouse.catalog import TICKS
    from backfill_assets.warehouse.duckdb import DuckDBWarehouse
    from backfill_assets.warehouse.protocol import LoadFile

    made = DuckDBWarehouse(folder / "warehouse")
    made.ensure_table(TICKS["trades"])
    made.replace_partition(TICKS["trades"], DAY, [LoadFile(uri=None, path=Path(ticks), rows=int(rows))], 1)
    if sum(group.rows for group in made.totals(TICKS["trades"], DAY)) != int(rows):
        raise SystemExit("the partition has other rows than the file")


def duckdb_copy(folder: Path, ticks: str, rows: str) -> None:  # noqa: ARG001
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (FROM '{ticks}') TO '{folder / 'copy.parquet'}' (FORMAT parquet, COMPRESSION zstd)"
        )


def publishing(rows: int, repeats: int) -> list[Run]:
    with tempfile.TemporaryDirectory(prefix="backfill-publish-") as folder:
        given = []
        for name, source in (("whole", trades_file(rows)), ("small", FOLDER / "warm-up.csv.gz")):
            (Path(folder) / name).mkdir()
            product = Product(Path(folder) / name)
            product.core(source, Path(folder) / f"{name}.candles")
            given.append([product.ticks, product.file.rows])
        cases = {"DuckDB's COPY": duckdb_copy, "backfill_assets": publish}
        found = compared(cases, given[0], repeats, warm_up=given[1])
    return rows_of(f"{rows:,} trades published, × DuckDB's COPY", found, "DuckDB's COPY")


# ---- Views


def fill_warehouse(folder: Path) -> None:
    """The tables of a day of nine feeds, and the same rows as those of the days before."""
    import duckdb

    command = [sys.executable, "-m", "backfill_assets.cli", "demo", "--date", DAY]
    environment = {**ENVIRONMENT, "BACKFILL_DATA": str(folder), "DAGSTER_HOME": str(folder / "home")}
    (folder / "home").mkdir()
    subprocess.run(command, check=True, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    tables = [path.parent for path in (folder / "warehouse").glob(f"*/{DAY}.parquet")]
    with duckdb.connect() as connection:
        for table in tables:
            source = table / f"{DAY}.parquet"
            described = connection.execute(f"DESCRIBE FROM '{source}'").fetchall()
            for back in range(1, max(DAYS_IN_WAREHOUSE)):
                shifted = ", ".join(
                    f'CAST("{name}" - INTERVAL {back} DAY AS {kind}) AS "{name}"'
                    for name, kind, *_ in described
                    if kind == "DATE" or "TIMESTAMP" in kind
                )
                day = date.fromisoformat(DAY) - timedelta(days=back)
                rows = f"SELECT * REPLACE ({shifted}) FROM '{source}'"
                connection.execute(f"COPY ({rows}) TO '{table / f'{day}.parquet'}' (FORMAT parquet)")


def read_view(folder: Path, database: str) -> None:  # noqa: ARG001
    import duckdb

    with duckdb.connect(database, read_only=True) as connection:
        found = connection.execute(f"SELECT count(*) FROM candles_with_state WHERE date = '{DAY}'").fetchone()
    if not found or not found[0]:
        raise SystemExit("the view has no candles of the day")


def views(repeats: int) -> list[Run]:
    from backfill_assets.warehouse.catalog import TABLES
    from backfill_assets.warehouse.duckdb import DuckDBWarehouse

    with tempfile.TemporaryDirectory(prefix="backfill-views-") as folder:
        fill_warehouse(Path(folder))
        for days in DAYS_IN_WAREHOUSE:
            warehouse = DuckDBWarehouse(Path(folder) / str(days))
            for table in TABLES:
                kept = sorted((Path(folder) / "warehouse" / table.name).glob("*.parquet"))[-days:]
                (warehouse.folder / table.name).mkdir(parents=True)
                for file in kept:
                    os.link(file, warehouse.folder / table.name / file.name)
                warehouse.ensure_table(table)
            warehouse.ensure_views()
        cases = {
            f"{days} days": command(read_view, [Path(folder) / str(days) / "warehouse.duckdb"])
            for days in DAYS_IN_WAREHOUSE
        }
        found = in_turn(cases, repeats)
    fewest = f"{DAYS_IN_WAREHOUSE[0]} days"
    return rows_of(f"One day of candles_with_state, × a warehouse of {fewest}", found, fewest)


# ---- Reading


def read_market(folder: Path, settings: str, market: str, days: str) -> None:  # noqa: ARG001
    import backfill_assets as ba
    from backfill_assets_tests.frames.market_days import EXCHANGE, day

    found = ba.open(settings).candles(EXCHANGE, market, "1m", day(0), day(int(days)))
    if found.to_polars().height != 1440 * int(days):
        raise SystemExit("the market has other minutes than it had trades")


def reading(repeats: int) -> list[Run]:
    from backfill_assets_tests.frames.market_days import publish_days, symbol

    cases = {}
    with tempfile.TemporaryDirectory(prefix="backfill-reading-") as folder:
        for markets in MARKETS_READ:
            given = [publish_days(Path(folder) / str(markets), markets, DAYS_READ), symbol(markets // 2)]
            cases[f"of {markets} in each day"] = command(read_market, [*given, DAYS_READ], [*given, 1])
        found = in_turn(cases, repeats)
    alone = next(iter(cases))
    return rows_of(f"{DAYS_READ} days of minutes of one market, × {alone}", found, alone)


# ---- Downloads


def serve(latency: float, file: str) -> None:
    """Answer every request after a while with one file, until the process ends; "" is a file of noise."""
    import asyncio
    import gzip

    from aiohttp import web

    content = Path(file).read_bytes() if file else gzip.compress(os.urandom(FILE_BYTES), compresslevel=1)

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(latency)
        return web.Response(body=content, content_type="application/gzip")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


def symbols() -> list[str]:
    return [f"C{number:02d}USDT" for number in range(FILES)]


def tardis_dev(folder: Path, url: str) -> None:
    from tardis_dev import download_datasets

    download_datasets(
        exchange="binance",
        data_types=["trades"],
        symbols=symbols(),
        from_date=DAY,
        to_date="2024-01-02",
        api_key="key",
        download_dir=str(folder),
        endpoint=url,
    )
    if len(list(folder.iterdir())) != FILES:
        raise SystemExit("not all files were downloaded")


def fetch(folder: Path, url: str) -> None:
    from backfill_assets.feeds import Feed
    from backfill_assets.settings import TardisSettings
    from backfill_assets.tardis.client import Download, TardisClient

    client = TardisClient(TardisSettings(datasets_endpoint=url, api_endpoint=url, api_key="key"))
    feeds = [Feed("binance", "trades", symbol) for symbol in symbols()]
    if not all(isinstance(result, Download) for _, result in client.fetch(feeds, DAY, folder)):
        raise SystemExit("not all files were downloaded")


@contextmanager
def served(latency: float, file: object = "") -> Iterator[str]:
    """The address of a server in a separate process."""
    command = [sys.executable, __file__, "--serve", str(latency), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as server:
        try:
            yield server.stdout.readline().strip() if server.stdout else ""
        finally:
            server.terminate()


def downloads(repeats: int) -> list[Run]:
    with served(LATENCY) as url:
        found = compared({"tardis-dev": tardis_dev, "backfill_assets": fetch}, [url], repeats, warm_up=[url])
    work = f"{FILES} downloads of {FILE_BYTES / 1e6:.1f} MB at {LATENCY * 1000:.0f} ms, × tardis-dev"
    return rows_of(work, found, "tardis-dev", key="wall")


# ---- Downloads and decoding at once


def fill_lake(folder: Path, url: str) -> None:
    """The work of the asset ``ticks`` before it judges the day."""
    from backfill_assets.days import utc_now
    from backfill_assets.lake import documents, paths
    from backfill_assets.lake.local import LocalStore
    from backfill_assets.lake.manifests import DayRecord, ExpectedSymbols
    from backfill_assets.settings import (
        DuckDBWarehouse,
        LakeSettings,
        Settings,
        TardisSettings,
        UniverseEntry,
    )
    from backfill_assets.tardis.client import TardisClient
    from backfill_assets.ticks.fetch import fetch_day

    settings = Settings(
        name="overlap",
        universe=(UniverseEntry(exchanges=("binance",), symbols=("BTC-USDT",)),),
        lake=LakeSettings(uri=str(folder / "lake"), scratch=str(folder / "scratch")),
        warehouse=DuckDBWarehouse(kind="duckdb", folder=str(folder / "warehouse")),
        tardis=TardisSettings(datasets_endpoint=url, api_endpoint=url, api_key="key"),
    )
    expected = tuple(
        ExpectedSymbols(feed=f"binance/trades/{symbol}", symbols=((SYMBOL, "BTC-USDT"),))
        for symbol in symbols()
    )
    record = DayRecord(day=DAY, expected=expected, recorded_at=utc_now())
    store = LocalStore(folder / "lake")
    documents.update(store, paths.day_record(DAY), DayRecord, lambda _: record)
    report = fetch_day(store, TardisClient(settings.tardis), record, settings)
    if len(report.of("fetched")) != FILES:
        raise SystemExit(f"not all files were decoded: {report.summary}")


def fetch_slowly(folder: Path, url: str, at_once: str) -> None:  # noqa: ARG001
    fetch(folder, url)


def fill_lake_slowly(folder: Path, url: str, at_once: str) -> None:  # noqa: ARG001
    fill_lake(folder, url)


def fill_lake_at_once(folder: Path, url: str, at_once: str) -> None:  # noqa: ARG001
    fill_lake(folder, at_once)


def overlap(repeats: int) -> list[Run]:
    source = trades_file(OVERLAP_ROWS)
    cases = {
        "downloads": fetch_slowly,
        "decoding of what comes at once": fill_lake_at_once,
        "both": fill_lake_slowly,
    }
    with served(OVERLAP_LATENCY, source) as slow, served(0, source) as at_once:
        found = compared(cases, [slow, at_once], repeats, warm_up=[slow, at_once])
    longer = max([*cases][:2], key=lambda case: median(run["wall"] for run in found[case]))
    work = f"{FILES} files of {OVERLAP_ROWS:,} trades from the vendor to Parquet, × {longer}"
    return rows_of(work, found, longer, key="wall")


# ---- Imports


def import_dagster(folder: Path) -> None:  # noqa: ARG001
    import dagster  # noqa: F401


def import_frames(folder: Path) -> None:  # noqa: ARG001
    import backfill_assets as ba

    ba.open("local")


def import_location(folder: Path) -> None:  # noqa: ARG001
    # pandera imports hypothesis, and so pytest, where they are installed, which deployments do not do.
    sys.modules["hypothesis"] = None  # type: ignore[assignment]
    import backfill_assets.definitions  # noqa: F401


def imports(repeats: int) -> list[Run]:
    cases = {
        "import dagster": import_dagster,
        "backfill_assets, opened for reading": import_frames,
        "the code location": import_location,
    }
    compared(cases, [], 1)  # compiles
    return rows_of("Import, × import dagster", compared(cases, [], repeats), "import dagster")


# ---- All of them


CASES = {
    case.__name__: case
    for case in (
        polars_stream,
        decode_stream,
        duckdb_copy,
        publish,
        read_view,
        read_market,
        tardis_dev,
        fetch,
        fetch_slowly,
        fill_lake_at_once,
        fill_lake_slowly,
        import_dagster,
        import_frames,
        import_location,
    )
}


def command(case: Callable[..., None], given: Sequence[object], warm_up: Sequence[object] = ()) -> list[str]:
    """The process that measures one case."""
    return [
        __file__,
        "--one",
        case.__name__,
        json.dumps([*map(str, warm_up)]),
        json.dumps([*map(str, given)]),
    ]


def compared(
    cases: Mapping[str, Callable[..., None]],
    given: Sequence[object],
    repeats: int,
    warm_up: Sequence[object] = (),
) -> dict[str, list[Run]]:
    """Cases with the same arguments, in turn."""
    return in_turn({name: command(case, given, warm_up) for name, case in cases.items()}, repeats)


def compare(rows: int, repeats: int, only: Sequence[str] = ()) -> list[Run]:
    """The lines of the table; ``rows`` is the number of published rows."""
    pieces: dict[str, Callable[[], list[Run]]] = {
        "streams": lambda: streams(repeats),
        "publishing": lambda: publishing(rows, repeats),
        "views": lambda: views(repeats),
        "reading": lambda: reading(repeats),
        "downloads": lambda: downloads(repeats),
        "overlap": lambda: overlap(repeats),
        "imports": lambda: imports(repeats),
    }
    return [line for name in only or pieces for line in pieces[name]()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", default="", help="streams,publishing,views,reading,downloads,overlap,imports"
    )
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(float(options.serve[0]), options.serve[1])
    elif options.one:
        name, warm_up, given = options.one
        run_case(CASES[name], json.loads(warm_up) or None, json.loads(given))
    else:
        only = [name for name in options.only.split(",") if name]
        print(markdown(compare(options.rows, options.repeats, only)))


if __name__ == "__main__":
    main()
