"""Commands to begin with: a first day, settings, own files, and trials of an installation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from backfill_assets.cli.group import DAY, NAMES, START, console, main
from backfill_assets.failures import BadInput, printable


def _new_settings(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option for the settings file that a command writes."""
    return click.option(
        "--settings",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path(default),
        show_default=True,
        help="Where to write the settings.",
    )


@main.command(section=START, example="demo --date 2024-01-01")
@click.option("--date", "day", type=DAY, default="2024-01-01", show_default=True, help="The day to run.")
def demo(day: str) -> None:
    """Run one day on generated data, without any account.

    The day goes from a stand-in for Tardis through lake and candles to the embedded warehouse.
    """
    from backfill_assets.settings import ProcessEnvironment

    if ProcessEnvironment().backfill_standin_url is None:
        from backfill_assets.standins.run import run_with_standins

        sys.exit(run_with_standins([sys.executable, "-m", "backfill_assets.cli", "demo", "--date", day]))
    from backfill_assets.demo import run_demo

    sys.exit(run_demo(day))


@main.command(section=START, example="run --date 2024-01-01 --end 2024-01-31")
@click.option("--date", "day", type=DAY, required=True, help="The day to run, or the first of several.")
@click.option("--end", type=DAY, help="The last day.")
def run(day: str, end: str | None) -> None:
    """Run days in this process, one after the other.

    This needs no daemon or service: for a laptop, cron or CI. The exit code is 1 unless every day is in
    the tables.
    """
    from backfill_assets.automation.backfills import checked_days
    from backfill_assets.local_runs import run_days

    sys.exit(run_days(checked_days(day, end or day)))


@main.command(section=START, example="init --exchanges binance,coinbase --symbols BTC-USDT,ETH-USDT")
@click.option("--exchanges", type=NAMES, help="The vendor's exchange ids; otherwise asked for, or binance.")
@click.option("--symbols", type=NAMES, help="Markets such as BTC-USDT; otherwise asked for, or BTC-USDT.")
@click.option("--data-types", type=NAMES, help="Names of tick tables; otherwise asked for, or trades.")
@click.option(
    "--folder", help="Folder of lake, tables and Dagster's records; otherwise asked for, or ./data/NAME."
)
@_new_settings("mine.yaml")
@click.option(
    "--like",
    help="Environment or file that gives all other settings; default: tardis, with a stand-in local.",
)
@click.option(
    "--date", "day", type=DAY, help="A day on which every symbol is listed; default: the newest free day."
)
def init(file: Path, like: str | None, day: str | None, **given: Any) -> None:
    """Write a settings file of your own, and try it.

    On a terminal, it asks for values without an option. Each symbol must be listed on the day, and the
    trials of 'doctor' must pass; otherwise nothing is written.
    """
    from backfill_assets.new_settings import (
        Answers,
        newest_free_day,
        next_commands,
        usual_settings,
        write_tried,
    )
    from backfill_assets.yaml_files import insist_on_new

    insist_on_new(file)
    questions = {
        "exchanges": ("Exchanges, separated by commas", "binance"),
        "symbols": ("Symbols, separated by commas", "BTC-USDT"),
        "data_types": ("Data types, separated by commas", "trades"),
        "folder": ("Folder of lake and tables", f"./data/{file.stem}"),
    }
    for name, (question, default) in questions.items():
        if given[name] is None:
            answer = click.prompt(question, default=default) if sys.stdin.isatty() else default
            given[name] = answer if name == "folder" else NAMES.convert(answer, None, None)
    for name in ("exchanges", "symbols", "data_types"):
        if not given[name]:
            msg = f"--{name.replace('_', '-')} is empty: give at least one, such as {questions[name][1]}"
            raise BadInput(msg)
    answers, on_day = Answers(**given), day or newest_free_day()
    for finding in write_tried(answers, file, like or usual_settings(), on_day):
        click.echo(f"{click.style('ok  ', fg='green')}  {finding.what}: {printable(finding.text)}")
    click.echo("\n".join((f"{file} is written. Next:", *next_commands(answers, file, on_day))))


