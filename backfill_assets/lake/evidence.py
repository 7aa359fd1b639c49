"""Evidence about a feed's versions besides the versions: decisions, comparisons, spikes, receipts.

The feed's manifest holds these records, so they are declared here. ``quality`` makes them and defines their
meaning for a version.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field

from backfill_assets.lake.documents import Document
from backfill_assets.lake.tables import DataFile
from backfill_assets.settings import RestatementSettings


class Approval(Document):
    """The decision that a version counts, regardless of its verdict and of how much it restates.

    Attributes
    ----------
    content
        sha256 of the approved Parquet file.
    rules
        Hash of all rules of the overruled verdict.
    judged_by
        Hash of the rules that judge the feed; under other rules the approval is void. Empty in approvals of
        an earlier layout, which hold under any rules, because nothing tells which of these have changed
        since.
    """

    kind: Literal["approval"] = "approval"
    content: str
    rules: str
    judged_by: str = ""
    reason: str
    approved_at: AwareDatetime


class Retraction(Document):
    """The decision that a version does not count, regardless of its verdict, until it is approved.

    Attributes
    ----------
    content
        sha256 of the withdrawn Parquet file.
    """

    kind: Literal["retraction"] = "retraction"
    content: str
    reason: str
    retracted_at: AwareDatetime


Decision = Annotated[Approval | Retraction, Field(discriminator="kind")]


class Decisions(Document):
    """The decisions on a feed's day in their own document, as an earlier layout kept them."""

    feed: str
    day: str
    decisions: tuple[Decision, ...] = ()


