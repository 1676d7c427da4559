"""Training the network that finds duplicates: counting decides how many are kept, matching decides which.

The objective is the one a localizer is trained with, on a list of candidates instead of an image: continuous heatmap
matching of what is kept with the true molecules, and the Poisson-binomial likelihood of their number in every group of
neighbours (Schroeter, PhD thesis, Cardiff 2021, section 7.3 proposes this, without an experiment).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smlm_pb.errors import Cancelled
from smlm_pb.losses import count_negative_log_likelihood
from smlm_pb.networks.candidate_lists import CandidateLists
from smlm_pb.refinement.close_pairs import NODE_FACTS, PAIR_FACTS, ClosePairs, find_close_pairs
from smlm_pb.simulation.duplicated_tables import DuplicatedTable, draw_duplicated_table
from smlm_pb.training.second_stage_fit import rate

OnStep = Callable[[int, int], None]
_COUNT_WEIGHT = 1.0
#: Width of the kernel of the matching, in units of the typical precision.
_BANDWIDTH = 1.0
#: Groups of more rows than this are counted as one row of the padded array each; more would waste memory.
_LARGEST_GROUP = 256


class Lists(NamedTuple):
    """One table as tensors."""

    nodes: Tensor
    pairs: Tensor
    facts: Tensor
    place: Tensor
    """(rows, 2)."""
    variance: Tensor
    """(rows,)."""
    molecule: Tensor
    """(rows,)."""
    truth: Tensor
    """(molecules, 2)."""
    group: Tensor
    """(rows,): number of the group of neighbours."""
    counts: Tensor
    """(groups,): true molecules of each."""
    others: Tensor
    """(2, combinations): rows, and the molecules of their neighbours that are not their own."""


def train_duplicates(
    *,
    steps: int,
    tables_per_step: int,
    learning_rate: float,
    hidden: int,
    seed: int,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> CandidateLists:
    """Train on simulated tables, fresh ones at every step.

    Parameters
    ----------
    steps, tables_per_step, learning_rate, hidden, seed
        Of the training; equal seeds give equal networks.
    on_step, should_stop : callable, optional
        Called after every step; asked whether to stop.

    Returns
    -------
    CandidateLists
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CandidateLists(node_facts=NODE_FACTS, pair_facts=PAIR_FACTS, hidden=hidden)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step / steps))
    for step in range(steps):
        if should_stop is not None and should_stop():
            raise Cancelled("Stopped while the second stage was trained; nothing was written.")
        optimizer.zero_grad(set_to_none=True)
        for number in range(tables_per_step):
            rng = np.random.default_rng([seed, step, number])
            lists = as_lists(draw_duplicated_table(rng), rng)
            value = objective(network(lists.nodes, lists.pairs, lists.facts), lists) / tables_per_step
            value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step + 1, steps)
    return network.eval()


def objective(logits: Tensor, lists: Lists) -> Tensor:
    """Matching plus counting, per true molecule."""
    molecules = max(1, len(lists.truth))
    return (_matching(torch.sigmoid(logits), lists) + _COUNT_WEIGHT * _counting(logits, lists)) / molecules


def as_lists(table: DuplicatedTable, rng: np.random.Generator) -> Lists:
    """Turn a table into tensors, at times without its photons or probabilities."""
    close = find_close_pairs(
        table.frame,
        table.x,
        table.y,
        table.sigma,
        probability=table.probability if rng.random() < 0.7 else None,
        photons=table.photons if rng.random() < 0.7 else None,
        source=table.source,
    )
    group = groups_of(close, len(table.x))
    n_groups = int(group.max()) + 1 if len(group) else 0
    molecules = len(table.true_x)
    of_group = np.unique(group * molecules + table.molecule) // molecules
    # Through its neighbours a row meets other molecules, each of them once.
    seen = np.unique(close.pairs[0] * molecules + table.molecule[close.pairs[1]])
    row, other = seen // molecules, seen % molecules
    apart = other != table.molecule[row]
    return Lists(
        torch.from_numpy(close.nodes),
        torch.from_numpy(close.pairs),
        torch.from_numpy(close.facts),
        torch.from_numpy(np.column_stack((table.y, table.x)).astype(np.float32)),
        torch.from_numpy((table.sigma**2).astype(np.float32)),
        torch.from_numpy(table.molecule),
        torch.from_numpy(np.column_stack((table.true_y, table.true_x)).astype(np.float32)),
        torch.from_numpy(group),
        torch.from_numpy(np.bincount(of_group, minlength=n_groups)),
        torch.from_numpy(np.stack((row[apart], other[apart]))),
    )


