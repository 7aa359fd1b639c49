"""The nodes that publish: one day partition of each table, with exactly the lake's accepted versions.

A held day fails here, after its quality rows are written. The keys say ``bigquery`` in every environment; the
embedded warehouse has the same tables. The asset ``ohlcv`` is in the graph under all settings, because the
graph must not depend on the environment. If ``ohlcv.url`` is empty, its materialization says so.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import dagster as dg

from backfill_assets.lake.resource import LakeResource
from backfill_assets.orchestration import OWNERS, column_schema, failures_as_dagster, table_metadata
from backfill_assets.partitions import daily
from backfill_assets.quality.scores import Overall
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, OHLCV, QUALITY, TABLES
from backfill_assets.warehouse.publisher import PublishedDay, Publisher
from backfill_assets.warehouse.resource import WarehouseResource
from backfill_assets.warehouse.tables import Table

OFF = "off: ohlcv.url is empty"


@contextmanager
def publisher(lake: LakeResource, warehouse: WarehouseResource) -> Iterator[Publisher]:
    """A publisher from the run's lake into its warehouse."""
    with warehouse.open() as opened:
        yield Publisher(lake.store(), opened, lake.settings())


@contextmanager
def ohlcv_publisher(lake: LakeResource, _: WarehouseResource) -> Iterator[Publisher | None]:
    """A publisher from the run's lake into the OHLCV table of the settings; None if they name none."""
    # SQLAlchemy takes long to load, and a code location that only loads does not use it.
    from backfill_assets.warehouse.ohlcv.warehouse import open_ohlcv

    opened = open_ohlcv(lake.settings().ohlcv)
    yield None if opened is None else Publisher(lake.store(), opened, lake.settings())


OpenPublisher = Callable[[LakeResource, WarehouseResource], AbstractContextManager[Publisher | None]]


def _publishing_asset(
    key: str,
    description: str,
    upstream: Sequence[str],
    table: Table | None,
    opener: OpenPublisher = publisher,
) -> dg.AssetsDefinition:
    """An asset that publishes ``table``, or without a table every tick table of the day."""
    columns = column_schema(table.columns) if table in TABLES else None

    @dg.asset(
        key=dg.AssetKey.from_user_string(key),
        deps=[dg.AssetKey.from_user_string(asset) for asset in upstream],
        partitions_def=daily,
        group_name="warehouse",
        owners=OWNERS,
        kinds={*key.split("/")[:-1], "table"},
        pool="warehouse",
        # The quality rows describe the result of the other tables, so they run last among the nodes that can
        # run. They do not depend on the others, because a held day has quality rows and nothing else.
        op_tags={"dagster/priority": "-1"} if table is QUALITY else None,
        description=description,
        metadata={"dagster/column_schema": columns} if columns else None,
    )
    def published(
        context: dg.AssetExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult[None]:
        day = context.partition_key
        with failures_as_dagster(), opener(lake, warehouse) as opened:
            if opened is None:
                return dg.MaterializeResult(metadata={"state": OFF})
            tables = [table] if table else opened.tick_tables(day)
            outcomes = [outcome for wanted in tables for outcome in opened.publish(wanted, day)]
            scores = opened.overall(day) if table is QUALITY else None
            # Views come with the last table, and on held days too, so that they exist from the first day on.
            not_ours = opened.warehouse.ensure_views() if table is QUALITY else ()
        for name in not_ours:
            context.log.warning("view %s is not made: another object has its name", name)
        for done in outcomes:
            context.log.info(
                "%s %s %s: %d rows", done.table, done.day, done.publication.state, done.publication.rows
            )
        links = {f"link_{wanted.name}": warehouse.link(wanted.name) for wanted in tables}
        places = {"place": dg.MetadataValue.text(str(opened.warehouse))} if table is OHLCV else links
        metadata = {**_metadata(day, outcomes), **_overall_metadata(scores), **places}
        return dg.MaterializeResult(metadata=metadata)

    return published


def _overall_metadata(scores: Overall | None) -> dict[str, dg.MetadataValue]:
    return {
        f"overall_{name}": dg.MetadataValue.null() if value is None else dg.MetadataValue.float(value)
        for name, value in (scores.model_dump() if scores else {}).items()
    }


def _metadata(day: str, outcomes: Sequence[PublishedDay]) -> dict[str, dg.MetadataValue | int]:
    return {
        "dagster/row_count": sum(done.publication.rows for done in outcomes if done.day == day),
        "loads": sum(done.publication.state == "published" for done in outcomes),
        "skipped": sum(done.publication.state == "skipped" for done in outcomes),
        "partitions": table_metadata(
            [
                {
                    "table": done.table,
                    "day": done.day,
                    "state": done.publication.state,
                    "rows": done.publication.rows,
                    "job": done.publication.job,
                }
                for done in outcomes
            ]
        ),
    }


# The day's ticks and candles together decide whether it may be published.
ASSETS = (
    _publishing_asset(
        "bigquery/instruments", INSTRUMENTS.description, ["instruments", "candles"], INSTRUMENTS
    ),
    _publishing_asset(
        "bigquery/ticks",
        "One table per data type: the rows of the accepted files of the day.",
        ["ticks", "candles"],
        None,
    ),
    _publishing_asset("bigquery/candles", CANDLES.description, ["candles"], CANDLES),
    _publishing_asset("bigquery/coverage", COVERAGE.description, ["candles"], COVERAGE),
    _publishing_asset("bigquery/quality", QUALITY.description, ["ticks", "candles"], QUALITY),
    _publishing_asset("ohlcv", OHLCV.description, ["bigquery/candles"], OHLCV, ohlcv_publisher),
)
