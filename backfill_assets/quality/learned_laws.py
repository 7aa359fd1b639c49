"""Candidate laws of ids, inferred from the published days of a lake; a person decides whether to adopt them.

A law is a candidate for a venue when at least ``LEAST_SYMBOLS`` symbols kept it on ``LEAST_DAYS`` days each
and no row of any file broke it: one counter-example refutes a law. The laws tried are ``contiguous``,
``contiguous_with_holes``, ``unique`` and ``hash``, the strongest first. Profiles do not say whether ids rise
with time, so no law of order alone is inferred.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from backfill_assets.days import shift
from backfill_assets.failures import Unreadable
from backfill_assets.id_laws import IdLaw, LawKind
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import load_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.completeness import legitimate_gap
from backfill_assets.quality.profiles import SymbolProfile, stored_profile
from backfill_assets.quality.settled import SettledDay
from backfill_assets.settings import ThresholdSettings

#: Four weeks have each weekday equally often; five symbols, because a promise is the venue's, not a market's.
LEAST_DAYS: Final = 28
LEAST_SYMBOLS: Final = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """One symbol on one published day."""

    exchange: str
    data_type: str
    day: str
    profile: SymbolProfile

    @property
    def name(self) -> str:
        """The symbol and the day, for messages."""
        return f"{self.profile.dataset_symbol} {self.day}"


@dataclass(frozen=True, slots=True)
class Learned:
    """The result for one venue: a candidate or None, and why each stronger law is refuted."""

    exchange: str
    data_type: str
    law: IdLaw | None
    refuted: tuple[str, ...]

    @property
    def text(self) -> str:
        """The law as in a file of laws, below the reasons as comments."""
        lines = [f"# {self.exchange} {self.data_type}: {reason}" for reason in self.refuted]
        if self.law is not None:
            entry = [self.law.model_dump(exclude_none=True)]
            lines.append(yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, width=1000).rstrip())
        return "\n".join(lines)


def published_profiles(store: Store, days: Iterable[str], left_out: list[str]) -> Iterator[Seen]:
    """The symbols with rows of every accepted file of trades.

    Documents that cannot be read are left out; each adds a line to ``left_out``.
    """
    for day in days:
        settled, damage = documents.look(store, paths.settled_day(day), SettledDay)
        if damage:
            left_out.append(f"{day} is left out: {damage}")
        for found in settled.feeds if settled else ():
            if found.accepted is None or not found.feed.type.has_trades:
                continue
            try:
                manifest = load_manifest(store, found.feed, day)
                version = manifest.version(found.accepted.content)
                symbols = stored_profile(store, manifest, version).symbols if version else ()
            except Unreadable as failure:
                left_out.append(f"{found.feed} of {day} is left out: {failure}")
                continue
            for symbol in symbols:
                yield Seen(found.feed.exchange, found.feed.data_type, day, symbol)


def learn(seen: Iterable[Seen], thresholds: ThresholdSettings) -> list[Learned]:
    """Infer a candidate for each venue, in the order of their names."""
    venues: dict[tuple[str, str], list[Seen]] = {}
    for one in seen:
        venues.setdefault((one.exchange, one.data_type), []).append(one)
    return [_of_venue(*venue, found, thresholds) for venue, found in sorted(venues.items())]


def _of_venue(exchange: str, data_type: str, seen: Sequence[Seen], thresholds: ThresholdSettings) -> Learned:
    by_symbol: dict[str, dict[str, Seen]] = {}
    for one in seen:
        by_symbol.setdefault(one.profile.dataset_symbol, {})[one.day] = one
    whole = [days for days in by_symbol.values() if len(days) >= LEAST_DAYS]
    if len(whole) < LEAST_SYMBOLS:
        reason = (
            f"nothing is inferred: {len(whole)} symbols were published on {LEAST_DAYS} days, "
            f"and {LEAST_SYMBOLS} are needed"
        )
        return Learned(exchange, data_type, None, (reason,))
    refuted: list[str] = []
    kinds: tuple[LawKind, ...] = ("contiguous", "contiguous_with_holes", "unique", "hash")
    for kind in kinds:
        reason = next((told for days in by_symbol.values() for told in _broken(kind, days, thresholds)), "")
        if not reason:
            return Learned(exchange, data_type, _law(exchange, data_type, kind, seen), tuple(refuted))
        refuted.append(f"not {kind}: {reason}")
    return Learned(exchange, data_type, None, tuple(refuted))


def _law(exchange: str, data_type: str, kind: LawKind, seen: Sequence[Seen]) -> IdLaw:
    days = sorted({one.day for one in seen})
    symbols = len({one.profile.dataset_symbol for one in seen})
    rows = sum(one.profile.rows for one in seen)
    return IdLaw(
        exchange=exchange,
        data_type=data_type,
        law=kind,
        first_day=days[0],
        support=f"measured on {len(days)} published days of {symbols} symbols to {days[-1]}, {rows} rows",
        source="the lake",
    )


def _broken(kind: LawKind, days: dict[str, Seen], thresholds: ThresholdSettings) -> Iterator[str]:
    """Counter-examples of one symbol."""
    for day, one in sorted(days.items()):
        found = one.profile
        if kind in ("unique", "hash"):
            if found.empty_ids:
                yield f"{one.name}: {found.empty_ids} rows have no id"
            if found.uncounted_ids:
                yield f"{one.name}: {found.uncounted_ids} ids were too many to be compared"
            if found.duplicate_rows:
                what = "rows repeat an id with the same payload: they were sent again, or ids are not unique"
                yield f"{one.name}: {found.duplicate_rows} {what}"
            if kind == "unique" and found.conflicting_rows:
                yield f"{one.name}: {found.conflicting_rows} rows share an id with another payload"
            continue
        allowed = thresholds.legitimate_hole if kind == "contiguous_with_holes" else 0
        if found.numeric_ids != found.rows or found.missing_ids is None:
            yield f"{one.name}: not every id is an integer, or they are scattered"
        elif (found.longest_gap or 0) > allowed:
            yield f"{one.name}: {found.longest_gap} ids in a row are missing"
        elif allowed and not legitimate_gap("B", thresholds, found):
            most = f"more than {thresholds.legitimate_share:.0%} of its ids"
            yield f"{one.name}: {found.missing_ids} ids are missing in short runs, {most}"
        elif found.conflicting_rows:
            yield f"{one.name}: {found.conflicting_rows} rows share an id with another payload"
        before = days.get(shift(day, -1))
        between = _between(before.profile, found) if before else 0
        if between > allowed:
            yield f"{one.name}: {between} ids lie between its first and the last of the day before"
        elif between < -thresholds.repeated_ids:
            yield f"{one.name}: {-between} of its ids are the day before's, too"


def _between(before: SymbolProfile, found: SymbolProfile) -> int:
    """Ids missing over midnight; negative where both days have the same, 0 where ids start over."""
    first = found.earlier_ids[0] if found.earlier_ids else found.id_min
    if first is None or before.id_max is None or 2 * first < before.id_max:
        return 0
    return first - before.id_max - 1


def law_lines(laws: Sequence[IdLaw]) -> list[str]:
    """The laws for people to read, one line each."""
    return [f"{law.exchange}  {law.data_type}  {law.law}: {law.statement}" for law in laws]
