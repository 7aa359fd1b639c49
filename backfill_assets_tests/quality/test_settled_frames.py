"""A settled day as rows of the quality table and as a frame for pandera; findings as asset checks."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pandera.polars as pa
import polars as pl
import pytest

from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import DayRecord, expected_symbols
from backfill_assets.lake.store import Store
from backfill_assets.quality.findings import KEPT_CASES, Finding, failure_cases, look_at, together
from backfill_assets.quality.pandera_checks import finding_check
from backfill_assets.quality.schemas import QUALITY_COLUMNS, QUALITY_SCHEMA, quality_rows
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import Day, load_day
from backfill_assets.quality.verdict_schema import verdict_frame, verdict_rows, verdict_schema
from backfill_assets.settings import ThresholdSettings
from backfill_assets_tests.quality.quality_samples import (
    DAY,
    FEED,
    THRESHOLDS,
    empty_profile,
    gaps,
    profile,
    symbol,
    without_ids,
)
from backfill_assets_tests.quality.settled_lake import NOW, absent, expect, fetch, ids

ETH, XRP = Feed("binance", "trades", "ETHUSDT"), Feed("binance", "trades", "XRPUSDT")
GOOD = {
    "feed": "binance/trades/BTCUSDT",
    "data_type": "trades",
    "outcome": "publish",
    "completeness": 1.0,
    "completeness_state": "proven",
    "quality": 1.0,
    "consistency": 1.0,
    "weight": 0.5,
    "accepted": True,
    "approval": "",
    "pending": "",
    "reasons": "",
}


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    """A verdict frame; each row is like ``GOOD`` with the given changes."""
    types = dict.fromkeys(("completeness", "quality", "consistency"), pl.Float64)
    return pl.DataFrame([{**GOOD, **row} for row in rows], schema_overrides=types)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


def settled(store: Store, thresholds: ThresholdSettings = THRESHOLDS) -> Day:
    """The day after its run."""
    settle(store, DAY, thresholds)
    found = load_day(store, DAY)
    assert found is not None
    return found


#: Columns that only publishing fills.
OVERALL = ("day_instruments", "day_warehouse", "day_overall", "day_overall_weighted_sum")


class TestVerdictSchema:
    @pytest.mark.parametrize("score", ["completeness", "quality", "consistency"])
    @pytest.mark.parametrize(
        "row",
        [
            {"outcome": "quarantine"},
            {"outcome": "missing"},
            {"outcome": "no_evidence"},
        ],
    )
    def test_what_is_not_published_falls_short(self, score: str, row: dict[str, Any]) -> None:
        cases = failure_cases(verdict_schema(score), frame({}, {"feed": "x", **row}))
        assert [(case["check"], case["index"]) for case in cases] == [("verdict_is_publish", 1)]

    @pytest.mark.parametrize(
        ("score", "row", "falls_short"),
        [
            ("completeness", {"completeness": 1.0}, False),
            ("completeness", {"completeness": 0.99, "completeness_state": "estimated"}, False),
            ("completeness", {"completeness": 0.989999, "completeness_state": "estimated"}, True),
            ("completeness", {"completeness": 0.9999, "completeness_state": "degraded"}, True),
            ("completeness", {"completeness": None}, True),
            ("completeness", {"quality": 0.2}, False),
            ("quality", {"quality": 1.0}, False),
            ("quality", {"quality": 0.999999}, True),
            ("quality", {"quality": None}, True),
            ("quality", {"completeness": 0.2, "completeness_state": "degraded"}, False),
            ("quality", {"pending": "1,200 rows differ"}, True),
            ("completeness", {"pending": "1,200 rows differ"}, False),
            ("consistency", {"consistency": 1.0, "quality": 0.2}, False),
            ("consistency", {"consistency": 0.0}, True),
            ("consistency", {"consistency": None}, True),
        ],
    )
    def test_a_score_that_is_not_full_falls_short_in_its_own_check(
        self, score: str, row: dict[str, Any], falls_short: bool
    ) -> None:
        assert bool(failure_cases(verdict_schema(score), frame(row))) is falls_short

    def test_a_feed_occurs_once(self) -> None:
        assert failure_cases(verdict_schema("quality"), frame({}, {}))
        assert not failure_cases(verdict_schema("quality"), frame({}, {"feed": "other"}))

    def test_a_settled_day_becomes_a_row_per_feed(self, store: Store) -> None:
        expect(store, DAY, FEED, ETH)
        fetch(store, DAY, ids(DAY, 1, 9000))
        fetch(store, DAY, ids(DAY, 1, 9000, dataset_symbol="ETHUSDT", **gaps((10, 30))), ETH)
        found = verdict_frame(verdict_rows(settled(store)))
        assert found["feed"].to_list() == [str(FEED), str(ETH)]
        assert found["outcome"].to_list() == ["publish", "quarantine"]
        assert found["reasons"].to_list() == ["", "21 ids are missing (at most 10 are excused)"]
        indices = {case["index"] for case in failure_cases(verdict_schema("completeness"), found)}
        assert indices == {1}

    def test_a_day_without_feeds_is_a_frame_without_rows(self, store: Store) -> None:
        no_feeds = DayRecord(day=DAY, expected=(), recorded_at=NOW)
        documents.update(store, paths.day_record(DAY), DayRecord, lambda _: no_feeds)
        found = verdict_frame(verdict_rows(settled(store)))
        assert (found.height, found.columns) == (0, list(GOOD))
        assert not failure_cases(verdict_schema("completeness"), found)


def looked_at(frame: pl.DataFrame) -> Finding:
    """The failures of the tests' schema in the frame, as it is read back from a document."""
    found = look_at(TestFindings.SCHEMA, frame, ("name",))
    return Finding.model_validate_json(documents.encode(found))


