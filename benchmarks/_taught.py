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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _kept import origin
from _report import QUICK_RESULTS, make_parser, parse, to_json, write_text
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


def taught_parser(description: str, *, steps: int, model: bool = False) -> argparse.ArgumentParser:
    """Options of a benchmark of several trainings; ``model`` where they start from one."""
    parser = make_parser(description, model=model, seeds=3)
    parser.add_argument("--steps", type=int, default=steps, metavar="N", help=f"steps of a run (default: {steps})")
    parser.add_argument(
        "--at-most", type=int, metavar="N", help="stop after N trainings; the next call continues where this one ended"
    )
    parser.add_argument(
        "--partial", action="store_true", help="publish what is there, even if some trainings are still to be done"
    )
    return parser


def parse_taught(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options; a trial run trains for three steps."""
    args = parse(parser, argv)
    if args.quick:
        args.steps = 3
    return args


def taught(
    name: str,
    args: argparse.Namespace,
    keys: Iterable[Mapping[str, Any]],
    train_and_test: Callable[..., dict[str, Any]],
    *,
    settings: Mapping[str, Any] | None = None,
    models: Sequence[str] = (),
) -> list[dict[str, Any]] | None:
    """Train and test once for every key, or take what is kept.

    Parameters
    ----------
    name : str
        Name of the benchmark.
    args : argparse.Namespace
        From :func:`parse_taught`.
    keys : iterable of mapping
        What one training differs in from the others; the most wanted first.
    train_and_test : callable
        Called with an empty folder, ``args`` and a key's values by name.
    settings : mapping, optional
        What else decides the results, apart from the steps.
    models : sequence of str
        Shipped models that trainings start from.

    Returns
    -------
    list of dict or None
        Keys and results; None while some trainings are to be done and ``--partial`` was not given.
    """
    folder, left, runs = QUICK_RESULTS / f"{name}_runs", args.at_most, []
    complete = True
    common = {**(settings or {}), "steps": args.steps, "quick": args.quick, "origin": origin(*models)}
    for key in keys:
        text = json.dumps({**key, **common}, sort_keys=True)
        path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if not path.exists():
            if left is not None and left <= 0:
                complete = False
                continue
            with tempfile.TemporaryDirectory() as place:
                result = train_and_test(Path(place), args, **key)
            left = None if left is None else left - 1
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, to_json({**key, **common, **result}) + "\n")
            print(text, result, flush=True)
        runs.append(json.loads(path.read_text(encoding="utf-8")))
    if complete or (args.partial and runs):
        return runs
    print("More trainings are to be done: run again.")
    return None


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
