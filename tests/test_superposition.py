"""Adding frames: the sums are exact, nobody is added to himself, and the self-test tells what the truth would."""

import json
import math

import hand_made_model
import numpy as np
import pytest
from hand_made_model import PSF_SIGMA_PX, make_model, make_movie
from hypothesis import given
from hypothesis import strategies as st

from smlm_pb import Camera
from smlm_pb.analysis.superposed_movie import SuperposedMovie, group_frames
from smlm_pb.analysis.superposing import _usable, superposition
from smlm_pb.analysis.superposition_figure import superposition_figure
from smlm_pb.analysis.superposition_result import DensityLevel
from smlm_pb.cli import main as cli
from smlm_pb.errors import Cancelled, ConfigurationError, MovieError, TableError
from smlm_pb.movies import open_movie

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": PSF_SIGMA_PX, "pixel_size_nm": 100.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("models") / "hand-made"))


@given(st.integers(2, 200), st.integers(1, 20), st.integers(1, 9))
def test_every_frame_is_dealt_once_and_members_lie_apart(n, added, step):
    frames = np.arange(n) * step
    sums = group_frames(frames, added)
    assert len(sums) == n // added
    dealt = np.concatenate([*sums, np.zeros(0, np.intp)])
    assert len(np.unique(dealt)) == len(dealt) == n // added * added
    assert all(len(members) == added for members in sums)
    if added > 1:
        assert all(np.diff(members).min() == n // added * step for members in sums)


def test_light_and_its_noise_add_up():
    camera = Camera(offset_adu=100.0, e_per_adu=0.5)
    rng = np.random.default_rng(0)
    adu = camera.digitize(np.full((12, 40, 50), 30.0), rng)
    sums = SuperposedMovie(open_movie(adu), camera, group_frames(np.arange(12), 4))
    frames = sums.read(0, 3)
    np.testing.assert_allclose(frames[1], camera.to_electrons(adu)[[1, 4, 7, 10]].sum(axis=0), rtol=1e-5)
    assert frames.mean() == pytest.approx(120, rel=0.01)
    assert frames.var() == pytest.approx(120 + 4 * 1.6**2, rel=0.05)
    np.testing.assert_array_equal(frames, np.concatenate([sums.read(k, k + 1) for k in range(3)]))


def test_isolated_molecules_are_found_again_until_it_is_crowded(model, monkeypatch):
    monkeypatch.setattr(hand_made_model, "BACKGROUND", 8.0)  # the model is made for 20, which the sums approach
    movie = make_movie(60, (40, 48), per_frame=2)[0]
    found = superposition(movie, model=model, **CAMERA, gap_frames=2, added=(2, 4, 20))
    assert [level.added for level in found.levels] == [2, 4, 20]
    assert found.density_per_px2 == pytest.approx(2 / (40 * 48), rel=0.15)
    assert found.per_um2(found.density_per_px2) == pytest.approx(100 * found.density_per_px2)
    for level in found.levels:
        assert level.n_molecules == pytest.approx(120, abs=15)
        assert level.density_per_px2 == pytest.approx(level.added * found.density_per_px2)
    jaccard = [level.jaccard for level in found.levels]
    assert jaccard[0] > 0.85
    assert jaccard[0] >= jaccard[1] > jaccard[2]
    assert jaccard[2] < 0.7
    assert found.levels[0].density_per_px2 < found.usable_per_px2 < found.levels[2].density_per_px2
    assert not found.reaches_the_end
    assert "times the density of this movie" in found.advice()
    assert superposition_figure(found).axes


def test_usable_density_lies_where_the_curve_crosses():
    def level(added, jaccard):
        return DensityLevel(added, 10, 100, 100, 0.01 * added, math.nan, jaccard, 1, 1, 0.1, 0.5)

    base = level(1, 1.0)
    usable, at_the_end = _usable([base, level(2, 0.9), level(4, 0.7)], 0.8)
    assert usable == pytest.approx(0.01 * 2 * math.sqrt(2))
    assert not at_the_end
    assert _usable([base, level(2, 0.9)], 0.8) == (0.02, True)
    assert math.isnan(_usable([base, level(2, 0.5), level(4, 0.9)], 0.8)[0])


def test_numbers_for_which_the_movie_is_too_short_are_left_out_and_said(model):
    movie = make_movie(40, (40, 48), per_frame=2)[0]
    found = superposition(movie, model=model, **CAMERA, gap_frames=10, added=(2, 4, 16))
    assert [level.added for level in found.levels] == [2, 4]
    assert any("too short to add 16 frames" in note for note in found.notes)
    with pytest.raises(MovieError, match="50 frames apart"):
        superposition(movie, model=model, **CAMERA)


def test_what_cannot_be_done_is_said(model):
    movie = make_movie(12, (40, 48), per_frame=1)[0]
    with pytest.raises(TableError, match="too few to be added"):
        superposition(movie, model=model, **CAMERA, gap_frames=2)
    for wrong in ({"added": (1,)}, {"added": ()}, {"gap_frames": 0}, {"least_jaccard": 1.0}, {"tolerance_nm": -1.0}):
        with pytest.raises(ConfigurationError):
            superposition(movie, model=model, **CAMERA, **wrong)
    with pytest.raises(Cancelled, match="nothing was measured"):
        superposition(make_movie(40, per_frame=2)[0], model=model, **CAMERA, gap_frames=2, should_stop=lambda: True)


def test_the_command(model, tmp_path, capsys):
    np.save(tmp_path / "beads.npy", make_movie(40, (40, 48), per_frame=2)[0])
    options = ["--model", model, "--pixel-size-nm", "100", "--offset-adu", "100", "--e-per-adu", "0.5"]
    options += ["--psf-sigma-px", str(PSF_SIGMA_PX), "--gap-frames", "4", "--added", "2", "4"]
    figure = tmp_path / "density.png"
    assert cli.main(["superposition", str(tmp_path / "beads.npy"), *options, "--figure", str(figure), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [level["added"] for level in report["levels"]] == [2, 4]
    assert report["levels"][0]["density_per_um2"] == pytest.approx(100 * report["levels"][0]["density_per_px2"])
    assert figure.stat().st_size > 1000