class TestFindings:
    KEY = dg.AssetKey("ticks")
    SCHEMA = pa.DataFrameSchema({"n": pa.Column(pl.Int64, pa.Check.ge(0, error="not_negative"))})

    def test_a_frame_that_holds_passes_and_counts_its_rows(self) -> None:
        result = finding_check(self.KEY, "schema", looked_at(pl.DataFrame({"n": [0, 1]})))
        assert (result.passed, result.description) == (True, "2 rows are valid")
        assert result.metadata["rows"].value == 2
        assert result.metadata["failures"].value == 0
        assert "failure_cases" not in result.metadata

    def test_a_frame_that_breaks_fails_with_its_cases(self) -> None:
        result = finding_check(self.KEY, "schema", looked_at(pl.DataFrame({"n": [0, -1, 5, -2]})))
        assert not result.passed
        assert result.severity == dg.AssetCheckSeverity.ERROR
        assert result.description == "2 failing cases; first: not_negative on n"
        table = result.metadata["failure_cases"]
        assert isinstance(table, dg.TableMetadataValue)
        assert [(r.data["failure_case"], r.data["index"]) for r in table.records] == [("-1", 1), ("-2", 3)]

    def test_a_case_names_its_row_by_the_key(self) -> None:
        found = looked_at(pl.DataFrame({"name": ["a", "b"], "n": [0, -1]}))
        assert found.summary == "1 failing cases; first: not_negative on n at b"
        assert found.broken == (1,)

    def test_the_first_cases_are_kept_and_all_are_counted(self) -> None:
        count = KEPT_CASES + 10
        found = looked_at(pl.DataFrame({"n": [-1] * count}))
        assert (found.rows, found.failures, len(found.cases)) == (count, count, KEPT_CASES)
        both = together([found, looked_at(pl.DataFrame({"n": [0, -1]}))])
        assert (both.rows, both.failures, len(both.cases)) == (count + 2, count + 1, KEPT_CASES)
        assert together([]) == Finding(rows=0)

    @pytest.mark.parametrize(
        "broken", [pl.DataFrame({"m": [1]}), pl.DataFrame({"n": [1.5]}), pl.DataFrame({"n": [None, 1]})]
    )
    def test_columns_types_and_nulls_are_cases_too(self, broken: pl.DataFrame) -> None:
        assert failure_cases(self.SCHEMA, broken)

    def test_every_broken_column_is_told_at_once(self) -> None:
        schema = pa.DataFrameSchema({name: pa.Column(pl.Int64, pa.Check.ge(0)) for name in "ab"})
        cases = failure_cases(schema, pl.DataFrame({"a": [-1], "b": [-1]}))
        assert {case["column"] for case in cases} == {"a", "b"}

    def test_a_frame_without_rows_holds(self) -> None:
        result = finding_check(self.KEY, "schema", looked_at(pl.DataFrame(schema={"n": pl.Int64})))
        assert (result.passed, result.description) == (True, "0 rows are valid")


