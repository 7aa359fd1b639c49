"""The document of a day: which versions of its feeds count, and why. Only ``settle`` writes it.

One read and no thresholds: publishing, checks, reports, progress, schedules and commands take the decisions
of the run that last changed the day from here. A change of thresholds takes effect with the day's next run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, PlainSerializer

from backfill_assets.contracts import Contract, Contracts
from backfill_assets.feeds import Feed, pair_of
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Derived, Document
from backfill_assets.lake.evidence import Approval, Restatement, Retraction
from backfill_assets.lake.manifests import DecodedCandles, Dropped, Version, checked_feed
from backfill_assets.lake.store import Store
from backfill_assets.quality.book_minutes import BookMinutes
from backfill_assets.quality.findings import Finding
from backfill_assets.quality.measures import DayMeasures, load_measures
from backfill_assets.quality.scores import DayLimits, DayScores, judge_day
from backfill_assets.quality.verdict import Verdict
from backfill_assets.tardis.metadata import dataset_symbol

FeedName = Annotated[
    Feed,
    BeforeValidator(lambda value: Feed.parse(checked_feed(value)) if isinstance(value, str) else value),
    PlainSerializer(str, return_type=str),
]


def _of_former_layout(value: Any) -> Any:
    """Documents of earlier versions have a pair of multiplier and inverse."""
    if isinstance(value, list) and len(value) == 2 and not any(isinstance(item, dict) for item in value):
        return (Contract(*value),)
    return value


class HeldVersion(Document):
    """A stored version without its evidence, which is in the feed's manifest."""

    content: str
    rows: int
    bytes: int
    raw_bytes: int
    #: Empty in documents of an earlier version.
    raw_sha256: str = ""
    fetched_at: AwareDatetime
    generated: bool = False
    paced_seconds: float = 0.0
    candles: DecodedCandles | None = None

    @classmethod
    def of(cls, version: Version | None) -> HeldVersion | None:
        """The version without its evidence; None without a version."""
        if version is None:
            return None
        return cls(
            content=version.content,
            rows=version.rows,
            bytes=version.bytes,
            raw_bytes=version.source.raw_bytes,
            raw_sha256=version.source.raw_sha256,
            fetched_at=version.fetched_at,
            generated=version.source.generated,
            paced_seconds=version.source.paced_seconds,
            candles=version.candles,
        )


class Edges(Document):
    """The part of a feed's day that its neighbor days see.

    Attributes
    ----------
    opening_ids, closing_ids
        By data set symbol, the lowest and the highest id of each version that the lake has ever stored, in
        order. They do not depend on which version counts, so no verdict depends on another day's verdict.
        They only grow, so a neighbor never takes back the trust that it gave.
    busy_symbols
        For a group, the data set symbols with ``history.least_rows`` rows or more in one of these versions.
    is_final
        Whether a version counts.
    """

    opening_ids: dict[str, tuple[int, ...]] = {}
    closing_ids: dict[str, tuple[int, ...]] = {}
    busy_symbols: tuple[str, ...] = ()
    is_final: bool = False


class SymbolEvidence(Document):
    """Evidence of the accepted file of a feed on the minutes of one market.

    Attributes
    ----------
    lost, proven
        Time ranges of the day in microseconds, both ends included: where ids or the whole file are lost, and
        where ids prove that every trade is present.
    reaching
        Gaps in the ids that reach into a neighbor day, because files are split by arrival.
    unconfirmed
        Time and price of the spikes that no witness has confirmed.
    """

    lost: tuple[tuple[int, int], ...] = ()
    proven: tuple[tuple[int, int], ...] = ()
    reaching: tuple[tuple[int, int], ...] = ()
    unconfirmed: tuple[tuple[int, float], ...] = ()


