"""The rule set: the numbers of the method, with the values of ``rules/default.yaml`` and their bounds.

A setting says where things are, which data is wanted, and how a day's scores are used. A rule says how feeds
are counted and scored, and when a feed is left out. The file gives meaning and reason of every number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, field_validator

from backfill_assets.yaml_files import Strict, read_mapping, validated

DEFAULT_RULES: Final = Path(__file__).parent / "rules" / "default.yaml"
_PACKAGE: Final = read_mapping(DEFAULT_RULES, "rules")
#: Version of the meaning of the rules; part of the hash that every verdict keeps.
RULES_VERSION: Final[int] = _PACKAGE["version"]

Score = Annotated[float, Field(ge=0, le=1)]


def _number(key: str, **bounds: Any) -> Any:
    """Take the number from the package's file."""
    section, _, name = key.rpartition(".")
    value = (_PACKAGE[section] if section else _PACKAGE)[name]
    return Field(default=value, validate_default=True, **bounds)


class CountingSettings(Strict):
    """Limits beyond which the decoding pass counts a row as odd."""

    spike_multiple: float = _number("counting.spike_multiple", gt=0)
    spike_neighbours: int = _number("counting.spike_neighbours", ge=10, le=200)
    spike_least_neighbours: int = _number("counting.spike_least_neighbours", ge=5, le=200)
    spike_scatter_trades: int = _number("counting.spike_scatter_trades", ge=200, le=20_000)
    spike_least_scatter_bp: float = _number("counting.spike_least_scatter_bp", gt=0)
    clock_residual_ms: int = _number("counting.clock_residual_ms", ge=1, le=60_000)
    id_reset: int = _number("counting.id_reset", ge=1, le=10**18)
    resent_rows: int = _number("counting.resent_rows", ge=2, le=10**6)


class RowSettings(Strict):
    """The counts from which rows cost quality or give a warning."""

    minimum_rows: int = _number("rows.minimum_rows", ge=1)
    invalid_limit: float = _number("rows.invalid_limit", gt=0)
    conflicting_limit: float = _number("rows.conflicting_limit", gt=0)
    off_grid_limit: float = _number("rows.off_grid_limit", gt=0)
    crossed_limit: float = _number("rows.crossed_limit", gt=0)
    crossed_excused: int = _number("rows.crossed_excused", ge=0)
    odd_limit: float = _number("rows.odd_limit", gt=0)
    odd_excused: int = _number("rows.odd_excused", ge=0)
    habit_share: Score = _number("rows.habit_share")
    last_price_tolerance: float = _number("rows.last_price_tolerance", ge=0)
    mark_tolerance: float = _number("rows.mark_tolerance", ge=0)
    liquidation_tolerance: float = _number("rows.liquidation_tolerance", ge=0)
    off_trades_limit: float = _number("rows.off_trades_limit", gt=0)
    off_trades_excused: int = _number("rows.off_trades_excused", ge=0)
    minimum_minutes: int = _number("rows.minimum_minutes", ge=1)
    crossed_book_limit: float = _number("rows.crossed_book_limit", gt=0)
    crossed_book_excused: int = _number("rows.crossed_book_excused", ge=0)
    unknown_book_limit: float = _number("rows.unknown_book_limit", gt=0)
    unknown_book_excused: int = _number("rows.unknown_book_excused", ge=0)
    minimum_book_seconds: int = _number("rows.minimum_book_seconds", ge=1)
    diverged_limit: float = _number("rows.diverged_limit", gt=0)
    diverged_excused: int = _number("rows.diverged_excused", ge=0)
    minimum_levels: int = _number("rows.minimum_levels", ge=1)
    absent_delete_limit: float = _number("rows.absent_delete_limit", gt=0)
    absent_delete_share: Score = _number("rows.absent_delete_share")
    minimum_deletes: int = _number("rows.minimum_deletes", ge=1)
    agreement_excused: int = _number("rows.agreement_excused", ge=0)
    spike_limit: float = _number("rows.spike_limit", gt=0)
    spike_excused: int = _number("rows.spike_excused", ge=0)
    spike_window_seconds: float = _number("rows.spike_window_seconds", gt=0, le=3_600)
    spike_market_tolerance: float = _number("rows.spike_market_tolerance", ge=0)
    spike_venue_tolerance: float = _number("rows.spike_venue_tolerance", ge=0)
    valueless_limit: float = _number("rows.valueless_limit", gt=0)
    valueless_excused: int = _number("rows.valueless_excused", ge=0)
    stale_seconds: float = _number("rows.stale_seconds", gt=0)
    stale_factor: float = _number("rows.stale_factor", gt=0)
    joint_silence_seconds: float = _number("rows.joint_silence_seconds", ge=5)
    joint_silence_feeds: int = _number("rows.joint_silence_feeds", ge=2)
    joint_silence_rows: int = _number("rows.joint_silence_rows", ge=1)
    stale_grid_share: Score = _number("rows.stale_grid_share")
    clock_warning_seconds: float = _number("rows.clock_warning_seconds", ge=0)
    clock_failure_seconds: float = _number("rows.clock_failure_seconds", ge=0, lt=60)
    latency_drift_seconds: float = _number("rows.latency_drift_seconds", gt=0)
    latency_rows: int = _number("rows.latency_rows", ge=1)
    frozen_rows: int = _number("rows.frozen_rows", ge=2)
    frozen_seconds: float = _number("rows.frozen_seconds", gt=0)
    one_sided_share: float = _number("rows.one_sided_share", gt=0.5, le=1)
    one_sided_rows: int = _number("rows.one_sided_rows", ge=1)
    twin_share: float = _number("rows.twin_share", gt=0, le=1)
    twin_rows: int = _number("rows.twin_rows", ge=2)


