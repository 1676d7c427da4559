"""A model whose weights are written down by hand: finds isolated bright molecules, ready in milliseconds.

Every number below follows from what a spot of about 2500 photons and 1.1 px looks like in the square-root channel of
the network's input, where noise has the same size everywhere (standard deviation 0.25).
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from smlm_pb.localization.model_card import WEIGHTS_FILE, ModelCard
from smlm_pb.networks import NetworkSettings, build_network
from smlm_pb.simulation.rendering import render_separable

PHOTONS, PSF_SIGMA_PX, BACKGROUND = 2500.0, 1.1, 20.0
SETTINGS = NetworkSettings(channels=13, blocks=1, n_candidates=1, start_logit=-4.0)


def make_model(folder: Path, *, name: str = "hand-made", **card: object) -> Path:
    """Write the model into a folder and return it; ``card`` replaces entries of its card."""
    network = build_network(SETTINGS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        _set_stem(network.backbone.stem)
        _set_head(network)
    folder.mkdir(parents=True, exist_ok=True)
    content = save({key: value.contiguous() for key, value in network.state_dict().items()})
    (folder / WEIGHTS_FILE).write_bytes(content)
    entries = {
        "description": "finds isolated bright molecules",
        "network": SETTINGS.model_dump(),
        "psf_sigma_px": (0.8, 1.6),
        "photons": (200.0, 10_000.0),
        "background_e": (0.0, 200.0),
        "density_per_px2": (0.0, 0.08),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    ModelCard(name=name, **{**entries, **card}).save(folder)
    return folder


def make_movie(
    n_frames: int = 12, size: tuple[int, int] = (24, 32), *, per_frame: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Isolated molecules through a camera with offset 100 ADU and 0.5 e⁻/ADU: movie, frame, x, y."""
    rng = np.random.default_rng(seed)
    height, width = size
    movie, truth = [], []
    for frame in range(n_frames):
        xs, ys = _apart(rng, per_frame, height, width)
        expected = BACKGROUND + render_separable(xs, ys, np.full(len(xs), PHOTONS), PSF_SIGMA_PX, size)
        noisy = rng.poisson(expected) + rng.normal(0, 1.6, size)
        movie.append(np.clip(np.rint(noisy / 0.5 + 100), 0, 65535).astype(np.uint16))
        truth += [(frame, x, y) for x, y in zip(xs, ys, strict=True)]
    frame, x, y = np.array(truth).T.reshape(3, -1)
    return np.stack(movie), frame.astype(int), x, y


def _apart(rng: np.random.Generator, count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    points: list[np.ndarray] = []
    while len(points) < count:
        point = rng.uniform((4, 4), (width - 5, height - 5))
        if all(np.hypot(*(point - other)) > 8 for other in points):
            points.append(point)
    xs, ys = np.array(points).reshape(-1, 2).T
    return xs, ys


def _set_stem(stem: torch.nn.Conv2d) -> None:
    """Channel 0: spot against surround; 1-8: neighbour against centre; 9-12: slope along y and x, both signs."""
    root = stem.weight[:, 0]
    blur = torch.zeros(5, 5)
    blur[1:4, 1:4] = 1 / 9
    root[0] = (blur - torch.where(blur > 0, 0.0, 1 / 16)) * 4
    stem.bias[0] = -8.0
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    for channel, (dy, dx) in enumerate(shifts, start=1):
        root[channel] = (torch.roll(blur, (dy, dx), (0, 1)) - blur) * 40
    step = torch.arange(-2.0, 3.0)
    window = (step.abs() <= 1).float()
    root[9], root[11] = step[:, None] * window[:, None] * window, step * window[:, None] * window
    root[10], root[12] = -root[9], -root[11]


def _set_head(network: torch.nn.Module) -> None:
    weight, bias = network.head.weight[:, :, 0, 0], network.head.bias
    weight[0, 0], weight[0, 1:9] = 2.5, -2.5
    bias[0] = -9.0
    # How steep the slope channel is for a molecule 0.3 px off centre decides what an offset of 0.3 px is.
    steepness = _slope_at(0.3)
    for row, channel in ((1, 9), (2, 11)):
        weight[row, channel] = np.arctanh(0.3 / network.reach_px) / steepness
        weight[row, channel + 1] = -weight[row, channel]
    bias[3], bias[4] = 0.3, 0.3  # precision of about 0.1 px
    bias[6] = 1.0  # background of about 18 e⁻


def _slope_at(offset: float) -> float:
    spot = BACKGROUND + render_separable(
        np.array([7 + offset]), np.array([7.0]), np.array([PHOTONS]), PSF_SIGMA_PX, (15, 15)
    )
    root = 0.5 * (np.sqrt(spot + 4) - 2)
    return float((root[6:9, 6:9] * np.array([-1, 0, 1])).sum())
