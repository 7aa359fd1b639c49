"""The command heals a day that lost trades, and its tables equal those of the day that lost none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from backfill_assets.cli import main
from backfill_assets.lake.store import Store
from backfill_assets.report.model import day_report
from backfill_assets.report.publish import current_page
from backfill_assets.standins.exchanges import ExchangesStandin
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.heal.healed_lake import COINBASE, DAY, id_at, traded, vendor_file, without_ids
from backfill_assets_tests.pipeline.conftest import Pipeline, write_settings

LOST, NEVER = (700, 701, 1_500), 2_000
PUBLISHED = ["candles", "bigquery/candles", "bigquery/coverage", "bigquery/quality", "report"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as running:
        yield running


def pipeline_of(stack: ExitStack, folder: Path, trades: bytes, url: str) -> Pipeline:
    """An environment over one user file, which asks the stand-in of the exchange."""
    files = folder / "files"
    path = files / "coinbase" / "trades" / DAY.replace("-", "/") / "BTC-USD.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(trades)
    (files / "instruments").mkdir()
    instrument = {
        "id": "BTC-USD",
        "exchange": "coinbase",
        "type": "spot",
        "baseCurrency": "BTC",
        "quoteCurrency": "USD",
        "availableSince": "2020-01-01T00:00:00Z",
    }
    (files / "instruments" / "coinbase.json").write_text(json.dumps([instrument]))
    standin = stack.enter_context(TardisStandin(datasets_dir=files))
    entry = {"exchanges": ["coinbase"], "symbols": ["BTC-USD"], "data_types": ["trades"]}
    heal = {"exchange_endpoint": url, "archive_endpoint": url}
    return Pipeline(write_settings(folder, standin, universe=[entry], heal=heal), standin)


def heal(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    monkeypatch.setenv("BACKFILL_ENV", str(pipeline.file))
    return CliRunner().invoke(main, ["heal", "--date", DAY, "--feed", str(COINBASE), *options])


def assert_told_with_receipts(page: str, store: Store) -> None:
    """Each healed range is on the page with the path of a receipt that is in the lake."""
    card = page.partition("<h3>Healed ids</h3>")[2].partition("</div>\n      </div>")[0]
    rows = re.findall(r"<tr>(<td>\d.*?)</tr>", card)
    cells = [[re.sub(r"<[^>]+>", "", cell) for cell in row.split("</td>")[:5]] for row in rows]
    assert sorted((row[0], row[1], row[2]) for row in cells) == [
        (f"{id_at(700)} … {id_at(701)}", "2", "recovered"),
        (f"{id_at(1_500)} … {id_at(1_500)}", "1", "recovered"),
        (f"{id_at(NEVER)} … {id_at(NEVER)}", "1", "never issued"),
    ]
    for _, _, _, source, receipt in cells:
        assert re.fullmatch(
            r"the public trades of coinbaseexchange for BTC-USD, \d{4}-\d\d-\d\d [\d:]{8} UTC", source
        )
        assert store.exists(receipt)
    assert "Rows recovered: 3. Ids never issued: 1. Ids lost: 0." in page


@pytest.mark.story
@pytest.mark.timeout(900)
def test_a_held_day_is_healed_and_published_with_the_candles_of_the_undamaged_one(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_day = traded(DAY, never=[id_at(NEVER)])
    exchange = stack.enter_context(ExchangesStandin(coinbase={"BTC-USD": whole_day}))
    damaged = vendor_file(COINBASE, without_ids(*LOST)(whole_day))
    (tmp_path / "whole").mkdir()
    (tmp_path / "damaged").mkdir()
    whole = pipeline_of(stack, tmp_path / "whole", vendor_file(COINBASE, whole_day), exchange.url)
    lossy = pipeline_of(stack, tmp_path / "damaged", damaged, exchange.url)
    for pipeline in (whole, lossy):
        pipeline.run(DAY, ["instruments", "ticks"])
        # The id that was never issued leaves half a minute of doubt, which quarantines the feed.
        assert pipeline.settled(DAY).scores.state == "held"
        actions = day_report(pipeline.store, pipeline.settings, DAY).actions
        ask = f"backfill-assets heal --date {DAY} --feed {COINBASE}"
        assert [ask in action.commands for action in actions] == [True]
        found = heal(pipeline, monkeypatch)
        assert found.exit_code == 0, found.output
        assert "0 ids still missing" in found.output
        assert pipeline.run(DAY, PUBLISHED).success
    assert whole.partition_bytes("candles")[DAY] == lossy.partition_bytes("candles")[DAY]
    assert whole.partition_bytes("coverage")[DAY] == lossy.partition_bytes("coverage")[DAY]
    [row] = lossy.table("quality", DAY).to_dicts()
    assert (row["healed_rows"], row["never_issued_ids"], row["missing_ids"]) == (3, 1, 0)
    assert "3 rows were recovered from the public trades of coinbaseexchange" in row["warnings"]
    page = current_page(lossy.store, lossy.settings, DAY)
    assert page is not None
    assert "3 rows were recovered from" in page
    assert "1 id was never issued by the venue" in page
    assert_told_with_receipts(page, lossy.store)

    # The vendor serves the same file again: recovered trades stay, and no exchange is asked.
    asked = len(exchange.requests)
    counting = lossy.settled(DAY).feeds[0].accepted
    assert lossy.run(DAY, ["ticks"], refresh=True).success
    assert "/datasets/" in lossy.downloads[-1]
    again = lossy.settled(DAY).feeds[0]
    assert again.verdict.healed_rows == 3
    assert (again.accepted and again.accepted.content) == (counting and counting.content)
    replayed = heal(lossy, monkeypatch, "--dry-run")
    assert replayed.exit_code == 0, replayed.output
    assert "3 of 3 receipts give the same conclusion again" in replayed.output
    assert len(exchange.requests) == asked


def test_the_command_says_why_it_cannot_heal_and_ends_with_1(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = stack.enter_context(ExchangesStandin())
    pipeline = pipeline_of(stack, tmp_path, vendor_file(COINBASE, traded(DAY)), exchange.url)
    found = heal(pipeline, monkeypatch)
    assert (found.exit_code, exchange.requests) == (1, [])
    assert found.output == f"{DAY} was never run: backfill-assets run --date {DAY}\n"
    file = yaml.safe_load(pipeline.file.read_text())
    assert file["heal"]["exchange_endpoint"] == exchange.url