@main.command(
    section=START,
    example="standins -- backfill-assets doctor",
    context_settings={"ignore_unknown_options": True},
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes a free port.")
@click.option(
    "--datasets",
    type=click.Path(path_type=Path, file_okay=False),
    help="Serve your own files from this directory instead of a generated market; see 'import'.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def standins(port: int, datasets: Path | None, command: tuple[str, ...]) -> None:
    """Serve a stand-in for Tardis on loopback.

    With a COMMAND after --, it serves while the command runs.
    """
    from backfill_assets.standins.run import run_with_standins, serve_standins

    if command:
        sys.exit(run_with_standins(command, datasets_dir=datasets, port=port))
    serve_standins(port, datasets)


@main.command("import", section=START, example="import ./files")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_new_settings("own-files.yaml")
def import_files(folder: Path, file: Path) -> None:
    """Import a folder of your own Tardis files.

    It lists the feeds and days of the files, and the files without a place, with the reason. Then it writes
    settings that expect them. No vendor is asked, and no file is changed.
    """
    from backfill_assets.quality.remedies import RUN_DAY
    from backfill_assets.standins.own_files import look_at
    from backfill_assets.standins.own_settings import lines, write_settings
    from backfill_assets.yaml_files import insist_on_new

    insist_on_new(file)
    found = look_at(folder)
    write_settings(found, folder, file)
    click.echo("\n".join(lines(found, folder, file, RUN_DAY.format(day=found.days[-1]))))


@main.command(section=START, example="settings")
@click.option("--show", is_flag=True, help="Every value and its origin, with secrets masked; the default.")
@click.option(
    "--schema",
    type=click.Choice(["settings", "rules"]),
    is_flag=False,
    flag_value="settings",
    help="A JSON schema for editors, of a settings file or of a file of rules.",
)
def settings(show: bool, schema: str | None) -> None:
    """Show every setting with its value, or the schema of the file."""
    from backfill_assets.settings_view import schema_text, settings_text

    if show and schema:
        msg = "give either --show or --schema"
        raise click.UsageError(msg)
    click.echo(schema_text(schema) if schema else settings_text())


@main.command(section=START, example="alerts test")
@click.argument("action", type=click.Choice(["test"]))
def alerts(action: str) -> None:  # noqa: ARG001 - there is only one
    """Send a test message to every address of alerts.urls.

    The exit code is 1 if an address does not accept it.
    """
    from backfill_assets.progress.watch import send_test
    from backfill_assets.settings import current_settings

    click.echo(f"sent to {send_test(current_settings())}")


@main.command(section=START, example="rehearse --quick --scenario killed")
@click.option("--date", "day", type=DAY, help="The day to rehearse; default: the environment's day.")
@click.option(
    "--env",
    "given",
    metavar="local|staging|FILE",
    default="local",
    show_default=True,
    help="Limits, sources and test data: a file of the package, or your own.",
)
@click.option(
    "--replay", "replayed", type=DAY, help="A published day of your lake, instead of a generated one."
)
@click.option(
    "--scenario", "names", metavar="NAME", multiple=True, help="Only this scenario; may be repeated."
)
@click.option(
    "--quick", "mode", flag_value="quick", default="quick", help="Takes a few minutes; the default."
)
@click.option(
    "--full", "mode", flag_value="full", help="More faults, kills, feeds and days, and longer ones."
)
@click.option(
    "--soak-minutes",
    type=click.IntRange(1, 1_440),
    help="How long the scenario soak takes; default: 3, with --full 60.",
)
@click.option(
    "--report-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("rehearsal"),
    show_default=True,
    help="Where to write JSON, JUnit XML, the HTML page and the logs of all runs.",
)
@click.option(
    "--history",
    "history_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Measurements of earlier rehearsals to compare with; default: history.jsonl in --report-dir.",
)
def rehearse(
    day: str | None,
    given: str,
    replayed: str | None,
    names: tuple[str, ...],
    mode: str,
    soak_minutes: int | None,
    report_dir: Path,
    history_file: Path | None,
) -> None:
    """Run a day under faults, and show which promises hold.

    It makes real runs against stand-ins, in scratch folders. It reads only limits from your settings and,
    with --replay, your lake; it touches none of your data, unless --env names your sources. The exit code is
    1 if a promise is broken.
    """
    from backfill_assets.days import utc_now
    from backfill_assets.rehearsal import history, scenarios
    from backfill_assets.rehearsal import report as reports
    from backfill_assets.rehearsal.environment import environment_of
    from backfill_assets.rehearsal.limits import limits_of_settings
    from backfill_assets.settings import current_settings

    environment = environment_of(given)
    if replayed and environment.is_real:
        msg = f"--replay serves the day from a stand-in, but {given} names sources: choose another --env"
        raise BadInput(msg)
    if replayed and day:
        msg = f"--replay {replayed} and --date {day} are both days to rehearse: leave one out"
        raise BadInput(msg)
    day = replayed or day or environment.test_data.day
    wanted = scenarios.chosen(names)
    if replayed is None:
        scenarios.insist_on_day(day)
    limits = limits_of_settings(scenarios.SCENARIOS)
    history_file = history_file or report_dir / "history.jsonl"

    def say(text: str) -> None:
        click.echo(text, err=True)

    with reports.reserved(report_dir, history_file):
        past = history.load(history_file)
        played = scenarios.rehearse(
            day,
            wanted,
            is_full=mode == "full",
            logs=report_dir / "logs",
            limits=limits,
            replayed=current_settings() if replayed else None,
            environment=environment,
            soak_minutes=soak_minutes,
            say=say,
        )
        found = history.compared(played, past)
        reports.show(found, console())
        for file in reports.write(found, report_dir):
            click.echo(printable(str(file)))
        history.add(history_file, found, utc_now())
    sys.exit(found.exit_code)


@main.command(section=START, example="doctor")
def doctor() -> None:
    """Check settings, reachability and permissions.

    It names the repairs; the exit code is 1 if there are any.
    """
    from backfill_assets.doctor import examine
    from backfill_assets.readable_numbers import plural

    findings = 0
    for finding in examine():
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("FAIL", fg="red")
        click.echo(f"{mark}  {finding.what}: {printable(finding.text)}")
        findings += not finding.ok
    if findings:
        msg = f"{plural(findings, 'thing')} to mend"
        raise click.ClickException(msg)
