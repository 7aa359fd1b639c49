"""Scenarios in which files and metadata of the vendor are malicious."""

from __future__ import annotations

import gzip
import json
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backfill_assets.feeds import Feed
from backfill_assets.rehearsal.house import House
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.stage import Stage
from backfill_assets.rehearsal.vendor_faults import edited, largest
from backfill_assets.standins.faults import Fault
from backfill_assets.tardis.metadata import dataset_symbol

_LONG_LINE: Final = 10_000_000
_DEEP: Final = 100_000
#: Metadata longer than any that are read.
_SPACES: Final = 300 << 20
#: Metadata whose text may be read, but whose objects take gigabytes.
_LISTS: Final = 60 << 20
_MOST_MB: Final = 1_000
_ANSWER_SECONDS: Final = 5.0


def poisoned(stage: Stage) -> None:
    """Files and metadata that were made to do harm."""
    day = stage.day
    with stage.house() as house:
        exchange = _unreadable_exchange(house, day)
        edits = _edits(house, day, exchange)
        if not edits:
            why = "the day has no feeds of trades of two exchanges"
            stage.not_run((Promise.DETECTED, Promise.CONTAINED), "files and metadata are poisoned", why)
            return
        feeds = [feed for feed, *_ in edits]
        for feed, _, edit in edits:
            house.standin.faults.put_dataset(feed, day, Fault(body=edited(house, feed, day, edit)))
        deep = b"[" * _DEEP + b"]" * _DEEP
        house.standin.faults.put(f"/v1/instruments/{exchange}", Fault(body=deep))
        run = house.run(day)
        state = house.state(day)
        left_out = {notable.feed: "; ".join(notable.reasons) for notable in state.notable}
        told = f"exit code {run.code}, the day is {state.outcome}"
        for feed, about, _ in edits:
            is_seen = str(feed) in left_out or (run.code != 0 and state.outcome != "published")
            stage.check(
                Promise.DETECTED,
                f"{about}: {feed} is left out, or the day is held",
                left_out.get(str(feed), told),
                kept=is_seen,
            )
        said = [line for line in run.text.splitlines() if f"instruments/{exchange}" in line]
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


def _unreadable_exchange(house: House, day: str) -> str:
    """The exchange with the fewest feeds of trades; its metadata are poisoned."""
    count = Counter(feed.exchange for feed in house.feeds(day))
    return max(count, key=lambda exchange: (-count[exchange], exchange), default="")


def _edits(house: House, day: str, but: str) -> list[tuple[Feed, str, Callable[[list[bytes]], list[bytes]]]]:
    """Large files of other exchanges, each with the edit to apply."""
    feeds = [feed for feed in largest(house, day) if feed.exchange != but]
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
            # The second column; some exchanges write a symbol there that differs from the one in the URL.
            lambda lines: [re.sub(rb",[^,]*,", b",=HYPERLINK(1),", line, count=1) for line in lines],
        ),
    )
    return [(feed, about, edit) for feed, (about, edit) in zip(feeds, edits, strict=False)]


def poisoned_metadata(stage: Stage) -> None:
    """Data sets that are named like paths, and metadata that are too large for memory."""
    day = stage.day
    with stage.house(answer_seconds=_ANSWER_SECONDS) as house:
        escaped = f"escaped-{secrets.token_hex(4)}"
        feeds = _named_like_paths(house, day, (f"../../../{escaped}", f"{tempfile.gettempdir()}/{escaped}"))
        oversized = {
            # On a slow machine an attempt may time out before the size limit stops it.
            "binance": (b"[" + b" " * _SPACES + b"]", ("longer than", "no complete answer")),
            "kraken": (b"[" + b"[]," * _LISTS + b"[]]", ("values",)),
        }
        for exchange, (content, _) in oversized.items():
            fault = Fault(body=gzip.compress(content, 1))
            house.standin.faults.put(f"/v1/instruments/{exchange}", fault)
        run = house.run(day)
        for exchange, (content, words) in oversized.items():
            tried = [
                x for x in run.text.splitlines() if f"instruments/{exchange}" in x and "trying again" in x
            ]
            said = [line for line in tried if any(word in line for word in words)]
            stage.check(
                Promise.DETECTED,
                f"{len(content) >> 20} MB of metadata of {exchange}: the log says that they cannot be read",
                said[-1][-200:] if said else "not said",
                kept=bool(said),
            )
        stage.check(
            Promise.CONTAINED,
            f"the run takes less than {_MOST_MB} MB",
            f"{stage.peak_mb:.0f} MB",
            kept=0 < stage.peak_mb < _MOST_MB,
        )
        left_out = {notable.feed: "; ".join(notable.reasons) for notable in house.state(day).notable}
        for feed in feeds:
            reason = left_out.get(str(feed), "")
            stage.check(
                Promise.DETECTED,
                f"a data set that is named like a path: {feed} is left out, with a reason",
                reason or "not named",
                kept=bool(reason),
            )
        strange, inside = _files_named(house, escaped)
        stage.check(
            Promise.CONTAINED,
            "no file or folder of their names is outside their feeds' own folders",
            ", ".join(strange) or f"none; {inside} inside",
            kept=not strange and inside > 0,
        )
        stage.is_harmless(house, "with poisoned metadata")
        stage.is_told(house, day, "with poisoned metadata", bad=True)
        house.standin.faults.clear()
        stage.succeeded(Promise.RECOVERED, house.run(day), "the run after the poison")
        stage.ends_undisturbed(house, "after the poison", leave_out=frozenset({"quality"}))
        stage.is_told(house, day, "after the poison", bad=False)


def _named_like_paths(house: House, day: str, names: tuple[str, str]) -> list[Feed]:
    """Rename two of Coinbase's data sets in all metadata; their files hold no ticks and stay as rejected."""
    old = [house.feed("coinbase", symbol, day).dataset_symbol for symbol in ("BTC-USDT", "ETH-USDT")]
    new = dict(zip(old, names, strict=True))
    details = house.standin.exchange_details("coinbase")
    for symbol in details["datasets"]["symbols"]:
        symbol["id"] = new.get(symbol["id"], symbol["id"])
    instruments = house.standin.instruments("coinbase", "{}", None)
    for instrument in instruments:
        instrument["datasetId"] = new.get(instrument["datasetId"], instrument["datasetId"])
    for path, answer in (("exchanges", details), ("instruments", instruments)):
        house.standin.faults.put(f"/v1/{path}/coinbase", Fault(body=json.dumps(answer).encode()))
    feeds = [Feed("coinbase", "trades", dataset_symbol(name)) for name in names]
    for feed in feeds:
        house.standin.faults.put_dataset(feed, day, Fault(body=gzip.compress(b"root:x:0:0\n")))
    return feeds


def _files_named(house: House, name: str) -> tuple[list[str], int]:
    """Return paths with the name outside the folders of Coinbase's trades, and the number inside them."""
    below = re.compile(rf"[^/]+/coinbase/trades/[^/]*{name}(/.*)?", re.IGNORECASE)
    beside = [house.folder.parent, Path(tempfile.gettempdir())]
    strange = [str(path) for folder in beside for path in folder.iterdir() if name in path.name.lower()]
    inside = 0
    for path in house.folder.rglob("*"):
        if name not in str(path.relative_to(house.folder)).lower():
            continue
        if path.is_relative_to(house.lake) and below.fullmatch(str(path.relative_to(house.lake))):
            inside += 1
        else:
            strange.append(str(path.relative_to(house.folder)))
    return strange, inside
