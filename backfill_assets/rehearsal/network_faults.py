"""Scenarios of the network between the run and the vendor: faults that pass, and answers that stay wrong."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from backfill_assets.days import shift
from backfill_assets.feeds import Feed
from backfill_assets.rehearsal.environment import MB
from backfill_assets.rehearsal.house import House
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.stage import Stage
from backfill_assets.standins.faults import (
    Fault,
    Refusal,
    dataset_path,
    key_used_elsewhere,
    not_found,
    server_error,
    too_many_requests,
    unavailable,
)
from backfill_assets.standins.sources import NoDatasetError
from backfill_assets.standins.tardis import TardisStandin

_HTML: Final = b"<!doctype html><html><body>Please sign in</body></html>"
_CUT: Final = 5_000
#: Longer than the first wait of the client, so that a requested wait shows.
_ASKED_SECONDS: Final = 3
#: An HTTP date has whole seconds.
_DATE_ROUNDS_SECONDS: Final = 1
_HUGE: Final = 10**30
#: The feeds for which ``network`` has faults, and the one that is redirected to itself.
_FEEDS, _TURNING = 12, 7
#: The most redirects that the client follows.
_REDIRECTS: Final = 10
#: Zeros in one member of the bomb, and its number of members: 4 GB.
_ZEROS: Final = 1 << 24
_MEMBERS: Final = 256
#: Limits of a run that fetches the bomb.
_MOST_MB: Final = 1_000
#: A user's own day may need more, though less than the zeros.
_MOST_REPLAY_MB: Final = 4_000
_MOST_DISK_MB: Final = 200
_SAMPLE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Passing:
    """A fault that ends while the run retries.

    Attributes
    ----------
    requests
        The smallest number of requests that the run needs.
    waits
        Seconds that the vendor asks the run to wait after each refusal.
    """

    about: str
    fault: Fault
    requests: int = 2
    waits: tuple[float, ...] = ()


def network(stage: Stage) -> None:
    """Faults that pass while the run asks again, and files that are refused."""
    day = stage.day
    with stage.house() as house, TardisStandin(house.standin.source, api_key=house.key) as elsewhere:
        feeds = house.feeds(day)
        turning, seconds = feeds[_TURNING % len(feeds)], house.answer_seconds
        passing = dict(zip(feeds, _passing_faults(turning, day, seconds), strict=False))
        if len(feeds) < _FEEDS:
            _only_passing(stage, house, passing)
            return
        moved, absent, refused = feeds[_FEEDS - 3 : _FEEDS]
        storage = f"http://localhost:{elsewhere.port}/storage{dataset_path(moved, day)}"
        lasting = {
            absent: ("HTTP 404", Fault(always=not_found())),
            refused: ("HTTP 401", Fault(always=Refusal(401, 401, "Unauthorized"))),
        }
        faults = {feed: one.fault for feed, one in passing.items()}
        _run_with(stage, house, {**faults, moved: Fault(redirect_to=storage)}, lasting)
        for feed, one in passing.items():
            _is_asked_again(stage, house, feed, one)
        keys = sum(request.has_key for request in elsewhere.requests)
        stage.check(
            Promise.NO_SECRET_IN_LOGS,
            f"redirect to another host: {moved} is fetched there, without the key",
            f"{len(elsewhere.requests)} requests there, {keys} with a key",
            kept=bool(elsewhere.requests) and not keys,
        )
        _recover(stage, house, list(lasting))


def _only_passing(stage: Stage, house: House, passing: Mapping[Feed, _Passing]) -> None:
    """Play one passing fault for each feed of a published day, and no lasting faults."""
    for feed, one in passing.items():
        house.standin.faults.put_dataset(feed, stage.day, one.fault)
    stage.succeeded(Promise.CONTAINED, house.run(stage.day), "the run with the faults")
    for feed, one in passing.items():
        _is_asked_again(stage, house, feed, one)
    stage.is_harmless(house, "with the faults")
    stage.ends_undisturbed(house, "with the faults")
    stage.is_told(house, stage.day, "with the faults", bad=False)
    expected, why = "other faults, and some that last", f"the day has fewer than {_FEEDS} feeds of trades"
    stage.not_run((Promise.DETECTED,), expected, why)


def _passing_faults(turning: Feed, day: str, seconds: float) -> tuple[_Passing, ...]:
    """Return the faults; ``turning`` is the eighth feed, which is redirected to itself.

    Parameters
    ----------
    seconds
        Limit of one attempt.
    """
    asked, turn = _ASKED_SECONDS, dataset_path(turning, day)
    nobody = f"http://files.invalid{turn}"
    by_date = too_many_requests(asked, as_date=True)
    return (
        _Passing("connection reset in the body", Fault(cut_connection_at=_CUT, cuts=1)),
        _Passing("truncated gzip", Fault(cut_body_at=_CUT, cuts=1)),
        _Passing("HTTP 500, then 503", Fault(refusals=(server_error(), unavailable())), requests=3),
        _Passing(
            "HTTP 429 with Retry-After in seconds, then as a date",
            Fault(refusals=(too_many_requests(asked), by_date)),
            requests=3,
            waits=(asked, asked - _DATE_ROUNDS_SECONDS),
        ),
        _Passing("HTTP 403 with code 274", Fault(refusals=(key_used_elsewhere(asked),)), waits=(asked,)),
        _Passing("no answer within the time-out", Fault(delay_seconds=seconds + 1, times=1)),
        _Passing("a body that drips", Fault(drip_seconds=seconds + 1, times=1)),
        _Passing("a redirect loop", Fault(redirect_to=turn, times=_REDIRECTS + 1), requests=_REDIRECTS + 2),
        _Passing("a redirect to a host without address", Fault(redirect_to=nobody, times=1)),
    )


def _is_asked_again(stage: Stage, house: House, feed: Feed, one: _Passing) -> None:
    """The feed is requested as often as its fault demands, never before the vendor allows, and it counts."""
    answers = [r.at for r in house.standin.requests if r.path == dataset_path(feed, stage.day)]
    stage.check(
        Promise.DETECTED,
        f"{one.about}: {feed} is asked for again",
        f"{len(answers)} requests",
        kept=len(answers) >= one.requests,
    )
    if one.waits:
        waits = [later - earlier for earlier, later in pairwise(answers)]
        stage.check(
            Promise.DETECTED,
            f"{one.about}: the run waits for {' and '.join(f'{w:g} s' for w in one.waits)}",
            ", ".join(f"{wait:.1f} s" for wait in waits),
            kept=len(waits) >= len(one.waits) and all(w >= a for w, a in zip(waits, one.waits, strict=False)),
        )
    left_out = _left_out(house, stage.day)
    stage.check(
        Promise.CONTAINED,
        f"{one.about}: {feed} counts",
        left_out.get(str(feed), "counts"),
        kept=str(feed) not in left_out,
    )


def wrong_answers(stage: Stage) -> None:
    """Answers that stay wrong: damaged, of others, no file at all, 4 GB of zeros, a wait without end."""
    day = stage.day
    with stage.house() as house:
        feeds = house.feeds(day)
        if len(feeds) < _FEEDS:
            # Without enough feeds, a day with all of these faults would have no good feed.
            why = f"the day has fewer than {_FEEDS} feeds of trades"
            stage.not_run((Promise.DETECTED, Promise.CONTAINED), "answers that stay wrong", why)
            return
        zeros, asked_to_wait = feeds[4], feeds[5]
        lasting = {
            feeds[0]: ("corrupt gzip", Fault(body=_corrupt(house.file(feeds[0], day)))),
            feeds[1]: ("HTML page with status 200", Fault(body=_HTML)),
            feeds[2]: ("the file of another market", Fault(body=house.file(feeds[6], day))),
            zeros: ("4 GB of zeros as gzip", Fault(body=gzip.compress(bytes(_ZEROS), 9) * _MEMBERS)),
            asked_to_wait: ("HTTP 429 with a huge Retry-After", Fault(always=too_many_requests(_HUGE))),
        }
        # A lake need not have the day before.
        with suppress(NoDatasetError):
            before = Fault(body=house.file(feeds[3], shift(day, -1)))
            lasting[feeds[3]] = ("the file of the day before", before)
        with _largest_mb(house.folder) as disk:
            _run_with(stage, house, {}, lasting)
        most_mb = _MOST_REPLAY_MB if stage.replay else _MOST_MB
        most_disk_mb = _MOST_DISK_MB + 2 * stage.undisturbed.lake_bytes / MB
        stage.check(
            Promise.CONTAINED,
            f"4 GB of zeros: less than {most_mb:,} MB of memory and {most_disk_mb:,.0f} MB of disk",
            f"{stage.peak_mb:.0f} MB and {disk[0]:.0f} MB",
            kept=0 < stage.peak_mb < most_mb and 0 < disk[0] < most_disk_mb,
        )
        paths = [request.path for request in house.standin.requests]
        for feed, most in ((feeds[0], 2), (zeros, 1), (asked_to_wait, 1)):
            count = paths.count(dataset_path(feed, day))
            stage.check(
                Promise.CONTAINED,
                f"{lasting[feed][0]}: {feed} does not hold up the run, asked for {most} times at most",
                f"{count} times",
                kept=0 < count <= most,
            )
        _recover(stage, house, list(lasting))


def _corrupt(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(16) + content[middle + 16 :]


def _run_with(
    stage: Stage, house: House, faults: Mapping[Feed, Fault], lasting: Mapping[Feed, tuple[str, Fault]]
) -> None:
    """Run the day; feeds with lasting faults must be left out with a reason, and no row may be wrong."""
    for feed, fault in {**faults, **{feed: fault for feed, (_, fault) in lasting.items()}}.items():
        house.standin.faults.put_dataset(feed, stage.day, fault)
    stage.succeeded(Promise.CONTAINED, house.run(stage.day), "the run with the faults")
    left_out = _left_out(house, stage.day)
    for feed, (about, _) in lasting.items():
        reason = left_out.get(str(feed), "")
        stage.check(
            Promise.DETECTED,
            f"{about}: {feed} is left out, with a reason",
            reason or "not named",
            kept=bool(reason),
        )
    others = sorted(set(left_out) - {str(feed) for feed in lasting})
    stage.check(
        Promise.CONTAINED, "every other feed counts", ", ".join(others) or "each counts", kept=not others
    )
    stage.is_harmless(house, "with the faults")
    stage.is_told(house, stage.day, "with feeds left out", bad=True)


def _left_out(house: House, day: str) -> dict[str, str]:
    """Feeds that do not count as they should, with the reasons."""
    return {notable.feed: "; ".join(notable.reasons) for notable in house.state(day).notable}


def _recover(stage: Stage, house: House, refresh: Sequence[Feed]) -> None:
    """Remove the faults; the next run must end as if there had been none."""
    house.standin.faults.clear()
    stage.succeeded(Promise.RECOVERED, house.run(stage.day, refresh=refresh), "the run after the faults")
    # The record keeps whether a file has changed since it was first judged.
    stage.ends_undisturbed(house, "after the faults", leave_out=frozenset({"quality"}))
    stage.is_told(house, stage.day, "after the faults", bad=False)


@contextmanager
def _largest_mb(folder: Path) -> Iterator[list[float]]:
    """Sample the size of all files below the folder; the list holds the maximum, in 2**20 bytes."""
    largest, stop = [0.0], threading.Event()

    def sample() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            size = 0
            for file in folder.rglob("*"):
                with suppress(FileNotFoundError):  # temporary files come and go
                    size += file.stat().st_size
            largest[0] = max(largest[0], size / 2**20)

    thread = threading.Thread(target=sample, name="rehearsal-disk", daemon=True)
    thread.start()
    try:
        yield largest
    finally:
        stop.set()
        thread.join()
