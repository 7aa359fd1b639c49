"""A day through the graph, compared with each source through its real client over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
import yaml

from backfill_assets.lake import paths
from backfill_assets.quality.remedies import run_day
from backfill_assets.references.day import load_comparison
from backfill_assets.references.fetched import load_fetched
from backfill_assets.standins import faults
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets.warehouse.garbage import unnamed_files
from backfill_assets.warehouse.verify import verify_days
from backfill_assets_tests.emulators.candle_sources import (
    KEY,
    Candle,
    CandleSources,
    as_json,
    milliseconds,
    truth_of,
)
from backfill_assets_tests.pipeline.conftest import MakePipeline, Pipeline, checks_of

DAY, BEFORE = "2024-01-02", "2024-01-01"
#: By kind of source: exchange and symbol of our market, the source's service, and the source's market.
MARKETS = {
    "directory": ("binance", "BTC-USDT", "", ""),
    "binance": ("binance", "BTC-USDT", "binance", "BTC-USDT"),
    "kraken": ("kraken", "BTC-USDT", "kraken", "BTC-USDT"),
    "coinbase": ("coinbase", "BTC-USDT", "coinbaseexchange", "BTC-USDT"),
    "massive": ("coinbase", "BTC-USDT", "massive", "BTC-USDT"),
}
CHECK = "reference:agreement"
# Every test makes a lake and runs its days.
pytestmark = pytest.mark.story
#: The assets after publishing.
AFTER = ("reference", "report")


@pytest.fixture(scope="module")
def quiet_market() -> Market:
    """So few trades that many minutes have none."""
    return Market(rows={(exchange, "BTC-USDT"): 600 for exchange in ("binance", "coinbase", "kraken")})


@dataclass
class Compared:
    """A finished day, and the services that have the same minutes as it."""

    pipeline: Pipeline
    sources: CandleSources
    kind: str

    def settings(self, **source: Any) -> None:
        """Name this source alone; one differing minute is too much."""
        (self.pipeline.folder / "rules.yaml").write_text(
            yaml.safe_dump({"version": 5, "comparison": {"agreement": 1, "differing_run": 0}})
        )
        content = yaml.safe_load(self.pipeline.file.read_text())
        content |= {"comparison": {"sources": [source]}, "thresholds": {"rules": "rules.yaml"}}
        self.pipeline.file.write_text(yaml.safe_dump(content))

    def check(self, *assets: str) -> Any:
        """The check after a run of the day, or of these assets."""
        result = self.pipeline.run(DAY, [*assets] or None)
        assert result.success
        return checks_of(result)[CHECK]

    def change(self, change: Any) -> None:
        """Change the source's candles; its earlier answers are forgotten."""
        if self.kind == "directory":
            file = self.file
            pl.DataFrame(change(truth_of(pl.read_parquet(file))), orient="row").pipe(self.write)
        else:
            _, _, service, market = MARKETS[self.kind]
            held = self.sources.truth[service]
            held[market] = change(held[market])
        for path in list(self.pipeline.store.list("references/")):
            self.pipeline.store.delete(path)

    @property
    def file(self) -> Any:
        return self.pipeline.folder / "own" / "binance" / "BTC-USDT" / f"{DAY}.parquet"

    def write(self, rows: pl.DataFrame) -> None:
        names = ("open_time", "open", "high", "low", "close", "volume")
        rows.rename(dict(zip(rows.columns, names, strict=True))).with_columns(
            timeframe=pl.lit("1m"),
            open_time=pl.from_epoch("open_time", time_unit="ms")
            if rows.dtypes[0].is_integer()
            else pl.col("open_time"),
        ).write_parquet(self.file)


@pytest.fixture(params=list(MARKETS))
def compared(
    request: pytest.FixtureRequest, make_pipeline: MakePipeline, quiet_market: Market
) -> Iterator[Compared]:
    kind = request.param
    exchange, symbol, service, market = MARKETS[kind]
    with TardisStandin(quiet_market) as vendor, CandleSources(truth={service: {}}) as sources:
        universe = [{"exchanges": ["binance", "coinbase", "kraken"], "symbols": ["BTC-USDT"]}]
        pipeline = make_pipeline(vendor, universe=universe)
        pipeline.begin_after(DAY)
        own = pipeline.table("candles", DAY).filter(exchange=exchange, symbol=symbol)
        sources.truth[service][market] = truth_of(own)
        day = Compared(pipeline, sources, kind)
        if kind == "directory":
            day.file.parent.mkdir(parents=True)
            columns = ("open_time", "open", "high", "low", "close", "volume")
            own.filter(timeframe="1m").select(*columns).pipe(day.write)
            day.settings(kind="directory", folder=str(pipeline.folder / "own"))
        elif kind == "massive":
            day.settings(kind="massive", endpoint=sources.url, api_key=KEY, exchanges=["coinbase"])
        else:
            day.settings(kind="ccxt", endpoint=sources.url, exchanges=[exchange])
        yield day


