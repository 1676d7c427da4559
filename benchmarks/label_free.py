"""Label-free training: the PSF that is learned from a movie, and the detector that comes with it.

Movies of known molecules are given to the program without their truth. It learns PSF and detector; both are held
against the truth, the detector also against a network of the same size that was trained with labels on simulated
scenes of the same conditions (same PSF, light and background, all densities of this benchmark), with as many steps,
and against the shipped model `fast`. Where only the PSF is learned (no detector), the same rounds run without detector
steps.

Every part is kept in a work folder as soon as it is done: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _kept import origin
from _report import (
    COLOURS,
    QUICK_RESULTS,
    Table,
    make_parser,
    mean,
    new_figure,
    number,
    parse,
    publish,
    run_as_program,
    spread,
    to_json,
    write_text,
)
from _runs import localize, score, seed_of

PIXEL_SIZE_NM = 100.0
TOLERANCE_NM, BORDER_NM = 50.0, 300.0
SIDE_PX = 64
MOLECULES = 600
TEST_FRAMES = 100
PHOTONS, BACKGROUND_E, READ_NOISE_E = 2000.0, 50.0, 1.6
#: Width that the program is told, px: of the Gaussian like each PSF, and where the kernel starts from.
TOLD_PX = {"Gaussian": 1.1, "Airy": 1.33, "astigmatic": 1.5}
START_PX = 1.25
GAUSSIAN_PX = 1.1
ABERRATIONS: dict[str, dict[str, float]] = {"Airy": {}, "astigmatic": {"astigmatism": 50, "defocus": 50}}
#: Densities (per µm²) at which detector and PSF are learned, and at which only the PSF.
LEARNED = {"Gaussian": (0.1, 0.5), "Airy": (0.1,), "astigmatic": (0.1,)}
ONLY_PSF = {"Gaussian": (0.02, 0.5), "Airy": (0.02, 0.5), "astigmatic": (0.02, 0.5)}
#: With labels only where the shipped model, too, was trained for such spots.
SUPERVISED = ("Gaussian",)
#: Of the learned ones also without crops that are drawn anew.
PLAIN = ("Gaussian", 0.5)
#: Refined together with the PSF, starting from the shipped model `fast`.
REFINED = ("astigmatic", 0.5)
GOAL_CORRELATION, GOAL_SHARE, GOAL_DENSITY = 0.99, 0.95, 0.1
NETWORK = {"channels": 32, "blocks": 2}
Part = tuple[str, str, float, int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", model=False, seeds=3)
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="detector steps (default: 1000)")
    parser.add_argument("--rounds", type=int, default=6, metavar="N", help="rounds of x- and τ-steps (default: 6)")
    parser.add_argument("--only", nargs="+", type=int, metavar="K", help="do only these seeds, publish nothing else")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="do only these kinds of parts, publish nothing else")
    parser.add_argument("--publish", action="store_true", help="publish what is done, and do nothing more")
    parser.add_argument("--minutes", type=float, metavar="MIN", help="begin no further part after this time")
    parser.add_argument("--work", type=Path, metavar="DIR", help="work folder (default: one below runs/benchmarks)")
    args = parse(parser, argv)
    if args.quick:
        args.steps, args.rounds = 4, 2
    # Parts of other scenes, models or sizes are never taken for these.
    parent = args.out if args.quick else QUICK_RESULTS
    work = args.work or parent / f"label_free-{args.steps}-{args.rounds}-{origin('fast')}"
    work.mkdir(parents=True, exist_ok=True)
    began, left = time.monotonic(), 0
    wanted = parts(args.seeds, quick=args.quick)
    for part in wanted:
        late = args.minutes is not None and time.monotonic() - began > 60 * args.minutes
        other = (args.only is not None and part[3] not in args.only) or (args.kinds and part[0] not in args.kinds)
        if late or other or args.publish:
            left += not _file(work, part).exists()
            continue
        once(work, part, args)
    if args.publish:
        wanted = [part for part in wanted if _file(work, part).exists()]
    elif left:
        print(f"{left} of {len(wanted)} parts are still to be done; run it again to go on.")
        return 0
    results = {
        name: json.loads(_file(work, part).read_text(encoding="utf-8")) for part in wanted for name in [key(part)]
    }
    publish(
        "label_free",
        args,
        tables=_tables(results, args.seeds),
        results={"parts": results, "psf": _pictures(work, wanted)},
        settings={
            "seeds": args.seeds,
            "parts": f"{len(wanted)} of {len(parts(args.seeds, quick=args.quick))}",
            "steps": args.steps,
            "rounds": args.rounds,
            "network": NETWORK,
            "molecules_per_movie": MOLECULES,
            "photons": PHOTONS,
            "background_e": BACKGROUND_E,
            "start_width_px": START_PX,
            "aberrations_mwaves": ABERRATIONS,
            "tolerance_nm": TOLERANCE_NM,
        },
        figure=_figure(results, args.seeds, _pictures(work, wanted)),
    )
    return 0


def parts(seeds: int, *, quick: bool) -> list[Part]:
    """Everything that is measured: kind, PSF, density per µm², seed."""
    if quick:
        return [("learned", "Gaussian", 0.5, 0), ("supervised", "Gaussian", 0.0, 0), ("psf", "Airy", 0.5, 0)]
    # What the goals are about comes first.
    one: list[tuple[str, str, float]] = [("learned", "Gaussian", GOAL_DENSITY)]
    one += [("supervised", psf, 0.0) for psf in SUPERVISED]
    one += [("learned", psf, d) for psf in LEARNED for d in LEARNED[psf] if d != GOAL_DENSITY]
    one += [("psf", psf, density) for psf in ONLY_PSF for density in ONLY_PSF[psf]]
    one += [("learned", psf, GOAL_DENSITY) for psf in LEARNED if psf not in SUPERVISED]
    one += [("refined", *REFINED), ("plain", *PLAIN)]
    return [(*what, seed) for what in one for seed in range(seeds)]


def key(part: Part) -> str:
    """Name of a part."""
    kind, psf, density, seed = part
    return f"{kind}-{psf}-{density:g}-{seed}"


def once(work: Path, part: Part, args: Any) -> None:
    """Measure a part, unless that was done."""
    target = _file(work, part)
    if target.exists():
        return
    began = time.process_time()
    kind, psf, density, seed = part
    measure: dict[str, Callable[..., dict[str, Any]]] = {
        "learned": learned,
        "plain": learned,
        "refined": learned,
        "supervised": supervised,
        "psf": only_psf,
    }
    result = measure[kind](work, kind, psf, density, seed, args)
    result["cpu_seconds"] = time.process_time() - began
    write_text(target, to_json(result))
    print(f"{key(part)}: {result['cpu_seconds']:.0f} s", flush=True)


def _file(work: Path, part: Part) -> Path:
    return work / f"{key(part).replace('.', 'p')}.json"


def movie_of(work: Path, psf: str, density: float, seed: int, frames: int) -> tuple[Any, Any]:
    """A movie and its truth."""
    from smlm_pb.simulation import simulate

    recipe = {
        "frames": frames,
        "height": SIDE_PX,
        "width": SIDE_PX,
        "pixel_size_nm": PIXEL_SIZE_NM,
        "psf": {"sigma_px": GAUSSIAN_PX} if psf == "Gaussian" else {"file": str(true_psf_file(work, psf))},
        "molecules": {"density_per_um2": density, "photons": PHOTONS},
        "background": {"photons_per_px": BACKGROUND_E},
        "camera": {"offset_adu": 100, "e_per_adu": 0.5, "read_noise_e": READ_NOISE_E},
    }
    return simulate(recipe, seed=seed)


def true_psf_file(work: Path, psf: str) -> Path:
    """The PSF of a round pupil as a file."""
    from smlm_pb.simulation.aberrations import PupilPsf
    from smlm_pb.simulation.sampled_psf import write_psf

    path = work / f"true_{psf}.tif"
    if not path.exists():
        pupil = PupilPsf(ABERRATIONS[psf])
        write_psf(path, pupil.samples, pupil.samples_per_px)
    return path


def true_values(work: Path, psf: str, axis: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The true PSF at distances from the molecule along both axes, px."""
    from smlm_pb.simulation.rendering import pixel_integral_derivatives
    from smlm_pb.simulation.sampled_psf import read_psf

    if psf == "Gaussian":
        line = pixel_integral_derivatives(axis, GAUSSIAN_PX)[0]
        return np.outer(line, line)
    return read_psf(true_psf_file(work, psf)).at(axis, axis)


