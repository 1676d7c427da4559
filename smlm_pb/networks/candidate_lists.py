"""A small network over lists of candidates: which of several that lie close together stands for the molecule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class CandidateLists(nn.Module):
    """Candidates and pairs of neighbours → one logit per candidate: it is the one that is kept.

    Messages go along the pairs in a few rounds, so that a candidate can learn that a neighbour it would have given way
    to gives way to a third one.

    Parameters
    ----------
    node_facts, pair_facts : int
        Numbers per candidate and per directed pair, see :mod:`smlm_pb.refinement.close_pairs`.
    hidden : int
        Width of states and messages.
    rounds : int
        Rounds of messages.
    """

    def __init__(self, *, node_facts: int, pair_facts: int, hidden: int = 24, rounds: int = 3) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "node_facts": node_facts,
            "pair_facts": pair_facts,
            "hidden": hidden,
            "rounds": rounds,
        }
        self.start = nn.Sequential(nn.Linear(node_facts, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.message = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * hidden + pair_facts, hidden), nn.GELU(), nn.Linear(hidden, hidden))
            for _ in range(rounds)
        )
        self.update = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden)) for _ in range(rounds)
        )
        self.head = nn.Linear(hidden, 1)

    def forward(self, nodes: Tensor, pairs: Tensor, facts: Tensor) -> Tensor:
        """Logits (candidates,).

        Parameters
        ----------
        nodes : Tensor (candidates, node_facts)
            Numbers of each candidate.
        pairs : Tensor (2, directed pairs), int64
            Receiver and sender of each message.
        facts : Tensor (directed pairs, pair_facts)
            Numbers of each pair.
        """
        state = self.start(nodes)
        receiver, sender = pairs
        for message, update in zip(self.message, self.update, strict=True):
            sent = message(torch.cat((state[receiver], state[sender], facts), dim=1))
            received = torch.zeros_like(state).index_add_(0, receiver, sent)
            state = state + update(torch.cat((state, received), dim=1))
        logits: Tensor = self.head(state)[:, 0]
        return logits
