"""Heals a feed's day: asks the sources for the missing ids (``holes``) and uses the answers.

The order of writes makes a kill at any moment cost only time: bodies first, then the receipts that name them,
then the comparisons of the version made of receipts, then this version, then the settled day. The next run
takes the stored receipts and asks only for ids that none of them covers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final

from backfill_assets.days import iso_time
from backfill_assets.failures import BackfillError, PermanentFailure, Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.heal.conclusions import Conclusion, Hole, conclude
from backfill_assets.heal.holes import at_midnights, holes_of, judged, kept_receipts, open_gaps, shown_ids
from backfill_assets.heal.receipts import keep, replay
from backfill_assets.heal.sources import Body, Budget, Source, SourceName
from backfill_assets.lake import documents, paths
from backfill_assets.lake.evidence import Receipt
from backfill_assets.lake.manifests import (
    DayRecord,
    FeedManifest,
    Version,
    load_day_record,
    load_manifest,
    load_manifests,
    update_manifest,
)
from backfill_assets.lake.store import Store
from backfill_assets.quality.beside_trades import compare_with_trades
from backfill_assets.quality.decisions import what_next
from backfill_assets.quality.measures import load_measures
from backfill_assets.quality.profiles import Gap
from backfill_assets.quality.receipts import count_of
from backfill_assets.quality.remedies import run_day
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import SettledDay, SettledFeed, load_settled
from backfill_assets.quality.settled import day_of as settled_with_measures
from backfill_assets.quality.witnesses import ask_witnesses
from backfill_assets.readable_numbers import plural
from backfill_assets.settings import Settings, resolve
from backfill_assets.ticks.fetch import scratch_folder
from backfill_assets.ticks.healed import accepted_content, heal_version, lacks_recovered
from backfill_assets.ticks.restatements import comparisons, with_comparisons

REFERENCE_EXTRA: Final = "backfill-assets[reference]"
#: Receipts written into the manifest together.
_RECEIPTS_AT_ONCE: Final = 50


@dataclass(slots=True)
class Healing:
    """The result of healing one feed's day.

    Attributes
    ----------
    lines
        Lines for people, in order.
    still_missing
        How many ids are still missing: nothing is known of them, or no source gave their trades.
    problems
        Reasons why ids could not be asked for, and receipts that do not hold.
    """

    lines: list[str] = field(default_factory=list)
    still_missing: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether no id is missing and every receipt holds."""
        return not self.still_missing and not self.problems


def heal(
    store: Store, settings: Settings, day: str, name: str, budget: Budget, *, dry_run: bool = False
) -> Healing:
    """Ask for the missing ids of a feed, add the recovered trades, and settle the day.

    Parameters
    ----------
    name
        ``exchange/data_type/SYMBOL``.
    budget
        The requests of this command.
    dry_run
        Send no request and write nothing: repeat the conclusions from stored answers, and list the ids that
        would be asked for.

    Raises
    ------
    PermanentFailure
        The day was never run, a document of it cannot be read, it does not have the feed, or the feed's ids
        prove nothing.
    """
    settled, record = _recorded(store, day)
    found, version, profile, law = judged(store, settings, settled, name)
    feed, done = found.feed, Healing()
    manifest = load_manifest(store, feed, day)
    kept = kept_receipts(store, feed, day, manifest)
    gaps, unknown = open_gaps(profile, law, manifest, kept, settings.thresholds)
    done.problems += at_midnights(store, day, feed, profile, law, settings.thresholds)
    total = count_of((gap.first_missing, gap.last_missing) for gap in gaps)
    done.lines.append(f"{feed} of {day}: {_in_holes(total, len(gaps))}")
    if dry_run:
        _look_again(store, feed, day, manifest, unknown, done)
    else:
        holes = holes_of(store, feed, day, version, unknown) if unknown else []
        # Damaged or missing answers are asked for again, even if the version has their trades.
        lost = [Hole(r.before, r.after) for r in manifest.receipts if r not in kept.receipts]
        holes = list(dict.fromkeys([*holes, *lost]))
        if holes:
            manifest = _ask(store, settings, feed, day, manifest, holes, budget, done)
            manifest = _without_replaced(store, feed, day, manifest)
        # This also finishes an earlier run that was killed.
        _settle(store, settings, record, found, version, manifest)
    _tell(store, feed, settled, done)
    return done


