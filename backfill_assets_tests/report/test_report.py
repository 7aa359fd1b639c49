"""The pages of good, degraded and held days: their text, when they are written, and when they are not."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from backfill_assets.cli import main
from backfill_assets.failures import PermanentFailure
from backfill_assets.lake import paths
from backfill_assets.progress.stored_days import stored_day
from backfill_assets.quality.bucket_states import MINUTES, decode, letters_of
from backfill_assets.quality.measures import load_measures
from backfill_assets.references.day import compare_days
from backfill_assets.report.evidence import FeedReport
from backfill_assets.report.minutes import MISSING
from backfill_assets.report.model import DayReport, day_report
from backfill_assets.report.month import month_report
from backfill_assets.report.page import score, seconds
from backfill_assets.report.publish import write_day, write_page
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.pipeline.conftest import Pipeline, write_settings
from backfill_assets_tests.quality.watched_stores import ReadOnlyStore

RUN = "backfill-assets standins -- dg launch -m backfill_assets.definitions --job day"
GOOD, DEGRADED, HELD, NEVER_RUN = "2024-01-02", "2024-01-03", "2024-01-05", "2024-01-09"


def report_of(pipeline, day: str) -> DayReport:
    return day_report(pipeline.store, pipeline.settings, day)


def feed_of(report: DayReport, name: str) -> FeedReport:
    return next(f for f in report.feeds if str(f.feed) == name)


def test_a_good_day_shows_scores_candles_and_what_was_published(reports):
    report = report_of(reports.pipeline, GOOD)
    assert report.state == "published"
    assert [line.passed for line in report.scores] == [True] * 4
    assert {f.published for f in report.feeds} == {"yes"}
    assert {line.table: line.state for line in report.publications} == dict.fromkeys(
        ("instruments", "trades", "candles", "coverage", "quality"), "done"
    )
    trades = next(line for line in report.publications if line.table == "trades")
    assert trades.rows == report.rows == reports.pipeline.table("trades", GOOD).height
    candles = reports.pipeline.table("candles", GOOD)
    for feed in report.feeds:
        market = candles.filter(exchange=feed.feed.exchange, symbol=feed.symbol)
        assert {name: len(found) for name, found in feed.candles.items()} == {
            name: market.filter(timeframe=name).height for name in ("1m", "5m", "1h")
        }
        assert sum(feed.minutes.trades) >= market.filter(timeframe="1d")["trade_count"].sum() * 0.99
    assert report.pending == ()
    assert [action for action in report.actions if action.urgency != "note"] == []


def test_the_overall_score_is_that_of_the_quality_table(reports):
    for day, expected in ((GOOD, 1.0), (DEGRADED, 1.0), (HELD, 0.0)):
        report = report_of(reports.pipeline, day)
        rows = reports.pipeline.table("quality", day)
        assert (report.overall.warehouse, rows["day_warehouse"][0]) == (expected, expected)
        assert report.overall.product == rows["day_overall"][0]
        assert report.overall.weighted_sum == rows["day_overall_weighted_sum"][0]
        assert (report.overall.product > 0) == (day != HELD)


def test_the_minutes_are_those_of_the_coverage_of_every_feed(reports):
    for day in (GOOD, DEGRADED, HELD):
        measured = load_measures(reports.pipeline.store, day).minutes
        for feed in report_of(reports.pipeline, day).feeds:
            [text] = measured[str(feed.feed)].symbols.values()
            assert letters_of(decode(text)) == feed.minutes.states


def test_a_degraded_day_lists_the_worst_first_and_says_why(reports):
    report = report_of(reports.pipeline, DEGRADED)
    assert report.state == "degraded"
    assert [f.verdict.outcome for f in report.feeds[:3]] == ["missing", "quarantine", "publish"]
    gap = feed_of(report, "binance/trades/BTCUSDT")
    assert (gap.published, gap.accepted, gap.candles) == ("no", False, {})
    assert gap.gaps[0].last_missing - gap.gaps[0].first_missing + 1 == 500
    assert gap.minutes.states == MISSING.code * MINUTES
    [lost] = gap.waiting.runs(MISSING)
    assert 45 <= lost[1] - lost[0] <= 55
    assert any((mark.first, mark.after) == lost[:2] for mark in gap.marks)
    assert [(line.feed, line.outcome) for line in report.pending] == [(gap.feed, "quarantine")]
    assert "500 ids are missing" in report.pending[0].reasons[0]
    silent = feed_of(report, "kraken/trades/ETH-USDT")
    [mark] = silent.marks
    assert mark.sign == "~"
    assert 115 <= mark.after - mark.first <= 125
    assert silent.silences[0].counts
    assert silent.silences[0].end_us - silent.silences[0].start_us >= 7_000_000_000
    assert "lost time" in silent.silences[0].explanation


def test_a_silence_between_ids_that_join_is_explained_and_does_not_count(reports):
    feed = feed_of(report_of(reports.pipeline, GOOD), "binance/trades/ADAUSDT")
    assert feed.silences
    assert not any(silence.counts for silence in feed.silences)
    assert {silence.explanation for silence in feed.silences} == {
        "the ids before and after join: nothing was traded"
    }


def test_a_degraded_day_says_which_feed_why_since_when_and_what_to_do(reports):
    again, refresh, *notes = report_of(reports.pipeline, DEGRADED).actions
    assert [(f.title, f.when) for f in again.findings] == [("kraken/trades/XBT-USDT", "the whole day")]
    assert "404" in again.findings[0].what
    assert again.commands == (f"{RUN} --partition {DEGRADED}",)
    assert refresh.commands[0].startswith(f"{RUN} --partition {DEGRADED} --config-json ")
    [content] = {line.content[:12] for line in report_of(reports.pipeline, DEGRADED).pending}
    feed = "--feed binance/trades/BTCUSDT"
    assert refresh.commands[1] == f"backfill-assets heal --date {DEGRADED} {feed}"
    assert refresh.commands[2] == (
        f'backfill-assets approve --date {DEGRADED} {feed} --content {content} --reason "…"'
    )
    [gap] = refresh.findings
    assert gap.title == "binance/trades/BTCUSDT"
    assert "500 ids are missing" in gap.what
    assert re.fullmatch(r"\d\d:\d\d–\d\d:\d\d", gap.when)
    [lacking] = notes
    assert "kraken/trades/ETH-USDT" in lacking.commands[0]
    assert (lacking.urgency, [finding.title for finding in lacking.findings]) == (
        "warn",
        ["kraken/trades/ETH-USDT"],
    )


def test_pages_and_reports_name_the_same_command_first(reports):
    for day in (DEGRADED, HELD):
        found = stored_day(reports.pipeline.store, reports.pipeline.settings, day)
        assert found.command == report_of(reports.pipeline, day).actions[0].commands[0]
    assert stored_day(reports.pipeline.store, reports.pipeline.settings, GOOD).command == ""


def test_every_page_of_generated_data_says_so_and_that_of_other_data_does_not(reports, tmp_path):
    words = "Generated data from the stand-in for Tardis: no market had these prices"
    for name in (GOOD, DEGRADED, HELD, GOOD[:7]):
        assert words in reports.file(name).read_text()
    mixed = {str(f.feed): f.candidate or f.accepted for f in reports.pipeline.settled(DEGRADED).feeds}
    assert mixed["kraken/trades/ADA-USDT"].generated
    assert not mixed["binance/trades/BTCUSDT"].generated, "its file was served by the test"
    folder = tmp_path / "real"
    folder.mkdir()
    with TardisStandin(Market(rows={("kraken", "BTC-USDT"): 3_000})) as standin:
        universe = [{"exchanges": ["kraken"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}]
        real = Pipeline(write_settings(folder, standin, universe=universe), standin)
        real.serve_changed("kraken/trades/XBT-USDT", GOOD, lambda rows: rows)
        assert real.run(GOOD).success
    for name in (f"{GOOD}.html", f"{GOOD[:7]}.html"):
        assert words not in (folder / "lake" / "reports" / name).read_text()


def test_a_held_day_has_its_page_although_its_run_failed(reports):
    assert not reports.results[HELD].success
    assert reports.file(HELD).exists()
    report = report_of(reports.pipeline, HELD)
    assert report.state == "held"
    assert {f.published for f in report.feeds} == {"no"}
    assert {line.table: line.state for line in report.publications}["trades"] == "never"
    assert {action.urgency for action in report.actions} <= {"bad", "note"}
    assert len(report.actions[0].findings) == 6
    missing = [f for f in report.feeds if f.verdict.outcome == "missing"]
    assert [f.minutes.count(MISSING) for f in missing] == [MINUTES] * 6


def test_every_market_is_held_against_the_other_venues(reports):
    lines = report_of(reports.pipeline, GOOD).agreements
    assert len(lines) == 9
    assert {line.against for line in lines} == {"the other venues"}
    assert all(line.enough and line.share == line.equal / line.minutes for line in lines)


@pytest.fixture
def reference(copied, tmp_path):
    """The exchange's own candles of one market on the good day, to be changed by the test."""
    folder = tmp_path / "reference" / "binance" / "BTC-USDT"
    folder.mkdir(parents=True)
    minutes = copied.table("candles", GOOD).filter(exchange="binance", symbol="BTC-USDT", timeframe="1m")
    names = ("open_time", "open", "high", "low", "close", "volume", "trade_count")
    minutes.select(*names).write_parquet(folder / f"{GOOD}.parquet")
    copied.file.write_text(copied.file.read_text() + f"comparison: {{reference: {tmp_path / 'reference'}}}\n")
    return folder / f"{GOOD}.parquet"


