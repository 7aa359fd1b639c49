"""Units of amounts: contracts of each instrument, by venue, kind and time.

The vendor passes amounts on as each venue gives them: base currency, quote currency, or contracts. Its
instruments metadata describe their unit: ``contractMultiplier``, ``inverse``, ``quanto``, and ``changes`` of
them over time, complete for ``contractMultiplier`` (https://docs.tardis.dev/api/instruments-metadata-api).
``VENUE_CONTRACTS`` fills gaps in them, each entry with its evidence. If neither has the unit, volumes are
unknown and stay null: a guess looks like any other number. ``ticks`` does the adding up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from backfill_assets.feeds import pair_of
from backfill_assets.venues import CURRENCY_ALIASES, DOLLARS

#: ``volume_unit`` of candles whose volumes are null.
CONTRACTS: Final = "contracts"
#: Columns of the instruments that define the unit of an amount; they may change during its life.
TERMS: Final = (
    *("type", "contract_type", "contract_multiplier", "inverse"),
    *("quanto", "settlement_currency", "quote_currency"),
)
#: Kinds whose price is not that of one unit of a base currency in a quote currency.
_WITHOUT_BASE: Final = frozenset({"combo", "prediction"})
_WITHOUT_BASE_TYPES: Final = frozenset({"spread", "interest_rate_swap", "repo", "index"})


@dataclass(frozen=True, slots=True)
class Contract:
    """The unit of an instrument's amounts.

    Attributes
    ----------
    multiplier
        Units of the base currency, or of the quote currency if ``inverse``; None if not known.
    inverse
        Whether base volume is the amount in quote currency divided by the price.
    base, quote
        Usual tickers of the currencies of volume and of quote volume; empty if not known.
    since_us
        The first moment for which the contract holds; 0 for always.
    """

    multiplier: float | None = 1.0
    inverse: bool = False
    base: str = ""
    quote: str = ""
    since_us: int = 0

    @property
    def is_known(self) -> bool:
        """Whether amounts can be converted to base and quote currency."""
        return self.multiplier is not None

    def __str__(self) -> str:
        """The terms in words: ``10 ADA of ADA-USDT``."""
        size = f"{self.multiplier:g}" if self.multiplier is not None else "an unknown number of"
        unit = (self.quote if self.inverse else self.base) or "units"
        return f"{size} {unit} of {self.base or '?'}-{self.quote or '?'}"


#: Successive contracts, each valid until the next begins.
Contracts = tuple[Contract, ...]


@dataclass(frozen=True, slots=True)
class VenueContract:
    """The contract size of a venue's instruments, used if the vendor's metadata lack it.

    Attributes
    ----------
    ids
        Pattern of the venue's own names in upper case; the groups ``base`` and ``quote`` name currencies.
    evidence
        A page of the venue, or the notional that the venue publishes with its trades.
    quote
        The quote currency, if the name does not give it.
    """

    exchange: str
    ids: str
    multiplier: float
    inverse: bool
    evidence: str
    quote: str = ""


_BINANCE_LINEAR: Final = (
    "https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api: quantity "
    "in units of the base asset"
)
_BINANCE_INVERSE: Final = (
    "Coin-margined futures contract specifications: 100 USD for BTC, 10 USD for others; contractSize of "
    "https://developers.binance.com/docs/derivatives/coin-margined-futures/market-data/rest-api/Exchange-Information"
)
_BYBIT: Final = (
    "https://bybit-exchange.github.io/docs/v5/market/kline: volume of USDT and USDC contracts is in base "
    "coin, of inverse contracts in quote coin"
)
_DERIBIT: Final = (
    "https://docs.deribit.com, public trades: for perpetual and inverse futures the amount is in USD units, "
    "for options and linear futures in the underlying base currency"
)
_HUOBI_SWAP: Final = (
    "https://www.huobi.com/support/en-us/detail/900000106046/: face value 100 USD for BTC, 10 USD for others"
)
_HUOBI_FUTURES: Final = (
    "https://www.huobi.com/support/en-us/detail/360000196662/: face value 100 USD for BTC, 10 USD for others"
)
_KRAKEN_INVERSE: Final = (
    "https://support.cryptofacilities.com/hc/en-us/articles/360008643453: sizes of inverse contracts in USD"
)
_KRAKEN_LINEAR: Final = (
    "https://support.kraken.com/articles/perpetual-contract-specifications-for-clients-in-the-eea: sizes of "
    "linear contracts in base currency"
)
_BITMEX_XBT: Final = "its trades: size 180 at 3838 has foreignNotional 180 and homeNotional 0.046899"
_BITMEX_XBTUSDT: Final = "its trades: size 1000 at 51377 has homeNotional 0.001 and foreignNotional 51.377"
_EXPIRY: Final = r"\d{1,2}[A-Z]{3}\d\d"

_PERP_OR_DATE: Final = rf"-(PERPETUAL|{_EXPIRY})"
_OPTION: Final = rf"-{_EXPIRY}-.+-[CP]"
_QUARTER: Final = r"[FGHJKMNQUVXZ]\d\d"
_HUOBI_TERM: Final = r"(_[CN][WQ]|\d{6})"


def _linear(exchange: str, ids: str, evidence: str, size: float = 1, quote: str = "") -> VenueContract:
    return VenueContract(exchange, ids, size, inverse=False, evidence=evidence, quote=quote)


def _inverse(exchange: str, ids: str, evidence: str, size: float = 1, quote: str = "") -> VenueContract:
    return VenueContract(exchange, ids, size, inverse=True, evidence=evidence, quote=quote)


#: The first match counts. Venues whose contract sizes differ or have changed are not here.
VENUE_CONTRACTS: Final = (
    _linear("binance-futures", r".+", _BINANCE_LINEAR),
    _inverse("binance-delivery", r"(?P<base>BTC)(?P<quote>USD)_.+", _BINANCE_INVERSE, 100),
    _inverse("binance-delivery", r"(?P<base>[A-Z0-9]+?)(?P<quote>USD)_.+", _BINANCE_INVERSE, 10),
    _inverse("bybit", r"(?P<base>[A-Z0-9]+)(?P<quote>USD)([HMUZ]\d\d)?", _BYBIT),
    _linear("bybit", r"(?P<base>[A-Z0-9]+)(?P<quote>USDT)(-.+)?", _BYBIT),
    _linear("bybit", rf"(?P<base>[A-Z0-9]+?)(PERP|-{_EXPIRY})", _BYBIT, quote="USDC"),
    _inverse("deribit", rf"(?P<base>[A-Z0-9]+){_PERP_OR_DATE}", _DERIBIT, quote="USD"),
    _linear("deribit", rf"(?P<base>[A-Z0-9]+)_(?P<quote>USD[CT])({_PERP_OR_DATE}|{_OPTION})", _DERIBIT),
    _linear("deribit", rf"(?P<quote>(?P<base>[A-Z0-9]+)){_OPTION}", _DERIBIT),
    _inverse("cryptofacilities", r"[PF]I_(?P<base>[A-Z0-9]+?)(?P<quote>USD)(_\d+)?", _KRAKEN_INVERSE),
    _linear("cryptofacilities", r"[PF]F_(?P<base>[A-Z0-9]+?)(?P<quote>USD)(_\d+)?", _KRAKEN_LINEAR),
    _inverse("bitmex", rf"(?P<base>XBT)(USD|{_QUARTER})", _BITMEX_XBT, quote="USD"),
    _linear("bitmex", r"(?P<base>XBT)(?P<quote>USDT)", _BITMEX_XBTUSDT, 1e-6),
    _inverse("huobi-dm-swap", r"(?P<base>BTC)-(?P<quote>USD)", _HUOBI_SWAP, 100),
    _inverse("huobi-dm-swap", r"(?P<base>[A-Z0-9]+)-(?P<quote>USD)", _HUOBI_SWAP, 10),
    _inverse("huobi-dm", rf"(?P<base>BTC){_HUOBI_TERM}", _HUOBI_FUTURES, 100, quote="USD"),
    _inverse("huobi-dm", rf"(?P<base>[A-Z]+){_HUOBI_TERM}", _HUOBI_FUTURES, 10, quote="USD"),
)


def spot_contract(symbol: str) -> Contract:
    """Return the contract of a spot market by its canonical symbol: amounts are in base currency."""
    base, _, quote = pair_of(symbol).partition("-")
    return Contract(base=base, quote=quote)


def currencies_of(symbol: str, contracts: Contracts) -> tuple[str, str]:
    """Return the currencies of a market's volume and quote volume; without contracts it is a spot market."""
    last = contracts[-1] if contracts else spot_contract(symbol)
    return last.base, last.quote


