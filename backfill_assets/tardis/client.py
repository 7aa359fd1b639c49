"""The Tardis client: many feeds at once, metadata, and retries.

This module decides how often, how fast and how long to ask; ``attempts`` makes one request and classifies its
failure. The official client downloads a day's files one after the other. So it is called once per feed, many
at a time, on an event loop in its own thread, and the assets stay plain synchronous code. ``attempts`` loads
that client and aiohttp (0.4 s), so only the methods that make requests import it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from backfill_assets.days import parse_day
from backfill_assets.failures import (
    BackfillError,
    PermanentFailure,
    SettingsError,
    TransientFailure,
    redacted,
)
from backfill_assets.feeds import Feed
from backfill_assets.logs import bound, with_fields
from backfill_assets.settings import TardisSettings, resolve
from backfill_assets.tardis.fallback import instruments_from_details
from backfill_assets.tardis.metadata import ExchangeDetails, Instrument, InstrumentList
from backfill_assets.tardis.pacing import shared_pace

if TYPE_CHECKING:
    from backfill_assets.tardis.attempts import Limits

T = TypeVar("T")

#: Waits double from the first to the longest; each is shortened at random by up to half.
FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 60.0
#: Entries of an answer whose faults are reported one by one.
UNREADABLE_NAMED: Final = 20

_log = logging.getLogger(__name__)
_instruments = TypeAdapter(tuple[Instrument, ...])


@dataclass(frozen=True, slots=True)
class Download:
    """A fetched file; its receiver owns it and its directory."""

    path: Path
    url: str
    bytes: int
    #: Time that its requests waited for the rate limit.
    paced_seconds: float = 0.0


class TardisClient:
    """Fetches files and metadata as the settings say; secrets are read when a request is made."""

    def __init__(self, settings: TardisSettings) -> None:
        self._settings = settings
        #: Cancels each running request for metadata.
        self._ends: set[Callable[[], None]] = set()
        self._is_stopped = False

    def stop(self) -> None:
        """End all metadata requests, present and future; their callers get ``CancelledError``."""
        self._is_stopped = True
        for end in tuple(self._ends):
            end()

    def fetch(
        self, feeds: Sequence[Feed], day: str, directory: Path
    ) -> Generator[tuple[Feed, Download | BackfillError], None, None]:
        """Fetch the files of a day, and yield each feed with its file or its failure when it is done.

        Feeds start in the order given. At most ``concurrency`` of them are being fetched or wait to be taken,
        so a slow consumer slows the downloads down instead of filling the disk. Each file lies in its own
        fresh directory below ``directory``, so it cannot be mistaken for an earlier file. Closing the
        iterator early cancels the running downloads and removes the files that were not handed over. When the
        iterator has ended, none of its threads is left.

        Yields
        ------
        tuple[Feed, Download | BackfillError]
            ``FeedAbsent`` if the vendor does not have the file, ``TransientFailure`` if the retry budget is
            spent, ``AccessRefused`` if the key does not cover the file, another ``PermanentFailure`` if the
            request was refused for good.

        Raises
        ------
        RunRefused
            There is no key, or the downloads cannot be written to disk; raised at once, and the other feeds
            are canceled.
        SettingsError
            A variable that the settings name is not set, an endpoint is not a URL, or it holds a password
            beside the key.
        """
        from backfill_assets.tardis.attempts import RunRefused, connections, dataset_url, download_once

        parse_day(day)
        endpoint, key = (
            self._endpoint("datasets_endpoint", resolve(self._settings.datasets_endpoint)),
            resolve(self._settings.api_key),
        )
        directory.mkdir(parents=True, exist_ok=True)
        results: queue.SimpleQueue[tuple[Feed, Download | BackfillError] | None] = queue.SimpleQueue()
        unclaimed: set[Path] = set()

        slots = asyncio.Semaphore(self._settings.concurrency)
        loops: list[asyncio.AbstractEventLoop] = []

        async def one(feed: Feed) -> None:
            # Returned when the consumer asks for the next result.
            await slots.acquire()
            folder = Path(tempfile.mkdtemp(prefix=f"{feed.exchange}-{feed.data_type}-", dir=directory))
            unclaimed.add(folder)
            result: Download | BackfillError
            try:
                path, paced = await self._patiently(
                    endpoint,
                    lambda limits: download_once(endpoint, key, feed, day, folder, limits=limits),
                )
                url = redacted(dataset_url(endpoint, feed, day), key, base=endpoint)
                result = Download(path, url, path.stat().st_size, round(paced, 3))
            except RunRefused:
                raise
            except BackfillError as failure:
                result = failure
            results.put((feed, result))

        async def named(feed: Feed) -> None:
            with bound(day=day, feed=str(feed)):
                await one(feed)

        async def all_of_them() -> None:
            loops.append(asyncio.get_running_loop())
            try:
                async with (
                    connections(self._settings.concurrency),
                    asyncio.TaskGroup() as group,
                ):
                    for feed in feeds:
                        group.create_task(named(feed))
            except ExceptionGroup as failures:
                # The first failure is as good as the others: a refused key is refused for each feed.
                raise failures.exceptions[0] from None
            finally:
                results.put(None)

        try:
            with _in_background(all_of_them()) as (done, _):
                while (item := results.get()) is not None:
                    if isinstance(item[1], Download):
                        unclaimed.discard(item[1].path.parent)
                    yield item
                    with suppress(RuntimeError):  # The last feed is done, and the loop is closed.
                        loops[0].call_soon_threadsafe(slots.release)
                done.result()
        finally:
            for folder in unclaimed:
                shutil.rmtree(folder, ignore_errors=True)

    def _endpoint(self, name: str, url: str) -> str:
        """The address in the settings; an invalid one is not quoted, since it may hold a password."""
        try:
            parts = urlsplit(url)
            is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_one = False
        if url and (not is_one or re.search(r"[\s?#]", url)):
            msg = (
                f"tardis.{name} is not an http:// or https:// URL without a query: correct it in the settings"
            )
            raise SettingsError(msg)
        # A request has one Authorization header: aiohttp refuses to send the key beside a name.
        if url and "@" in parts.netloc and resolve(self._settings.api_key):
            msg = (
                f"tardis.{name} holds a name or password, and a request cannot carry it beside the key: "
                f"take name and password out of tardis.{name}, or tardis.api_key out of the settings"
            )
            raise SettingsError(msg)
        return url

    def redacted(self, text: str) -> str:
        """The text without key and tokens, for texts that quote the vendor's files."""
        endpoint = resolve(self._settings.datasets_endpoint)
        return redacted(text, resolve(self._settings.api_key), base=endpoint)

    def exchange_details(self, exchange: str) -> ExchangeDetails:
        """Fetch the vendor's description of an exchange; no key is needed.

        Raises
        ------
        PermanentFailure
            The vendor does not know the exchange, or answers in an unknown form.
        TransientFailure
            The retry budget is spent.
        """
        from backfill_assets.tardis.attempts import details_once

        endpoint = self._endpoint("api_endpoint", resolve(self._settings.api_endpoint))
        answer, _ = self._wait_for(
            self._patiently(endpoint, lambda limits: details_once(endpoint, exchange, limits=limits))
        )
        details, unreadable = _readable(ExchangeDetails.model_validate, answer, f"details of {exchange}")
        return details.model_copy(update={"unreadable": unreadable})

    def instruments(self, exchange: str) -> InstrumentList:
        """List an exchange's instruments; guess them from its details if the key does not cover them.

        An unreadable entry is also guessed.
        """
        from backfill_assets.tardis.attempts import AccessRefused, instruments_once

        endpoint, key = (
            self._endpoint("api_endpoint", resolve(self._settings.api_endpoint)),
            resolve(self._settings.api_key),
        )
        try:
            answer, _ = self._wait_for(
                self._patiently(
                    endpoint, lambda limits: instruments_once(endpoint, key, exchange, limits=limits)
                )
            )
        except AccessRefused as refused:
            _log.info("instruments of %s come from the exchange details: %s", exchange, refused)
            return instruments_from_details(self.exchange_details(exchange))
        found, unreadable = _readable(_instruments.validate_python, answer, f"instruments of {exchange}")
        if unreadable:
            known = {instrument.dataset_symbol for instrument in found}
            guessed = instruments_from_details(self.exchange_details(exchange)).instruments
            found += tuple(i for i in guessed if i.dataset_symbol not in known)
        return InstrumentList(source="instruments", instruments=found, unreadable=unreadable)

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        with _in_background(work) as (done, end):
            self._ends.add(end)
            try:
                # A thread that was between two requests when the client stopped makes the second in vain.
                if self._is_stopped:
                    end()
                return done.result()
            finally:
                self._ends.discard(end)

    async def _patiently(self, endpoint: str, attempt: Callable[[Limits], Awaitable[T]]) -> tuple[T, float]:
        """Repeat an attempt while its failure is transient and the retry budget lasts.

        Returns its result, and the seconds that the rate limit added. The budget covers attempts and the
        waits between them, but not the rate limit's delays; a budget of 0 means one attempt. Each attempt is
        given its time limit in seconds. If every attempt has returned the same bytes and they are not a file,
        a retry is not expected to return others.
        """
        from backfill_assets.tardis.attempts import Limits, NoAnswerInTime, NoGzip

        settings = self._settings
        budget, clock = settings.retry_budget_seconds, asyncio.get_running_loop().time
        deadline = clock() + (budget or settings.timeout_seconds)
        tries = 0
        latest: TransientFailure | None = None
        contents = list[str]()
        # The vendor's two hosts are one source with one limit.
        source = urlsplit(endpoint).netloc.rpartition("@")[2] or "tardis.dev"
        paced = 0.0
        while True:
            pause = await shared_pace(settings.requests_per_minute, source).start()
            paced += pause
            deadline += pause
            left = deadline - clock()
            if latest is not None and left <= 0:
                # The wait took longer than planned: an attempt without time would hide the reason.
                raise _spent(latest, tries, 0.0, budget, contents) from latest
            tries += 1
            limit = min(settings.timeout_seconds, left)
            limits = Limits(settings.connect_timeout_seconds, settings.read_timeout_seconds, limit)
            try:
                return await attempt(limits), paced
            except TransientFailure as failure:
                if latest and isinstance(failure, NoAnswerInTime) and limit < settings.timeout_seconds:
                    # The budget cut this attempt short: the failure before it says why there is no answer.
                    raise _spent(latest, tries, 0.0, budget, contents) from failure
                wait = max(_backoff(tries), failure.retry_after_seconds or 0)
                contents.append(failure.content if isinstance(failure, NoGzip) else "")
                if budget == 0 or clock() + wait >= deadline:
                    raise _spent(failure, tries, wait, budget, contents) from failure
                _log.warning("%s; trying again in %.1f s", failure, wait)
                latest = failure
                await asyncio.sleep(wait)