def correlation(work: Path, psf: str, learned_psf: Any) -> float:
    """Pearson correlation of learned and true PSF within 5 px, each centred on its centre of mass."""
    axis = np.arange(-20, 21) / 4
    pair = learned_psf.at(axis, axis).ravel(), true_values(work, psf, axis).ravel()
    return float(np.corrcoef(*pair)[0, 1])


def _frames(density: float, args: Any) -> int:
    per_frame = density * (SIDE_PX * PIXEL_SIZE_NM / 1000) ** 2
    return 20 if args.quick else int(np.clip(MOLECULES / per_frame, 24, 480))


def _conditions(psf: str) -> dict[str, Any]:
    from smlm_pb.camera import Camera

    return {
        "camera": Camera(offset_adu=100.0, e_per_adu=0.5, read_noise_e=READ_NOISE_E),
        "psf_sigma_px": TOLD_PX[psf],
    }


def learned(work: Path, kind: str, psf: str, density: float, seed: int, args: Any) -> dict[str, Any]:
    """Learn from a movie, judge on another one of the same conditions."""
    from smlm_pb.simulation.sampled_psf import read_psf
    from smlm_pb.training.label_free import LabelFreeSettings, learn_unlabelled

    movie, truth = movie_of(work, psf, density, seed_of(1, density, seed), _frames(density, args))
    start = "fast" if kind == "refined" else None
    settings = LabelFreeSettings.of(
        started=start is not None,
        steps=min(args.steps, 300) if start else args.steps,
        rounds=args.rounds,
        seed=seed,
        calibration_scenes=16 if args.quick else 384,
        renoised=0.0 if kind == "plain" else 0.5,
        **NETWORK,
    )
    out = work / key((kind, psf, density, seed)).replace(".", "p")
    begun = (out / "checkpoint.safetensors").exists()
    result = learn_unlabelled(
        movie, out, start=start, name="model", settings=settings, resume=begun, **_conditions(psf)
    )
    return {
        "correlation": correlation(work, psf, read_psf(result.psf_file)),
        "molecules": result.molecules,
        "true_molecules": len(truth),
        "psf_sigma_px": [result.psf_sigma_x_px, result.psf_sigma_y_px],
        "scores": judged(work, result.model_folder, psf, density, seed, args),
        "shipped": judged(work, "fast", psf, density, seed, args),
    }


