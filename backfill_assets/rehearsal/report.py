"""The rehearsal as people and machines read it: terminal matrix, JUnit XML, JSON and one HTML page."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backfill_assets.readable_numbers import bytes_text, plural
from backfill_assets.rehearsal.model import MEANINGS, Promise, Rehearsal, ScenarioResult, State

if TYPE_CHECKING:
    import jinja2

_STYLES: Final[dict[State, str]] = {
    "kept": "green",
    "broken": "bold red",
    "not run": "yellow",
    "not judged": "dim",
}
_MARKS: Final[dict[State, str]] = {
    "kept": "kept",
    "broken": "BROKEN",
    "not run": "not run",
    "not judged": "–",
}
#: Heads of the columns, short enough for a terminal.
HEADS: Final[dict[Promise, str]] = {
    Promise.DETECTED: "detected",
    Promise.CONTAINED: "contained",
    Promise.RECOVERED: "recovered",
    Promise.NOTHING_LOST: "nothing lost",
    Promise.NOTHING_WRONG_PUBLISHED: "nothing wrong",
    Promise.NO_SECRET_IN_LOGS: "no secret",
    Promise.SOMEBODY_TOLD: "told",
}
MEASURED: Final = ("s", "CPU s", "peak MB", "fetched", "requests", "again", "rows")
#: Columns of a terminal that has room for promises and measurements in one table.
_WIDE: Final = 140


def show(found: Rehearsal, console: Console) -> None:
    """Print the matrix, and below it every expectation that was not met or not tried."""
    is_wide = console.width >= _WIDE
    matrix = _table([HEADS[promise] for promise in Promise], MEASURED if is_wide else ())
    measured = _table((), MEASURED)
    for result in found.results:
        states = [result.state(promise) for promise in Promise]
        cells = [Text(_MARKS[each], _STYLES[each]) for each in states]
        texts = measured_texts(result)
        matrix.add_row(result.scenario, *cells, *(texts if is_wide else ()))
        measured.add_row(result.scenario, *texts)
    console.print(matrix)
    if not is_wide:
        console.print(measured)
    for outcome in (*found.broken(), *found.not_run()):
        state: State = "broken" if outcome.kept is False else "not run"
        console.print(Text(f"{state}: {outcome.line}", _STYLES[state]), soft_wrap=True)
    console.print(Text(summary(found)), soft_wrap=True)


def _table(promises: Sequence[str], measured: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("scenario", no_wrap=True)
    for head in promises:
        table.add_column(head)
    for head in measured:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def measured_texts(result: ScenarioResult) -> tuple[str, ...]:
    """The measurements, in the order of the columns."""
    m = result.measured
    return (
        f"{m.seconds:.1f}",
        f"{m.cpu_seconds:.1f}",
        f"{m.peak_mb:.0f}",
        bytes_text(m.bytes_fetched),
        f"{m.requests:,}",
        f"{m.retries:,}",
        f"{m.rows:,}",
    )


def summary(found: Rehearsal) -> str:
    """How many expectations were met, in one line."""
    outcomes = [outcome for result in found.results for outcome in result.outcomes]
    kept = sum(outcome.kept is True for outcome in outcomes)
    return (
        f"{found.day}, {found.mode}: {plural(len(found.results), 'scenario')}, {kept} of "
        f"{plural(len(outcomes), 'expectation')} met, {len(list(found.broken()))} broken, "
        f"{len(list(found.not_run()))} not run, in {found.seconds:.0f} s"
    )


def write(found: Rehearsal, folder: Path) -> list[Path]:
    """Write ``rehearsal.json``, ``junit.xml`` and ``rehearsal.html``; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "rehearsal.json": json_text(found),
        "junit.xml": junit_text(found),
        "rehearsal.html": html_text(found),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def json_text(found: Rehearsal) -> str:
    """The rehearsal with all outcomes, and the state of each scenario and promise."""
    content = asdict(found) | {"exit_code": found.exit_code}
    for result, fields in zip(found.results, content["results"], strict=True):
        fields["promises"] = {promise.value: result.state(promise) for promise in Promise}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def junit_text(found: Rehearsal) -> str:
    """One test suite per scenario, one test case per promise that it judges."""
    suites = ET.Element("testsuites", name="rehearsal", time=f"{found.seconds:.3f}")
    for result in found.results:
        judged = [p for p in Promise if result.state(p) != "not judged"]
        suite = ET.SubElement(
            suites,
            "testsuite",
            name=result.scenario,
            tests=str(len(judged)),
            failures=str(sum(result.state(p) == "broken" for p in judged)),
            skipped=str(sum(result.state(p) == "not run" for p in judged)),
            errors="0",
            time=f"{result.measured.seconds:.3f}",
        )
        for promise in judged:
            case = ET.SubElement(suite, "testcase", classname=result.scenario, name=promise.value)
            unmet = [outcome.line for outcome in result.of(promise) if outcome.kept is not True]
            state = result.state(promise)
            if state == "broken":
                ET.SubElement(case, "failure", message=unmet[0]).text = "\n".join(unmet)
            elif state == "not run":
                ET.SubElement(case, "skipped", message=unmet[0])
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def html_text(found: Rehearsal) -> str:
    """One page that needs no other file."""
    return _template().render(
        found=found,
        summary=summary(found),
        promises=list(Promise),
        heads=HEADS,
        meanings=MEANINGS,
        marks=_MARKS,
        measured_heads=MEASURED,
        measured=measured_texts,
    )


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("rehearsal.html.j2")
