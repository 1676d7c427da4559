"""The examples run as they are, in a folder of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))

#: What makes an example short enough for a test.
OPTIONS = {"convergence": ["--steps", "60"]}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_runs_and_leaves_a_result(script, tmp_path):
    command = [sys.executable, str(script), *OPTIONS.get(script.stem, [])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir())
    if script.stem == "five_lines":
        from smlm_pb import Localizations

        molecules = Localizations.load(tmp_path / "filaments_locs.hdf5")
        assert len(molecules) > 50 * 100  # about 200 molecules shine in each of the 50 frames
        assert molecules.info.pixel_size_nm == 100
