"""Reads and counts the stored answers on spikes: whether other sources saw the same prices.

A spike is *confirmed* when a witness saw that price at that time (quotes of the market, the exchange's own
candles, another venue's trades of the pair), *refuted* when witnesses had data for that time and none saw it,
and otherwise open. ``witnesses`` asks them and stores the answers in the feed's manifest, one per version.
Here the answers are read, so that judging opens no file of rows.
"""

from __future__ import annotations

import hashlib
import json
import math

from backfill_assets.lake.evidence import SpikeEvidence
from backfill_assets.lake.manifests import FeedManifest, Version
from backfill_assets.quality.profiles import Spike, SymbolProfile


def spikes_key(version: Version) -> str | None:
    """Key of the spikes that a version's profile lists; None if it lists none or is damaged."""
    try:
        listed = {s["dataset_symbol"]: s["spikes"] for s in version.profile["symbols"] if s.get("spikes")}
    except (KeyError, TypeError, AttributeError):
        return None
    if not listed:
        return None
    text = json.dumps(listed, sort_keys=True)
    return f"{version.content}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def spike_evidence(manifest: FeedManifest) -> dict[str, SpikeEvidence]:
    """Evidence by content, for the versions of the feed that have spikes."""
    keys = {v.content: key for v in manifest.versions if (key := spikes_key(v)) is not None}
    return {content: manifest.spikes[key] for content, key in keys.items() if key in manifest.spikes}


def refuted_rows(symbol: SymbolProfile, evidence: SpikeEvidence | None) -> int:
    """How many spikes of a symbol are refuted; unlisted spikes are assumed to be like the listed ones."""
    if evidence is None or not symbol.spikes:
        return 0
    refuted = len(evidence.refuted.get(symbol.dataset_symbol, ()))
    return math.ceil(refuted * (symbol.spike_count or 0) / len(symbol.spikes))


def refuted_spikes(symbol: SymbolProfile, evidence: SpikeEvidence | None) -> list[Spike]:
    """The listed spikes that witnesses refuted."""
    positions = evidence.refuted.get(symbol.dataset_symbol, ()) if evidence else ()
    return [symbol.spikes[n] for n in positions]


def open_spikes(symbol: SymbolProfile, evidence: SpikeEvidence | None) -> list[Spike]:
    """The listed spikes for which no witness had data."""
    if evidence is None:
        return list(symbol.spikes)
    name = symbol.dataset_symbol
    told = {*evidence.confirmed.get(name, ()), *evidence.refuted.get(name, ())}
    return [spike for n, spike in enumerate(symbol.spikes) if n not in told]


def unconfirmed_spikes(symbol: SymbolProfile, evidence: SpikeEvidence | None) -> list[Spike]:
    """The listed spikes that no witness has confirmed: those refuted and those open."""
    confirmed = evidence.confirmed.get(symbol.dataset_symbol, ()) if evidence else ()
    return [spike for n, spike in enumerate(symbol.spikes) if n not in confirmed]