def groups_of(close: ClosePairs, n: int) -> np.ndarray:
    """Number of the connected group of every row."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(close.pairs.shape[1], np.int8)
    graph = coo_array((ones, (close.pairs[0], close.pairs[1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _counting(logits: Tensor, lists: Lists) -> Tensor:
    """Negative log-likelihood of the number of molecules in every group, summed."""
    order = torch.argsort(lists.group, stable=True)
    sizes = torch.bincount(lists.group, minlength=len(lists.counts))
    slot = torch.arange(len(order)) - torch.repeat_interleave(torch.cumsum(sizes, 0) - sizes, sizes)
    small = sizes <= _LARGEST_GROUP
    width = int(sizes[small].max()) if bool(small.any()) else 0
    if width == 0:
        return logits.new_zeros(())
    usable = small[lists.group[order]]
    padded = logits.new_full((len(sizes), width), -30.0)
    padded = padded.index_put((lists.group[order][usable], slot[usable]), logits[order][usable])
    return count_negative_log_likelihood(padded[small], lists.counts[small]).sum()


def _matching(p: Tensor, lists: Lists) -> Tensor:
    """Continuous heatmap matching with each row's own variance; constant terms of the truth are left out."""
    squared = _BANDWIDTH**2
    first, second = lists.pairs[:, lists.pairs[0] < lists.pairs[1]]
    own = (p**2 * squared / (squared + 2.0 * lists.variance)).sum()
    pairs = (p[first] * p[second] * _kernel(lists, first, second, squared)).sum()
    to_truth = lists.place - lists.truth[lists.molecule]
    spread = squared + lists.variance
    mine = (p * squared / spread * torch.exp(-0.5 * (to_truth**2).sum(1) / spread)).sum()
    seen = lists.others
    apart = ((lists.place[seen[0]] - lists.truth[seen[1]]) ** 2).sum(1)
    spread = squared + lists.variance[seen[0]]
    others = (p[seen[0]] * squared / spread * torch.exp(-0.5 * apart / spread)).sum()
    return own + 2.0 * pairs - 2.0 * (mine + others)


def _kernel(lists: Lists, first: Tensor, second: Tensor, squared: float) -> Tensor:
    spread = squared + lists.variance[first] + lists.variance[second]
    distance = ((lists.place[first] - lists.place[second]) ** 2).sum(1)
    return squared / spread * torch.exp(-0.5 * distance / spread)


def judge_duplicates(network: CandidateLists, *, seed: int, tables: int = 60) -> dict[str, float]:
    """Shares of molecules with one row, none and several left, in fresh tables.

    Parameters
    ----------
    network : CandidateLists
        Trained.
    seed, tables : int
        Which tables, and how many.

    Returns
    -------
    dict
    """
    left = []
    for number in range(tables):
        rng = np.random.default_rng([seed, number])
        table = draw_duplicated_table(rng)
        lists = as_lists(table, rng)
        with torch.inference_mode():
            kept = network(lists.nodes, lists.pairs, lists.facts).numpy() > 0
        left.append(np.bincount(table.molecule[kept], minlength=len(table.true_x)))
    rows = np.concatenate(left)
    shares = {"one": np.mean(rows == 1), "none": np.mean(rows == 0), "more": np.mean(rows > 1)}
    return {"molecules": len(rows), **{name: round(float(value), 4) for name, value in shares.items()}}
