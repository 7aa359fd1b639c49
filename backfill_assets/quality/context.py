"""The context of each feed's verdict: all evidence besides the feed's own file.

It has the neighbors' ids, the time in which the feed was owed, the usual rows by the baseline, duplicates of
the file, and evidence of the day's other feeds. Reading belongs here and judging does not: a stored context
and the profile give the same verdict again without the lake.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from backfill_assets.contracts import Contract, Contracts, spot_contract, succeeded
from backfill_assets.days import shift
from backfill_assets.failures import Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.evidence import PricesBesideTrades
from backfill_assets.lake.manifests import DayRecord, FeedManifest, Version, read_manifest
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.agreement import Agreement, agreements, others_of
from backfill_assets.quality.baseline import Baseline, load_baseline, notional_of_feeds
from backfill_assets.quality.beside_trades import judged_prices
from backfill_assets.quality.duplicate_files import Place, duplicates_of, index_of
from backfill_assets.quality.listings import Owed, listings_on
from backfill_assets.quality.minute_numbers import read_numbers
from backfill_assets.quality.profiles import FeedProfile, stored_profile
from backfill_assets.quality.receipts import healed_versions, never_issued
from backfill_assets.quality.rules import violations
from backfill_assets.quality.scores import instruments_share
from backfill_assets.quality.settled import Edges, SettledDay, SettledFeed, load_settled
from backfill_assets.quality.silences import VenueSilences, joint_silences
from backfill_assets.quality.spikes import spike_evidence
from backfill_assets.quality.verdict import RULES_VERSION, Context
from backfill_assets.settings import RowSettings, ThresholdSettings
from backfill_assets.tardis.metadata import dataset_symbol

#: Increased when the same inputs give another document of the day.
SETTLED_VERSION: Final = 3

Symbols = tuple[tuple[str, str], ...]
_UNLISTED: Final = Contract(multiplier=None)


@dataclass(frozen=True, slots=True)
class DayInputs:
    """The documents of a day, read once, and a hash of everything that the day's document rests on."""

    day: str
    expected: Mapping[Feed, Symbols]
    manifests: Mapping[Feed, FeedManifest]
    #: The days before and after, as they are now settled.
    before: SettledDay | None
    after: SettledDay | None
    hash: str
    #: By feed, why its manifest cannot be read; ``manifests`` then has an empty one for it.
    unreadable: Mapping[Feed, str]

    @property
    def neighbours(self) -> tuple[str, str]:
        """The edges of both neighbors."""
        return (self.before.edges if self.before else "", self.after.edges if self.after else "")

    def is_sealed(self, feed: Feed) -> bool:
        """Whether the feed's files of both neighbor days are final."""
        symbols = self.expected[feed]
        return all(day is not None and day.is_final(feed, symbols) for day in (self.before, self.after))


def day_inputs(store: Store, record: DayRecord, rules: str) -> DayInputs:
    """Read the documents of the recorded day."""
    day = record.day
    expected = {Feed.parse(e.feed): e.symbols for e in record.expected}
    read = parallel_map(lambda feed: _read(store, feed, day), expected, store.parallel_reads)
    before, after = load_settled(store, shift(day, -1)), load_settled(store, shift(day, 1))
    listings = [paths.instruments_manifest(e, day) for e in record.exchanges]
    parts = [
        f"{RULES_VERSION}:{SETTLED_VERSION}:{rules}",
        record.model_dump_json(exclude={"recorded_at"}),
        *(digest for _, digest, _ in read),
        before.edges if before else "",
        after.edges if after else "",
        documents.digest(store, paths.baseline()),
        *parallel_map(lambda path: documents.digest(store, path), listings, store.parallel_reads),
    ]
    return DayInputs(
        day=day,
        expected=expected,
        manifests={feed: manifest for feed, (manifest, _, _) in zip(expected, read, strict=True)},
        before=before,
        after=after,
        hash=hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16],
        unreadable={feed: why for feed, (_, _, why) in zip(expected, read, strict=True) if why},
    )


