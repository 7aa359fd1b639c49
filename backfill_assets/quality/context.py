"""What a verdict depends on besides the feed's own file: gathered from the lake, and stored with the verdict.

The neighbours' ids, when the feed was owed, what is usual by the baseline, what other feeds of the day show.
Reading belongs here and judging does not: a stored context and the profile give the same verdict again
without the lake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backfill_assets.days import end_us, shift, start_us
from backfill_assets.feeds import Feed
from backfill_assets.lake.gather import gather
from backfill_assets.lake.manifests import FeedManifest, Version, load_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.baseline import Baseline, Symbols, load_baseline
from backfill_assets.quality.listings import Owed, owed_on
from backfill_assets.quality.profiles import profile_of
from backfill_assets.quality.silences import JointSilence, joint_silences
from backfill_assets.quality.spikes import spike_evidence
from backfill_assets.quality.twins import Index, index_of, twins_of
from backfill_assets.quality.verdict import Context, arrival_edges
from backfill_assets.settings import RowSettings, ThresholdSettings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the feeds of a day share, read once per day."""

    #: When each feed was owed: listed, and known outages.
    owed: dict[Feed, Owed]
    baseline: Baseline
    #: Median rows of published days of the same weekday, of the feeds with enough of them.
    usual_rows: dict[Feed, float]
    #: What the lake holds of the day, by feed, and where each of its files lies.
    manifests: dict[Feed, FeedManifest]
    files: Index
    joint_silences: dict[Feed, tuple[JointSilence, ...]]
    limits: RowSettings


def surroundings(
    store: Store, expected: Sequence[tuple[Feed, Symbols]], day: str, thresholds: ThresholdSettings
) -> Surroundings:
    """Read what the contexts of the day's feeds, given with their symbols, are made of."""
    feeds = [feed for feed, _ in expected]
    owed, baseline = owed_on(store, feeds, day), load_baseline(store)
    found = gather(lambda feed: load_manifest(store, feed, day), feeds, store.parallel_reads)
    windows = {feed: (o.window.start_us, o.window.end_us) for feed, o in owed.items()}
    return Surroundings(
        owed=owed,
        baseline=baseline,
        usual_rows=baseline.usual_rows(day, expected, thresholds.history),
        manifests=dict(zip(feeds, found, strict=True)),
        files=index_of(found),
        joint_silences=joint_silences(found, windows, thresholds.rows),
        limits=thresholds.rows,
    )


def context_of(store: Store, feed: Feed, day: str, around: Surroundings) -> Context:
    """The context of one feed's verdict."""
    manifest = around.manifests[feed]
    before, after = (load_manifest(store, feed, shift(day, days)) for days in (-1, 1))
    owed = around.owed[feed]
    return Context(
        window_start_us=owed.window.start_us,
        window_end_us=owed.window.end_us,
        is_listed=owed.window.is_listed,
        symbol_windows=dict(owed.symbol_windows),
        outages=owed.window.outages,
        usual_rows=around.usual_rows.get(feed),
        previous=_last_ids(before.accepted, feed, end_us(shift(day, -1))),
        following=_first_ids(after.accepted, feed, start_us(shift(day, 1))),
        twins=twins_of(manifest, around.files, (before, after), around.limits),
        spikes=spike_evidence(store, feed, day, manifest),
        joint_silences=around.joint_silences.get(feed, ()),
    )


def _last_ids(before: Version | None, feed: Feed, border_us: int) -> dict[str, tuple[int, int]]:
    if before is None:
        return {}
    profile = profile_of(before)
    return {
        s.dataset_symbol: (s.id_max, border_us - arrival_edges(profile, s, grouped=feed.is_grouped)[1])
        for s in profile.symbols
        if s.id_max is not None and s.numeric_ids == s.rows
    }


def _first_ids(after: Version | None, feed: Feed, border_us: int) -> dict[str, tuple[int, int]]:
    if after is None:
        return {}
    profile = profile_of(after)
    return {
        s.dataset_symbol: (s.id_min, arrival_edges(profile, s, grouped=feed.is_grouped)[0] - border_us)
        for s in profile.symbols
        if s.id_min is not None and s.numeric_ids == s.rows
    }
