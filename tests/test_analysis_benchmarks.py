"""The benchmarks of the analysis: they run, and the page shows what they found."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["drift", "precision_without_truth", "rendering", "errors_without_truth"])
def test_it_runs(script, tmp_path, name):
    assert script(name).main(["--quick", "--out", str(tmp_path)]) == 0

    record = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert all(len(row) == len(table["columns"]) for table in record["tables"] for row in table["rows"])
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_residual_of_drift_ignores_a_common_shift_and_counts_localizations(script):
    residual_nm = script("drift").residual_nm
    path = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 0.0]])

    assert residual_nm(path + 7.0, path, np.array([0, 1, 2])) == pytest.approx(0)
    assert residual_nm(np.zeros_like(path), path, np.array([0, 2, 2])) == pytest.approx(0)
    # Two of four localizations in the frame that is 10 nm off: ±5 nm along one axis of two.
    assert residual_nm(np.zeros_like(path), path, np.array([0, 1, 1, 2])) == pytest.approx(np.sqrt(25 / 2))


def test_the_page_shows_the_published_results(script):
    write_page = script("write_page")
    page = ROOT / "docs" / "analysis.md"
    text = page.read_text(encoding="utf-8")
    places = write_page._PLACE.findall(text)
    assert {name for _, name, _ in places} == {"drift", "precision_without_truth", "rendering", "errors_without_truth"}
    for place, name, end in places:
        shown = write_page.section(name, write_page.RESULTS, page)
        assert f"{place}{shown}{end}" in text, f"run python benchmarks/write_page.py --page docs/analysis.md: {name}"
