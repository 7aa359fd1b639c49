"""The Tardis client: many feeds at once, metadata, and the patience to get them.

How often, how fast and how long to ask is decided here; one request and the meaning of its failure is
``attempts``. The official client downloads a day's files one after the other, so it is called once per feed,
many at a time, on an event loop in a thread of its own: the assets stay plain synchronous code. ``attempts``
loads that client and aiohttp (0.4 s), so only the methods that ask import it.
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
from typing import Any, Final, TypeVar
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
from backfill_assets.settings import TardisSettings, resolve
from backfill_assets.tardis.fallback import instruments_from_details
from backfill_assets.tardis.metadata import ExchangeDetails, Instrument, InstrumentList
from backfill_assets.tardis.pacing import shared_pace

T = TypeVar("T")

#: Waits double from the first to the longest; each is shortened at random by up to half.
FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 60.0
#: Entries of an answer whose faults are told one by one.
UNREADABLE_NAMED: Final = 20

_log = logging.getLogger(__name__)
_instruments = TypeAdapter(tuple[Instrument, ...])


@dataclass(frozen=True, slots=True)
class Download:
    """A fetched file; whoever receives it owns it and its directory."""

    path: Path
    url: str
    bytes: int


class TardisClient:
    """Fetches files and metadata as the settings say; secrets are read when something is fetched."""

    def __init__(self, settings: TardisSettings) -> None:
        self._settings = settings

    def fetch(
        self, feeds: Sequence[Feed], day: str, directory: Path
    ) -> Generator[tuple[Feed, Download | BackfillError], None, None]:
        """Fetch the files of a day, and yield each feed with its file or its failure as it is done.

        Feeds start in the order given, at most ``concurrency`` at once. Each file lies in a fresh directory
        of its own below ``directory``, so that no earlier file can be mistaken for it. Closing the iterator
        early cancels what still runs and removes what was not handed over; when it has ended, no thread of
        it is left.

        Yields
        ------
        tuple[Feed, Download | BackfillError]
            ``FeedAbsent`` where the vendor has no such file, ``TransientFailure`` where the retry budget is
            spent, ``AccessRefused`` where the key does not cover the file, another ``PermanentFailure`` where
            the request was refused for good.

        Raises
        ------
        RunRefused
            There is no key, or the disk permits no download: at once, the other feeds are cancelled.
        SettingsError
            A variable that the settings name is not set, an endpoint is no URL, or it holds a password beside
            the key.
        """
        from backfill_assets.tardis.attempts import RunRefused, dataset_url, download_once

        parse_day(day)
        endpoint, key = (
            self._endpoint("datasets_endpoint", resolve(self._settings.datasets_endpoint)),
            resolve(self._settings.api_key),
        )
        directory.mkdir(parents=True, exist_ok=True)
        results: queue.SimpleQueue[tuple[Feed, Download | BackfillError] | None] = queue.SimpleQueue()
        unclaimed: set[Path] = set()

        async def one(feed: Feed, slots: asyncio.Semaphore) -> None:
            async with slots:
                folder = Path(tempfile.mkdtemp(prefix=f"{feed.exchange}-{feed.data_type}-", dir=directory))
                unclaimed.add(folder)
                result: Download | BackfillError
                try:
                    path = await self._patiently(
                        lambda limit: download_once(endpoint, key, feed, day, folder, limit_seconds=limit)
                    )
                    url = redacted(dataset_url(endpoint, feed, day), key)
                    result = Download(path, url, path.stat().st_size)
                except RunRefused:
                    raise
                except BackfillError as failure:
                    result = failure
            results.put((feed, result))

        async def all_of_them() -> None:
            slots = asyncio.Semaphore(self._settings.concurrency)
            try:
                async with asyncio.TaskGroup() as group:
                    for feed in feeds:
                        group.create_task(one(feed, slots))
            except ExceptionGroup as failures:
                # The first is as good as the others: a refused key is refused for each of them.
                raise failures.exceptions[0] from None
            finally:
                results.put(None)

        try:
            with _in_background(all_of_them()) as done:
                while (item := results.get()) is not None:
                    if isinstance(item[1], Download):
                        unclaimed.discard(item[1].path.parent)
                    yield item
                done.result()
        finally:
            for folder in unclaimed:
                shutil.rmtree(folder, ignore_errors=True)

    def _endpoint(self, name: str, url: str) -> str:
        """The address of the settings, which is not quoted where it is none: it may hold a password."""
        try:
            parts = urlsplit(url)
            is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_one = False
        if url and (not is_one or re.search(r"[\s?#]", url)):
            msg = f"tardis.{name} is no http:// or https:// URL without a query: correct it in the settings"
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
        """The text without the key, for texts that quote the vendor's files."""
        return redacted(text, resolve(self._settings.api_key))

    def exchange_details(self, exchange: str) -> ExchangeDetails:
        """Say what the vendor has of an exchange; needs no key.

        Raises
        ------
        PermanentFailure
            The vendor knows no such exchange, or answers in a form that is not known.
        TransientFailure
            The retry budget is spent.
        """
        from backfill_assets.tardis.attempts import details_once

        endpoint = self._endpoint("api_endpoint", resolve(self._settings.api_endpoint))
        answer = _wait_for(
            self._patiently(lambda limit: details_once(endpoint, exchange, limit_seconds=limit))
        )
        details, unreadable = _readable(ExchangeDetails.model_validate, answer, f"details of {exchange}")
        return details.model_copy(update={"unreadable": unreadable})

    def instruments(self, exchange: str) -> InstrumentList:
        """List an exchange's instruments; guessed from its details where the key does not cover them.

        An entry that cannot be read is guessed, too.
        """
        from backfill_assets.tardis.attempts import AccessRefused, instruments_once

        endpoint, key = (
            self._endpoint("api_endpoint", resolve(self._settings.api_endpoint)),
            resolve(self._settings.api_key),
        )
        try:
            answer = _wait_for(
                self._patiently(lambda limit: instruments_once(endpoint, key, exchange, limit_seconds=limit))
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

    async def _patiently(self, attempt: Callable[[float], Awaitable[T]]) -> T:
        """Repeat an attempt while its failure is transient and the retry budget lasts.

        The budget covers attempts and the waits between them, not what the rate limit adds; a budget of 0
        means one attempt. An attempt is given the seconds that it may take.
        """
        from backfill_assets.tardis.attempts import NoAnswerInTime

        budget, clock = self._settings.retry_budget_seconds, asyncio.get_running_loop().time
        deadline = clock() + (budget or self._settings.timeout_seconds)
        tries = 0
        latest: TransientFailure | None = None
        while True:
            pause = shared_pace(self._settings.requests_per_minute).reserve()
            await asyncio.sleep(pause)
            deadline += pause
            left = deadline - clock()
            if latest is not None and left <= 0:
                # The wait took longer than it was meant to: an attempt without time would hide the reason.
                raise _spent(latest, tries, 0.0, budget) from latest
            tries += 1
            limit = min(self._settings.timeout_seconds, left)
            try:
                return await attempt(limit)
            except TransientFailure as failure:
                if latest and isinstance(failure, NoAnswerInTime) and limit < self._settings.timeout_seconds:
                    # The budget cut this attempt short: the failure before it says why there is no answer.
                    raise _spent(latest, tries, 0.0, budget) from failure
                wait = max(_backoff(tries), failure.retry_after_seconds or 0)
                if budget == 0 or clock() + wait >= deadline:
                    raise _spent(failure, tries, wait, budget) from failure
                _log.warning("%s; trying again in %.1f s", failure, wait)
                latest = failure
                await asyncio.sleep(wait)


def _spent(failure: TransientFailure, tries: int, wait: float, budget: float) -> TransientFailure:
    msg = (
        f"{failure}; gave up after {'1 attempt' if tries == 1 else f'{tries} attempts'}, as "
        f"another {wait:.0f} s would exceed tardis.retry_budget_seconds ({budget:g})"
    )
    return TransientFailure(msg, retry_after_seconds=wait)


def _backoff(tries: int) -> float:
    longest = min(FIRST_WAIT_SECONDS * 2 ** (tries - 1), LONGEST_WAIT_SECONDS)
    return random.uniform(longest / 2, longest)


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    with _in_background(work) as done:
        return done.result()


@contextmanager
def _in_background(work: Coroutine[Any, Any, T]) -> Iterator[Future[T]]:
    """Run a coroutine on an event loop in its own thread, also where the caller has a loop already.

    Leaving the block cancels what still runs and waits for the thread's end.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()

    async def main() -> T:
        started.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tardis") as pool:
        done = pool.submit(asyncio.run, main())
        try:
            yield done
        finally:
            loop, task = started.result()
            if task is not None:
                with suppress(RuntimeError):  # The loop has ended and is closed.
                    loop.call_soon_threadsafe(task.cancel)


def _readable(validate: Callable[[Any], T], answer: Any, what: str) -> tuple[T, tuple[str, ...]]:
    """The answer without the entries of its lists that cannot be read, and what is wrong with these.

    Raises
    ------
    PermanentFailure
        Not only entries of lists are of an unknown form, but the answer itself.
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
            msg = f"Tardis answered the {what} in an unknown form: {text}: update backfill_assets"
            raise PermanentFailure(msg)
        odd.setdefault(place[: entry + 1], f"{what}: {text}")
    for place in sorted(odd, key=lambda place: place[-1], reverse=True):
        entries = answer
        for part in place[:-1]:
            entries = entries[part]
        del entries[place[-1]]
    more = [f"{what}: {len(odd) - UNREADABLE_NAMED} more"] if len(odd) > UNREADABLE_NAMED else []
    return validate(answer), (*list(odd.values())[:UNREADABLE_NAMED], *more)
