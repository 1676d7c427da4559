"""Small networks trained on simulated movies of which something is known: labels, counts, or nothing.

Every training is kept in a file of its own as soon as it is done, so that a benchmark of many trainings can be stopped
and continued; other settings make other files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _report import QUICK_RESULTS, make_parser, to_json, write_text
from _runs import seed_of

import smlm_pb
from smlm_pb.evaluation import evaluate
from smlm_pb.localizations import Localizations
from smlm_pb.simulation import simulate
from smlm_pb.simulation.presets import density_sweep

PSF_SIGMA_PX, PIXEL_NM = 1.1, 100.0
#: A network that learns such a movie in a minute.
NETWORK = {"channels": 32, "blocks": 2}


@dataclass(frozen=True)
class Light:
    """How bright molecules are, and the background that they lie on, e⁻."""

    photons: float = 2000.0
    background_e: float = 50.0


def taught_parser(description: str, *, steps: int) -> argparse.ArgumentParser:
    """Options of a benchmark that trains many small networks."""
    parser = make_parser(description, model=False, seeds=3)
    parser.add_argument("--steps", type=int, default=steps, metavar="N", help=f"steps of a run (default: {steps})")
    parser.add_argument(
        "--at-most", type=int, metavar="N", help="stop after N trainings; the next call continues where this one ended"
    )
    parser.add_argument(
        "--partial", action="store_true", help="publish what is there, even if some trainings are still to be done"
    )
    return parser


class Kept:
    """Results of single trainings on disk, by what decides them."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.folder = QUICK_RESULTS / f"{name}_runs"
        self.left = args.at_most

    def get(self, key: dict[str, Any], compute: Callable[[Path], dict[str, Any]]) -> dict[str, Any] | None:
        """A kept result, or a new one; None where no more trainings are wanted now."""
        text = json.dumps(key, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if path.exists():
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return kept
        if self.left is not None and self.left <= 0:
            return None
        with tempfile.TemporaryDirectory() as folder:
            result = {**key, **compute(Path(folder))}
        self.left = None if self.left is None else self.left - 1
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(path, to_json(result) + "\n")
        print(text, {k: v for k, v in result.items() if k not in key}, flush=True)
        return result


def movie_of(
    folder: Path, name: str, density_per_um2: float, *, frames: int, size_px: int, seed: int, light: Light | None = None
) -> tuple[Path, Localizations]:
    """Simulate a movie into ``folder``; returns its path and the truth."""
    recipe = recipe_of(density_per_um2, frames=frames, size_px=size_px, light=light)
    movie, truth = simulate(recipe, seed=seed_of(7, density_per_um2, seed))
    path = folder / f"{name}.npy"
    np.save(path, movie)
    return path, truth


def recipe_of(density_per_um2: float, *, frames: int, size_px: int, light: Light | None = None) -> Any:
    """Molecules anywhere, drawn anew in each frame."""
    light = light or Light()
    molecules = {
        "density_per_um2": density_per_um2,
        "photons": light.photons,
        "photon_distribution": "constant",
        "min_photons": 0.0,
    }
    background = {"photons_per_px": light.background_e}
    return density_sweep(density_per_um2, frames=frames, size_px=size_px, molecules=molecules, background=background)


def movie_section(path: Path, **more: Any) -> dict[str, Any]:
    """What an experiment says of a simulated movie."""
    camera = density_sweep(1.0).camera.camera().as_dict()
    values = {name: float(camera[name]) for name in ("offset_adu", "e_per_adu", "em_gain", "read_noise_e")}
    return {"movie": str(path), "camera": values, "psf_sigma_px": PSF_SIGMA_PX, **more}


def teach(folder: Path, plain: dict[str, Any], *, steps: int, seed: int) -> tuple[Path, float]:
    """Train; returns the model's folder and the processor time in seconds."""
    from smlm_pb.training import Experiment, train

    network = {**NETWORK, **plain.pop("network", {})}
    if "start_from" in plain:
        from smlm_pb.localization import load_model

        network = load_model(plain["start_from"], "cpu").card.network
    experiment = Experiment.from_dict(
        {
            "name": "taught",
            "seed": seed,
            "network": network,
            "steps": steps,
            "crop_px": 32,
            "learning_rate": 2e-3,
            "ema_decay": 0.97,
            "workers": 0,
            "scenes": {"psf_sigma_px": [1.0, 1.2], "photons": [500, 4000], "background_e": [20, 120]},
            "checkpoint_every_steps": 10 * steps,
            **plain,
            "validation": {"every_steps": steps, "scenes": 32, "calibration_scenes": 0, "tolerance_px": 1.0},
        }
    )
    began = time.process_time()
    result = train(experiment, folder / "run", device="cpu")
    seconds = time.process_time() - began
    _take_last(folder / "run" / "checkpoint.safetensors", result.model_folder)
    return result.model_folder, seconds


def _take_last(checkpoint: Path, model: Path) -> None:
    """Give a model the weights of the last step: a run keeps those of its start if it ends worse than it began."""
    from safetensors.torch import load_file, save

    from smlm_pb.localization.model_card import WEIGHTS_FILE, ModelCard

    tensors = load_file(checkpoint)
    averaged = {name.removeprefix("averaged."): t for name, t in tensors.items() if name.startswith("averaged.")}
    content = save(averaged)
    (model / WEIGHTS_FILE).write_bytes(content)
    card = ModelCard.load(model)
    replace(card, weights_sha256=hashlib.sha256(content).hexdigest()).save(model)


def examine(model: Path, movie: Path, truth: Localizations) -> dict[str, float]:
    """Localize a movie with the automatic threshold and compare with the truth."""
    from smlm_pb.localization import load_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = smlm_pb.localize(
            movie,
            model=load_model(str(model), "cpu"),
            camera=density_sweep(1.0).camera.camera(),
            pixel_size_nm=PIXEL_NM,
            psf_sigma_px=PSF_SIGMA_PX,
        )
    scores = evaluate(found, truth, tolerance_nm=(50.0, 100.0), chance=False, check=False)
    near, far = scores.at(50.0), scores.at(100.0)
    return {
        "jaccard_50": near.jaccard,
        "recall_50": near.recall,
        "precision_50": near.precision,
        "rmse_50_nm": float(np.sqrt((near.rmse_x_nm**2 + near.rmse_y_nm**2) / 2)),
        "jaccard_100": far.jaccard,
        "recall_100": far.recall,
        "precision_100": far.precision,
        "rmse_100_nm": float(np.sqrt((far.rmse_x_nm**2 + far.rmse_y_nm**2) / 2)),
        "pull": (far.pull_std_x + far.pull_std_y) / 2,
        "molecules": len(found),
        "truth": len(truth),
    }