def measured_report(pipeline) -> DayReport:
    """The report after candles were compared with the reference in its present state."""
    compare_days(pipeline.store, GOOD, pipeline.settings)
    return report_of(pipeline, GOOD)


def own(report: DayReport):
    return [line for line in report.agreements if line.against == "the exchange's own candles"]


def test_the_exchanges_own_candles_are_shown_with_the_share_of_equal_minutes(reference, copied):
    [line] = own(measured_report(copied))
    assert (line.market, line.share, line.enough) == ("binance BTC-USDT", 1.0, True)
    table = pl.read_parquet(reference)
    table.with_columns(pl.when(pl.int_range(pl.len()) < 200).then(1.0).otherwise("open").alias("open")).pipe(
        lambda changed: changed.write_parquet(reference)
    )
    [line] = own(measured_report(copied))
    assert (line.minutes - line.equal, line.enough) == (200, False)
    assert line.first_difference == f"{table['open_time'][0]:%H:%M}"


def test_a_reference_that_cannot_be_read_is_told_on_the_page_and_loses_nothing_else(reference, copied):
    reference.write_bytes(b"no candles")
    report = measured_report(copied)
    [failure] = report.reference_failures
    assert "cannot be read as candles" in failure
    assert (own(report), len(report.agreements), report.state) == ([], 9, "published")


