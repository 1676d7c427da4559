"""What a table leaves unexplained: planted errors are suspected, honest tables are not."""

import json

import numpy as np
import pytest
from refinement_scenes import SIGMA, crowded, isolated, take_picture

from smlm_pb import Camera, Localizations, MovieInfo, read_table
from smlm_pb.analysis.drift import Drift, apply_drift
from smlm_pb.analysis.linking import link
from smlm_pb.analysis.residual_figure import residual_figure
from smlm_pb.analysis.residual_frames import find_peaks, least_of_neighbours, matched_filter, smooth_level, tile_sums
from smlm_pb.analysis.residuals import residual_map
from smlm_pb.analysis.table_conditions import camera_of, conditions_of
from smlm_pb.cli import main as cli
from smlm_pb.errors import Cancelled, ConfigurationError, MovieError, TableError

SHAPE = (48, 56)
CAMERA = Camera(offset_adu=0.0, e_per_adu=1.0, read_noise_e=1.0)


def scene(seed=0, *, n_frames=12, photons=1500.0, background=20.0, camera=CAMERA):
    """A grid of lone molecules: movie and table of what is there."""
    rng = np.random.default_rng(seed)
    y, x = (v.ravel() for v in np.meshgrid(np.arange(10, 40, 14), np.arange(10, 50, 14), indexing="ij"))
    n = len(x)
    frame = np.repeat(np.arange(n_frames), n)
    x, y = (np.tile(v, n_frames) + rng.uniform(-1, 1, n * n_frames) for v in (x, y))
    light = np.full(len(x), photons)
    read_e = float(camera.read_noise_e) / camera.em_gain
    electrons = take_picture(
        frame,
        x,
        y,
        light,
        background,
        rng,
        n_frames=n_frames,
        shape=SHAPE,
        read_e=read_e,
        excess=camera.excess_noise_factor,
    )
    columns = {"frame": frame, "x": x, "y": y, "photons": light, "background": np.full(len(x), background)}
    columns |= {"sigma_x": np.full(len(x), 0.05), "sigma_y": np.full(len(x), 0.05)}
    return electrons, Localizations(columns, MovieInfo(n_frames, *SHAPE, 100.0))


def look(electrons, locs, **options):
    return residual_map(locs, electrons.astype(np.float32), **{"camera": CAMERA, "psf_sigma_px": SIGMA, **options})


# -- the parts ---------------------------------------------------------------------------------------------


def test_matched_filter_tells_brightness_and_its_significance():
    rng = np.random.default_rng(1)
    electrons, _, x, y = isolated(rng, 400, photons=600.0, background=30.0, size=25)
    found = [matched_filter(frame - 30.0, np.full(frame.shape, 30.0), SIGMA) for frame in electrons]
    nothing = np.concatenate([score[:4].ravel() for _, score in found])
    assert nothing.mean() == pytest.approx(0, abs=0.05)
    assert nothing.std() == pytest.approx(1, abs=0.05)
    peaks = [find_peaks(photons, score, 8.0, SIGMA) for photons, score in found]
    assert all(len(p.x) == 1 for p in peaks)
    assert np.mean([p.photons[0] for p in peaks]) == pytest.approx(600, rel=0.08)
    error = np.concatenate([np.array([p.x[0] for p in peaks]) - x, np.array([p.y[0] for p in peaks]) - y])
    assert error.std() < 0.15


def test_the_level_follows_a_slope_and_ignores_spots():
    rng = np.random.default_rng(2)
    slope = np.linspace(20, 40, 64)[None, :] * np.ones((48, 1))
    image = rng.poisson(slope).astype(float)
    image[20:23, 30:33] += 200
    level = smooth_level(image, np.sqrt(slope))
    assert np.abs(level - slope)[8:-8, 8:-8].max() < 2.5


def test_tiles_hold_every_pixel_once():
    squared = np.random.default_rng(0).random((37, 50))
    sums, sizes = tile_sums(squared, 16)
    assert sums.shape == sizes.shape == (3, 4)
    assert sums.sum() == pytest.approx(squared.sum())
    assert sizes.sum() == squared.size
    assert sizes[-1, -1] == 5 * 2


