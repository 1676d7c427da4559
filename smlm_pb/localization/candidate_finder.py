"""From photo-electrons in memory to candidates, one per molecule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.candidates import Candidates, join_candidates, list_candidates, list_candidates_at
from smlm_pb.localization.model_calibration import ModelCalibration
from smlm_pb.localization.noise_floor import noise_floor
from smlm_pb.localization.own_light import Pixels
from smlm_pb.localization.pooling import SHARE_FLOOR, pool_shares
from smlm_pb.localization.significance import lone_significance
from smlm_pb.localization.sparse import Controls, LightFinder
from smlm_pb.population import UNKNOWN_POPULATION

if TYPE_CHECKING:
    from threading import Event

    import torch

    from smlm_pb.camera import Camera
    from smlm_pb.localization.matched_filter import Group
    from smlm_pb.localization.model import Model
    from smlm_pb.localization.pipeline import Plan
    from smlm_pb.population import Population

#: Candidates that are put together at a time: what belongs to them fits in the cache.
_PORTION_ROWS = 1 << 14
#: Larger than what is needed at a time for a block, bytes; the most that glibc learns from is 32 MB.
_PIECE = 31 << 20


class Unwanted(Exception):
    """Nobody waits for these frames any more."""


class CandidateFinder:
    """Finds the candidates in frames that are in memory; what is the same for all frames is made ready once.

    Parameters
    ----------
    model : Model
        The network on its device.
    psf_sigma_px, floor, plan, least_significance, population, precision
        As for :func:`smlm_pb.localization.pipeline.find_candidates`.
    camera : Camera, optional
        Where the electrons come from; one without electron multiplication and read noise when left out.
    pass_over_dark : bool
        Whether places without light may be passed over; see :mod:`smlm_pb.localization.sparse`.
    unwanted : threading.Event, optional
        Once it is set, frames that are in work are given up and :class:`Unwanted` is raised.
    """

    def __init__(
        self,
        model: Model,
        *,
        psf_sigma_px: float,
        floor: float,
        plan: Plan,
        camera: Camera | None = None,
        least_significance: float = 0.0,
        population: Population | None = None,
        precision: str = "float32",
        pass_over_dark: bool = True,
        unwanted: Event | None = None,
    ) -> None:
        from smlm_pb.camera import Camera
        from smlm_pb.networks.inference import FixedWidthNetwork

        self.device, self.camera, self._plan, self._unwanted = model.device, camera or Camera(), plan, unwanted
        self._psf_sigma_px, self._floor, self._least_significance = psf_sigma_px, floor, least_significance
        self._context = model.network.context_frames
        self._noise_floor = np.float32(noise_floor(self.camera, model.card.read_noise_e[1]))
        self._calibration = ModelCalibration.from_card(model.card)
        self._population = UNKNOWN_POPULATION if population is None else population.values()
        self._photon_scale = np.float32(1.0 if population is None else population.photon_scale)
        keep_memory()
        with arithmetic(model.device):
            self._network = FixedWidthNetwork(model.network, psf_sigma_px, population=population, precision=precision)
        self._light: LightFinder | None = None
        # Only what is not significant may be passed over; graphics cards are faster with whole frames.
        suited = self._network.is_lazy and self._context == 0 and self.device.type == "cpu"
        if pass_over_dark and suited and least_significance > 0:
            self._light = LightFinder(psf_sigma_px, self.camera, least_significance, self._network.layer_radii)

    def __call__(
        self,
        electrons: npt.NDArray[np.float32],
        first_frame: int = 0,
        within: slice | None = None,
        *,
        consecutive: bool = True,
    ) -> Candidates:
        """Candidates, one per molecule.

        Parameters
        ----------
        electrons : array (frame, y, x), float32
            Effective photo-electrons, on which photon noise has variance = mean.
        first_frame : int
            Frame number of the first frame.
        within : slice, optional
            Frames that are looked at; the others are there for a network that sees neighbouring frames too.
        consecutive : bool
            Whether the frames follow each other; if not, each is looked at without neighbours.
        """
        context = self._context if consecutive else 0
        start, stop, _ = (within or slice(None)).indices(len(electrons))
        controls = Controls(*electrons.shape[1:])
        lifted = electrons + self._noise_floor if self._noise_floor else electrons
        with arithmetic(self.device):
            if self._light is None:
                listed = self._by_batches(lifted, first_frame, start, stop, context)
            else:
                groups, whole = controls.take(*self._light(electrons[start:stop]), first_frame + start)
                listed = self._by_places(lifted[start:stop], first_frame + start, groups, whole)
        listed.rows["background"] -= self._noise_floor * np.float32(self.camera.excess_noise_factor)
        parts = [self._finish(rows, electrons, first_frame) for rows in _portions(listed.rows)]
        found = join_candidates([Candidates(listed.rows[:0], listed.expected_unlisted), *parts])
        return found._replace(expected_unlisted=found.expected_unlisted + controls.dark_mass(found.rows))

    def _by_batches(
        self, electrons: npt.NDArray[np.float32], first_frame: int, start: int, stop: int, context: int
    ) -> Candidates:
        """Whole frames, some at a time."""
        return list_candidates(
            self._network,
            self._batches(electrons, start, stop, context),
            self._psf_sigma_px,
            tile_px=self._plan.tile_px,
            first_frame=first_frame + start,
            floor=min(self._floor, SHARE_FLOOR),
            excess_noise_factor=self.camera.excess_noise_factor,
        )

    def _batches(
        self, electrons: npt.NDArray[np.float32], start: int, stop: int, context: int
    ) -> Iterator[torch.Tensor]:
        step = self._plan.batch_frames
        for one in range(start, stop, step):
            if self._unwanted is not None and self._unwanted.is_set():
                raise Unwanted
            yield self._on_device(with_neighbours(electrons, one, min(one + step, stop), context))

    def _by_places(
        self,
        electrons: npt.NDArray[np.float32],
        first_frame: int,
        groups: list[Group],
        whole: npt.NDArray[np.bool_],
    ) -> Candidates:
        """Only some places, and frames in which that would not be less work."""
        parts = [self._at(groups, self._on_device(electrons[:, None]), first_frame)]
        for as_a_whole, run in groupby(range(len(whole)), key=whole.__getitem__):
            if as_a_whole:
                start, *others = run
                parts.append(self._by_batches(electrons, first_frame, start, start + len(others) + 1, 0))
        joined = join_candidates(parts)
        return joined._replace(rows=joined.rows[np.argsort(joined.rows["frame"], kind="stable")])

    def _on_device(self, frames: npt.NDArray[np.float32]) -> torch.Tensor:
        import torch

        batch = torch.from_numpy(frames)
        if self.device.type == "cuda":  # from pinned memory the copy goes on beside what other streams compute
            batch = batch.pin_memory()
        return batch.to(self.device, non_blocking=True)

    def _at(self, groups: list[Group], batch: torch.Tensor, first_frame: int) -> Candidates:
        return list_candidates_at(
            self._network,
            batch,
            groups,
            first_frame=first_frame,
            floor=min(self._floor, SHARE_FLOOR),
            excess_noise_factor=self.camera.excess_noise_factor,
        )

    def _finish(self, rows: npt.NDArray[Any], electrons: npt.NDArray[np.float32], first_frame: int) -> Candidates:
        """One candidate per molecule of some whole frames, without those that are not significant."""
        found = _one_per_molecule(
            Candidates(rows, 0.0),
            Pixels(electrons, first_frame, float(self._photon_scale)),
            self._floor,
            self._calibration,
            self._psf_sigma_px,
            self.camera,
            self._population,
        )
        found.rows["photons"] *= self._photon_scale
        if self._least_significance <= 0:
            return found
        significance = lone_significance(
            found.rows, electrons, first_frame=first_frame, psf_sigma_px=self._psf_sigma_px, camera=self.camera
        )
        return found._replace(rows=found.rows.take(np.flatnonzero(significance >= self._least_significance)))


def keep_memory() -> None:
    """Have the C library keep freed memory for the next block.

    glibc returns what is free to the system, which hands it out again page by page, as long as it has not seen a piece
    as large come and go. This one is never touched.
    """
    np.empty(_PIECE, np.uint8)


def with_neighbours(
    electrons: npt.NDArray[np.float32], start: int, stop: int, context_frames: int
) -> npt.NDArray[np.float32]:
    """Frames with those before and after.

    Parameters
    ----------
    electrons : array (frame, y, x), float32
        Consecutive frames.
    start, stop : int
        Frames that are looked at.
    context_frames : int
        Frames before and after.

    Returns
    -------
    array (stop - start, 2 * context_frames + 1, y, x), float32
        In the order of time; NaN where there is no frame.
    """
    if context_frames == 0:
        return electrons[start:stop, None]
    steps = np.arange(-context_frames, context_frames + 1)
    index = np.arange(start, stop)[:, None] + steps
    there = (index >= 0) & (index < len(electrons))
    stacked: npt.NDArray[np.float32] = electrons[index.clip(0, len(electrons) - 1)]
    stacked[~there] = np.nan
    return stacked


def _portions(rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Rows of whole frames, some thousands at a time."""
    start = 0
    while start < len(rows):
        last = rows["frame"][min(start + _PORTION_ROWS, len(rows)) - 1]
        stop = int(np.searchsorted(rows["frame"], last, side="right"))
        yield rows[start:stop]
        start = stop


