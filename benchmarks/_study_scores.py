"""What a small model of a study is worth: on the microtubule stack and on simulated movies, the same for all arms."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import write_text
from _runs import Run, localize, matched_errors

from smlm_pb.evaluation import best_threshold, evaluate, reliability
from smlm_pb.localizations import Localizations, MovieInfo

if TYPE_CHECKING:
    from smlm_pb.localization import Model
    from smlm_pb.movies import Movie

#: Densities of the simulated movies, molecules per µm², and how many molecules each of them shows.
DENSITIES_PER_UM2 = (0.5, 5.0)
_MOLECULES = 2400
_FRAME_UM2 = 40.96
TOLERANCES_NM = (25.0, 50.0, 100.0)


def scored_on(args: argparse.Namespace) -> dict[str, Any]:
    """What decides the scores beside the model."""
    return {
        "stack_frames": args.frames,
        "simulated_per_um2": list(DENSITIES_PER_UM2),
        "simulated_molecules": _MOLECULES,
        "tolerances_nm": list(TOLERANCES_NM),
    }


class Stack:
    """The stack on which all are scored, with camera and PSF width estimated once for all by the shipped model."""

    def __init__(self, args: argparse.Namespace, cache: Path) -> None:
        from smlm_pb import open_movie

        self.movie: Movie = open_movie(args.movie)
        self.frames = min(self.movie.n_frames, 2 if args.quick else args.frames)
        table = Localizations.load(args.truth, pixel_size_nm=100.0)
        info = MovieInfo(self.frames, self.movie.height, self.movie.width, 100.0, args.truth.stem)
        self.truth = table.select(table["frame"] < self.frames).with_info(info)
        self.conditions = self._conditions(cache / f"conditions-{self.movie.fingerprint()[:12]}.json")

    def _conditions(self, path: Path) -> dict[str, float]:
        if path.exists():
            found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
            return found
        from smlm_pb.localization import load_model

        run = localize(
            self.movie, load_model("dense", "cpu"), offset_adu=100.0, pixel_size_nm=100.0, frames=(0, self.frames)
        )
        found = {
            "e_per_adu": run.conditions["camera"]["e_per_adu"],
            "psf_sigma_px": run.conditions["psf_sigma_px"],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found))
        return found

    def score(self, model: Model) -> dict[str, Any]:
        """Jaccard indices at the automatic and at the best threshold, and that of chance."""
        run = localize(
            self.movie,
            model,
            offset_adu=100.0,
            pixel_size_nm=100.0,
            frames=(0, self.frames),
            precision="float32",
            **self.conditions,
        )
        return {**_score(run, self.truth, chance=True), "unpooled": self._unpooled(model)}

    def _unpooled(self, model: Model) -> dict[str, float]:
        """Jaccard indices at the best threshold of what the network itself says, shares of one molecule apart."""
        import torch

        from smlm_pb.camera import Camera
        from smlm_pb.localization.candidates import as_columns, select_candidates

        camera = Camera(offset_adu=100.0, e_per_adu=self.conditions["e_per_adu"])
        rows = []
        with torch.inference_mode():
            for frame in range(self.frames):
                electrons = camera.to_electrons(self.movie.read(frame, frame + 1)).astype(np.float32)
                width = torch.full((1,), self.conditions["psf_sigma_px"])
                said = model.network(torch.from_numpy(electrons[:, None]), width)
                rows.append(select_candidates(said, first_frame=frame).rows)
        candidates = Localizations(as_columns(np.concatenate(rows)), self.truth.info)
        return {f"{t:g}": best_threshold(candidates, self.truth, tolerance_nm=t).best_jaccard for t in TOLERANCES_NM}


def score_simulated(model: Model, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Scores by density on simulated movies: 1000 e⁻ per molecule, 20 e⁻/px, σ = 1.1 px, placed evenly."""
    return {f"{density:g}": _score_density(model, density, quick=args.quick) for density in DENSITIES_PER_UM2}


def _score_density(model: Model, density_per_um2: float, *, quick: bool) -> dict[str, Any]:
    from smlm_pb.simulation import simulate
    from smlm_pb.simulation.presets import density_sweep

    recipe = density_sweep(
        density_per_um2,
        frames=2 if quick else round(_MOLECULES / (density_per_um2 * _FRAME_UM2)),
        seed=round(1000 * density_per_um2),
        molecules={
            "density_per_um2": density_per_um2,
            "photons": 1000.0,
            "photon_distribution": "constant",
            "min_photons": 0.0,
        },
        background={"photons_per_px": 20.0},
    )
    movie, truth = simulate(recipe)
    run = localize(
        movie,
        model,
        camera=recipe.camera.camera(),
        pixel_size_nm=100.0,
        psf_sigma_px=1.1,
        precision="float32",
    )
    return _score(run, truth, chance=False)


def _score(run: Run, truth: Localizations, *, chance: bool) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = evaluate(
            run.molecules.with_info(truth.info), truth, tolerance_nm=TOLERANCES_NM, chance=chance, check=False
        )
    at = {f"{t:g}": found.at(t) for t in TOLERANCES_NM}
    errors = matched_errors(run.molecules, truth, 100.0)
    return {
        "automatic": {key: entry.jaccard for key, entry in at.items()},
        "best": {f"{t:g}": best_threshold(run.candidates, truth, tolerance_nm=t).best_jaccard for t in TOLERANCES_NM},
        "chance": {key: entry.chance_jaccard for key, entry in at.items()} if chance else None,
        "precision": at["50"].precision,
        "recall": at["50"].recall,
        "rmse_nm": float(np.sqrt(np.mean(errors.error_nm**2))) if errors.error_nm.size else None,
        "pull": float(np.std(errors.pull)) if errors.pull.size else None,
        "threshold": run.threshold,
        "count_ratio": len(run.molecules) / max(1, len(truth)),
        "calibration_error": reliability(run.candidates, truth, tolerance_nm=100.0).expected_calibration_error,
    }
