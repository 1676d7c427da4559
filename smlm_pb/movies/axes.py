"""Which axis of an image file or array is time, and which arrangements are no movie."""

from __future__ import annotations

from collections.abc import Sequence

from smlm_pb.errors import MovieError

#: Axis codes of tifffile that may count frames: time, plain image number, unknown sequence, and z (see
#: below).
_TIME_CODES = "TIQZ"
#: ImageJ shows seven channels at most; a longer lone channel axis is a movie whose writer named no axes.
_MOST_CHANNELS = 7


def time_axis(axes: str, shape: Sequence[int], where: str) -> tuple[int | None, list[str]]:
    """Find the frame axis among named axes.

    A lone z axis counts as time, because ImageJ and many cameras save every stack as "slices"; so does a lone
    channel axis that is longer than any microscope's.

    Parameters
    ----------
    axes : str
        One code per axis as in tifffile: T time, Z, C channel, S sample (colour), Y, X, I/Q unnamed.
    shape : sequence of int
        Length of every axis.
    where : str
        The file, for messages.

    Returns
    -------
    index : int or None
        Position of the frame axis in ``axes``; None when there is a single frame.
    notes : list of str
        What the user should know about the choice.

    Raises
    ------
    MovieError
        For colour, several channels, z-stacks over time, several positions, and frames that are not stored as
        ``YX``.
    """
    described = f"axes {axes} of lengths {tuple(int(length) for length in shape)}"
    long_axes = {code: int(length) for code, length in zip(axes, shape, strict=True) if length != 1}
    if long_axes.get("S", 1) > 1:
        raise MovieError(
            f"{where} holds colour images ({described}): localization needs the raw camera frames in grey "
            "levels; save one channel as a 16-bit stack."
        )
    if "C" in long_axes and (long_axes["C"] <= _MOST_CHANNELS or set(long_axes) & set(_TIME_CODES)):
        raise MovieError(
            f"{where} holds {long_axes['C']} channels ({described}): split the channels and open one of them."
        )
    if not axes.replace("S", "").endswith("YX"):
        raise MovieError(f"{where} is not stored frame by frame ({described}): save it as a plain stack, axes TYX.")
    counting = [index for index, code in enumerate(axes) if code not in "SYX" and shape[index] != 1]
    if len(counting) > 1:
        kind = "a z-stack over time" if {"Z", "T"} <= set(long_axes) else "more than one series of frames"
        raise MovieError(
            f"{where} holds {kind} ({described}): save one plane over time as a stack, axes TYX, and open that."
        )
    if not counting:
        return None, []
    code = axes[counting[0]]
    if code not in _TIME_CODES + "C":
        raise MovieError(
            f"{where} counts its frames along axis {code!r} ({described}): save one position over time as a "
            "stack, axes TYX, and open that."
        )
    meant = {"Z": "z planes", "C": "channels"}.get(code)
    notes = [f"the {shape[counting[0]]} {meant} of {where} are read as frames over time"] if meant else []
    return counting[0], notes


def array_time_axis(shape: Sequence[int], where: str) -> int | None:
    """Find the frame axis of an array without axis names; the last two axes are y and x.

    Parameters
    ----------
    shape : sequence of int
        Shape of the array.
    where : str
        Name of the array, for messages.

    Returns
    -------
    int or None
        Position of the frame axis; None when there is a single frame.

    Raises
    ------
    MovieError
        When the array has fewer than two axes, several long leading axes, or colour as its last axis.
    """
    shown = tuple(int(length) for length in shape)
    if len(shape) < 2:
        raise MovieError(f"{where} has shape {shown}: a movie has the axes (frame, y, x); reshape the array.")
    leading = [index for index in range(len(shape) - 2) if shape[index] != 1]
    if len(shape) >= 3 and shape[-1] in (3, 4) and min(shape[-3], shape[-2]) > 4:
        raise MovieError(
            f"{where} has shape {shown}, which looks like colour images (…, y, x, colour): localization "
            "needs raw camera frames (frame, y, x); choose one channel."
        )
    if len(leading) > 1:
        raise MovieError(
            f"{where} has shape {shown}: several channels or z planes cannot be localized together; choose "
            "one, so that the axes are (frame, y, x)."
        )
    if leading:
        return leading[0]
    return len(shape) - 3 if len(shape) > 2 else None
