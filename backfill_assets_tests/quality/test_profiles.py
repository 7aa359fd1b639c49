"""A version's profile is parsed once, and is always the one that the version carries."""

from __future__ import annotations

from backfill_assets.quality import profiles
from backfill_assets.quality.profiles import profile_of
from backfill_assets_tests.quality.judged_lake import version
from backfill_assets_tests.quality.quality_samples import profile, symbol


def test_the_same_document_is_parsed_once() -> None:
    found = version(profile(symbol()))
    assert profile_of(found) == profile(symbol())
    assert profile_of(found) is profile_of(found.model_copy(update={"rows": 7}))


def test_another_profile_of_the_same_content_is_its_own() -> None:
    first = version(profile(symbol()))
    second = first.model_copy(update={"profile": version(profile(symbol(last_id=9_999))).profile})
    assert first.content == second.content  # as after counting the same rows again in another way
    assert profile_of(first).symbols[0].id_max == 10_000
    assert profile_of(second).symbols[0].id_max == 9_999
    assert profile_of(first).symbols[0].id_max == 10_000


def test_no_more_are_kept_than_three_days_need() -> None:
    for _ in range(profiles._KEPT + 10):
        profile_of(version(profile(symbol())))
    assert len(profiles._parsed) == profiles._KEPT