def contracts_of(exchange: str, row: Mapping[str, Any]) -> Contracts:
    """Return the contracts of an instrument, one after the other if its terms change.

    Parameters
    ----------
    row
        A row of the day's instruments; a missing column counts as null.
    """
    changes = row.get("contract_changes")
    stretches = json.loads(changes) if changes else [{}]
    return tuple(
        replace(_contract_of(exchange, {**row, **stretch}), since_us=stretch.get("since_us", 0))
        for stretch in stretches
    )


def succeeded(earlier: Contracts, later: Contracts, since_us: int) -> Contracts:
    """Return the contracts of one instrument, and from a moment on those of another."""
    begun = sum(contract.since_us <= since_us for contract in later)
    kept = [contract for contract in earlier if contract.since_us < since_us]
    return (*kept, replace(later[max(begun - 1, 0)], since_us=since_us), *later[max(begun, 1) :])


def contract_changes(stretches: Sequence[tuple[int, Mapping[str, Any]]]) -> str | None:
    """Return the column of terms by the first microsecond of each, in order; None if all agree."""
    differing = [name for name in TERMS if len({terms[name] for _, terms in stretches}) > 1]
    if not differing:
        return None
    return json.dumps(
        [{"since_us": since, **{name: terms[name] for name in differing}} for since, terms in stretches]
    )


