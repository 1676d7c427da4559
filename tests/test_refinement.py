"""Refinement of molecules by likelihood: it reaches the bound, says how precise it is, and knows when to stay out."""

import numpy as np
import pytest
from refinement_scenes import SIGMA, crowded, isolated, network_output, table, take_picture

from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.evaluation import evaluate
from smlm_pb.refinement import ADDED_COLUMNS, Reference, measure_reference, refine
from smlm_pb.refinement.crlb import crlb, crlb_group


def relative_error(refined, x, y, bound):
    return np.concatenate([(refined.x - x) / bound.sigma_x, (refined.y - y) / bound.sigma_y])


def pull(refined, x, y):
    return np.concatenate([(refined.x - x) / refined.sigma_x, (refined.y - y) / refined.sigma_y])


@pytest.mark.parametrize(
    ("photons", "background", "read_e", "excess"),
    [(300, 5, 1.6, 1.0), (1000, 50, 0.0, 1.0), (5000, 10, 1.6, 1.0), (2000, 20, 0.3, 2.0)],
)
def test_isolated_molecules_reach_the_bound_from_starts_half_a_pixel_off(photons, background, read_e, excess):
    rng = np.random.default_rng(3)
    n = 1200
    electrons, frame, x, y = isolated(rng, n, photons=photons, background=background, read_e=read_e, excess=excess)
    start = [v + rng.uniform(-0.5, 0.5, n) for v in (x, y)]
    guess = photons * rng.uniform(0.7, 1.3, n)
    locs = table(frame, *start, guess, background * 1.1, 0.3, n_frames=n, shape=(15, 15))
    refined = refine(
        locs, electrons, psf_sigma_px=SIGMA, read_variance_e2=read_e**2, excess_noise_factor=excess, mode="on"
    )
    bound = crlb(photons, background, SIGMA, read_variance_e2=read_e**2, excess=excess, dx=x - 7, dy=y - 7)
    assert (refined["refinement"] == 1).mean() > 0.99
    assert np.sqrt(np.mean(relative_error(refined, x, y, bound) ** 2)) < 1.05
    assert 0.95 < np.std(pull(refined, x, y)) < 1.05
    assert 0.93 < np.std((refined.photons - photons) / refined["sigma_photons"]) < 1.07
    assert refined.photons.mean() == pytest.approx(photons, rel=0.02)
    assert refined.background.mean() == pytest.approx(background, rel=0.05)
    assert refined["chi2"].mean() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("distance_in_sigma", [1.5, 2.0, 3.0])
def test_two_molecules_reach_their_joint_bound(distance_in_sigma):
    rng = np.random.default_rng(4)
    n, photons, background = 250, 4000.0, 10.0
    angle = rng.uniform(0, 2 * np.pi, n)
    half = 0.5 * distance_in_sigma * SIGMA
    middle = 8 + rng.uniform(-0.5, 0.5, (2, n))
    x = np.stack([middle[0] - half * np.cos(angle), middle[0] + half * np.cos(angle)], 1).ravel()
    y = np.stack([middle[1] - half * np.sin(angle), middle[1] + half * np.sin(angle)], 1).ravel()
    frame = np.repeat(np.arange(n), 2)
    electrons = take_picture(frame, x, y, np.full(2 * n, photons), background, rng, n_frames=n, shape=(17, 17))
    bounds = [crlb_group(x[i : i + 2], y[i : i + 2], [photons] * 2, background, SIGMA) for i in range(0, 2 * n, 2)]
    sx, sy = (np.concatenate([b[axis] for b in bounds]) for axis in (0, 1))
    locs = table(
        frame,
        x + 0.15 * rng.normal(size=2 * n),
        y + 0.15 * rng.normal(size=2 * n),
        photons * rng.uniform(0.7, 1.3, 2 * n),
        background,
        0.15,
        n_frames=n,
        shape=(17, 17),
    )
    refined = refine(locs, electrons, psf_sigma_px=SIGMA, mode="on")
    taken = refined["refinement"] == 1
    assert taken.mean() > 0.97
    error = np.concatenate([((refined.x - x) / sx)[taken], ((refined.y - y) / sy)[taken]])
    assert np.sqrt(np.mean(error**2)) < 1.08
    assert 0.92 < np.std(np.concatenate([pull(refined.select(taken), x[taken], y[taken])])) < 1.08


