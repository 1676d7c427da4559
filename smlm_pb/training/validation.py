"""Judging a network on simulated scenes it never saw: how much it finds, how well, and how honest it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from smlm_pb.evaluation.matching import match
from smlm_pb.localization.candidates import as_columns, select_candidates
from smlm_pb.localization.pooling import SHARE_FLOOR, pool_shares
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.networks import PointNetwork
from smlm_pb.simulation.scenes import Scene, SceneSettings, draw_scene
from smlm_pb.training.batches import collate
from smlm_pb.training.experiment import ValidationSettings

_NM_PER_PX = 100.0
#: Thresholds on the probability that are tried.
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class ValidationResult:
    """Scores over all validation scenes."""

    #: Threshold on the probability with the best Jaccard index.
    threshold: float
    #: Jaccard index at that threshold.
    jaccard: float
    precision: float
    recall: float
    #: Root mean square distance of matched molecules (2-D), px.
    rmse_px: float
    #: Standard deviation of error / stated precision, both axes.
    pull: float
    #: Jaccard index at threshold 0.5.
    jaccard_at_half: float
    #: False molecules per empty scene at the threshold.
    false_per_empty_scene: float
    #: Whether only counts were compared; the Jaccard index is then the largest that they allow.
    counts_only: bool = False

    def as_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def validation_scenes(
    settings: ValidationSettings, scenes: SceneSettings, crop_px: int, *, first: int = 0
) -> list[Scene]:
    """The scenes of every validation of a run: the same each time, with close pairs as rare as they are.

    ``first`` is the number of the first one, so that many can be drawn in portions.
    """
    scenes = replace(scenes, close_pair_fraction=0.0)
    return [
        draw_scene(np.random.default_rng([settings.seed, index]), scenes, crop_px)
        for index in range(first, first + settings.scenes)
    ]


def validate(
    network: PointNetwork,
    scenes: Sequence[Scene],
    *,
    tolerance_px: float,
    device: torch.device,
    batch_size: int = 16,
) -> ValidationResult:
    """Score a network.

    Parameters
    ----------
    network : PointNetwork
        The network, on ``device``.
    scenes : sequence of Scene
        Simulated frames of equal size with truth.
    tolerance_px : float
        Matching distance, px.
    device : torch.device
        Where the network is.
    batch_size : int
        Scenes per forward pass.

    Returns
    -------
    ValidationResult
    """
    truth = truth_of(scenes)
    found = detect(network, scenes, truth.info, device, batch_size)
    empty = np.isin(found["frame"], [k for k, s in enumerate(scenes) if len(s.x) == 0])
    n_empty = sum(len(s.x) == 0 for s in scenes)
    best: ValidationResult | None = None
    at_half = 0.0
    for threshold in THRESHOLDS:
        keep = found["probability"] >= threshold
        kept = found.select(keep)
        pairs = match(kept, truth, tolerance_px * _NM_PER_PX)
        hits = len(pairs.pred)
        jaccard = hits / max(1, len(kept) + len(truth) - hits)
        if threshold == 0.5:
            at_half = jaccard
        if best is not None and jaccard <= best.jaccard:
            continue
        dx = kept["x"][pairs.pred] - truth["x"][pairs.truth]
        dy = kept["y"][pairs.pred] - truth["y"][pairs.truth]
        pull = np.concatenate((dx / kept["sigma_x"][pairs.pred], dy / kept["sigma_y"][pairs.pred]))
        best = ValidationResult(
            threshold=threshold,
            jaccard=jaccard,
            precision=hits / max(1, len(kept)),
            recall=hits / max(1, len(truth)),
            rmse_px=float(np.sqrt(np.mean(dx**2 + dy**2))) if hits else float("nan"),
            pull=float(np.std(pull)) if hits else float("nan"),
            jaccard_at_half=0.0,
            false_per_empty_scene=float((empty & keep).sum() / max(1, n_empty)),
        )
    assert best is not None
    return replace(best, jaccard_at_half=at_half)


def truth_of(scenes: Sequence[Scene]) -> Localizations:
    """The true molecules of scenes, one scene per frame."""
    height, width = scenes[0].electrons.shape
    return Localizations(
        {
            "frame": np.repeat(np.arange(len(scenes)), [len(s.x) for s in scenes]),
            "x": np.concatenate([s.x for s in scenes]),
            "y": np.concatenate([s.y for s in scenes]),
            "photons": np.concatenate([s.photons for s in scenes]),
        },
        MovieInfo(len(scenes), height, width, pixel_size_nm=_NM_PER_PX, name="validation"),
    )


@torch.inference_mode()
def detect(
    network: PointNetwork,
    scenes: Sequence[Scene],
    info: MovieInfo,
    device: torch.device,
    batch_size: int = 16,
) -> Localizations:
    """Candidates of scenes, one per molecule, one scene per frame, with the precision that the network states."""
    parts = []
    for start in range(0, len(scenes), batch_size):
        batch = collate(scenes[start : start + batch_size]).to(device)
        field = network(batch.electrons, batch.psf_sigma_px, batch.population)
        parts.append(pool_shares(select_candidates(field, first_frame=start, floor=SHARE_FLOOR).rows))
    return Localizations(as_columns(np.concatenate(parts)), info)