def _recorded(store: Store, day: str) -> tuple[SettledDay, DayRecord]:
    settled, damage = documents.look(store, paths.settled_day(day), SettledDay)
    if damage:
        raise Unreadable(damage)
    record = load_day_record(store, day)
    if settled is None or record is None:
        msg = f"nothing is recorded of {day}: run the day first"
        raise PermanentFailure(msg)
    return settled, record


def _ask(
    store: Store,
    settings: Settings,
    feed: Feed,
    day: str,
    manifest: FeedManifest,
    holes: Sequence[Hole],
    budget: Budget,
    done: Healing,
) -> FeedManifest:
    """Ask one source after the other for the holes that are left; return the manifest with the receipts."""
    left = list(holes)
    reasons: dict[Hole, list[str]] = {hole: [] for hole in holes}
    for source in _sources(settings, feed, budget):
        receipts: list[Receipt] = []
        still = []
        for hole, answered in source.ask(left):
            try:
                if isinstance(answered, BackfillError):
                    raise answered
                found = conclude(hole, answered.issued)
            except BackfillError as failure:
                reasons[hole].append(f"{source.asked}: {failure}")
                still.append(hole)
                continue
            receipts.append(keep(store, feed, day, source, hole, answered, found))
            done.lines.append(f"  {_told(hole, found)} ({source.asked}, receipt {receipts[-1].name})")
            if found.summed_up:
                reasons[hole].append(
                    f"{source.asked}: {plural(count_of(found.summed_up), 'trade')} summed up with others, "
                    "so their amounts are not known"
                )
                still.append(hole)
            if len(receipts) >= _RECEIPTS_AT_ONCE:
                _keep_receipts(store, feed, day, receipts)
                receipts = []
        manifest = _keep_receipts(store, feed, day, receipts)
        left = still
        if not left:
            break
    done.problems += [f"{shown_ids(hole.ids)}: {'; '.join(reasons[hole])}" for hole in left]
    return manifest


def _keep_receipts(store: Store, feed: Feed, day: str, receipts: Sequence[Receipt]) -> FeedManifest:
    return update_manifest(store, feed, day, lambda found: found.with_receipts(receipts))


def _without_replaced(store: Store, feed: Feed, day: str, manifest: FeedManifest) -> FeedManifest:
    """Drop the receipts whose answers are missing and whose conclusion another receipt has."""

    def conclusion(receipt: Receipt) -> tuple[object, ...]:
        return receipt.first_id, receipt.last_id, receipt.never_issued, receipt.recovered

    kept = kept_receipts(store, feed, day, manifest).receipts
    told = {conclusion(receipt) for receipt in kept}
    replaced = [r for r in manifest.receipts if r not in kept and conclusion(r) in told]
    if not replaced:
        return manifest
    return update_manifest(
        store,
        feed,
        day,
        lambda found: found.model_copy(
            update={"receipts": tuple(r for r in found.receipts if r not in replaced)}
        ),
    )


def _sources(settings: Settings, feed: Feed, budget: Budget) -> Iterator[Source]:
    """The sources that can be asked for the feed, in order.

    Raises
    ------
    PermanentFailure
        No source can be asked.
    """
    from backfill_assets.heal import archive

    exchange_trades = _exchange_trades()
    timeout = settings.heal.timeout_seconds
    if feed.exchange not in exchange_trades.EXCHANGES:
        known = ", ".join(exchange_trades.EXCHANGES)
        msg = f"{feed.exchange} cannot be asked for old trades by id or time; exchanges that can: {known}"
        raise PermanentFailure(msg)
    yield exchange_trades.ExchangeTrades(
        feed, endpoint=resolve(settings.heal.exchange_endpoint), timeout_seconds=timeout, budget=budget
    )
    if feed.exchange in archive.EXCHANGES:
        endpoint = resolve(settings.heal.archive_endpoint)
        yield archive.Archive(
            feed,
            endpoint=endpoint,
            timeout_seconds=timeout,
            budget=budget,
            scratch=scratch_folder(settings),
        )


def replaying(feed: Feed, name: SourceName, bodies: Sequence[Body]) -> Source:
    """A source that replays these answers."""
    from backfill_assets.heal.archive import Archive
    from backfill_assets.heal.exchange_trades import ExchangeTrades

    return Archive(feed, bodies=bodies) if name == "archive" else ExchangeTrades(feed, bodies=bodies)


