"""Settles a day: judges its feeds, decides which versions count, and writes the result.

Only this module writes verdicts to the lake. The asset ``ticks`` calls it after a fetch, and ``decisions``
after an approval or a retraction; all other code only reads the document (``settled``).

A day's document follows from its inputs and has their hash: if the inputs have not changed, nothing is judged
or written. Because a day's ids affect its neighbors, each document also has the edges of its neighbors as it
saw them. A neighbor that saw other edges is settled, too, so the documents do not depend on the order in
which days are run. This always ends: the ids that a day shows are those of all files that it ever had, a
verdict depends on the ids of the neighbors, and being sealed depends on which of their versions count. A
neighbor whose document is lost is settled first, because without it the trust that it gave would be missing.
If a run is killed, the next run of that day or of a day beside it completes the work.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import partial
from typing import Final

from backfill_assets.contracts import Contracts
from backfill_assets.days import shift
from backfill_assets.failures import PermanentFailure, Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.id_laws import law_of
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import FeedManifest, load_day_record
from backfill_assets.lake.store import Store
from backfill_assets.logs import bound
from backfill_assets.quality.book_minutes import book_minutes
from backfill_assets.quality.context import (
    DayInputs,
    Surroundings,
    context_of,
    contracts_of_feed,
    day_inputs,
    edges_of,
    surroundings,
    with_accepted,
)
from backfill_assets.quality.findings import Finding
from backfill_assets.quality.minute_evidence import minute_evidence
from backfill_assets.quality.profile_schema import profile_finding, profile_row
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.scores import DayLimits
from backfill_assets.quality.selection import select_version
from backfill_assets.quality.settled import (
    HeldVersion,
    SettledDay,
    SettledFeed,
    day_of,
    is_lost,
    load_settled,
    scores_of,
)
from backfill_assets.quality.verdict import (
    Context,
    Verdict,
    approval_rules,
    judge_feed,
    missing_verdict,
    rules_hash,
)
from backfill_assets.quality.verdict_schema import score_finding, verdict_rows
from backfill_assets.quality.warnings import terms_warnings
from backfill_assets.settings import ThresholdSettings

LOGGER: Final = logging.getLogger(__name__)
#: How often the feeds of a day are judged beside each other at most; two duplicates may exclude each other.
MOST_ROUNDS: Final = 8


def settle(store: Store, day: str, thresholds: ThresholdSettings) -> SettledDay:
    """Settle a day that has changed, and the days whose verdicts the change affects.

    The days beside it are settled under the present rules. Further days are settled only if they have the
    same rules: a change of the rules takes effect with the next run of a day or of a day beside it, and never
    spreads through the lake.

    Raises
    ------
    PermanentFailure
        The day was never recorded.
    """
    waiting, rules = [day], rules_hash(thresholds)
    found: dict[str, SettledDay] = {}
    lost: set[str] = set()
    while waiting:
        visited = waiting.pop(0)
        try:
            found[visited] = settled = _settle_one(store, visited, thresholds, lost)
        except _LostBeside as beside:
            # A day without a document shows no ids and would take back the trust that it gave.
            lost.update(beside.days)
            waiting[:0] = [*beside.days, visited]
            continue
        except PermanentFailure as failure:
            if visited == day:
                raise
            with bound(day=visited):
                LOGGER.warning("%s is not settled again beside %s: %s", visited, day, failure)
            continue
        for neighbour, side in ((shift(visited, -1), 1), (shift(visited, 1), 0)):
            if neighbour in waiting:
                continue
            seen = load_settled(store, neighbour)
            if seen is not None:
                follows = visited == day or seen.rules == rules
                is_outdated = follows and seen.neighbours[side] != settled.edges
            else:
                # An earlier version of this package has judged the day.
                is_outdated = visited == day and store.exists(paths.accepted_versions(neighbour))
            if is_outdated:
                waiting.append(neighbour)
    return found[day]


class _LostBeside(Exception):
    """Days beside this one were settled, but their documents are lost."""

    def __init__(self, days: list[str]) -> None:
        super().__init__(*days)
        self.days = days


def _settle_one(store: Store, day: str, thresholds: ThresholdSettings, tried: Collection[str]) -> SettledDay:
    """Settle one day; days in ``tried`` beside it may be lost."""
    record = load_day_record(store, day)
    if record is None:
        msg = f"nothing is recorded of {day}: materialize its instruments first"
        raise PermanentFailure(msg)
    rules = rules_hash(thresholds)

    def change(current: SettledDay | None) -> SettledDay:
        # Read after the document: if another run replaces it meanwhile, this function is called again.
        inputs = day_inputs(store, record, rules)
        if current is not None and current.inputs == inputs.hash:
            return current
        beside = ((shift(day, -1), inputs.before), (shift(day, 1), inputs.after))
        lost = [
            other for other, seen in beside if seen is None and other not in tried and is_lost(store, other)
        ]
        if lost:
            raise _LostBeside(lost)
        around = surroundings(store, inputs, thresholds)
        feeds, around = _settled_feeds(around, current, rules, thresholds)
        is_day_lost = current is None and is_lost(store, day)
        gone = _orphaned(store, around.inputs) if is_day_lost else _counted(current)
        unreadable = {**_gone(store, gone, around.inputs), **around.inputs.unreadable}
        if unreadable and is_day_lost:
            feed, why = next(iter(unreadable.items()))
            msg = f"{why}; the accepted version of {feed} is lost with the day's document: refresh the feed"
            raise Unreadable(msg)
        feeds = tuple(_kept(f, current, unreadable[f.feed]) if f.feed in unreadable else f for f in feeds)
        limits = DayLimits.of(thresholds)
        settled = SettledDay(
            day=day,
            # Without inputs the next run settles the day again: a file of minutes could not be read.
            inputs=inputs.hash if around.is_compared else "",
            rules=rules,
            baseline=around.baseline.version,
            neighbours=inputs.neighbours,
            exchanges=record.exchanges,
            not_listed=record.not_listed,
            why_not_listed=record.why_not_listed,
            dropped=record.dropped,
            awaiting_export=record.awaiting_export,
            awaited=record.why_awaited,
            instruments=around.instruments,
            limits=limits,
            notional=around.notional,
            scores=scores_of(feeds, limits, around.notional, awaited=record.why_awaited),
            feeds=feeds,
        )
        return settled.model_copy(update={"findings": _findings(settled, around, thresholds)})

    return documents.update(store, paths.settled_day(day), SettledDay, change)


def _counted(current: SettledDay | None) -> list[Feed]:
    """Feeds with a version that counts."""
    return [f.feed for f in current.feeds if f.accepted is not None] if current is not None else []


def _orphaned(store: Store, inputs: DayInputs) -> list[Feed]:
    """Feeds with a file in the lake but no version: a manifest named it before the document was lost."""
    empty = [feed for feed, manifest in inputs.manifests.items() if not manifest.versions]
    return [
        feed
        for feed in empty
        if any(path.endswith(".parquet") for path in store.list(paths.ticks_prefix(feed, inputs.day)))
    ]


def _gone(store: Store, feeds: Collection[Feed], inputs: DayInputs) -> dict[Feed, str]:
    """The feeds among these whose manifest has no version because it was deleted."""
    return {
        feed: f"{store.uri_of(paths.ticks_manifest(feed, inputs.day))}: is gone: {FeedManifest.remedy}"
        for feed in feeds
        if feed in inputs.manifests and not inputs.manifests[feed].versions
    }


def _kept(computed: SettledFeed, current: SettledDay | None, why: str) -> SettledFeed:
    """The feed as it counted before its manifest was damaged; a feed that never counted is missing."""
    before = current.feed(computed.feed) if current is not None else None
    if before is not None and before.judged is not None:
        return before.model_copy(update={"symbols": computed.symbols, "unreadable": why})
    found = computed.verdict.model_copy(update={"reasons": (why,)})
    return computed.model_copy(update={"candidate_verdict": found, "unreadable": why})


def _settled_feeds(
    around: Surroundings, former: SettledDay | None, rules: str, thresholds: ThresholdSettings
) -> tuple[tuple[SettledFeed, ...], Surroundings]:
    """Judge each feed beside the newest versions, then beside those that count, until these stay the same."""
    for _ in range(MOST_ROUNDS):
        feeds = tuple(
            _settled_feed(feed, around, former, rules, thresholds) for feed in around.inputs.expected
        )
        accepted = {f.feed: f.accepted.content for f in feeds if f.accepted}
        beside = with_accepted(around, accepted, thresholds.rows)
        if beside is around:
            break
        around = beside
    return feeds, around


def _findings(settled: SettledDay, around: Surroundings, thresholds: ThresholdSettings) -> dict[str, Finding]:
    """The results of the checks of ``ticks``; that of the schema only where all files have stored facts."""
    rows = verdict_rows(day_of(settled, None))
    found = {name: score_finding(name, rows, thresholds) for name in ("completeness", "quality")}
    newest = [(f, m.newest) for f, m in around.inputs.manifests.items() if m.newest is not None]
    stored = [
        profile_row(f, v, around.profiles[f, v.content], v.stored.rows, v.stored.columns)
        for f, v in newest
        if v.stored is not None
    ]
    return {**found, "schema": profile_finding(stored)} if len(stored) == len(newest) else found


def _settled_feed(
    feed: Feed,
    around: Surroundings,
    former: SettledDay | None,
    rules: str,
    thresholds: ThresholdSettings,
) -> SettledFeed:
    inputs: DayInputs = around.inputs
    manifest, day = inputs.manifests[feed], inputs.day
    context = context_of(feed, around)
    verdict_on = partial(_verdict, feed, around, thresholds, rules)
    verdicts = {version.content: verdict_on(version.content, context) for version in manifest.versions}
    judged_by = approval_rules(feed, day, thresholds)
    selected = select_version(verdicts, manifest, judged_by, thresholds.restatement)
    if selected.voided:
        context = context.model_copy(update={"void_approval": selected.why_voided})
        verdicts = {version.content: verdict_on(version.content, context) for version in manifest.versions}
    accepted = manifest.version(selected.accepted)
    candidate = manifest.newest if manifest.newest is not accepted else None
    on_candidate = verdicts[candidate.content] if candidate else None
    if candidate is not None and candidate.content in selected.held_back:
        reasons = (selected.held_back[candidate.content],)
        on_candidate = verdict_on(candidate.content, context.model_copy(update={"held_back": reasons}))
    if accepted is None and candidate is None:
        on_candidate = missing_verdict(feed, day, manifest.why_missing, context, rules)
    on_accepted = verdicts[accepted.content] if accepted else None
    contracts = contracts_of_feed(feed, around)
    before = former.feed(feed) if former is not None else None
    if on_accepted is not None and before is not None and before.accepted is not None:
        restated = _restated_terms(before, inputs.expected[feed], contracts)
        on_accepted = on_accepted.model_copy(update={"warnings": (*on_accepted.warnings, *restated)})
    profile = around.profiles[feed, accepted.content] if accepted else None
    law = law_of(thresholds.id_laws, feed, day)
    canonical = [name for _, name in inputs.expected[feed]]
    return SettledFeed(
        feed=feed,
        symbols=inputs.expected[feed],
        accepted=HeldVersion.of(accepted),
        candidate=HeldVersion.of(candidate),
        accepted_verdict=on_accepted,
        candidate_verdict=on_candidate,
        approval=selected.approval,
        retraction=selected.retraction,
        restatement=selected.restatement,
        excess=selected.excess,
        voided=HeldVersion.of(manifest.version(selected.voided)),
        is_absent=manifest.is_missing,
        ids_are_order=profile is not None and profile.has_numeric_ids and law is not None and law.gives_order,
        ids_name_trades=profile is not None and profile.has_ids and (law is None or law.names_trades),
        may_repeat_trades=profile is not None and profile.may_repeat_trades(law),
        id_range=_id_range(profile) if profile is not None and not feed.is_grouped else None,
        traded_us=_traded_us(profile),
        is_sealed=inputs.is_sealed(feed),
        contracts=contracts,
        evidence=minute_evidence(feed, canonical, day, profile, on_accepted, thresholds)
        if feed.type.makes_candles
        else {},
        books=book_minutes(feed, canonical, day, profile, context, around.newest),
        edges=edges_of(feed, selected.accepted, around, former, thresholds.history.least_rows),
    )


def _restated_terms(
    before: SettledFeed, symbols: tuple[tuple[str, str], ...], contracts: Mapping[str, Contracts]
) -> list[str]:
    """Warnings on terms that changed since the candles were made, for symbols that the feed already had."""
    if not before.feed.type.makes_candles:
        return []
    names = {name for _, name in before.symbols} & {name for _, name in symbols}
    return list(terms_warnings(names, before.contracts, contracts))


def _id_range(profile: FeedProfile) -> tuple[int, int] | None:
    """The lowest and the highest id of a file of one symbol; null where a row has no integer id."""
    if len(profile.symbols) != 1 or not profile.has_numeric_ids:
        return None
    (symbol,) = profile.symbols
    if symbol.id_min is None or symbol.id_max is None:
        return None
    own, earlier = (symbol.id_min, symbol.id_max), symbol.earlier_ids or (symbol.id_min, symbol.id_max)
    return min(own[0], earlier[0]), max(own[1], earlier[1])


def _traded_us(profile: FeedProfile | None) -> tuple[int, int] | None:
    if profile is None or profile.first_timestamp_us is None or profile.last_timestamp_us is None:
        return None
    return profile.first_timestamp_us, profile.last_timestamp_us


def _verdict(
    feed: Feed,
    around: Surroundings,
    thresholds: ThresholdSettings,
    rules: str,
    content: str,
    context: Context,
) -> Verdict:
    profile = around.profiles[feed, content]
    return judge_feed(feed, around.inputs.day, content, profile, context, thresholds, rules)