def supervised(work: Path, kind: str, psf: str, density: float, seed: int, args: Any) -> dict[str, Any]:
    """Train the same network with labels on simulated scenes, and judge it at every density."""
    from smlm_pb.training import Experiment, train

    told = TOLD_PX[psf]
    scenes = {
        "psf_sigma_px": [told, told],
        "psf_spread": 0.0,
        "photons": [PHOTONS, PHOTONS],
        "photon_spreads": {"lognormal": 1.0},
        "partial_on_fraction": 0.0,
        "background_e": [0.95 * BACKGROUND_E, 1.05 * BACKGROUND_E],
        "structured_background_fraction": 0.0,
        "read_noise_e": [READ_NOISE_E, READ_NOISE_E],
        "em_fraction": 0.0,
        "gain_error": 0.0,
        "sparse_fraction": 0.4,
        "sparse_density_per_px2": [0.0005, 0.001],
        "dense_density_per_px2": [0.001, 0.006],
        "sparse_structures": {"uniform": 1.0},
        "dense_structures": {"uniform": 1.0},
        "psf_file": None if psf == "Gaussian" else str(true_psf_file(work, psf)),
    }
    experiment = Experiment.from_dict(
        {
            "name": "model",
            "seed": seed,
            "network": NETWORK,
            "scenes": scenes,
            "steps": args.steps,
            "batch_size": 8,
            "crop_px": 32,
            "warmup": 0.05,
            "ema_decay": min(0.999, 1 - 10 / max(args.steps, 20)),
            "validation": {
                "every_steps": args.steps,
                "scenes": 16,
                "calibration_scenes": 16 if args.quick else 384,
            },
            "workers": 0,
        }
    )
    out = work / f"supervised-{psf}-{seed}"
    begun = (out / "checkpoint.safetensors").exists()
    folder = train(experiment, out, device="cpu", resume=begun).model_folder
    return {"scores": {f"{d:g}": judged(work, folder, psf, d, seed, args) for d in LEARNED[psf]}}


