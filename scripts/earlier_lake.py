#!/usr/bin/env python3
"""Make the archive from which the scenario ``upgrade`` starts: ``earlier_lake.py CHECKOUT [ARCHIVE]``.

CHECKOUT is a checkout of the earlier version, such as ``git worktree add`` makes of a former release; no
archive of that version is needed. Its code runs two days of the scenario's market, with the interpreter and
the libraries of this script. Lake, tables and Dagster's records are packed without logs and without the
database of the views, which the next run makes again, into ARCHIVE: by default the one of the scenario.
"""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

from backfill_assets.rehearsal.upgrade import DAYS, EARLIER, MARKETS, MORE, market
from backfill_assets.standins.tardis import TardisStandin

#: The place does not matter; records name interpreter, checkout and lake, at the same length.
NEUTRAL = "/opt/an/earlier/version/of/this/package/and/the/interpreter/that/ran/it"


def make(checkout: Path, folder: Path) -> None:
    """Run the days with the code of the checkout."""
    settings = folder / "earlier.yaml"
    (folder / "home").mkdir()
    (folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    exchanges, symbols = (list(names) for names in MARKETS)
    with TardisStandin(market(), api_key="earlier") as standin:
        content = {
            "tardis": {
                "datasets_endpoint": f"{standin.url}/v1/datasets",
                "api_endpoint": f"{standin.url}/v1",
                "api_key": "${TARDIS_API_KEY}",
            },
            "universe": [{"exchanges": exchanges, "symbols": symbols, "data_types": ["trades"]}],
            "lake": {"uri": str(folder / "lake")},
            "warehouse": {"kind": "duckdb", "folder": str(folder / "warehouse")},
            **MORE,
        }
        settings.write_text(yaml.safe_dump(content))
        for day in DAYS:
            command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "*"]
            command += ["-m", "backfill_assets.definitions", "--partition", day]
            environment = {
                "PATH": os.defpath,
                "HOME": str(folder / "home"),
                "DAGSTER_HOME": str(folder / "home"),
                "BACKFILL_ENV": str(settings),
                "TARDIS_API_KEY": "earlier",
                "PYTHONPATH": str(checkout),
            }
            subprocess.run(command, cwd=checkout, env=environment, check=True)


def pack(checkout: Path, folder: Path, archive: Path) -> None:
    """Write the archive; nothing in it names this machine's folders."""
    for left_out in ("home/storage", "home/.telemetry", "home/.nux"):
        shutil.rmtree(folder / left_out, ignore_errors=True)
    (folder / "warehouse" / "warehouse.duckdb").unlink(missing_ok=True)
    host = platform.node()
    names = [str(path).encode() for path in (checkout, Path(sys.executable).parent.parent, folder)]
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for name in names:
                content = content.replace(name, NEUTRAL.encode().ljust(len(name), b"/")[: len(name)])
            # The machine on which a run was at work.
            content = content.replace(f'"{host}/'.encode(), f'"{"h" * len(host)}/'.encode())
            file.write_bytes(content)
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for name in ("home", "lake", "warehouse"):
            packed.add(folder / name, name)


if __name__ == "__main__":
    given = [Path(word).absolute() for word in sys.argv[1:]]
    if len(given) not in (1, 2) or not (given[0] / "backfill_assets" / "definitions.py").is_file():
        sys.exit("earlier_lake.py CHECKOUT [ARCHIVE]: CHECKOUT is a checkout of a version of this package")
    with tempfile.TemporaryDirectory(prefix="earlier-") as made:
        make(given[0], Path(made))
        pack(given[0], Path(made), given[-1] if len(given) == 2 else EARLIER)
