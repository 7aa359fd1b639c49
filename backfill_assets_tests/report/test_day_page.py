"""The text of a day's page about decisions, restatements and candles of other sources."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import UTC, datetime

from backfill_assets.lake.evidence import Approval, Largest, Restatement
from backfill_assets.quality.scores import Overall
from backfill_assets.report.comparisons import AgreementLine
from backfill_assets.report.model import DayReport, PendingLine
from backfill_assets.report.page import day_page
from backfill_assets.settings import RestatementSettings
from backfill_assets_tests.report.report_samples import day_of, feed_report

WHEN = datetime(2024, 1, 4, 12, 30, tzinfo=UTC)
FEED = feed_report(0)
APPROVAL = Approval(content="c" * 64, rules="r" * 12, reason="the venue halted", approved_at=WHEN)
SMALL = Restatement(
    before="a" * 64,
    after="b" * 64,
    rows_before=10_000,
    rows_after=10_004,
    ids_added=4,
    ids_removed=0,
    minutes=1440,
    minutes_differing=2,
    price=Largest(difference=0.0004, symbol="BTC-USDT", minute_us=1_704_196_800_000_000),
)
LARGE = SMALL.model_copy(update={"rows_after": 12_000, "ids_added": 2_000, "minutes_differing": 700})


def told(report: DayReport, section: str) -> str:
    """The words of a section of the page."""
    page = day_page(report).split(f'id="{section}"')[1].split("</section>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def pending(restatement: Restatement | None) -> DayReport:
    line = PendingLine(
        feed=FEED.feed,
        content="b" * 64,
        rows=10_004,
        fetched_at=WHEN,
        outcome="publish",
        reasons=(),
        replaces=True,
        restatement=restatement,
        beyond=restatement.beyond(RestatementSettings()) if restatement else (),
    )
    return day_of((replace(FEED, pending="c" * 64),), pending=(line,))


def test_an_approval_is_told_beside_the_verdict_and_its_absence_is_not() -> None:
    approved = told(day_of((replace(FEED, approval=APPROVAL),)), "h-feeds")
    assert "approved : the venue halted, 2024-01-04 12:30:00" in approved
    assert "approved" not in told(day_of((FEED,)), "h-feeds")


def test_a_restatement_tells_rows_minutes_and_the_largest_differences() -> None:
    words = told(pending(SMALL), "h-pending")
    assert "10,000 → 10,004 ids +4 −0" in words
    assert "Minutes that differ 2 of 1,440" in words
    assert "Largest price difference 0.040 % BTC-USDT 2024-01-02 12:00" in words
    assert "Largest volume difference none" in words
    assert "Within the limits" in words


def test_a_restatement_beyond_the_limits_says_which() -> None:
    words = told(pending(LARGE), "h-pending")
    assert "Beyond the limits: 2,000 rows differ (20.00%, at most 1.00%); 700 of 1,440" in words
    assert "Within" not in words


def test_a_version_that_was_not_compared_says_so() -> None:
    assert "was not compared with the accepted version" in told(pending(None), "h-pending")


def test_an_accepted_restatement_is_told_with_the_feed() -> None:
    assert "Restated : rows 10,000 → 10,004" in told(
        day_of((replace(FEED, restatement=SMALL),)), "h-evidence"
    )
    assert "Restated" not in told(day_of((FEED,)), "h-evidence")


def test_the_overall_score_stands_with_its_four_parts_and_weights() -> None:
    parts = Overall(
        ticks=0.9, candles=1.0, instruments=None, warehouse=0.0, product=None, weighted_sum=0.66666
    )
    words = told(day_of((FEED,), overall=parts), "title")
    assert "Overall – product of the parts; weighted sum 0.6666" in words
    assert "ticks 0.9000 weight 0.4 candles 1.0000 weight 0.3 instruments – weight 0.2" in words


def test_others_candles_are_shown_only_where_there_are_any() -> None:
    line = AgreementLine("binance BTC-USDT", "the other venues", 1000, 949, 0.949, False, "09:04")
    words = told(day_of((FEED,), agreements=(line,)), "h-others")
    assert "binance BTC-USDT the other venues ! 94.9 % 949 of 1,000 09:04" in words
    assert 'id="h-others"' not in day_page(day_of((FEED,)))
    assert "no such column" in told(day_of((FEED,), reference_failures=("no such column",)), "h-others")
    part = told(day_of((FEED,), partly_compared=("ccxt: gave 180 of 1,440 minutes",)), "h-others")
    assert "Compared in part: ccxt: gave 180 of 1,440 minutes." in part
    ways = told(day_of((FEED,), agreements=(line,), ways=("kraken: flat",)), "h-others")
    assert "How sources make their candles: kraken: flat." in ways