def one_price_changed(rows: list[Candle]) -> list[Candle]:
    """Another close in the tenth traded minute."""
    time, open_, high, low, close, volume = rows[9]
    return [*rows[:9], (time, open_, max(high, close * 1.02), low, close * 1.02, volume), *rows[10:]]


def test_a_day_is_compared_with_each_source_and_nobody_is_asked_again(compared: Compared) -> None:
    exchange, symbol, service, _ = MARKETS[compared.kind]
    first = compared.check()
    assert first.passed, first.description
    found = load_comparison(compared.pipeline.store, DAY)
    assert found is not None
    [one] = found.markets
    assert (one.exchange, one.symbol, one.share) == (exchange, symbol, 1.0)
    minutes = compared.pipeline.table("candles", DAY).filter(exchange=exchange, timeframe="1m").height
    assert one.minutes == minutes < 600, "there are empty minutes, and they are no difference"
    assert bool(compared.sources.requests) == bool(service)

    store = compared.pipeline.store
    kept = [*store.list("references/"), paths.day_report(DAY)]
    assert len(kept) == (4 if service else 2)
    before = {path: store.objects(path)[path].changed for path in kept}
    compared.sources.requests.clear()
    assert compared.check().passed
    assert compared.sources.requests == []
    assert {path: store.objects(path)[path].changed for path in kept} == before

    # The same comparison needs no source.
    store.delete(paths.comparison(DAY))
    assert compared.check(*AFTER).passed
    assert compared.sources.requests == []
    assert load_comparison(store, DAY) == found


def test_one_price_of_a_source_that_differs_is_told_by_check_and_page(compared: Compared) -> None:
    exchange, symbol, _, _ = MARKETS[compared.kind]
    compared.change(one_price_changed)
    check = compared.check(*AFTER)
    assert not check.passed
    assert "1 of 1 markets agree in less than 100%" in check.description
    assert "1 of " in check.description.split("row; ")[1]
    found = load_comparison(compared.pipeline.store, DAY)
    assert found is not None
    [one] = found.markets
    [minute] = one.differences
    assert (one.minutes - one.equal, one.first_difference[:16]) == (1, minute.time[:16])
    assert minute.theirs[3] == pytest.approx((minute.ours[3] or 0) * 1.02)
    page = (compared.pipeline.folder / "lake" / paths.day_report(DAY)).read_text()
    shown = page.split('class="differences"')[1].split("</details>")[0]
    assert f"{exchange} {symbol}" in shown
    assert minute.time[11:16] in shown
    assert f"<b>{minute.theirs[3]:.15g}</b>" in shown


def test_a_source_without_candles_warns_and_the_day_is_published(compared: Compared) -> None:
    if compared.kind == "directory":
        compared.file.unlink()
        said = "holds no EXCHANGE/SYMBOL/DAY.csv"
    else:
        compared.change(lambda rows: [])
        is_flat = compared.kind == "kraken"  # which keeps the newest minutes only
        said = "gave 0 of 1,440 minutes" if is_flat else "gave no candle of the day"
    check = compared.check(*AFTER)
    assert not check.passed
    assert said in check.description
    assert compared.pipeline.settled(DAY).scores.state == "published"
    page = (compared.pipeline.folder / "lake" / paths.day_report(DAY)).read_text()
    assert said in page
    assert 'class="differences"' not in page


@pytest.mark.parametrize("compared", ["kraken"], indirect=True)
@pytest.mark.parametrize(("hours", "minutes"), [(9, 180), (60, 0)])
def test_a_day_that_could_be_compared_in_part_only_warns_with_its_minutes(
    compared: Compared, hours: int, minutes: int
) -> None:
    compared.change(lambda rows: rows)
    compared.sources.now = milliseconds(DAY, 1440 + hours * 60)
    check = compared.check(*AFTER)
    assert not check.passed
    said = f"kraken BTC-USDT: ccxt: gave {minutes} of 1,440 minutes"
    assert f"compared in part: {said}" in check.description
    assert "it has the newest 720 minutes only" in check.description
    assert "correct or remove it" not in check.description
    found = load_comparison(compared.pipeline.store, DAY)
    assert found is not None
    assert sum(one.minutes for one in found.markets) == sum(one.equal for one in found.markets)
    assert bool(found.markets) == bool(minutes)
    page = (compared.pipeline.folder / "lake" / paths.day_report(DAY)).read_text()
    assert f"Compared in part: {said}" in page
    assert ("kraken, the exchange&#39;s own candles (ccxt): minutes" in page) == bool(minutes)