def test_a_neighbour_outside_of_the_group_does_not_pull():
    rng = np.random.default_rng(6)
    n, photons = 300, 3000.0
    x = np.stack([np.full(n, 8.0), np.full(n, 8.0 + 4.3 * SIGMA)], 1) + rng.uniform(-0.2, 0.2, (n, 1))
    frame = np.repeat(np.arange(n), 2)
    x, y = x.ravel(), np.repeat(8.0 + rng.uniform(-0.3, 0.3, n), 2)
    electrons = take_picture(frame, x, y, np.full(2 * n, photons), 5.0, rng, n_frames=n, shape=(17, 21))
    # The photons of the neighbour are guessed wrongly: they must be fitted before its light is subtracted.
    guess = photons * rng.uniform(0.7, 1.3, 2 * n)
    locs = table(frame, x + 0.05 * rng.normal(size=2 * n), y, guess, 5.0, 0.1, n_frames=n, shape=(17, 21))
    refined = refine(locs, electrons, psf_sigma_px=SIGMA, mode="on")
    assert abs(np.mean(refined.x - x, where=np.arange(2 * n) % 2 == 0)) < 0.004
    assert 0.93 < np.std(pull(refined, x, y)) < 1.07


def test_wrong_starts_are_flagged_and_keep_the_network():
    rng = np.random.default_rng(7)
    n = 200
    electrons, frame, x, y = isolated(rng, n, photons=1500, background=10)
    wrong = np.arange(n) % 2 == 0
    angle = rng.uniform(0, 2 * np.pi, n)
    far = np.where(wrong, 2.2, 0.0)
    locs = table(frame, x + far * np.cos(angle), y + far * np.sin(angle), 1500.0, 10.0, 0.2, n_frames=n, shape=(15, 15))
    for mode in ("on", "auto"):
        refined = refine(locs, electrons, psf_sigma_px=SIGMA, mode=mode)
        assert (refined["refinement"][wrong] == 2).mean() > 0.97
        assert (refined["refinement"][~wrong] == 1).mean() > 0.9
        kept = refined["refinement"] != 1
        for name in ("x", "y", "photons", "background", "sigma_x", "sigma_y"):
            np.testing.assert_array_equal(refined[name][kept], locs[name][kept])


def test_a_molecule_that_is_not_there_has_no_evidence_and_is_rejected():
    rng = np.random.default_rng(8)
    n = 200
    electrons = rng.poisson(20.0, (n, 15, 15)).astype(float)
    locs = table(np.arange(n), np.full(n, 7.0), np.full(n, 7.0), 1000.0, 20.0, 0.1, n_frames=n, shape=(15, 15))
    refined = refine(locs, electrons, psf_sigma_px=SIGMA, mode="auto")
    assert (refined["refinement"] != 1).mean() > 0.97
    assert np.median(refined["log_likelihood_ratio"]) < 3.0


def test_the_evidence_for_a_duplicate_is_small_and_for_a_real_neighbour_large():
    rng = np.random.default_rng(9)
    n, photons = 100, 2000.0
    frame = np.repeat(np.arange(n), 2)
    electrons, _, x, y = isolated(rng, n, photons=photons, background=10)
    twice = table(
        frame,
        np.repeat(x, 2) + 0.2 * rng.normal(size=2 * n),
        np.repeat(y, 2) + 0.2 * rng.normal(size=2 * n),
        photons / 2,
        10.0,
        0.2,
        n_frames=n,
        shape=(15, 15),
    )
    duplicate = refine(twice, electrons, psf_sigma_px=SIGMA, mode="on")
    assert np.median(duplicate["log_likelihood_ratio"]) < 5.0
    px, py = np.stack([x, x + 2.2], 1).ravel(), np.repeat(y, 2)
    pair = take_picture(frame, px, py, np.full(2 * n, photons), 10.0, rng, n_frames=n, shape=(15, 15))
    real = refine(table(frame, px, py, photons, 10.0, 0.1, n_frames=n, shape=(15, 15)), pair, psf_sigma_px=SIGMA)
    assert np.min(real["log_likelihood_ratio"]) > 100.0


def test_molecules_at_the_border_are_refined_without_bias():
    rng = np.random.default_rng(10)
    n, shape = 400, (13, 13)
    frame = np.arange(n)
    x, y = rng.uniform(-0.4, 0.6, n), rng.uniform(3, 9, n)
    electrons = take_picture(frame, x, y, np.full(n, 2000.0), 10.0, rng, n_frames=n, shape=shape)
    noisy = [v + 0.1 * rng.normal(size=n) for v in (x, y)]
    refined = refine(
        table(frame, *noisy, 2000.0, 10.0, 0.1, n_frames=n, shape=shape), electrons, psf_sigma_px=SIGMA, mode="on"
    )
    taken = refined["refinement"] == 1
    assert taken.mean() > 0.95
    assert abs(np.mean((refined.x - x)[taken])) < 0.01
    assert 0.9 < np.std(pull(refined.select(taken), x[taken], y[taken])) < 1.1


