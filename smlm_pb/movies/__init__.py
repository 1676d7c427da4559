"""Anything that is a movie, read by blocks of frames."""

from smlm_pb.movies.checks import check_block, check_movie, check_offset, find_hot_pixels, tell_hot_pixels
from smlm_pb.movies.movie import (
    MIN_SIDE_PX,
    Movie,
    MovieBase,
    even_frames,
    frames_per_block,
    iterate_blocks,
    sample_frames,
)
from smlm_pb.movies.opening import open_movie
from smlm_pb.movies.read_once import ReadOnce
from smlm_pb.movies.series import natural_key

__all__ = [
    "MIN_SIDE_PX",
    "Movie",
    "MovieBase",
    "ReadOnce",
    "check_block",
    "check_movie",
    "check_offset",
    "even_frames",
    "find_hot_pixels",
    "frames_per_block",
    "iterate_blocks",
    "natural_key",
    "open_movie",
    "sample_frames",
    "tell_hot_pixels",
]
