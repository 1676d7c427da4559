"""No half pixel is lost between a camera's pixels and another program's table, with nothing of ours in between."""

import csv

import numpy as np
import pytest

from smlm_pb.cli.main import main

PIXEL_NM = 100.0
#: Row and column of the pixels in whose middle the beads sit.
BEADS = ((10, 20), (25, 12), (33, 41))


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    """Spots that are symmetric about the middle of a pixel, drawn by hand: sums of binomial weights."""
    folder = tmp_path_factory.mktemp("movie")
    weights = np.array([1, 6, 15, 20, 15, 6, 1]) / 64  # a standard deviation of √1.5 px
    expected = np.full((44, 52), 20.0)
    for row, column in BEADS:
        expected[row - 3 : row + 4, column - 3 : column + 4] += 3000 * np.outer(weights, weights)
    rng = np.random.default_rng(0)
    frames = rng.poisson(np.broadcast_to(expected, (12, *expected.shape))) * 2 + 100
    np.save(folder / "beads.npy", frames.astype(np.uint16))
    return folder / "beads.npy"


@pytest.mark.parametrize("refine", ["off", "auto"])
def test_a_table_for_thunderstorm_lies_on_the_pixels(movie, tmp_path, refine):
    options = ["--pixel-size-nm", "100", "--offset-adu", "100", "--e-per-adu", "0.5", "--psf-sigma-px", "1.22"]
    assert main(["localize", str(movie), "--out", str(tmp_path), "--refine", refine, *options]) == 0
    assert main(["convert", str(tmp_path / "beads_locs.hdf5"), str(tmp_path / "b.csv"), "--to", "thunderstorm"]) == 0

    with (tmp_path / "b.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == pytest.approx(12 * len(BEADS), abs=3)
    assert {int(float(row["frame"])) for row in rows} == set(range(1, 13))
    found = np.array([(float(row["x [nm]"]), float(row["y [nm]"])) for row in rows])
    for row, column in BEADS:
        # The corner of the first pixel is the origin there, so that the middle of pixel k lies at k and a half.
        middle = (column + 0.5) * PIXEL_NM, (row + 0.5) * PIXEL_NM
        mine = found[np.hypot(*(found - middle).T) < 80]
        assert len(mine) >= 10
        assert np.abs(mine.mean(axis=0) - middle).max() < 6  # half a pixel would be 50
