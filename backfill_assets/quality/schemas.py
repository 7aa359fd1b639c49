"""Columns of the quality table, with one row per expected feed and day, and its rows from a settled day."""

from __future__ import annotations

from datetime import date
from typing import Final

import pyarrow as pa

from backfill_assets.columns import Column, arrow_schema
from backfill_assets.quality.book_minutes import of_file
from backfill_assets.quality.scores import Overall
from backfill_assets.quality.settled import Day, SettledFeed

QUALITY_COLUMNS: Final = (
    Column("date", "DATE", "UTC day of the feed's file.", required=True),
    Column("exchange", "STRING", "Exchange id of the vendor.", required=True),
    Column("symbol", "STRING", "Canonical symbol; the data set symbol for grouped files.", required=True),
    Column("data_type", "STRING", "Data type of the feed.", required=True),
    Column("dataset_symbol", "STRING", "Symbol in the vendor's URL.", required=True),
    Column("verdict", "STRING", "publish, quarantine, no_evidence or missing.", required=True),
    Column("published", "BOOL", "Whether the feed's rows are in the tables of this day.", required=True),
    Column("sealed", "BOOL", "Whether the feed's files of both neighboring days are final.", required=True),
    Column("pending", "BOOL", "Whether a version waits that is not accepted.", required=True),
    Column("pending_content", "STRING", "sha256 of that version, as approve takes it; null when none waits."),
    Column("approved", "BOOL", "Whether an approval lets the feed count; null in older rows."),
    Column("approval_reason", "STRING", "The reason that was given for it."),
    Column("restatement", "STRING", "The changes of the pending, else the latest version against the other."),
    Column("completeness", "FLOAT64", "Score in [0, 1]; null without evidence."),
    Column(
        "completeness_state",
        "STRING",
        "proven, head_proven, inner_proven, degraded, estimated, missing or no_evidence.",
        required=True,
    ),
    Column("evidence_class", "STRING", "A contiguous ids, B ids with the venue's own gaps, C silences only."),
    Column("quality", "FLOAT64", "Score in [0, 1]; null without rows."),
    Column("rows", "INT64", "Rows of the file.", required=True),
    Column("valid_rows", "INT64", "Rows that enter candles.", required=True),
    Column("missing_ids", "INT64", "Ids that no row carries; null without ids."),
    Column("longest_hole", "INT64", "Longest run of missing ids; null without ids."),
    Column("reasons", "STRING", "Why the feed is not published, separated by semicolons."),
    Column("warnings", "STRING", "Oddities that do not gate, separated by semicolons."),
    Column("content", "STRING", "sha256 of the judged Parquet file; null when there is none."),
    Column("rules", "STRING", "Hash of the thresholds and rules of the verdict.", required=True),
    Column("day_state", "STRING", "published, degraded or held.", required=True),
    Column("day_completeness", "FLOAT64", "The day's score; null when a feed has no evidence."),
    Column("day_quality", "FLOAT64", "The day's score over accepted feeds; null when there is none."),
    Column("consistency", "FLOAT64", "1 if the feed's candles agree with its ticks and each other, else 0."),
    Column("weight", "FLOAT64", "The feed's share in the day's scores."),
    Column("day_consistency", "FLOAT64", "The day's score over accepted feeds of trades."),
    Column("day_instruments", "FLOAT64", "Share of the expected symbols with exactly one instrument."),
    Column("day_warehouse", "FLOAT64", "1 if every table of the day is published and read back, else 0."),
    Column("day_overall", "FLOAT64", "Product of the day's four scores, each to the power of its weight."),
    Column("day_overall_weighted_sum", "FLOAT64", "Weighted sum of the day's four scores."),
    Column("repeated_rows", "INT64", "Rows that repeat an id with the same payload; null in older rows."),
    Column("id_law", "STRING", "The known law of the venue's ids, and its support; null where none is."),
    Column("first_id", "INT64", "Lowest id of the file that counts; null without integer ids."),
    Column("last_id", "INT64", "Highest id of that file."),
    Column("raw_sha256", "STRING", "sha256 of the vendor's file of the judged rows; null in older rows."),
    Column(
        "generated", "BOOL", "Whether the file says that it is generated and no market's; null in older rows."
    ),
    Column("never_issued_ids", "INT64", "Ids that the venue itself does not have; not in missing_ids."),
    Column("healed_rows", "INT64", "Rows that come from a second source; null in older rows."),
    Column(
        "book_minutes",
        "STRING",
        "States of the minutes of quotes and books, run by run: v proven, c consistent, s silent, "
        "d diverged, x crossed, g outage, n unknown, m missing; of a group, the first of m d x g c v s n "
        "that a symbol has in the minute. Null for other data types.",
    ),
    Column(
        "valid_book_share",
        "FLOAT64",
        "Share of the day with a best bid below the best ask; of a group, that of its worst symbol.",
    ),
    Column("longest_unchanged_seconds", "FLOAT64", "The longest time without a change; likewise."),
    Column("unchanged_at_end_seconds", "FLOAT64", "Time from the last change to the day's end; likewise."),
)
QUALITY_SCHEMA: Final = arrow_schema(QUALITY_COLUMNS)


