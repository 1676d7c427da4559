"""Puts layers into the viewer in steps, none of which holds up the window for long."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import suppress
from typing import Any

_log = logging.getLogger(__name__)


def insert_quietly(viewer: Any, layer: Any, index: int | None = None) -> None:
    """Add a layer and leave the selection as it is.

    napari makes every new layer the active one: it exchanges the controls, the buttons and the mouse of the canvas, and
    back again when the former layer is chosen. Here nobody hears of it, which saves a third of the time.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    layer : napari.layers.Layer
        A layer that is not in the viewer yet.
    index : int, optional
        Where among the layers; on top when left out.
    """
    layers, selection = viewer.layers, viewer.layers.selection
    before = set(selection)
    with selection.events.blocker_all():
        layers.insert(len(layers) if index is None else index, layer)
        if len(before) == 1:
            selection.active = next(iter(before))
        else:
            selection.clear()
            selection.update(before)


def first_drawing(viewer: Any, layer: Any) -> Generator[None, None, None]:
    """Make a new layer visible so that each of its parts is drawn for the first time in a turn of its own.

    A layer of points consists of the points, their highlights, and letters, also where there are none. Each has a
    program of the graphics card that takes up to 50 ms to make. napari offers no way to the parts of a layer: where
    they are not found, all of them are drawn in one turn.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    layer : napari.layers.Layer
        A hidden layer in it.

    Yields
    ------
    None
        Where the window may draw.
    """
    later = _parts_of(viewer, layer)[1:]
    try:
        for part in later:
            part.visible = False
        layer.visible = True
        yield
        for part in later:
            part.visible = True
            yield
    finally:  # the layer may be gone by now
        with suppress(Exception):
            for part in later:
                part.visible = True


def _parts_of(viewer: Any, layer: Any) -> list[Any]:
    """What is drawn of a layer one after the other; empty where napari keeps it elsewhere."""
    try:
        return list(viewer.window._qt_viewer.canvas.layer_to_visual[layer].node._subvisuals)
    except (AttributeError, KeyError, TypeError):
        _log.debug("The parts of layer %s were not found", layer.name)
        return []
