"""How long the movie of a table is, and whether a value for every frame of it can be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smlm_pb.errors import TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

#: Half a day at 100 frames per second. A drift, checked on two halves, takes 150 bytes for each.
MOST_FRAMES = 5_000_000


def movie_length(locs: Localizations) -> int:
    """Number of frames: what the table says, and no fewer than those that hold molecules."""
    return max(locs.info.n_frames, locs.end_frame())


def refuse_endless(n_frames: int, locs: Localizations) -> None:
    """Refuse a movie that nobody recorded, before something is computed for each of its frames.

    Parameters
    ----------
    n_frames : int
        Its number of frames.
    locs : Localizations
        The table that says so.

    Raises
    ------
    TableError
        When there are more than :data:`MOST_FRAMES`.
    """
    if n_frames <= MOST_FRAMES:
        return
    used = locs.end_frame()
    too_many = f"a movie of more than {MOST_FRAMES} frames cannot be worked on frame by frame"
    if used > MOST_FRAMES:
        raise TableError(
            f"A molecule of the table lies in frame {used - 1}, and {too_many}; leave out what lies in wrong frames, "
            "then give the right number of frames (smlm_pb.formats.read_table)."
        )
    raise TableError(
        f"The table says that its movie has {n_frames} frames, but its last molecule lies in frame {used - 1}, and "
        f"{too_many}; give the right number of frames, e.g. {used} (smlm_pb.formats.read_table)."
    )
