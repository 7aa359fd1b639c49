"""Evidence of an accepted file on the minutes of its markets: losses, proofs and unconfirmed prices.

Settling the day derives it from the profile, which it parses anyway; ``candles`` makes the states of the
minutes from it without reading profiles or rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backfill_assets.days import end_us, start_us
from backfill_assets.feeds import Feed
from backfill_assets.id_laws import law_of
from backfill_assets.quality.bucket_states import evidence_of
from backfill_assets.quality.completeness import evidence_class, legitimate_gap
from backfill_assets.quality.profiles import FeedProfile, SymbolProfile
from backfill_assets.quality.receipts import without_never_issued
from backfill_assets.quality.settled import SymbolEvidence
from backfill_assets.quality.spikes import unconfirmed_spikes
from backfill_assets.quality.verdict import Verdict, seams_in
from backfill_assets.quality.window import Range
from backfill_assets.settings import ThresholdSettings


def minute_evidence(
    feed: Feed,
    symbols: Iterable[str],
    day: str,
    profile: FeedProfile | None,
    verdict: Verdict | None,
    thresholds: ThresholdSettings,
) -> dict[str, SymbolEvidence]:
    """The evidence by canonical symbol.

    Parameters
    ----------
    profile, verdict
        Those of the accepted version; None where no version counts.
    """
    whole: Range = (start_us(day), end_us(day) - 1)
    if profile is not None and verdict is not None:
        profile = without_never_issued(profile, verdict.context.never_issued)
    by_symbol: dict[str | None, list[SymbolProfile]] = {}
    for counted in profile.symbols if profile else ():
        by_symbol.setdefault(counted.symbol, []).append(counted)
    found = {}
    for symbol in sorted(set(symbols)):
        if profile is None or verdict is None:
            found[symbol] = SymbolEvidence(lost=(whole,))
        elif profile.rows == 0:
            proven = (whole,) if verdict.completeness_state == "proven" else ()
            found[symbol] = SymbolEvidence(proven=proven)
        else:
            of_symbol = by_symbol.get(symbol, [])
            found[symbol] = _of_rows(feed, of_symbol, day, whole, profile, verdict, thresholds)
    return found


def _of_rows(
    feed: Feed,
    of_symbol: Sequence[SymbolProfile],
    day: str,
    whole: Range,
    profile: FeedProfile,
    verdict: Verdict,
    thresholds: ThresholdSettings,
) -> SymbolEvidence:
    spikes = verdict.context.spikes.get(verdict.content or "")
    unconfirmed = tuple(
        (spike.time_us, spike.price) for s in of_symbol for spike in unconfirmed_spikes(s, spikes)
    )
    law = law_of(thresholds.id_laws, feed, day)
    reaching: list[Range] = []
    for s in of_symbol:
        kind = evidence_class(law, s)
        gaps, _ = evidence_of(kind, s, whole, None, legitimate_gap(kind, thresholds, s))
        reaching += [gap for gap in gaps if gap[0] < whole[0] or gap[1] > whole[1]]
    if len(of_symbol) != 1:
        return SymbolEvidence(reaching=tuple(reaching), unconfirmed=unconfirmed)
    symbol = of_symbol[0]
    kind = evidence_class(law, symbol)
    lost, proven = evidence_of(
        kind,
        symbol,
        whole,
        seams_in(verdict.context, feed, day, profile, symbol, thresholds),
        legitimate_gap(kind, thresholds, symbol),
    )
    return SymbolEvidence(lost=lost, proven=proven, reaching=tuple(reaching), unconfirmed=unconfirmed)
