"""Messages about a feed's losses: those that quarantine it, and those that only warn.

``completeness`` makes the numbers; the settings have the limits. A known outage is named beside the losses in
it: it explains a loss and does not undo it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backfill_assets.days import MICROSECONDS_PER_SECOND
from backfill_assets.id_laws import IdLaw
from backfill_assets.quality.completeness import Completeness
from backfill_assets.quality.profiles import SymbolProfile
from backfill_assets.quality.seams import Seams
from backfill_assets.quality.window import Range, Window, shown
from backfill_assets.settings import ThresholdSettings


def loss_reasons(
    per_symbol: Sequence[Completeness], outages: Sequence[Range], thresholds: ThresholdSettings
) -> list[str]:
    """One sentence per symbol and exceeded limit; any of them quarantines the feed."""
    return [f"{_of(c)}{reason}" for c in per_symbol for reason in _loss_reasons(c, outages, thresholds)]


def _loss_reasons(
    found: Completeness, outages: Sequence[Range], thresholds: ThresholdSettings
) -> Iterator[str]:
    missing, longest = found.missing_ids or 0, found.longest_gap or 0
    allowed = _allowed(found, thresholds)
    beside = f", {found.outage_ids} of them by the {_named(outages)}" if found.outage_ids else ""
    if missing > allowed:
        yield f"{missing} ids are missing (at most {allowed:.0f} are excused){beside}"
    elif longest > thresholds.longest_hole:
        yield f"{longest} ids in a row are missing (at most {thresholds.longest_hole}){beside}"
    elif found.lossy_us > thresholds.lossy_seconds * MICROSECONDS_PER_SECOND:
        limit = f"at most {thresholds.lossy_seconds:g}"
        yield f"{_seconds(found.lossy_us)} s lie in gaps of the ids ({limit}){beside}"
    silent = [
        f"{_seconds(silence)} s {where}"
        for silence, where in zip(_edges(found), ("after midnight", "before midnight"), strict=True)
        if silence > thresholds.lossy_seconds * MICROSECONDS_PER_SECOND
    ]
    if silent:
        yield (
            f"it is silent for longer than usual: {' and '.join(silent)} count as lost until the ids "
            "of the neighboring day's file join"
        )


def rows_without_ids(law: IdLaw | None, symbols: Sequence[SymbolProfile], *, grouped: bool) -> Iterator[str]:
    """One sentence per symbol whose ids break a law of contiguous ids; a file without any id breaks none."""
    if law is None or law.evidence_class == "C" or not any(s.numeric_ids for s in symbols):
        return
    for symbol in symbols:
        without = symbol.rows - symbol.numeric_ids
        if without:
            of = f"{symbol.dataset_symbol}: " if grouped else ""
            have = "has" if without == 1 else "have"
            yield (
                f"{of}{without:,} of {symbol.rows:,} rows {have} no integer id, though {law.promise}: "
                "missing trades cannot be counted"
            )


def _edges(found: Completeness) -> tuple[int, int]:
    return found.seams.lost_us if found.seams else (0, 0)


def loss_warnings(
    per_symbol: Sequence[Completeness], outages: Sequence[Range], thresholds: ThresholdSettings
) -> list[str]:
    """Warnings on a feed's completeness, whether or not it is quarantined."""
    warnings = []
    unknown = sum(c.uncalibrated and c.score is None for c in per_symbol)
    if unknown:
        which = f"{unknown} of its symbols" if len(per_symbol) > 1 else "the market"
        warnings.append(
            f"nothing tells whether rows are missing: {which} trades too seldom to be judged by silences, "
            "and there is neither a history nor a busy feed of the venue"
        )
    elif any(c.uncalibrated for c in per_symbol):
        warnings.append(
            "uncalibrated: judged by silences, without the history that would show thinned-out data"
        )
    warnings += [
        f"{_seconds(c.silence_us)} s of silence beyond {thresholds.edge_factor:g} times the longest that its "
        "history knows"
        for c in per_symbol
        if c.silence_us and c.longest_silence_us is not None
    ]
    silence_us = sum(c.silence_us for c in per_symbol if c.longest_silence_us is None)
    if silence_us:
        excused = f"{thresholds.silence_seconds:g} s or {thresholds.silence_factor:g} usual silences"
        warnings.append(f"{_seconds(silence_us)} s of silence beyond {excused}")
    within_limits = [c for c in per_symbol if not loss_reasons([c], outages, thresholds)]
    explained = sum(c.outage_ids for c in within_limits)
    if explained:
        warnings.append(f"{explained} ids are missing by the {_named(outages)}")
    left_out_us = max((c.outage_silence_us for c in per_symbol), default=0)
    if left_out_us:
        warnings.append(f"{_seconds(left_out_us)} s of silence in the {_named(outages)} do not count")
    for found in per_symbol:
        midnights = _open_midnights(found.seams) if found.seams else ()
        warnings += [f"{_of(found)}{sentence}" for sentence in midnights]
    return warnings


def _open_midnights(seams: Seams) -> Iterator[str]:
    """Sentences on midnights where ids start over, or that the ids of known neighbors do not prove."""
    first, next_first = seams.anew
    if first is not None:
        yield f"ids start over at {first} after the day before: the day is judged by its own ids"
    if next_first is not None:
        yield f"ids start over at {next_first} on the day after: midnight is not proven"
    sides = zip(seams.between, seams.joins, seams.anew, ("before", "after"), strict=True)
    for between, joins, anew, side in sides:
        if between is None or joins or (anew is not None and between <= 0):
            continue
        if between > 0:
            yield f"{between} ids lie between its ids and those of the day {side}: midnight is not proven"
        else:
            yield (
                f"its ids and those of the day {side} overlap by {-between}: midnight is not proven, "
                "and a trade that is in both files counts once"
            )


def collapse_warnings(
    rows: int, usual_rows: float | None, window: Window, share: float | None, thresholds: ThresholdSettings
) -> list[str]:
    """Warn where the file has far fewer rows than published days of the same weekday."""
    if share is None or usual_rows is None or share >= thresholds.history.share:
        return []
    out = f" with {_named(window.outages)}" if window.outages else ""
    return [
        f"volume collapse: {rows} rows{out}, where {usual_rows:.0f} are usual on this weekday ({share:.0%})"
    ]


def _of(found: Completeness) -> str:
    """Prefix that names the symbol of a grouped file."""
    return f"{found.dataset_symbol}: " if found.dataset_symbol else ""


def _allowed(found: Completeness, thresholds: ThresholdSettings) -> float:
    return max(thresholds.missing_ids, thresholds.missing_ids_rate * (found.span or 0))


def _named(outages: Sequence[Range]) -> str:
    plural = "s" if len(outages) > 1 else ""
    return f"known outage{plural} {shown(outages)}"


def _seconds(microseconds: int) -> str:
    return f"{microseconds / MICROSECONDS_PER_SECOND:.0f}"
