"""Does arithmetic of fewer digits change what is found? Looked at on simulated frames.

The frames are from the whole range that a model was trained for. Neither the Jaccard index nor the position error may
change beyond what nobody would notice, and positions may not depend on how frames are cut into tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from smlm_pb.localization.model import Model
    from smlm_pb.networks import PointField
    from smlm_pb.simulation.scenes import Scene

#: The largest changes that are allowed.
MOST_JACCARD_CHANGE, MOST_RMSE_CHANGE, MOST_TILE_DIFFERENCE_PX = 0.002, 0.01, 1e-4
#: A shift of s standard deviations lets the error grow by s²/2: less than 1 % also where molecules are bright.
MOST_SHIFT = 0.14
_SCENE_PX, _TILE_PX, _SEED = 56, 37, 20
#: Simulated frames, and how many where those leave in doubt whether it is chance.
_SCENES, _MORE_SCENES = 40, 160
_TOLERANCE_PX = 1.0
#: What a few candidates do that cross one threshold by chance is evened out over several.
_THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)
#: Probability from which on it is looked at how far a molecule moves.
_LISTED = 0.4


@dataclass(frozen=True)
class PrecisionCheck:
    """What an arithmetic of fewer digits changes on simulated frames.

    Parameters
    ----------
    molecules : int
        True molecules of the frames.
    jaccard, jaccard_change : float
        Jaccard index in float32, and by how much that of fewer digits differs: means over several thresholds.
    rmse_px, rmse_change : float
        The same of the position error (2-D) of matched molecules, px, and of its relative change.
    shift : float
        Root mean square move of a molecule in units of the precision that the network states for it.
    tile_difference_px : float
        By how much positions move when frames are cut into tiles, px.
    """

    molecules: int
    jaccard: float
    jaccard_change: float
    rmse_px: float
    rmse_change: float
    shift: float
    tile_difference_px: float

    @property
    def passes(self) -> bool:
        """Whether nobody would notice."""
        return (
            abs(self.jaccard_change) < MOST_JACCARD_CHANGE
            and abs(self.rmse_change) < MOST_RMSE_CHANGE
            and self.shift < MOST_SHIFT
            and self.tile_difference_px <= MOST_TILE_DIFFERENCE_PX
        )

    @property
    def may_be_chance(self) -> bool:
        """Whether it fails only by what candidates that come and go by chance may do."""
        half = replace(self, jaccard_change=self.jaccard_change / 2, rmse_change=self.rmse_change / 2)
        return half.passes and not self.passes


def check_precision(model: Model, kind: str) -> PrecisionCheck:
    """Compare an arithmetic with float32 on simulated frames, always the same ones; on more of them in case of doubt.

    Parameters
    ----------
    model : Model
        The model on its device; its card says which frames to simulate.
    kind : {"bfloat16", "int8"}
        The arithmetic.

    Returns
    -------
    PrecisionCheck
    """
    check = _compare(model, kind, _SCENES)
    return _compare(model, kind, _MORE_SCENES) if check.may_be_chance else check


def _compare(model: Model, kind: str, n_scenes: int) -> PrecisionCheck:
    import torch

    from smlm_pb.localization.candidate_finder import arithmetic
    from smlm_pb.networks import predict_tiled
    from smlm_pb.networks.inference import FixedWidthNetwork

    scenes = _scenes(model, n_scenes)
    low, high = model.card.psf_sigma_px
    single, fewer, shifts, moved = [], [], [], 0.0
    for index, scene in enumerate(scenes):
        with arithmetic(model.device):
            width = min(max(scene.psf_sigma_px, low), high)
            image = torch.from_numpy(scene.electrons[None, None]).to(model.device)
            sigma = torch.full((1,), width, device=model.device)
            network = FixedWidthNetwork(model.network, width, precision=kind)
            ours, theirs = network(image, sigma), FixedWidthNetwork(model.network, width)(image, sigma)
            if index < 2:
                moved = max(moved, _distance(ours, predict_tiled(network, image, sigma, tile_px=_TILE_PX)))
            shifts.append(_shifts(ours, theirs))
            fewer.append(_rows(ours))
            single.append(_rows(theirs))
    (jaccard, rmse), (fewer_jaccard, fewer_rmse) = _score(single, scenes), _score(fewer, scenes)
    return PrecisionCheck(
        molecules=sum(len(scene.x) for scene in scenes),
        jaccard=jaccard,
        jaccard_change=fewer_jaccard - jaccard,
        rmse_px=rmse,
        rmse_change=fewer_rmse / rmse - 1 if rmse > 0 else 0.0,
        shift=float(np.sqrt(np.mean(np.square(np.concatenate(shifts))))) if sum(map(len, shifts)) else 0.0,
        tile_difference_px=moved,
    )


def _scenes(model: Model, count: int) -> list[Scene]:
    from smlm_pb.simulation.scenes import SceneSettings, draw_scene

    card = model.card
    low, high = card.density_per_px2
    settings = SceneSettings(
        psf_sigma_px=card.psf_sigma_px,
        photons=card.photons,
        background_e=card.background_e,
        empty_fraction=0.0,
        sparse_fraction=0.25,
        sparse_density_per_px2=(max(low, high / 50), max(low, high / 8)),
        dense_density_per_px2=(max(low, high / 8), high),
    )
    return [draw_scene(np.random.default_rng([_SEED, index]), settings, _SCENE_PX) for index in range(count)]


def _rows(field: PointField) -> npt.NDArray[Any]:
    """One row per molecule above the threshold."""
    from smlm_pb.localization.candidates import select_candidates
    from smlm_pb.localization.pooling import SHARE_FLOOR, pool_shares

    rows = pool_shares(select_candidates(field, first_frame=0, floor=SHARE_FLOOR).rows)
    return rows[rows["probability"] >= _THRESHOLDS[0]]


def _shifts(ours: PointField, theirs: PointField) -> npt.NDArray[np.float64]:
    """By how much candidates move along x and y, in units of the precision stated for them."""
    listed = (theirs.logit.sigmoid() >= _LISTED) & (ours.logit.sigmoid() >= _LISTED)
    along = (
        (ours.dx - theirs.dx) / theirs.log_sigma_x.exp(),
        (ours.dy - theirs.dy) / theirs.log_sigma_y.exp(),
    )
    return np.concatenate([shift[listed].double().cpu().numpy() for shift in along])


def _distance(ours: PointField, theirs: PointField) -> float:
    """Largest difference of positions among candidates that are listed, px."""
    from smlm_pb.localization.pooling import SHARE_FLOOR

    listed = ours.logit.sigmoid() >= SHARE_FLOOR
    if not bool(listed.any()):
        return 0.0
    return max(float((a - b)[listed].abs().max()) for a, b in ((ours.dx, theirs.dx), (ours.dy, theirs.dy)))


def _score(found: list[npt.NDArray[Any]], scenes: list[Scene]) -> tuple[float, float]:
    """Jaccard index and root mean square error, px, of one-to-one pairs within the tolerance: means over thresholds."""
    scores = []
    for threshold in _THRESHOLDS:
        above = [rows[rows["probability"] >= threshold] for rows in found]
        squares = np.concatenate([_pairs(rows, scene) for rows, scene in zip(above, scenes, strict=True)])
        union = sum(map(len, above)) + sum(len(scene.x) for scene in scenes) - len(squares)
        scores.append((len(squares) / max(1, union), float(squares.mean()) ** 0.5 if len(squares) else 0.0))
    jaccard, rmse = np.mean(scores, axis=0)
    return float(jaccard), float(rmse)


def _pairs(rows: npt.NDArray[Any], scene: Scene) -> npt.NDArray[np.float64]:
    """Squared distances of one-to-one pairs of rows and molecules within the tolerance, px²."""
    from scipy.optimize import linear_sum_assignment

    square = np.square(rows["x"][:, None].astype(np.float64) - scene.x) + np.square(
        rows["y"][:, None].astype(np.float64) - scene.y
    )
    matched: npt.NDArray[np.float64] = square[linear_sum_assignment(np.minimum(square, _TOLERANCE_PX**2))]
    return matched[matched < _TOLERANCE_PX**2]