def _read(store: Store, feed: Feed, day: str) -> tuple[FeedManifest, str, str]:
    """The manifest, the sha256 of its document, and why it cannot be read."""
    try:
        manifest, digest = read_manifest(store, feed, day)
    except Unreadable as failure:
        empty = FeedManifest(feed=str(feed), day=day)
        return empty, documents.digest(store, paths.ticks_manifest(feed, day)), str(failure)
    return manifest, digest, ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The evidence that the feeds of a day share."""

    inputs: DayInputs
    #: When each feed was owed: its listing and the known outages.
    owed: Mapping[Feed, Owed]
    baseline: Baseline
    #: Median rows of published days of the same weekday, for feeds with enough such days.
    usual_rows: Mapping[Feed, float]
    #: The longest silence on published days of the weeks before, for feeds that trade seldom.
    known_silences: Mapping[Feed, int]
    #: Median daily notional of each feed, 0 where unknown.
    notional: tuple[float, ...]
    #: Share of the expected symbols with exactly one instrument.
    instruments: float | None
    #: By exchange and either name of a symbol, the contracts in which its amounts are given.
    contracts: Mapping[str, Mapping[str, Contracts]]
    #: By feed and content.
    profiles: Mapping[tuple[Feed, str], FeedProfile]
    places: Mapping[Feed, tuple[Place, ...]]
    #: By content of the feed's versions, the other places for which the version is blamed.
    duplicates: Mapping[Feed, dict[str, tuple[str, ...]]]
    #: By exchange.
    joint_silences: Mapping[str, VenueSilences]
    #: Profiles of the newest versions.
    newest: Mapping[Feed, FeedProfile]
    #: False if the minutes of a file could not be compared because they cannot be read.
    is_compared: bool
    #: By exchange, prices of the newest tickers and liquidations that are far from the trades, in order.
    off_trades: Mapping[str, Sequence[tuple[str, PricesBesideTrades]]]
    limits: RowSettings


def surroundings(store: Store, inputs: DayInputs, thresholds: ThresholdSettings) -> Surroundings:
    """Gather the evidence that the contexts of the day's feeds share."""
    day, expected = inputs.day, list(inputs.expected.items())
    listings, baseline = listings_on(store, inputs.expected, day), load_baseline(store)
    inputs, profiles = _with_profiles(store, inputs)
    profiles, is_compared = _with_digests(store, inputs, profiles)
    owed = listings.owed
    windows = {feed: (o.window.start_us, o.window.end_us) for feed, o in owed.items()}
    places = _places(inputs, profiles, {}, thresholds.rows)
    newest = _newest(inputs, profiles)
    return Surroundings(
        inputs=inputs,
        owed=owed,
        baseline=baseline,
        usual_rows=baseline.usual_rows(day, expected, thresholds.history),
        known_silences=baseline.known_silences(day, expected, thresholds.history),
        notional=tuple(notional_of_feeds(baseline, day, expected, thresholds.notional_days)),
        instruments=instruments_share(list(inputs.expected), listings.listed),
        contracts=listings.contracts,
        profiles=profiles,
        places=places,
        duplicates=_duplicates(inputs, profiles, places, thresholds.rows),
        joint_silences=joint_silences(newest, windows, thresholds.rows),
        newest=newest,
        is_compared=is_compared,
        off_trades=_off_trades(inputs, thresholds.rows),
        limits=thresholds.rows,
    )


def _with_profiles(store: Store, inputs: DayInputs) -> tuple[DayInputs, dict[tuple[Feed, str], FeedProfile]]:
    """The profiles by feed and content; a manifest with a damaged profile counts as unreadable."""
    profiles: dict[tuple[Feed, str], FeedProfile] = {}
    unreadable, manifests = dict(inputs.unreadable), dict(inputs.manifests)
    for feed, manifest in inputs.manifests.items():
        try:
            of_feed = {(feed, v.content): stored_profile(store, manifest, v) for v in manifest.versions}
        except Unreadable as failure:
            unreadable[feed] = str(failure)
            manifests[feed] = FeedManifest(feed=str(feed), day=inputs.day)
        else:
            profiles |= of_feed
    return replace(inputs, manifests=manifests, unreadable=unreadable), profiles


def _with_digests(
    store: Store, inputs: DayInputs, profiles: Mapping[tuple[Feed, str], FeedProfile]
) -> tuple[dict[tuple[Feed, str], FeedProfile], bool]:
    """The profiles, with digests where the market has another feed of its book, and whether all were read."""
    held = {feed: manifest.versions for feed, manifest in inputs.manifests.items() if manifest.versions}
    markets = [feed for feed in held if not held.keys().isdisjoint(others_of(feed))]
    wanted = [(feed, version) for feed in markets for version in held[feed]]
    read = read_numbers(store, inputs.day, wanted)
    found = {key: profiles[key].model_copy(update={"numbers": n}) for key, n in read.items() if n}
    return {**profiles, **found}, None not in read.values()