class SettledFeed(Document):
    """One expected feed of a day.

    Attributes
    ----------
    symbols
        Pairs (venue's symbol, canonical symbol).
    accepted
        The version that is merged and published, if any.
    candidate
        The newest version, unless it is the accepted one.
    accepted_verdict, candidate_verdict
        The verdicts on these versions; for a feed without versions the second says why there is none.
    approval
        The approval by which the accepted version counts; null where its verdict decides.
    retraction
        The retraction of a stored version; null where no version is withdrawn.
    restatement
        The change from the accepted version to the candidate; without a candidate, from the version that
        counted before to the accepted one. Null without another version, or if the two were not compared.
    excess
        Why the candidate waits for an approval though its rows are good: it restates too much, or it was not
        compared; empty otherwise.
    voided
        The version that would count by an approval that a change of rules has voided; it can be approved
        again, even if a newer one is the candidate. Null where no approval is void.
    is_absent
        Whether the vendor said that it has no such file, and the lake has none.
    unreadable
        Why the feed's manifest cannot be read; the version that counted before still counts. Empty where it
        can be read.
    ids_are_order
        Whether every row of the accepted file has an integer id and a law says that ids give an order; they
        then break ties of time.
    ids_name_trades
        Whether rows of the accepted file have ids, and rows with one id and payload are one trade.
    may_repeat_trades
        Whether the accepted file has such repeated rows, or its ids were not compared.
    id_range
        The lowest and the highest integer id, for files of one symbol in which every row has one.
    traded_us
        The first and the last exchange time in the accepted file.
    is_sealed
        Whether the files of both neighboring days are final, so that nothing outside the day can change it.
    contracts
        By canonical symbol, the contracts in which the file's amounts are given, where they are not
        ``spot_contract``.
    evidence
        For feeds of trades, by canonical symbol.
    books
        For feeds of quotes and books, the states of minutes by canonical symbol.
    """

    feed: FeedName
    symbols: tuple[tuple[str, str], ...]
    accepted: HeldVersion | None = None
    candidate: HeldVersion | None = None
    accepted_verdict: Verdict | None = None
    candidate_verdict: Verdict | None = None
    approval: Approval | None = None
    retraction: Retraction | None = None
    restatement: Restatement | None = None
    excess: str = ""
    voided: HeldVersion | None = None
    is_absent: bool = False
    unreadable: str = ""
    ids_are_order: bool = False
    ids_name_trades: bool = False
    may_repeat_trades: bool = False
    id_range: tuple[int, int] | None = None
    traded_us: tuple[int, int] | None = None
    is_sealed: bool = False
    contracts: dict[str, Annotated[Contracts, BeforeValidator(_of_former_layout)]] = {}
    evidence: dict[str, SymbolEvidence] = {}
    books: dict[str, BookMinutes] = {}
    edges: Edges = Edges()

    @property
    def verdict(self) -> Verdict:
        """The verdict on the accepted version; without one, on the candidate or on the absence."""
        found = self.accepted_verdict or self.candidate_verdict
        if found is None:
            msg = f"{self.feed} was settled without a verdict"
            raise RuntimeError(msg)
        return found

    @property
    def dataset_symbols(self) -> frozenset[str]:
        """Its markets as the vendor names their files; for a group, the markets expected in it."""
        if not self.feed.is_grouped:
            return frozenset((self.feed.dataset_symbol,))
        return frozenset(dataset_symbol(own) for own, _ in self.symbols)

    @property
    def judged(self) -> HeldVersion | None:
        """The version that ``verdict`` is on."""
        return self.accepted or self.candidate

    @property
    def is_generated(self) -> bool:
        """Whether a file of the feed has generated data instead of a market's data."""
        return any(version is not None and version.generated for version in (self.accepted, self.candidate))

    @property
    def restatement_summary(self) -> str | None:
        """The restatement, and why it waits for an approval if it does; null without a restatement."""
        parts = [self.restatement.summary] if self.restatement else []
        return "; ".join([*parts, *([f"pending: {self.excess}"] if self.excess else [])]) or None


