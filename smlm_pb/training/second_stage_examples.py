"""Examples for second stages: what a model finds in simulated scenes, what is seen there, and what is true."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import Cancelled
from smlm_pb.evaluation.matching import match
from smlm_pb.localization.crowding import crowding
from smlm_pb.localization.model_calibration import ModelCalibration
from smlm_pb.localization.movie_population import is_told
from smlm_pb.localization.own_light import Pixels
from smlm_pb.population import UNKNOWN_POPULATION
from smlm_pb.refinement.crlb import mortensen_mle
from smlm_pb.refinement.looks import Looks, look
from smlm_pb.simulation.scenes import Scene, SceneSettings, draw_scene
from smlm_pb.training.batches import populations_of
from smlm_pb.training.validation import detect, truth_of

if TYPE_CHECKING:
    from smlm_pb.localization import Model
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]
#: Found and true molecules further apart are not the same: wider than the errors that are learned.
TOLERANCE_PX = 1.0
_SCENES_AT_ONCE = 64


class Examples(NamedTuple):
    """Molecules that a model found; all arrays (molecules, …)."""

    looks: Looks
    error_px: FloatArray
    """(molecules, 2): truth minus stated position as (y, x), px; NaN where there is no true molecule."""
    stated: dict[str, FloatArray]
    """Columns of the table: ``sigma_x``, ``sigma_y``, ``photons``, ``probability`` and ``limit_px``, ``crowding``."""
    scene: npt.NDArray[np.intp]
    """Scene of each molecule."""

    @property
    def exists(self) -> npt.NDArray[np.bool_]:
        """Whether there is a true molecule."""
        there: npt.NDArray[np.bool_] = np.isfinite(self.error_px[:, 0])
        return there

    @property
    def target(self) -> npt.NDArray[np.float32]:
        """Where the truth lies on the map (molecules, 2) as (y, x), in units of each molecule."""
        return (self.error_px / self.looks.unit_px[:, None]).astype(np.float32)

    def select(self, mask: npt.NDArray[Any]) -> Examples:
        """Some of them."""
        stated = {name: values[mask] for name, values in self.stated.items()}
        return Examples(Looks(*(v[mask] for v in self.looks)), self.error_px[mask], stated, self.scene[mask])


def draw_examples(
    model: Model,
    settings: SceneSettings,
    *,
    n_scenes: int,
    crop_px: int,
    seed: int,
    least_probability: float,
    psf_sigma_jitter: float = 0.02,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Examples:
    """Simulate scenes, let a model find molecules, look at them, and pair them with the truth.

    Parameters
    ----------
    model : Model
        The first stage.
    settings : SceneSettings
        Range of experiments.
    n_scenes, crop_px : int
        Number of scenes and their side, px.
    seed : int
        Equal seeds give equal examples.
    least_probability : float
        What is less likely is not in the table.
    psf_sigma_jitter : float
        Relative error of the PSF width that is told.
    on_progress, should_stop : callable, optional
        Called with scenes done and all scenes; asked whether to stop.

    Returns
    -------
    :class:`Examples`
        Equal for equal arguments.

    Raises
    ------
    Cancelled
        When ``should_stop`` says so.
    """
    parts: list[Examples] = []
    for start in range(0, n_scenes, _SCENES_AT_ONCE):
        if should_stop is not None and should_stop():
            raise Cancelled("Stopped while examples were simulated; nothing was written.")
        numbers = range(start, min(start + _SCENES_AT_ONCE, n_scenes))
        scenes = [draw_scene(np.random.default_rng([seed, number]), settings, crop_px) for number in numbers]
        parts.append(_examples_of(model, scenes, start, seed, least_probability, psf_sigma_jitter))
        if on_progress is not None:
            on_progress(numbers.stop, n_scenes)
    return Examples(
        Looks.join([part.looks for part in parts]),
        np.concatenate([part.error_px for part in parts]),
        {name: np.concatenate([part.stated[name] for part in parts]) for name in parts[0].stated},
        np.concatenate([part.scene for part in parts]),
    )


def _examples_of(
    model: Model, scenes: list[Scene], first: int, seed: int, least_probability: float, jitter: float
) -> Examples:
    rng = np.random.default_rng([seed, first, 1])
    told = [scene.psf_sigma_px * (1.0 + rng.uniform(-jitter, jitter)) for scene in scenes]
    truth = truth_of(scenes)
    found, limit, crowded = _as_tabled(model, scenes, truth)
    kept = found["probability"] >= least_probability
    found, limit, crowded = found.select(kept), limit[kept], crowded[kept]
    error = np.full((len(found), 2), np.nan)
    assert truth.info.pixel_size_nm is not None
    pairs = match(found, truth, TOLERANCE_PX * truth.info.pixel_size_nm)
    for axis, name in enumerate("yx"):
        error[pairs.pred, axis] = truth[name][pairs.truth].astype(np.float64) - found[name][pairs.pred]
    bounds = np.searchsorted(found["frame"], np.arange(len(scenes) + 1))
    looks = [
        look(
            scene.electrons[None],
            {**found.select(slice(*bounds[k : k + 2])).columns, "frame": np.zeros(bounds[k + 1] - bounds[k], np.intp)},
            psf_sigma_px=told[k],
            read_variance_e2=scene.read_noise_e**2,
        )
        for k, scene in enumerate(scenes)
    ]
    names = ("sigma_x", "sigma_y", "photons", "probability")
    stated = {name: found[name].astype(np.float64) for name in names} | {"limit_px": limit, "crowding": crowded}
    return Examples(Looks.join(looks), error, stated, found["frame"].astype(np.intp) + first)


def _as_tabled(model: Model, scenes: list[Scene], truth: Localizations) -> tuple[Localizations, FloatArray, FloatArray]:
    """Candidates with calibrated precision, as a table holds them; limit and crowding of each."""
    found = detect(model.network, scenes, truth.info, model.device)
    found = found.select(np.argsort(found["frame"], kind="stable"))
    widths = np.array([scene.psf_sigma_px for scene in scenes])[found["frame"]]
    noise = np.array([scene.read_noise_e for scene in scenes])[found["frame"]]
    background = found["background"].clip(0) + noise.astype(np.float64) ** 2
    limit = mortensen_mle(found["photons"].clip(1.0), background, widths)
    if len(found):
        calibrated = ModelCalibration.from_card(model.card).apply(
            found,
            Pixels(np.stack([scene.electrons for scene in scenes])),
            psf_sigma_px=widths,
            limit_px=limit,
            background_e=background,
            population=populations_of(scenes)[found["frame"]] if is_told(model) else UNKNOWN_POPULATION,
        )
        found = found.with_columns(**calibrated.columns)
    return found, limit, crowding(found, widths)
