"""Trades from csv.gz to Parquet and candles of six timeframes, beside the alternatives.

    python benchmarks/trades.py --rows 5000000 --repeats 5
    python benchmarks/trades.py --rows 20000000 --repeats 1 --cases inflate,core,checked
    python benchmarks/trades.py --stages          the cost of each stage of ``checked``

``core`` is the work of a run: Parquet, both hashes, the whole profile (ids, repeats, silences, clock, prices)
and candles, synced to disk. ``checked`` has the comparison of the candles with their ticks, too. The recipes
(``recipes/``) only convert. The unit is ``inflate``, which reads the gzip with isal and drops it. The candles
of all cases are compared: prices and counts must be equal, sums within 1e-9.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from decode_market import DAY, SYMBOL, write_trades
from measured import Run, in_turn, markdown, rows_of, run_case
from recipes.timeframes import SECONDS

RECIPES = ("polars", "duckdb", "pandas")
CASES = ("inflate", "core", "checked", *RECIPES)
#: pandas holds the file in memory several times.
MOST_ROWS_OF_PANDAS = 5_000_000
SUMS = ("volume", "quote_volume", "buy_volume", "sell_volume")
FOLDER = Path(tempfile.gettempdir()) / "backfill-assets-benchmarks"


def inflate(source: Path) -> None:
    from isal import igzip

    buffer = bytearray(1 << 20)  # faster than any larger one
    with igzip.open(source, "rb") as file:  # type: ignore[no-untyped-call]
        while file.readinto(buffer):
            pass


class Product:
    """The stages of the package, with a lake in the folder."""

    def __init__(self, folder: Path) -> None:
        from backfill_assets.feeds import Feed
        from backfill_assets.lake.local import LocalStore
        from backfill_assets.ticks.profile import ProfileParameters

        self.store, self.ticks = LocalStore(folder / "lake"), folder / "ticks.parquet"
        self.feed, self.parameters = Feed("binance", "trades", SYMBOL), ProfileParameters()

    def core(self, source: Path, candles: Path) -> None:
        """Parquet, profile, partials, and the day's candles in Parquet."""
        import pyarrow.parquet as pq

        from backfill_assets.candles.merge import day_of_candles
        from backfill_assets.candles.trade_files import make_partials, read_partials
        from backfill_assets.id_laws import ID_LAWS
        from backfill_assets.ticks.decode import decode
        from backfill_assets.ticks.fetch import candles_to_fill, store_candles
        from backfill_assets.ticks.stored import stored_file

        filled = candles_to_fill(self.feed, DAY, self.parameters, ID_LAWS)
        found = decode(
            source,
            self.ticks,
            feed=self.feed,
            day=DAY,
            symbols={SYMBOL: "BTC-USDT"},
            parameters=self.parameters,
            grids={SYMBOL: (0.01,)},
            candles=filled,
        )
        stored_file(self.ticks, found.totals)
        decoded = store_candles(self.store, self.feed, DAY, filled, found.profile, self.parameters)
        self.file = accepted(found, decoded)
        self.made = make_partials(self.store, self.file)
        partials = read_partials(self.store, DAY, [(self.feed, self.made.partials)])
        pq.write_table(day_of_candles(DAY, [partials], list(SECONDS)), candles, compression="zstd")

    def compare(self) -> None:
        """The candles of another engine."""
        from backfill_assets.candles.trade_files import Partials, mismatches
        from backfill_assets.lake import paths

        self.store.put_file(self.ticks, paths.ticks_data(self.feed, DAY, self.file.content))
        (differing,) = mismatches(Partials(self.store), [(self.file, self.made)])
        if differing:
            msg = f"candles differ from their ticks: {differing[:3]}"
            raise SystemExit(msg)


def accepted(found: Any, decoded: Any) -> Any:
    from backfill_assets.candles.trade_files import AcceptedFile
    from backfill_assets.feeds import Feed

    return AcceptedFile(
        feed=Feed("binance", "trades", SYMBOL),
        day=DAY,
        content=found.content,
        rows=found.rows,
        numeric_ids=True,
        repeats=False,
        overlaps=(),
        left_out=(),
        contracts={},
        seam_window_seconds=300,
        decoded=decoded,
    )


def work_of(case: str) -> Callable[[Path, str, str], None]:
    """The measured work, from trades to candles; recipes also take a folder of files."""

    def work(folder: Path, source: str, candles: str) -> None:
        files = sorted(Path(source).rglob("*.csv.gz")) if Path(source).is_dir() else [Path(source)]
        if case == "inflate":
            for file in files:
                inflate(file)
        elif case in RECIPES:
            convert = importlib.import_module(f"recipes.with_{case}").convert
            for file in files:
                convert(file, folder / f"{file.name}.parquet", Path(candles))
        else:
            product = Product(folder)
            product.core(files[0], Path(candles))
            if case == "checked":
                product.compare()

    return work