class TestQualityRows:
    def test_every_expected_feed_has_a_row_of_the_documented_columns(self, store: Store) -> None:
        expect(store, DAY, FEED, ETH, XRP)
        fetch(store, DAY, ids(DAY, 1, 9000))
        fetch(store, DAY, ids(DAY, 1, 9000, dataset_symbol="ETHUSDT", **gaps((10, 30))), ETH)
        absent(store, DAY, XRP)
        day = settled(store)
        table = quality_rows(day)
        assert table.schema.equals(QUALITY_SCHEMA)
        assert table.column_names == [column.name for column in QUALITY_COLUMNS]
        published, quarantined, missing = table.to_pylist()
        assert day.scores.state == "held"
        assert day.scores.accepted_share == pytest.approx(1 / 3)
        assert {
            "date": date(2024, 1, 2),
            "exchange": "binance",
            "symbol": "BTC-USDT",
            "data_type": "trades",
            "dataset_symbol": "BTCUSDT",
            "verdict": "publish",
            "published": False,
            "sealed": False,
            "pending": False,
            "completeness": 1.0,
            "completeness_state": "inner_proven",
            "evidence_class": "A",
            "rows": 9000,
            "missing_ids": 0,
            "reasons": None,
            "warnings": None,
            "day_state": "held",
        }.items() <= published.items()
        assert (quarantined["verdict"], quarantined["pending"], quarantined["missing_ids"]) == (
            "quarantine",
            True,
            21,
        )
        assert quarantined["reasons"] == "21 ids are missing (at most 10 are excused)"
        assert (missing["verdict"], missing["content"], missing["quality"]) == ("missing", None, None)
        assert (missing["completeness"], missing["reasons"]) == (0.0, "no such data set")

    @pytest.mark.parametrize(("hold_below", "published"), [(0.5, True), (0.51, False)])
    def test_an_accepted_feed_is_published_unless_the_day_is_held(
        self, hold_below: float, published: bool, store: Store
    ) -> None:
        expect(store, DAY, FEED, ETH)
        fetch(store, DAY, ids(DAY, 1, 9000))
        rows = quality_rows(settled(store, ThresholdSettings(hold_below=hold_below))).to_pylist()
        assert [row["published"] for row in rows] == [published, False]
        assert {row["day_state"] for row in rows} == {"degraded" if published else "held"}

    def test_what_has_no_evidence_stays_null(self, store: Store) -> None:
        expect(store, DAY, FEED)
        fetch(store, DAY, empty_profile())
        row = quality_rows(settled(store)).to_pylist()[0]
        nulls = {name for name, value in row.items() if value is None}
        assert nulls == {
            "approval_reason",
            "restatement",
            "completeness",
            "evidence_class",
            "first_id",
            "last_id",
            "quality",
            "missing_ids",
            "longest_hole",
            "warnings",
            "day_completeness",
            "day_quality",
            "consistency",
            "day_consistency",
            "book_minutes",
            "valid_book_share",
            "longest_unchanged_seconds",
            "unchanged_at_end_seconds",
            *OVERALL,
        }
        assert (row["pending"], row["completeness_state"]) == (True, "no_evidence")

    def test_warnings_are_told_beside_a_published_feed(self, store: Store) -> None:
        expect(store, DAY, FEED)
        fetch(store, DAY, profile(without_ids(), clock_offset_p99_us=1_300_000))
        row = quality_rows(settled(store)).to_pylist()[0]
        assert row["warnings"].startswith("capture clock 1.30 s behind the exchange; uncalibrated: ")

    def test_a_grouped_file_goes_by_the_name_of_its_group(self, store: Store) -> None:
        group = Feed("binance", "trades", "SPOT")
        symbols = (("BTCUSDT", "BTC-USDT"), ("ETHUSDT", "ETH-USDT"))
        record = DayRecord(
            day=DAY, expected=expected_symbols([ExpectedFeed(group, symbols)]), recorded_at=NOW
        )
        documents.update(store, paths.day_record(DAY), DayRecord, lambda _: record)
        two = [symbol(1, 900, dataset_symbol=name) for name, _ in symbols]
        fetch(store, DAY, profile(*two), group)
        row = quality_rows(settled(store)).to_pylist()[0]
        assert (row["symbol"], row["dataset_symbol"], row["rows"]) == ("SPOT", "SPOT", 1800)

    def test_a_day_without_feeds_has_no_rows(self, store: Store) -> None:
        no_feeds = DayRecord(day=DAY, expected=(), recorded_at=NOW)
        documents.update(store, paths.day_record(DAY), DayRecord, lambda _: no_feeds)
        table = quality_rows(settled(store))
        assert (table.num_rows, table.schema) == (0, QUALITY_SCHEMA)
