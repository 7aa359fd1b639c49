"""The daily crypto market-data pipeline: ticks from Tardis, candles, verdicts, BigQuery.

Every day at 09:00 UTC yesterday's files are fetched into a Parquet lake (``tardis``, ``lake``, ``ticks``),
become candles (``candles``), and are judged by the counts of the decoding pass (``quality``). Accepted data
is published to the warehouse, one atomic day partition at a time (``warehouse``). Any past range runs the
same way. Folders are stages of the data, and the same file names mean the same thing in each: ``assets`` are
the nodes, ``checks`` the promises, ``schemas`` the columns, and the rest is plain Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from backfill_assets.frames.data import Data


def open(settings: str | Path | None = None, *, source: Literal["warehouse", "lake"] = "warehouse") -> Data:
    """Open the data of an environment for reading.

    Parameters
    ----------
    settings
        A settings file, or the name of one in the package; by default that of ``BACKFILL_ENV``.
    source
        ``warehouse`` reads published data, ``lake`` the accepted data of the lake.

    Raises
    ------
    BadInput
        An argument has another type or value than it may have.
    SettingsError
        The settings are wrong, or a variable that they name is not set.
    """
    from backfill_assets.frames.data import open_data

    return open_data(settings, source)
