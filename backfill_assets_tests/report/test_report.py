"""What the pages of good, degraded and held days say, when they are written, and when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from backfill_assets.cli import main
from backfill_assets.failures import PermanentFailure
from backfill_assets.lake import paths
from backfill_assets.report.evidence import FeedReport
from backfill_assets.report.minutes import MINUTES, MISSING, SILENT
from backfill_assets.report.model import DayReport, day_report
from backfill_assets.report.month import month_report
from backfill_assets.report.page import score, seconds
from backfill_assets.report.publish import write_day, write_page

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
        ("instruments", "trades", "candles", "quality"), "done"
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


def test_a_degraded_day_lists_the_worst_first_and_says_why(reports):
    report = report_of(reports.pipeline, DEGRADED)
    assert report.state == "degraded"
    assert [f.verdict.outcome for f in report.feeds[:3]] == ["missing", "quarantine", "publish"]
    hole = feed_of(report, "binance/trades/BTCUSDT")
    assert (hole.published, hole.accepted, hole.candles) == ("no", False, {})
    assert hole.holes[0].last_missing - hole.holes[0].first_missing + 1 == 500
    assert any(run[2] is MISSING for run in hole.minutes.runs())
    assert [(line.feed, line.outcome) for line in report.pending] == [(hole.feed, "quarantine")]
    assert "500 ids are missing" in report.pending[0].reasons[0]
    silent = feed_of(report, "kraken/trades/ETH-USDT")
    assert 115 <= silent.minutes.count(SILENT) <= 125
    assert silent.gaps[0].counts
    assert silent.gaps[0].end_us - silent.gaps[0].start_us >= 7_000_000_000
    assert "lost time" in silent.gaps[0].explanation


def test_a_silence_between_ids_that_join_is_explained_and_does_not_count(reports):
    feed = feed_of(report_of(reports.pipeline, GOOD), "binance/trades/ADAUSDT")
    assert feed.gaps
    assert not any(gap.counts for gap in feed.gaps)
    assert {gap.explanation for gap in feed.gaps} == {"the ids before and after join: nothing was traded"}


def test_a_held_day_has_its_page_although_its_run_failed(reports):
    assert not reports.results[HELD].success
    assert reports.file(HELD).exists()
    report = report_of(reports.pipeline, HELD)
    assert report.state == "held"
    assert {f.published for f in report.feeds} == {"no"}
    assert {line.table: line.state for line in report.publications}["trades"] == "never"
    missing = [f for f in report.feeds if f.verdict.outcome == "missing"]
    assert [f.minutes.count(MISSING) for f in missing] == [MINUTES] * 6


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
    assert fresh.summaries == month.summaries


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
        (("--month", "January"), "is not a day"),
        (("--date", GOOD, "--out", "/nowhere/day.html"), "give --out a file in a folder that is there"),
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