def same_candles(folder: Path, cases: Sequence[str]) -> None:
    """End the program where a recipe has made other candles than the package."""
    import polars as pl

    def read(case: str) -> pl.DataFrame:
        table = pl.read_parquet(folder / f"{case}.parquet", hive_partitioning=False)
        if table.schema["open_time"] != pl.Int64:
            table = table.with_columns(pl.col("open_time").dt.epoch("s"))
        names = ["timeframe", "open_time", "open", "high", "low", "close", "trade_count", *SUMS]
        types = {"timeframe": pl.String, "trade_count": pl.Int64}
        return table.select(names).cast(types).sort("timeframe", "open_time")  # type: ignore[arg-type]

    made = [case for case in cases if case != "inflate"]
    first = read(made[0])
    for case in made[1:]:
        other = read(case)
        if not first.drop(SUMS).equals(other.drop(SUMS)):
            raise SystemExit(f"{case} has other candles than {made[0]}")
        for name in SUMS:
            if ((first[name] - other[name]).abs() > first[name].abs() * 1e-9).any():
                raise SystemExit(f"{case} has another {name} than {made[0]}")


def trades_file(rows: int) -> Path:
    """The file of this number of trades, written once on a machine, beside a small one."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    source = FOLDER / f"trades-{rows}.csv.gz"
    write_trades(source, rows)
    write_trades(FOLDER / "warm-up.csv.gz", 1000)
    return source


def compare(rows: int, repeats: int, cases: Sequence[str]) -> list[Run]:
    """The lines of the table for this number of trades."""
    chosen = [case for case in cases if case != "pandas" or rows <= MOST_ROWS_OF_PANDAS]
    source = trades_file(rows)
    with tempfile.TemporaryDirectory(prefix="backfill-candles-") as folder:
        commands = {
            case: (__file__, "--one", case, source, Path(folder) / f"{case}.parquet") for case in chosen
        }
        found = in_turn(commands, repeats)
        same_candles(Path(folder), chosen)
    return rows_of(f"{rows:,} trades to Parquet and candles, × inflate", found, "inflate")


def stages(rows: int, repeats: int) -> list[Run]:
    """The lines of the stages of ``checked``; the later work of this process is timed too."""
    import time
    from collections import defaultdict
    from collections.abc import Iterator

    from backfill_assets.candles import merge, trade_files
    from backfill_assets.ticks import decode, fetch, parser, partials, profile, stored

    spent: dict[str, float] = defaultdict(float)

    def watched(
        stage: str, call: Callable[..., Any], clock: Callable[[], float] = time.thread_time
    ) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            began = clock()
            try:
                return call(*given, **named)
            finally:
                spent[stage] += clock() - began

        return timed

    def watched_blocks(*given: Any) -> Iterator[Any]:
        blocks = iter(read_blocks(*given))
        following = watched("inflate, sha256 of the gzip", lambda: next(blocks, None))
        while (block := following()) is not None:
            yield block

    read_blocks = decode.read_blocks
    decode.read_blocks = watched_blocks  # type: ignore[assignment]
    # Two threads decode a file; the work after it runs alone, with its own threads.
    for stage, owner, name, clock in (
        ("parse", parser.LineParser, "parse", time.thread_time),
        ("profile", profile.Profiler, "add", time.thread_time),
        ("partial candles", partials.MinuteCandles, "add", time.thread_time),
        ("Parquet: encode, compress, write", decode._GroupWriter, "_encode", time.thread_time),
        ("control totals", stored.Totals, "add", time.thread_time),
        ("store the partial candles", fetch, "store_candles", time.process_time),
        ("six timeframes", merge, "day_of_candles", time.process_time),
        ("comparison with the ticks", trade_files, "mismatches", time.process_time),
    ):
        setattr(owner, name, watched(stage, getattr(owner, name), clock))
    found: dict[str, list[Run]] = defaultdict(list)
    source = trades_file(rows)
    with tempfile.TemporaryDirectory(prefix="backfill-stages-") as folder:
        for number in range(repeats + 1):
            product, began = Product(Path(folder) / str(number)), time.process_time()
            product.ticks.parent.mkdir()
            spent.clear()
            product.core(source if number else FOLDER / "warm-up.csv.gz", Path(folder) / "candles.parquet")
            product.compare()
            spent["all of it"] = time.process_time() - began
            spent["Parquet: encode, compress, write"] -= spent["control totals"]
            for stage, seconds in spent.items() if number else ():
                found[stage].append({"cpu": seconds})
    return rows_of(f"Stages of {rows:,} trades, × all of them", found, "all of it")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        case, source, candles = options.one
        run_case(work_of(case), [str(FOLDER / "warm-up.csv.gz"), candles], [source, candles])
    elif options.stages:
        print(markdown(stages(options.rows, options.repeats)))
    else:
        print(markdown(compare(options.rows, options.repeats, options.cases.split(","))))


if __name__ == "__main__":
    main()