def test_of_near_ones_the_least_is_left():
    x = np.array([0.0, 1.0, 5.0, 0.5])
    frame = np.array([0, 0, 0, 1])
    assert least_of_neighbours(frame, x, np.zeros(4), np.array([2.0, 1.0, 9.0, 9.0]), 2.0).tolist() == [
        False, True, True, True,
    ]  # fmt: skip


# -- suspicions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [CAMERA, Camera(offset_adu=0, e_per_adu=1, em_gain=100, read_noise_e=100)])
def test_an_honest_table_is_not_suspected(camera):
    electrons, locs = scene(camera=camera)
    adu = electrons * camera.em_gain
    found = look(adu, locs, camera=camera)
    assert found.n_frames == 12
    assert found.n_molecules == len(locs)
    assert len(found.suspects) <= 2
    assert found.chi2_total == pytest.approx(1, abs=0.06)
    assert found.chi2_background == pytest.approx(1, abs=0.06)
    assert found.mean_residual.std() == pytest.approx(1, abs=0.15)
    assert found.notes == ()
    assert "next to nothing" in found.advice()
    assert residual_figure(found).axes


def test_what_is_left_out_of_the_table_is_suspected_where_it_is():
    electrons, locs = scene()
    gone = np.zeros(len(locs), bool)
    gone[::4] = True
    found = look(electrons, locs.select(~gone))
    suspects = found.suspects.select(found.suspects["suspicion"] == 1)
    assert len(suspects) == pytest.approx(gone.sum(), abs=1)
    truth = locs.select(gone)
    for k in range(len(suspects)):
        here = truth["frame"] == suspects["frame"][k]
        assert np.hypot(truth["x"][here] - suspects["x"][k], truth["y"][here] - suspects["y"][k]).min() < 0.4
    assert np.median(suspects["photons"]) == pytest.approx(1500, rel=0.1)
    assert found.chi2_total > 1.5
    assert "missed" in found.table()
    assert "lower the threshold" in found.advice()


def test_what_is_added_to_the_table_is_suspected_once():
    electrons, locs = scene()
    n = len(locs)
    nowhere = locs.select(np.arange(0, n, 3)).with_columns(x=locs["x"][::3] + 7.0)
    twice = locs.select(np.arange(1, n, 3)).with_columns(x=locs["x"][1::3] + 0.5)
    found = look(electrons, Localizations.concatenate([locs, nowhere, twice]))
    assert found.count("false") == pytest.approx(len(nowhere) + len(twice), abs=0.12 * n)
    assert found.count("missed") <= 1
    assert "raise the threshold" in found.advice()


def test_two_in_one_are_suspected_to_be_merged():
    electrons, locs = scene(photons=3000.0)
    rng = np.random.default_rng(5)
    second = locs.with_columns(x=locs["x"] + 1.6)
    both = np.concatenate([locs["frame"], second["frame"]])
    electrons = take_picture(
        both,
        np.concatenate([locs["x"], second["x"]]).astype(float),
        np.concatenate([locs["y"], second["y"]]).astype(float),
        np.full(len(both), 1500.0),
        20.0,
        rng,
        n_frames=12,
        shape=SHAPE,
        read_e=1.0,
    )
    found = look(electrons, locs.with_columns(x=locs["x"] + 0.8))
    assert found.count("merged") > 0.8 * len(locs)
    assert found.count("missed") + found.count("false") <= 2
    assert "lower the activation laser" in found.advice()


def test_a_wrong_width_and_a_wrong_gain_are_told():
    electrons, locs = scene(photons=4000.0)
    found = look(electrons, locs, psf_sigma_px=1.0)
    assert found.psf_sigma_error_px == pytest.approx(0.1, abs=0.03)
    assert any("width of 1." in note for note in found.notes)
    found = look(electrons, locs, camera=Camera(offset_adu=0.0, e_per_adu=2.0, read_noise_e=1.0))
    assert any("e_per_adu is too large" in note for note in found.notes)


def test_in_a_crowd_the_reader_is_warned():
    electrons, truth = crowded(np.random.default_rng(0), 0.06, n_frames=3)
    assert any("crowds" in note for note in look(electrons, truth, camera=Camera(0, 1, read_noise_e=1.6)).notes)


