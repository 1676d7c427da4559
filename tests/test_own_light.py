"""What is left on the pixels for a candidate once the light of likelier ones is taken away."""

import numpy as np
import pytest

from smlm_pb.localization.own_light import CERTAIN, Pixels, own_light
from smlm_pb.simulation.rendering import render_separable

SIGMA_PX, BACKGROUND = 1.1, 20.0


def frame_of(*molecules, shape=(20, 24), sigma_px=SIGMA_PX):
    """The expected image of molecules (x, y, photons)."""
    x, y, photons = (np.array(column, float) for column in zip(*molecules, strict=True))
    return (render_separable(x, y, photons, np.full(len(x), sigma_px), shape) + BACKGROUND).astype(np.float32)


def rows_of(*candidates):
    """Candidates (frame, x, y, photons, probability)."""
    frame, x, y, photons, probability = (np.array(column) for column in zip(*candidates, strict=True))
    return {
        "frame": frame.astype(int),
        "x": x.astype(np.float32),
        "y": y.astype(np.float32),
        "photons": photons.astype(np.float32),
        "background": np.full(len(x), BACKGROUND, np.float32),
        "probability": probability.astype(np.float32),
    }


def shares(rows, frames, sigma_px=SIGMA_PX, **pixels):
    n = len(rows["x"])
    return own_light(
        rows, Pixels(frames, **pixels), psf_sigma_px=sigma_px, background_e=np.full(n, BACKGROUND, np.float32)
    )


@pytest.mark.parametrize("sigma_px", [0.8, 1.1, 2.0])
@pytest.mark.parametrize("at", [(10.0, 9.0), (10.3, 9.4), (0.2, 9.0), (23.3, 18.8)])
def test_a_lone_molecule_has_the_light_that_it_states(at, sigma_px):
    frames = frame_of((*at, 1000.0), sigma_px=sigma_px)[None]
    found = shares(rows_of((0, *at, 1000.0, 0.5)), frames, sigma_px)
    assert found[0] == pytest.approx([1.0, 1.0], abs=0.03)
    assert shares(rows_of((0, *at, 2000.0, 0.5)), frames, sigma_px)[0, 0] == pytest.approx(0.5, abs=0.02)


def test_a_copy_has_none_and_a_second_molecule_has_its_own():
    """The same two candidates, of one molecule and of two a little apart."""
    rows = rows_of((0, 10.0, 9.0, 1000.0, 0.95), (0, 10.8, 9.2, 1000.0, 0.4))
    one = shares(rows, frame_of((10.0, 9.0, 1000.0))[None])
    two = shares(rows, frame_of((10.0, 9.0, 1000.0), (10.8, 9.2, 1000.0))[None])
    # The likelier one is not quite certain, nor is its light.
    assert one[1, 0] == pytest.approx(0.05, abs=0.03)
    assert two[1, 0] == pytest.approx(1.05, abs=0.03)
    assert two[1, 1] > one[1, 1] + 0.5


def test_what_is_certain_is_not_asked():
    frames = frame_of((10.0, 9.0, 1000.0))[None]
    assert shares(rows_of((0, 4.0, 4.0, 1000.0, CERTAIN + 0.01)), frames).tolist() == [[1.0, 1.0]]
    assert shares(rows_of((0, 4.0, 4.0, 1000.0, CERTAIN - 0.01)), frames)[0, 0] == pytest.approx(0.0, abs=0.01)


def test_frames_and_the_order_of_candidates_do_not_matter():
    rng = np.random.default_rng(0)
    n = 400
    rows = rows_of(
        *zip(
            np.sort(rng.integers(7, 10, n)),
            rng.uniform(0, 23, n),
            rng.uniform(0, 19, n),
            rng.uniform(300, 900, n),
            rng.uniform(0.05, 1.0, n),
            strict=True,
        )
    )
    frames = rng.poisson(100.0, (3, 20, 24)).astype(np.float32)
    found = shares(rows, frames, first_frame=7)
    order = rng.permutation(n)
    shuffled = shares({name: values[order] for name, values in rows.items()}, frames, first_frame=7)
    np.testing.assert_allclose(shuffled, found[order], atol=1e-4)
    alone = {name: values[rows["frame"] == 8] for name, values in rows.items()}
    np.testing.assert_allclose(shares(alone, frames[1:2], first_frame=8), found[rows["frame"] == 8], atol=1e-4)


def test_what_is_left_is_that_of_a_least_squares_fit():
    """Against the sum over all likelier ones of what they shine, pixel by pixel."""
    rng = np.random.default_rng(1)
    where = [
        (0, x, y, 800.0, p) for x, y, p in np.column_stack((rng.uniform(8, 10.6, (8, 2)), np.linspace(0.8, 0.2, 8)))
    ]
    frames = rng.poisson(150.0, (1, 20, 24)).astype(np.float32)
    rows = rows_of(*where)
    found = shares(rows, frames)
    y, x = np.mgrid[:20, :24]
    wide = SIGMA_PX**2 + 1 / 12
    spots = [np.exp(-((x - c[1]) ** 2 + (y - c[2]) ** 2) / (2 * wide)) / (2 * np.pi * wide) for c in where]
    for k, (_, column, row, photons, p) in enumerate(where):
        others = sum(where[j][4] * photons * spots[j] for j in range(k))
        expected = BACKGROUND + others + p * photons * spots[k]  # the variance
        window = np.s_[round(row) - 1 : round(row) + 2, round(column) - 1 : round(column) + 2]
        weight, spot = (1 / expected)[window], spots[k][window]
        left = (frames[0] - others - BACKGROUND)[window]
        alone = (weight * spot * left).sum() / (weight * spot**2).sum()
        basis = np.stack((spot.ravel(), np.ones(9))) * np.sqrt(weight.ravel())
        beside = np.linalg.lstsq(basis.T, left.ravel() * np.sqrt(weight.ravel()), rcond=None)[0][0]
        assert found[k, 0] == pytest.approx(np.clip(alone / photons, -1, 3), abs=1e-3)
        assert found[k, 1] == pytest.approx(np.clip(beside / photons, -1, 3), abs=1e-2)


def test_pixels_that_were_not_seen_do_not_count():
    frames = frame_of((10.0, 9.0, 1000.0))[None]
    rows = rows_of((0, 10.0, 9.0, 1000.0, 0.5))
    frames[0, 8, 9] = np.nan
    assert shares(rows, frames)[0] == pytest.approx([1.0, 1.0], abs=0.03)
    frames[:] = np.nan
    assert np.isfinite(shares(rows, frames)).all()
    assert shares({name: values[:0] for name, values in rows.items()}, frames).shape == (0, 2)


def test_a_movie_whose_photons_are_scaled():
    frames = frame_of((10.0, 9.0, 1500.0))[None]
    assert shares(rows_of((0, 10.0, 9.0, 1000.0, 0.5)), frames, photon_scale=1.5)[0, 0] == pytest.approx(1.0, abs=0.03)
