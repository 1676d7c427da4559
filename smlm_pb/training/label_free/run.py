"""One label-free training: detector, kernel and molecules taught by each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smlm_pb.errors import MovieError
from smlm_pb.networks import OffsetRegressionNetwork
from smlm_pb.simulation.sampled_psf import SampledPsf
from smlm_pb.training.experiment import Experiment
from smlm_pb.training.label_free.crops import Crops
from smlm_pb.training.label_free.kernel import Kernel
from smlm_pb.training.label_free.molecules import Frames, Molecules
from smlm_pb.training.label_free.proposals import detected
from smlm_pb.training.label_free.reconstruct import Chunk, Limits, begin, deviance_per_px, run_round, usual_photons
from smlm_pb.training.label_free.recording import Recording
from smlm_pb.training.label_free.settings import LabelFreeSettings
from smlm_pb.training.label_free.state_file import forget_explained, load_explained, save_explained
from smlm_pb.training.loop import Trainer

OnRound = Callable[[dict[str, Any]], None]

#: Fewer molecules than this in all frames do not tell what a PSF looks like.
FEWEST_MOLECULES = 200
#: Support of the kernel, in widths of the PSF, and its bounds, px.
_SUPPORT, _SUPPORT_BOUNDS = 4.5, (4, 12)
#: PSFs narrower than this need more nodes per pixel, px.
_NARROW_PX = 0.9
#: A new detector proposes nothing useful before this share of its steps.
_DETECTOR_USEFUL = 0.15


class LabelFreeRun:
    """The state of a label-free training.

    Parameters
    ----------
    recording : Recording
        The movie.
    experiment : Experiment
        The detector and its training.
    settings : LabelFreeSettings
        Rounds and crops.
    folder : Path
        Of the run.
    device : torch.device
        Where everything is computed.
    """

    def __init__(
        self,
        recording: Recording,
        experiment: Experiment,
        settings: LabelFreeSettings,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.recording, self.settings, self.folder = recording, settings, folder
        self.trainer = Trainer(experiment, folder, device)
        self.started = experiment.start_from is not None
        #: Width of the Gaussian like the PSF, which the network is told: at first as given or estimated.
        self.psf_sigma_px = recording.conditions.psf_sigma_px
        kernel = first_kernel(self.psf_sigma_px)
        self.chunks: list[Chunk] = [(frames, begin(frames, kernel)) for frames in recording.chunks]
        self.rounds = 0
        #: One entry per round, for people and the figure.
        self.history: list[dict[str, Any]] = []
        self._crops: Crops | None = None

    @property
    def kernel(self) -> Kernel:
        """The PSF as it is known now."""
        return self.chunks[0][1].kernel

    @property
    def finished(self) -> bool:
        """Whether all detector steps are done."""
        return self.trainer.step >= self.settings.steps

    @property
    def round_is_due(self) -> bool:
        """Whether the movie is to be explained anew before the next step."""
        begins = self.settings.round_begins()
        return self.rounds < len(begins) and begins[self.rounds] <= self.trainer.step

    def restore(self) -> None:
        """Continue where the last checkpoint stopped."""
        self.trainer.restore()
        # A round that was due exactly then may not have been done: it is done again, to the same result.
        self.rounds = sum(start < self.trainer.step for start in self.settings.round_begins())
        if self.rounds:
            self.chunks, self.history = load_explained(self.folder, self.rounds, self.recording.chunks)
            self.psf_sigma_px = width_of(self.kernel)

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        self.trainer.save()
        forget_explained(self.folder, before=sum(start < self.trainer.step for start in self.settings.round_begins()))

    def explain(self, should_stop: Callable[[], bool] | None = None) -> bool:
        """One round of x-steps and τ-steps over the movie; False where it was stopped, and nothing has changed.

        Raises
        ------
        MovieError
            When the movie holds too few molecules.
        """
        began = time.monotonic()
        before = self.kernel
        done = run_round(self.chunks, self._limits(), propose=self._propose(), should_stop=should_stop)
        if done is None:
            return False
        self.chunks, self._crops = done, None
        self.rounds += 1
        self._refuse_too_few()
        self.psf_sigma_px = width_of(self.kernel)
        molecules = sum(len(state.molecules.frame) for _, state in self.chunks)
        self.history.append(
            {
                "round": self.rounds,
                "step": self.trainer.step,
                "molecules": molecules,
                "molecules_per_frame": molecules / self.recording.n_frames,
                "photons": usual_photons(self.chunks),
                "background_e": float(torch.cat([state.level for _, state in self.chunks]).median()),
                "psf_sigma_px": self.psf_sigma_px,
                "deviance_per_px": deviance_per_px(self.chunks),
                "kernel_agrees": kernel_correlation(before, self.kernel),
            }
        )
        self.trainer.seconds += time.monotonic() - began
        save_explained(self.folder, self.rounds, self.chunks, self.history)
        return True

    def improve(self) -> dict[str, float]:
        """One detector step (η-step); returns the loss terms."""
        began = time.monotonic()
        if self._crops is None:
            settings = self.settings
            self._crops = Crops(
                self.chunks,
                psf_sigma_px=self.psf_sigma_px,
                seed=settings.seed,
                batch_size=settings.batch_size,
                crop_px=settings.crop_px,
                renoised=settings.renoised,
            )
        terms = self.trainer.improve(self._crops.draw(self.trainer.step))
        self.trainer.seconds += time.monotonic() - began
        return terms

    def _limits(self) -> Limits:
        height, width = self.recording.field
        return Limits(
            most=max(4, round(self.settings.most_per_px2 * height * width)),
            separation_px=self.settings.separation_px(self.rounds, self.psf_sigma_px, started=self.started),
        )

    def _propose(self) -> Callable[[Frames], Molecules] | None:
        if not self.started and self.trainer.step < _DETECTOR_USEFUL * self.settings.steps:
            return None
        most, network = self._limits().most, self.trainer.averaged
        assert isinstance(network, OffsetRegressionNetwork)

        def propose(frames: Frames) -> Molecules:
            return detected(network, frames, self.psf_sigma_px, most=most)

        return propose

    def _refuse_too_few(self) -> None:
        found = sum(len(state.molecules.frame) for _, state in self.chunks)
        if found >= FEWEST_MOLECULES:
            return
        what = "no molecules were" if found == 0 else f"only {found} molecules were"
        raise MovieError(
            f"Movie {self.recording.name}: {what} found in the {self.recording.n_frames} frames looked at; at least "
            f"{FEWEST_MOLECULES} are needed to tell what the PSF looks like: give a longer movie, or check the camera "
            "values and the PSF width."
        )


def first_kernel(psf_sigma_px: float) -> Kernel:
    """A Gaussian kernel to start from, with room for the tails of other shapes."""
    low, high = _SUPPORT_BOUNDS
    radius = int(np.clip(np.ceil(_SUPPORT * psf_sigma_px), low, high))
    return Kernel.gaussian(psf_sigma_px, radius_px=radius, samples_per_px=3 if psf_sigma_px < _NARROW_PX else 2)


def width_of(kernel: Kernel) -> float:
    """Width of the round Gaussian that is most like a kernel, px."""
    along_x, along_y = SampledPsf(kernel.sampled(), kernel.samples_per_px).gaussian_widths()
    return float(np.sqrt(along_x * along_y))


def kernel_correlation(one: Kernel, other: Kernel) -> float:
    """Pearson correlation of two kernels as pictures, each centred on its centre of mass."""
    reach = float(min(one.radius_px, other.radius_px))
    axis = torch.arange(-4 * reach, 4 * reach + 1) / 4
    a, b = (kernel.image(axis, axis).numpy().ravel() for kernel in (one, other))
    return float(np.corrcoef(a, b)[0, 1])