def _one_per_molecule(
    listed: Candidates,
    pixels: Pixels,
    floor: float,
    calibration: ModelCalibration,
    psf_sigma_px: float,
    camera: Camera,
    population: tuple[float, ...],
) -> Candidates:
    """One candidate per molecule, with the probability and the precision that it has, from the floor on."""
    rows, missed = pool_shares(listed.rows), 0.0
    if len(rows):
        variance = background_variance(rows, camera)
        calibrated = calibration.apply(
            rows,
            pixels,
            psf_sigma_px=psf_sigma_px,
            limit_px=precision_limit(rows, variance, psf_sigma_px, camera),
            background_e=variance / camera.excess_noise_factor,
            excess_noise_factor=camera.excess_noise_factor,
            population=population,
        )
        for name, values in calibrated.columns.items():
            rows[name] = values
        missed = calibrated.missed
    above = rows["probability"] >= np.float32(floor)
    unlisted = missed + float(rows["probability"][~above].sum(dtype=np.float64))
    return Candidates(rows.take(np.flatnonzero(above)), listed.expected_unlisted + unlisted)


def precision_limit(
    rows: npt.NDArray[Any], variance: npt.NDArray[np.float64], psf_sigma_px: float, camera: Camera
) -> npt.NDArray[np.float64]:
    """Smallest possible localization precision (n,) of candidates, were they alone, px.

    ``variance`` (n,) is that of :func:`background_variance`.
    """
    from smlm_pb.refinement.crlb import mortensen_mle

    photons = rows["photons"].clip(1.0)  # beside a very bright bead next to nothing may be left for a candidate
    return mortensen_mle(photons, variance, psf_sigma_px, excess=camera.excess_noise_factor)


def background_variance(rows: npt.NDArray[Any], camera: Camera) -> npt.NDArray[np.float64]:
    """Variance (n,) in a pixel under candidates, without their own light and before multiplication, e⁻."""
    read_noise = float(np.median(camera.read_variance_e2)) / camera.excess_noise_factor
    variance: npt.NDArray[np.float64] = rows["background"].clip(0).astype(np.float64) + read_noise
    return variance


def arithmetic(device: torch.device) -> AbstractContextManager[None]:
    """The arithmetic of inference, decided here alone: float32 without shortcuts, no gradients.

    Graphics cards would otherwise round the inputs of convolutions to 10 bits, which moves molecules by more than
    the batch they happen to be in may.
    """
    import torch

    stack = ExitStack()
    stack.enter_context(torch.inference_mode())
    if device.type == "cuda":
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
    return stack  # type: ignore[return-value]
