"""What must hold for the profiles of a day: counts that contradict each other are a bug of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from backfill_assets.columns import arrow_schema
from backfill_assets.lake import paths
from backfill_assets.lake.manifests import Version
from backfill_assets.lake.ranges import read_footer
from backfill_assets.lake.store import Store
from backfill_assets.quality.profiles import profile_of
from backfill_assets.tardis.columns import tick_columns
from backfill_assets.ticks.stored import columns_of

if TYPE_CHECKING:
    import pandera.polars as pa_polars

    from backfill_assets.feeds import Feed

_COUNTS: Final = (
    "rows",
    "stored_rows",
    "symbol_rows",
    "valid_rows",
    "minute_rows",
    "invalid_rows",
    "misplaced_rows",
)


def profile_row(store: Store, feed: Feed, day: str, version: Version) -> dict[str, Any]:
    """The counts of one stored file: by its profile, by its manifest, and by the file itself."""
    profile = profile_of(version)
    rows, columns = _stored(store, feed, day, version)
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
        "columns": columns == columns_of(arrow_schema(tick_columns(feed.data_type))),
    }


def _stored(store: Store, feed: Feed, day: str, version: Version) -> tuple[int, tuple[str, ...]]:
    """Rows and columns by the file's footer, as it was read back when the file was stored."""
    if version.stored is not None:
        return version.stored.rows, version.stored.columns
    footer = read_footer(store, paths.ticks_data(feed, day, version.content))
    return footer.num_rows, columns_of(footer.schema.to_arrow_schema())


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
            **{
                name: pa_polars.Column(pl.Int64, pa_polars.Check.ge(0)) for name in (*_COUNTS, "profile_rows")
            },
            "columns": pa_polars.Column(pl.Boolean),
        },
        checks=[
            pa_polars.Check(lambda data, rule=rule: data.lazyframe.select(rule), name=name)
            for name, rule in rules.items()
        ],
        strict=True,
    )


def profile_frame_schema() -> dict[str, Any]:
    """Types of the frame that ``profile_schema`` judges, for days without files."""
    import polars as pl

    integers = dict.fromkeys((*_COUNTS, "profile_rows"), pl.Int64)
    return {"feed": pl.String, **integers, "columns": pl.Boolean}