def only_psf(work: Path, kind: str, psf: str, density: float, seed: int, args: Any) -> dict[str, Any]:
    """Learn the PSF only, from a start that is round and of another width."""
    import torch

    from smlm_pb.simulation.sampled_psf import SampledPsf
    from smlm_pb.training.label_free import LabelFreeSettings
    from smlm_pb.training.label_free.molecules import Frames
    from smlm_pb.training.label_free.reconstruct import Limits, begin, run_round
    from smlm_pb.training.label_free.run import first_kernel

    movie, _ = movie_of(work, psf, density, seed_of(1, density, seed), _frames(density, args))
    electrons = torch.from_numpy(_conditions(psf)["camera"].to_electrons(movie))
    noise = torch.full(electrons.shape[1:], READ_NOISE_E**2)
    size = 64
    chunks = []
    for first in range(0, len(electrons), size):
        frames = Frames(electrons[first : first + size], noise)
        chunks.append((frames, begin(frames, first_kernel(START_PX))))
    settings = LabelFreeSettings(rounds=args.rounds)
    most = round(settings.most_per_px2 * SIDE_PX**2)
    for index in range(args.rounds):
        limits = Limits(most=most, separation_px=settings.separation_px(index, START_PX, started=False))
        chunks = run_round(chunks, limits) or chunks
    kernel = chunks[0][1].kernel
    found = SampledPsf(kernel.sampled(), kernel.samples_per_px)
    return {"correlation": correlation(work, psf, found), "psf_sigma_px": list(found.gaussian_widths())}


def judged(work: Path, model: Any, psf: str, density: float, seed: int, args: Any) -> dict[str, float]:
    """Scores of a model on a movie that it has not seen."""
    from smlm_pb.localization import load_model

    frames = 4 if args.quick else TEST_FRAMES
    movie, truth = movie_of(work, psf, density, seed_of(2, density, seed), frames)
    run = localize(movie, load_model(model, "cpu"), pixel_size_nm=PIXEL_SIZE_NM, **_conditions(psf))
    scores = score(run, truth, tolerance_nm=TOLERANCE_NM, border_nm=BORDER_NM)
    kept = ("jaccard", "jaccard_inner", "best_jaccard", "precision", "recall", "rmse_nm", "pull", "photon_ratio")
    return {name: scores[name] for name in kept}


def _values(results: dict[str, Any], seeds: int, kind: str, psf: str, density: float, *path: str) -> list[float]:
    """One number of every seed; nothing where it was not measured."""
    found = []
    for seed in range(seeds):
        value: Any = results.get(key((kind, psf, density, seed)))
        for name in path:
            value = None if value is None else value.get(name)
        if value is not None:
            found.append(value)
    return found


def _correlations(results: dict[str, Any], seeds: int, psf: str, density: float) -> list[float]:
    """Of every movie one: that of the run with a detector where there is one."""
    found = []
    for seed in range(seeds):
        done = [results.get(key((kind, psf, density, seed))) for kind in ("learned", "psf")]
        found += [part["correlation"] for part in done if part is not None][:1]
    return found