@pytest.mark.parametrize("compared", ["binance"], indirect=True)
def test_answers_that_are_kept_are_verified_and_no_garbage(compared: Compared) -> None:
    assert compared.check(*AFTER).passed
    store = compared.pipeline.store
    kept = load_fetched(store, "ccxt", DAY)
    assert kept.file is not None
    path = paths.reference_data("ccxt", DAY, kept.file.content)
    assert not [found for found in unnamed_files(store).get(DAY, []) if found.startswith("references/")]

    file = compared.pipeline.folder / "lake" / path
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    [told] = verify_days(store, [], [DAY], mend=False)
    [problem] = told.problems
    assert path in problem
    assert f"'{run_day(DAY)}' asks ccxt again" in problem
    [mended] = verify_days(store, [], [DAY], mend=True)
    assert mended.problems == told.problems
    assert not file.exists()

    compared.sources.requests.clear()
    assert compared.check(*AFTER).passed
    assert compared.sources.requests
    assert [found.problems for found in verify_days(store, [], [DAY], mend=False)] == [()]

    # A file that no document names is freed, and one that its document names is not.
    store.delete(paths.reference_manifest("ccxt", DAY))
    assert path in unnamed_files(store)[DAY]


@pytest.mark.parametrize("compared", ["binance"], indirect=True)
def test_a_failing_source_warns_after_publishing_and_the_next_run_asks_again(compared: Compared) -> None:
    compared.pipeline.store.delete(paths.comparison(DAY))
    compared.sources.faults["."] = as_json({"msg": "busy"}, 503)
    result = compared.pipeline.run(DAY)
    assert result.success
    steps = [e.step_key for e in result.all_events if e.event_type_value == "STEP_START"]
    assert max(n for n, step in enumerate(steps) if step.startswith("bigquery")) < steps.index("reference")
    assert steps.index("reference") < steps.index("report")
    check = checks_of(result)[CHECK]
    assert not check.passed
    assert "binance BTC-USDT: ccxt: binance was asked for BTC-USDT of 2024-01-02 and" in check.description
    assert "503" in check.description
    compared.sources.faults.clear()
    assert compared.check(*AFTER).passed


@pytest.mark.parametrize("compared", ["binance"], indirect=True)
def test_markets_that_a_source_lacks_are_said_and_another_market_is_known_by_its_prices(
    compared: Compared,
) -> None:
    compared.settings(kind="ccxt", endpoint=compared.sources.url)
    check = compared.check(*AFTER)
    # Kraken and Coinbase list no market here, so the answer is not theirs.
    assert "kraken BTC-USDT: ccxt: kraken was asked for BTC-USDT" in check.description
    compared.sources.truth |= {
        name: {"ETH-USDT": compared.sources.truth["binance"]["BTC-USDT"]}
        for name in ("kraken", "coinbaseexchange")
    }
    check = compared.check(*AFTER)
    assert check.passed
    assert (
        "not compared: kraken BTC-USDT: ccxt: kraken lists no spot market BTC/USDT any more, or never did"
        in check.description
    )

    compared.change(lambda rows: [(row[0], *(price / 20 for price in row[1:5]), row[5]) for row in rows])
    check = compared.check(*AFTER)
    assert not check.passed
    assert "binance BTC-USDT: ccxt: prices are" in check.description
    assert "looks like another market" in check.description


@pytest.mark.parametrize("compared", ["binance"], indirect=True)
def test_a_source_that_has_nothing_of_the_day_is_said(compared: Compared) -> None:
    held = compared.sources.truth["binance"]
    held["ETH-USDT"] = held.pop("BTC-USDT")
    check = compared.check(*AFTER)
    assert not check.passed
    assert "ccxt has none of the day's markets" in check.description
    compared.settings(kind="ccxt", endpoint=compared.sources.url, exchanges=["bitmex"])
    assert "ccxt names no exchange of the day" in compared.check(*AFTER).description


@pytest.mark.parametrize("compared", ["binance"], indirect=True)
def test_candles_that_the_next_days_run_changes_are_compared_again(compared: Compared) -> None:
    assert compared.check(*AFTER).passed
    former = load_comparison(compared.pipeline.store, DAY)
    # A trade of the day's last second arrives in the next day's file.
    compared.pipeline.serve_changed(
        "binance/trades/BTCUSDT", "2024-01-03", lambda lines: [_moved_to_the_day(lines[0]), *lines[1:]]
    )
    compared.sources.requests.clear()
    assert compared.pipeline.run("2024-01-03").success
    found = load_comparison(compared.pipeline.store, DAY)
    assert found is not None
    assert former is not None
    assert found.inputs != former.inputs
    assert not [path for path in compared.sources.requests if "startTime=17041536" in path]


def _moved_to_the_day(line: str) -> str:
    cells = line.split(",")
    cells[2] = str(int(cells[2]) // 86_400_000_000 * 86_400_000_000 - 1_000_000)
    return ",".join(cells)


@pytest.mark.parametrize("compared", ["binance"], indirect=True)
def test_a_day_without_a_published_feed_has_nothing_to_compare(compared: Compared) -> None:
    pipeline = compared.pipeline
    pipeline.with_fault("binance/trades/BTCUSDT", BEFORE, Fault(always=faults.not_found()))
    check = checks_of(pipeline.run(BEFORE))[CHECK]
    assert (check.passed, check.description) == (True, "nothing to compare with")
    assert compared.sources.requests == []
