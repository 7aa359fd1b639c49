"""Approving and retracting: which version counts afterwards, for how long, in every order of days."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backfill_assets.days import shift, utc_now
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.id_laws import ID_LAWS, IdLaw
from backfill_assets.lake.evidence import Approval, Retraction
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import FeedManifest, load_manifest, update_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.decisions import approve, retract
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.schemas import quality_rows
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import SettledFeed, load_day
from backfill_assets.quality.verdict import approval_rules, rules_hash
from backfill_assets.settings import ThresholdSettings
from backfill_assets_tests.quality.quality_samples import DAY, FEED, SECOND, THRESHOLDS, empty_profile, gaps
from backfill_assets_tests.quality.settled_lake import (
    NOW,
    approve_pending,
    bring,
    compare,
    contents,
    everything,
    expect,
    fetch,
    held,
    ids,
    retract_accepted,
    version,
)

BEFORE, AFTER = shift(DAY, -1), shift(DAY, 1)
HOUR = 3600 * SECOND
ETH = Feed("binance", "trades", "ETHUSDT")
GOOD = ids(DAY, 1, 9000)
BETTER = ids(DAY, 1, 9100)
BAD = ids(DAY, 1, 9000, **gaps((100, 110)))
STRICTER = ThresholdSettings(missing_ids=9)
TOO_MUCH: dict[str, Any] = {"rows_after": 5, "rows_before": 9000}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


def run(
    store: Store, found: FeedProfile, day: str = DAY, feed: Feed = FEED, **difference: Any
) -> SettledFeed:
    """Do the work of a run of the day with this file: fetch, compare, settle."""
    if store.read(f"days/{day}.json") is None:
        expect(store, day, feed)
    fetch(store, day, found, feed)
    compare(store, day, feed, **difference)
    settled = settle(store, day, THRESHOLDS).feed(feed)
    assert settled is not None
    return settled


def settled(store: Store, thresholds: ThresholdSettings = THRESHOLDS) -> SettledFeed:
    """The day's one feed as a run under these thresholds settles it."""
    return settle(store, DAY, thresholds).feeds[0]


def quality_row(store: Store) -> dict[str, Any]:
    """The row of the quality table of the day's one feed."""
    found = load_day(store, DAY)
    assert found is not None
    (row,) = quality_rows(found).to_pylist()
    return row


def laws(*changes: tuple[str, str, dict[str, str] | None]) -> tuple[IdLaw, ...]:
    """The package's laws, with those of an exchange and data type changed or (None) left out."""
    found = {(law.exchange, law.data_type): law for law in ID_LAWS}
    for exchange, data_type, update in changes:
        law = found.pop((exchange, data_type))
        if update is not None:
            found[exchange, data_type] = law.model_copy(update=update)
    return tuple(found.values())


def void(feed: SettledFeed) -> list[str]:
    """Warnings of the feed about an approval that is no longer valid."""
    return [warning for warning in feed.verdict.warnings if "approval" in warning]


