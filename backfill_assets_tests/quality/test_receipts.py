"""Only ids that were never issued are subtracted from the missing ones."""

from __future__ import annotations

import pytest

from backfill_assets.lake.evidence import Answer, Ids, NeverIssued, Receipt, TradeRow
from backfill_assets.lake.manifests import FeedManifest
from backfill_assets.quality.receipts import (
    count_of,
    never_issued,
    receipt_warnings,
    without,
    without_never_issued,
)
from backfill_assets_tests.quality.quality_samples import DAY, FEED, gaps, profile, symbol


def receipt(
    first: int, last: int, *, never: tuple[Ids, ...] = (), recovered: tuple[Ids, ...] = ()
) -> Receipt:
    row = TradeRow(id=first - 1, time_us=1, side="buy", price=1.0, amount=1.0)
    return Receipt.model_validate(
        {
            "source": "exchange",
            "asked": "somebody",
            "first_id": first,
            "last_id": last,
            "before": row,
            "after": row.model_copy(update={"id": last + 1}),
            "answers": [Answer(request="http://127.0.0.1", content=f"{first:064x}", bytes=1)],
            "never_issued": never,
            "recovered": recovered,
            "asked_at": "2024-01-05T00:00:00Z",
        }
    )


def known(**ranges: Ids) -> dict[str, list[NeverIssued]]:
    """Ids that were never issued, by the name of their receipt."""
    found = [NeverIssued(first_id=a, last_id=b, receipt=name) for name, (a, b) in ranges.items()]
    return {FEED.dataset_symbol: found}


@pytest.mark.parametrize(
    ("others", "left"),
    [
        ((), [(10, 20)]),
        (((10, 20),), []),
        (((1, 30),), []),
        (((1, 9), (21, 30)), [(10, 20)]),
        (((1, 10), (20, 30)), [(11, 19)]),
        (((12, 13), (15, 15)), [(10, 11), (14, 14), (16, 20)]),
        (((2, 3), (5, 12)), [(13, 20)]),
    ],
)
def test_ids_without_others_are_the_rest(others: tuple[Ids, ...], left: list[Ids]) -> None:
    assert without((10, 20), others) == left
    numbers = {n for n in range(10, 21) if not any(a <= n <= b for a, b in others)}
    assert {n for a, b in left for n in range(a, b + 1)} == numbers
    assert count_of(left) == len(numbers)


def test_a_profile_keeps_what_no_receipt_tells() -> None:
    lossy = profile(symbol(1, 1_000, **gaps((100, 109), (200, 201), (300, 301))))
    told = known(a=(104, 105), b=(200, 201))
    [left] = without_never_issued(lossy, told).symbols
    ranges = [(gap.first_missing, gap.last_missing) for gap in left.gaps]
    assert ranges == [(100, 103), (106, 109), (300, 301)]
    assert (left.missing_ids, left.gap_count, left.longest_gap) == (10, 3, 4)
    assert left.missing_in_short_gaps == 10
    warnings = [*receipt_warnings(lossy, told, None)]
    assert warnings == ["4 ids were never issued by the venue (receipts a, b)"]


def test_gaps_that_the_profile_does_not_list_stay_missing() -> None:
    counts = {"missing_ids": 12, "gap_count": 5, "longest_gap": 8, "missing_in_short_gaps": 4}
    lossy = profile(symbol(1, 9_999, **{**gaps((100, 100)), **counts}))
    [left] = without_never_issued(lossy, known(a=(100, 100), b=(500, 507))).symbols
    assert (left.missing_ids, left.gap_count, left.longest_gap, left.missing_in_short_gaps) == (11, 4, 8, 3)


def test_a_trade_that_one_source_has_was_issued_whatever_another_says() -> None:
    receipts = [
        receipt(10, 12, never=((10, 12),)),
        receipt(11, 11, recovered=((11, 11),)),
        receipt(12, 13, never=((12, 13),)),
    ]
    manifest = FeedManifest(feed=str(FEED), day=DAY).with_receipts(receipts)
    found = never_issued(manifest)["BTCUSDT"]
    assert [(n.first_id, n.last_id) for n in found] == [(10, 10), (12, 12), (13, 13)]


def test_a_receipt_that_is_there_is_not_added_again() -> None:
    once = FeedManifest(feed=str(FEED), day=DAY).with_receipts([receipt(10, 12, never=((10, 12),))])
    assert once.with_receipts([receipt(10, 12, never=((10, 12),))]) is once
    assert len(once.with_receipts([receipt(13, 14)]).receipts) == 2
