"""Position maps: moments and draws by the numbers of the source, which losses are honest, what a second look sees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb.errors import ConfigurationError
from smlm_pb.losses.map_grid import BASES, MapGrid
from smlm_pb.losses.sampling_argmax import LOSSES, draw_relaxed, energy_score, temperature_at
from smlm_pb.networks.second_look import SecondLook
from smlm_pb.refinement.looks import CHANNELS, FACTS, WINDOW_PX, look, turned

SHARE = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1], dtype=torch.float64)


def line_map():
    """The shares along x, in the middle row of a 5×5 map."""
    logits = torch.full((5, 5), -80.0, dtype=torch.float64)
    logits[2] = SHARE.log()
    return logits.reshape(1, -1)


@pytest.mark.parametrize(
    ("basis", "variance"), [("uniform", 1.28333333), ("triangular", 1.36666667), ("gaussian", 2.2)]
)
def test_mean_and_variance_of_a_map(basis, variance):
    moments = MapGrid(5, 1.0, basis).moments(line_map())
    assert moments.mean[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert moments.covariance[0, 1, 1].item() == pytest.approx(variance, abs=1e-6)
    assert moments.covariance[0, 0, 1].item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("temperature", "variance"), [(2.0, 0.193), (0.5, 0.799), (0.1, 1.235), (0.01, 1.357)])
def test_relaxed_draws_are_too_narrow_at_high_temperature(temperature, variance):
    generator = torch.Generator().manual_seed(0)
    drawn = draw_relaxed(
        line_map().expand(100, -1), MapGrid(5, 1.0), temperature=temperature, samples=400, generator=generator
    )
    assert drawn[..., 1].var().item() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize("basis", BASES)
def test_draws_from_the_basis_have_its_variance(basis):
    grid = MapGrid(5, 0.7, basis)
    drawn = grid.draw((200_000,), torch.empty(0), torch.Generator().manual_seed(1))
    assert drawn.var().item() == pytest.approx(grid.basis_variance, rel=0.02)
    nodes, weights = grid.quadrature(torch.empty(0, dtype=torch.float64))
    assert (weights * nodes[:, 0] ** 2).sum().item() == pytest.approx(grid.basis_variance, rel=1e-9)


@pytest.mark.parametrize("basis", BASES)
def test_the_marginal_distribution_belongs_to_the_map(basis):
    grid = MapGrid(5, 1.0, basis)
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 25, dtype=torch.float64, generator=generator)
    cells = torch.multinomial(torch.softmax(logits[0], 0), 100_000, True, generator=generator)
    drawn = grid.positions(logits)[cells] + grid.draw((100_000, 2), logits, generator)
    at = torch.tensor([[0.4, -0.8]], dtype=torch.float64)
    assert grid.marginal_cdf(logits, at)[0].tolist() == pytest.approx((drawn < at).double().mean(0).tolist(), abs=0.006)


@pytest.mark.parametrize("values", [{"cells": 4}, {"cells": 1}, {"step": 0.0}, {"basis": "round"}])
def test_impossible_grids_are_refused(values):
    with pytest.raises(ConfigurationError):
        MapGrid(**values)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_have_gradients(name):
    torch.manual_seed(0)
    logits = torch.randn(4, 25, dtype=torch.float64, requires_grad=True)
    value = LOSSES[name](logits, torch.tensor([[0.3, -0.2]] * 4, dtype=torch.float64), MapGrid(5, 1.0))
    assert value.shape == (4,)
    value.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() > 0


def learned_width(name):
    """Standard deviation of a map without input, trained on positions drawn with σ = 1 along each axis."""
    torch.manual_seed(3)
    grid = MapGrid(9, 0.8)
    truth = torch.randn(4000, 2)
    logits = torch.zeros(1, 81, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for step in range(150):
        batch = truth[torch.randint(len(truth), (64,))]
        more = {"temperature": temperature_at(step / 150)} if name == "sampling-argmax" else {}
        value = LOSSES[name](logits.expand(64, -1), batch, grid, **more).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    covariance = grid.moments(logits.detach()).covariance[0]
    return float(covariance.diagonal().mean().sqrt())


def test_only_the_proper_score_learns_how_uncertain_it_is():
    assert learned_width("energy") == pytest.approx(1.0, abs=0.1)
    assert learned_width("sampling-argmax") < 0.6
    assert learned_width("discrete-expectation") < 0.4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_energy_score_is_smallest_for_the_truth(seed):
    generator = torch.Generator().manual_seed(seed)
    grid = MapGrid(5, 1.0)
    true, other = (torch.randn(1, 25, dtype=torch.float64, generator=generator) for _ in range(2))
    nodes, weights = grid.quadrature(true)
    places = (grid.positions(true)[:, None] + nodes).reshape(-1, 2)
    chance = (torch.softmax(true[0], 0)[:, None] * weights).reshape(-1)

    def expected(logits):
        return (energy_score(logits.expand(len(places), -1), places, grid) * chance).sum().item()

    assert expected(true) <= expected(other) + 1e-9


def test_temperatures_fall():
    assert temperature_at(0.0) == 2.0
    assert temperature_at(1.0) == pytest.approx(0.1)
    with pytest.raises(ConfigurationError):
        temperature_at(0.5, end=0.0)


# -- what is seen ------------------------------------------------------------------------------------------


def scene(offset=(0.0, 0.0), n=1500.0, others=True):
    """A noise-free frame of two molecules, and a table whose first row is off by an offset (y, x)."""
    from smlm_pb.simulation.rendering import render_separable

    x, y = np.array([10.2, 13.4]), np.array([11.7, 9.1])
    photons = np.array([n, 1200.0])
    frame = render_separable(x, y, photons, 1.2, (24, 22)) + 20.0
    columns = {
        "frame": np.zeros(2, int),
        "x": x + np.array([offset[1], 0.0]),
        "y": y + np.array([offset[0], 0.0]),
        "photons": photons,
        "background": np.full(2, 20.0),
        "sigma_x": np.full(2, 0.1),
        "sigma_y": np.full(2, 0.1),
        "probability": np.ones(2),
    }
    return frame[None], columns


def fact(looks, name):
    return looks.facts[:, FACTS.index(name)]


def test_nothing_is_left_where_the_table_is_right():
    frame, columns = scene()
    looks = look(frame, columns, psf_sigma_px=1.2)
    assert looks.channels.shape == (2, len(CHANNELS), WINDOW_PX, WINDOW_PX)
    assert np.abs(looks.channels[:, 0]).max() < 1e-4
    assert fact(looks, "amplitude") == pytest.approx([1.0, 1.0], abs=1e-4)
    assert (fact(looks, "significance") > 3).all()


def test_the_step_points_to_the_truth():
    frame, columns = scene(offset=(0.04, -0.05))
    looks = look(frame, columns, psf_sigma_px=1.2)
    assert fact(looks, "step_y")[0] * looks.unit_px[0] == pytest.approx(-0.04, abs=0.015)
    assert fact(looks, "step_x")[0] * looks.unit_px[0] == pytest.approx(0.05, abs=0.015)


def test_a_molecule_that_is_not_there_has_no_amplitude():
    frame, columns = scene(n=0.0)
    columns["photons"] = np.array([1500.0, 1200.0])
    looks = look(frame, columns, psf_sigma_px=1.2)
    assert abs(fact(looks, "amplitude")[0]) < 0.15
    assert fact(looks, "amplitude")[1] == pytest.approx(1.0, abs=0.15)


def test_pixels_without_a_number_and_beyond_the_frame_are_left_out():
    frame, columns = scene()
    frame[0, 11, 10] = np.nan
    columns["x"][1] = 0.3
    looks = look(frame, columns, psf_sigma_px=1.2)
    used = looks.channels[:, CHANNELS.index("used")]
    assert used[0, 3, 4] == 0
    assert used[0].sum() == WINDOW_PX**2 - 1
    assert (used[1, :, :4] == 0).all()
    assert np.isfinite(looks.channels).all()
    assert np.isfinite(looks.facts).all()


@pytest.mark.parametrize("turn", ["flip_x", "flip_y", "swap"])
def test_turning_what_is_seen_is_seeing_what_is_turned(turn):
    rng = np.random.default_rng(5)
    frame, columns = scene(offset=(0.1, -0.2))
    frame = rng.poisson(frame).astype(float)
    columns["sigma_y"] = np.full(2, 0.2)
    there = look(frame, columns, psf_sigma_px=1.2)
    moved = dict(columns)
    if turn == "flip_x":
        frame, moved["x"] = frame[:, :, ::-1], frame.shape[2] - 1 - columns["x"]
    elif turn == "flip_y":
        frame, moved["y"] = frame[:, ::-1], frame.shape[1] - 1 - columns["y"]
    else:
        frame = frame.transpose(0, 2, 1)
        moved |= {a: columns[b] for a, b in (("x", "y"), ("y", "x"), ("sigma_x", "sigma_y"), ("sigma_y", "sigma_x"))}
    turns = {name: name == turn for name in ("flip_x", "flip_y", "swap")}
    tensors = (torch.from_numpy(v) for v in (there.channels, there.facts, np.zeros((2, 2), np.float32)))
    channels, facts, _ = turned(*tensors, **turns)
    wanted = look(frame, moved, psf_sigma_px=1.2)
    np.testing.assert_allclose(channels.numpy(), wanted.channels, atol=2e-4)
    np.testing.assert_allclose(facts.numpy(), wanted.facts, atol=2e-4)


def test_an_untrained_second_look_changes_nothing():
    network = SecondLook(planes=len(CHANNELS), window_px=WINDOW_PX, facts=len(FACTS), outputs=1)
    looks = look(*scene(), psf_sigma_px=1.2)
    outputs = network(torch.from_numpy(looks.channels), torch.from_numpy(looks.facts))
    assert outputs.abs().max().item() == 0