class TestApprove:
    @pytest.mark.parametrize(
        ("found", "outcome"), [(BAD, "quarantine"), (empty_profile(), "no_evidence")], ids=["bad", "empty"]
    )
    def test_a_version_counts_whatever_its_verdict(
        self, found: FeedProfile, outcome: str, store: Store
    ) -> None:
        assert run(store, found).accepted is None
        (decided,) = approve_pending(store, DAY, None, "  seen with\n the exchange ", THRESHOLDS)
        assert decided.accepted == decided.version
        after = settled(store)
        assert (after.verdict.outcome, after.accepted) == (outcome, decided.version)
        assert after.approval is not None
        assert after.approval.reason == "seen with the exchange"
        day = load_day(store, DAY)
        assert day is not None
        assert day.scores.accepted_share == 1.0

    def test_settling_again_changes_no_byte(self, store: Store) -> None:
        run(store, BAD)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        before = everything(store, [DAY])
        assert settle(store, DAY, THRESHOLDS) == settle(store, DAY, THRESHOLDS)
        assert everything(store, [DAY]) == before

    def test_a_restatement_beyond_the_limits_counts(self, store: Store) -> None:
        old = run(store, GOOD).accepted
        pending = run(store, BETTER, **TOO_MUCH)
        assert (pending.accepted, pending.approval) == (old, None)
        assert "it restates more than the limits allow: 8,995 rows differ" in pending.excess
        approve_pending(store, DAY, str(FEED), "the vendor's note of the day", THRESHOLDS)
        after = settled(store)
        assert (after.accepted, after.candidate) == (held(BETTER), None)
        assert after.restatement is not None
        assert (after.restatement.before, after.restatement.after) == (old.content, version(BETTER).content)  # type: ignore[union-attr]

    def test_all_pending_versions_are_approved_without_a_feed_and_one_with_it(self, store: Store) -> None:
        expect(store, DAY, FEED, ETH)
        eth_bad = ids(DAY, 1, 9000, dataset_symbol="ETHUSDT", **gaps((100, 110)))
        for feed, found in ((FEED, BAD), (ETH, eth_bad)):
            run(store, found, feed=feed)
        (one,) = approve_pending(store, DAY, str(ETH), "checked", THRESHOLDS)
        assert (one.feed, contents(store, DAY)[0]) == (str(ETH), None)
        (other,) = approve_pending(store, DAY, None, "checked", THRESHOLDS)
        assert other.feed == str(FEED)

    def test_other_content_is_judged_like_any_other(self, store: Store) -> None:
        run(store, BAD)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        worse = run(store, ids(DAY, 1, 9000, **gaps((100, 120))))
        assert worse.accepted == held(BAD)
        assert worse.candidate is not None
        good = run(store, GOOD)
        assert (good.accepted, good.approval) == (held(GOOD), None)

    def test_under_other_rules_it_is_void_and_holds_again_under_the_old_ones(self, store: Store) -> None:
        run(store, BAD)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        void = settled(store, STRICTER)
        assert (void.accepted, void.approval) == (None, None)
        assert settled(store).accepted == held(BAD)

    def test_what_counted_before_counts_again_where_the_approval_is_void(self, store: Store) -> None:
        run(store, GOOD)
        run(store, BAD)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        assert settled(store).accepted == held(BAD)
        void = settled(store, STRICTER)
        assert (void.accepted, void.candidate) == (held(GOOD), held(BAD))

    @pytest.mark.parametrize(
        "changes",
        [
            {"hold_below": 0.4, "day_completeness": 0.9, "strict": True, "notional_weight": 0.1},
            {"id_laws": laws(("binance", "trades", {"support": "read again", "source": "elsewhere"}))},
            {"id_laws": laws(("coinbase", "trades", {"law": "hash"}), ("bitmex", "trades", None))},
            {"id_laws": laws(("binance", "trades", {"first_day": "2024-01-01"}))},
        ],
        ids=["thresholds of days", "words of the law", "laws of others", "days of the law"],
    )
    def test_no_rule_that_does_not_judge_the_feed_touches_it(
        self, changes: dict[str, Any], store: Store
    ) -> None:
        run(store, BAD)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        after = settled(store, ThresholdSettings(**changes))
        assert (after.accepted, void(after)) == (held(BAD), [])

    @pytest.mark.parametrize(
        "changes",
        [
            {"missing_ids": 9},
            {"rows": {"frozen_rows": 9}},
            {"id_laws": laws(("binance", "trades", {"law": "contiguous_with_holes"}))},
            {"id_laws": laws(("binance", "trades", {"first_day": shift(DAY, 1)}))},
        ],
        ids=["a number", "a number of a section", "another law", "no law on the day"],
    )
    def test_a_rule_that_judges_it_voids_it(self, changes: dict[str, Any]) -> None:
        assert approval_rules(FEED, DAY, ThresholdSettings(**changes)) != approval_rules(
            FEED, DAY, THRESHOLDS
        )

    def test_where_it_is_void_the_feed_says_why_it_left_and_how_it_comes_back(self, store: Store) -> None:
        run(store, BAD)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        after = settled(store, STRICTER)
        assert void(after) == [
            f"the approval of {utc_now():%Y-%m-%d} (checked) is void, because the rules that judge the feed "
            f"have changed: look at the file again, then backfill-assets approve --date {DAY} --feed {FEED} "
            f'--content {version(BAD).content[:12]} --reason "…"'
        ]
        assert after.verdict.warnings[-1] in quality_row(store)["warnings"]
        approve_pending(store, DAY, None, "checked again", STRICTER)
        assert (settled(store, STRICTER).accepted, void(settled(store, STRICTER))) == (held(BAD), [])

    def test_it_says_so_on_the_version_that_counts_again_instead(self, store: Store) -> None:
        run(store, GOOD)
        run(store, BAD)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        after = settled(store, STRICTER)
        assert (after.accepted, len(void(after))) == (held(GOOD), 1)

    def test_a_void_one_of_an_older_version_can_be_given_again(self, store: Store) -> None:
        run(store, BAD)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        run(store, ids(DAY, 1, 9000, **gaps((100, 120))))
        after = settled(store, STRICTER)
        assert (after.accepted, after.candidate == held(BAD), len(void(after))) == (None, False, 1)
        approve(store, DAY, str(FEED), [version(BAD).content[:12]], "checked again", STRICTER)
        assert settled(store, STRICTER).accepted == held(BAD)

    def test_a_void_one_is_not_missed_where_the_version_or_a_newer_one_counts_by_itself(
        self, store: Store
    ) -> None:
        run(store, BAD)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        laxer = settled(store, ThresholdSettings(missing_ids=11))
        assert (laxer.accepted, laxer.approval, void(laxer)) == (held(BAD), None, [])
        run(store, GOOD)
        stricter = settled(store, STRICTER)
        assert (stricter.accepted, void(stricter)) == (held(GOOD), [])

    def test_one_of_an_earlier_version_of_this_package_holds(self, store: Store) -> None:
        """It names all rules by one hash, which does not tell whether the rules of the feed have changed."""
        run(store, BAD)
        former = Approval(content=version(BAD).content, rules="0" * 12, reason="checked", approved_at=NOW)
        update_manifest(store, FEED, DAY, lambda m: m.model_copy(update={"decisions": (former,)}))
        for thresholds in (THRESHOLDS, STRICTER):
            after = settled(store, thresholds)
            assert (after.accepted, after.approval, void(after)) == (held(BAD), former, [])

    def test_it_stays_with_the_version_when_a_neighbour_shows_a_loss(self, store: Store) -> None:
        late = ids(DAY, 1012, 10_000, head_us=HOUR, **gaps((2000, 2010)))
        run(store, late)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        run(store, ids(BEFORE, 1, 1000), BEFORE)
        assert settled(store).accepted == held(late)

    def test_the_quality_table_says_so(self, store: Store) -> None:
        run(store, GOOD)
        row = quality_row(store)
        assert (row["approved"], row["approval_reason"], row["restatement"]) == (False, None, None)
        run(store, BETTER, **TOO_MUCH)
        row = quality_row(store)
        assert (row["approved"], row["pending"]) == (False, True)
        assert row["pending_content"] == version(BETTER).content
        assert f"--content {row['pending_content'][:12]} --reason" in row["restatement"]
        assert row["restatement"].startswith(
            "rows 9,000 → 5, 0 of 0 minutes differ; pending: it restates more"
        )
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        row = quality_row(store)
        assert (row["approved"], row["approval_reason"], row["pending"]) == (True, "checked", False)
        assert row["restatement"] == "rows 9,000 → 5, 0 of 0 minutes differ"


