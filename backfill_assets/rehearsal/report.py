"""The rehearsal as people and machines read it: terminal matrix, JUnit XML, JSON and one HTML page."""

from __future__ import annotations

import json
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backfill_assets.failures import BadInput, TransientFailure
from backfill_assets.files import locked
from backfill_assets.readable_numbers import bytes_text, plural
from backfill_assets.rehearsal.measures import MEASURES, Measure
from backfill_assets.rehearsal.model import MEANINGS, Promise, Rehearsal, ScenarioResult, State, Trend

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
    Promise.WITHIN_LIMITS: "limits",
}
MEASURED: Final = ("s", "CPU s", "peak MB", "fetched", "requests", "again", "rows", "trend")
#: Scenarios whose figures are shown even if they are kept, such as how much a process has grown.
_FIGURES: Final = frozenset({"soak"})
#: Width of a terminal that has room for promises and measurements in one table.
_WIDE: Final = 160
#: Number of earlier values that a page shows for each measure.
_SHOWN: Final = 10
_BY_NAME: Final[dict[str, Measure]] = {measure.name: measure for measure in MEASURES}


def show(found: Rehearsal, console: Console) -> None:
    """Print the matrix, the expectations that were not met or not tried, and the measures that have grown."""
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
    for outcome in (o for r in found.results if r.scenario in _FIGURES for o in r.of(Promise.CONTAINED)):
        if outcome.kept:
            console.print(Text(f"kept: {outcome.line}"), soft_wrap=True)
    for result, trend in found.regressions():
        console.print(Text(regression_text(result, trend), "bold yellow"), soft_wrap=True)
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
        next((trend.change for trend in result.trends if trend.measure == "seconds"), "–"),
    )


def regression_text(result: ScenarioResult, trend: Trend) -> str:
    """Describe a measure that is much worse than before, in one line."""
    words, now, median, *_ = trend_texts(trend)
    former = plural(len(trend.former), "former rehearsal")
    return f"worse than before: {result.scenario}, {words}: {now}; the median of {former} is {median}"


def trend_texts(trend: Trend) -> tuple[str, str, str, str, str]:
    """Measure, value, median of the earlier ones, change, and the earlier values, as people read them."""
    measure = _BY_NAME[trend.measure]
    former = " · ".join(measure.text(value) for value in trend.former[-_SHOWN:])
    return measure.words, measure.text(trend.now), measure.text(trend.median), trend.change, former


def summary(found: Rehearsal) -> str:
    """Tell in one line how many expectations were met."""
    outcomes = [outcome for result in found.results for outcome in result.outcomes]
    kept = sum(outcome.kept is True for outcome in outcomes)
    return (
        f"{found.day}, {found.mode}: {plural(len(found.results), 'scenario')}, {kept} of "
        f"{plural(len(outcomes), 'expectation')} met, {len(list(found.broken()))} broken, "
        f"{len(list(found.not_run()))} not run, in {found.seconds:.0f} s"
    )


@contextmanager
def reserved(folder: Path, history: Path) -> Iterator[None]:
    """Reserve the folder of the reports for this rehearsal; remove it if no report was written.

    Raises
    ------
    BadInput
        The folder or that of the history is not writable, or another rehearsal is at work in the folder.
    """
    _insist_on_place(folder, "--report-dir")
    _insist_on_place(history.parent, "--history")
    lock = folder / ".rehearsal.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, timeout_seconds=0))
        except TransientFailure as failure:
            msg = f"{folder}: another rehearsal is at work there: name another folder with --report-dir"
            raise BadInput(msg) from failure
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                if list(folder.iterdir()) == [lock]:
                    lock.unlink()
                    folder.rmdir()


def _insist_on_place(folder: Path, option: str) -> None:
    """Check that the folder, or the nearest existing folder above it, is writable."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=there):
            pass
    except OSError as error:
        msg = f"{folder}: cannot be written: {error.strerror}: name another place with {option}"
        raise BadInput(msg) from error


def write(found: Rehearsal, folder: Path) -> list[Path]:
    """Write ``rehearsal.json``, ``junit.xml`` and ``rehearsal.html``; return the files."""
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
        properties = ET.SubElement(suite, "properties")
        for measure in MEASURES:
            value = f"{measure.of(result.measured):g}"
            ET.SubElement(properties, "property", name=measure.name, value=value)
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
        trend_texts=trend_texts,
        regression_text=regression_text,
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
