"""SMLM-C: one clean experiment, and what goes wrong at microscopes, in physical units and five severities each.

The idea is ImageNet-C (Hendrycks and Dietterich, ICLR 2019); the corruptions are those of cameras, objectives and
samples. The suite is frozen: a number measured with it means the same in every version. What the program is *told*
(camera, PSF width) is always the clean experiment, except for cameras whose data sheet everyone reads (electron
multiplication, coarse converters), because a corruption is what nobody knows of.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from smlm_pb.camera import Camera
from smlm_pb.errors import ConfigurationError

#: What the program is told unless a corruption says otherwise.
TOLD_PSF_SIGMA_PX = 1.3
PIXEL_SIZE_NM = 100.0
_CAMERA = Camera(offset_adu=100.0, e_per_adu=0.5, read_noise_e=1.6)


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a corrupted movie; the defaults are the clean one.

    Parameters
    ----------
    density_per_um2 : float
        Molecules per µm² and frame, placed uniformly and drawn anew in each frame.
    photons, background_e : float
        Detected photo-electrons per molecule, and per pixel.
    psf_sigma_px : float
        Width of the Gaussian PSF; not used with ``aberrations_mwaves``.
    aberrations_mwaves : mapping or None
        PSF of a round pupil with these wavefront errors, root mean square in mλ.
    motion_px : float
        Way of the sample during the exposure, along one direction per frame.
    haze_contrast : float or None
        Uneven background, static: it varies by this share around its mean.
    edge_illumination : float
        Light at the corners of the field relative to its middle; molecules and background alike.
    gain_map : float
        Relative standard deviation of the pixels' gain.
    hot_pixels : float
        Share of pixels with 300 e⁻ of dark signal.
    fiducial_photons : float
        Photo-electrons of one bead near the middle of the field.
    full_well_e : float or None
        Photo-electrons at which a pixel is saturated.
    camera : Camera
        The camera that records.
    told : Camera
        The camera that the program is told.
    """

    density_per_um2: float = 0.5
    photons: float = 1000.0
    background_e: float = 10.0
    psf_sigma_px: float = TOLD_PSF_SIGMA_PX
    aberrations_mwaves: dict[str, float] | None = None
    motion_px: float = 0.0
    haze_contrast: float | None = None
    edge_illumination: float = 1.0
    gain_map: float = 0.0
    hot_pixels: float = 0.0
    fiducial_photons: float = 0.0
    full_well_e: float | None = None
    camera: Camera = field(default_factory=lambda: _CAMERA)
    told: Camera = field(default_factory=lambda: _CAMERA)


CLEAN = Experiment()


@dataclass(frozen=True)
class Corruption:
    """One thing that goes wrong.

    Parameters
    ----------
    name : str
        Short name.
    meaning : str
        What it is, with the unit of the severities.
    severities : tuple of 5 floats
        From mild to severe.
    """

    name: str
    meaning: str
    severities: tuple[float, float, float, float, float]

    def experiment(self, severity: int) -> Experiment:
        """The clean experiment with this corruption.

        Parameters
        ----------
        severity : int
            1 to 5.

        Raises
        ------
        ConfigurationError
            When the severity is another.
        """
        if severity not in range(1, 6):
            raise ConfigurationError(f"severity = {severity!r} of corruption {self.name} must be 1, 2, 3, 4 or 5.")
        return replace(CLEAN, **_changes(self.name, self.severities[severity - 1]))


CORRUPTIONS: tuple[Corruption, ...] = (
    Corruption("photons", "dimmer molecules: photons × value", (0.7, 0.5, 0.35, 0.25, 0.18)),
    Corruption("background", "more background: × value", (1.5, 2.5, 4.0, 7.0, 12.0)),
    Corruption("density", "more molecules: × value", (1.5, 2.0, 3.0, 5.0, 8.0)),
    Corruption("haze", "uneven background of mean 40 e⁻: contrast", (0.1, 0.25, 0.5, 0.75, 1.0)),
    Corruption("illumination", "light at the corners relative to the middle", (0.8, 0.6, 0.4, 0.2, 0.1)),
    Corruption("psf_width", "PSF wider than told: × value", (1.05, 1.1, 1.2, 1.35, 1.5)),
    Corruption("defocus", "pupil PSF, defocus in mλ", (20, 40, 60, 90, 130)),
    Corruption("astigmatism", "pupil PSF, astigmatism in mλ", (20, 40, 60, 90, 130)),
    Corruption("coma", "pupil PSF, coma in mλ", (20, 40, 60, 90, 130)),
    Corruption("motion", "motion during the exposure in px", (0.25, 0.5, 1.0, 1.5, 2.0)),
    Corruption("read_noise", "read noise in e⁻", (2.0, 3.0, 5.0, 8.0, 12.0)),
    Corruption("gain_error", "told e⁻/ADU too large: × value", (1.1, 1.25, 1.5, 2.0, 3.0)),
    Corruption("offset_error", "told offset too low by ADU (0.5 e⁻ each)", (10, 25, 50, 75, 100)),
    Corruption("gain_map", "spread of the pixels' gain", (0.01, 0.02, 0.04, 0.08, 0.15)),
    Corruption("hot_pixels", "share of pixels with 300 e⁻ dark signal", (0.0005, 0.001, 0.002, 0.005, 0.01)),
    Corruption("em_noise", "electron multiplication, told: gain", (2, 5, 20, 100, 300)),
    Corruption("bit_depth", "coarse converter, told: e⁻ per ADU", (2, 5, 10, 20, 40)),
    Corruption("saturation", "full well in e⁻ (peaks reach 105)", (100, 80, 60, 45, 30)),
    Corruption("fiducial", "one bead in the field: its e⁻", (3e3, 1e4, 3e4, 1e5, 3e5)),
)


def _changes(name: str, value: float) -> dict[str, Any]:
    if name == "photons":
        return {"photons": CLEAN.photons * value}
    if name == "background":
        return {"background_e": CLEAN.background_e * value}
    if name == "density":
        return {"density_per_um2": CLEAN.density_per_um2 * value}
    if name == "haze":
        return {"background_e": 40.0, "haze_contrast": value}
    if name in ("defocus", "astigmatism", "coma"):
        return {"aberrations_mwaves": {name: value}}
    if name == "psf_width":
        return {"psf_sigma_px": TOLD_PSF_SIGMA_PX * value}
    if name == "read_noise":
        return {"camera": replace(_CAMERA, read_noise_e=value)}
    if name == "gain_error":
        return {"told": replace(_CAMERA, e_per_adu=0.5 * value)}
    if name == "offset_error":
        return {"told": replace(_CAMERA, offset_adu=100.0 - value)}
    if name == "em_noise":
        camera = replace(_CAMERA, em_gain=value, e_per_adu=5.0, read_noise_e=30.0 if value > 5 else 1.6 * value)
        return {"camera": camera, "told": camera}
    if name == "bit_depth":
        camera = replace(_CAMERA, e_per_adu=value)
        return {"camera": camera, "told": camera}
    known = {"illumination": "edge_illumination", "motion": "motion_px", "saturation": "full_well_e"}
    return {known.get(name, "fiducial_photons" if name == "fiducial" else name): value}
