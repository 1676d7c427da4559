"""Read noise beyond what a network was trained with is shown to it as background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smlm_pb.localization.significance import read_variance

if TYPE_CHECKING:
    from smlm_pb.camera import Camera


def noise_floor(camera: Camera, trained_read_noise_e: float) -> float:
    """Electrons that are added to every pixel before the network looks at it, and taken off the background it states.

    A pixel with read variance v is distributed much like one with v more photo-electrons of background, to which
    networks are used (F. Huang et al., Nature Methods 10, 653, 2013, eq. 4).

    Parameters
    ----------
    camera : Camera
        The camera; maps count by their median.
    trained_read_noise_e : float
        Largest read noise of the training, e⁻: up to there nothing is added.

    Returns
    -------
    float
        Effective e⁻ per pixel, on which photon noise has variance = mean.
    """
    return max(0.0, read_variance(camera) - trained_read_noise_e**2)
