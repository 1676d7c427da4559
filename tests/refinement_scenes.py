"""Frames with known molecules, and what a network might say of them, for the tests of the refinement."""

import numpy as np

from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.refinement.crlb import crlb_table
from smlm_pb.simulation.rendering import render_separable

SIGMA = 1.1


def take_picture(frame, x, y, photons, background, rng, *, n_frames, shape, sigma=SIGMA, read_e=0.0, excess=1.0):
    """Noisy photo-electrons (frames, height, width)."""
    frames = np.stack(
        [
            render_separable(
                x[frame == k], y[frame == k], photons[frame == k], np.full((frame == k).sum(), sigma), shape
            )
            for k in range(n_frames)
        ]
    )
    electrons = rng.poisson(frames + background).astype(np.float64)
    if excess > 1:
        electrons = rng.standard_gamma(electrons)
    return electrons + rng.normal(size=electrons.shape) * read_e


def table(frame, x, y, photons, background, sigma_x, sigma_y=None, *, n_frames, shape, first_frame=0):
    """A table as the network gives it."""
    size = np.shape(x)
    columns = {
        "frame": np.asarray(frame) + first_frame,
        "x": x,
        "y": y,
        "photons": np.broadcast_to(photons, size),
        "background": np.broadcast_to(background, size),
        "sigma_x": np.broadcast_to(sigma_x, size),
        "sigma_y": np.broadcast_to(sigma_x if sigma_y is None else sigma_y, size),
        "probability": np.full(size, 0.9),
    }
    return Localizations(columns, MovieInfo(first_frame + n_frames, *shape, 100.0))


def isolated(rng, n, *, photons=1000.0, background=20.0, size=15, **picture):
    """One molecule in the middle of each frame: (electrons, frame, x, y)."""
    frame = np.arange(n)
    x, y = (size // 2 + rng.uniform(-0.5, 0.5, n) for _ in "xy")
    electrons = take_picture(
        frame, x, y, np.full(n, photons), background, rng, n_frames=n, shape=(size, size), **picture
    )
    return electrons, frame, x, y


def crowded(rng, density_per_px2, *, n_frames=6, size=48, photons=2000.0, background=50.0, read_e=1.6):
    """Frames with molecules at random: (electrons, truth table)."""
    count = rng.poisson(density_per_px2 * (size + 8) ** 2, n_frames)
    frame = np.repeat(np.arange(n_frames), count)
    x, y = (rng.uniform(-4.5, size + 3.5, frame.size) for _ in "xy")
    light = np.full(frame.size, photons)
    electrons = take_picture(frame, x, y, light, background, rng, n_frames=n_frames, shape=(size, size), read_e=read_e)
    inside = (np.minimum(x, y) >= -0.5) & (np.maximum(x, y) < size - 0.5)
    truth = table(frame, x, y, light, background, 0.1, n_frames=n_frames, shape=(size, size))
    return electrons, truth.select(inside)


def network_output(rng, truth, *, missed=0.1, duplicated=0.02, worst=1.6, hesitation=2.5):
    """What a network might make of a crowded frame; also which true molecule each row stands for.

    Positions err by 1 to ``worst`` times the joint bound and photons by 30 %. Of two molecules within one PSF width the
    fainter half is missed more often; the row that is left sits between both, and its stated σ is ``hesitation`` times
    larger, as is that of duplicates.
    """
    bound = crlb_table(truth.frame, truth.x, truth.y, truth.photons, truth.background, SIGMA, read_variance_e2=2.56)
    n = len(truth)
    factor = rng.uniform(1.0, worst, n)
    sx, sy = (np.minimum(factor * b, 0.5) for b in (bound.sigma_x, bound.sigma_y))
    x, y = truth.x + sx * rng.normal(size=n), truth.y + sy * rng.normal(size=n)
    gone = rng.random(n) < missed
    for i in np.flatnonzero(gone):
        apart = np.hypot(truth.x - truth.x[i], truth.y - truth.y[i]) + 1e3 * (truth.frame != truth.frame[i])
        apart[i] = np.inf
        j = int(np.argmin(apart))
        if apart[j] < SIGMA and not gone[j]:
            x[j], y[j] = (truth.x[i] + truth.x[j]) / 2, (truth.y[i] + truth.y[j]) / 2
            sx[j], sy[j] = hesitation * sx[j], hesitation * sy[j]
    twice = np.flatnonzero(~gone & (rng.random(n) < duplicated))
    sx[twice], sy[twice] = hesitation * sx[twice], hesitation * sy[twice]
    rows = np.concatenate([np.flatnonzero(~gone), twice])
    jitter = np.where(np.arange(rows.size) < (~gone).sum(), 0.0, 0.3)
    found = table(
        truth.frame[rows],
        x[rows] + jitter * rng.normal(size=rows.size),
        y[rows] + jitter * rng.normal(size=rows.size),
        truth.photons[rows] * rng.uniform(0.7, 1.3, rows.size),
        truth.background[rows] * rng.uniform(0.9, 1.1, rows.size),
        sx[rows],
        sy[rows],
        n_frames=truth.info.n_frames,
        shape=(truth.info.height, truth.info.width),
    )
    return found, rows