def _share(results: dict[str, Any], seeds: int, psf: str, density: float) -> float | None:
    """Jaccard index in units of that with labels, over the seeds of which there are both."""
    ours, theirs = [], []
    for seed in range(seeds):
        learned_part = results.get(key(("learned", psf, density, seed)))
        labelled_part = results.get(key(("supervised", psf, 0.0, seed)))
        if learned_part is not None and labelled_part is not None:
            ours.append(learned_part["scores"]["jaccard"])
            theirs.append(labelled_part["scores"][f"{density:g}"]["jaccard"])
    return mean(ours) / mean(theirs) if theirs and mean(theirs) > 0 else None


def _tables(results: dict[str, Any], seeds: int) -> list[Table]:
    def each(values: list[float], digits: int = 3) -> str:
        return spread(values, digits)

    psf_rows, detector_rows = [], []
    for psf in LEARNED:
        for density in sorted({*LEARNED[psf], *ONLY_PSF[psf]}):
            found = _correlations(results, seeds, psf, density)
            if found:
                lowest = number(min(found), 5)
                goal = number(GOAL_CORRELATION, 2)
                psf_rows.append([psf, f"{density:g}", str(len(found)), each(found, 5), lowest, goal])
        for density in LEARNED[psf]:
            ours = _values(results, seeds, "learned", psf, density, "scores", "jaccard")
            labelled = _values(results, seeds, "supervised", psf, 0.0, "scores", f"{density:g}", "jaccard")
            if not ours:
                continue
            detector_rows.append(
                [
                    psf,
                    f"{density:g}",
                    str(len(ours)),
                    each(ours),
                    each(labelled),
                    number(_share(results, seeds, psf, density)),
                    each(_values(results, seeds, "learned", psf, density, "shipped", "jaccard")),
                    each(_values(results, seeds, "learned", psf, density, "scores", "rmse_nm"), 1),
                    each(_values(results, seeds, "supervised", psf, 0.0, "scores", f"{density:g}", "rmse_nm"), 1),
                    each(_values(results, seeds, "learned", psf, density, "scores", "pull"), 2),
                ]
            )
    tables = [
        Table(
            "Learned PSF: correlation with the true one (within 5 px)",
            ("PSF", "molecules/µm²", "movies", "correlation", "lowest", "goal"),
            psf_rows,
        ),
        Table(
            f"Detector: Jaccard index at {TOLERANCE_NM:g} nm on movies that it has not seen",
            (
                "PSF",
                "molecules/µm²",
                "movies",
                "label-free",
                "with labels, same net and steps",
                "share",
                "shipped fast",
                "RMSE (nm)",
                "with labels",
                "sd of error/σ",
            ),
            detector_rows,
        ),
    ]
    rows = []
    for what, kinds, (psf, density), paths in (
        ("without crops drawn anew", ("learned", "plain"), PLAIN, ("scores", "scores")),
        ("refined from fast", ("refined", "refined"), REFINED, ("shipped", "scores")),
    ):
        pairs = [
            (_values(results, seeds, kind, psf, density, path, name), digits)
            for kind, path in zip(kinds, paths, strict=True)
            for name, digits in (("jaccard", 3), ("pull", 2))
        ]
        if pairs[-1][0]:
            rows.append([f"{what} ({psf}, {density:g}/µm²)", *(each(values, digits) for values, digits in pairs)])
    if rows:
        columns = ("what", "J without it", "sd of error/σ without it", "J with it", "sd of error/σ with it")
        tables.append(Table("What changes the result", columns, rows))
    return tables


def _pictures(work: Path, wanted: list[Part]) -> dict[str, Any]:
    """Profiles of learned and true PSFs of the first seed, for the figure."""
    from smlm_pb.simulation.sampled_psf import read_psf

    axis, found = np.arange(-48, 49) / 8, {}
    for psf in LEARNED:
        learned_parts = [part for part in wanted if part[:2] == ("learned", psf)]
        for part in learned_parts:
            path = work / key(part).replace(".", "p") / "model" / "psf.tif"
            if path.exists() and psf not in found:
                density = part[2]
                image, true = read_psf(path).at(axis, axis), true_values(work, psf, axis)
                middle = len(axis) // 2
                found[psf] = {
                    "axis_px": axis,
                    "learned_x": image[middle],
                    "learned_y": image[:, middle],
                    "true_x": true[middle],
                    "true_y": true[:, middle],
                    "density_per_um2": density,
                }
    return found