def test_the_page_comes_last_so_that_it_tells_what_was_published(reports):
    for result in reports.results.values():
        steps = [e.step_key for e in result.all_events if e.event_type_value == "STEP_START"]
        assert steps[-1] == "report"
    assert "published</span>" in reports.file(GOOD).read_text().split('id="h-published"')[1]


def test_the_asset_links_the_page(reports):
    for day, result in reports.results.items():
        events = [e for e in result.get_asset_materialization_events() if e.asset_key.path == ["report"]]
        assert events[0].materialization.metadata["page"].value == str(reports.file(day))


def test_a_day_that_comes_seals_the_page_of_the_day_before(reports, copied):
    file = Path(copied.store.uri_of(paths.day_report("2024-01-05")))
    assert "not sealed" in file.read_text()
    before = file.read_text()
    copied.run("2024-01-04")
    assert file.read_text() != before
    assert 'rel="prev"' in file.read_text()


def test_the_same_lake_gives_the_same_bytes_and_nothing_is_written_anew(reports):
    file = reports.file(GOOD)
    before = (file.read_bytes(), file.stat().st_ino)
    write_day(reports.pipeline.store, reports.pipeline.settings, GOOD)
    assert (file.read_bytes(), file.stat().st_ino) == before


def test_a_report_is_read_from_a_store_that_refuses_to_write(reports):
    store, settings = ReadOnlyStore(Path(reports.pipeline.store.uri)), reports.pipeline.settings
    for day in (GOOD, DEGRADED, HELD):
        assert day_report(store, settings, day) == report_of(reports.pipeline, day)
    fresh = month_report(store, settings, "2024-01", fresh=True)
    assert fresh.summaries.keys() == {"2024-01-01", GOOD, DEGRADED, HELD}


