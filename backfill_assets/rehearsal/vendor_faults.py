"""Scenarios in which the vendor misbehaves: answers, files and metadata are not as they should be."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from typing import Final

from backfill_assets.days import shift
from backfill_assets.feeds import Feed
from backfill_assets.rehearsal.house import ANSWER_SECONDS, House
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.stage import Stage
from backfill_assets.standins.faults import (
    Fault,
    Refusal,
    dataset_path,
    not_found,
    server_error,
    too_many_requests,
    unavailable,
)

_HTML: Final = b"<!doctype html><html><body>Please sign in</body></html>"
_CUT: Final = 5_000
_LONG_LINE: Final = 10_000_000
_DEEP: Final = 100_000
#: How long nobody listens at the vendor's address.
_AWAY_SECONDS: Final = 5.0


def network(stage: Stage) -> None:
    """Faults on many feeds of a day at once."""
    day = stage.day
    with stage.house() as house:
        passing, lasting = _network_faults(house, day, is_full=stage.is_full)
        for feed, (_, fault) in {**passing, **lasting}.items():
            house.standin.faults.put_dataset(feed, day, fault)
        run = house.run(day)
        stage.succeeded(Promise.CONTAINED, run, "the run with the faults")
        state = house.state(day)
        left_out = {notable.feed: "; ".join(notable.reasons) for notable in state.notable}
        asked = [request.path for request in house.standin.requests]
        for feed, (about, _) in passing.items():
            count = asked.count(dataset_path(feed, day))
            stage.check(
                Promise.DETECTED, f"{about}: {feed} is asked for again", f"{count} requests", kept=count > 1
            )
            stage.check(
                Promise.CONTAINED,
                f"{about}: {feed} counts",
                left_out.get(str(feed), "counts"),
                kept=str(feed) not in left_out,
            )
        for feed, (about, _) in lasting.items():
            reason = left_out.get(str(feed), "")
            stage.check(
                Promise.DETECTED,
                f"{about}: {feed} is left out, with a reason",
                reason or "not named",
                kept=bool(reason),
            )
        stage.is_harmless(house, "with the faults")
        stage.is_told(house, day, "with feeds left out", bad=True)
        house.standin.faults.clear()
        stage.succeeded(Promise.RECOVERED, house.run(day, refresh=list(lasting)), "the run after the faults")
        # Whether a file has changed since it was judged first stays on record.
        stage.ends_undisturbed(house, "after the faults", leave_out=frozenset({"quality"}))
        stage.is_told(house, day, "after the faults", bad=False)


def _network_faults(
    house: House, day: str, *, is_full: bool
) -> tuple[dict[Feed, tuple[str, Fault]], dict[Feed, tuple[str, Fault]]]:
    """Faults that pass while the run asks again, and faults that last; by feed, with what they are."""
    feeds = house.feeds(day)
    first = house.market.dataset(feeds[0], day)
    corrupt = bytearray(house.market.dataset(feeds[6], day))
    middle = len(corrupt) // 2
    corrupt[middle : middle + 16] = bytes(16)
    passing = (
        ("connection reset in the body", Fault(cut_connection_at=_CUT, cuts=1)),
        ("truncated gzip", Fault(cut_body_at=_CUT, cuts=1)),
        ("HTTP 500 twice", Fault(refusals=(server_error(),) * 2)),
        ("HTTP 429 with Retry-After", Fault(refusals=(too_many_requests(1),))),
        ("no answer within the time-out", Fault(delay_seconds=ANSWER_SECONDS + 1, times=1)),
        ("HTTP 503", Fault(refusals=(unavailable(),))),
    )
    # A lasting HTML page is asked for again until Dagster's own retries are used up, which takes minutes.
    html = ("HTML page with status 200", Fault(body=_HTML, times=None if is_full else 1))
    lasting = (
        ("corrupt gzip", Fault(body=bytes(corrupt))),
        ("HTTP 404", Fault(always=not_found())),
        ("HTTP 401", Fault(always=Refusal(401, 401, "Unauthorized"))),
        ("the file of another market", Fault(body=first)),
        ("the file of the day before", Fault(body=house.market.dataset(feeds[10], shift(day, -1)))),
    )
    of_passing = dict(zip(feeds[:6], passing, strict=True))
    of_lasting = dict(zip(feeds[6:11], lasting, strict=True))
    (of_lasting if is_full else of_passing)[feeds[11]] = html
    return of_passing, of_lasting


def refused(stage: Stage) -> None:
    """Nobody listens at the vendor's address when the run begins."""
    with stage.house() as house:
        house.standin.__exit__(None, None, None)
        back = threading.Timer(_AWAY_SECONDS, house.standin.__enter__)
        back.start()
        try:
            run = house.run(stage.day)
        finally:
            back.join()
        tries = run.text.count("trying again in")
        stage.check(
            Promise.DETECTED, "the log says that the run tries again", f"{tries} times", kept=tries > 0
        )
        stage.succeeded(Promise.RECOVERED, run, "the run that met nobody")
        stage.ends_undisturbed(house, "when the vendor is back")
        stage.is_told(house, stage.day, "when the vendor is back", bad=False)


