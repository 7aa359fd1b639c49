"""The notebooks of ``examples`` are true: their cells run, and print the output stored below them."""

from __future__ import annotations

import re

import pytest

from backfill_assets_tests.notebooks import CHART, EXAMPLES, NAMES, executed, pictures, stored, texts

README = EXAMPLES.parent / "README.md"


@pytest.mark.story
@pytest.mark.timeout(900)
def test_the_notebooks_run_one_after_the_other_and_print_what_they_show(tmp_path):
    for name, notebook in executed(tmp_path):
        shown = stored(name)
        for (source, found), (_, expected) in zip(texts(notebook), texts(shown), strict=True):
            assert found == expected, f"{name}: {source}"
        assert len(pictures(notebook)) == len(pictures(shown))


def test_every_notebook_is_run_by_its_test():
    assert {file.stem for file in EXAMPLES.iterdir() if file.suffix} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_was_run_in_order_without_an_error_and_says_that_its_prices_are_generated(name):
    cells = stored(name).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert "generated" in cells[0].source
    for cell in code:
        if "plot" in cell.source:
            assert "generated prices" in cell.source, "the title of a chart says it"


def test_the_cell_and_the_chart_of_the_readme_are_those_of_a_notebook():
    [block] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    cell = re.sub(r"  # <.*", "", block).strip()
    assert cell in [cell.source.rstrip(";") for cell in stored("read").cells]
    assert CHART.read_bytes() == pictures(stored("read"))[0]