class Largest(Document):
    """The largest relative difference of a quantity, with its data set symbol and minute."""

    difference: float
    symbol: str
    minute_us: int

    @property
    def at(self) -> str:
        """The minute for people, such as ``2024-01-01 12:34``."""
        return datetime.fromtimestamp(self.minute_us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M")


class Restatement(Document):
    """The changes from the version ``before`` to the version ``after``.

    Attributes
    ----------
    before, after
        sha256 of the two Parquet files.
    rows_before, rows_after
        Rows of each version.
    ids_added, ids_removed
        Ids that only one of them has; null if a row of either has no numeric id.
    minutes, minutes_differing
        Minutes with rows in either file, by market, and the number of those that differ. For trades a minute
        is its base candle: open, high, low, close, volume and number of trades. For other data types it is
        its rows.
    price
        Largest relative difference of open, high, low or close of a minute that both files have; null if no
        price differs.
    volume
        Largest difference of a minute's volume, relative to the larger of that minute's volume before and the
        mean of all minutes before, so that one more trade in a thin minute does not weigh too much; null if
        no volume differs.
    """

    before: str
    after: str
    rows_before: int
    rows_after: int
    ids_added: int | None = None
    ids_removed: int | None = None
    minutes: int = 0
    minutes_differing: int = 0
    price: Largest | None = None
    volume: Largest | None = None

    @property
    def summary(self) -> str:
        """One line for people."""
        parts = [f"rows {self.rows_before:,} → {self.rows_after:,}"]
        if self.ids_added is not None and self.ids_removed is not None:
            parts.append(f"ids +{self.ids_added:,} −{self.ids_removed:,}")
        parts.append(f"{self.minutes_differing:,} of {self.minutes:,} minutes differ")
        for name, largest in (("price", self.price), ("volume", self.volume)):
            if largest is not None:
                parts.append(f"{name} by up to {largest.difference:.3%} ({largest.symbol} {largest.at})")
        return ", ".join(parts)

    def beyond(self, limits: RestatementSettings) -> tuple[str, ...]:
        """One sentence for each limit that is exceeded."""
        rows = max(abs(self.rows_after - self.rows_before), self.ids_added or 0, self.ids_removed or 0)
        found = []
        if rows > max(limits.excused, limits.rows * self.rows_before):
            share = rows / self.rows_before if self.rows_before else 1.0
            found.append(f"{rows:,} rows differ ({share:.2%}, at most {limits.rows:.2%})")
        if self.minutes_differing > max(limits.excused, limits.candles * self.minutes):
            share = self.minutes_differing / self.minutes
            found.append(
                f"{self.minutes_differing:,} of {self.minutes:,} minutes differ "
                f"({share:.2%}, at most {limits.candles:.2%})"
            )
        for name, largest, limit in (
            ("price", self.price, limits.price),
            ("volume", self.volume, limits.volume),
        ):
            if largest is not None and largest.difference > limit:
                found.append(
                    f"{name} of {largest.symbol} differs by {largest.difference:.2%} at {largest.at} "
                    f"(at most {limit:.2%})"
                )
        return tuple(found)


class SpikeEvidence(Document):
    """Witnesses' evidence on the spikes in one version's profile.

    Attributes
    ----------
    inputs
        Hash of all inputs: the witnesses' files and the settings.
    witnesses
        The witnesses that were there for at least one spike, in order.
    confirmed, refuted
        Positions in ``SymbolProfile.spikes`` by data set symbol. A confirmed price stays confirmed, even if
        the file of the witness is replaced by a worse one.
    limits
        The settings alone, under which the confirmations hold.
    """

    inputs: str
    limits: str = ""
    witnesses: tuple[str, ...] = ()
    confirmed: dict[str, tuple[int, ...]] = {}
    refuted: dict[str, tuple[int, ...]] = {}


class PricesBesideTrades(Document):
    """One price of one symbol beside the trades of its market, by minute.

    Attributes
    ----------
    column
        The price.
    minutes, outside
        Minutes in which some version of the trades had trades to compare with, and those in which the price
        was further from the trades of every such version than the tolerance.
    first
        The first minute of the day that is outside; null if none is.
    """

    dataset_symbol: str
    symbol: str
    column: str
    minutes: int
    outside: int
    first: int | None = None


class BesideTrades(Document):
    """How the prices of one version of a ticker or of liquidations lie beside the trades of its markets.

    Attributes
    ----------
    inputs
        Hash of everything that was compared: the trades' partial candles and the settings; empty where some
        of it could not be read.
    limits
        The settings alone.
    trades
        Feeds of trades whose minutes were there, in order.
    prices
        By symbol and column; a minute that was within the tolerance once stays so.
    """

    inputs: str
    limits: str = ""
    trades: tuple[str, ...] = ()
    prices: tuple[PricesBesideTrades, ...] = ()


#: The first and the last of consecutive ids.
Ids = tuple[int, int]
#: Number of digits in a receipt's name.
_NAME_DIGITS: Final = 12


class TradeRow(Document):
    """One trade by its id: exchange time in microseconds, side of the taker, price and amount."""

    id: int
    time_us: int
    side: str
    price: float
    amount: float


class Answer(Document):
    """One answer of a second source.

    Attributes
    ----------
    request
        The address of the request.
    content, bytes
        sha256 and size of the stored body; for an archive's file the body is the rows around the hole.
    whole_sha256
        sha256 of the archive's whole file; empty if the body is the whole answer.
    """

    request: str
    content: str
    bytes: int
    whole_sha256: str = ""


class Receipt(Document):
    """A second source's answer about one run of missing ids, and the conclusion from it.

    It holds for the feed's day and these ids, in any version of the file that lacks them.

    Attributes
    ----------
    source
        ``exchange``: the public trades of the exchange. ``archive``: its public daily files.
    asked
        The source and market, for people.
    first_id, last_id
        The missing ids.
    before, after
        The file's own rows around the missing ids; the answers must contain them.
    answers
        The answers in the order in which they came; with the rows around them they give the same conclusion
        again.
    never_issued
        Missing ids that the exchange itself does not have, in order.
    recovered
        Missing ids whose trades are in the answers; ``rows`` is the stored file of these trades.
    """

    source: Literal["exchange", "archive"]
    asked: str
    first_id: int
    last_id: int
    before: TradeRow
    after: TradeRow
    answers: tuple[Answer, ...]
    never_issued: tuple[Ids, ...] = ()
    recovered: tuple[Ids, ...] = ()
    rows: DataFile | None = None
    asked_at: AwareDatetime

    @property
    def name(self) -> str:
        """The first digits of its last answer, by which people find it."""
        return self.answers[-1].content[:_NAME_DIGITS]

    @property
    def ending(self) -> str:
        """The ending of the names of its stored answers."""
        return "json" if self.source == "exchange" else "csv"


class NeverIssued(Document):
    """Ids that the exchange itself does not have, and the name of the receipt that shows it."""

    first_id: int
    last_id: int
    receipt: str


class HealedRows(Document):
    """Rows of a version that are not in the vendor's file.

    Attributes
    ----------
    base
        Content of the version to which they were added.
    rows
        Number of rows of the version that come from second sources.
    sources
        The sources, in order.
    """

    base: str
    rows: int
    sources: tuple[str, ...]
