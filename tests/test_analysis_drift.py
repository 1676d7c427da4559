"""Drift: found to the nanometre, refused where there is none, never made worse."""

import json
from dataclasses import replace

import numpy as np
import pytest

from smlm_pb.analysis import apply_drift, correct_drift, estimate_drift
from smlm_pb.analysis.drift import Drift
from smlm_pb.analysis.drift_correlation import _quadratic_peak, _solve_redundant
from smlm_pb.analysis.drift_figure import drift_figure, save_path
from smlm_pb.analysis.drift_joint import Rows, banded_product, posterior, settle
from smlm_pb.analysis.drift_kernel import Trajectory
from smlm_pb.analysis.drift_walk import Walk, smooth
from smlm_pb.analysis.movie_length import MOST_FRAMES
from smlm_pb.cli.main import main
from smlm_pb.errors import Cancelled, ConfigurationError, TableError
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation.tables import draw_drift, simulate_localizations

N_FRAMES = 2000


def drifting(kind, range_nm, structure="filaments", n=6000, seed=0, **options):
    path = draw_drift(np.random.default_rng(seed), kind, N_FRAMES, range_nm)
    simulated = simulate_localizations(
        structure, n_localizations=n, n_frames=N_FRAMES, size_px=32, drift_nm=path, seed=seed, **options
    )
    return simulated.locs, path


def residual_nm(drift, path, locs):
    weight = np.bincount(locs.frame, minlength=N_FRAMES)
    error = np.stack([drift.dx_nm, drift.dy_nm], axis=1) - path
    error -= np.average(error, axis=0, weights=weight)
    return float(np.sqrt(np.average((error**2).mean(axis=1), weights=weight)))


@pytest.mark.parametrize(
    ("kind", "range_nm", "structure", "at_most_nm"),
    [
        ("linear", 500, "filaments", 1.0),
        ("sine", 100, "rings", 1.5),
        ("jump", 300, "clusters", 4.0),
        ("random_walk", 30, "filaments", 2.5),
    ],
)
def test_kernel_finds_the_path(kind, range_nm, structure, at_most_nm):
    locs, path = drifting(kind, range_nm, structure)

    drift = estimate_drift(locs)

    assert drift.accepted
    assert residual_nm(drift, path, locs) < at_most_nm
    # The difference of the halves tells the size of the error without knowing the truth.
    assert drift.error_nm == pytest.approx(residual_nm(drift, path, locs), rel=1.5, abs=0.4)
    assert drift.gain > 10 * drift.gain_error


def test_correlation_finds_a_smooth_path_and_the_kernel_at_least_halves_its_error():
    locs, path = drifting("sine", 200)

    by_correlation = estimate_drift(locs, method="correlation", n_stretches=20)
    by_kernel = estimate_drift(locs, check=False)

    assert by_correlation.accepted
    assert residual_nm(by_correlation, path, locs) < 5
    assert residual_nm(by_kernel, path, locs) < 0.5 * residual_nm(by_correlation, path, locs)


@pytest.mark.parametrize("method", ["kernel", "correlation"])
def test_without_drift_nothing_is_done(method):
    locs, _ = drifting("none", 0, seed=1)

    corrected, drift = correct_drift(locs, method=method)

    assert not drift.accepted
    assert "not brought together" in drift.reason
    assert drift.range_nm == (0, 0)
    assert np.array_equal(corrected.x, locs.x)
    assert corrected.provenance[-1]["accepted"] is False


def test_structureless_noise_is_not_corrected():
    rng = np.random.default_rng(2)
    n = 3000
    columns = {"frame": rng.integers(0, N_FRAMES, n), "x": rng.uniform(0, 31, n), "y": rng.uniform(0, 31, n)}
    columns |= {"sigma_x": np.full(n, 0.1), "sigma_y": np.full(n, 0.1)}

    drift = estimate_drift(Localizations(columns, MovieInfo(N_FRAMES, 32, 32, 100.0)))

    assert not drift.accepted
    assert drift.range_nm == (0, 0)


def test_correction_sharpens_and_keeps_the_image_in_place():
    locs, path = drifting("linear", 300, seed=3)

    corrected, drift = correct_drift(locs, check=False)

    assert corrected.x.mean() == pytest.approx(locs.x.mean(), abs=1e-3)
    assert corrected.y.mean() == pytest.approx(locs.y.mean(), abs=1e-3)
    still = locs.x - path[locs.frame, 0] / 100
    assert np.std((corrected.x - still) * 100) < 2
    step = corrected.provenance[-1]
    assert step["step"] == "drift"
    assert step["range_x_nm"] == pytest.approx(drift.range_nm[0])
    json.dumps(step, allow_nan=False)


