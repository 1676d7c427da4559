"""What the pixels tell at most: draws of the posterior against the whole posterior and the Cramér–Rao bound."""

import numpy as np
import pytest

from smlm_pb.localization.windows import profile
from smlm_pb.refinement.crlb import crlb

SIGMA, BACKGROUND, READ_VARIANCE = 1.1, 20.0, 1.0


def expected(positions, photons, size=15):
    rows = profile(positions[:, :1] - np.arange(size), SIGMA)
    columns = profile(positions[:, 1:] - np.arange(size), SIGMA)
    return BACKGROUND + photons * np.einsum("ni,nj->ij", rows, columns)


def draws_of(script, frame, start, photons, **length):
    posterior = script("_posterior")
    known = posterior.Known(SIGMA, BACKGROUND, READ_VARIANCE, photons)
    options = {"sweeps": 500, "every": 20, "draws": 1500, "seed": 3, **length}
    return posterior.draw(frame, start, known, **options)


def test_draws_follow_the_whole_posterior_of_one_molecule(script):
    """Against the likelihood on a grid of positions, with photons that are all but known."""
    rng = np.random.default_rng(4)
    frame = rng.poisson(expected(np.array([[7.2, 6.6]]), 150.0)).astype(float)
    drawn = draws_of(script, frame, np.array([[7.0, 7.0]]), (149.9, 150.1))[:, 0]
    steps = np.arange(-1.5, 1.5, 0.03)
    grid = np.stack(np.meshgrid(7.2 + steps, 6.6 + steps, indexing="ij"), axis=-1).reshape(-1, 2)
    rows, columns = (profile(grid[:, k : k + 1] - np.arange(15), SIGMA) for k in (0, 1))
    variance = BACKGROUND + 150.0 * rows[:, :, None] * columns[:, None, :] + READ_VARIANCE
    logs = ((frame + READ_VARIANCE) * np.log(variance) - variance).sum((1, 2))
    weight = np.exp(logs - logs.max())
    weight /= weight.sum()
    mean = weight @ grid
    deviation = np.sqrt(weight @ (grid - mean) ** 2)
    assert drawn.mean(0) == pytest.approx(mean, abs=0.1 * deviation.max())
    assert drawn.std(0) == pytest.approx(deviation, rel=0.1)


def test_the_mean_of_the_posterior_reaches_the_bound(script):
    """Bright molecules that stand alone, photons unknown: errors and spread of the draws as Cramér and Rao say."""
    rng = np.random.default_rng(5)
    errors, spreads = [], []
    consensus = script("_posterior").consensus
    for _ in range(60):
        at = 7 + rng.uniform(-0.5, 0.5, (1, 2))
        drawn = draws_of(script, rng.poisson(expected(at, 2000.0)).astype(float), at, (500.0, 4000.0), draws=100)
        errors.append(consensus(drawn)[0] - at[0])
        spreads.append(drawn[:, 0].std(0))
    bound = float(crlb(2000.0, BACKGROUND, SIGMA, read_variance_e2=READ_VARIANCE).sigma_x)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(bound, rel=0.15)
    assert np.sqrt(np.mean(np.square(spreads))) == pytest.approx(bound, rel=0.1)


def test_molecules_that_change_their_numbers_have_one_mean_each(script):
    """Draws that call two molecules now by one number and now by the other."""
    rng = np.random.default_rng(6)
    places = np.array([[3.0, 3.0], [5.0, 9.0]])
    drawn = np.array([rng.permutation(places + rng.normal(0, 0.1, (2, 2))) for _ in range(200)])
    means = script("_posterior").consensus(drawn)
    assert means[np.argsort(means[:, 0])] == pytest.approx(places, abs=0.05)


def test_light_is_told_by_true_positions(script):
    """Background and bounds of the photons of a simulated crowd, from frames and positions."""
    from smlm_pb.localizations import Localizations, MovieInfo

    rng = np.random.default_rng(7)
    positions = rng.uniform(2, 38, (12, 40, 2))
    photons = rng.uniform(500, 1000, (12, 40))
    rows, columns = (profile(positions[..., k, None].reshape(-1, 1) - np.arange(40), SIGMA) for k in (0, 1))
    images = photons.reshape(-1, 1, 1) * rows[:, :, None] * columns[:, None, :]
    frames = rng.poisson(BACKGROUND + images.reshape(12, 40, 40, 40).sum(1)).astype(float)
    columns = {"frame": np.repeat(np.arange(12), 40), "y": positions[..., 0].ravel(), "x": positions[..., 1].ravel()}
    truth = Localizations(columns, MovieInfo(12, 40, 40, 100.0))
    background, _, (low, high) = script("information").light_of(frames, truth, SIGMA)
    assert background == pytest.approx(BACKGROUND, rel=0.03)
    assert (low, high) == (pytest.approx(500, abs=60), pytest.approx(1000, abs=60))
