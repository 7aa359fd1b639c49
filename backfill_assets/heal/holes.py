"""Selects the ids to ask for: the gaps of a feed's day that lose trades and have no stored answer.

This module only reads the lake; ``healing`` chooses the sources and uses the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from backfill_assets.days import shift, time_us
from backfill_assets.failures import PermanentFailure, Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.heal.conclusions import Hole
from backfill_assets.id_laws import IdLaw, law_of
from backfill_assets.lake import documents, paths
from backfill_assets.lake.evidence import Ids, Receipt, TradeRow
from backfill_assets.lake.manifests import FeedManifest, Version, load_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.completeness import legitimate_gap
from backfill_assets.quality.profiles import FeedProfile, Gap, SymbolProfile, stored_profile
from backfill_assets.quality.receipts import count_of, never_issued, without, without_never_issued
from backfill_assets.quality.remedies import can_heal
from backfill_assets.quality.rules import violations
from backfill_assets.quality.settled import Edges, SettledDay, SettledFeed, load_settled
from backfill_assets.settings import Settings, ThresholdSettings
from backfill_assets.ticks.healed import lacks_recovered


def feeds_to_heal(store: Store, settings: Settings, day: str) -> tuple[list[str], list[str]]:
    """The feeds of a settled day with missing ids that can be asked for and have no stored answer.

    Includes feeds whose version lacks stored trades, because a command was killed. The second list has one
    line for each document of the day that cannot be read.
    """
    settled, damage = documents.look(store, paths.settled_day(day), SettledDay)
    found, unreadable = list[str](), [damage] if damage else []
    if settled is None:
        return found, unreadable
    for one in settled.feeds:
        verdict = one.verdict
        if not can_heal(one.feed, verdict.evidence_class, verdict.missing_ids):
            continue
        try:
            manifest = load_manifest(store, one.feed, day)
            _, version, profile, law = judged(store, settings, settled, str(one.feed))
            kept = kept_receipts(store, one.feed, day, manifest)
            _, unknown = open_gaps(profile, law, manifest, kept, settings.thresholds)
            if unknown or lacks_recovered(version, manifest.receipts):
                found.append(str(one.feed))
        except Unreadable as failure:
            unreadable.append(str(failure))
        except PermanentFailure:
            continue  # rows cannot repair it
    return found, unreadable


def judged(
    store: Store, settings: Settings, settled: SettledDay, name: str
) -> tuple[SettledFeed, Version, FeedProfile, IdLaw]:
    """The version that counts, or the one that waits, with its profile; raises if ids prove nothing."""
    day = settled.day
    found = next((f for f in settled.feeds if str(f.feed) == name), None)
    if found is None:
        known = ", ".join(sorted(str(f.feed) for f in settled.feeds))
        msg = f"{name} is not a feed of {day}: choose from {known}"
        raise PermanentFailure(msg)
    feed = found.feed
    manifest = load_manifest(store, feed, day)
    version = manifest.version(found.judged.content if found.judged else None)
    if version is None:
        msg = f"{feed} has no file of {day}: a backfill of the day fetches it"
        raise PermanentFailure(msg)
    profile = stored_profile(store, manifest, version)
    law = law_of(settings.thresholds.id_laws, feed, day)
    if feed.is_grouped:
        msg = f"{feed} is a group: its file has many markets, but a receipt covers one: nothing is asked for"
        raise PermanentFailure(msg)
    if law is None or law.evidence_class == "C" or not profile.has_numeric_ids:
        why = law.promise if law else "no law of them is known"
        msg = f"the ids of {feed} do not show which trades are missing ({why}): nothing can be asked for"
        raise PermanentFailure(msg)
    broken = violations(profile, settings.thresholds.rows, grouped=False)
    if broken:
        msg = f"{feed} of {day} breaks a rule that rows cannot repair ({broken[0]}): fetch it again"
        raise PermanentFailure(msg)
    return found, version, profile, law


def kept_receipts(store: Store, feed: Feed, day: str, manifest: FeedManifest) -> FeedManifest:
    """The manifest with only those receipts whose answers are all in the lake."""

    def is_kept(receipt: Receipt) -> bool:
        kept = {(answer.content, receipt.ending): answer.bytes for answer in receipt.answers}
        if receipt.rows is not None:
            kept[receipt.rows.content, "csv"] = receipt.rows.bytes
        return all(store.size(paths.receipt_data(feed, day, *file)) == size for file, size in kept.items())

    return manifest.model_copy(update={"receipts": tuple(filter(is_kept, manifest.receipts))})


def open_gaps(
    profile: FeedProfile,
    law: IdLaw,
    manifest: FeedManifest,
    kept: FeedManifest,
    thresholds: ThresholdSettings,
) -> tuple[list[Gap], list[Gap]]:
    """The gaps without the ids that were never issued, and the whole gaps that stored receipts do not cover.

    Gaps that count as the venue's own are in neither list: there are thousands, and they lose no trade.
    """
    told = [ids for receipt in kept.receipts for ids in receipt.recovered]
    told += [(n.first_id, n.last_id) for of_symbol in never_issued(kept).values() for n in of_symbol]
    told.sort()
    left = without_never_issued(profile, never_issued(manifest)).symbols
    allowed = [legitimate_gap(law.evidence_class, thresholds, symbol) for symbol in left]
    gaps = [
        gap
        for symbol, most in zip(left, allowed, strict=True)
        for gap in symbol.gaps
        if gap.last_missing - gap.first_missing + 1 > most
    ]
    unknown = [
        gap
        for symbol, most in zip(profile.symbols, allowed, strict=True)
        for gap in symbol.gaps
        if count_of(without((gap.first_missing, gap.last_missing), told)) > most
    ]
    return gaps, unknown


def at_midnights(
    store: Store, day: str, feed: Feed, profile: FeedProfile, law: IdLaw, thresholds: ThresholdSettings
) -> Iterator[str]:
    """Yield a sentence for each midnight whose two files have missing ids between them.

    Such ids are not asked for, since a receipt covers one day.
    """
    for days in ((shift(day, -1), day), (day, shift(day, 1))):
        beside = None
        with suppress(Unreadable):  # that day's own run reports it
            settled = load_settled(store, days[days[0] == day])
            beside = settled.feed(feed) if settled is not None else None
        if beside is None:
            continue
        for symbol in profile.symbols:
            first, last = _between(symbol, beside.edges, is_before=days[1] == day)
            if last - first + 1 > legitimate_gap(law.evidence_class, thresholds, symbol):
                yield (
                    f"{shown_ids((first, last))} between the files of {' and '.join(days)}: not asked for, "
                    "because a trade at midnight may belong to either file; fetch both again"
                )


def _between(symbol: SymbolProfile, beside: Edges, *, is_before: bool) -> Ids:
    """The ids between the file and the nearest version of the neighbor's; an empty range if they join."""
    if symbol.id_min is None or symbol.id_max is None:
        return 1, 0
    if is_before:
        runs = [(last + 1, symbol.id_min - 1) for last in beside.closing_ids.get(symbol.dataset_symbol, ())]
    else:
        runs = [(symbol.id_max + 1, first - 1) for first in beside.opening_ids.get(symbol.dataset_symbol, ())]
    return min(runs, key=lambda run: abs(run[1] - run[0] + 1), default=(1, 0))