def test_false_localizations_do_not_disturb():
    locs, path = drifting("linear", 200, seed=4, false_fraction=0.4)

    assert residual_nm(estimate_drift(locs, check=False), path, locs) < 2


def test_long_blinks_do_not_hold_the_path_back():
    locs, path = drifting("linear", 200, seed=5, on_frames=12.0)

    assert residual_nm(estimate_drift(locs, check=False), path, locs) < 2


def test_same_seed_same_path():
    locs, _ = drifting("random_walk", 100, n=3000)

    first, second = (estimate_drift(locs, check=False, seed=3) for _ in range(2))

    assert np.array_equal(first.dx_nm, second.dx_nm)


def test_drift_of_one_channel_can_be_removed_from_another():
    locs, path = drifting("linear", 200)
    other = Localizations({"frame": [0, N_FRAMES - 1], "x": [5.0, 5.0], "y": [5.0, 5.0]}, locs.info)

    moved = apply_drift(other, estimate_drift(locs, check=False))

    assert (moved.x[0] - moved.x[1]) * 100 == pytest.approx(path[-1, 0] - path[0, 0], abs=3)
    beyond = other.with_columns(frame=[0, N_FRAMES])
    with pytest.raises(TableError, match=f"frame {N_FRAMES}, but the drift is known for {N_FRAMES} frames"):
        apply_drift(beyond, estimate_drift(locs, check=False))


def test_insufficient_data_are_refused_with_the_reason():
    locs, _ = drifting("linear", 100, n=3000)
    with pytest.raises(TableError, match="at least 300 blinks"):
        estimate_drift(locs.select(slice(0, 100)))
    with pytest.raises(TableError, match="at least 20 frames"):
        estimate_drift(locs.with_columns(frame=locs.frame % 10).with_info(MovieInfo(10, 32, 32, 100.0)))
    with pytest.raises(TableError, match="sigma_x and sigma_y"):
        estimate_drift(locs.without_columns("sigma_x", "sigma_y"))
    with pytest.raises(TableError, match="no usable precisions"):
        estimate_drift(locs.with_columns(sigma_x=0.0, sigma_y=0.0))
    with pytest.raises(TableError, match="give pixel_size_nm"):
        estimate_drift(locs.with_info(MovieInfo(N_FRAMES, 32, 32)))
    for options, message in (
        ({"method": "magic"}, "kernel, correlation"),
        ({"max_drift_nm": -1}, "max_drift_nm"),
        ({"method": "correlation", "n_stretches": 1}, "n_stretches"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            estimate_drift(locs, **options)


def test_progress_rises_to_the_end_and_stopping_works():
    locs, _ = drifting("linear", 100, n=3000)
    seen = []

    estimate_drift(locs, on_progress=lambda done, total: seen.append((done, total)))

    assert seen[-1] == (100, 100)
    assert seen == sorted(seen)
    assert len(seen) > 6
    with pytest.raises(Cancelled):
        estimate_drift(locs, should_stop=lambda: len(seen) > 0)


def test_walk_posterior_equals_the_dense_inverse():
    rng = np.random.default_rng(6)
    information, stiffness, measured = rng.random(9) * 3, rng.random(8) * 5, rng.normal(size=9)
    information[4] = 0

    mean, variance, squared_step, evidence = smooth(measured, information, stiffness)

    precision = np.diag(information)
    for k, s in enumerate(stiffness):
        precision[k : k + 2, k : k + 2] += s * np.array([[1, -1], [-1, 1]])
    covariance = np.linalg.inv(precision)
    assert mean == pytest.approx(covariance @ (information * measured), rel=1e-6)
    assert variance == pytest.approx(np.diag(covariance), rel=1e-6)
    assert squared_step == pytest.approx(
        np.diff(mean) ** 2 + variance[1:] + variance[:-1] - 2 * np.diag(covariance, 1), rel=1e-6
    )
    # The evidence is that of the measurements under the prior, up to a constant: differences must agree.
    louder = smooth(2 * measured, information, stiffness)[3]
    projected = np.diag(information) - np.outer(information, information) * covariance
    assert louder - evidence == pytest.approx(-1.5 * measured @ projected @ measured, rel=1e-5)


def test_trajectory_is_linear_between_its_nodes_and_constant_beyond():
    path = Trajectory(np.array([10.0, 20.0]), np.array([[0.0, 0.0], [10.0, -20.0]]))

    assert path.at([0, 10, 15, 20, 30]).tolist() == [[0, 0], [0, 0], [5, -10], [10, -20], [10, -20]]


def test_correlation_peak_and_redundant_solution_are_exact_on_clean_input():
    y, x = np.mgrid[:5, :5] - 2.0
    assert _quadratic_peak(3 - (y - 0.3) ** 2 - 2 * (x + 0.4) ** 2 + 0.1 * x * y) == pytest.approx(
        np.linalg.solve([[2, -0.1], [-0.1, 4]], [0.6, -1.6]), abs=1e-9
    )
    assert _quadratic_peak(np.zeros((5, 5))) == (0, 0)
    truth = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0], [4.0, 0.5]])
    truth -= truth.mean(axis=0)
    pairs = np.array([(a, b) for a in range(4) for b in range(a + 1, 4)])
    shifts = truth[pairs[:, 1]] - truth[pairs[:, 0]]
    shifts[2] += 50  # one false peak
    assert _solve_redundant(pairs, shifts, 4) == pytest.approx(truth, abs=0.05)