class SettledDay(Derived):
    """A day as settled by the run that last changed it.

    Attributes
    ----------
    inputs
        Hash of everything that it depends on: the day's documents, the neighbors' edges, baseline, rules.
    rules
        Hash of the rules and thresholds of the verdicts.
    baseline
        Version of the baseline.
    neighbours
        ``edges`` of the day before and of the day after, as seen when settling; empty for a day that was
        never settled.
    exchanges
        Every requested exchange, also one that listed none of its symbols.
    instruments
        Share of the expected symbols with exactly one instrument; null where no symbol is expected.
    awaited
        Why the day waits for exchanges, one sentence for each; without them the day is degraded.
    limits, notional
        The inputs of ``scores``: the thresholds of days, and the median daily notional of each feed.
    scores
        Without the consistency of candles, which are made later from the versions that count; ``Day`` adds
        it.
    findings
        Results of the checks of ``ticks``; without ``schema`` where the check has to read footers.
    """

    day: str
    inputs: str
    rules: str
    baseline: int
    neighbours: tuple[str, str]
    exchanges: tuple[str, ...]
    not_listed: tuple[str, ...]
    why_not_listed: dict[str, str] = {}
    dropped: tuple[Dropped, ...] = ()
    awaiting_export: tuple[str, ...]
    awaited: tuple[str, ...] = ()
    instruments: float | None
    limits: DayLimits
    notional: tuple[float, ...]
    scores: DayScores
    feeds: tuple[SettledFeed, ...]
    findings: dict[str, Finding] = {}

    @property
    def is_sealed(self) -> bool:
        """Whether every feed is sealed, so that nothing outside the day can change it."""
        return not self.awaiting_export and all(f.is_sealed for f in self.feeds)

    @property
    def sealed_feeds(self) -> frozenset[str]:
        """Names of the feeds that nothing outside the day can change."""
        return frozenset(str(f.feed) for f in self.feeds if f.is_sealed)

    @property
    def edges(self) -> str:
        """Hash of the part of the day that its neighbor days see."""
        shown = [f"{f.feed}:{f.edges.model_dump_json()}" for f in self.feeds]
        dropped = sorted(d.feed for d in self.dropped)
        text = f"{self.not_listed}\n{shown}{dropped or ''}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def versions(self) -> str:
        """Hash of the versions that count."""
        return versions_hash(self.feeds)

    def feed(self, feed: Feed) -> SettledFeed | None:
        """The feed, if the day expects it."""
        symbol = feed.dataset_symbol  # rejects most feeds, at a third of the cost of comparing whole feeds
        return next((f for f in self.feeds if f.feed.dataset_symbol == symbol and f.feed == feed), None)

    def left_out_of(self, found: SettledFeed) -> tuple[str, ...]:
        """Data set symbols of a group whose own files count, so that the group's rows of them do not count.

        A day has both if a symbol was first expected by itself. No other file removes a version that counts.
        """
        if not found.feed.is_grouped:
            return ()
        own = {
            f.feed.dataset_symbol
            for f in self.feeds
            if f.accepted is not None
            and f.accepted.rows
            and not f.feed.is_grouped
            and _kind(f) == _kind(found)
        }
        return tuple(sorted(own & found.dataset_symbols)) if own else ()

    def counted_symbols(self, found: SettledFeed) -> tuple[tuple[str, str], ...]:
        """The feed's pairs of the venue's and the canonical symbol, without those in ``left_out_of``."""
        left_out = self.left_out_of(found)
        return tuple(pair for pair in found.symbols if dataset_symbol(pair[0]) not in left_out)

    def is_final(self, feed: Feed, symbols: Iterable[tuple[str, str]]) -> bool:
        """Whether no file of the feed is still to come: a version counts, or none of its markets was listed.

        A file that the vendor answered with 404 may still come. So may the file of a feed that the day did
        not request, unless a person dropped it, or other files of the day that count have its markets.
        """
        if str(feed) in {d.feed for d in self.dropped}:
            return True
        found = self.feed(feed)
        if found is not None:
            return found.edges.is_final
        kind = (feed.exchange, feed.data_type)
        final: dict[str, bool] = {}
        for other in self.feeds:
            for _, name in other.symbols if _kind(other) == kind else ():
                final[name] = final.get(name, True) and other.edges.is_final
        names, not_listed = {name for _, name in symbols}, {*self.not_listed}
        return bool(names) and all(
            final.get(name)
            or not not_listed.isdisjoint("/".join((*kind, each)) for each in (name, pair_of(name)))
            for name in names
        )


