"""Half the digits where they cost nothing: bfloat16 on devices that have it, after a check on simulated frames.

The check simulates frames from the whole range that a model was trained for, localizes them in both kinds of
arithmetic, and allows bfloat16 only if neither the Jaccard index nor the position error changes beyond what nobody
would notice, and if positions do not depend on how frames are cut into tiles. It is done once per model and machine;
the verdict is kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb._version import __version__
from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

    from smlm_pb.localization.model import Model
    from smlm_pb.networks import PointField
    from smlm_pb.simulation.scenes import Scene

FLOAT32, BFLOAT16 = "float32", "bfloat16"
#: What can be asked for.
PRECISIONS = ("auto", FLOAT32, BFLOAT16)
#: The largest changes that are allowed.
MOST_JACCARD_CHANGE, MOST_RMSE_CHANGE, MOST_TILE_DIFFERENCE_PX = 0.002, 0.01, 1e-4
#: A shift of s standard deviations lets the error grow by s²/2: less than 1 % also where molecules are bright.
MOST_SHIFT = 0.14
_SCENES, _SCENE_PX, _TILE_PX, _SEED = 24, 64, 37, 20
_TOLERANCE_PX, _THRESHOLD = 1.0, 0.4
#: Narrower networks gain nothing: most of their time is not spent on convolutions.
_LEAST_CHANNELS = 32


@dataclass(frozen=True)
class PrecisionCheck:
    """What bfloat16 changes on simulated frames.

    Parameters
    ----------
    molecules : int
        True molecules of the frames.
    jaccard, jaccard_change : float
        Jaccard index in float32, and by how much bfloat16 differs.
    rmse_px, rmse_change : float
        Position error (2-D) of matched molecules in float32, px, and the relative change.
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


def choose_precision(model: Model, asked: str = "auto") -> str:
    """Arithmetic in which a model is to be used.

    Parameters
    ----------
    model : Model
        The model on its device.
    asked : {"auto", "float32", "bfloat16"}
        ``auto``: bfloat16 on devices that compute with it, if :func:`check_bfloat16` passes; float32 elsewhere.

    Returns
    -------
    str
        ``float32`` or ``bfloat16``.
    """
    check_name(asked)
    if asked != "auto":
        return asked
    worth = model.card.network.get("channels", 0) >= _LEAST_CHANNELS
    if not (worth and device_has_bfloat16(model.device)):
        return FLOAT32
    return BFLOAT16 if _remembered_check(model).passes else FLOAT32


def device_has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 by itself: newer processors, and Nvidia's cards from 2020 on."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and processor_has_bfloat16()


def check_name(asked: str) -> None:
    """Refuse what is no kind of arithmetic."""
    if asked not in PRECISIONS:
        raise ConfigurationError(f"precision = {asked!r} is unknown: use {', '.join(PRECISIONS)}.")