def test_hot_pixels_of_an_scmos_camera_do_not_matter_when_their_variance_is_known():
    rng = np.random.default_rng(11)
    n, size = 500, 15
    read_e = np.full((size, size), 1.0)
    read_e[6, 8] = read_e[8, 6] = read_e[9, 9] = 60.0
    electrons, frame, x, y = isolated(rng, n, photons=1000, background=10, read_e=read_e)
    noisy = [v + 0.1 * rng.normal(size=n) for v in (x, y)]
    locs = table(frame, *noisy, 1000.0, 10.0, 0.1, n_frames=n, shape=(size, size))
    known = refine(locs, electrons, psf_sigma_px=SIGMA, read_variance_e2=read_e**2, mode="on")
    ignored = refine(locs, electrons, psf_sigma_px=SIGMA, read_variance_e2=1.0, mode="on")
    assert 0.93 < np.std(pull(known, x, y)) < 1.07
    assert np.std(known.x - x) < 0.8 * np.std(ignored.x - x)
    assert np.median(ignored["chi2"]) > 2.0


def test_pixels_that_are_no_numbers_are_left_out():
    rng = np.random.default_rng(12)
    electrons, frame, x, y = isolated(rng, 50, photons=2000, background=10)
    electrons[:, 5, 5] = np.nan
    locs = table(frame, x + 0.05, y, 2000.0, 10.0, 0.1, n_frames=50, shape=(15, 15))
    refined = refine(locs, electrons, psf_sigma_px=SIGMA, mode="on")
    assert all(np.isfinite(refined[name]).all() for name in refined.column_names)
    assert 0.8 < np.std(pull(refined, x, y)) < 1.2


@pytest.mark.parametrize("wrong_by", [0.9, 1.1])
def test_auto_notices_a_wrong_psf_width(wrong_by):
    rng = np.random.default_rng(13)
    electrons, truth = crowded(rng, 0.004, n_frames=8, photons=3000.0, background=10.0)
    found, _ = network_output(rng, truth, missed=0.0, duplicated=0.0)
    right = refine(found, electrons, psf_sigma_px=SIGMA, read_variance_e2=2.56)
    wrong = refine(found, electrons, psf_sigma_px=wrong_by * SIGMA, read_variance_e2=2.56)
    assert (right["refinement"] == 1).mean() > 0.6
    assert (wrong["refinement"] == 1).mean() < 0.05
    assert np.median(wrong["chi2"]) > 1.3 * np.median(right["chi2"])


@pytest.mark.parametrize("density_per_px2", [0.003, 0.02, 0.05])
def test_auto_is_never_worse_than_the_network(density_per_px2):
    rng = np.random.default_rng(14)
    electrons, truth = crowded(rng, density_per_px2)
    found, rows = network_output(rng, truth)
    refined = refine(found, electrons, psf_sigma_px=SIGMA, read_variance_e2=2.56, mode="auto")
    for tolerance in (25.0, 50.0, 100.0):
        before, after = (
            evaluate(t, truth, tolerance_nm=tolerance, chance=False, check=False).at(tolerance)
            for t in (found, refined)
        )
        assert after.jaccard >= before.jaccard - 1e-9
    before, after = (np.hypot(t.x - truth.x[rows], t.y - truth.y[rows]) for t in (found, refined))
    assert np.sqrt(np.mean(after**2)) <= np.sqrt(np.mean(before**2)) * 1.001
    taken = refined["refinement"] == 1
    assert np.sqrt(np.mean(after[taken] ** 2)) < 0.95 * np.sqrt(np.mean(before[taken] ** 2))


@pytest.mark.parametrize(("photons", "believed"), [(800.0, 0), (10_000.0, 1)])
def test_what_the_network_suspects_of_a_lone_spot_counts_only_where_its_shape_cannot_tell(photons, believed):
    """Every tenth molecule is stated with twice the σ of the others, though nothing is wrong with it."""
    rng = np.random.default_rng(4)
    electrons, frame, x, y = isolated(rng, 300, photons=photons)
    bound = float(crlb(photons, 20.0, SIGMA).sigma_x)
    stated = np.where(frame % 10 == 0, 4.0, 2.0) * bound
    found = table(frame, x, y, photons, 20.0, stated, n_frames=300, shape=(15, 15))
    flag = refine(found, electrons, psf_sigma_px=SIGMA, mode="auto")["refinement"]
    assert np.median(flag[frame % 10 != 0]) == 1
    assert np.median(flag[frame % 10 == 0]) == believed


