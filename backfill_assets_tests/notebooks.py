"""The notebooks of ``examples``, run from the first to the last cell: by their test, and to write them again.

``make examples`` writes the output of the cells into the files, and the README's chart into ``docs``.
"""

from __future__ import annotations

import base64
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import nbformat
from nbclient import NotebookClient

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
#: The first picture of ``read.ipynb``, which the README shows beside its cell.
CHART: Final = EXAMPLES.parent / "docs" / "chart.png"
#: The order in which they are read: the first makes the data of the others.
NAMES: Final = ("backfill", "read", "quality")
_SECONDS: Final = 300
_OURS: Final = ("BACKFILL_", "DAGSTER_", "TARDIS_")


def stored(name: str) -> Any:
    """The notebook as it is in the repository."""
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def executed(folder: Path) -> Iterator[tuple[str, Any]]:
    """Each notebook after its cells have run over the data of an empty folder, with its name."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BACKFILL_DATA": str(folder / "data"),
        # The user's own settings do not change a drawing, and the home folder gets no file.
        **{name: str(folder) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")},
    }
    for name in NAMES:
        notebook = stored(name)
        client = NotebookClient(
            notebook,
            timeout=_SECONDS,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            coalesce_streams=True,
        )
        client.execute(env=environment)
        yield name, notebook


def texts(notebook: Any) -> list[tuple[str, str]]:
    """Printed text and text results by cell, without the parts that differ from run to run."""
    return [
        (cell.source, "\n".join(_comparable(output) for output in cell.outputs))
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def pictures(notebook: Any) -> list[bytes]:
    """The drawings of its cells, as PNG."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    drawn = [output.get("data", {}).get("image/png") for output in outputs]
    return [base64.b64decode(picture) for picture in drawn if picture]


def _comparable(output: Any) -> str:
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    # Times, and sizes and hashes of the vendor's files, which depend on the compression library.
    text = re.sub(r"\b\d+(\.\d+)? s\b", "N s", text)
    text = re.sub(r"\b\d+(\.\d+)? MB\b", "N MB", text)
    return re.sub(r"\b[0-9a-f]{30,64}\b", "HASH", text)


def main() -> None:
    """Write the notebooks with their outputs."""
    with tempfile.TemporaryDirectory() as folder:
        for name, notebook in executed(Path(folder)):
            nbformat.write(notebook, EXAMPLES / f"{name}.ipynb")
    CHART.write_bytes(pictures(stored("read"))[0])


if __name__ == "__main__":
    main()
