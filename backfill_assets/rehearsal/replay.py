"""A published day taken from the user's own lake, and the house in which it is played again.

The lake is read and never written. Its files are the versions that the day's verdicts are about; a person's
decision about a version is not replayed. The days beside it that the lake has are run first, once, and every
scenario begins with their results.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import yaml

from backfill_assets.days import shift
from backfill_assets.failures import BackfillError, BadInput
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.listing import InstrumentsManifest, load_instruments, read_table
from backfill_assets.lake.manifests import DayRecord, load_day_record
from backfill_assets.lake.store import Store, open_store
from backfill_assets.quality.settled import SettledDay, load_settled
from backfill_assets.rehearsal.encode import encode
from backfill_assets.rehearsal.environment import USUAL, Environment
from backfill_assets.rehearsal.house import ANSWER_SECONDS, House, rehearsal_market
from backfill_assets.rehearsal.replayed import ReplayedExchange, ReplayedSource, groups_of
from backfill_assets.rule_set import RULES_VERSION, ComparisonRules, FeedRules
from backfill_assets.settings import DayThresholds, Settings
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, QUALITY, TABLES
from backfill_assets.warehouse.ledger import Published
from backfill_assets.warehouse.totals import compare_totals

#: Days that can change a day's tables, in the order of their runs: the last price before a day may come from
#: a file of two days before.
_BESIDE: Final = (-2, -1, 1)
#: The stand-in serves a file at least this fast.
_BYTES_PER_SECOND: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Replay:
    """A published day, ready to be served.

    Attributes
    ----------
    beside
        Other days that are served and run before it, in the order of their runs.
    universe
        Entries of the settings that expect the feeds of these days.
    sections
        Sections of the settings that determine how the files are processed.
    baseline
        The baseline of the lake; None if it has none.
    published
        The ledger's entries of the day's tables.
    largest
        Bytes of the largest file.
    template
        A house in which the days beside it have been run.
    """

    day: str
    source: ReplayedSource
    beside: tuple[str, ...]
    universe: list[dict[str, list[str]]]
    sections: Mapping[str, object]
    baseline: bytes | None
    published: Mapping[str, Published]
    largest: int
    template: Path

    def house(
        self,
        folder: Path,
        started: Callable[[int], None] = lambda _: None,
        *,
        is_template: bool = False,
        environment: Environment = USUAL,
    ) -> ReplayHouse:
        """Return a house that serves the day; ``is_template`` if the days beside it are still to be run."""
        return ReplayHouse(self, folder, started, None if is_template else self.template, environment)

    def differences(self, store: Store, leave_out: Collection[str] = ()) -> list[str]:
        """Describe where the tables of another lake's day differ from the published ones."""
        said = []
        for table in TABLES:
            if table.name in leave_out:
                continue
            was, entry = self.published.get(table.name), ledger.entry(store, table.name, self.day)
            now = entry.published if entry and entry.state == "done" else None
            if was is None or now is None:
                if was is not now:
                    said.append(f"{table.name}: {'not published' if now is None else 'was not published'}")
                continue
            groups = _different_groups(was, now)
            # Rows of verdicts also say when each file came; all other tables are the same in every byte.
            if not groups and table is not QUALITY and was.fingerprint != now.fingerprint:
                groups = ["other rows of the same totals"]
            said += [f"{table.name}: {group}" for group in groups]
        return said


def _different_groups(was: Published, now: Published) -> list[str]:
    """Describe the groups of rows whose control totals differ."""
    before, after = ({totals.group: totals for totals in each.totals} for each in (was, now))
    return [
        " ".join(part or "-" for part in group)
        for group in sorted(before.keys() | after.keys(), key=str)
        if group not in before or group not in after or compare_totals([before[group]], [after[group]])
    ]


class ReplayHouse(House):
    """A house whose stand-in serves a published day, under the rules by which it was published."""

    def __init__(
        self,
        replay: Replay,
        folder: Path,
        started: Callable[[int], None],
        template: Path | None,
        environment: Environment,
    ) -> None:
        seconds, source = ANSWER_SECONDS + replay.largest / _BYTES_PER_SECOND, replay.source
        super().__init__(
            folder, rehearsal_market(), (), seconds, started, source=source, environment=environment
        )
        self.replay = replay
        self._template = template

    def __enter__(self) -> Self:
        super().__enter__()
        if self._template is not None:
            for name in (self.lake.name, self.warehouse.name):
                if (self._template / name).exists():
                    shutil.copytree(self._template / name, self.folder / name)
        elif self.replay.baseline is not None:
            self.store.replace(paths.baseline(), self.replay.baseline, None)
        return self

    def _content(self) -> dict[str, object]:
        return {**super()._content(), **self.replay.sections, "universe": self.replay.universe}

    def feeds(self, day: str) -> list[Feed]:
        """Every feed of trades that has a file."""
        return self.replay.source.feeds(day)

    def file(self, feed: Feed, day: str) -> bytes:
        """The feed's file as the stand-in has it."""
        return self.replay.source.dataset(feed, day).read_bytes()


def take_out(settings: Settings, day: str, folder: Path) -> Replay:
    """Read a published day from the lake of the settings, and write its files into a folder.

    Raises
    ------
    BadInput
        The day is not published, or a version counts by a person's decision.
    BackfillError
        The lake cannot be read.
    """
    store = open_store(settings.lake)
    published = _published(store, day)
    around = {d: _recorded(store, d) for d in (shift(day, n) for n in _BESIDE)}
    days = {day: _recorded(store, day), **around}
    known = {d: both for d, both in days.items() if both is not None}
    _insist_on_verdicts(day, known)
    files = _files(store, known, folder / "files")
    return Replay(
        day=day,
        source=ReplayedSource(_exchanges(store, day, known), files, max(known)),
        beside=tuple(d for d in around if d in known),
        universe=_universe([record for record, _ in known.values()]),
        sections=_sections(settings, folder),
        baseline=stored.data if (stored := store.read(paths.baseline())) else None,
        published=published,
        largest=max((file.stat().st_size for file in files.values()), default=0),
        template=folder / "template",
    )