def quality_rows(found: Day, overall: Overall | None = None) -> pa.Table:
    """One row of ``QUALITY_SCHEMA`` per expected feed, ordered by feed; ``overall`` where it is known."""
    return pa.Table.from_pylist(quality_values(found, overall), schema=QUALITY_SCHEMA)


def quality_values(found: Day, overall: Overall | None = None) -> list[dict[str, object]]:
    """The values of ``quality_rows``: equal values make equal rows."""
    return [_row(found, index, overall) for index in range(len(found.feeds))]


def _row(found: Day, index: int, overall: Overall | None) -> dict[str, object]:
    feed: SettledFeed = found.feeds[index]
    verdict, scores = feed.verdict, found.scores
    canonical = sorted({name for _, name in feed.symbols})
    book = of_file(feed.books.values())
    return {
        "date": date.fromisoformat(found.day),
        "exchange": feed.feed.exchange,
        "symbol": canonical[0] if len(canonical) == 1 else feed.feed.dataset_symbol,
        "data_type": feed.feed.data_type,
        "dataset_symbol": feed.feed.dataset_symbol,
        "verdict": verdict.outcome,
        "published": feed.accepted is not None and scores.state != "held",
        "sealed": feed.is_sealed,
        "pending": feed.candidate is not None,
        "pending_content": feed.candidate.content if feed.candidate else None,
        "approved": feed.approval is not None,
        "approval_reason": feed.approval.reason if feed.approval else None,
        "restatement": feed.restatement_summary,
        "completeness": verdict.completeness,
        "completeness_state": verdict.completeness_state,
        "evidence_class": verdict.evidence_class,
        "quality": verdict.quality,
        "rows": verdict.rows,
        "valid_rows": verdict.valid_rows,
        "missing_ids": verdict.missing_ids,
        "longest_hole": verdict.longest_gap,
        "reasons": "; ".join(verdict.reasons) or None,
        "warnings": "; ".join(verdict.warnings) or None,
        "content": verdict.content,
        "rules": verdict.rules,
        "day_state": scores.state,
        "day_completeness": scores.completeness,
        "day_quality": scores.quality,
        "consistency": scores.consistencies[index],
        "weight": scores.weights[index],
        "day_consistency": scores.consistency,
        "day_instruments": overall.instruments if overall else None,
        "day_warehouse": overall.warehouse if overall else None,
        "day_overall": overall.product if overall else None,
        "day_overall_weighted_sum": overall.weighted_sum if overall else None,
        "repeated_rows": verdict.repeated_rows,
        "id_law": verdict.id_law or None,
        "first_id": feed.id_range[0] if feed.id_range else None,
        "last_id": feed.id_range[1] if feed.id_range else None,
        "raw_sha256": (feed.judged.raw_sha256 or None) if feed.judged else None,
        "generated": feed.is_generated,
        "never_issued_ids": verdict.never_issued_ids,
        "healed_rows": verdict.healed_rows,
        "book_minutes": book.states if book else None,
        "valid_book_share": book.valid_share if book else None,
        "longest_unchanged_seconds": book.longest_unchanged_seconds if book else None,
        "unchanged_at_end_seconds": book.unchanged_at_end_seconds if book else None,
    }
