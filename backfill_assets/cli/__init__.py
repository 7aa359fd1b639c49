"""The command line: parses, calls, prints. The work of a command is in the module that it calls.

Each command imports the heavy modules it needs, so that ``--help`` and mistakes answer at once.
"""

# Commands join their group when their module is imported.
from backfill_assets.cli import backfills, data, decisions, start  # noqa: F401
from backfill_assets.cli.group import OTHER, PROGRAM, main

__all__ = ["OTHER", "PROGRAM", "main"]