def _look_again(
    store: Store, feed: Feed, day: str, manifest: FeedManifest, unknown: Sequence[Gap], done: Healing
) -> None:
    """Repeat the conclusion of every receipt, and name the ids that were not asked for yet."""
    held = 0
    for receipt in manifest.receipts:
        found = replay(store, feed, day, receipt, lambda name, bodies: _replaying(feed, name, bodies))
        held += not found.problem
        if found.problem:
            ids = shown_ids((receipt.first_id, receipt.last_id))
            done.problems.append(f"receipt {receipt.name} for {ids} does not hold: {found.problem}")
    if manifest.receipts:
        total = plural(len(manifest.receipts), "receipt")
        done.lines.append(f"  {held} of {total} give the same conclusion again")
    done.lines += [f"  would ask for {shown_ids((g.first_missing, g.last_missing))}" for g in unknown]


def _replaying(feed: Feed, name: SourceName, bodies: Sequence[Body]) -> Source:
    """A source that replays these answers."""
    from backfill_assets.heal.archive import Archive

    if name == "archive":
        return Archive(feed, bodies=bodies)
    again: Source = _exchange_trades().ExchangeTrades(feed, bodies=bodies)
    return again


def _exchange_trades() -> ModuleType:
    """The module that needs the exchanges' client."""
    try:
        from backfill_assets.heal import exchange_trades
    except ModuleNotFoundError as missing:
        if missing.name != "ccxt":
            raise
        msg = f"the client of the exchanges is not installed: pip install '{REFERENCE_EXTRA}'"
        raise PermanentFailure(msg) from missing
    return exchange_trades


def _settle(
    store: Store,
    settings: Settings,
    record: DayRecord,
    found: SettledFeed,
    version: Version,
    manifest: FeedManifest,
) -> None:
    """Make a version with the recovered trades if the newest lacks some, and judge the day again.

    The version enters the manifest after everything was compared with it: the day may be settled by another
    command at any moment, and must not be judged by comparisons with the version before.
    """
    feed, day = found.feed, record.day
    if lacks_recovered(version, manifest.receipts):
        healed = heal_version(store, settings, feed, day, dict(found.symbols), version, manifest)
        accepted = accepted_content(store, feed, day)
        coming = manifest.with_version(healed, accepted)
        manifests = load_manifests(store, record) | {feed: coming}
        ask_witnesses(store, record, manifests, settings)
        compare_with_trades(store, record, manifests, settings)
        made = comparisons(store, feed, coming, settings.thresholds.id_laws)
        update_manifest(
            store, feed, day, lambda held: with_comparisons(held.with_version(healed, accepted), made)
        )
    settle(store, day, settings.thresholds)


def _tell(store: Store, feed: Feed, before: SettledDay, done: Healing) -> None:
    """Report the ids that are still missing, and the next step for the day if its inputs have changed."""
    day = before.day
    settled = load_settled(store, day)
    found = settled.feed(feed) if settled is not None else None
    if settled is None or found is None:
        msg = f"{feed} is no longer a feed of {day}: another command has changed the day"
        raise PermanentFailure(msg)
    verdict = found.verdict
    done.still_missing = verdict.missing_ids or 0
    never, healed = verdict.never_issued_ids, verdict.healed_rows
    done.lines.append(
        f"  {verdict.completeness_state}: {plural(healed, 'row')} recovered, {plural(never, 'id')} never "
        f"issued, {plural(done.still_missing, 'id')} still missing"
    )
    if found.excess:
        done.lines.append(f"  the newest version waits: {found.excess}")
    if settled.inputs != before.inputs:
        now = settled_with_measures(settled, load_measures(store, day))
        command = run_day(day, generated=now.is_generated)
        done.lines.append(f"  {what_next(day, now.scores.state, command)}")


def _told(hole: Hole, found: Conclusion) -> str:
    parts = [
        *([f"{plural(count_of(found.never_issued), 'id')} never issued"] if found.never_issued else []),
        *([f"{plural(len(found.recovered), 'trade')} recovered"] if found.recovered else []),
        *([f"{plural(count_of(found.summed_up), 'trade')} only summed up"] if found.summed_up else []),
    ]
    begin, _ = hole.times_us
    return f"{shown_ids(hole.ids)} at {iso_time(begin)}: {', '.join(parts)}"


def _in_holes(ids: int, holes: int) -> str:
    if not ids:
        return "no id is missing"
    return f"{plural(ids, 'id')} {'is' if ids == 1 else 'are'} missing in {plural(holes, 'hole')}"
