"""The last stage of a run: refine the molecules that are kept, some frames at a time, before they go into the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import TableError
from smlm_pb.localization.candidates import as_columns
from smlm_pb.localization.classes import add_classes, has_classes
from smlm_pb.localization.settings import GIVEN
from smlm_pb.localizations import Localizations

if TYPE_CHECKING:
    from smlm_pb.localization.job import Job
    from smlm_pb.refinement import Reference

#: Rows and pixels that are refined at a time.
_ROWS, _PIXELS = 8192, 1 << 23
#: What is usual in a movie is measured from so many rows at least.
_ROWS_FOR_REFERENCE = 50
#: More would not make it better, and each is fitted twice.
_ROWS_OF_REFERENCE = 1000
#: A fitted PSF width is used when it is this well known, relative, and this close to the one estimated before.
_WIDTH_ERROR, _WIDTH_CHANGE = 0.02, 0.2


class Refining:
    """Refines the rows of one run as its settings ask for.

    Parameters
    ----------
    job : Job
        The run. A PSF width that was given is used as it is; one that was estimated or assumed is replaced by the fit
        to isolated bright molecules of the first frames, where there are enough of them.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._psf_sigma_px = float(job.conditions.psf_sigma_px)
        self._width_is_settled = job.conditions.origin.get("psf_sigma_px") == GIVEN
        self._reference: Reference | None = None
        self._counts = np.zeros(3, dtype=np.int64)

    def tables(self, portions: Iterable[npt.NDArray[Any]]) -> Iterator[Localizations]:
        """Turn rows into tables.

        Parameters
        ----------
        portions : iterable of structured arrays
            Rows ordered by frame; a frame is never spread over two portions.

        Yields
        ------
        Localizations
            In the same order.
        """
        refined, classed = self._job.settings.refine != "off", has_classes(self._job)
        for rows in portions:
            if not refined and not classed:
                yield Localizations(as_columns(rows), self._job.info)
                continue
            for part in self._cut(rows):
                table = Localizations(as_columns(part), self._job.info)
                table = self._refine(table) if refined else table
                yield add_classes(self._job, table) if classed else table

    def as_dict(self) -> dict[str, Any]:
        """What was done, for the history of the table."""
        mode = self._job.settings.refine
        if mode == "off":
            return {"mode": mode}
        kept, refined, rejected = (int(count) for count in self._counts)
        return {
            "mode": mode,
            "psf_sigma_px": self._psf_sigma_px,
            "network_kept": kept,
            "refined": refined,
            "rejected": rejected,
            "reference": None if self._reference is None else self._reference._asdict(),
        }

    def _cut(self, rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """Parts of whole frames that fit into memory; at least one."""
        movie = self._job.movie
        most_frames = max(1, _PIXELS // (movie.height * movie.width))
        frame = rows["frame"].astype(np.int64)
        start = 0
        while start < len(rows):
            stop = int(np.searchsorted(frame, frame[start] + most_frames))
            if stop - start > _ROWS:
                first = int(np.searchsorted(frame, frame[start], side="right"))
                stop = max(first, int(np.searchsorted(frame, frame[start + _ROWS])))
            yield rows[start:stop]
            start = stop
        if len(rows) == 0:
            yield rows

    def _refine(self, locs: Localizations) -> Localizations:
        from smlm_pb.refinement import fit_psf_sigma, measure_reference, refine

        job, camera = self._job, self._job.conditions.camera
        first = int(locs["frame"][0]) if len(locs) else 0
        stop = int(locs["frame"][-1]) + 1 if len(locs) else 0
        adu = job.movie.read(first, stop) if len(locs) else np.zeros((1, job.movie.height, job.movie.width))
        electrons = camera.to_electrons(adu)
        how: dict[str, Any] = {
            "first_frame": first,
            "read_variance_e2": camera.read_variance_e2,
            "excess_noise_factor": camera.excess_noise_factor,
            "device": job.model.device,
        }
        if len(locs) >= _ROWS_FOR_REFERENCE and self._reference is None:
            if not self._width_is_settled:
                self._settle_width(fit_psf_sigma, locs, electrons, how)
            some = locs.select(locs["frame"] <= locs["frame"][min(len(locs), _ROWS_OF_REFERENCE) - 1])
            self._reference = measure_reference(some, electrons, psf_sigma_px=self._psf_sigma_px, **how)
        refined = refine(
            locs,
            electrons,
            psf_sigma_px=self._psf_sigma_px,
            mode=job.settings.refine,  # type: ignore[arg-type]
            reference=self._reference,
            **how,
        )
        self._counts += np.bincount(refined["refinement"], minlength=3)
        return refined

    def _settle_width(self, fit: Any, locs: Localizations, electrons: npt.NDArray[Any], how: dict[str, Any]) -> None:
        self._width_is_settled = True
        try:
            width = fit(locs, electrons, psf_sigma_px=self._psf_sigma_px, **how)
        except TableError:  # too few isolated molecules: the estimate stays
            return
        change = width.sigma_px / self._psf_sigma_px - 1.0
        if width.error_px < _WIDTH_ERROR * width.sigma_px and abs(change) < _WIDTH_CHANGE:
            self._psf_sigma_px = float(width.sigma_px)
