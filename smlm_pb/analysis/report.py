"""The report: one file that shows what was found, how good it is, and how it was made.

The page holds everything in itself: images, figures, style. It needs no network, opens in any browser, follows its
light or dark theme and can be printed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb._version import __version__
from smlm_pb.analysis.report_checks import residual_section, twin_section
from smlm_pb.analysis.report_findings import Findings, gather
from smlm_pb.analysis.report_parts import figure, grid, hint, section, text
from smlm_pb.analysis.report_range import training_range
from smlm_pb.analysis.report_style import STYLE
from smlm_pb.errors import MovieError, SmlmPbError

if TYPE_CHECKING:
    from smlm_pb.analysis.drift import Drift
    from smlm_pb.analysis.residual_result import ResidualMap
    from smlm_pb.analysis.split_comparison import Repeatability
    from smlm_pb.analysis.twin import DigitalTwin
    from smlm_pb.localizations import Localizations
    from smlm_pb.movies import Movie


def write_report(
    locs: Localizations,
    path: str | os.PathLike[str],
    *,
    movie: Any = None,
    truth: Localizations | None = None,
    unlinked: Localizations | None = None,
    drift: Drift | None = None,
    repeatability: Repeatability | None = None,
    twin: DigitalTwin | None = None,
    residuals: ResidualMap | None = None,
    title: str = "",
    pixel_size_nm: float = 10.0,
    camera_pixel_size_nm: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a report on a table of molecules as one self-contained HTML file.

    Parameters
    ----------
    locs : Localizations
        The table.
    path : path-like
        The file, ``.html``.
    movie : path, array (frame, y, x), or Movie, optional
        The movie it was made from: its average and some frames are shown with what was found on them.
    truth : Localizations, optional
        The true molecules, where they are known.
    unlinked : Localizations, optional
        The table before linking, where ``locs`` is linked: what needs every frame of a molecule is computed from it.
    drift : Drift, optional
        The path that :func:`smlm_pb.analysis.correct_drift` removed, to be drawn.
    repeatability : Repeatability, optional
        Result of :func:`smlm_pb.analysis.repeatability`.
    twin : DigitalTwin, optional
        Result of :func:`smlm_pb.analysis.digital_twin`: what errors cost, and what to do.
    residuals : ResidualMap, optional
        Result of :func:`smlm_pb.analysis.residual_map`: what looks missed, false or merged.
    title : str
        Heading; the name of the movie where it is empty.
    pixel_size_nm : float
        Edge of a pixel of the rendered image; larger where the picture would exceed 1600 px.
    camera_pixel_size_nm : float, optional
        Edge of a camera pixel, where the table does not know it.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    OutputError
        When the file exists or cannot be written.
    MovieError
        When the movie cannot be read, or is not that of the table.
    """
    from smlm_pb.formats.output import check_target, written_whole

    target = Path(path)
    check_target(target, overwrite)
    page = build_report(
        locs,
        movie=movie,
        truth=truth,
        unlinked=unlinked,
        drift=drift,
        repeatability=repeatability,
        twin=twin,
        residuals=residuals,
        title=title,
        pixel_size_nm=pixel_size_nm,
        camera_pixel_size_nm=camera_pixel_size_nm,
    )
    with written_whole(target, overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def build_report(
    locs: Localizations,
    *,
    movie: Any = None,
    truth: Localizations | None = None,
    unlinked: Localizations | None = None,
    drift: Drift | None = None,
    repeatability: Repeatability | None = None,
    twin: DigitalTwin | None = None,
    residuals: ResidualMap | None = None,
    title: str = "",
    pixel_size_nm: float = 10.0,
    camera_pixel_size_nm: float | None = None,
) -> str:
    """Compose the page of :func:`write_report` and return it as text."""
    from smlm_pb.movies import open_movie

    if camera_pixel_size_nm is not None:
        locs = locs.with_info(replace(locs.info, pixel_size_nm=camera_pixel_size_nm))
    options: dict[str, Any] = {"title": title, "pixel_size_nm": pixel_size_nm, "drift": drift, "truth": truth}
    checks: dict[str, Any] = {"repeatability": repeatability, "twin": twin, "residuals": residuals}
    if movie is None:
        found = gather(locs, truth=truth, unlinked=unlinked, **checks)
        return _compose(found, unlinked, **options)
    opened = open_movie(movie)
    try:
        locs, single = _on_the_movie(locs, opened), None if unlinked is None else _on_the_movie(unlinked, opened)
        found = gather(locs, truth=truth, unlinked=single, **checks)
        return _compose(found, single, movie=opened, **options)
    finally:
        if opened is not movie:
            opened.close()


def _on_the_movie(locs: Localizations, movie: Movie) -> Localizations:
    """The table with the frame size of its movie, which a text table knows up to the outermost molecule only."""
    info = locs.info
    if (movie.height, movie.width) == (info.height, info.width):
        return locs
    if locs.last_step("localize") or info.height > movie.height or info.width > movie.width:
        raise MovieError(
            f"Movie {movie.name} has frames of {movie.height}×{movie.width} px, those of the table are "
            f"{info.height}×{info.width} px: give the movie that the table was made from."
        )
    n_frames = max(info.n_frames, movie.n_frames)
    return locs.with_info(replace(info, height=movie.height, width=movie.width, n_frames=n_frames))


def _compose(
    found: Findings,
    unlinked: Localizations | None,
    *,
    movie: Movie | None = None,
    title: str,
    pixel_size_nm: float,
    drift: Drift | None,
    truth: Localizations | None,
) -> str:
    """Put the sections together."""
    from smlm_pb.analysis import report_sections as sections

    single = found.locs if unlinked is None else unlinked
    heading = title or found.locs.info.name or "molecules"
    body = [
        sections.header(found, heading),
        sections.notice(found),
        sections.summary(found),
        _images(found, single, movie, truth, pixel_size_nm),
        sections.molecules(found),
        sections.development(found),
        sections.drift(found, drift),
        sections.precision(found),
        sections.splitting(found),
        residual_section(found),
        sections.expectation(found),
        twin_section(found),
        training_range(found),
        sections.comparison(found),
        sections.history(found),
        f"<footer>Made by smlm-pb {text(__version__)}. Positions are in camera pixels, the centre of the first pixel "
        "is 0.0; photons are detected photo-electrons (e⁻); σ is a standard deviation per axis.</footer>",
    ]
    return _PAGE.format(title=text(f"{heading} – smlm-pb report"), style=STYLE, body="\n".join(filter(None, body)))


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _images(
    found: Findings, single: Localizations, movie: Movie | None, truth: Localizations | None, pixel_size_nm: float
) -> str:
    """The super-resolved image beside what the camera saw, then single frames."""
    from smlm_pb.analysis.report_pictures import super_resolved

    figures, problem = [], ""
    try:
        image = super_resolved(found.locs, pixel_size_nm=pixel_size_nm)
        size = f"pixels of {image.pixel_size_nm:.3g} nm"
        drawn = "every molecule as wide as its own precision" if "sigma_x" in found.locs else "all with the same width"
        where = "; the dashed square is shown larger" if image.detail else ""
        figures.append(figure(image.overview, f"<b>Super-resolved image</b>, {drawn}, {size}{where}."))
        if image.detail:
            figures.append(figure(image.detail, f"<b>Detail</b>, pixels of {image.detail_pixel_size_nm:.3g} nm."))
    except SmlmPbError as error:
        problem = hint(f"There is no image: {text(error)}")
    if movie is None:
        return section("Image", problem, grid(figures, "pair" if len(figures) > 1 else "single"))
    average, frames, explanation = _from_movie(single, movie, found.frames, truth)
    if len(figures) == 1:
        figures.append(average)
    else:
        frames.insert(0, average)
    return section("Image", problem, grid(figures, "pair")) + section(
        "Movie", explanation, grid(frames, "" if len(frames) == 3 else "pair")
    )


def _from_movie(
    single: Localizations, movie: Movie, frames: tuple[int, int], truth: Localizations | None
) -> tuple[str, list[str], str]:
    """Average of the movie, and some of its frames with what was found on them."""
    from smlm_pb.analysis.report_pictures import camera_average, example_frames

    svg, n = camera_average(movie)
    average = figure(svg, f"<b>What the camera saw</b>: average of {n} frames, on the same field of view.")
    shown = example_frames(movie, single, frames, truth)
    marks = '<span class="key-found">circles: found</span>'
    if truth is not None:
        marks += ', <span class="key-true">crosses: true</span>'
    pictures = [
        figure(svg, f"<b>Frame {frame}</b>: {n} molecule{'' if n == 1 else 's'}; {marks}.") for svg, frame, n in shown
    ]
    explanation = hint(
        "From each third of the movie a frame with a typical number of molecules; large frames are shown in part. "
        "Spots without a circle were missed or lie below the threshold, circles without a spot are false."
    )
    return average, pictures, explanation