def processor_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by itself, and does not imitate it."""
    import torch

    if platform.machine().lower() in ("arm64", "aarch64"):
        return "bf16" in _linux_processor_flags()
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if any(getattr(torch.cpu, name, bool)() for name in names):
        return True
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_linux_processor_flags())


def _linux_processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return set(next(lines, ":").partition(":")[2].split())


# -- the check -----------------------------------------------------------------------------------------------


def check_bfloat16(model: Model) -> PrecisionCheck:
    """Compare bfloat16 with float32 on simulated frames, always the same ones.

    Parameters
    ----------
    model : Model
        The model on its device; its card says which frames to simulate.

    Returns
    -------
    PrecisionCheck
    """
    import torch

    from smlm_pb.localization.candidate_finder import arithmetic
    from smlm_pb.networks import predict_tiled
    from smlm_pb.networks.inference import FixedWidthNetwork

    scenes = _scenes(model)
    low, high = model.card.psf_sigma_px
    single, half, shifts, moved = [], [], [], 0.0
    for index, scene in enumerate(scenes):
        with arithmetic(model.device):
            width = min(max(scene.psf_sigma_px, low), high)
            image = torch.from_numpy(scene.electrons[None, None]).to(model.device)
            sigma = torch.full((1,), width, device=model.device)
            network = FixedWidthNetwork(model.network, width, precision=BFLOAT16)
            ours, theirs = network(image, sigma), FixedWidthNetwork(model.network, width)(image, sigma)
            if index < 2:
                moved = max(moved, _distance(ours, predict_tiled(network, image, sigma, tile_px=_TILE_PX)))
            shifts.append(_shifts(ours, theirs))
            half.append(_rows(ours))
            single.append(_rows(theirs))
    (jaccard, rmse), (half_jaccard, half_rmse) = _score(single, scenes), _score(half, scenes)
    return PrecisionCheck(
        molecules=sum(len(scene.x) for scene in scenes),
        jaccard=jaccard,
        jaccard_change=half_jaccard - jaccard,
        rmse_px=rmse,
        rmse_change=half_rmse / rmse - 1 if rmse > 0 else 0.0,
        shift=float(np.sqrt(np.mean(np.square(np.concatenate(shifts))))) if sum(map(len, shifts)) else 0.0,
        tile_difference_px=moved,
    )


def _scenes(model: Model) -> list[Scene]:
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
    return [draw_scene(np.random.default_rng([_SEED, index]), settings, _SCENE_PX) for index in range(_SCENES)]


def _rows(field: PointField) -> npt.NDArray[Any]:
    """One row per molecule above the threshold."""
    from smlm_pb.localization.candidates import select_candidates
    from smlm_pb.localization.pooling import SHARE_FLOOR, pool_shares

    rows = pool_shares(select_candidates(field, first_frame=0, floor=SHARE_FLOOR).rows)
    return rows[rows["probability"] >= _THRESHOLD]


def _shifts(ours: PointField, theirs: PointField) -> npt.NDArray[np.float64]:
    """By how much candidates move along x and y, in units of the precision stated for them."""
    listed = (theirs.logit.sigmoid() >= _THRESHOLD) & (ours.logit.sigmoid() >= _THRESHOLD)
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
    """Jaccard index and root mean square error, px, of one-to-one pairs within the tolerance."""
    from scipy.optimize import linear_sum_assignment

    hits, rows, true, squares = 0, 0, 0, 0.0
    for ours, scene in zip(found, scenes, strict=True):
        rows, true = rows + len(ours), true + len(scene.x)
        if not (len(ours) and len(scene.x)):
            continue
        square = np.square(ours["x"][:, None].astype(np.float64) - scene.x) + np.square(
            ours["y"][:, None].astype(np.float64) - scene.y
        )
        pairs = linear_sum_assignment(np.minimum(square, _TOLERANCE_PX**2))
        matched = square[pairs][square[pairs] < _TOLERANCE_PX**2]
        hits, squares = hits + len(matched), squares + float(matched.sum())
    return hits / max(1, rows + true - hits), (squares / max(1, hits)) ** 0.5


# -- the verdict, remembered -----------------------------------------------------------------------------------


def _remembered_check(model: Model) -> PrecisionCheck:
    path, key = _cache_file(), _key(model)
    known: dict[str, Any] = {}
    if path is not None:
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            return PrecisionCheck(**known[key])
        except (OSError, ValueError, KeyError, TypeError):
            known = known if isinstance(known, dict) else {}
    check = check_bfloat16(model)
    if path is not None:
        part = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({**known, key: asdict(check)}, indent=1), encoding="utf-8")
            part.replace(path)
        except OSError:  # checked again next time
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return check


def _cache_file() -> Path | None:
    folder = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return Path(folder or Path.home() / ".cache") / "smlm-pb" / "precision.json"
    except RuntimeError:  # nobody's home
        return None


def _key(model: Model) -> str:
    import torch

    where = (model.device.type, platform.machine(), sorted(f for f in _linux_processor_flags() if "16" in f))
    if model.device.type == "cuda":
        where = (model.device.type, torch.cuda.get_device_name(model.device), [])
    parts = (model.card.weights_sha256, model.card.psf_sigma_px, __version__, torch.__version__, where)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
