"""The benchmark of the panel: it drives the real window, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hand_made_model import make_model

pytestmark = [pytest.mark.gui, pytest.mark.timeout(900)]

pytest.importorskip("napari", reason="napari is not installed: pip install 'smlm-pb[napari]'")

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "panel.py"


def test_panel_benchmark_runs(tmp_path):
    model = make_model(tmp_path / "hand-made")
    command = [sys.executable, str(SCRIPT), "--quick", "--model", str(model), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "out" / "panel.json").read_text(encoding="utf-8"))
    assert (tmp_path / "out" / "panel.png").stat().st_size > 5000
    assert record["quick"]
    assert str(tmp_path) not in json.dumps(record), "results name folders of one machine"
    figures = record["results"]["figures_ms"]
    # Some kernels count a thread's processor time in steps of 10 ms, and a window with little to do takes none of them.
    wrong = {name: ms for name, ms in figures.items() if ms < 0 or (ms == 0 and "processor time" not in name)}
    assert not wrong, wrong
    assert figures["Cancel, median"] <= figures["Cancel, slowest"]
    run = record["results"]["runs"][0]
    heartbeat = run["heartbeat"]
    assert heartbeat["percentile_99_ms"] <= heartbeat["longest_ms"]
    assert run["molecules"] > 0
    # The window's own work between two of its events; by the clock it depends on what else the machine does. The
    # benchmark holds it against 100 ms; here it must only be seen that nothing heavy runs in the window's thread.
    assert heartbeat["longest_processor_ms"] < 500