def _kind(found: SettledFeed) -> tuple[str, str]:
    return found.feed.exchange, found.feed.data_type


def versions_hash(feeds: Iterable[SettledFeed]) -> str:
    """Hash of the versions of these feeds that count; that of an empty text if none counts."""
    accepted = [f"{f.feed}:{f.accepted.content}" for f in feeds if f.accepted is not None]
    return hashlib.sha256("\n".join(accepted).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Day:
    """A settled day with the measures of its candles."""

    settled: SettledDay
    #: None until the day's candles were made.
    measures: DayMeasures | None
    #: The day's scores, with the consistency of the candles.
    scores: DayScores

    @property
    def day(self) -> str:
        """``YYYY-MM-DD``."""
        return self.settled.day

    @property
    def feeds(self) -> tuple[SettledFeed, ...]:
        """The expected feeds, in order."""
        return self.settled.feeds

    @property
    def is_generated(self) -> bool:
        """Whether a file of the day has generated data instead of a market's data."""
        return any(feed.is_generated for feed in self.feeds)

    @property
    def is_sealed(self) -> bool:
        """Whether nothing outside the day can change it."""
        return self.settled.is_sealed

    def lacks_volumes(self, feed: SettledFeed) -> bool:
        """Whether volumes of the feed's candles are unknown, so that the feed has no consistency."""
        if self.measures is None or feed.accepted is None:
            return False
        return self.measures.lacks_volumes(feed.feed, feed.accepted.content)

    def accepted_feeds(self, data_type: str) -> list[tuple[SettledFeed, HeldVersion]]:
        """Feeds of the data type that count, with the version that counts, in order."""
        return [
            (f, f.accepted) for f in self.feeds if f.accepted is not None and f.feed.data_type == data_type
        ]


def load_settled(store: Store, day: str) -> SettledDay | None:
    """Return the day's document; None if the day was never settled."""
    return documents.load(store, paths.settled_day(day), SettledDay)


def is_lost(store: Store, day: str) -> bool:
    """Whether a day was settled but its document is missing or cannot be read."""
    found, damage = documents.look(store, paths.settled_day(day), SettledDay)
    if found is not None or damage:
        return bool(damage)
    made_after = (paths.measures(day), paths.day_summary(day))
    # Days that an earlier version of this package has judged have no such document.
    return any(map(store.exists, made_after)) and not store.exists(paths.accepted_versions(day))


def load_day(store: Store, day: str) -> Day | None:
    """Return the day with its final scores; None if it was never settled."""
    settled = load_settled(store, day)
    return None if settled is None else day_of(settled, load_measures(store, day))


def day_of(settled: SettledDay, measures: DayMeasures | None) -> Day:
    """Combine the two documents of a day."""
    consistencies = [
        measures.consistency(f.feed, f.accepted.content) if measures and f.accepted else None
        for f in settled.feeds
    ]
    uncompared = Day(settled, measures, settled.scores)
    if settled.feeds and not any(c is not None for c in consistencies):
        return uncompared
    scores = scores_of(
        settled.feeds,
        settled.limits,
        settled.notional,
        consistencies,
        awaited=settled.awaited,
        left_out=[uncompared.lacks_volumes(f) for f in settled.feeds],
    )
    return Day(settled, measures, scores)


def scores_of(
    feeds: Sequence[SettledFeed],
    limits: DayLimits,
    notional: Sequence[float],
    consistencies: Sequence[float | None] = (),
    *,
    awaited: Sequence[str] = (),
    left_out: Sequence[bool] = (),
) -> DayScores:
    """Compute the scores of a day with these feeds; see ``judge_day``."""
    return judge_day(
        [f.verdict for f in feeds],
        [f.accepted is not None for f in feeds],
        limits,
        consistencies=consistencies,
        notional=notional,
        awaited=awaited,
        left_out=left_out,
    )