class TestRetract:
    def test_a_version_counts_no_more_however_often_it_is_settled(self, store: Store) -> None:
        run(store, GOOD)
        decided = retract_accepted(store, DAY, str(FEED), "wrong market", THRESHOLDS)
        assert (decided.version, decided.accepted) == (held(GOOD), None)
        for _ in range(2):
            after = settled(store)
            assert (after.accepted, after.verdict.outcome) == (None, "quarantine")
            assert after.verdict.reasons == ("retracted: wrong market",)
        assert run(store, GOOD).accepted is None
        assert settled(store, STRICTER).accepted is None

    def test_until_it_is_approved(self, store: Store) -> None:
        run(store, GOOD)
        retract_accepted(store, DAY, str(FEED), "wrong market", THRESHOLDS)
        approve_pending(store, DAY, str(FEED), "it was right", THRESHOLDS)
        after = settled(store)
        assert (after.accepted, after.retraction) == (held(GOOD), None)

    def test_an_approved_version_can_be_retracted(self, store: Store) -> None:
        run(store, BAD)
        approve_pending(store, DAY, None, "checked", THRESHOLDS)
        retract_accepted(store, DAY, str(FEED), "it was not", THRESHOLDS)
        after = settled(store)
        assert (after.accepted, after.approval) == (None, None)

    def test_other_content_is_judged_like_any_other(self, store: Store) -> None:
        run(store, GOOD)
        retract_accepted(store, DAY, str(FEED), "wrong market", THRESHOLDS)
        assert run(store, BETTER, **TOO_MUCH).accepted == held(BETTER)

    def test_an_earlier_good_version_counts_again_and_that_is_said(self, store: Store) -> None:
        run(store, GOOD)
        assert run(store, BETTER).accepted == held(BETTER)
        decided = retract_accepted(store, DAY, str(FEED), "a bad correction", THRESHOLDS)
        assert decided.accepted == held(GOOD)
        assert decided.lines[1].startswith("the version that counts now: (9,000 rows, ")
        assert decided.lines[1].endswith(f'--content {version(GOOD).content[:12]} --reason "…"')
        again = retract_accepted(store, DAY, str(FEED), "both are", THRESHOLDS)
        assert again.accepted is None


