"""The verdict on a feed: a pure function of profile, context and thresholds.

A verdict is stored with its context and the hash of the rules, so that computing it again gives the same
verdict. Only this module decides which feeds count; ``scores`` derives the scores of the day from that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

from backfill_assets.feeds import Feed
from backfill_assets.id_laws import law_of
from backfill_assets.lake.documents import Document
from backfill_assets.lake.evidence import (
    BesideTrades,
    HealedRows,
    NeverIssued,
    PricesBesideTrades,
    SpikeEvidence,
)
from backfill_assets.quality.agreement import Agreement
from backfill_assets.quality.completeness import (
    Completeness,
    CompletenessState,
    by_estimate,
    completeness,
    evidence_class,
    id_class,
    judged_window,
    legitimate_gap,
    over_nothing,
)
from backfill_assets.quality.completeness_messages import (
    collapse_warnings,
    loss_reasons,
    loss_warnings,
    rows_without_ids,
)
from backfill_assets.quality.estimates import thinning_score, usual_share
from backfill_assets.quality.profiles import FeedProfile, SymbolProfile
from backfill_assets.quality.receipts import missing_ids, receipt_warnings, without_never_issued
from backfill_assets.quality.rules import Quality, quality
from backfill_assets.quality.seams import Seams, seams_of
from backfill_assets.quality.silences import JointSilence
from backfill_assets.quality.warnings import (
    NAMED,
    agreement_warnings,
    contract_warnings,
    joint_warnings,
    refuting_warnings,
    trades_warnings,
)
from backfill_assets.quality.window import Window, clipped
from backfill_assets.rule_set import RULES_VERSION as RULES_VERSION
from backfill_assets.rule_set import FeedRules
from backfill_assets.settings import ThresholdSettings

#: From the weakest evidence to the strongest; at equal scores the weakest counts.
_STATES: Final[tuple[CompletenessState, ...]] = (
    "missing", "no_evidence", "degraded", "estimated", "inner_proven", "head_proven", "proven",
)  # fmt: skip

Outcome = Literal["publish", "quarantine", "no_evidence", "missing"]


class Context(Document):
    """All inputs of a verdict besides the feed's own profile and the thresholds."""

    window_start_us: int
    window_end_us: int
    #: False where the instruments of the day do not know the symbol; the window is then the whole day.
    is_listed: bool = True
    #: For grouped files: windows of the symbols that were not listed all day.
    symbol_windows: dict[str, tuple[int, int]] = {}
    #: Known outages of the vendor's capture inside the window, in order of time.
    outages: tuple[tuple[int, int], ...] = ()
    #: Median rows of published days of the same weekday; null without enough of them.
    usual_rows: float | None = None
    #: The longest silence on published days of the weeks before; null without enough of them.
    known_silence_us: int | None = None
    #: By data set symbol, last ids of the files of the day before and first ids of those of the day after.
    previous: dict[str, tuple[int, ...]] = {}
    following: dict[str, tuple[int, ...]] = {}
    #: Data set symbols of a group that were listed all day and have many rows on a neighbor day.
    busy_around: tuple[str, ...] = ()
    #: By content of the feed's versions: other places of the same file, and the evidence on its spikes.
    duplicates: dict[str, tuple[str, ...]] = {}
    spikes: dict[str, SpikeEvidence] = {}
    #: By content of the feed's versions, how the market's other feeds of books compare.
    agreements: dict[str, tuple[Agreement, ...]] = {}
    #: By content of the feed's versions, how their prices compare with the market's trades.
    beside_trades: dict[str, BesideTrades] = {}
    #: For feeds of trades, prices of the market's tickers and liquidations that are far from all their
    #: versions.
    refuted_by: tuple[tuple[str, PricesBesideTrades], ...] = ()
    #: By data set symbol, ids that the venue itself does not have, as receipts show.
    never_issued: dict[str, tuple[NeverIssued, ...]] = {}
    #: By content of the feed's versions, the rows that do not come from the vendor's file.
    healed: dict[str, HealedRows] = {}
    joint_silences: tuple[JointSilence, ...] = ()
    #: Whether busy feeds of the venue show that its capture never stopped on the day.
    venue_is_live: bool = False
    #: Canonical symbols of trades for which the size of one contract is unknown.
    unknown_contracts: tuple[str, ...] = ()
    #: Why the version does not count though its rows are good: it was retracted, or it restates too much.
    held_back: tuple[str, ...] = ()
    #: The void approval of the feed, and the command that gives it again; empty where none is void.
    void_approval: str = ""

    @property
    def window(self) -> Window:
        """The feed's window."""
        return Window(self.window_start_us, self.window_end_us, self.outages, self.is_listed)

    def window_of(self, symbol: SymbolProfile, *, grouped: bool) -> Window:
        """The symbol's window."""
        start, end = self.symbol_windows.get(
            symbol.dataset_symbol, (self.window_start_us, self.window_end_us)
        )
        is_listed = symbol.symbol is not None if grouped else self.is_listed
        return Window(start, end, clipped(self.outages, start, end), is_listed)


