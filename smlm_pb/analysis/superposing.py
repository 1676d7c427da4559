"""Up to which density does a model work on this very sample? Frames are added until it fails.

Fluorescence of different molecules adds up incoherently. The sum of K frames of a movie is therefore a real exposure of
K times as many molecules, with the sample's own spots, structures and background. What the model finds in the single
frames is taken as the truth of their sum, and the share that it finds again is drawn against the density. Hard cases
that the single frames hide are hidden in the sums too, so the figures are relative to what was found at first; and the
background is added as well, which makes the sums harder than a really dense movie. After the union variant of
PointMixup (Chen et al., ECCV 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.superposition_result import DensityLevel, Superposition
from smlm_pb.errors import Cancelled, ConfigurationError, MovieError, TableError

if TYPE_CHECKING:
    import os

    from smlm_pb.camera import Camera
    from smlm_pb.localization.job import Job, OnProgress, ShouldStop
    from smlm_pb.localization.model import Model
    from smlm_pb.localizations import Localizations
    from smlm_pb.movies import Movie

DEFAULT_ADDED = (2, 4, 8, 16)
DEFAULT_MAX_FRAMES = 256
#: Frames of one sum lie at least so far apart, so that no molecule that stays on is added to itself.
DEFAULT_GAP = 50
LEAST_MOLECULES = 30

__all__ = ["DensityLevel", "Superposition", "superposition"]


def superposition(
    movie: Any,
    *,
    model: str | os.PathLike[str] | Model = "default",
    camera: Camera | None = None,
    pixel_size_nm: float | None = None,
    offset_adu: float | None = None,
    e_per_adu: float | None = None,
    em_gain: float | None = None,
    psf_sigma_px: float | None = None,
    threshold: float | str = "auto",
    device: str = "auto",
    frames: tuple[int, int | None] | None = None,
    added: Sequence[int] = DEFAULT_ADDED,
    max_frames: int = DEFAULT_MAX_FRAMES,
    gap_frames: int = DEFAULT_GAP,
    tolerance_nm: float | None = None,
    least_jaccard: float = 0.8,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Superposition:
    """Find the density up to which a model works on a sample, by adding frames of its movie.

    Parameters
    ----------
    movie : path, array (frame, y, x), or Movie
        Anything that :func:`smlm_pb.open_movie` opens; sparse enough for its single frames to be trusted.
    model, camera, pixel_size_nm, offset_adu, e_per_adu, em_gain, psf_sigma_px, threshold, device, frames
        As for :func:`smlm_pb.localize`. The automatic threshold is chosen for each number of frames.
    added : sequence of int
        How many frames are added; numbers for which the movie is too short are left out.
    max_frames : int
        At most this many single frames, evenly spread, are used.
    gap_frames : int
        Frames of one sum lie at least this far apart; more than molecules stay on.
    tolerance_nm : float, optional
        Distance up to which a molecule counts as found again; the width (σ) of the point-spread function when not
        given.
    least_jaccard : float
        Jaccard index from which on a density counts as usable.
    on_progress, should_stop : callable, optional
        As for :func:`smlm_pb.localize`.

    Returns
    -------
    Superposition

    Raises
    ------
    MovieError, CameraError, ModelError, ConfigurationError
        When an input is wrong, or the movie is too short.
    TableError
        When too few molecules are found in the single frames.
    Cancelled
        When ``should_stop`` asked for it.

    Warns
    -----
    UserWarning
        As :func:`smlm_pb.localize`.
    """
    from smlm_pb.analysis.derived_movie import opened_job
    from smlm_pb.localization.settings import JobSettings

    _check_options(added, max_frames, gap_frames, tolerance_nm, least_jaccard)
    settings = JobSettings(
        camera=camera,
        pixel_size_nm=pixel_size_nm,
        offset_adu=offset_adu,
        e_per_adu=e_per_adu,
        em_gain=em_gain,
        psf_sigma_px=psf_sigma_px,
        threshold=threshold,
        frames=frames,
    )
    with opened_job(movie, model, device, settings) as job:
        used = _choose_frames(job.conditions.frames, max_frames)
        possible = _possible(added, used, gap_frames, job.movie.name)
        pixel = job.conditions.pixel_size_nm
        if tolerance_nm is not None and pixel is None:
            raise ConfigurationError("tolerance_nm needs the pixel size, which the movie does not tell; give it.")
        tolerance_px = job.conditions.psf_sigma_px if tolerance_nm is None or pixel is None else tolerance_nm / pixel
        levels = _climb(job, used, possible, tolerance_px, on_progress, should_stop)
    density = levels[0].density_per_px2
    usable, at_the_end = _usable(levels, least_jaccard)
    conditions = {**job.conditions.as_dict(), "model": job.model.card.name, "gap_frames": gap_frames}
    left_out = [k for k in added if k not in possible]
    notes = _remarks(job, levels, left_out, gap_frames)
    return Superposition(
        len(used), density, levels[1:], tolerance_px, least_jaccard, usable, at_the_end, pixel, conditions, tuple(notes)
    )


def _check_options(
    added: Sequence[int], max_frames: int, gap_frames: int, tolerance_nm: float | None, least_jaccard: float
) -> None:
    if not added or any(int(k) != k or k < 2 for k in added):
        raise ConfigurationError(f"added = {list(added)} is impossible; give whole numbers from 2 on, e.g. 2 4 8 16.")
    if max_frames < 2 or gap_frames < 1:
        raise ConfigurationError(f"max_frames = {max_frames} must be 2 or more, and gap_frames = {gap_frames} above 0.")
    if tolerance_nm is not None and not (math.isfinite(tolerance_nm) and tolerance_nm > 0):
        raise ConfigurationError(f"tolerance_nm = {tolerance_nm} is impossible; give nm above 0, e.g. 100.")
    if not 0 < least_jaccard < 1:
        raise ConfigurationError(f"least_jaccard = {least_jaccard} must lie between 0 and 1, e.g. 0.8.")


def _choose_frames(frames: tuple[int, int], max_frames: int) -> npt.NDArray[np.intp]:
    from smlm_pb.movies.movie import even_frames

    start, stop = frames
    return np.array([start + k for k in even_frames(stop - start, max_frames)], np.intp)


def _possible(added: Sequence[int], frames: npt.NDArray[np.intp], gap_frames: int, name: str) -> list[int]:
    """Numbers of frames for which the members of a sum lie far enough apart."""
    from smlm_pb.analysis.superposed_movie import group_frames

    possible = []
    for k in sorted({int(k) for k in added}):
        if k <= len(frames) and all(np.diff(sum_).min() >= gap_frames for sum_ in group_frames(frames, k)):
            possible.append(k)
    if not possible:
        raise MovieError(
            f"Movie {name} is too short to add frames that lie {gap_frames} frames apart ({len(frames)} can be used); "
            "give a smaller gap_frames if molecules stay on for less, or a longer movie."
        )
    return possible


def _climb(
    job: Job,
    frames: npt.NDArray[np.intp],
    added: list[int],
    tolerance_px: float,
    on_progress: OnProgress | None,
    should_stop: ShouldStop | None,
) -> tuple[DensityLevel, ...]:
    """Localize the single frames and all sums, and compare."""
    from smlm_pb.analysis.superposed_movie import SuperposedMovie, group_frames

    groups = {k: group_frames(frames, k) for k in (1, *added)}
    total, done = sum(len(sums) for sums in groups.values()), 0
    single: Localizations | None = None
    levels = []
    for k, sums in groups.items():

        def tell(finished: int, before: int = done) -> None:
            if on_progress is not None:
                on_progress(before + finished, total)
            if should_stop is not None and before + finished < total and should_stop():
                raise Cancelled(f"Stopped adding frames of movie {job.movie.name}; nothing was measured.")

        movie = SuperposedMovie(job.movie, job.conditions.camera, sums)
        found, threshold = _localize(job, movie, tell)
        done += len(sums)
        if single is None:
            single = found
            if len(single) < LEAST_MOLECULES:
                raise TableError(
                    f"Only {len(single)} molecules were found in {len(frames)} frames of movie {job.movie.name}, too "
                    f"few to be added; use more frames (max_frames), at least {LEAST_MOLECULES} molecules."
                )
            levels.append(_compare(single, single, 1, len(sums), tolerance_px, threshold))
            continue
        which = np.empty(len(frames), np.intp)
        which[:] = -1
        for number, members in enumerate(sums):
            which[np.searchsorted(frames, members)] = number
        target = which[single["frame"].astype(np.intp)]
        truth = single.select(target >= 0).with_columns(frame=target[target >= 0])
        truth = truth.with_info(found.info)
        levels.append(_compare(found, truth, k, len(sums), tolerance_px, threshold))
    return tuple(levels)


def _localize(job: Job, movie: Movie, tell: Callable[[int], None]) -> tuple[Localizations, float]:
    from smlm_pb.analysis.derived_movie import find_in
    from smlm_pb.localization.candidates import as_columns
    from smlm_pb.localization.job import at_or_above, choose_threshold
    from smlm_pb.localizations import Localizations

    found, histogram = find_in(movie, job, tell)
    threshold = choose_threshold(job.settings, histogram).threshold
    kept = found[at_or_above(found["probability"], threshold)]
    info = replace(job.info, n_frames=movie.n_frames)
    return Localizations(as_columns(kept), info), threshold


def _compare(
    found: Localizations, truth: Localizations, added: int, n_sums: int, tolerance_px: float, threshold: float
) -> DensityLevel:
    from smlm_pb.evaluation.matching import find_candidates, positions, solve
    from smlm_pb.evaluation.scores import rates

    candidates = find_candidates(positions(found), positions(truth), tolerance_px)
    chosen = solve(candidates, "hungarian")
    n = len(chosen)
    precision, recall, _, jaccard = rates(n, len(found) - n, len(truth) - n)
    density = len(truth) / max(n_sums * truth.info.height * truth.info.width, 1)
    pixel = truth.info.pixel_size_nm
    return DensityLevel(
        added=added,
        n_sums=n_sums,
        n_molecules=len(truth),
        n_found=len(found),
        density_per_px2=density,
        density_per_um2=math.nan if pixel is None else density / (pixel / 1000) ** 2,
        jaccard=jaccard,
        precision=precision,
        recall=recall,
        rmse_px=float(np.sqrt(np.mean(candidates.distance[chosen] ** 2))) if n else math.nan,
        threshold=threshold,
    )


def _usable(levels: Sequence[DensityLevel], least_jaccard: float) -> tuple[float, bool]:
    """Density at which the Jaccard index falls below the least one, and whether it never does."""
    tried = levels[1:]
    good = [level.jaccard >= least_jaccard for level in tried]
    if all(good):
        return tried[-1].density_per_px2, True
    first = good.index(False)
    if first == 0:
        return math.nan, False
    before, after = tried[first - 1], tried[first]
    share = (before.jaccard - least_jaccard) / (before.jaccard - after.jaccard)
    ends = [math.log(level.density_per_px2) for level in (before, after)]
    return math.exp(ends[0] + share * (ends[1] - ends[0])), False


def _remarks(job: Job, levels: Sequence[DensityLevel], left_out: list[int], gap_frames: int) -> list[str]:
    """What limits the meaning of the figures."""
    notes = []
    card, conditions = job.model.card, job.conditions
    if left_out:
        numbers = ", ".join(map(str, left_out))
        notes.append(f"The movie is too short to add {numbers} frames that lie {gap_frames} frames apart.")
    background = conditions.background_e / conditions.camera.excess_noise_factor
    beyond = [level.added for level in levels[1:] if level.added * background > card.background_e[1]]
    if beyond:
        notes.append(
            f"From {beyond[0]} frames on the added background lies beyond the {card.background_e[1]:g} e⁻ that model "
            f"'{card.name}' was trained for; a really dense movie would be easier."
        )
    if levels[0].density_per_px2 > 0.3 * card.density_per_px2[1]:
        notes.append(
            "The single frames are crowded already, so what is found in them is no reliable truth; use frames of a "
            "sparser part of the movie."
        )
    return notes
