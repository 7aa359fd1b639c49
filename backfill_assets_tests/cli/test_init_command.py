"""``backfill-assets init``: four answers become tested settings, or one line names the mistake."""

from __future__ import annotations

import os
import pty
import re
import subprocess

import pytest
import yaml
from click.testing import CliRunner

from backfill_assets.cli import main
from backfill_assets.settings import load_settings

DAY = "2024-01-01"


@pytest.fixture
def init(desk, settings_file, standin):
    """Runs the command against the stand-in, which the initial settings name."""

    def run(*arguments: str, like: str = ""):
        return desk.run("init", "--like", like or str(settings_file(standin.url)), "--date", DAY, *arguments)

    return run


def test_flags_become_a_file_that_was_tried_and_the_two_commands_at_its_end_work(init, desk, standin):
    answer = init(
        "--exchanges",
        "binance,kraken",
        "--symbols",
        "BTC-USDT",
        "--data-types",
        "trades",
        "--folder",
        "./here",
    )
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert [re.split(r"[ :]+", line, maxsplit=2)[:2] for line in lines[:-4]] == [
        *(["ok", what] for what in ("settings", "Tardis", "Tardis", "Tardis", "lake", "documents")),
        *(["ok", what] for what in ("warehouse", "alerts", "Dagster")),
    ]
    assert lines[0] == "ok    settings: BACKFILL_ENV=mine.yaml, 1 universe entries"
    assert lines[-4] == "mine.yaml is written. Next:"
    settings = load_settings(desk.folder / "mine.yaml")
    [entry] = settings.universe
    assert (entry.exchanges, entry.symbols, entry.data_types) == (
        ("binance", "kraken"),
        ("BTC-USDT",),
        ("trades",),
    )
    assert settings.tardis.api_endpoint == f"{standin.url}/v1"
    assert desk.left == ["here", "mine.yaml"]

    # A shell runs the lines as they are.
    script = "\n".join(lines[-3:]).replace("backfill-assets", desk.command()[0])
    done = desk.run("-c", script, program="/bin/sh")
    assert done.code == 0, done.out + done.err
    assert done.out.startswith(f"{DAY} published")
    assert len(done.out.splitlines()) == 26
    assert sorted(path.name for path in (desk.folder / "here").iterdir()) == ["dagster", "lake", "warehouse"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--symbols", "BTC-USDT,ETH-USDTT"),
            "not written: unknown symbol 'ETH-USDTT' on binance: did you mean ETH-USDT or BTC-USDT?",
        ),
        (("--symbols", "btc-usdt"), "mine.yaml: universe.0.symbols.0: 'btc-usdt' is not a canonical symbol"),
        (("--symbols", ","), "--symbols is empty: give at least one, such as BTC-USDT"),
        (("--settings", "nowhere/mine.yaml"), "nowhere/mine.yaml: there is no folder nowhere: make it, or "),
        (
            ("--folder", "gs://bucket/all"),
            "gs://bucket/all is no folder of this machine: give one, and set lake.uri",
        ),
        (
            ("--folder", "/proc/all"),
            "mine.yaml was not written: /proc/all: No such file or directory: choose another",
        ),
        (("--exchanges", "binanse"), "Tardis knows no exchange 'binanse', did you mean binance"),
        (("--data-types", "trade"), "'trade' is not a data type; did you mean trades"),
        (("--data-types", "options_chain"), "BTC-USDT options_chain is not listed on 2024-01-01"),
        (("--settings", "mine"), "mine: the name of a settings file ends in .yaml"),
        (("--date", "2099-01-01"), "2099-01-01 cannot be run: days go from "),
        (("--date", "2024-01-02"), "Tardis requires an API key for 2024-01-02: set TARDIS_API_KEY "),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_an_answer_that_is_wrong_is_told_in_one_line_and_leaves_nothing(
    settings_file, standin, desk, arguments, said, monkeypatch
):
    monkeypatch.chdir(desk.folder)
    monkeypatch.delenv("TARDIS_API_KEY", raising=False)
    like = str(settings_file(standin.url))
    answer = CliRunner().invoke(main, ["init", "--like", like, "--date", DAY, *arguments])
    [line] = answer.stderr.splitlines()
    assert answer.exit_code == 2
    assert said in line
    assert desk.left == []


def test_a_file_is_never_written_over_and_nobody_is_asked_before(init, desk, standin):
    (desk.folder / "mine.yaml").write_text("name: another\n")
    answer = init()
    assert (answer.code, answer.error) == (
        2,
        "mine.yaml already exists: name another one with --settings, or remove it",
    )
    assert (desk.folder / "mine.yaml").read_text() == "name: another\n"
    assert standin.requests == []


def test_settings_to_begin_with_that_are_not_there_are_named(init, desk):
    answer = init(like="tardus")
    assert answer.code == 2
    assert answer.error.endswith(
        "choose from local, production, staging, tardis, or give a path to a .yaml file"
    )
    assert desk.left == []


def test_a_vendor_that_is_away_is_no_mistake_of_the_answers(desk, settings_file, closed_port):
    answer = desk.run("init", "--like", str(settings_file(f"http://127.0.0.1:{closed_port}")), "--date", DAY)
    assert answer.code == 1
    address = f"http://127.0.0.1:{closed_port}/v1/exchanges/binance"
    assert answer.error.startswith(f"mine.yaml was not written: cannot reach {address}")


def test_on_a_terminal_it_asks_for_what_no_flag_gives(desk, settings_file, standin):
    ours, theirs = pty.openpty()
    words = desk.command("init", "--like", str(settings_file(standin.url)), "--date", DAY)
    process = subprocess.Popen(
        [*words, "--data-types", "trades"],
        cwd=desk.folder,
        env=desk.environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(theirs)
    os.write(ours, b"kraken\nETH-USDT\n\n")
    said, _ = process.communicate(timeout=120)
    os.close(ours)
    assert process.returncode == 0, said
    asked = re.findall(r"(\w[\w ,]*) \[(\S+)\]:", said)
    assert asked == [
        ("Exchanges, separated by commas", "binance"),
        ("Symbols, separated by commas", "BTC-USDT"),
        ("Folder of lake and tables", "./data/mine"),
    ]
    written = yaml.safe_load((desk.folder / "mine.yaml").read_text())
    assert written["universe"] == [
        {"exchanges": ["kraken"], "symbols": ["ETH-USDT"], "data_types": ["trades"]}
    ]
    assert written["lake"] == {"uri": f"{desk.folder}/data/mine/lake"}


def test_beside_a_stand_in_it_begins_with_its_environment_and_says_how_to_go_on(desk):
    answer = desk.run("standins", "--", *desk.command("init"))
    assert answer.code == 0, answer.out + answer.err
    script = "\n".join(answer.out.splitlines()[-3:]).replace("backfill-assets", desk.command()[0])
    done = desk.run("-c", script, program="/bin/sh")
    assert done.code == 0, done.out + done.err
    assert len(done.out.splitlines()) == 26