def with_accepted(
    around: Surroundings, accepted: Mapping[Feed, str | None], limits: RowSettings
) -> Surroundings:
    """The surroundings if these versions count: duplicates are also looked for among them."""
    places = _places(around.inputs, around.profiles, accepted, limits)
    if places == around.places:
        return around
    duplicates = _duplicates(around.inputs, around.profiles, places, limits)
    return replace(around, places=places, duplicates=duplicates)


def context_of(feed: Feed, around: Surroundings) -> Context:
    """The context of one feed's verdict."""
    owed, before, after = around.owed[feed], around.inputs.before, around.inputs.after
    previous = before.feed(feed) if before else None
    following = after.feed(feed) if after else None
    silences = around.joint_silences.get(feed.exchange)
    return Context(
        window_start_us=owed.window.start_us,
        window_end_us=owed.window.end_us,
        is_listed=owed.window.is_listed,
        symbol_windows=dict(owed.symbol_windows),
        outages=owed.window.outages,
        usual_rows=around.usual_rows.get(feed),
        known_silence_us=around.known_silences.get(feed),
        previous=previous.edges.closing_ids if previous else {},
        following=following.edges.opening_ids if following else {},
        busy_around=_busy_around(feed, around, previous, following),
        duplicates=around.duplicates[feed],
        spikes=spike_evidence(around.inputs.manifests[feed]),
        agreements=_agreements(feed, around),
        beside_trades=around.inputs.manifests[feed].beside_trades,
        refuted_by=_refuted_by(feed, around),
        never_issued=never_issued(around.inputs.manifests[feed]),
        healed=healed_versions(around.inputs.manifests[feed]),
        joint_silences=silences.of_feed(feed, around.limits) if silences else (),
        venue_is_live=silences is not None and silences.are_none,
        unknown_contracts=tuple(
            name
            for name, contracts in sorted(contracts_of_feed(feed, around).items())
            if feed.type.makes_candles and not all(contract.is_known for contract in contracts)
        ),
    )


def _agreements(feed: Feed, around: Surroundings) -> dict[str, tuple[Agreement, ...]]:
    """How each version of the feed compares with the newest versions of the market's other feeds."""
    versions = around.inputs.manifests[feed].versions
    found = {v.content: agreements(feed, around.profiles[feed, v.content], around.newest) for v in versions}
    return {content: compared for content, compared in found.items() if compared}


def _refuted_by(feed: Feed, around: Surroundings) -> tuple[tuple[str, PricesBesideTrades], ...]:
    """For a feed of trades, prices of the newest tickers and liquidations that are far from the trades."""
    if not feed.type.has_trades:
        return ()
    symbols = {name for _, name in around.inputs.expected[feed]}
    found = around.off_trades.get(feed.exchange, ())
    return tuple((other, one) for other, one in found if one.symbol in symbols)


def _off_trades(inputs: DayInputs, limits: RowSettings) -> dict[str, list[tuple[str, PricesBesideTrades]]]:
    found: dict[str, list[tuple[str, PricesBesideTrades]]] = {}
    for feed, manifest in sorted(inputs.manifests.items(), key=lambda each: each[0]):
        newest = _content(manifest.newest)
        compared = judged_prices(manifest.beside_trades.get(newest) if newest else None, limits)
        far = [(str(feed), one) for one in compared if one.outside > limits.off_trades_excused]
        found.setdefault(feed.exchange, []).extend(far)
    return found


def _busy_around(feed: Feed, around: Surroundings, *beside: SettledFeed | None) -> tuple[str, ...]:
    """Symbols of a group that were listed all day and are busy on a neighbor day."""
    listed = {dataset_symbol(own) for own, _ in around.inputs.expected[feed]}
    busy = {name for found in beside if found is not None for name in found.edges.busy_symbols}
    return tuple(sorted((busy & listed).difference(dict(around.owed[feed].symbol_windows))))


def contracts_of_feed(feed: Feed, around: Surroundings) -> dict[str, Contracts]:
    """Contracts of the feed by canonical symbol, where its amounts are not in the base currency.

    The contract of a symbol that the day's instruments lack is unknown. Two instruments of one market are
    listed one after the other: at the same time they would be two markets.
    """
    names, listed = around.inputs.expected[feed], around.contracts.get(feed.exchange, {})
    found: dict[str, Contracts] = {name: (_UNLISTED,) for _, name in names} if listed else {}
    windows = dict(around.owed[feed].symbol_windows)
    always = (around.owed[feed].window.start_us, around.owed[feed].window.end_us)
    known: set[str] = set()
    for since_us, own, name in sorted((windows.get(dataset_symbol(s), always)[0], s, n) for s, n in names):
        contracts = listed.get(own) or listed.get(dataset_symbol(own))
        if contracts is not None:
            is_next = name in known and contracts != found[name]
            found[name] = succeeded(found[name], contracts, since_us) if is_next else contracts
            known.add(name)
    return {name: contracts for name, contracts in found.items() if contracts != (spot_contract(name),)}


