"""Every method of training with the same scenes, steps and network size, scored on the same frames.

The frames are the test stack of Deep-STORM's first demo (see ``microtubules.py``), which no training saw, and simulated
movies. Camera gain and PSF width of the stack are estimated once, for all. Trainings are short (700 steps of four
32×32-px scenes, about half a minute of one processor core each): they rank methods, and say nothing of what a method
reaches in the end. Finished trainings are kept in ``--cache``, so that the command continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from _report import COLOURS, Table, make_parser, mean, new_figure, number, parse, run_as_program, spread
from _study_scores import DENSITIES_PER_UM2
from _trainings import SEEDS, Arm, Runs, add_study_options, paired, run_and_publish, values

from smlm_pb.training.methods import DEFAULT_METHOD, METHODS

#: J at 25 and at 50 nm of the source's tables (6.2, 6.3), on all 361 frames, trained on 20 frames of the same kind.
PUBLISHED = {
    "paper": (0.221, 0.482),
    "no-count": (0.211, None),
    "l1": (0.208, 0.454),
    "deep-storm": (0.153, 0.416),
    "upsampling": (0.171, 0.448),
    "heatmap-refinement": (0.195, 0.448),
}


def arms() -> list[Arm]:
    """Every method."""
    return [Arm(name, method.title, {"method": name}) for name, method in METHODS.items()]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", model=False, seeds=SEEDS)
    add_study_options(parser)
    args = parse(parser, argv)
    return run_and_publish("baselines", arms(), args, tables=_tables, figure=_figure, published=PUBLISHED)


def _tables(results: Runs) -> list[Table]:
    reference = results.get(DEFAULT_METHOD, {})
    stack, simulated = [], []
    for name, runs in results.items():
        at = PUBLISHED.get(name, (None, None))
        difference = paired(runs, reference, "stack", "automatic", "50") if name != DEFAULT_METHOD else []
        stack.append(
            [
                f"`{name}`",
                str(len(runs)),
                spread(values(runs, "stack", "automatic", "25")),
                spread(values(runs, "stack", "automatic", "50")),
                spread(difference),
                number(mean(values(runs, "stack", "best", "50"))),
                number(mean(values(runs, "stack", "unpooled", "50"))),
                number(mean(values(runs, "stack", "chance", "50"))),
                number(mean(values(runs, "stack", "precision")), 2),
                number(mean(values(runs, "stack", "recall")), 2),
                number(at[0]),
                number(at[1]),
                number(mean(values(runs, "training_cpu_s")), 0),
            ]
        )
        simulated.append(
            [
                f"`{name}`",
                *(spread(values(runs, "simulated", f"{d:g}", "automatic", "50")) for d in DENSITIES_PER_UM2),
                *(number(mean(values(runs, "simulated", f"{d:g}", "rmse_nm")), 1) for d in DENSITIES_PER_UM2),
                number(mean(values(runs, "simulated", "0.5", "pull")), 2),
                number(mean(values(runs, "simulated", "5", "calibration_error")), 3),
            ]
        )
    return [
        Table(
            "Microtubules: Jaccard index at the automatic threshold; difference to the default at 50 nm, seed by seed. "
            "deep-storm, decode and deep-watershed are those programs' losses on our network, not the programs",
            (
                "method",
                "seeds",
                "J at 25 nm",
                "J at 50 nm",
                "minus default",
                "best threshold",
                "best, not pooled",
                "chance J 50",
                "precision",
                "recall",
                "published J 25",
                "published J 50",
                "training (s)",
            ),
            stack,
        ),
        Table(
            "Simulated truth (1000 e⁻, 20 e⁻/px): J at 50 nm and RMSE per axis (nm) by molecules/µm²",
            (
                "method",
                *(f"J at {d:g}" for d in DENSITIES_PER_UM2),
                *(f"RMSE at {d:g}" for d in DENSITIES_PER_UM2),
                "sd of error/σ at 0.5",
                "calibration error at 5",
            ),
            simulated,
        ),
    ]


def _figure(results: Runs) -> Any:
    figure, axes = new_figure(2, height=1.2 + 0.25 * len(results), width=5.2)
    names = list(results)[::-1]
    place = np.arange(len(names))
    panels = (
        (("stack", "automatic", "50"), ("stack", "automatic", "25")),
        (("simulated", "5", "automatic", "50"), ("simulated", "0.5", "automatic", "50")),
    )
    for ax, (dark, pale) in zip(axes[0], panels, strict=True):
        for keys, kind in ((dark, ""), (pale, ", second")):
            for k, name in enumerate(names):
                found = values(results[name], *keys)
                colour = COLOURS[f"{'ours' if name == DEFAULT_METHOD else 'other'}{kind}"]
                ax.plot(found, [k] * len(found), "|", ms=9, mew=1.6, color=colour)
                ax.plot(mean(found), k, "o", ms=4, color=colour)
        ax.set_yticks(place, names)
        ax.set(xlim=(0, 1), xlabel="Jaccard index")
        ax.grid(axis="y", color="0.92", lw=0.6)
    for name in set(PUBLISHED) & set(names):
        published = PUBLISHED[name][1]
        if published is not None:
            axes[0, 0].plot(published, names.index(name), "x", ms=5, color="k")
    for k, name in enumerate(names):
        chance = mean(values(results[name], "stack", "chance", "50"))
        axes[0, 0].plot(chance, k, ".", ms=4, color=COLOURS["reference"])
    axes[0, 0].set_title("Microtubules: 50 nm (dark), 25 nm (light)\ngrey: chance at 50 nm; ×: published")
    axes[0, 1].set_title("Simulated, J at 50 nm:\n5 (dark) and 0.5 (light) per µm²")
    return figure


if __name__ == "__main__":
    run_as_program(main)
