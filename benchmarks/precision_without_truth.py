"""Precision and resolution measured without truth, on tables whose truth is known.

The precision from molecules that stay on (NeNA) against the one that was simulated, from sparse to crowded; and the
ratio of actual to reported precision where the reported one is wrong on purpose. 20 000 localizations in 3000 frames of
64×64 pixels of 100 nm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from _report import COLOURS, Table, make_parser, new_figure, number, parse, publish, run_as_program

from smlm_pb.analysis import frc, nena
from smlm_pb.simulation.tables import StructureName, simulate_localizations

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRUCTURES = ("uniform", "filaments", "clusters")
SIGMAS_NM = (4.0, 10.0, 20.0)
N_LOCALIZATIONS = (5_000, 20_000, 100_000)
REPORTED = (0.5, 1.0, 2.0)
N_FRAMES = 3000
GOAL = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse(make_parser(__doc__ or "", model=False), argv)
    structures, sigmas, sizes = STRUCTURES, SIGMAS_NM, N_LOCALIZATIONS
    if args.quick:
        structures, sigmas, sizes = structures[:1], sigmas[1:2], (3000,)
    points = [measure(s, sigma, n, seed) for seed, s in enumerate(structures) for sigma in sigmas for n in sizes]
    pulls = [judge_reported(factor) for factor in REPORTED]
    publish(
        "precision_without_truth",
        args,
        tables=[_table(points), _pulls(pulls)],
        results={"precision": points, "reported": pulls},
        settings={"frames": N_FRAMES, "on_frames": 2, "blinks": 3},
        figure=_figure(points),
    )
    return 0


def measure(structure: str, sigma_nm: float, n: int, seed: int) -> dict[str, Any]:
    """NeNA and FRC of one table."""
    locs = simulate_localizations(
        cast("StructureName", structure), n_localizations=n, n_frames=N_FRAMES, sigma_nm=sigma_nm, seed=seed
    ).locs
    found, resolution = nena(locs, seed=seed), frc(locs, pixel_size_nm=sigma_nm / 2, n_repeats=3, seed=seed)
    return {
        "structure": structure,
        "sigma_nm": sigma_nm,
        "localizations": n,
        "nena_nm": found.sigma_nm,
        "standard_error_nm": found.standard_error_nm,
        "ratio": found.sigma_nm / sigma_nm,
        "frc_nm": resolution.resolution_nm,
    }


def judge_reported(factor: float) -> dict[str, Any]:
    """Actual over reported precision, for precisions that differ between molecules and are wrong by a factor."""
    locs = simulate_localizations("filaments", n_localizations=20_000, n_frames=N_FRAMES, sigma_spread=0.4, seed=9).locs
    wrong = locs.with_columns(sigma_x=locs["sigma_x"] * factor, sigma_y=locs["sigma_y"] * factor)
    return {"reported_over_actual": factor, "measured_pull": nena(wrong).pull, "true_pull": 1 / factor}


def _table(points: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            f"{p['structure']}, {p['localizations']}",
            number(p["sigma_nm"], 0),
            f"{number(p['nena_nm'], 2)} ± {number(p['standard_error_nm'], 2)}",
            number(p["ratio"], 3),
            number(p["frc_nm"], 0),
        ]
        for p in points
    ]
    columns = ("structure, localizations", "true (nm)", "NeNA (nm)", "ratio", "FRC (nm)")
    return Table("Precision per axis without truth; the goal is a ratio of 0.95 to 1.05.", columns, rows)


def _pulls(pulls: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [number(p["reported_over_actual"], 1), number(p["true_pull"], 2), number(p["measured_pull"], 3)] for p in pulls
    ]
    return Table("Wrong precisions are exposed.", ("reported / actual", "true pull", "measured pull"), rows)


def _figure(points: Sequence[dict[str, Any]]) -> Figure:
    figure, axes = new_figure(1)
    ax = axes[0, 0]
    for structure, colour in zip(STRUCTURES, ("ours", "ours, second", "other"), strict=True):
        own = [p for p in points if p["structure"] == structure]
        ax.plot([p["sigma_nm"] for p in own], [p["ratio"] for p in own], "o", color=COLOURS[colour], label=structure)
    ax.axhspan(1 - GOAL, 1 + GOAL, color=COLOURS["goal"], alpha=0.15, label="goal")
    ax.set(xlabel="true precision per axis (nm)", ylabel="NeNA / truth", ylim=(0.85, 1.15))
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    run_as_program(main)