def test_figure_and_path_of_both_outcomes(tmp_path):
    locs, _ = drifting("linear", 100, n=4000)
    drift = estimate_drift(locs)

    assert "remaining error" in drift_figure(drift).axes[0].get_title()
    rows = np.loadtxt(save_path(drift, tmp_path / "path.csv"), delimiter=",", skiprows=1)
    assert rows.shape == (N_FRAMES, 3)
    assert rows[:, 1] == pytest.approx(drift.dx_nm, abs=1e-3)

    still, _ = drifting("none", 0, n=4000)
    assert "not applied" in drift_figure(estimate_drift(still)).axes[0].get_title()


@pytest.mark.parametrize("axis", [0, 1])
def test_the_figure_of_a_drift_along_one_axis_can_be_read(axis):
    """Its path is a line, beside which the numbers of the other axis need room; and a long reason needs two lines."""
    path = np.zeros((N_FRAMES, 2))
    path[:, axis], path[:, 1 - axis] = np.linspace(0, 900, N_FRAMES), np.linspace(0, 5, N_FRAMES)
    reason = "the drift found in one half of the field is another one than that in the other half, by 31 nm of 900 nm"
    figure = drift_figure(Drift(path[:, 0], path[:, 1], "kernel", False, reason, np.nan, 0.0, 0.0, path, {}))
    figure.draw_without_rendering()
    over_time, plane = figure.axes[:2]
    box = plane.get_window_extent()
    assert 0.5 < box.height / box.width < 2
    for labels in (plane.get_xticklabels(), plane.get_yticklabels()):
        extents = [label.get_window_extent() for label in labels if label.get_text()]
        assert not any(one.overlaps(other) for k, one in enumerate(extents) for other in extents[:k])
    title = over_time.title.get_window_extent()
    assert figure.bbox.x0 <= title.x0
    assert title.x1 <= plane.title.get_window_extent().x0


