"""Errors that are found without truth, on simulated movies whose truth is kept back.

Three questions: is the error budget of a digital twin that of the movie; is what looks missed, false or merged in the
residuals so; and does adding frames tell up to which density a model works? 64×64 pixels of 100 nm, PSF width 1.1 px.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import COLOURS, Table, load, make_parser, new_figure, number, parse, publish, run_as_program

import smlm_pb
from smlm_pb.analysis.residual_result import SUSPICIONS
from smlm_pb.evaluation.matching import find_candidates, positions, solve
from smlm_pb.simulation.presets import density_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.localization import Model
    from smlm_pb.localizations import Localizations

CAMERA = {"pixel_size_nm": 100.0, "offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": 1.1}
#: Molecules per µm², photons, structure.
SCENES = ((1.0, 2000.0, "uniform"), (4.0, 2000.0, "uniform"), (1.0, 300.0, "uniform"), (2.0, 1000.0, "filaments"))
#: Molecules per µm², photons, threshold.
LOOKS = ((0.25, 2000.0, "auto"), (1.0, 2000.0, "auto"), (1.0, 2000.0, 0.9), (1.0, 2000.0, 0.05), (2.0, 2000.0, 0.05))
START_PER_UM2, ADDED = 0.25, (2, 4, 8, 16)
FRAMES = 60
#: What is confirmed lies so near, px: within a spot; for merged ones the neighbour that was swallowed, too.
NEAR_PX = {"missed": 1.5, "false": 1.5, "merged": 2.6}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse(make_parser(__doc__ or ""), argv)
    warnings.simplefilter("ignore", UserWarning)
    model = load(args)
    frames = 10 if args.quick else FRAMES
    scenes, looks = (SCENES[:1], LOOKS[:1]) if args.quick else (SCENES, LOOKS)
    twins = [compare_twin(model, *scene, frames=frames, refine=args.refine) for scene in scenes]
    suspicions = [confirm(model, *look, frames=frames, refine=args.refine) for look in looks]
    densities = add_frames(model, frames=32 if args.quick else 128, added=ADDED[:2] if args.quick else ADDED)
    publish(
        "errors_without_truth",
        args,
        tables=[_twins(twins), _suspicions(suspicions), _densities(densities)],
        results={"twin": twins, "residuals": suspicions, "superposition": densities},
        settings={"frames": frames, "background_e": 30},
        figure=_figure(twins, densities),
        model=model,
    )
    return 0


def simulate(
    density: float, photons: float, structure: str, frames: int, background: float = 30.0, seed: int = 3
) -> tuple[Any, Localizations]:
    """A movie and its truth; photons differ between molecules by 30 %."""
    recipe = density_sweep(
        density,
        frames=frames,
        seed=seed,
        structure={"kind": structure},
        molecules={"density_per_um2": density, "photons": photons, "min_photons": 0.0},
        background={"photons_per_px": background},
    )
    return smlm_pb.simulate(recipe)


def compare_twin(
    model: Model, density: float, photons: float, structure: str, *, frames: int, refine: str
) -> dict[str, Any]:
    """Error budgets of a movie and of its digital twin."""
    movie, truth = simulate(density, photons, structure, frames)
    found = smlm_pb.localize(movie, model=model, refine=refine, **CAMERA)
    budgets = smlm_pb.error_budget(found, truth), smlm_pb.digital_twin(found, model=model, n_frames=frames).budget
    name = f"{structure}, {density:g} per µm², {photons:g} e⁻"
    costs = {kind: [b.delta_jaccard[kind] for b in budgets] for kind in ("merged", "mislocalized", "missed", "false")}
    return {"scene": name, "jaccard": [b.jaccard for b in budgets], "costs": costs}


def confirm(
    model: Model, density: float, photons: float, threshold: float | str, *, frames: int, refine: str
) -> dict[str, Any]:
    """How many suspicions of the residuals the truth confirms."""
    movie, truth = simulate(density, photons, "uniform", frames)
    found = smlm_pb.localize(movie, model=model, threshold=threshold, refine=refine, **CAMERA)
    left = smlm_pb.residual_map(found, movie)
    kinds = smlm_pb.error_budget(found, truth, tolerance_nm=100, border_nm=300).kinds
    lost = truth.select(np.isin(kinds.truth, ("missed", "merged", "mislocalized")))
    surplus = found.select(np.isin(kinds.pred, ("false", "satellite", "duplicate", "mislocalized")))
    result: dict[str, Any] = {"scene": f"{density:g} per µm², threshold {threshold}", "chi2": left.chi2_total}
    for name, code in SUSPICIONS.items():
        suspects = left.suspects.select(left.suspects["suspicion"] == code)
        real = surplus if name == "false" else lost
        near = find_candidates(positions(suspects), positions(real), NEAR_PX[name])
        result[name] = {"n": len(suspects), "confirmed": len(np.unique(near.pred)), "in_truth": len(real)}
    return result


def add_frames(model: Model, *, frames: int, added: Sequence[int]) -> list[dict[str, Any]]:
    """Jaccard index by adding frames, and by the truth of movies that are as dense."""
    movie, _ = simulate(START_PER_UM2, 2000.0, "uniform", frames, background=10.0)
    found = smlm_pb.superposition(movie, model=model, gap_frames=2, added=added, **CAMERA)
    rows = []
    for level in found.levels:
        dense, truth = simulate(
            level.added * START_PER_UM2, 2000.0, "uniform", max(4, frames // level.added), 10.0 * level.added, seed=4
        )
        pred = smlm_pb.localize(dense, model=model, **CAMERA)
        pairs = solve(find_candidates(positions(pred), positions(truth), found.tolerance_px), "hungarian")
        true = len(pairs) / (len(pred) + len(truth) - len(pairs))
        rows.append({"per_um2": level.density_per_um2, "added": level.added, "told": level.jaccard, "true": true})
    return rows


def _twins(twins: Sequence[dict[str, Any]]) -> Table:
    kinds = ("merged", "mislocalized", "missed", "false")
    rows = [
        [
            t["scene"],
            *(number(j, 3) for j in t["jaccard"]),
            *(f"{number(t['costs'][kind][0], 3)} / {number(t['costs'][kind][1], 3)}" for kind in kinds),
        ]
        for t in twins
    ]
    columns = ("movie", "J at 50 nm", "J of its twin", *(f"{kind}: truth / twin" for kind in kinds))
    return Table("Digital twins: Jaccard index, and what errors cost.", columns, rows)


def _suspicions(looks: Sequence[dict[str, Any]]) -> Table:
    def cell(entry: dict[str, int]) -> str:
        return f"{entry['confirmed']} of {entry['n']}"

    rows = [[look["scene"], number(look["chi2"], 2), *(cell(look[name]) for name in SUSPICIONS)] for look in looks]
    columns = ("movie", "χ² per pixel", *(f"suspected {name}: confirmed" for name in SUSPICIONS))
    return Table("Residuals: suspicions that the truth confirms.", columns, rows)


def _densities(rows: Sequence[dict[str, Any]]) -> Table:
    cells = [[number(r["per_um2"], 2), str(r["added"]), number(r["told"], 3), number(r["true"], 3)] for r in rows]
    columns = ("molecules per µm²", "frames added", "J by adding frames", "J by truth")
    return Table("Adding frames: the density up to which a model works.", columns, cells)


def _figure(twins: Sequence[dict[str, Any]], densities: Sequence[dict[str, Any]]) -> Figure:
    figure, axes = new_figure(2)
    left, right = axes[0, 0], axes[0, 1]
    for kind, colour in (("merged", "ours"), ("mislocalized", "other"), ("missed", "goal"), ("false", "reference")):
        pairs = np.array([t["costs"][kind] for t in twins])
        left.plot(pairs[:, 0], pairs[:, 1], "o", color=COLOURS[colour], label=kind)
    limit = 1.1 * max(max(max(pair) for pair in t["costs"].values()) for t in twins)
    left.plot([0, limit], [0, limit], color=COLOURS["reference"], linewidth=0.8)
    left.set(xlabel="gain of J if mended, by truth", ylabel="the same by the twin")
    left.legend(frameon=False, fontsize=8)
    density = [r["per_um2"] for r in densities]
    right.plot(density, [r["told"] for r in densities], "o-", color=COLOURS["ours"], label="by adding frames")
    right.plot(density, [r["true"] for r in densities], "s--", color=COLOURS["other"], label="by truth")
    right.set(xlabel="molecules per µm²", ylabel="Jaccard index", xscale="log", ylim=(0.5, 1))
    right.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    run_as_program(main)
