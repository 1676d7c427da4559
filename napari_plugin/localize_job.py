"""One run of the localization, off the screen's thread. Nothing of Qt in here: the panel asks how it goes.

The worker's thread writes into the job, the screen's thread reads from it a few times per second. So no signal has
to cross threads, and however fast blocks are finished, the screen is not flooded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_plugin.movie_layers import placed_in_whole
from smlm_pb.errors import Cancelled, SmlmPbError
from smlm_pb.localizations import Localizations, MovieInfo

if TYPE_CHECKING:
    from napari_plugin.movie_layers import Region
    from smlm_pb.analysis.rendering import Grid
    from smlm_pb.localization.job import FinishedBlock
    from smlm_pb.movies import Movie

_log = logging.getLogger(__name__)

#: While it grows, the image has at most this many megapixels: drawing must not hold up the window.
_GROWING_MEGAPIXELS = 0.5


@dataclass(frozen=True)
class RunRequest:
    """What a run needs.

    Parameters
    ----------
    movie : Movie
        The movie, cut to the region if there is one.
    options : dict
        Keyword arguments of :func:`smlm_pb.localize`.
    region : Region, optional
        Where the cut lies in the whole frames.
    whole : MovieInfo, optional
        The whole movie, where it was cut.
    image_pixel_size_nm : float
        Pixel size of the super-resolved image.
    """

    movie: Movie
    options: dict[str, Any]
    region: Region | None = None
    whole: MovieInfo | None = None
    image_pixel_size_nm: float = 10.0


@dataclass(frozen=True)
class RunResult:
    """What a run has found, complete or not.

    Parameters
    ----------
    candidates : Localizations
        Everything above the floor, so that the threshold can be moved; its history says how it was made.
    threshold : float
        The threshold in force.
    expectation : dict
        Expected figures at that threshold, as the library states them.
    warnings : tuple of str
        What the user should know.
    n_frames : int
        Frames that were done.
    stopped : bool
        Whether the user stopped it.
    seconds : float
        How long it took.
    """

    candidates: Localizations
    threshold: float
    expectation: dict[str, Any]
    warnings: tuple[str, ...]
    n_frames: int
    stopped: bool
    seconds: float


@dataclass
class Progress:
    """How far a run is."""

    done: int = 0
    total: int = 0
    frames_per_second: float | None = None
    seconds_left: float | None = None
    n_molecules: int = 0


@dataclass
class _State:
    lock: threading.Lock = field(default_factory=threading.Lock)
    blocks: list[tuple[int, int, Localizations]] = field(default_factory=list)
    threshold: float = 0.5
    progress: Progress = field(default_factory=Progress)
    first_block_at: float = 0.0
    first_done: int = 0


class LocalizeJob:
    """A run of :func:`smlm_pb.localize` that can be watched and stopped. Call it in a worker's thread.

    Every exception ends in :attr:`failure`; none leaves the call.

    Parameters
    ----------
    request : RunRequest
        What to do.
    localize : callable, optional
        Stands in for :func:`smlm_pb.localize`.
    """

    def __init__(self, request: RunRequest, localize: Callable[..., Localizations] | None = None) -> None:
        self.request = request
        self.result: RunResult | None = None
        self.failure: Exception | None = None
        #: What is made of the result in the worker's thread, before the screen's thread sees it, and what came out.
        self.prepare: Callable[[RunResult], Any] | None = None
        self.prepared: Any = None
        self._localize = localize
        self._state = _State()
        self._stop = threading.Event()
        self._others: list[Callable[[], bool]] = []
        self._image: npt.NDArray[np.float32] | None = None
        self.grid: Grid | None = None

    def __repr__(self) -> str:
        return f"localization of {self.request.movie.name}"

    # -- called by the screen's thread ---------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the run to end after its present block."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._stop.is_set() or any(wants() for wants in self._others)

    def also_stop_if(self, wants: Callable[[], bool]) -> None:
        """Stop also when this says so (napari's worker, when the window is closed)."""
        self._others.append(wants)

    def give_up(self) -> None:
        """End unheard a run that has found nothing yet: what it still does is of no use to anybody."""
        self.stop()
        with self._state.lock:
            if self._state.blocks or self.result is not None or self.failure is not None:
                return
            empty = Localizations.empty(self.request.whole or self.request.movie.info)
            self.result = RunResult(empty, self._state.threshold, {}, (), 0, True, 0.0)

    def progress(self) -> Progress:
        """How far it is."""
        with self._state.lock:
            progress = Progress(**vars(self._state.progress))
            since = time.monotonic() - self._state.first_block_at
            done = progress.done - self._state.first_done
        if done > 0 and since > 0:
            progress.frames_per_second = done / since
            progress.seconds_left = (progress.total - progress.done) / progress.frames_per_second
        return progress

    def molecules_of_frame(self, frame: int) -> Localizations | None:
        """What was found in a frame, at the threshold of the moment; None where it is not done yet."""
        with self._state.lock:
            threshold = self._state.threshold
            block = next((table for start, stop, table in self._state.blocks if start <= frame < stop), None)
        if block is None:
            return None
        return block.select((block.frame == frame) & (block.probability >= np.float32(threshold)))

    def image(self) -> npt.NDArray[np.float32] | None:
        """A copy of the super-resolved image so far; None where it cannot be drawn."""
        with self._state.lock:
            return None if self._image is None else self._image.copy()

    def empty_image(self) -> npt.NDArray[np.float32] | None:
        """The super-resolved image before the first molecule; None where it cannot be drawn."""
        return self._draw(Localizations.empty(self.request.whole or self.request.movie.info))

    # -- called by the worker's thread ---------------------------------------------------------------------

    def __call__(self) -> None:
        """Run to the end, or until stopped."""
        try:
            self._run(time.monotonic())
        except Exception as error:
            if self.result is not None:  # nobody waits any more
                _log.info("The %s ended with %r after it was stopped", self, error)
                return
            if not isinstance(error, SmlmPbError):
                _log.exception("The %s failed", self)
            self.failure = error

    def _run(self, started: float) -> None:
        import smlm_pb.localization

        localize = self._localize or smlm_pb.localization.localize
        try:
            final = localize(
                self.request.movie,
                **self.request.options,
                on_progress=self._on_progress,
                should_stop=lambda: self.stopping,
                on_block=self._on_block,
                on_stop=lambda finished: self._publish(finished, started, stopped=True),
            )
        except Cancelled as end:
            self._publish(getattr(end, "finished", None), started, stopped=True)
        else:
            self._publish(final, started, stopped=False)

    def _publish(self, final: Localizations | None, started: float, *, stopped: bool) -> None:
        """Hand over what was found; a run that was stopped does so before it has come to rest."""
        if self.result is not None:
            return
        result = self._result_of(final, started, stopped)
        if self.prepare is not None:
            self.prepared = self.prepare(result)
        with self._state.lock:
            self.result = self.result or result

    def _result_of(self, final: Localizations | None, started: float, stopped: bool) -> RunResult:
        with self._state.lock:
            tables = [table for _, _, table in self._state.blocks]
            n_frames = sum(stop - start for start, stop, _ in self._state.blocks)
            threshold = self._state.threshold
        steps = [] if final is None else final.provenance
        told = steps[-1] if steps else {}
        expectation = told.get("threshold") or {}
        empty = Localizations.empty(self.request.whole or self.request.movie.info)
        candidates = Localizations.concatenate(tables or [empty if final is None else self._placed(final)])
        if final is not None and expectation:
            candidates = with_refined(candidates, self._placed(final), float(expectation["threshold"]))
        for step in [*steps, *self._region_step()]:
            candidates = candidates.with_provenance(step)
        return RunResult(
            candidates=candidates,
            threshold=float(expectation.get("threshold", threshold)),
            expectation=dict(expectation),
            warnings=tuple(told.get("warnings", ())),
            n_frames=n_frames,
            stopped=stopped,
            seconds=time.monotonic() - started,
        )

    def _region_step(self) -> list[dict[str, Any]]:
        region = self.request.region
        return [] if region is None else [{"step": "region", **vars(region)}]

    def _placed(self, table: Localizations) -> Localizations:
        return placed_in_whole(table, self.request.region, self.request.whole)

    def _on_progress(self, done: int, total: int) -> None:
        with self._state.lock:
            state = self._state
            if not state.first_block_at:
                state.first_block_at, state.first_done = time.monotonic(), done
            state.progress.done, state.progress.total = done, total

    def _on_block(self, block: FinishedBlock) -> None:
        table = self._placed(block.candidates)
        molecules = table.select(table.probability >= np.float32(block.threshold))
        drawn = self._draw(molecules)
        with self._state.lock:
            self._state.blocks.append((block.start, block.stop, table))
            self._state.threshold = block.threshold
            self._state.progress.n_molecules += len(molecules)
            if drawn is not None:
                if self._image is None:
                    self._image = drawn
                else:
                    self._image += drawn

    def _draw(self, molecules: Localizations) -> npt.NDArray[np.float32] | None:
        from napari_plugin.image_layers import draw_image, growing_pixel_size_nm

        try:
            pixel_size_nm = growing_pixel_size_nm(molecules.info, self.request.image_pixel_size_nm, _GROWING_MEGAPIXELS)
            rendering = draw_image(molecules, pixel_size_nm=pixel_size_nm, method="gaussian")
        except SmlmPbError:
            _log.info("The image does not grow during the run", exc_info=True)
            return None
        self.grid = rendering.grid
        return rendering.image


def with_refined(candidates: Localizations, final: Localizations, threshold: float) -> Localizations:
    """Put what a run has refined in the place of what its blocks have told before.

    Parameters
    ----------
    candidates : Localizations
        Everything above the floor.
    final : Localizations
        Those at or above the threshold, in the same order, with refined values and further columns.
    threshold : float
        The threshold of the run.

    Returns
    -------
    Localizations
        The candidates; in further columns those that were not refined have NaN, or 0 where a column counts.
    """
    kept = candidates.probability >= np.float32(threshold)
    if final.column_names == candidates.column_names or np.count_nonzero(kept) != len(final):
        return candidates
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, values in final.columns.items():
        if name in candidates.column_names:
            column = candidates[name].copy()
        else:
            column = np.full(len(candidates), np.nan if values.dtype.kind == "f" else 0, values.dtype)
        column[kept] = values
        columns[name] = column
    return Localizations(columns, candidates.info, candidates.provenance)
