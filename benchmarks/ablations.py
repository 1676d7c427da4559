"""What each part of the training is worth: one thing changed at a time, the same seeds, the same budget.

Everything else, and the frames on which trainings are scored, is as in ``baselines.py``, with which finished trainings
are shared. Differences are taken seed by seed. Trainings are short: they tell what helps early, and which way a lever
works; small differences may turn around in a long training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from _report import COLOURS, Table, make_parser, mean, new_figure, number, parse, run_as_program, spread
from _trainings import SEEDS, Arm, Runs, SeedRuns, add_study_options, noise, paired, run_and_publish, values

from smlm_pb.training.methods import DEFAULT_METHOD

BASE = DEFAULT_METHOD
#: λ in px → J at 25 and at 50 nm of the source's Table 6.4, on all 361 frames.
PUBLISHED_LAMBDA = {
    0.1: (0.219, 0.464),
    0.2: (0.234, 0.517),
    0.3: (0.233, 0.519),
    0.4: (0.229, 0.519),
    0.5: (0.226, 0.524),
    0.6: (0.234, 0.531),
    0.8: (0.234, 0.526),
    1.2: (0.219, 0.453),
    2.0: (0.208, 0.410),
}
LAMBDAS_PX = (0.1, 0.2, 0.4, 0.6, 1.0, 2.0)
#: What differences to the default are shown of: where, and by which keys of the scores.
DIFFERENCES = {
    "stack": ("stack", "automatic", "50"),
    "5/µm²": ("simulated", "5", "automatic", "50"),
    "0.5/µm²": ("simulated", "0.5", "automatic", "50"),
}


def _constant(value: float) -> dict[str, float]:
    return {"start": value, "end": value}


def arms() -> list[Arm]:
    """All arms, the most telling ones first."""
    return [
        Arm(BASE, "the default of this study", {"method": BASE}, "default"),
        Arm("no-count", "no counting at all", {"method": "no-count"}, "counting"),
        Arm("count-0.1", "count weight 0.1", {"loss": {"count_weight": _ramp(0.1)}}, "counting"),
        Arm("count-0.3", "count weight 0.3", {"loss": {"count_weight": _ramp(0.3)}}, "counting"),
        Arm("count-3", "count weight 3", {"loss": {"count_weight": _ramp(3.0)}}, "counting"),
        Arm("point-kernels", "kernels between points", {"method": "point-kernels"}, "kernel"),
        Arm("tiles-off", "counts per frame only", {"loss": {"tile_weight": 0.0}}, "counting"),
        Arm("n-1", "1 candidate per pixel", {"network": {"n_candidates": 1}}, "candidates"),
        Arm("n-3", "3 candidates per pixel", {"network": {"n_candidates": 3}}, "candidates"),
        Arm("reach-1.0", "reach 1.0 px", {"network": {"reach_px": 1.0}}, "candidates"),
        Arm("reach-0.8", "reach 0.8 px", {"network": {"reach_px": 0.8}}, "candidates"),
        Arm("reach-1.4", "reach 1.4 px", {"network": {"reach_px": 1.4}}, "candidates"),
        Arm("paper-net", "published 4-layer network", {"network": {"backbone": "paper"}}, "network"),
        Arm("lambda-constant", "λ 0.3 px from the start", {"loss": {"bandwidth_px": _constant(0.3)}}, "kernel"),
        Arm("unnormalised", "not normalised", {"method": "unnormalised"}, "kernel"),
        *(_lambda_arm(value) for value in LAMBDAS_PX),
        Arm("reach-0.5", "reach 0.5 px", {"network": {"reach_px": 0.5}}, "candidates"),
        Arm("ramp-off", "count weight 1 from the start", {"loss": {"count_weight": _constant(1.0)}}, "counting"),
        Arm("blocks-4", "4 blocks of 32 channels", {"network": {"blocks": 4}}, "network"),
        Arm("channels-16", "2 blocks of 16 channels", {"network": {"channels": 16}}, "network"),
        Arm("channels-48", "2 blocks of 48 channels", {"network": {"channels": 48}}, "network"),
        Arm("position-off", "no likelihood of positions", {"loss": {"position_weight": 0.0}}, "description"),
        Arm("balance-0.3", "scene balance 0.3", {"loss": {"scene_balance": 0.3}}, "description"),
        Arm(
            "outliers",
            "shared out by stated precision",
            {"loss": {"outlier_density_per_px2": 0.03}},
            "description",
        ),
    ]


def _ramp(end: float) -> dict[str, float]:
    """As in the default of the study, to another value."""
    return {"start": 0.3 * end, "end": end, "reached_at": 0.3}


def _lambda_arm(value: float) -> Arm:
    """One width, reached as in the default where that starts wider, else from the start."""
    bandwidth = {"start": max(0.8, value), "end": value, "reached_at": 0.5}
    return Arm(f"lambda-{value:g}", f"λ ends at {value:g} px", {"loss": {"bandwidth_px": bandwidth}}, "kernel")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", model=False, seeds=SEEDS)
    add_study_options(parser)
    args = parse(parser, argv)
    study = {arm.key: arm for arm in arms()}
    return run_and_publish(
        "ablations",
        list(study.values()),
        args,
        tables=partial(_tables, study=study),
        figure=partial(_figure, study=study),
        published_lambda=PUBLISHED_LAMBDA,
    )


def _tables(results: Runs, study: dict[str, Arm]) -> list[Table]:
    rows = [
        _row(study[key], runs, results.get(BASE, {}))
        for key, runs in sorted(results.items(), key=lambda item: (item[0] != BASE, study[item[0]].group))
    ]
    columns = (
        "changed",
        "what",
        "seeds",
        "J at 25 nm",
        "J at 50 nm",
        *(f"{where}, minus default" for where in DIFFERENCES),
        "RMSE at 0.5/µm² (nm)",
        "J at 50 nm, not pooled",
        "chance J at 50 nm",
        "found/true",
        "training (s)",
    )
    limits = [f"{where} {number(_limit(results, *keys))}" for where, keys in DIFFERENCES.items()]
    tables = [
        Table(
            "Microtubule stack and simulated movies (J at 50 nm, automatic threshold); ± over seeds. Noise: "
            f"differences of {SEEDS} seeds below {', '.join(limits)} (2 standard errors, pooled over all arms)",
            columns,
            rows,
        )
    ]
    sweep = [
        [
            f"{value:g}",
            spread(values(results[key], "stack", "automatic", "25")),
            spread(values(results[key], "stack", "automatic", "50")),
            *(number(v) for v in PUBLISHED_LAMBDA.get(value, (None, None))),
        ]
        for value, key in _lambda_keys()
        if key in results
    ]
    columns = ("λ at the end (px)", "J at 25 nm", "J at 50 nm", "published J 25", "published J 50")
    title = "Kernel width, normalised, against the source's sweep (not normalised, other data)"
    return [*tables, *([Table(title, columns, sweep)] if len(sweep) > 1 else [])]


def _row(arm: Arm, runs: SeedRuns, reference: SeedRuns) -> list[str]:
    return [
        arm.title,
        arm.group,
        str(len(runs)),
        spread(values(runs, "stack", "automatic", "25")),
        spread(values(runs, "stack", "automatic", "50")),
        *("" if arm.key == BASE else spread(paired(runs, reference, *keys)) for keys in DIFFERENCES.values()),
        number(mean(values(runs, "simulated", "0.5", "rmse_nm")), 1),
        number(mean(values(runs, "stack", "unpooled", "50"))),
        number(mean(values(runs, "stack", "chance", "50"))),
        number(mean(values(runs, "stack", "count_ratio")), 2),
        number(mean(values(runs, "training_cpu_s")), 0),
    ]


def _limit(results: Runs, *keys: str, seeds: int = SEEDS) -> float:
    """Two standard errors of a difference."""
    return 2 * noise(results, BASE, *keys) / math.sqrt(seeds)


def _lambda_keys() -> list[tuple[float, str]]:
    return sorted([*((value, f"lambda-{value:g}") for value in LAMBDAS_PX), (0.3, BASE)])


def _figure(results: Runs, study: dict[str, Arm]) -> Any:
    has_sweep = sum(key in results for _, key in _lambda_keys()) > 1
    figure, axes = new_figure(1 + has_sweep, height=1.0 + 0.2 * len(results), width=5.4)
    order = sorted((key for key in results if key != BASE), key=lambda key: study[key].group, reverse=True)
    ax = axes[0, 0]
    for where, colour, shift in (("stack", "ours", 0.15), ("0.5/µm²", "other", -0.15)):
        for k, key in enumerate(order):
            found = paired(results[key], results.get(BASE, {}), *DIFFERENCES[where])
            error = _limit(results, *DIFFERENCES[where], seeds=max(1, len(found)))
            ax.errorbar(mean(found), k + shift, xerr=error, fmt="o", ms=3.5, lw=1, color=COLOURS[colour])
    ax.axvline(0, color=COLOURS["reference"], lw=0.8)
    ax.set_yticks(range(len(order)), [study[key].title for key in order])
    ax.set(
        xlabel="J at 50 nm minus default (bars: 2 standard errors)",
        title="Stack (blue), simulated 0.5 per µm² (orange)",
    )
    ax.grid(axis="y", color="0.92", lw=0.6)
    if has_sweep:
        _draw_sweep(axes[0, 1], results)
    return figure


def _draw_sweep(ax: Any, results: Runs) -> None:
    for tolerance, colour, index in (("50", "ours", 1), ("25", "ours, second", 0)):
        points = [
            (value, values(results[key], "stack", "automatic", tolerance))
            for value, key in _lambda_keys()
            if key in results
        ]
        ax.plot(
            [v for v, _ in points], [mean(f) for _, f in points], "o-", color=COLOURS[colour], label=f"{tolerance} nm"
        )
        for value, found in points:
            ax.plot([value] * len(found), found, "_", color=COLOURS[colour])
        ax.plot(list(PUBLISHED_LAMBDA), [v[index] for v in PUBLISHED_LAMBDA.values()], "x:", lw=1, color="k", ms=4)
    ax.set(
        xscale="log",
        xlabel="λ at the end (px)",
        ylabel="Jaccard index",
        title="Kernel width (×: published)",
        ylim=(0, 0.8),
    )
    ax.set_xticks([0.1, 0.2, 0.3, 0.6, 1.0, 2.0], ["0.1", "0.2", "0.3", "0.6", "1", "2"])
    ax.minorticks_off()
    ax.legend(frameon=False, loc="lower left")


if __name__ == "__main__":
    run_as_program(main)