def not_exported_yet(stage: Stage) -> None:
    """The vendor exports the day later."""
    day = stage.day
    with stage.house() as house:
        for exchange in house.market.exchanges:
            house.standin.faults.exported_until[exchange] = day
        run = house.run(day)
        state = house.state(day)
        waits = "is not exported yet" in run.text
        stage.check(
            Promise.DETECTED,
            "the run fails and says that the day is not exported yet",
            f"exit code {run.code}, {'said' if waits else 'not said'}",
            kept=run.code == 1 and waits,
        )
        stage.check(
            Promise.CONTAINED, "the day is not in the tables", state.outcome, kept=state.outcome == "missing"
        )
        stage.is_harmless(house, "before the export")
        stage.is_told(house, day, "before the export", bad=True)
        house.standin.faults.clear()
        stage.succeeded(Promise.RECOVERED, house.run(day), "the run after the export")
        stage.ends_undisturbed(house, "after the export")
        stage.is_told(house, day, "after the export", bad=False)


def restated(stage: Stage) -> None:
    """The vendor gives other bytes for a day that is published: a small correction, and half of a file."""
    day = stage.day
    with stage.house() as house:
        stage.succeeded(Promise.CONTAINED, house.run(day), "the first run")
        corrected, halved = house.feeds(day)[:2]
        small = _edited(house, corrected, day, _with_other_side)
        large = _edited(house, halved, day, lambda lines: lines[: len(lines) // 2])
        house.standin.faults.put_dataset(corrected, day, Fault(body=small))
        house.standin.faults.put_dataset(halved, day, Fault(body=large))
        run = house.run(day, refresh=[corrected, halved])
        stage.succeeded(Promise.CONTAINED, run, "the run that fetches both again")
        pending = {notable.feed for notable in house.state(day).notable if notable.pending}
        stage.check(
            Promise.DETECTED,
            f"half of {halved} waits for approval",
            ", ".join(sorted(pending)) or "nothing waits",
            kept=pending == {str(halved)},
        )
        stage.has_all_trades(
            house,
            day,
            "the correction is published, the half file is not",
            house.served(day, {corrected: small}),
        )
        stage.is_told(house, day, "with a version that waits", bad=True)


def _edited(house: House, feed: Feed, day: str, edit: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """The feed's file with other rows below its header."""
    header, *lines = gzip.decompress(house.market.dataset(feed, day)).splitlines(keepends=True)
    return gzip.compress(b"".join([header, *edit(lines)]), compresslevel=1)


def _with_other_side(lines: list[bytes]) -> list[bytes]:
    """The rows with the taker on the other side of one trade."""
    before, row, after = lines[:100], lines[100], lines[101:]
    other = (b",buy,", b",sell,") if b",buy," in row else (b",sell,", b",buy,")
    return [*before, row.replace(*other), *after]


def poisoned(stage: Stage) -> None:
    """Files and metadata that were made to do harm."""
    day = stage.day
    with stage.house() as house:
        feeds = house.feeds(day)[:3]
        symbol = feeds[2].dataset_symbol.encode()
        edits: tuple[tuple[str, Callable[[list[bytes]], list[bytes]]], ...] = (
            (
                "NUL bytes in a row",
                lambda lines: [*lines[:9], lines[9].replace(b",", b",\0", 3), *lines[10:]],
            ),
            (
                "a line of 10 MB",
                lambda lines: [*lines[:9], lines[9].rstrip() + b"9" * _LONG_LINE + b"\n", *lines[10:]],
            ),
            (
                "a formula as symbol",
                lambda lines: [line.replace(symbol, b"=HYPERLINK(1)", 1) for line in lines],
            ),
        )
        for feed, (_, edit) in zip(feeds, edits, strict=True):
            house.standin.faults.put_dataset(feed, day, Fault(body=_edited(house, feed, day, edit)))
        deep = b"[" * _DEEP + b"]" * _DEEP
        house.standin.faults.put("/v1/instruments/kraken", Fault(body=deep))
        run = house.run(day)
        state = house.state(day)
        left_out = {notable.feed: "; ".join(notable.reasons) for notable in state.notable}
        told = f"exit code {run.code}, the day is {state.outcome}"
        for feed, (about, _) in zip(feeds, edits, strict=True):
            is_seen = str(feed) in left_out or (run.code != 0 and state.outcome != "published")
            stage.check(
                Promise.DETECTED,
                f"{about}: {feed} is left out, or the day is held",
                left_out.get(str(feed), told),
                kept=is_seen,
            )
        said = [line for line in run.text.splitlines() if "instruments/kraken" in line]
        stage.check(
            Promise.DETECTED,
            f"{_DEEP:,} nested lists as metadata: the log says that they cannot be read",
            said[-1][-200:] if said else "not said",
            kept=any("cannot be read" in line for line in said),
        )
        stage.check(
            Promise.CONTAINED,
            "the other feeds count",
            f"{state.outcome}; left out: {', '.join(sorted(left_out)) or 'none'}",
            kept=set(left_out) <= {str(feed) for feed in feeds} or state.outcome == "held",
        )
        stage.is_harmless(house, "with poisoned files and metadata")
        stage.is_told(house, day, "with poisoned files and metadata", bad=True)
        house.standin.faults.clear()
        again = house.run(day, refresh=feeds)
        stage.succeeded(Promise.RECOVERED, again, "the run after the poison")
        stage.ends_undisturbed(house, "after the poison", leave_out=frozenset({"quality"}))
        stage.is_told(house, day, "after the poison", bad=False)
