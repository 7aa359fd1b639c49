"""The first lines of the page: the actions for a day, or none if there is nothing to do."""

from __future__ import annotations

import shlex
from dataclasses import replace

from backfill_assets.days import utc_now
from backfill_assets.feeds import Feed
from backfill_assets.lake.evidence import Approval
from backfill_assets.quality.bucket_states import MINUTES
from backfill_assets.report.actions import Action, actions_of
from backfill_assets.report.minutes import MISSING, Minutes, uniform
from backfill_assets_tests.report.report_samples import DAY, feed_report, verdict

GOOD = feed_report(0)
COUNTS = (1,) * MINUTES


def left_out(index: int, outcome: str, *reasons: str, waiting: Minutes | None = None):
    feed = feed_report(index, accepted=False, minutes=uniform(MISSING), waiting=waiting)
    pending = "" if outcome == "missing" else f"{index:02d}" * 32
    return replace(feed, pending=pending, verdict=verdict(feed.feed, outcome, reasons=reasons))


ENOUGH = 0.95


def one(feed) -> Action:
    [action] = actions_of(DAY, [feed], [], ENOUGH)
    return action


def test_nothing_is_to_be_done_about_a_good_day() -> None:
    assert actions_of(DAY, [GOOD, feed_report(1)], [], ENOUGH) == ()


def test_missing_feeds_are_one_action_with_one_command() -> None:
    found = actions_of(DAY, [left_out(0, "missing", "404"), left_out(1, "missing", "404"), GOOD], [], ENOUGH)
    assert [(action.urgency, [f.index for f in action.findings]) for action in found] == [("bad", [0, 1])]
    assert found[0].findings[0].when == "the whole day"
    [command] = found[0].commands
    assert command.endswith(f"--partition {DAY}")


def test_a_quarantined_feed_is_told_with_reason_time_and_what_to_try_in_which_order() -> None:
    waiting = Minutes("t" * 544 + "p" + "m" * 50 + "p" + "t" * 844, COUNTS)
    action = one(left_out(0, "quarantine", "500 ids are missing", waiting=waiting))
    assert (action.findings[0].what, action.findings[0].when) == ("500 ids are missing", "09:04–09:55")
    again, approve = action.commands
    assert shlex.split(again)[-2:] == [
        "--config-json",
        '{"ops": {"ticks": {"config": {"refresh": true, "feeds": ["binance/trades/COIN00USDT"]}}}}',
    ]
    feed = "--feed binance/trades/COIN00USDT --content 000000000000"
    assert approve == f'backfill-assets approve --date {DAY} {feed} --reason "…"'


def test_several_quarantined_feeds_are_fetched_again_by_one_command_and_approved_one_by_one() -> None:
    [action] = actions_of(DAY, [left_out(0, "quarantine"), GOOD, left_out(2, "quarantine")], [], ENOUGH)
    again, *approvals = action.commands
    assert '"feeds": ["binance/trades/COIN00USDT", "binance/trades/COIN02USDT"]' in again
    contents = [command.split("--content ")[1].split()[0] for command in approvals]
    assert contents == ["000000000000", "020202020202"]


def test_the_run_of_a_generated_day_is_told_with_the_stand_in_that_it_needs() -> None:
    [action] = actions_of(DAY, [left_out(0, "missing", "404")], [], ENOUGH, generated=True)
    assert action.commands[0].startswith("backfill-assets standins -- dg launch ")


def test_a_feed_without_evidence_waits_and_is_not_an_alarm() -> None:
    assert one(left_out(0, "no_evidence", "the file is empty")).urgency == "warn"


def test_an_accepted_feed_with_a_newer_file_that_waits_asks_for_a_decision() -> None:
    action = one(replace(GOOD, pending="ab" * 32))
    assert action.urgency == "warn"
    assert "approve" in action.commands[0]
    assert "--content abababababab" in action.commands[0]


def test_a_loss_in_an_accepted_feed_is_a_note_and_a_whole_one_none() -> None:
    thin = replace(GOOD, verdict=verdict(GOOD.feed, completeness=0.9899, completeness_state="estimated"))
    assert one(thin).urgency == "note"
    whole = replace(GOOD, verdict=verdict(GOOD.feed, completeness=0.99, completeness_state="estimated"))
    assert actions_of(DAY, [whole], [], ENOUGH) == ()


def test_an_accepted_feed_with_less_than_a_day_is_never_called_good_enough() -> None:
    verdict_of = replace(
        GOOD, verdict=verdict(GOOD.feed, completeness=ENOUGH, completeness_state="inner_proven")
    )
    action = one(verdict_of)
    assert action.urgency == "warn"
    assert "Nothing has to be done" not in action.remedy
    [command] = action.commands
    assert f'"feeds": ["{GOOD.feed}"]' in command


def test_what_a_person_has_approved_is_not_asked_for_again() -> None:
    approval = Approval(content="ab" * 32, rules="r", reason="checked", approved_at=utc_now())
    lacking = replace(GOOD, verdict=verdict(GOOD.feed, completeness=0.1, completeness_state="degraded"))
    assert one(lacking).commands
    assert one(replace(lacking, approval=approval)).commands == ()


def test_a_table_that_is_not_out_comes_before_notes() -> None:
    thin = replace(GOOD, verdict=verdict(GOOD.feed, completeness=0.96, completeness_state="degraded"))
    found = actions_of(DAY, [thin], [("candles", "quota exceeded")], ENOUGH)
    assert [action.urgency for action in found] == ["bad", "note"]
    assert (found[0].findings[0].title, found[0].findings[0].what) == ("candles", "quota exceeded")


def test_missing_ids_are_told_with_the_command_that_asks_the_exchange_for_them() -> None:
    lacking = left_out(0, "quarantine", "500 ids are missing")
    lacking = replace(lacking, verdict=lacking.verdict.model_copy(update={"missing_ids": 500}))
    action = one(lacking)
    _, ask, approve = action.commands
    assert ask == f"backfill-assets heal --date {DAY} --feed binance/trades/COIN00USDT"
    assert approve.startswith("backfill-assets approve ")
    assert "Ask the exchange for the trades of the missing ids" in action.remedy
    accepted = replace(
        GOOD, verdict=verdict(GOOD.feed, completeness=0.999, completeness_state="degraded", missing_ids=3)
    )
    note = one(accepted)
    assert (note.urgency, note.commands) == ("note", (ask,))
    assert "Nothing has to be done" not in note.remedy
    [both] = actions_of(DAY, [lacking, replace(lacking, feed=feed_report(1).feed)], [], ENOUGH)
    assert f"backfill-assets heal --date {DAY}" in both.commands, "one command for all"


def test_where_no_exchange_can_be_asked_nothing_speaks_of_asking() -> None:
    grouped, another = Feed("binance", "trades", "SPOT"), Feed("bitstamp", "trades", "BTCUSD")
    changes = ({"missing_ids": 0}, {"evidence_class": "C", "missing_ids": 3})
    feeds = [replace(GOOD, verdict=verdict(GOOD.feed, completeness=0.97, **c)) for c in changes]
    feeds += [
        replace(GOOD, feed=feed, verdict=verdict(feed, completeness=0.97, missing_ids=3))
        for feed in (grouped, another)
    ]
    for feed in feeds:
        action = one(feed)
        assert action.commands == ()
        assert "exchange" not in action.remedy