def edges_of(
    feed: Feed, accepted: str | None, around: Surroundings, former: SettledDay | None, least_rows: int
) -> Edges:
    """The edges that the feed shows to the neighbor days if this version counts.

    Parameters
    ----------
    former
        The day's document so far, which keeps the ids of versions that the lake no longer has.
    least_rows
        A symbol of a group with this many rows or more is busy.
    """
    shown = former.feed(feed) if former else None
    # If the document itself was lost, the neighbors' documents still have the ids that they saw.
    before, after = around.inputs.before, around.inputs.after
    in_front, behind = before.feed(feed) if before else None, after.feed(feed) if after else None
    opening: dict[str, set[int]] = {}
    closing: dict[str, set[int]] = {}
    busy = set(shown.edges.busy_symbols if shown else ())
    for ids, known in (
        (opening, shown.edges.opening_ids if shown else {}),
        (closing, shown.edges.closing_ids if shown else {}),
        (opening, in_front.verdict.context.following if in_front else {}),
        (closing, behind.verdict.context.previous if behind else {}),
    ):
        for name, values in known.items():
            ids.setdefault(name, set()).update(values)
    for version in around.inputs.manifests[feed].versions:
        for s in around.profiles[feed, version.content].symbols:
            if feed.is_grouped and s.rows >= least_rows:
                busy.add(s.dataset_symbol)
            if s.id_min is not None and s.id_max is not None and s.numeric_ids == s.rows:
                opening.setdefault(s.dataset_symbol, set()).add(s.id_min)
                if s.earlier_ids is not None:
                    # Ids start over at midnight: the file has the last trades of the day before.
                    opening[s.dataset_symbol].add(s.earlier_ids[0])
                closing.setdefault(s.dataset_symbol, set()).add(s.id_max)
    return Edges(
        opening_ids={name: tuple(sorted(ids)) for name, ids in sorted(opening.items())},
        closing_ids={name: tuple(sorted(ids)) for name, ids in sorted(closing.items())},
        busy_symbols=tuple(sorted(busy)),
        is_final=accepted is not None,
    )


def _newest(inputs: DayInputs, profiles: Mapping[tuple[Feed, str], FeedProfile]) -> dict[Feed, FeedProfile]:
    return {
        feed: profiles[feed, manifest.newest.content]
        for feed, manifest in inputs.manifests.items()
        if manifest.newest is not None
    }


def _content(version: Version | None) -> str | None:
    return version.content if version is not None else None


def _place(feed: Feed, day: str, version: Version, profile: FeedProfile, limits: RowSettings) -> Place:
    return Place(
        feed=str(feed),
        day=day,
        content=version.content,
        raw_sha256=version.source.raw_sha256,
        is_sound=not violations(profile, limits, grouped=feed.is_grouped),
    )


def _places(
    inputs: DayInputs,
    profiles: Mapping[tuple[Feed, str], FeedProfile],
    accepted: Mapping[Feed, str | None],
    limits: RowSettings,
) -> dict[Feed, tuple[Place, ...]]:
    """By feed, the newest version and the one that counts, if they have rows."""
    found = {}
    for feed, manifest in inputs.manifests.items():
        shown = (accepted.get(feed), _content(manifest.newest))
        wanted = [v for v in manifest.versions if v.content in shown and v.rows]
        found[feed] = tuple(_place(feed, inputs.day, v, profiles[feed, v.content], limits) for v in wanted)
    return found


def _duplicates(
    inputs: DayInputs,
    profiles: Mapping[tuple[Feed, str], FeedProfile],
    places: Mapping[Feed, tuple[Place, ...]],
    limits: RowSettings,
) -> dict[Feed, dict[str, tuple[str, ...]]]:
    same_day = index_of(place for of_feed in places.values() for place in of_feed)
    return {
        feed: {
            version.content: blamed
            for version in manifest.versions
            if version.rows
            and (version.content in same_day or version.source.raw_sha256 in same_day)
            and (
                blamed := duplicates_of(
                    _place(feed, inputs.day, version, profiles[feed, version.content], limits), same_day
                )
            )
        }
        for feed, manifest in inputs.manifests.items()
    }
