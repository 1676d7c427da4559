"""Movies: blinking, light, window, camera, seeds, presets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb.errors import Cancelled, ConfigurationError
from smlm_pb.simulation import Recipe, iterate_frames, simulate
from smlm_pb.simulation.blinking import Blinks, draw_blinks, draw_flux, light_per_frame
from smlm_pb.simulation.presets import blank, density_sweep, isolated

BLINKING = {"on_frames": 1.5, "off_frames": 30}
QUIET = {"offset_adu": 100, "e_per_adu": 1.0, "read_noise_e": 0.0}


def recipe(**changes):
    values = {"frames": 6, "height": 32, "width": 40, "molecules": {"density_per_um2": 2.0}}
    return Recipe.from_dict({**values, **changes})


# -- blinking ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.tuples(st.floats(-3, 12), st.floats(0, 7), st.floats(0.1, 5)), max_size=8),
    molecules=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_overlaps_of_a_blink_sum_to_its_time_within_the_movie(times, molecules):
    start = np.array([t[0] for t in times])
    end = start + np.array([t[1] for t in times])
    flux = np.array([t[2] for t in times])
    molecule = np.array(molecules[: len(times)], dtype=np.int64)
    lit = light_per_frame(Blinks(molecule, start, end), flux, 10)
    expected = flux * np.maximum(np.minimum(end, 10) - np.maximum(start, 0), 0)
    for m in range(4):
        assert lit.light[lit.molecule == m].sum() == pytest.approx(expected[molecule == m].sum(), abs=1e-9)
    assert np.all((lit.frame >= 0) & (lit.frame < 10))
    keys = list(zip(lit.frame, lit.molecule, strict=True))
    assert keys == sorted(set(keys))  # in order, and a molecule at most once per frame


def test_light_of_one_blink_frame_by_frame():
    lit = light_per_frame(Blinks(np.array([5]), np.array([1.25]), np.array([3.5])), 100.0, 10)
    assert lit.frame.tolist() == [1, 2, 3]
    assert lit.molecule.tolist() == [5, 5, 5]
    assert lit.light == pytest.approx([75, 100, 50])


def test_two_blinks_in_one_frame_are_one_molecule():
    lit = light_per_frame(Blinks(np.array([0, 0]), np.array([2.0, 2.5]), np.array([2.25, 2.75])), 8.0, 4)
    assert lit.frame.tolist() == [2]
    assert lit.light == pytest.approx([4.0])


def test_equilibrium_from_the_first_frame_on():
    rng = np.random.default_rng(1)
    blinks = draw_blinks(rng, 40_000, 50, on_frames=2.0, off_frames=18.0)
    lit = light_per_frame(blinks, 1.0, 50)
    on = np.bincount(lit.frame, weights=lit.light, minlength=50) / 40_000
    assert on == pytest.approx(np.full(50, 0.1), rel=0.06)
    # Seen in a frame: those on when it begins, and those that switch on within it.
    seen = np.bincount(lit.frame, minlength=50) / 40_000
    assert seen.mean() == pytest.approx(0.1 + 0.9 * (1 - np.exp(-1 / 18)), rel=0.02)


def test_bleaching_ends_blinking():
    blinks = draw_blinks(np.random.default_rng(2), 5000, 10_000, on_frames=1, off_frames=5, blinks=4)
    _, count = np.unique(blinks.molecule, return_counts=True)
    assert count.mean() == pytest.approx(4, rel=0.05)
    assert np.std(count) == pytest.approx(np.sqrt(4 * 3), rel=0.1)  # geometric


def test_blinks_of_a_molecule_do_not_overlap():
    blinks = draw_blinks(np.random.default_rng(3), 50, 200, on_frames=3, off_frames=3)
    for m in range(50):
        order = np.argsort(blinks.start[blinks.molecule == m])
        start, end = blinks.start[blinks.molecule == m][order], blinks.end[blinks.molecule == m][order]
        assert np.all(start[1:] > end[:-1])


@pytest.mark.parametrize(
    ("distribution", "relative_sd"), [("constant", 0), ("lognormal", np.sqrt(np.exp(0.16) - 1)), ("exponential", 1)]
)
def test_flux_has_its_mean_and_spread(distribution, relative_sd):
    flux = draw_flux(np.random.default_rng(4), 200_000, 1000.0, distribution, 0.4)
    assert flux.mean() == pytest.approx(1000, rel=0.01)
    assert flux.std() == pytest.approx(1000 * relative_sd, rel=0.02)


# -- the movie ------------------------------------------------------------------------------------------------


def test_movie_and_truth_agree_in_shape_and_light():
    movie, truth = simulate(
        recipe(
            frames=40,
            background={"photons_per_px": 5.0},
            camera=QUIET,
            molecules={"density_per_um2": 3.0, "min_photons": 0, "blinking": BLINKING},
        )
    )
    assert movie.shape == (40, 32, 40)
    assert movie.dtype == np.uint16
    assert (truth.info.n_frames, truth.info.height, truth.info.width) == movie.shape
    assert truth.info.pixel_size_nm == 100
    assert np.all((truth.x >= -0.5) & (truth.x < 39.5) & (truth.y >= -0.5) & (truth.y < 31.5))
    assert np.all(truth.background == 5)
    # What shines in from outside makes up for what shines out.
    signal = (movie.astype(float) - 105).sum()
    assert signal == pytest.approx(truth.photons.sum(), rel=0.05)


def test_a_molecule_at_zero_is_centred_on_the_first_pixel():
    one_node = {"kind": "grid", "spacing_nm": 100, "jitter_nm": 0}
    movie, truth = simulate(
        recipe(
            frames=1,
            height=1,
            width=1,
            structure=one_node,
            camera=QUIET,
            background={"photons_per_px": 0},
            psf={"sigma_px": 0.3},
            molecules={"per_frame": 1, "photons": 10_000, "photon_distribution": "constant"},
        )
    )
    assert (truth.x[0], truth.y[0]) == (0, 0)
    # 90.4 % of a Gaussian of 0.3 px lies within ±0.5 px along each axis.
    assert movie[0, 0, 0] - 100 == pytest.approx(10_000 * 0.9044**2, rel=0.05)


def test_brightest_pixel_is_the_one_the_truth_names():
    movie, truth = simulate(isolated(5000, 5, frames=4))
    for frame, x, y in zip(truth.frame, truth.x, truth.y, strict=True):
        row, column = np.rint(y).astype(int), np.rint(x).astype(int)
        patch = movie[frame, row - 2 : row + 3, column - 2 : column + 3].astype(float) - movie[frame].min()
        weights = patch / patch.sum()
        offset = np.arange(-2, 3)
        assert (weights.sum(axis=0) * offset).sum() == pytest.approx(x - column, abs=0.35)
        assert (weights.sum(axis=1) * offset).sum() == pytest.approx(y - row, abs=0.35)


def test_same_seed_same_movie_whole_or_frame_by_frame():
    wanted = recipe(molecules={"density_per_um2": 2.0, "blinking": BLINKING}, background={"shape": "haze"})
    movie, truth = simulate(wanted, seed=5)
    again, truth_again = simulate(wanted.model_copy(update={"seed": 5}))
    other, _ = simulate(wanted, seed=6)
    assert np.array_equal(movie, again)
    for name in truth.column_names:
        assert np.array_equal(truth[name], truth_again[name])
    assert not np.array_equal(movie, other)
    single = [frame.adu for frame in iterate_frames(wanted, 5)]
    assert np.array_equal(movie, np.stack(single))


def test_density_is_that_of_the_frame_for_every_structure():
    for kind in ("uniform", "filaments", "rings", "clusters", "star", "grid"):
        structure = {"kind": kind} | ({"spacing_nm": 500} if kind == "grid" else {})
        _, truth = simulate(
            recipe(frames=60, structure=structure, molecules={"density_per_um2": 4.0, "min_photons": 0}), seed=3
        )
        assert len(truth) / 60 / (3.2 * 4.0) == pytest.approx(4.0, rel=0.08), kind


def test_filaments_stay_where_they_are():
    wanted = recipe(
        frames=40,
        structure={"kind": "filaments", "count": 2, "width_nm": 10},
        molecules={"density_per_um2": 2.0, "blinking": BLINKING},
    )
    _, truth = simulate(wanted)
    early, late = truth.select(truth.frame < 20), truth.select(truth.frame >= 20)
    from scipy.spatial import cKDTree

    tree = cKDTree(np.column_stack([early.x, early.y]))
    distance, _ = tree.query(np.column_stack([late.x, late.y]))
    assert np.median(distance) < 0.2
    both = np.intersect1d(early.molecule, late.molecule)
    assert both.size
    site = both[0]
    assert np.ptp(truth.x[truth.molecule == site]) == 0


def test_empty_structure_gives_background_alone():
    movie, truth = simulate(blank(30.0, frames=20))
    assert len(truth) == 0
    assert "molecule" in truth
    electrons = (movie.astype(float) - 100) * 0.5
    assert electrons.mean() == pytest.approx(30, rel=0.01)
    assert electrons.var() == pytest.approx(30 + 1.6**2 + 0.25 / 12, rel=0.03)


def test_quantum_efficiency_and_gain_act_on_image_and_truth():
    def mean_and_photons(**camera):
        wanted = recipe(
            frames=10,
            camera={**QUIET, **camera},
            background={"photons_per_px": 40},
            molecules={"per_frame": 4, "photons": 1000, "photon_distribution": "constant"},
        )
        movie, truth = simulate(wanted)
        return movie.mean() - 100, truth.photons[0], truth.background[0]

    adu, photons, background = mean_and_photons(quantum_efficiency=0.5, e_per_adu=0.25)
    assert photons == 500
    assert background == 20
    reference, _, _ = mean_and_photons()
    assert adu == pytest.approx(reference * 0.5 / 0.25, rel=0.02)
    multiplied, photons, _ = mean_and_photons(em_gain=20, e_per_adu=5)
    assert photons == 1000
    assert multiplied == pytest.approx(reference * 20 / 5, rel=0.05)


def test_background_decays():
    movie, _ = simulate(blank(100.0, frames=21, background={"photons_per_px": 100, "decay_frames": 10}))
    mean = (movie.astype(float).mean(axis=(1, 2)) - 100) * 0.5
    assert mean[20] / mean[0] == pytest.approx(np.exp(-2), rel=0.03)


def test_dim_molecules_are_left_out_of_the_truth():
    _, truth = simulate(
        recipe(
            molecules={"density_per_um2": 5, "photons": 100, "photon_distribution": "exponential", "min_photons": 80}
        )
    )
    assert truth.photons.min() >= 80


@pytest.mark.parametrize("density", [0.05, 6.0])
def test_density_sweep_preset(density):
    movie, truth = simulate(density_sweep(density, frames=60))
    assert movie.shape == (60, 64, 64)
    assert np.all(truth.photons == 2000)
    assert np.all(truth.background == 50)
    expected = density * 6.4**2 * 60
    assert len(truth) == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_isolated_preset_keeps_molecules_apart_and_covers_the_pixel():
    _, truth = simulate(isolated(1000, 10, frames=40))
    assert len(truth) == 40 * 16
    first = truth.select(truth.frame == 0)
    distance = np.hypot(first.x[:, None] - first.x, first.y[:, None] - first.y) + 100 * np.eye(16)
    assert distance.min() >= 12
    assert min(truth.x.min(), truth.y.min()) > 5
    fraction = np.histogram(truth.x - np.rint(truth.x), bins=4, range=(-0.5, 0.5))[0]
    assert fraction.min() > 0.7 * fraction.mean()


def test_progress_and_stopping():
    calls = []
    simulate(recipe(), on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 6) for i in range(1, 7)]
    with pytest.raises(Cancelled, match="stopped after 2 of 6 frames"):
        simulate(recipe(), should_stop=lambda: len(calls) >= 8, on_progress=lambda *c: calls.append(c))


def test_provenance_names_seed_and_recipe():
    _, truth = simulate(recipe(), seed=17)
    (step,) = truth.provenance
    assert step["step"] == "simulate"
    assert step["seed"] == 17
    assert Recipe.from_dict(step["recipe"]) == recipe()


def test_impossible_requests_are_refused():
    with pytest.raises(ConfigurationError, match="binding sites"):
        simulate(recipe(molecules={"density_per_um2": 100, "blinking": {"off_frames": 1e9}}))
    with pytest.raises(ConfigurationError, match="larger than the frame"):
        simulate(recipe(structure={"kind": "grid", "spacing_nm": 9999}))