def prepare(replay: Replay) -> None:
    """Run the days beside it; every house begins with their results.

    Raises
    ------
    BackfillError
        A run fails.
    """
    with replay.house(replay.template, is_template=True) as house:
        for day in replay.beside:
            run = house.run(day)
            if run.code is None:
                msg = f"the run of {day}, beside the replayed day, took too long"
                raise BackfillError(msg)


def _published(store: Store, day: str) -> dict[str, Published]:
    entries = {table.name: ledger.entry(store, table.name, day) for table in TABLES}
    found = {name: entry.published for name, entry in entries.items() if entry and entry.published}
    unfinished = [name for name, entry in entries.items() if entry and entry.state != "done"]
    if CANDLES.name not in found or unfinished:
        why = f"{unfinished[0]} is not" if unfinished else "it is not"
        msg = f"{day} cannot be replayed, since {why} published: choose a published day of {store.uri}"
        raise BadInput(msg)
    return found


def _recorded(store: Store, day: str) -> tuple[DayRecord, SettledDay] | None:
    """The day's expected feeds and its verdicts; None if it was not run that far."""
    record, settled = load_day_record(store, day), load_settled(store, day)
    return (record, settled) if record is not None and settled is not None else None


def _insist_on_verdicts(day: str, known: Mapping[str, tuple[DayRecord, SettledDay]]) -> None:
    if day not in known:
        msg = f"{day} cannot be replayed, since its verdicts are gone: run the day again"
        raise BadInput(msg)
    for d, (_, settled) in sorted(known.items()):
        decided = [feed.feed for feed in settled.feeds if feed.approval or feed.retraction]
        if decided:
            msg = (
                f"{day} cannot be replayed, since a person has decided about {decided[0]} of {d}: "
                "choose another day"
            )
            raise BadInput(msg)


def _files(
    store: Store, known: Mapping[str, tuple[DayRecord, SettledDay]], folder: Path
) -> dict[tuple[Feed, str], Path]:
    """Return the vendor's file of every version that has a verdict."""
    folder.mkdir(parents=True)
    files: dict[tuple[Feed, str], Path] = {}
    for day, (_, settled) in known.items():
        for feed in settled.feeds:
            if (version := feed.judged) is None:
                continue
            target = folder / f"{len(files)}.csv.gz"
            with store.local_copy(paths.ticks_data(feed.feed, day, version.content)) as source:
                encode(source, target, feed.feed.data_type, generated=version.generated)
            files[feed.feed, day] = target
    return files


def _exchanges(
    store: Store, day: str, known: Mapping[str, tuple[DayRecord, SettledDay]]
) -> dict[str, ReplayedExchange]:
    # The replayed day goes first: if several days have an instrument, its values count.
    days = sorted(known, key=lambda d: (d != day, d))
    manifests: dict[str, list[InstrumentsManifest]] = {}
    for d in days:
        for exchange in known[d][0].exchanges:
            if (manifest := load_instruments(store, exchange, d)) is not None:
                manifests.setdefault(exchange, []).append(manifest)
    return {exchange: _exchange(store, found, known) for exchange, found in manifests.items()}


def _exchange(
    store: Store,
    manifests: Sequence[InstrumentsManifest],
    known: Mapping[str, tuple[DayRecord, SettledDay]],
) -> ReplayedExchange:
    rows: dict[str, Mapping[str, object]] = {}
    for manifest in manifests:
        for row in read_table(store, manifest).to_pylist():
            rows.setdefault(row["dataset_symbol"], row)
    feeds = [e.feed for record, _ in known.values() for e in record.expected_feeds]
    return ReplayedExchange(
        rows=tuple(rows.values()),
        has_instruments=manifests[0].source == "instruments",
        outages=tuple(dict.fromkeys(outage for manifest in manifests for outage in manifest.outages)),
        groups=groups_of([feed for feed in feeds if feed.exchange == manifests[0].exchange]),
    )


def _universe(records: Sequence[DayRecord]) -> list[dict[str, list[str]]]:
    """Entries of the settings that expect exactly the feeds that the days were expected to have."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for record in records:
        for expected in record.expected_feeds:
            feed = expected.feed
            names = {feed.dataset_symbol} if feed.is_grouped else {name for _, name in expected.symbols}
            wanted.setdefault((feed.exchange, feed.data_type), set()).update(names)
    return [
        {"exchanges": [exchange], "data_types": [data_type], "symbols": sorted(names)}
        for (exchange, data_type), names in sorted(wanted.items())
    ]


def _sections(settings: Settings, folder: Path) -> dict[str, object]:
    """Timeframes and thresholds of the settings, with their rules and laws in files of the replay's own."""
    thresholds = settings.thresholds.model_dump(mode="json", include=set(DayThresholds.model_fields))
    rules = settings.thresholds.model_dump(mode="json", include=set(FeedRules.model_fields))
    comparison = settings.comparison.model_dump(mode="json", include=set(ComparisonRules.model_fields))
    laws = [law.model_dump(mode="json", exclude_none=True) for law in settings.thresholds.id_laws]
    contents: dict[str, dict[str, object]] = {
        "rules": {"version": RULES_VERSION, "comparison": comparison, **rules},
        "id_laws": {"version": 1, "laws": laws},
    }
    for name, content in contents.items():
        thresholds[name] = str(folder / f"{name}.yaml")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return {"candles": settings.candles.model_dump(mode="json"), "thresholds": thresholds}