class TestRefused:
    @pytest.mark.parametrize(
        ("day", "feed", "reason", "message"),
        [
            (AFTER, None, "why", f"nothing is recorded of {AFTER}: run the day first"),
            (
                DAY,
                "binance/trades/XRPUSDT",
                "why",
                "XRPUSDT is no feed of 2024-01-02: choose from binance",
            ),
            (DAY, str(FEED), "why", "nothing is pending of binance/trades/BTCUSDT on 2024-01-02"),
            (DAY, None, "why", "nothing is pending of any feed on 2024-01-02"),
            (DAY, None, " \n", "a decision needs a reason"),
        ],
    )
    def test_an_approval(self, day: str, feed: str | None, reason: str, message: str, store: Store) -> None:
        run(store, GOOD)
        with pytest.raises(PermanentFailure) as failure:
            approve_pending(store, day, feed, reason, THRESHOLDS)
        assert message in str(failure.value)
        assert "\n" not in str(failure.value)
        assert load_manifest(store, FEED, DAY).decisions == ()

    @pytest.mark.parametrize(
        ("day", "feed", "reason", "message"),
        [
            (AFTER, str(FEED), "why", f"nothing is recorded of {AFTER}: run the day first"),
            (DAY, "binance/trades/XRPUSDT", "why", "XRPUSDT is no feed of 2024-01-02"),
            (DAY, str(FEED), "why", "nothing of binance/trades/BTCUSDT is accepted on 2024-01-02"),
            (DAY, str(FEED), "", "a decision needs a reason"),
        ],
    )
    def test_a_retraction(self, day: str, feed: str, reason: str, message: str, store: Store) -> None:
        run(store, BAD)
        with pytest.raises(PermanentFailure) as failure:
            retract_accepted(store, day, feed, reason, THRESHOLDS)
        assert message in str(failure.value)
        assert load_manifest(store, FEED, DAY).decisions == ()

    def test_an_approval_of_a_version_that_another_has_replaced(self, store: Store) -> None:
        """A person looks at one file, another arrives, then the person approves."""
        looked_at = run(store, BAD).candidate
        arrived = run(store, ids(DAY, 1, 9000, **gaps((100, 2100)))).candidate
        assert looked_at is not None
        assert arrived is not None
        with pytest.raises(PermanentFailure) as failure:
            approve(store, DAY, str(FEED), [looked_at.content], "checked", THRESHOLDS)
        assert str(failure.value) == (
            f"no version {looked_at.content} is pending: look at the one that is, then decide on it; "
            f"{FEED} ({arrived.rows:,} rows, {arrived.content[:12]}): backfill-assets approve --date {DAY} "
            f'--feed {FEED} --content {arrived.content[:12]} --reason "…"'
        )
        assert load_manifest(store, FEED, DAY).decisions == ()
        approve(store, DAY, str(FEED), [arrived.content[:12]], "checked", THRESHOLDS)
        assert settled(store).accepted == arrived

    def test_a_retraction_of_a_version_that_another_has_replaced(self, store: Store) -> None:
        looked_at, arrived = run(store, GOOD).accepted, run(store, BETTER).accepted
        assert looked_at is not None
        assert arrived is not None
        with pytest.raises(PermanentFailure, match=f"--content {arrived.content[:12]} --reason"):
            retract(store, DAY, str(FEED), looked_at.content, "wrong market", THRESHOLDS)
        assert settled(store).accepted == arrived
        retract(store, DAY, str(FEED), arrived.content[:8].upper(), "wrong market", THRESHOLDS)
        assert settled(store).accepted == looked_at

    def test_a_decision_that_names_no_content_and_what_it_would_decide_on_is_said(self, store: Store) -> None:
        pending = run(store, BAD).candidate
        assert pending is not None
        for feed, named in ((str(FEED), f" --feed {FEED}"), (None, "")):
            with pytest.raises(PermanentFailure) as failure:
                approve(store, DAY, feed, [], "checked", THRESHOLDS)
            command = f'approve --date {DAY}{named} --content {pending.content[:12]} --reason "…"'
            assert str(failure.value).endswith(command)
        approve(store, DAY, None, [pending.content], "checked", THRESHOLDS)
        with pytest.raises(PermanentFailure, match=f"--content {pending.content[:12]} --reason"):
            retract(store, DAY, str(FEED), "", "wrong market", THRESHOLDS)

    def test_a_content_of_too_few_digits_names_nothing(self, store: Store) -> None:
        pending = run(store, BAD).candidate
        assert pending is not None
        with pytest.raises(PermanentFailure, match="is pending: look at the one that is"):
            approve(store, DAY, None, [pending.content[:7]], "checked", THRESHOLDS)


