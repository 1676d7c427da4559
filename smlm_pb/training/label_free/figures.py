"""What was learned, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smlm_pb.simulation.rendering import pixel_integral_derivatives
from smlm_pb.training.label_free.kernel import Kernel
from smlm_pb.training.label_free.reconstruct import Chunk

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#7F7F7F"
_FRAMES = 3
#: Largest part of a frame that is shown, px.
_SHOWN_PX = 64


def draw_psf(kernel: Kernel, widths_px: tuple[float, float], history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the learned PSF, its profiles beside the Gaussian that is most like it, and the rounds.

    Parameters
    ----------
    kernel : Kernel
        The PSF.
    widths_px : (float, float)
        Widths of that Gaussian along x and y, px.
    history : sequence of dict
        One entry per round.
    path : Path
        The picture (PNG).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.4), layout="constrained")
    picture, profile, wings, rounds = figure.subplots(1, 4)
    fine = torch.arange(-8 * kernel.radius_px, 8 * kernel.radius_px + 1, dtype=torch.float32) / 8
    image, reach = kernel.image(fine, fine).numpy(), float(kernel.radius_px)
    shown = picture.imshow(image, extent=(-reach, reach, reach, -reach), cmap="magma", interpolation="nearest")
    picture.set(xlabel="x (px)", ylabel="y (px)", title="PSF")
    figure.colorbar(shown, ax=picture, label="share of the light per pixel", shrink=0.85)
    _draw_profiles(profile, wings, image, fine.numpy(), widths_px)
    numbers = [entry["round"] for entry in history]
    rounds.plot(numbers, [entry["molecules_per_frame"] for entry in history], "o-", color=_BLUE)
    rounds.set(xlabel="round", title="Explanation")
    rounds.set_ylabel("molecules per frame", color=_BLUE)
    rounds.set_ylim(bottom=0)
    rounds.xaxis.get_major_locator().set_params(integer=True)
    left = rounds.twinx()
    left.plot(numbers, [entry["deviance_per_px"] for entry in history], "s--", color=_ORANGE)
    left.axhline(1.0, color=_GREY, linewidth=0.8)
    left.set_ylabel("deviance per pixel (1: only noise is left)", color=_ORANGE)
    figure.savefig(path, dpi=110, format="png")


def _draw_profiles(profile: Any, wings: Any, image: Any, axis: Any, widths_px: tuple[float, float]) -> None:
    middle = len(axis) // 2
    integrals = [pixel_integral_derivatives(axis.astype(float), w)[0] for w in widths_px]
    centre = [float(values[middle]) for values in integrals]
    for name, cut, gauss, colour in (
        ("x", image[middle], integrals[0] * centre[1], _BLUE),
        ("y", image[:, middle], integrals[1] * centre[0], _ORANGE),
    ):
        width = widths_px[0 if name == "x" else 1]
        for panel in (profile, wings):
            panel.plot(axis, cut, color=colour, label=f"along {name}")
            panel.plot(axis, gauss, ":", color=colour, linewidth=1, label=f"Gaussian, σ = {width:.2f} px")
    profile.set(xlabel="distance (px)", ylabel="share of the light per pixel", title="Profiles")
    profile.set_ylim(top=1.45 * image.max())
    profile.legend(frameon=False, fontsize=7, loc="upper left")
    wings.set(xlabel="distance (px)", yscale="log", ylim=(1e-5, 2 * image.max()), title="Wings (logarithmic)")


def draw_frames(chunks: Sequence[Chunk], path: Path) -> None:
    """Draw some frames, what explains them, and what is left in units of the noise.

    Parameters
    ----------
    chunks : sequence of (Frames, Reconstruction)
        The movie.
    path : Path
        The picture (PNG).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.9 * _FRAMES), layout="constrained")
    axes = figure.subplots(_FRAMES, 3, squeeze=False)
    total = sum(len(frames.electrons) for frames, _ in chunks)
    for row, number in zip(axes, np.linspace(0, total - 1, _FRAMES + 2).round().astype(int)[1:-1], strict=True):
        (frames, state), index = _frame_of(chunks, int(number))
        expected = state.expected()[index]
        noise = (expected + frames.read_variance).sqrt()
        left = ((frames.electrons[index] - expected) / noise).cpu().numpy()[:_SHOWN_PX, :_SHOWN_PX]
        seen, made = (image.cpu().numpy()[:_SHOWN_PX, :_SHOWN_PX] for image in (frames.electrons[index], expected))
        low, high = np.quantile(seen, (0.01, 0.999))
        for panel, image in zip(row[:2], (seen, made), strict=True):
            panel.imshow(image, cmap="gray", vmin=low, vmax=high)
        here = state.molecules.frame == index
        position = state.molecules.position[here].cpu().numpy()
        row[1].plot(position[:, 1], position[:, 0], "+", color=_ORANGE, markersize=5, markeredgewidth=0.8)
        shown = row[2].imshow(left, cmap="RdBu_r", vmin=-5, vmax=5)
        figure.colorbar(shown, ax=row[2], shrink=0.8)
        for panel in row:
            panel.set(xticks=[], yticks=[], xlim=(-0.5, seen.shape[1] - 0.5), ylim=(seen.shape[0] - 0.5, -0.5))
    for panel, title in zip(axes[0], ("recorded", "explained", "left over / noise"), strict=True):
        panel.set_title(title)
    figure.savefig(path, dpi=100, format="png")


def _frame_of(chunks: Sequence[Chunk], number: int) -> tuple[Chunk, int]:
    for chunk in chunks:
        count = len(chunk[0].electrons)
        if number < count:
            return chunk, number
        number -= count
    raise IndexError(number)
