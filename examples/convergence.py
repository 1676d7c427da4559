"""How fifty candidates become three molecules, with and without counting.

Three molecules lie in a unit square, fifty candidates start anywhere. Continuous heatmap matching alone is content when
many candidates share a molecule; with the count of molecules in the loss, all but three candidates vanish and the three
are certain. Positions and probabilities are the parameters; there is no network. (After Schroeter et al., ACCV 2020.)

The picture shows the paths of the candidates and their probabilities while the loss falls.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from smlm_pb.losses import count_negative_log_likelihood, heatmap_matching_points

MOLECULES, CANDIDATES = 3, 50
BANDWIDTH = 0.2
#: Beside the matching loss, in which one missed molecule costs 1.
COUNT_WEIGHT = 1.6
LEARNING_RATE = 0.05
RECORD_EVERY = 10


def main() -> None:
    """Descend twice and draw both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2400, help="steps of the descent (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of molecules and candidates (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("convergence.png"), help="picture (default: %(default)s)")
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    truth = torch.from_numpy(rng.uniform(0.05, 0.95, (MOLECULES, 2)))
    start = torch.from_numpy(rng.normal(size=(CANDIDATES, 3)))
    runs = {}
    for name, weight in (("matching alone", 0.0), ("matching and counting", COUNT_WEIGHT)):
        runs[name] = descend(start, truth, weight, args.steps)
        report(name, runs[name][-1], truth)
    draw(runs, truth, args.out)
    print(f"picture: {args.out}")


def descend(start: torch.Tensor, truth: torch.Tensor, count_weight: float, steps: int) -> torch.Tensor:
    """Minimise the loss with Adam; returns (y, x, probability) of all candidates over time."""
    parameters = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([parameters], lr=LEARNING_RATE)
    count = torch.tensor([len(truth)])
    record = []
    for step in range(steps + 1):
        place, logit = torch.sigmoid(parameters[None, :, :2]), parameters[None, :, 2]
        if step % RECORD_EVERY == 0:
            record.append(torch.sigmoid(parameters.detach()))
        loss = heatmap_matching_points(place, torch.sigmoid(logit), truth[None], bandwidth=BANDWIDTH).total
        if count_weight:
            loss = loss + count_weight * count_negative_log_likelihood(logit, count)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return torch.stack(record)


def report(name: str, candidates: torch.Tensor, truth: torch.Tensor) -> None:
    """Say in one line what is left."""
    p = candidates[:, 2]
    sure = candidates[p > 0.5, :2]
    undecided = int(((p > 0.05) & (p < 0.95)).sum())
    line = f"{name}: {len(sure)} candidates with p > 0.5, {undecided} undecided"
    if len(sure):
        line += f", farthest molecule {torch.cdist(truth, sure).amin(1).max():.4f} away"
    print(line)


def draw(runs: dict[str, torch.Tensor], truth: torch.Tensor, path: Path) -> None:
    """Paths in the plane above, probabilities over time below."""
    figure = Figure(figsize=(9, 7.4), layout="constrained")
    axes = figure.subplots(2, len(runs), height_ratios=(3, 2), squeeze=False)
    for column, (name, run) in enumerate(runs.items()):
        plane, time = axes[:, column]
        y, x, p = run.unbind(-1)
        plane.plot(x, y, color="0.8", linewidth=0.6, zorder=1)
        plane.scatter(x[0], y[0], s=6, color="0.7", zorder=1, label="start")
        sizes = 4 + 140 * p[-1]
        plane.scatter(x[-1], y[-1], s=sizes, color="#0072B2", alpha=0.55, linewidths=0, label="end (area: probability)")
        plane.plot(truth[:, 1], truth[:, 0], "+", color="#D55E00", markersize=14, zorder=3, label="molecules")
        plane.set(title=name, xlabel="x", ylabel="y", xlim=(0, 1), ylim=(1, 0), aspect="equal")
        time.plot(RECORD_EVERY * np.arange(len(run)), p, color="#0072B2", alpha=0.4, linewidth=0.8)
        time.set(xlabel="step", ylabel="probability", ylim=(-0.02, 1.02))
        time.margins(x=0)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