def test_an_approval_without_a_feed_is_of_the_contents_alone(store: Store) -> None:
    """The contents of a day name its versions, so one command decides on as many as a person looked at."""
    expect(store, DAY, FEED, ETH)
    eth_bad = ids(DAY, 1, 9000, dataset_symbol="ETHUSDT", **gaps((100, 110)))
    both = [run(store, found, feed=feed).candidate for feed, found in ((FEED, BAD), (ETH, eth_bad))]
    contents_of = [version.content for version in both if version is not None]
    assert [d.feed for d in approve(store, DAY, None, contents_of[1:], "checked", THRESHOLDS)] == [str(ETH)]
    assert [d.feed for d in approve(store, DAY, None, contents_of[:1], "checked", THRESHOLDS)] == [str(FEED)]


def test_of_several_decisions_on_one_content_the_last_holds() -> None:
    approval = Approval(content="a", rules="all", judged_by="r", reason="x", approved_at=NOW)
    retraction = Retraction(content="a", reason="y", retracted_at=NOW - timedelta(days=1))
    found = FeedManifest(feed=str(FEED), day=DAY, decisions=(approval, retraction))
    assert (found.approval("a", "r"), found.retraction("a")) == (None, retraction)
    again = found.model_copy(update={"decisions": (*found.decisions, approval)})
    assert (again.approval("a", "r"), again.retraction("a")) == (approval, None)
    assert (again.approval("a", "other"), again.approval("b", "r"), again.retraction("b")) == (None,) * 3


