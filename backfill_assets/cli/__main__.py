"""The command line as ``python -m backfill_assets.cli``."""

from backfill_assets.cli import PROGRAM, main

if __name__ == "__main__":
    main(prog_name=PROGRAM)