def _spent(
    failure: TransientFailure, tries: int, wait: float, budget: float, contents: Sequence[str]
) -> BackfillError:
    """The failure of a spent budget; permanent if every answer was the same and not a file.

    ``contents`` are the hashes of the answers, empty for attempts without one.
    """
    if len(contents) > 1 and contents[0] and len(set(contents)) == 1:
        msg = f"{failure}; the same bytes came {len(contents)} times: look at that address"
        return PermanentFailure(msg)
    gave_up = (
        f"; gave up after {'1 attempt' if tries == 1 else f'{tries} attempts'}, as "
        f"another {wait:.0f} s would exceed tardis.retry_budget_seconds ({budget:g})"
    )
    return TransientFailure(f"{failure}{gave_up if budget else ''}", retry_after_seconds=wait)


def _backoff(tries: int) -> float:
    longest = min(FIRST_WAIT_SECONDS * 2 ** (tries - 1), LONGEST_WAIT_SECONDS)
    return random.uniform(longest / 2, longest)


@contextmanager
def _in_background(work: Coroutine[Any, Any, T]) -> Iterator[tuple[Future[T], Callable[[], None]]]:
    """Run a coroutine on an event loop in its own thread, even if the caller already has a loop.

    The block has the future result, and a function that cancels the running work. Leaving the block calls it
    and waits for the thread's end.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()

    async def main() -> T:
        started.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    def end() -> None:
        loop, task = started.result()
        if task is not None:
            with suppress(RuntimeError):  # The loop has ended and is closed.
                loop.call_soon_threadsafe(task.cancel)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tardis") as pool:
        done = pool.submit(with_fields(asyncio.run), main())
        try:
            yield done, end
        finally:
            end()


def _readable(validate: Callable[[Any], T], answer: Any, what: str) -> tuple[T, tuple[str, ...]]:
    """Return the answer without the unreadable entries of its lists, and the faults of those entries.

    Raises
    ------
    PermanentFailure
        The answer itself, not only entries of its lists, has an unknown form.
    """
    try:
        return validate(answer), ()
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
    odd: dict[tuple[int | str, ...], str] = {}
    for problem in problems:
        place = problem["loc"]
        entry = next((n for n, part in enumerate(place) if isinstance(part, int)), None)
        text = ": ".join(filter(None, (".".join(map(str, place)), problem["msg"])))
        if entry is None:
            msg = f"Tardis sent the {what} in an unknown form: {text}: update backfill_assets"
            raise PermanentFailure(msg)
        odd.setdefault(place[: entry + 1], f"{what}: {text}")
    for place in sorted(odd, key=lambda place: place[-1], reverse=True):
        entries = answer
        for part in place[:-1]:
            entries = entries[part]
        del entries[place[-1]]
    more = [f"{what}: {len(odd) - UNREADABLE_NAMED} more"] if len(odd) > UNREADABLE_NAMED else []
    return validate(answer), (*list(odd.values())[:UNREADABLE_NAMED], *more)
