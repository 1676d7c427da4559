"""Recipes of standard experiments, so that benchmarks and tests mean the same thing everywhere."""

from __future__ import annotations

from typing import Any

from smlm_pb.simulation.recipe import Recipe

#: Molecules per µm² of the density sweep.
SWEEP_DENSITIES_PER_UM2 = (0.05, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0)

_CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "read_noise_e": 1.6}


def density_sweep(
    density_per_um2: float, *, frames: int = 40, size_px: int = 64, seed: int = 0, **changes: Any
) -> Recipe:
    """Return one point of the density sweep: 2000 e⁻ per molecule, background 50 e⁻, σ 1.1 px, 100-nm pixels.

    Parameters
    ----------
    density_per_um2 : float
        Molecules per µm², placed uniformly and drawn anew in each frame.
    frames, size_px, seed : int
        Length of the movie, side of its frames, seed.
    **changes
        Other top-level keys of the recipe.

    Returns
    -------
    Recipe
    """
    values = {
        "name": f"density {density_per_um2:g} per µm²",
        "seed": seed,
        "frames": frames,
        "height": size_px,
        "width": size_px,
        "pixel_size_nm": 100.0,
        "psf": {"sigma_px": 1.1},
        "molecules": {
            "density_per_um2": density_per_um2,
            "photons": 2000.0,
            "photon_distribution": "constant",
            "min_photons": 0.0,
        },
        "background": {"photons_per_px": 50.0},
        "camera": _CAMERA,
    }
    return Recipe.from_dict({**values, **changes})


def isolated(
    photons: float,
    background_e: float,
    *,
    psf_sigma_px: float = 1.1,
    frames: int = 100,
    size_px: int = 64,
    spacing_px: float = 16.0,
    seed: int = 0,
    **changes: Any,
) -> Recipe:
    """Return a movie of molecules far apart, at every sub-pixel position: for comparison with the Cramér–Rao bound.

    Molecules sit on a grid of ``spacing_px``, displaced by up to 2 px in each frame anew.

    Parameters
    ----------
    photons, background_e : float
        Brightness of every molecule in e⁻ and background in e⁻/px.
    psf_sigma_px : float
        PSF width in px.
    frames, size_px, seed : int
        Length of the movie, side of its frames, seed.
    spacing_px : float
        Distance of grid nodes in px.
    **changes
        Other top-level keys of the recipe.

    Returns
    -------
    Recipe
    """
    values = {
        "name": f"isolated, {photons:g} e⁻ on {background_e:g} e⁻/px",
        "seed": seed,
        "frames": frames,
        "height": size_px,
        "width": size_px,
        "pixel_size_nm": 100.0,
        "psf": {"sigma_px": psf_sigma_px},
        "structure": {"kind": "grid", "spacing_nm": 100.0 * spacing_px, "jitter_nm": 200.0},
        "molecules": {
            "per_frame": max(1, int(size_px // spacing_px) ** 2),
            "photons": photons,
            "photon_distribution": "constant",
            "min_photons": 0.0,
        },
        "background": {"photons_per_px": background_e},
        "camera": _CAMERA,
    }
    return Recipe.from_dict({**values, **changes})


def blank(background_e: float, *, frames: int = 100, size_px: int = 64, seed: int = 0, **changes: Any) -> Recipe:
    """Return a movie without molecules: whatever is found in it is false.

    Parameters
    ----------
    background_e : float
        Background in e⁻/px.
    frames, size_px, seed : int
        Length of the movie, side of its frames, seed.
    **changes
        Other top-level keys of the recipe.

    Returns
    -------
    Recipe
    """
    values = {
        "name": f"blank, {background_e:g} e⁻/px",
        "seed": seed,
        "frames": frames,
        "height": size_px,
        "width": size_px,
        "pixel_size_nm": 100.0,
        "structure": {"kind": "empty"},
        "molecules": {"per_frame": 1},
        "background": {"photons_per_px": background_e},
        "camera": _CAMERA,
    }
    return Recipe.from_dict({**values, **changes})
