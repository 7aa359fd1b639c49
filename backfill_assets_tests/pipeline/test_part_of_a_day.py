"""Files with few rows: a few minutes of a day, and whole days of markets that trade seldom."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from backfill_assets.days import start_us
from backfill_assets.quality.verdict import Verdict
from backfill_assets.report.model import day_report
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.pipeline.conftest import MakePipeline, Pipeline

DAY = "2024-02-29"
COLUMNS = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
Seconds = Sequence[float]
Serve = Callable[..., Pipeline]


def trades(exchange: str, symbol: str, seconds: Seconds, *, ids: bool = True, price: str = "100.00") -> bytes:
    lines = [COLUMNS]
    for n, second in enumerate(sorted(seconds)):
        at = start_us(DAY) + round(second * 1e6)
        number = str(5_000 + n) if ids else ""
        lines.append(f"{exchange},{symbol},{at},{at + 50_000},{number},{('buy', 'sell')[n % 2]},{price},1")
    return gzip.compress("\n".join([*lines, ""]).encode(), 1, mtime=0)


@pytest.fixture
def serve(tmp_path: Path, make_pipeline: MakePipeline) -> Iterator[Serve]:
    """Runs the day on files by data set symbol, in an environment that expects all of them."""
    running: list[TardisStandin] = []

    def start(
        exchange: str, files: dict[str, bytes], thresholds: dict[str, object] | None = None
    ) -> Pipeline:
        folder = tmp_path / "files"
        (folder / "instruments").mkdir(parents=True)
        listed = []
        for symbol, content in files.items():
            base, quote = symbol[:-4], symbol[-4:]
            path = folder / exchange / "trades" / DAY.replace("-", "/") / f"{symbol}.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            since = {"availableSince": "2020-01-01T00:00:00Z", "type": "spot"}
            listed.append(
                {"id": symbol, "exchange": exchange, "baseCurrency": base, "quoteCurrency": quote, **since}
            )
        (folder / "instruments" / f"{exchange}.json").write_text(json.dumps(listed))
        standin = TardisStandin(datasets_dir=folder)
        running.append(standin.__enter__())
        symbols = [f"{symbol[:-4]}-{symbol[-4:]}" for symbol in files]
        universe = [{"exchanges": [exchange], "symbols": symbols, "data_types": ["trades"]}]
        changes = {"thresholds": thresholds} if thresholds else {}
        return make_pipeline(standin, universe=universe, **changes)

    yield start
    for standin in running:
        standin.__exit__(None, None, None)


def verdicts(pipeline: Pipeline) -> dict[str, Verdict]:
    return {f.feed.dataset_symbol: f.verdict for f in pipeline.settled(DAY).feeds}


def test_twelve_minutes_are_no_day_whatever_their_ids_say(serve: Serve) -> None:
    minutes = [36_000 + n for n in range(720)]
    files = {symbol: trades("binance", symbol, minutes) for symbol in ("BTCUSDT", "ETHUSDT")}
    pipeline = serve("binance", files)
    assert not pipeline.run(DAY).success
    for verdict in verdicts(pipeline).values():
        assert (verdict.outcome, verdict.completeness) == (
            "quarantine",
            pytest.approx(720 / 86_400, abs=2e-3),
        )
        assert "of the day is there (publish_completeness 0.5)" in " ".join(verdict.reasons)
    report = day_report(pipeline.store, pipeline.settings, DAY)
    assert [action.urgency for action in report.actions] == ["bad"]
    assert all(symbol in report.actions[0].commands[0] for symbol in files)


def test_more_than_half_of_a_day_is_published_and_its_report_never_calls_it_good_enough(serve: Serve) -> None:
    pipeline = serve("binance", {"BTCUSDT": trades("binance", "BTCUSDT", range(72_000))}, {"hold_below": 0.0})
    pipeline.run(DAY)
    verdict = verdicts(pipeline)["BTCUSDT"]
    assert verdict.completeness == pytest.approx(72 / 86.4, abs=1e-3)
    told = " ".join(action.remedy for action in day_report(pipeline.store, pipeline.settings, DAY).actions)
    assert "Nothing has to be done" not in told


def seldom(count: int, seed: int) -> list[float]:
    """Trades in two bursts of a few minutes, as in a market that traders visit twice a day."""
    dice = random.Random(seed)
    bursts = dice.sample(range(80_000), 2)
    return [dice.choice(bursts) + dice.uniform(0, 300) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 20, 99])
def test_a_complete_day_of_a_market_that_trades_seldom_is_estimated_where_a_busy_one_shows_the_capture(
    serve: Serve, count: int
) -> None:
    quiet = trades("gate-io", "RAREUSDT", seldom(count, count), ids=False)
    busy = trades("gate-io", "BTCUSDT", [n * 5.0 for n in range(17_280)], ids=False)
    pipeline = serve("gate-io", {"RAREUSDT": quiet, "BTCUSDT": busy})
    assert pipeline.run(DAY).success
    found = verdicts(pipeline)["RAREUSDT"]
    assert (found.outcome, found.completeness, found.completeness_state) == ("publish", 0.99, "estimated")


@pytest.mark.parametrize("stood_still", [False, True])
def test_it_is_published_as_unknown_where_nothing_shows_the_capture(serve: Serve, stood_still: bool) -> None:
    files = {"RAREUSDT": trades("gate-io", "RAREUSDT", seldom(20, 1), ids=False)}
    if stood_still:
        seconds = [n * 5.0 for n in range(17_280) if not 40_000 < n * 5.0 < 44_000]
        files["BTCUSDT"] = trades("gate-io", "BTCUSDT", seconds, ids=False)
    pipeline = serve("gate-io", files)
    pipeline.run(DAY)
    found = verdicts(pipeline)["RAREUSDT"]
    assert (found.outcome, found.completeness, found.completeness_state) == ("publish", None, "no_evidence")
    assert "nothing tells whether rows are missing" in " ".join(found.warnings)
    assert pipeline.settled(DAY).scores.state == "degraded"
    assert pipeline.table("trades", DAY).filter(dataset_symbol="RAREUSDT").height == 20


@pytest.mark.parametrize("count", [38, 600])
def test_prices_are_not_judged_by_a_grid_that_nobody_listed(serve: Serve, count: int) -> None:
    dice = random.Random(count)
    lines = gzip.decompress(trades("binance", "SHIBUSDT", seldom(count, 3))).decode().splitlines()
    prices = [f"0.0000{dice.randrange(1, 9)}{dice.randrange(10)}{dice.randrange(10)}5" for _ in lines]
    changed = [
        lines[0],
        *(line.replace("100.00", price) for line, price in zip(lines[1:], prices, strict=False)),
    ]
    pipeline = serve("binance", {"SHIBUSDT": gzip.compress("\n".join([*changed, ""]).encode())})
    pipeline.run(DAY)
    found = verdicts(pipeline)["SHIBUSDT"]
    assert found.quality == 1.0
    assert not [text for text in (*found.reasons, *found.warnings) if "grid" in text or "spike" in text]
