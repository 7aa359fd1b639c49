"""Limits of a rehearsal: which number counts, which files are refused, and when a scenario turns red."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from backfill_assets.failures import BackfillError
from backfill_assets.rehearsal.limits import Limits, judged, limits_of_settings, load_limits
from backfill_assets.rehearsal.measures import MEASURES
from backfill_assets.rehearsal.model import Measurement, Promise
from backfill_assets.rehearsal.scenarios import SCENARIOS, Scenario, play
from backfill_assets.rehearsal.stage import Stage, Undisturbed
from backfill_assets.settings import DEFAULT_LIMITS, ENVIRONMENTS

MEASURED = Measurement(10.0, 8.0, 500.0, 1_000, 24, 3, 70_000)
AT_THE_LIMIT = Limits(
    seconds=10, cpu_seconds=8, peak_mb=500, bytes_fetched=1_000, requests=24, retries=3, rows=70_000
)


def test_what_is_exactly_at_its_limit_is_kept() -> None:
    found = judged("normal", MEASURED, AT_THE_LIMIT)
    assert [outcome.kept for outcome in found] == [True] * len(MEASURES)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_what_is_beyond_its_limit_breaks_the_promise_with_both_numbers(measure) -> None:
    step = -1 if measure.name == "rows" else 1
    beyond = replace(MEASURED, **{measure.name: getattr(MEASURED, measure.name) + step})
    [broken] = [outcome for outcome in judged("normal", beyond, AT_THE_LIMIT) if outcome.kept is False]
    assert (broken.promise, broken.scenario) == (Promise.WITHIN_LIMITS, "normal")
    assert broken.expected.startswith(f"{measure.words}: at {'least' if step < 0 else 'most'} ")
    assert broken.seen == measure.text(measure.of(beyond))


def test_a_scenario_that_asked_for_nothing_is_not_within_its_limits_but_not_run() -> None:
    found = judged("disk-full", Measurement(seconds=1.0), AT_THE_LIMIT)
    assert {outcome.kept for outcome in found} == {None}


def test_every_measurement_is_a_measure_and_every_scenario_has_a_limit_of_each() -> None:
    names = [measure.name for measure in MEASURES]
    assert names == list(Measurement.__dataclass_fields__) == list(Limits.model_fields)
    limits = load_limits(DEFAULT_LIMITS, SCENARIOS)
    for mode in ("quick", "full", "replay"):
        for scenario in SCENARIOS:
            assert None not in limits.of(scenario, mode).model_dump().values()
    assert limits.of("low-memory", "quick").peak_mb == 1_000


def test_what_is_said_of_a_scenario_goes_before_what_is_said_of_every_one(tmp_path) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text(
        yaml.safe_dump({"quick": {"every": {"peak_mb": 5_000, "seconds": 7}, "hung": {"seconds": 9}}})
    )
    limits = load_limits(file, SCENARIOS)
    assert (limits.of("normal", "quick").seconds, limits.of("hung", "quick").seconds) == (7, 9)
    assert (limits.of("normal", "quick").peak_mb, limits.of("low-memory", "quick").peak_mb) == (5_000, 1_000)
    assert limits.of("normal", "full") == load_limits(DEFAULT_LIMITS, SCENARIOS).of("normal", "full")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"quick": {"hang": {}}}, "limits.yaml: quick: 'hang' is not a scenario; did you mean hung?"),
        (
            {"quick": {"every": {"second": 1}}},
            "quick.every.second: unknown key; remove it or correct",
        ),
        ({"full": {"every": {"seconds": 0}}}, "full.every.seconds: "),
        ({"slow": {}}, "slow: unknown key"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(content, said, tmp_path) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(BackfillError) as refused:
        load_limits(file, SCENARIOS)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_settings_name_the_file(tmp_path) -> None:
    settings = yaml.safe_load((ENVIRONMENTS / "local.yaml").read_text())
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(settings | {"rehearsal": {"limits": "limits.yaml"}}))
    with pytest.raises(BackfillError, match=r"own\.yaml: rehearsal\.limits: there is no file .*limits\.yaml"):
        limits_of_settings(SCENARIOS, str(own))
    (tmp_path / "limits.yaml").write_text("quick: {every: {seconds: 12}}")
    assert limits_of_settings(SCENARIOS, str(own)).of("killed", "quick").seconds == 12


def test_a_scenario_beyond_a_limit_of_the_user_is_broken(tmp_path) -> None:
    def asks(stage: Stage) -> None:
        """It runs one day."""
        with stage.house() as house:
            house.run("2024-01-02")

    file = tmp_path / "limits.yaml"
    for seconds, state in ((0.001, "broken"), (300, "kept")):
        file.write_text(yaml.safe_dump({"quick": {"every": {"seconds": seconds}}}))
        stage = Stage("asks", tmp_path / state, "2024-01-02", Undisturbed({}, 18, 1_000_000))
        found = play(Scenario("asks", asks), stage, tmp_path / "logs", load_limits(file, SCENARIOS))
        assert found.state(Promise.WITHIN_LIMITS) == state
        assert found.measured.rows > 0