class Verdict(Document):
    """The judgment of one feed's version on one day."""

    feed: str
    day: str
    #: sha256 of the judged file; null when the feed is missing.
    content: str | None
    rules: str
    outcome: Outcome
    completeness: float | None
    completeness_state: str
    evidence_class: str | None
    quality: float | None
    rows: int
    valid_rows: int
    #: Rows that repeat an id of the file with the same payload; each trade counts once in candles.
    repeated_rows: int = 0
    #: Ids inside the file's range that no row has and that the venue never issued; not in ``missing_ids``.
    never_issued_ids: int = 0
    #: Rows that come from a second source.
    healed_rows: int = 0
    missing_ids: int | None
    longest_gap: int | None
    #: The longest time without a row, for a market that trades too seldom to be judged by silences.
    longest_silence_us: int | None = None
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    #: The law of the venue's ids on the day, and its support; empty where none is known.
    id_law: str = ""
    context: Context


def rules_hash(thresholds: ThresholdSettings) -> str:
    """Twelve hex digits that change with any threshold and with the meaning of any rule."""
    text = f"{RULES_VERSION}:{thresholds.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def approval_rules(feed: Feed, day: str, thresholds: ThresholdSettings) -> str:
    """Twelve hex digits of the rules that judge the feed on the day, to which an approval binds.

    They do not cover the thresholds of days, laws of other feeds, or the words of a law. The package's own
    defaults are left out, too: a version of the package with more or other defaults voids no approval.
    """
    judging = {*FeedRules.model_fields} - {"notional_weight", "notional_days"}
    own = thresholds.model_dump(mode="json", include=judging, exclude_defaults=True)
    law = law_of(thresholds.id_laws, feed, day)
    text = json.dumps([own, law.law if law else ""], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def missing_verdict(feed: Feed, day: str, reason: str, context: Context, rules: str) -> Verdict:
    """The verdict on a feed that has no file: completeness 0."""
    return Verdict(
        feed=str(feed),
        day=day,
        content=None,
        rules=rules,
        outcome="missing",
        completeness=0.0,
        completeness_state="missing",
        evidence_class=None,
        quality=None,
        rows=0,
        valid_rows=0,
        missing_ids=None,
        longest_gap=None,
        reasons=(reason,),
        warnings=(),
        context=context,
    )


def judge_feed(
    feed: Feed,
    day: str,
    content: str,
    profile: FeedProfile,
    context: Context,
    thresholds: ThresholdSettings,
    rules: str = "",
) -> Verdict:
    """Judge one version of one feed; a grouped file is as complete as its worst symbol with rows.

    ``rules`` is the hash of the thresholds, if the caller has it.
    """
    law = law_of(thresholds.id_laws, feed, day)
    spikes = context.spikes.get(content)
    healed = context.healed.get(content)
    whole_profile, profile = profile, without_never_issued(profile, context.never_issued)
    beside = context.beside_trades.get(content)
    sound = quality(profile, thresholds.rows, grouped=feed.is_grouped, spikes=spikes, law=law, beside=beside)
    repeated = profile.repeated_rows(law)
    share = usual_share(profile.rows - repeated, context.usual_rows, context.window)
    thinning = thinning_score(share, thresholds)
    per_symbol = _per_symbol(feed, day, profile, context, thresholds, thinning)
    whole = min(per_symbol, key=_strength)
    duplicates = context.duplicates.get(content, ())
    same = (f"the same file as {' and '.join(duplicates)}",) if duplicates else ()
    reasons = (
        *same,
        *sound.violations,
        *rows_without_ids(law, _own_symbols(feed, profile), grouped=feed.is_grouped),
        *loss_reasons(per_symbol, context.outages, thresholds),
        *_part_of_a_day(feed, profile, per_symbol, context, thresholds),
        *_quality_reasons(sound),
        *context.held_back,
    )
    outcome: Outcome = (
        "quarantine" if reasons else "publish" if profile.rows or whole.score else "no_evidence"
    )
    if outcome == "no_evidence":
        reasons = ("the file is empty and no ids of the neighbours show that the day was",)
    missing = [c.missing_ids for c in per_symbol if c.missing_ids is not None]
    longest = [c.longest_gap for c in per_symbol if c.longest_gap is not None]
    return Verdict(
        feed=str(feed),
        day=day,
        content=content,
        rules=rules or rules_hash(thresholds),
        outcome=outcome,
        completeness=whole.score,
        completeness_state=whole.state,
        evidence_class=whole.evidence_class,
        quality=sound.score,
        rows=profile.rows,
        valid_rows=sum(s.valid_rows for s in profile.symbols) if profile.symbols else profile.rows,
        repeated_rows=repeated,
        never_issued_ids=missing_ids(whole_profile) - missing_ids(profile),
        healed_rows=healed.rows if healed else 0,
        missing_ids=sum(missing) if missing else None,
        longest_gap=max(longest) if longest else None,
        longest_silence_us=whole.longest_silence_us,
        reasons=reasons,
        warnings=(
            *sound.warnings,
            *receipt_warnings(whole_profile, context.never_issued, healed),
            *contract_warnings(context.unknown_contracts, profile, grouped=feed.is_grouped),
            *joint_warnings(context.joint_silences),
            *agreement_warnings(
                context.agreements.get(content, ()), thresholds.rows, grouped=feed.is_grouped
            ),
            *trades_warnings(beside, thresholds.rows, grouped=feed.is_grouped),
            *refuting_warnings(context.refuted_by, thresholds.rows, grouped=feed.is_grouped),
            *loss_warnings(per_symbol, context.outages, thresholds),
            *_lost_symbols(feed, day, profile, context, thresholds),
            *collapse_warnings(profile.rows, context.usual_rows, context.window, share, thresholds),
            *((context.void_approval,) if context.void_approval else ()),
        ),
        id_law=law.statement if law else "",
        context=context,
    )


def _per_symbol(
    feed: Feed,
    day: str,
    profile: FeedProfile,
    context: Context,
    thresholds: ThresholdSettings,
    thinning: float | None,
) -> list[Completeness]:
    """Completeness of every symbol of the file."""
    law = law_of(thresholds.id_laws, feed, day)
    if profile.rows == 0:
        if feed.is_grouped:
            return [Completeness(score=None, evidence_class=None, state="no_evidence")]
        ids = (next(iter(known.values()), ()) for known in (context.previous, context.following))
        return [over_nothing(law, *ids)]
    if not profile.symbols:
        edges = (profile.first_local_timestamp_us or 0, profile.last_local_timestamp_us or 0)
        is_few = thinning is None and profile.rows < thresholds.history.least_rows
        longest = profile.longest_silence
        return [
            by_estimate(
                profile.rows,
                (longest,) if longest is not None and is_few else (),
                context.window,
                thresholds,
                edges,
                thinning,
                is_live=context.venue_is_live,
                known_silence_us=context.known_silence_us,
            )
        ]
    # Busy symbols of the same file also show that the capture ran.
    is_live = context.venue_is_live or profile.rows >= thresholds.rows.joint_silence_rows
    found = []
    for symbol in _own_symbols(feed, profile):
        window = context.window_of(symbol, grouped=feed.is_grouped)
        edges = arrival_edges(profile, symbol, grouped=feed.is_grouped)
        one = completeness(
            law,
            symbol,
            window,
            seams_in(context, feed, day, profile, symbol, thresholds),
            thresholds,
            edges,
            thinning,
            is_live=is_live,
            known_silence_us=context.known_silence_us,
        )
        if feed.is_grouped:
            length_us = judged_window(window, edges).length_us
            one = replace(one, dataset_symbol=symbol.dataset_symbol, window_us=length_us)
        found.append(one)
    return found


def _own_symbols(feed: Feed, profile: FeedProfile) -> Sequence[SymbolProfile]:
    """The feed's own symbols; rows of another symbol quarantine its file and say nothing about its own."""
    own = [symbol for symbol in profile.symbols if symbol.symbol is not None]
    return own if own and not feed.is_grouped else profile.symbols


def seams_in(
    context: Context,
    feed: Feed,
    day: str,
    profile: FeedProfile,
    symbol: SymbolProfile,
    thresholds: ThresholdSettings,
) -> Seams:
    """The midnights of a symbol of the file, in the context of its verdict."""
    edges = arrival_edges(profile, symbol, grouped=feed.is_grouped)
    return seams_of(
        symbol,
        judged_window(context.window_of(symbol, grouped=feed.is_grouped), edges),
        edges,
        context.previous.get(symbol.dataset_symbol, ()),
        context.following.get(symbol.dataset_symbol, ()),
        legitimate_gap(evidence_class(law_of(thresholds.id_laws, feed, day), symbol), thresholds, symbol),
        thresholds,
    )


def _lost_symbols(
    feed: Feed, day: str, profile: FeedProfile, context: Context, thresholds: ThresholdSettings
) -> list[str]:
    """Warn of symbols without a row in a grouped file that must have traded, by ids or by a neighbor day."""
    here = {symbol.dataset_symbol for symbol in profile.symbols}
    kind = id_class(law_of(thresholds.id_laws, feed, day))
    allowed = legitimate_gap(kind, thresholds)
    if not feed.is_grouped:
        return []
    lost = {
        name: min(after - before - 1 for before in context.previous[name] for after in ids)
        for name, ids in sorted(context.following.items())
        if kind != "C" and name in context.previous and name not in here
    }
    busy = [name for name in context.busy_around if name not in here and name not in lost]
    rows = thresholds.history.least_rows
    return [
        *(
            f"no row of {name}, and {ids} ids are missing between the days around it"
            for name, ids in lost.items()
            if ids > allowed
        ),
        *(f"no row of {name}, of which a day beside has {rows} rows or more" for name in busy[:NAMED]),
        *([f"no row of {len(busy) - NAMED} more such symbols"] if len(busy) > NAMED else []),
    ]


def _strength(found: Completeness) -> tuple[bool, float, int]:
    """Sort key of the completeness of symbols: by score, and at equal scores by its evidence."""
    return (found.score is not None, found.score or 0.0, _STATES.index(found.state))


def arrival_edges(profile: FeedProfile, symbol: SymbolProfile, *, grouped: bool) -> tuple[int, int]:
    """Time of the symbol's first and last row; for a grouped file only the exchange's time is known."""
    if grouped:
        return (symbol.first_trade_us or 0, symbol.last_trade_us or 0)
    return (profile.first_local_timestamp_us or 0, profile.last_local_timestamp_us or 0)


def _part_of_a_day(
    feed: Feed,
    profile: FeedProfile,
    per_symbol: Sequence[Completeness],
    context: Context,
    thresholds: ThresholdSettings,
) -> list[str]:
    """Give a reason if the file covers too little of the day, as its best symbol shows.

    A truncated file has no symbol beyond the cut. A symbol that was listed for a part of the day shows no
    more than that part. Trades of a quiet market come in bursts: where other feeds show that the capture was
    live, a burst is no sign of a truncated file. Usual rows are left out: they change with other days, and
    must not take back a published day.
    """
    is_quiet = feed.type.has_fills and profile.rows < thresholds.rows.joint_silence_rows
    may_be_burst = context.venue_is_live and is_quiet
    shown = [
        (c.own_score, c.window_us)
        for c in per_symbol
        if c.own_score is not None and not (may_be_burst and c.evidence_class == "C")
    ]
    limit, longest_us = thresholds.publish_completeness, max((us for _, us in shown), default=0)
    best = max((score * us / longest_us if longest_us else score for score, us in shown), default=1.0)
    return [f"only {best:.1%} of the day is there (publish_completeness {limit:g})"] if best < limit else []


def _quality_reasons(sound: Quality) -> list[str]:
    if sound.score is None or sound.score > 0 or sound.worst is None:
        return []
    return [f"quality is 0: {sound.counts[sound.worst]} {sound.unit} break {sound.worst}"]
