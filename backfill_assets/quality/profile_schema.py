"""The schema of the profiles of a day: counts that contradict each other are a bug in this package."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from backfill_assets.columns import arrow_schema, described
from backfill_assets.lake.manifests import Version
from backfill_assets.quality.findings import Finding, look_at
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.tardis.columns import tick_columns

if TYPE_CHECKING:
    import pandera.polars as pa_polars

    from backfill_assets.feeds import Feed

_COUNTS: Final = (
    "rows",
    "stored_rows",
    "profile_rows",
    "symbol_rows",
    "valid_rows",
    "minute_rows",
    "invalid_rows",
    "misplaced_rows",
)


def profile_row(
    feed: Feed, version: Version, profile: FeedProfile, rows: int, columns: Sequence[str]
) -> dict[str, Any]:
    """The counts of one stored file: by its profile, by its manifest, and by the file itself.

    Parameters
    ----------
    rows, columns
        Those in the file's footer; columns as ``columns.described`` gives them.
    """
    symbols = profile.symbols
    return {
        "feed": str(feed),
        "rows": version.rows,
        "stored_rows": rows,
        "profile_rows": profile.rows,
        "symbol_rows": sum(s.rows for s in symbols) if feed.type.has_trades else profile.rows,
        "valid_rows": sum(s.valid_rows for s in symbols),
        "minute_rows": sum(sum(s.minute_rows) + s.seam_rows for s in symbols),
        "invalid_rows": max(profile.invalid_price_rows, profile.invalid_amount_rows),
        "misplaced_rows": profile.misplaced_rows,
        "columns": tuple(columns) == described(arrow_schema(tick_columns(feed.data_type))),
    }


def profile_finding(rows: Iterable[dict[str, Any]]) -> Finding:
    """Validate rows of ``profile_row`` by the schema."""
    import polars as pl

    frame = pl.DataFrame(list(rows), schema=profile_frame_schema())
    return look_at(profile_schema(), frame, ("feed",))


def profile_schema() -> pa_polars.DataFrameSchema:
    """Counts are whole and not negative, and those that count the same thing are equal."""
    import pandera.polars as pa_polars
    import polars as pl

    column = pl.col
    rules = {
        "manifest_counts_the_rows_of_the_file": column("rows") == column("stored_rows"),
        "profile_counts_the_rows_of_the_file": column("profile_rows") == column("stored_rows"),
        "symbols_add_up_to_the_file": column("symbol_rows") == column("rows"),
        "valid_rows_are_rows": column("valid_rows") <= column("rows"),
        "minutes_add_up_to_the_valid_rows": column("minute_rows") <= column("valid_rows"),
        "columns_are_those_of_the_data_type": column("columns"),
    }
    return pa_polars.DataFrameSchema(
        {
            "feed": pa_polars.Column(pl.String, unique=True),
            **{name: pa_polars.Column(pl.Int64, pa_polars.Check.ge(0)) for name in _COUNTS},
            "columns": pa_polars.Column(pl.Boolean),
        },
        checks=[
            pa_polars.Check(lambda data, rule=rule: data.lazyframe.select(rule), name=name)
            for name, rule in rules.items()
        ],
        strict=True,
    )


def profile_frame_schema() -> dict[str, Any]:
    """Types of the frame that ``profile_schema`` validates, for days without files."""
    import polars as pl

    return {"feed": pl.String, **dict.fromkeys(_COUNTS, pl.Int64), "columns": pl.Boolean}
