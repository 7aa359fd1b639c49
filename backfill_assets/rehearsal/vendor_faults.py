"""Scenarios in which the vendor is away, is late, or changes its data."""

from __future__ import annotations

import gzip
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backfill_assets.feeds import Feed
from backfill_assets.rehearsal.house import RUN_SECONDS, House
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.process_faults import END_SECONDS
from backfill_assets.rehearsal.stage import Stage
from backfill_assets.standins.faults import Fault
from backfill_assets.standins.serving import HOST

#: Log text of a run before it waits for its next attempt.
_TRIES_AGAIN: Final = b"trying again in"
#: No resolver has an address for it (RFC 6761).
_NO_HOST: Final = "vendor.invalid"
#: Number of feeds whose files are restated.
_RESTATED: Final = 2
_ENDPOINTS: Final = ("datasets_endpoint", "api_endpoint")


def refused(stage: Stage) -> None:
    """The vendor's address refuses connections until the run has tried."""
    with stage.house() as house:
        house.standin.__exit__(None, None, None)
        process = house.start(stage.day)
        try:
            has_tried = process.when(lambda: _TRIES_AGAIN in process.log.read_bytes())
        finally:
            house.standin.__enter__()
        code = process.wait(RUN_SECONDS)
        stage.check(
            Promise.DETECTED,
            "the log says that the run tries again",
            "it does" if has_tried else "it does not",
            kept=has_tried,
        )
        about = "the run whose connection was refused: exit code 0"
        stage.check(Promise.RECOVERED, about, f"exit code {code}", kept=code == 0)
        stage.ends_undisturbed(house, "when the vendor is back")
        stage.is_told(house, stage.day, "when the vendor is back", bad=False)


def dns(stage: Stage) -> None:
    """The vendor's host name has no address: SIGTERM ends the run, in --full it gives up."""
    with stage.house() as house:
        right = {name: getattr(house.settings.tardis, name) for name in _ENDPOINTS}
        house.configure("tardis", **{name: url.replace(HOST, _NO_HOST) for name, url in right.items()})
        if not stage.is_full:
            # SIGTERM must end a run that would retry for longer.
            house.configure("tardis", retry_budget_seconds=10 * END_SECONDS)
        process = house.start(stage.day)
        process.when(lambda: bool(_lines_with(process.log, _NO_HOST, "trying again in")))
        if not stage.is_full:
            process.send(signal.SIGTERM)
        code = process.wait(RUN_SECONDS if stage.is_full else END_SECONDS)
        said = _lines_with(process.log, _NO_HOST, "trying again in")
        stage.check(
            Promise.DETECTED,
            "the run fails, and its log names the address before it tries again",
            f"exit code {code}, {said[0][-200:] if said else 'not named'}",
            kept=bool(said) and code not in (0, None),
        )
        state = house.state(stage.day)
        stage.check(
            Promise.CONTAINED, "the day is not in the tables", state.outcome, kept=state.outcome == "missing"
        )
        stage.is_harmless(house, "without the vendor")
        stage.is_told(house, stage.day, "without the vendor", bad=True)
        house.configure("tardis", **right)
        stage.succeeded(Promise.RECOVERED, house.run(stage.day), "the run with the right address")
        stage.ends_undisturbed(house, "with the right address")
        stage.is_told(house, stage.day, "with the right address", bad=False)


def _lines_with(log: Path, *words: str) -> list[str]:
    text = log.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if all(word in line for word in words)]


def not_exported_yet(stage: Stage) -> None:
    """The vendor exports the day later."""
    day = stage.day
    with stage.house() as house:
        for exchange in house.standin.source.exchanges:
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
    """The vendor gives other bytes of a published day: a correction and half of a file, then the old ones."""
    day = stage.day
    with stage.house() as house:
        feeds = largest(house, day)[:_RESTATED]
        if len(feeds) < _RESTATED:
            why = f"the day has fewer than {_RESTATED} feeds of trades"
            stage.not_run((Promise.DETECTED, Promise.CONTAINED), "two files are restated", why)
            return
        corrected, halved = feeds
        stage.succeeded(Promise.CONTAINED, house.run(day), "the first run")
        small = edited(house, corrected, day, _with_other_side)
        large = edited(house, halved, day, lambda lines: lines[: len(lines) // 2])
        house.standin.faults.put_dataset(corrected, day, Fault(body=small))
        house.standin.faults.put_dataset(halved, day, Fault(body=large))
        run = house.run(day, refresh=feeds)
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
        house.standin.faults.clear()
        stage.succeeded(Promise.RECOVERED, house.run(day, refresh=feeds), "the run with the old bytes")
        # The record keeps whether a file has changed since it was first judged.
        stage.ends_undisturbed(house, "with the old bytes", leave_out=frozenset({"quality"}))


def largest(house: House, day: str) -> list[Feed]:
    """The feeds of trades, those with the largest files first."""
    return sorted(house.feeds(day), key=lambda feed: -len(house.file(feed, day)))


def edited(house: House, feed: Feed, day: str, edit: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """The feed's file with other rows below its header."""
    header, *lines = gzip.decompress(house.file(feed, day)).splitlines(keepends=True)
    return gzip.compress(b"".join([header, *edit(lines)]), compresslevel=1)


def _with_other_side(lines: list[bytes]) -> list[bytes]:
    """The rows with the taker on the other side of one trade."""
    other = {b",buy,": b",sell,", b",sell,": b",buy,"}
    later = range(len(lines) // 2, len(lines))
    number, side = next((n, side) for n in later for side in other if side in lines[n])
    return [*lines[:number], lines[number].replace(side, other[side]), *lines[number + 1 :]]