def test_molecules_beyond_the_border_are_no_suspects():
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(4.0, 46.0, 8.0), 6)
    frame = np.repeat(np.arange(6), 6)
    electrons = take_picture(
        frame, np.full(36, -1.2), y, np.full(36, 3000.0), 20.0, rng, n_frames=6, shape=SHAPE, read_e=1.0
    )
    found = look(electrons, Localizations.empty(MovieInfo(6, *SHAPE, 100.0)))
    assert len(found.suspects) == 0
    assert found.chi2_total == pytest.approx(1, abs=0.08)


# -- what it needs -----------------------------------------------------------------------------------------


def with_history(locs):
    conditions = {"camera": CAMERA.as_dict(), "psf_sigma_px": SIGMA, "frames": [0, 12]}
    step = {"step": "localize", "conditions": conditions, "asked": {"threshold": 0.5}, "model": {"name": "m"}}
    return locs.with_provenance({**step, "threshold": {"threshold": 0.5, "molecules": 100, "true": 90, "missed": 20}})


def test_conditions_come_from_the_history():
    locs = with_history(scene()[1])
    known = conditions_of(locs)
    assert known.camera == CAMERA
    assert (known.psf_sigma_px, known.frames, known.model, known.threshold) == (SIGMA, (0, 12), "m", 0.5)
    assert known.expected_per_found == pytest.approx(1.1)
    assert camera_of(locs, offset_adu=7.0, e_per_adu=None).offset_adu == 7.0
    assert camera_of(scene()[1], offset_adu=7.0) is None
    assert camera_of(scene()[1], offset_adu=7.0, e_per_adu=2.0) == Camera(7.0, 2.0)
    silent = scene()[1].with_columns(psf_sigma_x=1.3)
    assert conditions_of(silent).psf_sigma_px == pytest.approx(1.3)
    assert conditions_of(silent).camera is None


def test_what_cannot_be_done_is_said():
    electrons, locs = scene(n_frames=3)
    with pytest.raises(TableError, match="does not tell its camera"):
        residual_map(locs, electrons, psf_sigma_px=SIGMA)
    with pytest.raises(TableError, match="width of the point-spread function"):
        residual_map(locs, electrons, camera=CAMERA)
    with pytest.raises(TableError, match="linked"):
        look(electrons, link(locs))
    drift = Drift(*np.zeros((2, 12)), "kernel", True, "", 1.0, 1.0, 0.1, np.zeros((12, 2)), {"pixel_size_nm": 100.0})
    with pytest.raises(TableError, match="drift"):
        look(electrons, apply_drift(locs, drift))
    with pytest.raises(MovieError, match="40×40"):
        look(electrons[:, :40, :40], locs)
    with pytest.raises(TableError, match="reaches to frame 2, movie array has 2 frames"):
        look(electrons[:2], locs)
    for shift in (-100, 100):
        with pytest.raises(MovieError, match=r"48×56 px, and 27 of the 27 molecules .* outside of them along x"):
            look(electrons, locs.with_columns(x=locs["x"] + shift))
    with pytest.raises(Cancelled):
        look(electrons, locs, should_stop=lambda: True)
    for wrong in (
        {"max_frames": 0},
        {"tile_px": 1},
        {"least_score": 1.0},
        {"frames": (99, None)},
        {"psf_sigma_px": 0.1},
    ):
        with pytest.raises(ConfigurationError):
            look(electrons, locs, **wrong)


def test_the_command(tmp_path, capsys):
    electrons, locs = scene()
    adu = np.clip(np.rint(electrons * 2 + 100), 0, 65535).astype(np.uint16)
    np.save(tmp_path / "movie.npy", adu)
    with_history(locs.select(np.arange(len(locs)) % 5 > 0)).save(tmp_path / "locs.hdf5")
    command = ["residuals", str(tmp_path / "locs.hdf5"), str(tmp_path / "movie.npy")]
    command += ["--offset-adu", "100", "--e-per-adu", "0.5"]
    out = ["--out", str(tmp_path / "suspects.hdf5"), "--figure", str(tmp_path / "left.png")]
    assert cli.main([*command, *out, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["n_missed"] == pytest.approx(len(locs) / 5, abs=2)
    suspects = read_table(tmp_path / "suspects.hdf5")
    assert np.count_nonzero(suspects["suspicion"] == 1) == report["n_missed"]
    assert suspects.provenance[-1]["step"] in ("residuals", "read")
    assert (tmp_path / "left.png").stat().st_size > 1000
    assert cli.main(command) == 0
    assert "suspected missed" in capsys.readouterr().out
