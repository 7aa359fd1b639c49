"""Whether somebody else saw the prices that the profile takes for spikes: what is kept of it, and its counts.

A spike is *confirmed* when a witness saw that price at that time (quotes of the market, the exchange's own
candles, another venue's trades of the pair), *refuted* when witnesses were there and none saw it, and
otherwise open. ``ticks.witnesses`` asks them and keeps the answers in the lake, one per version of the feed;
here they are read, so that judging opens no file of rows.
"""

from __future__ import annotations

import hashlib
import json
import math

from pydantic import BaseModel, ConfigDict

from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import FeedManifest, Version, load_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.profiles import Spike, SymbolProfile, profile_of


class SpikeEvidence(BaseModel):
    """What witnesses say of the spikes that one version's profile lists.

    Attributes
    ----------
    inputs
        Hash of everything that was asked: the witnesses' files and the settings.
    witnesses
        Who was there for at least one spike, in order.
    confirmed, refuted
        By data set symbol, positions in ``SymbolProfile.spikes``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: str
    witnesses: tuple[str, ...] = ()
    confirmed: dict[str, tuple[int, ...]] = {}
    refuted: dict[str, tuple[int, ...]] = {}


class SpikeRecord(BaseModel):
    """Kept beside a feed's day: the evidence on each of its versions, by ``spikes_key``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feed: str
    day: str
    versions: dict[str, SpikeEvidence] = {}


def spikes_key(version: Version) -> str | None:
    """Names the spikes that a version's profile lists; None if it lists none."""
    listed = {s["dataset_symbol"]: s["spikes"] for s in version.profile["symbols"] if s.get("spikes")}
    if not listed:
        return None
    text = json.dumps(listed, sort_keys=True)
    return f"{version.content}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def load_spikes(store: Store, feed: Feed, day: str) -> SpikeRecord | None:
    """Return the feed's record; None if no witness was ever asked."""
    return documents.load(store, paths.spikes(feed, day), SpikeRecord)[0]


def save_spikes(store: Store, feed: Feed, record: SpikeRecord) -> None:
    """Keep the record in place of an earlier one."""
    documents.update(store, paths.spikes(feed, record.day), SpikeRecord, lambda _: record)


def spike_evidence(store: Store, feed: Feed, day: str, manifest: FeedManifest) -> dict[str, SpikeEvidence]:
    """Evidence by content, for the versions of the feed that have spikes; reads nothing where none has."""
    keys = {v.content: key for v in manifest.versions if (key := spikes_key(v)) is not None}
    record = load_spikes(store, feed, day) if keys else None
    if record is None:
        return {}
    return {content: record.versions[key] for content, key in keys.items() if key in record.versions}


def unconfirmed_of(store: Store, feed: Feed, day: str) -> list[tuple[str | None, Spike]]:
    """Canonical symbol and spike, for what nobody confirmed of the accepted version."""
    manifest = load_manifest(store, feed, day)
    accepted = manifest.accepted
    if accepted is None or spikes_key(accepted) is None:
        return []
    evidence = spike_evidence(store, feed, day, manifest).get(accepted.content)
    return [
        (symbol.symbol, spike)
        for symbol in profile_of(accepted).symbols
        for spike in unconfirmed_spikes(symbol, evidence)
    ]


def refuted_rows(symbol: SymbolProfile, evidence: SpikeEvidence | None) -> int:
    """How many spikes of a symbol are refuted; those that are not listed are taken to be like the listed."""
    if evidence is None or not symbol.spikes:
        return 0
    refuted = len(evidence.refuted.get(symbol.dataset_symbol, ()))
    return math.ceil(refuted * (symbol.spike_count or 0) / len(symbol.spikes))


def refuted_spikes(symbol: SymbolProfile, evidence: SpikeEvidence | None) -> list[Spike]:
    """The listed spikes that witnesses were there for, and none saw."""
    positions = evidence.refuted.get(symbol.dataset_symbol, ()) if evidence else ()
    return [symbol.spikes[n] for n in positions]


def open_spikes(symbol: SymbolProfile, evidence: SpikeEvidence | None) -> list[Spike]:
    """The listed spikes that nobody was there for."""
    if evidence is None:
        return list(symbol.spikes)
    name = symbol.dataset_symbol
    told = {*evidence.confirmed.get(name, ()), *evidence.refuted.get(name, ())}
    return [spike for n, spike in enumerate(symbol.spikes) if n not in told]


def unconfirmed_spikes(symbol: SymbolProfile, evidence: SpikeEvidence | None) -> list[Spike]:
    """The listed spikes that nobody has confirmed, refuted or open."""
    confirmed = evidence.confirmed.get(symbol.dataset_symbol, ()) if evidence else ()
    return [spike for n, spike in enumerate(symbol.spikes) if n not in confirmed]