def test_the_order_of_rows_and_the_cut_into_blocks_do_not_matter():
    rng = np.random.default_rng(15)
    electrons, truth = crowded(rng, 0.015, n_frames=4)
    found, _ = network_output(rng, truth)
    options = {"psf_sigma_px": SIGMA, "read_variance_e2": 2.56}
    reference = measure_reference(found, electrons, **options)
    whole = refine(found, electrons, reference=reference, **options)
    order = rng.permutation(len(found))
    shuffled = refine(found.select(order), electrons, reference=reference, **options)
    first, second = (found.select((found.frame >= 2) == late) for late in (False, True))
    parts = [
        refine(first, electrons[:2], reference=reference, **options),
        refine(second, electrons[2:], first_frame=2, reference=reference, **options),
    ]
    for name in ("x", "y", "photons", "sigma_x", "chi2", "refinement"):
        np.testing.assert_allclose(shuffled[name], whole[name][order], rtol=1e-4, atol=1e-5)
        for part, late in zip(parts, (False, True), strict=True):
            np.testing.assert_allclose(part[name], whole[name][(found.frame >= 2) == late], rtol=1e-4, atol=1e-5)


def test_empty_tables_get_the_columns_and_off_changes_nothing():
    rng = np.random.default_rng(16)
    electrons, frame, x, y = isolated(rng, 3)
    locs = table(frame, x, y, 1000.0, 20.0, 0.1, n_frames=3, shape=(15, 15))
    nothing = refine(locs.select([]), electrons, psf_sigma_px=SIGMA)
    assert len(nothing) == 0
    assert set(ADDED_COLUMNS) <= set(nothing.column_names)
    assert refine(locs, electrons, psf_sigma_px=SIGMA, mode="off") is locs
    assert set(refine(locs, electrons, psf_sigma_px=SIGMA).column_names) == set(nothing.column_names)


def test_a_table_with_positions_alone_is_refined():
    rng = np.random.default_rng(17)
    electrons, frame, x, y = isolated(rng, 60, photons=1500, background=10)
    full = table(frame, x + 0.1, y - 0.1, 1.0, 1.0, 1.0, n_frames=60, shape=(15, 15))
    bare = full.without_columns("photons", "background", "sigma_x", "sigma_y", "probability")
    refined = refine(bare, electrons, psf_sigma_px=SIGMA, mode="on")
    assert (refined["refinement"] == 1).all()
    assert refined.photons.mean() == pytest.approx(1500, rel=0.05)
    assert 0.8 < np.std(pull(refined, x, y)) < 1.2


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"mode": "maybe"}, ConfigurationError, "auto, on, off"),
        ({"psf_sigma_px": 0.0}, ConfigurationError, "psf_sigma_px"),
        ({"psf_sigma_px": float("nan")}, ConfigurationError, "psf_sigma_px"),
        ({"excess_noise_factor": 0.5}, ConfigurationError, "excess_noise_factor"),
        ({"read_variance_e2": -1.0}, ConfigurationError, "read_variance_e2"),
        ({"read_variance_e2": np.ones((3, 4))}, ConfigurationError, "3×4"),
        ({"first_frame": 1}, TableError, "frames 0 to 2"),
        ({"device": "abacus"}, ConfigurationError, "abacus"),
    ],
)
def test_wrong_input_is_refused_with_a_remedy(change, error, told):
    electrons, frame, x, y = isolated(np.random.default_rng(18), 3)
    locs = table(frame, x, y, 1000.0, 20.0, 0.1, n_frames=3, shape=(15, 15))
    with pytest.raises(error, match=told) as caught:
        refine(locs, electrons, **{"psf_sigma_px": SIGMA, **change})
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="frames, height, width"):
        refine(locs, electrons[0], psf_sigma_px=SIGMA)


def test_a_reference_that_shows_a_wrong_width_stops_auto():
    electrons, frame, x, y = isolated(np.random.default_rng(19), 40, photons=2000)
    locs = table(frame, x, y, 2000.0, 20.0, 0.1, n_frames=40, shape=(15, 15))
    usual = Reference(factor=3.0)
    assert (refine(locs, electrons, psf_sigma_px=SIGMA, reference=usual)["refinement"] == 1).any()
    stopped = usual._replace(width_error_px=0.1)
    assert not (refine(locs, electrons, psf_sigma_px=SIGMA, reference=stopped)["refinement"] == 1).any()
