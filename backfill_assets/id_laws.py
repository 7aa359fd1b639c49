"""Laws of ids: the promises of venues about trade ids, as data with their support.

A law defines the evidence that ids give about a file (its class of evidence), whether they break ties of
time, and whether two rows of one id are one trade. The laws stand in ``rules/id_laws.yaml``; a user's file
may replace those of an exchange. They are separate from the numbers of the rule set because each is a fact
about one venue on some days, and holds nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from backfill_assets.days import parse_day
from backfill_assets.failures import BadInput
from backfill_assets.feeds import DATA_TYPES, Feed
from backfill_assets.yaml_files import Strict, read_mapping, validated

DEFAULT_ID_LAWS: Final = Path(__file__).parent / "rules" / "id_laws.yaml"
#: Version of the meaning of the file's keys.
ID_LAWS_VERSION: Final = 1

LawKind = Literal[
    "contiguous",
    "contiguous_with_holes",
    "contiguous_across_symbols",
    "steps",
    "monotone",
    "unique",
    "hash",
    "not_unique",
]
EvidenceClass = Literal["A", "B", "C"]

_WORDS: Final[dict[str, str]] = {
    "contiguous": "contiguous per symbol",
    "contiguous_with_holes": "contiguous per symbol but for short holes of the venue's own",
    "contiguous_across_symbols": "contiguous across symbols",
    "steps": "rising by steps",
    "monotone": "rising",
    "unique": "unique, in no order",
    "hash": "hashes, in no order",
    "not_unique": "not unique",
}


def _iso(value: object) -> object:
    """Return an unquoted day as text; YAML reads it as a date."""
    return value.isoformat() if type(value) is date else value


def _is_day(value: str) -> str:
    try:
        parse_day(value)
    except BadInput as failure:
        raise ValueError(str(failure)) from None
    return value


Day = Annotated[str, BeforeValidator(_iso), Field(pattern=r"^\d{4}-\d\d-\d\d$")]
Text = Annotated[str, Field(min_length=1)]


class IdLaw(Strict):
    """One promise of one venue.

    Attributes
    ----------
    first_day, last_day
        The first and the last day of the law, both included; null means without an end.
    support
        The kind of evidence for the law.
    source
        The place where that evidence can be read.
    """

    exchange: Text
    data_type: Text
    law: LawKind
    first_day: Day | None = None
    last_day: Day | None = None
    support: Text
    source: Text

    @field_validator("first_day", "last_day")
    @classmethod
    def _is_a_day(cls, given: str | None) -> str | None:
        return given if given is None else _is_day(given)

    @field_validator("data_type")
    @classmethod
    def _has_ids(cls, given: str) -> str:
        known = [name for name, kind in DATA_TYPES.items() if kind.has_trades]
        if given not in known:
            msg = f"has no ids of trades; choose from {', '.join(known)}"
            raise ValueError(msg)
        return given

    def holds(self, feed: Feed, day: str) -> bool:
        """Whether the law applies to the feed's ids on the day."""
        return (
            (self.exchange, self.data_type) == (feed.exchange, feed.data_type)
            and (self.first_day or "") <= day
            and (self.last_day is None or day <= self.last_day)
        )

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> IdLaw:
        if self.first_day and self.last_day and self.last_day < self.first_day:
            msg = f"the law ends ({self.last_day}) before it begins ({self.first_day}): swap the days"
            raise ValueError(msg)
        return self

    @property
    def evidence_class(self) -> EvidenceClass:
        """The class of evidence that complete ids give."""
        return {"contiguous": "A", "contiguous_with_holes": "B"}.get(self.law, "C")  # type: ignore[return-value]

    @property
    def gives_order(self) -> bool:
        """Whether ids break ties of time."""
        return self.law not in ("unique", "hash", "not_unique")

    @property
    def names_trades(self) -> bool:
        """Whether rows of one id and payload are one trade."""
        return self.law != "not_unique"

    @property
    def forbids_conflicts(self) -> bool:
        """Whether an id with two payloads is a fault."""
        return self.law not in ("hash", "not_unique")

    @property
    def days(self) -> str:
        """The days of the law, in words."""
        since = f"from {self.first_day}" if self.first_day else ""
        until = f"to {self.last_day}" if self.last_day else ""
        return " ".join(part for part in (since, until) if part) or "on all days"

    @property
    def statement(self) -> str:
        """The law and its support, as verdicts state it."""
        return f"{self.promise} {self.days} ({self.support}; {self.source})"

    @property
    def promise(self) -> str:
        """The law alone, in words."""
        return f"ids are {_WORDS[self.law]}"


class IdLaws(Strict):
    """A file of laws."""

    version: Literal[1]
    laws: tuple[IdLaw, ...]

    @model_validator(mode="after")
    def _say_one_thing_a_day(self) -> IdLaws:
        for n, one in enumerate(self.laws):
            for other in self.laws[:n]:
                if (one.exchange, one.data_type) == (other.exchange, other.data_type) and _meet(one, other):
                    msg = (
                        f"two laws of {one.exchange} {one.data_type} hold on the same days ({other.days}, "
                        f"{one.days}): give the earlier one a last_day before the later one's first_day"
                    )
                    raise ValueError(msg)
        return self


def _meet(one: IdLaw, other: IdLaw) -> bool:
    last, first = max(one.first_day or "", other.first_day or ""), "9999-12-31"
    return last <= min(one.last_day or first, other.last_day or first)


def load_id_laws(path: Path = DEFAULT_ID_LAWS) -> tuple[IdLaw, ...]:
    """Load the package's laws; those of ``path`` replace the laws of the same exchange and data type.

    Raises
    ------
    SettingsError
        A missing file, unreadable YAML, an unknown key, a bad value or two laws for one day; the message is
        one line with file, key and remedy.
    """
    laws = _read(path)
    if path == DEFAULT_ID_LAWS:
        return laws
    given = {(law.exchange, law.data_type) for law in laws}
    kept = [law for law in _read(DEFAULT_ID_LAWS) if (law.exchange, law.data_type) not in given]
    return tuple(sorted((*kept, *laws), key=lambda law: (law.exchange, law.data_type, law.first_day or "")))


def _read(path: Path) -> tuple[IdLaw, ...]:
    content = read_mapping(path, f"laws; see {DEFAULT_ID_LAWS}")
    found = validated(IdLaws, content, path, page=f"see {DEFAULT_ID_LAWS}").laws
    return tuple(sorted(found, key=lambda law: (law.exchange, law.data_type, law.first_day or "")))


def law_of(laws: Sequence[IdLaw], feed: Feed, day: str) -> IdLaw | None:
    """Return the law that holds on the day; None if none is known."""
    return next((law for law in laws if law.holds(feed, day)), None)


#: The laws of the package.
ID_LAWS: Final = load_id_laws()