def test_the_month_has_every_feed_on_every_day(reports):
    month = month_report(reports.pipeline.store, reports.pipeline.settings, "2024-01")
    assert len(month.days) == 31
    assert {day: s.state for day, s in month.summaries.items()} == {
        "2024-01-01": "published",
        GOOD: "published",
        DEGRADED: "degraded",
        HELD: "held",
    }
    assert month.cell("binance/trades/BTCUSDT", DEGRADED).outcome == "quarantine"
    assert month.cell("binance/trades/BTCUSDT", NEVER_RUN) is None
    assert month.pages == {"2024-01-01", GOOD, DEGRADED, HELD}
    fresh = month_report(reports.pipeline.store, reports.pipeline.settings, "2024-01", fresh=True)
    # Only a run of the day knows its page, the page's inputs, and the version of the build that made it.
    bare = {"build_version": "", "inputs": "", "documents": "", "page_bytes": None, "page_content": ""}
    assert fresh.summaries == {day: s.model_copy(update=bare) for day, s in month.summaries.items()}
    assert month.summaries[HELD].overall == 0 < month.summaries[DEGRADED].overall
    assert month.summaries[DEGRADED].left_out == ("binance/trades/BTCUSDT", "kraken/trades/XBT-USDT")


def test_an_old_summary_does_not_mislead_a_fresh_month(copied):
    copied.store.delete(paths.day_summary(GOOD))
    month = month_report(copied.store, copied.settings, "2024-01")
    assert month.summaries[GOOD].state == "published"


def test_a_day_that_never_ran_is_refused_with_the_remedy(reports):
    with pytest.raises(PermanentFailure, match=r"has nothing of 2024-01-09: run the day first"):
        report_of(reports.pipeline, NEVER_RUN)


def test_a_page_in_a_file_of_its_own_leads_nowhere_else(reports, tmp_path):
    for day, month in ((GOOD, ""), ("", "2024-01")):
        out = tmp_path / f"{day or month}.html"
        write_page(reports.pipeline.store, reports.pipeline.settings, day, month, out)
        assert 'href="2024' not in out.read_text()


@pytest.fixture
def command(reports, monkeypatch):
    monkeypatch.setenv("BACKFILL_ENV", str(reports.pipeline.file))
    return lambda *words: CliRunner().invoke(main, ["report", *map(str, words)])


def test_the_command_writes_the_page_and_says_where_it_is(reports, command, tmp_path):
    assert command("--date", GOOD).output.strip() == str(reports.file(GOOD))
    assert command("--month", "2024-01").output.strip() == str(reports.file("2024-01"))
    out = tmp_path / "day.html"
    assert command("--date", GOOD, "--out", out).output.strip() == str(out)
    assert out.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), "give either --date or --month"),
        (("--date", GOOD, "--month", "2024-01"), "give either --date or --month"),
        (("--date", NEVER_RUN), "run the day first"),
        (("--month", "January"), "is not a month"),
        (("--date", GOOD, "--out", "/nowhere/day.html"), "give --out a file in an existing folder"),
    ],
)
def test_the_command_refuses_what_it_cannot_do_in_one_line(command, words, error):
    answer = command(*words)
    assert answer.exit_code != 0
    assert error in answer.output


def test_scores_are_cut_and_lengths_of_time_are_told_as_people_do():
    assert [score(x) for x in (1.0, 0.99999, 0.33, 2 / 3, None)] == [
        "1.0000",
        "0.9999",
        "0.3300",
        "0.6666",
        "–",
    ]
    told = [seconds(s * 1e6) for s in (0.42, 59.9, 59.97, 60, 200, 3600, 7500)]
    assert told == ["0.4 s", "59.9 s", "1 min", "1 min", "3 min 20 s", "1 h", "2 h 5 min"]