def test_command_corrects_draws_and_tells(tmp_path, capsys):
    locs, _ = drifting("linear", 200, n=6000)
    source = tmp_path / "movie_locs.hdf5"
    locs.save(source)
    figure, path = tmp_path / "drift.png", tmp_path / "drift.csv"

    assert main(["drift", str(source), "--figure", str(figure), "--path-out", str(path), "--progress", "none"]) == 0

    captured = capsys.readouterr()
    assert "movie_locs_undrifted.hdf5" in captured.out
    assert "removed, remaining error at least" in captured.err
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert path.read_text().startswith("frame,dx_nm,dy_nm")
    corrected = Localizations.load(tmp_path / "movie_locs_undrifted.hdf5")
    assert not np.allclose(corrected.x, locs.x)

    assert main(["drift", str(source), "--json", "--overwrite", "--quiet", "--method", "correlation"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "correlation"
    assert main(["drift", str(source), "--figure", str(figure)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_command_says_when_nothing_was_removed(tmp_path, capsys):
    locs, _ = drifting("none", 0, n=4000)
    source = tmp_path / "movie_locs.hdf5"
    locs.save(source)

    assert main(["drift", str(source), "--progress", "none"]) == 0

    assert "No drift removed: molecules held out" in capsys.readouterr().err
    assert np.array_equal(Localizations.load(tmp_path / "movie_locs_undrifted.hdf5").x, locs.x)


def test_fast_drift_is_found_from_within_the_blinks():
    locs, path = drifting("random_walk", 500, "rings", n=10_000, seed=7, on_frames=6.0)
    reference = estimate_drift(locs, check=False)

    # With blinks as wholes, 7 nm would be left.
    assert residual_nm(reference, path, locs) < 5.0


def test_banded_product_and_posterior_equal_the_dense_ones():
    rng = np.random.default_rng(8)
    n, width = 12, 3
    dense = np.zeros((n, n))
    for start in range(n - width):
        part = rng.normal(size=width + 1)
        dense[start : start + width + 1, start : start + width + 1] += np.outer(part, part)
    band = np.zeros((width + 1, n))
    for step in range(width + 1):
        band[-1 - step, step:] = np.diagonal(dense, step)
    force, stiffness = rng.normal(size=n), rng.uniform(0.5, 2, n - 1)

    assert banded_product(band, force) == pytest.approx(dense @ force)

    mean, squared_step, _ = posterior(band, force, stiffness, rng, 20_000)
    precision = dense + np.diag(np.append(stiffness, 0) + np.append(0, stiffness))
    precision -= np.diag(stiffness, 1) + np.diag(stiffness, -1)
    covariance = np.linalg.inv(precision)
    assert mean == pytest.approx(covariance @ force, rel=1e-5)
    variance = np.diag(covariance)[1:] + np.diag(covariance)[:-1] - 2 * np.diag(covariance, 1)
    assert squared_step == pytest.approx(np.diff(mean) ** 2 + variance, rel=0.1)


def test_a_known_structure_tells_more_than_the_blinks_of_each_other():
    path = draw_drift(np.random.default_rng(9), "random_walk", 400, 100)
    simulated = simulate_localizations("clusters", n_localizations=4000, n_frames=400, drift_nm=path, seed=9)
    blinks, n = simulated.molecule, len(simulated.molecule)
    order = np.lexsort((simulated.locs.frame, blinks))
    xy = np.stack([simulated.locs.x, simulated.locs.y], axis=1)[order] * 100.0
    rows = Rows(xy, simulated.locs.frame[order] + 0.5, np.full(n, 10.0), np.arange(n))
    sites = np.unique(np.stack([simulated.true_x, simulated.true_y], axis=1) * 100, axis=0)
    rough = Trajectory(np.arange(400) + 0.5, path + np.random.default_rng(1).normal(0, 3, path.shape))
    walks = [Walk(5.0, np.ones(399), 1.0, 0)] * 2

    def error(structure):
        found = settle(rows, rough, walks, 400, 8.0, np.random.default_rng(0), structure_nm=structure)
        difference = found.displacement_nm - path
        return float((difference - difference.mean(axis=0)).std())

    assert error(sites) < error(None)
    assert error(sites) < 6


@pytest.mark.parametrize("method", ["kernel", "correlation", "fiducials"])
def test_a_movie_that_nobody_recorded_is_refused_by_its_number_of_frames(method):
    locs, _ = drifting("linear", 100, n=500)
    endless = locs.with_info(replace(locs.info, n_frames=10**9))
    last = int(locs["frame"].max())
    with pytest.raises(TableError, match=rf"1000000000 frames, but .* frame {last}, .*e\.g\. {last + 1} "):
        estimate_drift(endless, method=method)


def test_a_molecule_in_an_impossible_frame_is_named():
    locs, _ = drifting("linear", 100, n=500)
    frame = locs["frame"].copy()
    frame[7] = 4 * 10**9
    astray = locs.with_info(replace(locs.info, n_frames=4 * 10**9 + 1)).with_columns(frame=frame)
    with pytest.raises(TableError, match=r"lies in frame 4000000000, .* leave out"):
        estimate_drift(astray)


def test_the_figure_of_a_very_long_movie_draws_a_part_of_its_frames():
    zero = np.zeros(MOST_FRAMES)
    path = np.zeros((MOST_FRAMES, 2))
    path[:, 0] = np.linspace(0, 100, MOST_FRAMES)
    long = Drift(zero, zero, "kernel", False, "a test", np.nan, np.nan, np.nan, path, {})
    over_time, plane, *_ = drift_figure(long).axes
    frame, x_nm = over_time.lines[0].get_data()
    assert len(frame) <= 20_000
    assert (frame[0], frame[-1]) == (0, MOST_FRAMES - 1)
    np.testing.assert_allclose(x_nm, path[frame.astype(int), 0])
    assert len(plane.collections[0].get_offsets()) == len(frame)
