"""The effect of receipts on a feed: ids that the venue never issued are not missing, and rows are counted.

Pure functions over the feed's manifest and profiles; ``heal`` asks the sources and makes receipts from their
answers. A receipt binds to ids, not to a file, so it is valid for every version of the feed's day.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from backfill_assets.feeds import Feed
from backfill_assets.lake.evidence import HealedRows, Ids, NeverIssued
from backfill_assets.lake.manifests import FeedManifest
from backfill_assets.quality.completeness import COUNTED_SHORT_GAP
from backfill_assets.quality.profiles import FeedProfile, Gap, SymbolProfile

#: Number of receipts that a warning names; the manifest has all of them.
_NAMED = 3


def never_issued(manifest: FeedManifest) -> dict[str, tuple[NeverIssued, ...]]:
    """By data set symbol, ids that the venue does not have, without ids of trades that were recovered."""
    recovered = sorted(ids for receipt in manifest.receipts for ids in receipt.recovered)
    shown = sorted((*ids, receipt.name) for receipt in manifest.receipts for ids in receipt.never_issued)
    found: list[NeverIssued] = []
    for first, last, name in shown:
        # Two receipts may cover the same ids.
        begin = max(first, found[-1].last_id + 1) if found else first
        found += [
            NeverIssued(first_id=low, last_id=high, receipt=name)
            for low, high in without((begin, last), recovered)
        ]
    return {Feed.parse(manifest.feed).dataset_symbol: tuple(found)} if found else {}


def healed_versions(manifest: FeedManifest) -> dict[str, HealedRows]:
    """By content, the rows of versions that do not come from the vendor's file."""
    return {v.content: v.healed for v in manifest.versions if v.healed is not None}


def without_never_issued(profile: FeedProfile, known: Mapping[str, Sequence[NeverIssued]]) -> FeedProfile:
    """The profile without missing ids that the venue never issued, as far as they lie in its listed gaps."""
    if not any(known.get(s.dataset_symbol) for s in profile.symbols):
        return profile
    symbols = tuple(_of_symbol(s, known.get(s.dataset_symbol, ())) for s in profile.symbols)
    return profile.model_copy(update={"symbols": symbols})


def _of_symbol(symbol: SymbolProfile, known: Sequence[NeverIssued]) -> SymbolProfile:
    if symbol.missing_ids is None or not known:
        return symbol
    ranges = sorted((n.first_id, n.last_id) for n in known)
    left = tuple(
        gap.model_copy(update={"first_missing": first, "last_missing": last})
        for gap in symbol.gaps
        for first, last in without((gap.first_missing, gap.last_missing), ranges)
    )
    before, after = [_length(gap) for gap in symbol.gaps], [_length(gap) for gap in left]
    unlisted = (symbol.gap_count or 0) - len(symbol.gaps)
    longest = symbol.longest_gap if unlisted else max(after, default=0)
    short = (symbol.missing_in_short_gaps or 0) + _in_short_gaps(after) - _in_short_gaps(before)
    return symbol.model_copy(
        update={
            "missing_ids": symbol.missing_ids - sum(before) + sum(after),
            "gaps": left,
            "gap_count": unlisted + len(left),
            "longest_gap": longest,
            "missing_in_short_gaps": short,
        }
    )


def missing_ids(profile: FeedProfile) -> int:
    """Missing ids of all symbols of the file."""
    return sum(symbol.missing_ids or 0 for symbol in profile.symbols)


def receipt_warnings(
    profile: FeedProfile, known: Mapping[str, Sequence[NeverIssued]], healed: HealedRows | None
) -> Iterator[str]:
    """Warn of ids in the file's range that were never issued, with their receipts, and of recovered rows."""
    names: dict[str, None] = {}
    count = 0
    for symbol in profile.symbols:
        gaps = [(gap.first_missing, gap.last_missing) for gap in symbol.gaps]
        for one in known.get(symbol.dataset_symbol, ()) if symbol.missing_ids is not None else ():
            ids = (one.first_id, one.last_id)
            missing = count_of([ids]) - count_of(without(ids, gaps))
            count += missing
            if missing:
                names[one.receipt] = None
    if count:
        shown = ", ".join([*names][:_NAMED])
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        were = "id was" if count == 1 else "ids were"
        receipts = "receipt" if len(names) == 1 else "receipts"
        yield f"{count:,} {were} never issued by the venue ({receipts} {shown}{more})"
    if healed is not None:
        rows = "row was" if healed.rows == 1 else "rows were"
        yield f"{healed.rows:,} {rows} recovered from {' and '.join(healed.sources)}"


def without(ids: Ids, others: Sequence[Ids]) -> list[Ids]:
    """The ids that are in none of the other ranges; these are in order of their first ids."""
    found, (begin, end) = [], ids
    for first, last in others[_first_beside(others, begin) :]:
        if first > end:
            break
        if begin < first:
            found.append((begin, first - 1))
        begin = max(begin, last + 1)
    return [*found, (begin, end)] if begin <= end else found


def _first_beside(others: Sequence[Ids], begin: int) -> int:
    """Index of the first range that may reach ``begin``; ranges do not overlap, so only one before can."""
    return max(0, bisect_left(others, (begin, begin)) - 1)


def count_of(ranges: Iterable[Ids]) -> int:
    """How many ids are in the ranges, which do not overlap."""
    return sum(last - first + 1 for first, last in ranges)


def _length(gap: Gap) -> int:
    return gap.last_missing - gap.first_missing + 1


def _in_short_gaps(lengths: Iterable[int]) -> int:
    return sum(length for length in lengths if length <= COUNTED_SHORT_GAP)
