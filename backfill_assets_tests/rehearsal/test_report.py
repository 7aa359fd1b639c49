"""The reports of a rehearsal: each form can be read, no text can forge one, no missing result looks green."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from backfill_assets.rehearsal.model import MEANINGS, Measurement, Outcome, Promise, Rehearsal, ScenarioResult
from backfill_assets.rehearsal.report import HEADS, html_text, json_text, junit_text, show, write

HOSTILE = '<script>alert(1)</script>\x1b[31m\n]]> & "quoted" {{ 7 * 7 }}'


def result(*kept: bool | None, promise: Promise = Promise.RECOVERED, seen: str = "seen") -> ScenarioResult:
    outcomes = tuple(Outcome("killed", promise, "expected", seen, each) for each in kept)
    return ScenarioResult("killed", "a summary", outcomes, Measurement(1.5, 1.0, 200.0, 2_000, 12, 3, 40))


def rehearsal(*results: ScenarioResult) -> Rehearsal:
    return Rehearsal("2024-01-02", "quick", 12.0, results)


@pytest.mark.parametrize(
    ("kept", "state", "code"),
    [
        ((True, True), "kept", 0),
        ((True, False), "broken", 1),
        ((True, None), "not run", 0),
        ((None, False), "broken", 1),
        ((None,), "not run", 1),
        ((), "not judged", 1),
    ],
)
def test_a_promise_is_kept_only_if_every_expectation_was_tried_and_met(kept, state, code) -> None:
    found = result(*kept)
    assert found.state(Promise.RECOVERED) == state
    assert rehearsal(found).exit_code == code


def test_every_promise_has_a_meaning_and_a_column() -> None:
    assert set(MEANINGS) == set(HEADS) == set(Promise)


def test_junit_has_a_case_per_judged_promise_with_failures_and_skips() -> None:
    found = rehearsal(
        result(True, False),
        result(None, promise=Promise.DETECTED),
        result(True, promise=Promise.SOMEBODY_TOLD),
    )
    suites = ET.fromstring(junit_text(found))
    counts = [(s.get("tests"), s.get("failures"), s.get("skipped")) for s in suites]
    assert counts == [("1", "1", "0"), ("1", "0", "1"), ("1", "0", "0")]
    failure = suites.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.get("message") == "killed, recovered: expected expected; seen: seen"


def test_texts_of_others_stay_texts_in_every_form() -> None:
    found = rehearsal(result(False, seen=HOSTILE))
    page = html_text(found)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    [failure] = ET.fromstring(junit_text(found)).iter("failure")
    assert "<script>" in (failure.text or "")
    assert json.loads(json_text(found))["results"][0]["outcomes"][0]["seen"] == HOSTILE
    said = io.StringIO()
    show(found, Console(file=said, width=200, force_terminal=False))
    assert "\x1b" not in said.getvalue()
    assert "BROKEN" in said.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_the_matrix_shows_every_state_and_measurement_in_any_terminal(width) -> None:
    said = io.StringIO()
    found = rehearsal(result(True), result(None, promise=Promise.DETECTED))
    show(found, Console(file=said, width=width, force_terminal=False))
    words = said.getvalue().split()
    assert {"kept", "killed", "1.5", "200", "2.0", "kB", "12", "3", "40"} <= set(words)
    assert "…" not in said.getvalue()
    assert "not run: killed, detected: expected expected; seen: seen" in said.getvalue()


def test_the_page_needs_no_other_file() -> None:
    page = html_text(rehearsal(result(True)))
    assert "src=" not in page
    assert "<link" not in page
    assert "://" not in page


def test_json_has_the_state_of_every_promise_and_the_exit_code(tmp_path) -> None:
    files = write(rehearsal(result(True)), tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["rehearsal.json", "junit.xml", "rehearsal.html"]
    content = json.loads(files[0].read_text())
    states = content["results"][0]["promises"]
    assert set(states) == {promise.value for promise in Promise}
    assert (states["recovered"], states["detected"], content["exit_code"]) == ("kept", "not judged", 0)
