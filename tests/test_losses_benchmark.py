"""The benchmark of the losses: it runs, and its figures mean what they say."""

import importlib
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def losses(monkeypatch):
    """Import the script as if it were run from its folder, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("losses")
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_it_runs(losses, tmp_path):
    assert losses.main(["--quick", "--threads", "1", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "losses.json").read_text(encoding="utf-8"))
    assert {point["loss"] for point in record["results"]["points"]} == set(losses.LOSSES)
    assert all(point["seconds"] > 0 and point["value"] > 0 for point in record["results"]["points"])
    assert all(len(row) == len(table["columns"]) for table in record["tables"] for row in table["rows"])
    assert (tmp_path / "losses.png").stat().st_size > 5000


def test_the_slope_of_linear_and_quadratic_times(losses):
    for power in (1, 2):
        points = [{"size_px": size, "seconds": 1e-7 * (size**2) ** power} for size in (64, 128, 256)]
        assert losses.slope(points) == pytest.approx(power)


def test_peak_memory_counts_what_the_loss_holds(losses, monkeypatch):
    import torch

    held = 64_000_000

    def fake(loss, size):
        def run():
            values = torch.ones(held // 8, dtype=torch.float64) if size > 16 else torch.ones(1)
            return float(values.sum())

        return run

    monkeypatch.setattr(losses, "make_loss", fake)
    result = losses.measure("matching", 64, 2, None)
    assert result["value"] == held / 8
    if sys.platform == "linux":
        assert result["peak_bytes"] == pytest.approx(held, rel=0.2)


def test_all_together_is_the_sum(losses):
    terms = [losses.make_loss(name, 20)() for name in ("matching", "frame", "tile", "together")]
    assert terms[3] == pytest.approx(sum(terms[:3]), rel=1e-5)