def _figure(results: dict[str, Any], seeds: int, pictures: dict[str, Any]) -> Any:
    figure, axes = new_figure(max(3, len(pictures)), 2, width=4.4)
    for ax, (psf, lines) in zip(axes[0], pictures.items(), strict=False):
        for name, colour in (("x", "ours"), ("y", "other")):
            ax.plot(
                lines["axis_px"], lines[f"true_{name}"], color=COLOURS[colour], alpha=0.35, lw=4, label=f"true, {name}"
            )
            ax.plot(lines["axis_px"], lines[f"learned_{name}"], color=COLOURS[colour], lw=1, label=f"learned, {name}")
        ax.set(xlabel="distance (px)", ylabel="share of the light per pixel")
        ax.set_title(f"{psf} PSF, {lines['density_per_um2']:g} molecules/µm²")
        ax.legend(frameon=False, fontsize=7)
    for ax in axes[0][len(pictures) :]:
        ax.set_axis_off()
    _draw_correlations(axes[1][0], results, seeds)
    _draw_detectors(axes[1][1], results, seeds, "jaccard", f"Jaccard index at {TOLERANCE_NM:g} nm")
    _draw_detectors(axes[1][2], results, seeds, "rmse_nm", "RMSE per axis (nm)")
    densities = sorted({d for which in (LEARNED, ONLY_PSF) for each in which.values() for d in each})
    for ax in axes[1][:3]:
        ax.set_xlim(0.7 * densities[0], 1.4 * densities[-1])
        ax.set_xticks(densities, [f"{density:g}" for density in densities])
        ax.minorticks_off()
    for ax in axes[1][3:]:
        ax.set_axis_off()
    return figure


def _draw_correlations(ax: Any, results: dict[str, Any], seeds: int) -> None:
    for psf, colour in zip(LEARNED, ("ours", "other", "other, second"), strict=True):
        densities, lost = [], []
        for density in sorted({*LEARNED[psf], *ONLY_PSF[psf]}):
            for value in _correlations(results, seeds, psf, density):
                densities.append(density)
                lost.append(1 - value)
        if lost:
            ax.plot(densities, lost, "o", color=COLOURS[colour], label=psf, mfc="none")
    ax.axhline(1 - GOAL_CORRELATION, ls="--", color=COLOURS["goal"], label="goal")
    ax.set(xscale="log", yscale="log", xlabel="molecules per µm²", ylabel="1 − correlation with the true PSF")
    ax.set_title("Learned PSF")
    ax.legend(frameon=False, fontsize=7)


def _draw_detectors(ax: Any, results: dict[str, Any], seeds: int, name: str, label: str) -> None:
    for psf, marker in zip(LEARNED, "osD", strict=True):
        rows = []
        for density in LEARNED[psf]:
            ours = _values(results, seeds, "learned", psf, density, "scores", name)
            theirs = _values(results, seeds, "supervised", psf, 0.0, "scores", f"{density:g}", name)
            shipped = _values(results, seeds, "learned", psf, density, "shipped", name)
            if ours:
                rows.append((density, mean(ours), mean(theirs), mean(shipped)))
        if rows:
            densities, *lines = zip(*rows, strict=True)
            for who, values, colour in zip(
                ("label-free", "with labels", "fast"), lines, ("ours", "reference", "other, second"), strict=True
            ):
                if np.isfinite(values).any():
                    ax.plot(densities, values, f"{marker}-", color=COLOURS[colour], label=f"{who}, {psf}", mfc="none")
    ax.set(xscale="log", xlabel="molecules per µm²", ylabel=label, title="Detector")
    if name == "jaccard":
        ax.set_ylim(0, 1.02)
    else:
        ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=7)


if __name__ == "__main__":
    run_as_program(main)
