"""Checks of the arguments of Python callers: each raises ``BadInput`` in one line with the remedy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.failures import BadInput
from backfill_assets.feeds import GROUPED_SYMBOLS
from backfill_assets.yaml_files import did_you_mean

if TYPE_CHECKING:
    import polars as pl

#: Most values that a message offers.
_OFFERED: Final = 20
_EXAMPLES: Final = {"exchange": "binance", "symbol": "BTC-USDT", "data_type": "trades"}


def insist_on_type(name: str, value: object, kinds: type | tuple[type, ...], remedy: str) -> None:
    """Raise ``BadInput`` unless the value has one of the types."""
    if not isinstance(value, kinds):
        # A type is always one short line; a frame or an array as text is not.
        msg = f"{name} has type {type(value).__name__}: {remedy}"
        raise BadInput(msg)


def insist_on_texts(**given: object) -> None:
    """Raise ``BadInput`` unless each of ``exchange``, ``symbol`` and ``data_type`` is a text."""
    for name, value in given.items():
        insist_on_type(name, value, str, f"give one text, such as {_EXAMPLES[name]!r}")


def insist_on_choice(name: str, value: object, known: Collection[str]) -> None:
    """Raise ``BadInput`` unless the value is one of the known texts; suggest close ones."""
    choice = f"choose from {', '.join(known)}"
    insist_on_type(name, value, str, choice)
    if value not in known:
        msg = f"{value!r} is not a {name}; {did_you_mean(str(value), known) or choice}"
        raise BadInput(msg)


def insist_on_market(
    quality: Sequence[Mapping[str, Any]], data_type: str, exchange: str, symbol: str | None
) -> None:
    """Raise ``BadInput`` if days were run and none has the market; suggest close names."""
    if not quality:
        return
    of_type = [row for row in quality if row["data_type"] == data_type]
    types = sorted({row["data_type"] for row in quality if row["exchange"] == exchange})
    if types and data_type not in types:
        msg = f"no day of the range has {data_type} on {exchange}; it has {', '.join(types)}"
        raise BadInput(msg)
    feeds = [row for row in of_type if row["exchange"] == exchange]
    if any(symbol in (None, row["symbol"]) or row["dataset_symbol"] in GROUPED_SYMBOLS for row in feeds):
        return
    if feeds:
        about, value = f"{data_type} of {symbol!r} on {exchange}", symbol or ""
        known = sorted({row["symbol"] for row in feeds})
    else:
        about, value = f"{data_type} of an exchange {exchange!r}", exchange
        known = sorted({row["exchange"] for row in of_type})
    named = {row["dataset_symbol"]: row["symbol"] for row in feeds}
    if value in named:
        hint = f"that is the vendor's name of {named[value]}: write {named[value]}"
    else:
        hint = did_you_mean(value, known) or f"they have {', '.join(known) or 'none'}"
    msg = f"no day of the range has {about}; {hint}"
    raise BadInput(msg)


def insist_on_listed(known: pl.Series, exchange: str, symbol: str) -> None:
    """Raise ``BadInput`` unless one of the known instruments has the symbol; suggest close names."""
    if len(known) and symbol not in known:
        hint = (
            did_you_mean(symbol, known.drop_nulls().sort().to_list()) or "write BASE-QUOTE, such as BTC-USDT"
        )
        msg = f"{exchange} has no instrument {symbol!r} on a day of the range; {hint}"
        raise BadInput(msg)


def insist_on_feeds(known: pl.DataFrame, chosen: Mapping[str, str]) -> None:
    """Raise ``BadInput`` if days were run and none has a feed with these values; suggest close names.

    Parameters
    ----------
    known
        Rows of ``quality``.
    chosen
        Values by column, in the order of checking.
    """
    about: list[str] = []
    for name, value in chosen.items():
        about.append(f"{name} {value!r}")
        found = known.filter(known[name] == value)
        if known.height and not found.height:
            names = sorted(known[name].unique())
            hint = did_you_mean(value, names) or f"choose from {', '.join(names[:_OFFERED])}"
            msg = f"no day of the range has feeds of {', '.join(about)}; {hint}"
            raise BadInput(msg)
        known = found