def holes_of(store: Store, feed: Feed, day: str, version: Version, gaps: Sequence[Gap]) -> list[Hole]:
    """The gaps with the file's rows around them."""
    import polars as pl

    wanted = sorted({n for gap in gaps for n in (gap.first_missing - 1, gap.last_missing + 1)})
    with store.local_copy(paths.ticks_data(feed, day, version.content)) as file:
        number = pl.col("id").cast(pl.String).cast(pl.Int64)
        rows = (
            pl.scan_parquet(file)
            .with_columns(number=number)
            .filter(pl.col("number").is_in(wanted))
            .unique("number", keep="first", maintain_order=True)
            .collect()
        )
    beside = {row["number"]: _trade(row) for row in rows.iter_rows(named=True)}
    return [Hole(beside[gap.first_missing - 1], beside[gap.last_missing + 1]) for gap in gaps]


def _trade(row: dict[str, Any]) -> TradeRow:
    return TradeRow.model_validate(
        {
            "id": row["number"],
            "time_us": time_us(row["timestamp"]),
            "side": row["side"] or "unknown",
            # With these zeros, a row without them differs from the exchange's trade.
            "price": row["price"] or 0.0,
            "amount": row["amount"] or 0.0,
        }
    )


def shown_ids(ids: Ids) -> str:
    """The ids as text for people."""
    return f"id {ids[0]}" if ids[0] == ids[1] else f"ids {ids[0]} to {ids[1]}"
