"""The vendor's CSV text: numbers as JavaScript prints them, LF, empty cells, gzip without a timestamp.

The header of each gzip file says that its content is generated, so a lake can tell generated files apart.

The column lists are written out from the contract on purpose and not imported from ``tardis.columns``: a
server that shared its client's list would share its mistakes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Final

import polars as pl

from backfill_assets.tardis.generated import GZIP_HEADER

KEY_COLUMNS: Final = ("exchange", "symbol", "timestamp", "local_timestamp")


def _levels(count: int) -> tuple[str, ...]:
    sides = ("asks[{}].price", "asks[{}].amount", "bids[{}].price", "bids[{}].amount")
    return tuple(side.format(level) for level in range(count) for side in sides)


COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    data_type: (*KEY_COLUMNS, *columns)
    for data_type, columns in {
        "trades": ("id", "side", "price", "amount"),
        "quotes": ("ask_amount", "ask_price", "bid_price", "bid_amount"),
        "book_ticker": ("ask_amount", "ask_price", "bid_price", "bid_amount"),
        "book_snapshot_5": _levels(5),
        "book_snapshot_25": _levels(25),
        "incremental_book_L2": ("is_snapshot", "side", "price", "amount"),
        "derivative_ticker": (
            "funding_timestamp",
            "funding_rate",
            "predicted_funding_rate",
            "open_interest",
            "last_price",
            "index_price",
            "mark_price",
        ),
        "liquidations": ("id", "side", "price", "amount"),
        "options_chain": (
            "type",
            "strike_price",
            "expiration",
            "open_interest",
            "last_price",
            "bid_price",
            "bid_amount",
            "bid_iv",
            "ask_price",
            "ask_amount",
            "ask_iv",
            "mark_price",
            "mark_iv",
            "underlying_index",
            "underlying_price",
            "delta",
            "gamma",
            "vega",
            "theta",
            "rho",
        ),
    }.items()
}

#: JavaScript switches to exponents below 1e-6.
_EXPONENT_BELOW_DECIMALS: Final = 6


def js_number(units: pl.Expr, decimals: int) -> pl.Expr:
    """Text of ``units / 10**decimals`` for integers >= 0, as ``Number.prototype.toString`` gives it."""
    if decimals == 0:
        return units.cast(pl.String)
    scale = 10**decimals
    whole = (units // scale).cast(pl.String)
    rest = (units % scale).cast(pl.String).str.zfill(decimals).str.strip_chars_end("0")
    text = pl.when(units % scale == 0).then(whole).otherwise(whole + "." + rest)
    tiny = 10 ** max(0, decimals - _EXPONENT_BELOW_DECIMALS)
    if tiny == 1:
        return text
    exponents = pl.Series([_exponent(count, decimals) for count in range(tiny)])
    looked_up = units.clip(0, tiny - 1).replace_strict(
        pl.Series(range(tiny), dtype=pl.Int64), exponents, return_dtype=pl.String
    )
    return pl.when(units < tiny).then(looked_up).otherwise(text)


def _exponent(units: int, decimals: int) -> str:
    if units == 0:
        return "0"
    exponent = len(str(units)) - 1 - decimals
    digits = str(units).rstrip("0")
    head, tail = digits[0], digits[1:]
    return f"{head}.{tail}e{exponent}" if tail else f"{head}e{exponent}"


class GzipText:
    """Collects CSV text and compresses it as it arrives; the same text always gives the same bytes."""

    def __init__(self) -> None:
        # Negative wbits make zlib write no gzip header; zlib's own header could not hold a comment.
        self._compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
        self._parts: list[bytes] = [GZIP_HEADER]
        self._checksum = self._length = 0

    def write(self, text: bytes) -> None:
        """Append text."""
        self._checksum, self._length = zlib.crc32(text, self._checksum), self._length + len(text)
        self._parts.append(self._compressor.compress(text))

    def finish(self) -> bytes:
        """Return the whole file."""
        self._parts.append(self._compressor.flush())
        self._parts.append(struct.pack("<LL", self._checksum, self._length & 0xFFFFFFFF))
        return b"".join(self._parts)


def gzip_csv(data_type: str, frames: Iterable[pl.DataFrame]) -> bytes:
    """Write a csv.gz file with the data type's header line and the frames' rows; null is an empty cell."""
    columns = COLUMNS[data_type]
    file = GzipText()
    file.write((",".join(columns) + "\n").encode())
    for frame in frames:
        text = frame.select(columns).write_csv(include_header=False, quote_style="never")
        file.write(text.encode())
    return file.finish()


#: The vendor's answer for a day without rows: a gzip file without content.
EMPTY_FILE: Final = GzipText().finish()
