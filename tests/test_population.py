"""What a network is told of a movie's molecules as a whole: measured rightly, used, and harmless where unknown."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb import localize
from smlm_pb.camera import Camera
from smlm_pb.errors import ConfigurationError
from smlm_pb.localization.candidates import CANDIDATE_DTYPE
from smlm_pb.localization.movie_population import LEAST_MOLECULES, population_of
from smlm_pb.localization.photometry import photon_scale
from smlm_pb.networks import NetworkSettings, build_network
from smlm_pb.networks.condition import condition_of
from smlm_pb.networks.inference import FixedWidthNetwork
from smlm_pb.pair_density import FARTHEST_PX, NEAREST_PX
from smlm_pb.population import CROWDING_RANGE, Population
from smlm_pb.refinement.crlb import crlb
from smlm_pb.simulation import simulate
from smlm_pb.simulation.photon_laws import PhotonLaw, measured_population
from smlm_pb.simulation.presets import density_sweep
from smlm_pb.simulation.rendering import render_separable
from smlm_pb.simulation.scenes import SceneSettings, draw_scene
from smlm_pb.training.batches import collate
from smlm_pb.training.loop import _told_more

SMALL = {"channels": 16, "blocks": 2}


def candidates(photons, *, size_px=400, frames=10, seed=0, spacing_px=12, probability=0.95):
    """Candidates on a loose grid, all of them alone."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(len(photons), CANDIDATE_DTYPE)
    per_line = size_px // spacing_px
    index = np.arange(len(photons)) // frames
    assert index.max() < per_line**2
    rows["frame"] = np.arange(len(photons)) % frames
    rows["x"] = (index % per_line) * spacing_px + rng.uniform(0, 1, len(photons))
    rows["y"] = (index // per_line) * spacing_px + rng.uniform(0, 1, len(photons))
    rows["photons"], rows["background"], rows["probability"] = photons, 20.0, probability
    return rows


@pytest.mark.parametrize("spread", [0.0, 0.4, 0.8])
def test_the_spread_of_lone_molecules_is_measured_without_their_noise(spread):
    rng = np.random.default_rng(1)
    true = 800 * rng.lognormal(0, spread, 4000) if spread else np.full(4000, 800.0)
    noise = crlb(800.0, 20.0, 1.2).sigma_photons
    rows = candidates(true + rng.normal(0, noise, 4000))
    found = population_of(rows, (10, 400, 400), camera=Camera(), psf_sigma_px=1.2)
    assert found.photons == pytest.approx(800, rel=0.05)
    for ratio in (found.photons / found.photons_low, found.photons_high / found.photons):
        assert np.log(ratio) == pytest.approx(spread * 0.9945, abs=0.05)
    assert found.density_per_px2 == pytest.approx(0.95 * 4000 / (10 * 400 * 400), rel=1e-3)


def test_electron_multiplication_halves_what_the_network_sees():
    rows = candidates(np.full(200, 1000.0))
    plain = population_of(rows, (10, 400, 400), camera=Camera(), psf_sigma_px=1.2)
    multiplied = population_of(rows, (10, 400, 400), camera=Camera(em_gain=100.0), psf_sigma_px=1.2)
    assert plain.photons == pytest.approx(1000)
    assert multiplied.photons == pytest.approx(500)


def test_too_few_molecules_tell_nothing():
    shape = {"camera": Camera(), "psf_sigma_px": 1.2}
    assert population_of(candidates(np.full(LEAST_MOLECULES - 1, 900.0)), (10, 400, 400), **shape) is None
    assert population_of(candidates(np.full(LEAST_MOLECULES, 900.0)), (10, 400, 400), **shape) is not None
    faint = candidates(np.full(100, 900.0), probability=0.4)
    assert population_of(faint, (10, 400, 400), **shape) is None


def test_merged_neighbours_do_not_blur_what_lone_molecules_tell():
    rows = candidates(np.full(600, 1000.0))
    pairs = rows[:200].copy()
    pairs["x"] += 1.5
    pairs["photons"] = 300.0
    found = population_of(np.concatenate((rows, pairs)), (10, 400, 400), camera=Camera(), psf_sigma_px=1.2)
    assert found.photons_low == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize(
    ("values", "said"), [((0, 0, 1, 1), "photons"), ((5, 6, 7, 1), "rise"), ((5, 4, 7, float("nan")), "density")]
)
def test_an_impossible_population_is_refused(values, said):
    with pytest.raises(ConfigurationError, match=said):
        Population(*values)


@given(
    seed=st.integers(0, 2**31),
    spread=st.sampled_from(["constant", "lognormal", "exponential"]),
    on=st.sampled_from([None, 0.5, 4.0]),
    least=st.floats(50, 5000),
)
@settings(max_examples=60, deadline=None)
def test_what_is_told_in_training_is_a_population(seed, spread, on, least):
    law = PhotonLaw(1000.0, spread, 0.3, on, 1e5)
    told = measured_population(np.random.default_rng(seed), law, scale=1.0, least_photons=least, density_per_px2=0.01)
    assert told.photons_low < told.photons < told.photons_high
    assert told.photons > 0.5 * least


def test_what_is_told_in_training_is_right_within_its_error():
    rng = np.random.default_rng(0)
    law = PhotonLaw(1000.0, "lognormal", 0.4, None, 1e5)

    def told(**where):
        drawn = (measured_population(rng, law, scale=0.5, least_photons=50.0, **where).values() for _ in range(400))
        return np.exp(np.log(list(drawn)).mean(0))

    middle, low, high, density, density_around = told(density_per_px2=0.002)
    assert middle == pytest.approx(500, rel=0.02)
    assert np.log(high / middle) == pytest.approx(0.4, rel=0.1)
    assert np.log(middle / low) == pytest.approx(0.4, rel=0.1)
    assert density == pytest.approx(0.002, rel=0.1)
    assert density_around == pytest.approx(density, rel=0.05)
    # Where molecules keep together, part of the neighbours' light is taken for a molecule's own.
    assert told(density_per_px2=0.08)[0] == pytest.approx(500, rel=0.02)
    assert told(density_per_px2=0.01, crowding=8.0)[0] == pytest.approx(500 * np.exp(0.05), rel=0.02)


def test_scenes_tell_their_population_or_nothing():
    always, never = (SceneSettings(unknown_population_fraction=share) for share in (0.0, 1.0))
    known = [draw_scene(np.random.default_rng(k), always, 24) for k in range(8)]
    unknown = [draw_scene(np.random.default_rng(k), never, 24) for k in range(8)]
    assert all(scene.population is not None for scene in known)
    assert all(scene.population is None for scene in unknown)
    batch = collate([known[0], unknown[1]])
    assert batch.population.shape == (2, 5)
    assert batch.population[0].tolist() == pytest.approx(known[0].population.values())
    assert batch.population[1].isnan().all()


def test_an_asymmetric_psf_with_a_halo_keeps_its_light():
    bare = {"sparse_fraction": 1.0, "empty_fraction": 0.0, "background_e": (0, 0), "em_fraction": 0, "gain_error": 0.0}
    bare |= {
        "sparse_density_per_px2": (0.01, 0.01),
        "photons": (5e5, 5e5),
        "psf_sigma_px": (1.5, 1.5),
        "psf_spread": 0.0,
    }
    changes = []
    for k in range(4):
        plain = draw_scene(np.random.default_rng(k), SceneSettings(**bare), 64)
        other = draw_scene(np.random.default_rng(k), SceneSettings(**bare, psf_asymmetry=0.3, psf_halo=0.3), 64)
        np.testing.assert_array_equal(plain.x, other.x)
        assert other.electrons.sum() == pytest.approx(plain.electrons.sum(), rel=0.02)
        changes.append(np.abs(other.electrons - plain.electrons).max() / plain.electrons.max())
    assert max(changes) > 0.02


def a_network(told):
    torch.manual_seed(0)
    return build_network(NetworkSettings(**SMALL, told=told)).eval()


def trained(network):
    """As after some training: what is told has come to matter."""
    generator = torch.Generator().manual_seed(1)
    for block in network.backbone.blocks:
        block.modulation.weight.data = 0.3 * torch.randn(block.modulation.weight.shape, generator=generator)
        block.second.weight.data = 0.1 * torch.randn(block.second.weight.shape, generator=generator)
    return network


@torch.inference_mode()
def test_unknown_is_the_same_as_left_out_and_known_is_not():
    network = trained(a_network("population"))
    image, width = 20 * torch.rand(2, 1, 16, 16), torch.tensor([1.1, 1.4])
    known = torch.tensor([[1000.0, 800, 1200, 0.01, 0.02]]).repeat(2, 1)
    left_out, unknown = network(image, width), network(image, width, known * torch.nan)
    torch.testing.assert_close(left_out.logit, unknown.logit)
    assert (network(image, width, known).logit - unknown.logit).abs().max() > 1e-3
    deaf = trained(a_network("psf"))
    torch.testing.assert_close(deaf(image, width, known).logit, deaf(image, width).logit)


@torch.inference_mode()
def test_folded_weights_know_the_population():
    network = trained(a_network("population"))
    population = Population(1000.0, 800.0, 1200.0, 0.01)
    image, width = 20 * torch.rand(2, 1, 16, 16), torch.full((2,), 1.3)
    told = torch.tensor([population.values()]).repeat(2, 1)
    folded = FixedWidthNetwork(network, 1.3, population=population)(image, width)
    torch.testing.assert_close(folded.logit, network(image, width, told).logit, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("less", "more"), [("psf", "population"), ("psf", "arrangement"), ("population", "arrangement")]
)
def test_a_network_that_is_told_more_starts_as_the_one_it_comes_from(less, more):
    plain, told = trained(a_network(less)), a_network(more)
    told.load_state_dict(_told_more(plain.state_dict(), told.state_dict()))
    image, width = 20 * torch.rand(2, 1, 16, 16), torch.tensor([1.1, 1.4])
    known = torch.tensor([[1000.0, 800, 1200, 0.01, 0.02]]).repeat(2, 1)
    torch.testing.assert_close(told(image, width, known).logit, plain(image, width, known).logit)


@torch.inference_mode()
@pytest.mark.parametrize(("told", "differs"), [("population", False), ("arrangement", True)])
def test_how_crowded_molecules_lie_is_heard_by_networks_that_are_told(told, differs):
    network = trained(a_network(told))
    image, width = 20 * torch.rand(2, 1, 16, 16), torch.tensor([1.1, 1.4])
    rows = [torch.tensor([[1000.0, 800, 1200, 0.01, around]]).repeat(2, 1) for around in (0.01, 0.1)]
    even, crowded = (network(image, width, row).logit for row in rows)
    assert bool((even - crowded).abs().max() > 1e-3) == differs


def test_a_population_of_unknown_arrangement_is_an_even_one():
    assert Population(1000.0, 800.0, 1200.0, 0.01).values() == (1000.0, 800.0, 1200.0, 0.01, 0.01)


@pytest.mark.parametrize(("structure", "lowest", "highest"), [("uniform", 0.8, 1.25), ("filaments", 1.5, 50.0)])
def test_scenes_say_how_crowded_their_molecules_lie(structure, lowest, highest):
    settings = SceneSettings(
        unknown_population_fraction=0.0, empty_fraction=0.0, sparse_fraction=0.0, dense_structures={structure: 1.0}
    )
    told = [draw_scene(np.random.default_rng(k), settings, 48).population for k in range(40)]
    crowding = [population.density_around_px2 / population.density_per_px2 for population in told]
    assert lowest < np.median(crowding) < highest


def test_the_crowding_of_a_movie_is_measured():
    """Found molecules in pairs 3 px apart, and the same number anywhere."""
    rng = np.random.default_rng(3)
    pairs = candidates(np.full(400, 1000.0), probability=1.0)
    others = pairs.copy()
    others["x"] += 3.0
    anywhere = candidates(np.full(800, 1000.0), probability=1.0)
    for axis in ("x", "y"):
        anywhere[axis] = rng.uniform(0, 400, 800)
    shape = {"camera": Camera(), "psf_sigma_px": 1.2}
    paired = population_of(np.concatenate((pairs, others)), (10, 400, 400), **shape)
    assert paired.density_around_px2 == pytest.approx(1 / (np.pi * (FARTHEST_PX**2 - NEAREST_PX**2)), rel=0.02)
    even = population_of(anywhere, (10, 400, 400), **shape)
    assert even.density_around_px2 == pytest.approx(even.density_per_px2, rel=0.4)


def test_conditions_are_of_order_one_over_the_whole_range():
    ranges = (50, 2e4), (1.02, 8), (1e-5, 0.1), CROWDING_RANGE
    told = torch.tensor([[p, p / r, p * r, d, d * c] for p, r, d, c in itertools.product(*ranges)])
    numbers = condition_of(torch.linspace(0.8, 2.0, len(told)), told)
    assert numbers.shape == (16, 8)
    assert numbers.abs().max() < 4


def spots(scale, neighbours, seed=0):
    """Frames of molecules that a network has found, but whose photons it states too small or too large."""
    rng = np.random.default_rng(seed)
    frame = np.repeat(np.arange(6), 9)
    x, y = (np.tile(places, 6) + rng.uniform(-0.5, 0.5, 54) for places in np.indices((3, 3)).reshape(2, 9) * 16 + 8)
    if neighbours:  # 3 px away, half as bright
        frame, x, y = np.tile(frame, 2), np.append(x, x + 3.0), np.append(y, y)
    photons = np.where(np.arange(len(x)) < 54, 3000.0, 1500.0)
    mean = np.full((6, 48, 48), 30.0)
    for k in range(6):
        these = frame == k
        mean[k] += render_separable(x[these], y[these], photons[these], 1.2, (48, 48))
    rows = np.zeros(len(x), [("frame", "i8"), ("x", "f4"), ("y", "f4"), ("photons", "f4"), ("probability", "f4")])
    rows["frame"], rows["x"], rows["y"], rows["photons"], rows["probability"] = frame, x, y, photons / scale, 0.95
    return rows, rng.poisson(mean).astype(np.float32)


@pytest.mark.parametrize("neighbours", [False, True])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
def test_the_pixels_tell_by_how_much_photons_are_wrong(scale, neighbours):
    rows, electrons = spots(scale, neighbours)
    found = photon_scale(rows, np.arange(54), electrons, 1.2)
    assert found == pytest.approx(scale, rel=0.02)


def test_photons_that_cannot_be_measured_stay():
    rows, electrons = spots(1.3, False)
    assert photon_scale(rows, np.empty(0, np.intp), electrons, 1.2) == 1.0
    assert photon_scale(rows, np.arange(54), np.full_like(electrons, 30.0), 1.2) == pytest.approx(0.4)


@pytest.mark.parametrize(("clustered", "scale"), [(False, 1.25), (True, 1.0)])
def test_in_crowds_the_pixels_are_asked_only_where_molecules_stand_alone_by_chance(clustered, scale):
    """Of molecules that keep together, those that seem alone are lit by others that nobody found."""
    rng = np.random.default_rng(4)
    n, frames, size = 1500, 6, 64
    rows = candidates(np.full(n, 2000.0 / 1.25), frames=frames, probability=1.0)
    for axis in ("x", "y"):
        middle = rng.uniform(6, size - 7, 20)[rng.integers(0, 20, n)] + rng.normal(0, 3.0, n)
        rows[axis] = middle.clip(0, size - 1) if clustered else rng.uniform(0, size - 1, n)
    lone = np.arange(30) if clustered else np.arange(0)
    rows["x"][lone], rows["y"][lone] = 2.0, 2.0 + 10 * (lone // frames)
    electrons = np.stack(
        [
            render_separable(
                one["x"].astype(float), one["y"].astype(float), np.full(len(one), 2000.0), 1.1, (size, size)
            )
            for one in (rows[rows["frame"] == k] for k in range(frames))
        ]
    )
    told = population_of(
        rows,
        electrons.shape,
        camera=Camera(),
        psf_sigma_px=1.1,
        electrons=rng.poisson(20 + electrons).astype(np.float32),
    )
    assert told.photon_scale == pytest.approx(scale, abs=0.05)
    assert (told.density_around_px2 > 1.3 * told.density_per_px2) == clustered


def test_photons_of_the_table_are_those_in_the_pixels():
    recipe = density_sweep(0.4, frames=30, size_px=64)
    movie, _ = simulate(recipe, seed=3)
    for model in ("default", "fast"):
        found = localize(movie, model=model, camera=recipe.camera.camera(), pixel_size_nm=100, psf_sigma_px=1.1)
        assert np.median(found["photons"]) == pytest.approx(2000, rel=0.06)