def test_every_decision_stays_on_record(store: Store) -> None:
    run(store, BAD)
    approve_pending(store, DAY, None, "one", THRESHOLDS)
    retract_accepted(store, DAY, str(FEED), "two", THRESHOLDS)
    approve_pending(store, DAY, None, "three", THRESHOLDS)
    found = load_manifest(store, FEED, DAY).decisions
    assert [(d.kind, d.reason) for d in found] == [
        ("approval", "one"),
        ("retraction", "two"),
        ("approval", "three"),
    ]
    assert {d.content for d in found} == {version(BAD).content}
    assert isinstance(found[0], Approval)
    assert (found[0].rules, found[0].judged_by) == (
        rules_hash(THRESHOLDS),
        approval_rules(FEED, DAY, THRESHOLDS),
    )


# --- nothing is lost ---------------------------------------------------------------------------------------


def test_a_version_that_waits_for_its_neighbour_counts_beside_a_newer_one_that_is_bad(store: Store) -> None:
    """Our day begins late; yesterday's first file does not join, its second file does."""
    late = ids(DAY, 1012, 100_000, head_us=HOUR, **BUSY)
    run(store, late)
    worse = ids(DAY, 1012, 100_000, head_us=HOUR, **gaps((2000, 2100)))
    run(store, worse)
    run(store, ids(BEFORE, 1, 1000), BEFORE)
    assert contents(store, DAY) == (None, version(worse).content)
    run(store, ids(BEFORE, 1, 1011), BEFORE)
    assert contents(store, DAY) == (version(late).content, version(worse).content)


BUSY: Any = {"minute_rows": (60,) * 1440}

#: Files of two days, each fetched in this order: some bad by themselves, some until a neighbor joins.
REFRESHED: dict[str, dict[str, list[FeedProfile]]] = {
    "the second file is bad by itself": {
        DAY: [ids(DAY, 1001, 10_000), ids(DAY, 1001, 10_000, **gaps((2000, 2100)))],
        BEFORE: [ids(BEFORE, 1, 1000)],
    },
    "the first file is cut off": {
        DAY: [ids(DAY, 1012, 100_000, head_us=HOUR, **BUSY), ids(DAY, 1001, 100_000, **BUSY)],
        BEFORE: [ids(BEFORE, 1, 1000)],
    },
    "the second file is cut off": {
        DAY: [ids(DAY, 1001, 100_000, **BUSY), ids(DAY, 1012, 100_000, head_us=HOUR, **BUSY)],
        BEFORE: [ids(BEFORE, 1, 1000)],
    },
    "both days are refreshed": {
        DAY: [
            ids(DAY, 1012, 100_000, head_us=HOUR, **BUSY),
            ids(DAY, 1012, 100_000, **gaps((2000, 2100))),
        ],
        BEFORE: [ids(BEFORE, 1, 1000), ids(BEFORE, 1, 1011)],
    },
}


@pytest.mark.parametrize("case", REFRESHED)
def test_refreshed_days_end_the_same_in_every_order(case: str, tmp_path: Path) -> None:
    """Files of one day come in the order of their fetching; those of different days in any order."""
    files = REFRESHED[case]
    turns = [day for day, found in files.items() for _ in found]
    ends = []
    for number, order in enumerate(sorted(set(itertools.permutations(turns)))):
        store = LocalStore(tmp_path / str(number))
        left = {day: iter(enumerate(found)) for day, found in files.items()}
        for day in order:
            turn, found = next(left[day])
            expect(store, day)
            bring(store, day, version(found, NOW + timedelta(minutes=turn)))
            compare(store, day)
            settle(store, day, THRESHOLDS)
        ends.append(everything(store, files))
    assert len(ends) > 1
    assert all(end == ends[0] for end in ends)


def test_versions_that_drive_each_other_out_by_way_of_a_neighbour_do_not_go_on_for_ever(store: Store) -> None:
    """The newer file is blamed beside the neighbor, and the neighbor is blamed beside the older file."""
    older, newer = ids(DAY, 1, 10_000), ids(DAY, 1, 9_900, tail_us=2 * HOUR)
    run(store, older)
    run(store, newer)
    run(store, ids(AFTER, 10_012, 20_000, head_us=HOUR), AFTER)
    assert len(load_manifest(store, FEED, DAY).versions) == 2
