"""The catalog of the generated market: venues, pairs, grids, activity, and the known quirks of each venue."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

from backfill_assets.standins.listings import Listing, Stream

_BOOKS: Final = ("quotes", "book_snapshot_5", "book_snapshot_25", "incremental_book_L2")

#: A listed day on which SOL-USDT has no trade at Coinbase and Kraken.
SILENT_DAY: Final = "2024-01-05"
#: From this day on Kraken's XBT is BTC, and its trades carry numeric ids.
KRAKEN_RENAME: Final = "2026-07-10"

#: Price decimals (current) and amount decimals per venue and coin.
_GRIDS: Final = {
    "binance": {"BTC": (2, 5), "ETH": (2, 4), "ADA": (4, 1), "SOL": (2, 3)},
    "coinbase": {"BTC": (2, 8), "ETH": (2, 8), "ADA": (4, 8), "SOL": (2, 8)},
    "kraken": {"BTC": (1, 8), "ETH": (2, 8), "ADA": (6, 8), "SOL": (2, 8)},
    "binance-futures": {"BTC": (1, 3), "ETH": (2, 3)},
}
_ROWS: Final = {
    "binance": {"BTC": 80_000, "ETH": 50_000, "ADA": 20_000, "SOL": 30_000},
    "coinbase": {"BTC": 40_000, "ETH": 30_000, "ADA": 20_000, "SOL": 20_000},
    "kraken": {"BTC": 24_000, "ETH": 20_000, "ADA": 5_000, "SOL": 6_000},
    "binance-futures": {"BTC": 80_000, "ETH": 60_000},
}
_SINCE: Final = {"BTC": "2019-03-30", "ETH": "2019-03-30", "ADA": "2019-03-30", "SOL": "2021-06-17"}


def _binance(base: str) -> Stream:
    price_decimals, amount_decimals = _GRIDS["binance"][base]
    listing = Listing(
        exchange="binance",
        native_id=f"{base}USDT".lower(),
        dataset_symbol=f"{base}USDT",
        column_symbol=f"{base}USDT",
        base=base,
        quote="USDT",
        type="spot",
        since=_SINCE[base],
        data_types=("trades", "book_ticker", *_BOOKS),
        price_decimals=price_decimals,
        amount_decimals=amount_decimals,
        grid_until=(("2023-02-01", 5),) if base == "ADA" else (),
    )
    return Stream((listing,), _ROWS["binance"][base], id_base=13_000_000, millisecond_times=True)


def _coinbase(base: str) -> Stream:
    price_decimals, amount_decimals = _GRIDS["coinbase"][base]
    name = f"{base}-USDT"
    listing = Listing(
        exchange="coinbase",
        native_id=name,
        dataset_symbol=name,
        column_symbol=name,
        base=base,
        quote="USDT",
        type="spot",
        since=_SINCE[base],
        data_types=("trades", *_BOOKS),
        price_decimals=price_decimals,
        amount_decimals=amount_decimals,
        maker_fee=0.004,
        taker_fee=0.006,
    )
    silent = frozenset({SILENT_DAY}) if base == "SOL" else frozenset()
    return Stream((listing,), _ROWS["coinbase"][base], id_base=500_000, premium_bp=0.4, silent_days=silent)


def _kraken(base: str) -> Stream:
    price_decimals, amount_decimals = _GRIDS["kraken"][base]

    def listing(name: str, since: str, to: str | None) -> Listing:
        return Listing(
            exchange="kraken",
            native_id=f"{name}/USDT",
            dataset_symbol=f"{name}-USDT",
            column_symbol=f"{name}/USDT",
            base=base,
            quote="USDT",
            type="spot",
            since=since,
            to=to,
            data_types=("trades", *_BOOKS),
            price_decimals=price_decimals,
            amount_decimals=amount_decimals,
            maker_fee=0.0016,
            taker_fee=0.0026,
        )

    since = max(_SINCE[base], "2019-06-04")
    listings: tuple[Listing, ...] = (listing(base, since, None),)
    if base == "BTC":
        listings = (listing("XBT", since, KRAKEN_RENAME), listing("BTC", KRAKEN_RENAME, None))
    return Stream(
        listings,
        _ROWS["kraken"][base],
        numeric_since=KRAKEN_RENAME,
        quiet_share=0.12 if base == "ADA" else 0.01,
        unknown_side_share=0.005,
        premium_bp=-0.4,
        silent_days=frozenset({SILENT_DAY}) if base == "SOL" else frozenset(),
    )


def _futures(base: str) -> Stream:
    price_decimals, amount_decimals = _GRIDS["binance-futures"][base]
    listing = Listing(
        exchange="binance-futures",
        native_id=f"{base}USDT".lower(),
        dataset_symbol=f"{base}USDT",
        column_symbol=f"{base}USDT",
        base=base,
        quote="USDT",
        type="perpetual",
        since="2019-11-17",
        data_types=("trades", "book_ticker", *_BOOKS, "derivative_ticker", "liquidations"),
        price_decimals=price_decimals,
        amount_decimals=amount_decimals,
        maker_fee=0.0002,
        taker_fee=0.0004,
        details=(
            ("settlementCurrency", "USDT"),
            ("contractType", "linear_perpetual"),
            ("inverse", False),
            ("contractMultiplier", 1),
        ),
    )
    return Stream(
        (listing,),
        _ROWS["binance-futures"][base],
        id_base=4_000_000,
        id_holes=0.001,
        zero_rows=2,
        millisecond_times=True,
        premium_bp=1.5,
    )


OPTION_STRIKES: Final = (20_000, 30_000, 40_000, 50_000, 60_000, 80_000)
_OPTION_LIFE_DAYS: Final = 180


def _last_friday(year: int, month: int) -> date:
    first_of_next = date(year + month // 12, month % 12 + 1, 1)
    last = first_of_next - timedelta(days=1)
    return last - timedelta(days=(last.weekday() - 4) % 7)


def _options() -> tuple[Listing, ...]:
    """Deribit's quarterly BTC options, listed half a year before they expire."""
    listings: list[Listing] = []
    for year in range(2020, 2029):
        for month in (3, 6, 9, 12):
            expiry = _last_friday(year, month)
            since = (expiry - timedelta(days=_OPTION_LIFE_DAYS)).isoformat()
            to = (expiry + timedelta(days=1)).isoformat()
            expiry_name = f"{expiry.day}{expiry.strftime('%b%y').upper()}"
            for strike in OPTION_STRIKES:
                for kind in ("call", "put"):
                    name = f"BTC-{expiry_name}-{strike}-{kind[0].upper()}"
                    details = (
                        ("expiry", f"{expiry.isoformat()}T08:00:00.000Z"),
                        ("inverse", True),
                        ("contractType", f"{kind}_option"),
                        ("contractMultiplier", 1),
                        ("strikePrice", strike),
                        ("optionType", kind),
                    )
                    listings.append(
                        Listing(
                            exchange="deribit",
                            native_id=name,
                            dataset_symbol=name,
                            column_symbol=name,
                            base="BTC",
                            quote="BTC",
                            type="option",
                            since=since,
                            to=to,
                            data_types=(),
                            price_decimals=4,
                            amount_decimals=1,
                            maker_fee=0.0003,
                            taker_fee=0.0003,
                            details=details,
                        )
                    )
    return tuple(listings)


CATALOGUE: Final[tuple[Stream, ...]] = (
    *(_binance(base) for base in _GRIDS["binance"]),
    *(_coinbase(base) for base in _GRIDS["coinbase"]),
    *(_kraken(base) for base in _GRIDS["kraken"]),
    *(_futures(base) for base in _GRIDS["binance-futures"]),
)
OPTIONS: Final = _options()

#: Grouped symbols that the generated market serves: (exchange, group) -> (kind of symbol, data types).
GROUPS: Final = {
    ("binance", "SPOT"): ("spot", ("trades",)),
    ("coinbase", "SPOT"): ("spot", ("trades",)),
    ("kraken", "SPOT"): ("spot", ("trades",)),
    ("binance-futures", "PERPETUALS"): ("perpetual", ("trades",)),
    ("deribit", "OPTIONS"): ("option", ("options_chain",)),
}
