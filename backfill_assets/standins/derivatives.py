"""Derivative tickers, liquidations and option chains of the generated market, with realistic empty cells."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from backfill_assets.days import MICROSECONDS_PER_DAY, start_us
from backfill_assets.standins.books import arrival_times
from backfill_assets.standins.catalogue import OPTIONS
from backfill_assets.standins.csvtext import js_number
from backfill_assets.standins.listings import Listing
from backfill_assets.standins.prices import Floats, generator, reference_at

_TICKER_ROWS: Final = 2_880
_LIQUIDATIONS: Final = 60
_ROWS_PER_OPTION: Final = 144
_FUNDING_US: Final = 8 * 3_600 * 1_000_000


def _decimal(values: Floats, decimals: int) -> pl.Series:
    """Return the text of signed numbers, rounded."""
    units = pl.Series(np.rint(values * 10**decimals).astype(np.int64))
    sign = pl.when(pl.col("u") < 0).then(pl.lit("-")).otherwise(pl.lit(""))
    return pl.DataFrame({"u": units}).select(sign + js_number(pl.col("u").abs(), decimals)).to_series()


def derivative_ticker_frame(seed: int, listing: Listing, day: str) -> pl.DataFrame:
    """Funding, open interest and prices of a perpetual; the predicted rate is often empty."""
    rng = generator(seed, "derivative_ticker", listing.exchange, listing.canonical, day)
    local, stamped = arrival_times(rng, listing, "derivative_ticker", day, _TICKER_ROWS)
    index = reference_at(seed, listing.base, day, local)
    mark = index * (1 + 1.5e-4 + rng.standard_normal(len(local)) * 1e-5)
    decimals = listing.price_decimals
    predicted = _decimal(1e-4 + rng.standard_normal(len(local)) * 2e-5, 8)
    empty = pl.Series(rng.random(len(local)) < 0.3)
    return pl.DataFrame(
        {
            "exchange": listing.exchange,
            "symbol": listing.column_symbol,
            "timestamp": stamped,
            "local_timestamp": local,
            "funding_timestamp": (stamped // _FUNDING_US + 1) * _FUNDING_US,
            "funding_rate": _decimal(1e-4 + rng.standard_normal(len(local)) * 2e-5, 8),
            "predicted_funding_rate": predicted.set(empty, None),
            "open_interest": _decimal(80_000 + np.cumsum(rng.standard_normal(len(local))), 3),
            "last_price": _decimal(mark, decimals),
            "index_price": _decimal(index, 8),
            "mark_price": _decimal(mark, 8),
        }
    )


def liquidations_frame(seed: int, listing: Listing, day: str) -> pl.DataFrame:
    """Liquidations; the venue gives them no id."""
    rng = generator(seed, "liquidations", listing.exchange, listing.canonical, day)
    local, stamped = arrival_times(rng, listing, "liquidations", day, _LIQUIDATIONS)
    price = reference_at(seed, listing.base, day, local)
    amount = np.maximum(10.0**-listing.amount_decimals, 3_000 * rng.standard_exponential(len(local)) / price)
    return pl.DataFrame(
        {
            "exchange": listing.exchange,
            "symbol": listing.column_symbol,
            "timestamp": stamped,
            "local_timestamp": local,
            "id": pl.Series([None] * len(local), dtype=pl.String),
            "side": pl.Series(["buy", "sell"]).gather(rng.integers(0, 2, len(local)).astype(np.uint32)),
            "price": _decimal(price, listing.price_decimals),
            "amount": _decimal(amount, listing.amount_decimals),
        }
    )


def options_on(day: str) -> list[Listing]:
    """Options that are listed on the day and do not expire on it."""
    return [
        option for option in OPTIONS if option.listed_on(day) and str(_detail(option, "expiry"))[:10] > day
    ]


def options_chain_frame(seed: int, day: str) -> pl.DataFrame:
    """Return all options of the day, merged by arrival; options without quotes have empty bids."""
    frames = [_option_frame(seed, option, day) for option in options_on(day)]
    return pl.concat(frames).sort("local_timestamp", maintain_order=True)


def _detail(option: Listing, name: str) -> object:
    return dict(option.details)[name]


def _option_frame(seed: int, option: Listing, day: str) -> pl.DataFrame:
    rng = generator(seed, "options_chain", option.dataset_symbol, day)
    local, stamped = arrival_times(rng, option, "options_chain", day, _ROWS_PER_OPTION)
    underlying = reference_at(seed, option.base, day, local)
    strike, kind = float(str(_detail(option, "strikePrice"))), str(_detail(option, "optionType"))
    expiry_us = start_us(str(_detail(option, "expiry"))[:10]) + 8 * 3_600 * 1_000_000
    years = (expiry_us - local) / (365 * MICROSECONDS_PER_DAY)
    sign = 1.0 if kind == "call" else -1.0
    inner = np.maximum(0.0, sign * (underlying - strike)) / underlying
    mark = inner + 0.2 * np.sqrt(years) / (1 + 8 * np.abs(underlying / strike - 1))
    ticks = np.maximum(2, np.floor(mark * 1e4))
    quoted = pl.Series(rng.random(len(local)) < 0.9)
    near = np.clip(0.5 + (underlying / strike - 1) * 2, 0.01, 0.99)

    def bid(values: pl.Series) -> pl.Series:
        return values.set(~quoted, None)

    return pl.DataFrame(
        {
            "exchange": option.exchange,
            "symbol": option.column_symbol,
            "timestamp": stamped,
            "local_timestamp": local,
            "type": kind,
            "strike_price": f"{strike:.0f}",
            "expiration": expiry_us,
            "open_interest": _decimal(100 + rng.integers(0, 5_000, len(local)) / 10, 1),
            "last_price": bid(_decimal(ticks / 1e4, 4)),
            "bid_price": bid(_decimal((ticks - 1) / 1e4, 4)),
            "bid_amount": bid(_decimal(rng.integers(1, 500, len(local)) / 10, 1)),
            "bid_iv": bid(_decimal(50 + 5 * rng.random(len(local)), 2)),
            "ask_price": _decimal((ticks + 1) / 1e4, 4),
            "ask_amount": _decimal(rng.integers(1, 500, len(local)) / 10, 1),
            "ask_iv": _decimal(56 + 5 * rng.random(len(local)), 2),
            "mark_price": _decimal(mark, 6),
            "mark_iv": _decimal(55 + rng.random(len(local)), 2),
            "underlying_index": f"SYN.{option.dataset_symbol.rsplit('-', 2)[0]}",
            "underlying_price": _decimal(underlying, 2),
            "delta": _decimal(near if kind == "call" else near - 1, 5),
            "gamma": _decimal(1e-5 + 1e-5 * rng.random(len(local)), 5),
            "vega": _decimal(20 + 40 * rng.random(len(local)), 5),
            "theta": _decimal(-10 - 20 * rng.random(len(local)), 5),
            "rho": _decimal(sign * 15 * rng.random(len(local)), 5),
        }
    )