class HistorySettings(Strict):
    """Limits on a day's rows from published days of the same weekday."""

    weeks: int = _number("history.weeks", ge=1, le=520)
    least_days: int = _number("history.least_days", ge=1)
    least_rows: int = _number("history.least_rows", ge=1)
    share: float = _number("history.share", gt=0, le=1)


class RestatementSettings(Strict):
    """How much a refreshed file may change before it needs an approval."""

    excused: int = _number("restatement.excused", ge=0)
    rows: Score = _number("restatement.rows")
    candles: Score = _number("restatement.candles")
    price: float = _number("restatement.price", ge=0)
    volume: float = _number("restatement.volume", ge=0)


class ComparisonRules(Strict):
    """When candles agree with other sources' candles."""

    reference_volume: float = _number("comparison.reference_volume", ge=0)
    venue_vwap: float = _number("comparison.venue_vwap", gt=0)
    volume_multiple: float = _number("comparison.volume_multiple", gt=1)
    agreement: Score = _number("comparison.agreement")
    differing_run: int = _number("comparison.differing_run", ge=0)


class FeedRules(Strict):
    """How a feed is counted and judged; ``settings.thresholds`` adds the thresholds of days."""

    seam_window_seconds: int = _number("seam_window_seconds", ge=0, le=3600)
    missing_ids: int = _number("missing_ids", ge=0)
    missing_ids_rate: float = _number("missing_ids_rate", ge=0, le=1)
    longest_hole: int = _number("longest_hole", ge=0)
    lossy_seconds: float = _number("lossy_seconds", ge=0)
    legitimate_hole: int = _number("legitimate_hole", ge=0, le=5)
    legitimate_share: Score = _number("legitimate_share")
    silence_seconds: float = _number("silence_seconds", ge=5)
    silence_factor: float = _number("silence_factor", gt=0)
    edge_factor: float = _number("edge_factor", ge=1)
    edge_minutes: int = _number("edge_minutes", ge=1)
    uncalibrated_cap: Score = _number("uncalibrated_cap")
    publish_completeness: Score = _number("publish_completeness")
    repeated_ids: int = _number("repeated_ids", ge=0)
    notional_weight: Score = _number("notional_weight")
    notional_days: int = _number("notional_days", ge=1)
    history: HistorySettings = HistorySettings()
    restatement: RestatementSettings = RestatementSettings()
    counting: CountingSettings = CountingSettings()
    rows: RowSettings = RowSettings()


class RuleSet(FeedRules):
    """A file of rules; omitted keys have the numbers of the package's own file."""

    version: int
    comparison: ComparisonRules = ComparisonRules()

    @field_validator("version")
    @classmethod
    def _has_the_same_meaning(cls, given: int) -> int:
        if given != RULES_VERSION:
            msg = (
                f"these rules are of version {given}, but this package's are of version {RULES_VERSION}: "
                f"copy your changes into a copy of {DEFAULT_RULES}"
            )
            raise ValueError(msg)
        return given


def load_rules(path: Path) -> RuleSet:
    """Read and validate a file of rules.

    Raises
    ------
    SettingsError
        A missing file, unreadable YAML, an unknown key, a bad value or another version; one line with file,
        key and remedy.
    """
    if path == DEFAULT_RULES:
        return RuleSet(version=RULES_VERSION)
    content = read_mapping(path, f"rules; see {DEFAULT_RULES}")
    return validated(RuleSet, content, path, page=f"see {DEFAULT_RULES}")
