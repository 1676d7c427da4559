"""Real beside simulated: the figure by which a person approves of a simulation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.training.like_scenes import draw_like

if TYPE_CHECKING:
    from smlm_pb.training.likeness import Likeness

_FRAMES, _SIDE_PX = 5, 64
#: Okabe and Ito (2008): apart also for colour-blind readers.
_REAL, _SIMULATED = "#0072B2", "#D55E00"
_SHOWN = (0.01, 0.997)


def draw_likeness(likeness: Likeness, path: Path) -> None:
    """Draw frames of the movie above simulated ones in the same grey scale, and their pixel values and molecules.

    Parameters
    ----------
    likeness : Likeness
        The movie and scenes like it.
    path : Path
        PNG file.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    real, simulated = frames_to_compare(likeness)
    low, high = np.quantile(real, _SHOWN)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(2.1 * _FRAMES, 7.6), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(2, 1.1))
        above, below = parts
        for row, (frames, name) in enumerate(((real, "your movie"), (simulated, "simulated"))):
            for column, frame in enumerate(frames):
                ax = above.add_subplot(2, _FRAMES, row * _FRAMES + column + 1)
                ax.imshow(frame, cmap="gray", vmin=low, vmax=max(high, low + 1), interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                if column == 0:
                    ax.set_ylabel(name, fontsize=11, color=(_REAL, _SIMULATED)[row])
        pixels, photons, density = below.subplots(1, 3)
        settings, movie, scenes = likeness.scenes.settings, likeness.measure.found, likeness.scenes.found
        _draw_pixels(pixels, real, simulated)
        _draw_range(photons, "photons per molecule (e⁻)", movie.photons, scenes.photons, settings.photons)
        _draw_range(
            density,
            "molecules per pixel and frame",
            movie.density_per_px2,
            scenes.density_per_px2,
            (settings.sparse_density_per_px2[0], settings.dense_density_per_px2[1]),
        )
        figure.suptitle(
            f"{likeness.measure.name}: the simulated frames should look like yours "
            f"(PSF sigma {likeness.measure.conditions.psf_sigma_px:.3g} px)"
        )
        figure.savefig(path, dpi=110, format="png")


def frames_to_compare(likeness: Likeness) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Frames of the movie and simulated ones of the same size, both in effective photo-electrons.

    Returns
    -------
    real, simulated : array (5, height, width)
        Of large frames the middle 64 × 64 px.
    """
    electrons = likeness.measure.electrons
    height, width = (min(_SIDE_PX, side) for side in electrons.shape[1:])
    top, left = (electrons.shape[1] - height) // 2, (electrons.shape[2] - width) // 2
    chosen = np.linspace(0, len(electrons) - 1, _FRAMES).round().astype(int)
    real = electrons[chosen, top : top + height, left : left + width]
    scenes = draw_like(
        likeness.scenes.settings, count=_FRAMES, size_px=(height, width), seed=likeness.experiment.seed + 17
    )
    return real, np.stack([scene.electrons for scene in scenes])


def _draw_pixels(ax: Any, real: npt.NDArray[np.float32], simulated: npt.NDArray[np.float32]) -> None:
    both = np.concatenate((real.ravel(), simulated.ravel()))
    low, high = np.quantile(both, (0.001, 0.999))
    edges = np.linspace(float(low), float(high), 60)
    for frames, name, colour in ((real, "movie", _REAL), (simulated, "simulated", _SIMULATED)):
        share = np.histogram(frames, edges)[0] / frames.size
        ax.stairs(share, edges, color=colour, label=name, baseline=None)
    ax.set(xlabel="pixel value (e⁻)", ylabel="share of pixels", yscale="log")
    ax.legend(frameon=False)


def _draw_range(
    ax: Any,
    label: str,
    real: tuple[float, float, float],
    simulated: tuple[float, float, float],
    trained: tuple[float, float],
) -> None:
    """5th to 95th percentile of what the model finds in both, and the range that the training draws from."""
    for height, (values, colour) in enumerate(((simulated, _SIMULATED), (real, _REAL))):
        ax.plot((values[0], values[2]), (height, height), color=colour, lw=6, alpha=0.5, solid_capstyle="butt")
        ax.plot(values[1], height, "o", color=colour)
    ax.axvspan(*trained, color="0.85", zorder=0, label="training draws from")
    ax.set(xlabel=label, ylim=(-0.6, 1.9), xlim=(0, None))
    ax.set_yticks((0, 1), ("simulated", "movie"))
    ax.legend(frameon=False, loc="upper right")