def _contract_of(exchange: str, terms: Mapping[str, Any]) -> Contract:
    """Return the contract by the vendor, otherwise by the venue, otherwise an unknown one."""
    kind, finer = terms.get("type"), terms.get("contract_type") or ""
    base, quote = (_ticker(terms.get(name)) for name in ("base_currency", "quote_currency"))
    multiplier = terms.get("contract_multiplier")
    unknown = Contract(multiplier=None, base=base, quote=quote)
    if kind == "spot":
        # BitMEX also gives spot sizes in its own units.
        known = multiplier is not None or exchange != "bitmex"
        return Contract(multiplier or 1.0, base=base, quote=quote) if known else unknown
    if kind in _WITHOUT_BASE or finer in _WITHOUT_BASE_TYPES or _is_quanto(terms, base, quote):
        return unknown
    inverse = _is_inverse(terms)
    if kind == "option" and multiplier is not None:
        # Its amount is in the underlying; ``inverse`` means that the premium is too.
        return Contract(multiplier, base=base, quote=base if inverse else quote)
    if multiplier is not None and inverse is not None:
        return Contract(multiplier, inverse, base, quote)
    return _of_venue(exchange, terms, unknown)


def _is_quanto(terms: Mapping[str, Any], base: str, quote: str) -> bool:
    """Whether the contract is worth a fixed sum of a third currency for each unit of its price.

    It is settled in that currency, whether or not the vendor calls it a quanto.

    Its worth in base currency depends on the third currency's price, which no row of the file has.
    BitMEX: https://www.bitmex.com/app/quantoPerpetualsGuide.
    """
    named = terms.get("quanto") or (terms.get("contract_type") or "").startswith("quanto")
    settled_in = _ticker(terms.get("settlement_currency"))
    if named:
        return settled_in != quote
    return bool(settled_in) and settled_in not in (base, quote) and not {settled_in, quote} <= DOLLARS


def _is_inverse(terms: Mapping[str, Any]) -> bool | None:
    if terms.get("inverse") is not None:
        return bool(terms["inverse"])
    finer = terms.get("contract_type") or ""
    return finer.startswith("inverse") if finer.startswith(("inverse", "linear")) else None


def _of_venue(exchange: str, terms: Mapping[str, Any], unknown: Contract) -> Contract:
    """Return the venue's contract of that name, unless the vendor contradicts it."""
    for entry in VENUE_CONTRACTS:
        match = re.fullmatch(entry.ids, (terms.get("instrument_id") or "").upper())
        if entry.exchange != exchange or match is None:
            continue
        inverse, multiplier = terms.get("inverse"), terms.get("contract_multiplier")
        is_other = (inverse is not None and inverse != entry.inverse and terms.get("type") != "option") or (
            multiplier is not None and multiplier != entry.multiplier
        )
        if is_other:
            return unknown
        named = match.groupdict()
        return Contract(
            entry.multiplier,
            entry.inverse,
            _ticker(named.get("base")) or unknown.base,
            _ticker(named.get("quote")) or entry.quote or unknown.quote,
        )
    return unknown


def _ticker(currency: str | None) -> str:
    ticker = (currency or "").upper()
    return CURRENCY_ALIASES.get(ticker, ticker)
