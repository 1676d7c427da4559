"""A command starts and ends quickly, and leaves alone a process that is not its own."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from smlm_pb.cli import quick
from smlm_pb.localization.estimate import estimate_background, estimate_camera, estimate_psf_sigma
from smlm_pb.localization.frame_sample import draw_sample
from smlm_pb.localization.psf_width import measure_width


def ask(code):
    """What a fresh Python prints."""
    without = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=without)
    return done.stdout.split()


def test_what_torch_holds_is_not_looked_through_again():
    looks, unfrozen, frozen = ask(
        "import gc\n"
        "from smlm_pb.cli.quick import import_torch\n"
        "import_torch()\n"
        "print(gc.isenabled(), len(gc.get_objects()), gc.get_freeze_count())"
    )
    assert looks == "True"
    assert int(unfrozen) < 2000
    assert int(frozen) > 50_000


def test_a_process_that_has_torch_and_numpy_is_left_alone(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert torch is not None
    frozen = gc.get_freeze_count()
    quick.import_torch()
    quick.keep_numpy_to_one_thread()
    assert gc.get_freeze_count() == frozen
    assert "OPENBLAS_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("given", "used"), [("", "1"), ("os.environ['OPENBLAS_NUM_THREADS'] = '3'", "3")])
def test_numpy_has_one_thread_unless_the_user_says_otherwise(given, used):
    code = (
        f"import os, sys\n{given}\n"
        "import smlm_pb.cli.localize\n"
        "assert 'numpy' not in sys.modules\n"
        "from smlm_pb.cli.quick import keep_numpy_to_one_thread\n"
        "keep_numpy_to_one_thread()\n"
        "print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    assert ask(code) == [used]


def test_a_sample_is_drawn_and_measured_once(monkeypatch):
    from smlm_pb.localization import psf_width

    frames = np.random.default_rng(0).poisson(50, (40, 32, 32)).astype(np.uint16)
    sample = draw_sample(frames)
    calls = []
    measure = psf_width._measure
    monkeypatch.setattr(psf_width, "_measure", lambda deviations: calls.append(1) or measure(deviations))
    assert draw_sample(sample) is sample
    together = estimate_psf_sigma(sample), estimate_camera(sample), estimate_background(sample)
    assert len(calls) == 1
    assert together == (estimate_psf_sigma(frames), estimate_camera(frames), estimate_background(frames))
    assert measure_width(sample) is measure_width(sample)
