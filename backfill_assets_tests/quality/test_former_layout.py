"""A lake of the former layout stays readable: manifests name the accepted version beside the decisions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backfill_assets.days import shift
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import Approval, Retraction
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import Version, load_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.profiles import profile_of
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import load_settled
from backfill_assets.quality.verdict import rules_hash
from backfill_assets.ticks import fetch
from backfill_assets_tests.quality.quality_samples import DAY, FEED, THRESHOLDS, gaps
from backfill_assets_tests.quality.settled_lake import (
    NOW,
    approve_pending,
    bring,
    compare,
    contents,
    expect,
    ids,
    retract_accepted,
    version,
)

AFTER = shift(DAY, 1)


def at(minute: int, rows: int, **changes: Any) -> Version:
    """A version that was fetched in that minute."""
    return version(ids(DAY, 1, rows, **changes), NOW + timedelta(minutes=minute))


OLDEST, OLDER, GOOD, NEWEST = at(0, 9000), at(1, 9001), at(2, 9002), at(3, 9000, **gaps((100, 110)))


def write(store: Store, path: str, content: dict[str, Any]) -> None:
    store.replace(path, json.dumps(content).encode(), None)


#: Names in today's profiles and in those of the former layout.
FORMER_NAMES = {
    "silences": "gaps",
    "silence_count": "gap_count",
    "gaps": "holes",
    "gap_count": "hole_count",
    "longest_gap": "longest_hole",
    "missing_in_short_gaps": "missing_in_short_holes",
}


def former(found: Version) -> dict[str, Any]:
    """The version in the form that the former layout wrote."""
    content = found.model_dump(mode="json", exclude={"stored"})
    profile = content["profile"]
    profile["longest_gap"] = profile.pop("longest_silence")
    profile["symbols"] = [
        {FORMER_NAMES.get(name, name): value for name, value in symbol.items()}
        for symbol in profile["symbols"]
    ]
    return content


def manifest(store: Store, day: str = DAY, **content: Any) -> None:
    """Write a manifest of the former layout: every key, null if it had no value."""
    keys = {"feed": str(FEED), "day": day, "absent": None, "decided": False}
    earlier = [former(found) for found in content.pop("earlier", ())]
    versions = {
        name: former(found) if found is not None else None
        for name, found in {"accepted": None, "candidate": None, **content.pop("versions", {})}.items()
    }
    write(store, paths.ticks_manifest(FEED, day), {**keys, **versions, "earlier": earlier, **content})


def same(held: Sequence[Version], expected: Sequence[Version]) -> bool:
    """Whether these are the versions, with their counted profiles."""
    bare = [[v.model_copy(update={"profile": {}}) for v in versions] for versions in (held, expected)]
    return bare[0] == bare[1] and [profile_of(v) for v in held] == [profile_of(v) for v in expected]


def decisions(store: Store, *made: Approval | Retraction) -> None:
    content = [decision.model_dump(mode="json") for decision in made]
    write(store, paths.decisions(FEED, DAY), {"feed": str(FEED), "day": DAY, "decisions": content})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = LocalStore(tmp_path / "lake")
    expect(found, DAY)
    return found


def test_versions_are_in_the_order_of_their_fetching(store: Store) -> None:
    manifest(store, versions={"accepted": OLDER, "candidate": NEWEST}, earlier=(OLDEST, GOOD))
    found = load_manifest(store, FEED, DAY)
    assert same(found.versions, (OLDEST, OLDER, GOOD, NEWEST))
    assert (found.decisions, found.is_missing) == ((), False)


@pytest.mark.parametrize(
    ("versions", "held"),
    [({"accepted": GOOD}, (GOOD,)), ({"candidate": GOOD}, (GOOD,)), ({}, ())],
    ids=["accepted", "candidate", "neither"],
)
def test_a_manifest_of_one_version_or_none(
    versions: dict[str, Version], held: tuple[Version, ...], store: Store
) -> None:
    manifest(store, versions=versions)
    assert same(load_manifest(store, FEED, DAY).versions, held)


def test_an_absence_is_kept(store: Store) -> None:
    manifest(store, absent={"reason": "404", "seen_at": NOW.isoformat()})
    found = load_manifest(store, FEED, DAY)
    assert found.is_missing
    assert settle(store, DAY, THRESHOLDS).feeds[0].verdict.reasons == ("404",)


def test_the_same_version_counts_as_before(store: Store) -> None:
    manifest(store, versions={"accepted": GOOD, "candidate": NEWEST}, earlier=(OLDEST,))
    compare(store, DAY)
    settle(store, DAY, THRESHOLDS)
    assert contents(store, DAY) == (GOOD.content, NEWEST.content)


def test_what_counts_is_known_before_a_fetch_that_could_drop_it(store: Store) -> None:
    manifest(store, versions={"accepted": GOOD, "candidate": NEWEST})
    compare(store, DAY)
    assert fetch._settled(store, DAY, THRESHOLDS, [FEED]) is None
    write(store, paths.accepted_versions(DAY), {})
    settled = fetch._settled(store, DAY, THRESHOLDS, [FEED])
    assert settled is not None
    assert [(f.feed, f.accepted and f.accepted.content) for f in settled.feeds] == [(FEED, GOOD.content)]


APPROVAL = Approval(content=NEWEST.content, rules=rules_hash(THRESHOLDS), reason="checked", approved_at=NOW)
RETRACTION = Retraction(content=NEWEST.content, reason="was wrong", retracted_at=NOW)


def test_decisions_hold(store: Store) -> None:
    manifest(store, versions={"accepted": NEWEST}, decided=True)
    decisions(store, APPROVAL)
    feed = settle(store, DAY, THRESHOLDS).feeds[0]
    assert contents(store, DAY) == (NEWEST.content, None)
    assert feed.approval == APPROVAL
    assert feed.verdict.outcome == "quarantine"


def test_a_later_decision_comes_after_them(store: Store) -> None:
    manifest(store, versions={"accepted": NEWEST}, decided=True)
    decisions(store, RETRACTION, APPROVAL)
    settle(store, DAY, THRESHOLDS)
    retract_accepted(store, DAY, str(FEED), "it was wrong", THRESHOLDS)
    assert contents(store, DAY)[0] is None
    approve_pending(store, DAY, None, "it was right", THRESHOLDS)
    assert contents(store, DAY)[0] == NEWEST.content
    found = load_manifest(store, FEED, DAY).decisions
    assert found[:2] == (RETRACTION, APPROVAL)
    assert [d.reason for d in found] == ["was wrong", "checked", "it was wrong", "it was right"]


def test_a_fetch_writes_the_manifest_anew_and_loses_neither_versions_nor_decisions(store: Store) -> None:
    manifest(store, versions={"accepted": GOOD, "candidate": NEWEST}, earlier=(OLDEST,), decided=True)
    decisions(store, RETRACTION)
    settle(store, DAY, THRESHOLDS)
    latest = at(4, 9003)
    bring(store, DAY, latest)
    stored = store.read(paths.ticks_manifest(FEED, DAY))
    assert stored is not None
    assert json.loads(stored.data).keys().isdisjoint({"accepted", "candidate", "earlier"})
    found = load_manifest(store, FEED, DAY)
    assert same(found.versions, (OLDEST, GOOD, NEWEST, latest))
    assert found.decisions == (RETRACTION,)


def test_a_neighbour_that_was_judged_in_the_former_layout_is_settled_with_the_day(store: Store) -> None:
    for day in (DAY, AFTER):
        expect(store, day)
    manifest(store, versions={"accepted": GOOD})
    manifest(store, AFTER, versions={"accepted": version(ids(AFTER, 9003, 20_000))})
    settle(store, DAY, THRESHOLDS)
    assert load_settled(store, AFTER) is None  # fetched, but never judged
    write(store, paths.accepted_versions(AFTER), {"day": AFTER, "versions": "v"})
    settle(store, DAY, THRESHOLDS)
    found = load_settled(store, AFTER)
    assert found is not None
    assert found.feeds[0].verdict.completeness_state == "head_proven"


def test_other_keys_are_left_out(store: Store) -> None:
    manifest(store, versions={"accepted": GOOD}, unknown=1)
    assert [v.content for v in load_manifest(store, FEED, DAY).versions] == [GOOD.content]
