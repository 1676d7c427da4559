"""Keeps the super-resolved image layer in step with the molecules, the settings, and the view."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_plugin.background import Latest
from napari_plugin.image_layers import (
    ASSUMED_PIXEL_SIZE_NM,
    as_rgb,
    brightness_limits,
    draw_image,
    image_placement,
)
from napari_plugin.layer_steps import insert_quietly
from napari_plugin.movie_layers import HELPER_KEY, Place
from napari_plugin.turns import Turns, unpainted

if TYPE_CHECKING:
    from napari_plugin.molecules import Molecules
    from smlm_pb.analysis.rendering import Grid, Rendering
    from smlm_pb.localizations import Localizations

#: Wait this long after the last change before drawing, ms.
_SETTLE_MS = 120
#: The brightness of a growing image is changed when it is so many times too low or too high.
_ABOUT = 1.15
#: The slider of the brightness may go so many times further than the brightest pixel.
_HEADROOM = 2.0
#: Narrowest pixels for the present view, nm.
_FINEST_NM = 0.5
_NAME = "super-resolved"
_IMAGE = "image"


@dataclass(frozen=True)
class ImageOptions:
    """How the image is drawn.

    Parameters
    ----------
    pixel_size_nm : float
        Edge of a pixel of the image.
    method : {"gaussian", "histogram", "blur"}
        See :func:`smlm_pb.analysis.render`.
    blur_nm : float
        Width of the fixed blur.
    colour_by : str, optional
        Column that gives the colour; brightness alone when left out.
    colormap : str
        Name of a napari colormap for an image without ``colour_by``.
    follow_view : bool
        Draw what is on the screen, as fine as the screen shows it, instead of the whole field.
    """

    pixel_size_nm: float = 10.0
    method: str = "gaussian"
    blur_nm: float = 20.0
    colour_by: str | None = None
    colormap: str = "inferno"
    follow_view: bool = False

    def render_options(self) -> dict[str, Any]:
        """Keyword arguments of :func:`smlm_pb.analysis.render`, without pixel size and region."""
        return {
            "method": self.method,
            "blur_nm": self.blur_nm if self.method == "blur" else None,
            "colour_by": self.colour_by,
        }


@dataclass(frozen=True)
class _Picture:
    rendering: Rendering
    pixels: npt.NDArray[Any]
    limits: tuple[float, float] | None
    place: Place
    is_new_view: bool
    remarks: tuple[str, ...]


class ResultImage(QObject):
    """The image layer and the thread that draws it.

    A gray image and one in colours are two layers, because napari cannot turn the one into the other; neither is ever
    removed, because removing a hidden layer can crash napari's canvas.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    on_error : callable
        Called with what went wrong.
    panel : QWidget
        Any widget of the window.
    """

    drawn = Signal(object)

    def __init__(
        self, viewer: Any, on_error: Callable[[Exception], None], panel: QWidget, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._panel = viewer, panel
        #: Also those of a panel that was closed: under new ones they would shine through.
        self._layers: dict[str, Any] = {
            "colour" if layer.rgb else "plain": layer
            for layer in viewer.layers
            if layer.metadata.get(HELPER_KEY) == _IMAGE
        }
        self._molecules: Molecules | None = None
        self._options = ImageOptions()
        self._latest, self._turns = Latest(self._on_rendered, on_error, self), Turns(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self._draw)
        self._fit_limits = True
        self.rendering: Rendering | None = None
        #: What the library said about it.
        self.remarks: tuple[str, ...] = ()
        viewer.scene.camera.events.zoom.connect(self._on_view)
        viewer.scene.camera.events.center.connect(self._on_view)

    @property
    def layer(self) -> Any:
        """The layer that is in use; None before the first image, or when the user has deleted it."""
        return self._existing("colour" if self._options.colour_by else "plain")

    def set_molecules(self, molecules: Molecules | None) -> None:
        """Draw these from now on."""
        self._molecules = molecules
        self._fit_limits = True
        self.refresh()

    def set_options(self, options: ImageOptions) -> None:
        """Draw like this from now on."""
        if options == self._options:
            return
        self._fit_limits = True
        self._options = options
        self.refresh()

    def refresh(self) -> None:
        """Draw again, soon."""
        if self._molecules is not None:
            self._timer.start()

    def end_growing(self) -> None:
        """Nothing came of a run: show again what was shown before."""
        if self._molecules is not None:
            self.refresh()
        elif (layer := self._existing("plain")) is not None and layer.visible:
            self._viewer.layers.remove(layer)

    def begin_growing(self, image: npt.NDArray[np.float32], grid: Grid, place: Place) -> Generator[None, None, None]:
        """Show the image of a run that begins, in steps.

        Making, adding and drawing a layer for the first time takes napari up to a tenth of a second each.
        """
        self._forget()
        limits = brightness_limits(image)
        if self._existing("plain") is not None:
            yield from self._put("plain", image, limits, place, grid)
            return
        self._layers["plain"] = layer = self._make("plain", image, limits, image_placement(place, grid), visible=False)
        yield
        with unpainted(self._panel):
            self._insert(layer)
            yield
        yield
        if self._existing("plain") is layer:
            _set_visible(layer)

    def show_growing(self, image: npt.NDArray[np.float32], grid: Grid, place: Place) -> Generator[None, None, None]:
        """Show the image of a run that goes on, in steps; small changes of its brightness are not followed."""
        self._forget()
        low, high = brightness_limits(image)
        layer = self._existing("plain")
        is_bright = layer is not None and _is_about(layer.contrast_limits[1], high)
        yield from self._put("plain", image, None if is_bright else (low, high), place, grid)

    def close(self) -> None:
        """Let go of the viewer."""
        self._timer.stop()
        self._turns.stop()
        self._latest.close()
        self._viewer.scene.camera.events.zoom.disconnect(self._on_view)
        self._viewer.scene.camera.events.center.disconnect(self._on_view)

    # -- drawing -------------------------------------------------------------------------------------------

    def _on_view(self, event: Any = None) -> None:
        if self._options.follow_view and self._molecules is not None:
            self._timer.start()

    def _draw(self) -> None:
        molecules, options, fit = self._molecules, self._options, self._fit_limits
        if molecules is None:
            return
        table, mask, place = molecules.table, molecules.mask, molecules.place
        pixel_size_nm, roi = options.pixel_size_nm, None
        if options.follow_view:
            pixel_size_nm, roi = self._view(table, place)

        def work() -> _Picture:
            told: list[str] = []
            drawn = {"pixel_size_nm": pixel_size_nm, "roi": roi, **options.render_options()}
            rendering = draw_image(table.select(mask), told=told, **drawn)
            remarks = () if roi is not None else tuple(told)  # on a part of the field there may be no molecule
            if options.colour_by:
                return _Picture(rendering, as_rgb(rendering.image), None, place, fit, remarks)
            limits = brightness_limits(rendering.image)
            return _Picture(rendering, rendering.image, limits, place, fit, remarks)

        self._latest.submit(work)

    def _view(self, table: Localizations, place: Place) -> tuple[float, tuple[float, float, float, float] | None]:
        """Pixel size and region, in camera pixels, of what is on the screen."""
        camera_pixel = table.info.pixel_size_nm or ASSUMED_PIXEL_SIZE_NM
        scale, translate = np.array(place.scale[-2:]), np.array(place.translate[-2:])
        zoom = float(self._viewer.scene.camera.zoom)
        centre = (np.array(self._viewer.scene.camera.center[-2:], float) - translate) / scale
        half = np.array(self._viewer.canvas.size, float) / zoom / scale / 2
        first, last = np.array([-0.5, -0.5]), np.array([table.info.height, table.info.width]) - 0.5
        low, high = np.maximum(centre - half, first), np.minimum(centre + half, last)
        pixel_size_nm = max(_FINEST_NM, camera_pixel / (zoom * float(scale[1])))
        if np.any(high - low <= 0):
            return max(pixel_size_nm, self._options.pixel_size_nm), None
        return pixel_size_nm, (float(low[0]), float(low[1]), float(high[0]), float(high[1]))

    def _forget(self) -> None:
        """What was asked for before, and is not shown yet, is not wanted any more."""
        self._latest.forget()
        self._turns.stop()

    def _on_rendered(self, picture: _Picture) -> None:
        self._turns.start(self._show(picture))

    def _show(self, picture: _Picture) -> Generator[None, None, None]:
        in_colour = picture.pixels.ndim == 3
        limits = picture.limits if picture.is_new_view or self._options.follow_view else None
        yield from self._put(
            "colour" if in_colour else "plain", picture.pixels, limits, picture.place, picture.rendering.grid
        )
        other = self._existing("plain" if in_colour else "colour")
        if other is not None:
            other.visible = False
        self._fit_limits = False
        self.rendering, self.remarks = picture.rendering, picture.remarks
        self.drawn.emit(picture.rendering)

    # -- layers --------------------------------------------------------------------------------------------

    def _existing(self, kind: str) -> Any:
        layer = self._layers.get(kind)
        return layer if layer is not None and layer in self._viewer.layers else None

    def _put(
        self,
        kind: str,
        pixels: npt.NDArray[Any],
        limits: tuple[float, float] | None,
        place: Place,
        grid: Grid,
    ) -> Generator[None, None, None]:
        """Show pixels; nothing is painted before they lie in the right place."""
        layer = self._existing(kind)
        placement = image_placement(place, grid)
        if layer is None:
            self._layers[kind] = self._make(kind, pixels, limits, placement, visible=True)
            with unpainted(self._panel):
                self._insert(self._layers[kind])
                yield
            return
        with unpainted(self._panel) if _moves(layer, placement) else nullcontext():
            layer.data = pixels
            if kind == "plain" and (limits is not None or layer.colormap.name != self._options.colormap):
                yield
                self._set_brightness(layer, limits)
            for name in _moves(layer, placement):
                yield
                setattr(layer, name, placement[name])
        _set_visible(layer)

    def _set_brightness(self, layer: Any, limits: tuple[float, float] | None) -> None:
        if limits is not None:
            wanted = (limits[0], max(limits[1], 1e-6))
            highest = max(wanted[1], float(layer.data.max()))
            if not highest <= layer.contrast_limits_range[1] <= _HEADROOM * highest:
                layer.contrast_limits_range = (0.0, highest)
            if tuple(layer.contrast_limits) != wanted:
                layer.contrast_limits = wanted
        if layer.colormap.name != self._options.colormap:
            layer.colormap = self._options.colormap

    def _make(
        self,
        kind: str,
        pixels: npt.NDArray[Any],
        limits: tuple[float, float] | None,
        placement: dict[str, Any],
        *,
        visible: bool,
    ) -> Any:
        from napari.layers import Image

        arguments: dict[str, Any]
        if kind == "plain":
            arguments = {
                "name": _NAME,
                "colormap": self._options.colormap,
                "contrast_limits": (0.0, max(limits[1] if limits else 1.0, 1e-6)),
                "blending": "additive",
            }
        else:
            arguments = {"name": f"{_NAME}, in colours", "rgb": True, "blending": "additive"}
        return Image(pixels, metadata={HELPER_KEY: _IMAGE}, visible=visible, **arguments, **placement)

    def _insert(self, layer: Any) -> None:
        """The points stay on top."""
        from napari.layers import Points

        layers = self._viewer.layers
        lowest = next((index for index, other in enumerate(layers) if isinstance(other, Points)), len(layers))
        insert_quietly(self._viewer, layer, lowest)


def _is_about(one: float, other: float) -> bool:
    """Whether two limits show an image nearly alike."""
    return max(one, other) <= _ABOUT * min(one, other)


def _set_visible(layer: Any) -> None:
    """Show a layer; napari draws anew also where it is shown already."""
    if not layer.visible:
        layer.visible = True


def _moves(layer: Any, placement: dict[str, Any]) -> list[str]:
    """What is not right yet of where a layer lies; each of these changes makes napari cut all layers anew."""
    wrong = [
        name
        for name in ("scale", "translate")
        if not np.allclose(getattr(layer, name), placement[name], rtol=1e-12, atol=0)
    ]
    return wrong + [
        name
        for name in ("units", "axis_labels")
        if tuple(map(str, getattr(layer, name))) != tuple(map(str, placement[name]))
    ]
