"""A small 1-D network for switching times, trained with the continuous heatmap loss; beside the likelihood.

One candidate per frame and event (on, off), with existence, offset and precision, as in two dimensions for molecules
(Schroeter, PhD thesis, 2021, section 6.4.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn

    from smlm_pb.analysis.traces import Traces

FRAMES = 24
_CHANNELS, _LAYERS = 32, 5
_REACH = 0.7
_MAPS = 3


def make_network(seed: int) -> nn.Module:
    """Untrained network from ``(batch, 2, frames)`` to ``(batch, 6, frames)``."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    width = 2
    for _ in range(_LAYERS):
        layers += [nn.Conv1d(width, _CHANNELS, 5, padding=2), nn.SiLU()]
        width = _CHANNELS
    head = nn.Conv1d(width, 2 * _MAPS, 1)
    with torch.no_grad():
        assert head.bias is not None
        head.bias[::_MAPS] = -3.0
    return nn.Sequential(*layers, head)


def train(seed: int, *, steps: int = 1500, batch: int = 256) -> nn.Module:
    """Train on simulated traces of one blink each."""
    import torch

    from smlm_pb.losses import count_negative_log_likelihood, heatmap_matching_grid, stencil_radius

    network = make_network(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for step in range(steps):
        progress = step / steps
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress)))
        rng = np.random.default_rng([seed, step])
        inputs, times = _draw(rng, batch)
        raw = network(torch.from_numpy(inputs)).reshape(batch, 2, _MAPS, FRAMES)
        bandwidth = 1.0 * 0.2 ** min(1.0, progress / 0.6)
        loss = raw.new_zeros(())
        for event in range(2):
            logit, offset, log_sigma = _maps(raw[:, event])
            # The centre of frame k is at k + 0.5.
            inside = (times[:, event] > 0) & (times[:, event] < FRAMES)
            truth = torch.from_numpy((times[inside, event] - 0.5).astype(np.float32))[:, None]
            item = torch.from_numpy(np.flatnonzero(inside))
            radius = stencil_radius(bandwidth, max_sigma=0.35, reach=_REACH, tolerance=1e-2, dimensions=1)
            matching = heatmap_matching_grid(
                offset[:, None, None],
                torch.sigmoid(logit)[:, None],
                truth,
                item,
                bandwidth=bandwidth,
                variance=torch.exp(2 * log_sigma)[:, None, None],
                radius=radius,
            ).total.mean()
            count = count_negative_log_likelihood(logit, torch.from_numpy(inside.astype(np.int64))).mean()
            loss = loss + matching + 0.3 * min(1.0, progress / 0.3) * count
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    return network.eval()


def _maps(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Existence logit, offset and log standard deviation (batch, frames), in frames."""
    import torch

    return raw[:, 0], _REACH * torch.tanh(raw[:, 1]), -4.0 + 4.0 * torch.sigmoid(raw[:, 2])


def _draw(rng: np.random.Generator, n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Traces of one blink each, and its times."""
    length = rng.exponential(np.exp(rng.uniform(np.log(1.0), np.log(8.0), n))) + 0.3
    start = rng.uniform(3.0, 5.0, n)
    times = np.stack((start, start + length), axis=1)
    rate = np.exp(rng.uniform(np.log(150), np.log(8000), n))
    frame = np.arange(FRAMES)
    overlap = np.clip(np.minimum(times[:, 1:], frame + 1) - np.maximum(times[:, :1], frame), 0, 1)
    dark = np.exp(rng.uniform(np.log(50), np.log(3000), n))
    light = rate[:, None] * overlap
    variance = dark[:, None] + 1.1 * light
    return _inputs(
        light + np.sqrt(variance) * rng.normal(size=light.shape), np.broadcast_to(dark[:, None], light.shape)
    ), times


def _inputs(photons: npt.NDArray[Any], dark: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Photons over the blink's own brightness, and the noise over it: (n, 2, frames)."""
    bright = photons.max(1, keepdims=True)
    high = photons >= 0.6 * bright
    rate = np.maximum((photons * high).sum(1, keepdims=True) / high.sum(1, keepdims=True), 1.0)
    noise = np.sqrt(dark + np.clip(photons, 0, None)) / rate
    return np.clip(np.stack((photons / rate, noise), axis=1), -4, 4).astype(np.float32)


def times_of(
    network: nn.Module, traces: Traces, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Times of blinks as the network reads them; the most probable event near each end."""
    import torch

    n = len(first)
    found = [np.empty(n), np.empty(n)]
    for event, end in ((0, first), (1, last)):
        # A blink longer than the window is seen from each of its ends.
        origin = end - 4 if event == 0 else np.where(last - first < FRAMES - 8, first - 4, last - (FRAMES - 5))
        column = traces.frame - origin[traces.blink]
        inside = (column >= 0) & (column < FRAMES)
        photons, dark = np.zeros((n, FRAMES)), np.zeros((n, FRAMES))
        dark += np.median(traces.variance_dark)
        photons[traces.blink[inside], column[inside]] = traces.photons[inside]
        dark[traces.blink[inside], column[inside]] = traces.variance_dark[inside]
        with torch.inference_mode():
            raw = network(torch.from_numpy(_inputs(photons, dark))).reshape(n, 2, _MAPS, FRAMES)
            logit, offset, _ = _maps(raw[:, event])
        probability = torch.sigmoid(logit).numpy().astype(np.float64)
        at = np.arange(FRAMES) + 0.5 + offset.numpy() + origin[:, None]
        near = np.abs(np.arange(FRAMES)[None] - (end - origin)[:, None]) <= 2
        weight = np.where(near, probability, 0)
        best = weight.argmax(1)
        # Shares of one event in neighbouring frames belong together.
        together = weight * (np.abs(at - at[np.arange(n), best][:, None]) < 0.9)
        total = together.sum(1)
        found[event] = np.where(total > 0, (together * at).sum(1) / np.maximum(total, 1e-300), end + event)
    return found[0], found[1]
